"""What a report shows of the attacks: curves, score strips, the shift of outputs, tables and figures.

Proves nothing: it puts into plain data what the check membership left in its `Outcome`. Properties stand in a table of
their own columns; a rate that the records do not carry is shown as withheld, with the reason, never as a number.
"""

import numpy as np

from auditor.attacks import NAMES
from auditor.attacks.observation import Unavailable, label_margin
from auditor.attacks.properties import Property
from auditor.attacks.result import Comparison
from auditor.checks.membership import FORGOTTEN, Outcome
from auditor.comparisons import RetainedAssessment
from auditor.membership import MembershipAssessment
from auditor.statistics.areas import auc_interval
from auditor.statistics.epsilon import MEANING
from auditor.statistics.proportions import zero_hits_bound
from auditor.statistics.roc import Withheld
from auditor.view import RocCurve, Shift

Table = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]
_STRIPS = ("lira-offline", "rmia", "confidence")


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


def _rates(comparison: Comparison) -> dict[str, object]:
    found: dict[str, object] = {}
    for tail in comparison.tails:
        for point in tail.points:
            name = f"{tail.tail} tail at {point.target:g}"
            found[name] = (
                f"withheld: {point.reason}"
                if isinstance(point, Withheld)
                else {"rate": point.rate, "interval": [point.low, point.high], "false_rate": point.false_rate}
            )
    return found


def figures(assessment: MembershipAssessment) -> dict[str, dict[str, object]]:
    """For each attack and form: AUC, control, difference, intervals, what could have been seen, rates or why none."""
    found: dict[str, dict[str, object]] = {}
    for one in assessment.comparisons:
        found[f"{one.attack}.{one.form}"] = {
            "auc": one.difference.auc,
            "auc_interval": list(auc_interval(one.scores, assessment.forget)),
            "auc_two_sided": max(one.difference.auc, 1 - one.difference.auc),
            "control": one.difference.expected,
            "control_draws": [one.difference.draws_low, one.difference.draws_high],
            "difference": one.difference.value,
            "interval": [one.equivalence.low, one.equivalence.high],
            "bound": one.equivalence.upper_bound,
            "p_holm": one.p_holm,
            "smallest_detectable": one.detectable,
            "epsilon_at_least": one.epsilon.value,
            "rates": _rates(one),
            "settings": one.settings,
        }
    return found


def all_figures(outcome: Outcome) -> dict[str, object]:
    """Return every figure of the attacks for summary.json, by what it is about."""
    found: dict[str, object] = {}
    if outcome.patched is not None:
        found["membership"] = figures(outcome.patched)
    if outcome.base is not None:
        found["membership_base"] = figures(outcome.base)
    others = {name: one for name, one in outcome.assessments.items() if name != FORGOTTEN}
    if others:
        found["membership_further"] = {
            name: {"verdict": one.verdict, "reasons": list(one.reasons), "attacks": figures(one)}
            for name, one in others.items()
        }
    if isinstance(outcome.retained, RetainedAssessment):
        found["membership_retained"] = {
            f"{one.attack}.{one.form}": {
                "before": one.before,
                "after": one.after,
                "exposure": one.exposure,
                "bound": one.upper_bound,
                "p_holm": one.p_holm,
            }
            for one in outcome.retained.changes
        }
    elif outcome.retained is not None:
        found["membership_retained"] = {"not_run": outcome.retained.reason}
    if outcome.properties:
        found["properties"] = {name: _property(one) for name, one in outcome.properties.items()}
    return found


def _property(found: Property | Unavailable) -> dict[str, object]:
    if isinstance(found, Unavailable):
        return {"not_run": found.reason}
    return {
        "quantity": found.quantity,
        "value": found.value,
        "interval": [found.low, found.high],
        "settings": found.settings,
        "facts": dict(found.facts),
    }


def _comparisons(assessment: MembershipAssessment, base: MembershipAssessment | None) -> Table:
    other = {} if base is None else {(c.attack, c.form): c for c in base.comparisons}
    lines: list[tuple[str, ...]] = []
    for one in assessment.comparisons:
        unpatched = other.get((one.attack, one.form))
        low, high = auc_interval(one.scores, assessment.forget)
        lines.append(
            (
                one.attack + (" (required)" if one.attack in assessment.plan.required else ""),
                one.form,
                f"{one.difference.auc:.3f} [{low:.3f}, {high:.3f}]",
                f"{one.difference.expected:.3f} [{one.difference.draws_low:.3f}, {one.difference.draws_high:.3f}]",
                f"{one.difference.value:+.3f} [{one.equivalence.low:+.3f}, {one.equivalence.high:+.3f}]",
                f"{one.equivalence.upper_bound:.3f}",
                f"{one.p_holm:.2g}",
                f"{one.detectable:.3f}",
                f"{unpatched.difference.auc:.3f}" if unpatched is not None else "",
            )
        )
    lines += [(attack, "", *("",) * 6, f"not run: {reason}") for attack, reason in assessment.unavailable.items()]
    header = (
        "attack", "form", "AUC patched (95 %, DeLong)", "AUC control (95 % of draws)", "difference (95 %)",
        "95 % bound", "p beyond margin (Holm)", "smallest detectable", "AUC unpatched base",
    )  # fmt: skip
    return header, tuple(lines)


def _rate(value: float, low: float, high: float, hits: int, trials: int) -> str:
    return f"{100 * value:.2f} % [{100 * low:.2f}, {100 * high:.2f}] ({hits} of {trials})"


def _low_rates(assessment: MembershipAssessment) -> Table:
    lines = []
    for one in assessment.comparisons:
        for tail in one.tails:
            for point in tail.points:
                start = (one.attack, one.form, tail.tail, f"{100 * point.target:g} %")
                if isinstance(point, Withheld):
                    lines.append((*start, f"withheld: {point.reason}", ""))
                    continue
                lines.append(
                    (
                        *start,
                        _rate(point.rate, point.low, point.high, point.hits, point.forgotten),
                        _rate(point.false_rate, point.false_low, point.false_high, point.false_alarms, point.negatives),
                    )
                )
    header = ("attack", "form", "tail", "wanted false-positive rate", "true-positive rate", "false-positive rate found")
    return header, tuple(lines)


def _epsilons(assessment: MembershipAssessment) -> Table:
    lines = tuple(
        (one.attack, one.form, f"{one.epsilon.value:.2f}", f"{one.epsilon.most:.2f}", f"{one.epsilon.delta:g}")
        for one in assessment.comparisons
    )
    return ("attack", "form", "epsilon at least", "most that so many records could show", "delta"), lines


def _retained(found: RetainedAssessment) -> Table:
    lines = tuple(
        (
            one.attack,
            one.form,
            f"{one.before:.3f}",
            f"{one.after:.3f}",
            f"{one.exposure:+.3f}",
            f"{one.upper_bound:+.3f}",
            f"{one.p_holm:.2g}",
        )
        for one in found.changes
    )
    header = (
        "attack", "form", "AUC before", "AUC after", "more exposed by", "95 % bound", "p beyond margin (Holm)",
    )  # fmt: skip
    return header, lines


def _properties(found: dict[str, Property | Unavailable], limits: frozenset[str]) -> Table:
    lines = []
    for name, one in found.items():
        if isinstance(one, Unavailable):
            lines.append((name, "", "not known", "", one.reason, ""))
            continue
        counted = "by the profile's limit" if name in limits else "no"
        lines.append((name, one.quantity, f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}", one.reading, counted))
    return ("property", "what it is", "value", "95 % interval", "reading", "counted"), tuple(lines)


def tables(outcome: Outcome) -> tuple[dict[str, Table], dict[str, str]]:
    """Return the tables by title, and a sentence above those that need one."""
    found: dict[str, Table] = {}
    notes: dict[str, str] = {}
    for name, one in outcome.assessments.items():
        title = "Membership inference" + ("" if name == FORGOTTEN else f": {name}")
        if one.comparisons or one.unavailable:
            found[title] = _comparisons(one, outcome.bases.get(name))
        forgotten, never = int(one.forget.sum()), int((~one.forget).sum())
        if not one.comparisons:
            notes[title] = f"Not assessed: {'; '.join(one.reasons)}."
            found.setdefault(title, (("attack",), ()))
            continue
        tested = one.exchangeability
        notes[title] = (
            f"{forgotten} records against {never} never-seen ones, {one.shadows} shadow models, margin "
            f"{one.plan.margin:g}, level {one.plan.level:g}. Each attack is read in its signed score and in the "
            "distance from the centre of the never-seen records of the class, each in both tails; an AUC below 0.5 is "
            "as telling as one above. The control is never-seen records in the forgotten ones' place. Smallest "
            "detectable: the difference that would have been told from none with 80 % probability. Zero hits would "
            f"still allow a true rate of {100 * zero_hits_bound(forgotten):.1f} %."
            + (f" Exchangeability of both sets before training: p = {tested.p_value:.2g}." if tested else "")
        )
        rates = f"Low false-positive rates{'' if name == FORGOTTEN else f': {name}'}"
        found[rates] = _low_rates(one)
        notes[rates] = (
            "Thresholds fixed on one half of the never-seen records, false alarms counted on the other; exact "
            "(Clopper-Pearson) 95 % intervals. A rate that so few negatives cannot carry is withheld."
        )
    if outcome.patched is not None and outcome.patched.comparisons:
        found["Epsilon lower bound"] = _epsilons(outcome.patched)
        notes["Epsilon lower bound"] = MEANING
    if isinstance(outcome.retained, RetainedAssessment):
        found["Retained records before and after"] = _retained(outcome.retained)
        notes["Retained records before and after"] = (
            f"{outcome.retained.verdict}: {'; '.join(outcome.retained.reasons)}. Retained records are members before "
            "and after: being told from never-seen ones is no fault, being told surely better is."
        )
    if outcome.properties:
        limits = frozenset(outcome.suite.limits) if outcome.suite is not None else frozenset()
        found["Properties"] = _properties(outcome.properties, limits)
        notes["Properties"] = (
            "What is true of a kind of patch, whoever made it. A property is no attack at chance or above: it has no "
            "null of 'forgotten', and counts only where the profile sets a limit for it."
        )
    return found, notes


def strips(outcome: Outcome) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the signed scores of forgotten and of never-seen records, attack by attack, those most looked at first."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, assessment in outcome.assessments.items():
        for one in assessment.comparisons:
            if one.form == "signed" and (name != FORGOTTEN or one.attack in _STRIPS or one.attack not in NAMES):
                label = one.attack if name == FORGOTTEN else f"{one.attack}: {name}"
                found[label] = (one.scores[assessment.forget], one.scores[~assessment.forget])
    order = {name: place for place, name in enumerate(_STRIPS)}
    return dict(sorted(found.items(), key=lambda pair: order.get(pair[0], len(order))))


def shift(outcome: Outcome) -> Shift | None:
    """Return the confidence in each record's label before and after the patch, on the logit scale."""
    if outcome.observed is None:
        return None
    before, after = outcome.observed
    arrays = [label_margin(one.logits, one.labels) for one in (before, after)]
    mask = outcome.mask
    if not all(np.isfinite(array).all() for array in arrays):
        return None
    first, second = arrays
    return Shift(
        forgotten_before=first[mask],
        forgotten_after=second[mask],
        unseen_before=first[~mask],
        unseen_after=second[~mask],
    )


__all__ = ["all_figures", "curves", "figures", "shift", "strips", "tables"]
