// Verification of a whole log in a folder. Written from SPEC.md 5.2, 5.4, 5.7 and C2SP tlog-tiles.
import { concat, equal, malformed, unverifiable } from "../../../auditor/page/bytes.mjs";
import { leafHash, nodeHash, root } from "../../../auditor/page/merkle.mjs";
import { verifyCheckpoint } from "../../../auditor/page/notes.mjs";

const WIDTH = 256;

function tilePath(level, n, width) {
  const digits = String(n).padStart(Math.ceil(String(n).length / 3) * 3, "0").match(/\d{3}/g);
  const grouped = digits.map((part, i) => (i === digits.length - 1 ? part : `x${part}`)).join("/");
  return `tile/${level}/${grouped}${width === WIDTH ? "" : `.p/${width}`}`;
}

function parseTilePath(path) {
  const parts = /^tile\/(entries|[0-7])\/((?:x\d{3}\/)*\d{3})(?:\.p\/([1-9]\d{0,2}))?$/.exec(path);
  if (parts === null) return null;
  const n = Number(parts[2].replaceAll(/[x/]/g, ""));
  const width = parts[3] === undefined ? WIDTH : Number(parts[3]);
  const known = Number.isSafeInteger(n) && width <= WIDTH && tilePath(parts[1], n, width) === path;
  return known ? { level: parts[1], n, width } : null;
}

const foreign = (path, what) => unverifiable(`${path}: ${what}`, "digest-mismatch");

// The first `width` entries of a bundle, which has to hold exactly `width`, or 256 where `orMore`.
function entries(bytes, path, width, orMore) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const length = (bytes[at] << 8) | bytes[at + 1];
    if (at + 2 + length > bytes.length) throw malformed(`${path}: a torn entry bundle`, "schema");
    found.push(bytes.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  if (found.length !== width && !(orMore && found.length === WIDTH))
    throw malformed(`${path}: ${found.length} entries where ${width} belong`, "schema");
  return found.slice(0, width);
}

// `folder`: {files: Set of paths, read(path) -> bytes}; gives the checkpoint and all leaf hashes.
export function verifyLog(folder, policy) {
  if (!folder.files.has("checkpoint")) throw malformed("the log has no file named checkpoint", "schema");
  const note = folder.read("checkpoint", 131_072);
  const checkpoint = verifyCheckpoint(note, policy);
  const size = Number(checkpoint.size);
  if (!Number.isSafeInteger(size) || Math.ceil(size / WIDTH) > folder.files.size)
    throw unverifiable(`the log lacks entry bundles for ${checkpoint.size} entries`, "digest-mismatch");
  const used = new Set(["checkpoint"]);
  // A partial tile, or the full one in its place.
  const choose = (level, n, width) => {
    for (const w of new Set([width, WIDTH]))
      if (folder.files.has(tilePath(level, n, w))) return tilePath(level, n, w);
    throw unverifiable(`the log lacks ${tilePath(level, n, width)}`, "digest-mismatch");
  };
  const leaves = [];
  for (let n = 0; n * WIDTH < size; n++) {
    const width = Math.min(WIDTH, size - n * WIDTH);
    const path = choose("entries", n, width);
    used.add(path);
    leaves.push(...entries(folder.read(path, 257 * 65_537), path, width, true).map(leafHash));
  }
  if (!equal(root(leaves), checkpoint.root))
    throw unverifiable("the entries do not have the root that the log signed", "digest-mismatch");
  const levels = [leaves];
  while (levels.at(-1).length >= WIDTH) {
    const below = levels.at(-1);
    levels.push(Array.from({ length: Math.floor(below.length / WIDTH) }, (_, i) => fullRoot(below.slice(i * WIDTH, (i + 1) * WIDTH))));
  }
  levels.forEach((hashes, level) => {
    for (let n = 0; n * WIDTH < hashes.length; n++) {
      const width = Math.min(WIDTH, hashes.length - n * WIDTH);
      const path = choose(String(level), n, width);
      used.add(path);
      const wanted = concat(...hashes.slice(n * WIDTH, n * WIDTH + width));
      const bytes = folder.read(path, 32 * WIDTH);
      const full = path === tilePath(String(level), n, WIDTH) && bytes.length === 32 * WIDTH;
      if (!equal(full ? bytes.subarray(0, wanted.length) : bytes, wanted))
        throw foreign(path, "is not the tile that follows from the entries");
    }
  });
  for (const path of folder.files) {
    if (used.has(path)) continue;
    const tile = parseTilePath(path);
    const hashes = tile && (tile.level === "entries" ? leaves : levels[Number(tile.level)]);
    if (!hashes || tile.n * WIDTH + tile.width > hashes.length) throw foreign(path, "is no tile of this log");
    const part = hashes.slice(tile.n * WIDTH, tile.n * WIDTH + tile.width);
    if (tile.level === "entries") {
      const found = entries(folder.read(path, 257 * 65_537), path, tile.width, false);
      if (!found.every((entry, i) => equal(leafHash(entry), part[i]))) throw foreign(path, "holds other entries");
    } else if (!equal(folder.read(path, 32 * WIDTH), concat(...part))) throw foreign(path, "holds other hashes");
  }
  return { checkpoint, note, leaves };
}

function fullRoot(hashes) {
  let row = hashes;
  while (row.length > 1) row = Array.from({ length: row.length / 2 }, (_, i) => nodeHash(row[2 * i], row[2 * i + 1]));
  return row[0];
}
