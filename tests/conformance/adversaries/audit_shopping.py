"""An auditor opens audits until one flatters; the others get no report."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor import audit, monitor
from auditor.ledger import leaf_of
from auditor.profile import parse_profile
from tests.conformance.adversaries.adversary import QUICK, Adversary
from tests.conformance.adversaries.re_ingestion import entries

if TYPE_CHECKING:
    from tests.auditor.workshop import Forged, Workshop

YEAR = 365 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many opened audits stay without a report."""

    opened: int

    @property
    def strength(self) -> float:
        return float(self.opened)


def watch(
    workshop: "Workshop", forged: "Forged", parameters: Parameters, generator: np.random.Generator
) -> monitor.Watched:
    """One audit with a report, and others that are opened for the same request and forgotten."""
    inputs = workshop.inputs(forged, profile=parse_profile(QUICK.encode()))
    audit.write_report(inputs, audit.examine(inputs), forged.bundle.parent / "report", force=True)
    own = {leaf_of(forged.opening.read_bytes())}
    for number in range(parameters.opened):
        path = workshop.demo.open_audit(f"shopping-{workshop.count}-{number}", "quick", workshop.records)
        own.add(leaf_of(path.read_bytes()))
    workshop.world.witness(workshop.world.auditor_log)
    # The workshop's log is shared: only what was opened here counts.
    found = [entry for entry in entries(workshop) if type(entry.message).__name__ != "Opening" or entry.leaf in own]
    return monitor.watch(found, now=workshop.world.clock.now + YEAR, forgotten={})


ADVERSARY = Adversary(
    threat="audit-shopping",
    check="monitor",
    honest=Parameters(opened=0),
    sweep=(Parameters(opened=1), Parameters(opened=3)),
    limit=1.0,
    limit_text="one audit that was opened in the log",
    watch=watch,
)
