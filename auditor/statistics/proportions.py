"""Exact intervals for rates.

Proves: an interval that covers the true rate with at least the stated probability, for any sample size.
Assumes: independent trials with one common success rate, and a success rule (a threshold) that was fixed
without looking at these trials.
Does not: correct for having searched over thresholds; see `roc.py`, which fixes them on other records.
"""

import math

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from protocol.errors import AuditorError


def clopper_pearson(
    hits: Int[np.ndarray, "*point"], trials: int, *, confidence: float = 0.95
) -> tuple[Float[np.ndarray, "*point"], Float[np.ndarray, "*point"]]:
    """Return the exact two-sided interval of a rate, for each of several counts.

    Args:
        hits: number of successes, each in 0..trials.
        trials: number of trials, at least 1.
        confidence: coverage in (0, 1); the error is split evenly between the two ends.

    Returns:
        The lower and the upper ends, in [0, 1].

    Raises:
        AuditorError: a count outside 0..trials, or a confidence outside (0, 1).

    Source: Clopper and Pearson, Biometrika 26 (1934), by the beta-quantile form.
    """
    counts = np.asarray(hits, dtype=np.float64)
    if trials < 1 or bool((counts < 0).any()) or bool((counts > trials).any()):
        raise AuditorError(f"a count outside 0..{trials}")
    if not 0.0 < confidence < 1.0:
        raise AuditorError(f"a confidence of {confidence} is not between 0 and 1")
    tail = (1.0 - confidence) / 2.0
    # The beta quantile is undefined at a shape of 0; the ends there are 0 and 1 by definition.
    low = stats.beta.ppf(tail, np.maximum(counts, 1.0), trials - counts + 1.0)
    high = stats.beta.ppf(1.0 - tail, counts + 1.0, np.maximum(trials - counts, 1.0))
    lower: np.ndarray = np.where(counts == 0, 0.0, low)
    upper: np.ndarray = np.where(counts == trials, 1.0, high)
    return lower, upper


def zero_hits_bound(trials: int, *, confidence: float = 0.95) -> float:
    """Return the largest true rate that zero hits in `trials` still allow (one-sided).

    Args:
        trials: number of trials, at least 1.
        confidence: one-sided confidence in (0, 1).

    Returns:
        The rate in (0, 1): 0.0295 for 100 trials at 95 %.

    Raises:
        AuditorError: no trial.
    """
    if trials < 1:
        raise AuditorError("no trial says nothing about a rate")
    return float(-math.expm1(math.log1p(-confidence) / trials))


def negatives_needed(rate: float, *, confidence: float = 0.95) -> int:
    """Return how many never-seen records a false-positive rate needs before it can be spoken of.

    With fewer, not even zero false alarms would show that the rate is at most `rate`.

    Args:
        rate: false-positive rate in (0, 1).
        confidence: one-sided confidence in (0, 1).

    Returns:
        The smallest count: 2,995 for 0.1 % at 95 %.

    Raises:
        AuditorError: a rate outside (0, 1).
    """
    if not 0.0 < rate < 1.0:
        raise AuditorError(f"a false-positive rate of {rate} is not between 0 and 1")
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate))


def interval(hits: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """`clopper_pearson` of one count."""
    low, high = clopper_pearson(np.array([hits]), trials, confidence=confidence)
    return float(low[0]), float(high[0])
