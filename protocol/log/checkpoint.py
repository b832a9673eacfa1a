"""Checkpoints: what a log says of itself, "I am this log, of this size, with this root".

Proves nothing by itself: `policy` says whose signature counts, `merkle` what a root implies. Assumes
nothing about the sender. Extension lines are read (they are under the signature) but never written.
Source: C2SP tlog-checkpoint v1.0.0. SPEC 5.2.
"""

import re
from dataclasses import dataclass

from protocol.encoding import decode_base64, encode_base64
from protocol.errors import EncodingError, MalformedError, Schema, TooLarge
from protocol.keys import SigningKey
from protocol.log import note
from protocol.log.merkle import EMPTY_ROOT, HASH_SIZE, MAX_TREE_SIZE

MAX_CHECKPOINT_TEXT = 16_384
"""Bytes of a checkpoint's text."""
MAX_CHECKPOINT = 131_072
"""Bytes of a checkpoint with its signatures: room for sixteen post-quantum ones of nearly 5 kB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head.

    Args:
        origin: the log's identity; one line, not empty.
        size: number of leaves.
        root: 32 bytes; that of the empty tree if and only if the size is 0.
        extensions: further lines, opaque.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


def parse_decimal(text: str, *, what: str) -> int:
    """Read a non-negative decimal number below 2^63 without sign, space or leading zero.

    Raises:
        Schema: any other spelling.
    """
    # Length before int(): long digit strings are slow to convert and have an error of their own.
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text) or (value := int(text)) > MAX_TREE_SIZE:
        raise Schema(f"the {what} {text[:24]!r} is not a decimal number without leading zero below 2^63")
    return value


def parse(text: bytes, *, any_empty_root: bool = False) -> Checkpoint:
    """Read a checkpoint's text (the note without its signatures).

    Args:
        text: the bytes.
        any_empty_root: let a false root of the empty tree pass; for a witness, whose answer to it has to differ.

    Raises:
        MalformedError: with the reason.
    """
    if len(text) > MAX_CHECKPOINT_TEXT:
        raise TooLarge(f"a checkpoint of {len(text)} bytes, at most {MAX_CHECKPOINT_TEXT} are accepted")
    try:
        lines = text.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise MalformedError("a checkpoint is UTF-8 text") from None
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise Schema("a checkpoint is at least three lines, none of them empty, each ending in a newline")
    origin, size_text, root_text, *extensions = lines
    size = parse_decimal(size_text, what="tree size")
    root = decode_base64(root_text)
    if len(root) != HASH_SIZE:
        raise Schema(f"a root hash of {len(root)} bytes, not {HASH_SIZE}")
    if size == 0 and root != EMPTY_ROOT and not any_empty_root:
        raise Schema("a tree of size 0 whose root is not that of the empty tree")
    return Checkpoint(origin=origin, size=size, root=root, extensions=tuple(extensions))


def to_text(checkpoint: Checkpoint) -> bytes:
    """Write a checkpoint's text.

    Raises:
        EncodingError: `parse` would not give this checkpoint back.
    """
    root = encode_base64(checkpoint.root)
    lines = [checkpoint.origin, str(checkpoint.size), root, *checkpoint.extensions]
    try:
        text = "".join(f"{line}\n" for line in lines).encode()
        same = parse(text) == checkpoint
    except (MalformedError, UnicodeEncodeError) as error:
        raise EncodingError(f"not a checkpoint: {error}") from None
    if not same:
        raise EncodingError("not a checkpoint: a line break inside a line")
    return text


def sign(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """Sign as the log itself; gives the note's bytes.

    Raises:
        EncodingError: not the key of that origin, a witness's key, or a checkpoint that cannot be written.
    """
    if key.name != checkpoint.origin:
        raise EncodingError(f"the key {key.name!r} does not belong to the log {checkpoint.origin!r}")
    return note.sign(to_text(checkpoint), key).to_bytes()


def parse_signed(data: bytes) -> tuple[note.Note, Checkpoint]:
    """Read a checkpoint with its signatures. Nothing is verified yet.

    Raises:
        MalformedError: not a note, or its text is no checkpoint.
    """
    signed = note.parse(data, limit=MAX_CHECKPOINT)
    return signed, parse(signed.text)
