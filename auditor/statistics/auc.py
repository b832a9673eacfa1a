"""The area under the ROC curve, ties counted as one half.

Proves: the probability that a random positive scores above a random negative, estimated without bias, and
the variance of that estimate.
Assumes: records of one side are independent of those of the other and of each other, given the scores.
Does not: adjust for differences between the sides other than membership; see `control.py`.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from protocol.errors import AuditorError


@dataclass(frozen=True, slots=True, kw_only=True)
class Auc:
    """An estimated AUC.

    Attributes:
        value: in [0, 1]; 0.5 is chance, and 0 is as telling as 1.
        variance_positive: the part of its variance due to the choice of positives.
        variance_negative: the part due to the choice of negatives.
    """

    value: float
    variance_positive: float
    variance_negative: float

    @property
    def standard_error(self) -> float:
        """The square root of both variances' sum."""
        return math.sqrt(self.variance_positive + self.variance_negative)


def share_below(
    points: Float[np.ndarray, "point"],
    weights: Float[np.ndarray, "point"],
    at: Float[np.ndarray, "record"],
) -> Float[np.ndarray, "record"]:
    """Return the total weight of the points below each value, equal ones counted with half their weight.

    Args:
        points: scores, in any order.
        weights: one weight for each.
        at: where to evaluate.
    """
    order = np.argsort(points, kind="stable")
    ordered = points[order]
    total = np.concatenate(([0.0], np.cumsum(weights[order])))
    low = total[np.searchsorted(ordered, at, side="left")]
    high = total[np.searchsorted(ordered, at, side="right")]
    return (low + high) / 2.0


def delong(scores: Float[np.ndarray, "record"], positive: Bool[np.ndarray, "record"]) -> Auc:
    """Return the AUC with DeLong's variance, in n log n.

    Args:
        scores: finite; higher means more like a positive.
        positive: which records are positives; at least two of each side.

    Raises:
        AuditorError: fewer than two records on a side.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), equations 3 to 6; ranks after Sun and Xu,
        IEEE Signal Processing Letters 21 (2014).
    """
    positives, negatives = scores[positive], scores[~positive]
    count, others = positives.size, negatives.size
    if count < 2 or others < 2:
        raise AuditorError("an AUC with a variance needs two records on each side")
    ranks = stats.rankdata(scores)
    beaten = (ranks[positive] - stats.rankdata(positives)) / others
    losing = 1.0 - (ranks[~positive] - stats.rankdata(negatives)) / count
    return Auc(
        value=float(beaten.mean()),
        variance_positive=float(beaten.var(ddof=1)) / count,
        variance_negative=float(losing.var(ddof=1)) / others,
    )
