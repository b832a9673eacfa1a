// A second auditor: verifies receipts and logs. Written from protocol/SPEC.md alone, with the commands of CLI_PROTOCOL.md.
//
//   node audit.mjs verify-receipt RECEIPT --policy policy.txt --trust trust.json [--slip slip.npz] [--json]
//   node audit.mjs verify-log LOG --policy policy.txt [--state DIR] [--max-age SECONDS] [--now TIME] [--json]
//
// Exit codes: 0 CONSISTENT or done, 1 a bug here, 2 usage, 3 REFUTED, 4 malformed or unverifiable, 5 INCONCLUSIVE.
import fs from "node:fs";
import path from "node:path";
import { equal, hex, Problem, sha256, unverifiable, utf8, within } from "../../../auditor/page/bytes.mjs";
import { formatTime, time } from "../../../auditor/page/json.mjs";
import { root } from "../../../auditor/page/merkle.mjs";
import { parseTrusted } from "../../../auditor/page/messages.mjs";
import { parsePolicy, verifyCheckpoint } from "../../../auditor/page/notes.mjs";
import { MAX_RECEIPT, verifyReceipt } from "../../../auditor/page/receipt.mjs";
import { MAX_SLIP } from "../../../auditor/page/slip.mjs";
import { verifyLog } from "./log.mjs";

const EXIT = { CONSISTENT: 0, REFUTED: 3, INCONCLUSIVE: 5 };

class Usage extends Error {}

// Names from hostile files must not move a terminal's cursor, or break a line of JSON for anybody.
const escaped = (text, which) =>
  text.replace(which, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
const say = (text) => console.log(escaped(text, /[^\n\x20-\x7e\xa1-\u024f]/g));
const complain = (text) => console.error(`audit.mjs: ${escaped(text, /[^\n\x20-\x7e\xa1-\u024f]/g)}`);
const answer = (facts) => console.log(escaped(JSON.stringify(facts), /[^\x20-\x7e]/g));

// At most `most` bytes of a regular file, no link followed.
function readFile(name, most) {
  const file = fs.openSync(name, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK);
  try {
    const facts = fs.fstatSync(file);
    if (!facts.isFile()) throw new Problem("malformed", "schema", "not a regular file", name);
    if (facts.size > most) throw new Problem("malformed", "too-large", `more than ${most} bytes`, name);
    return new Uint8Array(fs.readFileSync(file));
  } finally {
    fs.closeSync(file);
  }
}

function readGiven(name, most) {
  try {
    return readFile(name, most);
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Usage(`${name}: cannot be read (${error.code})`);
  }
}

function listFolder(folder) {
  const files = new Set();
  const walk = (inside) => {
    for (const entry of fs.readdirSync(path.join(folder, inside), { withFileTypes: true })) {
      const name = inside === "" ? entry.name : `${inside}/${entry.name}`;
      if (entry.isDirectory()) walk(name);
      else if (entry.isFile()) files.add(name);
      else throw new Problem("malformed", "schema", "a link or a device", `${folder}/${name}`);
    }
  };
  walk("");
  return { files, read: (name, most) => readFile(path.join(folder, name), most) };
}

function parseArguments(words, known) {
  const options = {};
  const rest = [];
  for (let i = 0; i < words.length; i++) {
    if (!words[i].startsWith("--")) rest.push(words[i]);
    else if (!(words[i] in known)) throw new Usage(`no such option: ${words[i]}`);
    else if (known[words[i]]) {
      if (words[i + 1] === undefined) throw new Usage(`${words[i]} needs a value`);
      options[words[i]] = words[++i];
    } else options[words[i]] = true;
  }
  if (rest.length !== 1) throw new Usage("exactly one RECEIPT or LOG is needed");
  return { subject: rest[0], options };
}

const EVERYWHERE = { "--json": false, "--force": false, "--resume": false, "--seed": true, "--now": true, "--policy": true };

function receiptCommand(words) {
  const { subject, options } = parseArguments(words, { ...EVERYWHERE, "--trust": true, "--slip": true });
  for (const name of ["--policy", "--trust"]) if (!options[name]) throw new Usage(`${name} is needed`);
  const trusted = parseTrusted(readGiven(options["--policy"], 262_144), readGiven(options["--trust"], 1 << 20));
  const slip = options["--slip"] ? readGiven(options["--slip"], MAX_SLIP) : null;
  const receipt = readGiven(subject, MAX_RECEIPT);
  const result = within(subject, () => verifyReceipt(receipt, trusted, slip, (step, facts) => say(`${step}: ${facts}`)));
  say(`verdict: ${result.verdict} under the profile ${result.profile}`);
  for (const finding of result.findings) say(`finding: ${finding.threat} (${finding.check})`);
  say(["not proven:", ...result.notProven].join("\n  - "));
  const { verdict, profile, findings, records, requestedBySubject } = result;
  return { code: EXIT[verdict], facts: { findings, profile, records, requestedBySubject, verdict } };
}

function logCommand(words) {
  const { subject, options } = parseArguments(words, { ...EVERYWHERE, "--state": true, "--max-age": true });
  if (!options["--policy"]) throw new Usage("--policy is needed");
  const policy = within(options["--policy"], () => parsePolicy(readGiven(options["--policy"], 262_144)));
  const maxAge = options["--max-age"] ?? null;
  if (maxAge !== null && !/^[1-9][0-9]{0,11}$/.test(maxAge)) throw new Usage("--max-age is a number of seconds");
  if (!fs.existsSync(subject) || !fs.statSync(subject).isDirectory()) throw new Usage(`${subject}: not a folder`);
  const { checkpoint, note, leaves } = within(subject, () => verifyLog(listFolder(subject), policy));
  if (options["--state"]) within(subject, () => remember(options["--state"], policy, { checkpoint, note, leaves }));
  if (maxAge !== null) {
    const now = options["--now"] ? time(options["--now"], "--now") : BigInt(Math.floor(Date.now() / 1000));
    if (checkpoint.time === null || checkpoint.time < now - BigInt(maxAge))
      throw unverifiable(`${subject}: no quorum saw this checkpoint in the last ${maxAge} s`, "expired");
  }
  const witnesses = [...checkpoint.cosigned.keys()].sort().join(", ") || "none";
  const when = checkpoint.time === null ? "" : ` by ${formatTime(checkpoint.time)}`;
  say(`${subject}: ${leaves.length} entries of ${checkpoint.origin}, all checked; witnesses: ${witnesses}${when}`);
  if (!checkpoint.quorumMet) throw unverifiable(`${subject}: the quorum has not cosigned this checkpoint`, "no-quorum");
  const facts = { origin: checkpoint.origin, quorum: checkpoint.quorumMet, root: hex(checkpoint.root), size: leaves.length };
  return { code: 0, facts };
}

// SPEC 5.7 step 5 and 5.8: one checkpoint for each origin; on two histories both are kept.
function remember(state, policy, { checkpoint, note, leaves }) {
  fs.mkdirSync(state, { recursive: true });
  const file = path.join(state, `${hex(sha256(utf8(checkpoint.origin)))}.checkpoint`);
  if (fs.existsSync(file)) {
    const old = within(file, () => verifyCheckpoint(readFile(file, 131_072), policy, checkpoint.origin));
    const common = old.size < checkpoint.size ? Number(old.size) : leaves.length;
    // Of a smaller tree nothing can be said about the larger one without its entries: rollback, not two histories.
    if (old.size > checkpoint.size)
      throw unverifiable(`the log had ${old.size} entries before and has ${checkpoint.size} now`, "rollback");
    if (!equal(root(leaves.slice(0, common)), old.root)) {
      fs.writeFileSync(`${file}.other`, note);
      const error = unverifiable("the log signed two histories; both checkpoints are kept", "consistency");
      error.code = 3;
      throw error;
    }
  }
  fs.writeFileSync(`${file}.new`, note);
  fs.renameSync(`${file}.new`, file);
}

function main([command, ...words]) {
  const commands = { "verify-receipt": receiptCommand, "verify-log": logCommand };
  const asJson = words.includes("--json");
  try {
    if (command === undefined || !Object.hasOwn(commands, command))
      throw new Usage(`the commands are ${Object.keys(commands).join(" and ")}`);
    const { code, facts } = commands[command](words);
    if (asJson) answer(facts);
    return code;
  } catch (error) {
    const problem = error instanceof Problem;
    const usage = error instanceof Usage;
    const message = problem || usage ? String(error.message) : `this is a bug in audit.mjs (${error.stack})`;
    complain(`${problem && error.where ? `${error.where}: ` : ""}${message}`);
    if (asJson) {
      const reason = problem ? error.reason : usage ? "usage" : "bug";
      answer({ at: problem ? error.where : "", message, reason });
    }
    return problem ? (error.code ?? 4) : usage ? 2 : 1;
  }
}

process.exitCode = main(process.argv.slice(2));
