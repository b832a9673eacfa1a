"""Patch files: complete, consistent, one spelling; the tensor format is the safetensors library's."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from protocol.canonical import to_bytes as json_bytes
from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge
from protocol.model.patch import (
    MAX_SUM,
    AffineHead,
    AlwaysGate,
    Cap,
    FeatureGate,
    Part,
    Patch,
    PatchLimits,
    Place,
    RegionGate,
    SetHead,
    ShiftHead,
    SketchGate,
    gate_kind,
    head_kind,
    parse,
    to_bytes,
)
from protocol.model.tensors import read_tensors, write_tensors
from tests.protocol.model.samples import patches


@given(patches(tensor=("hidden", 3), weighted=True))
def test_reading_what_was_written_gives_the_same_patch(patch):
    files = to_bytes(patch)
    again = parse(*files)
    assert again == patch
    assert hash(again) == hash(patch)
    assert to_bytes(again) == files


@given(patches(tensor=("hidden", 3), weighted=True), st.data())
def test_changed_bytes_give_the_same_patch_or_malformed(patch, draw):
    files = [bytearray(data) for data in to_bytes(patch)]
    for data in files:
        if draw.draw(st.booleans()):
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        found = parse(*map(bytes, files))
    except MalformedError:
        return
    assert to_bytes(found) == tuple(map(bytes, files))


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_bytes_are_malformed(manifest, tensors):
    with pytest.raises(MalformedError):
        parse(manifest, tensors)


ARRAYS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9._]{0,5}[a-z]", fullmatch=True),
    st.tuples(
        st.sampled_from([np.float32, np.int32, np.int64]), st.lists(st.integers(0, 3), max_size=3), st.integers(0, 9)
    ).map(lambda t: (np.arange(int(np.prod(t[1]))) + t[2]).astype(t[0]).reshape(t[1])),
    max_size=5,
)


@given(ARRAYS)
def test_tensor_files_are_those_of_the_library(arrays):
    data = write_tensors(arrays)
    if arrays:  # the library pads an empty header in its own way
        assert data == safetensors.numpy.save(arrays)
    found = read_tensors(data, limit=10_000)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert not found[name].flags.writeable


def tensor_file(header, contents=b""):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + contents


def entry(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        (2**40).to_bytes(8, "little"),
        (70_000).to_bytes(8, "little") + bytes(80_000),
        tensor_file([]),
        tensor_file(b'{"a":1,"a":1}'),
        tensor_file({"a": 1}),
        tensor_file({"__metadata__": {"hidden": "payload"}}),
        tensor_file({"a": entry()}),
        tensor_file({"a": entry()}, bytes(9)),
        tensor_file({"a": entry(dtype="F64")}, bytes(8)),
        tensor_file({"a": entry(shape=[-2])}, bytes(8)),
        tensor_file({"a": entry(shape=[2.0])}, bytes(8)),
        tensor_file({"a": entry(shape=[True, 2])}, bytes(8)),
        tensor_file({"a": entry(shape=[2**60, 2**60])}, bytes(8)),
        tensor_file({"a": entry(data_offsets=[4, 12])}, bytes(12)),
        tensor_file({"a": entry(data_offsets=[0, 4])}, bytes(8)),
        tensor_file({"a": entry(more=1)}, bytes(8)),
        tensor_file({"a": entry(), "b": entry()}, bytes(8)),
        tensor_file({"a/b": entry()}, bytes(8)),
        tensor_file({"é": entry()}, bytes(8)),
        tensor_file({"a" * 65: entry()}, bytes(8)),
        tensor_file({"": entry()}, bytes(8)),
    ],
)
def test_other_tensor_files_are_refused(data):
    with pytest.raises(MalformedError):
        read_tensors(data, limit=100_000)


def test_tensor_files_have_one_spelling_and_a_limit():
    data = tensor_file({"b": entry(), "a": entry(data_offsets=[8, 16])}, bytes(16))
    assert safetensors.numpy.load(data).keys() == {"a", "b"}
    with pytest.raises(NonCanonical):
        read_tensors(data, limit=1000)
    with pytest.raises(TooLarge):
        read_tensors(write_tensors({"a": np.zeros(100, np.float32)}), limit=100)
    with pytest.raises(EncodingError):
        write_tensors({"a": np.zeros(1)})


GATE = SketchGate(
    matrix=np.array([[1, -2, 3]], np.int32), low=np.array([[0], [5]], np.int32), high=np.array([[4], [5]], np.int32)
)
HEAD = SetHead(rows=np.array([[0, 1], [2, 3]], np.float32), index=np.array([1, 0]))
REGION = RegionGate(weights=np.ones((2, 1, 3), np.float32), bounds=np.zeros((2, 1), np.float32))
FEATURE = FeatureGate(tensor="hidden", low=np.zeros((2, 4), np.float32), high=np.ones((2, 4), np.float32))
AFFINE = AffineHead(weights=np.ones((2, 2, 3), np.float32), rows=HEAD.rows, index=HEAD.index)
PATCH = Patch(features=3, classes=2, parts=(Part(gate=GATE, head=HEAD),), caps=(Cap(klass=1, margin="0.5"),))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("matrix", np.zeros((1, 3), np.int64)),
        ("matrix", np.zeros(3, np.int32)),
        ("matrix", np.zeros((2, 3), np.int32)),
        ("matrix", np.zeros((1, 0), np.int32)),
        ("matrix", np.full((1, 3), MAX_SUM + 1, np.int32)),
        ("low", np.array([[5], [5]], np.int32)),
        ("low", np.array([[0]], np.int32)),
        ("low", np.zeros((0, 1), np.int32)),
        ("low", np.full((2, 1), -(2**31), np.int32)),
        ("high", np.array([[MAX_SUM + 1], [5]], np.int32)),
        ("high", np.array([[5, 5], [5, 5]], np.int32)),
        ("screen", np.array([1])),
        ("screen", np.array([-1])),
        ("screen", np.array([0, 0])),
        ("screen", np.array([], np.int64)),
        ("screen", np.array([0], np.int32)),
    ],
)
def test_gates_that_make_no_sense_are_refused(name, value):
    with pytest.raises(Schema):
        replace(GATE, **{name: value})


@pytest.mark.parametrize("screen", [[0, 1, 2], [1, 0], [0, 4]])
def test_screens_are_ascending_and_a_power_of_two(screen):
    boxes = {"low": np.zeros((1, 4), np.int32), "high": np.zeros((1, 4), np.int32)}
    with pytest.raises(Schema):
        SketchGate(matrix=np.ones((4, 3), np.int32), screen=np.array(screen), **boxes)


@pytest.mark.parametrize(
    ("whole", "changes"),
    [
        (REGION, {"weights": np.full((2, 1, 3), np.nan, np.float32)}),
        (REGION, {"weights": np.ones((2, 2, 3), np.float32)}),
        (REGION, {"weights": np.ones((2, 1, 0), np.float32)}),
        (REGION, {"bounds": np.full((2, 1), np.inf, np.float32)}),
        (REGION, {"bounds": np.zeros((2, 1))}),
        (FEATURE, {"tensor": ""}),
        (FEATURE, {"high": np.full((2, 4), -1, np.float32)}),
        (FEATURE, {"high": np.full((2, 4), np.inf, np.float32)}),
        (FEATURE, {"high": np.zeros((2, 3), np.float32)}),
        (HEAD, {"rows": np.zeros((2, 2))}),
        (HEAD, {"rows": np.array([[0, np.nan], [2, 3]], np.float32)}),
        (HEAD, {"index": np.array([0, 2])}),
        (HEAD, {"index": np.array([0, -1])}),
        (HEAD, {"index": np.array([0, 0])}),
        (HEAD, {"index": np.array([0, 1], np.int32)}),
        (AFFINE, {"weights": np.ones((2, 1, 3), np.float32)}),
        (AFFINE, {"weights": np.full((2, 2, 3), np.inf, np.float32)}),
        (ShiftHead(rows=HEAD.rows, index=HEAD.index), {"rows": np.full((2, 2), np.inf, np.float32)}),
    ],
)
def test_gates_and_heads_that_make_no_sense_are_refused(whole, changes):
    with pytest.raises(Schema):
        replace(whole, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"features": 4},
        {"features": 0},
        {"classes": 3},
        {"parts": (), "caps": ()},
        {"parts": (Part(gate=replace(REGION, weights=np.ones((2, 1, 4), np.float32)), head=HEAD),)},
        {"parts": (Part(gate=GATE, head=replace(AFFINE, weights=np.ones((2, 2, 4), np.float32))),)},
        {"parts": (Part(gate=GATE, head=replace(HEAD, rows=np.zeros((2, 3), np.float32))),)},
        {"caps": (Cap(klass=2, margin="1"),)},
        {"caps": (Cap(klass=-1, margin="1"),)},
        {"caps": (Cap(klass=1, margin="1"), Cap(klass=1, margin="2"))},
        {"classes": 1, "parts": (), "caps": (Cap(klass=0, margin="1"),)},
    ],
)
def test_patches_that_make_no_sense_are_refused(changes):
    with pytest.raises(Schema):
        replace(PATCH, **changes)


def test_a_head_is_as_long_as_its_gate():
    for gate in (AlwaysGate(), replace(GATE, low=GATE.low[:1], high=GATE.high[:1])):
        with pytest.raises(Schema, match="assigned to 1 items"):
            Part(gate=gate, head=HEAD)


def test_items_are_counted_through_the_parts():
    one = SetHead(rows=HEAD.rows[:1], index=np.array([0]))
    parts = tuple(Part(gate=gate, head=HEAD) for gate in (GATE, FEATURE, REGION))
    patch = replace(PATCH, parts=(parts[0], Part(gate=AlwaysGate(), head=one), *parts[1:]))
    assert patch.items == 7
    assert patch.starts == (0, 2, 3, 5)
    assert [patch.place(item) for item in (0, 1, 2, 6)] == [
        Place(part=0, item=0), Place(part=0, item=1), Place(part=1, item=0), Place(part=3, item=1),
    ]  # fmt: skip
    for item in (-1, 7, None):
        with pytest.raises(Schema, match=r"no.* item"):
            patch.place(item)
    assert [gate_kind(part.gate) for part in patch.parts] == ["sketch", "always", "feature", "linear-region"]
    assert [head_kind(head) for head in (HEAD, AFFINE)] == ["set", "affine"]
    assert parse(*to_bytes(patch)) == patch


@pytest.mark.parametrize("margin", ["-1", "1.0", "nan", "1e99", "", "0.30000000000000004"])
def test_margins_have_one_spelling_and_are_not_negative(margin):
    with pytest.raises(MalformedError):
        Cap(klass=0, margin=margin)


def test_equality():
    assert replace(PATCH, caps=()) != PATCH
    assert replace(HEAD, rows=HEAD.rows + 1) != HEAD
    assert ShiftHead(rows=HEAD.rows, index=HEAD.index) != HEAD
    assert replace(GATE, screen=np.array([0])) != GATE
    assert PATCH != 3
    assert GATE != 3
    assert replace(GATE, high=GATE.high + 1) != GATE
    with pytest.raises(ValueError, match="read-only"):
        HEAD.rows[0] = 1


MANIFEST, TENSORS = to_bytes(PATCH)


def manifest(**changes):
    value = {**json.loads(MANIFEST), **changes}
    return json_bytes({name: item for name, item in value.items() if item is not None})


def part(gate, head):
    return manifest(parts=[{"gate": gate, "head": head}])


SKETCH, SET = {"kind": "sketch", "screen": False}, {"kind": "set"}
FILES = {
    "version": manifest(version="prune-audit/patch/v2"),
    "another kind of gate": part({"kind": "feature", "tensor": "hidden"}, SET),
    "an unknown kind of gate": part({"kind": "neural"}, SET),
    "another kind of head": part(SKETCH, {"kind": "affine"}),
    "no head": manifest(parts=[{"gate": SKETCH}]),
    "no gate": manifest(parts=[{"head": SET}]),
    "a screen that is not there": part({"kind": "sketch", "screen": True}, SET),
    "a screen that is not said": part({"kind": "sketch"}, SET),
    "nothing but a cap": manifest(parts=[]),
    "too many parts": manifest(parts=[{"gate": SKETCH, "head": SET}] * 17),
    "an unknown field": manifest(more=1),
    "too many features": manifest(features=2**40),
    "no tensors named": manifest(tensors={}),
    "a tensor too many": manifest(tensors={**json.loads(MANIFEST)["tensors"], "more": {"dtype": "F32", "shape": []}}),
    "another shape": manifest(
        tensors={**json.loads(MANIFEST)["tensors"], "p0.head.rows": {"dtype": "F32", "shape": [4]}}
    ),
    "another type": manifest(
        tensors={**json.loads(MANIFEST)["tensors"], "p0.head.rows": {"dtype": "I32", "shape": [2, 2]}}
    ),
    "spaces": json.dumps(json.loads(MANIFEST)).encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_other_manifests_are_refused(name):
    with pytest.raises(MalformedError) as caught:
        parse(FILES[name], TENSORS)
    assert caught.value.where


def test_limits_hold():
    for limits in (
        PatchLimits(manifest=10),
        PatchLimits(tensors=10),
        PatchLimits(items=1),
        PatchLimits(components=0),
        PatchLimits(features=2),
        PatchLimits(classes=1),
    ):
        with pytest.raises(MalformedError):
            parse(MANIFEST, TENSORS, limits=limits)


def test_scalar_tensors_are_refused():
    arrays = {**read_tensors(TENSORS, limit=10_000), "p0.gate.matrix": np.array(1, np.int32)}
    named = {**json.loads(MANIFEST)["tensors"], "p0.gate.matrix": {"dtype": "I32", "shape": []}}
    with pytest.raises(MalformedError):
        parse(manifest(tensors=named), write_tensors(arrays))


def test_the_library_reads_our_tensors():
    found = safetensors.numpy.load(TENSORS)
    assert np.array_equal(found["p0.head.rows"], HEAD.rows)
    assert np.array_equal(found["p0.gate.low"], GATE.low)
