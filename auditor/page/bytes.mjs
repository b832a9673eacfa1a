// Errors, bytes as text, and the hash functions. Written from SPEC.md 2 and 3, FIPS 180-4 and FIPS 202 alone.
//
// Everything is synchronous and our own, so that one file works in every browser, from a disk, with no network and no
// secure context. Nothing here handles a secret: speed and constant time do not matter, being right does.

// What is wrong with an input: `kind` is "malformed" (the bytes are not what SPEC.md says) or "unverifiable" (well
// formed, not to be believed), `reason` one of the words for other programs (CLI_PROTOCOL.md of the conformance kit).
// Neither kind accuses anybody (SPEC 13.7).
export class Problem extends Error {
  constructor(kind, reason, message, where = "") {
    super(message);
    this.kind = kind;
    this.reason = reason;
    this.where = where;
  }
  toString() {
    return this.where ? `${this.where}: ${this.message}` : this.message;
  }
}

export const malformed = (message, reason = "schema") => new Problem("malformed", reason, message);
export const unverifiable = (message, reason) => new Problem("unverifiable", reason, message);

// Run `what`; a Problem that comes out says where.
export function within(where, what) {
  try {
    return what();
  } catch (error) {
    if (error instanceof Problem) error.where = error.where ? `${where}, ${error.where}` : where;
    throw error;
  }
}

export function limit(bytes, most, name) {
  if (bytes.length > most) throw malformed(`${name} has ${bytes.length} bytes, at most ${most} are read`, "too-large");
}

const TEXT_OUT = new TextEncoder();
const TEXT_IN = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export const utf8 = (text) => TEXT_OUT.encode(text);

export function fromUtf8(bytes) {
  try {
    return TEXT_IN.decode(bytes);
  } catch {
    throw malformed("not UTF-8", "malformed");
  }
}

export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function equal(a, b) {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

export function fromHex(text, length, name = "hexadecimal text") {
  if (!/^(?:[0-9a-f]{2})*$/.test(text) || (length !== undefined && text.length !== 2 * length))
    throw malformed(`${name} is not ${length ?? ""} bytes in lower-case hexadecimal`, "malformed");
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

const STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const SIX_BITS = new Map([...STANDARD].map((letter, value) => [letter.charCodeAt(0), value]));

// RFC 4648 section 4, with padding and with unused bits zero (SPEC 2.6).
export function fromBase64(text, name = "base64 text") {
  const bad = () => malformed(`${name} is not base64 in its one spelling`, "malformed");
  if (text.length % 4 !== 0) throw bad();
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const out = new Uint8Array((text.length / 4) * 3 - padding);
  let at = 0;
  for (let i = 0; i < text.length; i += 4) {
    let word = 0;
    const last = i + 4 === text.length ? padding : 0;
    for (let j = 0; j < 4; j++) {
      const value = j >= 4 - last ? 0 : SIX_BITS.get(text.charCodeAt(i + j));
      if (value === undefined) throw bad();
      word = (word << 6) | value;
    }
    if ((last === 2 && word & 0xffff) || (last === 1 && word & 0xff)) throw bad();
    for (let j = 0; j < 3 - last; j++) out[at++] = (word >> (16 - 8 * j)) & 255;
  }
  return out;
}

// In envelopes the URL-safe alphabet is accepted too, never both in one text (SPEC 2.6).
export function fromEitherBase64(text, name) {
  if (/[-_]/.test(text)) {
    if (/[+/]/.test(text)) throw malformed(`${name} mixes two base64 alphabets`, "malformed");
    return fromBase64(text.replaceAll("-", "+").replaceAll("_", "/"), name);
  }
  return fromBase64(text, name);
}

export function uint64(value) {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(value));
  return out;
}

export const fromUint64 = (bytes, at = 0) => new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at);

// ---- SHA-2 (FIPS 180-4). Constants are computed: the first 64 bits of the fractional parts of roots of primes.

function primes(count) {
  const found = [];
  for (let n = 2n; found.length < count; n++) if (found.every((p) => n % p !== 0n)) found.push(n);
  return found;
}

function integerRoot(value, degree) {
  let low = 0n;
  let high = 1n << (BigInt(value.toString(2).length) / degree + 1n);
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (middle ** degree <= value) low = middle;
    else high = middle;
  }
  return low;
}

const FRACTION = (p, degree) => BigInt.asUintN(64, integerRoot(p << (64n * degree), degree));
const halves = (words) => words.flatMap((word) => [Number(word >> 32n), Number(word & 0xffffffffn)]);
const ROUND_CONSTANTS = Int32Array.from(halves(primes(80).map((p) => FRACTION(p, 3n))));
const START = Int32Array.from(halves(primes(8).map((p) => FRACTION(p, 2n))));
const K256 = Int32Array.from({ length: 64 }, (_, i) => ROUND_CONSTANTS[2 * i]);
const START256 = Int32Array.from({ length: 8 }, (_, i) => START[2 * i]);

function padded(data, block) {
  const lengthBytes = block / 8;
  const total = Math.ceil((data.length + 1 + lengthBytes) / block) * block;
  const out = new Uint8Array(total);
  out.set(data);
  out[data.length] = 0x80;
  out.set(uint64(BigInt(data.length) * 8n), total - 8);
  return out;
}

export function sha256(...parts) {
  const bytes = padded(parts.length === 1 ? parts[0] : concat(...parts), 64);
  const view = new DataView(bytes.buffer);
  const state = Int32Array.from(START256);
  const w = new Int32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < bytes.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const a = w[i - 15];
      const b = w[i - 2];
      w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ (a >>> 3)) + w[i - 7] + (turn(b, 17) ^ turn(b, 19) ^ (b >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + K256[i] + w[i]) | 0;
      const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + one) | 0;
      d = c;
      c = b;
      b = a;
      a = (one + two) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => (state[i] += word));
  }
  const out = new Uint8Array(32);
  state.forEach((word, i) => new DataView(out.buffer).setInt32(4 * i, word));
  return out;
}

export function sha512(...parts) {
  const bytes = padded(concat(...parts), 128);
  const view = new DataView(bytes.buffer);
  const mask = (x) => BigInt.asUintN(64, x);
  const word = (table, i) => (BigInt(table[2 * i] >>> 0) << 32n) | BigInt(table[2 * i + 1] >>> 0);
  const constants = Array.from({ length: 80 }, (_, i) => word(ROUND_CONSTANTS, i));
  const state = Array.from({ length: 8 }, (_, i) => word(START, i));
  const turn = (x, n) => (x >> n) | mask(x << (64n - n));
  const w = new Array(80);
  for (let at = 0; at < bytes.length; at += 128) {
    for (let i = 0; i < 16; i++) w[i] = view.getBigUint64(at + 8 * i);
    for (let i = 16; i < 80; i++) {
      const a = w[i - 15];
      const b = w[i - 2];
      const small = turn(a, 1n) ^ turn(a, 8n) ^ (a >> 7n);
      w[i] = mask(w[i - 16] + small + w[i - 7] + (turn(b, 19n) ^ turn(b, 61n) ^ (b >> 6n)));
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 80; i++) {
      const big = turn(e, 14n) ^ turn(e, 18n) ^ turn(e, 41n);
      const one = h + big + ((e & f) ^ (mask(~e) & g)) + constants[i] + w[i];
      const two = (turn(a, 28n) ^ turn(a, 34n) ^ turn(a, 39n)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = mask(d + one);
      d = c;
      c = b;
      b = a;
      a = mask(one + two);
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i] = mask(state[i] + value)));
  }
  return concat(...state.map(uint64));
}

// ---- SHAKE (FIPS 202): an endless reader of `size` bytes at a time.

const KECCAK_ROUNDS = (() => {
  let lfsr = 1;
  return Array.from({ length: 24 }, () => {
    let constant = 0n;
    for (let j = 0; j < 7; j++) {
      if (lfsr & 1) constant |= 1n << BigInt((1 << j) - 1);
      lfsr = (lfsr << 1) ^ (lfsr & 0x80 ? 0x171 : 0);
    }
    return constant;
  });
})();

function keccak(a) {
  const turn = (x, n) => (n === 0n ? x : BigInt.asUintN(64, x << n) | (x >> (64n - n)));
  for (const constant of KECCAK_ROUNDS) {
    const c = [0, 1, 2, 3, 4].map((x) => a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20]);
    for (let x = 0; x < 5; x++) {
      const d = c[(x + 4) % 5] ^ turn(c[(x + 1) % 5], 1n);
      for (let y = 0; y < 25; y += 5) a[x + y] ^= d;
    }
    let [x, y, lane] = [1, 0, a[1]];
    for (let t = 0; t < 24; t++) {
      [x, y] = [y, (2 * x + 3 * y) % 5];
      const next = a[x + 5 * y];
      a[x + 5 * y] = turn(lane, BigInt((((t + 1) * (t + 2)) / 2) % 64));
      lane = next;
    }
    for (let row = 0; row < 25; row += 5) {
      const b = a.slice(row, row + 5);
      for (let i = 0; i < 5; i++) a[row + i] = b[i] ^ (BigInt.asUintN(64, ~b[(i + 1) % 5]) & b[(i + 2) % 5]);
    }
    a[0] ^= constant;
  }
}

export function shake(bits, ...parts) {
  const rate = bits === 128 ? 168 : 136;
  const data = concat(...parts);
  const input = new Uint8Array(Math.ceil((data.length + 1) / rate) * rate);
  input.set(data);
  input[data.length] ^= 0x1f;
  input[input.length - 1] ^= 0x80;
  const state = new Array(25).fill(0n);
  const view = new DataView(input.buffer);
  for (let at = 0; at < input.length; at += rate) {
    for (let i = 0; i < rate / 8; i++) state[i] ^= view.getBigUint64(at + 8 * i, true);
    keccak(state);
  }
  let block = [];
  return (size) => {
    const out = new Uint8Array(size);
    for (let i = 0; i < size; i++) {
      if (block.length === 0) {
        const bytes = new DataView(new ArrayBuffer(rate));
        for (let j = 0; j < rate / 8; j++) bytes.setBigUint64(8 * j, state[j], true);
        block = Array.from(new Uint8Array(bytes.buffer)).reverse();
        keccak(state);
      }
      out[i] = block.pop();
    }
    return out;
  };
}
