"""What this auditor remembers of a log, against what it is shown now.

Proves: a conflict means two checkpoints, both signed by the log, that no append-only log can both have; both
are kept as evidence. First contact proves nothing about what came before it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from auditor.case import Case
from auditor.files import write_atomic
from protocol.errors import Error, MalformedError
from protocol.log import source
from protocol.log.checkpoint import MAX_CHECKPOINT, Checkpoint
from protocol.log.files import Fetch
from protocol.log.policy import Policy
from protocol.log.source import Place
from protocol.log.tree import TileTree
from protocol.log.verify import CHECKPOINT, verify_log, verify_served
from protocol.log.witness import Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The comparison's result.

    Args:
        conflicts: pairs of threat and message, each proven by two signed checkpoints.
        notes: sentences on what could not be compared.
        evidence: the signed checkpoints of conflicts, by file name.
    """

    conflicts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    evidence: tuple[tuple[str, bytes], ...] = ()


def _signed(data: bytes, policy: Policy, where: str) -> Checkpoint:
    try:
        return policy.verify_checkpoint(data).checkpoint
    except Error as error:
        raise error.at(where) from None


def _witnessed(data: bytes, policy: Policy) -> bool:
    return policy.quorum == "none" or policy.verify_checkpoint(data).quorum_met


def compare(case: Case, proofs: dict[str, bytes], *, state: Path | None, owner_log: Place | None) -> History:
    """Compare the bundle's checkpoints of the owner's log with each other, the memory and the log itself.

    Args:
        case: the bundle; its checkpoints are verified.
        proofs: the signed checkpoints of the bundle's proofs, by name.
        state: where checkpoints are remembered; None remembers nothing.
        owner_log: the owner's log, a folder or an address, if it can be read.

    Raises:
        Error: the log folder or the state is damaged.
    """
    if owner_log is None:
        return _compare(case, proofs, state, None, None)
    with source.reading(owner_log) as fetch:
        return _compare(case, proofs, state, owner_log, fetch)


def _compare(
    case: Case, proofs: dict[str, bytes], state: Path | None, owner_log: Place | None, fetch: Fetch | None
) -> History:
    entry = case.certificate_logged.entry
    assert entry is not None
    origin = entry.checkpoint.origin
    known: dict[str, tuple[bytes, Checkpoint]] = {}
    for name, data in proofs.items():
        signed = _signed(data, case.policy, f"proofs/{name}.tlog-proof")
        if signed.origin == origin:
            known[f"bundle-{name}"] = (data, signed)
    remembered = Memory(folder=state).remembered(origin) if state is not None else None
    if remembered is not None:
        kept = Memory(folder=state).place(origin) / "checkpoint" if state is not None else Path("checkpoint")
        known["remembered"] = (remembered, _signed(remembered, case.policy, str(kept)))
    current: tuple[bytes, Checkpoint] | None = None
    tree: TileTree | None = None
    if fetch is not None:
        published = fetch(CHECKPOINT, MAX_CHECKPOINT)
        if published is None:
            raise MalformedError("is missing; is this a log's folder?", where=f"{owner_log}/checkpoint")
        current = (published, _signed(published, case.policy, f"{owner_log}/checkpoint"))
        known["current"] = current
        tree = TileTree(fetch, current[1].size)

    conflicts: list[tuple[str, str]] = []
    evidence: dict[str, bytes] = {}
    notes: list[str] = []

    def conflict(threat: str, message: str, *names: str) -> None:
        conflicts.append((threat, message))
        evidence.update({f"{name}.checkpoint": known[name][0] for name in names})

    by_size: dict[int, str] = {}
    for name, (_, signed) in known.items():
        other = by_size.setdefault(signed.size, name)
        if known[other][1].root != signed.root:
            threat = "rollback" if "remembered" in (name, other) else "equivocation"
            conflict(threat, f"two different roots for the size {signed.size}", other, name)
    if current is not None and tree is not None and not conflicts:
        for name, (_, signed) in known.items():
            if signed.size > current[1].size:
                notes.append(f"The log folder has {current[1].size} entries, {signed.size} were signed for before.")
            elif signed.size > 0 and tree.root_at(signed.size) != signed.root:
                # Damage in transit must not become an accusation: every file has to lead to the signed checkpoint.
                if isinstance(owner_log, Path):
                    verify_log(owner_log, case.policy, origin=origin)
                elif fetch is not None:
                    verify_served(fetch, case.policy, origin=origin, keep_leaves=False)
                threat = "rollback" if name == "remembered" else "equivocation"
                conflict(
                    threat,
                    f"the log's first {signed.size} entries are not those that it signed for before",
                    name,
                    "current",
                )
    elif remembered is not None and not conflicts:
        # Older checkpoints beside the one that is remembered are as on first contact: the witnesses compared them.
        offered = max(signed.size for name, (_, signed) in known.items() if name != "remembered")
        if offered > known["remembered"][1].size:
            notes.append(
                "The log has grown since this auditor last saw it; give --owner-log to check that it only grew."
            )
        elif offered < known["remembered"][1].size:
            notes.append(
                "This auditor has seen more of the log than the bundle shows; give --owner-log to compare the two."
            )
    # Nor to one that the quorum has not cosigned: nobody else may ever be shown it.
    known = {name: pair for name, pair in known.items() if name == "remembered" or _witnessed(pair[0], case.policy)}
    if state is not None and not conflicts and known:
        # What is remembered moves on only to a checkpoint that was shown to extend it: else a forked log, offered
        # with an older folder, would make this auditor forget the history that contradicts it.
        largest = max(signed.size for _, signed in known.values())
        if remembered is None:
            newest = max(known.values(), key=lambda pair: pair[1].size)
            write_atomic(Memory(folder=state).place(origin) / "checkpoint", newest[0])
        elif current is not None and "current" in known and current[1].size == largest:
            write_atomic(Memory(folder=state).place(origin) / "checkpoint", current[0])
    elif state is not None and conflicts:
        place = Memory(folder=state).place(origin) / "evidence"
        mark = hashlib.sha256(b"".join(evidence.values())).hexdigest()[:16]
        for name, data in evidence.items():
            write_atomic(place / mark / name, data)
    return History(conflicts=tuple(conflicts), notes=tuple(notes), evidence=tuple(sorted(evidence.items())))
