"""Signed notes: a text, a blank line, signature lines.

Proves: the text is signed by every key that `verify` returns. Assumes that these keys are the right
ones for the text; `checkpoint` and `policy` decide that. Signatures of unknown keys are carried along
unread, as C2SP demands; a wrong signature of a known key rejects the whole note.
Source: C2SP signed-note v1.0.0; Go `sumdb/note` (limits). SPEC 5.1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from protocol.encoding import decode_base64, encode_base64
from protocol.errors import EncodingError, MalformedError, Schema, TooLarge, UnknownKey
from protocol.keys import ED25519, SigningKey, VerifierKey, check_name

MAX_NOTE = 1_000_000
"""Bytes of a whole note."""
MAX_SIGNATURES = 100
"""Signature lines of one note; C2SP asks for at least 16."""
_DASH = "\N{EM DASH} "
_CONTROLS = bytes(byte for byte in range(0x20) if byte != 0x0A)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature line.

    Args:
        name: key name.
        key_id: 4 bytes.
        value: what follows the key id, at least one byte; its form depends on the key's type.
    """

    name: str
    key_id: bytes
    value: bytes

    @property
    def line(self) -> bytes:
        """The line with its newline."""
        encoded = encode_base64(self.key_id + self.value)
        return f"{_DASH}{self.name} {encoded}\n".encode()

    def is_by(self, key: VerifierKey) -> bool:
        """Whether name and key id are those of `key`; says nothing about the signature."""
        return self.name == key.name and self.key_id == key.key_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note as it came.

    Args:
        text: the signed bytes, ending in a newline.
        signatures: the lines in their order, unverified.
    """

    text: bytes
    signatures: tuple[Signature, ...]

    def to_bytes(self) -> bytes:
        """The note's only spelling; `parse` accepts it back.

        Raises:
            EncodingError: a text or signature that `parse` would refuse.
        """
        data = self.text + b"\n" + b"".join(signature.line for signature in self.signatures)
        try:
            same = parse(data) == self
        except MalformedError as error:
            raise EncodingError(f"not a note: {error.message}") from None
        if not same:
            raise EncodingError("not a note: the text does not end where the signatures begin")
        return data

    def with_signature(self, new: Signature) -> "Note":
        """The note with `new` as its last line, in place of older lines with the same name and key id."""
        kept = tuple(s for s in self.signatures if (s.name, s.key_id) != (new.name, new.key_id))
        return Note(text=self.text, signatures=(*kept, new))


def _parse_line(line: str) -> Signature:
    if not line.startswith(_DASH):
        raise Schema("a line after the last blank line that is no signature line")
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not space:
        raise Schema("a signature line without a signature")
    check_name(name)
    data = decode_base64(encoded)
    if len(data) < 5:
        raise Schema("a signature line with fewer than five bytes")
    return Signature(name=name, key_id=data[:4], value=data[4:])


def parse(data: bytes, *, limit: int = MAX_NOTE) -> Note:
    """Read a signed note. Nothing is verified yet.

    Args:
        data: the bytes.
        limit: largest accepted length in bytes.

    Raises:
        MalformedError: with the reason.
    """
    if len(data) > limit:
        raise TooLarge(f"a note of {len(data)} bytes, at most {limit} are accepted")
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"a note is UTF-8 text, this is not at byte {error.start}") from None
    # Bytes below 0x20 in UTF-8 are always characters of their own.
    if len(data.translate(None, _CONTROLS)) != len(data):
        raise Schema("a control character in a note")
    text, blank, tail = decoded.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise Schema("a note is a text, a blank line and signature lines that each end in a newline")
    lines = tail.removesuffix("\n").split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise TooLarge(f"a note with {len(lines)} signatures, at most {MAX_SIGNATURES} are accepted")
    return Note(text=(text + "\n").encode(), signatures=tuple(_parse_line(line) for line in lines))


def by_name_and_id(keys: Iterable[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    """Index keys by what a signature line says.

    Raises:
        EncodingError: two different keys share name and key id, so that lines would be ambiguous.
    """
    index: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if index.setdefault((key.name, key.key_id), key) != key:
            raise EncodingError(f"two keys named {key.name!r} share a key id")
    return index


def verify(note: Note, keys: Sequence[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Check every line that one of `keys` (all of type Ed25519) claims to have signed.

    Returns:
        The keys that signed, each once, in the order of their first lines; at least one.

    Raises:
        BadSignature: a line with a known key's name and id does not verify: the note is rejected.
        UnknownKey: no line is by a known key.
        EncodingError: a key of another signature type, or two keys with the same name and id.
    """
    index = by_name_and_id(keys)
    if any(key.use != ED25519 for key in keys):
        raise EncodingError("a note's text is verified by keys of type Ed25519 only")
    signers: dict[VerifierKey, None] = {}
    for signature in note.signatures:
        key = index.get((signature.name, signature.key_id))
        if key is None:
            continue
        key.verify(signature.value, note.text)
        signers[key] = None
    if not signers:
        raise UnknownKey("no signature by a known key")
    return tuple(signers)


def sign(text: bytes, *keys: SigningKey) -> Note:
    """Sign a text with Ed25519 keys (at least one).

    Args:
        text: UTF-8, ending in a newline.
        keys: in the order of their lines.

    Raises:
        EncodingError: a key of another signature type, or a text that is no note's.
    """
    if any(key.use != ED25519 for key in keys):
        raise EncodingError("a note's text is signed by keys of type Ed25519 only")
    signatures = tuple(Signature(name=key.name, key_id=key.verifier.key_id, value=key.sign(text)) for key in keys)
    note = Note(text=text, signatures=signatures)
    note.to_bytes()  # refuses what could not be read back
    return note
