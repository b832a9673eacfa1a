// Slips: the one form of a .npz file and the openings of records in it. Written from SPEC.md 8.2, 8.3, 10.3, 10.5.
import { concat, equal, fromHex, fromUtf8, hex, limit, malformed, uint64, unverifiable, utf8 } from "./bytes.mjs";
import { leafHash, rootOfPath } from "./merkle.mjs";
import { tagged } from "./messages.mjs";

export const MAX_SLIP = 1 << 28;

// ---- deflate (RFC 1951), stopping at exactly `size` bytes

const LENGTHS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_BITS = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BITS = Array.from({ length: 30 }, (_, i) => Math.max(0, (i >> 1) - 1));
const DISTANCES = DISTANCE_BITS.map((_, i) => (i < 4 ? i + 1 : 1 + ((2 + (i & 1)) << DISTANCE_BITS[i])));
const CODE_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

function huffman(lengths) {
  const counts = new Array(16).fill(0);
  for (const length of lengths) counts[length]++;
  counts[0] = 0;
  let left = 1;
  for (let bits = 1; bits < 16; bits++) {
    left = 2 * left - counts[bits];
    if (left < 0) throw malformed("a deflate code with too many words", "malformed");
  }
  const starts = [0, 0];
  for (let bits = 1; bits < 15; bits++) starts.push(starts[bits] + counts[bits]);
  const symbols = [];
  lengths.forEach((length, symbol) => {
    if (length) symbols[starts[length]++] = symbol;
  });
  return { counts, symbols };
}

export function inflate(data, size) {
  const out = new Uint8Array(size);
  let [at, written, held, have] = [0, 0, 0, 0];
  const broken = () => malformed("a broken deflate stream", "malformed");
  const bits = (count) => {
    while (have < count) {
      if (at >= data.length) throw broken();
      held |= data[at++] << have;
      have += 8;
    }
    const value = held & ((1 << count) - 1);
    held >>>= count;
    have -= count;
    return value;
  };
  const symbol = ({ counts, symbols }) => {
    let [code, first, index] = [0, 0, 0];
    for (let length = 1; length < 16; length++) {
      code |= bits(1);
      if (code - first < counts[length]) return symbols[index + code - first];
      index += counts[length];
      first = (first + counts[length]) << 1;
      code <<= 1;
    }
    throw broken();
  };
  const put = (byte) => {
    if (written >= size) throw malformed("an array is longer than it says", "too-large");
    out[written++] = byte;
  };
  const fixed = Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8));
  for (let last = 0; !last; ) {
    last = bits(1);
    const kind = bits(2);
    if (kind === 3) throw broken();
    if (kind === 0) {
      held = 0;
      have = 0;
      const length = data[at] | (data[at + 1] << 8);
      if (at + 4 + length > data.length || (length ^ (data[at + 2] | (data[at + 3] << 8))) !== 0xffff) throw broken();
      at += 4;
      for (const end = at + length; at < end; at++) put(data[at]);
      continue;
    }
    let [literals, distances] = [fixed, new Array(30).fill(5)];
    if (kind === 2) {
      const [many, far, codes] = [bits(5) + 257, bits(5) + 1, bits(4) + 4];
      if (many > 286 || far > 30) throw broken();
      const lengths = new Array(19).fill(0);
      for (let i = 0; i < codes; i++) lengths[CODE_ORDER[i]] = bits(3);
      const code = huffman(lengths);
      const all = [];
      while (all.length < many + far) {
        const word = symbol(code);
        if (word < 16) all.push(word);
        else {
          if (word === 16 && all.length === 0) throw broken();
          const [value, times] = word === 16 ? [all.at(-1), 3 + bits(2)] : [0, word === 17 ? 3 + bits(3) : 11 + bits(7)];
          for (let i = 0; i < times; i++) all.push(value);
        }
      }
      if (all.length !== many + far || all[256] === 0) throw broken();
      [literals, distances] = [all.slice(0, many), all.slice(many)];
    }
    const [literal, distance] = [huffman(literals), huffman(distances)];
    for (;;) {
      const word = symbol(literal);
      if (word === undefined) throw broken();
      if (word === 256) break;
      if (word < 256) put(word);
      else {
        if (word > 285) throw broken();
        const length = LENGTHS[word - 257] + bits(LENGTH_BITS[word - 257]);
        const far = symbol(distance);
        if (far === undefined || far > 29) throw broken();
        const back = DISTANCES[far] + bits(DISTANCE_BITS[far]);
        if (back > written) throw broken();
        for (let i = 0; i < length; i++) put(out[written - back]);
      }
    }
  }
  if (written !== size || at !== data.length) throw broken();
  return out;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});
export const crc32 = (bytes) => ~bytes.reduce((crc, byte) => CRC[(crc ^ byte) & 255] ^ (crc >>> 8), -1) >>> 0;

// ---- zip in its one form: what is read is written again in that form, and the two compared

const le = (value, size) => Uint8Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** i) % 256);

function unzip(bytes, names) {
  const broken = (what) => malformed(`the archive is not in its one form: ${what}`, "non-canonical");
  if (bytes.length < 22) throw broken("too short");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const directory = view.getUint32(bytes.length - 6, true);
  const members = new Map();
  const [local, central] = [[], []];
  let [at, entry] = [0, directory];
  for (const name of names) {
    const file = utf8(`${name}.npy`);
    if (entry + 46 + file.length > bytes.length - 22 || at + 30 + file.length > directory) throw broken(`no ${name}.npy`);
    const [crc, packed, size] = [16, 20, 24].map((offset) => view.getUint32(entry + offset, true));
    const common = [le(20, 2), le(0, 2), le(8, 2), le(0, 2), le(0x21, 2), le(crc, 4), le(packed, 4), le(size, 4), le(file.length, 2), le(0, 2)];
    central.push(utf8("PK\x01\x02"), le(0x0314, 2), ...common, le(0, 2), le(0, 2), le(0, 2), le(0o600 * 65536, 4), le(at, 4), file);
    local.push({ at, header: concat(utf8("PK\x03\x04"), ...common, file) });
    const start = at + 30 + file.length;
    members.set(name, { packed: bytes.subarray(start, start + packed), size, crc });
    at = start + packed;
    entry += 46 + file.length;
    if (at > directory) throw broken("a member that ends outside");
  }
  const whole = concat(...central);
  const end = concat(utf8("PK\x05\x06"), le(0, 4), le(names.length, 2), le(names.length, 2), le(whole.length, 4), le(directory, 4), le(0, 2));
  if (at !== directory || !equal(bytes.subarray(directory), concat(whole, end))) throw broken("another directory");
  for (const { at: start, header } of local)
    if (!equal(bytes.subarray(start, start + header.length), header)) throw broken("a local header differs");
  return members;
}

// The array of one member: header and contents (NEP 1, version 1.0) in the form of SPEC 8.2.
function unpackArray({ packed, size, crc }, type, axes, name) {
  const bytes = inflate(packed, size);
  if (crc32(bytes) !== crc) throw malformed(`${name}: the checksum is wrong`, "malformed");
  const length = bytes.length >= 10 ? bytes[8] | (bytes[9] << 8) : 0;
  const header = fromUtf8(bytes.subarray(10, 10 + length));
  const found = /'shape': \(([0-9, ]*)\), \}/.exec(header);
  const shape = found === null ? [] : found[1].split(",").map((part) => part.trim()).filter((part) => part !== "").map(Number);
  const spelled = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  let wanted = `{'descr': '${type}', 'fortran_order': False, 'shape': (${spelled}), }`;
  if (shape.length > 0) wanted += " ".repeat(21 - String(shape[0]).length);
  wanted += " ".repeat(63 - ((10 + wanted.length) % 64)) + "\n";
  const width = { "|u1": 1, "<i4": 4, "<i8": 8 }[type];
  const start = concat(Uint8Array.of(0x93), utf8("NUMPY"), Uint8Array.of(1, 0), le(wanted.length, 2), utf8(wanted));
  if (shape.length !== axes || !equal(bytes.subarray(0, start.length), start))
    throw malformed(`${name}: not an array of type ${type} with ${axes} axes`, "schema");
  if (bytes.length !== start.length + shape.reduce((product, axis) => product * axis, width))
    throw malformed(`${name}: not as many values as its shape says`, "schema");
  return { shape, contents: bytes.subarray(start.length) };
}

const LAYOUT = {
  X: ["<i4", 2], commitment: ["|u1", 1], commitment_proof: ["|u1", 1], group_count: ["<i8", 1], group_index: ["<i8", 1],
  group_path: ["|u1", 3], group_path_length: ["<i8", 1], group_start: ["<i8", 1], groups: ["|u1", 2], indices: ["<i8", 1],
  record_path: ["|u1", 3], record_path_length: ["<i8", 1], salts: ["|u1", 2], y: ["<i8", 1],
};

export function parseSlip(bytes) {
  limit(bytes, MAX_SLIP, "a slip");
  const members = unzip(bytes, Object.keys(LAYOUT).sort());
  if ([...members.values()].reduce((sum, member) => sum + member.size, 0) > MAX_SLIP)
    throw malformed("the arrays of a slip are too large", "too-large");
  const arrays = {};
  for (const [name, [type, axes]] of Object.entries(LAYOUT)) arrays[name] = unpackArray(members.get(name), type, axes, name);
  const n = arrays.X.shape[0];
  if (n < 1) throw malformed("a slip without a record");
  for (const [name, { shape }] of Object.entries(arrays))
    if (!name.startsWith("commitment") && shape[0] !== n) throw malformed(`${name} is for another number of records`);
  const integers = (name) => {
    const { contents } = arrays[name];
    const view = new DataView(contents.buffer, contents.byteOffset);
    return Array.from({ length: n }, (_, i) => {
      const value = view.getBigInt64(8 * i, true);
      if (value < 0n || value >= 1n << 32n) throw malformed(`${name} holds a number outside 0..2^32 - 1`);
      return value;
    });
  };
  const rows = (name) => {
    const width = arrays[name].contents.length / n;
    return Array.from({ length: n }, (_, i) => arrays[name].contents.subarray(i * width, (i + 1) * width));
  };
  for (const name of ["salts", "groups"])
    if (arrays[name].shape[1] !== 32) throw malformed(`${name} does not hold 32 bytes for each record`);
  const paths = (name) => {
    const [, most, width] = arrays[name].shape;
    const lengths = integers(`${name}_length`).map(Number);
    if (width !== 32 || most > 40 || most !== Math.max(...lengths)) throw malformed(`${name} has not the right shape`);
    return rows(name).map((row, i) => {
      if (row.subarray(32 * lengths[i]).some((byte) => byte !== 0)) throw malformed(`${name} is not padded with zeros`);
      return Array.from({ length: lengths[i] }, (_, j) => row.slice(32 * j, 32 * j + 32));
    });
  };
  const columns = {
    values: rows("X"), label: integers("y"), index: integers("indices"), salt: rows("salts"), group: rows("groups"),
    start: integers("group_start"), count: integers("group_count"), groupIndex: integers("group_index"),
    recordPath: paths("record_path"), groupPath: paths("group_path"),
  };
  if (new Set(columns.index).size !== n) throw malformed("a slip that holds a record twice");
  const opened = Array.from({ length: n }, (_, i) =>
    Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, column[i]])),
  );
  return { opened, commitment: arrays.commitment.contents.slice(), proof: arrays.commitment_proof.contents.slice() };
}

// SPEC 10.5: the record commitment of an opened record, if it is one of the committed records.
export function verifyOpening(record, committed) {
  const [count, groups] = [BigInt(committed.count), BigInt(committed.groups)];
  const { index, start, count: size, groupIndex } = record;
  if (!(start <= index && index < start + size && start + size <= count && groupIndex < groups))
    throw unverifiable("index and group do not fit the commitment", "inclusion");
  const bigEndian = new Uint8Array(record.values.length);
  for (let i = 0; i < bigEndian.length; i++) bigEndian[i] = record.values[(i & ~3) + 3 - (i & 3)];
  const label = uint64(record.label).slice(4);
  const commitment = tagged("record", record.salt, bigEndian, label, record.group);
  const entry = tagged("group-entry", record.group, uint64(start), uint64(size));
  const records = rootOfPath(leafHash(commitment), index, count, record.recordPath);
  const groupRoot = rootOfPath(leafHash(entry), groupIndex, groups, record.groupPath);
  const root = tagged("record-trees", uint64(count), records, uint64(groups), groupRoot);
  if (!equal(root, fromHex(committed.root))) throw unverifiable("not one of the committed records", "inclusion");
  return hex(commitment);
}
