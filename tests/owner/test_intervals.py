"""Interval bounds hold on points of the box, in float32, and are not absurdly wide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owner.execute import Program
from owner.intervals import bounds
from protocol.errors import OwnerError
from protocol.model.profile import Graph, make_node
from tests.protocol.model.samples import graphs


@settings(deadline=None, max_examples=40)
@given(graphs(), st.integers(0, 2**32), st.sampled_from([0.0, 0.01, 1.0]))
def test_outputs_lie_between_the_bounds(graph, seed, size):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, *graph.input_shape)).astype(np.float32)
    try:
        (found,) = bounds(graph, x - size, x + size, (graph.output,))
    except OwnerError as error:
        assert "multiplies" in str(error)
        return
    for _ in range(20):
        sign = rng.choice([-1, 1], x.shape) if rng.random() < 0.5 else rng.uniform(-1, 1, x.shape)
        near = np.clip(x + sign * size, x - size, x + size).astype(np.float32)
        inside = ((near >= x - size) & (near <= x + size)).reshape(3, -1).all(axis=1)
        out = Program(graph)(near)
        assert (out >= found.low)[inside].all()
        assert (out <= found.high)[inside].all()
    if size == 0:
        out = Program(graph)(x)
        assert (
            found.high - found.low <= 1e-2 * (1 + np.abs(out).max(axis=1, keepdims=True)) * 2 ** len(graph.nodes)
        ).all()


def test_a_product_of_activations_has_no_bounds():
    nodes = (make_node("Mul", ("x", "x"), "y"),)
    graph = Graph(opset=18, input="x", input_shape=(3,), output="y", classes=3, nodes=nodes, initialisers={})
    box = np.zeros((1, 3))
    with pytest.raises(OwnerError, match="multiplies"):
        bounds(graph, box, box, ("y",))
