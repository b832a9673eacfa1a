"""The last requested records get neither item nor claim."""

from dataclasses import dataclass, replace

import numpy as np

from owner.certify import Draft
from protocol.claims import Claim, Redirection
from protocol.model.patch import Part, SetHead, SketchGate
from tests.conformance.adversaries import scene as with_scene
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many are dropped."""

    dropped: int

    @property
    def strength(self) -> float:
        return float(self.dropped)


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    patch, claims = scene.result.patch, scene.result.claims
    gone = {claim.item for claim in scene.redirections[len(scene.redirections) - parameters.dropped :]}
    parts: list[Part] = []
    number: dict[int, int] = {}
    start = 0
    for part in patch.parts:
        gate, head = with_scene.gate_of(part), with_scene.head_of(part)
        left = np.array([item for item in range(gate.items) if item + start not in gone], dtype=np.int64)
        if len(left):
            for item in left.tolist():
                number[item + start] = len(number)
            used, index = np.unique(head.index[left], return_inverse=True)
            parts.append(
                Part(
                    gate=SketchGate(matrix=gate.matrix, low=gate.low[left], high=gate.high[left]),
                    head=SetHead(rows=head.rows[used], index=index.astype(np.int64)),
                )
            )
        start += gate.items
    kept: list[Claim] = []
    for claim in claims:
        if isinstance(claim, Redirection) and claim.item is not None:
            if claim.item in gone:
                continue
            kept.append(replace(claim, item=number[claim.item]))
        else:
            kept.append(claim)
    return scene.with_patch(with_scene.with_parts(patch, *parts), tuple(kept))


ADVERSARY = Adversary(
    threat="partial-forget-set",
    check="completeness",
    honest=Parameters(dropped=0),
    sweep=(Parameters(dropped=1), Parameters(dropped=5), Parameters(dropped=20)),
    limit=1.0,
    limit_text="one record",
    play=play,
    shown=Parameters(dropped=20),
)
