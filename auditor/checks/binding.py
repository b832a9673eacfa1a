"""binding: are the files on the table the ones that were signed, and is the deployed file base plus patch?

Digests of all files were compared with the signed manifest when the case was loaded. Here: the
manifest against the commitment, the claims against the certificate, and the deployed file node by
node and constant by constant against the auditor's own composition (protobuf bytes are not canonical).
"""

from auditor import compose
from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding
from protocol.model.graph import Graph


def check(evidence: Evidence) -> CheckResult:
    """REFUTED if a signed manifest disagrees with the signed commitment or certificate."""
    case = evidence.case
    findings: list[Finding] = []

    def accuse(threat: str, message: str) -> None:
        findings.append(Finding(threat=threat, check="binding", message=message))

    for name, listed, committed in (
        ("base model", case.base_sha256, case.commitment.base),
        ("input schema", case.schema_sha256, case.commitment.schema),
        ("training recipe", case.recipe_sha256, case.commitment.recipe),
    ):
        if listed and listed != committed:
            accuse("base-swap", f"the {name} is not the one that was committed before any request")
    if case.claims_root is not None and (
        case.claims_root != case.certificate.claims_root or len(case.claim_lines) != case.certificate.claim_count
    ):
        accuse("silent-drop", "claims.jsonl is not the list of claims that the certificate's root stands for")
    composed = evidence.composed
    unread = ""
    if isinstance(composed, Graph) and case.patched is not None:
        difference = compose.compare(composed, case.patched)
        if difference is not None:
            accuse("hidden-payload", f"patched.onnx is not base plus patch: {difference}")
    else:
        unread = "Base and patch cannot be composed: " + (
            composed if isinstance(composed, str) else "patched.onnx cannot be read"
        )
    if case.certificate.predecessor is not None:
        # Nothing accuses: the predecessor is not on the table, so whether it was dropped claim by claim is not known.
        unread = unread or "The certificate names a predecessor, whose claims are not on the table"
    facts = {
        "base_sha256": case.base_sha256,
        "files": len(case.manifest.entries),
        "patch_bytes": case.patch_bytes,
    }
    if findings:
        return CheckResult(
            check="binding",
            verdict="REFUTED",
            summary=findings[0].message[0].upper() + findings[0].message[1:] + ".",
            evidence=facts,
            findings=tuple(findings),
        )
    if unread:
        return CheckResult(check="binding", verdict="INCONCLUSIVE", summary=f"{unread}.", evidence=facts)
    return CheckResult(
        check="binding",
        verdict="CONSISTENT",
        summary="The base model is the committed one, and the deployed file is exactly base plus patch.",
        evidence=facts,
    )
