"""Radii against brute force: nothing retained in a box, boxes of other rows apart, none of it for the price of room."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owner.gates.apart import overlaps, reach, share_out
from owner.gates.meeting import Boxes
from owner.gates.merging import merge
from owner.gates.region import Cores, Shape
from owner.gates.sketch import sketch
from protocol.model.schema import InputSchema
from tests.owner.test_region import record, table


@st.composite
def problems(draw):
    """A shape, a matrix, records and what has to stay outside; small numbers, so that much coincides."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["linf", "steps", "flips"]))
    schema = (
        InputSchema.uniform((3,), scale=1.0, low=0, high=9)
        if kind == "linf"
        else table(2 if kind == "steps" else 0, 3, [3], high=9)
    )
    matrix = random.integers(-3, 4, (draw(st.integers(1, 4)), schema.features)).astype(np.int32)
    count = draw(st.integers(1, 9))
    values = np.unique([record(schema, random) for _ in range(count)], axis=0)
    retained = np.array([record(schema, random) for _ in range(draw(st.integers(0, 12)))]).reshape(-1, schema.features)
    return Shape(schema=schema, kind=kind), matrix, values, retained, random


def box(shape, matrix, value, radius):
    low, high = shape.hull(matrix, value[None], np.array([radius]))
    return low[0], high[0]


def inside(bounds, point):
    return bool(((point >= bounds[0]) & (point <= bounds[1])).all())


def meet(one, other):
    return bool(((one[0] <= other[1]) & (one[1] >= other[0])).all())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 30, 3000]), st.booleans(), st.sampled_from([1, 40, 1 << 20]))
def test_many_boxes_are_met_in_blocks(seed, spread, are_points, pairs):
    # More boxes than a word has bits and than there are cells; answers in blocks of few pairs or words.
    random = np.random.default_rng(seed)
    count, components = int(random.integers(1, 200)), int(random.integers(1, 25))
    low = random.integers(-spread, spread, (count, components)).astype(np.int32)
    high = low if are_points else low + random.integers(0, spread, low.shape).astype(np.int32)
    asked_low = random.integers(-spread, spread, (30, components)).astype(np.int32)
    asked_high = asked_low + random.integers(0, 2 * spread, asked_low.shape).astype(np.int32)
    wanted = [
        [item for item in range(count) if meet((one, other), (low[item], high[item]))]
        for one, other in zip(asked_low, asked_high, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("owner.gates.meeting._PAIRS", pairs)
        patched.setattr("owner.gates.meeting._WORDS", 1 + int(random.integers(0, 40)))
        found = list(Boxes(low, high).meetings(asked_low, asked_high))
    asked, met = (np.concatenate(side) for side in zip(*found, strict=True))
    assert [met[asked == number].tolist() for number in range(30)] == wanted
    assert len(asked) == sum(map(len, wanted))
    # All answers about one box in one block.
    blocks = [set(numbers.tolist()) for numbers, _ in found]
    assert sum(map(len, blocks)) == len(set().union(*blocks))


def test_nothing_meets_no_boxes():
    none = np.zeros((0, 3), dtype=np.int32)
    assert list(Boxes(none, none).meetings(np.zeros((2, 3), np.int32), np.ones((2, 3), np.int32))) == []
    assert Boxes(none, none).meeting(np.zeros(3, np.int32), np.ones(3, np.int32)).tolist() == []


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(0, 12))
def test_reach_is_the_largest_free_radius(problem, ceiling):
    shape, matrix, values, retained, _ = problem
    points = sketch(matrix, retained)
    cores = Cores(shape, matrix, values, ceiling)
    seen = []
    found = reach(cores, len(values), Boxes(points, points), (points, points), progress=seen.append)
    for value, radius in zip(values, found, strict=True):
        free = [r for r in range(cores.ceiling + 1) if not any(inside(box(shape, matrix, value, r), p) for p in points)]
        assert radius == (max(free) if free else -1)
    assert seen[-1] == 1.0


@settings(max_examples=100, deadline=None)
@given(problems())
def test_meeting_boxes_are_those_of_the_slow_search(problem):
    shape, matrix, values, _, random = problem
    low, high = shape.hull(matrix, values, random.integers(0, 5, len(values)))
    group = random.integers(0, 3, len(values))
    boxes = Boxes(low, high)
    for a, (one, other) in enumerate(zip(low, high, strict=True)):
        wanted = [b for b in range(len(values)) if meet((one, other), (low[b], high[b]))]
        assert sorted(boxes.meeting(one, other).tolist()) == wanted
        assert a in wanted
    pairs = {tuple(pair) for pair in overlaps(low, high, group).tolist()}
    assert pairs == {
        (a, b)
        for a, b in itertools.combinations(range(len(values)), 2)
        if group[a] != group[b] and meet((low[a], high[a]), (low[b], high[b]))
    }


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(0, 9))
def test_shares_are_disjoint_and_cannot_be_raised(problem, ceiling):
    shape, matrix, values, _, random = problem
    points = sketch(matrix, values)
    _, first = np.unique(points, axis=0, return_index=True)
    values, points = values[first], points[first]
    group = random.integers(0, 3, len(values))
    largest = random.integers(0, ceiling + 1, len(values))
    cores = Cores(shape, matrix, values, ceiling)
    radius = share_out(cores, points, group, np.minimum(largest, cores.ceiling))
    assert ((radius >= 0) & (radius <= largest)).all()
    boxes = [box(shape, matrix, value, r) for value, r in zip(values, radius, strict=True)]
    for a, b in itertools.combinations(range(len(values)), 2):
        assert group[a] == group[b] or not meet(boxes[a], boxes[b])
    for a, (value, r) in enumerate(zip(values, radius, strict=True)):
        grown = box(shape, matrix, value, r + 1)
        blocked = any(group[a] != group[b] and meet(grown, boxes[b]) for b in range(len(values)))
        assert r == min(largest[a], cores.ceiling) or blocked


@settings(max_examples=150, deadline=None)
@given(problems())
def test_joint_boxes_hold_their_members_and_nothing_else(problem):
    shape, matrix, values, retained, random = problem
    points, others = sketch(matrix, retained), sketch(matrix, values)
    free = np.array([not (points == own).all(axis=1).any() for own in others])
    _, first = np.unique(others, axis=0, return_index=True)
    values = values[np.intersect1d(first, np.flatnonzero(free))]
    if not len(values):
        return
    group = random.integers(0, 2, len(values))
    radius = np.zeros(len(values), dtype=int)
    low, high = shape.hull(matrix, values, radius)
    item, joint_low, joint_high = merge(low, high, group, points)
    assert sorted(set(item.tolist())) == list(range(len(joint_low)))
    for row, number in enumerate(item):
        assert (joint_low[number] <= low[row]).all()
        assert (joint_high[number] >= high[row]).all()
        assert (group[item == number] == group[row]).all()
    for number in range(len(joint_low)):
        joint = joint_low[number], joint_high[number]
        members = item == number
        assert joint[0].tolist() == low[members].min(axis=0).tolist()
        assert joint[1].tolist() == high[members].max(axis=0).tolist()
        assert not any(inside(joint, point) for point in points)
    group_of = {int(number): int(group[item == number][0]) for number in set(item.tolist())}
    for a, b in itertools.combinations(range(len(joint_low)), 2):
        assert group_of[a] == group_of[b] or not meet((joint_low[a], joint_high[a]), (joint_low[b], joint_high[b]))


def test_near_records_of_one_output_share_an_item():
    low = np.array([[0, 0], [2, 0], [50, 0], [1, 40]])
    item, joint_low, joint_high = merge(low, low + 1, np.array([0, 0, 0, 1]), np.array([[20, 0], [1, 39]]))
    assert item.tolist() == [0, 0, 1, 2]
    assert joint_low.tolist() == [[0, 0], [50, 0], [1, 40]]
    assert joint_high.tolist() == [[3, 1], [51, 1], [2, 41]]
    stages = []
    merge(low, low + 1, np.array([0, 0, 0, 1]), np.zeros((0, 2), int), progress=stages.append)
    assert stages


def test_a_joint_box_does_not_grow_into_another_groups():
    # Of two pairs that cross each other only one can be joined, whichever comes first.
    low = np.array([[0, 5], [10, 5], [5, 0], [5, 10]])
    item, joint_low, joint_high = merge(low, low, np.array([0, 0, 1, 1]), np.zeros((0, 2), int))
    assert len(joint_low) == 3
    assert (joint_high >= joint_low).all()
    assert len(set(item.tolist())) == 3
