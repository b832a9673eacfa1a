"""The composed graph: what it computes, and that every single difference is found and named."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.bounds import prove_sketch_core
from auditor.compose import compare, compose, retrained
from auditor.execute import Program
from auditor.rows import cap_rows
from protocol.errors import AuditorError
from protocol.model.operators import PATCHED
from protocol.model.parts import (
    AffineHead,
    AlwaysGate,
    FeatureGate,
    Part,
    RegionGate,
    SetHead,
    ShiftHead,
    SketchGate,
)
from protocol.model.patch import Cap, Patch
from protocol.model.profile import parse, serialise
from tests.auditor.samples import cases, grid_schema, mlp


def fires(patch, schema, x, run):
    """Which items of each part fire on each record: sketches by integers, the others by the tensors of one run."""
    grid, inside = schema.quantise(x)
    result = []
    for number, part in enumerate(patch.parts):
        gate = part.gate
        if isinstance(gate, SketchGate):
            values = (grid.astype(np.int64) @ gate.matrix.astype(np.int64).T)[:, None]
            hits = ((values >= gate.low) & (values <= gate.high)).all(axis=2)
        elif isinstance(gate, FeatureGate):
            values = run(gate.tensor).reshape(len(x), 1, -1)
            hits = ((values >= gate.low) & (values <= gate.high)).all(axis=2)
        elif isinstance(gate, RegionGate):
            values = run(f"prune/p{number}/products").reshape(len(x), *gate.bounds.shape)
            flat = np.abs(np.nan_to_num(x.reshape(len(x), -1), posinf=0, neginf=0)).clip(0, 1e6)
            exact = np.einsum("nd,ihd->nih", x.reshape(len(x), -1).astype(np.float64), gate.weights)
            near = 1e-5 * (1 + np.einsum("nd,ihd->nih", flat, np.abs(gate.weights)))
            tame = np.abs(exact) < 1e5
            assert (np.abs(values - exact)[tame] <= near[tame]).all()
            hits = (values <= gate.bounds).all(axis=2)
        else:
            hits = np.ones((len(x), 1), bool)
        result.append(hits & inside[:, None])
    return result


def expected(patch, y, hits, run):
    """The output before caps: of the first item that fires, in the order of the parts."""
    result = y.copy()
    for number, part in reversed(tuple(enumerate(patch.parts))):
        fired = hits[number].any(axis=1)
        rows = part.head.index[hits[number].argmax(axis=1)]
        if isinstance(part.head, SetHead):
            value = part.head.rows[rows]
        elif isinstance(part.head, ShiftHead):
            value = y + part.head.rows[rows]
        else:
            value = y + (run(f"prune/p{number}/linear") + part.head.rows[rows])
        result[fired] = value[fired]
    return result


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_composed_graph_does_what_the_patch_says(case):
    graph, schema, patch, x = case
    composed = compose(graph, schema, patch)
    assert parse(serialise(composed), operators=PATCHED) == composed
    program = Program(composed)

    def run(name):
        return program(x, outputs=(name,))[0]

    base = Program(retrained(graph, patch))(x)
    result, inner = program(x, outputs=("prune/output", graph.output))
    assert inner.tobytes() == base.tobytes()
    with np.errstate(all="ignore"):
        selected = expected(patch, base, fires(patch, schema, x, run), run)
    finite = np.isfinite(selected).all(axis=1)
    # Outside all supports the base's bits come through; inside, those of the head; caps are the row formula.
    np.testing.assert_array_equal(result[finite], cap_rows(selected[finite], patch.caps))
    if not patch.caps:
        assert result.tobytes() == selected.tobytes()


@settings(max_examples=100, deadline=None)
@given(cases())
def test_a_screen_changes_nothing(case):
    graph, schema, patch, x = case
    parts = tuple(
        replace(part, gate=replace(part.gate, screen=None, branch=False)) if isinstance(part.gate, SketchGate) else part
        for part in patch.parts
    )
    both = [Program(compose(graph, schema, each))(x) for each in (patch, replace(patch, parts=parts))]
    assert both[0].tobytes() == both[1].tobytes()


def _session(composed, more):
    model = onnx.load_from_string(serialise(composed))
    for name in more:
        model.graph.output.add(name=name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@settings(max_examples=60, deadline=None)
@given(cases())
def test_onnxruntime_runs_the_composed_graph_with_the_same_decisions(case):
    graph, schema, patch, x = case
    composed = compose(graph, schema, patch)
    # Gates that look at the base's values, or at raw inputs, may decide otherwise within rounding: left out here.
    exact = [n for n, part in enumerate(patch.parts) if isinstance(part.gate, SketchGate | AlwaysGate)]
    names = [f"prune/p{n}/{what}" for n in exact for what in ("fired", "row_index")]
    (theirs,) = _session(composed, []).run(None, {"x": x})
    # What is made inside a branch, no runtime shows: decisions are those of the same patch with all of it outside.
    plain = tuple(
        replace(part, gate=replace(part.gate, branch=False)) if isinstance(part.gate, SketchGate) else part
        for part in patch.parts
    )
    _, *decisions = _session(compose(graph, schema, replace(patch, parts=plain)), names).run(None, {"x": x})
    ours = Program(composed)(x)
    fired = np.zeros(len(x), bool)
    for number, theirs_fired, theirs_row in zip(exact, decisions[::2], decisions[1::2], strict=True):
        names = f"prune/p{number}/fired", f"prune/p{number}/row_index"
        ours_fired, ours_row = Program(composed)(x, outputs=names)
        np.testing.assert_array_equal(ours_fired, theirs_fired)
        np.testing.assert_array_equal(ours_row, theirs_row)
        first = ours_fired[:, 0] & ~fired
        fired |= ours_fired[:, 0]
        alone = exact[: number + 1] == list(range(number + 1))
        if alone and isinstance(patch.parts[number].head, SetHead) and not patch.caps:
            assert ours[first].tobytes() == theirs[first].tobytes()
    # Runtimes disagree about NaN in ReduceMax and Min, so a base that overflows has no one capped output.
    tame = (np.abs(x.reshape(len(x), -1)) < 100).all(axis=1)
    assert np.isfinite(ours[tame]).all()
    if len(exact) == len(patch.parts):
        scale = np.maximum(1, np.abs(ours[tame]).max(axis=1, keepdims=True))
        assert (np.abs(ours[tame] - theirs[tame]) <= 2e-4 * scale).all()


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_a_proven_core_fires_on_every_point_that_is_tried(case, radius, seed):
    graph, schema, patch, _ = case
    number, gate = next(
        ((n, part.gate) for n, part in enumerate(patch.parts) if isinstance(part.gate, SketchGate)), (0, None)
    )
    if gate is None:
        return
    parts = list(patch.parts)
    parts[number] = replace(
        parts[number], gate=replace(gate, screen=None, branch=False)
    )  # a screen has no tensor of all hits
    patch = replace(patch, parts=tuple(parts))
    random = np.random.default_rng(seed)
    centre = random.integers(schema.low, schema.high + 1, (8, schema.features))
    item = random.integers(0, gate.items, 8)
    proof = prove_sketch_core(
        gate,
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
    (hits,) = program(schema.dequantise(points), outputs=(f"prune/p{number}/hits",))
    assert (hits[np.arange(8), item] == proof.proven).all()


def _small():
    schema = grid_schema((3,), scale=4.0, offset=0.0, low=0, high=8)
    gate = SketchGate(
        matrix=np.array([[1, 1, 1]], np.int32),
        low=np.array([[0], [20]], np.int32),
        high=np.array([[2], [24]], np.int32),
    )
    head = SetHead(rows=np.array([[1, 0, 0], [0, 1, 0]], np.float32), index=np.array([1, 0]))
    patch = Patch(
        features=3,
        classes=3,
        parts=(Part(gate=gate, head=head),),
        caps=(Cap(klass=1, margin="0.1"), Cap(klass=0, margin="0.5")),
    )
    return mlp([3, 4, 3]), schema, patch


def test_a_graph_equals_itself():
    composed = compose(*_small())
    assert compare(composed, compose(*_small())) is None


_INSIDE = ["scaled", "affine", "above", "below", "in_columns", "in_columns_float", "inside"]
_GRID = ["rounded", "raised", "grid"]
_HITS = ["over", "under", "between", "between_float", "matched", "hits"]
_FIRST = ["first", "any", "fired", "row_index"]
_CAP = ["rest", "best", "limit", "own", "capped"]


def _names(graph, composed):
    return [node.name.removeprefix("prune/") for node in composed.nodes[len(graph.nodes) :]]


def _under(number, *names):
    return [f"p{number}/{name}" for name in names]


def test_names_and_order_are_those_of_the_specification():
    graph, schema, patch = _small()
    composed = compose(graph, schema, patch)
    assert composed.nodes[: len(graph.nodes)] == graph.nodes
    assert _names(graph, composed) == [
        *["flat", *_INSIDE, *_GRID],
        *_under(0, "sketched", "row", *_HITS, *_FIRST, "value", "selected"),
        *(f"cap0/{name}" for name in (*_CAP, "output")),
        *(f"cap1/{name}" for name in _CAP),
        "output",
    ]
    assert all(node.name == node.outputs[0] for node in composed.nodes)
    constants = {name.removeprefix("prune/"): array for name, array in composed.initialisers.items()}
    assert constants["axes1"].tolist() == [1]
    assert constants["axes2"].tolist() == [2]
    assert constants["half"].shape == ()
    assert constants["p0/sketch"].shape == (3, 1)
    assert constants["low_edge"].tolist() == [-0.5] * 3
    assert constants["high_edge"].tolist() == [8.5] * 3
    assert constants["cap1/mask"].tolist() == [[True, False, False]]
    assert constants["cap1/others"].tolist() == [2]  # no class with a cap of its own
    assert constants["cap0/margin"] == np.float32(0.1)
    without_gate = compose(graph, schema, replace(patch, parts=()))
    assert "prune/axes2" not in without_gate.initialisers
    assert without_gate.nodes[len(graph.nodes)].inputs == (graph.output, "prune/cap0/others")


def _every_kind():
    graph, schema, patch = _small()
    rows = np.ones((1, 3), np.float32)
    shift = ShiftHead(rows=rows, index=np.array([0]))
    parts = (
        replace(patch.parts[0], gate=replace(patch.parts[0].gate, screen=np.array([0]))),
        Part(
            gate=FeatureGate(
                tensor=graph.nodes[0].outputs[0], low=np.zeros((1, 4), np.float32), high=np.ones((1, 4), np.float32)
            ),
            head=shift,
        ),
        Part(
            gate=RegionGate(
                weights=np.arange(6, dtype=np.float32).reshape(1, 2, 3), bounds=np.ones((1, 2), np.float32)
            ),
            head=AffineHead(weights=np.ones((1, 3, 3), np.float32), rows=rows, index=np.array([0])),
        ),
        Part(gate=AlwaysGate(), head=shift),
    )
    return graph, schema, replace(patch, parts=parts, caps=())


def test_names_and_order_of_every_kind_of_part():
    graph, schema, patch = _every_kind()
    composed = compose(graph, schema, patch)
    assert _names(graph, composed) == [
        *["flat", *_INSIDE],
        *_under(0, "coarse", "coarse_cell", "cell_raised", "cell", "bits", "places", "record", "word", "seen"),
        *_under(0, *_INSIDE, *_GRID, "sketched", "row", "low_here", "high_here", *_HITS, "hit"),
        *_under(0, "numbers", "candidates", "candidate", "some_cell", "none", "first", "fires", "fired"),
        *_under(0, "row_index", "value"),
        *_under(1, "features", "row", *_HITS, *_FIRST, "added", "value"),
        *_under(2, "products", "row", "between", "between_float", "matched", "hits", *_FIRST),
        *_under(2, "map", "wide", "products_of_map", "linear", "constant_row", "added", "value"),
        *_under(3, *_FIRST, "added", "value"),
        *["p3/selected", "p2/selected", "p1/selected", "output"],
    ]
    last = {node.name.removeprefix("prune/"): node for node in composed.nodes}
    assert last["p3/first"].inputs == ("prune/inside",)
    assert last["p3/selected"].inputs == ("prune/p3/fired", "prune/p3/value", graph.output)
    assert last["output"].inputs == ("prune/p0/fired", "prune/p0/value", "prune/p1/selected")
    constants = composed.initialisers
    assert constants["prune/p2/halves"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert constants["prune/p2/sizes"].tolist() == [0, 1, 2]
    assert constants["prune/p0/row_of_item"].tolist() == [1, 0, 0]
    assert constants["prune/place0"].shape == constants["prune/place2"].shape == ()


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_screen_is_halved_down_to_one_component(count):
    graph, schema, patch = _small()
    gate = SketchGate(
        matrix=np.ones((8, 3), np.int32),
        low=np.zeros((2, 8), np.int32),
        high=np.ones((2, 8), np.int32),
        screen=np.arange(count),
    )
    composed = compose(graph, schema, replace(patch, parts=(replace(patch.parts[0], gate=gate),)))
    halving = [name for name in _names(graph, composed) if name.startswith(("p0/left", "p0/both"))]
    assert halving == [f"p0/{what}{j}" for j in range(count.bit_length() - 1) for what in ("left", "both")]


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


@pytest.mark.parametrize("parts", [_small, _every_kind])
def test_every_changed_node_is_found_and_named(parts):
    composed = compose(*parts())
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


@pytest.mark.parametrize("parts", [_small, _every_kind])
def test_every_changed_constant_is_found_and_named(parts):
    composed = compose(*parts())
    for name, array in composed.initialisers.items():
        for flip in range(min(array.size, 40)):
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
    part = patch.parts[0]
    with pytest.raises(AuditorError, match="does not fit a base"):
        compose(mlp([3, 4, 2]), schema, patch)
    with pytest.raises(AuditorError, match="input schema is for records"):
        compose(graph, grid_schema((1, 3), scale=1.0, offset=0.0, low=0, high=8), patch)
    with pytest.raises(AuditorError, match="part 0 would not be exact: sketch component 0"):
        compose(
            graph,
            grid_schema((3,), scale=1.0, offset=0.0, low=0, high=2**22),
            replace(patch, parts=(replace(part, gate=replace(part.gate, matrix=part.gate.matrix * 2)),)),
        )
    for tensor, reason in (("x", "no node"), ("none", "no node"), (graph.nodes[0].outputs[0], "not its 4")):
        gate = FeatureGate(tensor=tensor, low=np.zeros((2, 3), np.float32), high=np.ones((2, 3), np.float32))
        with pytest.raises(AuditorError, match=reason):
            compose(graph, schema, replace(patch, parts=(replace(part, gate=gate),)))
