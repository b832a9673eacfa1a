"""The null control: what the AUC would be if the forgotten records had never been seen.

Proves: an estimate of AUC(forgotten against never seen) minus AUC(pseudo-forgotten against never seen), where
pseudo-forgotten records are never-seen ones with the forgotten records' mix of classes, and its standard
error. Under "the model treats forgotten records like never-seen ones of the same class" the difference has
mean 0, whatever the classes do to the scores.
Assumes: within a class, forgotten and never-seen records are exchangeable (tested in `exchangeability.py`),
and every score depends on the reference set only through all of it, or through all but the record itself.
Does not: need a retrained model.

Two readings of one control. `expected` is the mean over all pseudo-forget records, each against all other
never-seen records; it has no Monte Carlo error and enters the decision. The draws (at least 1,000 random
pseudo-forget sets against the records that remain) show the spread around it, and a null p-value that does
not rest on the normal approximation.

Variance. F forgotten and N never-seen records; V(x) is the share of N below x, mu_c the mean of V over class
c of N, w_c the share of class c in F. D = mean over F of (V(x) - mu_c(x)). F contributes the sample variance
of V(x) - mu_c(x) over |F|, but never less than the never-seen records' own within-class variance would: a
handful of forgotten records that happen to score alike is no evidence of precision. N contributes the
variance of the sum of its records' influences, as in DeLong: each is counted in V, in the control's V, and as
a pseudo-forgotten record.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from scipy import stats

from auditor.statistics.auc import share_below
from auditor.statistics.equivalence import welch_freedom

FEWEST_OF_A_CLASS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """Random pseudo-forget sets, the same for every attack.

    Attributes:
        members: indices into the reference records, one row for each draw, no index twice in a row.
    """

    members: Int[np.ndarray, "draw item"]

    @property
    def size(self) -> int:
        """Records in each draw."""
        return int(self.members.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An AUC beside its control.

    Attributes:
        auc: forgotten against never-seen records.
        expected: the control's mean, exact for the given reference.
        value: `auc - expected`.
        variance_forget: the part of the difference's variance due to the choice of forgotten records.
        variance_reference: the part due to the choice of never-seen records.
        freedom_forget: degrees of freedom of the first part.
        freedom_reference: degrees of freedom of the second part.
        draws_mean: mean AUC over the control draws.
        draws_low: their 2.5 % quantile.
        draws_high: their 97.5 % quantile.
        p_null: share of draws at least as far from their mean as `auc` is from `expected`.
    """

    auc: float
    expected: float
    value: float
    variance_forget: float
    variance_reference: float
    freedom_forget: float
    freedom_reference: float
    draws_mean: float
    draws_low: float
    draws_high: float
    p_null: float

    @property
    def standard_error(self) -> float:
        """The standard error of `value`; 0 up to rounding where all involved classes' scores are constant."""
        return float(np.sqrt(self.variance_forget + self.variance_reference))

    @property
    def freedom(self) -> float:
        """Its degrees of freedom."""
        return welch_freedom(
            (
                (self.variance_forget, self.freedom_forget),
                (self.variance_reference, self.freedom_reference),
            )
        )


def draw(
    forget_labels: Int64[np.ndarray, "item"],
    reference_labels: Int64[np.ndarray, "record"],
    count: int,
    generator: np.random.Generator,
) -> Draws:
    """Draw pseudo-forget sets with the forgotten records' class mix.

    If a class has more forgotten records than half of its never-seen ones, all classes are drawn smaller by
    the same factor, so that enough remain to compare with; the spread then shown is wider than the truth.

    Args:
        forget_labels: classes of the forgotten records.
        reference_labels: classes of the never-seen records; at least two of every forgotten class.
        count: number of draws.
        generator: source of randomness.

    Returns:
        The draws.
    """
    classes, wanted = np.unique(forget_labels, return_counts=True)
    pools = [np.flatnonzero(reference_labels == klass) for klass in classes]
    scale = min(1.0, *(pool.size / 2 / need for pool, need in zip(pools, wanted, strict=True)))
    parts = []
    for pool, need in zip(pools, wanted, strict=True):
        take = max(1, int(need * scale))
        parts.append(generator.permuted(np.tile(pool.astype(np.int32), (count, 1)), axis=1)[:, :take])
    return Draws(members=np.concatenate(parts, axis=1))


def compare(
    scores: Float[np.ndarray, "record"],
    forget: Bool[np.ndarray, "record"],
    labels: Int64[np.ndarray, "record"],
    draws: Draws,
) -> Difference:
    """Compare forgotten with never-seen records, and both with the class-matched control.

    Args:
        scores: finite; higher means more like a member.
        forget: the forgotten records, at least two; all others are never-seen reference records.
        labels: the records' classes; every class in `forget` has at least two reference records.
        draws: pseudo-forget sets over the reference records, in their order.

    Returns:
        The difference with its variance and the draws' spread.
    """
    positives, negatives = scores[forget], scores[~forget]
    count, others = positives.size, negatives.size
    classes = int(labels.max()) + 1
    of_positive, of_negative = labels[forget], labels[~forget]
    held = np.bincount(of_negative, minlength=classes)
    weight = np.bincount(of_positive, minlength=classes) / count  # w_c
    each = (weight / np.maximum(held, 1))[of_negative]  # w_c / |N_c| for each negative

    placed = share_below(negatives, np.full(others, 1.0 / others), positives)  # V over F
    ranks = stats.rankdata(negatives)
    own = (ranks - 1.0) / (others - 1.0)  # V over N, without the record itself
    centre = np.bincount(of_negative, weights=own, minlength=classes) / np.maximum(held, 1)  # mu_c
    auc, expected = float(placed.mean()), float(weight @ centre)

    residual = placed - centre[of_positive]
    deviation = own - centre[of_negative]
    within = float(each @ (deviation**2 * (held / np.maximum(held - 1, 1))[of_negative]))
    spread = max(float(residual.var(ddof=1)), within)

    # Influence of each negative, in the order of the module docstring's three roles.
    beaten = 1.0 - share_below(positives, np.full(count, 1.0 / count), negatives) - auc
    beaten_control = 1.0 - share_below(negatives, each, negatives) - expected
    small_class = np.sqrt(held / np.maximum(held - 1, 1))[of_negative]
    in_common = beaten - beaten_control
    influence = (in_common - in_common.mean()) / others - each * deviation * small_class

    drawn = ranks[draws.members].sum(axis=1) - draws.size * (draws.size + 1) / 2.0
    null = drawn / (draws.size * (others - draws.size))
    far = np.abs(null - null.mean()) >= abs(auc - expected)
    return Difference(
        auc=auc,
        expected=expected,
        value=auc - expected,
        variance_forget=spread / count,
        variance_reference=float((influence**2).sum()) * others / (others - 1.0),
        freedom_forget=count - 1.0,
        freedom_reference=others - 1.0,
        draws_mean=float(null.mean()),
        draws_low=float(np.quantile(null, 0.025)),
        draws_high=float(np.quantile(null, 0.975)),
        p_null=float((1 + far.sum()) / (1 + far.size)),
    )


def _others_median(pool: Float[np.ndarray, "record"]) -> Float[np.ndarray, "record"]:
    """Return for each of at least two values the median of all others."""
    order = np.argsort(pool, kind="stable")
    ordered = pool[order]
    place = np.empty(pool.size, dtype=np.int64)
    place[order] = np.arange(pool.size)
    middle = pool.size // 2
    others: np.ndarray
    if pool.size % 2:
        # An even number remains: its two middle values depend on which side lost one.
        low = np.where(place >= middle, ordered[middle - 1], ordered[middle])
        high = np.where(place <= middle, ordered[middle + 1], ordered[middle])
        others = (low + high) / 2.0
    else:
        others = np.where(place < middle, ordered[middle], ordered[middle - 1])
    return others


def centre(
    scores: Float[np.ndarray, "record"],
    reference: Bool[np.ndarray, "record"],
    groups: Int64[np.ndarray, "record"],
) -> Float[np.ndarray, "record"]:
    """Return each score minus the null's centre: the median of the reference records of its group.

    An attacker who knows the label compares records with others of the same class. One threshold over classes
    that score differently hides what happens inside each (a within-class AUC of .60 can read .53).

    A reference record is measured from the median of the *other* ones. Otherwise it would lie closer to a
    centre that it helped to place than an equally distributed forgotten record does. Where many reference
    records share one extreme score this moves them apart from forgotten records with the same score by a
    trifle, and breaks the tie; the attacks' scores are continuous.

    Args:
        scores: finite.
        reference: the never-seen records, at least two.
        groups: a number at least 0 for each record; a group with fewer than two reference records is measured
            from the median of all of them.
    """
    middle = np.full(scores.shape, float(np.median(scores[reference])))
    for group in np.unique(groups):
        inside = groups == group
        pool = inside & reference
        if int(pool.sum()) < 2:
            continue
        middle[inside] = float(np.median(scores[pool]))
        middle[pool] = _others_median(scores[pool])
    away: np.ndarray = scores - middle
    return away
