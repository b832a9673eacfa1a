"""membership: can an attacker tell forgotten records from records never seen, in either direction?

Trains shadow models on the auditor's own reference data, runs every attack that profile and plan name in both
tails beside a null control, and decides by an equivalence test (`auditor.membership`). The unpatched base's
figures stand beside. Held-out members of a removed class are attacked among never-seen records of the same class,
where the challenge opened enough of them; where it did not, the profile says whether this check is INCONCLUSIVE
about the class or says so beside a verdict on its removal. Properties of a kind of patch are shown and decide
nothing, unless the profile sets a limit for one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from auditor import attacking
from auditor.attacks.observation import Observation, Unavailable
from auditor.attacks.properties import Property
from auditor.comparisons import RetainedAssessment, across
from auditor.evidence import Evidence
from auditor.membership import FEWEST_FORGOTTEN, MembershipAssessment
from auditor.statistics.epsilon import MEANING
from auditor.suite import Suite, settle
from auditor.view import CheckResult, Finding
from protocol.errors import AuditorError
from protocol.messages.report import VerdictName

_SHADOW_SHARE = 0.5
"""Least accuracy of the shadow models on records that they did not see, as a share of the base's on the same."""
FORGOTTEN = "forgotten records"
AGAIN = "the owner's method re-run"


class Outcome:
    """What the check keeps for the report's pictures, tables and figures.

    Attributes:
        suite: what was to be run.
        patched: the assessment of the patched model on the forgotten records.
        base: likewise of the base.
        assessments: every assessment of the patched model, by whom it is about; decided together.
        bases: the base's beside them, as far as there are any.
        retained: what became of retained records, if that was asked, or why nobody knows.
        properties: by name.
        observed: the base's and the patched model's outputs on forgotten and never-seen records.
        mask: which of them are forgotten.
    """

    def __init__(self) -> None:
        self.suite: Suite | None = None
        self.patched: MembershipAssessment | None = None
        self.base: MembershipAssessment | None = None
        self.assessments: dict[str, MembershipAssessment] = {}
        self.bases: dict[str, MembershipAssessment] = {}
        self.retained: RetainedAssessment | Unavailable | None = None
        self.properties: dict[str, Property | Unavailable] = {}
        self.observed: tuple[Observation, Observation] | None = None
        self.mask: np.ndarray = np.zeros(0, dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One thing that the check found out, and what it means for the verdict."""

    verdict: VerdictName
    reason: str
    findings: tuple[Finding, ...] = ()


def _inconclusive(summary: str) -> CheckResult:
    return CheckResult(check="membership", verdict="INCONCLUSIVE", summary=summary)


def check(evidence: Evidence, outcome: Outcome) -> CheckResult:
    """CONSISTENT if every required attack is surely within the margin of its control, REFUTED if one is beyond."""
    case = evidence.case
    if not evidence.runnable or case.base is None or case.schema is None:
        return _inconclusive(f"Nothing can be run: {evidence.composed}.")
    if evidence.reference is None:
        return _inconclusive(evidence.reference_missing or "No reference data was given.")
    listed = bool(evidence.requested) or not evidence.lists_known or not evidence.removed_classes
    if listed and not len(evidence.requested_records[0]):
        return _inconclusive("No forgotten record was opened.")
    section = evidence.transcript.plan.membership if evidence.transcript.plan is not None else None
    try:
        suite = settle(evidence.profile.levels["membership"], section)
        suite.plan()
    except AuditorError as error:
        return _inconclusive(f"The profile's plan cannot be run: {error}.")
    outcome.suite = suite
    refusals = {klass: attacking.class_refusal(evidence, klass) for klass in evidence.removed_classes}
    parts = [_still_given(evidence)] if evidence.removed_classes else []
    parts += _not_attacked(refusals, required=bool(evidence.profile.levels["membership"]["class_members_required"]))
    facts: dict[str, object] = {"margin": suite.margin, "level": suite.level, "shadows": suite.shadows}
    if evidence.device != "cpu":
        facts["device"] = evidence.device
    if evidence.removed_classes:
        facts["records_given_a_removed_class"] = _given(evidence)
    attacked = [klass for klass, reason in refusals.items() if not reason]
    refused = too_few(evidence, listed=listed) if not attacked else ""
    if refused:
        # Known before an hour of training that could decide nothing.
        return _conclude([*parts, _Part(verdict="INCONCLUSIVE", reason=refused)], facts)
    if listed or attacked:
        try:
            field = attacking.prepare(evidence, suite)
        except AuditorError as error:
            return _conclude([*parts, _Part(verdict="INCONCLUSIVE", reason=f"No shadow models: {error}.")], facts)
        parts += _attack(field, outcome, attacked, facts, listed=listed)
    return _conclude(parts, facts)


def too_few(evidence: Evidence, *, listed: bool) -> str:
    """Why nothing can be decided about the listed records, from their numbers alone; empty if it can."""
    forgotten = len(evidence.requested_records[0])
    if listed and forgotten < FEWEST_FORGOTTEN:
        return f"{forgotten} forgotten records; at least {FEWEST_FORGOTTEN} are needed."
    return ""


def _not_attacked(refusals: Mapping[int, str], *, required: bool) -> list[_Part]:
    # Removing a class is about the class. Whether its members can be told apart is asked beside it, if it can be.
    if required:
        return [_Part(verdict="INCONCLUSIVE", reason=_sentence(reason)) for reason in refusals.values() if reason]
    return [
        _Part(
            verdict="CONSISTENT",
            reason=f"Members of class {klass} were not attacked, and nothing is said of them: {reason}.",
        )
        for klass, reason in refusals.items()
        if reason
    ]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _attack(
    field: attacking.Field, outcome: Outcome, classes: list[int], facts: dict[str, object], *, listed: bool
) -> list[_Part]:
    evidence, suite = field.evidence, field.suite
    parts: list[_Part] = []
    found: dict[str, MembershipAssessment] = {}
    if listed:
        subjects = attacking.subjects_of(field)
        found[FORGOTTEN], outcome.base, *observed = attacking.attack_forgotten(field, subjects)
        outcome.bases[FORGOTTEN] = outcome.base
        outcome.observed, outcome.mask = (observed[0], observed[1]), subjects.forget
        if "rerun" in suite.attacks:
            try:
                found[AGAIN] = attacking.attack_again(field)
            except AuditorError as error:
                facts["rerun_failed"] = str(error)
                parts += _missing(suite, "rerun", str(error))
    for klass in classes:
        name = f"members of the removed class {klass}"
        found[name], outcome.bases[name] = attacking.attack_class(field, klass)
    retained: RetainedAssessment | None = None
    if "retained" in suite.attacks:
        outcome.retained = attacking.attack_retained(field)
        if isinstance(outcome.retained, Unavailable):
            parts += _missing(suite, "retained", outcome.retained.reason)
        else:
            retained = outcome.retained
    decided = across(found, retained)
    outcome.assessments = dict(decided.assessments)
    outcome.patched = outcome.assessments.get(FORGOTTEN)
    for name, one in outcome.assessments.items():
        required = name != AGAIN or "rerun" in suite.required
        if required or one.verdict == "REFUTED":
            parts.append(_part(name, one))
    if decided.retained is not None:
        outcome.retained = decided.retained
        reasons = decided.retained.reasons
        if "retained" in suite.required or decided.retained.verdict == "REFUTED":
            parts.append(_Part(verdict=decided.retained.verdict, reason=_sentence(reasons[0])))
    if listed and outcome.patched is not None and outcome.base is not None:
        outcome.properties = attacking.measure(field, subjects, outcome.patched, outcome.base)
        parts += _limited(outcome.properties, suite)
        gap = _gap(evidence, observed[0], subjects.forget)
        if gap:
            parts.append(_Part(verdict="INCONCLUSIVE", reason=gap))
        _describe(outcome, facts)
    for name, one in outcome.assessments.items():
        if name != FORGOTTEN:
            facts[name.replace(" ", "_").replace("'", "")] = {"verdict": one.verdict, "reasons": list(one.reasons)}
    return parts


def _missing(suite: Suite, name: str, reason: str) -> list[_Part]:
    if name not in suite.required:
        return []
    return [_Part(verdict="INCONCLUSIVE", reason=f"The attack {name} could not be run: {reason}.")]


def _part(name: str, found: MembershipAssessment) -> _Part:
    worst = max(found.comparisons, key=lambda c: abs(c.difference.value), default=None)
    if found.verdict == "REFUTED" and worst is not None:
        # The attack that accuses, which the decision rule put first; the largest difference is in the evidence.
        accused = [one for one in found.comparisons if one.p_holm <= found.plan.level]
        worst = max(accused, key=lambda c: abs(c.difference.value))
        whom = "the forgotten records" if name == FORGOTTEN else name
        message = (
            f"{whom} stand out: {worst.attack} ({worst.form}) has AUC {worst.difference.auc:.2f}, "
            f"its control {worst.difference.expected:.2f}"
        )
        finding = Finding(threat="over-forgetting", check="membership", message=message)
        return _Part(verdict="REFUTED", reason=_sentence(message), findings=(finding,))
    reason = found.reasons[0] if found.reasons else "no required attack separates them by as much as the margin"
    prefix = "" if name == FORGOTTEN else f"{name}: "
    return _Part(verdict=found.verdict, reason=_sentence(prefix + reason))


def _limited(properties: Mapping[str, Property | Unavailable], suite: Suite) -> list[_Part]:
    # A property counts only where the profile sets a limit for it.
    parts = []
    for name, limit in suite.limits.items():
        found = properties[name]
        if isinstance(found, Unavailable):
            parts.append(_Part(verdict="INCONCLUSIVE", reason=f"The property {name} is not known: {found.reason}."))
            continue
        ((kind, bound),) = limit.items()
        beyond = found.low > bound if kind == "at_most" else found.high < bound
        within = found.high <= bound if kind == "at_most" else found.low >= bound
        words = (
            f"The property {name} is {found.value:.3f} [{found.low:.3f}, {found.high:.3f}], {kind.replace('_', ' ')}"
        )
        verdict: VerdictName = "REFUTED" if beyond else "CONSISTENT" if within else "INCONCLUSIVE"
        parts.append(_Part(verdict=verdict, reason=f"{words} {bound:g} was demanded."))
    return parts


def _conclude(parts: list[_Part], facts: dict[str, object]) -> CheckResult:
    verdicts = {part.verdict for part in parts}
    verdict: VerdictName = (
        "REFUTED" if "REFUTED" in verdicts else "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "CONSISTENT"
    )
    deciding = [part.reason for part in parts if part.verdict == verdict]
    return CheckResult(
        check="membership",
        verdict=verdict,
        summary=" ".join(dict.fromkeys(deciding)),
        evidence=facts,
        findings=tuple(finding for part in parts for finding in part.findings),
    )


def _describe(outcome: Outcome, facts: dict[str, object]) -> None:
    found, base = outcome.patched, outcome.base
    assert found is not None
    assert base is not None
    facts |= {
        "reasons": list(found.reasons),
        "base_verdict": base.verdict,
        "same_output_as_another_record": found.repeated,
        "not_run": dict(found.unavailable),
    }
    worst = max(found.comparisons, key=lambda c: abs(c.difference.value), default=None)
    if worst is not None:
        facts["strongest"] = {
            "attack": worst.attack,
            "form": worst.form,
            "auc": worst.difference.auc,
            "control": worst.difference.expected,
            "smallest_detectable_difference": worst.detectable,
        }
        facts["epsilon"] = {
            "at_least": max(one.epsilon.value for one in found.comparisons),
            "most_that_so_many_records_could_show": worst.epsilon.most,
            "delta": worst.epsilon.delta,
            "meaning": MEANING,
        }
    if found.exchangeability is not None:
        facts["exchangeability_p"] = found.exchangeability.p_value


def _gap(evidence: Evidence, base: Observation, forgotten: np.ndarray) -> str:
    # What would make CONSISTENT worth nothing, though each attack was within the margin; empty if nothing does.
    if evidence.requested_missing:
        return (
            f"{evidence.requested_missing} requested records were not opened or do not fit the model: "
            "nobody attacked them."
        )
    # The owner's recipe trains the shadows. One that trains nothing would blind every attack that calibrates by them.
    seen, unseen = ~forgotten, base.out[:, ~forgotten]
    labels = base.labels[seen]
    right = (base.shadow_logits[:, seen].argmax(axis=2) == labels) & unseen
    theirs, its = float(right.sum() / max(1, unseen.sum())), float((base.logits[seen].argmax(axis=1) == labels).mean())
    if theirs < _SHADOW_SHARE * its:
        return (
            f"The shadow models are right on {theirs:.0%} of the records that they did not see, the base on {its:.0%}: "
            "trained by the committed recipe they do not resemble it, and attacks that lean on them see little."
        )
    return ""


def _given(evidence: Evidence) -> int:
    return sum(
        int(np.isin(after.argmax(axis=1), evidence.removed_classes).sum())
        for _, _, _, after in evidence.others.values()
    )


def _still_given(evidence: Evidence) -> _Part:
    worst = _given(evidence)
    if worst:
        return _Part(verdict="REFUTED", reason=f"{worst} records are still given a removed class.")
    return _Part(verdict="CONSISTENT", reason="No record at hand is given a removed class.")


__all__ = ["FORGOTTEN", "Outcome", "check"]
