"""Boxes widened far beyond the claimed cores.

By a share of each component's range, all of them; or one item's, over a share of the class that it shows, so that
outputs move and no prediction does.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from owner.certify import Draft
from tests.conformance.adversaries import scene as with_scene
from tests.conformance.adversaries import wide_item
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How far: a share of the components' range for all boxes, or of a class for one item."""

    share: float
    which: Literal["one", "all"] = "one"

    @property
    def strength(self) -> float:
        return self.share if self.which == "one" else 10 * self.share


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    patch = scene.result.patch
    if parameters.which == "all":
        schema, parts = scene.job.workspace.schema, []
        for part in patch.parts:
            gate = with_scene.gate_of(part)
            span = np.abs(gate.matrix).astype(np.int64) @ (schema.high - schema.low)
            extra = (span * parameters.share).astype(np.int64)
            parts.append(with_scene.boxes(part, gate.low - extra, gate.high + extra))
        return scene.with_patch(with_scene.with_parts(patch, *parts))
    item, klass = wide_item.candidates(scene, same_class=True)[0]
    return wide_item.widened(scene, wide_item.nearest(scene, klass, parameters.share, item), item)


ADVERSARY = Adversary(
    threat="excessive-support",
    check="locality",
    honest=Parameters(share=0.0),
    sweep=(Parameters(share=0.05), Parameters(share=1.0), Parameters(share=0.5, which="all")),
    limit=0.5,
    limit_text="a share of other records that is surely above 3 %",
    play=play,
    shown=Parameters(share=0.5, which="all"),
    statistical=True,
)
