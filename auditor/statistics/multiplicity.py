"""Several tests at once.

Proves: rejecting where the adjusted p-value is at most a level keeps the chance of *any* false rejection at
or below that level, however the tests depend on one another.
Assumes: each p-value is valid on its own.
Does not: help a claim that needs *every* test to succeed (CONSISTENT); that one is an intersection-union
test and needs no adjustment.
"""

import numpy as np
from jaxtyping import Float

from protocol.errors import AuditorError


def holm(p_values: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    """Return Holm's step-down adjusted p-values, in the order given.

    Args:
        p_values: one valid p-value in [0, 1] for each test.

    Returns:
        The adjusted p-values, each at least as large as its own p-value and at most 1.

    Raises:
        AuditorError: a value that is not in [0, 1].

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not bool(((values >= 0.0) & (values <= 1.0)).all()):
        raise AuditorError("a p-value outside 0..1")
    order = np.argsort(values, kind="stable")
    factors = np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return adjusted
