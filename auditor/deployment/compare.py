"""What an answer is: the certified output, nearly that, the base's, another model's, or damaged.

Deviation: the largest difference of any logit, in units of the spread (largest less smallest) of the certified logits
of that input, as for exports (A12).

Proves: `base` only where base and certified output are further apart than twice the drift limit, so that no answer is
near both. An answer of another model differs in at least half of its logits; one that differs in fewer is damaged:
it accuses nobody. Assumes finite answers and outputs.
"""

from enum import Enum

import numpy as np
from jaxtyping import Float, Float32


class Outcome(Enum):
    """What became of a query."""

    EXACT = "equal bit by bit"
    CLOSE = "within the tolerance"
    DRIFT = "off by what other arithmetic explains"
    BASE = "the base model's"
    OTHER = "another model's"
    DAMAGED = "damaged"
    NONE = "no answer"

    @property
    def good(self) -> bool:
        """Whether it is what the certified model answers."""
        return self in (Outcome.EXACT, Outcome.CLOSE)


def deviation(
    answers: Float32[np.ndarray, "query class"], expected: Float32[np.ndarray, "query class"]
) -> Float[np.ndarray, " query"]:
    """How far answers are off, of the spread of the expected logits; infinite where something is not finite."""
    wide, other = expected.astype(np.float64), answers.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.abs(other - wide).max(axis=1, initial=0.0)
        spread = np.ptp(wide, axis=1) if wide.shape[1] else np.zeros(len(wide))
    off: np.ndarray = np.where(np.isfinite(gap), gap, np.inf) / np.where(spread > 0.0, spread, 1.0)
    return off


def classify(
    answer: Float32[np.ndarray, " class"],
    certified: Float32[np.ndarray, " class"],
    base: Float32[np.ndarray, " class"],
    *,
    tells: bool,
    tolerance: float,
    drift: float,
) -> Outcome:
    """What one answer is.

    Args:
        answer: the endpoint's logits, finite.
        certified: the certified model's on the same input.
        base: the base's.
        tells: whether the probe was drawn so that the two are far apart.
        tolerance: largest deviation of an answer that counts as the certified model's.
        drift: largest deviation that other arithmetic explains.
    """
    if (answer == certified).all():
        return Outcome.EXACT
    off = float(deviation(answer[None], certified[None])[0])
    if off <= tolerance:
        return Outcome.CLOSE
    if tells:
        spread = max(float(np.ptp(certified.astype(np.float64))), 1e-30)
        from_base = float(np.abs(answer.astype(np.float64) - base.astype(np.float64)).max()) / spread
        if from_base < off and from_base <= drift:
            return Outcome.BASE
    if off <= drift:
        return Outcome.DRIFT
    wide = certified.astype(np.float64)
    spread = float(np.ptp(wide)) or 1.0
    different = int((np.abs(answer.astype(np.float64) - wide) > tolerance * spread).sum())
    return Outcome.OTHER if different >= max(2, -(-len(answer) // 2)) else Outcome.DAMAGED


def probabilities(answer: Float32[np.ndarray, " class"]) -> bool:
    """Whether logits look like probabilities: none negative, and a sum of 1."""
    return bool((answer >= 0).all()) and abs(float(answer.astype(np.float64).sum()) - 1.0) < 1e-3


__all__ = ["Outcome", "classify", "deviation", "probabilities"]
