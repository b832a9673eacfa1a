"""A witness: remembers the largest checkpoint per log, and cosigns only what extends it.

Proves (to those who trust the witness): at the given time, this checkpoint extended all that the
witness had seen of the log. Assumes its state folder is kept; a witness that forgets is none.
Compare and store are one step under a lock, and what is stored is on disk before anything is signed.
The same memory serves a monitor. Source: C2SP tlog-witness v1.0.0 (the checks of add-checkpoint). SPEC 5.8.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.encoding import encode_base64
from protocol.errors import Consistency, DigestMismatch, EncodingError, Error, MalformedError, Rollback, UnknownKey
from protocol.keys import SigningKey, VerifierKey
from protocol.log import checkpoint, cosignature, files, merkle, note
from protocol.log.checkpoint import MAX_CHECKPOINT, Checkpoint
from protocol.log.files import Fetch
from protocol.log.policy import Policy
from protocol.log.store import Log
from protocol.log.tree import TileTree
from protocol.log.verify import CHECKPOINT, LogSummary, verify_log, verify_served


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The checkpoints seen last, one per log, in a folder.

    Args:
        folder: `<SHA-256 of the origin>/checkpoint` below it for each log, and `.../evidence/<id>/` with
            `remembered`, `offered` and `consistency` (root at the old size and proof, base64 lines) if a
            log ever offered something inconsistent.
    """

    folder: Path

    def place(self, origin: str) -> Path:
        """The folder for one log."""
        return self.folder / hashlib.sha256(origin.encode("utf-8")).hexdigest()

    def remembered(self, origin: str) -> bytes | None:
        """The checkpoint of this log seen last, with its signatures; None before first contact.

        Raises:
            MalformedError: the state folder is damaged.
        """
        path = self.place(origin) / "checkpoint"
        return files.read_file(path, limit=MAX_CHECKPOINT, where=str(path))

    def advance(self, offered: bytes, tree: TileTree, *, store: bool = True) -> None:
        """Store a checkpoint, whose signature the caller has verified, if it extends the one stored.

        Args:
            offered: the checkpoint with its signatures.
            tree: the log's tiles, at least as far as the offered size.
            store: whether to remember it; without, it is only compared with what is remembered.

        Raises:
            MalformedError: a tile is missing, or the state folder is damaged.
            DigestMismatch: the tiles do not belong to the offered checkpoint; nothing is shown against the log.
            Rollback: smaller than before; both are kept as evidence.
            Consistency: the log signed two histories; both checkpoints are kept as evidence.
        """
        _, new = checkpoint.parse_signed(offered)
        place = self.place(new.origin)
        with files.locked(place):
            if tree.root_at(new.size) != new.root:
                raise DigestMismatch("the tiles do not lead to the checkpoint", where=new.origin)
            stored = self.remembered(new.origin)
            if stored is not None:
                try:
                    _, old = checkpoint.parse_signed(stored)
                except Error as error:
                    error.at(str(place))
                    raise
                try:
                    _compare(old, new, tree)
                except (Rollback, Consistency) as error:
                    evidence = self._accuse(place, stored, offered, _shown(old, new, tree))
                    error.message += f"; both checkpoints are kept in {evidence}"
                    raise
            if store:
                files.write_atomic(place / "checkpoint", offered, temporary=files.beside(place, "tmp"))

    def replace(self, cosigned: bytes, old_size: int, proof: Sequence[bytes]) -> int | None:
        """Store a checkpoint if `old_size` is what is remembered and the proof connects the two; one step.

        Args:
            cosigned: the checkpoint with the log's signature, which the caller has verified, and the
                witness's own lines, which may leave the witness only after this.
            old_size: entries of the checkpoint that the sender believes to be remembered; 0 for none.
            proof: consistency proof from there.

        Returns:
            None if it is stored; otherwise the size that is remembered, with nothing changed.

        Raises:
            MalformedError: the state folder is damaged.
            Consistency: the proof does not hold. Two roots for one size are kept as evidence.
        """
        _, new = checkpoint.parse_signed(cosigned)
        place = self.place(new.origin)
        with files.locked(place):
            stored = self.remembered(new.origin)
            try:
                old = checkpoint.parse_signed(stored)[1] if stored is not None else None
            except MalformedError as error:
                error.at(str(place))
                raise
            size = old.size if old is not None else 0
            if size != old_size:
                return size
            if old is None or size == 0:
                if proof:
                    raise Consistency("a proof from the empty tree, which needs none", where=new.origin)
            else:
                if size == new.size and old.root != new.root and stored is not None:
                    self._accuse(place, stored, cosigned, b"")
                merkle.verify_consistency(size, old.root, new.size, new.root, proof)
            files.write_atomic(place / "checkpoint", cosigned, temporary=files.beside(place, "tmp"))
        return None

    @staticmethod
    def _accuse(place: Path, stored: bytes, offered: bytes, shown: bytes) -> str:
        # Keeps what proves that a log signed two histories; gives the folder. The name depends on the
        # signed texts alone, so that nobody fills a disk with one accusation under other signature lines.
        texts = [checkpoint.parse_signed(data)[0].text for data in (stored, offered)]
        evidence = place / "evidence" / hashlib.sha256(b"".join(texts)).hexdigest()[:16]
        for name, data in {"remembered": stored, "offered": offered, "consistency": shown}.items():
            files.write_atomic(evidence / name, data, temporary=files.beside(place, "tmp"))
        return str(evidence)


def _compare(old: Checkpoint, new: Checkpoint, tree: TileTree) -> None:
    if new.size < old.size:
        raise Rollback(f"{new.size} entries, {old.size} were there before", where=new.origin)
    if new.size == old.size:
        if new.root != old.root:
            raise Consistency(f"two roots for the size {new.size}", where=new.origin)
        return
    if old.size == 0:
        return  # every tree extends the empty one
    root = tree.root_at(old.size)
    try:
        merkle.verify_consistency(old.size, root, new.size, new.root, tree.consistency(old.size, new.size))
    except Consistency:
        raise DigestMismatch("the tiles contradict each other", where=new.origin) from None
    # The tiles show what the new checkpoint says of the old size; the log's signature said otherwise.
    if root != old.root:
        raise Consistency(f"the first {old.size} entries are not those that were there before", where=new.origin)


def _shown(old: Checkpoint, new: Checkpoint, tree: TileTree) -> bytes:
    # What links the two sizes, for others to check without the log: the root that the newer tree has at
    # the older size, then the consistency proof; one base64 line each. Empty where it would say nothing.
    if not 1 <= old.size < new.size:
        return b""
    values = [tree.root_at(old.size), *tree.consistency(old.size, new.size)]
    return "".join(f"{encode_base64(value)}\n" for value in values).encode()


def cosign(log_path: Path, key: SigningKey, state_dir: Path, now: int, *, log_key: VerifierKey) -> bytes:
    """Cosign a log's published checkpoint and put the line into it, in place of an older line of this witness.

    Args:
        log_path: the log's folder.
        key: the witness's key.
        state_dir: the witness's memory; it has to outlive every run.
        now: POSIX seconds.
        log_key: the log's key, from a source that the witness trusts.

    Returns:
        The checkpoint with all its signatures, as published now.

    Raises:
        UnknownKey: a checkpoint of another log, or not signed by `log_key`.
        BadSignature: its signature by `log_key` does not verify.
        Rollback, Consistency, DigestMismatch, MalformedError: see `Memory.advance`; nothing was signed.
        EncodingError: not a witness's key, a time out of range, or no room for another line.
    """
    # The log's lock first, then the memory's: one order everywhere, so two witnesses cannot wait for each other.
    with files.locked(log_path):
        log = Log.open(log_path)
        data = log.checkpoint_bytes()
        cosigned, offered = _cosigned(data, key, now, log_key)
        Memory(folder=state_dir).advance(data, TileTree(files.folder_fetch(log_path), offered.size))
        # A log whose writer was cut off is made whole, now that its checkpoint is known to be no older one.
        log.recover()
        files.write_atomic(log_path / "checkpoint", cosigned, temporary=files.beside(log_path, "tmp"))
    return cosigned


def cosign_served(fetch: Fetch, key: SigningKey, state_dir: Path, now: int, *, log_key: VerifierKey) -> bytes:
    """As `cosign`, of a log that is only read: over HTTP, for instance. Its operator has to fetch the line.

    Args:
        fetch: reads the log's files.
        key: as for `cosign`, like the further arguments and errors.
        state_dir: likewise.
        now: likewise.
        log_key: likewise.

    Returns:
        The checkpoint as read, with the witness's line.
    """
    data = fetch(CHECKPOINT, MAX_CHECKPOINT)
    if data is None:
        raise MalformedError("is missing; is this a log's folder?", where=CHECKPOINT)
    cosigned, offered = _cosigned(data, key, now, log_key)
    Memory(folder=state_dir).advance(data, TileTree(fetch, offered.size))
    return cosigned


def _cosigned(data: bytes, key: SigningKey, now: int, log_key: VerifierKey) -> tuple[bytes, Checkpoint]:
    # The checkpoint with a line by `key`, which may leave only once the memory has stored it.
    signed, offered = checkpoint.parse_signed(data)
    if offered.origin != log_key.name:
        raise UnknownKey(f"a checkpoint of the log {offered.origin[:80]!r}, not of {log_key.name!r}")
    note.verify(signed, [log_key])
    line = cosignature.sign(signed.text, key, now)
    cosigned = signed.with_signature(line).to_bytes()
    if len(cosigned) > MAX_CHECKPOINT:
        raise EncodingError(f"no room for another signature in {MAX_CHECKPOINT} bytes")
    return cosigned, offered


def watch(log_path: Path, policy: Policy, state_dir: Path, *, origin: str | None = None) -> LogSummary:
    """Check a log's whole folder and that it extends what was seen of the log before; remember it.

    A checkpoint that the policy's quorum has not cosigned is compared and not remembered: nothing shows that anybody
    else sees it, and a memory that followed it could not tell what everybody else is shown from a rollback.

    Args:
        log_path: the log's folder; nothing in it is written.
        policy: which log keys and witnesses count.
        state_dir: the monitor's memory.
        origin: the log that it has to be; any listed log if None.

    Raises:
        Error: as `verify_log` and `Memory.advance` say.
    """
    summary = verify_log(log_path, policy, origin=origin, keep_leaves=False)
    return _remember(summary, files.folder_fetch(log_path), state_dir, policy)


def watch_served(fetch: Fetch, policy: Policy, state_dir: Path, *, origin: str | None = None) -> LogSummary:
    """As `watch`, of a log that is read through `fetch`: over HTTP, for instance.

    Args:
        fetch: reads the log's files.
        policy: which log keys and witnesses count.
        state_dir: the monitor's memory.
        origin: the log that it has to be; any listed log if None.

    Raises:
        Error: as `verify_served` and `Memory.advance` say.
    """
    return _remember(verify_served(fetch, policy, origin=origin, keep_leaves=False), fetch, state_dir, policy)


def _remember(summary: LogSummary, fetch: Fetch, state_dir: Path, policy: Policy) -> LogSummary:
    seen = policy.quorum == "none" or summary.checkpoint.quorum_met
    Memory(folder=state_dir).advance(summary.checkpoint_note, TileTree(fetch, summary.size), store=seen)
    return summary
