"""ROC points and rates at low false-positive rates.

Proves: exact intervals for true- and false-positive rates at a threshold that was fixed on other records.
Assumes: as `control.py`.
Does not: pick a best threshold, interpolate, or draw. The curve's band holds at each point for itself, takes
the threshold as given, and is for looking at; the operating points carry the statistical statement.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from auditor.statistics.control import Draws
from auditor.statistics.proportions import clopper_pearson, negatives_needed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roc:
    """Points of a ROC curve and of its null control, from low to high false-positive rate.

    Attributes:
        false_positive_rate: share of never-seen records above each threshold.
        true_positive_rate: share of forgotten records above it.
        low: lower end of its pointwise 95 % interval.
        high: upper end.
        control: mean share of the pseudo-forget draws above the threshold.
        control_low: 2.5 % quantile over the draws.
        control_high: 97.5 % quantile.
    """

    false_positive_rate: Float[np.ndarray, "point"]
    true_positive_rate: Float[np.ndarray, "point"]
    low: Float[np.ndarray, "point"]
    high: Float[np.ndarray, "point"]
    control: Float[np.ndarray, "point"]
    control_low: Float[np.ndarray, "point"]
    control_high: Float[np.ndarray, "point"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """Rates at one threshold.

    Attributes:
        target: wanted false-positive rate.
        threshold: score above which a record is called a member, fixed on one part of the negatives.
        hits: forgotten records above it.
        forgotten: forgotten records.
        rate: `hits / forgotten`.
        low: lower end of its exact 95 % interval.
        high: upper end.
        false_alarms: negatives of the other part above the threshold.
        negatives: size of the other part.
        false_rate: `false_alarms / negatives`.
        false_low: lower end of its exact 95 % interval.
        false_high: upper end.
    """

    target: float
    threshold: float
    hits: int
    forgotten: int
    rate: float
    low: float
    high: float
    false_alarms: int
    negatives: int
    false_rate: float
    false_low: float
    false_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """A rate that the reference set is too small for.

    Attributes:
        target: wanted false-positive rate.
        reason: how many negatives there are and how many it needs.
    """

    target: float
    reason: str


def roc(scores: Float[np.ndarray, "record"], forget: Bool[np.ndarray, "record"], draws: Draws, *, points: int) -> Roc:
    """Return points of the ROC curve, spaced evenly in the logarithm of the false-positive rate.

    Args:
        scores: higher means more like a member; negate them for the other tail.
        forget: the forgotten records.
        draws: pseudo-forget sets over the reference records.
        points: at most this many; fewer where two would allow the same number of false alarms.
    """
    positives, negatives = scores[forget], scores[~forget]
    allowed = np.unique(np.round(np.geomspace(1, negatives.size - 1, points)).astype(np.int64))
    thresholds = np.sort(negatives)[::-1][allowed]  # at most `allowed` negatives lie above
    ascending = thresholds[::-1]
    hits = positives.size - np.searchsorted(np.sort(positives), thresholds, side="right")
    low, high = clopper_pearson(hits, positives.size)
    # First threshold that a negative exceeds; a histogram of it for each draw gives all rates at once.
    first = allowed.size - np.searchsorted(ascending, negatives, side="left")
    bins = allowed.size + 1
    rows = np.arange(len(draws.members))[:, None] * bins
    table = np.bincount((first[draws.members] + rows).ravel(), minlength=len(draws.members) * bins)
    control = table.reshape(-1, bins).cumsum(axis=1)[:, :-1] / draws.size
    alarms = negatives.size - np.searchsorted(np.sort(negatives), thresholds, side="right")
    return Roc(
        false_positive_rate=alarms / negatives.size,
        true_positive_rate=hits / positives.size,
        low=low,
        high=high,
        control=control.mean(axis=0),
        control_low=np.quantile(control, 0.025, axis=0),
        control_high=np.quantile(control, 0.975, axis=0),
    )


def operating_point(
    scores: Float[np.ndarray, "record"],
    forget: Bool[np.ndarray, "record"],
    calibration: Bool[np.ndarray, "record"],
    target: float,
) -> OperatingPoint | Withheld:
    """Return the rates at a wanted false-positive rate.

    Below 1 % the part of the negatives on which false alarms are counted must be large enough that no false
    alarm at all would show the rate to be that low: 2,995 for 0.1 %. From 1 % on, each part must allow for
    one false alarm; the printed interval says how well the rate is known.

    Args:
        scores: higher means more like a member.
        forget: the forgotten records.
        calibration: the negatives on which the threshold is fixed; the others are for counting.
        target: false-positive rate in (0, 1).
    """
    fixing, counting = scores[calibration], scores[~forget & ~calibration]
    least = round(1.0 / target)
    needed = negatives_needed(target) if target < 0.01 else least
    if fixing.size < least or counting.size < needed:
        return Withheld(
            target=target,
            reason=f"{fixing.size} negatives fix the threshold and {counting.size} count false alarms; "
            f"this rate needs {least} and {needed}",
        )
    threshold = float(np.sort(fixing)[::-1][int(np.floor(target * fixing.size + 1e-9))])
    positives = scores[forget]
    hits, alarms = int((positives > threshold).sum()), int((counting > threshold).sum())
    low, high = clopper_pearson(np.array([hits]), positives.size)
    false_low, false_high = clopper_pearson(np.array([alarms]), counting.size)
    return OperatingPoint(
        target=target,
        threshold=threshold,
        hits=hits,
        forgotten=positives.size,
        rate=hits / positives.size,
        low=float(low[0]),
        high=float(high[0]),
        false_alarms=alarms,
        negatives=counting.size,
        false_rate=alarms / counting.size,
        false_low=float(false_low[0]),
        false_high=float(false_high[0]),
    )
