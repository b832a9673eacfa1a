"""The interpreter against onnxruntime on random models, and its exact operators against numpy."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.execute import OPERATORS, Program, float32_arithmetic
from protocol.errors import AuditorError
from protocol.model.graph import Graph, Node
from protocol.model.operators import PATCHED, make_node
from protocol.model.profile import parse, serialise
from tests.auditor.samples import conv_net, graphs, mlp

TOLERANCE = 2e-4
"""Relative to the largest activation: some hundred roundings of float32 in another order, amplified by a few layers."""


def _session(graph):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(serialise(graph), options, providers=["CPUExecutionProvider"])


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_random_models_agree_with_onnxruntime(graph, records, seed):
    assert parse(serialise(graph)) == graph
    x = np.random.default_rng(seed).normal(size=(records, *graph.input_shape)).astype(np.float32)
    expected = _session(graph).run(None, {"x": x})[0]
    result = Program(graph)(x, batch=3)
    assert result.shape == expected.shape == (records, graph.classes)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=TOLERANCE * max(1, np.abs(expected).max()), rtol=0)


@pytest.mark.parametrize("opset", [11, 13, 17, 24])
@pytest.mark.parametrize("graph", [mlp([5, 8, 3]), conv_net()], ids=["mlp", "conv"])
def test_older_and_newer_opsets_mean_the_same(graph, opset):
    x = np.random.default_rng(0).normal(size=(4, *graph.input_shape)).astype(np.float32)
    expected = _session(replace(graph, opset=opset)).run(None, {"x": x})[0]
    np.testing.assert_allclose(Program(graph)(x), expected, atol=TOLERANCE)


@settings(max_examples=30, deadline=None)
@given(graphs())
def test_no_records_give_no_logits(graph):
    assert Program(graph)(np.zeros((0, *graph.input_shape), np.float32)).shape == (0, graph.classes)


def _single(op, *constants, shape, kind=np.float32, **attributes):
    """A graph of one operator; not always one that `parse` would accept."""
    names = {f"c{place}": array for place, array in enumerate(constants)}
    node = make_node(op, ("x", *names), "y", **attributes)
    return Graph(opset=18, input="x", input_shape=shape, output="y", classes=1, nodes=(node,), initialisers=names)


EDGES = np.array([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 8388609.0, np.inf, -np.inf, np.nan]], np.float32)


def test_round_is_half_to_even():
    rounded = Program(_single("Round", shape=(11,)))(EDGES)
    np.testing.assert_array_equal(rounded, np.round(EDGES))
    assert rounded[0, :6].tolist() == [-2, -2, 0, 0, 2, 2]


@pytest.mark.parametrize("op", ["LessOrEqual", "GreaterOrEqual", "Greater"])
def test_comparisons_with_nan_are_false(op):
    bound = np.zeros(11, np.float32)
    result = Program(_single(op, bound, shape=(11,)))(EDGES)
    assert result.dtype == np.bool_
    reference = {"LessOrEqual": np.less_equal, "GreaterOrEqual": np.greater_equal, "Greater": np.greater}[op]
    np.testing.assert_array_equal(result, reference(EDGES, bound))
    assert not result[0, -1]
    assert not Program(_single(op, np.full(11, np.nan, np.float32), shape=(11,)))(EDGES).any()


def test_where_is_a_selection():
    mask = np.arange(11) < 5
    nodes = (make_node("Where", ("m", "c", "x"), "y"),)
    graph = Graph(
        opset=18,
        input="x",
        input_shape=(11,),
        output="y",
        classes=11,
        nodes=nodes,
        initialisers={"m": mask, "c": np.full(11, 7, np.float32)},
    )
    result = Program(graph)(EDGES)
    assert result.tobytes() == np.where(mask, np.float32(7), EDGES).tobytes()


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=6, max_size=6), min_size=1, max_size=5))
def test_argmax_takes_the_first_of_equals(values):
    x = np.array(values, np.float32)
    for keep in (0, 1):
        result = Program(_single("ArgMax", shape=(6,), axis=1, keepdims=keep))(x)
        assert result.dtype == np.int64
        np.testing.assert_array_equal(result, x.argmax(axis=1, keepdims=bool(keep)))


@pytest.mark.parametrize(("op", "reduce"), [("ReduceMin", np.min), ("ReduceMax", np.max)])
@pytest.mark.parametrize("keep", [0, 1])
def test_reductions(op, reduce, keep):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    result = Program(_single(op, np.array([2]), shape=(3, 4), keepdims=keep))(x)
    np.testing.assert_array_equal(result, reduce(x, axis=2, keepdims=bool(keep)))


def test_gather_and_unsqueeze():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(Program(_single("Gather", np.array([2, 0]), shape=(3,), axis=1))(x), x[:, [2, 0]])
    np.testing.assert_array_equal(Program(_single("Unsqueeze", np.array([1]), shape=(3,)))(x), x[:, None])


def _run(inputs, constants, *nodes, outputs):
    """Some nodes on a float32 input [N, k]; returns the named tensors."""
    graph = Graph(
        opset=18, input="x", input_shape=inputs.shape[1:], output=outputs[-1], classes=1, nodes=nodes,
        initialisers=constants,
    )  # fmt: skip
    return Program(graph)(inputs, outputs=outputs)


def test_a_cast_to_integers_rounds_towards_zero_and_survives_what_is_no_number():
    (whole,) = _run(EDGES, {}, make_node("Cast", ("x",), "y", to=7), outputs=("y",))
    assert whole.dtype == np.int64
    assert whole[0, :8].tolist() == [-2, -1, 0, 0, 1, 2, 0, 8388609]


def test_lists_of_places_and_back():
    x = np.array([[0, 3, 0], [0, 0, 0], [5, 0, 7]], np.float32)
    constants = {
        "zero": np.array(0), "one": np.array(1), "table": np.array([[9, 8], [7, 6], [5, 4]]),
        "nine": np.full(6, 9), "axes": np.array([1]),
    }  # fmt: skip
    nodes = (
        make_node("Cast", ("x",), "whole", to=7),
        make_node("NonZero", ("whole",), "places"),
        make_node("Gather", ("places", "zero"), "record"),
        make_node("Gather", ("places", "one"), "column"),
        make_node("Gather", ("x", "record"), "seen"),
        make_node("Gather", ("table", "column"), "pair"),
        make_node("ReduceMin", ("pair", "axes"), "least", keepdims=0),
        make_node("ReduceMin", ("whole", "axes"), "some", keepdims=0),
        make_node("Gather", ("nine", "some"), "none"),
        make_node("ScatterElements", ("none", "record", "least"), "y", reduction="min"),
    )
    names = ("places", "record", "column", "seen", "pair", "y")
    places, record, column, seen, pair, least = _run(x, constants, *nodes, outputs=names)
    assert places.tolist() == [[0, 2, 2], [1, 0, 2]]
    assert (record.tolist(), column.tolist()) == ([0, 2, 2], [1, 0, 2])
    assert seen.tolist() == x[[0, 2, 2]].tolist()
    assert pair.tolist() == [[7, 6], [9, 8], [5, 4]]
    assert least.tolist() == [6, 9, 4]
    # Nothing listed at all, and no records at all.
    assert _run(x * 0, constants, *nodes, outputs=names)[-1].tolist() == [9, 9, 9]
    assert _run(x[:0], constants, *nodes, outputs=names)[-1].tolist() == []


def test_halves_bits_and_sums():
    x = np.array([[-1, 6, 3, 5]], np.float32)
    nodes = (
        make_node("Cast", ("x",), "whole", to=7),
        make_node("Split", ("whole",), "left", "right", axis=1, num_outputs=2),
        make_node("BitwiseAnd", ("left", "right"), "both"),
        make_node("Less", ("left", "right"), "less"),
        make_node("ReduceSum", ("x", "axes"), "sum", keepdims=1),
    )
    left, right, both, less, total = _run(
        x, {"axes": np.array([1])}, *nodes, outputs=("left", "right", "both", "less", "sum")
    )
    assert (left.tolist(), right.tolist(), both.tolist()) == ([[-1, 6]], [[3, 5]], [[3, 4]])
    assert (less.tolist(), total.tolist()) == ([[True, False]], [[13.0]])


def test_gather_takes_indices_of_any_rank():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    index = np.array([[2, 0], [1, 1]])
    np.testing.assert_array_equal(Program(_single("Gather", index, shape=(3,), axis=1))(x), x[:, index])


def test_an_index_from_the_end_is_refused():
    with pytest.raises(AuditorError, match=r"^y: can't run Gather"):
        Program(_single("Gather", np.array([-1]), shape=(3,), axis=1))(np.zeros((1, 3), np.float32))


@pytest.mark.parametrize("target", [[2, 3], [6], [0, 2]])
def test_a_reshape_that_touches_the_batch_is_refused(target):
    allow = int(target[0] == 0)
    with pytest.raises(AuditorError, match="first axis must stay the batch"):
        Program(_single("Reshape", np.array(target), shape=(3,), allowzero=allow))(np.zeros((2, 3), np.float32))


def test_reshape_can_copy_an_axis():
    x = np.zeros((2, 3, 4), np.float32)
    assert Program(_single("Reshape", np.array([0, 0, 2, -1]), shape=(3, 4)))(x).shape == (2, 3, 2, 2)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_pooling_against_the_definition(op, count, pads, strides):
    extra = {"count_include_pad": count} if op == "AveragePool" else {}
    graph = _single(op, shape=(2, 5, 4), kernel_shape=(2, 3), pads=pads, strides=strides, **extra)
    x = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32) - 2
    hidden = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=np.nan)
    result = Program(graph)(x)
    rows, columns = (
        (hidden.shape[axis] - window) // step + 1 for axis, window, step in zip((2, 3), (2, 3), strides, strict=True)
    )
    assert result.shape == (3, 2, rows, columns)
    for row in range(rows):
        for column in range(columns):
            top, left = row * strides[0], column * strides[1]
            window = hidden[:, :, top : top + 2, left : left + 3]
            if op == "MaxPool":
                expected = np.nanmax(window, axis=(2, 3))
            else:
                expected = np.nansum(window, axis=(2, 3)) / (6 if count else np.isfinite(window[0, 0]).sum())
            np.testing.assert_allclose(result[:, :, row, column], expected, rtol=1e-5)


def test_lopsided_padding_is_refused():
    graph = _single("MaxPool", shape=(1, 4, 4), kernel_shape=(2, 2), pads=(1, 0, 0, 0))
    with pytest.raises(AuditorError, match="padding differs"):
        Program(graph)(np.zeros((1, 1, 4, 4), np.float32))


def test_every_operator_of_the_profile_is_here_and_no_other():
    assert OPERATORS.keys() == PATCHED


def test_an_unknown_operator_is_refused_before_anything_runs():
    node = Node(name="y", op="Sin", inputs=("x",), outputs=("y",))
    graph = Graph(opset=18, input="x", input_shape=(1,), output="y", classes=1, nodes=(node,), initialisers={})
    with pytest.raises(AuditorError, match="operator Sin"):
        Program(graph)


def test_several_outputs_at_once_and_only_what_they_need():
    graph = mlp([4, 5, 3])
    program = Program(graph)
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    hidden, given_back, logits = program(x, outputs=("t1", "x", graph.output), batch=2)
    assert (hidden >= 0).all()
    np.testing.assert_array_equal(given_back, x)
    np.testing.assert_array_equal(logits, program(x, batch=2))
    assert program(x, outputs=()) == ()
    broken = Graph(
        opset=18,
        input="x",
        input_shape=(4,),
        output=graph.output,
        classes=3,
        nodes=graph.nodes,
        initialisers={**graph.initialisers, "w2": np.zeros((1, 1), np.float32)},
    )
    assert Program(broken)(x, outputs=("t1",))[0].shape == (7, 5)
    with pytest.raises(AuditorError, match="can't run Gemm"):
        Program(broken)(x)


def test_running_twice_gives_the_same_bits():
    x = np.random.default_rng(0).normal(size=(50, 1, 6, 6)).astype(np.float32)
    graph = conv_net()
    assert Program(graph)(x, batch=16).tobytes() == Program(graph)(x, batch=16).tobytes()


@pytest.mark.parametrize(
    ("x", "arguments", "reason"),
    [
        (np.zeros((2, 3)), {}, "takes float32 records"),
        (np.zeros((2, 4), np.float32), {}, "takes float32 records"),
        (np.zeros((2, 3), np.float32), {"batch": 0}, "batches of at least 1"),
        (np.zeros((2, 3), np.float32), {"outputs": ("nothing",)}, "no tensor named 'nothing'"),
        (np.zeros((2, 3), np.float32), {"outputs": ("w0",)}, "no tensor named 'w0'"),
    ],
)
def test_calls_that_do_not_fit(x, arguments, reason):
    with pytest.raises(AuditorError, match=reason):
        Program(mlp([3, 2]))(x, **arguments)


def test_the_process_may_be_set_to_bfloat16_and_the_program_does_not_care():
    graph = mlp([256, 256, 10])
    x = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    expected = Program(graph)(x).tobytes()
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert Program(graph)(x).tobytes() == expected
        assert setting.fp32_precision == "bf16"
    finally:
        setting.fp32_precision = before


def test_settings_come_back_after_an_error():
    before = torch.backends.mkldnn.conv.fp32_precision
    with pytest.raises(ZeroDivisionError), float32_arithmetic():
        assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
        raise ZeroDivisionError
    assert torch.backends.mkldnn.conv.fp32_precision == before
