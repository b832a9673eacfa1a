"""Linear regions: the affine map is the network on the whole region, and the region ends where a ReLU switches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owner.architectures import mlp, small_conv
from owner.execute import OPERATORS, Program, constants
from owner.gates.linear_region import linear_region, region_gate
from protocol.errors import OwnerError
from tests.benchmarks.inference_bench import with_random_weights


def with_biases(graph, seed):
    rng = np.random.default_rng(seed)
    made = with_random_weights(graph, seed)
    for name, array in made.initialisers.items():
        if array.ndim == 1 and name.endswith(".bias"):
            made.initialisers[name] = rng.normal(0, 0.3, array.shape).astype(np.float32)
    return made


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 6), st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_inside_the_region_the_network_is_the_affine_map(seed, features, hidden):
    graph = with_biases(mlp(features, tuple(hidden), classes=3), seed)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(features,)).astype(np.float32)
    region = linear_region(graph, x)
    assert (region.weights @ x.astype(np.float64) <= region.bounds + 1e-9).all()
    radius = region.largest_ball(x.astype(np.float64))
    near = (x + rng.uniform(-1, 1, (50, features)) * min(radius, 10) * 0.99).astype(np.float32)
    expected = near.astype(np.float64) @ region.jacobian.T + region.constant
    assert np.allclose(Program(graph)(near), expected, rtol=1e-4, atol=1e-4)
    # Far away some ReLU switches: there the half-spaces say so.
    far = rng.normal(0, 5, (200, features)).astype(np.float32)
    inside = (far.astype(np.float64) @ region.weights.T <= region.bounds).all(axis=1)
    same = np.array([same_pattern(graph, x, point) for point in far])
    assert (inside == same).mean() > 0.99


def same_pattern(graph, x, y):
    names = tuple(node.inputs[0] for node in graph.nodes if node.op == "Relu")
    found = [np.concatenate([v.ravel() for v in Program(graph)(z[None], outputs=names)]) > 0 for z in (x, y)]
    return bool((found[0] == found[1]).all())


def unpooled_conv():
    """A residual conv net, its MaxPool taken out."""
    graph = with_biases(small_conv((1, 8, 8), classes=3, width=2, residual=True), 1)
    nodes = tuple(node for node in graph.nodes if node.op != "MaxPool")
    renamed = [
        type(node)(name=node.name, op=node.op, inputs=tuple("block0.out" if i == "pool0" else i for i in node.inputs),
                   outputs=node.outputs, attributes=node.attributes)
        for node in nodes
    ]  # fmt: skip
    return type(graph)(
        opset=graph.opset, input=graph.input, input_shape=graph.input_shape, output=graph.output,
        classes=graph.classes, nodes=tuple(renamed), initialisers=graph.initialisers,
    )  # fmt: skip


def test_every_row_is_that_of_a_backward_pass():
    import torch

    graph = unpooled_conv()
    x = np.random.default_rng(2).normal(size=(1, 8, 8)).astype(np.float32)
    region = linear_region(graph, x)
    first = next(node.inputs[0] for node in graph.nodes if node.op == "Relu")
    fixed = {name: value.double() for name, value in constants(graph).items()}
    point = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    values = {graph.input: point[None]}
    for node in graph.nodes:
        inputs = [values[name] if name in values else fixed[name] for name in node.inputs]
        values[node.outputs[0]] = OPERATORS[node.op](node, inputs)
        if node.outputs[0] == first:
            break
    flat = values[first].reshape(-1)
    for row in (0, len(flat) // 2, len(flat) - 1):
        (gradient,) = torch.autograd.grad(flat[row], point, retain_graph=True)
        sign = -1 if flat[row] > 0 else 1
        assert np.allclose(region.weights[row], sign * gradient.reshape(-1).numpy(), atol=1e-12)


def test_a_gate_keeps_every_half_space_and_max_pool_is_refused():
    graph = with_biases(mlp(4, (5,), classes=3), 0)
    points = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    gate = region_gate([linear_region(graph, point) for point in points])
    assert gate.weights.shape == (3, 5, 4)
    fires = (np.einsum("khd,kd->kh", gate.weights, points) <= gate.bounds + 1e-5).all(axis=1)
    assert fires.all()
    with pytest.raises(OwnerError, match="MaxPool"):
        linear_region(small_conv((1, 8, 8), classes=3, width=2), np.zeros((1, 8, 8), np.float32))
