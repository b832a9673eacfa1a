"""Shift and affine heads: the least change of the logits that makes a class win on a whole region.

Proves: the shift returned has the smallest possible greatest entry, and the dual values returned with it show
that nothing smaller does (weak duality, checked in exact arithmetic by whoever likes). Assumes bounds on the base's
logit differences over the region, which the caller has to get soundly. Source: PRUNE (arXiv 2505.06520), confusion
patch, there by linear programming; here in closed form.

The problem. For a region R and a class t, minimise the largest entry of `|h(x)|` over R, h(x) = C x + d, subject to
`f_t + h_t - f_j - h_j >= margin` on R for every j != t. With `need_j = margin - min_R (f_t - f_j)`: any feasible h has
`2 max|h| >= h_t(x) - h_j(x) >= need_j` at the point x where the minimum is attained, so `max|h| >= max_j need_j / 2`;
and C = 0, d_t = need / 2, d_j = -need / 2 attains it. The dual solution is 1/2 on t and on the class j that needs most.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastShift:
    """A shift and the proof that it is minimal.

    Args:
        shift: what is added to the logits, float32, rounded away from zero.
        bound: no patch of this form changes every logit by less than this.
        rival: the class whose constraint shows it; -1 if nothing is needed.
    """

    shift: Float32[np.ndarray, "class"]
    bound: float
    rival: int


def least_shift(differences: Float[np.ndarray, "class"], klass: int, margin: float) -> LeastShift:
    """The shift with the smallest greatest entry that makes `klass` lead by `margin`.

    Args:
        differences: lower bounds of `f_klass - f_j` over the region, for every class j (own entry ignored).
        klass: the class that is to win.
        margin: by how much, in logits.
    """
    need = margin - differences.astype(np.float64)
    need[klass] = -np.inf
    rival = int(need.argmax())
    bound = max(0.0, float(need[rival]) / 2)
    shift = np.full(len(need), -bound)
    shift[klass] = bound
    # Away from zero: what is stored must still suffice. The rounding of the sum is the caller's, in the margin.
    rounded = shift.astype(np.float32)
    short = np.abs(rounded.astype(np.float64)) < np.abs(shift)
    rounded[short] = np.nextafter(rounded[short], np.copysign(np.float32(np.inf), rounded[short]))
    return LeastShift(shift=rounded, bound=bound, rival=rival if bound > 0 else -1)


def support_gain(largest: float, edge: float) -> float:
    """The K of the published additive gate: how steep it has to be so that the patch is off outside.

    `relu(p + K (g - 1)) - relu(-p + K (g - 1))` is 0 where `g <= 1 - edge` iff `K >= max|p| / edge`; the closed form
    of the bound that the papers search for. In float32 it is not exact for any K; selection is, which is why patches
    here select.

    Args:
        largest: greatest absolute value of the patch's output p over the inputs that matter.
        edge: how far the gate's value is below 1 outside, at least.
    """
    return largest / edge if edge > 0 else float("inf")
