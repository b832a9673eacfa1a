"""How far apart an attack shows forgotten and never-seen records to be, on the scale of differential privacy.

Proves: with the stated confidence, at this `delta`, no mechanism whose outputs on forgotten and on never-seen records
are (epsilon, delta)-close for an epsilon below `value` would let this attack do as well as it did.
Assumes: thresholds fixed on other never-seen records; forgotten and never-seen records are independent draws that
differ in nothing else. A class mix that differs counts as well, as far as scores are not centred by class.
Does not: give a differential-privacy epsilon of the training or of the method. Those bound the worst case over every
data set and record and over the randomness of training; this is one trained model, one forget set, one attack. A
bound of 0 says that nothing was shown, and it is no upper bound on anything.

Source: Kairouz, Oh and Viswanath, ICML 2015, theorem 2.1 (hypothesis testing form); Jagielski, Ullman and Oprea,
NeurIPS 2020 (Clopper-Pearson limits of both error rates); Triantafillou et al., arXiv 2406.09073 (forgetting score).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from auditor.statistics.proportions import interval
from protocol.errors import AuditorError

RATES = (0.01, 0.05, 0.1, 0.25, 0.5)
"""Shares of the calibration negatives above the thresholds that are looked at, in each tail."""
MEANING = (
    "Not a differential-privacy epsilon of the training or of the method. It says, at 95 % confidence for each attack "
    "by itself, how far apart this attack shows this model's outputs on these forgotten records and on never-seen ones "
    "to be: a mechanism whose two output distributions are (epsilon, delta)-close for a smaller epsilon would not let "
    "the attack do so well. It grows with the number of records; 0 means that nothing was shown, not that nothing is "
    "there."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonBound:
    """A lower bound.

    Attributes:
        value: at least 0, finite.
        delta: the delta that it is for.
        confidence: of the bound, over all thresholds and both tails.
        most: the largest value that this many records could have shown.
    """

    value: float
    delta: float
    confidence: float
    most: float


def _bound(misses: float, alarms: float, delta: float) -> float:
    found = 0.0
    for spared, against in ((alarms, misses), (misses, alarms)):
        if 1.0 - delta - spared > 0.0:
            found = max(found, math.log((1.0 - delta - spared) / against))
    return found


def epsilon_bound(
    scores: Float[np.ndarray, "record"],
    forget: Bool[np.ndarray, "record"],
    calibration: Bool[np.ndarray, "record"],
    *,
    delta: float = 1e-5,
    confidence: float = 0.95,
) -> EpsilonBound:
    """Return the largest epsilon that the two error rates at any threshold rule out, both tails.

    Args:
        scores: finite; higher means more like a member.
        forget: the forgotten records, at least one.
        calibration: never-seen records that only fix thresholds; at least one is, and at least one is not, among them.
        delta: in [0, 1).
        confidence: in (0, 1); shared out between the error rates of all thresholds and tails.

    Raises:
        AuditorError: an argument out of its range.
    """
    others = ~forget & ~calibration
    if not (0.0 <= delta < 1.0 and 0.0 < confidence < 1.0):
        raise AuditorError("delta lies in [0, 1) and the confidence in (0, 1)")
    if not (forget.any() and others.any() and calibration.any()) or bool((forget & calibration).any()):
        raise AuditorError("an epsilon needs forgotten records, negatives for thresholds, and other negatives")
    each = 1.0 - 2.0 * (1.0 - confidence) / (2 * 2 * len(RATES))  # two-sided, of which one end is used
    forgotten, negatives = int(forget.sum()), int(others.sum())
    found = 0.0
    for sign in (1.0, -1.0):
        ordered = np.sort(sign * scores[calibration])
        for rate in RATES:
            # At most a share of `rate` lies strictly above.
            threshold = ordered[max(0, math.ceil(ordered.size * (1.0 - rate)) - 1)]
            misses = interval(int((sign * scores[forget] <= threshold).sum()), forgotten, confidence=each)[1]
            alarms = interval(int((sign * scores[others] > threshold).sum()), negatives, confidence=each)[1]
            found = max(found, _bound(misses, alarms, delta))
    most = _bound(interval(0, forgotten, confidence=each)[1], interval(0, negatives, confidence=each)[1], delta)
    return EpsilonBound(value=found, delta=delta, confidence=confidence, most=most)
