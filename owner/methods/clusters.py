"""k-means on records as the model reads them, and a real record for each cluster: the one nearest to its centre.

Proves nothing: which records represent others decides how many are reached in a round, not what is claimed of them.
Lloyd's iterations from centres drawn as k-means++ does, the best of several starts. Source: PRUNE (arXiv 2505.06520),
representatives; Arthur and Vassilvitskii 2007.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_ITERATIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """A partition.

    Args:
        of: each record's cluster, numbered from 0 without gaps.
        representative: of each cluster, a record of its own.
        spread: sum of squared distances to the centres.
    """

    of: Int[np.ndarray, "record"]
    representative: Int[np.ndarray, "cluster"]
    spread: float


def _squared(points: np.ndarray, centres: np.ndarray) -> Float[np.ndarray, "record cluster"]:
    cross = points @ centres.T
    found: np.ndarray = (points**2).sum(axis=1)[:, None] - 2 * cross + (centres**2).sum(axis=1)[None]
    np.maximum(found, 0.0, out=found)
    return found


def _first(points: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    chosen = [int(generator.integers(len(points)))]
    nearest = _squared(points, points[chosen])[:, 0]
    while len(chosen) < count:
        total = float(nearest.sum())
        # Only copies are left of what was drawn already: more centres would serve nobody.
        if total <= 0:
            break
        chosen.append(int(generator.choice(len(points), p=nearest / total)))
        nearest = np.minimum(nearest, _squared(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def clusters(
    points: Float[np.ndarray, "record feature"], count: int, generator: np.random.Generator, *, starts: int = 10
) -> Clusters:
    """Partition records.

    Args:
        points: at least one.
        count: of clusters; fewer where there are fewer different records.
        generator: draws the centres.
        starts: the best of so many.
    """
    points = points.astype(np.float64)
    best: Clusters | None = None
    for _ in range(starts):
        centres = _first(points, min(count, len(points)), generator)
        of = np.full(len(points), -1)
        for _ in range(_ITERATIONS):
            now = _squared(points, centres).argmin(axis=1)
            if (now == of).all():
                break
            of = now
            # A centre that nobody is nearest to stays where it is.
            for number in np.unique(of).tolist():
                centres[number] = points[of == number].mean(axis=0)
        away = _squared(points, centres)
        spread = float(away[np.arange(len(points)), of].sum())
        if best is None or spread < best.spread:
            used, numbered = np.unique(of, return_inverse=True)
            nearest = [np.flatnonzero(of == n)[away[of == n, n].argmin()] for n in used.tolist()]
            best = Clusters(of=numbered.ravel(), representative=np.array(nearest, dtype=np.int64), spread=spread)
    assert best is not None
    return best
