"""Intervals of an AUC that stay honest at 0 and 1, and of the change between two AUCs on the same records.

Proves: `area_interval`, an approximate interval whose ends are strictly inside (0, 1), also where every positive
lies above every negative and an estimated variance is 0; `paired`, the variance of a difference of two AUCs
whose scores belong to the same records.
Assumes: independent records.
Does not: adjust for classes; see `control.py`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, stats

from auditor.statistics.auc import delong, share_below
from protocol.errors import AuditorError

_NEAR = 1e-9


def area_interval(value: float, positives: int, negatives: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of an interval of an AUC: all areas from which the estimate is not too many errors away.

    Args:
        value: estimated AUC in [0, 1].
        positives: number of positives, at least 1.
        negatives: number of negatives, at least 1.
        confidence: coverage in (0, 1).

    Raises:
        AuditorError: an argument out of its range.

    Source: Newcombe, Statistics in Medicine 25 (2006) 559-573, method 5.
    """
    if not 0.0 <= value <= 1.0 or min(positives, negatives) < 1 or not 0.0 < confidence < 1.0:
        raise AuditorError("an interval of an AUC needs a value in 0..1, records on both sides, a confidence in (0, 1)")
    width = float(stats.norm.ppf(0.5 + confidence / 2.0))
    middle = (positives + negatives) / 2.0 - 1.0

    def excess(area: float) -> float:
        factor = 1.0 + middle * ((1.0 - area) / (2.0 - area) + area / (1.0 + area))
        variance = area * (1.0 - area) * factor / (positives * negatives)
        return abs(value - area) - width * float(np.sqrt(variance))

    # The error vanishes at 0 and 1, so an estimate there solves its own equation; the other root is the end.
    inner = min(max(value, _NEAR), 1.0 - _NEAR)
    low = 0.0 if value <= _NEAR else float(optimize.brentq(excess, 0.0, inner))
    high = 1.0 if value >= 1.0 - _NEAR else float(optimize.brentq(excess, inner, 1.0))
    return low, high


def auc_interval(
    scores: Float[np.ndarray, "record"], positive: Bool[np.ndarray, "record"], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the ends of an AUC's interval by DeLong's variance; where that is 0, those of `area_interval`.

    Args:
        scores: finite; higher means more like a positive.
        positive: which records are positives; at least two of each side.
        confidence: coverage in (0, 1), approximately.

    Raises:
        AuditorError: fewer than two records on a side.
    """
    found = delong(scores, positive)
    if not found.standard_error > 0.0:
        return area_interval(found.value, int(positive.sum()), int((~positive).sum()), confidence=confidence)
    reach = float(stats.norm.ppf(0.5 + confidence / 2.0)) * found.standard_error
    return max(0.0, found.value - reach), min(1.0, found.value + reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedAreas:
    """Two AUCs of the same records.

    Attributes:
        before: AUC of the first scores.
        after: AUC of the second scores.
        standard_error: of `after - before`; exactly 0 where both order all records alike.
    """

    before: float
    after: float
    standard_error: float


def paired(
    before: Float[np.ndarray, "record"], after: Float[np.ndarray, "record"], positive: Bool[np.ndarray, "record"]
) -> PairedAreas:
    """Compare two scores of the same records.

    Args:
        before: finite scores.
        after: finite scores.
        positive: which records are positives; at least two of each side.

    Raises:
        AuditorError: fewer than two records on a side.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), equations 4 to 6.
    """
    count, others = int(positive.sum()), int((~positive).sum())
    if count < 2 or others < 2:
        raise AuditorError("an AUC with a variance needs two records on each side")
    beaten, losing = [], []
    for scores in (before, after):
        up, down = scores[positive], scores[~positive]
        beaten.append(share_below(down, np.full(others, 1.0 / others), up))
        losing.append(1.0 - share_below(up, np.full(count, 1.0 / count), down))
    variance = (beaten[1] - beaten[0]).var(ddof=1) / count + (losing[1] - losing[0]).var(ddof=1) / others
    return PairedAreas(
        before=float(beaten[0].mean()), after=float(beaten[1].mean()), standard_error=float(np.sqrt(variance))
    )
