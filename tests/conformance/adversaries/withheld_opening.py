"""Challenged records are not opened: some of them, or none at all until the deadline is over."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from owner.files import write_atomic
from owner.journal import append, leaf_of, sign
from owner.workspace import Workspace
from protocol import manifest, messages, openings
from protocol.digests import sha256_hex
from protocol.keys import load_signing_key
from protocol.messages.challenge import Answer, Challenge
from tests.conformance.adversaries.adversary import Adversary

if TYPE_CHECKING:
    from tests.auditor.workshop import Forged, Workshop

LATE = 80 * 3600


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many of the challenged records stay closed (None: all, there is no answer)."""

    withheld: int | None

    @property
    def strength(self) -> float:
        return 1e9 if self.withheld is None else float(self.withheld)


def around(
    workshop: "Workshop", forged: "Forged", parameters: Parameters, generator: np.random.Generator
) -> Mapping[str, Any]:
    """A signed and logged answer with fewer records than were drawn."""
    if parameters.withheld is None:
        # A deadline has passed when witnesses have seen the log after it; the auditor's own clock shows nothing.
        workshop.world.clock.now += LATE
        workshop.world.witness(workshop.world.auditor_log)
        return {"openings": None}
    world, folder = workshop.world, forged.bundle.parent / "answer"
    data = (forged.bundle.parent / "challenge.json").read_bytes()
    _, challenge = messages.read(data, Challenge)
    workspace = Workspace(folder=world.root / "commitment")
    opened = workspace.open_indices([int(index) for index in challenge.indices()])
    opened = opened[parameters.withheld :]
    features = workspace.records.values.shape[1]
    write_atomic(folder / "openings.npz", openings.serialise(opened, features=features))
    listing = manifest.build(folder, [("openings.npz", "opening")], refers=leaf_of(data))
    write_atomic(folder / "manifest.json", listing.raw)
    statement = Answer(
        subject=sha256_hex(listing.raw), challenge=leaf_of(data), opened=len(opened), answered_at=world.clock.now
    )
    envelope = sign(statement.payload(), load_signing_key(world.key("owner")))
    write_atomic(folder / "answer.dsse.json", envelope)
    write_atomic(folder / "proofs" / "answer.tlog-proof", append(world.owner_log, envelope))
    workshop.demo.settle(folder)
    return {"openings": folder}


ADVERSARY = Adversary(
    threat="withheld-opening",
    check="challenge",
    honest=Parameters(withheld=0),
    sweep=(Parameters(withheld=1), Parameters(withheld=50), Parameters(withheld=None)),
    limit=1.0,
    limit_text="one record; INCONCLUSIVE by design: who does not answer is not shown to lie",
    expected="INCONCLUSIVE",
    answered=False,
    around=around,
)
