"""The log is rewritten after the auditor has seen it, and the bundle's proofs are made anew from what it is now."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor import audit, case, history, trusted
from owner.journal import append
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.rewritten_log import fork
from tests.demo.world import must

if TYPE_CHECKING:
    from tests.auditor.workshop import Forged, Workshop


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many of the last entries are replaced."""

    entries: int

    @property
    def strength(self) -> float:
        return float(self.entries)


def _remember(inputs: audit.Inputs) -> None:
    # What an earlier audit would have left behind, without running its checks.
    policy, trust = trusted.read(inputs.policy, inputs.trust)
    loaded = case.load(inputs.bundle, policy=policy, trust=trust, own_proofs=inputs.ledger.proofs())
    history.compare(loaded, audit._checkpoints(inputs.bundle), state=inputs.state, owner_log=inputs.owner_log)


def around(
    workshop: "Workshop", forged: "Forged", parameters: Parameters, generator: np.random.Generator
) -> Mapping[str, Any]:
    """The auditor remembers the log as it stands; what it is shown now is another one."""
    state = forged.bundle.parent / "state"
    for number in range(parameters.entries):
        append(workshop.world.owner_log, b"entry %d of something else" % number)
    workshop.demo.settle(forged.bundle, forged.openings)
    _remember(workshop.inputs(forged, state=state, owner_log=workshop.world.owner_log))
    if not parameters.entries:
        # In this world's log other certificates stand beside, which leaves binding open for whoever reads all of it.
        return {"state": state}
    log = fork(workshop, forged.bundle.parent / "fork", changed=parameters.entries)
    bundle = forged.bundle.parent / "again"
    shutil.copytree(forged.bundle, bundle)
    must("prune-owner", "publish", bundle, "--log", log)
    return {"bundle": bundle, "state": state, "owner_log": log}


ADVERSARY = Adversary(
    threat="rollback",
    check="inclusion",
    honest=Parameters(entries=0),
    sweep=(Parameters(entries=1), Parameters(entries=5)),
    limit=1.0,
    limit_text="one entry, once the auditor has seen the log",
    around=around,
)
