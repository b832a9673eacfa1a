"""The list of claims on the table is shorter than the one that the certificate's root stands for."""

from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many claims are missing."""

    dropped: int

    @property
    def strength(self) -> float:
        return float(self.dropped)


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    made = scene.draft()
    role, data = made.files["claims.jsonl"]
    lines = data.splitlines(keepends=True)
    made.files["claims.jsonl"] = (role, b"".join(lines[: len(lines) - parameters.dropped]))
    return made


ADVERSARY = Adversary(
    threat="silent-drop",
    check="binding",
    honest=Parameters(dropped=0),
    sweep=(Parameters(dropped=1), Parameters(dropped=10)),
    limit=1.0,
    limit_text="one claim",
    play=play,
)
