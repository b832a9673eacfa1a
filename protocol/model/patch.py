"""A patch: where a model's output is replaced, and by what. Two files: a small manifest and raw tensors.

A patch is a list of *parts*, each a gate (where) with a head (by what), caps behind them, and new values for
constants of the base, for methods that train. Items are numbered through the parts; the first item that
fires decides.

Proves: a `Patch` that was parsed is complete and well formed: every tensor named in the manifest with
its type and shape, boxes not empty, every item with a row and every row with an item, all finite.
Assumes nothing about the bytes. Does not say that the sums of a sketch are exact for a given input
schema (both sides check that when they compose), nor what the patch is good for. Source: SPEC 7.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Shaped

from protocol.canonical import Fields, parse_json
from protocol.canonical import to_bytes as json_bytes
from protocol.encoding import parse_float32
from protocol.errors import MalformedError, Schema, TooLarge
from protocol.model.parts import (
    GATES,
    HEADS,
    MAX_SUM,
    AffineHead,
    AlwaysGate,
    FeatureGate,
    Gate,
    Head,
    Part,
    RegionGate,
    SetHead,
    ShiftHead,
    SketchGate,
    Weight,
    gate_kind,
    head_kind,
)
from protocol.model.tensors import kind_of, read_tensors, write_tensors

VERSION = "prune-audit/patch/v1"
BRANCH = "branch"
"""What a manifest says of a screen whose exact test is a branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchLimits:
    """What a hostile patch may cost.

    Args:
        manifest: bytes of the manifest.
        tensors: bytes of the tensor file.
        parts: gates with a head.
        items: number of items of one part.
        components: components of a sketch.
        features: input values.
        classes: logits.
        weights: constants of the base with new values.
    """

    manifest: int = 1 << 20
    tensors: int = 256 << 20
    parts: int = 16
    items: int = 1 << 20
    components: int = 1 << 14
    features: int = 1 << 20
    classes: int = 1 << 16
    weights: int = 512


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an item of a patch is: its part, and its number within it."""

    part: int
    item: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """All that is added to a base model.

    Args:
        features: input values of a record.
        classes: logits.
        parts: in order of precedence: of the items that fire the first one decides, items counted through the parts.
        caps: applied last to the selected output, each measured against the classes without a cap.
        weights: new values of the base's constants, in ascending order of names. They change the output anywhere: a
            patch that has some is not inert outside its supports.
    """

    features: int
    classes: int
    parts: tuple[Part, ...] = ()
    caps: tuple[Cap, ...] = ()
    weights: tuple[Weight, ...] = ()

    def __post_init__(self) -> None:
        if self.features < 1 or self.classes < 1:
            raise Schema(f"a patch for {self.features} features and {self.classes} classes")
        for part in self.parts:
            _check_part(part, self.features, self.classes)
        capped = [cap.klass for cap in self.caps]
        if len(set(capped)) != len(capped) or any(not 0 <= klass < self.classes for klass in capped):
            raise Schema("a cap on a class that does not exist, or two on one")
        if capped and len(capped) >= self.classes:
            # Caps are measured against the classes without one: a cap against a capped class could be undone by it.
            raise Schema("a cap needs a class without a cap to compare with")
        named = [weight.name for weight in self.weights]
        if sorted(set(named)) != named:
            raise Schema("the names of weights are not in ascending order, each once")
        if not self.parts and not self.caps and not self.weights:
            raise Schema("a patch with no gate, no cap and no weights changes nothing")

    @property
    def items(self) -> int:
        """How many items the parts have together."""
        return sum(part.gate.items for part in self.parts)

    @property
    def starts(self) -> tuple[int, ...]:
        """The number of each part's first item."""
        counts = [part.gate.items for part in self.parts]
        return tuple(sum(counts[:place]) for place in range(len(counts)))

    def place(self, item: int | None) -> Place:
        """Where item number `item` is.

        Raises:
            Schema: the patch has no such item, or None was asked for (a claim without a gate).
        """
        if item is None:
            raise Schema("the claim names no item")
        for part, start in reversed(tuple(enumerate(self.starts))):
            if start <= item < self.items:
                return Place(part=part, item=item - start)
        raise Schema(f"the patch has no item {item}")


def _check_part(part: Part, features: int, classes: int) -> None:
    gate, head = part.gate, part.head
    if head.rows.shape[1] != classes:
        raise Schema(f"rows of {head.rows.shape[1]} logits for {classes} classes")
    if isinstance(gate, SketchGate) and gate.matrix.shape[1] != features:
        raise Schema(f"a sketch of {gate.matrix.shape[1]} features, the patch is for {features}")
    if isinstance(gate, RegionGate) and gate.weights.shape[2] != features:
        raise Schema(f"half-spaces of {gate.weights.shape[2]} features, the patch is for {features}")
    if isinstance(head, AffineHead) and head.weights.shape[2] != features:
        raise Schema(f"maps of {head.weights.shape[2]} features, the patch is for {features}")


def _tensors(patch: Patch) -> dict[str, Shaped[np.ndarray, "..."]]:
    found: dict[str, Shaped[np.ndarray, "..."]] = {}
    for number, part in enumerate(patch.parts):
        for role, holder in (("gate", part.gate), ("head", part.head)):
            for entry in fields(holder):
                value = getattr(holder, entry.name)
                if isinstance(value, np.ndarray):
                    found[f"p{number}.{role}.{entry.name}"] = value
    # By number: a name of the base may be long, and is in the manifest.
    return found | {f"w{number}": weight.values for number, weight in enumerate(patch.weights)}


def _part_json(part: Part) -> dict[str, Any]:
    gate: dict[str, Any] = {"kind": gate_kind(part.gate)}
    if isinstance(part.gate, SketchGate):
        gate["screen"] = BRANCH if part.gate.branch else part.gate.screen is not None
    if isinstance(part.gate, FeatureGate):
        gate["tensor"] = part.gate.tensor
    return {"gate": gate, "head": {"kind": head_kind(part.head)}}


def to_bytes(patch: Patch) -> tuple[bytes, bytes]:
    """Manifest and tensor file; equal patches give equal bytes."""
    tensors = _tensors(patch)
    manifest: dict[str, Any] = {
        "version": VERSION,
        "features": patch.features,
        "classes": patch.classes,
        "parts": [_part_json(part) for part in patch.parts],
        "caps": [{"class": cap.klass, "margin": cap.margin} for cap in patch.caps],
        "tensors": {name: {"dtype": kind_of(array), "shape": list(array.shape)} for name, array in tensors.items()},
        "weights": [weight.name for weight in patch.weights],
    }
    return json_bytes(manifest), write_tensors(tensors)


def _cap(fields: Fields) -> Cap:
    klass = fields.integer("class")
    return Cap(klass=klass, margin=fields.text("margin"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kinds:
    """What the manifest says of a part."""

    gate: type[Gate]
    head: type[Head]
    tensor: str
    screened: bool
    branch: bool


def _kinds(fields: Fields) -> _Kinds:
    with fields.object("gate") as part:
        gate = GATES[part.text("kind", choices=tuple(GATES))]
        screened = part.flag_or("screen", BRANCH) if gate is SketchGate else False
        tensor = part.text("tensor", longest=1024) if gate is FeatureGate else ""
    with fields.object("head") as part:
        head = HEADS[part.text("kind", choices=tuple(HEADS))]
    return _Kinds(gate=gate, head=head, tensor=tensor, screened=bool(screened), branch=screened == BRANCH)


def _named(fields: Fields, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    # The manifest says what there is; the tensor file must hold that and nothing else.
    for name in sorted(arrays):
        with fields.object(name) as entry:
            kind, shape = entry.text("dtype"), entry.array("shape", longest=8)
        if (kind, shape) != (kind_of(arrays[name]), list(arrays[name].shape)):
            raise Schema("the tensor has another type or shape than the manifest says", where=name)
    fields.done()


def _wanted(kinds: _Kinds) -> dict[str, list[str]]:
    gate = [entry.name for entry in fields(kinds.gate) if entry.name not in ("tensor", "screen", "branch")]
    return {
        "gate": gate + ["screen"] * kinds.screened,
        "head": [entry.name for entry in fields(kinds.head)],
    }


def _build(number: int, kinds: _Kinds, arrays: Mapping[str, Shaped[np.ndarray, "..."]], limits: PatchLimits) -> Part:
    given: dict[str, dict[str, Any]] = {
        role: {name: arrays[f"p{number}.{role}.{name}"] for name in names} for role, names in _wanted(kinds).items()
    }
    index = given["head"]["index"]
    if any(array.ndim == 0 for role in given.values() for array in role.values()):
        raise Schema("a tensor of a part is a single number")
    if index.size > limits.items:
        raise TooLarge(f"{index.size} items in one part, at most {limits.items}")
    if kinds.gate is SketchGate and len(given["gate"]["matrix"]) > limits.components:
        raise TooLarge(f"{len(given['gate']['matrix'])} components, at most {limits.components}")
    if kinds.gate is FeatureGate:
        given["gate"]["tensor"] = kinds.tensor
    if kinds.branch:
        given["gate"]["branch"] = True
    return Part(gate=kinds.gate(**given["gate"]), head=kinds.head(**given["head"]))


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
        parts = fields.each("parts", _kinds, longest=limits.parts)
        caps = fields.each("caps", _cap, longest=limits.classes)
        weights = fields.array("weights", longest=limits.weights)
        _named(fields.object("tensors"), arrays)
    expected = {
        f"p{number}.{role}.{name}"
        for number, kinds in enumerate(parts)
        for role, names in _wanted(kinds).items()
        for name in names
    } | {f"w{number}" for number in range(len(weights))}
    if arrays.keys() != expected:
        raise Schema(f"the tensors are {sorted(arrays)[:8]}, not those of these kinds of gates and heads")
    return Patch(
        features=features,
        classes=classes,
        parts=tuple(_build(number, kinds, arrays, limits) for number, kinds in enumerate(parts)),
        caps=caps,
        weights=tuple(Weight(name=name, values=arrays[f"w{number}"]) for number, name in enumerate(weights)),
    )


__all__ = [
    "MAX_SUM",
    "VERSION",
    "AffineHead",
    "AlwaysGate",
    "Cap",
    "FeatureGate",
    "Gate",
    "Head",
    "Part",
    "Patch",
    "PatchLimits",
    "Place",
    "RegionGate",
    "SetHead",
    "ShiftHead",
    "SketchGate",
    "Weight",
    "gate_kind",
    "head_kind",
    "parse",
    "to_bytes",
]
