// Verification of a receipt, with a slip if there is one: SPEC.md 14, step by step, and what it does not prove (14.3, 15).
import { equal, fromBase64, fromHex, hex, limit, malformed, Problem, sha256, unverifiable, within } from "./bytes.mjs";
import { digest, fields, formatTime, list, parseCanonical, text, version, whole } from "./json.mjs";
import { leafHash, root, verifyInclusion } from "./merkle.mjs";
import { MOST_CLAIMS, parseClaim, verifyLogged } from "./messages.mjs";
import { parseSlip, verifyOpening } from "./slip.mjs";

export const MAX_RECEIPT = 64 << 20;
export const DOCUMENTS = ["commitment", "request", "certificate", "report", "receipt"];

const WORDS = {
  commitment: "the owner's commitment to model and training records",
  request: "the request for deletion",
  certificate: "the owner's certificate",
  report: "the auditor's report",
  receipt: "the auditor's receipt",
};

// What is done, in order, in plain words. The page shows them before anything was checked.
export const STEPS = [
  ["file", "The file is a receipt", "It has all parts of a receipt, each in its one accepted spelling."],
  ...DOCUMENTS.map((name) => [
    name,
    `Signature and log entry of ${WORDS[name]}`,
    "A key that is listed on this page signed it, it stands in a public log, and enough witnesses confirmed that log.",
  ]),
  ["links", "The five documents belong together", "Receipt and report name exactly the other documents in this file."],
  ["claims", "The claims are the ones that the owner signed", "Each promise in this file is one that the certificate covers."],
  ["records", "The records are the ones of the request", "The list of records is exactly the one that was asked about."],
  ["slip", "The slip belongs to this receipt", "Your own records, opened with your slip, are among the records of this receipt."],
];

const bytesIn = (value, name) => fromBase64(text()(value, name), name);

export function parseReceipt(bytes) {
  limit(bytes, MAX_RECEIPT, "a receipt");
  const each = Object.fromEntries(DOCUMENTS.map((name) => [name, bytesIn]));
  const receipt = fields({
    version: version("prune-audit/receipt/v1"),
    envelopes: fields(each),
    proofs: fields({}, each),
    claims: list(
      fields({
        line: bytesIn,
        index: whole(0, MOST_CLAIMS - 1),
        path: list((value, name) => fromHex(digest(value, name)), { most: 40 }),
      }),
      { most: MOST_CLAIMS },
    ),
    records: list(digest, { most: MOST_CLAIMS }),
  })(parseCanonical(bytes, "a receipt"), "receipt");
  if (receipt.records.some((record, i) => i > 0 && receipt.records[i - 1] >= record))
    throw malformed("receipt.records is not ascending");
  if (receipt.claims.some((claim, i) => i > 0 && receipt.claims[i - 1].index >= claim.index))
    throw malformed("receipt.claims is not ascending");
  return receipt;
}

const leafOf = (bytes) => hex(leafHash(bytes));
const linked = (right, what) => {
  if (!right) throw unverifiable(what, "digest-mismatch");
};

// Verify; `trusted` is {policy, trust}, `slip` bytes or null, `passed(step, facts)` hears of each step that held.
export function verifyReceipt(bytes, trusted, slip = null, passed = () => {}) {
  let step = "file";
  const at = (name, what) => {
    step = name;
    const facts = what();
    passed(name, facts ?? "");
  };
  try {
    return steps();
  } catch (error) {
    if (error instanceof Problem) error.step = step;
    throw error;
  }

  function steps() {
    let parsed;
    at("file", () => {
      parsed = parseReceipt(bytes);
      return `${bytes.length} bytes, ${parsed.claims.length} claims, ${parsed.records.length} records.`;
    });
    const logged = {};
    for (const name of DOCUMENTS)
      at(name, () =>
        within(name, () => {
          if (parsed.proofs[name] === undefined)
            throw unverifiable("there is no proof that it was logged; ask for the finished receipt", "inclusion");
          logged[name] = verifyLogged(parsed.envelopes[name], parsed.proofs[name], name, trusted);
          return describe(logged[name], trusted.policy);
        }),
      );
    const { commitment, request, certificate, report, receipt } = Object.fromEntries(
      DOCUMENTS.map((name) => [name, logged[name].message]),
    );
    at("links", () => {
      for (const name of ["report", "certificate", "commitment", "request"])
        linked(receipt[name] === leafOf(parsed.envelopes[name]), `the receipt names another ${name} than the one in the file`);
      linked(receipt.subject === hex(sha256(parsed.envelopes.report)), "the receipt is about another report");
      linked(report.certificate === receipt.certificate, "the report is about another certificate");
      const same = JSON.stringify([receipt.verdict, receipt.profile, receipt.findings]);
      linked(same === JSON.stringify([report.verdict, report.profile, report.findings]), "receipt and report differ");
      if (receipt.verdict !== "CONSISTENT") return "";
      linked(certificate.commitment === receipt.commitment, "the certificate is about another commitment");
      linked(certificate.requests.includes(receipt.request), "the certificate does not answer this request");
      linked(request.subject === hex(sha256(parsed.envelopes.commitment)), "the request is about another commitment");
      return "The certificate answers this request.";
    });
    const claimed = new Set();
    let removed = false;
    at("claims", () => {
      parsed.claims.forEach((claim, i) =>
        within(`claims[${i}]`, () => {
          const { root: signed, count } = certificate.claims;
          verifyInclusion(leafHash(claim.line), claim.index, count, claim.path, fromHex(signed));
          const said = parseClaim(claim.line);
          if (said.kind === "class-removal") {
            const asked = request.scope.kind === "class" && request.scope.class === said.class;
            linked(asked, "it removes a class that this request does not ask for");
            removed = true;
          } else {
            linked(parsed.records.includes(said.record), "it is about a record that is not in this receipt");
            if (said.kind !== "coverage") claimed.add(said.record);
          }
        }),
      );
      return `${parsed.claims.length} claims of ${certificate.claims.count} in the certificate; the others are not shown.`;
    });
    at("records", () => {
      const consistent = receipt.verdict === "CONSISTENT";
      if (parsed.records.length > 0 || consistent || request.records.count === 0) {
        linked(parsed.records.length === request.records.count, "not as many records as the request lists");
        const hash = root(parsed.records.map((record) => leafHash(fromHex(record))));
        linked(hex(hash) === request.records.root, "the records are not those of the request");
      }
      if (consistent) linked(request.scope.kind !== "trigger", "no claim can answer a request about a trigger");
      if (consistent && request.scope.kind === "class") linked(removed, "no claim removes the class of the request");
      else if (consistent)
        linked(parsed.records.every((record) => claimed.has(record)), "a record of the request has no claim");
      return `${parsed.records.length} records.`;
    });
    let own = null;
    if (slip !== null)
      at("slip", () =>
        within("slip", () => {
          const opened = parseSlip(slip);
          linked(equal(opened.commitment, parsed.envelopes.commitment), "it is for another commitment");
          const records = new Set(parsed.records);
          own = opened.opened
            .map((record, i) => within(`record ${i}`, () => verifyOpening(record, commitment.records)))
            .filter((record) => records.has(record)).length;
          linked(own > 0 || request.scope.kind === "class", "none of its records is in this receipt");
          return `${opened.opened.length} records opened, ${own} of them in this receipt.`;
        }),
      );
    const bySubject = logged.request.role === "requester";
    return {
      verdict: receipt.verdict,
      profile: receipt.profile,
      findings: receipt.findings,
      checks: report.checks,
      records: parsed.records.length,
      own,
      requestedBySubject: bySubject,
      issued: logged.receipt.checkpoint.time,
      notProven: notProven({ slip: slip !== null, bySubject, checks: report.checks }),
    };
  }
}

function describe({ role, signers, checkpoint, index }, policy) {
  const names = signers.map((key) => `${key.name} (key id ${key.id})`).join(", ");
  const seen = [...checkpoint.cosigned.keys()].join(", ");
  const when = checkpoint.time === null ? "" : `; it was there by ${formatTime(checkpoint.time)}`;
  const witnesses = policy.quorum === "none" ? "the policy asks for no witnesses" : `confirmed by ${seen}`;
  return `Signed by ${names} as ${role}; entry ${index} of ${checkpoint.origin}, ${witnesses}${when}.`;
}

// SPEC 14.3 and 15, in the order in which they matter to a reader.
function notProven({ slip, bySubject, checks }) {
  const served = checks.some((entry) => entry.check === "deployment" && entry.verdict === "CONSISTENT");
  return [
    ...(slip ? [] : ["Whose records these are: no slip was given."]),
    ...(bySubject ? [] : ["That the person concerned asked: the owner signed the request."]),
    "That the information is gone. The base model still holds it, and whoever has base and patch can take the patch off.",
    "That the model equals one that was trained without the records.",
    "That no copy of the model or of the data exists.",
    ...(served ? [] : ["What is actually served to users."]),
    "What happened after the dates shown above: that needs a look at the logs.",
    "That the auditor measured correctly: that needs a replay of the audit.",
    "That the records in the commitment are the ones that the model was trained on.",
    "Anything about inputs outside the certified regions, but for the records that were looked at.",
    "That nobody can find a forgotten record by probing, or by an attack that was not run.",
    "That the witnesses do not work together against you.",
  ];
}

// What each verdict means, for somebody who has read nothing else.
export const MEANING = {
  CONSISTENT:
    "The auditor checked the owner's certificate for this request and found nothing that contradicts it, under the profile (a set of required checks) that is named below.",
  REFUTED: "The auditor found, in documents that the owner signed, that what the owner claims is not so.",
  INCONCLUSIVE: "The auditor could not decide: something that the rules ask for was missing or could not be measured.",
};
