"""Bounds of the owner's relaxation: below what the model does, the auditor's own, and better for the search."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor.propagation import bound, region
from owner.architectures import mlp, small_conv
from owner.execute import Program
from owner.relaxation import Question, Relaxation, Slopes, search
from owner.training import train
from protocol.errors import OwnerError
from protocol.hints import STEPS
from protocol.model.profile import Graph, make_node
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema

EYE = np.eye(3)


def trained(graph, count=120, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((count, *graph.input_shape)).astype(np.float32)
    y = rng.integers(0, 3, count)
    return train(graph, x, y, members=[np.arange(count)], recipe=Recipe(epochs=3, batch=16), rng=rng).model(0)


PERCEPTRON = trained(mlp(6, (12, 12), classes=3))
RESIDUAL = trained(small_conv((1, 6, 6), classes=3, width=2))


def question(graph, width, *, records=3, seed=0, floor=0.0):
    rng = np.random.default_rng(seed)
    centre = rng.random((records, *graph.input_shape))
    rows = np.broadcast_to(np.concatenate([EYE, -EYE]), (records, 6, 3))
    return Question(
        low=(centre - width).astype(np.float32), high=(centre + width).astype(np.float32), rows=rows,
        floor=np.full((records, 6), floor),
    )  # fmt: skip


def drawn(relaxed, records, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = [relaxed.shapes[node.outputs[0]] for node in relaxed.relus]
    return Slopes(
        inner=tuple(torch.rand(records, *shape, dtype=torch.float64, generator=generator) for shape in shapes),
        last=tuple(torch.rand(records, rows, *shape, dtype=torch.float64, generator=generator) for shape in shapes),
    )


@pytest.mark.parametrize("graph", [PERCEPTRON, RESIDUAL], ids=["perceptron", "residual"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.01, 0.1, 1.0]))
def test_no_input_goes_below_the_bounds_whatever_the_slopes(graph, seed, width):
    relaxed, asked = Relaxation(graph), question(graph, width, seed=seed)
    box = torch.from_numpy(asked.low.astype(np.float64)), torch.from_numpy(asked.high.astype(np.float64))
    lower = relaxed.lower(box, torch.tensor(asked.rows), drawn(relaxed, 3, 6, seed)).detach().numpy()
    rng = np.random.default_rng(seed)
    for _ in range(10):
        x = rng.uniform(asked.low, asked.high).astype(np.float32)
        outputs = Program(graph)(x).astype(np.float64)
        assert ((asked.rows @ outputs[:, :, None])[..., 0] >= lower - 1e-4 * (1 + np.abs(lower))).all()


@pytest.mark.parametrize("graph", [PERCEPTRON, RESIDUAL], ids=["perceptron", "residual"])
def test_without_hints_they_are_the_auditors_bounds_but_for_rounding(graph):
    asked = question(graph, 0.05)
    mine = search(Relaxation(graph), asked, steps=0, inner=0).usual
    other = bound(graph, asked.low, asked.high, objective=asked.rows.copy())
    # A window that one value surely wins is that value to the auditor, and bounded by a constant from above here.
    loss = 1e-2 if graph is PERCEPTRON else 0.1
    assert (mine <= other.lower + 1e-2).all()
    assert (mine >= other.lower - loss).all()


def test_a_search_gains_and_its_packed_slopes_give_the_auditor_as_much():
    asked = question(PERCEPTRON, 0.4, floor=100.0)
    found = search(Relaxation(PERCEPTRON), asked)
    assert (found.lower >= found.usual).all()
    assert (found.lower > found.usual + 1e-3).mean() > 0.3
    inner, last = found.slopes.packed()
    assert inner.dtype == last.dtype == np.uint8
    assert last.shape == (3, 6, 24)
    names = [node.outputs[0] for node in PERCEPTRON.nodes if node.op == "Relu"]
    other = bound(
        PERCEPTRON, asked.low, asked.high, objective=asked.rows.copy(),
        slopes={name: inner[:, 12 * k : 12 * k + 12] / STEPS for k, name in enumerate(names)},
    )  # fmt: skip
    assert np.isfinite(other.lower).all()
    # The objective's own slopes are another argument of the auditor's.
    from auditor.propagation import bound_plan, make_plan

    other = bound_plan(
        make_plan(PERCEPTRON), asked.low, asked.high, objective=asked.rows.copy(),
        slopes={name: inner[:, 12 * k : 12 * k + 12] / STEPS for k, name in enumerate(names)},
        last_slopes={name: last[:, :, 12 * k : 12 * k + 12] / STEPS for k, name in enumerate(names)},
    )  # fmt: skip
    np.testing.assert_allclose(np.maximum(other.lower, found.usual), found.lower, atol=1e-2)


def test_a_search_stops_where_nothing_is_missing():
    asked = question(PERCEPTRON, 0.01, floor=-1000.0)
    found = search(Relaxation(PERCEPTRON), asked)
    np.testing.assert_array_equal(found.lower, found.usual)


def test_forms_of_inner_tensors_and_of_the_input():
    """phi is what the first Relu makes; and y + C x for C = -(the model's own first layer) of a model of one layer."""
    tensor = PERCEPTRON.nodes[-2].outputs[0]
    asked = question(PERCEPTRON, 0.2)
    count = Relaxation(PERCEPTRON).shapes[tensor][0]
    rows = np.broadcast_to(np.eye(count), (3, count, count))
    inner = Question(low=asked.low, high=asked.high, rows=rows, floor=np.full((3, count), 50.0), shared=True)
    found = search(Relaxation(PERCEPTRON, tensor), inner)
    x = (asked.low + asked.high) / 2
    (values,) = Program(PERCEPTRON)(x, outputs=(tensor,))
    assert (values >= found.lower - 1e-4).all()
    assert (found.lower >= found.usual).all()
    weight = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    one = Graph(
        opset=18, input="x", input_shape=(6,), output="y", classes=3,
        nodes=(make_node("Gemm", ("x", "w"), "y", transB=1),), initialisers={"w": weight},
    )  # fmt: skip
    direct = -np.broadcast_to(np.concatenate([weight, -weight]), (3, 6, 6)).astype(np.float64)
    cancelled = search(
        Relaxation(one), Question(low=asked.low, high=asked.high, rows=asked.rows, floor=asked.floor, direct=direct)
    )
    np.testing.assert_allclose(cancelled.lower, 0, atol=1e-9)


def test_products_of_activations_are_refused():
    graph = Graph(
        opset=18, input="x", input_shape=(2,), output="y", classes=2, nodes=(make_node("Mul", ("x", "x"), "y"),),
        initialisers={},
    )  # fmt: skip
    with pytest.raises(OwnerError, match="Mul"):
        Relaxation(graph)


def test_boxes_hold_what_rounds_into_the_region():
    from owner.hinting import _boxes

    rng = np.random.default_rng(0)
    schema = InputSchema.uniform((6,), scale=255.0, low=0, high=255)
    values, steps = rng.integers(0, 256, (20, 6)), rng.integers(0, 9, 20)
    mine, other = _boxes(schema, values, steps), region(schema, values, steps)
    assert (mine[0] <= other[0]).all()
    assert (mine[1] >= other[1]).all()
