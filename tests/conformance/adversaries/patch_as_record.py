"""A patch that is a copy of what should be forgotten: sound, local, and readable by whoever holds it.

Places: `boxes`, the gate's boxes hold the record's own values; `matrix`, the sketch has one more component for each record,
whose row is that record and which limits no item; `corner`, such a component limits one item, by one extreme corner of
the input grid that no record is near.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from owner.certify import Draft
from owner.gates import sketch
from protocol.model.parts import SketchGate
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene, gate_of, one_part, with_parts


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Which share of the record's values is stored, and where; 0: the honest sketch."""

    stored: float
    place: Literal["boxes", "matrix", "corner"] = "boxes"

    @property
    def strength(self) -> float:
        return self.stored


def rows_of(scene: Scene) -> np.ndarray:
    """The forgotten records as rows of a sketch whose sums stay exact."""
    schema = scene.job.workspace.schema
    largest = np.maximum(np.abs(schema.low), np.abs(schema.high)).astype(np.int64)
    most = int((np.abs(scene.values.astype(np.int64)) @ largest).max())
    divisor = -(-most // (sketch.EXACT - 1)) if most >= sketch.EXACT else 1
    found: np.ndarray = (scene.values // divisor).astype(np.int32)
    return found


def in_matrix(scene: Scene, rows: np.ndarray, *, corner: bool) -> Draft:
    """The honest patch; the first part's sketch has further components, one for each of `rows`."""
    patch, schema = scene.result.patch, scene.job.workspace.schema
    first = patch.parts[0]
    gate = gate_of(first)
    ends = np.sort(np.stack([rows * schema.low, rows * schema.high]), axis=0).sum(axis=2).astype(np.int32)
    low, high = (np.tile(end, (gate.items, 1)) for end in ends)
    if corner:
        high[0] -= 1
    wide = SketchGate(
        matrix=np.concatenate([gate.matrix, rows]),
        low=np.concatenate([gate.low, low], axis=1),
        high=np.concatenate([gate.high, high], axis=1),
    )
    part = type(first)(gate=wide, head=first.head)
    return scene.with_patch(with_parts(patch, part, *patch.parts[1:]))


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    if not parameters.stored:
        return scene.draft()
    if parameters.place != "boxes":
        return in_matrix(scene, rows_of(scene), corner=parameters.place == "corner")
    matrix = np.eye(scene.job.workspace.schema.features, dtype=np.int32)
    if parameters.stored < 1:
        # The columns that vary most: those that a copy has to have.
        spread = scene.job.workspace.records.values.std(axis=0)
        matrix = matrix[np.sort(np.argsort(-spread)[: max(1, round(parameters.stored * len(matrix)))])]
    return scene.with_patch(one_part(scene, matrix, scene.radii))


ADVERSARY = Adversary(
    threat="patch-as-record",
    check="disclosure",
    honest=Parameters(stored=0.0),
    sweep=(
        Parameters(stored=0.5),
        Parameters(stored=0.95),
        Parameters(stored=1.0),
        Parameters(stored=1.0, place="matrix"),
        Parameters(stored=1.0, place="corner"),
    ),
    limit=1.0,
    limit_text="all values; below, what is missing is guessed with an error that the level allows or not",
    play=play,
    shown=Parameters(stored=1.0),
)
