import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import envelope as dsse
from protocol import statement
from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge
from tests.protocol.log.helpers import VECTORS
from tests.protocol.samples import hexes, json_values, mutated, texts

CASES = sorted((VECTORS / "in-toto-statement").glob("*.json"))
GOOD = statement.serialise(
    subject_name="file", subject_sha256="ab" * 32, predicate_type="https://example.com/v1", predicate={"a": [1]}
)


def edited(**changes):
    value = {**json.loads(GOOD), **changes}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_vectors(path):
    case = json.loads(path.read_bytes())
    data = json.dumps(case["statement"]).encode()
    # `accept` is null where specification (predicate is optional) and Go binding differ: the specification holds.
    if case["accept"] is False:
        with pytest.raises(MalformedError):
            statement.parse(data, ours=False)
    else:
        found = statement.parse(data, ours=False)
        assert found.subjects[0].digest == {"alg1": "abc123"}
        assert found.predicate == case["statement"].get("predicate")
    with pytest.raises(MalformedError):
        statement.parse(data)


def test_all_vectors_are_there():
    assert len(CASES) == 8


def test_a_sigstore_statement():
    bundle = json.loads(
        (VECTORS / "sigstore-conformance/happy-path-intoto-in-dsse-v3/bundle.sigstore.json").read_bytes()
    )
    payload = dsse.parse(json.dumps(bundle["dsseEnvelope"]).encode()).payload
    found = statement.parse(payload, ours=False)
    assert found.predicate_type
    assert len(found.subjects[0].digest["sha256"]) == 64


@given(texts, hexes, texts.filter(bool), st.dictionaries(texts, json_values, max_size=3))
def test_round_trip(name, digest, kind, predicate):
    data = statement.serialise(subject_name=name, subject_sha256=digest, predicate_type=kind, predicate=predicate)
    found = statement.parse(data)
    assert found.about(name, kind) == digest
    assert (found.predicate_type, found.predicate) == (kind, predicate)
    assert statement.parse(data, ours=False) == found


@given(mutated(GOOD) | st.binary(max_size=30), st.booleans())
def test_any_mutation_is_a_statement_or_malformed(data, ours):
    try:
        found = statement.parse(data, ours=ours)
    except MalformedError:
        return
    if ours:
        again = statement.serialise(
            subject_name=found.subjects[0].name,
            subject_sha256=found.subjects[0].digest["sha256"],
            predicate_type=found.predicate_type,
            predicate=found.predicate,
        )
        assert again == data


SUBJECT = json.loads(GOOD)["subject"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": []},
        {"subject": [SUBJECT, SUBJECT]},
        {"subject": SUBJECT},
        {"subject": None},
        {"subject": ["x"]},
        {"subject": [{**SUBJECT, "digest": {}}]},
        {"subject": [{**SUBJECT, "digest": []}]},
        {"subject": [{**SUBJECT, "digest": {"sha256": ["ab"]}}]},
        {"subject": [{**SUBJECT, "digest": {"sha256": "AB" * 32}}]},
        {"subject": [{**SUBJECT, "digest": {"sha256": "ab" * 31}}]},
        {"subject": [{**SUBJECT, "digest": {"sha256": "ab" * 31 + "a\n"}}]},
        {"subject": [{**SUBJECT, "digest": {"sha512": "ab" * 64}}]},
        {"subject": [{**SUBJECT, "digest": {**SUBJECT["digest"], "sha512": "ab" * 64}}]},
        {"subject": [{**SUBJECT, "digest": {"alg": ""}}]},
        {"subject": [{**SUBJECT, "name": 1}]},
        {"subject": [{**SUBJECT, "uri": "https://example.com"}]},
        {"subject": [{"digest": SUBJECT["digest"]}]},
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"_type": ["https://in-toto.io/Statement/v1"]},
        {"predicateType": ""},
        {"predicateType": {}},
        {"more": 1},
    ],
)
def test_refused(changes):
    with pytest.raises(Schema):
        statement.parse(edited(**changes))


def test_other_peoples_statements_may_say_more():
    data = edited(
        more=[],
        subject=[{"digest": {"sha256": "ab" * 32, "gitCommit": "ab" * 20}, "uri": "x"}, {**SUBJECT, "annotations": {}}],
    )
    found = statement.parse(b" " + data, ours=False)
    assert [subject.name for subject in found.subjects] == ["", "file"]
    with pytest.raises(Schema):
        found.about("file", found.predicate_type)
    for data in (b"[]", b"1", edited(subject="x"), edited(subject=["x"]), edited(subject=[{"name": "x"}])):
        with pytest.raises(Schema):
            statement.parse(data, ours=False)


def test_missing_fields():
    for name in ("_type", "subject", "predicateType", "predicate"):
        value = json.loads(GOOD)
        del value[name]
        with pytest.raises(Schema):
            statement.parse(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def test_one_spelling():
    with pytest.raises(NonCanonical):
        statement.parse(GOOD + b"\n")
    with pytest.raises(TooLarge):
        statement.parse(b" " * (dsse.MAX_ENVELOPE + 1))


def test_about_refuses_another_name():
    found = statement.parse(GOOD)
    assert found.about("file", found.predicate_type) == "ab" * 32
    with pytest.raises(Schema):
        found.about("another", found.predicate_type)
    with pytest.raises(Schema):
        found.about("file", "https://example.com/v2")


def test_floats_are_not_written():
    with pytest.raises(EncodingError):
        statement.serialise(subject_name="", subject_sha256="", predicate_type="x", predicate={"rate": 0.5})
