"""Is a difference small, large, or not measured well enough to say?

Proves: with an approximately normal estimate, `p_equivalent <= level` wrongly calls a difference of at least
the margin small with probability at most `level`; `p_beyond <= level` wrongly calls a difference of at most
the margin large with probability at most `level`.
Assumes: the standard error and its degrees of freedom are right (`control.py`).
Does not: treat "not significantly different" as "the same". An honest model exceeds a plain 95 % limit in
5 % of the tests and more over several, and a model from which nothing was removed often passes one.
"""

import math
from dataclasses import dataclass

from scipy import special

from protocol.errors import AuditorError


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalence:
    """What an estimated difference says about a margin.

    Attributes:
        low: lower end of the two-sided interval of the difference.
        high: its upper end.
        upper_bound: one-sided upper bound of the difference's absolute value.
        p_equivalent: p-value against "the absolute difference is at least the margin".
        p_beyond: p-value against "the absolute difference is at most the margin".
    """

    low: float
    high: float
    upper_bound: float
    p_equivalent: float
    p_beyond: float


def equivalence(
    difference: float, *, standard_error: float, freedom: float, margin: float, level: float = 0.05
) -> Equivalence:
    """Compare the absolute value of an estimated difference with a margin, both ways.

    The upper bound belongs to the two one-sided tests: it is below the margin exactly when
    `p_equivalent < level`.

    Args:
        difference: the estimate, in units of AUC.
        standard_error: its standard error, above 0.
        freedom: degrees of freedom of the standard error, above 0.
        margin: the largest absolute difference that counts as none, above 0.
        level: error probability of each statement, in (0, 0.5).

    Returns:
        Bounds and p-values. The interval has coverage `1 - level`.

    Raises:
        AuditorError: an argument outside its range.

    Source: Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15 (1987).
    """
    if not (standard_error > 0.0 and freedom > 0.0 and margin > 0.0 and 0.0 < level < 0.5):
        raise AuditorError("standard error, freedom and margin must be positive, the level below one half")
    size = abs(difference)
    # The functions under `stats.t` themselves: to freeze a distribution costs a hundred times what they do.
    half_width = float(special.stdtrit(freedom, 1.0 - level / 2.0)) * standard_error
    # At the edge of "at most the margin" the estimate may land beyond either end, so both tails count.
    beyond = sum(special.stdtr(freedom, (side - size) / standard_error) for side in (margin, -margin))
    return Equivalence(
        low=difference - half_width,
        high=difference + half_width,
        upper_bound=size + float(special.stdtrit(freedom, 1.0 - level)) * standard_error,
        p_equivalent=float(special.stdtr(freedom, (size - margin) / standard_error)),
        p_beyond=min(1.0, float(beyond)),
    )


def welch_freedom(components: tuple[tuple[float, float], ...]) -> float:
    """Return the degrees of freedom of a sum of independently estimated variances.

    Args:
        components: pairs of a variance (at least 0) and its own degrees of freedom (above 0).

    Returns:
        The Welch-Satterthwaite value; infinity if every variance is 0.
    """
    total = math.fsum(variance for variance, _ in components)
    spread = math.fsum(variance**2 / freedom for variance, freedom in components)
    return total**2 / spread if spread > 0.0 else math.inf
