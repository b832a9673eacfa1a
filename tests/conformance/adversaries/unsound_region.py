"""Every radius is claimed larger than it is."""

from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from protocol.claims import Redirection
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene, with_radius


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """By how many grid steps, and for how many claims (None: for all)."""

    overstated: int
    claims: int | None = None

    @property
    def strength(self) -> float:
        return float(self.overstated)


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    steps = iter(scene.radii.tolist())
    left = len(scene.redirections) if parameters.claims is None else parameters.claims
    claims = []
    for claim in scene.result.claims:
        if isinstance(claim, Redirection):
            radius = int(next(steps)) + (parameters.overstated if left > 0 else 0)
            claims.append(with_radius(claim, radius))
            left -= 1
        else:
            claims.append(claim)
    return scene.with_patch(scene.result.patch, tuple(claims))


ADVERSARY = Adversary(
    threat="unsound-region",
    check="redirection",
    honest=Parameters(overstated=0),
    sweep=(
        Parameters(overstated=1, claims=1), Parameters(overstated=1), Parameters(overstated=3),
        Parameters(overstated=50),
    ),
    limit=1.0,
    limit_text="one claim, by one grid step",
    play=play,
    shown=Parameters(overstated=3),
)  # fmt: skip
