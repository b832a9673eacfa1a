"""A patch: where a model's output is replaced, and by what. Two files: a small manifest and raw tensors.

Proves: a `Patch` that was parsed is complete and well formed: every tensor named in the manifest with
its type and shape, boxes not empty, every item with a row and every row with an item, all finite.
Assumes nothing about the bytes. Does not say that the sums of a sketch are exact for a given input
schema (both sides check that when they compose), nor what the patch is good for. Source: SPEC 7.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64, Shaped

from protocol.canonical import Fields, parse_json
from protocol.canonical import to_bytes as json_bytes
from protocol.encoding import parse_float32
from protocol.errors import MalformedError, Schema, TooLarge
from protocol.model.graph import same_tensor
from protocol.model.tensors import kind_of, read_tensors, write_tensors

VERSION = "prune-audit/patch/v1"
MAX_SUM = 2**24
"""Integers up to here are exact in float32; sketch values and item bounds stay within."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchLimits:
    """What a hostile patch may cost.

    Args:
        manifest: bytes of the manifest.
        tensors: bytes of the tensor file.
        items: number of items.
        components: components of a sketch.
        features: input values.
        classes: logits.
    """

    manifest: int = 1 << 20
    tensors: int = 256 << 20
    items: int = 1 << 20
    components: int = 1 << 14
    features: int = 1 << 20
    classes: int = 1 << 16


def _lock(owner: object, name: str, kind: type[np.generic], dimensions: int) -> None:
    array = getattr(owner, name)
    if array.dtype != kind or array.ndim != dimensions:
        raise Schema(f"{name} is {array.dtype} with {array.ndim} axes, not {np.dtype(kind)} with {dimensions}")
    locked = np.ascontiguousarray(array).view()
    locked.flags.writeable = False
    object.__setattr__(owner, name, locked)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchGate:
    """Item k fires on grid values Q when `low[k] <= matrix Q <= high[k]` in every component.

    Args:
        matrix: the sketch, public; entries below 2^24 in size.
        low: least sketch of each item, within +-2^24.
        high: greatest sketch of each item.
    """

    matrix: Int32[np.ndarray, "component feature"]
    low: Int32[np.ndarray, "item component"]
    high: Int32[np.ndarray, "item component"]

    def __post_init__(self) -> None:
        for name in ("matrix", "low", "high"):
            _lock(self, name, np.int32, 2)
        if min(self.matrix.shape) < 1 or len(self.low) < 1:
            raise Schema("a sketch without components, features or items")
        if self.low.shape != (len(self.low), len(self.matrix)) or self.high.shape != self.low.shape:
            raise Schema(f"boxes of shape {self.low.shape} and {self.high.shape} for {len(self.matrix)} components")
        if (self.low > self.high).any():
            raise Schema(f"item {int(np.flatnonzero((self.low > self.high).any(axis=1))[0])} has an empty box")
        for array in (self.matrix, self.low, self.high):
            if max(-int(array.min()), int(array.max())) > MAX_SUM:
                raise Schema(f"an entry or bound of the sketch is outside +-{MAX_SUM}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SketchGate):
            return NotImplemented
        return all(same_tensor(getattr(self, name), getattr(other, name)) for name in ("matrix", "low", "high"))

    def __hash__(self) -> int:
        return hash((self.matrix.shape, self.low.tobytes()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """Class `klass` never wins: its logit becomes `min(own, best other - margin)`, for every input.

    Args:
        klass: the class, from 0.
        margin: in logits, not negative: the shortest decimal of a float32 (`encoding.format_float32`).
    """

    klass: int
    margin: str

    def __post_init__(self) -> None:
        if parse_float32(self.margin, where="margin") < 0:
            raise Schema(f"the margin {self.margin} is negative")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patch:
    """All that is added to a base model.

    Args:
        features: input values of a record.
        classes: logits.
        gate: where the output is a row; None if nowhere.
        rows: replacement logits.
        row_of_item: row of each item; the first item that fires decides.
        caps: applied last to the selected output, each measured against the classes without a cap.
    """

    features: int
    classes: int
    gate: SketchGate | None
    rows: Float32[np.ndarray, "row class"]
    row_of_item: Int64[np.ndarray, "item"]
    caps: tuple[Cap, ...] = ()

    def __post_init__(self) -> None:
        _lock(self, "rows", np.float32, 2)
        _lock(self, "row_of_item", np.int64, 1)
        if self.features < 1 or self.classes < 1 or self.rows.shape[1] != self.classes:
            raise Schema(f"rows of {self.rows.shape[1]} logits for {self.classes} classes, {self.features} features")
        items = 0 if self.gate is None else len(self.gate.low)
        if self.gate is not None and self.gate.matrix.shape[1] != self.features:
            raise Schema(f"a sketch of {self.gate.matrix.shape[1]} features, the patch is for {self.features}")
        if len(self.row_of_item) != items:
            raise Schema(f"{len(self.row_of_item)} rows assigned to {items} items")
        if not np.array_equal(np.unique(self.row_of_item), np.arange(len(self.rows))):
            raise Schema(f"the items do not use exactly the {len(self.rows)} rows")
        if not np.isfinite(self.rows).all():
            raise Schema("a row holds NaN or infinity")
        capped = [cap.klass for cap in self.caps]
        if len(set(capped)) != len(capped) or any(not 0 <= klass < self.classes for klass in capped):
            raise Schema("a cap on a class that does not exist, or two on one")
        if capped and len(capped) >= self.classes:
            # Caps are measured against the classes without one: a cap against a capped class could be undone by it.
            raise Schema("a cap needs a class without a cap to compare with")
        if self.gate is None and not self.caps:
            raise Schema("a patch with neither a gate nor a cap changes nothing")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Patch):
            return NotImplemented
        mine = (self.features, self.classes, self.gate, self.caps)
        return (
            mine == (other.features, other.classes, other.gate, other.caps)
            and same_tensor(self.rows, other.rows)
            and same_tensor(self.row_of_item, other.row_of_item)
        )

    def __hash__(self) -> int:
        return hash((self.features, self.classes, self.gate, self.caps, self.rows.tobytes()))


def _tensors(patch: Patch) -> dict[str, Shaped[np.ndarray, "..."]]:
    if patch.gate is None:
        return {}
    gate = {"gate.matrix": patch.gate.matrix, "gate.low": patch.gate.low, "gate.high": patch.gate.high}
    return {**gate, "head.rows": patch.rows, "head.row_of_item": patch.row_of_item}


def to_bytes(patch: Patch) -> tuple[bytes, bytes]:
    """Manifest and tensor file; equal patches give equal bytes."""
    tensors = _tensors(patch)
    manifest: dict[str, Any] = {
        "version": VERSION,
        "features": patch.features,
        "classes": patch.classes,
        "caps": [{"class": cap.klass, "margin": cap.margin} for cap in patch.caps],
        "tensors": {name: {"dtype": kind_of(array), "shape": list(array.shape)} for name, array in tensors.items()},
    }
    if patch.gate is not None:
        manifest["gate"] = {"kind": "sketch"}
        manifest["head"] = {"kind": "set"}
    return json_bytes(manifest), write_tensors(tensors)


def _cap(fields: Fields) -> Cap:
    klass = fields.integer("class")
    return Cap(klass=klass, margin=fields.text("margin"))


def _named(fields: Fields, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    # The manifest says what there is; the tensor file must hold that and nothing else.
    for name in sorted(arrays):
        with fields.object(name) as entry:
            kind, shape = entry.text("dtype"), entry.array("shape", longest=8)
        if (kind, shape) != (kind_of(arrays[name]), list(arrays[name].shape)):
            raise Schema("the tensor has another type or shape than the manifest says", where=name)
    fields.done()


def _gate(arrays: Mapping[str, Shaped[np.ndarray, "..."]], limits: PatchLimits) -> SketchGate:
    matrix, low = arrays["gate.matrix"], arrays["gate.low"]
    if matrix.ndim and low.ndim and (len(matrix) > limits.components or len(low) > limits.items):
        raise TooLarge(f"{len(matrix)} components and {len(low)} items")
    return SketchGate(matrix=matrix, low=low, high=arrays["gate.high"])


_GATE_TENSORS = frozenset({"gate.matrix", "gate.low", "gate.high", "head.rows", "head.row_of_item"})


def parse(manifest: bytes, tensors: bytes, *, limits: PatchLimits | None = None, where: str = "patch") -> Patch:
    """Read a patch: exactly the bytes that `to_bytes` writes.

    Args:
        manifest: contents of `patch.json`.
        tensors: contents of `patch.safetensors`.
        limits: what the patch may cost; `PatchLimits()` if None.
        where: what to name in an error.

    Raises:
        MalformedError: with the reason; no other exception leaves this function.
    """
    limits = PatchLimits() if limits is None else limits
    value = parse_json(manifest, limit=limits.manifest, where=where, canonical=True)
    arrays = read_tensors(tensors, limit=limits.tensors, where=where)
    try:
        return _patch(Fields(value), arrays, limits)
    except MalformedError as error:
        error.at(where)
        raise


def _patch(fields: Fields, arrays: Mapping[str, Shaped[np.ndarray, "..."]], limits: PatchLimits) -> Patch:
    with fields:
        fields.text("version", choices=(VERSION,))
        features = fields.integer("features", low=1, high=limits.features)
        classes = fields.integer("classes", low=1, high=limits.classes)
        caps = fields.each("caps", _cap, longest=limits.classes)
        gated = fields.has("gate")
        if gated:  # further kinds of gate and head get their names here
            with fields.object("gate") as part:
                part.text("kind", choices=("sketch",))
            with fields.object("head") as part:
                part.text("kind", choices=("set",))
        _named(fields.object("tensors"), arrays)
    if arrays.keys() != (_GATE_TENSORS if gated else set()):
        raise Schema(f"the tensors are {sorted(arrays)[:8]}, not those of this kind of gate and head")
    return Patch(
        features=features,
        classes=classes,
        gate=_gate(arrays, limits) if gated else None,
        rows=arrays["head.rows"] if gated else np.zeros((0, classes), np.float32),
        row_of_item=arrays["head.row_of_item"] if gated else np.zeros(0, np.int64),
        caps=caps,
    )
