"""utility: did accuracy on other records stay, over all and in each class?

Paired: only records that were right before and are wrong now count as lost, so the bound on their share
(one-sided, 95 %) also bounds the loss of accuracy. Classes that were asked to be removed are left
out, and records equal to a requested one.
"""

import numpy as np

from auditor.evidence import Evidence
from auditor.statistics.proportions import interval
from auditor.view import CheckResult, Finding


def check(evidence: Evidence) -> CheckResult:
    """REFUTED if surely more is lost than the level allows, CONSISTENT if surely less."""
    levels = evidence.profile.levels["utility"]
    overall, each = float(levels["drop_at_most"]), float(levels["class_drop_at_most"])
    if not evidence.runnable:
        return CheckResult(check="utility", verdict="INCONCLUSIVE", summary=f"Nothing can be run: {evidence.composed}.")
    if not evidence.others:
        reason = evidence.reference_missing or "No records were given to measure it on."
        return CheckResult(check="utility", verdict="INCONCLUSIVE", summary=reason)
    removed = list(evidence.removed_classes)
    labels, lost, gained = [], [], []
    for name, (_, own, before, after) in evidence.others.items():
        kept = ~np.isin(own, removed) & ~evidence.twins[name]
        right_before, right_after = before.argmax(axis=1) == own, after.argmax(axis=1) == own
        labels.append(own[kept])
        lost.append((right_before & ~right_after)[kept])
        gained.append((~right_before & right_after)[kept])
    label, loss, gain = np.concatenate(labels), np.concatenate(lost), np.concatenate(gained)
    if not len(label):
        return CheckResult(check="utility", verdict="INCONCLUSIVE", summary="No record of a remaining class was given.")
    # A 90 % two-sided interval has the one-sided 95 % bounds as its ends.
    low, high = interval(int(loss.sum()), len(label), confidence=0.90)
    facts: dict[str, object] = {
        "records": len(label),
        "lost": int(loss.sum()),
        "gained": int(gain.sum()),
        "lost_share_at_most": high,
        "level": overall,
    }
    findings: list[Finding] = []
    unsure = [] if high <= overall else [f"{len(label)} records bound the loss only by {high:.3f}"]
    if low > overall:
        findings.append(_damage(f"{int(loss.sum())} of {len(label)} other records are no longer classified right"))
    classes = np.unique(label)
    worst = 0.0
    for klass in classes:
        own = label == klass
        # Holm's first step over the classes: one class may look bad by chance.
        class_low, _ = interval(int(loss[own].sum()), int(own.sum()), confidence=1 - 0.10 / len(classes))
        _, class_high = interval(int(loss[own].sum()), int(own.sum()), confidence=0.90)
        worst = max(worst, class_high)
        if class_low > each:
            findings.append(_damage(f"class {klass}: {int(loss[own].sum())} of {int(own.sum())} are no longer right"))
        elif class_high > each:
            unsure.append(f"class {klass}: {int(own.sum())} records bound the loss only by {class_high:.3f}")
    facts["worst_class_lost_share_at_most"] = worst
    if findings:
        return CheckResult(
            check="utility",
            verdict="REFUTED",
            summary=findings[0].message[0].upper() + findings[0].message[1:] + ".",
            evidence=facts,
            findings=tuple(findings),
        )
    if unsure:
        return CheckResult(
            check="utility",
            verdict="INCONCLUSIVE",
            summary=f"Too few records: {unsure[0]}.",
            evidence=facts | {"unsure": unsure[:20]},
        )
    return CheckResult(
        check="utility",
        verdict="CONSISTENT",
        summary="Accuracy on other records stayed, over all and in each class, up to the stated bound.",
        evidence=facts,
    )


def _damage(message: str) -> Finding:
    return Finding(threat="hidden-damage", check="utility", message=message)
