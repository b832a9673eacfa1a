import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadSignature, EncodingError, Error, MalformedError, NonCanonical, TooLarge, UnknownKey
from protocol.keys import ED25519, VerifierKey, parse_vkey
from protocol.log import checkpoint, merkle, note, proof
from protocol.log.checkpoint import Checkpoint
from protocol.log.policy import Policy, TrustedLog
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, VECTORS, WITNESSES, key, unbase64

HEAD = Checkpoint(origin=ORIGIN, size=3, root=bytes(range(32)))
TEXT = checkpoint.to_text(HEAD)

lines = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=30)
heads = st.builds(
    Checkpoint,
    origin=lines,
    size=st.integers(1, merkle.MAX_TREE_SIZE),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(lines, max_size=3).map(tuple),
)


@given(heads)
def test_written_checkpoints_read_back(head):
    assert checkpoint.parse(checkpoint.to_text(head)) == head


@given(st.one_of(st.binary(max_size=120), st.text(max_size=120).map(str.encode)))
def test_any_bytes_are_a_checkpoint_or_malformed(data):
    for read in (checkpoint.parse, checkpoint.parse_signed):
        with contextlib.suppress(MalformedError):
            read(data)


@given(st.integers(0, len(TEXT) - 1), st.integers(0, 255))
def test_one_changed_byte_is_another_checkpoint_or_malformed(place, byte):
    changed = bytearray(TEXT)
    changed[place] = byte
    try:
        parsed = checkpoint.parse(bytes(changed))
    except MalformedError:
        return
    assert (parsed == HEAD) == (bytes(changed) == TEXT)
    assert checkpoint.to_text(parsed) == bytes(changed)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"a\n1\n",
        TEXT.removesuffix(b"\n"),
        TEXT + b"\n",
        TEXT + b"\nextension\n",
        b"\n" + TEXT,
        TEXT.replace(b"\n3\n", b"\n03\n"),
        TEXT.replace(b"\n3\n", b"\n+3\n"),
        TEXT.replace(b"\n3\n", b"\n-3\n"),
        TEXT.replace(b"\n3\n", b"\n 3\n"),
        TEXT.replace(b"\n3\n", b"\n3_0\n"),
        TEXT.replace(b"\n3\n", b"\n3.0\n"),
        TEXT.replace(b"\n3\n", "\n٣\n".encode()),
        TEXT.replace(b"\n3\n", b"\n9223372036854775808\n"),
        TEXT.replace(b"\n3\n", b"\n" + b"9" * 5000 + b"\n"),
        TEXT.replace(b"\n3\n", b"\n0\n"),
        TEXT.replace(b"=\n", b"\n"),
        b"a\n1\nAAAA\n",
        b"\xff\n1\nAAAA\n",
    ],
)
def test_malformed_checkpoints(text):
    with pytest.raises(MalformedError):
        checkpoint.parse(text)


def test_root_has_one_spelling_of_base64():
    spelt = TEXT.split(b"\n")[2]
    assert unbase64(spelt[:-2].decode() + "9=") == HEAD.root == unbase64(spelt.decode())
    with pytest.raises(NonCanonical):
        checkpoint.parse(TEXT.replace(spelt, spelt[:-2] + b"9="))


def test_the_empty_tree_has_one_root():
    empty = Checkpoint(origin=ORIGIN, size=0, root=merkle.EMPTY_ROOT)
    assert checkpoint.parse(checkpoint.to_text(empty)) == empty
    with pytest.raises(EncodingError):
        checkpoint.to_text(Checkpoint(origin=ORIGIN, size=0, root=bytes(32)))


def test_limits():
    filler = b"x" * (16_384 - len(TEXT) - 1)
    assert checkpoint.parse(TEXT + filler + b"\n").size == 3
    with pytest.raises(TooLarge):
        checkpoint.parse(TEXT + filler + b"x\n")
    with pytest.raises(TooLarge):
        checkpoint.parse_signed(bytes(131_073))
    # Sixteen unknown signatures of the largest kind that C2SP speaks of are still read.
    signed, _ = checkpoint.parse_signed(checkpoint.sign(HEAD, LOG_KEY))
    for number in range(16):
        signed = signed.with_signature(note.Signature(name=f"pq{number}", key_id=b"abcd", value=bytes(5000)))
    assert checkpoint.parse_signed(signed.to_bytes())[1] == HEAD


@pytest.mark.parametrize(
    "change",
    [
        {"origin": ""},
        {"origin": "a\nb"},
        {"origin": "a\n1"},
        {"origin": "\ud800"},
        {"size": -1},
        {"size": 2**63},
        {"root": b"short"},
        {"extensions": ("",)},
        {"extensions": ("a\nb",)},
    ],
)
def test_checkpoints_that_cannot_be_written(change):
    fields = {"origin": ORIGIN, "size": 3, "root": HEAD.root, "extensions": ()} | change
    with pytest.raises(EncodingError):
        checkpoint.to_text(Checkpoint(**fields))


def test_signing():
    signed, parsed = checkpoint.parse_signed(checkpoint.sign(HEAD, LOG_KEY))
    assert parsed == HEAD
    assert note.verify(signed, [LOG_KEY.verifier]) == (LOG_KEY.verifier,)
    with pytest.raises(EncodingError, match="belong"):
        checkpoint.sign(HEAD, key("example.com/other", "log"))
    with pytest.raises(EncodingError):
        checkpoint.sign(HEAD, key(ORIGIN, "witness"))
    with pytest.raises(EncodingError):
        checkpoint.sign(Checkpoint(origin=WITNESSES[0].name, size=3, root=HEAD.root), WITNESSES[0])


def test_tessera_checkpoints():
    folder = VECTORS / "tlog-tiles-tessera"
    known = parse_vkey((folder / "log.vkey").read_text().strip())
    for size in range(10):
        data = (folder / f"log/checkpoint.{size}").read_bytes()
        signed, head = checkpoint.parse_signed(data)
        assert note.verify(signed, [known]) == (known,)
        assert (head.origin, head.size) == (known.name, size)
        assert signed.to_bytes() == data
        assert checkpoint.to_text(head) == signed.text


REKOR = sorted(
    path
    for kind in ("rekor2-checkpoint-*", "rekor2-happy-path")
    for path in (VECTORS / "sigstore-conformance").glob(f"{kind}/bundle.sigstore.json")
)


@pytest.mark.parametrize("path", REKOR, ids=lambda p: p.parent.name)
def test_rekor_checkpoints_and_inclusion_proofs(path):
    # The folder without a bundle of its own key list uses the same staging log.
    roots = json.loads((VECTORS / "sigstore-conformance/rekor2-happy-path/trusted_root.json").read_bytes())
    spki = next(log["publicKey"]["rawBytes"] for log in roots["tlogs"] if "ED25519" in log["publicKey"]["keyDetails"])
    known = VerifierKey(name="log2025-alpha1.rekor.sigstage.dev", use=ED25519, public=unbase64(spki)[-32:])
    trust = Policy(logs=(TrustedLog(key=known),), witnesses=(), groups=(), quorum="none")
    entry = json.loads(path.read_bytes())["verificationMaterial"]["tlogEntries"][0]
    found = proof.TlogProof(
        index=int(entry["inclusionProof"]["logIndex"]),
        hashes=tuple(unbase64(value) for value in entry["inclusionProof"]["hashes"]),
        checkpoint_note=entry["inclusionProof"]["checkpoint"]["envelope"].encode(),
    )
    body = unbase64(entry["canonicalizedBody"])
    if path.parent.name.endswith("_fail"):
        with pytest.raises(Error):
            proof.verify(body, found, trust)
    else:
        assert proof.verify(body, found, trust).index == found.index
        assert proof.parse(proof.to_bytes(found)) == found
        with pytest.raises(Error):
            proof.verify(body + b"x", found, trust)


@pytest.mark.parametrize("name", ["checkpoint-bad-keyhint_fail", "invalid-checkpoint-signature_fail"])
def test_rekor_v1_checkpoints_parse_and_their_ecdsa_keys_are_unknown(name):
    bundle = json.loads((VECTORS / f"sigstore-conformance/{name}/bundle.sigstore.json").read_bytes())
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    signed, head = checkpoint.parse_signed(entry["inclusionProof"]["checkpoint"]["envelope"].encode())
    assert head.size == int(entry["inclusionProof"]["treeSize"])
    with pytest.raises(UnknownKey):
        note.verify(signed, [LOG_KEY.verifier])


def test_a_checkpoint_signature_is_over_the_text_alone():
    signed, _ = checkpoint.parse_signed(checkpoint.sign(HEAD, LOG_KEY))
    moved = note.Note(text=signed.text + b"extension\n", signatures=signed.signatures)
    with pytest.raises(BadSignature):
        note.verify(moved, [LOG_KEY.verifier])
