"""Can an attacker tell forgotten records from records never seen, in either direction?

Proves: REFUTED, that some attack separates them by more than the plan's margin beyond what their classes
explain; CONSISTENT, that no required attack separates them by as much as the margin. Each attack is read in
two forms, its signed score and the distance from the null's centre (by default the median of the never-seen
records of the same class), and each form in both tails: a forgotten record that stands out by being wrong is
as exposed as one that stands out by being right.
Assumes: within each class forgotten and reference records were exchangeable before training (tested first, on
features that do not depend on the base), and the reference was never seen by the attacked model.
Does not: say that anything was forgotten. INCONCLUSIVE is an answer, and so is the smallest effect that could
have been seen. An attack outside the suite may see more. Nothing here is a differential-privacy epsilon.

Error budget. At `level` = 5 %:
  - false accusation: over all attacks and forms together (Holm) at most 5 %, even for a model that sits
    exactly on the margin; far less for one with no difference at all;
  - false reassurance: a model with some required attack's difference at the margin or beyond is called
    CONSISTENT with probability at most 5 % (intersection-union, so no adjustment);
  - the exchangeability test stops an honest audit (INCONCLUSIVE) in at most `exchangeability_level` = 1 %.
Intervals printed for single rates and differences are pointwise 95 % and decide nothing.

A required attack that could not be run prevents CONSISTENT; one that is not required can refute, but its lack
of precision does not stand in the way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float

from auditor.attacks.observation import Observation, Unavailable, view
from auditor.attacks.plan import MembershipPlan
from auditor.attacks.result import (
    Comparison,
    Form,
    MembershipAssessment,
    PooledAssessment,
    PooledComparison,
    Tail,
    TailResult,
    Verdict,
)
from auditor.statistics import control
from auditor.statistics.epsilon import epsilon_bound
from auditor.statistics.equivalence import Equivalence, equivalence, welch_freedom
from auditor.statistics.exchangeability import Exchangeability, exchangeability
from auditor.statistics.multiplicity import holm
from auditor.statistics.power import detectable_difference, equivalence_power
from auditor.statistics.roc import operating_point, roc
from protocol.errors import AuditorError

__all__ = [
    "Comparison",
    "MembershipAssessment",
    "MembershipPlan",
    "Observation",
    "PooledAssessment",
    "PooledComparison",
    "Verdict",
    "assess",
    "decide",
    "obstacles_of",
    "pool",
]

FORMS: tuple[Form, Form] = ("signed", "distance")
FEWEST_FORGOTTEN = 20
FEWEST_REFERENCE = 100
_ROUNDING = 1e-9
_TAILS: tuple[tuple[Tail, float], ...] = (("high", 1.0), ("low", -1.0))


def assess(
    observation: Observation,
    forget: Bool[np.ndarray, "record"],
    plan: MembershipPlan,
    generator: np.random.Generator,
) -> MembershipAssessment:
    """Attack one model and decide.

    Call it once for each model (base, patched); generators in the same state give all of them the same shadow
    models per record, the same control draws and the same calibration negatives.

    Args:
        observation: logits of the model and of the shadow models on forgotten and reference records.
        forget: the forgotten records; all others were never seen by the model.
        plan: attacks, margin and levels.
        generator: source of all randomness.

    Returns:
        The assessment. What cannot be assessed is INCONCLUSIVE with a reason.

    Raises:
        AuditorError: `forget` does not fit the observation.
    """
    if forget.shape != observation.labels.shape or forget.dtype != np.bool_:
        raise AuditorError("forget is one boolean for each record")
    twins = _twins(observation.features, forget)
    drop = twins if plan.duplicates == "drop" else np.zeros_like(twins)
    records = np.flatnonzero(~drop)
    kept = Observation(
        logits=observation.logits[records],
        labels=observation.labels[records],
        shadow_logits=observation.shadow_logits[:, records],
        out=observation.out[:, records],
        features=observation.features[records],
    )
    marked = forget[records]
    repeated = _repeated(kept.logits)
    base = MembershipAssessment(
        verdict="INCONCLUSIVE",
        reasons=(),
        plan=plan,
        comparisons=(),
        unavailable=MappingProxyType({}),
        exchangeability=None,
        records=records,
        forget=marked,
        dropped=int(drop.sum()),
        shadows=kept.out.shape[0],
        repeated=int(repeated[marked].sum()),
        repeated_reference=int(repeated[~marked].sum()),
    )
    refusal = _refusal(kept, marked, 0 if plan.duplicates == "drop" else int(twins.sum()))
    if refusal:
        return replace(base, reasons=(refusal,))

    prepared = view(kept, marked, generator)
    tested = exchangeability(kept.features, marked, kept.labels, generator, permutations=plan.permutations)
    draws = control.draw(kept.labels[marked], kept.labels[~marked], plan.draws, generator)
    calibration = np.zeros_like(marked)
    negatives = np.flatnonzero(~marked)
    calibration[generator.permutation(negatives)[: negatives.size // 2]] = True
    groups = kept.labels if plan.centre == "class" else np.zeros_like(kept.labels)
    unavailable: dict[str, str] = {}
    comparisons: list[Comparison] = []
    family = len(FORMS) * len(plan.attacks)
    for name in plan.attacks:
        scored = plan.attack(name)(prepared)
        if isinstance(scored, Unavailable):
            unavailable[name] = scored.reason
            continue
        centred = control.centre(scored.values, ~marked, groups)
        for form in FORMS:
            signed = centred if plan.centre == "class" else scored.values
            values = signed if form == "signed" else np.abs(centred)
            pool_of_negatives = values[~marked]
            if not np.isfinite(values).all() or np.ptp(pool_of_negatives) == 0.0:
                unavailable[f"{name} ({form})"] = "the never-seen records' scores are constant"
                continue
            difference = control.compare(values, marked, kept.labels, draws)
            error, freedom = difference.standard_error, difference.freedom
            if error < _ROUNDING:
                unavailable[f"{name} ({form})"] = "scores are constant within every forgotten class"
                continue
            comparisons.append(
                Comparison(
                    attack=name,
                    form=form,
                    settings=scored.settings,
                    scores=values,
                    difference=difference,
                    equivalence=equivalence(
                        difference.value,
                        standard_error=error,
                        freedom=freedom,
                        margin=plan.margin,
                        level=plan.level,
                    ),
                    p_holm=1.0,
                    detectable=detectable_difference(error, freedom, level=plan.level / 2.0),
                    refutable=detectable_difference(error, freedom, level=plan.level / family, margin=plan.margin),
                    power=equivalence_power(error, freedom, margin=plan.margin, level=plan.level),
                    tails=tuple(
                        TailResult(
                            tail=tail,
                            roc=roc(sign * values, marked, draws, points=plan.roc_points),
                            points=tuple(
                                operating_point(sign * values, marked, calibration, rate) for rate in plan.rates
                            ),
                        )
                        for tail, sign in _TAILS
                    ),
                    epsilon=epsilon_bound(values, marked, calibration, delta=plan.delta),
                )
            )
    adjusted = holm(np.array([one.equivalence.p_beyond for one in comparisons]))
    comparisons = [replace(one, p_holm=float(p_value)) for one, p_value in zip(comparisons, adjusted, strict=True)]
    obstacles = obstacles_of(tested, plan)
    verdict, reasons = decide(
        [(one.attack, one.form, one.difference, one.equivalence, one.p_holm) for one in comparisons],
        plan,
        obstacles=obstacles,
        unavailable=unavailable,
    )
    return replace(
        base,
        verdict=verdict,
        reasons=reasons,
        comparisons=tuple(comparisons),
        unavailable=MappingProxyType(unavailable),
        exchangeability=tested,
    )


def pool(assessments: Sequence[MembershipAssessment], *, shared_reference: bool = True) -> PooledAssessment:
    """Decide over several draws of forgotten records, each with its own attacked model.

    The estimate is the mean of the draws' differences: a statement about these draws, not about further
    ones. Forgotten records of different draws are taken as independent.

    Args:
        assessments: at least two, made under one plan.
        shared_reference: whether the draws used the same reference records. Their part of the error then does
            not average out, and is carried in full as if perfectly correlated.

    Returns:
        The pooled assessment.

    Raises:
        AuditorError: fewer than two assessments, different plans, or too few permutations for the
            exchangeability test to be able to stop so many draws.
    """
    if len(assessments) < 2 or any(one.plan != assessments[0].plan for one in assessments):
        raise AuditorError("pooling takes at least two assessments made under one plan")
    plan, count = assessments[0].plan, len(assessments)
    if (plan.permutations + 1) * plan.exchangeability_level < 2.0 * count:
        raise AuditorError(f"{plan.permutations} permutations are too few to pool {count} draws")
    refusals = tuple(f"draw {index + 1}: {one.reasons[0]}" for index, one in enumerate(assessments) if one.refused)
    if refusals:
        return PooledAssessment(verdict="INCONCLUSIVE", reasons=refusals, comparisons=(), draws=tuple(assessments))
    unavailable = {
        name: f"draw {index + 1}: {reason}"
        for index, one in reversed(list(enumerate(assessments)))
        for name, reason in one.unavailable.items()
    }
    found: list[PooledComparison] = []
    for name in plan.attacks:
        for form in FORMS:
            if name in unavailable or f"{name} ({form})" in unavailable:
                continue
            parts = [one.comparison(name, form).difference for one in assessments]
            value = math.fsum(part.value for part in parts) / count
            variance, freedom = _pooled_variance(parts, shared_reference=shared_reference)
            found.append(
                PooledComparison(
                    attack=name,
                    form=form,
                    auc=math.fsum(part.auc for part in parts) / count,
                    expected=math.fsum(part.expected for part in parts) / count,
                    value=value,
                    standard_error=math.sqrt(variance),
                    freedom=freedom,
                    equivalence=equivalence(
                        value,
                        standard_error=math.sqrt(variance),
                        freedom=freedom,
                        margin=plan.margin,
                        level=plan.level,
                    ),
                    p_holm=1.0,
                )
            )
    adjusted = holm(np.array([one.equivalence.p_beyond for one in found]))
    found = [replace(one, p_holm=float(p_value)) for one, p_value in zip(found, adjusted, strict=True)]
    tests = [one.exchangeability for one in assessments if one.exchangeability is not None]
    worst = int(np.argmin([test.p_value for test in tests]))
    corrected = holm(np.array([test.p_value for test in tests]))[worst]
    verdict, reasons = decide(
        [(one.attack, one.form, one, one.equivalence, one.p_holm) for one in found],
        plan,
        obstacles=obstacles_of(replace(tests[worst], p_value=float(corrected)), plan),
        unavailable=unavailable,
    )
    return PooledAssessment(verdict=verdict, reasons=reasons, comparisons=tuple(found), draws=tuple(assessments))


def _pooled_variance(parts: Sequence[control.Difference], *, shared_reference: bool) -> tuple[float, float]:
    count = len(parts)
    own = [(part.variance_forget / count**2, part.freedom_forget) for part in parts]
    if shared_reference:
        total = math.fsum(math.sqrt(part.variance_reference) for part in parts) / count
        common = [(total**2, parts[0].freedom_reference)]
    else:
        common = [(part.variance_reference / count**2, part.freedom_reference) for part in parts]
    components = (*own, *common)
    return math.fsum(variance for variance, _ in components), welch_freedom(components)


def _twins(
    features: Float[np.ndarray, "record feature"], forget: Bool[np.ndarray, "record"]
) -> Bool[np.ndarray, "record"]:
    """Return the reference records whose features equal a forgotten record's."""
    rows = np.ascontiguousarray(features) + np.float32(0.0)  # -0.0 and 0.0 are one value
    known = {row.tobytes() for row in rows[forget]}
    twins: np.ndarray = np.array([row.tobytes() in known for row in rows], dtype=np.bool_) & ~forget
    return twins


def _repeated(logits: Float[np.ndarray, "record class"]) -> Bool[np.ndarray, "record"]:
    """Return the records whose row of logits occurs more than once."""
    _, group, count = np.unique(
        [row.tobytes() for row in np.ascontiguousarray(logits)], return_inverse=True, return_counts=True
    )
    repeated: np.ndarray = count[group] > 1
    return repeated


def _refusal(observation: Observation, forget: Bool[np.ndarray, "record"], twins: int) -> str:
    """Return why this cannot be assessed at all, or an empty string."""
    forgotten = int(forget.sum())
    never_seen = forget.size - forgotten
    if forgotten < FEWEST_FORGOTTEN:
        return f"{forgotten} forgotten records; at least {FEWEST_FORGOTTEN} are needed"
    if never_seen < FEWEST_REFERENCE:
        return f"{never_seen} reference records; at least {FEWEST_REFERENCE} are needed"
    if observation.logits.shape[1] < 2:
        return "the model has a single class"
    finite = (observation.logits, observation.shadow_logits, observation.features)
    for array, name in zip(finite, ("logits", "shadow logits", "features"), strict=True):
        if not np.isfinite(array).all():
            return f"{name} that are not finite numbers"
    if twins:
        return f"{twins} reference records have the features of a forgotten record"
    held = np.bincount(observation.labels[~forget], minlength=observation.logits.shape[1])
    for klass in np.unique(observation.labels[forget]):
        if held[klass] < control.FEWEST_OF_A_CLASS:
            return (
                f"class {klass} has {held[klass]} reference records; "
                f"at least {control.FEWEST_OF_A_CLASS} are needed to match a forgotten one"
            )
    return ""


def obstacles_of(test: Exchangeability, plan: MembershipPlan) -> tuple[str, ...]:
    """Return why nothing can be decided although scores were compared."""
    if test.p_value > plan.exchangeability_level:
        return ()
    found = (
        f"forgotten and reference records differ before any training (p = {test.p_value:.2g}: "
        f"energy {test.p_energy:.2g}, feature {test.worst_feature} {test.p_feature:.2g}); "
        "a difference in scores could come from that"
    )
    return (found,)


Row = tuple[str, Form, control.Difference | PooledComparison, Equivalence, float]


def decide(
    rows: Sequence[Row],
    plan: MembershipPlan,
    *,
    obstacles: tuple[str, ...],
    unavailable: Mapping[str, str],
) -> tuple[Verdict, tuple[str, ...]]:
    """Apply the decision rule of the module docstring."""
    accused: list[tuple[float, str]] = []
    unsure: list[str] = []
    for attack, form, difference, against, p_holm in rows:
        name = f"{attack} ({form}): AUC {difference.auc:.3f} against {difference.expected:.3f} expected"
        if p_holm <= plan.level:
            beyond = f"{name}, beyond the margin {plan.margin:g} (Holm p = {p_holm:.2g})"
            accused.append((-abs(difference.value), beyond))
        elif attack in plan.required and against.upper_bound >= plan.margin:
            unsure.append(f"{name}, the difference could be {against.upper_bound:.3f}, margin {plan.margin:g}")
    missing = [f"{name}: {reason}" for name, reason in unavailable.items() if name.split(" ")[0] in plan.required]
    if obstacles:
        return "INCONCLUSIVE", obstacles
    if accused:
        return "REFUTED", tuple(text for _, text in sorted(accused))
    if missing or unsure:
        return "INCONCLUSIVE", (*missing, *unsure)
    small = (
        f"every required attack's difference from the control is below {plan.margin:g} "
        f"at {100 * (1 - plan.level):g} % confidence"
    )
    return "CONSISTENT", (small,)
