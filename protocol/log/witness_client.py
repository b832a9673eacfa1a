"""A log asks a witness over HTTP to cosign its checkpoint, and keeps the lines that come back.

Proves: the lines put into the checkpoint verify under keys that the caller trusts; nothing else that the
witness sends is kept. Assumes that the log's folder is the caller's own. What the witness remembers is its
own business: if it has seen more of this log than the folder holds, the folder has lost entries.
Source: C2SP tlog-witness v1.0.0 (the client's side). SPEC 5.8.
"""

from collections.abc import Sequence
from pathlib import Path

from protocol.errors import EncodingError, Error, MalformedError, Rollback, UnknownKey, VerificationError
from protocol.keys import VerifierKey
from protocol.log import checkpoint, cosignature, files, note, witness_http
from protocol.log.checkpoint import MAX_CHECKPOINT
from protocol.log.http import Client
from protocol.log.store import Log
from protocol.log.verify import CHECKPOINT

_PATH = "add-checkpoint"
_CONFLICT = 409


def _remembered(body: bytes, size: int) -> int:
    try:
        found = checkpoint.parse_decimal(body.decode("ascii").removesuffix("\n"), what="witness's size")
    except (UnicodeDecodeError, MalformedError):
        raise MalformedError("the witness's answer 409 carries no size", where=_PATH) from None
    if found > size:
        raise Rollback(f"the witness has seen {found} entries of this log, the folder has {size}", where=_PATH)
    return found


def submit(log_path: Path, client: Client, keys: Sequence[VerifierKey]) -> bytes:
    """Have the published checkpoint cosigned and put the lines into it, in place of older ones by the same keys.

    Args:
        log_path: the log's folder.
        client: for the witness's submission prefix.
        keys: the witness's keys, from the policy.

    Returns:
        The checkpoint with all its signatures, as published now.

    Raises:
        MalformedError: no answer, or one that cannot be read.
        Rollback: the witness has seen more of this log than there is.
        VerificationError: the witness refuses.
        UnknownKey: no line of the answer is by one of `keys`.
        BadSignature: a line by one of them does not verify.
        Error: the log has grown meanwhile; or as `files.locked` says.
    """
    log = Log.open(log_path)
    signed, head = checkpoint.parse_signed(log.checkpoint_bytes())
    own = note.Note(text=signed.text, signatures=tuple(s for s in signed.signatures if s.name == head.origin))
    old, status, body = 0, 0, b""
    for _ in range(2):  # the first answer may say what the witness remembers
        request = witness_http.Request(
            old_size=old,
            proof=log.prove_consistency(old, head.size) if old else (),
            checkpoint_note=own.to_bytes(),
        )
        status, body, _ = client.ask("POST", _PATH, limit=MAX_CHECKPOINT, body=witness_http.to_bytes(request))
        if status != _CONFLICT:
            break
        old = _remembered(body, head.size)
    if status != 200:
        reason = body[:200].decode("utf-8", "replace").strip()
        raise VerificationError(f"the witness refuses with HTTP status {status}: {reason}", where=_PATH)
    try:
        offered = note.parse(signed.text + b"\n" + body).signatures
    except MalformedError as error:
        error.at(_PATH)
        raise
    lines = [line for line in offered if any(line.is_by(key) for key in keys)]
    if not lines:
        raise UnknownKey("no line of the answer is by a key of this witness", where=_PATH)
    for line in lines:
        for key in keys:
            if line.is_by(key):
                cosignature.verify(line, key, signed.text)
    with files.locked(log_path):
        published, _ = checkpoint.parse_signed(log.checkpoint_bytes())
        if published.text != signed.text:
            raise Error("the log has grown meanwhile; ask again", where=str(log_path))
        for line in lines:
            published = published.with_signature(line)
        data = published.to_bytes()
        if len(data) > MAX_CHECKPOINT:
            raise EncodingError(f"no room for another signature in {MAX_CHECKPOINT} bytes")
        files.write_atomic(log_path / CHECKPOINT, data, temporary=files.beside(log_path, "tmp"))
    return data
