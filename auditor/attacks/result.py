"""What the attacks on one model, or on several draws of forgotten records, have shown.

Proves: nothing; `auditor.membership` fills these in.
Assumes: whoever writes them down turns the figures into decimal strings.
Does not: plot.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64

from auditor.attacks.plan import MembershipPlan
from auditor.statistics import control
from auditor.statistics.epsilon import EpsilonBound
from auditor.statistics.equivalence import Equivalence
from auditor.statistics.exchangeability import Exchangeability
from auditor.statistics.proportions import zero_hits_bound
from auditor.statistics.roc import OperatingPoint, Roc, Withheld
from protocol.errors import AuditorError

Verdict = Literal["CONSISTENT", "REFUTED", "INCONCLUSIVE"]
Form = Literal["signed", "distance"]
Tail = Literal["high", "low"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TailResult:
    """One tail of a score: `high` calls high scores members, `low` calls low ones members.

    Attributes:
        tail: which one.
        roc: its curve; for `low`, of the negated score.
        points: rates at the plan's false-positive rates; thresholds are on the negated score for `low`.
    """

    tail: Tail
    roc: Roc
    points: tuple[OperatingPoint | Withheld, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """One attack in one form.

    Attributes:
        attack: its name.
        form: the signed score (measured from the centre of its class, if the plan says so), or its distance
            from that centre.
        settings: the attack's hyper-parameters in words.
        scores: one for each assessed record, in the order of `MembershipAssessment.records`.
        difference: AUC, control and variance.
        equivalence: the difference against the margin.
        p_holm: `equivalence.p_beyond`, adjusted over all comparisons of the assessment.
        detectable: smallest true difference that would have been told from 0 with 80 % probability.
        refutable: smallest one that would have been REFUTED with 80 % probability even where every other
            comparison shows nothing.
        power: chance that a true difference of 0 would be shown to be below the margin.
        tails: both tails.
        epsilon: lower bound; see `auditor/statistics/epsilon.py` for what it is not.
    """

    attack: str
    form: Form
    settings: str
    scores: Float[np.ndarray, "record"]
    difference: control.Difference
    equivalence: Equivalence
    p_holm: float
    detectable: float
    refutable: float
    power: float
    tails: tuple[TailResult, ...]
    epsilon: EpsilonBound

    def figures(self) -> dict[str, float]:
        """Return the comparison's numbers by name, prefixed with attack and form."""
        prefix = f"{self.attack}.{self.form}"
        found = {f"{prefix}.{key}": value for key, value in _numbers(self.difference, self.equivalence).items()}
        found |= {
            f"{prefix}.auc": self.difference.auc,
            f"{prefix}.control": self.difference.expected,
            f"{prefix}.control_draws_mean": self.difference.draws_mean,
            f"{prefix}.control_draws_low": self.difference.draws_low,
            f"{prefix}.control_draws_high": self.difference.draws_high,
            f"{prefix}.p_null": self.difference.p_null,
            f"{prefix}.p_holm": self.p_holm,
            f"{prefix}.detectable": self.detectable,
            f"{prefix}.refutable": self.refutable,
            f"{prefix}.power": self.power,
            f"{prefix}.epsilon_at_least": self.epsilon.value,
        }
        for tail in self.tails:
            for point in tail.points:
                if isinstance(point, OperatingPoint):
                    at = f"{prefix}.{tail.tail}.tpr@{point.target:g}"
                    found |= {
                        at: point.rate,
                        f"{at}.low": point.low,
                        f"{at}.high": point.high,
                        f"{at}.fpr": point.false_rate,
                        f"{at}.fpr_low": point.false_low,
                        f"{at}.fpr_high": point.false_high,
                    }
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MembershipAssessment:
    """What the attacks say about one model.

    Attributes:
        verdict: CONSISTENT, REFUTED or INCONCLUSIVE.
        reasons: why, as readable sentences; the first one is the most important.
        plan: what was decided beforehand.
        comparisons: every attack in both forms, in the plan's order; empty for a refusal.
        unavailable: why an attack (or `attack (form)`) could not be run.
        exchangeability: the test that precedes everything; None for a refusal.
        records: indices of the assessed records in the observation.
        forget: which of them are the forgotten ones.
        dropped: reference records left out because they are duplicates of forgotten ones.
        shadows: number of shadow models.
        repeated: forgotten records whose logits equal another assessed record's bit for bit. A property of
            patches that give several records one row of logits; it identifies them and decides nothing here.
        repeated_reference: the same for the reference records.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    plan: MembershipPlan
    comparisons: tuple[Comparison, ...]
    unavailable: Mapping[str, str]
    exchangeability: Exchangeability | None
    records: Int64[np.ndarray, "record"]
    forget: Bool[np.ndarray, "record"]
    dropped: int
    shadows: int
    repeated: int
    repeated_reference: int

    @property
    def refused(self) -> bool:
        """Whether nothing could be compared at all."""
        return self.exchangeability is None

    def comparison(self, attack: str, form: Form) -> Comparison:
        """Return one comparison.

        Raises:
            AuditorError: it was not made.
        """
        for found in self.comparisons:
            if (found.attack, found.form) == (attack, form):
                return found
        raise AuditorError(f"no comparison {attack} ({form})")

    def figures(self) -> dict[str, float]:
        """Return every number of the assessment by a stable name."""
        forgotten = int(self.forget.sum())
        found = {
            "margin": self.plan.margin,
            "level": self.plan.level,
            "forgotten": float(forgotten),
            "reference": float(self.forget.size - forgotten),
            "shadows": float(self.shadows),
            "dropped": float(self.dropped),
            "repeated": float(self.repeated),
            "repeated_reference": float(self.repeated_reference),
        }
        if forgotten:
            found["zero_hits_bound"] = zero_hits_bound(forgotten)
        if self.exchangeability is not None:
            found |= {
                "exchangeability.p_energy": self.exchangeability.p_energy,
                "exchangeability.p_feature": self.exchangeability.p_feature,
                "exchangeability.p_value": self.exchangeability.p_value,
            }
        for comparison in self.comparisons:
            found |= comparison.figures()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledComparison:
    """One attack in one form over several draws.

    Attributes:
        attack: its name.
        form: signed or distance.
        auc: mean AUC over the draws.
        expected: mean control.
        value: mean difference.
        standard_error: of the mean difference.
        freedom: its degrees of freedom.
        equivalence: the mean difference against the margin.
        p_holm: adjusted over all pooled comparisons.
    """

    attack: str
    form: Form
    auc: float
    expected: float
    value: float
    standard_error: float
    freedom: float
    equivalence: Equivalence
    p_holm: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PooledAssessment:
    """The same decision over several independent draws of forgotten records.

    Attributes:
        verdict: CONSISTENT, REFUTED or INCONCLUSIVE.
        reasons: why.
        comparisons: every comparison that all draws made.
        draws: the single assessments.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    comparisons: tuple[PooledComparison, ...]
    draws: tuple[MembershipAssessment, ...]

    def figures(self) -> dict[str, float]:
        """Return every pooled number by a stable name."""
        found = {"draws": float(len(self.draws))}
        for one in self.comparisons:
            prefix = f"{one.attack}.{one.form}"
            found |= {
                f"{prefix}.auc": one.auc,
                f"{prefix}.control": one.expected,
                f"{prefix}.p_holm": one.p_holm,
            }
            found |= {f"{prefix}.{key}": value for key, value in _numbers(one, one.equivalence).items()}
        return found


def _numbers(difference: control.Difference | PooledComparison, against: Equivalence) -> dict[str, float]:
    return {
        "difference": difference.value,
        "standard_error": difference.standard_error,
        "difference_low": against.low,
        "difference_high": against.high,
        "upper_bound": against.upper_bound,
        "p_equivalent": against.p_equivalent,
        "p_beyond": against.p_beyond,
    }
