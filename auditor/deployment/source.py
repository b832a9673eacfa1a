"""Where answers come from: an endpoint that can be asked now, or the journal of one that was."""

from dataclasses import dataclass
from pathlib import Path

from auditor.deployment import endpoint as endpoint_file
from auditor.deployment import journal as journals
from auditor.deployment.client import Transport
from auditor.deployment.endpoint import Endpoint
from auditor.deployment.journal import Journal
from auditor.deployment.pacing import Pace
from auditor.files import read_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """An endpoint to ask now.

    Args:
        endpoint: whom.
        transport: over which wire.
        pace: the clock and the waiting.
        state: the journal's file.
        resume: whether an interrupted run may be taken up.
        spent: why nothing may be asked any more; empty if it may.
    """

    endpoint: Endpoint
    transport: Transport
    pace: Pace
    state: Path
    resume: bool = False
    spent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A journal of an endpoint that was asked before: a report's, or one that was interrupted."""

    journal: Journal
    endpoint: Endpoint

    @classmethod
    def of(cls, data: bytes, *, where: str) -> "Recorded":
        """Read a journal.

        Raises:
            MalformedError: not one, or of no endpoint.
        """
        journal = journals.parse(data, where=where)
        return cls(journal=journal, endpoint=endpoint_file.from_value(journal.endpoint, where=where))


def read(path: Path) -> Journal:
    """Read a journal's file.

    Raises:
        MalformedError: not one.
    """
    return journals.parse(read_file(path, limit=journals.MAX_FILE), where=str(path))


__all__ = ["Live", "Recorded", "read"]
