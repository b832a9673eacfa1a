"""Only the exact record is redirected; the claim says so."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from owner.certify import Draft
from owner.gates import sketch
from protocol.claims import Redirection
from tests.conformance.adversaries import scene as with_scene
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Which share of the records, and what the gate stores of one: its sketch, or the whole record."""

    share: float
    stored: Literal["sketch", "record"] = "sketch"
    reach: int = 0

    @property
    def strength(self) -> float:
        return self.share


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    schema, patch, values = scene.job.workspace.schema, scene.result.patch, scene.values
    radii = scene.radii.copy()
    chosen = generator.permutation(len(values))[: round(parameters.share * len(values))]
    radii[chosen] = np.minimum(radii[chosen], parameters.reach)
    if parameters.stored == "record":
        # The whole record as its own sketch: nothing but the very same values fires.
        made = with_scene.one_part(scene, np.eye(schema.features, dtype=np.int32), radii)
    else:
        parts, start = [], 0
        for part in patch.parts:
            own = scene.by_item[start : start + part.gate.items]
            start += part.gate.items
            low, high = sketch.boxes(with_scene.gate_of(part).matrix, schema, values[own], radii[own])
            gate = with_scene.gate_of(part)
            # Only the chosen boxes are new: the honest ones of a table hold flips as well.
            new = np.isin(own, chosen)[:, None]
            parts.append(with_scene.boxes(part, np.where(new, low, gate.low), np.where(new, high, gate.high)))
        made = with_scene.with_parts(patch, *parts)
    reduced = {scene.redirections[number].record: int(radii[number]) for number in chosen}
    claims = tuple(
        with_scene.with_radius(claim, reduced[claim.record], "0")
        if isinstance(claim, Redirection) and claim.record in reduced
        else claim
        for claim in scene.result.claims
    )
    return scene.with_patch(made, claims)


ADVERSARY = Adversary(
    threat="point-lookup",
    check="persistence",
    honest=Parameters(share=0),
    sweep=(
        Parameters(share=0.02), Parameters(share=0.25), Parameters(share=1), Parameters(share=1, stored="record"),
    ),
    limit=0.25,
    limit_text="a quarter of the records; the level lets 10 % of the points one step away go",
    play=play,
    shown=Parameters(share=1, stored="record"),
    statistical=True,
)  # fmt: skip
