"""inclusion: is it in the log, does the log only grow, does everyone see the same log?

Inclusion proofs were verified when the case was loaded. Here: did a quorum of witnesses see the
checkpoints, and do they agree with what this auditor remembers of the log?
"""

from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding
from protocol.logged import Logged


def check(evidence: Evidence) -> CheckResult:
    """REFUTED by two signed checkpoints that no append-only log can both have."""
    case = evidence.case
    entries: dict[str, Logged] = {"certificate": case.certificate_logged, "commitment": case.commitment_logged}
    entries |= {request.path: request.logged for request in case.requests}
    facts: dict[str, object] = {}
    missing, unwitnessed = [], []
    for name, logged in entries.items():
        if logged.entry is None:
            missing.append(name)
            continue
        checkpoint = logged.entry.checkpoint
        facts[name] = {
            "log": checkpoint.origin,
            "index": logged.entry.index,
            "tree_size": checkpoint.checkpoint.size,
            "witnesses": sorted(checkpoint.cosigned),
        }
        if not checkpoint.quorum_met and case.policy.quorum != "none":
            unwitnessed.append(name)
    findings = tuple(
        Finding(threat=threat, check="inclusion", message=message) for threat, message in evidence.log_conflicts
    )
    if findings:
        return CheckResult(
            check="inclusion",
            verdict="REFUTED",
            summary=f"The owner's log signed two histories: {findings[0].message}.",
            evidence=facts,
            findings=findings,
        )
    if missing:
        summary = f"No log proof was given for {', '.join(missing)}."
    elif unwitnessed:
        summary = (
            f"The quorum of witnesses has not cosigned the checkpoint of {', '.join(unwitnessed)}; run the witnesses, "
            "then `prune-owner publish`."
        )
    elif evidence.log_notes:
        summary = " ".join(evidence.log_notes)
    else:
        return CheckResult(
            check="inclusion",
            verdict="CONSISTENT",
            summary="Everything is in the log under checkpoints that the policy's quorum cosigned."
            if case.policy.quorum != "none"
            else "Everything is in the log; the policy asks for no witness.",
            evidence=facts,
        )
    return CheckResult(check="inclusion", verdict="INCONCLUSIVE", summary=summary, evidence=facts)
