"""How near added changes are to the least ones that do what is claimed: duals, evaluated and never believed.

Proves, for an item of a `shift` or `affine` head and a claim on it that class t leads by m on a region R: every map
h(x) = C x + d that makes t lead there has `N(h) >= (m - u) / 2`, N(h) being the largest |h_i(x)| over R and all
classes, and u a proven upper bound of the base's lead of t over the dual's class at the dual's point of R, in every
execution. The head's own N is bounded from above; the difference is the gap. Rounding of one sum is taken off.
A dual that proves nothing refutes nothing: then nothing is said. Source: SPEC 11.12; weak duality of linear programs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from auditor import rows
from auditor.cores import Cores
from auditor.propagation import bound_plan, make_plan
from auditor.propagation.rounding import TINY, UNIT
from protocol.claims import Argmax, Redirection
from protocol.duals import Dual
from protocol.model.graph import Graph
from protocol.model.parts import AffineHead, SetHead
from protocol.model.patch import Patch
from protocol.model.schema import InputSchema

_MOST = 4096
"""Duals that are evaluated."""
_SUM = 2.0**-22
_OUT = 1 + 2.0**-40


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One item's change: its size is at most `size`, and no smaller one than `least` does what is claimed."""

    item: int
    size: float
    least: float

    @property
    def gap(self) -> float:
        """By how much it may be larger than the least."""
        return max(0.0, self.size - self.least)


def _size(patch: Patch, item: int, core: Cores) -> float:
    place = patch.place(item)
    head = patch.parts[place.part].head
    row = head.rows[head.index[place.item]].astype(np.float64)
    if not isinstance(head, AffineHead):
        return float(np.abs(row).max())
    low, high = (end.reshape(1, -1).astype(np.float64) for end in core.boxes())
    weights = head.weights[head.index[place.item]].astype(np.float64)
    middle, spread = (low[0] + high[0]) / 2, (high[0] - low[0]) / 2
    return float((np.abs(weights @ middle + row) + np.abs(weights) @ spread).max()) * _OUT


def changes(
    patch: Patch, base: Graph, cores: Cores, claims: Sequence[Redirection], duals: Sequence[Dual],
    *, proven: Bool[np.ndarray, " claim"],
) -> tuple[Change, ...]:  # fmt: skip
    """Evaluate duals of items with a proven claim; those that fit no claim are passed over.

    Args:
        patch: that fits base and schema.
        base: the committed base.
        cores: the claims' regions.
        claims: whose items the patch has.
        duals: of the bundle.
        proven: which claims are.
    """
    by_item: dict[int, list[int]] = {}
    for number in np.flatnonzero(proven).tolist():
        claim = claims[number]
        assert claim.item is not None
        if isinstance(claim.property, Argmax) and claim.property.klass < base.classes:
            by_item.setdefault(claim.item, []).append(number)
    fitting: list[tuple[Dual, int]] = []
    for dual in duals[:_MOST]:
        about = _claim(patch, cores, claims, dual, by_item)
        if about is not None:
            fitting.append((dual, about))
    if not fitting:
        return ()
    inputs = np.stack([_input(cores.schema, dual) for dual, _ in fitting]).reshape(-1, *base.input_shape)
    objective = np.zeros((len(fitting), 1, base.classes))
    leading = np.arange(len(fitting))
    wanted = [claims[number].property for _, number in fitting]
    objective[leading, 0, [one.klass for one in wanted if isinstance(one, Argmax)]] = 1.0
    objective[leading, 0, [dual.rival for dual, _ in fitting]] -= 1.0
    found = bound_plan(make_plan(base), inputs, inputs, objective=objective, method="crown")
    result = []
    for (dual, number), top, one in zip(fitting, found.upper[:, 0].tolist(), wanted, strict=True):
        assert isinstance(one, Argmax)
        if not np.isfinite(top):
            continue
        size = _size(patch, dual.item, cores.only(np.array([number])))
        margin = float(rows.exact(one.margin))
        least = (margin - top) / 2 - _SUM * (abs(top) + margin + size + 1)
        result.append(Change(item=dual.item, size=size, least=max(0.0, least)))
    return tuple(result)


def _claim(
    patch: Patch, cores: Cores, claims: Sequence[Redirection], dual: Dual, by_item: Mapping[int, list[int]]
) -> int | None:
    """The claim in whose region the dual's point lies, if the dual is about it."""
    if dual.item >= patch.items or len(dual.point) != patch.features or dual.rival >= patch.classes:
        return None
    if isinstance(patch.parts[patch.place(dual.item).part].head, SetHead):
        return None
    schema = cores.schema
    offset, scale = schema.offset.astype(np.float64), schema.scale.astype(np.float64)
    at = _input(schema, dual).astype(np.float64) * scale + offset
    # What the quantiser's rounding may move, in any execution, and this sum in float64.
    lost = 5.5 * UNIT * (np.abs(at) + 1 + np.abs(offset)) + 9 * TINY * (1 + np.abs(scale))
    for number in by_item.get(dual.item, []):
        wanted = claims[number].property
        assert isinstance(wanted, Argmax)
        # Columns that flip are not looked at: the point has the record's own values there.
        low = np.maximum(cores.centre[number] - cores.steps[number], schema.low) - 0.5 + lost
        high = np.minimum(cores.centre[number] + cores.steps[number], schema.high) + 0.5 - lost
        if ((at >= low) & (at <= high)).all() and wanted.klass != dual.rival:
            return number
    return None


def _input(schema: InputSchema, dual: Dual) -> Float32[np.ndarray, " feature"]:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        exact = (dual.array() - schema.offset.astype(np.float64)) / schema.scale.astype(np.float64)
        found: Float32[np.ndarray, " feature"] = exact.astype(np.float32)
    return found


def told(found: Sequence[Change], items: int) -> dict[str, object]:
    """What a report says of them, in numbers.

    Args:
        found: changes with a dual that proves something.
        items: how many added changes carry a proven claim.
    """
    if not found:
        return {"items": items, "proven_by_dual": 0}
    gaps, sizes = np.array([one.gap for one in found]), np.array([one.size for one in found])
    return {
        "items": items,
        "proven_by_dual": len(found),
        "size_median": float(np.median(sizes)),
        "gap_median": float(np.median(gaps)),
        "gap_largest": float(gaps.max()),
    }


def sentence(found: Sequence[Change], items: int) -> str:
    """The same in words, to follow a summary."""
    if not found:
        return f" Nothing shows that the {items} added changes are the least ones."
    gaps, sizes = [one.gap for one in found], [one.size for one in found]
    some = "" if len(found) == items else f" {len(found)} of {items}"
    return (
        f" The added changes{some} are minimal: proven by dual, gap {np.median(gaps):.3g} of {np.median(sizes):.3g} "
        f"logits (median; largest gap {max(gaps):.3g})."
    )
