"""Bounds against enumeration of every grid point, on grids small enough for it."""

import time
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor import bounds, conflicts
from auditor.bounds import data_radius, inexact_sums, prove_sketch_core, sketch_hull
from auditor.conflicts import first_meeting
from auditor.rows import distinct_rows, round_float32
from protocol.errors import AuditorError
from protocol.model.patch import SketchGate
from tests.auditor.samples import grid_schema


def _gate(matrix, low, high):
    return SketchGate(matrix=np.array(matrix, np.int32), low=np.array(low, np.int32), high=np.array(high, np.int32))


def _points(centre, radius, low, high):
    columns = [range(max(c - r, a), min(c + r, b) + 1) for c, r, a, b in zip(centre, radius, low, high, strict=True)]
    return np.array(list(product(*columns)), np.int64).reshape(-1, len(centre))


@st.composite
def _cases(draw):
    """A patch and claims about some records, with boxes that are sometimes a little too small."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features, components = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    items, records = draw(st.integers(1, 5)), draw(st.integers(0, 5))
    matrix = random.integers(-3, 4, (components, features))
    low = random.integers(-3, 1, features)
    high = low + random.integers(0, 5, features)
    centres = random.integers(low, high + 1, (items, features))
    spread = random.integers(0, 7, (items, 1)) + np.zeros((1, components), np.int64)
    gate = _gate(matrix, centres @ matrix.T - spread, centres @ matrix.T + spread)
    item = random.integers(0, items, records)
    radius = random.integers(0, 3, (records, draw(st.sampled_from([1, features]))))
    rows = random.integers(0, 2, (items, 2)).astype(np.float32)
    return (gate, rows), centres[item], radius, item, low, high


def _prove(case):
    (gate, _), centre, radius, item, low, high = case
    return prove_sketch_core(gate, centre=centre, radius=radius, item=item, column_low=low, column_high=high)


@settings(max_examples=300)
@given(_cases())
def test_a_core_is_decided_exactly(case):
    (gate, _), centre, radius, item, low, high = case
    proof = _prove(case)
    assert set(proof.counterexamples) == set(np.flatnonzero(~proof.proven))
    for record, own in enumerate(item):
        points = _points(centre[record], np.broadcast_to(radius[record], low.shape), low, high)
        sketches = points @ gate.matrix.astype(np.int64).T
        assert (proof.hull_low[record] == sketches.min(axis=0)).all()
        assert (proof.hull_high[record] == sketches.max(axis=0)).all()
        fires = ((sketches >= gate.low[own]) & (sketches <= gate.high[own])).all(axis=1)
        assert proof.proven[record] == fires.all()
        if not proof.proven[record]:
            found = proof.counterexamples[record]
            assert (points == found.point).all(axis=1).any()
            assert found.value == gate.matrix[found.component].astype(np.int64) @ found.point
            assert (found.low, found.high) == (gate.low[own, found.component], gate.high[own, found.component])
            assert not found.low <= found.value <= found.high


def _slow_conflicts(gate, rows, proof, item):
    found = []
    for record, own in enumerate(item):
        meets = ((gate.low <= proof.hull_high[record]) & (gate.high >= proof.hull_low[record])).all(axis=1)
        other = [k for k in range(own) if meets[k] and rows[k].tobytes() != rows[own].tobytes()]
        found.append(other[0] if other else -1)
    return found


def _conflicts(gate, rows, proof, item):
    outputs = distinct_rows(rows)
    return first_meeting(
        gate.low, gate.high, outputs, hull_low=proof.hull_low, hull_high=proof.hull_high, own=outputs[item], before=item
    )


@settings(max_examples=300)
@given(_cases(), st.sampled_from([1, 7, 1 << 23]))
def test_conflicts_are_those_of_the_slow_search(case, block):
    (gate, rows), item = case[0], case[3]
    proof = _prove(case)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bounds, "_BLOCK_ELEMENTS", block)
        patched.setattr(conflicts, "_ELEMENTS", block)
        assert _conflicts(gate, rows, proof, item).tolist() == _slow_conflicts(gate, rows, proof, item)
        assert (_prove(case).hull_low == proof.hull_low).all()


@settings(max_examples=300)
@given(_cases())
def test_proven_and_without_conflict_means_the_row_is_the_output(case):
    (gate, rows), centre, radius, item, low, high = case
    proof = _prove(case)
    free = _conflicts(gate, rows, proof, item) < 0
    for record in np.flatnonzero(proof.proven & free):
        points = _points(centre[record], np.broadcast_to(radius[record], low.shape), low, high)
        sketches = points @ gate.matrix.astype(np.int64).T
        hits = ((sketches[:, None] >= gate.low) & (sketches[:, None] <= gate.high)).all(axis=2)
        assert hits.any(axis=1).all()
        assert (rows[hits.argmax(axis=1)] == rows[item[record]]).all()


def test_conflicts_of_many_items():
    random = np.random.default_rng(0)
    middle = random.integers(-400, 400, (400, 6))
    width = random.integers(0, 300, (400, 6))
    gate = _gate(np.eye(6, dtype=np.int32), middle - width, middle + width)
    rows = np.arange(400, dtype=np.float32)[:, None] + np.zeros((1, 2), np.float32)
    item = random.permutation(400)
    limits = np.full(6, 2000)
    proof = prove_sketch_core(
        gate, centre=middle[item], radius=np.full((400, 1), 20), item=item, column_low=-limits, column_high=limits
    )
    found = _conflicts(gate, rows, proof, item)
    assert found.tolist() == _slow_conflicts(gate, rows, proof, item)
    assert 0 < (found >= 0).sum() < 400


def test_conflicts_of_ten_thousand_items_take_under_a_second():
    random = np.random.default_rng(1)
    middle = random.normal(0, 300, (10_000, 196)).astype(np.int64)
    low, high = middle - 40, middle + 40
    numbers = np.arange(10_000)
    start = time.process_time()
    found = first_meeting(low, high, numbers, hull_low=low, hull_high=high, own=numbers, before=numbers)
    assert time.process_time() - start < 4  # some 0.2 s; a comparison of all pairs takes minutes
    assert (found == -1).all()


def test_a_centre_outside_the_columns_is_its_own_counterexample():
    gate = _gate([[1]], [[-9]], [[9]])
    proof = prove_sketch_core(
        gate,
        centre=np.array([[4], [3]]),
        radius=np.array([[0], [0]]),
        item=np.array([0, 0]),
        column_low=np.array([0]),
        column_high=np.array([3]),
    )
    assert proof.proven.tolist() == [False, True]
    assert proof.counterexamples[0].component is None
    assert proof.counterexamples[0].point.tolist() == [4]


def test_the_edge_of_exact_float32_sums():
    wide = np.array([2**12])
    zero = np.array([0])
    assert inexact_sums(_gate([[2**12 - 1]], [[0]], [[2**24]]), -wide, zero) is None
    assert "component 0 can reach 16777216" in inexact_sums(_gate([[-(2**12)]], [[0]], [[0]]), zero, wide)
    assert "component 1" in inexact_sums(_gate([[0], [-(2**24)]], [[0, 0]], [[0, 0]]), zero, wide)
    assert "1 columns and the input grid 2" in inexact_sums(
        _gate([[1]], [[0]], [[0]]), np.zeros(2, int), np.ones(2, int)
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_float32_sums_below_the_edge_are_exact_in_any_order(seed, features):
    random = np.random.default_rng(seed)
    high = random.integers(0, 4096, features)
    matrix = random.integers(-1, 2, (1, features)) * random.integers(0, 2**24 // (features * 4096) + 1, features)
    gate = _gate(matrix, [[0]], [[0]])
    assert inexact_sums(gate, -high, high) is None
    point = random.integers(-high, high + 1)
    total = np.float32(0)
    for place in random.permutation(features):
        total = np.float32(total + np.float32(matrix[0, place]) * np.float32(point[place]))
    assert int(total) == int(matrix[0] @ point)


def test_sums_beyond_exact_arithmetic_are_refused():
    with pytest.raises(AuditorError, match="beyond exact arithmetic"):
        sketch_hull(np.array([[2**31]]), np.array([[0]]), np.array([[2**22]]))
    low, high = sketch_hull(np.array([[2**31 - 1]]), np.array([[-(2**20)]]), np.array([[2**20]]))
    assert (low[0, 0], high[0, 0]) == (-(2**51) + 2**20, 2**51 - 2**20)


_GOOD = {
    "centre": np.zeros((2, 1), int),
    "radius": np.zeros((2, 1), int),
    "item": np.zeros(2, int),
    "column_low": np.zeros(1, int),
    "column_high": np.ones(1, int),
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"centre": np.zeros((2, 1))}, "centre must be a 2-dimensional array of integers"),
        ({"centre": np.zeros(2, int)}, "centre must be"),
        ({"centre": np.full((2, 1), 2**60)}, "beyond"),
        ({"radius": np.full((2, 1), 2**64 - 1, np.uint64)}, "beyond"),
        ({"column_low": np.array([-(2**63)])}, "beyond"),
        ({"centre": np.zeros((2, 2), int)}, "different numbers of columns"),
        ({"column_high": np.ones(2, int)}, "different numbers of columns"),
        ({"radius": np.zeros((1, 1), int)}, "one row per record"),
        ({"item": np.zeros(3, int)}, "one row per record"),
        ({"radius": np.array([[0], [-1]])}, "negative"),
        ({"item": np.array([0, 1])}, "does not have"),
        ({"item": np.array([-1, 0])}, "does not have"),
    ],
)
def test_arguments_that_do_not_fit(change, reason):
    with pytest.raises(AuditorError, match=reason):
        prove_sketch_core(_gate([[1]], [[0]], [[1]]), **{**_GOOD, **change})


@settings(max_examples=200, deadline=None)
@given(
    scale=st.floats(2.0**-10, 2.0**12, width=32),
    offset=st.floats(-300, 300, width=32),
    low=st.integers(-300, 0),
    span=st.integers(1, 600),
    steps=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_float_of_the_ball_rounds_into_the_core(scale, offset, low, span, steps, seed):
    schema = grid_schema((1,), scale=scale, offset=offset, low=low, high=low + span)
    radius = data_radius(schema, np.array([steps]))[0]
    assert Fraction(0) <= radius < Fraction(2 * steps + 1, 2) / Fraction(scale)
    random = np.random.default_rng(seed)
    q = int(random.integers(low, low + span + 1))
    centre = np.float32((q - np.float64(np.float32(offset))) / np.float64(np.float32(scale)))
    s, b = Fraction(scale), Fraction(offset)
    margin = Fraction(2 * steps + 1, 2) - radius * s
    ends = []
    for sign in (-1, 1):
        end = round_float32(Fraction(float(centre)) + sign * radius)
        if abs(Fraction(float(end)) - Fraction(float(centre))) > radius:
            end = np.nextafter(end, centre)
        ends.append(end)
    inner = random.uniform(float(ends[0]), float(ends[1]), 4).astype(np.float32)
    for x in (*ends, *np.clip(inner, *ends), centre):
        affine = Fraction(float(x)) * s + b
        if not low - Fraction(1, 2) + margin <= affine <= low + span + Fraction(1, 2) - margin:
            continue
        plain = np.float32(x * np.float32(scale)) + np.float32(offset)
        for value in (plain, round_float32(affine)):
            grid = min(max(np.round(value), low), low + span)
            assert abs(grid - q) <= steps
            assert np.float32(low - 0.5) <= value <= np.float32(low + span + 0.5)


def test_the_radius_of_a_grey_level():
    schema = grid_schema((2, 2), scale=255.0, offset=0.0, low=0, high=255)
    radius = data_radius(schema, np.array([3, 3, 3, 0]))
    assert radius[0] == radius[2] > radius[3]
    assert Fraction(34999, 10000) < radius[0] * 255 < Fraction(7, 2)


@pytest.mark.parametrize(("scale", "offset"), [(1e-40, 0.0), (1.0, 1e8)], ids=["subnormal", "coarse"])
def test_no_radius_where_rounding_may_take_it_all(scale, offset):
    schema = grid_schema((1,), scale=scale, offset=offset, low=0, high=2**22)
    assert data_radius(schema, np.array([0])) == (0,)


@pytest.mark.parametrize("steps", [[1, 1], [-1]])
def test_steps_that_do_not_fit(steps):
    with pytest.raises(AuditorError, match="steps"):
        data_radius(grid_schema((1,), scale=1.0, offset=0.0, low=0, high=1), np.array(steps))
