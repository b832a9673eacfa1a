"""How far a float32 result may lie from the real number it stands for, and what our own float64 adds.

Proves nothing by itself; the bounds of this package are built from these numbers. The model of a
float32 operation on a, b (each perhaps replaced by zero if subnormal) is `(a op b)(1 + d) + h`,
|d| <= u = 2^-24, |h| <= t = 2^-126: rounding to nearest, gradual underflow or flush to zero, inputs
flushed or not. A value that is a sum of products, evaluated with at most k roundings on the way of any
one term, is then within `gamma(k) * (sum of the terms' absolute values)` plus an underflow term of its real
value, for every order, parenthesising, use of FMA, and for constants multiplied together beforehand.

Assumes that nothing overflows (callers check against `LARGEST`) and round to nearest.

Source: Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1 and section 2.4.
"""

import math

import numpy as np
from jaxtyping import Float

UNIT = 2.0**-24
"""Unit roundoff of float32."""
TINY = 2.0**-126
"""Least normal float32: what one operation can lose to underflow or to flush-to-zero."""
LARGEST = 2.0**126
"""No float32 operation whose exact result is below this overflows, its own rounding errors included."""
LEAST_VARIANCE = 2.0**-100
"""From here on, flushing either summand of variance + epsilon costs less than one rounding."""
FLOOR = 2.0**-800
"""More than float64 underflow can cost in one bound: under 2^60 losses of 2^-1022, each times less than 2^128."""
_UNIT64 = 2.0**-53
_MOST = 2**22


def gamma(count: int) -> float:
    """`count u / (1 - count u)`, rounded up; infinite where that says nothing.

    Args:
        count: roundings on the way of one term, at least 0.
    """
    if count > _MOST:
        return math.inf
    return count * UNIT / (1 - count * UNIT) * (1 + 2.0**-40)


def slack(operations: int) -> float:
    """Relative error of float64 computations of `operations` roundings in a row, some sixteen times over.

    The factor lets one call stand for the handful of computations that use the same magnitudes: a
    centre, a radius, the magnitude itself, coefficients on the way back, the sums at the end.
    """
    return 16 * (operations + 64) * _UNIT64


def underflow(depth: int) -> float:
    """What underflow can cost one term with `depth` roundings whose factors are all at most 1 in absolute value.

    Every operation loses at most 3 t: its result and two operands. A term has at most `depth + 1` of
    them, and rounding increases that by less than a half.
    """
    return 8 * (depth + 2) * TINY


def at_least_one(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Absolute values, raised to 1: what a factor can make of a loss that happens before or after it."""
    raised: Float[np.ndarray, "..."] = np.maximum(np.abs(array), 1.0)
    return raised
