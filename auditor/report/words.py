"""The page's fixed sentences: what a verdict means, and what each check asks.

No sentence here says that information is gone from a model; none could.
"""

from auditor.view import ReportView

QUESTIONS = {
    "authenticity": "Signed by whom it says, and exactly these bytes?",
    "inclusion": "Is it in the log, does the log only grow, and does everyone see the same log?",
    "freshness": "Was the order kept (commitment, request, certificate), inside the deadline, and not replayed?",
    "binding": "Are the files on the table the ones that were signed?",
    "completeness": "Is every requested record covered by a claim?",
    "redirection": "Does the patched model give the claimed output on every record of the forget set and its region?",
    "locality": "Is the output unchanged away from the supports?",
    "utility": "Did accuracy on retained and reference data stay, per class too?",
    "membership": "Can an attacker tell the forget set from records never seen, in either direction?",
    "persistence": "Does the old behaviour come back just outside the certified region?",
    "disclosure": "Can a record of the forget set be rebuilt from the patch or the certificate?",
    "deployment": "Does the live endpoint serve the certified model, for everyone, all the time?",
    "boundedness": "Can the patch do more than its table of outputs, and is it larger than what was asked needs?",
    "challenge": "Were plan, nonce, order and openings as committed?",
    "monitor": "What happened since: superseded, ingested again, audits opened without a report?",
    "hygiene": "Is a file hostile?",
}
WORDS = {
    "CONSISTENT": "Consistent",
    "REFUTED": "Refuted",
    "INCONCLUSIVE": "Inconclusive",
}


def meaning(view: ReportView) -> str:
    """Return the one sentence that says what the verdict means; it follows from the required checks only."""
    if view.verdict == "CONSISTENT":
        return "Every check that the profile requires was made, and none of them contradicts what the owner signed."
    if view.verdict == "REFUTED":
        return "A check that the profile requires found evidence against a signed claim or a level the profile sets."
    return "No required check was refuted, but one or more could not be decided, so the question stays open."


def deciding(view: ReportView) -> tuple[str, ...]:
    """Return the required checks that gave the verdict; none where it is CONSISTENT."""
    if view.verdict == "CONSISTENT":
        return ()
    missing = () if view.verdict == "REFUTED" else absent(view)
    return (*(c.check for c in view.checks if c.check in view.required and c.verdict == view.verdict), *missing)


def absent(view: ReportView) -> tuple[str, ...]:
    """Return the required checks that have no result."""
    made = {result.check for result in view.checks}
    return tuple(check for check in view.required if check not in made)


def aside(view: ReportView) -> tuple[str, ...]:
    """Return the checks that were refuted but do not count, so that nobody overlooks them."""
    return tuple(c.check for c in view.checks if c.check not in view.required and c.verdict == "REFUTED")
