"""hygiene: is a file hostile?

Limits were applied before parsing; what a signed manifest lists and cannot be read is here, and a base model
whose outputs are not numbers.
"""

from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding


def check(evidence: Evidence) -> CheckResult:
    """REFUTED by a file that the owner signed for and that breaks a rule of its format."""
    hostile = evidence.case.hostile
    if evidence.not_numbers:
        message = f"base.onnx: the output is NaN or infinite on {evidence.not_numbers} of the records at hand"
        hostile = (*hostile, Finding(threat="hostile-artefact", check="hygiene", message=message))
    if hostile:
        return CheckResult(
            check="hygiene",
            verdict="REFUTED",
            summary=f"A file that the owner signed for is refused: {hostile[0].message}.",
            evidence={"files": [finding.message for finding in hostile[:20]]},
            findings=hostile,
        )
    return CheckResult(
        check="hygiene",
        verdict="CONSISTENT",
        summary="Every file is of its declared form and within the limits.",
        evidence={"files": len(evidence.case.manifest.entries)},
    )
