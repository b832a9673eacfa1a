"""Every rule on shapes and attributes, by a node that breaks it; and the types that are found."""

from dataclasses import replace

import numpy as np
import pytest

from protocol.errors import MalformedError
from protocol.model.graph import BATCH
from protocol.model.profile import BASE_OPERATORS, Graph, Limits, Node, check_graph, make_node
from protocol.model.tensor_types import broadcast

F, B = np.float32, np.bool_


def ones(*shape):
    return np.ones(shape, F)


def ints(*values):
    return np.array(values, np.int64)


def graph_of(nodes, constants, shape, opset=20):
    made = [make_node(op, tuple(inputs), output, **given) for op, inputs, output, given in nodes]
    return Graph(
        opset=opset,
        input="x",
        input_shape=shape,
        output=made[-1].outputs[0],
        classes=3,
        nodes=tuple(made),
        initialisers=dict(constants),
    )


BAD = [
    # op, other inputs, attributes, constants, input shape
    ("Gemm", ["w"], {}, {"w": ones(5, 3)}, (4,)),
    ("Gemm", ["w"], {}, {"w": ones(4)}, (4,)),
    ("Gemm", ["w"], {}, {"w": ones(4, 3)}, (4, 4)),
    ("Gemm", ["w"], {}, {"w": ints(1)}, (4,)),
    ("Gemm", ["x"], {}, {}, (4,)),
    ("Gemm", [], {}, {}, (4,)),
    ("Gemm", ["w"], {"transB": 2}, {"w": ones(4, 3)}, (4,)),
    ("Gemm", ["w"], {"transA": 1}, {"w": ones(4, 3)}, (4,)),
    ("Gemm", ["w", "b"], {}, {"w": ones(4, 3), "b": ones(4)}, (4,)),
    ("MatMul", ["w"], {}, {"w": ones(5, 3)}, (4,)),
    ("MatMul", ["w"], {}, {"w": ones(4)}, (4,)),
    ("Add", ["b"], {}, {"b": ones(4)}, (3,)),
    ("Add", ["b"], {}, {"b": ints(1, 2, 3)}, (3,)),
    ("Add", ["b"], {}, {"b": ones(2, 3)}, (3,)),
    ("Add", ["b"], {}, {"b": ones(1, 2, 3)}, (3,)),
    ("Transpose", [], {"perm": (1, 0)}, {}, (3,)),
    ("Transpose", [], {"perm": (0, 2)}, {}, (3,)),
    ("Reshape", ["s"], {}, {"s": ints(3, -1)}, (3,)),
    ("Reshape", ["s"], {}, {"s": ints(-1, 4)}, (3,)),
    ("Reshape", ["s"], {}, {"s": ints(0, 4)}, (3,)),
    ("Reshape", ["s"], {}, {"s": ints(0, -1, 2)}, (3,)),
    ("Reshape", ["s"], {}, {"s": ints(-1, -1)}, (3,)),
    ("Reshape", ["s"], {}, {"s": ints(-1, -3)}, (3,)),
    ("Reshape", ["s"], {}, {"s": ints(-1, 0, 0)}, (3,)),
    ("Reshape", ["s"], {"allowzero": 1}, {"s": ints(-1, 0)}, (3,)),
    ("Reshape", ["s"], {"allowzero": 1}, {"s": ints(0, 3)}, (3,)),
    ("Reshape", ["s"], {"allowzero": 2}, {"s": ints(-1, 3)}, (3,)),
    ("Reshape", ["s"], {}, {"s": np.array(3)}, (3,)),
    ("Reshape", ["s"], {}, {"s": ints(*[1] * 9)}, (3,)),
    ("Conv", ["w"], {"kernel_shape": (3, 3)}, {"w": ones(3, 2, 3, 3)}, (1, 5, 5)),
    ("Conv", ["w"], {"kernel_shape": (3, 2)}, {"w": ones(3, 1, 3, 3)}, (1, 5, 5)),
    ("Conv", ["w"], {"kernel_shape": (3,)}, {"w": ones(3, 1, 3)}, (1, 5)),
    ("Conv", ["w"], {"kernel_shape": (3, 3)}, {"w": ones(3, 1, 3, 3)}, (1, 2, 2)),
    ("Conv", ["w"], {"kernel_shape": (3, 3), "group": 2}, {"w": ones(3, 1, 3, 3)}, (2, 5, 5)),
    ("Conv", ["w"], {"kernel_shape": (3, 3), "group": 0}, {"w": ones(3, 1, 3, 3)}, (1, 5, 5)),
    ("Conv", ["w"], {"kernel_shape": (3, 3), "pads": (0, 0, 1, 1)}, {"w": ones(3, 1, 3, 3)}, (1, 5, 5)),
    ("Conv", ["w"], {"kernel_shape": (3, 3), "pads": (1, 1)}, {"w": ones(3, 1, 3, 3)}, (1, 5, 5)),
    ("Conv", ["w"], {"kernel_shape": (3, 3), "pads": (-1,) * 4}, {"w": ones(3, 1, 3, 3)}, (1, 5, 5)),
    ("Conv", ["w"], {"kernel_shape": (3, 3), "strides": (0, 1)}, {"w": ones(3, 1, 3, 3)}, (1, 5, 5)),
    ("Conv", ["w"], {"kernel_shape": (3, 3), "dilations": (2, 2)}, {"w": ones(3, 1, 3, 3)}, (1, 5, 5)),
    ("Conv", ["w"], {"kernel_shape": (3, 3), "auto_pad": "SAME_UPPER"}, {"w": ones(3, 1, 3, 3)}, (1, 5, 5)),
    ("Conv", ["w", "b"], {"kernel_shape": (3, 3)}, {"w": ones(3, 1, 3, 3), "b": ones(2)}, (1, 5, 5)),
    ("MaxPool", [], {"kernel_shape": (2, 2), "pads": (2, 2, 2, 2)}, {}, (3, 4, 4)),
    ("MaxPool", [], {"kernel_shape": (2, 2), "strides": (2**17, 1)}, {}, (3, 4, 4)),
    ("MaxPool", [], {"kernel_shape": (12, 2), "pads": (6, 0, 6, 0)}, {}, (3, 4, 4)),
    ("Conv", ["w"], {"kernel_shape": (3, 3), "pads": (9,) * 4}, {"w": ones(3, 1, 3, 3)}, (1, 5, 5)),
    ("MaxPool", [], {"kernel_shape": (2, 2), "ceil_mode": 1}, {}, (3, 4, 4)),
    ("MaxPool", [], {"kernel_shape": (2, 2)}, {}, (4, 4)),
    ("AveragePool", [], {"kernel_shape": (2, 2), "count_include_pad": 2}, {}, (3, 4, 4)),
    ("GlobalAveragePool", [], {}, {}, (4, 4)),
    ("BatchNormalization", ["s", "b", "m", "v"], {}, dict.fromkeys("sbmv", ones(4)), (3,)),
    ("BatchNormalization", list("sbmv"), {}, {**dict.fromkeys("sbm", ones(3)), "v": -ones(3)}, (3,)),
    ("BatchNormalization", list("sbmv"), {"epsilon": 0.0}, dict.fromkeys("sbmv", ones(3)), (3,)),
    ("BatchNormalization", list("sbmv"), {"momentum": 2.0}, dict.fromkeys("sbmv", ones(3)), (3,)),
    ("BatchNormalization", list("sbmv"), {"training_mode": 1}, dict.fromkeys("sbmv", ones(3)), (3,)),
    ("BatchNormalization", list("ssmv"), {}, dict.fromkeys("smv", ones(3)), (3,)),
    ("Cast", [], {"to": 1}, {}, (3,)),
    ("Cast", [], {"to": 6}, {}, (3,)),
    ("Less", ["x"], {}, {}, (3,)),
    ("BitwiseAnd", ["x"], {}, {}, (3,)),
    ("NonZero", [], {}, {}, (3,)),
    ("ReduceSum", ["a"], {}, {"a": ints(0)}, (3, 3)),
    ("ScatterElements", ["i", "i"], {"reduction": "min"}, {"i": ints(0, 1, 2)}, (3,)),
    ("ScatterElements", ["i", "i"], {"reduction": "add"}, {"i": ints(0, 1, 2)}, (3,)),
    ("And", ["x"], {}, {}, (3,)),
    ("ReduceMin", ["a"], {}, {"a": ints(0)}, (3, 3)),
    ("ReduceMin", ["a"], {}, {"a": ints(3)}, (3, 3)),
    ("ReduceMin", ["a"], {}, {"a": ints(1, 2)}, (3, 3)),
    ("ReduceMax", ["a"], {"keepdims": 2}, {"a": ints(1)}, (3, 3)),
    ("ReduceMax", ["a"], {"noop_with_empty_axes": 1}, {"a": ints(1)}, (3, 3)),
    ("ArgMax", [], {"axis": 0}, {}, (3, 3)),
    ("ArgMax", [], {"axis": 3}, {}, (3, 3)),
    ("ArgMax", [], {"axis": 1, "keepdims": 2}, {}, (3, 3)),
    ("ArgMax", [], {"axis": 1, "select_last_index": 1}, {}, (3, 3)),
    ("Unsqueeze", ["a"], {}, {"a": ints(0)}, (3,)),
    ("Gather", ["i"], {"axis": 1}, {"i": ints(0, 3, 1)}, (3,)),
    ("Gather", ["i"], {"axis": 1}, {"i": ints(-1, 0, 1)}, (3,)),
    ("Gather", ["i"], {"axis": 0}, {"i": ints(0, 1, 2)}, (3,)),
    ("Gather", ["i"], {"axis": 1}, {"i": np.array([[0, 1, 2]])}, (3,)),
    ("Gather", ["i"], {"axis": 1}, {"i": ones(3)}, (3,)),
    ("Gather", ["x"], {"axis": 1}, {}, (3,)),
    ("Where", ["x", "x"], {}, {}, (3,)),
    ("Relu", ["x"], {}, {}, (3,)),
    ("Relu", ["x", "x"], {}, {}, (3,)),
]


@pytest.mark.parametrize(("op", "inputs", "given", "constants", "shape"), BAD)
def test_a_node_that_cannot_run_is_refused_by_name(op, inputs, given, constants, shape):
    with pytest.raises(MalformedError, match=f"{op}|used twice"):
        check_graph(graph_of([(op, ["x", *inputs], "y", given)], constants, shape))


def test_a_mask_must_fit_what_it_chooses_from():
    for mask in (np.ones((1, 3), B), np.ones((3, 3), B), np.ones((2, 1, 3), B)):
        graph = graph_of([("Where", ["m", "x", "x"], "y", {})], {"m": mask}, (3,))
        if mask.shape == (1, 3):
            assert check_graph(graph)["y"].shape == (BATCH, 3)
        else:
            with pytest.raises(MalformedError, match="Where"):
                check_graph(graph)


def test_activations_are_needed_where_records_are():
    with pytest.raises(MalformedError, match="activation as input 0"):
        check_graph(graph_of([("Relu", ["c"], "y", {})], {"c": ones(3)}, (3,)))
    with pytest.raises(MalformedError, match="not bool"):
        check_graph(graph_of([("Greater", ["x", "x"], "b", {}), ("Relu", ["b"], "y", {})], {}, (3,)))


def test_gather_looks_up_rows_in_range():
    def looked_up(table, rows):
        nodes = [
            ("ArgMax", ["x"], "first", {"axis": 1, "keepdims": 0}),
            ("Gather", ["table", "first"], "index", {}),
            ("Gather", ["rows", "index"], "y", {}),
        ]
        return check_graph(graph_of(nodes, {"table": table, "rows": rows}, (4,)))

    types = looked_up(ints(0, 1, 1, 0), ones(2, 3))
    assert types["first"].bounds == (0, 3)
    assert types["index"].bounds == (0, 1)
    assert types["y"].shape == (BATCH, 3)
    assert types["y"].batched
    assert not types["rows"].batched
    for table in (ints(0, 1, 2, 0), ints(0, -1, 0, 0), ints(0, 1, 1)):
        with pytest.raises(MalformedError, match="reaches"):
            looked_up(table, ones(2, 3))
    with pytest.raises(MalformedError, match="numbers"):
        looked_up(ints(0, 1, 1, 0), np.ones((2, 3), B))


def test_gate_operators_need_their_opset():
    for opset in (11, 17):
        with pytest.raises(MalformedError, match="opset 18"):
            check_graph(graph_of([("Round", ["x"], "y", {})], {}, (3,), opset=opset))
    assert check_graph(graph_of([("Round", ["x"], "y", {})], {}, (3,), opset=18))["y"].kind == "float32"


def test_allowzero_needs_its_opset():
    nodes = [("Reshape", ["x", "s"], "y", {"allowzero": 1})]
    with pytest.raises(MalformedError, match="opset 14"):
        check_graph(graph_of(nodes, {"s": ints(-1, 3)}, (3,), opset=13))
    assert check_graph(graph_of(nodes, {"s": ints(-1, 3)}, (3,), opset=14))["y"].shape == (BATCH, 3)


@pytest.mark.parametrize(
    ("left", "right", "made"),
    [
        ((BATCH, 3), (3,), (BATCH, 3)),
        ((BATCH, 1, 3), (5, 3), (BATCH, 5, 3)),
        ((BATCH, 1), (BATCH, 4), (BATCH, 4)),
        ((BATCH, 3), (1, 1), (BATCH, 3)),
        ((BATCH, 3), (BATCH, 1, 3), None),
        ((BATCH, 3), (2, 1), None),
        ((3,), (3,), None),
        ((), (), ()),
    ],
)
def test_broadcasting_keeps_records_apart(left, right, made):
    assert broadcast(left, right) == made
    assert broadcast(right, left) == made


def test_shapes_of_the_gates_operators():
    nodes = [
        ("Unsqueeze", ["x", "a"], "row", {}),
        ("GreaterOrEqual", ["row", "low"], "over", {}),
        ("Cast", ["over"], "float", {"to": 1}),
        ("ReduceMin", ["float", "b"], "kept", {"keepdims": 1}),
        ("ReduceMax", ["kept", "b"], "y", {"keepdims": 0}),
    ]
    types = check_graph(graph_of(nodes, {"a": ints(1), "b": ints(2), "low": ones(3, 2)}, (2,)))
    assert types["row"].shape == (BATCH, 1, 2)
    assert types["float"].shape == (BATCH, 3, 2)
    assert types["kept"].shape == (BATCH, 3, 1)
    assert types["y"].shape == (BATCH, 3)


RELU = graph_of([("Relu", ["x"], "y", {})], {}, (3,))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (replace(RELU, initialisers={"c": ones(1), "d": ones(1)}), "2 constants"),
        (replace(RELU, initialisers={"c": ones(*[1] * 9)}), "a constant of shape"),
        (replace(RELU, nodes=(*RELU.nodes, *RELU.nodes)), "two tensors"),
        (replace(RELU, nodes=(replace(RELU.nodes[0], op="Round"),)), "Round.*not in the profile"),
        (replace(RELU, output="z"), "no node makes"),
        (replace(RELU, nodes=(replace(RELU.nodes[0], name="a" * 300),)), "256"),
        (replace(RELU, input_shape=(1,) * 9), "static"),
    ],
)
def test_graphs_built_by_hand_are_checked_as_well(graph, reason):
    with pytest.raises(MalformedError, match=reason):
        check_graph(graph, operators=BASE_OPERATORS, limits=Limits(initialisers=1))


def test_an_unsqueeze_may_not_add_too_many_axes():
    graph = graph_of([("Unsqueeze", ["x", "a"], "u", {}), ("Flatten", ["u"], "y", {})], {"a": ints(1)}, (3,))
    assert check_graph(graph)["y"].shape == (BATCH, 3)
    with pytest.raises(MalformedError, match="3 axes"):
        check_graph(graph, limits=Limits(rank=2))


def screened(*, change=None, words=2):
    """A small graph with a list of places, as a screen makes it; `change` swaps one node."""
    table = np.arange(8 * words).reshape(8, words)
    nodes = [
        make_node("Cast", ("x",), "cell0", to=7),
        make_node("Max", ("cell0", "low"), "cell1"),
        make_node("Min", ("cell1", "high"), "cell"),
        make_node("Gather", ("table", "cell"), "bits", axis=0),
        make_node("Split", ("bits",), "left", "right", axis=1, num_outputs=2),
        make_node("BitwiseAnd", ("left", "right"), "both"),
        make_node("NonZero", ("both",), "places"),
        make_node("Gather", ("places", "zero"), "record", axis=0),
        make_node("Gather", ("places", "two"), "word", axis=0),
        make_node("Gather", ("numbers", "word"), "number", axis=0),
        make_node("ReduceMin", ("cell", "axis"), "some", keepdims=0),
        make_node("ScatterElements", ("some", "record", "number"), "first", axis=0, reduction="min"),
        make_node("Gather", ("rows", "first"), "y", axis=0),
    ]
    constants = {
        "low": ints(0, 4), "high": ints(3, 7), "table": table, "zero": np.array(0), "two": np.array(2),
        "numbers": np.arange(words), "axis": ints(1), "rows": ones(8, 3),
    }  # fmt: skip
    if change is not None:
        nodes = [change if node.outputs[0] == change.outputs[0] else node for node in nodes]
    used = {name for node in nodes for name in node.inputs}
    return Graph(
        opset=18, input="x", input_shape=(2,), output="y", classes=3, nodes=tuple(nodes),
        initialisers={name: array for name, array in constants.items() if name in used},
    )  # fmt: skip


def test_lists_of_places_keep_records_apart():
    types = check_graph(screened())
    assert types["record"].records
    # A size of its own that only lists of the same places share, and no batch's.
    assert types["record"].shape == types["word"].shape != types["first"].shape
    assert types["record"].shape[0] < 0
    assert types["word"].bounds == (0, 1)
    assert types["first"].shape == (-1,)
    assert types["first"].bounds == (0, 7)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (make_node("Gather", ("numbers", "cell"), "number", axis=0), "reaches"),
        (make_node("Gather", ("numbers", "record"), "number", axis=0), "takes records from an activation"),
        (make_node("Gather", ("places", "axis"), "record", axis=0), "takes one row of a list"),
        (make_node("ScatterElements", ("some", "word", "number"), "first", axis=0, reduction="min"), "of records"),
        (make_node("ScatterElements", ("cell", "record", "number"), "first", axis=0, reduction="min"), "one int64"),
        (make_node("Split", ("both0",), "left", "right", axis=1, num_outputs=2), "before anything makes it"),
        (make_node("Gather", ("rows", "record"), "y", axis=0), "takes records from an activation"),
        (make_node("Min", ("cell0", "high"), "cell"), "reaches"),
        (make_node("Add", ("both", "left"), "places"), "needs float32"),
        (make_node("Less", ("word", "cell"), "number"), "record by record"),
    ],
)
def test_lists_of_places_that_mix_records_are_refused(change, reason):
    with pytest.raises(MalformedError, match=reason):
        check_graph(screened(change=change))


def test_a_split_needs_two_names_and_an_even_size():
    node = Node(
        name="left", op="Split", inputs=("bits",), outputs=("left", "left"), attributes={"axis": 1, "num_outputs": 2}
    )
    with pytest.raises(MalformedError, match="two tensors"):
        check_graph(screened(change=node))
    with pytest.raises(MalformedError, match="1 outputs"):
        check_graph(screened(change=make_node("Split", ("bits",), "left", axis=1, num_outputs=2)))
    with pytest.raises(MalformedError, match="even size"):
        check_graph(odd())


def odd():
    nodes = (make_node("Split", ("x",), "y", "z", axis=1, num_outputs=2),)
    return Graph(opset=18, input="x", input_shape=(3,), output="y", classes=3, nodes=nodes, initialisers={})
