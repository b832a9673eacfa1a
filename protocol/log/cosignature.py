"""Witness cosignatures: "at this time, this was the largest tree of this log that I had seen".

Proves: the witness saw the checkpoint at (by its own clock) the given time, and it was an extension of
all that it saw before. Assumes that the witness is honest and its clock is right; a policy asks for
several. Type 0x04 (Ed25519) signs the checkpoint's text; type 0x06 (ML-DSA-44) signs origin, size and
root, not the extension lines, and binds the witness's name. Cosignatures of parts of a tree are not made.
Source: C2SP tlog-cosignature v1.0.1 (0x04) and v1.1.0-rc.1 (0x06). SPEC 5.3.
"""

from protocol.errors import BadSignature, EncodingError, MalformedError
from protocol.keys import COSIGNATURE_ML_DSA, WITNESS_TYPES, SigningKey, VerifierKey
from protocol.log import checkpoint
from protocol.log.checkpoint import Checkpoint
from protocol.log.note import Signature

MAX_TIME = 2**63 - 1
_TIME_SIZE = 8
_SIGNATURE_SIZE = 64
_ML_DSA_SIGNATURE_SIZE = 2420
_LABEL = b"subtree/v1\n\0"
MAX_ORIGIN = 255
"""Bytes of a log's origin that a cosignature of type 0x06 can speak of."""


def message(text: bytes, time: int) -> bytes:
    """The bytes that a witness signs with a key of type 0x04.

    Args:
        text: the checkpoint's text, with its last newline.
        time: POSIX seconds.
    """
    return f"cosignature/v1\ntime {time}\n".encode() + text


def tree_message(head: Checkpoint, name: str, time: int) -> bytes:
    """The bytes that a witness signs with a key of type 0x06: `cosigned_message`, for the whole tree.

    Args:
        head: the checkpoint; its extension lines are not signed.
        name: the witness's key name.
        time: POSIX seconds, below 2^64.

    Raises:
        EncodingError: an origin over 255 bytes, which this type cannot speak of.
    """
    cosigner, origin = name.encode(), head.origin.encode()
    if len(origin) > MAX_ORIGIN:
        raise EncodingError(f"an origin of {len(origin)} bytes; a cosignature of type 0x06 has room for {MAX_ORIGIN}")
    return b"".join(
        [
            _LABEL,
            len(cosigner).to_bytes(1, "big") + cosigner,
            time.to_bytes(_TIME_SIZE, "big"),
            len(origin).to_bytes(1, "big") + origin,
            (0).to_bytes(8, "big") + head.size.to_bytes(8, "big"),
            head.root,
        ]
    )


def _message(text: bytes, key: VerifierKey, time: int) -> bytes:
    if key.use != COSIGNATURE_ML_DSA:
        return message(text, time)
    return tree_message(checkpoint.parse(text), key.name, time)


def sign(text: bytes, key: SigningKey, time: int) -> Signature:
    """Cosign a checkpoint's text. The caller has checked that it extends what was cosigned before.

    Args:
        text: the checkpoint's text.
        key: a witness key of either type.
        time: POSIX seconds, 1 to 2^63 - 1.

    Raises:
        EncodingError: not a witness key, not a checkpoint (or one that the type cannot speak of), or a
            time out of range.
    """
    if key.use not in WITNESS_TYPES:
        raise EncodingError(f"the key {key.name!r} is not a witness key")
    if not 1 <= time <= MAX_TIME:
        raise EncodingError(f"the time {time} is not in 1..2^63 - 1")
    try:
        checkpoint.parse(text)
    except MalformedError as error:
        raise EncodingError(f"not a checkpoint: {error.message}") from None
    verifier = key.verifier
    value = time.to_bytes(_TIME_SIZE, "big") + key.sign(_message(text, verifier, time))
    return Signature(name=key.name, key_id=verifier.key_id, value=value)


def verify(signature: Signature, key: VerifierKey, text: bytes) -> int:
    """Check one cosignature line; the caller has matched name and key id (`Signature.is_by`).

    Args:
        signature: the line.
        key: the witness's key, of either type.
        text: the checkpoint's text, which parses.

    Returns:
        The witness's time, POSIX seconds, 1 to 2^63 - 1.

    Raises:
        BadSignature: wrong length, a time out of range, or it does not verify.
        EncodingError: not a witness key.
    """
    if key.use not in WITNESS_TYPES:
        raise EncodingError(f"the key {key.name!r} is not a witness key")
    size = _TIME_SIZE + (_ML_DSA_SIGNATURE_SIZE if key.use == COSIGNATURE_ML_DSA else _SIGNATURE_SIZE)
    if len(signature.value) != size:
        raise BadSignature(f"the cosignature of {key.name!r} does not have {size} bytes")
    time = int.from_bytes(signature.value[:_TIME_SIZE], "big")
    # Time 0 stands for "no statement about time" in the newer type; here it would prove any deadline met.
    if not 1 <= time <= MAX_TIME:
        raise BadSignature(f"the cosignature of {key.name!r} has no time")
    try:
        signed = _message(text, key, time)
    except EncodingError as error:
        raise BadSignature(f"the cosignature of {key.name!r} cannot be for this checkpoint: {error.message}") from None
    key.verify(signature.value[_TIME_SIZE:], signed)
    return time
