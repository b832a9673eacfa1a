"""challenge: were plan, nonce, order and openings as committed?  The transcript was replayed on loading."""

from auditor.evidence import Evidence
from auditor.view import CheckResult


def check(evidence: Evidence) -> CheckResult:
    """CONSISTENT if the transcript is complete; REFUTED only by openings that signed bytes show to be false."""
    transcript = evidence.transcript
    facts: dict[str, object] = {}
    if transcript.challenge is not None:
        facts = {
            "asked": transcript.challenge.count,
            "of": transcript.challenge.population,
            "opened": len(transcript.opened) if transcript.opened is not None else 0,
            "answered_in_time": transcript.answered_in_time,
        }
    proven = [problem for problem in transcript.problems if problem[2]]
    findings = tuple(finding for _, finding, _ in transcript.problems if finding is not None)
    if proven:
        return CheckResult(
            check="challenge",
            verdict="REFUTED",
            summary=proven[0][0][0].upper() + proven[0][0][1:] + ".",
            evidence=facts,
            findings=findings,
        )
    if transcript.opening_leaf is None:
        summary = "No audit was opened before the certificate: plan and openings could have been chosen afterwards."
    elif transcript.problems:
        message = transcript.problems[0][0]
        summary = message[0].upper() + message[1:] + "."
    elif transcript.opened is None:
        summary = "The challenged records were not opened."
    else:
        return CheckResult(
            check="challenge",
            verdict="CONSISTENT",
            summary=f"Plan, nonce and order are as committed; all {len(transcript.opened)} challenged records "
            "were opened in time.",
            evidence=facts,
        )
    return CheckResult(check="challenge", verdict="INCONCLUSIVE", summary=summary, evidence=facts, findings=findings)
