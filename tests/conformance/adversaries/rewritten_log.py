"""A log with the owner's key that is not the one that was shown before: what rollback and equivocation share."""

from pathlib import Path
from typing import TYPE_CHECKING

from protocol.keys import load_signing_key
from protocol.log.store import Log
from tests.demo.world import OWNER_LOG

if TYPE_CHECKING:
    from tests.auditor.workshop import Workshop


def fork(workshop: "Workshop", folder: Path, *, changed: int) -> Path:
    """The owner's log, of the same size, with its last `changed` entries replaced."""
    key = load_signing_key(workshop.world.key(OWNER_LOG))
    entries = list(Log.open(workshop.world.owner_log).entries())
    entries[len(entries) - changed :] = [b"another %d" % number for number in range(changed)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    Log.create(folder, key)
    Log.open(folder).append(entries, key)
    return folder
