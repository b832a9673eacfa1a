"""Parts made into one: the same items, numbers and outputs, bit for bit, on any input; never across another part."""

import numpy as np
import pytest

from owner.architectures import mlp
from owner.compose import compose
from owner.execute import Program
from owner.gates.compaction import compact
from owner.gates.screening import WORTHWHILE
from protocol.model.parts import Part, SetHead, ShiftHead, SketchGate
from protocol.model.patch import Patch
from protocol.model.profile import Graph
from protocol.model.schema import InputSchema

FEATURES, CLASSES = 6, 3
SCHEMA = InputSchema.uniform((FEATURES,), scale=1.0, offset=0.0, low=0, high=15)
OTHERS = np.random.default_rng(9).integers(0, 16, (50, FEATURES))


def base() -> Graph:
    graph = mlp(FEATURES, (4,), classes=CLASSES)
    random = np.random.default_rng(1)
    values = {
        name: random.normal(size=array.shape).astype(np.float32) if array.dtype == np.float32 else array
        for name, array in graph.initialisers.items()
    }
    return Graph(
        opset=graph.opset, input=graph.input, input_shape=graph.input_shape, output=graph.output,
        classes=graph.classes, nodes=graph.nodes, initialisers=values,
    )  # fmt: skip


def part(matrix, random, items, rows=2):
    low = random.integers(0, 30, (items, len(matrix))).astype(np.int32)
    high = (low + random.integers(0, 25, low.shape)).astype(np.int32)
    index = np.concatenate([np.arange(rows), random.integers(0, rows, items - rows)])
    head = SetHead(rows=random.choice([-0.0, 0.0, 1.5, -2.0], (rows, CLASSES)).astype(np.float32), index=index)
    return Part(gate=SketchGate(matrix=matrix, low=low, high=high), head=head)


@pytest.mark.parametrize("seed", range(6))
def test_the_function_stays_bit_for_bit(seed):
    random = np.random.default_rng(seed)
    coarse = np.repeat(np.eye(3, dtype=np.int32), 2, axis=1)
    fine = np.eye(FEATURES, dtype=np.int32)
    parts = [part(coarse, random, 4), part(coarse, random, 3), part(fine, random, 3), part(coarse, random, 5),
             part(coarse, random, 2)]  # fmt: skip
    joint = compact(parts, SCHEMA, OTHERS, most=1 << 20)
    assert [one.gate.items for one in joint] == [7, 3, 7]
    before, after = (Patch(features=FEATURES, classes=CLASSES, parts=tuple(some)) for some in (parts, joint))
    inputs = SCHEMA.dequantise(random.integers(0, 16, (4000, FEATURES)))
    graph = base()
    old, new = (Program(compose(graph, SCHEMA, patch))(inputs) for patch in (before, after))
    assert old.tobytes() == new.tobytes()
    assert (old != Program(graph)(inputs)).any()


def test_items_have_the_numbers_that_they_had():
    random = np.random.default_rng(3)
    matrix = np.eye(FEATURES, dtype=np.int32)
    parts = [part(matrix, random, 4), part(matrix, random, 3)]
    (joint,) = compact(parts, SCHEMA, OTHERS, most=1 << 20)
    lows = np.concatenate([one.gate.low for one in parts])
    rows = np.concatenate([one.head.rows[one.head.index] for one in parts])
    assert (joint.gate.low == lows).all()
    assert joint.head.rows[joint.head.index].tobytes() == rows.tobytes()
    assert len({row.tobytes() for row in joint.head.rows}) == len(joint.head.rows)


def test_a_joint_part_that_gets_a_screen_computes_the_same():
    random = np.random.default_rng(5)
    matrix = np.repeat(np.eye(3, dtype=np.int32), 2, axis=1)
    parts = [part(matrix, random, WORTHWHILE // 2 + 1, rows=5) for _ in range(2)]
    assert all(one.gate.screen is None for one in parts)
    (joint,) = compact(parts, SCHEMA, OTHERS, most=1 << 20)
    assert joint.gate.screen is not None
    # On the grid and off it, inside the declared ranges and outside.
    loose = random.uniform(-2, 18, (4000, FEATURES)).astype(np.float32)
    inputs = np.concatenate([SCHEMA.dequantise(random.integers(0, 16, (4000, FEATURES))), loose])
    old, new = (
        Program(compose(base(), SCHEMA, Patch(features=FEATURES, classes=CLASSES, parts=some)))(inputs)
        for some in (tuple(parts), (joint,))
    )
    assert old.tobytes() == new.tobytes()


def test_what_is_not_alike_or_would_be_too_many_stays_apart():
    random = np.random.default_rng(4)
    matrix = np.eye(FEATURES, dtype=np.int32)
    one, other = part(matrix, random, 4), part(matrix, random, 3)
    shift = Part(gate=other.gate, head=ShiftHead(rows=other.head.rows, index=other.head.index))
    for parts in ([one, shift], [shift, one], [one, part(matrix[:3], random, 2)]):
        assert compact(parts, SCHEMA, OTHERS, most=1 << 20) == tuple(parts)
    assert compact([one, other], SCHEMA, OTHERS, most=6) == (one, other)
