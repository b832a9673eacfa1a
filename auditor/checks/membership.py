"""membership: can an attacker tell forgotten records from records never seen, in either direction?

Trains shadow models on the auditor's own reference data, runs every attack of the profile in both
tails beside a null control, and decides by an equivalence test (`auditor.membership`). The unpatched
base's figures stand beside. A whole removed class has no never-seen records with the removed behaviour to
compare with: its cap is the same for members and non-members, which is checked on reference records.
"""

from dataclasses import replace

import numpy as np

from auditor.attacks.observation import Observation
from auditor.evidence import Evidence
from auditor.membership import MembershipAssessment, MembershipPlan, assess
from auditor.shadows import train_shadows
from auditor.view import CheckResult, Finding, RocCurve
from protocol.errors import AuditorError
from protocol.model.recipe import Recipe

_SHADOW_SHARE = 0.5
"""Least accuracy of the shadow models on records that they did not see, as a share of the base's on the same."""


class Outcome:
    """What the check keeps for the report's pictures and figures."""

    def __init__(self) -> None:
        self.patched: MembershipAssessment | None = None
        self.base: MembershipAssessment | None = None


def _plan(evidence: Evidence) -> MembershipPlan:
    levels = evidence.profile.levels["membership"]
    attacks = tuple(dict.fromkeys(str(name) for name in levels["attacks"]))
    return MembershipPlan(
        attacks=attacks,
        required=tuple(dict.fromkeys(str(name) for name in levels["required_attacks"])),
        margin=float(levels["margin"]),
        draws=max(1_000, int(levels["controls"])),
        duplicates="drop",
    )


def check(evidence: Evidence, outcome: Outcome) -> CheckResult:
    """CONSISTENT if every required attack is surely within the margin of its control, REFUTED if one is beyond."""
    case = evidence.case
    if not evidence.runnable or case.base is None or case.schema is None:
        return CheckResult(
            check="membership", verdict="INCONCLUSIVE", summary=f"Nothing can be run: {evidence.composed}."
        )
    if evidence.reference is None:
        reason = evidence.reference_missing or "No reference data was given."
        return CheckResult(check="membership", verdict="INCONCLUSIVE", summary=reason)
    forgotten, labels = evidence.requested_records
    if not evidence.requested and evidence.lists_known and evidence.removed_classes:
        return _class_only(evidence)
    if not len(forgotten):
        return CheckResult(check="membership", verdict="INCONCLUSIVE", summary="No forgotten record was opened.")
    try:
        plan = _plan(evidence)
    except AuditorError as error:
        return CheckResult(
            check="membership", verdict="INCONCLUSIVE", summary=f"The profile's plan cannot be run: {error}."
        )
    reference = evidence.reference
    # A reference record equal to a forgotten one is no record that was never seen: no negative, and no shadow's data.
    twins = _twins(reference.values, forgotten)
    own_values, own_labels = reference.values[~twins], reference.labels[~twins]
    keep = evidence.spared["reference"][~twins]
    values = np.concatenate([forgotten, own_values[keep]])
    all_labels = np.concatenate([labels, own_labels[keep]])
    mask = np.arange(len(values)) < len(forgotten)
    count = int(evidence.profile.levels["membership"]["shadows"])
    try:
        shadows = train_shadows(
            case.base,
            case.schema.dequantise(own_values),
            own_labels,
            recipe=case.recipe or Recipe(),
            seed=evidence.seed,
            count=count,
            cache=evidence.shadow_cache,
            progress=lambda done, total: evidence.progress("shadow models", done / total),
        )
    except AuditorError as error:
        return CheckResult(check="membership", verdict="INCONCLUSIVE", summary=f"No shadow models: {error}.")
    shadow_logits = shadows.logits(case.schema.dequantise(values))
    out = np.concatenate([np.ones((count, len(forgotten)), dtype=bool), shadows.out[:, keep]], axis=1)
    before, after = evidence.run(values)
    patched = Observation(
        logits=after, labels=all_labels, shadow_logits=shadow_logits, out=out, features=values.astype(np.float32)
    )
    # Twice the same stream: base and patched model get the same shadows per record and the same control draws.
    outcome.patched = assess(patched, mask, plan, evidence.generator("membership"))
    outcome.base = assess(replace(patched, logits=before), mask, plan, evidence.generator("membership"))
    found = _result(outcome.patched, outcome.base, plan, count)
    seen = slice(len(forgotten), None)
    gap = _gap(evidence, before[seen], shadow_logits[:, seen], out[:, seen], all_labels[seen])
    if gap and found.verdict == "CONSISTENT":
        return replace(found, verdict="INCONCLUSIVE", summary=gap)
    return found


def _gap(
    evidence: Evidence, base: np.ndarray, shadow_logits: np.ndarray, unseen: np.ndarray, labels: np.ndarray
) -> str:
    # What would make CONSISTENT worth nothing, though each attack was within the margin; empty if nothing does.
    if evidence.requested_missing:
        return (
            f"{evidence.requested_missing} requested records were not opened or do not fit the model: "
            "nobody attacked them."
        )
    # The owner's recipe trains the shadows. One that trains nothing would blind every attack that calibrates by them.
    right = (shadow_logits.argmax(axis=2) == labels) & unseen
    theirs, its = float(right.sum() / max(1, unseen.sum())), float((base.argmax(axis=1) == labels).mean())
    if theirs < _SHADOW_SHARE * its:
        return (
            f"The shadow models are right on {theirs:.0%} of the records that they did not see, the base on {its:.0%}: "
            "trained by the committed recipe they do not resemble it, and attacks that lean on them see little."
        )
    return ""


def _twins(values: np.ndarray, forgotten: np.ndarray) -> np.ndarray:
    seen = {row.tobytes() for row in np.ascontiguousarray(forgotten, dtype=np.int64)}
    return np.array([row.tobytes() in seen for row in np.ascontiguousarray(values, dtype=np.int64)], dtype=bool)


def _class_only(evidence: Evidence) -> CheckResult:
    worst = 0
    for _, _, _, after in evidence.others.values():
        worst += int(np.isin(after.argmax(axis=1), evidence.removed_classes).sum())
    return CheckResult(
        check="membership",
        verdict="CONSISTENT" if worst == 0 else "REFUTED",
        summary="The cap is one function of the output for every input: members and non-members of a class fare alike."
        if worst == 0
        else f"{worst} records are still given a removed class.",
        evidence={"records_given_a_removed_class": worst},
    )


def _result(patched: MembershipAssessment, base: MembershipAssessment, plan: MembershipPlan, count: int) -> CheckResult:
    facts: dict[str, object] = {
        "margin": plan.margin,
        "shadows": count,
        "reasons": list(patched.reasons),
        "base_verdict": base.verdict,
        "same_output_as_another_record": patched.repeated,
    }
    findings: tuple[Finding, ...] = ()
    summary = patched.reasons[0] if patched.reasons else "No required attack separates them by as much as the margin."
    worst = max(patched.comparisons, key=lambda c: abs(c.difference.value), default=None)
    if worst is not None:
        facts["strongest"] = {
            "attack": worst.attack,
            "form": worst.form,
            "auc": worst.difference.auc,
            "control": worst.difference.expected,
            "smallest_detectable_difference": worst.detectable,
        }
    if patched.verdict == "REFUTED" and worst is not None:
        message = (
            f"the forgotten records stand out: {worst.attack} ({worst.form}) has AUC {worst.difference.auc:.2f}, "
            f"its control {worst.difference.expected:.2f}"
        )
        summary = message[0].upper() + message[1:] + "."
        findings = (Finding(threat="over-forgetting", check="membership", message=message),)
    return CheckResult(check="membership", verdict=patched.verdict, summary=summary, evidence=facts, findings=findings)


def curves(
    assessment: MembershipAssessment, *, like: MembershipAssessment, control: bool = False
) -> tuple[RocCurve, ...]:
    """ROC curves of an assessment's comparisons, or of their null control; required attacks first.

    Args:
        assessment: whose curves.
        like: the assessment whose AUC chooses the tail of each (that with more area), so that curves of
            several models can be laid over each other.
        control: the null control's curves instead.
    """
    required = assessment.plan.required
    chosen = {(one.attack, one.form): one.difference.auc >= 0.5 for one in like.comparisons}
    found = []
    for comparison in sorted(
        assessment.comparisons, key=lambda one: (one.attack not in required, one.form != "signed")
    ):
        tail = comparison.tails[0 if chosen.get((comparison.attack, comparison.form), True) else -1]
        roc = tail.roc
        found.append(
            RocCurve(
                name=f"{comparison.attack} ({comparison.form}, {tail.tail} tail)",
                false_positive=roc.false_positive_rate,
                true_positive=roc.control if control else roc.true_positive_rate,
                low=roc.control_low if control else roc.low,
                high=roc.control_high if control else roc.high,
            )
        )
    return tuple(found)


def figures(assessment: MembershipAssessment) -> dict[str, dict[str, object]]:
    """For each attack and form: AUC, control, difference and its interval."""
    found: dict[str, dict[str, object]] = {}
    for one in assessment.comparisons:
        found[f"{one.attack}.{one.form}"] = {
            "auc": one.difference.auc,
            "auc_two_sided": max(one.difference.auc, 1 - one.difference.auc),
            "control": one.difference.expected,
            "difference": one.difference.value,
            "interval": [one.equivalence.low, one.equivalence.high],
            "bound": one.equivalence.upper_bound,
        }
    return found


__all__ = ["Outcome", "check", "curves", "figures"]
