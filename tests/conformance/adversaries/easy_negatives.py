"""The auditor is handed reference data that flatters: easier, or from elsewhere, than what was forgotten."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.conformance.adversaries.adversary import Adversary

if TYPE_CHECKING:
    from tests.auditor.workshop import Forged, Workshop


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How far reference records are moved to their class's mean; 0: not at all, 1: onto it."""

    shift: float

    @property
    def strength(self) -> float:
        return self.shift


def shifted(X: np.ndarray, y: np.ndarray, shift: float) -> np.ndarray:
    """Records moved to the mean of their class, in the array's own type."""
    moved = X.astype(np.float64)
    for klass in np.unique(y):
        moved[y == klass] += shift * (moved[y == klass].mean(axis=0) - moved[y == klass])
    return np.rint(moved).astype(X.dtype) if X.dtype.kind in "iu" else moved.astype(X.dtype)


def around(
    workshop: "Workshop", forged: "Forged", parameters: Parameters, generator: np.random.Generator
) -> Mapping[str, Any]:
    """The auditor's file, made easy."""
    if not parameters.shift:
        return {}
    with np.load(workshop.root / "data" / "ref.npz") as archive:
        X, y = archive["X"], archive["y"]
    path = forged.bundle.parent / "easy.npz"
    np.savez(path, X=shifted(X, y, parameters.shift), y=y)
    return {"reference": path}


ADVERSARY = Adversary(
    threat="easy-negatives",
    check="membership",
    honest=Parameters(shift=0.0),
    sweep=(Parameters(shift=0.1), Parameters(shift=0.8)),
    limit=0.8,
    limit_text="a shift that the test of exchangeability sees: INCONCLUSIVE, nobody is accused",
    expected="INCONCLUSIVE",
    accuses=False,
    says="differ before any training",
    statistical=True,
    around=around,
)
