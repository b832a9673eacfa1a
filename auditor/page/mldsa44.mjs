// ML-DSA-44 verification (FIPS 204, algorithms 3 and 8), external interface with an empty context. Only for cosignatures.
import { concat, equal, shake } from "./bytes.mjs";

const Q = 8380417;
const N = 256;
const [ROWS, COLUMNS, TAU, GAMMA1, GAMMA2, BETA, OMEGA] = [4, 4, 39, 1 << 17, (Q - 1) / 88, 78, 80];
export const MLDSA44_PUBLIC_KEY = 1312;
export const MLDSA44_SIGNATURE = 2420;

// Products stay below 2^53 only in two steps: 23-bit times 12 bits, then again.
const times = (a, b) => (((a * (b >>> 12)) % Q) * 4096 + a * (b & 4095)) % Q;

function powerOf(base, exponent) {
  let result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result = times(result, base);
    base = times(base, base);
  }
  return result;
}

const reversed = (i) => parseInt(i.toString(2).padStart(8, "0").split("").reverse().join(""), 2);
const ZETAS = Array.from({ length: N }, (_, i) => powerOf(1753, reversed(i)));

function ntt(polynomial) {
  const w = polynomial.slice();
  let m = 0;
  for (let length = 128; length >= 1; length >>= 1)
    for (let start = 0; start < N; start += 2 * length) {
      const zeta = ZETAS[++m];
      for (let j = start; j < start + length; j++) {
        const t = times(zeta, w[j + length]);
        w[j + length] = (w[j] - t + Q) % Q;
        w[j] = (w[j] + t) % Q;
      }
    }
  return w;
}

function inverseNtt(polynomial) {
  const w = polynomial.slice();
  let m = N;
  for (let length = 1; length < N; length <<= 1)
    for (let start = 0; start < N; start += 2 * length) {
      const zeta = Q - ZETAS[--m];
      for (let j = start; j < start + length; j++) {
        const t = w[j];
        w[j] = (t + w[j + length]) % Q;
        w[j + length] = times(zeta, (t - w[j + length] + Q) % Q);
      }
    }
  return w.map((x) => times(8347681, x));
}

// `count` numbers of `bits` bits, little end first.
function unpack(bytes, bits, count) {
  const out = new Array(count);
  let [held, have, at] = [0, 0, 0];
  for (let i = 0; i < count; i++) {
    while (have < bits) {
      held += bytes[at++] * 2 ** have;
      have += 8;
    }
    out[i] = held % 2 ** bits;
    held = Math.floor(held / 2 ** bits);
    have -= bits;
  }
  return out;
}

function sampleUniform(seed, column, row) {
  const read = shake(128, seed, Uint8Array.of(column, row));
  const out = [];
  while (out.length < N) {
    const [a, b, c] = read(3);
    const value = a | (b << 8) | ((c & 127) << 16);
    if (value < Q) out.push(value);
  }
  return out;
}

function sampleInBall(seed) {
  const read = shake(256, seed);
  const out = new Array(N).fill(0);
  const signs = unpack(read(8), 1, 64);
  for (let i = N - TAU; i < N; i++) {
    let j = read(1)[0];
    while (j > i) j = read(1)[0];
    out[i] = out[j];
    out[j] = signs[i + TAU - N] ? Q - 1 : 1;
  }
  return out;
}

// FIPS 204 algorithms 36 and 40: the high bits of r, moved by the hint.
function useHint(hint, r) {
  let low = r % (2 * GAMMA2);
  if (low > GAMMA2) low -= 2 * GAMMA2;
  let high;
  if (r - low === Q - 1) {
    high = 0;
    low -= 1;
  } else high = (r - low) / (2 * GAMMA2);
  if (!hint) return high;
  return low > 0 ? (high + 1) % 44 : (high + 43) % 44;
}

// FIPS 204 algorithm 21, which accepts one spelling of the hint only.
function hints(bytes) {
  const out = Array.from({ length: ROWS }, () => new Array(N).fill(0));
  let index = 0;
  for (let i = 0; i < ROWS; i++) {
    const end = bytes[OMEGA + i];
    if (end < index || end > OMEGA) return null;
    for (const first = index; index < end; index++) {
      if (index > first && bytes[index - 1] >= bytes[index]) return null;
      out[i][bytes[index]] = 1;
    }
  }
  for (; index < OMEGA; index++) if (bytes[index] !== 0) return null;
  return out;
}

export function verifyMlDsa44(key, message, signature) {
  if (key.length !== MLDSA44_PUBLIC_KEY || signature.length !== MLDSA44_SIGNATURE) return false;
  const rho = key.slice(0, 32);
  const challenge = signature.slice(0, 32);
  const z = [];
  for (let i = 0; i < COLUMNS; i++)
    z.push(unpack(signature.subarray(32 + 576 * i, 32 + 576 * (i + 1)), 18, N).map((x) => GAMMA1 - x));
  if (z.some((polynomial) => polynomial.some((x) => Math.abs(x) >= GAMMA1 - BETA))) return false;
  const hint = hints(signature.subarray(32 + 576 * COLUMNS));
  if (hint === null) return false;
  const mu = shake(256, shake(256, key)(64), Uint8Array.of(0, 0), message)(64);
  const c = ntt(sampleInBall(challenge));
  const zHat = z.map((polynomial) => ntt(polynomial.map((x) => (x + Q) % Q)));
  const high = [];
  for (let i = 0; i < ROWS; i++) {
    const t = ntt(unpack(key.subarray(32 + 320 * i, 32 + 320 * (i + 1)), 10, N).map((x) => times(x, 8192)));
    const sum = c.map((x, n) => Q - times(x, t[n]));
    for (let j = 0; j < COLUMNS; j++) {
      const a = sampleUniform(rho, j, i);
      for (let n = 0; n < N; n++) sum[n] = (sum[n] + times(a[n], zHat[j][n])) % Q;
    }
    const w = inverseNtt(sum.map((x) => x % Q)).map((x, n) => useHint(hint[i][n], x));
    // 44 values fit in 6 bits.
    for (let n = 0; n < N; n += 4) {
      const word = w[n] | (w[n + 1] << 6) | (w[n + 2] << 12) | (w[n + 3] << 18);
      high.push(word & 255, (word >> 8) & 255, word >> 16);
    }
  }
  return equal(challenge, shake(256, concat(mu, Uint8Array.from(high)))(32));
}
