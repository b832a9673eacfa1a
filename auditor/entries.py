"""What logs hold, read again after they were verified: messages of the watched kinds, by whom the trust file allows.

Assumes that the log was verified (`protocol.log.verify`). Whether a key was valid at the time is not asked here, since
a log read later does not say when its entries were seen. Source: SPEC 13.4.15.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from auditor.ledger import leaf_of
from protocol import envelope as dsse
from protocol import messages
from protocol.errors import DigestMismatch, MalformedError, VerificationError
from protocol.log import merkle, source
from protocol.log.checkpoint import MAX_CHECKPOINT
from protocol.log.files import Fetch
from protocol.log.policy import Policy
from protocol.log.source import Place
from protocol.log.tiles import WIDTH
from protocol.log.tree import TileTree
from protocol.log.verify import CHECKPOINT
from protocol.messages.certificate import Certificate
from protocol.messages.challenge import Answer, Challenge
from protocol.messages.commitment import Commitment
from protocol.messages.opening import Acknowledgement, Opening
from protocol.messages.report import Report
from protocol.messages.request import Request
from protocol.trust import Role, Trust

_KINDS: dict[str, tuple[Any, tuple[Role, ...]]] = {
    Commitment.PREDICATE: (Commitment, ("owner",)),
    Certificate.PREDICATE: (Certificate, ("owner",)),
    Request.PREDICATE: (Request, ("requester", "owner")),
    Opening.PREDICATE: (Opening, ("auditor",)),
    Challenge.PREDICATE: (Challenge, ("auditor",)),
    Acknowledgement.PREDICATE: (Acknowledgement, ("owner",)),
    Answer.PREDICATE: (Answer, ("owner",)),
    Report.PREDICATE: (Report, ("auditor",)),
}


class Tree(Protocol):
    """What a verified log or checkpoint says."""

    @property
    def origin(self) -> str:
        """The log."""
        ...

    @property
    def size(self) -> int:
        """How many entries it has."""
        ...

    @property
    def root(self) -> bytes:
        """Its root."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A logged message of a kind that is watched, signed by somebody who may sign it in that log.

    Args:
        origin: the log.
        index: its place there.
        leaf: its name in other messages.
        message: as parsed.
    """

    origin: str
    index: int
    leaf: str
    message: Any


def _signed(data: bytes, origin: str, trust: Trust) -> Any:
    # The message, or None if it is of no watched kind or nobody who may sign it in this log did.
    try:
        envelope = dsse.parse(data)
        kind, roles = _KINDS[messages.predicate_of(envelope)]
        allowed = [s.key for s in trust.signers if s.role in roles and origin in s.logs]
        dsse.verify(envelope, allowed)
        return messages.read(data, kind)[1]
    except (KeyError, MalformedError, VerificationError):
        return None


def read_entries(fetch: Fetch, summary: Tree, trust: Trust) -> list[Entry]:
    """All watched messages of a log that was verified, read again and held against its root.

    Args:
        fetch: reads the log's files.
        summary: what `verify_log` or `verify_served` found.
        trust: whose signatures count for which role.

    Raises:
        DigestMismatch: the log's files changed since they were verified.
        MalformedError: a file is missing or not of its form.
    """
    tree = TileTree(fetch, summary.size)
    found, roots = [], []
    for number in range(-(-summary.size // WIDTH)):
        entries = tree.entries(number)
        roots.append(merkle.root_from_hashes(merkle.leaf_hashes(entries)))
        for place, data in enumerate(entries):
            message = _signed(data, summary.origin, trust)
            if message is not None:
                index = number * WIDTH + place
                found.append(Entry(origin=summary.origin, index=index, leaf=leaf_of(data), message=message))
    if merkle.root_from_hashes(roots) != summary.root:
        raise DigestMismatch("changed while it was being read", where=summary.origin)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A log's entries as of a signed checkpoint.

    Args:
        entries: the watched messages.
        time: the quorum's witness time of the checkpoint, if there is one.
        witnessed: whether the policy's quorum cosigned it.
        size: how many entries the log had.
        origin: its name.
    """

    entries: tuple[Entry, ...]
    time: int | None
    witnessed: bool
    size: int
    origin: str


def look(place: Place, *, policy: Policy, trust: Trust) -> Looked:
    """Read a log up to its signed checkpoint.

    Raises:
        Error: no checkpoint of a trusted log, or files that do not lead to it.
    """
    with source.reading(place) as fetch:
        published = fetch(CHECKPOINT, MAX_CHECKPOINT)
        if published is None:
            raise MalformedError("is missing; is this a log's folder?", where=f"{place}/{CHECKPOINT}")
        verified = policy.verify_checkpoint(published)
        tree = verified.checkpoint
        return Looked(
            entries=tuple(read_entries(fetch, tree, trust)),
            time=verified.time,
            witnessed=verified.quorum_met,
            size=tree.size,
            origin=tree.origin,
        )
