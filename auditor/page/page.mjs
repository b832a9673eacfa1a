// The receipt page: shows whom it trusts, takes a receipt and perhaps a slip, and tells step by step what holds.
//
// Trust is baked into the page; a key inside a dropped file is never more than a hint. Text gets into the page only
// as text (textContent), never as markup.
import { fromBase64, hex, malformed, Problem, sha256 } from "./bytes.mjs";
import { formatTime } from "./json.mjs";
import { parseTrusted } from "./messages.mjs";
import { MAX_RECEIPT, MEANING, STEPS, verifyReceipt } from "./receipt.mjs";
import { MAX_SLIP } from "./slip.mjs";

const byId = (id) => document.getElementById(id);

function element(tag, content = "", attributes = {}) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...(Array.isArray(content) ? content : [content]));
  return made;
}

const grouped = (digest) => digest.match(/.{1,4}/g).join(" ");

function showTrust({ policy, trust, policyBytes, trustBytes }) {
  const card = (key, what, extra = []) =>
    element("li", [
      element("p", [element("strong", key.name), ` ${what}`]),
      ...extra.map((line) => element("p", line)),
      element("p", ["Key id ", element("code", key.id)]),
      element("p", ["Fingerprint ", element("code", grouped(hex(sha256(key.key))), { class: "print" })]),
    ]);
  const limits = (signer) =>
    [
      signer.validFrom !== undefined && `valid from ${formatTime(signer.validFrom)}`,
      signer.validTo !== undefined && `valid until ${formatTime(signer.validTo)}`,
      signer.revokedSince !== undefined && `revoked since ${formatTime(signer.revokedSince)}`,
    ].filter(Boolean);
  for (const signer of trust.signers)
    byId("signers").append(card(signer.vkey, `signs as ${signer.role}, in ${signer.logs.join(", ")}`, limits(signer)));
  for (const key of policy.logs) byId("logs").append(card(key, "is a public log"));
  for (const [name, key] of policy.witnesses) byId("logs").append(card(key, `is the witness ${name}`));
  const needed = (name) => {
    const group = policy.groups.get(name);
    return group ? `${group.k} of ${group.names.length} (${group.names.map(needed).join("; ")})` : name;
  };
  byId("quorum").textContent =
    policy.quorum === "none"
      ? "No witness has to confirm a log: this page then cannot tell when an entry was made, nor that everybody sees the same log."
      : `A log counts only where these witnesses confirm it: ${needed(policy.quorum)}.`;
  byId("digests").textContent = `Trust file ${hex(sha256(trustBytes))}. Policy ${hex(sha256(policyBytes))}.`;
}

const STATES = {
  waiting: ["–", "not checked yet"],
  held: ["✓", "holds"],
  failed: ["✗", "does not hold"],
  skipped: ["–", "not reached"],
  without: ["–", "no slip given"],
};

function showSteps(states, facts) {
  byId("steps").replaceChildren(
    ...STEPS.map(([id, title, meaning]) => {
      const [sign, word] = STATES[states[id] ?? "waiting"];
      return element(
        "li",
        [
          element("span", sign, { class: "sign", "aria-hidden": "true" }),
          element("div", [
            element("h3", [title, element("span", ` — ${word}`, { class: "state" })]),
            element("p", meaning),
            ...(facts[id] ? [element("p", facts[id], { class: "quiet" })] : []),
          ]),
        ],
        { class: states[id] ?? "waiting", "data-step": id },
      );
    }),
  );
}

function list(sentences) {
  return element("ul", sentences.map((sentence) => element("li", sentence)));
}

function showResult(tone, heading, parts) {
  const result = byId("result");
  result.className = tone;
  const title = element("h2", heading, { tabindex: "-1" });
  result.replaceChildren(title, ...parts);
  title.focus();
}

function showVerdict(result) {
  const proven = [
    `Auditor and owner, both listed on this page, signed these documents, and the public logs hold them${
      result.issued === null ? "" : `, the receipt by ${formatTime(result.issued)}`
    }.`,
    `The auditor's verdict on the certificate for this request is ${result.verdict}, under the profile ${result.profile}.`,
    `The receipt is about ${result.records} records.`,
    ...(result.requestedBySubject ? ["The request was signed by a requester, not by the owner."] : []),
    ...(result.own === null ? [] : [`Your slip opens ${result.own} of these records: they are among those that the receipt is about.`]),
  ];
  showResult(result.verdict.toLowerCase(), `The receipt is genuine. It says ${result.verdict}.`, [
    element("p", MEANING[result.verdict], { class: "meaning" }),
    ...(result.findings.length === 0
      ? []
      : [
          element("h3", "What the auditor found"),
          list(result.findings.map((finding) => `${finding.threat} (found by the check ${finding.check})`)),
        ]),
    element("h3", "What this proves"),
    list(proven),
    element("h3", "What this does not prove"),
    list(result.notProven),
    element("h3", "What to do next"),
    element(
      "p",
      `Keep the receipt${result.own === null ? "" : ", the slip"} and this page together: they can be checked again in years, without any server.` +
        (result.own === null ? " If you have a slip, choose it too: it shows whether your own records are among these." : ""),
    ),
  ]);
}

function showProblem(error) {
  const title = STEPS.find(([id]) => id === error.step)?.[1];
  const onlySlip = error.step === "slip";
  const heading = onlySlip ? "The receipt is genuine, but this slip does not belong to it." : "This receipt is not verified.";
  showResult("unverified", heading, [
    element("p", `The check “${title}” did not hold.`, { class: "meaning" }),
    element("p", `${error.message}.`, { class: "reason" }),
    element("h3", "What this means"),
    element(
      "p",
      onlySlip
        ? "The records in your slip are not among those of the receipt, or the slip was damaged or changed. Do not take this receipt for one about you."
        : "Do not rely on this file. It accuses nobody: the file may be damaged, unfinished, changed by somebody, or made by a party that this page does not trust. Ask whoever gave it to you for the original, and check it again.",
    ),
  ]);
}

function check(files, trusted) {
  if (files.receipt === null) {
    showSteps({}, {});
    showResult("unverified", "That is a slip. Now choose the receipt too.", [
      element("p", "A slip says which records are yours; what happened to them stands in the receipt."),
    ]);
    return;
  }
  const [states, facts] = [{ slip: "without" }, {}];
  let shown;
  try {
    const result = verifyReceipt(files.receipt, trusted, files.slip, (step, fact) => {
      states[step] = "held";
      facts[step] = fact;
    });
    shown = () => showVerdict(result);
  } catch (error) {
    // A fault of this page must not look like a fault of the file.
    if (!(error instanceof Problem)) throw error;
    for (const [id] of STEPS) if (states[id] === undefined || (id === "slip" && files.slip)) states[id] = "skipped";
    states[error.step] = "failed";
    facts[error.step] = `${error.message}.`;
    shown = () => showProblem(error);
  }
  showSteps(states, facts);
  shown();
}

const isSlip = (bytes) => bytes[0] === 0x50 && bytes[1] === 0x4b;

async function readInto(files, chosen) {
  for (const file of chosen) {
    const most = Math.max(MAX_RECEIPT, MAX_SLIP);
    if (file.size > most) throw malformed(`${file.name} has ${file.size} bytes; neither receipts nor slips are that large`);
    const bytes = new Uint8Array(await file.arrayBuffer());
    files[isSlip(bytes) ? "slip" : "receipt"] = bytes;
    byId(isSlip(bytes) ? "slip-name" : "receipt-name").textContent = `Chosen: ${file.name}`;
  }
}

function start() {
  const baked = JSON.parse(byId("trusted").textContent);
  const [policyBytes, trustBytes] = [fromBase64(baked.policy), fromBase64(baked.trust)];
  const trusted = parseTrusted(policyBytes, trustBytes);
  showTrust({ ...trusted, policyBytes, trustBytes });
  showSteps({}, {});
  const files = { receipt: null, slip: null };
  const take = async (chosen) => {
    if (chosen.length === 0) return;
    byId("busy").textContent = "Checking…";
    try {
      await readInto(files, chosen);
      // One turn of the event loop, so that the words are painted before the work begins.
      await new Promise((done) => setTimeout(done, 20));
      check(files, trusted);
    } catch (error) {
      const ours = error instanceof Problem;
      showResult("unverified", ours ? "This file is not verified." : "This page failed; nothing was checked.", [
        element("p", `${error.message}.`, { class: "reason" }),
      ]);
    } finally {
      byId("busy").textContent = "";
    }
  };
  for (const id of ["receipt-file", "slip-file"]) byId(id).addEventListener("change", (event) => take(event.target.files));
  const target = byId("choose");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    target.classList.add("over");
  });
  document.addEventListener("dragleave", () => target.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    target.classList.remove("over");
    take(event.dataTransfer.files);
  });
  byId("choose").hidden = false;
}

start();
