// Keys, signed notes, checkpoints, cosignatures, policies and tlog-proofs. Written from SPEC.md 4 and 5.
import {
  concat, equal, fromBase64, fromUint64, fromUtf8, hex, limit, malformed, sha256, uint64, unverifiable, utf8, within,
} from "./bytes.mjs";
import { verifyEd25519, weakKey } from "./ed25519.mjs";
import { MLDSA44_PUBLIC_KEY, MLDSA44_SIGNATURE, verifyMlDsa44 } from "./mldsa44.mjs";
import { leafHash, root, verifyInclusion } from "./merkle.mjs";

export const [STATEMENT_OR_LOG, COSIGNATURE, MLDSA_COSIGNATURE] = [1, 4, 6];
const EM_DASH = "\u2014";
const LARGEST_NUMBER = 2n ** 63n - 1n;

function checkName(name) {
  const length = utf8(name).length;
  if (length < 1 || length > 255 || /[\p{White_Space}\p{Cc}+]/u.test(name)) throw malformed("a key name that is none (SPEC 4.1)");
  return name;
}

// SPEC 4.3.
export function parseVkey(text) {
  const parts = /^([^+]*)\+([0-9a-f]{8})\+(.*)$/su.exec(text);
  if (parts === null) throw malformed("a verifier key is <name>+<8 hex digits>+<base64>");
  const name = checkName(parts[1]);
  const typed = fromBase64(parts[3], "the public key");
  const [type, key] = [typed[0], typed.slice(1)];
  if (![STATEMENT_OR_LOG, COSIGNATURE, MLDSA_COSIGNATURE].includes(type)) throw malformed(`unknown key type ${type}`);
  if (hex(sha256(utf8(`${name}\n`), typed).slice(0, 4)) !== parts[2]) throw malformed("the key id is not this key's");
  if (type === MLDSA_COSIGNATURE) {
    if (key.length !== MLDSA44_PUBLIC_KEY) throw malformed("an ML-DSA-44 public key has 1,312 bytes");
  } else {
    const weak = weakKey(key);
    if (weak !== null) throw malformed(weak);
  }
  return { name, id: parts[2], type, key, vkey: text };
}

// SPEC 5.1 (a), (b): the text and its lines; nothing is verified yet.
export function parseNote(bytes, most = 1_000_000) {
  limit(bytes, most, "a signed note");
  const whole = fromUtf8(bytes);
  if (/[\u0000-\u0009\u000b-\u001f]/.test(whole)) throw malformed("a signed note with a control character");
  const split = whole.lastIndexOf("\n\n");
  if (split < 0 || !whole.endsWith("\n")) throw malformed("a signed note without an empty line or a last newline");
  const lines = whole.slice(split + 2, -1).split("\n");
  if (lines.length > 100) throw malformed("a signed note with more than 100 signatures", "too-large");
  const signatures = lines.map((line) => {
    const parts = line.split(" ");
    if (parts.length !== 3 || parts[0] !== EM_DASH) throw malformed("a line of a signed note that is no signature");
    const signature = fromBase64(parts[2], "a signature");
    if (signature.length < 5) throw malformed("a signature of less than 5 bytes");
    return { name: checkName(parts[1]), id: hex(signature.slice(0, 4)), signature: signature.slice(4) };
  });
  return { text: whole.slice(0, split + 1), signatures };
}

const isBy = (line, key) => line.name === key.name && line.id === key.id;

function decimalNumber(text, name) {
  if (!/^(?:0|[1-9][0-9]{0,18})$/.test(text) || BigInt(text) > LARGEST_NUMBER)
    throw malformed(`${name} is not a number below 2^63 without leading zeros`);
  return BigInt(text);
}

// SPEC 5.2.
export function parseCheckpoint(bytes) {
  const note = parseNote(bytes, 131_072);
  limit(utf8(note.text), 16_384, "a checkpoint");
  const lines = note.text.slice(0, -1).split("\n");
  if (lines.length < 3 || lines.some((line) => line === "")) throw malformed("a checkpoint has three or more lines");
  const size = decimalNumber(lines[1], "the tree size");
  const hash = fromBase64(lines[2], "the root");
  if (hash.length !== 32) throw malformed("the root is not 32 bytes");
  if (size === 0n && !equal(hash, root([]))) throw malformed("size 0 comes with the root of the empty tree");
  return { ...note, origin: lines[0], size, root: hash };
}

// SPEC 5.3: the time of a witness's line, which MUST verify.
function cosignedAt(line, witness, checkpoint) {
  const no = () => unverifiable(`the cosignature of ${witness.name} does not verify`, "bad-signature");
  const bytes = line.signature;
  const length = witness.type === COSIGNATURE ? 64 : MLDSA44_SIGNATURE;
  if (bytes.length !== 8 + length) throw no();
  const [at, signature] = [fromUint64(bytes), bytes.slice(8)];
  if (at < 1n || at > LARGEST_NUMBER) throw no();
  if (witness.type === COSIGNATURE) {
    if (!verifyEd25519(witness.key, utf8(`cosignature/v1\ntime ${at}\n${checkpoint.text}`), signature)) throw no();
    return at;
  }
  const [name, origin] = [utf8(witness.name), utf8(checkpoint.origin)];
  if (origin.length > 255) throw no();
  const signed = concat(
    utf8("subtree/v1\n\0"), Uint8Array.of(name.length), name, uint64(at), Uint8Array.of(origin.length), origin,
    uint64(0), uint64(checkpoint.size), checkpoint.root,
  );
  if (!verifyMlDsa44(witness.key, signed, signature)) throw no();
  return at;
}

// SPEC 5.6 and C2SP tlog-policy.
export function parsePolicy(bytes) {
  limit(bytes, 262_144, "a policy");
  if (bytes.some((byte) => byte === 0x7f || (byte < 0x20 && byte !== 0x09 && byte !== 0x0a)))
    throw malformed("a policy with a control character");
  // Comments may be in any encoding; everything else is UTF-8.
  const lines = [];
  for (let at = 0; at <= bytes.length; ) {
    const end = bytes.indexOf(0x0a, at) < 0 ? bytes.length : bytes.indexOf(0x0a, at);
    const line = bytes.subarray(at, end);
    lines.push(line.find((byte) => byte !== 0x20 && byte !== 0x09) === 0x23 ? "" : fromUtf8(line));
    at = end + 1;
  }
  const policy = { logs: [], witnesses: new Map(), groups: new Map(), quorum: null };
  const [keys, members] = [new Set(), new Set()];
  const defined = (name) => policy.witnesses.has(name) || policy.groups.has(name);
  const newName = (name) => {
    if (name === "none" || defined(name)) throw malformed(`the name ${name} is taken`);
  };
  const newKey = (text, types) => {
    const key = parseVkey(text);
    if (!types.includes(key.type)) throw malformed(`the key of ${key.name} is of another type`);
    if (keys.has(hex(key.key))) throw malformed(`the key of ${key.name} is listed twice`);
    keys.add(hex(key.key));
    return key;
  };
  lines.forEach((line, number) => {
    const words = line.split(/[ \t]+/).filter((word) => word !== "");
    if (words.length === 0) return;
    within(`line ${number + 1}`, () => {
      const [what, name, ...rest] = words;
      if (what === "log" && name !== undefined && rest.length <= 1) policy.logs.push(newKey(name, [STATEMENT_OR_LOG]));
      else if (what === "witness" && rest.length >= 1 && rest.length <= 2) {
        newName(name);
        policy.witnesses.set(name, newKey(rest[0], [COSIGNATURE, MLDSA_COSIGNATURE]));
      } else if (what === "group" && rest.length >= 2) {
        newName(name);
        const [rule, ...names] = rest;
        const k = { all: names.length, any: 1 }[rule] ?? (/^[1-9][0-9]{0,5}$/.test(rule) ? Number(rule) : 0);
        if (k < 1 || k > names.length) throw malformed(`a group cannot have ${rule} of ${names.length} members`);
        for (const member of names) {
          if (!defined(member)) throw malformed(`${member} is not defined yet`);
          if (members.has(member)) throw malformed(`${member} is a member twice`);
          members.add(member);
        }
        policy.groups.set(name, { k, names });
      } else if (what === "quorum" && name !== undefined && rest.length === 0) {
        if (policy.quorum !== null) throw malformed("a second quorum");
        if (name !== "none" && !defined(name)) throw malformed(`${name} is not defined yet`);
        policy.quorum = name;
      } else throw malformed("not a line of a policy");
    });
  });
  if (policy.quorum === null) throw malformed("a policy without a quorum");
  const known = [...policy.logs, ...policy.witnesses.values()].map((key) => `${key.name}+${key.id}`);
  if (new Set(known).size !== known.length) throw malformed("two keys with one name and key id");
  return policy;
}

// SPEC 5.6, steps 1 to 4.
export function verifyCheckpoint(bytes, policy, expectedOrigin = null) {
  const checkpoint = parseCheckpoint(bytes);
  const logs = policy.logs.filter((key) => key.name === checkpoint.origin);
  if (logs.length === 0) throw unverifiable(`the policy lists no log ${checkpoint.origin}`, "unknown-key");
  if (expectedOrigin !== null && checkpoint.origin !== expectedOrigin)
    throw unverifiable(`a checkpoint of ${checkpoint.origin}, not of ${expectedOrigin}`, "unknown-key");
  let signed = false;
  for (const line of checkpoint.signatures)
    for (const key of logs.filter((known) => isBy(line, known))) {
      if (!verifyEd25519(key.key, utf8(checkpoint.text), line.signature))
        throw unverifiable(`the signature of the log ${key.name} does not verify`, "bad-signature");
      signed = true;
    }
  if (!signed) throw unverifiable(`not signed by the log ${checkpoint.origin}`, "unknown-key");
  const times = new Map();
  for (const [name, witness] of policy.witnesses)
    for (const line of checkpoint.signatures.filter((candidate) => isBy(candidate, witness))) {
      const at = cosignedAt(line, witness, checkpoint);
      if (!times.has(name) || at < times.get(name)) times.set(name, at);
    }
  const quorumTime = (name) => {
    const group = policy.groups.get(name);
    if (group === undefined) return times.get(name) ?? null;
    const counted = group.names.map(quorumTime).filter((at) => at !== null);
    if (counted.length < group.k) return null;
    return counted.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))[group.k - 1];
  };
  const at = policy.quorum === "none" ? null : quorumTime(policy.quorum);
  return { ...checkpoint, cosigned: times, time: at, quorumMet: policy.quorum === "none" || at !== null };
}

// SPEC 5.5: parse and verify for the reader's own copy of the entry.
export function verifyProof(bytes, entry, policy) {
  limit(bytes, 135_168, "a tlog-proof");
  const whole = fromUtf8(bytes);
  const split = whole.indexOf("\n\n");
  if (split < 0) throw malformed("a tlog-proof without an empty line");
  const [header, index, ...hashes] = whole.slice(0, split).split("\n");
  if (header !== "c2sp.org/tlog-proof@v1") throw malformed("not a c2sp.org/tlog-proof@v1", "unsupported-version");
  if (index === undefined || !index.startsWith("index ")) throw malformed("a tlog-proof without an index");
  const position = decimalNumber(index.slice(6), "the index");
  if (hashes.length > 63) throw malformed("a tlog-proof of more than 63 hashes", "too-large");
  const path = hashes.map((line) => fromBase64(line, "a hash of a proof"));
  if (path.some((hash) => hash.length !== 32)) throw malformed("a hash of a proof is not 32 bytes");
  const checkpoint = verifyCheckpoint(utf8(whole.slice(split + 2)), policy);
  verifyInclusion(leafHash(entry), position, checkpoint.size, path, checkpoint.root);
  return { checkpoint, index: position };
}
