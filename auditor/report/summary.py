"""summary.json: what the page says, for programs.

Assumes: check ids are unique within a report. Does not sign: the report's manifest covers the file.
"""

from typing import Any

from auditor.report.text import plain
from auditor.view import ReportView


def to_summary(view: ReportView) -> dict[str, Any]:
    """Return the object that summary.json holds; the same view always gives the same object."""
    return {
        "verdict": view.verdict,
        "profile": plain(view.profile),
        "checks": {
            plain(result.check): {
                "verdict": result.verdict,
                "required": result.check in view.required,
                "summary": plain(result.summary),
                "evidence": plain(result.evidence),
            }
            for result in view.checks
        },
        "findings": [
            {"threat": plain(item.threat), "check": plain(item.check), "message": plain(item.message)}
            for item in view.findings
        ],
        "figures": plain(view.figures),
    }
