"""monitor: what happened since?  A report speaks as of its checkpoints; later entries need a log to look at."""

from auditor.evidence import Evidence
from auditor.view import CheckResult


def check(evidence: Evidence) -> CheckResult:
    """INCONCLUSIVE in a report; `verify-log --state` and later audits look at what came after."""
    del evidence
    return CheckResult(
        check="monitor",
        verdict="INCONCLUSIVE",
        summary="This report speaks as of its checkpoints; what superseded it since needs a later look at the log.",
    )
