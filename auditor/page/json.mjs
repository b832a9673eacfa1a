// Strict JSON, its canonical spelling, and the spellings of numbers and times. Written from SPEC.md 2.
import { equal, fromHex, fromUtf8, malformed, utf8 } from "./bytes.mjs";

export const MAX_DEPTH = 32;
const LARGEST = 2 ** 53 - 1;

// Objects become Maps, so that no key of theirs can mean anything to JavaScript.
export function parseJson(bytes) {
  const text = fromUtf8(bytes);
  let at = 0;
  const bad = (what) => malformed(`${what} at character ${at} of a JSON text`, "malformed");
  const blank = () => {
    while (at < text.length && " \t\n\r".includes(text[at])) at++;
  };
  const token = /-?(?:0|[1-9][0-9]*)(?![0-9.eE])/y;
  const plain = /[^"\\\u0000-\u001f]*/y;

  function string() {
    let out = "";
    for (at++; ; ) {
      plain.lastIndex = at;
      const run = plain.exec(text)[0];
      out += run;
      at += run.length;
      const next = text[at];
      if (next === '"') break;
      if (next !== "\\") throw bad("an unfinished string or a control character");
      const letter = text[at + 1];
      const simple = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
      if (letter === "u" && /^[0-9a-fA-F]{4}$/.test(text.slice(at + 2, at + 6))) {
        out += String.fromCharCode(parseInt(text.slice(at + 2, at + 6), 16));
        at += 6;
      } else if (letter !== undefined && Object.hasOwn(simple, letter)) {
        out += simple[letter];
        at += 2;
      } else throw bad("an unknown escape");
    }
    at++;
    if (/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(out)) throw bad("a lone surrogate");
    return out;
  }

  function value(depth) {
    blank();
    const first = text[at];
    if (first === '"') return string();
    if (first === "{" || first === "[") {
      if (depth >= MAX_DEPTH) throw malformed(`JSON nested deeper than ${MAX_DEPTH}`, "too-large");
      return first === "{" ? object(depth + 1) : array(depth + 1);
    }
    for (const [word, meaning] of [["true", true], ["false", false], ["null", null]])
      if (text.startsWith(word, at)) {
        at += word.length;
        return meaning;
      }
    token.lastIndex = at;
    const number = token.exec(text);
    if (number === null) throw bad("neither a value nor an integer");
    if (number[0] === "-0" || Math.abs(Number(number[0])) > LARGEST) throw bad("-0 or an integer beyond 2^53 - 1");
    at += number[0].length;
    return Number(number[0]);
  }

  function array(depth) {
    const out = [];
    at++;
    blank();
    if (text[at] === "]") {
      at++;
      return out;
    }
    for (;;) {
      out.push(value(depth));
      blank();
      const next = text[at++];
      if (next === "]") return out;
      if (next !== ",") throw bad("neither , nor ]");
    }
  }

  function object(depth) {
    const out = new Map();
    at++;
    blank();
    if (text[at] === "}") {
      at++;
      return out;
    }
    for (;;) {
      blank();
      if (text[at] !== '"') throw bad("a key that is no string");
      const key = string();
      if (out.has(key)) throw malformed(`the key ${JSON.stringify(key)} stands twice in one object`, "schema");
      blank();
      if (text[at++] !== ":") throw bad("no :");
      out.set(key, value(depth));
      blank();
      const next = text[at++];
      if (next === "}") return out;
      if (next !== ",") throw bad("neither , nor }");
    }
  }

  const result = value(0);
  blank();
  if (at !== text.length) throw bad("more than one value");
  return result;
}

// By code point, which is not the order of UTF-16 units.
export function byCodePoint(a, b) {
  const [x, y] = [Array.from(a), Array.from(b)];
  for (let i = 0; i < Math.min(x.length, y.length); i++)
    if (x[i] !== y[i]) return x[i].codePointAt(0) - y[i].codePointAt(0);
  return x.length - y.length;
}

// Escapes of SPEC 2.2 are those that JSON.stringify writes for text without lone surrogates.
export function canonical(value) {
  if (value instanceof Map) {
    const keys = [...value.keys()].sort(byCodePoint);
    return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical(value.get(key))}`).join(",")}}`;
  }
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  return JSON.stringify(value);
}

export function parseCanonical(bytes, name) {
  const value = parseJson(bytes);
  if (!equal(utf8(canonical(value)), bytes)) throw malformed(`${name} is not in the canonical spelling`, "non-canonical");
  return value;
}

// ---- what a field may hold: functions from a value to what is kept, which throw

const wrong = (name, what) => malformed(`${name} is not ${what}`);

export const text = (most = Infinity) => (value, name) => {
  if (typeof value !== "string" || Array.from(value).length > most) throw wrong(name, "a text of the right length");
  return value;
};
export const flag = (value, name) => {
  if (typeof value !== "boolean") throw wrong(name, "true or false");
  return value;
};
export const whole = (low, high = LARGEST) => (value, name) => {
  if (typeof value !== "number" || value < low || value > high) throw wrong(name, `an integer in ${low}..${high}`);
  return value;
};
export const exactly = (wanted) => (value, name) => {
  if (value !== wanted) throw wrong(name, JSON.stringify(wanted));
  return value;
};
export const version = (wanted) => (value) => {
  if (value !== wanted) throw malformed(`the version is not ${wanted}`, "unsupported-version");
  return value;
};
export const oneOf = (...wanted) => (value, name) => {
  if (!wanted.includes(value)) throw wrong(name, `one of ${wanted.join(", ")}`);
  return value;
};
export const digest = (value, name) => {
  if (typeof value !== "string") throw wrong(name, "a digest");
  fromHex(value, 32, name);
  return value;
};
export const list = (item, { least = 0, most = Infinity, unique = null } = {}) => (value, name) => {
  if (!Array.isArray(value)) throw wrong(name, "an array");
  if (least === most && value.length !== most) throw wrong(name, `an array of ${most}`);
  if (value.length > most) throw malformed(`${name} has ${value.length} entries`, "too-large");
  if (value.length < least) throw wrong(name, `an array of at least ${least}`);
  const out = value.map((entry, i) => item(entry, `${name}[${i}]`));
  if (unique !== null && new Set(out.map(unique)).size !== out.length) throw wrong(name, "without repetitions");
  return out;
};

// Exactly the fields of `required`, perhaps those of `optional`, no other (SPEC 2.1 e).
export const fields = (required, optional = {}) => (value, name) => {
  if (!(value instanceof Map)) throw wrong(name, "an object");
  for (const key of value.keys())
    if (!Object.hasOwn(required, key) && !Object.hasOwn(optional, key))
      throw malformed(`${name} has the unknown field ${JSON.stringify(key)}`);
  const out = {};
  for (const [key, check] of Object.entries(required)) {
    if (!value.has(key)) throw malformed(`${name} lacks the field ${key}`);
    out[key] = check(value.get(key), `${name}.${key}`);
  }
  for (const [key, check] of Object.entries(optional))
    if (value.has(key)) out[key] = check(value.get(key), `${name}.${key}`);
  return out;
};

// SPEC 2.5; gives seconds since 1970 as a BigInt.
export function time(value, name) {
  const parts = typeof value === "string" && /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z$/.exec(value);
  if (parts) {
    const [year, month, day, hour, minute, second] = parts.slice(1).map(Number);
    const date = new Date(0);
    date.setUTCFullYear(year, month - 1, day);
    date.setUTCHours(hour, minute, second);
    if (year >= 1 && date.toISOString() === `${value.slice(0, -1)}.000Z`) return BigInt(date.getTime() / 1000);
  }
  throw wrong(name, "a time like 2026-11-21T08:00:00Z");
}

// The year 9999 is the last that can be written; a later witness time is shown as a number.
export function formatTime(seconds) {
  const most = 253402300799n;
  return seconds > most ? `${seconds} s` : new Date(Number(seconds) * 1000).toISOString().replace(".000Z", "Z");
}

// ---- real numbers (SPEC 2.3, 2.4): value = digits * 10^exponent

export function spell(negative, digits, exponent) {
  let whole = digits.replace(/^0+/, "");
  if (whole === "") return "0";
  const bare = whole.replace(/0+$/, "");
  const p = exponent + whole.length - bare.length;
  const f = p + bare.length - 1;
  const sign = negative ? "-" : "";
  if (f < -12 || p > 12) return `${sign}${bare[0]}${bare.length > 1 ? `.${bare.slice(1)}` : ""}e${f}`;
  if (p >= 0) return sign + bare + "0".repeat(p);
  if (f >= 0) return `${sign}${bare.slice(0, f + 1)}.${bare.slice(f + 1)}`;
  return `${sign}0.${"0".repeat(-f - 1)}${bare}`;
}

export function decimal(value, name) {
  const parts = typeof value === "string" && value.length <= 60 && /^(-?)(\d+)(?:\.(\d+))?(?:e(-?\d+))?$/.exec(value);
  if (!parts) throw wrong(name, "a decimal number");
  const [, sign, before, after = "", power = "0"] = parts;
  if (Math.abs(Number(power)) > 400) throw wrong(name, "a decimal number with an exponent within 400");
  const out = { negative: sign === "-", digits: before + after, exponent: Number(power) - after.length };
  if (spell(out.negative, out.digits, out.exponent) !== value)
    throw malformed(`${name} is not the one spelling of its number`, "non-canonical");
  return { text: value, ...out, zero: /^0*$/.test(out.digits) };
}

export const notNegative = (value, name) => {
  const number = decimal(value, name);
  if (number.negative) throw wrong(name, "a number that is not negative");
  return number;
};

const FLOAT = new Float32Array(1);
const BITS = new Uint32Array(FLOAT.buffer);
// A finite float32 (or 2^128, for its neighbour) of bit pattern `bits` as a multiple of 2^-149.
const steps = (bits) => {
  const [power, fraction] = [bits >>> 23, BigInt(bits & 0x7fffff)];
  return power === 0 ? fraction : (fraction | 0x800000n) << BigInt(power - 1);
};

// The bit pattern of the float32 that a positive decimal rounds to, ties to even, in exact arithmetic.
function roundToFloat32(digits, exponent) {
  const up = exponent >= 0 ? 10n ** BigInt(exponent) : 1n;
  const down = exponent < 0 ? 10n ** BigInt(-exponent) : 1n;
  const doubled = 2n * BigInt(digits) * up * 2n ** 149n;
  let [low, high] = [0, 0x7f800000];
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (2n * steps(middle) * down <= doubled) low = middle;
    else high = middle;
  }
  const halfway = (steps(low) + steps(high)) * down;
  return doubled > halfway || (doubled === halfway && low % 2 === 1) ? high : low;
}

// Whether `doubled` / 2 * 10^exponent is exactly the float32 of this bit pattern.
function isHalfway(doubled, exponent, bits) {
  const up = exponent >= 0 ? 10n ** BigInt(exponent) : 1n;
  const down = exponent < 0 ? 10n ** BigInt(-exponent) : 1n;
  return doubled * up * 2n ** 149n === 2n * steps(bits) * down;
}

export function float32(value, name) {
  const number = decimal(value, name);
  if (number.zero) return number;
  const bits = roundToFloat32(number.digits, number.exponent);
  if (bits >= 0x7f800000) throw wrong(name, "a finite float32");
  BITS[0] = bits;
  for (let digits = 1; digits <= 9; digits++) {
    const [, first, rest = "", power] = /^(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(FLOAT[0].toExponential(digits - 1));
    const exponent = Number(power) - rest.length;
    const above = BigInt(first + rest);
    // Of two equally near ones toExponential gives the greater; the even one is meant.
    const even = above % 2n === 1n && isHalfway(2n * above - 1n, exponent, bits) ? above - 1n : above;
    const nearest = [even, above].find((candidate) => roundToFloat32(candidate, exponent) === bits);
    if (nearest === undefined) continue;
    if (spell(number.negative, String(nearest), exponent) === value) return number;
    break;
  }
  throw malformed(`${name} is not the shortest spelling of its float32`, "non-canonical");
}
