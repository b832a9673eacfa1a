"""completeness: is every requested record covered by a claim, and is it really that record?

A record with an explicit no-redirection claim counts as covered. Requests that were never logged are
out of reach: nobody outside can know of them.
"""

from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding
from protocol.claims import NoRedirection, Redirection


def check(evidence: Evidence) -> CheckResult:
    """REFUTED by a requested record without a claim, or an opening that is not the committed record."""
    case = evidence.case
    findings: list[Finding] = []
    gaps: list[str] = []

    def accuse(threat: str, message: str) -> None:
        findings.append(Finding(threat=threat, check="completeness", message=message))

    present = {request.logged.leaf for request in case.requests}
    if present != set(case.certificate.requests):
        accuse("partial-forget-set", "the certificate answers other requests than the bundle holds")
    facts: dict[str, object] = {"requests": len(case.requests)}
    if case.claims is None:
        gaps.append("the claims cannot be read")
    if evidence.transcript.further_requests:
        gaps.append(
            f"the audit was opened for {evidence.transcript.further_requests} further requests, which this certificate "
            "does not answer"
        )
    claimed = {c.record for c in case.claims or () if isinstance(c, (Redirection, NoRedirection))}
    requested: set[bytes] = set()
    for request in case.requests:
        klass = request.request.scope.klass
        if request.request.scope.kind == "trigger":
            gaps.append(f"{request.path} is about a trigger, for which no claim exists yet")
            continue
        if klass is not None:
            if klass not in evidence.removed_classes and case.claims is not None:
                accuse("partial-forget-set", f"no claim removes class {klass}, which {request.path} asks for")
            continue
        if request.listed is None:
            gaps.append(f"the list of records of {request.path} cannot be read")
            continue
        requested |= set(request.listed)
    missing = sorted(requested - claimed)
    facts |= {"requested_records": len(requested), "claimed_records": len(claimed & requested)}
    if missing and case.claims is not None:
        facts["missing"] = [record.hex()[:16] for record in missing[:20]]
        accuse(
            "partial-forget-set",
            f"{len(missing)} of {len(requested)} requested records have no claim, "
            f"the first is {missing[0].hex()[:16]}…",
        )
    if case.opened is None:
        gaps.append("the requested records were not opened" + (" (erased)" if case.openings_erased else ""))
    else:
        found = evidence.opened_by_commitment
        # One record that was committed at two places is opened twice and counts once; that is no substitution.
        wrong = sum(opened.commitment not in found for opened in case.opened)
        if wrong:
            accuse("substituted-record", f"{wrong} opened records are not the ones that were committed")
        unopened = requested - found.keys()
        if unopened and not wrong:
            gaps.append(f"{len(unopened)} requested records were not opened")
        elif not wrong and evidence.runnable and evidence.requested_missing:
            gaps.append(f"{evidence.requested_missing} requested records do not fit the model's inputs and classes")
        facts["opened_records"] = len(found)
        for request in case.requests:
            group = request.request.scope.group
            if group is None:
                continue
            own = [found[record] for record in request.listed or () if record in found]
            if any(opened.group.hex() != group for opened in own):
                accuse(
                    "substituted-record", f"{request.path} lists records of others than the subject that it is about"
                )
            elif own and own[0].group_count != len(request.listed or ()):
                accuse(
                    "partial-forget-set",
                    f"the subject has {own[0].group_count} committed records, {request.path} covers "
                    f"{len(request.listed or ())}",
                )
    if findings:
        return CheckResult(
            check="completeness",
            verdict="REFUTED",
            summary=findings[0].message[0].upper() + findings[0].message[1:] + ".",
            evidence=facts,
            findings=tuple(findings),
        )
    if gaps:
        return CheckResult(
            check="completeness",
            verdict="INCONCLUSIVE",
            summary=gaps[0][0].upper() + gaps[0][1:] + ".",
            evidence=facts | {"gaps": gaps},
        )
    return CheckResult(
        check="completeness",
        verdict="CONSISTENT",
        summary="Every requested record has a claim, and every opened record is the committed one.",
        evidence=facts,
    )
