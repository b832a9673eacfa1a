// Many small readings in one process, for comparing two implementations: JSON lines in, JSON lines out.
//
//   node batch.mjs CASES        a line: [what, base64, ...]; an answer: {"ok": value} or {"kind", "reason", "message"}
import fs from "node:fs";
import { fromBase64, fromEitherBase64, fromHex, fromUtf8, hex, Problem, sha256, sha512, shake } from "../../../auditor/page/bytes.mjs";
import { verifyEd25519, weakKey } from "../../../auditor/page/ed25519.mjs";
import { canonical, decimal, float32, parseCanonical, parseJson, time } from "../../../auditor/page/json.mjs";
import { root, verifyConsistency, verifyInclusion } from "../../../auditor/page/merkle.mjs";
import { MESSAGES, parseClaim, parseEnvelope, parseMessage, parseTrust, parseTrusted } from "../../../auditor/page/messages.mjs";
import { verifyMlDsa44 } from "../../../auditor/page/mldsa44.mjs";
import { parseCheckpoint, parseNote, parsePolicy, parseVkey, verifyCheckpoint, verifyProof } from "../../../auditor/page/notes.mjs";
import { verifyReceipt } from "../../../auditor/page/receipt.mjs";
import { inflate, parseSlip } from "../../../auditor/page/slip.mjs";

const cut = (bytes) => Array.from({ length: bytes.length / 32 }, (_, i) => bytes.slice(32 * i, 32 * i + 32));
const quiet = (what) => (...given) => void what(...given);

const READINGS = {
  json: (bytes) => canonical(parseJson(bytes)),
  canonical: quiet(parseCanonical),
  base64: (bytes) => hex(fromBase64(fromUtf8(bytes))),
  either: (bytes) => hex(fromEitherBase64(fromUtf8(bytes))),
  hex: (bytes) => hex(fromHex(fromUtf8(bytes), 32)),
  time: (bytes) => Number(time(fromUtf8(bytes), "time")),
  decimal: quiet((bytes) => decimal(fromUtf8(bytes), "decimal")),
  float32: quiet((bytes) => float32(fromUtf8(bytes), "float32")),
  hashes: (bytes) => [sha256(bytes), sha512(bytes), shake(128, bytes)(200), shake(256, bytes)(200)].map(hex),
  weak: weakKey,
  ed25519: verifyEd25519,
  mldsa44: verifyMlDsa44,
  vkey: (bytes) => parseVkey(fromUtf8(bytes)).id,
  note: (bytes) => parseNote(bytes).signatures.length,
  checkpoint: (bytes) => String(parseCheckpoint(bytes).size),
  verifyCheckpoint: (bytes, policy) => {
    const { quorumMet, time: at, cosigned } = verifyCheckpoint(bytes, parsePolicy(policy));
    return [quorumMet, at === null ? null : Number(at), [...cosigned].map(([name, seen]) => [name, Number(seen)]).sort()];
  },
  policy: quiet(parsePolicy),
  trust: quiet(parseTrust),
  trusted: quiet(parseTrusted),
  proof: (bytes, entry, policy) => String(verifyProof(bytes, entry, parsePolicy(policy)).index),
  envelope: (bytes) => hex(sha256(parseEnvelope(bytes).payload)),
  claim: quiet(parseClaim),
  ...Object.fromEntries(Object.keys(MESSAGES).map((kind) => [kind, quiet((bytes) => parseMessage(bytes, kind))])),
  root: (hashes) => hex(root(cut(hashes))),
  inclusion: quiet((leaf, numbers, path, expected) => {
    const [index, size] = JSON.parse(fromUtf8(numbers));
    verifyInclusion(leaf, index, size, cut(path), expected);
  }),
  consistency: quiet((numbers, first, second, path) => {
    const [small, large] = JSON.parse(fromUtf8(numbers));
    verifyConsistency(small, first, large, second, cut(path));
  }),
  inflate: (bytes, size) => hex(sha256(inflate(bytes, JSON.parse(fromUtf8(size))))),
  slip: (bytes) => parseSlip(bytes).opened.length,
  receiptFile: (bytes, policy, trust, slip) => {
    const result = verifyReceipt(bytes, parseTrusted(policy, trust), slip ?? null);
    return [result.verdict, result.profile, result.records, result.requestedBySubject];
  },
};

const answers = fs
  .readFileSync(process.argv[2], "utf8")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => {
    const [what, ...given] = JSON.parse(line);
    try {
      return { ok: READINGS[what](...given.map((text) => new Uint8Array(Buffer.from(text, "base64")))) ?? null };
    } catch (error) {
      // Anything but a Problem is a crash, and looks like one.
      if (!(error instanceof Problem)) throw new Error(`${what} ${given.join(" ").slice(0, 2000)}`, { cause: error });
      return { kind: error.kind, reason: error.reason, message: String(error) };
    }
  });
console.log(answers.map((answer) => JSON.stringify(answer)).join("\n"));
