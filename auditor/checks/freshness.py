"""freshness: commit before request before certificate, inside the deadline, not replayed?

Order comes from hashes: an entry that names another's leaf is younger than it. Dates come only from a
quorum's witness times; the owner's own times are claims.
"""

from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding
from protocol.digests import sha256_hex
from protocol.encoding import format_time


def check(evidence: Evidence) -> CheckResult:
    """REFUTED if a signed message names something older than it should, or an audit opened for other requests."""
    case = evidence.case
    certificate = case.certificate
    findings: list[Finding] = []
    facts: dict[str, object] = {}

    def accuse(threat: str, message: str) -> None:
        findings.append(Finding(threat=threat, check="freshness", message=message))

    if certificate.commitment != case.commitment_logged.leaf:
        accuse("replay", "the certificate speaks of another commitment than the one that its manifest lists")
    digest = sha256_hex(case.commitment_logged.envelope.raw)
    for request in case.requests:
        if request.request.subject != digest:
            accuse("replay", f"{request.path} is about another commitment; its certificate was made for something else")
    own = case.certificate_logged.entry
    committed = case.commitment_logged.entry
    if own is not None and committed is not None and own.checkpoint.origin == committed.checkpoint.origin:
        facts["order_in_log"] = [committed.index, own.index]
        later = [
            request.path
            for request in case.requests
            if request.logged.entry is not None
            and request.logged.entry.checkpoint.origin == own.checkpoint.origin
            and not committed.index < request.logged.entry.index < own.index
        ]
        if committed.index >= own.index or later:
            accuse("backdated-certificate", "the log has commitment, requests and certificate in another order")
    if case.opening is not None and case.opening_logged is not None:
        if certificate.opening != case.opening_logged.leaf:
            accuse("replay", "the bundle's opened audit is not the one that the certificate names")
        elif not set(certificate.requests) <= set(case.opening.requests):
            accuse(
                "replay",
                "the certificate names an audit that was opened for other requests: its challenge may have been known",
            )
    elif certificate.opening is not None and evidence.transcript.unopened_requests:
        accuse("replay", "the certificate names an audit that this auditor opened for other requests")
    late, unknown, without = [], [], []
    witnessed = case.certificate_logged.time
    for request in case.requests:
        deadline = request.request.deadline
        if deadline is None:
            without.append(request.path)
            continue
        if witnessed is None:
            unknown.append(request.path)
        elif witnessed > deadline:
            late.append(request.path)
    facts["certificate_witnessed_at"] = format_time(witnessed) if witnessed is not None else None
    if findings:
        return CheckResult(
            check="freshness",
            verdict="REFUTED",
            summary=findings[0].message[0].upper() + findings[0].message[1:] + ".",
            evidence=facts,
            findings=tuple(findings),
        )
    if late or unknown:
        names = ", ".join(late or unknown)
        return CheckResult(
            check="freshness",
            verdict="INCONCLUSIVE",
            summary=f"Nothing shows that the certificate met the deadline of {names}"
            + (" (no quorum witnessed its time)." if unknown and not late else "."),
            evidence=facts,
        )
    if without and evidence.profile.levels["freshness"]["deadline_required"]:
        return CheckResult(
            check="freshness",
            verdict="INCONCLUSIVE",
            summary=f"{', '.join(without)} names no deadline, so nothing can be said about one.",
            evidence=facts,
        )
    return CheckResult(
        check="freshness",
        verdict="CONSISTENT",
        summary="Commitment, request and certificate name each other in this order.",
        evidence=facts,
    )
