"""The declared input grid: which numbers the model's inputs may be, and how a float becomes one of them.

Proves: an `InputSchema` is well formed; its arithmetic is float32 multiplication, float32 addition and
rounding half to even, as the nodes of the composed file do it, so `quantise` and the file agree bit for
bit. Assumes nothing about the bytes. Does not say where the data came from, nor that the grid is fine
enough to be of use; `check` says whether every grid point comes back to itself. Source: SPEC 7.6.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Num, Shaped

from protocol.canonical import Fields, parse_json, to_bytes
from protocol.encoding import format_float32, parse_float32
from protocol.errors import NonCanonical, Schema
from protocol.model.graph import same_tensor

VERSION = "prune-audit/input-schema/v1"
MAX_GRID = 2**22
"""Grid values stay below this, so that they and the halves between them are exact in float32."""
MAX_FEATURES = 1 << 20
MAX_BYTES = 64 << 20
KINDS = ("grid", "binary", "onehot")
LAYOUTS = ("as-is", "nhwc-to-nchw")
NO_GROUP = -1
_RANK = 7
_WHOLE_RANGE = 4096
Layout = Literal["as-is", "nhwc-to-nchw"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputSchema:
    """One column per input value, in the order of the model's flattened input.

    Args:
        shape: the model's input without the batch.
        scale: grid steps per unit, not zero.
        offset: grid value of 0.0.
        low: least grid value.
        high: greatest grid value.
        kind: per column "grid", "binary" (0 or 1) or "onehot" (0 or 1, one per group).
        group: number of the column's one-hot group, from 0; -1 for other columns.
        names: one per column, or none at all; for people only.
        layout: how raw records are brought into the model's shape; see `arrange`.
    """

    shape: tuple[int, ...]
    scale: Float32[np.ndarray, "feature"]
    offset: Float32[np.ndarray, "feature"]
    low: Int64[np.ndarray, "feature"]
    high: Int64[np.ndarray, "feature"]
    kind: tuple[str, ...]
    group: Int64[np.ndarray, "feature"]
    names: tuple[str, ...] = ()
    layout: Layout = "as-is"

    def __post_init__(self) -> None:
        if not 1 <= len(self.shape) <= _RANK or min(self.shape) < 1 or self.features > MAX_FEATURES:
            raise Schema(f"the shape {self.shape[:8]} is not static, or has over {MAX_FEATURES} values")
        columns = {"scale": np.float32, "offset": np.float32, "low": np.int64, "high": np.int64, "group": np.int64}
        for name, kind in columns.items():
            array = getattr(self, name)
            if array.dtype != kind or array.shape != (self.features,):
                raise Schema(f"{name} is not {self.features} values of type {np.dtype(kind)}")
            # A zero has one spelling in the file, so -0.0 becomes 0.0; sums with it are the same numbers.
            locked = np.ascontiguousarray(array + array.dtype.type(0))
            locked.flags.writeable = False
            object.__setattr__(self, name, locked)
        self._check_columns()

    def _check_columns(self) -> None:
        if not np.isfinite(self.scale).all() or not np.isfinite(self.offset).all() or (self.scale == 0).any():
            raise Schema("a scale or offset is NaN or infinite, or a scale is 0")
        if (self.low > self.high).any() or max(-int(self.low.min()), int(self.high.max())) > MAX_GRID:
            raise Schema(f"a column's range is empty or reaches beyond +-{MAX_GRID}")
        if len(self.kind) != self.features or not set(self.kind) <= set(KINDS):
            raise Schema(f"not one kind per column out of {', '.join(KINDS)}")
        kinds = np.array(self.kind)
        if ((self.low[kinds != "grid"] != 0) | (self.high[kinds != "grid"] != 1)).any():
            raise Schema("a binary or one-hot column whose range is not 0..1")
        grouped = self.group[kinds == "onehot"]
        if (self.group[kinds != "onehot"] != NO_GROUP).any() or (grouped < 0).any() or (grouped >= MAX_FEATURES).any():
            raise Schema("one-hot columns have a group from 0 on, other columns have none (-1)")
        if self.names and len(self.names) != self.features:
            raise Schema(f"{len(self.names)} names for {self.features} columns")
        if any(not 0 < len(name) <= 256 or not name.isprintable() for name in self.names):
            raise Schema("a column's name is empty, over 256 characters, or not printable")
        if self.layout not in LAYOUTS or (self.layout != "as-is" and len(self.shape) != 3):
            raise Schema(f"the layout {self.layout[:40]!r} is not known, or not one for {len(self.shape)} axes")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, InputSchema):
            return NotImplemented
        mine = (self.shape, self.kind, self.names, self.layout)
        return mine == (other.shape, other.kind, other.names, other.layout) and all(
            same_tensor(getattr(self, name), getattr(other, name))
            for name in ("scale", "offset", "low", "high", "group")
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.layout, self.scale.tobytes(), self.high.tobytes()))

    @property
    def features(self) -> int:
        """Number of columns."""
        return math.prod(self.shape)

    @classmethod
    def uniform(
        cls,
        shape: tuple[int, ...],
        *,
        kind: str = "grid",
        scale: float,
        offset: float = 0.0,
        low: int,
        high: int,
        names: tuple[str, ...] = (),
        layout: Layout = "as-is",
    ) -> "InputSchema":
        """A schema whose columns are all alike, as for images.

        Raises:
            Schema: the columns make no sense.
        """
        count = math.prod(shape)
        return cls.from_columns(
            shape,
            kind=(kind,) * count,
            scale=np.full(count, scale),
            offset=np.full(count, offset),
            low=np.full(count, low),
            high=np.full(count, high),
            names=names,
            layout=layout,
        )

    @classmethod
    def from_columns(
        cls,
        shape: tuple[int, ...],
        *,
        scale: Num[np.ndarray, "feature"],
        offset: Num[np.ndarray, "feature"],
        low: Num[np.ndarray, "feature"],
        high: Num[np.ndarray, "feature"],
        kind: tuple[str, ...] | None = None,
        group: Num[np.ndarray, "feature"] | None = None,
        names: tuple[str, ...] = (),
        layout: Layout = "as-is",
    ) -> "InputSchema":
        """A schema from one array per property; scales and offsets are rounded to float32.

        Args:
            shape: the model's input without the batch.
            scale: see `InputSchema`.
            offset: likewise.
            low: likewise.
            high: likewise.
            kind: all "grid" if None.
            group: no groups if None.
            names: likewise.
            layout: likewise.

        Raises:
            Schema: the columns make no sense.
        """
        count = math.prod(shape)
        with np.errstate(over="ignore"):
            return cls(
                shape=tuple(shape),
                scale=np.asarray(scale).astype(np.float32),
                offset=np.asarray(offset).astype(np.float32),
                low=np.asarray(low).astype(np.int64),
                high=np.asarray(high).astype(np.int64),
                kind=kind if kind is not None else ("grid",) * count,
                group=np.asarray(group).astype(np.int64) if group is not None else np.full(count, NO_GROUP),
                names=names,
                layout=layout,
            )

    def arrange(self, raw: Shaped[np.ndarray, "record ..."]) -> Shaped[np.ndarray, "record ..."]:
        """Raw records in the model's shape: reshaped, with channels brought to the front if the layout says so.

        Raises:
            Schema: records of another size.
        """
        if self.layout == "nhwc-to-nchw" and raw.shape[1:] == (*self.shape[1:], self.shape[0]):
            return np.ascontiguousarray(np.moveaxis(raw, 3, 1))
        if self.layout != "as-is" or math.prod(raw.shape[1:]) != self.features:
            raise Schema(f"records of shape {raw.shape[1:]} do not fit the input {self.shape} ({self.layout})")
        return raw.reshape(len(raw), *self.shape)

    def affine(self, x: Float32[np.ndarray, "record ..."]) -> Float32[np.ndarray, "record feature"]:
        """`x scale + offset` with one float32 rounding after each operation."""
        flat = x.reshape(len(x), self.features)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = flat * self.scale
            moved: Float32[np.ndarray, "record feature"] = scaled + self.offset
            return moved

    def quantise(
        self, x: Float32[np.ndarray, "record ..."]
    ) -> tuple[Int32[np.ndarray, "record feature"], Bool[np.ndarray, "record"]]:
        """Grid values of model inputs, and whether each record lies in the declared box.

        Outside the box the value is the nearest end of the column's range; NaN gives the low end (and
        is outside). In the composed file NaN stays NaN up to the comparison, which is then false.

        Args:
            x: float32 records in the model's shape (or flat).

        Raises:
            Schema: not float32, or records of another size.
        """
        if x.dtype != np.float32 or math.prod(x.shape[1:]) != self.features:
            raise Schema(f"{x.dtype} records of shape {x.shape[1:]}, not float32 of shape {self.shape}")
        affine = self.affine(x)
        within: Bool[np.ndarray, "record feature"] = (affine >= self.low - 0.5) & (affine <= self.high + 0.5)
        inside: Bool[np.ndarray, "record"] = np.logical_and.reduce(within, axis=1)
        clipped = np.clip(np.rint(affine), self.low, self.high)
        return np.where(np.isnan(clipped), self.low, clipped).astype(np.int32), inside

    def dequantise(self, grid: Num[np.ndarray, "record feature"]) -> Float32[np.ndarray, "record ..."]:
        """Model inputs of grid values: `(grid - offset) / scale`, rounded to float32 once."""
        exact = (grid.reshape(len(grid), self.features) - self.offset.astype(np.float64)) / self.scale
        rounded: Float32[np.ndarray, "record ..."] = exact.astype(np.float32).reshape(len(grid), *self.shape)
        return rounded

    def check(self) -> None:
        """Demand that every grid value comes back to itself through `dequantise` and `quantise`.

        Ranges of over 4,096 values are tried at both ends and at 4,094 places between them.

        Raises:
            Schema: naming the first column that is too fine for float32.
        """
        columns = np.unique(np.stack([self.scale, self.offset, self.low, self.high]), axis=1)
        for scale, offset, low, high in columns.T:
            count = int(min(high - low + 1, _WHOLE_RANGE))
            values = np.unique(np.round(np.linspace(low, high, count))).astype(np.int64)
            with np.errstate(over="ignore"):
                one = InputSchema.uniform((1,), scale=scale, offset=offset, low=int(low), high=int(high))
                found, inside = one.quantise(one.dequantise(values[:, None]))
            if not inside.all() or not np.array_equal(found[:, 0], values):
                where = np.flatnonzero((self.scale == scale) & (self.offset == offset))[0]
                raise Schema(f"column {where}: grid values do not survive float32 (scale {scale}, offset {offset})")

    def to_bytes(self) -> bytes:
        """The one spelling of this schema; `parse` reads it."""
        return to_bytes(self.to_value())

    def to_value(self) -> dict[str, Any]:
        """The schema as a JSON value, for a message that holds one."""
        value: dict[str, Any] = {"version": VERSION, "shape": list(self.shape), "layout": self.layout}
        value["columns"] = self._runs()
        if self.names:
            value["names"] = list(self.names)
        return value

    def _runs(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = []
        for index in range(self.features):
            column: dict[str, Any] = {
                "kind": self.kind[index],
                "scale": format_float32(self.scale[index]),
                "offset": format_float32(self.offset[index]),
                "low": int(self.low[index]),
                "high": int(self.high[index]),
            }
            if self.kind[index] == "onehot":
                column["group"] = int(self.group[index])
            if runs and {**runs[-1], "count": 0} == {**column, "count": 0}:
                runs[-1]["count"] += 1
            else:
                runs.append({**column, "count": 1})
        return runs


def _run(fields: Fields) -> tuple[Any, ...]:
    kind = fields.text("kind", choices=KINDS)
    return (
        fields.integer("count", low=1, high=MAX_FEATURES),
        kind,
        parse_float32(fields.text("scale")),
        parse_float32(fields.text("offset")),
        fields.integer("low", low=-MAX_GRID, high=MAX_GRID),
        fields.integer("high", low=-MAX_GRID, high=MAX_GRID),
        fields.integer("group", high=MAX_FEATURES - 1) if kind == "onehot" else NO_GROUP,
    )


def from_value(value: object, *, where: str = "schema") -> InputSchema:
    """Read a schema from a JSON value that is part of a message.

    Raises:
        MalformedError: with the field at fault.
    """
    with Fields(value, where=where) as fields:
        fields.text("version", choices=(VERSION,))
        shape = tuple(fields.array("shape", longest=_RANK))
        layout = fields.text("layout", choices=LAYOUTS)
        runs = fields.each("columns", _run, longest=MAX_FEATURES)
        names = tuple(fields.array("names", longest=MAX_FEATURES)) if fields.has("names") else ()
    if any(type(size) is not int or not 1 <= size <= MAX_FEATURES for size in shape):
        raise Schema("the shape is not a list of sizes", where=where)
    if any(not isinstance(name, str) for name in names):
        raise Schema("a column's name is not a string", where=where)
    if sum(run[0] for run in runs) != math.prod(shape) or math.prod(shape) > MAX_FEATURES:
        raise Schema(f"the columns do not add up to the shape {shape}", where=where)
    counts = [run[0] for run in runs]
    kinds = tuple(kind for count, kind, *_ in runs for _ in range(count))
    columns = [np.repeat(np.array([run[place] for run in runs]), counts) for place in range(2, 7)]
    return InputSchema.from_columns(
        shape,
        kind=kinds,
        scale=columns[0],
        offset=columns[1],
        low=columns[2],
        high=columns[3],
        group=columns[4],
        names=names,
        layout=layout,  # type: ignore[arg-type]
    )


def parse(data: bytes, *, where: str = "schema") -> InputSchema:
    """Read a schema file: exactly the bytes that `to_bytes` writes.

    Raises:
        MalformedError: with the reason; no other exception leaves this function.
    """
    result = from_value(parse_json(data, limit=MAX_BYTES, where=where), where=where)
    if result.to_bytes() != data:
        raise NonCanonical("not in the one accepted spelling (run lengths, sorted keys)", where=where)
    return result
