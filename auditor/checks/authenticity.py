"""authenticity: signed by whom it says, exactly these bytes?

The signatures were verified when the case was loaded (anything unsigned ended the audit there). What
is left to say is who signed what, and whether a request claims a signer that it does not have.
"""

from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding


def check(evidence: Evidence) -> CheckResult:
    """Name the signers; REFUTED if the owner signed a request as if the subject had."""
    case = evidence.case
    findings = []
    behalf = own = 0
    for request in case.requests:
        if request.logged.signed_as == "requester":
            own += 1
        elif request.request.on_behalf:
            behalf += 1
        else:
            message = f"{request.path} says that the requester signed it, but the owner's key did"
            findings.append(Finding(threat="forged-request", check="authenticity", message=message))
    signed_by = sorted({signer.key.name for signer in case.certificate_logged.signers})
    facts = {
        "certificate_signed_by": signed_by,
        "commitment_signed_by": sorted({signer.key.name for signer in case.commitment_logged.signers}),
        "requests_signed_by_requester": own,
        "requests_signed_by_owner_on_behalf": behalf,
    }
    if findings:
        return CheckResult(
            check="authenticity",
            verdict="REFUTED",
            summary=findings[0].message + ".",
            evidence=facts,
            findings=tuple(findings),
        )
    if behalf and evidence.profile.levels["authenticity"]["requester_required"]:
        return CheckResult(
            check="authenticity",
            verdict="INCONCLUSIVE",
            summary=f"{behalf} of {behalf + own} requests were signed by the owner: nothing shows that the subject "
            "asked.",
            evidence=facts,
        )
    note = f" {behalf} of {behalf + own} requests were signed by the owner on the subject's behalf." if behalf else ""
    return CheckResult(
        check="authenticity",
        verdict="CONSISTENT",
        summary=f"Every envelope is signed by a key that the trust file allows for it.{note}",
        evidence=facts,
    )
