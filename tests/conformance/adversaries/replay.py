"""The certificate names an audit that was opened for another request and whose nonce is known by now."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from owner.journal import leaf_of
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Whether a spent audit is named, and whether the bundle shows it."""

    spent: bool
    shown: bool = True

    @property
    def strength(self) -> float:
        return float(self.spent)


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    honest = scene.draft()
    if not parameters.spent:
        return honest
    assert scene.spent_opening is not None
    assert scene.spent_opening_proof is not None
    if parameters.shown:
        honest.files["opening.dsse.json"] = ("audit-opening", scene.spent_opening)
        honest.proofs["opening"] = scene.spent_opening_proof
    else:
        del honest.files["opening.dsse.json"], honest.proofs["opening"]
    return dataclasses.replace(
        honest, certificate=dataclasses.replace(honest.certificate, opening=leaf_of(scene.spent_opening))
    )


ADVERSARY = Adversary(
    threat="replay",
    check="freshness",
    honest=Parameters(spent=False),
    sweep=(Parameters(spent=True, shown=False), Parameters(spent=True)),
    limit=1.0,
    limit_text="one opened audit of another request",
    play=play,
    shown=Parameters(spent=True),
)
