"""The certificate is in the log before the request that it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from owner.files import write_atomic
from owner.journal import append
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.forged_request import sign_request, usual_rows

if TYPE_CHECKING:
    from tests.auditor.workshop import Forged, Workshop


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many entries lie between the certificate and the request; 0: the request comes first, as it should."""

    entries: int

    @property
    def strength(self) -> float:
        return float(self.entries)


def ask(workshop: "Workshop", parameters: Parameters, generator: np.random.Generator) -> Path:
    """A request that is signed, and logged only by an honest owner."""
    return sign_request(workshop, usual_rows(workshop), on_behalf=True, logged=not parameters.entries)


def around(
    workshop: "Workshop", forged: "Forged", parameters: Parameters, generator: np.random.Generator
) -> Mapping[str, Any]:
    """Logs the request after everything else, and puts its proof into the bundle."""
    if parameters.entries:
        log = workshop.world.owner_log
        for number in range(parameters.entries - 1):
            append(log, b"filler %d" % number)
        proof = append(log, (forged.bundle / "requests" / "000.dsse.json").read_bytes())
        write_atomic(forged.bundle / "proofs" / "request-000.tlog-proof", proof)
        workshop.demo.settle(forged.bundle, forged.openings)
    return {}


ADVERSARY = Adversary(
    threat="backdated-certificate",
    check="freshness",
    honest=Parameters(entries=0),
    sweep=(Parameters(entries=1), Parameters(entries=4)),
    limit=1.0,
    limit_text="one entry",
    ask=ask,
    around=around,
)
