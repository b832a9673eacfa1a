import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import records, statement
from protocol.canonical import Fields, to_bytes
from protocol.errors import MalformedError, NonCanonical, Schema, TooLarge
from protocol.messages import request
from protocol.messages.request import Request, Scope, parse_list, serialise_list
from tests.protocol.samples import hashes, mutated

lists = st.lists(hashes, max_size=6, unique=True)


def asking_for(listed, **changes):
    fields = {
        "subject": "ab" * 32,
        "scope": Scope(kind="class", klass=7),
        "records_root": records.list_root(listed),
        "record_count": len(listed),
        "on_behalf": False,
        "requested_at": 0,
        "deadline": None,
    }
    return Request(**{**fields, **changes})


@given(lists)
def test_list_round_trip(listed):
    data = serialise_list(listed)
    assert parse_list(data, asking_for(listed), where="list") == tuple(sorted(listed))
    assert serialise_list(sorted(listed)) == data


@given(lists, st.data())
def test_only_the_list_that_was_signed_for(listed, data):
    hostile = data.draw(
        mutated(serialise_list(listed)) | lists.filter(lambda x: set(x) != set(listed)).map(serialise_list)
    )
    with pytest.raises(MalformedError):
        parse_list(hostile, asking_for(listed), where="list")


TWO = [b"\1" * 32, b"\2" * 32]


@pytest.mark.parametrize(
    "value",
    [
        {},
        "x",
        [1, 2],
        [["01" * 32], ["02" * 32]],
        ["01" * 31, "02" * 32],
        ["0A" * 32, "0B" * 32],
        ["02" * 32, "01" * 32],
        ["01" * 32, "01" * 32],
        ["01" * 32],
        ["01" * 32, "02" * 32, "03" * 32],
        ["01" * 32, "03" * 32],
    ],
)
def test_lists_refused(value):
    with pytest.raises(Schema) as caught:
        parse_list(to_bytes(value), asking_for(TWO), where="r.leaves.json")
    assert caught.value.where == "r.leaves.json"


def test_lists_have_one_spelling_and_a_limit(monkeypatch):
    data = serialise_list(TWO)
    with pytest.raises(NonCanonical):
        parse_list(data + b" ", asking_for(TWO), where="")
    monkeypatch.setattr(request, "MAX_LIST", len(data) - 1)
    with pytest.raises(TooLarge):
        parse_list(data, asking_for(TWO), where="")


def test_records_are_needed_where_the_scope_is_about_records():
    for scope in (Scope(kind="records"), Scope(kind="subject", group="ab" * 32)):
        with pytest.raises(Schema):
            Request.parse(statement.parse(asking_for([], scope=scope).payload()))
    for scope in (Scope(kind="class", klass=0), Scope(kind="trigger", trigger="ab" * 32)):
        found = Request.parse(statement.parse(asking_for([], scope=scope, deadline=60).payload()))
        assert (found.scope, found.deadline) == (scope, 60)


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "everything"},
        {"kind": ["records"]},
        {"kind": "records", "group": "ab" * 32},
        {"kind": "subject"},
        {"kind": "subject", "group": "ab" * 32, "class": 1},
        {"kind": "class", "class": -1},
        {"kind": "class", "class": True},
        {"kind": "trigger", "trigger": None},
    ],
)
def test_scope_has_exactly_the_fields_of_its_kind(value):
    with pytest.raises(Schema):
        Scope.parse(Fields(json.loads(json.dumps(value)), where="scope"))
