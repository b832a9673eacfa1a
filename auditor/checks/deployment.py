"""deployment: does the live endpoint serve the certified model?  Asked only where an endpoint is given."""

from auditor.evidence import Evidence
from auditor.view import CheckResult


def check(evidence: Evidence) -> CheckResult:
    """INCONCLUSIVE: this program does not query endpoints yet."""
    del evidence
    return CheckResult(
        check="deployment",
        verdict="INCONCLUSIVE",
        summary="No endpoint was queried: nothing is known of what is served.",
    )
