"""The patch is made around perturbed copies, and these are what is opened."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from owner.gates import sketch
from protocol import openings
from tests.conformance.adversaries import scene as with_scene
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many records (None: all), and by how many steps a value may differ."""

    records: int | None
    steps: int = 2

    @property
    def strength(self) -> float:
        return 1000.0 if self.records is None else float(self.records)


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    workspace, schema = scene.job.workspace, scene.job.workspace.schema
    rows = scene.job.rows
    values = workspace.records.values[rows].astype(np.int64)
    noise = generator.integers(-parameters.steps, parameters.steps + 1, size=values.shape)
    if parameters.records is not None:
        noise[parameters.records :] = 0
        noise[: parameters.records, int(np.ptp(values, axis=0).argmax())] |= 1
    copies = np.clip(values + noise, schema.low, schema.high).astype(np.int32)
    place = {row: number for number, row in enumerate(rows)}
    own = np.array([place[row] for row in workspace.rows_of(tuple(c.record for c in scene.redirections))])
    parts, start = [], 0
    for part in scene.result.patch.parts:
        order = scene.by_item[start : start + part.gate.items]
        start += part.gate.items
        gate = with_scene.gate_of(part)
        low, high = sketch.boxes(gate.matrix, schema, copies[own[order]], scene.radii[order])
        same = (copies[own[order]] == values[own[order]]).all(axis=1)[:, None]
        parts.append(with_scene.boxes(part, np.where(same, gate.low, low), np.where(same, gate.high, high)))
    made = scene.with_patch(with_scene.with_parts(scene.result.patch, *parts))
    opened = [
        dataclasses.replace(opening, values=copy)
        for opening, copy in zip(workspace.open_rows(rows), copies, strict=True)
    ]
    made.files["openings.npz"] = ("opening", openings.serialise(opened, features=scene.result.patch.features))
    return made


ADVERSARY = Adversary(
    threat="substituted-record",
    check="completeness",
    honest=Parameters(records=0),
    sweep=(Parameters(records=1, steps=1), Parameters(records=5), Parameters(records=None)),
    limit=1.0,
    limit_text="one value of one record",
    play=play,
    shown=Parameters(records=None),
    seed=6,
)
