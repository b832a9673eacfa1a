"""Could forgotten and reference records have been swapped before anybody trained a model?

Proves: if within each class they are exchangeable, each test rejects with probability at most its level,
exactly, since labels "forgotten" and "reference" are permuted within classes.
Assumes: the features do not depend on the audited models (inputs, or a public embedding).
Does not: show that the sets *are* exchangeable. It finds what its two statistics can see: differences of the
joint distribution in the energy distance, and shifts of single features in the largest standardised
difference of means (which corrects for looking at all features, as Holm would, but uses their dependence).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.spatial.distance import cdist

from auditor.statistics.multiplicity import holm

CLIP = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchangeability:
    """The outcome of both tests.

    Attributes:
        p_energy: permutation p-value of the energy distance.
        p_feature: permutation p-value of the largest shift of one feature.
        worst_feature: index of that feature.
        p_value: the smaller one after Holm.
        forgotten: forgotten records used.
        reference: reference records used.
    """

    p_energy: float
    p_feature: float
    worst_feature: int
    p_value: float
    forgotten: int
    reference: int


def _sample(labels: np.ndarray, limit: int, generator: np.random.Generator) -> np.ndarray:
    """Return sorted indices of at most `limit` records, the same share of every class up to rounding."""
    if labels.size <= limit:
        return np.arange(labels.size)
    shuffled = generator.permutation(labels.size)
    # Interleave classes by their rank within the class, so that a prefix keeps the mix.
    position = np.empty(labels.size, dtype=np.float64)
    for klass in np.unique(labels):
        chosen = shuffled[labels[shuffled] == klass]
        position[chosen] = (np.arange(chosen.size) + 0.5) / chosen.size
    return np.sort(np.argsort(position, kind="stable")[:limit])


def exchangeability(
    features: Float[np.ndarray, "record feature"],
    forget: Bool[np.ndarray, "record"],
    labels: Int64[np.ndarray, "record"],
    generator: np.random.Generator,
    *,
    permutations: int = 999,
    limit: int = 2_000,
) -> Exchangeability:
    """Test whether, given the class, being forgotten is independent of the features.

    Args:
        features: finite; any units, since each column is standardised (and clipped at four standard
            deviations, so that a rarely used column does not drown the others).
        forget: the forgotten records.
        labels: the records' classes; a class that is not on both sides takes no part.
        generator: source of randomness.
        permutations: number of permutations, at least 99.
        limit: at most this many records of each side are used.

    Returns:
        Both p-values and their combination.

    Source: Székely and Rizzo, InterStat 5 (2004) (energy distance); Westfall and Young, 1993 (largest
        statistic over features).
    """
    first = np.flatnonzero(forget)
    second = np.flatnonzero(~forget)
    shared = np.intersect1d(labels[first], labels[second])
    first = first[np.isin(labels[first], shared)]
    second = second[np.isin(labels[second], shared)]
    first = first[_sample(labels[first], limit, generator)]
    second = second[_sample(labels[second], limit, generator)]
    chosen = np.concatenate([first, second])
    values = np.asarray(features[chosen], dtype=np.float64)
    deviation = values.std(axis=0)
    varying = np.flatnonzero(deviation > 0.0)
    values = np.clip((values[:, varying] - values[:, varying].mean(axis=0)) / deviation[varying], -CLIP, CLIP)
    marked = forget[chosen]
    energy = np.zeros(permutations + 1)
    shift = np.zeros((permutations + 1, varying.size))
    scale = np.zeros(varying.size)
    for klass in shared:
        rows = np.flatnonzero(labels[chosen] == klass)
        total, count = rows.size, int(marked[rows].sum())
        others = total - count
        if not count or not others:
            continue
        # Row 0 is what was observed, the others are random relabelings of the same size.
        member = np.zeros((permutations + 1, total))
        member[0] = marked[rows]
        places = np.argsort(generator.random((permutations, total)), axis=1)[:, :count]
        np.put_along_axis(member[1:], places, 1.0, axis=1)
        block = values[rows]
        gaps = cdist(block, block)
        inner = ((member @ gaps) * member).sum(axis=1)
        margin = member @ gaps.sum(axis=1)
        outer = gaps.sum() - 2.0 * margin + inner
        cross = margin - inner
        statistic = 2.0 * cross / (count * others) - inner / count**2 - outer / others**2
        energy += statistic * (count * others / total)
        centred = block - block.mean(axis=0)
        shift += member @ centred
        scale += count * others / (total * max(total - 1, 1)) * (centred**2).sum(axis=0)
    moving = scale > 0.0
    largest = np.zeros(permutations + 1)
    worst = 0
    if bool(moving.any()):
        ratio = np.abs(shift[:, moving]) / np.sqrt(scale[moving])
        largest = ratio.max(axis=1)
        worst = int(varying[moving][ratio[0].argmax()])
    # Sums in another order differ in the last bits; a relabeling that ties must count as a tie.
    p_energy = float(np.mean(energy >= energy[0] - 1e-9 * abs(energy[0])))
    p_feature = float(np.mean(largest >= largest[0] * (1.0 - 1e-9)))
    return Exchangeability(
        p_energy=p_energy,
        p_feature=p_feature,
        worst_feature=worst,
        p_value=float(holm(np.array([p_energy, p_feature])).min()),
        forgotten=int(marked.sum()),
        reference=int((~marked).sum()),
    )
