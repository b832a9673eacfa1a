"""Which inputs a certified region holds, and the exact hull of their sketches.

Proves: `Shape.hull` are the least and greatest values that every component of S q takes over the region, attained
(integers; no rounding where `sketch.is_exact` holds for S). Three kinds of region, of one radius each:

- `linf`: every column within `radius` grid steps (images, numeric tables);
- `steps`: numeric columns within `radius` steps, binary and one-hot columns held fixed (tables of both kinds);
- `flips`: at most `radius` of the binary columns and one-hot groups changed, numeric columns held fixed. A group that
  changes holds exactly one 1 afterwards.

Assumes a checked schema and records inside its ranges. Does not choose a radius. Source: SPEC 11.2, 11.6.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int

from protocol.model.schema import NO_GROUP, InputSchema

Kind = Literal["linf", "steps", "flips"]
Points = Int[np.ndarray, "item component"]
_TABLE = 1 << 28
"""Numbers that a table of hulls may hold."""
_WIDE = 1 << 23
"""Numbers of effects held at once."""
_CACHED = 1 << 17
"""Numbers of a block of such a table: what stays in a processor's cache."""
_SPARSE = 4
"""Numbers of a matrix for each column up to which a table of hulls is counted instead of multiplied."""


def _product(values: np.ndarray, matrix: Float32[np.ndarray, "feature component"]) -> Int[np.ndarray, "item component"]:
    # Every partial sum is an integer below 2^24, so float32 products are exact in any order, and fast.
    result: Int[np.ndarray, "item component"] = (values.astype(np.float32) @ matrix).astype(np.int32)
    return result


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A kind of region on an input schema."""

    schema: InputSchema
    kind: Kind

    @cached_property
    def numeric(self) -> Bool[np.ndarray, "feature"]:
        """Columns that move in steps."""
        return np.array([kind == "grid" for kind in self.schema.kind])

    @cached_property
    def _groups(self) -> list[Int[np.ndarray, "member"]]:
        # Binary columns one by one, then one-hot groups: what a flip changes.
        own = [np.array([column]) for column in np.flatnonzero(~self.numeric & (self.schema.group == NO_GROUP))]
        return own + [np.flatnonzero(self.schema.group == g) for g in np.unique(self.schema.group) if g != NO_GROUP]

    @property
    def widest(self) -> int:
        """A radius from which on the region no longer grows."""
        if self.kind == "flips":
            return len(self._groups)
        moving = (self.schema.high - self.schema.low)[self.numeric | (self.kind == "linf")]
        return int(moving.max(initial=0))

    def hull(
        self, matrix: Int[np.ndarray, "component feature"], values: Int[np.ndarray, "item feature"],
        radius: Int[np.ndarray, "item"],
    ) -> tuple[Points, Points]:  # fmt: skip
        """Least and greatest sketches over each record's region.

        Args:
            matrix: the sketch; exact on the schema.
            values: records on the grid.
            radius: of each record's region, at least 0.
        """
        if self.kind == "flips":
            up, down = self.effects(matrix, values, int(radius.max(initial=0)))
            rows = np.arange(len(values))
            middle = _product(values, matrix.T.astype(np.float32))
            taken = np.minimum(radius, up.shape[0] - 1)
            return middle - down[taken, rows], middle + up[taken, rows]
        moving = self.numeric | (self.kind == "linf")
        # 32 bits hold every grid value and radius, and are what this takes its time for.
        spread = radius[:, None].astype(np.int32)
        spread = spread if moving.all() else np.where(moving, spread, np.int32(0))
        low = np.maximum(values - spread, self.schema.low)
        high = np.minimum(values + spread, self.schema.high)
        positive = np.maximum(matrix, 0).T.astype(np.float32)
        if not (matrix < 0).any():
            return _product(low, positive), _product(high, positive)
        negative = np.minimum(matrix, 0).T.astype(np.float32)
        return _product(low, positive) + _product(high, negative), _product(high, positive) + _product(low, negative)

    def effects(
        self, matrix: Int[np.ndarray, "component feature"], values: Int[np.ndarray, "item feature"], most: int
    ) -> tuple[Int[np.ndarray, "flip item component"], Int[np.ndarray, "flip item component"]]:
        """By how much at most 0, 1, ... flips raise and lower each component: sums of the largest effects."""
        count = min(most, len(self._groups))
        up = np.zeros((count + 1, len(values), len(matrix)), dtype=np.int32)
        down = np.zeros_like(up)
        step = max(1, _WIDE // max(1, matrix.size))
        for start in range(0, len(values) if count else 0, step):
            part = slice(start, start + step)
            rises, falls = self._flip_effects(matrix, values[part])
            for effects, total in ((rises, up), (falls, down)):
                best = (
                    -np.sort(-effects, axis=2)[:, :, :count] if count < effects.shape[2] else -np.sort(-effects, axis=2)
                )
                total[1:, part] = np.cumsum(best, axis=2).transpose(2, 0, 1)
        return up, down

    def _flip_effects(
        self, matrix: Int[np.ndarray, "component feature"], values: Int[np.ndarray, "item feature"]
    ) -> tuple[Int[np.ndarray, "item component group"], Int[np.ndarray, "item component group"]]:
        # For every group the most that changing it can add, and take away; 0 is always possible: no change.
        single = np.array(
            [g[0] for g in self._groups if len(g) == 1 and self.schema.group[g[0]] == NO_GROUP], dtype=int
        )
        change = matrix[None, :, single].astype(np.int32) * (1 - 2 * values[:, None, single]).astype(np.int32)
        rises, falls = [np.maximum(change, 0)], [np.maximum(-change, 0)]
        for group in self._groups[len(single) :]:
            now = values[:, group] @ matrix[:, group].T
            rises.append(np.maximum(matrix[:, group].max(axis=1) - now, 0).astype(np.int32)[:, :, None])
            falls.append(np.maximum(now - matrix[:, group].min(axis=1), 0).astype(np.int32)[:, :, None])
        return np.concatenate(rises, axis=2), np.concatenate(falls, axis=2)


class Cores:
    """Hulls of some records' regions under one sketch, for any radius up to a ceiling; tabulated where it fits."""

    def __init__(
        self, shape: Shape, matrix: Int[np.ndarray, "component feature"], values: Int[np.ndarray, "item feature"],
        ceiling: int,
    ) -> None:  # fmt: skip
        self._shape, self._matrix, self._values = shape, matrix, values
        self.ceiling = min(ceiling, shape.widest)
        self._table: tuple[np.ndarray, np.ndarray] | None = None
        if 2 * (self.ceiling + 1) * len(values) * len(matrix) <= _TABLE:
            self._table = self._tabulate()

    def _tabulate(self) -> tuple[np.ndarray, np.ndarray]:
        if self._shape.kind == "flips":
            up, down = self._shape.effects(self._matrix, self._values, self.ceiling)
            middle = _product(self._values, self._matrix.T.astype(np.float32))
            return (middle[None] - down).swapaxes(0, 1), (middle[None] + up).swapaxes(0, 1)
        if np.count_nonzero(self._matrix) <= _SPARSE * self._shape.schema.features:
            return self._counted()
        radii = [np.full(len(self._values), radius) for radius in range(self.ceiling + 1)]
        hulls = [self._shape.hull(self._matrix, self._values, radius) for radius in radii]
        return np.stack([low for low, _ in hulls], axis=1), np.stack([high for _, high in hulls], axis=1)

    def _counted(self) -> tuple[np.ndarray, np.ndarray]:
        # A matrix of few numbers (sums over blocks): how far a sum can move depends on how much room its columns have,
        # and how many have how much is counted once.
        schema, moving = self._shape.schema, self._shape.numeric | (self._shape.kind == "linf")
        component, feature = np.nonzero(self._matrix)
        weight = self._matrix[component, feature]
        plain = bool((np.abs(weight) == 1).all())
        shape = (self.ceiling + 1, len(self._matrix))
        tables = tuple(np.empty((len(self._values), *shape), dtype=np.int32) for _ in range(2))
        # A sum over columns of min(radius, room), for every radius: one small product, exact below 2^24 in float32.
        reaches = int(np.abs(self._matrix.astype(np.int64)).sum(axis=1).max(initial=0)) * self.ceiling
        kind = np.float32 if reaches < 1 << 24 else np.float64
        shorter = np.minimum(*np.indices((shape[0], shape[0]))).astype(kind)
        step = max(1, _CACHED // (shape[0] * shape[1]))
        for start in range(0, len(self._values), step):
            part = self._values[start : start + step]
            middle = _product(part, self._matrix.T.astype(np.float32))[:, None]
            below = np.where(moving, np.minimum(part - schema.low, self.ceiling), 0)[:, feature]
            above = np.where(moving, np.minimum(schema.high - part, self.ceiling), 0)[:, feature]
            for table, sign in zip(tables, (-1, 1), strict=True):
                room = np.where(weight * sign > 0, above, below)
                place = (np.arange(len(part))[:, None] * shape[0] + room) * shape[1] + component
                weights = None if plain else np.broadcast_to(np.abs(weight), place.shape).ravel()
                counts = np.bincount(place.ravel(), weights, len(part) * shape[0] * shape[1])
                moved = shorter @ counts.reshape(len(part), *shape).astype(kind)
                table[start : start + step] = middle
                table[start : start + step] += (sign * moved).astype(np.int32)
        return tables[0], tables[1]

    def at(self, item: Int[np.ndarray, "place"], radius: Int[np.ndarray, "place"]) -> tuple[Points, Points]:
        """Hulls of the given items at the given radii."""
        taken = np.minimum(radius, self.ceiling)
        if self._table is None:
            return self._shape.hull(self._matrix, self._values[item], taken)
        return self._table[0][item, taken], self._table[1][item, taken]
