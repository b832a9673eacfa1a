"""Verifying what auditors publish, offline: reports with every file of theirs, and replaying them.

Proves (`verify_report`): the auditor signed exactly these files, in its log, and profile, plan, nonce and challenge
among them are the ones that it names. Whether its verdict is right is what `replay` is for: it runs the audit again
from the revealed nonce and the committed plan. Source: SPEC 13.6, 14.4.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor import receipts, trusted
from auditor.case import read_proof
from auditor.engine import Engine
from auditor.files import read_file
from auditor.ledger import Ledger, Secret, leaf_of
from auditor.profile import parse_plan, parse_profile
from auditor.report_scan import leaks
from auditor.view import Finding
from protocol import envelope as dsse
from protocol import manifest, messages, openings, receipt_file, session
from protocol.device import Device
from protocol.digests import sha256_hex
from protocol.errors import AuditorError, DigestMismatch, Error, NoQuorum, VerificationError
from protocol.keys import SigningKey
from protocol.log.policy import Policy
from protocol.log.proof import MAX_TLOG_PROOF
from protocol.logged import verify_logged
from protocol.messages.certificate import Certificate
from protocol.messages.challenge import Challenge
from protocol.messages.opening import Acknowledgement, Opening, nonce_commitment
from protocol.messages.report import Report
from protocol.model import schema as schema_file
from protocol.records import Opening as Opening_
from protocol.session import Named, Refusal, Session
from protocol.trust import Trust

MAX_REPORT_FILE = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReport:
    """A report whose every file was checked."""

    report: Report
    files: dict[str, bytes]
    receipts: int


def verify_report(folder: Path, *, policy: bytes, trust: bytes) -> VerifiedReport:
    """Check a REPORT folder: signature, log, manifest, every file, profile and challenge, every receipt.

    Raises:
        Error: naming the file at fault.
    """
    trusted_logs, signers = trusted.read(policy, trust)
    envelope = read_file(folder / "report.dsse.json", limit=dsse.MAX_ENVELOPE, where="report.dsse.json")
    proof = read_proof(folder, "report")
    if proof is None:
        raise VerificationError("is missing: nothing shows that the report is logged", where="proofs/report.tlog-proof")
    logged = verify_logged(
        envelope,
        proof,
        roles=("auditor",),
        policy=trusted_logs,
        trust=signers,
        where="report.dsse.json",
        place="proofs/report.tlog-proof",
    )
    assert logged.entry is not None
    if trusted_logs.quorum != "none" and not logged.entry.checkpoint.quorum_met:
        raise NoQuorum(
            "its checkpoint lacks the quorum's cosignatures; run the witnesses, then `prune-auditor receipt`",
            where="proofs/report.tlog-proof",
        )
    _, report = messages.read(envelope, Report, where="report.dsse.json")
    raw = read_file(folder / "manifest.json", limit=manifest.MAX_MANIFEST, where="manifest.json")
    if sha256_hex(raw) != report.subject:
        raise DigestMismatch("differs from the manifest that the report was signed for", where="manifest.json")
    listing = manifest.parse(raw)
    if listing.refers != report.certificate:
        raise DigestMismatch("names another certificate than the report", where="manifest.json")
    manifest.verify_only_listed(
        folder, listing, others=("manifest.json", "report.dsse.json", "proofs/report.tlog-proof", "receipts/")
    )
    files = {entry.path: manifest.read_listed(folder, entry, limit=MAX_REPORT_FILE) for entry in listing.entries}
    _verify_named(report, logged.leaf, files, policy=trusted_logs, trust=signers)
    count = 0
    for path in sorted((folder / "receipts").iterdir() if (folder / "receipts").is_dir() else ()):
        name = f"receipts/{path.name}"
        try:
            data = read_file(path, limit=receipt_file.MAX_RECEIPT, where=name)
            if receipt_file.parse(data).envelopes["report"] != envelope:
                raise DigestMismatch("belongs to another report")
            receipts.verify(data, policy=trusted_logs, trust=signers)
        except Error as error:
            error.where = name if error.where in ("", name) else f"{name}, {error.where}"
            raise
        count += 1
    return VerifiedReport(report=report, files=files, receipts=count)


def shown_records(
    verified: VerifiedReport, *, bundle: Path | None, openings_folder: Path | None
) -> tuple[int, tuple[Finding, ...]]:
    """Search a verified report for the records that its auditor was shown.

    Whether bundle and openings belong to the report is not asked: a record that is found is in the signed report,
    wherever it came from.

    Returns:
        How many opened records were searched for, and a finding for each file and form.

    Raises:
        Error: the openings or the input schema cannot be read.
    """
    opened: list[Opening_] = []
    grid = None
    for folder in (bundle, openings_folder):
        path = folder / "openings.npz" if folder is not None else None
        if path is not None and path.exists():
            data = read_file(path, limit=openings.MAX_OPENINGS_FILE, where=str(path))
            opened += openings.parse(data, where=str(path))
    if bundle is not None:
        grid = schema_file.parse(read_file(bundle / "schema.json", limit=64 << 20, where=str(bundle / "schema.json")))
    found = dict.fromkeys((leak.path, leak.form) for leak in leaks(verified.files, opened, grid))
    return len(opened), tuple(
        Finding(threat="retentive-auditor", check="hygiene", message=f"{path} of the signed report shows {form}")
        for path, form in found
    )


_PLAN, _OPENING, _CHALLENGE = "plan.yaml", "transcript/opening.dsse.json", "transcript/challenge.dsse.json"
_CHALLENGE_PROOF = "transcript/challenge.tlog-proof"
_LATEST_PROOF = "transcript/latest.tlog-proof"
_ENTRY, _ENTRY_PROOF = "transcript/entry.dsse.json", "transcript/entry.tlog-proof"


def _verify_named(report: Report, report_leaf: str, files: dict[str, bytes], *, policy: Policy, trust: Trust) -> None:
    # SPEC 14.4, steps 2 and 3: profile, plan, nonce and challenge in the folder are the ones that the report names.
    def need(path: str) -> bytes:
        if path not in files:
            raise VerificationError("is missing: the report names it", where=path)
        return files[path]

    if sha256_hex(need("profile.yaml")) != report.profile_sha256:
        raise DigestMismatch("is not the profile that the report names", where="profile.yaml")
    if report.opening is None:
        for path in (_PLAN, _OPENING, _CHALLENGE, _ENTRY):
            if path in files:
                raise DigestMismatch("belongs to an opened audit, and the report names none", where=path)
        if report.nonce is not None:
            raise DigestMismatch("reveals a nonce and names no opened audit", where="report.dsse.json")
        return
    if leaf_of(need(_OPENING)) != report.opening:
        raise DigestMismatch("is not the opened audit that the report names", where=_OPENING)
    _, opening = messages.read(files[_OPENING], Opening, where=_OPENING)
    if sha256_hex(need(_PLAN)) != opening.subject:
        raise DigestMismatch("is not the plan that the audit was opened with", where=_PLAN)
    if report.nonce is not None and nonce_commitment(report.nonce) != opening.nonce_commitment:
        raise DigestMismatch("reveals another nonce than the audit was opened with", where="report.dsse.json")
    if _CHALLENGE not in files:
        return
    verify_logged(
        files[_CHALLENGE],
        need(_CHALLENGE_PROOF),
        roles=("auditor",),
        policy=policy,
        trust=trust,
        where=_CHALLENGE,
        place=_CHALLENGE_PROOF,
    )
    _, challenge = messages.read(files[_CHALLENGE], Challenge, where=_CHALLENGE)
    if report.nonce is None:
        raise DigestMismatch("was made, and the report reveals no nonce", where=_CHALLENGE)
    need(_ENTRY)
    plan = parse_plan(files[_PLAN])
    held = session.begin(report.opening, opening, openings=plan.openings)
    held = _owners_entry(held, report, challenge, files, policy=policy, trust=trust)
    try:
        held.ask(leaf_of(files[_CHALLENGE]), challenge, nonce=report.nonce, population=challenge.population).close(
            report_leaf, report
        )
    except Refusal as refusal:
        raise DigestMismatch(
            f"does not follow from the opened audit and its nonce: {refusal.message}", where=_CHALLENGE
        ) from None


def _owners_entry(
    held: Session, report: Report, challenge: Challenge, files: dict[str, bytes], *, policy: Policy, trust: Trust
) -> Session:
    # An auditor who could invent the entry that its challenge answers would choose the challenge: the owner has to have
    # signed it, naming this opened audit, before the nonce was revealed.
    data = files[_ENTRY]
    logged = verify_logged(
        data, files.get(_ENTRY_PROOF), roles=("owner",), policy=policy, trust=trust, where=_ENTRY, place=_ENTRY_PROOF
    )
    if logged.leaf != challenge.answers:
        raise DigestMismatch("is not the owner's entry that the challenge answers", where=_ENTRY)
    try:
        if messages.predicate_of(logged.envelope, where=_ENTRY) == Acknowledgement.PREDICATE:
            _, said = messages.read(data, Acknowledgement, where=_ENTRY)
            if said.opening != held.leaf:
                raise DigestMismatch("names another opened audit than the report", where=_ENTRY)
            named, digest = held.assume(Named(leaf=logged.leaf, certificate=said.certificate)), said.subject
        else:
            _, certificate = messages.read(data, Certificate, where=_ENTRY)
            named, digest = held.certify(logged.leaf, certificate), sha256_hex(data)
    except Refusal as refusal:
        raise DigestMismatch(refusal.message, where=_ENTRY) from None
    if named.entries[logged.leaf].certificate != report.certificate:
        raise DigestMismatch("is about another certificate than the report", where=_ENTRY)
    if digest != challenge.subject:
        raise DigestMismatch("is about another certificate than the owner's entry", where=_CHALLENGE)
    return named


def finish(folder: Path, ledger: Ledger, *, write: Callable[[Path, bytes], None]) -> int:
    """Bring the proofs of a report and its receipts to the log's current, cosigned checkpoint.

    Returns:
        How many files changed.
    """
    changed = 0
    path = folder / "proofs" / "report.tlog-proof"
    old = read_file(path, limit=MAX_TLOG_PROOF, where="proofs/report.tlog-proof")
    if (fresh := ledger.refreshed(old)) != old:
        write(path, fresh)
        changed += 1
    for receipt_path in sorted((folder / "receipts").glob("*.receipt")):
        data = read_file(receipt_path, limit=receipt_file.MAX_RECEIPT, where=f"receipts/{receipt_path.name}")
        finished = receipts.finish(receipt_file.parse(data), ledger).to_bytes()
        if finished != data:
            write(receipt_path, finished)
            changed += 1
    return changed


def replay(
    folder: Path,
    bundle: Path,
    *,
    policy: bytes,
    trust: bytes,
    openings: Path | None,
    reference: Path | None,
    owner_log: Path | str | None,
    key: SigningKey,
    seed: int,
    shadow_cache: Path | None,
    progress: Callable[[str, float], None],
    engine: Engine | None = None,
    device: Device = "cpu",
    allow_command: bool = False,
) -> tuple[list[str], dict[str, Any]]:
    """Run a report's audit again, as of its own time, and compare verdict, findings and each check's verdict.

    Args:
        folder: the REPORT.
        bundle: the BUNDLE that it is about.
        policy: trusted logs and witnesses; with `trust`, the same bytes that the report names.
        trust: trusted signers.
        openings: the OPENINGS folder, if the report had one.
        reference: the same reference data.
        owner_log: the owner's log, a folder or an address, if the report looked at it.
        key: any statement key; nothing is signed with it.
        seed: the seed, for a report without a plan.
        shadow_cache: where shadow models are kept.
        progress: called with a stage and the share done.
        engine: where shadow models are trained; None trains them in this process.
        device: on what, in this process; another one than the report's is a difference.
        allow_command: whether to run the command that the plan names for the owner's method. A report may be somebody
            else's, and so is the command in its plan.

    Returns:
        Differences in words (empty if reproduced), and the summary that came out this time.

    Raises:
        Error: the report or the bundle cannot be verified.
    """
    from auditor import audit
    from auditor.report.summary import to_summary

    verified = verify_report(folder, policy=policy, trust=trust)
    report = verified.report
    if sha256_hex(policy) != report.policy_sha256 or sha256_hex(trust) != report.trust_sha256:
        raise AuditorError("the report was made with another policy or trust file")
    with tempfile.TemporaryDirectory() as temporary:
        ledger = Ledger(log=Path(temporary) / "log")
        if "summary.json" not in verified.files:
            raise VerificationError("is missing in the report; it cannot be replayed", where="summary.json")
        if report.opening is not None:
            if not allow_command:
                section = parse_plan(verified.files[_PLAN]).membership
                if section is not None and "rerun" in section.attacks:
                    command = str(section.attacks["rerun"]["command"])
                    raise AuditorError(f"the plan runs a program, {command!r}; read it, then give --allow-command")
            # Without a nonce too: plan and requests of the opened audit were known to the report.
            ledger.keep(Secret(nonce=report.nonce, plan=verified.files[_PLAN], opening=verified.files[_OPENING]))
        if _CHALLENGE in verified.files:
            data = verified.files[_CHALLENGE]
            _, challenge = messages.read(data, Challenge, where=_CHALLENGE)
            ledger.keep_challenge(challenge.answers, data, verified.files[_CHALLENGE_PROOF])
            if _LATEST_PROOF in verified.files:
                ledger.keep_latest(challenge.answers, verified.files[_LATEST_PROOF])
        outcome = audit.examine(
            audit.Inputs(
                bundle=bundle,
                policy=policy,
                trust=trust,
                profile=parse_profile(verified.files["profile.yaml"], where="profile.yaml"),
                openings=openings,
                reference=reference,
                state=None,
                owner_log=owner_log,
                key=key,
                ledger=ledger,
                shadow_cache=shadow_cache,
                now=report.audited_at,
                seed=seed,
                engine=engine,
                device=device,
                progress=progress,
                queries=verified.files.get(audit.QUERIES),
                own_proofs={
                    path.removeprefix("transcript/").removesuffix(".tlog-proof"): data
                    for path, data in verified.files.items()
                    if path.startswith("transcript/") and path.endswith(".tlog-proof")
                },
            )
        )
    fresh = to_summary(outcome.view)
    old = json.loads(verified.files["summary.json"])
    differences = []
    if fresh["verdict"] != old["verdict"]:
        differences.append(f"verdict: {old['verdict']} in the report, {fresh['verdict']} now")
    for check, was in old["checks"].items():
        now_is = fresh["checks"].get(check, {}).get("verdict")
        if now_is != was["verdict"]:
            differences.append(f"{check}: {was['verdict']} in the report, {now_is} now")
    if {(f["threat"], f["check"]) for f in old["findings"]} != {(f["threat"], f["check"]) for f in fresh["findings"]}:
        differences.append("other findings")
    differences += _figure_differences(old.get("figures", {}), fresh.get("figures", {}), "figures")
    return differences, fresh


def _figure_differences(old: Any, new: Any, place: str, tolerance: float = 0.02) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = [f"{place}.{name}: only in one of them" for name in sorted(set(old) ^ set(new))]
        for name in sorted(set(old) & set(new)):
            found += _figure_differences(old[name], new[name], f"{place}.{name}")
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            d for n, (a, b) in enumerate(zip(old, new, strict=True)) for d in _figure_differences(a, b, f"{place}[{n}]")
        ]
    if isinstance(old, float) and isinstance(new, float | int):
        return [] if abs(old - new) <= tolerance else [f"{place}: {old:g} in the report, {new:g} now"]
    return [] if old == new else [f"{place}: {old!r} in the report, {new!r} now"]
