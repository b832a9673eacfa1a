"""Attacks beyond the model's logits on the records themselves, through the comparison of `membership`.

Proves: as `membership`, with its error budget, for scores that came from further questions to the model; for
retained records, whether a patch exposes them more than its base did; for a class, whether records of it that
were not listed stand out among never-seen records of the same class.
Assumes: as `membership`.
Does not: run shadow models, models or commands; scores and observations are given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool
from scipy import stats

from auditor.attacks import Attack, Scores, Unavailable
from auditor.attacks.observation import Observation
from auditor.attacks.plan import MembershipPlan
from auditor.attacks.result import Comparison, Form, MembershipAssessment, Verdict
from auditor.membership import assess, decide, obstacles_of
from auditor.statistics.areas import paired
from auditor.statistics.multiplicity import holm
from protocol.errors import AuditorError


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPlan(MembershipPlan):
    """A plan whose attacks have been run already.

    Attributes:
        scored: what each of them found, by name.
    """

    scored: Mapping[str, Scores | Unavailable] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def attack(self, name: str) -> Attack:
        """Return the scores in the form of an attack.

        Raises:
            AuditorError: there are none of this name.
        """
        if name not in self.scored:
            raise AuditorError(f"no scores of an attack called {name!r}")
        return lambda _: self.scored[name]


def _selected(observation: Observation, rows: np.ndarray) -> Observation:
    return Observation(
        logits=observation.logits[rows],
        labels=observation.labels[rows],
        shadow_logits=observation.shadow_logits[:, rows],
        out=observation.out[:, rows],
        features=observation.features[rows],
    )


def _untwinned(observation: Observation, forget: Bool[np.ndarray, "record"]) -> np.ndarray:
    rows = np.ascontiguousarray(observation.features) + np.float32(0.0)
    known = {row.tobytes() for row in rows[forget]}
    return np.array(
        [bool(mark) or row.tobytes() not in known for row, mark in zip(rows, forget, strict=True)], dtype=bool
    )


def assess_scores(
    observation: Observation,
    forget: Bool[np.ndarray, "record"],
    scores: Mapping[str, Scores | Unavailable],
    plan: MembershipPlan,
    generator: np.random.Generator,
) -> MembershipAssessment:
    """Compare given scores of forgotten and never-seen records, both tails, beside the null control.

    Args:
        observation: the attacked model's logits and the records' features; shadow models are not looked at.
        forget: the forgotten records.
        scores: one score for each record, by the attack's name.
        plan: margin and levels; its attacks are replaced by the given ones, all of which are required.
        generator: of the control draws and the exchangeability test.

    Raises:
        AuditorError: scores that do not fit the records, or none at all.
    """
    if forget.shape != observation.labels.shape:
        raise AuditorError("forget is one boolean for each record")
    if any(isinstance(one, Scores) and one.values.shape != forget.shape for one in scores.values()):
        raise AuditorError("an attack's scores are one for each record")
    # Dropped here, so that the scores keep their records.
    keep = _untwinned(observation, forget) if plan.duplicates == "drop" else np.ones_like(forget)
    rows = np.flatnonzero(keep)
    given = {
        name: one if isinstance(one, Unavailable) else replace(one, values=one.values[rows])
        for name, one in scores.items()
    }
    names = tuple(scores)
    scored = ScoredPlan(
        **{name: getattr(plan, name) for name in MembershipPlan.__dataclass_fields__}
        | {"attacks": names, "required": names},
        scored=MappingProxyType(given),
    )
    found = assess(_selected(observation, rows), forget[rows], scored, generator)
    return replace(found, records=rows[found.records], dropped=found.dropped + int((~keep).sum()))


def assess_class(
    observation: Observation,
    members: Bool[np.ndarray, "record"],
    klass: int,
    plan: MembershipPlan,
    generator: np.random.Generator,
) -> MembershipAssessment:
    """Compare held-out members of a forgotten class with never-seen records of the same class.

    Args:
        observation: logits of the patched model; records of other classes are left out.
        members: records that the base was trained with and that no request listed.
        klass: the forgotten class.
        plan: may name `neighbour-class` among its attacks.
        generator: as for `assess`.

    Raises:
        AuditorError: `members` does not fit the observation.
    """
    if members.shape != observation.labels.shape or members.dtype != np.bool_:
        raise AuditorError("members is one boolean for each record")
    rows = np.flatnonzero(observation.labels == klass)
    found = assess(_selected(observation, rows), members[rows], plan, generator)
    return replace(found, records=rows[found.records])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Together:
    """Assessments of one model on several sets of records, decided as one family.

    Attributes:
        assessments: by name, p-values and verdicts adjusted over all of them.
        retained: what became of retained records, likewise; None if that was not asked.
    """

    assessments: Mapping[str, MembershipAssessment]
    retained: "RetainedAssessment | None"


def across(assessments: Mapping[str, MembershipAssessment], retained: "RetainedAssessment | None" = None) -> Together:
    """Adjust the accusations of several assessments by Holm over all of them, and decide each anew.

    What CONSISTENT needs is not adjusted: all of it has to hold, and a wrong reassurance takes an error in each
    required comparison that lies beyond the margin.

    Args:
        assessments: by name; refusals stay as they are.
        retained: the changes of retained records, which belong to the same family.
    """
    members = [(name, one) for name, found in assessments.items() for one in found.comparisons]
    changes = retained.changes if retained is not None else ()
    raw = [one.equivalence.p_beyond for _, one in members] + [change.p_worse for change in changes]
    adjusted = [float(p_value) for p_value in holm(np.array(raw))]
    own: dict[str, list[Comparison]] = {name: [] for name in assessments}
    for (name, one), p_value in zip(members, adjusted, strict=False):
        own[name].append(replace(one, p_holm=p_value))
    decided = {}
    for name, found in assessments.items():
        if found.exchangeability is None:
            decided[name] = found
            continue
        verdict, reasons = decide(
            [(one.attack, one.form, one.difference, one.equivalence, one.p_holm) for one in own[name]],
            found.plan,
            obstacles=obstacles_of(found.exchangeability, found.plan),
            unavailable=found.unavailable,
        )
        decided[name] = replace(found, verdict=verdict, reasons=reasons, comparisons=tuple(own[name]))
    if retained is None:
        return Together(assessments=decided, retained=None)
    anew = [replace(one, p_holm=value) for one, value in zip(changes, adjusted[len(members) :], strict=True)]
    verdict, reasons = _decide(anew, retained.after.plan, retained.before, retained.after)
    return Together(
        assessments=decided, retained=replace(retained, verdict=verdict, reasons=reasons, changes=tuple(anew))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How much more an attack sees of retained records after the patch than before.

    Attributes:
        attack: its name.
        form: signed or distance.
        before: AUC of retained against never-seen records under the base.
        after: under the patched model.
        exposure: |after - 0.5| - |before - 0.5|; above 0 is worse.
        standard_error: of the exposure.
        upper_bound: one-sided upper bound of the exposure at the plan's level.
        p_worse: p-value against "worse by at most the margin".
        p_holm: the same, adjusted over all changes.
    """

    attack: str
    form: Form
    before: float
    after: float
    exposure: float
    standard_error: float
    upper_bound: float
    p_worse: float
    p_holm: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RetainedAssessment:
    """What a patch does to records that stay.

    Attributes:
        verdict: REFUTED if some attack sees more by surely more than the margin, CONSISTENT if every required one
            surely does not, else INCONCLUSIVE.
        reasons: why.
        changes: every attack in both forms.
        before: the base's assessment with the retained records as positives.
        after: the patched model's.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    changes: tuple[Change, ...]
    before: MembershipAssessment
    after: MembershipAssessment


def assess_retained(
    before: Observation,
    after: Observation,
    retained: Bool[np.ndarray, "record"],
    plan: MembershipPlan,
    generator: np.random.Generator,
) -> RetainedAssessment:
    """Compare how exposed retained records are before and after (A10).

    Retained records are members of both models, so being told from never-seen ones is no fault; being told more
    surely is. The change is measured on the same records, which cancels most of its error: a local patch
    leaves their outputs as they were, and the change is exactly 0.

    Args:
        before: the base on retained and never-seen records.
        after: the patched model on the same records with the same shadow models.
        retained: the retained records.
        plan: attacks, margin and levels.
        generator: its state is used twice, so that both models get the same shadow models per record.

    Raises:
        AuditorError: the observations are not of the same records.
    """
    if not np.array_equal(before.features, after.features) or not np.array_equal(before.labels, after.labels):
        raise AuditorError("before and after are about the same records")
    seed = int(generator.integers(2**63))
    first, second = (assess(one, retained, plan, np.random.default_rng(seed)) for one in (before, after))
    changes: list[Change] = []
    for one in first.comparisons:
        try:
            other = second.comparison(one.attack, one.form)
        except AuditorError:
            continue
        areas = paired(one.scores, other.scores, first.forget)
        exposure = abs(areas.after - 0.5) - abs(areas.before - 0.5)
        error = areas.standard_error
        if error > 0.0:
            worse = float(stats.norm.sf((exposure - plan.margin) / error))
            bound = exposure + float(stats.norm.ppf(1.0 - plan.level)) * error
        else:
            worse, bound = float(exposure <= plan.margin), exposure
        changes.append(
            Change(
                attack=one.attack,
                form=one.form,
                before=areas.before,
                after=areas.after,
                exposure=exposure,
                standard_error=error,
                upper_bound=bound,
                p_worse=worse,
            )
        )
    adjusted = holm(np.array([change.p_worse for change in changes]))
    changes = [replace(change, p_holm=float(p_value)) for change, p_value in zip(changes, adjusted, strict=True)]
    verdict, reasons = _decide(changes, plan, first, second)
    return RetainedAssessment(verdict=verdict, reasons=reasons, changes=tuple(changes), before=first, after=second)


def _decide(
    changes: list[Change], plan: MembershipPlan, first: MembershipAssessment, second: MembershipAssessment
) -> tuple[Verdict, tuple[str, ...]]:
    refused = [one.reasons[0] for one in (first, second) if one.refused]
    if refused:
        return "INCONCLUSIVE", tuple(refused)
    worse = [
        f"{one.attack} ({one.form}): retained records have AUC {one.before:.3f} before and {one.after:.3f} after"
        for one in changes
        if one.p_holm <= plan.level
    ]
    if worse:
        return "REFUTED", tuple(worse)
    required = [one for one in changes if one.attack in plan.required]
    unsure = [
        f"{one.attack} ({one.form}): retained records could be more exposed by {one.upper_bound:.3f}"
        for one in required
        if one.upper_bound >= plan.margin
    ]
    missing = [name for name in plan.required if sum(one.attack == name for one in required) < 2]
    if missing or unsure:
        return "INCONCLUSIVE", (*(f"{name} could not be run in both forms" for name in missing), *unsure)
    return "CONSISTENT", (f"no required attack sees retained records better by as much as {plan.margin:g}",)


__all__ = [
    "Change",
    "RetainedAssessment",
    "ScoredPlan",
    "Together",
    "across",
    "assess_class",
    "assess_retained",
    "assess_scores",
]
