// Envelopes, statements, the trust file, logged messages, and the messages that a receipt holds. From SPEC.md 6, 9, 11.
import {
  concat, fromEitherBase64, hex, limit, malformed, sha256, uint64, unverifiable, utf8, within,
} from "./bytes.mjs";
import { verifyEd25519 } from "./ed25519.mjs";
import {
  decimal, digest, exactly, fields, flag, float32, list, notNegative, oneOf, parseCanonical, parseJson, text, time,
  version, whole,
} from "./json.mjs";
import { parsePolicy, parseVkey, STATEMENT_OR_LOG, verifyProof } from "./notes.mjs";

export const MAX_ENTRY = 65_535;
export const MOST_CLAIMS = 1_000_000;
const PAYLOAD_TYPE = "application/vnd.in-toto+json";

// SPEC 6.1. Unknown fields are ignored, here and nowhere else.
export function parseEnvelope(bytes) {
  limit(bytes, MAX_ENTRY, "an envelope");
  const value = parseJson(bytes);
  if (!(value instanceof Map)) throw malformed("an envelope is an object");
  exactly(PAYLOAD_TYPE)(value.get("payloadType"), "payloadType");
  const payload = fromEitherBase64(text()(value.get("payload"), "payload"), "payload");
  const signatures = list(
    (entry, name) => {
      if (!(entry instanceof Map)) throw malformed(`${name} is not an object`);
      if (entry.has("keyid") && entry.get("keyid") !== null) text()(entry.get("keyid"), `${name}.keyid`);
      return fromEitherBase64(text()(entry.get("sig"), `${name}.sig`), `${name}.sig`);
    },
    { least: 1, most: 16 },
  )(value.get("signatures"), "signatures");
  const signed = concat(utf8(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload);
  return { payload, signatures, signed };
}

// SPEC 6.2: the predicate and the subject's digest.
function parseStatement(payload, message) {
  limit(payload, MAX_ENTRY, "a statement");
  const statement = fields({
    _type: exactly("https://in-toto.io/Statement/v1"),
    subject: list(fields({ name: exactly(message.subject), digest: fields({ sha256: digest }) }), { least: 1, most: 1 }),
    predicateType: exactly(`https://prune-audit.dev/${message.name}/v1`),
    predicate: fields(message.required, message.optional),
  })(parseCanonical(payload, "a statement"), "statement");
  return { ...statement.predicate, subject: statement.subject[0].digest.sha256 };
}

// SPEC 6.3.
const ROLES = ["owner", "auditor", "requester"];

export function parseTrust(bytes) {
  limit(bytes, 1 << 20, "a trust file");
  const signer = fields(
    {
      vkey: (value, name) => {
        const key = within(name, () => parseVkey(text()(value, name)));
        if (key.type !== STATEMENT_OR_LOG) throw malformed(`${name} is not a statement key`);
        return key;
      },
      role: oneOf(...ROLES),
      logs: list(text(), { least: 1, most: 100 }),
    },
    { validFrom: time, validTo: time, revokedSince: time },
  );
  const threshold = whole(1, 100);
  const trust = fields(
    { version: version("prune-audit/trust/v1"), signers: list(signer, { most: 1000, unique: (s) => `${s.role} ${hex(s.vkey.key)}` }) },
    { thresholds: fields({}, Object.fromEntries(ROLES.map((role) => [role, threshold]))) },
  )(parseJson(bytes), "trust file");
  trust.thresholds ??= {};
  for (const [role, least] of Object.entries(trust.thresholds))
    if (least > Math.max(1, trust.signers.filter((entry) => entry.role === role).length))
      throw malformed(`the threshold ${least} of the role ${role} cannot be met`);
  return trust;
}

// The reader's two files, which together list no key for two purposes (SPEC 4.1).
export function parseTrusted(policyBytes, trustBytes) {
  const policy = within("policy", () => parsePolicy(policyBytes));
  const trust = within("trust file", () => parseTrust(trustBytes));
  const used = new Set([...policy.logs, ...policy.witnesses.values()].map((key) => hex(key.key)));
  for (const { vkey } of trust.signers)
    if (used.has(hex(vkey.key))) throw malformed(`the key of ${vkey.name} is also a log's or a witness's in the policy`);
  return { policy, trust };
}

// ---- messages: what the predicate holds, and the name of the subject

const leaf = digest;
const count = (least) => whole(least, 2 ** 32);
const leaves = list(leaf, { least: 1, most: 200, unique: (entry) => entry });
const verdict = oneOf("CONSISTENT", "REFUTED", "INCONCLUSIVE");
const name60 = text(60);
const klass = whole(0, 2 ** 20);
const findings = list(fields({ threat: name60, check: name60 }), { most: 100 });

const scope = (value, name) => {
  const kind = value instanceof Map ? value.get("kind") : undefined;
  const more = {
    records: {}, subject: { group: digest }, class: { class: klass }, trigger: { trigger: digest },
  };
  if (typeof kind !== "string" || !Object.hasOwn(more, kind)) throw malformed(`${name} is of no known kind`);
  return fields({ kind: text(), ...more[kind] })(value, name);
};

export const MESSAGES = {
  commitment: {
    name: "commitment", subject: "manifest.json", roles: ["owner"], optional: { prepared: digest },
    required: {
      base: digest, schema: digest, recipe: digest, committedAt: time,
      records: (value, name) => {
        const records = fields({ root: digest, count: count(1), groups: count(1) })(value, name);
        if (records.groups > records.count) throw malformed(`${name} has more groups than records`);
        return records;
      },
    },
  },
  request: {
    name: "request", subject: "commitment.dsse.json", roles: ["requester", "owner"], optional: { deadline: time },
    required: { scope, records: fields({ root: digest, count: count(0) }), onBehalf: flag, requestedAt: time },
  },
  certificate: {
    name: "certificate", subject: "manifest.json", roles: ["owner"], optional: { opening: leaf, predecessor: leaf },
    required: {
      commitment: leaf, requests: leaves, method: name60, claims: fields({ root: digest, count: whole(0, MOST_CLAIMS) }),
      dropped: list(fields({ record: digest, reason: text(400) }), { most: 300, unique: (entry) => entry.record }), inertOutsideSupports: flag,
      certifiedAt: time,
    },
  },
  report: {
    name: "report", subject: "manifest.json", roles: ["auditor"], optional: { opening: leaf, nonce: digest },
    required: {
      certificate: leaf, profile: name60, profileSha256: digest, policySha256: digest, trustSha256: digest, verdict,
      checks: list(fields({ check: name60, verdict, required: flag }), { most: 100, unique: (entry) => entry.check }),
      findings, tool: name60, auditedAt: time,
    },
  },
  receipt: {
    name: "receipt", subject: "report.dsse.json", roles: ["auditor"], optional: {},
    required: {
      report: leaf, certificate: leaf, commitment: leaf, request: leaf, profile: name60, verdict, findings, issuedAt: time,
    },
  },
};

// SPEC 13.2.
export function verdictOf(checks) {
  const required = checks.filter((entry) => entry.required).map((entry) => entry.verdict);
  if (required.includes("REFUTED")) return "REFUTED";
  return required.length > 0 && required.every((one) => one === "CONSISTENT") ? "CONSISTENT" : "INCONCLUSIVE";
}

export function parseMessage(payload, kind) {
  const message = parseStatement(payload, MESSAGES[kind]);
  if (kind === "request" && ["records", "subject"].includes(message.scope.kind) && message.records.count === 0)
    throw malformed("a request for no record");
  if (kind === "certificate" && message.dropped.length > 0 && message.predecessor === undefined)
    throw malformed("dropped claims without a predecessor");
  if (kind === "report" && verdictOf(message.checks) !== message.verdict)
    throw malformed("the verdict does not follow from the checks");
  return message;
}

// SPEC 6.4: steps 1 to 4, and the quorum where the policy asks for one.
export function verifyLogged(bytes, proof, kind, { policy, trust }) {
  const envelope = parseEnvelope(bytes);
  const { checkpoint, index } = within("proof", () => verifyProof(proof, bytes, policy));
  if (!checkpoint.quorumMet)
    throw unverifiable("the quorum of witnesses has not cosigned; ask for a receipt that was finished later", "no-quorum");
  let [role, signers, refused] = [null, [], "no signature by a key that the trust file lists for it"];
  for (const candidate of MESSAGES[kind].roles) {
    const listed = trust.signers.filter((entry) => entry.role === candidate && entry.logs.includes(checkpoint.origin));
    const signed = listed.filter((entry) =>
      envelope.signatures.some((signature) => verifyEd25519(entry.vkey.key, envelope.signed, signature)),
    );
    const counted = signed.filter((entry) => inTime(entry, checkpoint.time));
    if (counted.length >= (trust.thresholds[candidate] ?? 1)) {
      [role, signers] = [candidate, counted.map((entry) => entry.vkey)];
      break;
    }
    if (signed.length > counted.length) refused = "signed by a key that was not valid at the witnessed time";
    else if (signed.length > 0) refused = "fewer trusted keys signed than the threshold asks for";
  }
  if (role === null) throw unverifiable(refused, refused.includes("not valid") ? "expired" : "unknown-key");
  return { kind, bytes, role, signers, checkpoint, index, message: parseMessage(envelope.payload, kind) };
}

function inTime(signer, at) {
  if (signer.validFrom === undefined && signer.validTo === undefined && signer.revokedSince === undefined) return true;
  if (at === null) return false;
  return (
    (signer.validFrom === undefined || signer.validFrom <= at) &&
    (signer.validTo === undefined || at < signer.validTo) &&
    (signer.revokedSince === undefined || at < signer.revokedSince)
  );
}

// ---- claims (SPEC 11.1 to 11.4)

const wholeText = (value, name) => {
  if (typeof value !== "string" || !/^(?:0|[1-9][0-9]{0,9})$/.test(value)) throw malformed(`${name} is no whole number`);
  return BigInt(value);
};

const region = (value, name) => {
  const norm = value instanceof Map ? value.get("norm") : undefined;
  const units = { linf: "step", hamming: "flip" };
  if (typeof norm !== "string" || !Object.hasOwn(units, norm)) throw malformed(`${name} has an unknown norm`);
  const form = { norm: text(), radius: wholeText, unit: exactly(units[norm]), radiusData: notNegative };
  return fields(form, norm === "hamming" ? { steps: wholeText } : {})(value, name);
};

const linear = (value, name) => {
  const found = fields({
    linear: list(list(float32, { least: 1, most: 10_000 }), { least: 1, most: 1024 }),
    atLeast: list(decimal, { least: 1, most: 1024 }),
  })(value, name);
  if (found.linear.length !== found.atLeast.length || found.linear.some((row) => row.length !== found.linear[0].length))
    throw malformed(`${name} needs one bound per row, and rows of one length`);
  return found;
};

const property = (value, name) => {
  const has = (key) => value instanceof Map && value.has(key);
  if (has("linear")) return linear(value, name);
  return has("logits")
    ? fields({ logits: list(float32, { least: 1, most: 10_000 }) })(value, name)
    : fields({ argmax: klass, margin: notNegative })(value, name);
};

const CLAIMS = {
  redirection: {
    record: digest, gate: oneOf("sketch", "feature", "linear-region", "always", "none"), region, property,
    target: oneOf("match", "misclassify", "relabel"),
  },
  "class-removal": { class: klass, margin: notNegative, nonce: digest },
  "no-redirection": { record: digest, reason: text(400) },
  coverage: { record: digest, item: whole(0, MOST_CLAIMS), gate: oneOf("sketch", "feature", "linear-region", "always") },
};

export function parseClaim(line) {
  limit(line, 262_144, "a claim");
  const value = parseCanonical(line, "a claim");
  const kind = value instanceof Map ? value.get("kind") : undefined;
  if (typeof kind !== "string" || !Object.hasOwn(CLAIMS, kind)) throw malformed("a claim of an unknown kind");
  const optional = kind === "redirection" ? { item: whole(0, MOST_CLAIMS), twins: whole(1, MOST_CLAIMS) } : {};
  const claim = fields({ kind: text(), ...CLAIMS[kind] }, optional)(value, "claim");
  if (kind === "redirection") {
    if ((claim.item === undefined) !== (claim.gate === "none")) throw malformed("a claim names an item exactly if it names a gate");
    if (claim.region.steps === 0n) throw malformed("no steps are spelled by leaving them out");
  }
  return claim;
}

// ---- openings of records (SPEC 3.2, 10.3, 10.5)

export function tagged(domain, ...parts) {
  const lengths = [utf8(`prune-audit/${domain}/v1`), ...parts].flatMap((part) => [uint64(part.length), part]);
  return sha256(concat(...lengths));
}

export const digestOf = (bytes) => hex(sha256(bytes));
