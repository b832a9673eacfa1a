"""SPEC.md against the code: every cited clause exists, every worked example is what the code makes.

`python -m tests.protocol.test_spec` writes the examples into SPEC.md; doing so must change nothing.
"""

import hashlib
import hmac
import itertools
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from auditor.rows import cap_rows
from owner.compose import compose
from protocol import claims, envelope, records, statement
from protocol.arrays import write_npz
from protocol.canonical import to_bytes
from protocol.claims import Redirection, Region
from protocol.digests import tagged
from protocol.encoding import format_decimal, format_float32, format_time, parse_decimal, parse_float32
from protocol.errors import NonCanonical
from protocol.keys import USES, SigningKey, parse_vkey
from protocol.log import checkpoint, cosignature, merkle, policy, proof
from protocol.log.note import parse as parse_note
from protocol.messages import challenge
from protocol.messages.opening import Acknowledgement, nonce_commitment
from protocol.model import patch as patch_file
from protocol.model.patch import Cap, Part, Patch, SetHead, SketchGate
from protocol.model.profile import Graph, graph_digest, make_node, serialise
from protocol.model.schema import InputSchema

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "protocol" / "SPEC.md"
HEADING = re.compile(r"^#{2,4} (\d+(?:\.\d+)*) ", re.MULTILINE)
CITATION = re.compile(r"SPEC\s+(?:#\s+)?(\d+(?:\.\d+)*(?:(?:,\s+|\s+and\s+)\d+(?:\.\d+)*)*)")
VAGUE = re.compile(r"SPEC \(")
EXAMPLE = re.compile(r"<!-- example: ([a-z-]+) -->\n```text\n(.*?)```", re.DOTALL)
CODE = ("protocol", "owner", "auditor", "tests", "threat_models")

SEED = bytes(range(32))


def _lines(*pairs):
    return "".join(f"{name}: {value}\n" for name, value in pairs)


def _key(name, use):
    return SigningKey(name=name, use=USES[use], seed=hashlib.sha256(f"{name} {use}".encode()).digest())


def _canonical_json():
    value = {"b": [1, -2, True, None], "a": 'é\n"\x1f', "Z": {}}
    return _lines(("bytes", to_bytes(value).decode()), ("hex", to_bytes(value).hex()))


def _decimals():
    numbers = [0.1, 1 / 3, 16777216.0, 1e-12, 1.5e-13, 1e12, 3.4028235e38, -0.0, 1e-45]
    return _lines(
        *((np.float32(x).view(np.uint32).item().to_bytes(4, "big").hex(), format_float32(x)) for x in numbers)
    )


def _tagged():
    parts = [SEED, b""]
    pieces = [b"prune-audit/nonce/v1", *parts]
    spelled = b"".join(len(piece).to_bytes(8, "big") + piece for piece in pieces)
    assert hashlib.sha256(spelled).digest() == tagged("nonce", *parts)
    return _lines(("H(nonce, 00..1f, empty) hashes", spelled.hex()), ("result", tagged("nonce", *parts).hex()))


def _keys():
    owner = SigningKey(name="example.com/owner", use=USES["statement"], seed=SEED)
    witness = SigningKey(name="example.com/witness", use=USES["witness"], seed=SEED)
    assert parse_vkey(owner.verifier.vkey) == owner.verifier
    return _lines(
        ("seed", SEED.hex()),
        ("public key", owner.verifier.public.hex()),
        ("key file", owner.skey),
        ("vkey", owner.verifier.vkey),
        ("vkey of a witness with the same seed", witness.verifier.vkey),
    )


def _signed_log():
    log, witness = _key("example.com/log", "log"), _key("example.com/witness", "witness")
    entries = [b"a", b"b", b"c"]
    hashes = merkle.leaf_hashes(entries)
    head = checkpoint.Checkpoint(origin=log.name, size=3, root=merkle.root_from_hashes(hashes))
    note = parse_note(checkpoint.sign(head, log))
    note = note.with_signature(cosignature.sign(note.text, witness, 1_795_248_000))
    made = proof.TlogProof(index=1, hashes=tuple(merkle.inclusion_proof(1, hashes)), checkpoint_note=note.to_bytes())
    return log, witness, made


def _tlog_proof():
    log, witness, made = _signed_log()
    text = f"log {log.verifier.vkey}\nwitness w {witness.verifier.vkey}\nquorum w\n"
    found = proof.verify(b"b", made, policy.parse(text.encode()))
    assert found.index == 1
    assert found.checkpoint.quorum_met
    assert format_time(found.checkpoint.time) == "2026-11-21T08:00:00Z"
    return f"policy.txt:\n{text}\nproof of the entry 62 (b):\n{proof.to_bytes(made).decode()}"


def _merkle():
    hashes = merkle.leaf_hashes([b"a", b"b", b"c"])
    root = merkle.root_from_hashes(hashes)
    old = merkle.root_from_hashes(hashes[:2])
    steps = merkle.consistency_proof(2, hashes)
    merkle.verify_consistency(2, old, 3, root, steps)
    return _lines(
        ("leaf hash of 61", hashes[0].hex()),
        ("leaf hash of 62", hashes[1].hex()),
        ("leaf hash of 63", hashes[2].hex()),
        ("root of 61, 62", old.hex()),
        ("root of 61, 62, 63", root.hex()),
        *(("inclusion of index 1 of 3", step.hex()) for step in merkle.inclusion_proof(1, hashes)),
        *(("consistency from 2 to 3", step.hex()) for step in steps),
        ("root of nothing", merkle.EMPTY_ROOT.hex()),
    )


def _envelope():
    owner = SigningKey(name="example.com/owner", use=USES["statement"], seed=SEED)
    message = Acknowledgement(
        subject="aa" * 32, opening="bb" * 32, certificate="cc" * 32, acknowledged_at=1_795_248_000
    )
    payload = message.payload()
    data = envelope.sign(payload, [owner])
    assert Acknowledgement.parse(statement.parse(payload)) == message
    assert envelope.verify(envelope.parse(data), [owner.verifier]) == (owner.verifier,)
    return _lines(
        ("payload", payload.decode()),
        ("signed bytes begin", envelope.pae(envelope.PAYLOAD_TYPE, payload)[:48].decode()),
        ("SHA-256 of the signed bytes", hashlib.sha256(envelope.pae(envelope.PAYLOAD_TYPE, payload)).hexdigest()),
        ("signature", owner.sign(envelope.pae(envelope.PAYLOAD_TYPE, payload)).hex()),
        ("leaf of the envelope", merkle.leaf_hash(data).hex()),
    )


def _schema():
    schema = InputSchema.from_columns(
        (3,),
        scale=np.array([16.0, 16.0, 1.0]),
        offset=np.array([0.0, 0.0, 0.0]),
        low=np.array([0, 0, 0]),
        high=np.array([16, 16, 1]),
        kind=("grid", "grid", "binary"),
    )
    x = np.array([[0.40625, 0.984375, 1.0], [1.046875, 0.5, 0.0]], dtype=np.float32)
    grid, inside = schema.quantise(x)
    rows = [
        f"{record.tolist()} -> {q.tolist()}, {'inside' if found else 'not inside'}"
        for record, q, found in zip(x, grid, inside, strict=True)
    ]
    return _lines(("schema.json", schema.to_bytes().decode()), *(("Q", row) for row in rows))


def _small_patch():
    gate = SketchGate(
        matrix=np.array([[1, 1, 0], [0, -1, 2]], dtype=np.int32),
        low=np.array([[4, -6]], dtype=np.int32),
        high=np.array([[8, -2]], dtype=np.int32),
    )
    return Patch(
        features=3,
        classes=3,
        parts=(
            Part(gate=gate, head=SetHead(rows=np.array([[10.0, 9.5, 0.0]], dtype=np.float32), index=np.array([0]))),
        ),
        caps=(Cap(klass=0, margin="1"), Cap(klass=1, margin="1")),
    )


def _patch():
    manifest, tensors = patch_file.to_bytes(_small_patch())
    assert patch_file.parse(manifest, tensors) == _small_patch()
    length = int.from_bytes(tensors[:8], "little")
    return _lines(
        ("patch.json", manifest.decode()),
        ("header length", tensors[:8].hex()),
        ("header", repr(tensors[8 : 8 + length].decode())[1:-1]),
        ("contents", tensors[8 + length :].hex()),
    )


def _composition():
    base = Graph(
        opset=18,
        input="x",
        input_shape=(3,),
        output="y",
        classes=3,
        nodes=(make_node("MatMul", ("x", "w"), "y"),),
        initialisers={"w": np.eye(3, dtype=np.float32)},
    )
    schema = InputSchema.uniform((3,), scale=16.0, low=0, high=16)
    composed = compose(base, schema, _small_patch())
    lines = []
    for node in composed.nodes:
        given = ", ".join(f"{name}={value}" for name, value in node.attributes.items())
        lines.append(f"{node.op}({', '.join(node.inputs)}{'; ' if given else ''}{given}) -> {node.outputs[0]}\n")
    constants = [
        f"  {name} {array.dtype}{list(array.shape)}\n" for name, array in sorted(composed.initialisers.items())
    ]
    lines += ["constants:\n", *constants]
    lines.append(f"SHA-256 of the written file ({len(serialise(composed))} bytes): {graph_digest(composed)}\n")
    return "".join(lines)


def _array_header():
    data = write_npz({"X": np.array([[1, -2, 3]], dtype=np.int32)})
    stored = int.from_bytes(data[18:22], "little")
    plain = zlib.decompress(data[30 + len("X.npy") : 30 + len("X.npy") + stored], -15)
    return _lines(("X = [[1, -2, 3]], <i4", repr(plain[:128])[2:-1]), ("contents", plain[128:].hex()))


def _challenge():
    leaf = merkle.leaf_hash(b"certificate")
    value = challenge.value(SEED, leaf)
    seed = challenge.seed(value, "locality")
    return _lines(
        ("nonce", SEED.hex()),
        ("nonceCommitment", nonce_commitment(SEED)),
        ("leaf of the owner's entry", leaf.hex()),
        ("value", value.hex()),
        ("seed of locality", seed.hex()),
        ("5 of 1000", challenge.indices(seed, 5, 1000).tolist()),
    )


def _records():
    values = np.array([[1, -2, 3], [4, 5, 6]], dtype=np.int32)
    secret = SEED
    salts = [records.derive_salt(secret, "record-salt", name) for name in ("r0", "r1")]
    assert salts[0] == hmac.digest(secret, b"prune-audit/record-salt/v1\0r0", "sha256")
    group_salt = records.derive_salt(secret, "group-salt", "s")
    tree = records.build(
        values,
        np.array([7, 8]),
        ["s", "s"],
        np.array([list(salt) for salt in salts], dtype=np.uint8),
        {"s": group_salt},
    )
    opened = tree.openings([0], values, np.array([7, 8]), np.array([list(salt) for salt in salts], dtype=np.uint8))[0]
    assert opened.verify(tree.root, groups=1, count=2) == tree.commitments[0]
    return _lines(
        ("secret", secret.hex()),
        ("salt of r0", salts[0].hex()),
        ("salt of r1", salts[1].hex()),
        ("salt of the subject s", group_salt.hex()),
        ("group commitment", tree.groups[0].hex()),
        ("commitment of (1, -2, 3), label 7", tree.commitments[0].hex()),
        ("commitment of (4, 5, 6), label 8", tree.commitments[1].hex()),
        ("group entry", records.group_entry(tree.groups[0], 0, 2).hex()),
        ("record path of index 0", opened.record_path[0].hex()),
        ("committed root", tree.root.hex()),
        ("root of a request's list of both", records.list_root(tree.commitments).hex()),
    )


def _claim():
    made = Redirection(
        record=SEED,
        item=0,
        gate="sketch",
        region=Region(norm="linf", radius=1, radius_data="0.093749"),
        property=claims.logits_property(np.array([-1.0, -1.0, 0.0], dtype=np.float32)),
        target="match",
    )
    line = claims.claim_line(made)
    assert claims.parse_claim(line) == made
    return _lines(
        ("line", line.decode()),
        ("leaf hash", merkle.leaf_hash(line).hex()),
        ("root of this one line", claims.root([line]).hex()),
    )


MAKERS = {
    "canonical-json": _canonical_json,
    "decimals": _decimals,
    "tagged": _tagged,
    "keys": _keys,
    "tlog-proof": _tlog_proof,
    "merkle": _merkle,
    "envelope": _envelope,
    "schema": _schema,
    "patch": _patch,
    "composition": _composition,
    "array-header": _array_header,
    "challenge": _challenge,
    "records": _records,
    "claim": _claim,
}


def _text():
    return SPEC.read_text(encoding="utf-8")


def _sources():
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".yaml") and path != SPEC and path != Path(__file__).resolve():
                yield path, path.read_text(encoding="utf-8")


def _clauses():
    return HEADING.findall(_text())


@pytest.mark.parametrize("name", MAKERS)
def test_the_code_makes_the_worked_example(name):
    assert dict(EXAMPLE.findall(_text()))[name] == MAKERS[name]()


def test_every_example_is_made():
    assert sorted(name for name, _ in EXAMPLE.findall(_text())) == sorted(MAKERS)


def test_clauses_are_numbered_without_gaps():
    numbers = [tuple(map(int, clause.split("."))) for clause in _clauses()]
    assert numbers[0] == (1,)
    for before, after in itertools.pairwise(numbers):
        deeper = (*before, 1)
        siblings = [(*before[:depth], before[depth] + 1) for depth in range(len(before))]
        assert after in (deeper, *siblings), f"{before} is followed by {after}"


def test_every_cited_clause_exists():
    known = set(_clauses())
    missing = []
    cited = 0
    for path, text in _sources():
        assert not VAGUE.search(text), f"{path} cites SPEC without a clause"
        for match in CITATION.finditer(text):
            for clause in re.findall(r"\d+(?:\.\d+)*", match[1]):
                cited += 1
                if clause not in known:
                    missing.append(f"{path.relative_to(ROOT)}: SPEC {clause}")
    assert not missing
    assert cited > 50


def test_clauses_that_the_text_itself_refers_to_exist():
    # References stand in brackets: (5.6), (5.1 c), (7.6, 13.4.2); versions and defaults begin with 0 or have no clause.
    known = set(_clauses())
    found = 0
    for match in re.finditer(r"\(([1-9]\d*\.\d+[\d., a-d]*)\)", EXAMPLE.sub("", _text())):
        for clause in re.findall(r"\d+(?:\.\d+)+", match[1]):
            found += 1
            assert clause in known, match[0]
    assert found > 40


def test_decisions_that_are_referred_to_exist():
    there = {path.name[:4] for path in (ROOT / "protocol" / "decisions").glob("*.md")}
    for path, text in [*_sources(), (SPEC, _text())]:
        assert set(re.findall(r"decision (\d{4})", text)) <= there, path


def test_words():
    text = _text().lower()
    assert "unlearned" not in text
    for word in ("MUST", "MUST NOT", "SHOULD", "MAY"):
        assert word in _text()


@pytest.mark.parametrize(
    ("text", "read"), [("1e12", parse_decimal), ("0.10", parse_decimal), ("0.100000001", parse_float32)]
)
def test_second_spellings_are_refused(text, read):
    with pytest.raises(NonCanonical):
        read(text)


def test_powers_of_ten():
    assert format_decimal(10**12) == "1000000000000"
    assert format_decimal(10**13) == "1e13"


def test_caps_are_measured_against_classes_without_a_cap():
    # The example of decision 0005: logits 10, 9.5, 0 with caps on classes 0 and 1.
    found = cap_rows(np.array([[10.0, 9.5, 0.0]], dtype=np.float32), _small_patch().caps)
    assert found.tolist() == [[-1.0, -1.0, 0.0]]


def main():
    """Write the examples into SPEC.md."""
    fresh = EXAMPLE.sub(lambda m: f"<!-- example: {m[1]} -->\n```text\n{MAKERS[m[1]]()}```", _text())
    SPEC.write_text(fresh, encoding="utf-8")
    sys.stdout.write(f"{SPEC}: {len(MAKERS)} examples\n")


if __name__ == "__main__":
    main()
