"""Lines lie below what a model puts out, everywhere in their box, and are no worse than interval bounds say."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from owner.execute import Program
from owner.intervals import bounds
from owner.lines import ROOM, Relaxation, boxes
from protocol.errors import OwnerError
from tests.auditor.samples import grid_schema, mlp
from tests.protocol.model.samples import graphs


@settings(deadline=None, max_examples=40)
@given(graphs(), st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.7]))
def test_lines_lie_below(graph, seed, size):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *graph.input_shape)).astype(np.float32)
    flat = x.reshape(2, -1).astype(np.float64)
    low, high = flat - size, flat + size
    rows = rng.normal(size=(2, 3, graph.classes))
    try:
        found = Relaxation(graph, low, high)
    except OwnerError as error:
        assert "multiplies" in str(error) or "not bounded" in str(error)
        return
    lines = found.lower(graph.output, rows)
    least = lines.least(low, high)
    for _ in range(20):
        sign = rng.choice([-1, 1], flat.shape) if rng.random() < 0.5 else rng.uniform(-1, 1, flat.shape)
        near = np.clip(flat + sign * size, low, high)
        out = Program(graph)(near.astype(np.float32).reshape(x.shape)).astype(np.float64)
        value = np.einsum("krc,kc->kr", rows, out)
        line = np.einsum("krd,kd->kr", lines.slope, near) + lines.offset
        room = ROOM * (1 + np.abs(out).max())
        assert (value >= line - room).all()
        assert (line >= least - 1e-9 * (1 + np.abs(line))).all()


def test_lines_are_tighter_than_intervals():
    graph = mlp([6, 12, 12, 3], seed=1)
    schema = grid_schema((6,), scale=8.0, offset=0.0, low=0, high=8)
    values = np.random.default_rng(0).integers(0, 9, (5, 6))
    low, high = boxes(schema, values, np.ones((5, 1), np.int64))
    least, greatest = Relaxation(graph, low, high).ends(graph.output, 3)
    (box,) = bounds(graph, low, high, (graph.output,))
    assert (greatest - least < 0.8 * (box.high - box.low)).all()
    assert (least <= greatest).all()
