"""Hulls of regions against enumeration of every grid point that the definition names."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owner.gates.region import Cores, Shape
from protocol.model.schema import InputSchema


def table(numeric, binary, groups, high=3):
    """A schema with so many numeric and binary columns and one-hot groups of these sizes, in mixed order."""
    kinds = ["grid"] * numeric + ["binary"] * binary
    group = [-1] * (numeric + binary)
    for number, size in enumerate(groups):
        kinds += ["onehot"] * size
        group += [number] * size
    order = np.random.default_rng(len(kinds)).permutation(len(kinds))
    kinds, group = [kinds[i] for i in order], [group[i] for i in order]
    count = len(kinds)
    return InputSchema.from_columns(
        (count,), scale=np.ones(count), offset=np.zeros(count), low=np.zeros(count, int),
        high=np.array([high if kind == "grid" else 1 for kind in kinds]), kind=tuple(kinds), group=np.array(group),
    )  # fmt: skip


def record(schema, random):
    """A record whose groups hold one 1 each."""
    value = random.integers(0, schema.high + 1)
    for group in set(schema.group.tolist()) - {-1}:
        columns = np.flatnonzero(schema.group == group)
        value[columns] = 0
        value[random.choice(columns)] = 1
    return value


def neighbours(schema, value, flips, steps):
    """Every grid point of SPEC 11.2's region of so many flips and steps, by its definition."""
    units = [[c] for c in np.flatnonzero(np.array(schema.kind) == "binary")]
    units += [np.flatnonzero(schema.group == g).tolist() for g in sorted(set(schema.group.tolist()) - {-1})]
    numeric = np.flatnonzero(np.array(schema.kind) == "grid")
    ranges = [range(max(0, value[c] - steps), min(schema.high[c], value[c] + steps) + 1) for c in numeric]
    for count in range(flips + 1):
        for chosen in itertools.combinations(units, count):
            options = [
                [[1 - value[unit[0]]]] if schema.kind[unit[0]] == "binary" else np.eye(len(unit), dtype=int).tolist()
                for unit in chosen
            ]
            for picked in itertools.product(*options):
                for moved in itertools.product(*ranges):
                    point = value.copy()
                    point[numeric] = moved
                    for unit, held in zip(chosen, picked, strict=True):
                        point[unit] = held
                    yield point


@st.composite
def cases(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.lists(st.integers(1, 3), max_size=2))
    schema = table(draw(st.integers(0, 2)), draw(st.integers(1, 3)), groups)
    matrix = random.integers(-4, 5, (draw(st.integers(1, 3)), schema.features)).astype(np.int32)
    values = np.array([record(schema, random) for _ in range(3)])
    return schema, matrix, values


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 4))
def test_the_hull_of_flips_is_that_of_all_points(case, flips):
    schema, matrix, values = case
    radius = np.array([flips, min(flips, 1), 0])
    low, high = Shape(schema=schema, kind="flips").hull(matrix, values, radius)
    for row, (value, count) in enumerate(zip(values, radius, strict=True)):
        sketches = np.array(list(neighbours(schema, value, count, 0))) @ matrix.T
        assert low[row].tolist() == sketches.min(axis=0).tolist()
        assert high[row].tolist() == sketches.max(axis=0).tolist()


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 4))
def test_the_hull_of_steps_holds_categories_fixed(case, steps):
    schema, matrix, values = case
    low, high = Shape(schema=schema, kind="steps").hull(matrix, values, np.full(3, steps))
    for row, value in enumerate(values):
        sketches = np.array(list(neighbours(schema, value, 0, steps))) @ matrix.T
        assert low[row].tolist() == sketches.min(axis=0).tolist()
        assert high[row].tolist() == sketches.max(axis=0).tolist()


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from(["linf", "steps", "flips"]), st.integers(0, 6))
def test_a_table_of_hulls_says_what_the_hull_says(case, kind, ceiling):
    schema, matrix, values = case
    shape = Shape(schema=schema, kind=kind)
    item, radius = np.array([2, 0, 1, 1]), np.array([ceiling, 0, 1, ceiling + 5])
    wanted = shape.hull(matrix, values[item], np.minimum(radius, min(ceiling, shape.widest)))
    found = [Cores(shape, matrix, values, ceiling).at(item, radius)]
    # Without a table, with one that is multiplied instead of counted, and counted a record at a time.
    for name, value in (("_TABLE", 0), ("_SPARSE", -1), ("_CACHED", 1)):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(f"owner.gates.region.{name}", value)
            found.append(Cores(shape, matrix, values, ceiling).at(item, radius))
    for low, high in found:
        assert (low == wanted[0]).all()
        assert (high == wanted[1]).all()


def test_tables_of_weights_too_large_for_float32_are_exact():
    schema = InputSchema.uniform((5,), scale=1.0, low=-9, high=9)
    random = np.random.default_rng(7)
    matrix = random.integers(-(2**18), 2**18, (3, 5)).astype(np.int32)
    values, ceiling = random.integers(-9, 10, (6, 5)), 18
    shape = Shape(schema=schema, kind="linf")
    cores = Cores(shape, matrix, values, ceiling)
    for radius in range(ceiling + 1):
        low, high = cores.at(np.arange(6), np.full(6, radius))
        ends = np.clip(values - radius, -9, 9), np.clip(values + radius, -9, 9)
        parts = [matrix[None].astype(np.int64) * end[:, None] for end in ends]
        assert (low == np.minimum(*parts).sum(axis=2)).all()
        assert (high == np.maximum(*parts).sum(axis=2)).all()


def test_beyond_the_widest_nothing_grows():
    schema = table(2, 2, [3])
    values = np.array([record(schema, np.random.default_rng(0))])
    matrix = np.ones((1, schema.features), np.int32)
    for kind, widest in (("linf", 3), ("steps", 3), ("flips", 3)):
        shape = Shape(schema=schema, kind=kind)
        assert shape.widest == widest
        ends = [shape.hull(matrix, values, np.array([radius])) for radius in (widest, widest + 1, widest + 40)]
        assert len({(int(low[0, 0]), int(high[0, 0])) for low, high in ends}) == 1


def test_large_effects_are_summed_in_parts(monkeypatch):
    schema = table(0, 9, [])
    random = np.random.default_rng(1)
    values, matrix = random.integers(0, 2, (7, 9)), random.integers(-9, 10, (4, 9)).astype(np.int32)
    shape = Shape(schema=schema, kind="flips")
    whole = shape.hull(matrix, values, np.arange(7))
    monkeypatch.setattr("owner.gates.region._WIDE", 1)
    parts = shape.hull(matrix, values, np.arange(7))
    assert all((a == b).all() for a, b in zip(whole, parts, strict=True))
