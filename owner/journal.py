"""The owner's side of its transparency log: append an envelope, keep the proof, refresh it later.

The log's signing key lies beside the log folder (`<LOG>.key`, readable by its owner only), where
`log-init` put it: the key that signs checkpoints is never the key that signs statements.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from owner.files import begin_folder, check_free, given_up, read_file, write_atomic
from protocol import envelope as dsse
from protocol.errors import Error, OwnerError, UnknownKey
from protocol.keys import SigningKey, load_signing_key
from protocol.log import checkpoint, merkle, note, proof
from protocol.log.proof import MAX_TLOG_PROOF
from protocol.log.store import Log

LISTED = ".leaves.json"
PROOF = ".tlog-proof"


def log_key_path(log: Path) -> Path:
    """Where the log's own signing key lies."""
    return log.with_name(log.name + ".key")


def leaf_of(envelope: bytes) -> str:
    """The name of a logged envelope in other messages: its RFC 6962 leaf hash in hexadecimal."""
    return merkle.leaf_hash(envelope).hex()


def sign(payload: bytes, key: SigningKey) -> bytes:
    """Envelope bytes over a statement.

    Raises:
        OwnerError: the key is not a statement key, or the message cannot be logged.
    """
    try:
        return dsse.sign(payload, [key])
    except Error as error:
        raise OwnerError(error.message) from None


@contextlib.contextmanager
def _of(log: Path) -> Iterator[None]:
    # Whatever goes wrong with a log, a full disk included, is told as one line that names it.
    try:
        yield
    except Error as error:
        raise OwnerError(error.message, where=error.where or str(log)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise OwnerError(f"the log cannot be written: {reason}", where=str(log)) from None


def check_log(log: Path, key: SigningKey) -> None:
    """Look at log and keys before long work starts, so that it is not in vain.

    Args:
        log: the owner's log.
        key: the owner's statement key.

    Raises:
        OwnerError: no such log, not signed by the key beside it, or `key` is the log's own.
    """
    with _of(log):
        own = load_signing_key(log_key_path(log))
        signed, _ = checkpoint.parse_signed(Log.open(log).checkpoint_bytes())
        try:
            note.verify(signed, [own.verifier])
        except UnknownKey:
            raise OwnerError(
                f"is not the key of this log; it is named {own.name}", where=str(log_key_path(log))
            ) from None
    if own.verifier.public == key.verifier.public:
        raise OwnerError("the statement key is the log's own key; make another one (keygen --use statement)")


def append(log: Path, envelope: bytes, *, once: bool = False) -> bytes:
    """Log an envelope and return the proof of its inclusion at the new checkpoint.

    Args:
        log: the owner's log.
        envelope: what to log.
        once: if the log holds exactly these bytes already, only prove that.

    Raises:
        OwnerError: no such log, no key for it, or it cannot be written.
    """
    with _of(log):
        key = load_signing_key(log_key_path(log))
        store = Log.open(log)
        if once and (place := find(log, envelope)) is not None:
            return proof.to_bytes(store.prove_inclusion(place))
        index = store.append([envelope], key)[0]
        return proof.to_bytes(store.prove_inclusion(index))


def find(log: Path, envelope: bytes) -> int | None:
    """The index of an envelope in the log, or None.

    Raises:
        OwnerError: no such log.
    """
    with _of(log):
        leaves = Log.open(log).leaf_hashes()
    leaf = merkle.leaf_hash(envelope)
    return leaves.index(leaf) if leaf in leaves else None


def logged_entry(log: Path, leaf: str) -> bytes | None:
    """The entry of a name in the log, byte for byte; None if there is none.

    Args:
        log: the owner's log.
        leaf: its leaf hash in hexadecimal.

    Raises:
        OwnerError: no such log, or it is damaged.
    """
    with _of(log):
        store = Log.open(log)
        names = [value.hex() for value in store.leaf_hashes()]
        return store.entry(names.index(leaf)) if leaf in names else None


def logged_entries(log: Path) -> Iterator[bytes]:
    """Every entry of the log, in its order.

    Raises:
        OwnerError: no such log, or it is damaged.
    """
    with _of(log):
        yield from Log.open(log).entries()


def publish_message(
    out: Path, envelope: bytes, log: Path, *, beside: Mapping[str, bytes], force: bool, once: bool = False
) -> bytes:
    """Log a message and write it with its proof, and what else belongs beside it; return the proof.

    All is on disk under another name before it is logged, so that a full disk loses no logged message.

    Args:
        out: the message's file; the others have its name with another suffix.
        envelope: the message.
        log: the owner's log.
        beside: content by suffix.
        force: overwrite.
        once: it may be in the log already.

    Raises:
        OwnerError: a file is there already, or something cannot be written.
    """
    check_message_free(out, force=force)
    stage = begin_folder(out)
    contents = {"": envelope, **beside}
    with given_up(stage):
        for suffix, data in contents.items():
            write_atomic(stage / f"file{suffix}", data)
        contents[PROOF] = append(log, envelope, once=once)
    try:
        write_atomic(stage / f"file{PROOF}", contents[PROOF])
        for suffix in contents:
            (stage / f"file{suffix}").replace(out.with_suffix(suffix) if suffix else out)
    except (OwnerError, OSError) as error:
        reason = error.message if isinstance(error, OwnerError) else error.strerror
        raise OwnerError(
            f"was logged, but cannot be put in place: {reason}; it is in {stage}", where=str(out)
        ) from None
    shutil.rmtree(stage, ignore_errors=True)
    return contents[PROOF]


def check_message_free(out: Path, *, force: bool) -> None:
    """Refuse a message's place if it or what goes beside it is taken.

    Raises:
        OwnerError: see there.
    """
    for place in (out, out.with_suffix(LISTED), out.with_suffix(PROOF)):
        check_free(place, force=force)


def refreshed(log: Path, old: bytes) -> bytes:
    """The proof `old` anew, at the log's current checkpoint, if that has more cosignatures than the proof's.

    A proof from another log is returned unchanged, and so is one that is cosigned as well: its witness times are
    the earlier ones, and they are what deadlines and revocations are measured by.

    Raises:
        OwnerError: no such log, or it is not the continuation of what the proof was made in.
    """
    with _of(log):
        store = Log.open(log)
        known = proof.parse(old)
        signed, then = checkpoint.parse_signed(known.checkpoint_note)
        if then.origin != store.origin:
            return old
        if store.size < then.size or store.root_at(then.size) != then.root:
            raise OwnerError(f"the log no longer leads from its {then.size} entries of before; was it rewritten?")
        fresh = store.prove_inclusion(known.index)
        # A later checkpoint has later witness times: worth taking only for cosignatures that the old one lacks.
        now, _ = checkpoint.parse_signed(fresh.checkpoint_note)
        return proof.to_bytes(fresh) if len(now.signatures) > len(signed.signatures) else old


def read_proof(path: Path) -> bytes | None:
    """A proof file beside a message, if there is one."""
    return read_file(path, limit=MAX_TLOG_PROOF) if path.is_file() else None
