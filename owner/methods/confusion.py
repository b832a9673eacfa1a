"""The confusion patch of a representative: the least affine change that makes a wrong class lead on its linear region.

Proves, in real arithmetic, of every point of the polytope: the base's affine map there, with the change, has the class
ahead of each other one by the margin; and no affine change whose largest entry is smaller does that (up to what lies
between the two values of a linear program, `size` and `least`). Says nothing about other regions: elsewhere the
change is what it is, and `prune_paper` looks whether it suffices.

The papers solve for the least change with a linear program over change and multipliers. Its value has a closed form
(`heads`): half of the largest need, and the need of each class is a linear program over the region. The change that
is constant attains it; the affine one attains it, too, and gives the rival that needs most, at each input, no more than
it needs there. Source: PRUNE (arXiv 2505.06520), REASSURE (arXiv 2110.07682), section 3.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from owner.gates.linear_region import LinearRegion
from owner.gates.polytope import Polytope, least
from owner.heads import least_shift

_ROUNDED = 2.0**-12
"""Of the largest number that takes part: what float32 maps may lose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """An affine change `weights x + row` of the logits.

    Args:
        weights: its slopes; zero for a change that is constant.
        row: its constants.
        size: its largest entry over the polytope is at most this, in logits.
        least: no change has a smaller one.
    """

    weights: Float32[np.ndarray, "class feature"]
    row: Float32[np.ndarray, "class"]
    size: float
    least: float


def confusion(region: LinearRegion, polytope: Polytope, klass: int, *, margin: float, affine: bool) -> Confusion:
    """The least change.

    Args:
        region: of the representative, in which the base is one affine map.
        polytope: where the gate fires, the region with its room for rounding.
        klass: that is to lead.
        margin: by how much, in logits.
        affine: change each input by what it needs; else all alike.
    """
    slopes = region.jacobian[klass] - region.jacobian
    offsets = region.constant[klass] - region.constant
    others = np.flatnonzero(np.arange(len(offsets)) != klass)
    found = least(polytope, slopes[others], offsets[others])
    bound, attained = np.zeros(len(offsets)), np.full(len(offsets), np.inf)
    bound[others], attained[others] = found.bound, found.attained
    # The stored numbers are float32, and inputs in the room around the region see another map by a rounding.
    margin += _ROUNDED * (1.0 + float(np.abs(bound).max()))
    shift = least_shift(bound, klass, margin)
    weights = np.zeros((len(offsets), slopes.shape[1]), np.float32)
    lower = max(0.0, (margin - float(attained[others].min())) / 2)
    plain = Confusion(weights=weights, row=shift.shift, size=shift.bound, least=min(lower, shift.bound))
    if not affine or shift.rival < 0:
        return plain
    rival, size = shift.rival, shift.bound
    rest = others[others != rival]
    # Fully turned, the class gains (margin - lead over the rival) / 2 at each input. What share of that can be had:
    # the gain must nowhere fall below -size, and nobody else may come nearer than the margin.
    most = -float(least(polytope, -slopes[[rival]], -offsets[[rival]]).bound[0])
    share = min(1.0, 2 * size / max(size + (most - margin) / 2, 1e-300))
    if rest.size:
        turned = slopes[rest] - slopes[rival] / 2
        at = offsets[rest] + (margin - offsets[rival]) / 2 + size
        full, none = least(polytope, turned, at).bound, bound[rest] + 2 * size
        short = full < margin
        share = min([share, *((none - margin)[short] / (none - full)[short]).tolist()])
    if share <= 0:
        return plain
    row = shift.shift.copy()
    weights[klass] = -share * slopes[rival] / 2
    weights[rival] = -weights[klass]
    row[klass] = (1 - share) * size + share * (margin - offsets[rival]) / 2
    row[rival] = -row[klass]
    return Confusion(weights=weights, row=row, size=size * (1 + _ROUNDED), least=plain.least)
