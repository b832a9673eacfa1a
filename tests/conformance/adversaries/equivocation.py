"""Bundle and published log show two histories of the same size, both signed by the log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.rewritten_log import fork

if TYPE_CHECKING:
    from tests.auditor.workshop import Forged, Workshop


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """In how many of their last entries the two histories differ; 0: they are one."""

    back: int

    @property
    def strength(self) -> float:
        return float(self.back)


def around(
    workshop: "Workshop", forged: "Forged", parameters: Parameters, generator: np.random.Generator
) -> Mapping[str, Any]:
    """The auditor, on first contact, reads the other history."""
    if not parameters.back:
        # In this world's log other certificates stand beside, which leaves binding open for whoever reads all of it.
        return {}
    return {"owner_log": fork(workshop, forged.bundle.parent / "fork", changed=parameters.back)}


ADVERSARY = Adversary(
    threat="equivocation",
    check="inclusion",
    honest=Parameters(back=0),
    sweep=(Parameters(back=1), Parameters(back=5)),
    limit=1.0,
    limit_text="one entry, for whoever sees both histories",
    around=around,
)
