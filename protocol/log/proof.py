"""Proofs that one entry is in a log, to be kept beside the entry and checked offline.

Proves: exactly these entry bytes are number `index` in a tree that a trusted log signed, and which
witnesses saw that tree, when. Assumes the policy. Does not say whether the log has grown since, nor
whether a later entry takes this one back. The format's `extra` line is refused: nothing authenticates it.
Source: C2SP tlog-proof at commit 5ba5ee8. SPEC 5.5.
"""

from dataclasses import dataclass

from protocol.encoding import decode_base64, encode_base64
from protocol.errors import EncodingError, MalformedError, Schema, TooLarge, UnsupportedVersion
from protocol.log import merkle
from protocol.log.checkpoint import MAX_CHECKPOINT, parse_decimal, parse_signed
from protocol.log.policy import Policy, VerifiedCheckpoint

_HEADER = "c2sp.org/tlog-proof@v1"
MAX_TLOG_PROOF = MAX_CHECKPOINT + 4096
"""Bytes of a proof: its checkpoint, 63 hash lines of 45 bytes, and header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlogProof:
    """An inclusion proof with the checkpoint that it leads to.

    Args:
        index: the entry's place, from 0.
        hashes: from the leaf's sibling up, 32 bytes each.
        checkpoint_note: the checkpoint with its signatures, byte for byte.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint_note: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEntry:
    """An entry that is in a trusted log: its place, its leaf hash, and the checkpoint that shows it."""

    index: int
    leaf_hash: bytes
    checkpoint: VerifiedCheckpoint


def _parse_hash(line: str) -> bytes:
    value = decode_base64(line)
    if len(value) != merkle.HASH_SIZE:
        raise Schema(f"a proof hash of {len(value)} bytes, not {merkle.HASH_SIZE}")
    return value


def parse(data: bytes) -> TlogProof:
    """Read a proof. Nothing is verified yet.

    Raises:
        UnsupportedVersion: another version of the format.
        MalformedError: not a proof, or its last part is no checkpoint.
    """
    if len(data) > MAX_TLOG_PROOF:
        raise TooLarge(f"a proof of {len(data)} bytes, at most {MAX_TLOG_PROOF} are accepted")
    head, blank, checkpoint_note = data.partition(b"\n\n")
    try:
        lines = head.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise MalformedError("a proof is UTF-8 text") from None
    if lines[0] != _HEADER:
        if lines[0].startswith("c2sp.org/tlog-proof@"):
            raise UnsupportedVersion(f"the proof format {lines[0][:60]!r}, not {_HEADER}")
        raise Schema(f"a proof begins with the line {_HEADER}")
    if len(lines) < 2 or not blank:
        raise Schema("a proof has an index line, hash lines, a blank line and a checkpoint")
    if lines[1].startswith("extra "):
        raise Schema("an extra line, which nothing authenticates, is not accepted here")
    if not lines[1].startswith("index "):
        raise Schema("the second line of a proof is: index <number>")
    index = parse_decimal(lines[1].removeprefix("index "), what="index")
    if len(lines) - 2 > merkle.MAX_PROOF:
        raise TooLarge(f"a proof of {len(lines) - 2} hashes, at most {merkle.MAX_PROOF} are possible")
    hashes = tuple(_parse_hash(line) for line in lines[2:])
    parse_signed(checkpoint_note)
    return TlogProof(index=index, hashes=hashes, checkpoint_note=checkpoint_note)


def to_bytes(proof: TlogProof) -> bytes:
    """Write a proof in its only spelling.

    Raises:
        EncodingError: `parse` would not give this proof back.
    """
    lines = [_HEADER, f"index {proof.index}"]
    lines += [encode_base64(value) for value in proof.hashes]
    data = "".join(f"{line}\n" for line in lines).encode() + b"\n" + proof.checkpoint_note
    try:
        same = parse(data) == proof
    except MalformedError as error:
        raise EncodingError(f"not a proof: {error.message}") from None
    if not same:
        raise EncodingError("not a proof: a field of another type than the format has")
    return data


def verify(entry: bytes, proof: TlogProof, policy: Policy, *, origin: str | None = None) -> VerifiedEntry:
    """Check that exactly these bytes are in a log that the policy trusts.

    Args:
        entry: the logged bytes, from the reader's own copy.
        proof: what came with them.
        policy: the reader's trust.
        origin: the log that it has to be; any listed log if None.

    Raises:
        MalformedError: the proof's checkpoint does not parse.
        UnknownKey: not a trusted log, or not `origin`.
        BadSignature: a line by a listed key does not verify.
        Inclusion: the entry is not there.
    """
    # Steps as in tlog-proof, "Verifying": leaf from our own bytes, log, cosignatures, inclusion.
    leaf = merkle.leaf_hash(entry)
    verified = policy.verify_checkpoint(proof.checkpoint_note, origin=origin)
    merkle.verify_inclusion(leaf, proof.index, verified.checkpoint.size, proof.hashes, verified.checkpoint.root)
    return VerifiedEntry(index=proof.index, leaf_hash=leaf, checkpoint=verified)
