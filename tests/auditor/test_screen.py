"""The screen: its constants by another way of reckoning, and that it finds every item on the hardest inputs."""

from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.compose import compose
from auditor.execute import Program
from auditor.memory import batch_limit, bytes_per_record
from auditor.rows import round_float32
from auditor.screen import component
from protocol.errors import AuditorError
from protocol.model.graph import Limits
from protocol.model.operators import make_node
from protocol.model.parts import Part, SetHead, SketchGate
from protocol.model.patch import Patch
from protocol.model.profile import serialise
from protocol.model.schema import InputSchema
from protocol.model.shapes import node_type
from protocol.model.tensor_types import TensorType
from tests.auditor.samples import grid_schema, mlp


def _patch(gate, classes=3):
    index = np.arange(gate.items) % 7
    rows = np.random.default_rng(5).normal(size=(int(index.max()) + 1, classes)).astype(np.float32)
    return Patch(
        features=gate.matrix.shape[1], classes=classes, parts=(Part(gate=gate, head=SetHead(rows=rows, index=index)),)
    )


def _schema(random, features):
    low = random.integers(-300, 1, features)
    return InputSchema.from_columns(
        (features,),
        scale=random.choice([-2.0, 0.7, 1.0, 255.0, 1e-3], features),
        offset=random.choice([0.0, 0.5, -1.3, 77.7, -(2.0**-30)], features),
        low=low,
        high=low + random.integers(0, 400, features),
    )


def _gate(random, schema, *, items, components, screen, spread):
    matrix = random.integers(-3, 4, (components, schema.features)).astype(np.int32)
    centre = random.integers(schema.low, schema.high + 1, (items, schema.features))
    sketches = centre @ matrix.T.astype(np.int64)
    wide = random.integers(0, spread + 1, sketches.shape)
    looked_at = np.sort(random.permutation(components)[:screen])
    gate = SketchGate(
        matrix=matrix, low=(sketches - wide).astype(np.int32), high=(sketches + wide).astype(np.int32), screen=looked_at
    )
    return gate, centre


def _reference(gate, schema):
    """Constants of SPEC 7.9, number by number in rationals."""
    d, m = schema.features, gate.items
    words = -(-m // gate.word)
    low, high = [[int(v) for v in ends] for ends in (schema.low, schema.high)]
    scale, offset = [[Fraction(float(v)) for v in column] for column in (schema.scale, schema.offset)]
    weights, bias, table = [], [], np.zeros((64 * len(gate.screen), words), np.int64)
    for place, i in enumerate(gate.screen):
        s = [int(v) for v in gate.matrix[i]]
        h = sum(map(abs, s))
        total = sum(abs(s[j]) * (max(abs(low[j]), abs(high[j])) + ceil(abs(offset[j])) + 1) for j in range(d))
        least = sum(min(s[j] * low[j], s[j] * high[j]) for j in range(d))
        greatest = sum(max(s[j] * low[j], s[j] * high[j]) for j in range(d))
        step = 1
        while greatest - least + 1 > 64 * step:
            step *= 2
        slack = ceil(Fraction(h, 2)) + ceil(Fraction((d + 8) * (3 * total + 512 * step), 2**23)) + 1
        weights.append([round_float32(s[j] * scale[j] / step) for j in range(d)])
        bias.append(round_float32((sum(s[j] * offset[j] for j in range(d)) - least) / Fraction(step) + 64 * place))
        for item in range(m):
            ends = int(gate.low[item, i]) - slack - least, int(gate.high[item, i]) + slack - least
            first, last = (min(max(floor(Fraction(end, step)), 0), 63) for end in ends)
            for v in range(first, last + 1):
                bit = 1 << (item % gate.word)
                table[64 * place + v, item // gate.word] |= np.int64(bit - (1 << 64) if bit >= 1 << 63 else bit)
    return np.array(weights, np.float32).T, np.array(bias, np.float32), table


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 150), st.sampled_from([1, 2, 4]), st.booleans())
def test_the_constants_are_those_of_the_specification(seed, features, items, screen, branch):
    random = np.random.default_rng(seed)
    schema = _schema(random, features)
    gate, _ = _gate(random, schema, items=items, components=5, screen=screen, spread=30)
    gate = replace(gate, branch=branch)
    constants = compose(mlp([features, 3]), schema, _patch(gate)).initialisers
    weights, bias, table = _reference(gate, schema)
    # A zero has no sign here, as in a schema (7.6).
    assert constants["prune/p0/screen_weights"].tobytes() == (weights + np.float32(0)).tobytes()
    assert constants["prune/p0/screen_bias"].tobytes() == (bias + np.float32(0)).tobytes()
    assert constants["prune/p0/table"].tobytes() == table.tobytes()
    assert constants["prune/p0/word_low"].reshape(-1, 5)[:items].tolist() == gate.low.tolist()
    assert (constants["prune/p0/word_low"].reshape(-1, 5)[items:] == 1).all()
    assert (constants["prune/p0/word_high"].reshape(-1, 5)[items:] == 0).all()
    assert constants["prune/p0/item_numbers"].reshape(-1).tolist() == [
        min(number, items) for number in range(-(-items // gate.word) * gate.word)
    ]


def _hard_inputs(random, schema, centre):
    """Centres pushed to the edges of their grid cells, to the neighbouring floats, outside, and to no numbers."""
    exact = (centre + 0.5 * random.choice([-1, 1], centre.shape) - schema.offset.astype(np.float64)) / schema.scale
    edge = exact.astype(np.float32)
    way = np.where(random.random(edge.shape) < 0.5, np.inf, -np.inf).astype(np.float32)
    odd = schema.dequantise(centre).reshape(len(centre), -1).copy()
    places = random.integers(0, odd.shape[1], len(odd))
    odd[np.arange(len(odd)), places] = random.choice([np.nan, np.inf, -np.inf, 1e30, -1e30], len(odd))
    return np.concatenate([schema.dequantise(centre).reshape(len(centre), -1), edge, np.nextafter(edge, way), odd])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 3, 30, 200]),
    st.sampled_from([1, 63, 64, 65, 130, 400]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([0, 3, 2000]),
    st.integers(1, 70),
    st.booleans(),
)
def test_a_screened_gate_fires_exactly_where_the_gate_does(seed, features, items, screen, spread, batch, branch):
    random = np.random.default_rng(seed)
    schema = _schema(random, features)
    gate, centre = _gate(random, schema, items=items, components=8, screen=screen, spread=spread)
    gate = replace(gate, branch=branch)
    patch = _patch(gate)
    composed = compose(mlp([features, 3]), schema, patch)
    x = _hard_inputs(random, schema, centre[random.integers(0, items, 24)])
    fired, first = Program(composed)(x, outputs=("prune/p0/fired", "prune/p0/first"), batch=batch)
    grid, inside = schema.quantise(x)
    sketches = (grid.astype(np.int64) @ gate.matrix.T.astype(np.int64))[:, None]
    hits = ((sketches >= gate.low) & (sketches <= gate.high)).all(axis=2) & inside[:, None]
    expected = np.where(hits.any(axis=1), hits.argmax(axis=1), items)
    assert fired[:24].all()
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(fired[:, 0], expected < items)
    if batch % 7 == 0:  # another runtime, whose sums go in another order
        session = onnxruntime.InferenceSession(serialise(composed), providers=["CPUExecutionProvider"])
        theirs, ours = session.run(None, {"x": x})[0], Program(composed)(x)
        assert theirs[fired[:, 0]].tobytes() == ours[fired[:, 0]].tobytes()


def test_cells_at_the_widest():
    # A column that is always 0 takes no part in exactness: its weight may be 2^24, and so may its offset.
    schema = InputSchema.from_columns(
        (2,), scale=np.array([1.0, 1.0]), offset=np.array([0.0, 2.0**24]), low=np.array([0, 0]), high=np.array([100, 0])
    )
    cells = component(np.array([1, 2**24], np.int32), schema)
    total = 101 + 2**24 * (2**24 + 1)
    assert (cells.least, cells.power) == (0, 1)
    assert cells.slack == ceil((1 + 2**24) / 2) + ceil(Fraction(10 * (3 * total + 1024), 2**23)) + 1
    gate = SketchGate(
        matrix=np.array([[1, 2**24]], np.int32), low=np.array([[3]], np.int32), high=np.array([[3]], np.int32),
        screen=np.array([0]),
    )  # fmt: skip
    composed = compose(mlp([2, 3]), schema, _patch(gate))
    assert composed.initialisers["prune/p0/screen_bias"] == np.float32(2.0**47)


@pytest.mark.parametrize(("scale", "offset"), [(2.0**65, 0), (2.0**-65, 0), (1.0, 2.0**24 + 2)])
def test_columns_for_which_nothing_is_proven_are_refused(scale, offset):
    schema = grid_schema((2,), scale=scale, offset=offset, low=0, high=3)
    box = np.ones((1, 1), np.int32)
    gate = SketchGate(matrix=np.ones((1, 2), np.int32), low=box, high=box, screen=np.array([0]))
    with pytest.raises(AuditorError, match="is not composed"):
        compose(mlp([2, 3]), schema, _patch(gate))


@pytest.mark.parametrize("screen", [None, 8])
def test_ten_thousand_items_are_run_in_small_batches(screen):
    random = np.random.default_rng(0)
    schema = grid_schema((784,), scale=255.0, offset=0.0, low=0, high=255)
    matrix = random.integers(-1, 2, (196, 784)).astype(np.int32)
    low = random.integers(-(2**16), 2**16, (10_000, 196)).astype(np.int32)
    gate = SketchGate(matrix=matrix, low=low, high=low + 99, screen=None if screen is None else np.arange(screen))
    composed = compose(mlp([784, 3]), schema, _patch(gate))
    # Bits and a float for each component of each item; a screen that lets everything pass also looks up both ends.
    least = 10_000 * 196 * (4 + 1) if screen is None else 157 * 64 * 196 * (4 + 4 + 1)
    assert least <= bytes_per_record(composed) <= 1.5 * least
    assert 20 <= batch_limit(composed) <= 60


def test_a_least_item_is_never_above_what_was_there():
    # What scatters may be larger than any item; what comes back is an index all the same.
    place = TensorType(kind="int64", shape=(-2,), records=True)
    types = {
        "none": TensorType(kind="int64", shape=(-1,), bounds=(7, 7)),
        "record": place,
        "candidate": replace(place, records=False, bounds=(0, 63)),
    }
    node = make_node("ScatterElements", tuple(types), "first", axis=0, reduction="min")
    assert node_type(node, types, {}, Limits()).bounds == (0, 7)
