"""A3: RMIA, a record's likelihood ratio against those of a population.

Proves: as LiRA, a lower bound on what somebody sees who can train models like the attacked one; it stays
strong with few shadow models.
Assumes: the population (the never-seen reference records) resembles the audited ones.
Does not: compare all pairs. The share of a population below a value needs one sort: n log n time and linear
memory. A population record is not compared with itself.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import special, stats

from auditor.attacks.observation import Scores, Unavailable, View, log_probability
from protocol.errors import AuditorError

DEFAULT_OFFLINE_A = 0.3
TUNING_TARGETS = 4


def log_ratio(
    log_p: Float[np.ndarray, "record"], mean_out: Float[np.ndarray, "record"], offline_a: float
) -> Float[np.ndarray, "record"]:
    """Return log(p_target / p) with p = (1 + a)/2 * mean_OUT p + (1 - a)/2.

    Args:
        log_p: log probability of the label under the attacked model.
        mean_out: mean probability of the label over shadow models trained without the record.
        offline_a: a in [0, 1], which stands in for the shadow models trained with it.

    Source: Zarifzadeh et al., "Low-Cost High-Power Membership Inference Attacks", ICML 2024, appendix B.2.2.
    """
    marginal = (1.0 + offline_a) / 2.0 * mean_out + (1.0 - offline_a) / 2.0
    ratio: np.ndarray = log_p - np.log(np.maximum(marginal, np.finfo(np.float64).tiny))
    return ratio


def population_share(
    ratios: Float[np.ndarray, "record"], population: Bool[np.ndarray, "record"], log_gamma: float
) -> Float[np.ndarray, "record"]:
    """Return for each record the share of the population whose ratio it exceeds by more than gamma.

    Args:
        ratios: log ratios.
        population: the records that form it; each of them is compared with the others only. At least two.
        log_gamma: log of the factor, at least 0.

    Returns:
        Shares in [0, 1].
    """
    ordered = np.sort(ratios[population])
    below = np.searchsorted(ordered, ratios - log_gamma, side="left")
    # With gamma >= 1 a record never exceeds itself, so only the denominator has to leave it out.
    share: np.ndarray = below / (ordered.size - population.astype(np.float64))
    return share


def _auc(scores: Float[np.ndarray, "record"], member: Bool[np.ndarray, "record"]) -> float:
    ranks = stats.rankdata(scores)
    positives = int(member.sum())
    above = ranks[member].sum() - positives * (positives + 1) / 2.0
    return float(above / (positives * (member.size - positives)))


def tune(view: View) -> float | None:
    """Choose a by attacking a few shadow models, whose members are known, with the other shadow models.

    The forgotten records take no part, so the choice cannot favour a result.

    Args:
        view: shadow models trained on parts of the reference records.

    Returns:
        The value in 0, 0.1, .., 1 with the best mean AUC, or None where no shadow model can play the target.
    """
    reference = view.reference
    probability = special.expit(view.shadow_phi[:, reference])
    out = view.out[:, reference]
    grid = np.linspace(0.0, 1.0, 11)
    total = np.zeros(grid.size)
    used = 0
    for target in range(min(TUNING_TARGETS, out.shape[0])):
        member = ~out[target]
        others = out.copy()
        others[target] = False
        count = others.sum(axis=0)
        known = count > 0
        if member[known].all() or not member[known].any():
            continue
        mean_out = np.where(others, probability, 0.0).sum(axis=0)[known] / count[known]
        log_p = log_probability(view.shadow_phi[target, reference][known])
        total += [_auc(log_ratio(log_p, mean_out, float(a)), member[known]) for a in grid]
        used += 1
    return float(grid[total.argmax()]) if used else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rmia:
    """The share of the reference records that a record's likelihood ratio exceeds.

    Attributes:
        gamma: factor by which a ratio has to exceed another one, at least 1.
        offline_a: a in [0, 1]; None chooses it with `tune`.

    Source: Zarifzadeh et al., ICML 2024, equations 3, 4 and 11.
    """

    gamma: float = 1.0
    offline_a: float | None = None

    def __post_init__(self) -> None:
        """Refuse parameters outside their range.

        Raises:
            AuditorError: gamma below 1 or a outside [0, 1].
        """
        if not self.gamma >= 1.0 or not (self.offline_a is None or 0.0 <= self.offline_a <= 1.0):
            raise AuditorError("RMIA needs gamma of at least 1 and a between 0 and 1")

    def __call__(self, view: View) -> Scores | Unavailable:
        """Return the shares."""
        count = view.out.sum(axis=0)
        if int(count.min()) < 1:
            return Unavailable(reason="a record without a shadow model that was trained without it")
        chosen = tune(view) if self.offline_a is None else self.offline_a
        offline_a = DEFAULT_OFFLINE_A if chosen is None else chosen
        mean_out = np.where(view.out, special.expit(view.shadow_phi), 0.0).sum(axis=0) / count
        ratios = log_ratio(log_probability(view.phi), mean_out, offline_a)
        values = population_share(ratios, view.reference, math.log(self.gamma))
        return Scores(
            values=values,
            settings=f"{self!r}: a={offline_a:.1f}, population={int(view.reference.sum())}, "
            f"models={int(count.min())}..{int(count.max())} of {view.out.shape[0]}",
        )
