"""The composed graph: what it computes, and that every single difference is found and named."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.bounds import prove_sketch_core
from auditor.compose import compare, compose
from auditor.execute import Program
from auditor.rows import cap_rows
from protocol.errors import AuditorError
from protocol.model.operators import PATCHED
from protocol.model.patch import Cap, Patch, SketchGate
from protocol.model.profile import parse, serialise
from tests.auditor.samples import cases, grid_schema, mlp


def _first_items(patch, schema, x):
    """The item that fires first on each record, or -1; by integers, not by the composed graph."""
    grid, inside = schema.quantise(x)
    sketches = grid.astype(np.int64) @ patch.gate.matrix.astype(np.int64).T
    hits = ((sketches[:, None] >= patch.gate.low) & (sketches[:, None] <= patch.gate.high)).all(axis=2)
    hits &= inside[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1), -1)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_the_composed_graph_does_what_the_patch_says(case):
    graph, schema, patch, x = case
    composed = compose(graph, schema, patch)
    assert parse(serialise(composed), operators=PATCHED) == composed
    base = Program(graph)(x)
    result, inner = Program(composed)(x, outputs=("prune/output", graph.output))
    assert inner.tobytes() == base.tobytes()
    expected = base.copy()
    if patch.gate is not None:
        first = _first_items(patch, schema, x)
        expected[first >= 0] = patch.rows[patch.row_of_item[first[first >= 0]]]
    finite = np.isfinite(expected).all(axis=1)
    # Outside all supports the base's bits come through; inside, those of the row; caps are the row formula.
    capped = cap_rows(expected[finite], patch.caps)
    np.testing.assert_array_equal(result[finite], capped)
    if not patch.caps:
        assert result.tobytes() == expected.tobytes()


@settings(max_examples=60, deadline=None)
@given(cases())
def test_onnxruntime_runs_the_composed_graph_with_the_same_decisions(case):
    graph, schema, patch, x = case
    composed = compose(graph, schema, patch)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(serialise(composed), options, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"x": x})[0]
    ours = Program(composed)(x)
    # Runtimes disagree about NaN in ReduceMax and Min, so a base that overflows has no one capped output.
    tame = (np.abs(x.reshape(len(x), -1)) < 100).all(axis=1)
    assert np.isfinite(ours[tame]).all()
    scale = np.maximum(1, np.abs(ours[tame]).max(axis=1, keepdims=True))
    assert (np.abs(ours[tame] - theirs[tame]) <= 2e-4 * scale).all()
    if patch.gate is not None and not patch.caps:
        fired = _first_items(patch, schema, x) >= 0
        assert ours[fired].tobytes() == theirs[fired].tobytes()


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_a_proven_core_fires_on_every_point_that_is_tried(case, radius, seed):
    graph, schema, patch, _ = case
    if patch.gate is None:
        return
    random = np.random.default_rng(seed)
    centre = random.integers(schema.low, schema.high + 1, (8, schema.features))
    item = random.integers(0, len(patch.row_of_item), 8)
    proof = prove_sketch_core(
        patch.gate,
        centre=centre,
        radius=np.full((8, 1), radius),
        item=item,
        column_low=schema.low,
        column_high=schema.high,
    )
    points = np.clip(centre + random.integers(-radius, radius + 1, centre.shape), schema.low, schema.high)
    for record, found in proof.counterexamples.items():
        points[record] = found.point
    program = Program(compose(graph, schema, patch))
    (hits,) = program(schema.dequantise(points), outputs=("prune/hits",))
    assert (hits[np.arange(8), item] == proof.proven).all()


def _small():
    schema = grid_schema((3,), scale=4.0, offset=0.0, low=0, high=8)
    gate = SketchGate(
        matrix=np.array([[1, 1, 1]], np.int32),
        low=np.array([[0], [20]], np.int32),
        high=np.array([[2], [24]], np.int32),
    )
    patch = Patch(
        features=3,
        classes=3,
        gate=gate,
        rows=np.array([[1, 0, 0], [0, 1, 0]], np.float32),
        row_of_item=np.array([1, 0]),
        caps=(Cap(klass=1, margin="0.1"), Cap(klass=0, margin="0.5")),
    )
    return mlp([3, 4, 3]), schema, patch


def test_a_graph_equals_itself():
    composed = compose(*_small())
    assert compare(composed, compose(*_small())) is None


def test_names_and_order_are_those_of_the_specification():
    graph, schema, patch = _small()
    composed = compose(graph, schema, patch)
    assert composed.nodes[: len(graph.nodes)] == graph.nodes
    names = [node.name.removeprefix("prune/") for node in composed.nodes[len(graph.nodes) :]]
    cap = ["rest", "best", "limit", "own", "capped"]
    assert names == [
        *["flat", "scaled", "affine", "rounded", "raised", "grid"],
        *["above", "below", "in_columns", "in_columns_float", "inside"],
        *["sketched", "sketched_row", "over", "under", "between", "between_float", "matched", "hits"],
        *["first", "any", "fired", "row_index", "row", "selected"],
        *(f"cap0/{name}" for name in (*cap, "output")),
        *(f"cap1/{name}" for name in cap),
        "output",
    ]
    assert all(node.name == node.outputs[0] for node in composed.nodes)
    constants = {name.removeprefix("prune/"): array for name, array in composed.initialisers.items()}
    assert constants["axes1"].tolist() == [1]
    assert constants["axes2"].tolist() == [2]
    assert constants["half"].shape == ()
    assert constants["sketch"].shape == (3, 1)
    assert constants["low_edge"].tolist() == [-0.5] * 3
    assert constants["high_edge"].tolist() == [8.5] * 3
    assert constants["cap1/mask"].tolist() == [[True, False, False]]
    assert constants["cap1/others"].tolist() == [2]  # no class with a cap of its own
    assert constants["cap0/margin"] == np.float32(0.1)
    without_gate = compose(
        graph, schema, replace(patch, gate=None, rows=patch.rows[:0], row_of_item=patch.row_of_item[:0])
    )
    assert "prune/axes2" not in without_gate.initialisers
    assert without_gate.nodes[len(graph.nodes)].inputs == (graph.output, "prune/cap0/others")


@pytest.mark.parametrize(("opset", "composed"), [(11, 18), (18, 18), (21, 21)])
def test_an_older_base_is_raised_to_the_gates_opset(opset, composed):
    graph, schema, patch = _small()
    assert compose(replace(graph, opset=opset), schema, patch).opset == composed


def _changed_nodes(composed):
    for place, node in enumerate(composed.nodes):
        for change in (
            {"op": "Identity" if node.op != "Identity" else "Relu"},
            {"name": node.name + "x"},
            {"inputs": (*node.inputs[:-1], "other")},
            {"outputs": ("other",)},
            {"attributes": {**node.attributes, "extra": 1}},
            *({"attributes": {**node.attributes, key: -7}} for key in node.attributes),
        ):
            yield place, replace(node, **change)


def test_every_changed_node_is_found_and_named():
    composed = compose(*_small())
    for place, node in _changed_nodes(composed):
        nodes = (*composed.nodes[:place], node, *composed.nodes[place + 1 :])
        difference = compare(composed, replace(composed, nodes=nodes))
        assert difference.startswith(f"node {place} ({composed.nodes[place].name}): ")


def test_nodes_too_many_too_few_and_swapped():
    composed = compose(*_small())
    count = len(composed.nodes)
    assert compare(composed, replace(composed, nodes=composed.nodes[:-1])) == f"{count - 1} nodes, expected {count}"
    more = (*composed.nodes, composed.nodes[0])
    assert compare(composed, replace(composed, nodes=more)) == f"{count + 1} nodes, expected {count}"
    swapped = (*composed.nodes[:-2], composed.nodes[-1], composed.nodes[-2])
    difference = compare(composed, replace(composed, nodes=swapped))
    assert difference == f"node {count - 2} (prune/cap1/capped): op is 'Where', expected 'Min'"


def test_every_changed_constant_is_found_and_named():
    composed = compose(*_small())
    for name, array in composed.initialisers.items():
        for flip in range(array.size):
            data = bytearray(array.tobytes())
            data[flip * array.itemsize] ^= 1
            other = np.frombuffer(bytes(data), array.dtype).reshape(array.shape)
            difference = compare(composed, replace(composed, initialisers={**composed.initialisers, name: other}))
            assert difference.startswith(f"constant {name}: 1 of {array.size} values differ, first at")
        kinds = {"type": array.astype(np.float64), "shape": array.reshape((1, *array.shape))}
        for word, other in kinds.items():
            difference = compare(composed, replace(composed, initialisers={**composed.initialisers, name: other}))
            assert difference.startswith(f"constant {name}: {word} is")
        less = {key: value for key, value in composed.initialisers.items() if key != name}
        assert compare(composed, replace(composed, initialisers=less)) == f"constant {name} is missing"
    more = {**composed.initialisers, "extra": np.zeros(1, np.float32)}
    assert compare(composed, replace(composed, initialisers=more)) == "constant extra does not belong here"


def test_a_negative_zero_is_a_difference():
    composed = compose(*_small())
    offset = np.array([0, -0.0, 0], np.float32)
    other = replace(composed, initialisers={**composed.initialisers, "prune/offset": offset})
    assert compare(composed, other) == "constant prune/offset: 1 of 3 values differ, first at (1,): -0.0, expected 0.0"


@pytest.mark.parametrize(
    "change",
    [{"opset": 19}, {"input": "z"}, {"input_shape": (3, 1)}, {"output": "t0"}, {"classes": 2}],
)
def test_a_changed_header_is_found(change):
    composed = compose(*_small())
    assert compare(composed, replace(composed, **change)).startswith(f"{next(iter(change))} is ")


@settings(max_examples=30, deadline=None)
@given(cases())
def test_compare_agrees_with_equality(case):
    graph, schema, patch, _ = case
    composed = compose(graph, schema, patch)
    again = parse(serialise(composed), operators=PATCHED)
    assert compare(composed, again) is None
    flipped = {name: array.copy() for name, array in again.initialisers.items()}
    changed = flipped[min(flipped)]
    changed.reshape(-1).view(np.uint8)[0] ^= 1
    other = replace(again, initialisers=flipped)
    assert (compare(composed, other) is None) == (composed == other) is False


def _reserved(graph, place):
    if place == "input":
        return replace(graph, input="prune/x")
    if place == "constant":
        return replace(graph, initialisers={**graph.initialisers, "prune/w": np.zeros(1, np.float32)})
    node = replace(graph.nodes[0], **({"name": "prune/n"} if place == "name" else {"outputs": ("prune/o",)}))
    return replace(graph, nodes=(node, *graph.nodes[1:]))


@pytest.mark.parametrize("place", ["input", "constant", "name", "output"])
def test_reserved_names_are_refused(place):
    graph, schema, patch = _small()
    with pytest.raises(AuditorError, match="reserved name 'prune/"):
        compose(_reserved(graph, place), schema, patch)


def test_parts_that_do_not_fit_together():
    graph, schema, patch = _small()
    with pytest.raises(AuditorError, match="does not fit a base"):
        compose(mlp([3, 4, 2]), schema, patch)
    with pytest.raises(AuditorError, match="input schema is for records"):
        compose(graph, grid_schema((1, 3), scale=1.0, offset=0.0, low=0, high=8), patch)
    with pytest.raises(AuditorError, match="would not be exact: sketch component 0"):
        compose(
            graph,
            grid_schema((3,), scale=1.0, offset=0.0, low=0, high=2**22),
            replace(patch, gate=replace(patch.gate, matrix=patch.gate.matrix * 2)),
        )
