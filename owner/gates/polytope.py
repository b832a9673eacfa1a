"""Least values of affine functions over a polytope of inputs, by linear programs, with a proof for each.

Proves, up to the rounding of float64 sums: no point of the polytope has a smaller value than `bound`, whatever the
solver did (weak duality: any multipliers that are not negative prove something, those of the optimum the most). How
much is lost by that, `attained` says: a value that the solver found at a point. Does not say that the polytope holds
any grid point. Source: REASSURE (arXiv 2110.07682) and PRUNE (arXiv 2505.06520), whose patches are made with such
programs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog


@dataclass(frozen=True, slots=True, kw_only=True)
class Polytope:
    """Inputs inside a box that satisfy `weights x <= bounds`.

    Args:
        weights: a row for each half-space.
        bounds: their right-hand sides.
        low: least inputs.
        high: greatest.
    """

    weights: Float[np.ndarray, "half feature"]
    bounds: Float[np.ndarray, "half"]
    low: Float[np.ndarray, "feature"]
    high: Float[np.ndarray, "feature"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """Of each function: what it surely does not fall below, and the least value that was seen.

    Where the solver gave up `attained` is infinite, and the bound is the box's.
    """

    bound: Float[np.ndarray, "row"]
    attained: Float[np.ndarray, "row"]


def least(polytope: Polytope, slopes: Float[np.ndarray, "row feature"], offsets: Float[np.ndarray, "row"]) -> Least:
    """The least values of `slopes x + offsets`.

    Args:
        polytope: where.
        slopes: of each function.
        offsets: of each.
    """
    found = [_least(polytope, slope) for slope in slopes.astype(np.float64)]
    bound, attained = np.array(found, dtype=np.float64).reshape(len(slopes), 2).T
    return Least(bound=bound + offsets, attained=attained + offsets)


def _least(polytope: Polytope, slope: Float[np.ndarray, "feature"]) -> tuple[float, float]:
    weights, bounds = polytope.weights.astype(np.float64), polytope.bounds.astype(np.float64)
    multipliers, attained = np.zeros(len(bounds)), np.inf
    if len(bounds):
        ends = list(zip(polytope.low.tolist(), polytope.high.tolist(), strict=True))
        solved = linprog(slope, A_ub=weights, b_ub=bounds, bounds=ends, method="highs-ds")
        if solved.status == 0 and solved.fun is not None:
            multipliers, attained = np.maximum(-solved.ineqlin.marginals, 0.0), float(solved.fun)
    left = slope + multipliers @ weights
    bound = float(np.minimum(left * polytope.low, left * polytope.high).sum() - multipliers @ bounds)
    return bound, attained if len(bounds) else bound
