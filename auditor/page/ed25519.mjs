// Ed25519 verification (RFC 8032), as strict as SPEC 4.2 and 4.5: no weak keys, one spelling of R and of S.
import { concat, sha512 } from "./bytes.mjs";

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const mod = (a, m = P) => ((a % m) + m) % m;

function power(base, exponent) {
  let result = 1n;
  for (base = mod(base); exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = mod(result * base);
    base = mod(base * base);
  }
  return result;
}

const D = mod(-121665n * power(121666n, P - 2n));
const ROOT_OF_MINUS_ONE = power(2n, (P - 1n) / 4n);
const littleEndian = (bytes) => bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);

// Extended coordinates: x = X/Z, y = Y/Z, T = XY/Z.
const ZERO = { X: 0n, Y: 1n, Z: 1n, T: 0n };

function add(p, q) {
  const a = mod((p.Y - p.X) * (q.Y - q.X));
  const b = mod((p.Y + p.X) * (q.Y + q.X));
  const c = mod(2n * D * mod(p.T * q.T));
  const d = mod(2n * p.Z * q.Z);
  const [e, f, g, h] = [b - a, d - c, d + c, b + a];
  return { X: mod(e * f), Y: mod(g * h), Z: mod(f * g), T: mod(e * h) };
}

function decode(bytes) {
  const number = littleEndian(bytes);
  const [sign, y] = [number >> 255n, BigInt.asUintN(255, number)];
  if (y >= P) return null;
  const [u, v] = [mod(y * y - 1n), mod(D * y * y + 1n)];
  let x = mod(u * power(v, 3n) * power(u * power(v, 7n), (P - 5n) / 8n));
  if (mod(v * x * x) !== u) x = mod(x * ROOT_OF_MINUS_ONE);
  if (mod(v * x * x) !== u || (x === 0n && sign === 1n)) return null;
  if ((x & 1n) !== sign) x = P - x;
  return { X: x, Y: y, Z: 1n, T: mod(x * y) };
}

function encode(p) {
  const inverse = power(p.Z, P - 2n);
  let number = mod(p.Y * inverse) | ((mod(p.X * inverse) & 1n) << 255n);
  return Uint8Array.from({ length: 32 }, () => {
    const byte = Number(number & 255n);
    number >>= 8n;
    return byte;
  });
}

const BASE = (() => {
  const y = mod(4n * power(5n, P - 2n));
  const bytes = encode({ X: 0n, Y: y, Z: 1n, T: 0n });
  return decode(bytes);
})();

// Why a public key MUST be refused, or null (SPEC 4.2).
export function weakKey(key) {
  if (key.length !== 32) return "an Ed25519 public key has 32 bytes";
  const point = decode(key);
  if (point === null) return "the public key is not the encoding of a point of the curve";
  let eight = point;
  for (let i = 0; i < 3; i++) eight = add(eight, eight);
  return eight.X === 0n && eight.Y === eight.Z ? "the public key is a low-order point, for which anything verifies" : null;
}

// Whether `signature` over `message` is by `key`: S below the group's order, and R exactly the bytes of SB - kA.
export function verifyEd25519(key, message, signature) {
  if (signature.length !== 64 || weakKey(key) !== null) return false;
  const [r, s] = [signature.slice(0, 32), littleEndian(signature.slice(32))];
  if (s >= ORDER) return false;
  const k = mod(littleEndian(sha512(concat(r, key, message))), ORDER);
  const A = decode(key);
  const minusA = { X: mod(-A.X), Y: A.Y, Z: 1n, T: mod(-A.T) };
  const both = add(BASE, minusA);
  let sum = ZERO;
  for (let bit = 252n; bit >= 0n; bit--) {
    sum = add(sum, sum);
    const [inS, inK] = [(s >> bit) & 1n, (k >> bit) & 1n];
    if (inS || inK) sum = add(sum, inS && inK ? both : inS ? BASE : minusA);
  }
  return encode(sum).every((byte, i) => byte === r[i]);
}
