"""A gate that stores every value of the record: sound, local, and a copy of what should be forgotten."""

from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene, one_part


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Which share of the record's values the gate stores; 0: the honest sketch."""

    stored: float

    @property
    def strength(self) -> float:
        return self.stored


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    if not parameters.stored:
        return scene.draft()
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
    sweep=(Parameters(stored=0.5), Parameters(stored=0.95), Parameters(stored=1.0)),
    limit=1.0,
    limit_text="all values; below, what is missing is guessed with an error that the level allows or not",
    play=play,
    shown=Parameters(stored=1.0),
)
