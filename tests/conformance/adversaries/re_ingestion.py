"""Records that were forgotten are in a later commitment."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor import audit, monitor
from auditor.ledger import sign
from auditor.profile import parse_profile
from owner.journal import append
from owner.workspace import Workspace
from protocol import openings
from protocol.keys import load_signing_key
from protocol.log import files
from protocol.log.verify import verify_log
from tests.conformance.adversaries.adversary import QUICK, Adversary
from tests.demo.world import must

if TYPE_CHECKING:
    from tests.auditor.workshop import Forged, Workshop


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many of them return; the slip of the later commitment opens as many others for the twin."""

    records: int

    @property
    def strength(self) -> float:
        return float(self.records)


def entries(workshop: "Workshop") -> list[monitor.Entry]:
    """What both logs hold, as the monitor reads it."""
    found = []
    for folder in (workshop.world.owner_log, workshop.world.auditor_log):
        summary = verify_log(folder, workshop.policy, keep_leaves=False)
        found += monitor.read_entries(files.folder_fetch(folder), summary, workshop.trust)
    return found


def watch(
    workshop: "Workshop", forged: "Forged", parameters: Parameters, generator: np.random.Generator
) -> monitor.Watched:
    """A receipt for the honest bundle, then a commitment in which records of it are again."""
    world, report = workshop.world, forged.bundle.parent / "report"
    inputs = workshop.inputs(forged, profile=parse_profile(QUICK.encode()))
    audit.write_report(inputs, audit.examine(inputs), report, force=True)
    world.witness(world.auditor_log)
    must("prune-auditor", "receipt", report, "--log", world.auditor_log)
    receipt = next((report / "receipts").glob("*.receipt"))
    forgotten = monitor.forgotten_records(
        [("receipt", receipt.read_bytes())], policy=workshop.policy, trust=workshop.trust
    )
    workspace = Workspace(folder=world.root / "commitment")
    again = dataclasses.replace(workspace.commitment, committed_at=world.clock.now)
    envelope = sign(again.payload(), load_signing_key(world.key("owner")))
    logged = append(world.owner_log, envelope)
    returned = sorted(forgotten)[: parameters.records]
    rows = list(workspace.rows_of(tuple(returned)))
    if not rows:
        count = len(workspace.records.labels)
        rows = [row for row in range(count) if workspace.commitments_of([row])[0] not in forgotten][:3]
    slip = openings.serialise_slip(
        openings.Slip(openings=tuple(workspace.open_rows(rows)), commitment=envelope, commitment_proof=logged)
    )
    world.witness(world.owner_log)
    return monitor.watch(entries(workshop), now=0, forgotten=forgotten, slips=[("slip", slip)])


ADVERSARY = Adversary(
    threat="re-ingestion",
    check="monitor",
    honest=Parameters(records=0),
    sweep=(Parameters(records=1), Parameters(records=3)),
    limit=1.0,
    limit_text="one record whose slip of the later commitment somebody shows",
    watch=watch,
)
