"""The input grid: exact in float32, comes back to itself, one spelling."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.canonical import parse_json, to_bytes
from protocol.errors import MalformedError, NonCanonical, Schema
from protocol.model.schema import MAX_GRID, InputSchema, from_value, parse
from tests.protocol.model.samples import schemas

PIXELS = InputSchema.uniform((1, 4, 4), scale=255.0, low=0, high=255)


@given(schemas())
def test_reading_what_was_written_gives_the_same_schema(schema):
    data = schema.to_bytes()
    again = parse(data)
    assert again == schema
    assert hash(again) == hash(schema)
    assert again.to_bytes() == data
    assert from_value(schema.to_value()) == schema


@given(st.binary(max_size=300))
def test_any_bytes_give_a_schema_or_malformed(data):
    with pytest.raises(MalformedError):
        parse(data)


@given(schemas(), st.integers(0, 2**32))
def test_every_grid_value_comes_back(schema, seed):
    schema.check()
    high = np.minimum(schema.high, schema.low + 500)
    grid = np.random.default_rng(seed).integers(schema.low, high + 1, (20, schema.features))
    found, inside = schema.quantise(schema.dequantise(grid))
    assert np.array_equal(found, grid)
    assert found.dtype == np.int32
    assert inside.all()


def test_rounding_is_half_to_even_and_edges_belong_to_the_box():
    schema = InputSchema.uniform((1,), scale=1.0, low=-2, high=3)
    x = np.array([-2.5, -2.6, -0.5, 0.5, 1.5, 2.5, 3.5, 3.6, 7, -9], np.float32)[:, None]
    grid, inside = schema.quantise(x)
    assert grid[:, 0].tolist() == [-2, -2, 0, 0, 2, 2, 3, 3, 3, -2]
    assert inside.tolist() == [True, False, True, True, True, True, True, False, False, False]


def test_what_is_no_number_is_outside():
    x = np.array([[np.nan], [np.inf], [-np.inf], [3.4e38]], np.float32)
    grid, inside = InputSchema.uniform((1,), scale=16.0, low=1, high=5).quantise(x)
    assert not inside.any()
    assert grid[:, 0].tolist() == [1, 5, 1, 5]


@pytest.mark.parametrize("x", [np.zeros((2, 1, 4, 4)), np.zeros((2, 15), np.float32)])
def test_other_records_are_refused(x):
    with pytest.raises(Schema):
        PIXELS.quantise(x)


def test_layouts():
    schema = InputSchema.uniform((2, 3, 4), scale=255.0, low=0, high=255, layout="nhwc-to-nchw")
    raw = np.arange(2 * 24).reshape(2, 3, 4, 2)
    assert np.array_equal(schema.arrange(raw), raw.transpose(0, 3, 1, 2))
    assert parse(schema.to_bytes()).layout == "nhwc-to-nchw"
    assert np.array_equal(PIXELS.arrange(np.arange(32).reshape(2, 16)).reshape(2, 16), np.arange(32).reshape(2, 16))
    for wrong in (np.zeros((2, 2, 3, 4)), np.zeros((2, 5))):
        with pytest.raises(Schema):
            schema.arrange(wrong)
    with pytest.raises(Schema):
        PIXELS.arrange(np.zeros((2, 17)))


def test_a_grid_finer_than_float32_is_found():
    InputSchema.uniform((1,), scale=1e-3, low=-MAX_GRID, high=MAX_GRID).check()
    far = InputSchema.from_columns(
        (2,), scale=np.ones(2), offset=np.array([0, 1e9]), low=np.zeros(2), high=np.full(2, 9)
    )
    with pytest.raises(Schema, match="column 1"):
        far.check()
    with pytest.raises(Schema, match="column 0"):
        InputSchema.uniform((1,), scale=1e-39, low=-9, high=9).check()


def test_equality():
    assert replace(PIXELS, high=PIXELS.high - 1) != PIXELS
    assert replace(PIXELS, shape=(16,)) != PIXELS
    assert PIXELS != 3
    assert InputSchema.uniform((1,), scale=1.0, offset=-0.0, low=0, high=1) == InputSchema.uniform(
        (1,), scale=1.0, low=0, high=1
    )
    with pytest.raises(ValueError, match="read-only"):
        PIXELS.scale[0] = 1


def columns(**changes):
    given = {"scale": np.ones(2), "offset": np.zeros(2), "low": np.zeros(2), "high": np.ones(2), **changes}
    return InputSchema.from_columns(given.pop("shape", (2,)), **given)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": ()},
        {"shape": (0,)},
        {"shape": (1,) * 9},
        {"shape": (2**11, 2**11)},
        {"shape": (3,)},
        {"scale": np.zeros(2)},
        {"scale": np.full(2, np.nan)},
        {"scale": np.full(2, 1e300)},
        {"offset": np.full(2, np.inf)},
        {"low": np.full(2, 2)},
        {"low": np.full(2, -MAX_GRID - 1)},
        {"high": np.full(2, MAX_GRID + 1)},
        {"kind": ("grid",)},
        {"kind": ("grid", "other")},
        {"kind": ("grid", "binary"), "high": np.full(2, 2)},
        {"kind": ("grid", "onehot")},
        {"kind": ("grid", "onehot"), "group": np.array([0, 0])},
        {"kind": ("grid", "onehot"), "group": np.array([-1, 2**20])},
        {"names": ("a",)},
        {"names": ("a", "")},
        {"names": ("a", "b\n")},
        {"layout": "other"},
        {"layout": "nhwc-to-nchw"},
    ],
)
def test_columns_that_make_no_sense_are_refused(changes):
    with pytest.raises(Schema):
        columns(**changes)


def test_the_constructor_checks_types():
    with pytest.raises(Schema, match="scale"):
        replace(PIXELS, scale=PIXELS.scale.astype(np.float64))


VALUE = parse_json(PIXELS.to_bytes(), limit=10_000)
COLUMN = VALUE["columns"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "prune-audit/input-schema/v2"},
        {"shape": [16, "1"]},
        {"shape": [16, 0]},
        {"shape": [17]},
        {"shape": []},
        {"layout": "other"},
        {"names": [1] * 16},
        {"columns": [{**COLUMN, "count": 15}]},
        {"columns": [{**COLUMN, "scale": "255"}, COLUMN]},
        {"columns": [{**COLUMN, "scale": 255}]},
        {"columns": [{**COLUMN, "scale": "nan"}]},
        {"columns": [{**COLUMN, "scale": "0.10000000000000001"}]},
        {"columns": [{**COLUMN, "group": 0}]},
        {"columns": [{**COLUMN, "kind": "onehot"}]},
        {"columns": [{**COLUMN, "more": 0}]},
        {"columns": []},
        {"more": 0},
    ],
)
def test_other_values_are_refused(changes):
    with pytest.raises(MalformedError):
        parse(to_bytes({**VALUE, **changes}))


def test_other_spellings_are_refused():
    split = {**VALUE, "columns": [{**COLUMN, "count": 8}, {**COLUMN, "count": 8}]}
    for data in (to_bytes(split), PIXELS.to_bytes() + b"\n"):
        with pytest.raises(NonCanonical):
            parse(data)
