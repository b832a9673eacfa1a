"""Every operator's map is the matrix that the interpreter applies, forward and backward, in each reading."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.execute import OPERATORS
from auditor.propagation import make_plan
from auditor.propagation.maps import windows
from auditor.propagation.plan import Affine, MaxPool
from protocol.model.graph import Graph
from protocol.model.operators import make_node
from tests.auditor import samples
from tests.protocol.model import samples as other_samples

MODELS = samples.graphs() | other_samples.graphs()


def run(node, graph, x, *, shift=True):
    """A node by the interpreter in float64, on one activation."""
    tensors = [torch.from_numpy(x)]
    for name in node.inputs[1:]:
        array = np.array(graph.initialisers[name])
        tensors.append(torch.from_numpy(array if array.dtype == np.int64 else array.astype(np.float64)))
    found = OPERATORS[node.op](tensors, node.attributes).numpy()
    return (
        found
        if shift
        else found - OPERATORS[node.op]([torch.zeros_like(tensors[0]), *tensors[1:]], node.attributes).numpy()
    )


@settings(max_examples=60, deadline=None)
@given(MODELS, st.integers(0, 2**32 - 1))
def test_maps_are_the_operators(graph, seed):
    rng = np.random.default_rng(seed)
    planned = make_plan(graph)
    assert not planned.refusal
    for node, step in zip(graph.nodes, planned.steps, strict=True):
        if not isinstance(step, Affine) or len(step.inputs) != 1 or step.inputs[0] != node.inputs[0]:
            continue
        (moved,), shape = step.maps, planned.shapes[node.inputs[0]]
        x = rng.normal(size=(3, *shape))
        offset = 0 if step.offset is None else step.offset["signed"]
        np.testing.assert_allclose(moved.forward(x, "signed") + offset, run(node, graph, x), rtol=1e-9, atol=1e-9)
        rows = rng.normal(size=(3, *planned.shapes[step.output]))
        back = moved.backward(rows)
        assert back.shape == x.shape
        left = (rows * moved.forward(x, "signed")).reshape(3, -1).sum(axis=1)
        np.testing.assert_allclose(left, (back * x).reshape(3, -1).sum(axis=1), rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(MODELS)
def test_readings_of_a_map_are_its_matrix_made_positive(graph):
    planned = make_plan(graph)
    for step in planned.steps:
        if not isinstance(step, Affine):
            continue
        for name, moved in zip(step.inputs, step.maps, strict=True):
            shape = planned.shapes[name]
            size = int(np.prod(shape))
            unit = np.eye(size).reshape(size, *shape)
            signed, absolute, reach = (
                moved.forward(unit, reading).reshape(size, -1) for reading in ("signed", "absolute", "reach")
            )
            np.testing.assert_allclose(absolute, np.abs(signed), rtol=1e-12, atol=0)
            # At least 1 wherever something is added up: a structural zero of a convolution's border is not.
            assert (reach >= np.maximum(np.abs(signed), signed != 0) * (1 - 1e-12)).all()


def test_a_convolution_is_a_matrix():
    """Two by two, stride 2, padded by one on the left and right: written out by hand."""
    kernel = np.array([[[[1, 2], [3, 4]]]], np.float32)
    attributes = {"kernel_shape": (2, 2), "strides": (2, 2), "pads": (0, 1, 0, 1)}
    nodes = (make_node("Conv", ("x", "w"), "c", **attributes), make_node("Flatten", ("c",), "y"))
    graph = Graph(
        opset=18, input="x", input_shape=(1, 2, 3), output="y", classes=2, nodes=nodes, initialisers={"w": kernel}
    )
    (moved,) = make_plan(graph).steps[0].maps
    expected = np.array([[2, 0, 0, 4, 0, 0], [0, 1, 2, 0, 3, 4]])
    unit = np.eye(6).reshape(6, 1, 2, 3)
    np.testing.assert_array_equal(moved.forward(unit, "signed").reshape(6, 2).T, expected)
    np.testing.assert_array_equal(moved.backward(np.eye(2).reshape(2, 1, 1, 2)).reshape(2, 6), expected)


def test_columns_beyond_the_last_stride_have_no_coefficient():
    kernel = np.ones((1, 1, 1, 1), np.float32)
    nodes = (make_node("Conv", ("x", "w"), "c", kernel_shape=(1, 1), strides=(2, 3)), make_node("Flatten", ("c",), "y"))
    graph = Graph(
        opset=18, input="x", input_shape=(1, 4, 6), output="y", classes=4, nodes=nodes, initialisers={"w": kernel}
    )
    back = make_plan(graph).steps[0].maps[0].backward(np.ones((1, 1, 2, 2)))
    assert back.shape == (1, 1, 4, 6)
    assert back.sum() == 4
    assert back[0, 0, 0, 0] == back[0, 0, 2, 3] == 1


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_windows_see_what_a_pool_sees(height, width, pad, stride, seed):
    size = (2, min(2, width))
    pads = (pad, pad * (size[1] // 2))
    if height + 2 * pad < 2:
        return
    found = windows((height, width), size, (stride, 1), pads)
    x = np.random.default_rng(seed).normal(size=(1, height, width))
    flat = np.append(x.ravel(), -np.inf)
    attributes = {"kernel_shape": size, "strides": (stride, 1), "pads": pads * 2}
    expected = OPERATORS["MaxPool"]([torch.from_numpy(x[None])], attributes).numpy()[0, 0]
    np.testing.assert_array_equal(flat[found].max(axis=2), expected)


def test_pools_keep_channels_apart():
    nodes = (make_node("MaxPool", ("x",), "m", kernel_shape=(2, 2), strides=(2, 2)), make_node("Flatten", ("m",), "y"))
    graph = Graph(opset=18, input="x", input_shape=(2, 2, 2), output="y", classes=2, nodes=nodes, initialisers={})
    step = make_plan(graph).steps[0]
    assert isinstance(step, MaxPool)
    assert step.places.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("order", [("x", "c"), ("c", "x")])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("shape", [(1,), (3,), (1, 3), ()])
def test_constants_on_either_side(order, op, shape):
    constant = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    graph = Graph(
        opset=18,
        input="x",
        input_shape=(3,),
        output="y",
        classes=3,
        nodes=(make_node(op, order, "y"),),
        initialisers={"c": constant},
    )
    (step,) = make_plan(graph).steps
    x = np.random.default_rng(1).normal(size=(2, 3))
    values = {"x": torch.from_numpy(x), "c": torch.from_numpy(constant.astype(np.float64))}
    expected = OPERATORS[op]([values[name] for name in order], {}).numpy()
    offset = step.offset["signed"] if step.offset is not None else 0
    np.testing.assert_allclose(step.maps[0].forward(x, "signed") + offset, expected, rtol=1e-12)


@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_activations_of_different_shapes_are_broadcast(op):
    kernel = np.ones((1, 2, 1, 1), np.float32)
    nodes = (
        make_node("GlobalAveragePool", ("x",), "p"),
        make_node("Conv", ("x", "w"), "c", kernel_shape=(1, 1)),
        make_node(op, ("p", "c"), "s"),
        make_node("Flatten", ("s",), "y"),
    )
    graph = Graph(
        opset=18, input="x", input_shape=(2, 2, 3), output="y", classes=12, nodes=nodes, initialisers={"w": kernel}
    )
    planned = make_plan(graph)
    left, right = planned.steps[2].maps
    rng = np.random.default_rng(0)
    p, c, rows = rng.normal(size=(2, 2, 1, 1)), rng.normal(size=(2, 1, 2, 3)), rng.normal(size=(2, 2, 2, 3))
    sign = 1 if op == "Add" else -1
    np.testing.assert_allclose(left.forward(p, "signed") + right.forward(c, "signed"), p + sign * c)
    np.testing.assert_allclose(left.backward(rows), rows.sum(axis=(2, 3), keepdims=True))
    np.testing.assert_allclose(right.backward(rows), sign * rows.sum(axis=1, keepdims=True))
