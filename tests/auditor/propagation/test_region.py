"""No float that the quantiser puts into a region lies outside its box."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.propagation import region
from protocol.errors import AuditorError
from protocol.model.schema import InputSchema
from tests.auditor.propagation.executions import Execution
from tests.auditor.samples import grid_schema
from tests.protocol.model.samples import schemas as all_schemas

SCHEMA = grid_schema((2,), scale=255.0, offset=0.0, low=0, high=255)


def variants(schema, x):
    """`x s + b` fused or not, flushed or not."""
    for flush in (False, True):
        way = Execution(rng=np.random.default_rng(0), flush=flush)
        yield way.add(way.mul(x, schema.scale), schema.offset)
        yield way.fma(x, schema.scale, schema.offset)


def members(schema, grid, steps, x):
    """Which of the floats [n, feature] some quantiser calls inside and within the steps, by column."""
    found = np.zeros(x.shape, np.bool_)
    for affine in variants(schema, x):
        value = np.clip(np.rint(affine), schema.low, schema.high)
        within = (affine >= schema.low - 0.5) & (affine <= schema.high + 0.5)
        found |= within & (np.abs(value - grid) <= steps)
    return found


@settings(max_examples=120, deadline=None)
@given(all_schemas(), st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_every_member_is_in_the_box(schema, seed, steps):
    rng = np.random.default_rng(seed)
    grid = rng.integers(schema.low, schema.high + 1)[None]
    low, high = (end.reshape(1, -1) for end in region(schema, grid, np.array(steps)))
    # Float neighbours of both ends, inside and outside, and of the ends of the declared range.
    x = []
    for end in (low, high):
        for towards in (-np.inf, np.inf):
            near = end
            for _ in range(30):
                near = np.nextafter(near, np.float32(towards))
                x.append(near)
    spread = 1 / np.abs(schema.scale.astype(np.float64))
    x += [(low + rng.normal(size=low.shape) * spread).astype(np.float32) for _ in range(30)]
    x = np.concatenate(x)
    inside = members(schema, grid, steps, x)
    assert ((low <= x) & (x <= high))[inside].all()


@settings(max_examples=120, deadline=None)
@given(all_schemas(), st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_the_box_is_hardly_wider_than_the_region(schema, seed, steps):
    """One ten-thousandth of a step further in, everything is a member."""
    rng = np.random.default_rng(seed)
    grid = rng.integers(schema.low, schema.high + 1)[None]
    low, high = (end.reshape(1, -1).astype(np.float64) for end in region(schema, grid, np.array(steps)))
    size = np.abs(schema.offset) + np.maximum(np.abs(schema.low), np.abs(schema.high)) + 1
    step = 2e-6 * size / np.abs(schema.scale)
    for x in (low + step, high - step, 0.5 * (low + high)):
        assert members(schema, grid, steps, x.astype(np.float32)).all()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_grey_levels(dtype):
    grid = np.array([[0, 100], [255, 3]], dtype)
    low, high = region(SCHEMA, grid, np.array([2, 0]))
    np.testing.assert_allclose(low, np.array([[-0.5, 97.5], [254.5, 2.5]]) / 255, atol=1e-6)
    np.testing.assert_allclose(high, np.array([[2.5, 102.5], [255.5, 3.5]]) / 255, atol=1e-6)
    assert (low.astype(np.float64) < np.array([[-0.5, 97.5], [254.5, 2.5]]) / 255).all()


def test_regions_are_nested_and_end_at_the_declared_box():
    grid = np.array([[7, 100]])
    ends = [region(SCHEMA, grid, np.array(steps)) for steps in (0, 1, 5, 300, 2**62)]
    for (low, high), (lower, higher) in pairwise(ends):
        assert (lower <= low).all()
        assert (high <= higher).all()
    np.testing.assert_array_equal(ends[3], ends[4])
    np.testing.assert_allclose(ends[4][1], 255.5 / 255, atol=1e-6)


def test_steps_by_column():
    low, high = region(SCHEMA, np.array([[9, 9]]), np.array([[0, 3]]))
    np.testing.assert_allclose((high - low) * 255, [[1, 7]], atol=1e-3)


def test_negative_scales_turn_the_box_around():
    schema = grid_schema((1,), scale=-2.0, offset=3.0, low=-10, high=10)
    low, high = region(schema, np.array([[5]]), np.array(1))
    np.testing.assert_allclose([low[0, 0], high[0, 0]], [(6.5 - 3) / -2, (3.5 - 3) / -2], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-40, -1e-44])
def test_a_scale_that_may_be_flushed_leaves_the_input_open(scale):
    schema = InputSchema.uniform((1,), scale=scale, low=0, high=1)
    low, high = region(schema, np.array([[1]]), np.array(0))
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()


def test_the_shape_is_the_models():
    schema = grid_schema((3, 2, 2), scale=1.0, offset=0.0, low=0, high=9)
    low, high = region(schema, np.zeros((5, 12), np.int64), np.array(1))
    assert low.shape == high.shape == (5, 3, 2, 2)
    assert low.dtype == high.dtype == np.float32


@pytest.mark.parametrize(
    ("grid", "steps"),
    [
        (np.zeros((1, 3), np.int64), np.array(1)),
        (np.zeros(2, np.int64), np.array(1)),
        (np.zeros((1, 2)), np.array(1)),
        (np.zeros((1, 2), np.int64), np.array(0.5)),
        (np.zeros((1, 2), np.int64), np.array(-1)),
        (np.zeros((2, 2), np.int64), np.array([1, 1, 1])),
        (np.zeros((1, 2), np.int64), np.array([[1, 1], [1, 1]])),
        (np.zeros((1, 2), np.int64), np.zeros((1, 1, 2), np.int64)),
        (np.full((1, 2), 256), np.array(1)),
        (np.full((1, 2), -1), np.array(1)),
    ],
)
def test_arguments_that_do_not_fit_are_refused(grid, steps):
    with pytest.raises(AuditorError):
        region(SCHEMA, grid, steps)
