import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import statement
from protocol.canonical import Fields
from protocol.digests import tagged
from protocol.errors import Schema, TooLarge
from protocol.messages.opening import Opening, hex_list, nonce_commitment
from tests.protocol.messages.samples import opened_audits
from tests.protocol.samples import hashes, hexes


@given(hashes, hashes)
def test_nonce_commitment_binds(first, second):
    assert nonce_commitment(first) == tagged("nonce", first).hex()
    assert (nonce_commitment(first) == nonce_commitment(second)) == (first == second)


@given(opened_audits)
def test_an_audit_of_no_request(opening):
    with pytest.raises(Schema):
        Opening.parse(statement.parse(dataclasses.replace(opening, requests=()).payload()))


@given(st.lists(hexes, unique=True, max_size=5))
def test_lists_keep_their_order(values):
    assert hex_list(Fields({"k": values}), "k", longest=5) == tuple(values)


@pytest.mark.parametrize(
    "value", [None, "ab" * 32, ["AB" * 32], ["ab" * 31], [["ab" * 32]], [{}], [None], ["ab" * 32] * 2]
)
def test_lists_refused(value):
    with pytest.raises(Schema):
        hex_list(Fields({"k": value}), "k", longest=5)


def test_lists_have_a_limit():
    with pytest.raises(TooLarge):
        hex_list(Fields({"k": [f"{n:064x}" for n in range(6)]}), "k", longest=5)
