import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import (
    EncodingError,
    Error,
    Inclusion,
    MalformedError,
    NonCanonical,
    Schema,
    TooLarge,
    UnknownKey,
    UnsupportedVersion,
)
from protocol.log import checkpoint, merkle, proof
from protocol.log.checkpoint import Checkpoint
from protocol.log.proof import TlogProof
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, POLICY, VECTORS

ENTRIES = [b"entry %d" % i for i in range(7)]
HASHES = merkle.leaf_hashes(ENTRIES)
NOTE = checkpoint.sign(Checkpoint(origin=ORIGIN, size=7, root=merkle.root_from_hashes(HASHES)), LOG_KEY)


def prove(index, note=NOTE):
    return TlogProof(index=index, hashes=tuple(merkle.inclusion_proof(index, HASHES)), checkpoint_note=note)


DATA = proof.to_bytes(prove(3))


@pytest.mark.parametrize("path", sorted((VECTORS / "tlog-proof-malformed").glob("*.json")), ids=lambda p: p.stem)
def test_vectors(path):
    case = json.loads(path.read_bytes())
    with pytest.raises(MalformedError):
        proof.parse(case["proof"].encode())
    if case["accept"] == "layout-only":
        # Only the stub in place of the checkpoint was wrong: with a real one the same layout is read.
        head, _ = case["proof"].split("\n\n")
        parsed = proof.parse(head.encode() + b"\n\n" + NOTE)
        assert proof.to_bytes(parsed) == head.encode() + b"\n\n" + NOTE


@pytest.mark.parametrize("index", range(7))
def test_proofs_verify_and_read_back(index):
    made = prove(index)
    assert proof.parse(proof.to_bytes(made)) == made
    verified = proof.verify(ENTRIES[index], made, POLICY, origin=ORIGIN)
    assert verified.index == index
    assert verified.leaf_hash == HASHES[index]
    assert verified.checkpoint.checkpoint.size == 7
    assert verified == proof.verify(ENTRIES[index], made, POLICY)


def test_another_entry_index_or_origin_fails():
    with pytest.raises(Inclusion):
        proof.verify(b"another", prove(3), POLICY)
    for index in (2, 7, 10**18):
        with pytest.raises(Inclusion):
            proof.verify(ENTRIES[3], TlogProof(index=index, hashes=prove(3).hashes, checkpoint_note=NOTE), POLICY)
    with pytest.raises(UnknownKey):
        proof.verify(ENTRIES[3], prove(3), POLICY, origin="example.com/other")


def test_no_proof_in_the_empty_tree():
    empty = checkpoint.sign(Checkpoint(origin=ORIGIN, size=0, root=merkle.EMPTY_ROOT), LOG_KEY)
    with pytest.raises(Inclusion):
        proof.verify(b"", TlogProof(index=0, hashes=(), checkpoint_note=empty), POLICY)


@given(st.integers(0, len(DATA) * 8 - 1))
def test_a_flipped_bit_fails(bit):
    changed = bytearray(DATA)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Error):
        proof.verify(ENTRIES[3], proof.parse(bytes(changed)), POLICY, origin=ORIGIN)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_proof_or_malformed(data, headed):
    if headed:
        data = b"c2sp.org/tlog-proof@v1\nindex 3\n" + data + b"\n\n" + NOTE
    try:
        parsed = proof.parse(data)
    except MalformedError:
        return
    assert proof.to_bytes(parsed) == data


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (b"@v1", b"@v2", UnsupportedVersion),
        (b"c2sp.org", b"C2SP.org", Schema),
        (b"index 3", b"index 03", Schema),
        (b"index 3", b"index +3", Schema),
        (b"index 3", b"index  3", Schema),
        (b"index 3", b"Index 3", Schema),
        (b"index 3", b"index 9223372036854775808", Schema),
        (b"index 3", b"extra AAAA\nindex 3", Schema),
        (b"index 3\n", b"index 3\n\n", Schema),
        (b"index 3\n", b"index 3\r\n", Schema),
        (b"index 3\n", b"index 3\nAAAA\n", Schema),
        (b"\n\n", b"\n", MalformedError),
        (b"index", b"\xff", MalformedError),
    ],
)
def test_malformed_proofs(old, new, error):
    assert old in DATA
    with pytest.raises(error):
        proof.parse(DATA.replace(old, new, 1))


def test_a_header_alone():
    for data in (b"", b"c2sp.org/tlog-proof@v1", b"c2sp.org/tlog-proof@v1\n\n" + NOTE):
        with pytest.raises(Schema):
            proof.parse(data)


def test_base64_of_hashes_has_one_spelling():
    line = DATA.split(b"\n")[2]
    last = chr(line[-2])
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stray = alphabet[alphabet.index(last) + 1]
    with pytest.raises(NonCanonical):
        proof.parse(DATA.replace(line, line[:-2] + stray.encode() + b"="))


def test_limits():
    line = DATA.split(b"\n")[2] + b"\n"
    head, tail = DATA.split(line)[0], b"\n" + NOTE
    assert len(proof.parse(head + line * merkle.MAX_PROOF + tail).hashes) == merkle.MAX_PROOF
    with pytest.raises(TooLarge):
        proof.parse(head + line * (merkle.MAX_PROOF + 1) + tail)
    with pytest.raises(TooLarge):
        proof.parse(bytes(131_072 + 4096 + 1))
    # The largest checkpoint with the longest proof still fits.
    assert len(b"c2sp.org/tlog-proof@v1\nindex 9223372036854775807\n\n") + 63 * 45 <= 4096


@pytest.mark.parametrize(
    "made",
    [
        TlogProof(index=-1, hashes=(), checkpoint_note=NOTE),
        TlogProof(index=0, hashes=(b"short",), checkpoint_note=NOTE),
        TlogProof(index=0, hashes=(), checkpoint_note=b"stub"),
        TlogProof(index=0, hashes=[], checkpoint_note=NOTE),
    ],
)
def test_proofs_that_cannot_be_written(made):
    with pytest.raises(EncodingError):
        proof.to_bytes(made)
