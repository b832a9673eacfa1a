"""What holds for every message; what is particular to one is in its own file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import envelope as dsse
from protocol import messages, statement
from protocol.canonical import to_bytes
from protocol.errors import MalformedError, Schema
from protocol.messages.commitment import Commitment
from protocol.messages.request import Request
from tests.protocol.messages.samples import ALL
from tests.protocol.samples import OWNER, json_values, mutated

KINDS = pytest.mark.parametrize("kind", list(ALL), ids=lambda kind: kind.__name__)


def signed(payload, **options):
    return dsse.sign(payload, [OWNER], **options)


@KINDS
@given(data=st.data())
def test_round_trip(kind, data):
    message = data.draw(ALL[kind])
    payload = message.payload()
    assert kind.parse(statement.parse(payload)) == message
    envelope, found = messages.read(signed(payload), kind)
    assert found == message
    assert envelope.payload == found.payload()
    assert messages.predicate_of(envelope) == kind.PREDICATE


@KINDS
@given(data=st.data())
def test_a_payload_that_parses_is_the_one_spelling_of_its_message(kind, data):
    payload = data.draw(ALL[kind].flatmap(lambda message: mutated(message.payload())))
    try:
        found = kind.parse(statement.parse(payload))
    except MalformedError:
        return
    assert found.payload() == payload


def places(value, path=()):
    """Every place of a JSON value."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@KINDS
@given(data=st.data())
def test_wrong_values_anywhere_are_malformed(kind, data):
    # Any JSON value in any place: unhashable ones, nested ones, booleans for integers.
    value = json.loads(data.draw(ALL[kind]).payload())
    place = data.draw(st.sampled_from(list(places(value["predicate"]))))
    value["predicate"] = replaced(value["predicate"], place, data.draw(json_values))
    payload = to_bytes(value)
    try:
        found = kind.parse(statement.parse(payload))
    except MalformedError:
        return
    assert found.payload() == payload


@KINDS
@given(data=st.data())
def test_every_field_counts(kind, data):
    value = json.loads(data.draw(ALL[kind]).payload())
    with pytest.raises(Schema):
        kind.parse(statement.parse(to_bytes({**value, "predicate": {**value["predicate"], "more": 1}})))
    value["subject"][0]["name"] += "x"
    with pytest.raises(Schema):
        kind.parse(statement.parse(to_bytes(value)))


def test_types_and_subjects_are_named_once():
    assert len({kind.PREDICATE for kind in ALL}) == len(ALL)
    assert all(kind.PREDICATE.startswith(statement.PREDICATE_BASE) and kind.PREDICATE.endswith("/v1") for kind in ALL)
    assert all("." in kind.SUBJECT for kind in ALL)


@KINDS
@given(data=st.data())
def test_a_message_is_not_read_as_another(kind, data):
    payload = data.draw(ALL[kind]).payload()
    for other in ALL:
        if other is not kind:
            with pytest.raises(Schema):
                messages.read(signed(payload), other)


SAMPLE = Commitment(
    subject="ab" * 32,
    base="01" * 32,
    schema="02" * 32,
    recipe="03" * 32,
    prepared=None,
    records_root=b"\4" * 32,
    record_count=5,
    group_count=5,
    committed_at=1_795_000_000,
)


def test_the_spelling_itself():
    assert (
        SAMPLE.payload()
        == (
            '{"_type":"https://in-toto.io/Statement/v1","predicate":{"base":"' + "01" * 32 + '",'
            '"committedAt":"2026-11-18T11:06:40Z","recipe":"' + "03" * 32 + '",'
            '"records":{"count":5,"groups":5,"root":"' + "04" * 32 + '"},"schema":"' + "02" * 32 + '"},'
            '"predicateType":"https://prune-audit.dev/commitment/v1",'
            '"subject":[{"digest":{"sha256":"' + "ab" * 32 + '"},"name":"manifest.json"}]}'
        ).encode()
    )


def test_another_payload_type():
    with pytest.raises(Schema) as caught:
        messages.read(signed(SAMPLE.payload(), payload_type="text/plain"), Commitment, where="c.dsse.json")
    assert caught.value.where == "c.dsse.json"
    with pytest.raises(Schema):
        messages.predicate_of(dsse.parse(signed(SAMPLE.payload(), payload_type="text/plain")))


def test_errors_name_file_and_field():
    value = json.loads(SAMPLE.payload())
    del value["predicate"]["records"]["root"]
    with pytest.raises(Schema) as caught:
        messages.read(signed(to_bytes(value)), Commitment, where="c.dsse.json")
    assert caught.value.where == "c.dsse.json.records"
    value["predicate"]["records"] = json.loads(SAMPLE.payload())["predicate"]["records"]
    del value["predicate"]["base"]
    with pytest.raises(Schema) as caught:
        messages.read(signed(to_bytes(value)), Commitment, where="c.dsse.json")
    assert caught.value.where == "c.dsse.json"
    with pytest.raises(Schema) as caught:
        messages.read(signed(SAMPLE.payload()), Request, where="c.dsse.json")
    assert caught.value.where == "c.dsse.json"
    with pytest.raises(MalformedError) as caught:
        messages.read(b"", Request, where="c.dsse.json")
    assert caught.value.where == "c.dsse.json"
