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
from jaxtyping import Bool, Float, Int
from scipy import special, stats

from auditor.attacks.observation import Scores, Unavailable, View, log_probability
from protocol.errors import AuditorError

DEFAULT_OFFLINE_A = 0.3
TUNING_TARGETS = 4


def marginal(mean_out: Float[np.ndarray, "record"], offline_a: float) -> Float[np.ndarray, "record"]:
    """Return p = (1 + a)/2 * mean_OUT p + (1 - a)/2, kept above 0."""
    found: np.ndarray = mean_out * ((1.0 + offline_a) / 2.0) + (1.0 - offline_a) / 2.0
    np.maximum(found, np.finfo(np.float64).tiny, out=found)
    return found


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
    ratio: np.ndarray = log_p - np.log(marginal(mean_out, offline_a))
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


def _area(scores: Float[np.ndarray, "record"], member: Bool[np.ndarray, "record"]) -> float:
    """Return the AUC of scores of at least 0; ties count half."""
    # Floats of one sign are in the order of their bits. The last bit, a difference of 1e-16, says who is a member: one
    # sort of plain numbers takes a tenth of the time that ranks take.
    keys = (np.ascontiguousarray(scores).view(np.int64) & -2) | member
    keys.sort()
    count = int(member.sum())
    if bool((keys[1:] >> 1 == keys[:-1] >> 1).any()):
        ranks = stats.rankdata(scores)
        above = float(ranks[member].sum()) - count * (count + 1) / 2.0
    else:
        above = float(np.flatnonzero(keys & 1).sum()) - count * (count - 1) / 2.0
    return above / (count * (member.size - count))


Known = tuple[Float[np.ndarray, "shadow record"], Float[np.ndarray, "record"], Int[np.ndarray, "record"]]


def _known(view: View) -> Known:
    """Probability of the label under each shadow model; its sum over those without the record; their number."""
    probability = special.expit(view.shadow_phi)
    return probability, np.einsum("sr,sr->r", probability, view.out), view.out.sum(axis=0)


def tune(view: View, known: Known | None = None) -> float | None:
    """Choose a by attacking a few shadow models, whose members are known, with the other shadow models.

    The forgotten records take no part, so the choice cannot favour a result. The mean AUC is looked at in steps of
    0.2, and then a step of 0.1 on both sides of the best of them. Ratios are compared without their logarithms, which
    do not change an order.

    Args:
        view: shadow models trained on parts of the reference records.
        known: what `_known` gives, if it is at hand.

    Returns:
        The value in 0, 0.1, .., 1, or None where no shadow model can play the target.
    """
    probability, total, count = _known(view) if known is None else known
    reference = np.flatnonzero(view.reference)
    total, count = total[reference], count[reference]
    targets = []
    for target in range(min(TUNING_TARGETS, len(probability))):
        own, out = probability[target, reference], view.out[target, reference]
        others = count - out
        usable = others > 0
        if not usable.all():
            own, out, others = own[usable], out[usable], others[usable]
        if out.all() or not out.any():
            continue
        mean_out = np.maximum((total if usable.all() else total[usable]) - own * out, 0.0) / others
        targets.append((own, mean_out, ~out))
    if not targets:
        return None
    found: dict[int, float] = {}

    def mean_area(tenths: int) -> float:
        if tenths not in found:
            found[tenths] = math.fsum(
                _area(own / marginal(mean_out, tenths / 10.0), member) for own, mean_out, member in targets
            )
        return found[tenths]

    coarse = max(range(0, 11, 2), key=mean_area)
    return max((coarse, *(near for near in (coarse - 1, coarse + 1) if 0 <= near <= 10)), key=mean_area) / 10.0


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
        known = _known(view)
        _, total, count = known
        if int(count.min()) < 1:
            return Unavailable(reason="a record without a shadow model that was trained without it")
        chosen = tune(view, known) if self.offline_a is None else self.offline_a
        offline_a = DEFAULT_OFFLINE_A if chosen is None else chosen
        ratios = log_ratio(log_probability(view.phi), total / count, offline_a)
        values = population_share(ratios, view.reference, math.log(self.gamma))
        return Scores(
            values=values,
            settings=f"{self!r}: a={offline_a:.1f}, population={int(view.reference.sum())}, "
            f"models={int(count.min())}..{int(count.max())} of {view.out.shape[0]}",
        )
