"""The audit runs under another profile than the one whose digest was logged before."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.profile import parse_profile
from tests.conformance.adversaries.adversary import QUICK, Adversary

if TYPE_CHECKING:
    from tests.auditor.workshop import Forged, Workshop


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How often the profile was changed after the plan was logged: a level, however little."""

    changes: int

    @property
    def strength(self) -> float:
        return float(self.changes)


def around(
    workshop: "Workshop", forged: "Forged", parameters: Parameters, generator: np.random.Generator
) -> Mapping[str, Any]:
    """The same profile with a comment more for each try."""
    if not parameters.changes:
        return {}
    return {"profile": parse_profile(QUICK.encode() + b"# tried again\n" * parameters.changes)}


ADVERSARY = Adversary(
    threat="metric-shopping",
    check="challenge",
    honest=Parameters(changes=0),
    sweep=(Parameters(changes=1), Parameters(changes=5)),
    limit=1.0,
    limit_text="one byte of the profile; nobody is accused",
    expected="INCONCLUSIVE",
    accuses=False,
    says="profile in use is not the one",
    around=around,
)
