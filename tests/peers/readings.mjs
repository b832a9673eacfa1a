// What other people's JavaScript packages make of our bytes: JSON lines in, JSON lines out.
//
//   node readings.mjs CASES        a line: [what, base64, ...]; an answer: {"ok": value}
import fs from "node:fs";
import { createPublicKey } from "node:crypto";
import { ed25519 } from "@noble/curves/ed25519.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";
import { ml_dsa44 } from "@noble/post-quantum/ml-dsa.js";
import { bundleFromJSON } from "@sigstore/bundle";
import { toSignedEntity, Verifier } from "@sigstore/verify";

const hex = (bytes) => Buffer.from(bytes).toString("hex");

// A Sigstore bundle around an envelope, verified with the one key that is trusted; its hint is never more than a name.
function sigstore(bundle, publicKey) {
  const key = createPublicKey({ key: Buffer.from(publicKey), format: "der", type: "spki" });
  const trust = {
    certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [],
    publicKey: () => ({ publicKey: key, validFor: () => true }),
  };
  const verifier = new Verifier(trust, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 });
  try {
    verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(Buffer.from(bundle).toString()))));
    return true;
  } catch (error) {
    return `${error.name}: ${error.code ?? error.message}`;
  }
}

const READINGS = {
  ed25519: (key, message, signature) => ed25519.verify(signature, message, key, { zip215: false }),
  mldsa44: (key, message, signature) => ml_dsa44.verify(signature, message, key),
  hashes: (data) => [hex(sha256(data)), hex(sha512(data))],
  signEd25519: (seed, message) => hex(ed25519.sign(message, seed)),
  publicEd25519: (seed) => hex(ed25519.getPublicKey(seed)),
  publicMldsa44: (seed) => hex(ml_dsa44.keygen(seed).publicKey),
  signMldsa44: (seed, message) => hex(ml_dsa44.sign(message, ml_dsa44.keygen(seed).secretKey)),
  sigstore,
};

for (const line of fs.readFileSync(process.argv[2], "utf8").split("\n").filter((text) => text !== "")) {
  const [what, ...given] = JSON.parse(line);
  console.log(JSON.stringify({ ok: READINGS[what](...given.map((text) => new Uint8Array(Buffer.from(text, "base64")))) }));
}
