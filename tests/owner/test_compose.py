"""Composed models: exact selection, exact sums, the grid bit for bit, in both runtimes."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owner.compose import compose, largest_sum
from owner.execute import Program
from protocol.encoding import parse_float32
from protocol.errors import MalformedError, OwnerError
from protocol.model.branches import always_run
from protocol.model.patch import (
    AffineHead,
    AlwaysGate,
    Cap,
    FeatureGate,
    Patch,
    RegionGate,
    SetHead,
    ShiftHead,
    SketchGate,
)
from protocol.model.profile import (
    BASE_OPERATORS,
    DEPLOYED,
    PATCHED,
    check_graph,
    graph_digest,
    make_node,
    parse,
    serialise,
)
from protocol.model.schema import InputSchema
from tests.protocol.model.samples import graphs, patches, perceptron, rows_patch, schemas


def both_runtimes(graph, x, names):
    """Several tensors of one run, from the owner's interpreter and from onnxruntime.

    What a branch makes, onnxruntime shows only of the graph in which it is always run: the outputs are those of the file.
    """
    yield Program(graph)(x, outputs=names)
    plain = replace(graph, nodes=always_run(graph.nodes))
    outputs = (graph.output, *(name for name in names if not name.startswith("prune/")))
    (whole, *_), found = _onnxruntime(graph, x, outputs), _onnxruntime(plain, x, names)
    if graph.output in names:
        assert whole.tobytes() == found[names.index(graph.output)].tobytes()
    yield found


def _onnxruntime(graph, x, names):
    model = onnx.ModelProto.FromString(serialise(graph))
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(names), {graph.input: x})


def asked(patch):
    """Names of the base's output, the deployed output, and what float gates and heads are decided by."""
    names = ["prune/output"]
    for number, part in enumerate(patch.parts):
        if isinstance(part.gate, (FeatureGate, RegionGate)):
            names.append(f"prune/p{number}/row")
        if isinstance(part.head, AffineHead):
            names.append(f"prune/p{number}/added")
    return names


def firing(schema, patch, x, found):
    """For each record the part and item that decide: exact integers for sketches, the run's own values else."""
    grid, inside = schema.quantise(x)
    decided = [None] * len(x)
    for number, part in reversed(list(enumerate(patch.parts))):
        gate = part.gate
        if isinstance(gate, SketchGate):
            sketch = grid.astype(object) @ gate.matrix.T.astype(object)
            fires = ((sketch[:, None] >= gate.low) & (sketch[:, None] <= gate.high)).all(axis=2)
        elif isinstance(gate, AlwaysGate):
            fires = np.ones((len(x), 1), dtype=bool)
        else:
            row = found[f"prune/p{number}/row"]
            low = gate.low if isinstance(gate, FeatureGate) else np.float32(-np.inf)
            high = gate.high if isinstance(gate, FeatureGate) else gate.bounds
            fires = ((row >= low) & (row <= high)).all(axis=2) & ~np.isnan(row).any(axis=2)
        for record in np.flatnonzero(inside):
            if fires[record].any():
                decided[record] = number, int(fires[record].argmax())
    return decided


def expected_output(schema, patch, x, base, found):
    """Patch semantics record by record (SPEC 7.7, 7.9), in float32 where the head adds."""
    result = base.copy()
    for record, decision in enumerate(firing(schema, patch, x, found)):
        if decision is None:
            continue
        number, item = decision
        head = patch.parts[number].head
        row = head.rows[head.index[item]]
        if isinstance(head, SetHead):
            result[record] = row
        elif isinstance(head, ShiftHead):
            result[record] = base[record] + row
        else:
            result[record] = base[record] + found[f"prune/p{number}/added"][record]
            exact = head.weights[head.index[item]].astype(np.float64) @ x[record].reshape(-1).astype(np.float64) + row
            assert np.allclose(found[f"prune/p{number}/added"][record], exact, rtol=1e-4, atol=1e-4)
    for record in range(len(x)):
        for cap in patch.caps:
            others = max(v for k, v in enumerate(result[record]) if k not in {other.klass for other in patch.caps})
            result[record, cap.klass] = min(result[record, cap.klass], others - parse_float32(cap.margin))
    return result


def inputs(schema, rng, records):
    """Grid points, points near the edges of their cells, and points outside the box, some NaN or infinite."""
    high = np.minimum(schema.high, schema.low + 300)
    x = schema.dequantise(rng.integers(schema.low, high + 1, (records, schema.features)))
    x += (rng.choice([0.0, 0.49, -0.5, 0.5], x.shape).reshape(records, -1) / schema.scale).reshape(x.shape)
    x[0].flat[0] = rng.choice([np.nan, np.inf, -np.inf, 1e30])
    return x.astype(np.float32)


@st.composite
def cases(draw):
    base = draw(graphs())
    schema = draw(schemas(base.input_shape))
    inner = [
        (name, int(np.prod(found.shape[1:])))
        for name, found in check_graph(base).items()
        if found.batched and name != base.input and np.prod(found.shape[1:]) <= 64
    ]
    tensor = draw(st.sampled_from(inner)) if inner else None
    patch = draw(patches(base.features, base.classes, tensor))
    return base, schema, patch


@settings(deadline=None, max_examples=150)
@given(cases(), st.integers(0, 2**32), st.sampled_from([1, 2, 9, 70]))
def test_patched_output_is_exact_in_both_runtimes(case, seed, records):
    base, schema, patch = case
    x = inputs(schema, np.random.default_rng(seed), records)
    composed = compose(base, schema, patch)
    more = asked(patch)
    for before, *values in both_runtimes(composed, x, (base.output, *more)):
        found = dict(zip(more, values, strict=True))
        # What a runtime makes of the greatest of several logits that are NaN is its own affair (SPEC 7.9).
        with np.errstate(over="ignore", invalid="ignore"):
            expected = expected_output(schema, patch, x, before, found)
        clear = np.isfinite(before).all(axis=1) | (not patch.caps)
        assert clear[1:].all()
        assert np.array_equal(found["prune/output"][clear], expected[clear], equal_nan=True)


@settings(deadline=None, max_examples=100)
@given(st.data(), st.integers(0, 2**32))
def test_a_screen_never_changes_what_fires(data, seed):
    base = perceptron(features=6)
    schema = data.draw(schemas((6,)))
    patch = data.draw(patches(6, 3).filter(has_screen))
    plain = replace(
        patch,
        parts=tuple(
            replace(part, gate=replace(part.gate, screen=None, branch=False))
            if isinstance(part.gate, SketchGate)
            else part
            for part in patch.parts
        ),
    )
    x = inputs(schema, np.random.default_rng(seed), 64)
    graphs_of = [compose(base, schema, one) for one in (patch, plain)]
    for with_screen, without in zip(
        *(both_runtimes(graph, x, (base.output, "prune/output")) for graph in graphs_of), strict=True
    ):
        clear = np.isfinite(with_screen[0]).all(axis=1) | (not patch.caps)
        for left, right in zip(with_screen, without, strict=True):
            assert np.array_equal(left[clear], right[clear], equal_nan=True)


def has_screen(patch):
    return any(isinstance(part.gate, SketchGate) and part.gate.screen is not None for part in patch.parts)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_the_file_is_in_the_profile_and_comes_back(case):
    base, schema, patch = case
    composed = compose(base, schema, patch)
    data = serialise(composed)
    assert parse(data, operators=PATCHED, limits=DEPLOYED) == composed
    assert graph_digest(parse(data, operators=PATCHED)) == graph_digest(composed)
    assert composed.nodes[: len(base.nodes)] == base.nodes
    assert composed.opset == max(base.opset, 18)
    if patch.parts:
        with pytest.raises(MalformedError, match="is not in the profile"):
            parse(data, operators=BASE_OPERATORS)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(0, 2**32))
def test_grid_and_sums_are_those_of_the_schema(data, seed):
    base = perceptron(features=6)
    schema = data.draw(schemas((6,)))
    patch = data.draw(patches(6, 3))
    gate = SketchGate(
        matrix=np.array([[1, 2, -3, 0, 1, 1]], np.int32),
        low=np.zeros((1, 1), np.int32),
        high=np.zeros((1, 1), np.int32),
    )
    patch = rows_patch(6, 3, gate, np.zeros((1, 3), np.float32), np.array([0]), patch.caps)
    x = inputs(schema, np.random.default_rng(seed), 9)
    grid, inside = schema.quantise(x)
    names = ("prune/affine", "prune/grid", "prune/inside", "prune/p0/sketched")
    for affine, found, flag, sketched in both_runtimes(compose(base, schema, patch), x, names):
        assert np.array_equal(affine, schema.affine(x), equal_nan=True)
        assert np.array_equal(flag[:, 0] == 1, inside)
        assert np.array_equal(found[1:], grid[1:].astype(np.float32))  # record 0 may be NaN
        assert np.array_equal(sketched[1:], grid[1:].astype(np.int64) @ gate.matrix.T.astype(np.int64))


def parts(**changes):
    base = perceptron()
    schema = InputSchema.uniform((4,), scale=16.0, low=0, high=16)
    gate = SketchGate(
        matrix=np.eye(4, dtype=np.int32), low=np.full((1, 4), 3, np.int32), high=np.full((1, 4), 5, np.int32)
    )
    patch = rows_patch(4, 3, gate, np.array([[1, 2, 3]], np.float32), np.zeros(1, np.int64))
    return {"base": base, "schema": schema, "patch": patch, **changes}


def test_a_core_gives_the_row_and_everything_else_the_base():
    base, schema, patch = parts().values()
    x = schema.dequantise(np.array([[4, 4, 4, 4], [3, 5, 3, 5], [2, 4, 4, 4], [4, 4, 4, 6]]))
    x = np.concatenate([x, x[:1] * np.float32(np.nan), x[:1] - 100])
    for before, after in both_runtimes(compose(base, schema, patch), x, (base.output, "prune/output")):
        assert np.array_equal(after[:2], np.repeat(patch.parts[0].head.rows, 2, axis=0))
        assert np.array_equal(after[2:], before[2:], equal_nan=True)


def test_the_first_of_two_items_decides():
    schema = parts()["schema"]
    gate = SketchGate(
        matrix=np.eye(4, dtype=np.int32), low=np.zeros((3, 4), np.int32), high=np.full((3, 4), 9, np.int32)
    )
    rows = np.array([[9, 9, 9], [7, 7, 7]], np.float32)
    patch = rows_patch(4, 3, gate, rows, np.array([1, 0, 0]))
    x = schema.dequantise(np.full((1, 4), 4))
    for (after,) in both_runtimes(compose(perceptron(), schema, patch), x, ("prune/output",)):
        assert np.array_equal(after, rows[1:])


def test_a_capped_class_never_wins():
    patch = Patch(features=4, classes=3, caps=(Cap(klass=2, margin="0.5"),))
    base = perceptron()
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    composed = compose(base, parts()["schema"], patch)
    assert not any(node.op == "Round" for node in composed.nodes)
    for before, after in both_runtimes(composed, x, (base.output, "prune/output")):
        assert (after.argmax(axis=1) != 2).all()
        assert (before.argmax(axis=1) == 2).any()
        assert np.array_equal(after[:, :2], before[:, :2])
        assert (after[:, 2] <= before[:, :2].max(axis=1) - np.float32(0.5)).all()


def test_two_capped_classes_never_win_over_each_other():
    caps = (Cap(klass=0, margin="1"), Cap(klass=2, margin="0.5"))
    patch = Patch(features=4, classes=3, caps=caps)
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    base = perceptron()
    for before, after in both_runtimes(compose(base, parts()["schema"], patch), x, (base.output, "prune/output")):
        assert (after.argmax(axis=1) == 1).all()
        assert len(set(before.argmax(axis=1))) == 3


def renamed(graph, name):
    last = replace(graph.nodes[-1], name=name)
    return replace(graph, nodes=(*graph.nodes[:-1], last))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base": perceptron(features=5)}, "schema is for"),
        ({"base": perceptron(classes=4)}, "classes"),
        ({"base": renamed(perceptron(), "prune/output")}, "the patch's"),
        ({"schema": InputSchema.uniform((4,), scale=1.0, low=0, high=2**22)}, "not exact"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, reason):
    found = parts(**changes)
    if reason == "not exact":
        (part,) = found["patch"].parts
        gate = replace(part.gate, matrix=np.full((4, 4), 1, np.int32))
        found["patch"] = replace(found["patch"], parts=(replace(part, gate=gate),))
    with pytest.raises(OwnerError, match=reason):
        compose(**found)


def test_the_bound_on_sums_is_reached_and_exact():
    gate = SketchGate(
        matrix=np.array([[3, -2], [1, 1]], np.int32), low=np.zeros((1, 2), np.int32), high=np.zeros((1, 2), np.int32)
    )
    schema = InputSchema.from_columns(
        (2,), scale=np.ones(2), offset=np.zeros(2), low=np.array([-5, -1]), high=np.array([4, 7])
    )
    assert largest_sum(gate, schema) == 3 * 5 + 2 * 7


def test_constants_must_be_exact(monkeypatch):
    from owner.compose import _Builder

    with pytest.raises(OwnerError, match="not exact"):
        _Builder(parts()["schema"], "x", "y").constant("a", np.array([2**24 + 1]))


def test_make_node_refuses_other_operators():
    with pytest.raises(MalformedError, match="Sigmoid"):
        make_node("Sigmoid", ("x",), "y")
