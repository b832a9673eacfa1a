// RFC 6962 trees. Written from SPEC.md 5.9 and RFC 9162 2.1.3.2 and 2.1.4.2.
import { equal, sha256, unverifiable } from "./bytes.mjs";

const [LEAF, NODE] = [Uint8Array.of(0), Uint8Array.of(1)];
const LARGEST_TREE = 2n ** 63n - 1n;

export const leafHash = (data) => sha256(LEAF, data);
export const nodeHash = (left, right) => sha256(NODE, left, right);

// The root over leaf hashes; the left subtree is the largest full one.
export function root(leaves) {
  const pending = [];
  leaves.forEach((leaf, i) => {
    let [hash, n] = [leaf, i];
    for (; n & 1; n >>= 1) hash = nodeHash(pending.pop(), hash);
    pending.push(hash);
  });
  if (pending.length === 0) return sha256(new Uint8Array(0));
  return pending.reduceRight((right, left) => nodeHash(left, right));
}

// The root that a path leads to from `leaf` at `index` of `size`; the path has to have exactly the right length.
export function rootOfPath(leaf, index, size, path) {
  const no = (why) => unverifiable(`the inclusion proof ${why}`, "inclusion");
  let [node, last] = [BigInt(index), BigInt(size) - 1n];
  if (node < 0n || node > last || last >= LARGEST_TREE) throw no("is for an index outside the tree");
  if ([leaf, ...path].some((hash) => hash.length !== 32)) throw no("holds a hash that is not 32 bytes");
  let hash = leaf;
  for (const sibling of path) {
    if (last === 0n) throw no("is too long");
    if (node & 1n || node === last) {
      hash = nodeHash(sibling, hash);
      while (!(node & 1n) && node !== 0n) {
        node >>= 1n;
        last >>= 1n;
      }
    } else hash = nodeHash(hash, sibling);
    node >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) throw no("is too short");
  return hash;
}

export function verifyInclusion(leaf, index, size, path, expected) {
  if (!equal(rootOfPath(leaf, index, size, path), expected))
    throw unverifiable("the inclusion proof does not lead to the signed root", "inclusion");
}

export function verifyConsistency(first, firstRoot, second, secondRoot, path) {
  const no = (why) => unverifiable(`the consistency proof ${why}`, "consistency");
  [first, second] = [BigInt(first), BigInt(second)];
  if (first > second || first < 0n || second > LARGEST_TREE) throw no("is between impossible sizes");
  if ([firstRoot, secondRoot, ...path].some((hash) => hash.length !== 32)) throw no("holds a hash that is not 32 bytes");
  if (first === second) {
    if (path.length !== 0 || !equal(firstRoot, secondRoot)) throw no("between equal sizes is not the empty one");
    return;
  }
  if (first === 0n || path.length === 0) throw no("is empty, or starts from nothing");
  const rest = path.slice();
  if ((first & (first - 1n)) === 0n) rest.unshift(firstRoot);
  let [node, last] = [first - 1n, second - 1n];
  while (node & 1n) {
    node >>= 1n;
    last >>= 1n;
  }
  let [old, young] = [rest[0], rest[0]];
  for (const hash of rest.slice(1)) {
    if (last === 0n) throw no("is too long");
    if (node & 1n || node === last) {
      [old, young] = [nodeHash(hash, old), nodeHash(hash, young)];
      while (!(node & 1n) && node !== 0n) {
        node >>= 1n;
        last >>= 1n;
      }
    } else young = nodeHash(young, hash);
    node >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n || !equal(old, firstRoot) || !equal(young, secondRoot)) throw no("does not connect the two roots");
}
