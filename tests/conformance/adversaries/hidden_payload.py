"""An item that no claim is about: whoever knows its place gets the output of somebody's choice.

Or a logit far beyond the base's, or a deployed file that is not base plus patch.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from owner.certify import Draft
from owner.compose import compose
from owner.gates import sketch
from protocol.model import profile
from protocol.model.patch import Part, SetHead, SketchGate
from tests.conformance.adversaries import scene as with_scene
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What carries the payload, and how much: items, times the largest logit, weights that differ."""

    size: int
    kind: Literal["item", "logit", "file"] = "item"

    @property
    def strength(self) -> float:
        return float(self.size)


def _items(scene: Scene, size: int) -> Draft:
    patch, schema = scene.result.patch, scene.job.workspace.schema
    if not size:
        return scene.draft()
    part = patch.parts[-1]
    gate, head = with_scene.gate_of(part), with_scene.head_of(part)
    secret = np.full((size, schema.features), int(schema.high.max()), dtype=np.int32)
    secret -= np.arange(size, dtype=np.int32)[:, None]
    secret = np.maximum(np.minimum(secret, schema.high), schema.low).astype(np.int32)
    low, high = sketch.boxes(gate.matrix, schema, secret, np.ones(size, dtype=np.int64))
    more = Part(
        gate=SketchGate(
            matrix=gate.matrix,
            low=np.concatenate([gate.low, low.astype(np.int32)]),
            high=np.concatenate([gate.high, high.astype(np.int32)]),
        ),
        head=SetHead(rows=head.rows, index=np.concatenate([head.index, np.repeat(head.index[:1], size)])),
    )
    return scene.with_patch(with_scene.with_parts(patch, *patch.parts[:-1], more))


def _logit(scene: Scene, factor: int) -> Draft:
    rows = with_scene.rows_by_item(scene.result.patch).copy()
    largest = float(np.abs(rows).max())
    rows[0, int(rows[0].argmin())] = -factor * largest
    return scene.with_patch(with_scene.with_rows(scene.result.patch, rows), with_scene.claiming_rows(scene, rows))


def _file(scene: Scene, size: int) -> Draft:
    workspace = scene.job.workspace
    made = scene.draft()
    composed = compose(workspace.base, workspace.schema, scene.result.patch)
    arrays = dict(composed.initialisers)
    name = next(name for name, array in arrays.items() if array.dtype == np.float32 and array.size > size)
    changed = arrays[name].copy()
    changed.flat[:size] = np.nextafter(changed.flat[:size], np.float32(np.inf))
    arrays[name] = changed
    made.files["patched.onnx"] = ("patched", profile.serialise(dataclasses.replace(composed, initialisers=arrays)))
    return made


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    if not parameters.size:
        return scene.draft()
    return {"item": _items, "logit": _logit, "file": _file}[parameters.kind](scene, parameters.size)


ADVERSARY = Adversary(
    threat="hidden-payload",
    check="boundedness",
    also=("binding",),
    honest=Parameters(size=0),
    sweep=(
        Parameters(size=1), Parameters(size=1, kind="file"), Parameters(size=3), Parameters(size=1000, kind="logit"),
    ),
    limit=1.0,
    limit_text="one item, one bit of the deployed file; of a logit four times the base's largest",
    play=play,
    shown=Parameters(size=1),
)  # fmt: skip
