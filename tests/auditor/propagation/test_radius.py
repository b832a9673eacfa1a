"""Radii in grid steps: proven ones hold on every float that is tried, and bisection finds where proofs end."""

import numpy as np
import pytest

from auditor.execute import Program
from auditor.propagation import UNPROVEN, bound, margin_radius, margin_rows, region
from protocol.errors import AuditorError
from tests.auditor import samples
from tests.auditor.propagation.nets import inside

SCHEMA = samples.grid_schema((6,), scale=20.0, offset=0.0, low=-60, high=60)
GRAPH = samples.mlp([6, 16, 16, 3], seed=1)


def cases(records=24):
    rng = np.random.default_rng(0)
    grid = rng.integers(-60, 61, (records, 6))
    return grid, Program(GRAPH)(SCHEMA.dequantise(grid)).argmax(axis=1)


def proven(grid, labels, steps, **options):
    low, high = region(SCHEMA, grid, steps)
    lower = bound(GRAPH, low, high, objective=margin_rows(labels, 3), **options).lower
    return (lower > 0).all(axis=1)


def test_rows_are_margins():
    logits = np.array([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])
    rows = margin_rows(np.array([1, 2]), 3)
    assert np.einsum("nij,nj->ni", rows, logits).tolist() == [[4.0, 3.0], [-4.0, 3.0]]
    assert margin_rows(np.array([0]), 1).shape == (1, 0, 1)


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_the_radius_is_proven_and_the_next_one_is_not(method):
    grid, labels = cases()
    radii = margin_radius(GRAPH, SCHEMA, grid, labels, method=method, ceiling=40, batch=7)
    found = radii >= 0
    assert found.sum() > 3
    assert proven(grid[found], labels[found], radii[found], method=method).all()
    below = radii < 40
    assert not proven(grid[below], labels[below], radii[below] + 1, method=method).any()


def test_no_float_in_a_proven_region_is_classified_otherwise():
    grid, labels = cases()
    radii = margin_radius(GRAPH, SCHEMA, grid, labels)
    rng = np.random.default_rng(1)
    found = np.flatnonzero(radii >= 0)
    for record in found:
        low, high = region(SCHEMA, grid[record : record + 1], radii[record : record + 1])
        outputs = Program(GRAPH)(inside(rng, low[0], high[0], 300))
        assert (outputs.argmax(axis=1) == labels[record]).all()


def test_relaxation_proves_more_than_intervals():
    grid, labels = cases()
    crown, interval = (margin_radius(GRAPH, SCHEMA, grid, labels, method=method) for method in ("crown", "interval"))
    assert crown.sum() > 1.5 * interval.sum()


def test_a_wrong_label_has_no_radius():
    grid, labels = cases()
    assert (margin_radius(GRAPH, SCHEMA, grid, (labels + 1) % 3) == UNPROVEN).all()


def test_a_margin_costs_radius():
    grid, labels = cases()
    plain, strict = (margin_radius(GRAPH, SCHEMA, grid, labels, margin=margin) for margin in (0.0, 1.0))
    assert (strict <= plain).all()
    assert (strict < plain).any()
    assert (margin_radius(GRAPH, SCHEMA, grid, labels, margin=1e30) == UNPROVEN).all()


def test_a_margin_of_nothing_must_still_be_won():
    """Equal logits, exactly: not a win."""
    builder = samples.Builder(np.random.default_rng(0), (6,))
    builder.apply("Gemm", "x", builder.constant(np.zeros((2, 6), np.float32)), shape=(2,), transB=1)
    assert (margin_radius(builder.graph(), SCHEMA, np.zeros((1, 6), np.int64), np.array([0])) == UNPROVEN).all()


def test_the_ceiling_is_a_radius():
    builder = samples.Builder(np.random.default_rng(0), (6,))
    bias = builder.constant(np.array([100.0, 0.0], np.float32))
    builder.apply("Gemm", "x", builder.constant(np.zeros((2, 6), np.float32)), bias, shape=(2,), transB=1)
    grid = np.zeros((2, 6), np.int64)
    for ceiling in (0, 1, 9):
        found = margin_radius(builder.graph(), SCHEMA, grid, np.array([0, 1]), ceiling=ceiling)
        assert found.tolist() == [ceiling, UNPROVEN]


def test_no_records_have_no_radii():
    empty = np.zeros((0, 6), np.int64)
    assert margin_radius(GRAPH, SCHEMA, empty, np.zeros(0, np.int64)).shape == (0,)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.array([3])},
        {"labels": np.array([-1])},
        {"labels": np.array([0.0])},
        {"labels": np.array([0, 1])},
        {"margin": -1.0},
        {"margin": np.nan},
        {"margin": np.inf},
        {"ceiling": -1},
        {"batch": 0},
        {"schema": samples.grid_schema((2, 3), scale=20.0, offset=0.0, low=-60, high=60)},
    ],
)
def test_arguments_that_do_not_fit_are_refused(change):
    arguments = {"schema": SCHEMA, "labels": np.array([0]), **change}
    with pytest.raises(AuditorError):
        margin_radius(GRAPH, arguments.pop("schema"), np.zeros((1, 6), np.int64), arguments.pop("labels"), **arguments)
