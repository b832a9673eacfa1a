"""Everything the profile demands of a whole graph, in one pass.

Proves: in a graph that `check_graph` accepts, every node can run for any batch size, every axis but
the first is a known number within the limits, every index that a Gather can see is in range, every
name stands for one thing, every node contributes to the output and every constant is finite and used.
Assumes nothing about where the graph comes from. Does not look at what the numbers mean. Source: SPEC 7.4.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from protocol.errors import MalformedError, Schema, TooLarge, UnsupportedVersion
from protocol.model.branches import KEPT, check_branches
from protocol.model.graph import BATCH, Graph, Limits, Node, check_name
from protocol.model.operators import (
    ALLOWZERO_OPSET,
    GATE_OPERATORS,
    GATE_OPSET,
    MAX_OPSET,
    MIN_OPSET,
    PATCHED,
    normalise,
    outputs_of,
    own_slots,
)
from protocol.model.shapes import node_type
from protocol.model.tensor_types import TensorType, constant_type, product


def _check_constants(graph: Graph, limits: Limits) -> None:
    if len(graph.initialisers) > limits.initialisers:
        raise TooLarge(f"{len(graph.initialisers)} constants, at most {limits.initialisers}")
    for name, array in graph.initialisers.items():
        check_name(name, limits)
        if array.dtype not in (np.float32, np.int64, np.bool_):
            raise Schema(f"{array.dtype} is not an element type of the profile", where=name)
        if array.ndim > limits.rank or array.size == 0:
            raise Schema(f"a constant of shape {array.shape}", where=name)
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise Schema("a constant holds NaN or infinity", where=name)


def _check_frame(graph: Graph, limits: Limits) -> None:
    if not MIN_OPSET <= graph.opset <= MAX_OPSET:
        raise UnsupportedVersion(f"opset {graph.opset}, only {MIN_OPSET} to {MAX_OPSET} are read")
    if not 1 <= len(graph.nodes) <= limits.nodes:
        raise TooLarge(f"{len(graph.nodes)} nodes, at least 1 and at most {limits.nodes}")
    check_name(graph.input, limits)
    if not 1 <= len(graph.input_shape) < limits.rank or min(graph.input_shape) < 1:
        raise Schema(f"the input shape {graph.input_shape[:8]} is not static", where=graph.input)
    if product(graph.input_shape) > limits.elements:
        raise TooLarge(f"more than {limits.elements} values per record", where=graph.input)
    if graph.input in graph.initialisers:
        raise Schema("a name stands for the input and for a constant", where=graph.input)


def _check_node(node: Node, operators: frozenset[str], opset: int, limits: Limits) -> None:
    if node.op not in operators:
        raise Schema(f"operator {node.op[:40]!r} is not in the profile")
    if node.op in GATE_OPERATORS and opset < GATE_OPSET:
        raise UnsupportedVersion(f"operator {node.op} is read from opset {GATE_OPSET} on, this is {opset}")
    if node.attributes.get("allowzero", 0) != 0 and opset < ALLOWZERO_OPSET:
        raise UnsupportedVersion(f"operator {node.op} has allowzero from opset {ALLOWZERO_OPSET} on, this is {opset}")
    if len(node.outputs) != outputs_of(node.op):
        raise Schema(f"operator {node.op} with {len(node.outputs)} outputs is not in the profile")
    for output in node.outputs:
        check_name(output + KEPT if node.op == "If" else output, limits)
    if node.op == "If" and node.name != node.outputs[0]:
        raise Schema("operator If with a name that is not its output's", where=node.outputs[0])
    if node.name:
        check_name(node.name, limits)
    if normalise(node.op, node.attributes, where=node.outputs[0]) != node.attributes:
        raise Schema(f"operator {node.op} lacks attributes that have a default", where=node.outputs[0])


def check_graph(
    graph: Graph, *, operators: frozenset[str] = PATCHED, limits: Limits | None = None
) -> Mapping[str, TensorType]:
    """Check everything that the profile demands of a graph.

    Args:
        graph: from a file or built by hand.
        operators: those that may occur.
        limits: what it may cost; the default limits if None.

    Returns:
        The type of every tensor: input, constants, and what each node makes, in that order.

    Raises:
        MalformedError: naming the tensor or operator at fault.
    """
    limits = Limits() if limits is None else limits
    _check_frame(graph, limits)
    _check_constants(graph, limits)
    types = {graph.input: TensorType(kind="float32", shape=(BATCH, *graph.input_shape))}
    types |= {name: constant_type(array) for name, array in graph.initialisers.items()}
    names: set[str] = set()
    for node in graph.nodes:
        _check_node(node, operators, graph.opset, limits)
        if any(output in types for output in node.outputs) or len(set(node.outputs)) < len(node.outputs):
            raise Schema("a name stands for two tensors", where=node.outputs[0])
        if node.name and node.name in names:
            raise Schema("a name stands for two nodes", where=node.name)
        names.add(node.name)
        types |= dict.fromkeys(node.outputs, node_type(node, types, graph.initialisers, limits))
    check_branches(graph.nodes)
    _check_output(graph, types)
    return types


def _check_output(graph: Graph, types: Mapping[str, TensorType]) -> None:
    if graph.output not in {output for node in graph.nodes for output in node.outputs}:
        raise Schema("no node makes the output", where=graph.output[:80])
    made = types[graph.output]
    if made.kind != "float32" or made.shape != (BATCH, graph.classes):
        raise Schema(f"the output has the shape {made.shape}, not [N, {graph.classes}]", where=graph.output)
    # That something needs the input follows: every operator takes an activation, and only the input is one at first.
    needed = {graph.output}
    for node in reversed(graph.nodes):
        for output in node.outputs:
            if output not in needed:
                raise MalformedError("this node does not contribute to the output", where=output)
        needed.update(node.inputs)
    uses = Counter(name for node in graph.nodes for name in node.inputs)
    for node in graph.nodes:
        if shared := [slot for slot in own_slots(node.op) if slot < len(node.inputs) and uses[node.inputs[slot]] > 1]:
            raise Schema("a bias or normalisation constant is used twice", where=node.inputs[shared[0]])
    if unused := sorted(graph.initialisers.keys() - needed):
        raise Schema("no node uses this constant", where=unused[0])
