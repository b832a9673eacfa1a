"""The deployed file reads a weight from outside the bundle.

Or the signed manifest lists what it should not: a file of no known role, a recipe that is no recipe.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from owner.certify import Draft
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Which hostility."""

    kind: Literal["none", "stray", "deep", "external"]

    @property
    def strength(self) -> float:
        return float(("none", "stray", "deep", "external").index(self.kind))


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    honest = scene.draft()
    if parameters.kind == "stray":
        honest.files["more.bin"] = ("notes", b"\x80\x04K\x01.")
    elif parameters.kind == "deep":
        honest.files["recipe.json"] = ("recipe", b'{"a":' * 500 + b"1" + b"}" * 500)
    elif parameters.kind == "external":
        model = onnx.load_from_string(honest.files["patched.onnx"][1])
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"
        honest.files["patched.onnx"] = ("patched", model.SerializeToString())
    return honest


ADVERSARY = Adversary(
    threat="hostile-artefact",
    check="hygiene",
    honest=Parameters(kind="none"),
    sweep=(Parameters(kind="stray"), Parameters(kind="deep"), Parameters(kind="external")),
    limit=1.0,
    limit_text="any file beyond the declared form or the limits",
    play=play,
    shown=Parameters(kind="external"),
)
