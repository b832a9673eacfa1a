"""What is decided before a model is attacked.

Proves: nothing; a plan's digest is logged before the challenge, so that no threshold can follow from a result.
Assumes: the defaults suit 100 or more forgotten and 1,000 or more reference records.
Does not: hold seeds; randomness is an argument of `auditor.membership.assess`.
"""

from dataclasses import dataclass
from typing import Literal

from auditor.attacks import Attack, Variance, build
from protocol.errors import AuditorError


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipPlan:
    """Everything that is decided before the attacked model is looked at.

    Attributes:
        attacks: attacks to run; see `auditor.attacks.NAMES`.
        required: those of them that CONSISTENT needs.
        margin: the largest absolute difference of AUC that counts as none, in (0, 0.5).
        level: error probability of accusation and of reassurance; see the module docstring.
        draws: pseudo-forget draws of the control, at least 1,000.
        rates: false-positive rates at which the true-positive rate is wanted.
        delta: of the epsilon lower bound.
        exchangeability_level: level of the test that precedes everything.
        permutations: its number of permutations; pooling several draws needs more of them.
        duplicates: what to do when a reference record has a forgotten record's features: refuse, or drop it
            from the reference.
        centre: whether scores are measured from the null's centre of their class, as an attacker who knows
            the label would, or from that of all reference records.
        variance: variance of the likelihood-ratio attacks; see `auditor/attacks/lira.py`.
        rmia_gamma: RMIA's gamma.
        rmia_a: RMIA's a; None lets the shadow models choose.
        roc_points: at most this many points on each ROC curve.
    """

    attacks: tuple[str, ...] = (
        "confidence",
        "loss",
        "entropy",
        "modified-entropy",
        "lira-offline",
        "lira-offline-two-sided",
        "rmia",
    )
    required: tuple[str, ...] = ("loss", "lira-offline", "rmia")
    margin: float = 0.1
    level: float = 0.05
    draws: int = 1_000
    rates: tuple[float, ...] = (0.01, 0.001)
    delta: float = 1e-5
    exchangeability_level: float = 0.01
    permutations: int = 1_999
    duplicates: Literal["refuse", "drop"] = "refuse"
    centre: Literal["class", "all"] = "class"
    variance: Variance = "auto"
    rmia_gamma: float = 1.0
    rmia_a: float | None = None
    roc_points: int = 50

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be carried out.

        Raises:
            AuditorError: a parameter outside its range, or an unknown attack.
        """
        if not self.required or not set(self.required) <= set(self.attacks):
            raise AuditorError("a plan requires at least one attack, and only attacks that it runs")
        if len(set(self.attacks)) != len(self.attacks):
            raise AuditorError("a plan names an attack twice")
        if not (0.0 < self.margin < 0.5 and 0.0 < self.level < 0.5 and 0.0 < self.exchangeability_level < 1.0):
            raise AuditorError("margin and level lie between 0 and 0.5, the exchangeability level below 1")
        if self.draws < 1_000 or self.permutations < 99 or self.roc_points < 2:
            raise AuditorError("a plan needs 1,000 control draws, 99 permutations and 2 ROC points")
        if (self.permutations + 1) * self.exchangeability_level < 2.0:
            raise AuditorError("too few permutations to reach the exchangeability level")
        if any(not 0.0 < rate < 1.0 for rate in self.rates):
            raise AuditorError("a false-positive rate outside 0..1")
        if not 0.0 <= self.delta < 1.0:
            raise AuditorError("delta lies in [0, 1)")
        for name in self.attacks:
            self.attack(name)

    def attack(self, name: str) -> Attack:
        """Return the attack of this name with the plan's parameters.

        Raises:
            AuditorError: an unknown name or a parameter outside its range.
        """
        return build(name, variance=self.variance, rmia_gamma=self.rmia_gamma, rmia_a=self.rmia_a)
