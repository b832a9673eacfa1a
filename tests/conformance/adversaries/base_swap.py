"""Another base model, a little perturbed, under the same commitment."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from owner.compose import compose
from protocol.model import profile
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How much noise on each weight; None: one weight of one layer moves to its neighbour in float32."""

    noise: float | None

    @property
    def strength(self) -> float:
        return 1e-9 if self.noise is None else self.noise


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    workspace = scene.job.workspace
    base, changed = workspace.base, dict(workspace.base.initialisers)
    if parameters.noise is None:
        name = next(name for name, array in changed.items() if array.dtype == np.float32 and array.size > 1)
        array = changed[name].copy()
        array.flat[0] = np.nextafter(array.flat[0], np.float32(np.inf))
        changed[name] = array
    elif parameters.noise:
        changed = {
            name: (array + generator.normal(0, parameters.noise, array.shape).astype(np.float32))
            if array.dtype == np.float32
            else array
            for name, array in changed.items()
        }
    swapped = dataclasses.replace(base, initialisers=changed)
    honest = scene.draft()
    composed = compose(swapped, workspace.schema, scene.result.patch)
    if parameters.strength:
        honest.files["base.onnx"] = ("base", profile.serialise(swapped))
    honest.files["patched.onnx"] = ("patched", profile.serialise(composed))
    return honest


ADVERSARY = Adversary(
    threat="base-swap",
    check="binding",
    honest=Parameters(noise=0.0),
    sweep=(Parameters(noise=None), Parameters(noise=1e-4), Parameters(noise=0.01)),
    limit=1e-9,
    limit_text="one bit of one weight",
    play=play,
    shown=Parameters(noise=0.01),
    seed=5,
)
