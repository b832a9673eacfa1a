"""What bounds say besides being sound: how tight, on which arguments, with which hints, and when they say nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor.execute import Program
from auditor.propagation import bound, bound_plan, make_plan
from auditor.propagation.plan import Relu
from protocol.errors import AuditorError, MalformedError
from protocol.model.graph import Graph
from protocol.model.operators import make_node
from tests.auditor import samples
from tests.auditor.propagation.executions import Execution
from tests.auditor.propagation.nets import boxes, inside, tricky

SEEDS = st.integers(0, 2**32 - 1)
EYE = np.eye(3)


def around(graph, *, width=0.05, records=4, seed=0):
    x = np.random.default_rng(seed).normal(size=(records, *graph.input_shape)).astype(np.float32)
    return (x - np.float32(width)), (x + np.float32(width))


def single(op, *constants, shape, classes, **attributes):
    names = {f"c{place}": array for place, array in enumerate(constants)}
    node = make_node(op, ("x", *names), "y", **attributes)
    return Graph(opset=18, input="x", input_shape=shape, output="y", classes=classes, nodes=(node,), initialisers=names)


def test_a_linear_model_is_bounded_exactly():
    weight = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    graph = single("MatMul", weight, shape=(5,), classes=3)
    low, high = around(graph, width=0.5)
    for method in ("interval", "crown"):
        bounds = bound(graph, low, high, objective=EYE, method=method)
        least = low @ np.maximum(weight, 0).astype(np.float64) + high @ np.minimum(weight, 0).astype(np.float64)
        assert (bounds.lower <= least).all()
        np.testing.assert_allclose(bounds.lower, least, atol=2e-5)


def test_a_difference_of_equal_logits_is_nothing_but_rounding():
    builder = samples.Builder(np.random.default_rng(0), (4,))
    builder.linear(5, "bias")
    builder.apply("Relu", builder.last)
    row = np.random.default_rng(1).normal(size=5).astype(np.float32)
    builder.apply("Gemm", builder.last, builder.constant(np.stack([row, row])), shape=(2,), transB=1)
    graph = builder.graph()
    low, high = around(graph, width=1.0)
    for method in ("interval", "crown"):
        bounds = bound(graph, low, high, objective=np.array([[1.0, -1.0]]), method=method)
        assert (np.abs(bounds.lower) < 1e-4).all()
        assert (bounds.lower < 0).all()


def test_a_residual_that_cancels_is_seen_to():
    """x - Identity(x): interval arithmetic doubles the box, the way back from the output takes it away."""
    nodes = (make_node("Identity", ("x",), "i"), make_node("Sub", ("x", "i"), "y"))
    graph = Graph(opset=18, input="x", input_shape=(2,), output="y", classes=2, nodes=nodes, initialisers={})
    low, high = around(graph, width=1.0)
    assert (bound(graph, low, high, objective=np.eye(2)).upper < 1e-5).all()


@settings(max_examples=30, deadline=None)
@given(samples.graphs(), SEEDS)
def test_relaxation_is_never_worse_than_intervals(graph, seed):
    """But for the float64 rounding of another way to the same number."""
    low, high = around(graph, width=0.1, seed=seed)
    rows = np.eye(graph.classes)
    interval = bound(graph, low, high, objective=rows, method="interval")
    crown = bound(graph, low, high, objective=rows)
    little = 1e-9 * (1 + np.abs(interval.lower) + np.abs(interval.upper))
    assert (crown.lower >= interval.lower - little).all()
    assert (crown.upper <= interval.upper + little).all()
    assert (crown.lower <= crown.upper).all()


def test_relaxation_is_much_narrower_on_a_perceptron():
    graph = samples.mlp([30, 60, 60, 60, 3], seed=4)
    low, high = around(graph, width=0.01)
    found = [
        bound(graph, low, high, objective=EYE, method=method, neurons=neurons)
        for method, neurons in (("interval", 0), ("crown", 0), ("crown", 20), ("crown", 4096))
    ]
    sizes = [float((one.upper - one.lower).mean()) for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] < 0.3 * sizes[0]


def test_many_rows_are_taken_in_pieces(monkeypatch):
    from auditor.propagation import bounds as module
    from auditor.propagation import crown

    graph = samples.mlp([6, 12, 12, 3], seed=2)
    low, high = around(graph, width=0.3, records=5)
    whole = bound(graph, low, high, objective=EYE)
    monkeypatch.setattr(crown, "ELEMENTS", 1)
    monkeypatch.setattr(module, "ELEMENTS", 1)
    pieces = bound(graph, low, high, objective=EYE)
    np.testing.assert_allclose(pieces.lower, whole.lower, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(pieces.upper, whole.upper, rtol=1e-9, atol=1e-12)


def test_a_record_does_not_depend_on_the_others():
    graph = samples.conv_net()
    low, high = around(graph, width=0.02)
    low[2], high[3] = -np.inf, 3e38
    together = bound(graph, low, high, objective=EYE)
    assert together.reasons[:2] == ("", "")
    assert together.reasons[2] == together.reasons[3] != ""
    assert np.isneginf(together.lower[2:]).all()
    assert np.isposinf(together.upper[2:]).all()
    for record in range(2):
        part = slice(record, record + 1)
        alone = bound(graph, low[part], high[part], objective=EYE)
        np.testing.assert_allclose(alone.lower[0], together.lower[record], rtol=1e-9)
        np.testing.assert_allclose(alone.upper[0], together.upper[record], rtol=1e-9)


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_no_records(method):
    graph = samples.mlp([4, 5, 3])
    empty = np.zeros((0, 4), np.float32)
    found = bound(graph, empty, empty, objective=EYE, method=method)
    assert found.lower.shape == found.upper.shape == (0, 3)
    assert found.reasons == ()


def test_every_record_may_have_an_objective_of_its_own():
    graph = samples.mlp([4, 5, 3])
    low, high = around(graph, records=2)
    own = np.stack([EYE[:2], -EYE[1:]])
    found = bound(graph, low, high, objective=own)
    shared = bound(graph, low, high, objective=EYE)
    np.testing.assert_allclose(found.lower[0], shared.lower[0, :2], rtol=1e-12)
    np.testing.assert_allclose(found.lower[1], -shared.upper[1, 1:], rtol=1e-12)


@pytest.mark.parametrize("method", ["interval", "crown"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_inputs_that_are_not_numbers_prove_nothing(value, method):
    graph = samples.mlp([4, 5, 3])
    x = np.zeros((2, 4), np.float32)
    x[0, 1] = value
    found = bound(graph, x, x, objective=EYE, method=method)
    assert np.isneginf(found.lower[0]).all()
    assert np.isposinf(found.upper[0]).all()
    assert "overflow" in found.reasons[0]
    assert np.isfinite(found.lower[1]).all()


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_overflow_on_the_way_proves_nothing(method):
    """2e38 (x + x - x - x): zero, infinite or NaN, according to the order."""
    row = np.array([[2e38, 2e38, 2e38, 2e38, -2e38, -2e38, -2e38, -2e38]], np.float32)
    graph = single("MatMul", np.ascontiguousarray(row.T), shape=(8,), classes=1)
    x = np.ones((1, 8), np.float32)
    with np.errstate(all="ignore"):
        way = Execution(rng=np.random.default_rng(0), fuse=False)
        found = [way.run(graph, x)[0, 0] for _ in range(50)]
    assert 0 in found
    assert not np.isfinite(found).all()
    assert np.isneginf(bound(graph, x, x, objective=np.eye(1), method=method).lower).all()


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_overflow_of_multiplied_constants_proves_nothing(method):
    builder = samples.Builder(np.random.default_rng(0), (1,))
    for factor in (1e-30, 1e30, 1e30):
        builder.apply("Mul", builder.last, builder.constant(np.full(1, factor, np.float32)))
    one = np.ones((1, 1), np.float32)
    assert np.isneginf(bound(builder.graph(), one, one, objective=np.eye(1), method=method).lower).all()


def test_more_than_float64_holds_proves_nothing():
    builder = samples.Builder(np.random.default_rng(0), (1,))
    for _ in range(9):
        builder.apply("Mul", builder.last, builder.constant(np.full(1, 1e38, np.float32)))
    nothing, one = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    assert bound(builder.graph(), nothing, one, objective=np.eye(1)).reasons[0]
    fine = samples.mlp([1, 2, 1])
    found = bound(fine, nothing, one, objective=np.full((1, 1), 1.7e308))
    assert np.isneginf(found.lower).all() or np.abs(found.lower) > 1e300


def test_sums_too_long_for_the_error_bound_prove_nothing(monkeypatch):
    from auditor.propagation import rounding

    monkeypatch.setattr(rounding, "_MOST", 8)
    graph = samples.mlp([30, 3])
    x = np.zeros((1, 30), np.float32)
    assert bound(graph, x, x, objective=EYE).reasons[0]


@pytest.mark.parametrize("values", [(1e-41, 1e-41), (3e38, 1e-5)], ids=["flushed", "overflows"])
def test_a_variance_that_may_vanish_is_refused(values):
    variance, epsilon = values
    ones = [np.ones(2, np.float32) for _ in range(3)]
    graph = single(
        "BatchNormalization", *ones, np.full(2, variance, np.float32), shape=(2,), classes=2, epsilon=epsilon
    )
    x = np.zeros((1, 2), np.float32)
    found = bound(graph, x, x, objective=np.eye(2))
    assert np.isneginf(found.lower).all()
    assert "variance" in found.reasons[0]


@pytest.mark.parametrize("op", ["Mul", "Round"])
def test_operators_without_a_bound_prove_nothing(op):
    node = make_node(op, ("x", "x") if op == "Mul" else ("x",), "y")
    graph = Graph(opset=18, input="x", input_shape=(2,), output="y", classes=2, nodes=(node,), initialisers={})
    x = np.zeros((3, 2), np.float32)
    found = bound(graph, x, x, objective=np.eye(2))
    assert np.isneginf(found.lower).all()
    assert np.isposinf(found.upper).all()
    assert all(op in reason for reason in found.reasons)


def test_a_graph_outside_the_profile_is_not_planned():
    graph = samples.mlp([4, 5, 3])
    with pytest.raises(MalformedError):
        make_plan(replace(graph, classes=4))


def relus(graph):
    planned = make_plan(graph)
    return {step.output: planned.shapes[step.output] for step in planned.steps if isinstance(step, Relu)}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tricky() | samples.graphs(), SEEDS, st.booleans())
def test_any_slopes_are_sound(graph, seed, by_row):
    rng = np.random.default_rng(seed)
    low, high = boxes(rng, graph.input_shape, 3)
    rows = np.concatenate([np.eye(graph.classes), np.ones((1, graph.classes))])
    lead = (3, len(rows)) if by_row else (3,)
    slopes = {name: np.round(rng.random((*lead, *shape)), 1) for name, shape in relus(graph).items()}
    found = bound(graph, low, high, objective=rows, slopes=slopes)
    for record in range(3):
        if found.reasons[record]:
            continue
        outputs = Execution(rng=rng).run(graph, inside(rng, low[record], high[record], 10)).astype(np.float64)
        values = np.concatenate([outputs, outputs.sum(axis=1, keepdims=True)], axis=1)
        wide = 1e-12 * np.abs(outputs).sum(axis=1, keepdims=True)  # of the sum in this test
        assert (found.lower[record] - wide <= values).all()
        assert (values <= found.upper[record] + wide).all()


@pytest.mark.parametrize("by_row", [False, True])
def test_slopes_are_used(by_row):
    graph = samples.mlp([5, 20, 20, 3], seed=3)
    low, high = around(graph, width=0.5)
    lead = (4, 3) if by_row else (4,)
    plain = bound(graph, low, high, objective=EYE)
    hinted = [
        bound(
            graph,
            low,
            high,
            objective=EYE,
            slopes={name: np.full((*lead, *shape), s) for name, shape in relus(graph).items()},
        )
        for s in (0.0, 0.4, 1.0)
    ]
    assert all(not np.allclose(one.lower, plain.lower) for one in hinted)
    assert not np.allclose(hinted[0].lower, hinted[2].lower)


def test_slopes_of_settled_neurons_do_not_matter():
    graph = samples.mlp([5, 6, 3], seed=3)
    x = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    plain = bound(graph, x, x, objective=EYE)
    for slope in (0.0, 1.0):
        hints = {name: np.full((2, *shape), slope, np.float32) for name, shape in relus(graph).items()}
        np.testing.assert_array_equal(bound(graph, x, x, objective=EYE, slopes=hints).lower, plain.lower)


GRAPH = samples.mlp([4, 5, 3])
RELU = next(iter(relus(GRAPH)))
ZEROS = np.zeros((2, 4), np.float32)


@pytest.mark.parametrize(
    "change",
    [
        {"slopes": {RELU: np.full((2, 5), 1.0000001)}},
        {"slopes": {RELU: np.full((2, 5), -1e-30)}},
        {"slopes": {RELU: np.full((2, 5), np.nan)}},
        {"slopes": {RELU: np.full((3, 5), 0.5)}},
        {"slopes": {RELU: np.full((2, 2, 5), 0.5)}},
        {"slopes": {RELU: np.ones((2, 5), np.int64)}},
        {"slopes": {"x": np.full((2, 4), 0.5)}},
        {"slopes": {RELU: np.full((2, 5), 0.5)}, "method": "interval"},
        {"method": "guess"},
        {"neurons": -1},
        {"low": ZEROS.astype(np.float64)},
        {"high": ZEROS.astype(np.float64)},
        {"low": ZEROS[:1]},
        {"low": np.zeros((2, 5), np.float32), "high": np.zeros((2, 5), np.float32)},
        {"low": ZEROS + 1},
        {"objective": EYE.astype(np.float32)},
        {"objective": np.eye(4)},
        {"objective": EYE[0]},
        {"objective": EYE * np.nan},
        {"objective": np.stack([EYE] * 3)},
    ],
)
def test_arguments_that_do_not_fit_are_refused(change):
    arguments = {"low": ZEROS, "high": ZEROS, "objective": EYE, **change}
    with pytest.raises(AuditorError):
        bound(GRAPH, arguments.pop("low"), arguments.pop("high"), **arguments)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_a_convolution_is_bounded_as_the_matrix_that_it_is(seed):
    """The same function twice, once with Conv and pools, once with dense matrices: bounds agree but for rounding."""
    from tests.auditor.propagation.executions import counts, dense

    rng = np.random.default_rng(seed)
    builder = samples.Builder(rng, (2, 5, 4))
    builder.apply(
        "Conv", "x", builder.weight(4, 1, 3, 2), builder.weight(4), shape=(4, 3, 3), kernel_shape=(3, 2), group=2
    )
    builder.apply("Relu", builder.last)
    builder.apply("AveragePool", builder.last, shape=(4, 4, 4), kernel_shape=(2, 2), pads=(1, 1, 1, 1))
    builder.flatten()
    builder.linear(3, "bias")
    graph = builder.graph()
    conv, _, pool, _, last = graph.nodes
    first = dense(conv, graph.initialisers, (2, 5, 4))
    second = dense(pool, {}, (4, 3, 3)) / counts(pool, (4, 3, 3))[:, None]
    flat = samples.Builder(rng, (40,))
    bias = np.repeat(graph.initialisers[conv.inputs[2]], 9)
    flat.apply("Gemm", "x", flat.constant(first.astype(np.float32)), flat.constant(bias), shape=(36,), transB=1)
    flat.apply("Relu", flat.last)
    flat.apply("Gemm", flat.last, flat.constant(second.astype(np.float32)), shape=(64,), transB=1)
    names = [flat.constant(graph.initialisers[name]) for name in last.inputs[1:]]
    flat.apply("Gemm", flat.last, *names, shape=(3,), **last.attributes)
    low, high = around(graph, width=0.2, seed=seed)
    for method in ("interval", "crown"):
        left = bound(graph, low, high, objective=EYE, method=method)
        right = bound(flat.graph(), low.reshape(4, -1), high.reshape(4, -1), objective=EYE, method=method)
        np.testing.assert_allclose(left.lower, right.lower, atol=1e-3)
        np.testing.assert_allclose(left.upper, right.upper, atol=1e-3)


def test_max_pools_of_open_and_settled_windows():
    """MaxPool right behind an affine node: its inputs are bounded by passes of their own, too."""
    rng = np.random.default_rng(5)
    builder = samples.Builder(rng, (1, 6, 6))
    for channels, pooled in ((3, 5), (2, 4)):
        builder.apply("Conv", builder.last, builder.weight(channels, builder.shape[0], 1, 1), kernel_shape=(1, 1),
                      shape=(channels, *builder.shape[1:]))  # fmt: skip
        builder.apply("MaxPool", builder.last, shape=(channels, pooled, pooled), kernel_shape=(2, 2))
    builder.flatten()
    builder.linear(3, "bias")
    graph = builder.graph()
    low, high = around(graph, width=0.2, records=3)
    planned = make_plan(graph)
    few, many = (bound_plan(planned, low, high, objective=EYE, neurons=neurons) for neurons in (0, 4096))
    assert (many.upper - many.lower).sum() < (few.upper - few.lower).sum()
    for record in range(3):
        outputs = Program(graph)(inside(rng, low[record], high[record], 200))
        for bounds in (few, many):
            assert (bounds.lower[record] <= outputs).all()
            assert (outputs <= bounds.upper[record]).all()
