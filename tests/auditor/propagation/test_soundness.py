"""No execution of any model, in any order, leaves the bounds."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor.execute import Program
from auditor.propagation import bound, bound_plan, make_plan
from auditor.propagation import rounding as arithmetic
from auditor.propagation.plan import Relu
from protocol.hints import STEPS
from protocol.model.graph import Graph
from protocol.model.operators import make_node
from tests.auditor import samples
from tests.auditor.propagation.executions import Execution, exactly, folded, runtimes
from tests.auditor.propagation.nets import TRAPS, boxes, inside, tricky, verifier_traps
from tests.protocol.model import samples as other_samples

SEEDS = st.integers(0, 2**32 - 1)
RELAXED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
MODELS = tricky() | samples.graphs() | other_samples.graphs()


def objective(rng, classes):
    """Each logit, each difference with the first, and combinations of very different sizes."""
    eye = np.eye(classes)
    mixed = rng.normal(size=(2, classes)) * 10.0 ** rng.integers(-9, 10, (2, classes))
    return np.concatenate([eye, eye[:1] - eye[1:], mixed])


def assert_inside(bounds, record, rows, outputs):
    """Outputs [n, class], float32 or rational, of inputs in one record's box; compared in rationals where it is close."""
    lower, upper = bounds.lower[record], bounds.upper[record]
    if not (np.isfinite(lower).any() or np.isfinite(upper).any()):
        return
    for logits in outputs:
        rough = np.array([float(value) for value in logits])
        about, wide = rows @ rough, 1e-12 * (np.abs(rows) @ np.abs(rough))
        for place in np.flatnonzero(~((lower + wide < about) & (about < upper - wide))):
            exact = [value if isinstance(value, Fraction) else Fraction(float(value)) for value in logits]
            found = sum((Fraction(float(c)) * value for c, value in zip(rows[place], exact, strict=True)), Fraction(0))
            assert lower[place] <= found <= upper[place], (record, place)


@settings(max_examples=100, deadline=None, suppress_health_check=RELAXED)
@given(MODELS, SEEDS)
def test_no_float32_execution_leaves_the_bounds(graph, seed):
    rng = np.random.default_rng(seed)
    low, high = boxes(rng, graph.input_shape, 4)
    rows = objective(rng, graph.classes)
    both = [bound(graph, low, high, objective=rows, method=method) for method in ("interval", "crown")]
    normalised = any(node.op == "BatchNormalization" for node in graph.nodes)
    for record in range(len(low)):
        x = inside(rng, low[record], high[record], 8)
        for flush, wide in ((False, False), (True, False), (False, True)):
            way = Execution(rng=rng, flush=flush, wide=wide)
            for model in (graph, folded(graph, way))[: 1 + normalised]:
                outputs = way.run(model, x)
                for bounds in both:
                    assert_inside(bounds, record, rows, outputs)


@settings(max_examples=25, deadline=None, suppress_health_check=RELAXED)
@given(MODELS, SEEDS)
def test_the_real_function_lies_in_the_bounds(graph, seed):
    rng = np.random.default_rng(seed)
    low, high = boxes(rng, graph.input_shape, 3)
    rows = objective(rng, graph.classes)
    both = [bound(graph, low, high, objective=rows, method=method) for method in ("interval", "crown")]
    for record in range(len(low)):
        for x in inside(rng, low[record], high[record], 3):
            exact = exactly(graph, x)
            for bounds in both:
                assert_inside(bounds, record, rows, [exact])


@settings(max_examples=25, deadline=None, suppress_health_check=RELAXED)
@given(MODELS, SEEDS)
def test_no_runtime_leaves_the_bounds(graph, seed):
    rng = np.random.default_rng(seed)
    low, high = boxes(rng, graph.input_shape, 2)
    rows = objective(rng, graph.classes)
    both = [bound(graph, low, high, objective=rows, method=method) for method in ("interval", "crown")]
    for record in range(len(low)):
        for outputs in runtimes(graph, inside(rng, low[record], high[record], 7)):
            for bounds in both:
                assert_inside(bounds, record, rows, outputs)


@pytest.mark.parametrize("batch", [1, 2, 17, 64, 256])
def test_batches_of_any_size_stay_inside(batch):
    graph = samples.mlp([64, 48, 48, 5], seed=batch)
    rng = np.random.default_rng(batch)
    x = rng.random((256, 64)).astype(np.float32)
    bounds = bound(graph, x, x, objective=np.eye(5))
    for start in range(0, 256, batch):
        for outputs in runtimes(graph, x[start : start + batch])[2::3]:
            part = slice(start, start + len(outputs))
            assert (bounds.lower[part] <= outputs).all()
            assert (outputs <= bounds.upper[part]).all()


@pytest.mark.parametrize("make", [samples.mlp, None], ids=["mlp", "conv"])
def test_points_have_narrow_bounds(make):
    """The bounds say something: at a point, some hundred times what rounding does, not more."""
    graph = make([20, 30, 30, 4]) if make else samples.conv_net(side=8)
    x = np.random.default_rng(0).normal(size=(6, *graph.input_shape)).astype(np.float32)
    outputs = runtimes(graph, x)[0]
    for method in ("interval", "crown"):
        bounds = bound(graph, x, x, objective=np.eye(graph.classes), method=method)
        assert bounds.reasons == ("",) * 6
        assert (bounds.upper - bounds.lower < 2e-3 * np.abs(outputs).max()).all()


def ordered(width=6):
    """One logit whose value depends on the order of summation: 2^24 - 2^24 + ones."""
    builder = samples.Builder(np.random.default_rng(0), (width,))
    row = np.array([2.0**24, -(2.0**24), *[1.0] * (width - 2)], np.float32)
    builder.apply("Gemm", builder.last, builder.constant(np.stack([row, -row])), shape=(2,), transB=1)
    return builder.graph()


def test_order_dependent_sums_are_covered_and_do_differ():
    graph, one = ordered(), np.ones((1, 6), np.float32)
    way = Execution(rng=np.random.default_rng(0))
    found = {float(way.run(graph, one)[0, 0]) for _ in range(200)}
    assert {0.0, 4.0} <= found
    for method in ("interval", "crown"):
        bounds = bound(graph, one, one, objective=np.eye(2), method=method)
        assert bounds.lower[0, 0] <= min(found) <= max(found) <= bounds.upper[0, 0]


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_without_the_rounding_term_the_oracle_notices(method, monkeypatch):
    from auditor.propagation import enclosure

    monkeypatch.setattr(enclosure, "gamma", lambda count: 0.0)
    one = np.ones((1, 6), np.float32)
    bounds = bound(ordered(), one, one, objective=np.eye(2), method=method)
    way = Execution(rng=np.random.default_rng(0))
    with pytest.raises(AssertionError):
        for _ in range(200):
            assert_inside(bounds, 0, np.eye(2), way.run(ordered(), one))


def flushed():
    """A subnormal activation, blown up to 2^-10: zero if it is flushed."""
    builder = samples.Builder(np.random.default_rng(0), (1,))
    builder.apply("Mul", "x", builder.constant(np.full(1, 2.0**-130, np.float32)))
    builder.apply("Relu", builder.last)
    for factor in (2.0**60, 2.0**60):
        builder.apply("Mul", builder.last, builder.constant(np.full(1, factor, np.float32)))
    return builder.graph()


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_flushed_subnormals_are_covered(method, monkeypatch):
    from auditor.propagation import enclosure

    one = np.ones((1, 1), np.float32)
    outputs = [Execution(rng=np.random.default_rng(0), flush=flush).run(flushed(), one) for flush in (False, True)]
    assert [float(found[0, 0]) for found in outputs] == [2.0**-10, 0.0]
    bounds = bound(flushed(), one, one, objective=np.eye(1), method=method)
    assert bounds.lower[0, 0] <= 0 <= 2.0**-10 <= bounds.upper[0, 0] < 10
    monkeypatch.setattr(enclosure, "underflow", lambda depth: 0.0)
    assert bound(flushed(), one, one, objective=np.eye(1), method=method).lower[0, 0] > 0


def test_a_normalisation_that_cancels_is_covered_when_it_is_folded():
    """Gemm gives x + 2^13 - 2^13 y; folding a factor into the weights rounds each of them first."""
    rng = np.random.default_rng(0)
    builder = samples.Builder(rng, (3,))
    weight = np.array([[1.0, 8192.0, -8192.0]], np.float32)
    builder.apply(
        "Gemm", "x", builder.constant(weight), builder.constant(np.zeros(1, np.float32)), shape=(1,), transB=1
    )
    parts = [builder.constant(np.array([value], np.float32)) for value in (0.3, 0.1, 0.7, 1.7)]
    builder.apply("BatchNormalization", builder.last, *parts, epsilon=1e-5)
    graph = builder.graph()
    x = rng.random((64, 3), dtype=np.float32)
    x[:, 1] = x[:, 2] + rng.normal(size=64).astype(np.float32) * 1e-4
    bounds = bound(graph, x, x, objective=np.eye(1))
    widest = 0.0
    for _ in range(20):
        way = Execution(rng=rng)
        outputs = way.run(folded(graph, way), x)
        assert (bounds.lower <= outputs).all()
        assert (outputs <= bounds.upper).all()
        widest = max(widest, float(np.abs(outputs - way.run(graph, x)).max()))
    assert widest > 1e-6


@settings(max_examples=30, deadline=None, suppress_health_check=RELAXED)
@given(SEEDS)
def test_near_ties_are_not_decided(seed):
    """Two logits that are the same sum in another order: no strict margin is ever proven."""
    rng = np.random.default_rng(seed)
    builder = samples.Builder(rng, (7,))
    order = rng.permutation(7)
    row = rng.normal(size=7).astype(np.float32)
    builder.apply("Gemm", "x", builder.constant(np.eye(7, dtype=np.float32)), shape=(7,))
    builder.apply("Relu", builder.last)
    builder.apply("Gemm", builder.last, builder.constant(np.stack([row, row[order]])), shape=(2,), transB=1)
    graph = builder.graph()
    x = np.full((1, 7), rng.random(), np.float32)
    rows = np.array([[1.0, -1.0], [-1.0, 1.0]])
    for method in ("interval", "crown"):
        assert (bound(graph, x, x, objective=rows, method=method).lower < 0).all()


def test_gamma_is_infinite_where_it_says_nothing():
    assert arithmetic.gamma(0) == 0
    assert arithmetic.gamma(1) > 2.0**-24
    assert arithmetic.gamma(2**22) > 0.25 / 0.75
    assert arithmetic.gamma(2**22 + 1) == np.inf


def hidden(*, pooled):
    """The order-dependent sum behind a Relu or MaxPool that settles, far from zero, and is copied to the output."""
    builder = samples.Builder(np.random.default_rng(0), (6, 1, 2))
    row = np.array([2.0**24, -(2.0**24), 1.0, 1.0, 1.0, 1.0], np.float32).reshape(1, 6, 1, 1)
    builder.apply("Conv", "x", builder.constant(row), kernel_shape=(1, 1), shape=(1, 1, 2))
    if pooled:
        builder.apply("MaxPool", builder.last, kernel_shape=(1, 2), shape=(1, 1, 1))
    else:
        builder.apply("Relu", builder.last)
    builder.flatten()
    return builder.graph()


@pytest.mark.parametrize("pooled", [False, True])
def test_rounding_before_a_relu_or_pool_is_charged(pooled):
    graph = hidden(pooled=pooled)
    x = np.ones((1, 6, 1, 2), np.float32)
    x[0, 2:, 0, 0] = 1001.0
    rows = np.eye(graph.classes)[:1]
    way = Execution(rng=np.random.default_rng(0))
    found = {float(way.run(graph, x)[0, 0]) for _ in range(200)}
    assert min(found) < 4004.0 < max(found)  # 4004 in real numbers; odd sums above 2^24 go either way
    bounds = bound(graph, x, x, objective=rows)
    assert 3900 < bounds.lower[0, 0] <= min(found) <= max(found) <= bounds.upper[0, 0] < 4100


def test_a_pool_with_an_open_window_is_not_its_likeliest_value():
    """x0 - max(x0, x1) on [0, 1]^2 goes down to -1."""
    kernel = np.array([[[[1.0, 0.0]]]], np.float32)
    nodes = (
        make_node("MaxPool", ("x",), "m", kernel_shape=(1, 2)),
        make_node("Conv", ("x", "w"), "c", kernel_shape=(1, 2)),
        make_node("Sub", ("c", "m"), "s"),
        make_node("Flatten", ("s",), "y"),
    )
    graph = Graph(
        opset=18, input="x", input_shape=(1, 1, 2), output="y", classes=1, nodes=nodes, initialisers={"w": kernel}
    )
    low = np.zeros((1, 1, 1, 2), np.float32)
    for method in ("interval", "crown"):
        bounds = bound(graph, low, low + 1, objective=np.eye(1), method=method)
        assert -1.001 < bounds.lower[0, 0] <= -1
        assert bounds.upper[0, 0] >= 0


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_overflow_of_ordinary_weights_times_large_inputs_proves_nothing(method):
    builder = samples.Builder(np.random.default_rng(0), (1,))
    for factor in (1e20, 1e-20):
        builder.apply("Mul", builder.last, builder.constant(np.full(1, factor, np.float32)))
    large = np.full((1, 1), 1e20, np.float32)
    assert np.isinf(Execution(rng=np.random.default_rng(0)).run(builder.graph(), large)).all()
    bounds = bound(builder.graph(), large, large, objective=np.eye(1), method=method)
    assert np.isneginf(bounds.lower).all()
    assert bounds.reasons[0]


def blown_up(*, pooled):
    """A subnormal that grows to 2^-10 on top of 1 *before* a Relu or MaxPool: 1 alone if it is flushed."""
    builder = samples.Builder(np.random.default_rng(0), (1, 1, 2))
    for factor in (2.0**-130, 2.0**60, 2.0**60):
        builder.apply("Mul", builder.last, builder.constant(np.full((1, 1, 1), factor, np.float32)))
    builder.apply("Add", builder.last, builder.constant(np.array([[[1.0, -1.0]]], np.float32)))
    if pooled:
        builder.apply("MaxPool", builder.last, kernel_shape=(1, 2), shape=(1, 1, 1))
    else:
        builder.apply("Relu", builder.last)
    builder.flatten()
    return builder.graph()


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("method", ["interval", "crown"])
def test_a_flush_before_a_relu_or_pool_is_charged(pooled, method):
    """Behind it nothing is lost any more, so no later charge hides that this one is missing."""
    graph, one = blown_up(pooled=pooled), np.ones((1, 1, 1, 2), np.float32)
    outputs = [Execution(rng=np.random.default_rng(0), flush=flush).run(graph, one)[0, 0] for flush in (False, True)]
    assert [float(found) for found in outputs] == [1 + 2.0**-10, 1.0]
    bounds = bound(graph, one, one, objective=np.eye(graph.classes)[:1], method=method)
    assert -10 < bounds.lower[0, 0] <= 1.0
    assert 1 + 2.0**-10 <= bounds.upper[0, 0] < 10


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("method", ["interval", "crown"])
def test_a_flushed_constant_loses_what_the_values_it_meets_are_worth(hidden, method):
    """2^100 times a subnormal weight: 2^-30, or zero where the weight is flushed. The 2^100 may be an inner value."""
    builder = samples.Builder(np.random.default_rng(0), (1,))
    if hidden:
        builder.apply("Mul", builder.last, builder.constant(np.full(1, 2.0**100, np.float32)))
        builder.apply("Relu", builder.last)
    builder.apply("Mul", builder.last, builder.constant(np.full(1, 2.0**-130, np.float32)))
    graph = builder.graph()
    x = np.full((1, 1), 1.0 if hidden else 2.0**100, np.float32)
    outputs = [Execution(rng=np.random.default_rng(0), flush=flush).run(graph, x)[0, 0] for flush in (False, True)]
    assert [float(found) for found in outputs] == [2.0**-30, 0.0]
    bounds = bound(graph, x, x, objective=np.eye(1), method=method)
    assert -1 < bounds.lower[0, 0] <= 0 < 2.0**-30 <= bounds.upper[0, 0] < 1


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_an_inner_value_that_may_overflow_proves_nothing(method):
    """The input is small; what a Relu makes of it is not, and its product with the next weight is infinite."""
    builder = samples.Builder(np.random.default_rng(0), (1,))
    builder.apply("Mul", builder.last, builder.constant(np.full(1, 2.0**100, np.float32)))
    builder.apply("Relu", builder.last)
    for factor in (2.0**60, 2.0**-60):
        builder.apply("Mul", builder.last, builder.constant(np.full(1, factor, np.float32)))
    one = np.ones((1, 1), np.float32)
    assert np.isinf(Execution(rng=np.random.default_rng(0)).run(builder.graph(), one)).all()
    bounds = bound(builder.graph(), one, one, objective=np.eye(1), method=method)
    assert np.isneginf(bounds.lower).all()
    assert "overflow" in bounds.reasons[0]


def any_slopes(rng, graph, records, rows):
    """Hints as a file may hold them: good ones, bad ones, all alike, one for the inner passes and one for the last."""
    planned = make_plan(graph)
    relus = [(step.output, planned.shapes[step.output]) for step in planned.steps if isinstance(step, Relu)]

    def one(*shape):
        match rng.integers(4):
            case 0:
                return np.full(shape, rng.choice([0, 1, 254, 255]), np.uint8) / STEPS
            case 1:
                return rng.choice([0, 255], shape) / STEPS
            case _:
                return rng.integers(0, 256, shape) / STEPS

    inner = {name: one(records, *shape) for name, shape in relus if rng.random() < 0.8}
    last = {name: one(records, rows, *shape) for name, shape in relus if rng.random() < 0.8}
    return planned, inner, last


@settings(max_examples=60, deadline=None, suppress_health_check=RELAXED)
@given(MODELS, SEEDS)
def test_no_hints_make_bounds_wrong_for_reals_or_any_execution(graph, seed):
    """Random slopes, checked against rational evaluation and against float32 in random orders."""
    rng = np.random.default_rng(seed)
    low, high = boxes(rng, graph.input_shape, 3)
    rows = objective(rng, graph.classes)
    planned, inner, last = any_slopes(rng, graph, 3, len(rows))
    hinted = bound_plan(planned, low, high, objective=rows, slopes=inner, last_slopes=last)
    for record in range(len(low)):
        x = inside(rng, low[record], high[record], 5)
        assert_inside(hinted, record, rows, [exactly(graph, x[0]), exactly(graph, x[-1])])
        for flush, wide in ((False, False), (True, False), (False, True)):
            assert_inside(hinted, record, rows, Execution(rng=rng, flush=flush, wide=wide).run(graph, x))


@pytest.mark.parametrize("kind", TRAPS)
@settings(max_examples=25, deadline=None, suppress_health_check=RELAXED)
@given(SEEDS)
def test_networks_built_to_fool_verifiers_are_never_certified_wrongly(kind, seed):
    """Claims `P f >= q` with q as large as any of three ways to bound proves: no execution and no real value is below."""
    rng = np.random.default_rng(seed)
    graph = verifier_traps(rng, kind)
    centre = rng.choice([0.0, 1.0, 2.0**-126, 1.5], (2, 2))
    width = rng.choice([0.0, 2.0**-140, 1e-3, 0.5], (2, 1))
    low, high = (centre - width).astype(np.float32), (centre + width).astype(np.float32)
    rows = np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    planned, inner, last = any_slopes(rng, graph, 2, len(rows))
    ways = [
        bound_plan(planned, low, high, objective=rows, method="interval"),
        bound_plan(planned, low, high, objective=rows),
        bound_plan(planned, low, high, objective=rows, slopes=inner, last_slopes=last),
    ]
    for record in range(2):
        x = inside(rng, low[record], high[record], 8)
        outputs = [exactly(graph, one) for one in x[:3]]
        for flush, wide in ((False, False), (True, False), (False, True)):
            for _ in range(3):
                outputs += list(Execution(rng=rng, flush=flush, wide=wide).run(graph, x))
        for outcome in runtimes(graph, x):
            outputs += list(outcome)
        for bounds in ways:
            assert_inside(bounds, record, rows, outputs)


def test_traps_do_what_they_are_built_for():
    """In float32 the margin of `phantom` is lost, and orders of `kept` differ: else the tests above would be idle."""
    one = np.ones((1, 2), np.float32)
    rng = np.random.default_rng(0)
    phantom = verifier_traps(rng, "phantom")
    real = exactly(phantom, one[0])
    lost = Program(phantom)(one)[0]
    assert real[1] - real[0] == 1
    assert lost[1] == lost[0]
    rows = np.array([[-1.0, 1.0]])
    for method in ("interval", "crown"):
        assert bound(phantom, one, one, objective=rows, method=method).lower[0, 0] <= 0
    switch = verifier_traps(rng, "switch")
    outputs = [float(Execution(rng=rng, flush=flush).run(switch, one)[0, 0]) for flush in (False, True)]
    assert outputs[0] > outputs[1] == 0.0
