"""One audit from beginning to end: load, check, decide, write, sign, log, hand out receipts.

The verdict follows from the required checks alone. Everything random comes from the challenge (or the
seed), so the same inputs give the same verdict. Nothing is signed about a bundle that cannot be
verified: that is an error, and accuses nobody.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from auditor import history, receipts, trusted
from auditor.case import Case, load, read_proof
from auditor.checks import (
    authenticity,
    binding,
    boundedness,
    challenge,
    completeness,
    deployment,
    disclosure,
    freshness,
    hygiene,
    inclusion,
    locality,
    membership,
    monitor,
    persistence,
    redirection,
    utility,
)
from auditor.deployment.client import Rest, Transport
from auditor.deployment.endpoint import Endpoint
from auditor.deployment.journal import MAX_FILE, Journal
from auditor.deployment.pacing import Pace
from auditor.deployment.source import Live, Recorded
from auditor.engine import Engine
from auditor.entries import look
from auditor.evidence import Evidence, Reference, load_reference, moved
from auditor.files import new_folder, read_file, write_atomic
from auditor.ledger import Ledger, sign
from auditor.membership_pages import all_figures
from auditor.pictures import pictures
from auditor.profile import CHECKS, Profile
from auditor.report.drawings import svg_files
from auditor.report.html import render
from auditor.report.summary import to_summary
from auditor.report_scan import Search
from auditor.statistics.proportions import interval
from auditor.threats import check_profile, load_threats
from auditor.transcript import Transcript, replay
from auditor.view import CheckResult, ReportView
from protocol import manifest
from protocol.device import Device
from protocol.digests import sha256_hex
from protocol.encoding import format_time
from protocol.errors import AuditorError, NoQuorum
from protocol.keys import SigningKey
from protocol.log import proof
from protocol.messages.report import CheckLine, FindingLine, Report, combine

QUERIES = "deployment/queries.jsonl"
"""The query log's place in a report."""
NOT_CLAIMED = (
    (
        "That information is gone: the base weights still hold what they learned, and whoever has base and patch can "
        "take the patch off."
    ),
    "That the patched model equals a model retrained without the records.",
    "That no other copy of the base model, of the data, or of an unpatched deployment exists.",
    "Anything about inputs outside the certified regions, except that nothing moved on the records looked at.",
    "That the committed training set is what the base model was really trained on.",
    "Protection against attacks stronger than the ones listed, or against an attacker who holds both base and patch.",
    (
        "That nobody can recognise a forgotten record by probing the gate: a gate is a list of exceptions. An "
        "exact-match deny-list would do the same at radius 0; what the certificate adds is the region around it, and "
        "the checks above."
    ),
    (
        "Arithmetic other than float32 (TF32, bfloat16, Winograd convolutions): the certificate is about float32, in "
        "any summation order."
    ),
)


def tool_version() -> str:
    """Name and version of this program, as reports carry it."""
    try:
        return f"prune-audit {version('prune-audit')}"
    except PackageNotFoundError:
        return "prune-audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What an audit is given.

    Args:
        bundle: the BUNDLE folder.
        policy: bytes of the C2SP policy.
        trust: bytes of the trust file.
        profile: what is demanded.
        openings: the OPENINGS folder, if the owner answered.
        reference: the auditor's own data, if any.
        state: where checkpoints are remembered, if anywhere.
        owner_log: the owner's log, a folder or an address, if it can be read.
        key: the auditor's statement key.
        ledger: the auditor's log.
        shadow_cache: where shadow models are kept between audits; None keeps nothing.
        now: seconds since 1970.
        seed: of what the challenge does not determine.
        progress: called with a stage and the share done.
        engine: where shadow models are trained; None trains them in this process.
        device: on what, in this process.
        endpoint: whom to ask for the deployed model, if anybody.
        resume: whether an interrupted run of queries may go on.
        queries: the query log of a report that is replayed; nobody is asked then.
        transport: over which wire the endpoint is asked; None is HTTP.
        pace: the clock and the waiting between queries; None is the machine's.
        own_proofs: proofs of what the auditor's log holds, by leaf hash; None reads them from `ledger`.
    """

    bundle: Path
    policy: bytes
    trust: bytes
    profile: Profile
    openings: Path | None
    reference: Path | None
    state: Path | None
    owner_log: Path | str | None
    key: SigningKey
    ledger: Ledger
    shadow_cache: Path | None
    now: int
    seed: int
    progress: Callable[[str, float], None]
    engine: Engine | None = None
    device: Device = "cpu"
    endpoint: Endpoint | None = None
    resume: bool = False
    queries: bytes | None = None
    transport: Transport | None = None
    pace: Pace | None = None
    own_proofs: Mapping[str, bytes] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An audit's result before it is written."""

    case: Case
    view: ReportView
    transcript: Transcript
    history: history.History
    own_proofs: Mapping[str, bytes]
    queries: Journal | None = None


def _checkpoints(bundle: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted((bundle / "proofs").glob("*.tlog-proof")):
        data = read_proof(bundle, path.name.removesuffix(".tlog-proof"))
        if data is not None:
            found[path.name.removesuffix(".tlog-proof")] = proof.parse(data).checkpoint_note
    return found


def _verify_quorum(case: Case) -> None:
    # Without the quorum nothing shows that others see the same log: the bundle is not verifiable, and accuses nobody.
    # Two signed histories (seen.conflicts) are evidence all the same and are reported.
    if case.policy.quorum == "none":
        return
    entries = {"certificate": case.certificate_logged, "commitment": case.commitment_logged}
    if case.predecessor is not None:
        entries["predecessor"] = case.predecessor.logged
    entries |= {f"request-{r.path.rsplit('/', 1)[-1].removesuffix('.dsse.json')}": r.logged for r in case.requests}
    for name, logged in entries.items():
        if logged.entry is not None and not logged.entry.checkpoint.quorum_met:
            raise NoQuorum(
                "its checkpoint lacks the quorum's cosignatures; run the witnesses, then `prune-owner publish`",
                where=f"proofs/{name}.tlog-proof",
            )


def _reference(inputs: Inputs, case: Case) -> tuple[Reference | None, str]:
    if inputs.reference is None:
        return None, "No reference data was given (--reference)."
    if case.schema is None or case.base is None or case.schema.shape != case.base.input_shape:
        return None, "The reference data cannot be read without an input schema that fits the base model."
    return load_reference(inputs.reference, case.schema, case.base.classes), ""


def _served(inputs: Inputs, transcript: Transcript) -> Live | Recorded | None:
    # One journal for each opened audit: what was asked under its nonce is told, whatever the audit is repeated with.
    if inputs.queries is not None:
        return Recorded.of(inputs.queries, where=QUERIES)
    if transcript.opening_leaf is None:
        return None
    state = inputs.ledger.private / "queries" / f"{transcript.opening_leaf}.jsonl"
    if inputs.endpoint is None:
        return Recorded.of(read_file(state, limit=MAX_FILE), where=str(state)) if state.is_file() else None
    revealed = inputs.ledger.revealed(transcript.opening_leaf)
    pace = inputs.pace or Pace(time.time, time.sleep)
    return Live(
        endpoint=inputs.endpoint,
        transport=inputs.transport or Rest(pace.clock),
        pace=pace,
        state=state,
        resume=inputs.resume,
        spent="a report has revealed this audit's nonce, so that anybody can foresee the probes" if revealed else "",
    )


def examine(inputs: Inputs) -> Outcome:
    """Load the bundle and run every check.

    Raises:
        Error: the bundle, the answer or a log cannot be verified; nobody is accused. Likewise a profile that promises
            to cover a threat which it cannot.
    """
    check_profile(inputs.profile, load_threats())
    policy, trust = trusted.read(inputs.policy, inputs.trust)
    inputs.progress("loading", 0.0)
    held = inputs.own_proofs if inputs.own_proofs is not None else inputs.ledger.proofs()
    case = load(inputs.bundle, policy=policy, trust=trust, own_proofs=held)
    seen = history.compare(case, _checkpoints(inputs.bundle), state=inputs.state, owner_log=inputs.owner_log)
    if not seen.conflicts:
        _verify_quorum(case)
    # Only where the log keeps to what it signed before: else there is nothing to read in it.
    owner_log = None
    if inputs.owner_log is not None and not seen.conflicts:
        owner_log = look(inputs.owner_log, policy=policy, trust=trust)
    transcript = replay(
        certificate=case.certificate,
        certificate_leaf=case.certificate_logged.leaf,
        certificate_sha256=sha256_hex(case.certificate_logged.envelope.raw),
        requests=tuple(request.logged.leaf for request in case.requests),
        commitment=case.commitment,
        answer_folder=inputs.openings,
        ledger=inputs.ledger,
        policy=policy,
        trust=trust,
        profile_sha256=inputs.profile.sha256,
        now=inputs.now,
        owner_log=owner_log,
    )
    reference, missing = _reference(inputs, case)
    evidence = Evidence(
        case=case,
        profile=inputs.profile,
        transcript=transcript,
        reference=reference,
        reference_missing=missing,
        seed=transcript.plan.seed if transcript.plan is not None else inputs.seed,
        shadow_cache=inputs.shadow_cache,
        progress=inputs.progress,
        engine=inputs.engine,
        device=inputs.device,
        log_conflicts=seen.conflicts,
        log_notes=seen.notes,
        owner_entries=owner_log.entries if owner_log is not None else None,
        served=_served(inputs, transcript),
    )
    asked = deployment.Asked()
    attacked = membership.Outcome()
    steps: dict[str, Callable[[], CheckResult]] = {
        "authenticity": lambda: authenticity.check(evidence),
        "inclusion": lambda: inclusion.check(evidence),
        "freshness": lambda: freshness.check(evidence),
        "binding": lambda: binding.check(evidence),
        "completeness": lambda: completeness.check(evidence),
        "redirection": lambda: redirection.check(evidence),
        "locality": lambda: locality.check(evidence),
        "utility": lambda: utility.check(evidence),
        "membership": lambda: membership.check(evidence, attacked),
        "persistence": lambda: persistence.check(evidence),
        "disclosure": lambda: disclosure.check(evidence),
        "deployment": lambda: deployment.check(evidence, asked),
        "boundedness": lambda: boundedness.check(evidence),
        "challenge": lambda: challenge.check(evidence),
        "monitor": lambda: monitor.check(evidence),
        "hygiene": lambda: hygiene.check(evidence),
    }
    results = []
    for number, name in enumerate(CHECKS):
        inputs.progress(name, number / len(CHECKS))
        results.append(steps[name]())
    inputs.progress("done", 1.0)
    checks = tuple(results)
    lines = _lines(checks, inputs.profile)
    names = {
        "certificate": case.certificate_logged.leaf,
        "commitment": case.commitment_logged.leaf,
        **{f"request {number}": request.logged.leaf for number, request in enumerate(case.requests)},
        "base model (SHA-256)": case.base_sha256,
        "profile (SHA-256)": inputs.profile.sha256,
        "method, as the owner names it": case.certificate.method,
    }
    if transcript.opening_leaf is not None:
        names["opened audit"] = transcript.opening_leaf
    view = ReportView(
        verdict=combine(lines),
        profile=inputs.profile.name,
        audited_at=format_time(inputs.now),
        names=names,
        checks=checks,
        required=inputs.profile.required,
        pictures=pictures(evidence, attacked, *_rebuilt(checks)),
        not_claimed=NOT_CLAIMED,
        figures=_figures(evidence, attacked, asked.journal) | _not_proven(checks),
    )
    logged = [*(request.logged for request in case.requests), *([case.opening_logged] if case.opening_logged else [])]
    used = {one.leaf: held[one.leaf] for one in logged if one.leaf in held}
    return Outcome(case=case, view=view, transcript=transcript, history=seen, own_proofs=used, queries=asked.journal)


def _rebuilt(checks: tuple[CheckResult, ...]) -> tuple[float | None, dict[int, float]]:
    # What the disclosure check found: of the worst part, and of each where there are several.
    found = next((check.evidence for check in checks if check.check == "disclosure"), {})
    parts = {int(name.removeprefix("part_")): float(value) for name, value in found.get("parts", {}).items()}
    ratio = found.get("ratio")
    return (float(ratio) if isinstance(ratio, float) else None), parts


def _not_proven(checks: tuple[CheckResult, ...]) -> dict[str, Any]:
    # Radii of claims that are certified but not proven: the certified ones alone would say too much.
    found = next((check.evidence.get("not_proven") for check in checks if check.check == "redirection"), None)
    return {"not_proven": found} if found is not None else {}


def _lines(checks: tuple[CheckResult, ...], profile: Profile) -> tuple[CheckLine, ...]:
    return tuple(
        CheckLine(check=result.check, verdict=result.verdict, required=result.check in profile.required)
        for result in checks
    )


def _figures(evidence: Evidence, attacked: membership.Outcome, queries: Journal | None) -> dict[str, Any]:
    figures: dict[str, Any] = {"forget_records": len(evidence.requested_records[0])}
    figures["shown_to_the_auditor"] = {
        "requested_records": len(evidence.case.opened or ()),
        "retained_records": len(evidence.transcript.opened or ()),
        "challenged_records": evidence.transcript.challenge.count if evidence.transcript.challenge is not None else 0,
        "answers_of_the_endpoint": sum(line.logits is not None for line in queries.lines) if queries is not None else 0,
        "requests_to_the_endpoint": queries.requests if queries is not None else 0,
        "of_committed": evidence.case.commitment.record_count,
    }
    retained = evidence.others.get("retained") if evidence.retained_gap == "" else None
    if retained is not None:
        spared = evidence.spared["retained"]
        kept = np.setdiff1d(np.arange(retained[2].shape[1]), list(evidence.removed_classes))
        count = int(moved(retained[2][spared][:, kept], retained[3][spared][:, kept]).sum())
        total = int(spared.sum())
        if total:
            figures["retained_affected"] = {
                "opened": total, "moved": count, "share_at_most": interval(count, total)[1],
            }  # fmt: skip
    if evidence.reference is not None:
        figures["reference_records"] = len(evidence.reference.labels)
        figures["reference_records_outside_the_input_box"] = evidence.reference.outside
    for norm, unit in (("linf", "step"), ("hamming", "flip")):
        radii = sorted(claim.region.radius for claim in evidence.redirections if claim.region.norm == norm)
        steps = sorted(claim.region.steps for claim in evidence.redirections if claim.region.norm == norm)
        if not radii:
            continue
        size = {"norm": norm, "unit": unit, "min": str(radii[0]), "median": str(radii[len(radii) // 2])}
        if steps[-1]:
            size |= {"steps_min": str(steps[0]), "steps_median": str(steps[len(steps) // 2])}
        # Claims are of one kind as a rule; should they not be, both have a line.
        figures["certified_radius" if "certified_radius" not in figures else f"certified_radius_{norm}"] = size
    if evidence.redirections:
        figures["claims_with_a_retained_twin"] = sum(claim.twins > 0 for claim in evidence.redirections)
        figures["retained_twins"] = sum(claim.twins for claim in evidence.redirections)
    elif evidence.removed_classes and evidence.case.schema is not None:
        # A cap acts on every input: its region is the whole input box, whose radius is its widest column (SPEC 11.6).
        widest = str(int((evidence.case.schema.high - evidence.case.schema.low).max()))
        figures["certified_radius"] = {"norm": "linf", "unit": "step", "min": widest, "median": widest}
    if evidence.removed_classes:
        figures["removed_classes"] = list(evidence.removed_classes)
    figures |= all_figures(attacked)
    return figures


def _pages(view: ReportView) -> dict[str, tuple[str, bytes]]:
    return {
        "report.html": ("page", render(view).encode()),
        "summary.json": ("summary", json.dumps(to_summary(view), indent=2, sort_keys=True).encode() + b"\n"),
        **{path: ("picture", data) for path, data in svg_files(view).items()},
    }


def _contents(pages: Mapping[str, tuple[str, bytes]]) -> dict[str, bytes]:
    return {path: data for path, (_, data) in pages.items()}


def _without_words(view: ReportView, search: Search) -> ReportView:
    # Names, paths and reasons of the owner's that the report quotes, wherever it does.
    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return "(withheld: shows an opened record)" if search({"": value.encode()}) else value
        if isinstance(value, Mapping):
            return {name: clean(one) for name, one in value.items()}
        return [clean(one) for one in value] if isinstance(value, list | tuple) else value

    return replace(
        view,
        names=clean(view.names),
        checks=tuple(
            replace(
                check,
                summary=clean(check.summary),
                evidence=clean(check.evidence),
                findings=tuple(replace(one, message=clean(one.message)) for one in check.findings),
            )
            for check in view.checks
        ),
    )


def write_report(inputs: Inputs, outcome: Outcome, out: Path, *, force: bool) -> Report:
    """Write the REPORT folder: pages, manifest, signed and logged report, one receipt for each request.

    No receipt is made where the owner's log signed two histories: nothing would verify it.

    Raises:
        AuditorError: something cannot be written.
    """
    case, view = outcome.case, outcome.view
    search = Search((*(case.opened or ()), *(outcome.transcript.opened or ())), case.schema)
    pages = _pages(view)
    if search(_contents(pages)):
        # An owner can put a record into what it says or how it names things; that must not keep a report from being
        # written. The words are withheld.
        view = _without_words(view, search)
        pages = _pages(view)
    if found := search(_contents(pages)):
        raise AuditorError(
            f"the report would show an opened record ({found[0].form}); nothing was written", where=found[0].path
        )
    new_folder(out, force=force)
    files: dict[str, tuple[str, bytes]] = {
        **pages,
        "profile.yaml": ("profile", inputs.profile.raw),
    }
    if outcome.transcript.plan is not None:
        files["plan.yaml"] = ("plan", outcome.transcript.plan.raw)
    if outcome.transcript.opening_envelope is not None:
        files["transcript/opening.dsse.json"] = ("transcript", outcome.transcript.opening_envelope)
    if outcome.transcript.challenge_envelope is not None and outcome.transcript.challenge_proof is not None:
        files["transcript/challenge.dsse.json"] = ("transcript", outcome.transcript.challenge_envelope)
        files["transcript/challenge.tlog-proof"] = ("transcript", outcome.transcript.challenge_proof)
        if outcome.transcript.latest_proof is not None:
            files["transcript/latest.tlog-proof"] = ("transcript", outcome.transcript.latest_proof)
        # What the challenge answers: whoever has the report alone sees that it is the owner's, and names this audit.
        entry = outcome.transcript.acknowledged or (
            case.certificate_logged.envelope.raw,
            read_proof(inputs.bundle, "certificate"),
        )
        files["transcript/entry.dsse.json"] = ("transcript", entry[0])
        if entry[1] is not None:
            files["transcript/entry.tlog-proof"] = ("transcript", entry[1])
    for leaf, data in outcome.own_proofs.items():
        files[f"transcript/{leaf}.tlog-proof"] = ("transcript", data)
    if outcome.queries is not None:
        files[QUERIES] = ("queries", outcome.queries.to_bytes())
    for name, data in outcome.history.evidence:
        files[f"evidence/{name}"] = ("evidence", data)
    for path, (_, data) in files.items():
        write_atomic(out / path, data)
    listing = manifest.build(
        out, [(path, role) for path, (role, _) in files.items()], refers=case.certificate_logged.leaf
    )
    write_atomic(out / "manifest.json", listing.raw)
    report = Report(
        subject=sha256_hex(listing.raw),
        certificate=case.certificate_logged.leaf,
        opening=outcome.transcript.opening_leaf,
        nonce=outcome.transcript.nonce,
        profile=inputs.profile.name,
        profile_sha256=inputs.profile.sha256,
        policy_sha256=sha256_hex(inputs.policy),
        trust_sha256=sha256_hex(inputs.trust),
        verdict=view.verdict,
        checks=_lines(view.checks, inputs.profile),
        findings=tuple(dict.fromkeys(FindingLine(threat=f.threat, check=f.check) for f in view.findings)),
        tool=tool_version(),
        audited_at=inputs.now,
    )
    envelope = sign(report.payload(), inputs.key)
    # First: from here on the nonce may be known, whatever becomes of the rest.
    if outcome.transcript.opening_leaf is not None and outcome.transcript.nonce is not None:
        inputs.ledger.reveal(outcome.transcript.opening_leaf)
    own = inputs.ledger.append(envelope)
    write_atomic(out / "report.dsse.json", envelope)
    write_atomic(out / "proofs" / "report.tlog-proof", own)
    held = inputs.ledger.proofs()
    # A log that signed two histories proves nothing about what is in it: the report says so, and no receipt is made.
    for request in () if outcome.history.conflicts else case.requests:
        number = request.path.rsplit("/", 1)[-1].removesuffix(".dsse.json")
        named = {
            "report": own,
            "certificate": read_proof(inputs.bundle, "certificate"),
            "commitment": read_proof(inputs.bundle, "commitment"),
            "request": held.get(request.logged.leaf) or read_proof(inputs.bundle, f"request-{number}"),
        }
        receipt = receipts.make(
            case,
            request,
            report_envelope=envelope,
            report=report,
            proofs={name: data for name, data in named.items() if data is not None},
            key=inputs.key,
            ledger=inputs.ledger,
            now=inputs.now,
        )
        write_atomic(out / "receipts" / f"{number}.receipt", receipt.to_bytes())
    return report


__all__ = ["Inputs", "Outcome", "examine", "write_report"]
