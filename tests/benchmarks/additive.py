"""Additive support networks as ONNX graphs: what a patch costs in the published form, to compare with.

    h(x) = relu(p(x) + K (g(x) - 1)) - relu(-p(x) + K (g(x) - 1)),
    g(x) = relu(sum_i [relu(s_i(x) + 1) - relu(s_i(x))] - m + 1),  s_i(x) = slope * (b_i - a_i x)

for the linear region a_i x <= b_i of a record, m half-spaces, and p(x) = row - (J x + c), so that base + h is the row
on the region; 1 / slope beyond any face, h is 0. Summed: base + sum of all h. Chained: both halves of h joined by one
maximum after the other, which gives the same where no two regions meet and does not add up where they do.
Neither exact nor inert in float32, which a selection is (SPEC 7.9): this is about time. Source: REASSURE (arXiv 2110.07122), PRUNE.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from owner.gates.linear_region import LinearRegion
from protocol.model.profile import Graph, serialise

SLOPE = 100.0
MAX_BYTES = 2**31 - 1
"""Of one ONNX file: a message of protocol buffers holds no more."""


def size_of(halves: int, features: int, items: int) -> int:
    """Bytes of the half-spaces of so many items in float32."""
    return 4 * halves * features * items


def additive(base: Graph, regions: list[LinearRegion], rows: np.ndarray, *, chained: bool) -> bytes:
    """The base with one support network for each region, which makes the output there the region's row.

    Args:
        base: of flat inputs between 0 and 1.
        regions: one for each item; all with the same number of half-spaces.
        rows: outputs, [item, class].
        chained: joined by a maximum one after the other, instead of a sum.
    """
    model = onnx.load_from_string(serialise(base))
    graph, items, classes = model.graph, len(regions), base.classes
    halves = len(regions[0].bounds)

    def constant(name: str, array: np.ndarray) -> str:
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, kind), f"add/{name}"))
        return f"add/{name}"

    def node(op: str, inputs: list[str], name: str, **given: object) -> str:
        graph.node.append(helper.make_node(op, inputs, [f"add/{name}"], **given))
        return f"add/{name}"

    weights = np.concatenate([-SLOPE * region.weights for region in regions])
    bounds = np.concatenate([SLOPE * region.bounds for region in regions])
    slack = node("Gemm", [base.input, constant("a", weights.T), constant("b", bounds)], "slack")
    raised = node("Relu", [node("Add", [slack, constant("one", np.array(1.0))], "slack1")], "raised")
    inside = node("Sub", [raised, node("Relu", [slack], "lowered")], "inside")
    inside = node("Reshape", [inside, constant("halves", np.array([0, items, halves]))], "inside3")
    total = node("ReduceSum", [inside, constant("axis2", np.array([2]))], "total", keepdims=1)
    gate = node("Relu", [node("Add", [total, constant("m", np.array(1.0 - halves))], "total1")], "gate")
    offsets = rows - np.stack([region.constant for region in regions])
    jacobians = np.concatenate([-region.jacobian for region in regions])
    # |p| over inputs between 0 and 1.
    k = float(max((np.abs(r.jacobian).sum(axis=1) + np.abs(d)).max() for r, d in zip(regions, offsets, strict=True)))
    p = node("Gemm", [base.input, constant("j", jacobians.T), constant("d", offsets.ravel())], "p")
    p = node("Reshape", [p, constant("classes", np.array([0, items, classes]))], "p3")
    closed = node(
        "Add", [node("Mul", [gate, constant("k", np.array(k))], "kg"), constant("-k", np.array(-k))], "closed"
    )
    plus = node("Relu", [node("Add", [closed, p], "plus0")], "plus")
    minus = node("Relu", [node("Sub", [closed, p], "minus0")], "minus")
    if chained:
        plus, minus = _chain(graph, plus, items), _chain(graph, minus, items)
        patch = node("Squeeze", [node("Sub", [plus, minus], "both"), constant("axis1", np.array([1]))], "patch")
    else:
        each = node("Sub", [plus, minus], "each")
        patch = node("ReduceSum", [each, constant("axis1", np.array([1]))], "patch", keepdims=0)
    last = node("Add", [base.output, patch], "output")
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", classes]))
    return model.SerializeToString()


def _chain(graph: onnx.GraphProto, whole: str, items: int) -> str:
    parts = [f"{whole}/{item}" for item in range(items)]
    if items == 1:
        return whole
    graph.node.append(helper.make_node("Split", [whole], parts, axis=1, num_outputs=items))
    last = parts[0]
    for item in range(1, items):
        graph.node.append(helper.make_node("Max", [last, parts[item]], [f"{whole}/max{item}"]))
        last = f"{whole}/max{item}"
    return last
