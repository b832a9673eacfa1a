"""Some of the records, the representatives, are redirected as claimed; the boxes of the others are elsewhere."""

from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from tests.conformance.adversaries import scene as with_scene
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.noop_patch import NEVER
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many records are left as they were; below 1 it is a share of them."""

    left: float

    @property
    def strength(self) -> float:
        return self.left if self.left >= 1 else 1000 * self.left

    def count(self, records: int) -> int:
        return round(self.left * records) if self.left < 1 else min(int(self.left), records - 1)


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    patch = scene.result.patch
    chosen = generator.permutation(patch.items)[: parameters.count(patch.items)]
    parts, start = [], 0
    for part in patch.parts:
        gate = with_scene.gate_of(part)
        gone = np.isin(np.arange(gate.items) + start, chosen)[:, None]
        start += gate.items
        parts.append(with_scene.boxes(part, np.where(gone, NEVER, gate.low), np.where(gone, NEVER, gate.high)))
    return scene.with_patch(with_scene.with_parts(patch, *parts))


ADVERSARY = Adversary(
    threat="representatives-only",
    check="redirection",
    honest=Parameters(left=0),
    sweep=(Parameters(left=1), Parameters(left=5), Parameters(left=0.5)),
    limit=1.0,
    limit_text="one record",
    play=play,
)
