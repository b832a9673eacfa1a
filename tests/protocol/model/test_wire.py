"""The look at the outer layers of a protobuf file."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedError, TooLarge
from protocol.model.wire import check_wire
from tests.protocol.model.samples import changed, gemm_proto

GOOD = gemm_proto().SerializeToString()


def field(number, contents):
    assert len(contents) < 128
    return bytes([number << 3 | 2, len(contents)]) + contents


@given(st.binary(max_size=60))
def test_any_bytes_pass_or_are_malformed(data):
    with suppress(MalformedError):
        check_wire(data, structure=1000)


def test_only_tensor_contents_are_free():
    def larger(model):
        model.graph.initializer[0].raw_data = bytes(100_000)

    def longer(model):
        model.graph.initializer[0].doc_string = "a" * 400

    check_wire(changed(GOOD, larger), structure=400)
    with pytest.raises(TooLarge):
        check_wire(changed(GOOD, longer), structure=400)


def test_many_small_messages_are_refused_quickly():
    nodes = field(7, field(1, b"") * 50) * 100_000
    with pytest.raises(TooLarge):
        check_wire(nodes, structure=1000)


def test_fixed_size_fields_are_passed_over():
    check_wire(bytes([9 << 3 | 1]) + bytes(8) + bytes([9 << 3 | 5]) + bytes(4) + bytes([9 << 3, 0x80, 1]), structure=99)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",
        b"\x08" + b"\xff" * 11,
        b"\x3a\x05abc",
        b"\x09abc",
        b"\x0d",
        b"\x0b",
        b"\x0c",
        field(7, b"\x2a\x7f"),
        field(7, field(5, b"\x4a\x7f")),
    ],
)
def test_cut_off_and_strange_fields_are_refused(data):
    with pytest.raises(MalformedError, match="not protobuf"):
        check_wire(data, structure=1000)
