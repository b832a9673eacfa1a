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
from protocol.model.patch import Cap, Patch, SketchGate
from protocol.model.profile import BASE_OPERATORS, DEPLOYED, PATCHED, graph_digest, make_node, parse, serialise
from protocol.model.schema import InputSchema
from tests.protocol.model.samples import graphs, patches, perceptron, schemas


def both_runtimes(graph, x, names):
    """Several tensors of one run, from the owner's interpreter and from onnxruntime."""
    yield Program(graph)(x, outputs=names)
    model = onnx.ModelProto.FromString(serialise(graph))
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    yield session.run(list(names), {graph.input: x})


def expected_output(schema, patch, x, base):
    """Patch semantics in integers and float32, record by record (SPEC 7.7, 7.9)."""
    grid, inside = schema.quantise(x)
    result = base.copy()
    {cap.klass for cap in patch.caps}
    for record, point in enumerate(grid.astype(object)):
        if patch.gate is not None and inside[record]:
            sketch = [sum(int(a) * b for a, b in zip(row, point, strict=True)) for row in patch.gate.matrix]
            for item, (low, high) in enumerate(zip(patch.gate.low, patch.gate.high, strict=True)):
                if all(a <= s <= b for a, s, b in zip(low, sketch, high, strict=True)):
                    result[record] = patch.rows[patch.row_of_item[item]]
                    break
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
    patch = draw(patches(base.features, base.classes))
    return base, schema, patch


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(0, 2**32))
def test_patched_output_is_exact_in_both_runtimes(case, seed):
    base, schema, patch = case
    x = inputs(schema, np.random.default_rng(seed), 9)
    composed = compose(base, schema, patch)
    for before, after in both_runtimes(composed, x, (base.output, "prune/output")):
        # What a runtime makes of the greatest of several logits that are NaN is its own affair (SPEC 7.9).
        clear = np.isfinite(before).all(axis=1) | (not patch.caps)
        assert clear[1:].all()
        assert np.array_equal(after[clear], expected_output(schema, patch, x, before)[clear], equal_nan=True)


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
    if patch.gate is not None:
        with pytest.raises(MalformedError, match="is not in the profile"):
            parse(data, operators=BASE_OPERATORS)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(0, 2**32))
def test_grid_and_sums_are_those_of_the_schema(data, seed):
    base = perceptron(features=6)
    schema = data.draw(schemas((6,)))
    patch = data.draw(patches(6, 3).filter(lambda patch: patch.gate is not None))
    x = inputs(schema, np.random.default_rng(seed), 9)
    grid, inside = schema.quantise(x)
    names = ("prune/affine", "prune/grid", "prune/inside", "prune/sketched")
    for affine, found, flag, sketched in both_runtimes(compose(base, schema, patch), x, names):
        assert np.array_equal(affine, schema.affine(x), equal_nan=True)
        assert np.array_equal(flag[:, 0] == 1, inside)
        assert np.array_equal(found[1:], grid[1:].astype(np.float32))  # record 0 may be NaN
        assert np.array_equal(sketched[1:], grid[1:].astype(np.int64) @ patch.gate.matrix.T.astype(np.int64))


def parts(**changes):
    base = perceptron()
    schema = InputSchema.uniform((4,), scale=16.0, low=0, high=16)
    gate = SketchGate(
        matrix=np.eye(4, dtype=np.int32), low=np.full((1, 4), 3, np.int32), high=np.full((1, 4), 5, np.int32)
    )
    patch = Patch(
        features=4, classes=3, gate=gate, rows=np.array([[1, 2, 3]], np.float32), row_of_item=np.zeros(1, np.int64)
    )
    return {"base": base, "schema": schema, "patch": patch, **changes}


def test_a_core_gives_the_row_and_everything_else_the_base():
    base, schema, patch = parts().values()
    x = schema.dequantise(np.array([[4, 4, 4, 4], [3, 5, 3, 5], [2, 4, 4, 4], [4, 4, 4, 6]]))
    x = np.concatenate([x, x[:1] * np.float32(np.nan), x[:1] - 100])
    for before, after in both_runtimes(compose(base, schema, patch), x, (base.output, "prune/output")):
        assert np.array_equal(after[:2], np.repeat(patch.rows, 2, axis=0))
        assert np.array_equal(after[2:], before[2:], equal_nan=True)


def test_the_first_of_two_items_decides():
    schema = parts()["schema"]
    gate = SketchGate(
        matrix=np.eye(4, dtype=np.int32), low=np.zeros((3, 4), np.int32), high=np.full((3, 4), 9, np.int32)
    )
    rows = np.array([[9, 9, 9], [7, 7, 7]], np.float32)
    patch = Patch(features=4, classes=3, gate=gate, rows=rows, row_of_item=np.array([1, 0, 0]))
    x = schema.dequantise(np.full((1, 4), 4))
    for (after,) in both_runtimes(compose(perceptron(), schema, patch), x, ("prune/output",)):
        assert np.array_equal(after, rows[1:])


def test_a_capped_class_never_wins():
    patch = Patch(
        features=4,
        classes=3,
        gate=None,
        rows=np.zeros((0, 3), np.float32),
        row_of_item=np.zeros(0, np.int64),
        caps=(Cap(klass=2, margin="0.5"),),
    )
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
    nowhere = {"rows": np.zeros((0, 3), np.float32), "row_of_item": np.zeros(0, np.int64)}
    patch = Patch(features=4, classes=3, gate=None, caps=caps, **nowhere)
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
        gate = replace(found["patch"].gate, matrix=np.full((4, 4), 1, np.int32))
        found["patch"] = replace(found["patch"], gate=gate)
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
        _Builder().constant("a", np.array([2**24 + 1]))


def test_make_node_refuses_other_operators():
    with pytest.raises(MalformedError, match="Sigmoid"):
        make_node("Sigmoid", ("x",), "y")
