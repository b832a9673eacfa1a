"""The owner signs a request in the name of a subject that never asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from owner.journal import append, sign
from owner.workspace import Workspace
from protocol.digests import sha256_hex
from protocol.keys import load_signing_key
from protocol.messages.request import Request, Scope, serialise_list
from protocol.records import list_root
from tests.conformance.adversaries.adversary import Adversary

if TYPE_CHECKING:
    from tests.auditor.workshop import Workshop


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """About how many records, and whether the request says truly that the owner signed it on somebody's behalf."""

    records: int
    on_behalf: bool = False

    @property
    def strength(self) -> float:
        return 0.0 if self.on_behalf else float(self.records)


def sign_request(workshop: "Workshop", rows: list[int], *, on_behalf: bool, logged: bool = True) -> Path:
    """A request signed by the owner's key; its envelope, list and (where it is logged) proof lie beside each other."""
    world = workshop.world
    workspace = Workspace(folder=world.root / "commitment")
    listed = tuple(sorted(workspace.commitments_of(rows)))
    request = Request(
        subject=sha256_hex(workspace.envelope), scope=Scope(kind="records"), records_root=list_root(listed),
        record_count=len(listed), on_behalf=on_behalf, requested_at=world.clock.now, deadline=None,
    )  # fmt: skip
    workshop.count += 1
    path = world.root / "requests" / f"signed-{workshop.count}.json"
    path.write_bytes(sign(request.payload(), load_signing_key(world.key("owner"))))
    path.with_suffix(".leaves.json").write_bytes(serialise_list(listed))
    if logged:
        path.with_suffix(".tlog-proof").write_bytes(append(world.owner_log, path.read_bytes()))
    return path


def usual_rows(workshop: "Workshop") -> list[int]:
    """The rows of the usual request: so many that attacks can be read on them."""
    workspace = Workspace(folder=workshop.world.root / "commitment")
    from protocol import messages
    from protocol.messages.request import Request as Asked

    _, request = messages.read(workshop.records.read_bytes(), Asked)
    from protocol.messages.request import parse_list

    listed = parse_list(workshop.records.with_suffix(".leaves.json").read_bytes(), request, where="leaves")
    return list(workspace.rows_of(listed))


def ask(workshop: "Workshop", parameters: Parameters, generator: np.random.Generator) -> Path:
    """See the module."""
    rows = usual_rows(workshop)[: parameters.records]
    return sign_request(workshop, rows, on_behalf=parameters.on_behalf)


ADVERSARY = Adversary(
    threat="forged-request",
    check="authenticity",
    honest=Parameters(records=10**6, on_behalf=True),
    sweep=(Parameters(records=1), Parameters(records=10**6)),
    limit=1.0,
    limit_text="one request",
    ask=ask,
)
