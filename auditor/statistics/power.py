"""What a test could have seen.

Proves: the smallest true effect that a test of the given precision would have reported with the stated
probability. A report that found nothing must say it.
Assumes: an approximately normal estimate whose standard error does not depend much on the effect.
Does not: use the observed effect ("observed power" says no more than the p-value).
"""

from scipy import stats


def detectable_difference(
    standard_error: float, freedom: float, *, level: float, power: float = 0.8, margin: float = 0.0
) -> float:
    """Return the smallest absolute difference found beyond `margin` with probability `power`.

    Args:
        standard_error: of the estimated difference, above 0.
        freedom: its degrees of freedom, above 0.
        level: one-sided level at which the difference would be reported.
        power: wanted probability of reporting it.
        margin: what the difference has to exceed; 0 asks what could be told from no effect at all.

    Returns:
        The difference in the units of the standard error (AUC).
    """
    student = stats.t(freedom)
    return margin + float(student.ppf(1.0 - level) + student.ppf(power)) * standard_error


def equivalence_power(standard_error: float, freedom: float, *, margin: float, level: float) -> float:
    """Return the chance that a true difference of zero is shown to be below the margin.

    Args:
        standard_error: of the estimated difference, above 0.
        freedom: its degrees of freedom, above 0.
        margin: the margin of the equivalence test, above 0.
        level: its level.

    Returns:
        A probability in [0, 1]; a small one says that the forget set is too small for this margin.
    """
    student = stats.t(freedom)
    reach = margin / standard_error - float(student.ppf(1.0 - level))
    return max(0.0, 2.0 * float(student.cdf(reach)) - 1.0)
