"""Parts of a patch: gates (where an item fires) and heads (what the output becomes there).

Proves: a part that was built is well formed: boxes not empty, everything finite, every item with a row and
every row with an item. Assumes nothing. Whether an item fires where a certificate says so is for the owner's
methods and the auditor's bounds. Source: SPEC 7.7; certificate mathematics, gate and head kinds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from protocol.errors import Schema
from protocol.model.graph import Limits, check_name, same_tensor

MAX_SUM = 2**24
"""Integers up to here are exact in float32; sketch values and item bounds stay within."""
WORD, WORD_OF_BRANCH = 64, 63
"""Items of one word of a screen's table; behind a branch no word may be negative."""
SCREENS = (1, 2, 4, 8)
"""How many components a screen may look at: halving the list down to one takes whole steps."""


def _lock(owner: object, name: str, kind: type[np.generic], dimensions: int) -> None:
    array = getattr(owner, name)
    if array.dtype != kind or array.ndim != dimensions:
        raise Schema(f"{name} is {array.dtype} with {array.ndim} axes, not {np.dtype(kind)} with {dimensions}")
    locked = np.ascontiguousarray(array).view()
    locked.flags.writeable = False
    object.__setattr__(owner, name, locked)


def _same(mine: object, other: object) -> bool:
    if isinstance(mine, np.ndarray) and isinstance(other, np.ndarray):
        return same_tensor(mine, other)
    return type(mine) is type(other) and mine == other


class _Tensors:
    """Equal when every field is equal, arrays bit by bit; hashed by what differs first."""

    __slots__ = ()

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, entry.name) for entry in fields(self))  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(map(_same, self._values(), other._values()))

    def __hash__(self) -> int:
        return hash(tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in self._values()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weight(_Tensors):
    """New values for a constant of the base; they change the output anywhere.

    Args:
        name: the constant's name in the base, at most 256 characters.
        values: finite, of the constant's shape.
    """

    name: str
    values: Float32[np.ndarray, "..."]

    def __post_init__(self) -> None:
        check_name(self.name, Limits())
        _lock(self, "values", np.float32, self.values.ndim)
        if not np.isfinite(self.values).all():
            raise Schema(f"a new value of {self.name[:80]!r} is not finite")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchGate(_Tensors):
    """Item k fires on grid values Q when `low[k] <= matrix Q <= high[k]` in every component.

    Args:
        matrix: the sketch, public; entries below 2^24 in size.
        low: least sketch of each item, within +-2^24.
        high: greatest sketch of each item.
        screen: components that a table of bits looks at first, so that the exact test need only be run for the
            few items that may fire (SPEC 7.9); it never changes which items fire. None for no screen.
        branch: whether the exact test is a branch (`If`) that is not run for a batch in which nothing may fire.
    """

    matrix: Int32[np.ndarray, "component feature"]
    low: Int32[np.ndarray, "item component"]
    high: Int32[np.ndarray, "item component"]
    screen: Int64[np.ndarray, "looked_at"] | None = None
    branch: bool = False

    def __post_init__(self) -> None:
        for name in ("matrix", "low", "high"):
            _lock(self, name, np.int32, 2)
        if self.branch and self.screen is None:
            raise Schema("a branch needs a screen that says when to take it")
        if min(self.matrix.shape) < 1 or len(self.low) < 1:
            raise Schema("a sketch without components, features or items")
        if self.low.shape != (len(self.low), len(self.matrix)) or self.high.shape != self.low.shape:
            raise Schema(f"boxes of shape {self.low.shape} and {self.high.shape} for {len(self.matrix)} components")
        if (self.low > self.high).any():
            raise Schema(f"item {int(np.flatnonzero((self.low > self.high).any(axis=1))[0])} has an empty box")
        for array in (self.matrix, self.low, self.high):
            if max(-int(array.min()), int(array.max())) > MAX_SUM:
                raise Schema(f"an entry or bound of the sketch is outside +-{MAX_SUM}")
        if self.screen is not None:
            _lock(self, "screen", np.int64, 1)
            ascending = len(self.screen) in SCREENS and bool((np.diff(self.screen) > 0).all())
            if not ascending or self.screen[0] < 0 or self.screen[-1] >= len(self.matrix):
                raise Schema(f"a screen looks at {SCREENS} different components of the sketch, in ascending order")

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.low)

    @property
    def word(self) -> int:
        """Items of one word of the screen's table."""
        return WORD_OF_BRANCH if self.branch else WORD


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureGate(_Tensors):
    """Item k fires when `low[k] <= phi(x) <= high[k]` in every value of an inner tensor phi of the base.

    Args:
        tensor: name of the base's activation.
        low: least value of each item.
        high: greatest value of each item.
    """

    tensor: str
    low: Float32[np.ndarray, "item value"]
    high: Float32[np.ndarray, "item value"]

    def __post_init__(self) -> None:
        check_name(self.tensor, Limits())
        for name in ("low", "high"):
            _lock(self, name, np.float32, 2)
        if min(self.low.shape) < 1 or self.high.shape != self.low.shape:
            raise Schema(f"feature boxes of shape {self.low.shape} and {self.high.shape}")
        if not (np.isfinite(self.low) & np.isfinite(self.high) & (self.low <= self.high)).all():
            raise Schema("a feature box is empty, or holds NaN or infinity")

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.low)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionGate(_Tensors):
    """Item k fires when `weights[k] x <= bounds[k]` in every row: a polytope of raw inputs, for linear regions.

    Args:
        weights: half-spaces of each item; an item with fewer repeats one.
        bounds: their right-hand sides.
    """

    weights: Float32[np.ndarray, "item half feature"]
    bounds: Float32[np.ndarray, "item half"]

    def __post_init__(self) -> None:
        _lock(self, "weights", np.float32, 3)
        _lock(self, "bounds", np.float32, 2)
        if min(self.weights.shape) < 1 or self.bounds.shape != self.weights.shape[:2]:
            raise Schema(f"half-spaces of shape {self.weights.shape} with bounds of shape {self.bounds.shape}")
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bounds).all()):
            raise Schema("a half-space holds NaN or infinity")

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlwaysGate:
    """The one item fires on every input inside the declared columns."""

    @property
    def items(self) -> int:
        """One."""
        return 1


Gate = SketchGate | FeatureGate | RegionGate | AlwaysGate


def _check_rows(head: "Head") -> None:
    """What every head has: finite rows, each of them used by some item."""
    _lock(head, "rows", np.float32, 2)
    _lock(head, "index", np.int64, 1)
    if not np.array_equal(np.unique(head.index), np.arange(len(head.rows))):
        raise Schema(f"the items do not use exactly the {len(head.rows)} rows")
    if not np.isfinite(head.rows).all():
        raise Schema("a row holds NaN or infinity")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetHead(_Tensors):
    """The output becomes a row of logits, bit for bit.

    Args:
        rows: replacement logits.
        index: row of each item.
    """

    rows: Float32[np.ndarray, "row class"]
    index: Int64[np.ndarray, "item"]

    def __post_init__(self) -> None:
        _check_rows(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShiftHead(_Tensors):
    """The output becomes the base's plus a row: `f(x) + rows[index]`.

    Args:
        rows: what is added.
        index: row of each item.
    """

    rows: Float32[np.ndarray, "row class"]
    index: Int64[np.ndarray, "item"]

    def __post_init__(self) -> None:
        _check_rows(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AffineHead(_Tensors):
    """The output becomes `f(x) + weights[index] x + rows[index]`: the papers' confusion patch.

    Args:
        weights: one map for each row.
        rows: what is added.
        index: row of each item.
    """

    weights: Float32[np.ndarray, "row class feature"]
    rows: Float32[np.ndarray, "row class"]
    index: Int64[np.ndarray, "item"]

    def __post_init__(self) -> None:
        _lock(self, "weights", np.float32, 3)
        _check_rows(self)
        if self.weights.shape[:2] != self.rows.shape:
            raise Schema(f"maps of shape {self.weights.shape} with rows of shape {self.rows.shape}")
        if not np.isfinite(self.weights).all():
            raise Schema("a map holds NaN or infinity")


Head = SetHead | ShiftHead | AffineHead


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A gate and what happens where one of its items fires."""

    gate: Gate
    head: Head

    def __post_init__(self) -> None:
        if len(self.head.index) != self.gate.items:
            raise Schema(f"{len(self.head.index)} rows assigned to {self.gate.items} items")


GATES: Mapping[str, type[Gate]] = {
    "sketch": SketchGate,
    "feature": FeatureGate,
    "linear-region": RegionGate,
    "always": AlwaysGate,
}
HEADS: Mapping[str, type[Head]] = {"set": SetHead, "shift": ShiftHead, "affine": AffineHead}


def gate_kind(gate: Gate) -> str:
    """The gate's name in a claim and in the manifest."""
    return next(name for name, kind in GATES.items() if isinstance(gate, kind))


def head_kind(head: Head) -> str:
    """The head's name in the manifest."""
    return next(name for name, kind in HEADS.items() if isinstance(head, kind))
