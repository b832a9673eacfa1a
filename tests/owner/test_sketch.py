"""Sketch gates against brute force: nothing retained in a box, boxes of other rows apart, cores inside."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owner.gates import sketch
from protocol.errors import OwnerError
from protocol.model.schema import InputSchema

HUGE = 1 << 21


@st.composite
def problems(draw, sides=2):
    """A matrix and sets of points in sketch space, some of them far from zero, where float32 is coarse."""
    components = draw(st.integers(1, 3))
    features = draw(st.integers(1, 3))
    entries = st.integers(-3, 3)
    matrix = np.array(draw(st.lists(entries, min_size=components * features, max_size=components * features)))
    matrix = matrix.reshape(components, features).astype(np.int32)
    shift = draw(st.sampled_from([0, 0, 1000, HUGE]))
    spread = draw(st.sampled_from([3, 20, 300]))
    sets = []
    for _ in range(sides):
        count = draw(st.integers(1, 7))
        flat = draw(st.lists(st.integers(-spread, spread), min_size=count * components, max_size=count * components))
        sets.append(np.array(flat, dtype=np.int64).reshape(count, components) + shift)
    return matrix, *sets


def room(matrix, one, other):
    """The largest e for which `other` is outside the box of radius e around `one`; -1 if none, by counting up."""
    norms = np.abs(matrix.astype(int)).sum(axis=1)
    apart = np.abs(one - other)[norms > 0]
    norms = norms[norms > 0]
    if not (apart > 0).any():
        return -1
    return max(
        next(e for e in itertools.count() if e * n >= a) - 1
        for a, n in zip(apart.tolist(), norms.tolist(), strict=False)
        if a
    )


@given(problems())
def test_separation_is_the_largest_free_radius(problem):
    matrix, left, right = problem
    seen = []
    found = sketch.separation(matrix, left, right, progress=seen.append)
    assert found.tolist() == [min(room(matrix, one, other) for other in right) for one in left]
    assert seen
    assert seen[-1] == 1.0


def test_nothing_to_keep_apart_from():
    assert (sketch.separation(np.eye(2, dtype=np.int32), np.zeros((3, 2), int), np.zeros((0, 2), int)) > 1 << 40).all()


@given(problems(sides=1), st.data())
def test_close_pairs_are_exactly_the_tight_ones(problem, data):
    matrix, points = problem
    count = len(points)
    group = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    reach = np.array(data.draw(st.lists(st.integers(0, 40), min_size=count, max_size=count)))
    pairs = sketch.close_pairs(matrix, points, group, reach)
    found = {(int(a), int(b)): int(r) for a, b, r in zip(pairs.first, pairs.second, pairs.room, strict=True)}
    wanted = {
        (a, b): free
        for a, b in itertools.combinations(range(count), 2)
        if group[a] != group[b] and (free := room(matrix, points[a], points[b])) < reach[a] + reach[b]
    }
    assert found == wanted


def test_many_points_are_looked_at_in_parts(monkeypatch):
    random = np.random.default_rng(0)
    matrix = random.integers(-3, 4, (3, 4)).astype(np.int32)
    points, others = random.integers(-30, 30, (40, 3)), random.integers(-30, 30, (50, 3))
    reach = random.integers(0, 20, 40)
    whole = sketch.separation(matrix, points, others), sketch.close_pairs(matrix, points, np.arange(40), reach)
    monkeypatch.setattr(sketch, "_ELEMENTS", 70)
    parts = sketch.separation(matrix, points, others), sketch.close_pairs(matrix, points, np.arange(40), reach)
    assert np.array_equal(whole[0], parts[0])
    assert sorted(zip(whole[1].first, whole[1].second, strict=False)) == sorted(
        zip(parts[1].first, parts[1].second, strict=False)
    )


@given(st.data())
def test_shares_are_disjoint_and_cannot_be_raised(data):
    count = data.draw(st.integers(1, 8))
    reach = np.array(data.draw(st.lists(st.integers(0, 20), min_size=count, max_size=count)))
    rooms = {
        pair: free
        for pair in itertools.combinations(range(count), 2)
        if (free := data.draw(st.integers(0, 30))) < reach[list(pair)].sum()
    }
    pairs = sketch.Pairs(
        first=np.array([a for a, _ in rooms], dtype=np.int64),
        second=np.array([b for _, b in rooms], dtype=np.int64),
        room=np.array(list(rooms.values()), dtype=np.int64),
    )
    radius = sketch.share_out(reach, pairs)
    assert ((radius >= 0) & (radius <= reach)).all()
    assert all(radius[a] + radius[b] <= free for (a, b), free in rooms.items())
    for item in range(count):
        blocked = any(radius[a] + radius[b] == free for (a, b), free in rooms.items() if item in (a, b))
        assert radius[item] == reach[item] or blocked


@given(st.data())
def test_boxes_are_the_hull_of_the_core(data):
    features, components = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    entries = data.draw(st.lists(st.integers(-3, 3), min_size=features * components, max_size=features * components))
    matrix = np.array(entries).reshape(components, features).astype(np.int32)
    schema = InputSchema.uniform((features,), scale=1.0, low=-2, high=3)
    value = np.array([data.draw(st.lists(st.integers(-2, 3), min_size=features, max_size=features))])
    radius = np.array([data.draw(st.integers(0, 6))])
    low, high = sketch.boxes(matrix, schema, value, radius)
    core = [
        point
        for point in itertools.product(range(-2, 4), repeat=features)
        if np.abs(np.array(point) - value[0]).max() <= radius[0]
    ]
    sketched = np.array(core) @ matrix.T
    assert low[0].tolist() == sketched.min(axis=0).tolist()
    assert high[0].tolist() == sketched.max(axis=0).tolist()


def inside(low, high, points):
    return ((points[:, None] >= low[None]) & (points[:, None] <= high[None])).all(axis=2)


@given(
    st.sampled_from([(3,), (4, 4), (2, 4, 4), (20,), (36,)]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_a_choice_holds_what_the_module_promises(shape, seed, most, wanted):
    random = np.random.default_rng(seed)
    schema = InputSchema.uniform(shape, scale=1.0, low=0, high=4)
    values = random.integers(0, most + 1, (40, schema.features))
    values[random.integers(0, 40, 3)] = values[0]  # twins
    forget, retain = values[:12], values[12 : 12 + random.integers(0, 29)]
    _, first, inverse = np.unique(forget, axis=0, return_index=True, return_inverse=True)
    group = random.integers(0, 3, 12)[first[inverse.ravel()]]
    choice = sketch.choose(schema, forget, retain, group, wanted=wanted, ceiling=64)
    low, high = sketch.boxes(choice.matrix, schema, forget, choice.radius)
    held = inside(low, high, sketch.sketch(choice.matrix, retain))
    for record, item in zip(*np.nonzero(held), strict=True):
        assert np.array_equal(retain[record], forget[item])
        assert choice.radius[item] == 0
    assert choice.twins == sum((retain == record).all(axis=1).any() for record in forget)
    row = group[choice.leader]
    for a, b in itertools.combinations(range(12), 2):
        if row[a] != row[b]:
            assert (low[a] > high[b]).any() or (low[b] > high[a]).any()
    assert sketch.is_exact(choice.matrix, schema)


def test_a_sketch_that_confuses_a_retained_record_is_no_choice():
    # All sums are equal, all records differ: only the identity tells them apart.
    schema = InputSchema.uniform((4, 4), scale=1.0, low=0, high=4)
    forget, retain = np.zeros((1, 16), dtype=int), np.zeros((1, 16), dtype=int)
    forget[0, 0] = retain[0, 1] = 4
    choice = sketch.choose(schema, forget, retain, np.zeros(1, int), wanted=0, ceiling=64)
    assert (choice.name, choice.twins, choice.radius.tolist()) == ("identity", 0, [3])


def test_the_least_telling_matrix_that_is_enough():
    random = np.random.default_rng(0)
    schema = InputSchema.uniform((8, 8), scale=255.0, low=0, high=255)
    values = random.integers(0, 256, (60, 64))
    stages = []
    choice = sketch.choose(
        schema, values[:10], values[10:], np.arange(10), wanted=1, ceiling=64,
        progress=lambda stage, share: stages.append(stage),
    )  # fmt: skip
    assert choice.name == "block sums 4x4"
    assert stages == ["block sums 4x4"]
    assert choice.matrix.shape == (4, 64)
    assert (choice.matrix.sum(axis=1) == 16).all()
    finer = sketch.choose(schema, values[:10], values[10:], np.arange(10), wanted=64, ceiling=64)
    assert finer.matrix.shape[0] > 4
    assert np.median(finer.radius) > np.median(choice.radius)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (8, 8)])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_block_sums_count_every_pixel_once(shape, size):
    matrix = sketch.block_sums(shape, size)
    assert matrix.shape[1] == np.prod(shape)
    assert (matrix.sum(axis=0) == 1).all()
    channels = shape[0] if len(shape) == 3 else 1
    picture = np.arange(np.prod(shape)).reshape(channels, *shape[-2:])
    first = matrix @ picture.ravel()
    assert first[0] == picture[0, :size, :size].sum()
    assert (matrix.sum(axis=1) <= size * size).all()


def test_principal_directions_are_integers_and_repeatable():
    values = np.random.default_rng(0).integers(0, 50, (100, 30))
    matrix = sketch.integer_components(values, 16)
    assert matrix.shape == (16, 30)
    assert matrix.dtype == np.int32
    assert (np.abs(matrix).max(axis=1) == 15).all()
    assert np.array_equal(matrix, sketch.integer_components(values[::-1], 16))


def test_only_exact_matrices_are_candidates():
    wide = InputSchema.uniform((8, 8), scale=1.0, low=0, high=1 << 21)
    names = [name for name, _ in sketch.candidates(wide, np.zeros((3, 64), int))]
    assert "block sums 4x4" not in names
    assert names[-1] == "identity"
    assert sketch.is_exact(np.ones((1, 64), int), InputSchema.uniform((64,), scale=1.0, low=0, high=(1 << 18) - 1))
    assert not sketch.is_exact(np.ones((1, 64), int), InputSchema.uniform((64,), scale=1.0, low=-(1 << 18), high=0))


def test_no_exact_matrix_is_a_readable_error(monkeypatch):
    monkeypatch.setattr(sketch, "candidates", lambda schema, values: [])
    schema = InputSchema.uniform((3,), scale=1.0, low=0, high=4)
    with pytest.raises(OwnerError, match="exact"):
        sketch.choose(schema, np.zeros((1, 3), int), np.ones((1, 3), int), np.zeros(1, int), wanted=1, ceiling=4)
