"""From a checked graph to the bytes of an ONNX file: equal graphs give equal bytes.

Proves nothing about the graph; see `check`. Writes no documentation, metadata or producer, no default
attributes, and constants in the order of their names. Source: SPEC 7.2.
"""

from collections.abc import Mapping
from typing import Any

import onnx

from protocol.model.branches import KEPT, branches
from protocol.model.graph import Attribute, Graph, Node
from protocol.model.operators import written

_IR_OF_OPSET: Mapping[int, int] = {19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12}
"""File format version that goes with an opset; 8 below 19."""
_NUMBERS: Mapping[str, int] = {
    "float32": onnx.TensorProto.FLOAT,
    "int64": onnx.TensorProto.INT64,
    "bool": onnx.TensorProto.BOOL,
}


def _write_attribute(proto: Any, name: str, value: Attribute) -> None:
    attribute = proto.attribute.add(name=name)
    if isinstance(value, tuple):
        attribute.type = onnx.AttributeProto.INTS
        attribute.ints.extend(value)
    elif isinstance(value, float):
        attribute.type = onnx.AttributeProto.FLOAT
        attribute.f = value
    elif isinstance(value, str):
        attribute.type = onnx.AttributeProto.STRING
        attribute.s = value.encode()
    else:
        attribute.type = onnx.AttributeProto.INT
        attribute.i = value


def _write_value(proto: Any, name: str, shape: tuple[int, ...]) -> None:
    proto.name = name
    proto.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    proto.type.tensor_type.shape.dim.add(dim_param="N")
    for size in shape:
        proto.type.tensor_type.shape.dim.add(dim_value=size)


def _write_node(graph: Any, node: Node) -> None:
    proto = graph.node.add(name=node.name, op_type=node.op, input=node.inputs, output=node.outputs)
    for name, value in written(node.op, node.attributes).items():
        _write_attribute(proto, name, value)


def _write_branch(graph: Any, nodes: tuple[Node, ...], node: Node) -> None:
    condition, chosen, kept = node.inputs
    proto = graph.node.add(name=node.name, op_type=node.op, input=(condition,), output=node.outputs)
    otherwise, then = (
        proto.attribute.add(name=name, type=onnx.AttributeProto.GRAPH).g for name in ("else_branch", "then_branch")
    )
    otherwise.name, then.name = "else", "then"
    copy = node.outputs[0] + KEPT
    otherwise.node.add(name=copy, op_type="Identity", input=(kept,), output=(copy,))
    for inner in nodes:
        _write_node(then, inner)
    for subgraph, name in ((otherwise, copy), (then, chosen)):
        subgraph.output.add(name=name).type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def encode_branches(graph: Graph) -> tuple[bytes, ...]:
    """Each If of a graph that passes `check_graph`, with its subgraphs: what `encode` writes for it."""
    found = []
    for branch in branches(graph.nodes):
        alone = onnx.GraphProto()
        _write_branch(alone, graph.nodes[branch.start + 1 : branch.end], graph.nodes[branch.end])
        found.append(bytes(alone.node[0].SerializeToString(deterministic=True)))
    return tuple(found)


def encode(graph: Graph) -> bytes:
    """Write a graph that passes `check_graph`."""
    model = onnx.ModelProto(ir_version=_IR_OF_OPSET.get(graph.opset, 8))
    model.opset_import.add(version=graph.opset)
    model.graph.name = "graph"
    at = 0
    for branch in branches(graph.nodes):
        for node in graph.nodes[at : branch.start + 1]:
            _write_node(model.graph, node)
        _write_branch(model.graph, graph.nodes[branch.start + 1 : branch.end], graph.nodes[branch.end])
        at = branch.end + 1
    for node in graph.nodes[at:]:
        _write_node(model.graph, node)
    for name in sorted(graph.initialisers):
        array = graph.initialisers[name]
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        model.graph.initializer.add(
            name=name, data_type=_NUMBERS[str(array.dtype)], dims=array.shape, raw_data=little.tobytes()
        )
    _write_value(model.graph.input.add(), graph.input, graph.input_shape)
    _write_value(model.graph.output.add(), graph.output, (graph.classes,))
    return bytes(model.SerializeToString(deterministic=True))
