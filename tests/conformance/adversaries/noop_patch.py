"""Boxes where no record is: the patch never fires.

Or it fires and puts out what the base says there, as it stands or a little scaled.
"""

import math
from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from owner.execute import Program
from tests.conformance.adversaries import scene as with_scene
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene

NEVER = 1 << 23


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Relative distance of the new outputs from the base's own; None: no box is where a record is."""

    distance: float | None

    @property
    def strength(self) -> float:
        return 1.0 if self.distance is None else 1.0 / (1.0 + 1000.0 * self.distance)


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    patch = scene.result.patch
    if parameters.distance is None:
        never = [np.full_like(with_scene.gate_of(part).low, NEVER) for part in patch.parts]
        return scene.with_patch(
            with_scene.with_parts(
                patch, *(with_scene.boxes(part, box, box) for part, box in zip(patch.parts, never, strict=True))
            )
        )
    if math.isinf(parameters.distance):
        return scene.draft()
    workspace = scene.job.workspace
    own = Program(workspace.base)(workspace.schema.dequantise(scene.values[scene.by_item]))
    rows = (own * np.float32(1 + parameters.distance)).astype(np.float32)
    return scene.with_patch(with_scene.with_rows(patch, rows), with_scene.claiming_rows(scene, rows))


ADVERSARY = Adversary(
    threat="noop-patch",
    check="redirection",
    honest=Parameters(distance=math.inf),
    sweep=(
        Parameters(distance=0.01), Parameters(distance=5e-4), Parameters(distance=0.0), Parameters(distance=None),
    ),
    limit=0.55,
    limit_text="outputs within 0.1 % of the base's largest logit on most records; farther ones count as redirected",
    play=play,
    shown=Parameters(distance=None),
)  # fmt: skip
