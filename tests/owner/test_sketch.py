"""Sketch gates against brute force: nothing retained in a box, boxes of other rows apart, cores inside."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from owner.gates import sketch
from owner.gates.rebuilding import Rebuilder, Sample
from owner.gates.region import Shape
from owner.gates.sketch import Search
from protocol.errors import OwnerError
from protocol.model.schema import InputSchema
from tests.owner.test_region import record, table

LINF = "linf"


def search(schema, *, wanted=1, ceiling=64, level=0.0, kind=LINF, parts=1):
    return Search(shape=Shape(schema=schema, kind=kind), wanted=wanted, ceiling=ceiling, level=level, parts=parts)


def known(values):
    return Sample.of(values, np.zeros(len(values), dtype=int))


@settings(deadline=None)
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


def check_choice(choice, schema, forget, retain, group):
    """What the module promises of a choice, whatever was searched."""
    matrix = choice.sketches[0].matrix
    low, high = np.array(choice.low), np.array(choice.high)
    held = inside(low, high, sketch.sketch(matrix, retain))
    for other, item in zip(*np.nonzero(held), strict=True):
        assert np.array_equal(retain[other], forget[item])
        assert choice.radius[item] == 0
    assert choice.twins.tolist() == [int((retain == record).all(axis=1).sum()) for record in forget]
    row = group[choice.leader]
    for a, b in itertools.combinations(range(len(forget)), 2):
        if row[a] != row[b]:
            assert (low[a] > high[b]).any() or (low[b] > high[a]).any()
    assert sketch.is_exact(matrix, schema)
    assert set(choice.sketch_of.tolist()) == {0}


def groups(forget, random):
    _, first, inverse = np.unique(forget, axis=0, return_index=True, return_inverse=True)
    return random.integers(0, 3, len(forget))[first[inverse.ravel()]]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(3,), (4, 4), (2, 4, 4), (20,), (36,)]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(0, 5),
    st.sampled_from([0.0, 0.5, 1.0]),
)
@example((36,), 7220, 1, 0, 0.0)  # a record with a twin, whose sketch a different retained record shares
def test_a_choice_holds_what_the_module_promises(shape, seed, most, wanted, level):
    random = np.random.default_rng(seed)
    schema = InputSchema.uniform(shape, scale=1.0, low=0, high=4)
    values = random.integers(0, most + 1, (40, schema.features))
    values[random.integers(0, 40, 3)] = values[0]  # twins
    forget, retain = values[:12], values[12 : 12 + random.integers(0, 29)]
    group = groups(forget, random)
    choice = sketch.choose(search(schema, wanted=wanted, level=level), forget, retain, group, known(retain))
    check_choice(choice, schema, forget, retain, group)
    low, high = sketch.boxes(choice.sketches[0].matrix, schema, forget, choice.radius)
    assert (low == np.array(choice.low)).all()
    assert (high == np.array(choice.high)).all()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["flips", "steps"]), st.integers(0, 2**32 - 1))
def test_a_choice_for_tables_of_categories(kind, seed):
    random = np.random.default_rng(seed)
    schema = table(4 if kind == "steps" else 0, 20, [3, 4], high=9)
    values = np.array([record(schema, random) for _ in range(60)])
    values[7] = values[30]
    forget, retain, group = values[:12], values[12:], groups(values[:12], random)
    choice = sketch.choose(search(schema, kind=kind), forget, retain, group, known(retain))
    check_choice(choice, schema, forget, retain, group)
    assert choice.twins[7] == 1
    low, high = Shape(schema=schema, kind=kind).hull(choice.sketches[0].matrix, forget, choice.radius)
    assert (low == np.array(choice.low)).all()
    assert (high == np.array(choice.high)).all()


def test_a_sketch_that_confuses_a_retained_record_is_no_choice():
    # All sums are equal, all records differ: only the identity tells them apart, whatever the level says.
    schema = InputSchema.uniform((4, 4), scale=1.0, low=0, high=4)
    forget, retain = np.zeros((1, 16), dtype=int), np.zeros((1, 16), dtype=int)
    forget[0, 0] = retain[0, 1] = 4
    choice = sketch.choose(search(schema, wanted=0, level=1.0), forget, retain, np.zeros(1, int), known(retain))
    assert (choice.sketches[0].name, choice.twins.tolist(), choice.radius.tolist()) == ("identity", [0], [3])


def test_a_finer_matrix_has_to_be_worth_it_and_within_the_level():
    random = np.random.default_rng(0)
    schema = InputSchema.uniform((8, 8), scale=255.0, low=0, high=255)
    values = random.integers(0, 256, (300, 64))
    stages = []
    found = {
        level: sketch.choose(
            search(schema, wanted=1, level=level), values[:10], values[10:], np.arange(10), known(values[10:]),
            progress=lambda stage, share: stages.append(stage),
        )
        for level in (0.0, 2.0)
    }  # fmt: skip
    assert found[2.0].sketches[0].name == "block sums 4x4"
    assert found[0.0].sketches[0].name in ("block sums 3x3", "block sums 2x2")
    assert np.median(found[0.0].radius) > np.median(found[2.0].radius)
    assert found[0.0].sketches[0].shown < found[2.0].sketches[0].shown
    assert "block sums 4x4" in stages
    assert (found[2.0].sketches[0].matrix.sum(axis=1) == 16).all()


@pytest.mark.parametrize("parts", [1, 2])
def test_a_record_that_falls_short_gets_a_finer_matrix(parts):
    # Under sums of 4x4 the first record looks almost like a retained one; under sums of 2x2 it is far from all.
    schema = InputSchema.uniform((8, 8), scale=255.0, low=0, high=255)
    random = np.random.default_rng(3)
    blocks = random.integers(20, 236, (80, 2, 2)).repeat(4, axis=1).repeat(4, axis=2)
    values = blocks.reshape(80, 64) + random.integers(-3, 4, (80, 64))
    forget, retain = values[:60].reshape(-1, 8, 8).copy(), values[60:].reshape(-1, 8, 8).copy()
    retain[0] = forget[0]
    retain[0, 0, 0], retain[0, 2, 2] = 250, 0
    forget[0, 0, 0], forget[0, 2, 2] = 0, 250
    forget, retain = forget.reshape(-1, 64), retain.reshape(-1, 64)
    wish = search(schema, wanted=8, ceiling=9, parts=parts)
    choice = sketch.choose(wish, forget, retain, np.arange(60) // 59, known(retain))
    assert choice.radius.min() >= 8
    assert choice.sketches[0].name != "block sums 4x4"
    assert len(choice.sketches) == parts
    if parts == 1:
        return
    assert choice.sketches[1].name == "block sums 4x4"
    assert choice.sketch_of[0] == 0
    assert choice.sketch_of.sum() >= 54
    fine = choice.sketches[0].matrix
    low, high = sketch.boxes(fine, schema, forget, choice.radius)
    assert (low[0] == choice.low[0]).all()
    # Seen through the finer matrix, nobody else's region meets the first record's box.
    rest = choice.sketch_of == 1
    assert ((low[rest] > high[0]) | (high[rest] < low[0])).any(axis=1).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_matrix_in_use_is_taken_again_where_it_reaches(seed):
    random = np.random.default_rng(seed)
    schema = InputSchema.uniform((8, 8), scale=16.0, low=0, high=16)
    values = random.integers(0, 17, (120, 64)).astype(np.int64)
    forget, retain, group = values[:3], values[3:], np.arange(3)
    coarse = sketch.block_sums((8, 8), 4)
    free = search(schema, wanted=0)
    again = replace(free, before=(coarse,))
    choice = sketch.choose(again, forget, retain, group, known(retain))
    assert np.array_equal(choice.sketches[0].matrix, coarse)
    check_choice(choice, schema, forget, retain, group)
    # Not where it falls short of what every record should reach, nor where it shows more than may be.
    short = replace(again, wanted=int(choice.radius.min()) + 1)
    for wish in (short, replace(again, before=(np.eye(64, dtype=np.int32),), level=0.5)):
        freely = sketch.choose(replace(wish, before=()), forget, retain, group, known(retain))
        found = sketch.choose(wish, forget, retain, group, known(retain))
        assert found.radius.tolist() == freely.radius.tolist()
        assert np.array_equal(found.sketches[0].matrix, freely.sketches[0].matrix)


def test_directions_are_not_drawn_anew_beside_some_in_use():
    random = np.random.default_rng(1)
    schema = InputSchema.uniform((20,), scale=1.0, low=0, high=40)
    values = random.integers(0, 41, (90, 20)).astype(np.int64)
    first = sketch.choose(search(schema, wanted=0), values[:1], values[1:], np.zeros(1, int), known(values[1:]))
    (used,) = first.sketches
    wish = replace(search(schema, wanted=40), before=(used.matrix,))  # nothing reaches 40, so all are looked at
    later = sketch.choose(wish, values[1:2], values[2:], np.zeros(1, int), known(values[2:]))
    drawn = dict(sketch.candidates(wish.shape, values[2:]))
    if later.sketches[0].name == used.name:
        assert np.array_equal(later.sketches[0].matrix, used.matrix)
    assert not np.array_equal(drawn[used.name], used.matrix)  # else nothing was shown
    assert later.sketches[0].name == used.name


def test_twins_are_counted():
    random = np.random.default_rng(0)
    values = random.integers(0, 2, (50, 6))
    wanted = [int((values[5:] == one).all(axis=1).sum()) for one in values[:5]]
    assert sum(wanted) > 0
    for kind in (np.int32, np.uint8):
        assert sketch.count_twins(values[:5], values[5:].astype(kind)).tolist() == wanted
    assert sketch.count_twins(values[:5], values[:0]).tolist() == [0] * 5


def test_twins_of_large_numbers_are_found_wherever_they_stand():
    # Sums that float32 would round: equal records must not depend on how a product of matrices adds them up.
    random = np.random.default_rng(1)
    retain = random.integers(-(2**31), 2**31, (2500, 97)).astype(np.int32)
    places = [0, 1, 1023, 1024, 2047, 2499]
    assert sketch.count_twins(retain[places], retain).tolist() == [1] * len(places)
    assert sketch.count_twins(retain[places] ^ 1, retain).tolist() == [0] * len(places)


def test_what_is_held_fixed_gets_codes():
    schema = table(2, 2, [3], high=9)
    rows = sketch.codes(schema, np.flatnonzero(np.array(schema.kind) != "grid"))
    assert (rows[:, np.array(schema.kind) == "grid"] == 0).all()
    assert (rows[:, np.array(schema.kind) != "grid"] > 0).all()
    assert sketch.is_exact(rows, schema)
    assert np.array_equal(rows, sketch.codes(schema, np.flatnonzero(np.array(schema.kind) != "grid")))
    names = [name for name, _ in sketch.candidates(Shape(schema=schema, kind="steps"), np.zeros((9, 7), int))]
    assert names == ["numeric columns and codes", "identity"]


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
    names = [name for name, _ in sketch.candidates(Shape(schema=wide, kind=LINF), np.zeros((3, 64), int))]
    assert "block sums 4x4" not in names
    assert names[-1] == "identity"
    assert sketch.is_exact(np.ones((1, 64), int), InputSchema.uniform((64,), scale=1.0, low=0, high=(1 << 18) - 1))
    assert not sketch.is_exact(np.ones((1, 64), int), InputSchema.uniform((64,), scale=1.0, low=-(1 << 18), high=0))


def test_no_exact_matrix_is_a_readable_error(monkeypatch):
    monkeypatch.setattr(sketch, "candidates", lambda shape, values: [])
    schema = InputSchema.uniform((3,), scale=1.0, low=0, high=4)
    nothing = np.zeros((1, 3), int)
    with pytest.raises(OwnerError, match="exact"):
        sketch.choose(search(schema), nothing, nothing + 1, np.zeros(1, int), known(nothing))


def test_rebuilding_is_easier_from_finer_sketches_and_unknown_without_records():
    random = np.random.default_rng(0)
    schema = InputSchema.uniform((8, 8), scale=255.0, low=0, high=255)
    shape = Shape(schema=schema, kind=LINF)
    # Records with neighbours alike, so that sums tell something.
    coarse = random.integers(0, 256, (400, 4, 4)).repeat(2, axis=1).repeat(2, axis=2)
    values = np.clip(coarse + random.integers(-20, 21, coarse.shape), 0, 255).reshape(400, 64)
    sample = Sample.of(values, random.integers(0, 3, 400))
    errors = [Rebuilder(shape, sample).error(sketch.block_sums((8, 8), size), 4) for size in (4, 2)]
    assert errors[1] < 0.1 < errors[0] < 1.1
    assert Rebuilder(shape, sample).error(np.eye(64, dtype=np.int32), 0) < 0.01
    assert Rebuilder(shape, known(values[:9])).error(np.eye(64, dtype=np.int32), 0) == 1.0
