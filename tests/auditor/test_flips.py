"""Regions of flips, decided exactly: against enumeration of every point that SPEC 11.2 names."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor import flips
from auditor.flips import Reach
from protocol.claims import Region
from protocol.errors import AuditorError
from protocol.model.patch import SketchGate
from protocol.model.schema import InputSchema

KINDS = {"grid": 3, "binary": 1, "onehot": 1}


def schema_of(kinds, groups):
    count = len(kinds)
    return InputSchema.from_columns(
        (count,), kind=tuple(kinds), group=np.array(groups), scale=np.ones(count), offset=np.zeros(count),
        low=np.zeros(count, int), high=np.array([KINDS[kind] for kind in kinds]),
    )  # fmt: skip


MIXED = schema_of(
    ["onehot", "grid", "binary", "onehot", "onehot", "binary", "onehot", "onehot"], [4, -1, -1, 4, 7, -1, 4, 7]
)


def region_points(schema, centre, reach):
    """The region of one record, point by point: nothing is taken from the code under test."""
    single = [[c] for c, kind in enumerate(schema.kind) if kind == "binary"]
    grouped = [np.flatnonzero(schema.group == g).tolist() for g in sorted(set(schema.group.tolist()) - {-1})]
    steps = reach.steps[0]
    moves = [
        range(max(schema.low[c], centre[c] - steps[c]), min(schema.high[c], centre[c] + steps[c]) + 1)
        for c in range(schema.features)
    ]
    for moved in itertools.product(*moves):
        for count in range(int(reach.flips[0]) + 1):
            for chosen in itertools.combinations(single + grouped, count):
                held = [[[1 - centre[u[0]]]] if u in single else np.eye(len(u), dtype=int).tolist() for u in chosen]
                for values in itertools.product(*held):
                    point = np.array(moved)
                    for unit, value in zip(chosen, values, strict=True):
                        point[unit] = value
                    yield point


def centre_of(schema, random, *, whole=True):
    centre = random.integers(schema.low, schema.high + 1)
    for group in set(schema.group.tolist()) - {-1} if whole else ():
        columns = np.flatnonzero(schema.group == group)
        centre[columns] = 0
        centre[random.choice(columns)] = 1
    return centre


@st.composite
def cases(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = random.integers(-5, 6, (draw(st.integers(1, 3)), MIXED.features))
    centre = centre_of(MIXED, random, whole=draw(st.booleans()))
    steps = draw(st.integers(0, 2)) * (np.array(MIXED.kind) == "grid").astype(np.int64)
    return matrix, centre, Reach(steps=steps[None], flips=np.array([draw(st.integers(0, 4))])), random


@settings(max_examples=60, deadline=None)
@given(cases())
def test_hull_and_corner_are_those_of_all_points(case):
    matrix, centre, reach, _ = case
    points = np.array(list(region_points(MIXED, centre, reach)))
    sketches = points @ matrix.T
    low, high = flips.hull(matrix, MIXED, centre[None], reach)
    assert low[0].tolist() == sketches.min(axis=0).tolist()
    assert high[0].tolist() == sketches.max(axis=0).tolist()
    for component, weights in enumerate(matrix):
        for rises, wanted in ((True, high), (False, low)):
            found = flips.corner(weights, MIXED, centre, reach, rises=rises)
            assert weights @ found == wanted[0, component]
            assert (points == found).all(axis=1).any()


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 3))
def test_a_core_is_decided_exactly_and_its_counterexample_is_in_the_region(case, slack):
    matrix, centre, reach, random = case
    low, high = flips.hull(matrix, MIXED, centre[None], reach)
    shrink = random.integers(0, slack + 1, low.shape) * (random.random(low.shape) < 0.5)
    middle = (low + high) // 2
    gate = SketchGate(
        matrix=matrix.astype(np.int32), low=np.minimum(low + shrink, middle).astype(np.int32),
        high=np.maximum(high - shrink, middle).astype(np.int32),
    )  # fmt: skip
    proof = flips.prove_core(gate, MIXED, centre=centre[None], reach=reach, item=np.array([0]))
    points = np.array(list(region_points(MIXED, centre, reach)))
    sketches = points @ matrix.T
    fires = ((sketches >= gate.low[0]) & (sketches <= gate.high[0])).all(axis=1)
    assert proof.proven[0] == fires.all()
    if not fires.all():
        found = proof.counterexamples[0]
        assert (points == found.point).all(axis=1).any()
        assert found.value == matrix[found.component] @ found.point
        assert not found.low <= found.value <= found.high


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_flipped_records_differ_in_so_many_units(seed, count):
    random = np.random.default_rng(seed)
    centre = np.array([centre_of(MIXED, random) for _ in range(5)])
    found = flips.flipped(MIXED, centre, np.full(5, count), random)
    known = flips.units(MIXED)
    assert sorted(column for unit in known for column in unit.tolist()) == [0, 2, 3, 4, 5, 6, 7]
    changed = np.array([[(a[unit] != b[unit]).any() for unit in known] for a, b in zip(centre, found, strict=True)])
    assert (changed.sum(axis=1) == min(count, len(known))).all()
    assert (found[:, 1] == centre[:, 1]).all()
    for group in (4, 7):
        assert (found[:, MIXED.group == group].sum(axis=1) == 1).all()


def test_many_records_with_their_own_reach_are_proven_together():
    random = np.random.default_rng(0)
    matrix = random.integers(-5, 6, (4, MIXED.features))
    centre = np.array([centre_of(MIXED, random) for _ in range(12)])
    regions = tuple(
        Region(norm="linf", radius=n % 3, radius_data="0") if n % 2 else
        Region(norm="hamming", radius=n % 4, radius_data="0", steps=n % 3) for n in range(12)
    )  # fmt: skip
    reach = Reach.of(MIXED, regions)
    alone = [flips.hull(matrix, MIXED, centre[[n]], reach.only([n])) for n in range(12)]
    low, high = np.concatenate([a for a, _ in alone]), np.concatenate([b for _, b in alone])
    gate = SketchGate(matrix=matrix.astype(np.int32), low=low.astype(np.int32), high=high.astype(np.int32))
    item = random.permutation(12)
    proof = flips.prove_core(gate, MIXED, centre=centre[item], reach=reach.only(item), item=item)
    assert proof.proven.all()
    assert (proof.hull_low == low[item]).all()
    assert not proof.counterexamples
    tight = dataclasses.replace(gate, high=(high - (high > low)).astype(np.int32))
    proof = flips.prove_core(tight, MIXED, centre=centre[item], reach=reach.only(item), item=item)
    assert set(proof.counterexamples) == set(np.flatnonzero(~proof.proven).tolist())
    assert not proof.proven.all()


def test_linf_moves_every_column_and_hamming_only_what_it_names():
    regions = (
        Region(norm="linf", radius=1, radius_data="0"),
        Region(norm="hamming", radius=2, radius_data="0"),
        Region(norm="hamming", radius=10**9, radius_data="0", steps=10**9),
    )
    reach = Reach.of(MIXED, regions)
    assert reach.steps[0].tolist() == [1] * 8
    assert reach.steps[1].tolist() == [0] * 8
    assert reach.steps[2].tolist() == [0, 4, 0, 0, 0, 0, 0, 0]
    assert reach.flips.tolist() == [0, 2, 4]


def test_a_centre_outside_the_columns_is_its_own_counterexample():
    gate = SketchGate(
        matrix=np.ones((1, 8), np.int32), low=np.array([[-99]], np.int32), high=np.array([[99]], np.int32)
    )
    centre = np.array([[0, 9, 0, 1, 1, 0, 0, 0]])
    reach = Reach(steps=np.zeros((1, 8), int), flips=np.array([1]))
    proof = flips.prove_core(gate, MIXED, centre=centre, reach=reach, item=np.array([0]))
    assert not proof.proven[0]
    assert proof.counterexamples[0].component is None
    with pytest.raises(AuditorError, match="different numbers of columns"):
        flips.prove_core(gate, MIXED, centre=centre[:, :3], reach=reach, item=np.array([0]))


def test_what_counts_as_a_flip():
    assert not flips.categorical(MIXED)
    assert flips.categorical(schema_of(["binary", "onehot"], [-1, 0]))
    assert flips.units(schema_of(["grid", "grid"], [-1, -1])) == []
    plain = schema_of(["grid"], [-1])
    assert (flips.flipped(plain, np.array([[2]]), np.array([3]), np.random.default_rng(0)) == 2).all()
    # A group of one column that holds its 1 can change into nothing else.
    lonely = schema_of(["onehot"], [0])
    assert (flips.flipped(lonely, np.array([[1]]), np.array([1]), np.random.default_rng(0)) == 1).all()
