"""From the bytes of an ONNX file to plain nodes and arrays; nothing is executed or resolved.

Proves: the file is one self-contained graph of the ONNX default domain: no external data, sparse or
quantised tensors, functions, training information, subgraphs but those of an `If`, or bytes that no field accounts for;
every constant is float32, int64 or bool with exactly as many bytes as its shape needs. Assumes
nothing about the file. Does not check operators, shapes or names; see `shapes`. The onnx package's
checker, shape inference and loaders (which open other files) are not used. Source: SPEC 7.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from jaxtyping import Int64

from protocol.errors import MalformedError, NonCanonical, Schema, TooLarge, UnsupportedVersion
from protocol.model.branches import KEPT
from protocol.model.graph import Limits, Node, check_name
from protocol.model.wire import check_wire

_Tensor = onnx.TensorProto
_ELEMENTS: Mapping[int, tuple[type[np.generic], str]] = {
    _Tensor.FLOAT: (np.float32, "float_data"),
    _Tensor.INT64: (np.int64, "int64_data"),
    _Tensor.BOOL: (np.bool_, "int32_data"),
}
_BLOCK = 1 << 20
_DATA_FIELDS = frozenset({"raw_data", "float_data", "int32_data", "int64_data"})
_IR_VERSIONS = range(4, 15)
"""Before 4, every constant also had to be an input, which whoever runs the model may replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawModel:
    """What a file says, before anybody asked whether it makes sense.

    Args:
        opset: version of the default domain.
        input: name of the only input.
        input_shape: its declared axes, the batch included; None where an axis is symbolic.
        output: name of the only output.
        output_shape: likewise; None if the file does not say.
        nodes: with the attributes as written; `Constant` nodes already moved to `constants`.
        constants: initialisers and the values of `Constant` nodes.
        folded: names of those constants that were `Constant` nodes.
        ifs: each If with its subgraphs, as the file has it, without notes and with fields in order.
    """

    opset: int
    input: str
    input_shape: tuple[int | None, ...]
    output: str
    output_shape: tuple[int | None, ...] | None
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    folded: frozenset[str]
    ifs: tuple[bytes, ...] = ()


def _only(message: Any, allowed: frozenset[str], what: str) -> None:
    for field, _ in message.ListFields():
        if field.name not in allowed:
            raise Schema(f"{what} with {field.name} is not in the profile")


_MODEL = frozenset({"ir_version", "opset_import", "graph"})
_GRAPH = frozenset({"node", "name", "initializer", "input", "output"})
_NODE = frozenset({"input", "output", "name", "op_type", "domain", "attribute"})
_TENSOR = frozenset({"dims", "data_type", "name", "data_location"}) | _DATA_FIELDS
_VALUE_FIELDS = {
    onnx.AttributeProto.FLOAT: "f",
    onnx.AttributeProto.INT: "i",
    onnx.AttributeProto.STRING: "s",
    onnx.AttributeProto.FLOATS: "floats",
    onnx.AttributeProto.INTS: "ints",
    onnx.AttributeProto.TENSOR: "t",
}


def _drop_notes(model: Any) -> None:
    """Remove everything that is only for people: it is counted and never read."""
    for name in ("doc_string", "producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(name)
    graph = model.graph
    for name in ("doc_string", "metadata_props", "value_info"):
        graph.ClearField(name)
    for holders in (graph.node, graph.initializer, graph.input, graph.output):
        for holder in holders:
            holder.ClearField("doc_string")
            holder.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            attribute.ClearField("doc_string")


def _histogram(data: bytes) -> Int64[np.ndarray, "256"]:
    """How often each byte occurs, whatever the order that the fields come in."""
    counts = np.zeros(256, np.int64)
    for start in range(0, len(data), _BLOCK):  # counting makes an int64 of each byte
        counts += np.bincount(np.frombuffer(data, np.uint8, min(_BLOCK, len(data) - start), start), minlength=256)
    return counts


def _message(data: bytes, limits: Limits) -> Any:
    if len(data) > limits.size:
        raise TooLarge(f"{len(data)} bytes, at most {limits.size} are accepted")
    check_wire(data, structure=limits.structure)
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:  # also for nesting over the library's limit of 100
        raise MalformedError("not an ONNX model: the protobuf message does not parse") from None
    # Unknown fields, a second value for a field that has one, over-long numbers: a place to hide something.
    model.DiscardUnknownFields()
    if model.ByteSize() != len(data):
        raise NonCanonical(f"{len(data) - model.ByteSize()} bytes that no field of an ONNX model accounts for")
    # A list of numbers may come packed, and be longer when it is written: room for as much that nobody reads.
    if (_histogram(data) != _histogram(model.SerializeToString())).any():
        raise NonCanonical("bytes that no field of an ONNX model accounts for, as many as a packed list saves")
    _drop_notes(model)
    if (notes := len(data) - model.ByteSize()) > limits.notes:
        raise TooLarge(f"{notes} bytes of documentation and metadata, at most {limits.notes} are accepted")
    if len(model.graph.node) > 2 * limits.nodes or len(model.graph.initializer) > limits.initialisers:
        raise TooLarge(f"{len(model.graph.node)} nodes and {len(model.graph.initializer)} constants")
    return model


def _array(tensor: Any, limits: Limits) -> np.ndarray:
    if tensor.data_location != _Tensor.DEFAULT or tensor.external_data:
        raise Schema(
            "data outside the file (external data) is not in the profile; export with the weights inside"
            " (torch.onnx.export: external_data=False)"
        )
    _only(tensor, _TENSOR, "a tensor")
    if tensor.data_type not in _ELEMENTS:
        raise Schema(f"element type {tensor.data_type} of ONNX is not in the profile (float32, int64, bool are)")
    kind, typed_field = _ELEMENTS[tensor.data_type]
    shape = tuple(tensor.dims)
    if len(shape) > limits.rank or min(shape, default=1) < 0:
        raise Schema(f"a constant of shape {shape[:9]}")
    count = 1
    for size in shape:  # in Python's integers, which do not wrap around
        count *= size
    width = np.dtype(kind).itemsize
    if tensor.HasField("raw_data"):
        raw, used = tensor.raw_data, "raw_data"
        if len(raw) != count * width:
            raise Schema(f"{len(raw)} bytes for a constant of shape {shape}")
        flat = np.frombuffer(raw, dtype=np.uint8 if kind is np.bool_ else np.dtype(kind).newbyteorder("<"))
    else:
        values, used = getattr(tensor, typed_field), typed_field
        if len(values) != count:
            raise Schema(f"{len(values)} values for a constant of shape {shape}")
        flat = np.array(values, dtype=np.int64 if kind is np.bool_ else kind)
    if any(getattr(tensor, other) for other in _DATA_FIELDS - {used}):
        raise Schema("a tensor with two sets of values")
    if kind is np.bool_ and flat.size and (flat.min() < 0 or flat.max() > 1):
        raise Schema("a boolean that is neither 0 nor 1")
    return flat.astype(kind).reshape(shape)


def _attribute(attribute: Any, op: str) -> Any:
    field = _VALUE_FIELDS.get(attribute.type)
    if field is None:
        raise Schema(
            f"operator {op}: an attribute of ONNX type {attribute.type} (a subgraph, say) is not in the profile"
        )
    _only(attribute, frozenset({"name", "type", field}), f"operator {op}: an attribute")
    value = getattr(attribute, field)
    if field == "s":
        return value.decode("utf-8")
    return tuple(value) if field in ("floats", "ints") else value


def _node(node: Any, limits: Limits) -> tuple[Node, Any]:
    """The node, and the tensor it holds if it is a Constant."""
    op = str(node.op_type)
    if node.domain not in ("", "ai.onnx"):
        raise Schema(f"operator {op[:40]!r} of the domain {node.domain[:40]!r} is not in the profile")
    _only(node, _NODE, f"operator {op[:40]}")
    given: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.name in given:
            raise Schema(f"operator {op[:40]} has the attribute {attribute.name[:40]!r} twice")
        given[str(attribute.name)] = _attribute(attribute, op[:40])
    tensor = given.pop("value", None) if op == "Constant" else None
    if any(isinstance(value, _Tensor) for value in given.values()):
        raise Schema(f"operator {op[:40]} with a tensor attribute is not in the profile")
    inputs = tuple(node.input)
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    outputs = tuple(node.output)
    while len(outputs) > 1 and not outputs[-1]:
        outputs = outputs[:-1]
    for name in (*filter(None, inputs), *outputs, *filter(None, [node.name])):
        check_name(name, limits)
    return Node(name=str(node.name), op=op, inputs=inputs, outputs=outputs, attributes=given), tensor


_IF_ATTRIBUTES = ("else_branch", "then_branch")
_SUBGRAPH = frozenset({"node", "name", "output"})


def _subgraph(graph: Any, name: str, limits: Limits) -> tuple[tuple[Node, ...], str]:
    """Nodes of a subgraph, and its output's name."""
    what = f"operator If: the subgraph {name!r}"
    _only(graph, _SUBGRAPH, what)
    if graph.name != name or len(graph.output) != 1 or not 0 < len(graph.node) <= limits.nodes:
        raise Schema(f"{what} has another name, or not one output and some nodes")
    output, shape = _value(graph.output[0], what)
    if shape is not None:
        raise Schema(f"{what} says of what shape its output is")
    nodes = []
    for proto in graph.node:
        node, tensor = _node(proto, limits)
        if node.op in ("If", "Constant") or tensor is not None:
            raise Schema(f"operator {node.op} inside a subgraph is not in the profile")
        nodes.append(node)
    if nodes[-1].outputs != (output,):
        raise Schema(f"{what} does not end with what makes its output")
    return tuple(nodes), output


def _branch(proto: Any, before: list[Node], limits: Limits) -> tuple[Node, ...]:
    """A branch in a row: its nodes, and an If that has what they make and what is kept without them as inputs."""
    _only(proto, _NODE, "operator If")
    if proto.domain not in ("", "ai.onnx"):
        raise Schema("operator If of another domain is not in the profile")
    given = {str(attribute.name): attribute for attribute in proto.attribute}
    if tuple(given) != _IF_ATTRIBUTES or len(proto.attribute) != len(_IF_ATTRIBUTES):
        raise Schema("operator 'If' is not in the profile without two subgraphs, else_branch and then_branch")
    for attribute in given.values():
        _only(attribute, frozenset({"name", "type", "g"}), "operator If: an attribute")
        if attribute.type != onnx.AttributeProto.GRAPH:
            raise Schema("operator If with an attribute that is no subgraph is not in the profile")
    if len(proto.input) != 1 or len(proto.output) != 1:
        raise Schema("operator If with more than one input and one output is not in the profile")
    condition, made = str(proto.input[0]), str(proto.output[0])
    if not before or before[-1].outputs != (condition,):
        raise Schema("operator If that does not follow what makes its condition", where=made[:80])
    otherwise, copy = _subgraph(given["else_branch"].g, "else", limits)
    then, chosen = _subgraph(given["then_branch"].g, "then", limits)
    plain = Node(name=copy, op="Identity", inputs=otherwise[0].inputs[:1], outputs=(copy,))
    if otherwise != (plain,) or copy != made + KEPT or not plain.inputs:
        raise Schema("operator If that does more than keep a value without its branch", where=made[:80])
    for name in (condition, made):
        check_name(name, limits)
    if str(proto.name) != made:
        raise Schema("operator If with a name that is not its output's", where=made[:80])
    return (*then, Node(name=made, op="If", inputs=(condition, chosen, plain.inputs[0]), outputs=(made,)))


_CONSTANT_KINDS: Mapping[str, type[np.generic]] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def _constant(node: Node, tensor: Any, limits: Limits) -> np.ndarray:
    if node.inputs or len(node.outputs) != 1 or (tensor is None) == (not node.attributes):
        raise Schema("operator Constant holds no value, or several")
    if isinstance(tensor, _Tensor):
        return _array(tensor, limits)
    for name, value in node.attributes.items():
        if len(node.attributes) == 1 and name in _CONSTANT_KINDS:
            return np.array(value, dtype=_CONSTANT_KINDS[name])
    raise Schema("operator Constant with a value of this kind is not in the profile")


def _value(value: Any, what: str) -> tuple[str, tuple[int | None, ...] | None]:
    _only(value, frozenset({"name", "type"}), what)
    _only(value.type, frozenset({"tensor_type"}), what)
    tensor = value.type.tensor_type
    if tensor.elem_type != _Tensor.FLOAT:
        raise Schema(f"{what} has the ONNX element type {tensor.elem_type}, only float32 (1) is in the profile")
    if not tensor.HasField("shape"):
        return str(value.name), None
    sizes: list[int | None] = []
    for axis in tensor.shape.dim:
        _only(axis, frozenset({"dim_value", "dim_param"}), what)
        if len(axis.dim_param) > Limits().name:
            raise TooLarge(f"{what} has an axis with a name of {len(axis.dim_param)} characters")
        sizes.append(axis.dim_value if axis.HasField("dim_value") else None)
    return str(value.name), tuple(sizes)


def decode(data: bytes, limits: Limits) -> RawModel:
    """Read an ONNX file.

    Raises:
        MalformedError: with the reason; no other exception leaves this function.
    """
    model = _message(data, limits)
    try:
        return _model(model, limits)
    except UnicodeDecodeError:
        raise MalformedError("a name or text that is not UTF-8") from None


def _model(model: Any, limits: Limits) -> RawModel:
    _only(model, _MODEL, "a model")
    if model.ir_version not in _IR_VERSIONS:
        known = f"{_IR_VERSIONS.start} to {_IR_VERSIONS.stop - 1}"
        raise UnsupportedVersion(f"ONNX file format (IR) version {model.ir_version}, only {known} are read")
    if len(model.opset_import) != 1 or model.opset_import[0].domain not in ("", "ai.onnx"):
        raise Schema("operators from other domains than ONNX's own are not in the profile")
    graph = model.graph
    constants: dict[str, np.ndarray] = {}
    nodes: list[Node] = []
    ifs: list[bytes] = []
    folded: set[str] = set()
    for proto in graph.node:  # before everything else, so that a refusal names the operator
        if proto.op_type == "If":
            nodes += _branch(proto, nodes, limits)
            ifs.append(bytes(proto.SerializeToString(deterministic=True)))
            if len(nodes) > 2 * limits.nodes:  # those of subgraphs were not counted with the graph's own
                raise TooLarge(f"more than {2 * limits.nodes} nodes, with those of subgraphs")
            continue
        node, tensor = _node(proto, limits)
        if node.op != "Constant":
            nodes.append(node)
            continue
        value = _constant(node, tensor, limits)
        constants[node.outputs[0]] = value
        if len(folded) == len(constants):
            raise Schema("a name stands for two constants", where=node.outputs[0])
        folded.add(node.outputs[0])
    _only(graph, _GRAPH, "a graph")
    if len(graph.name) > limits.name:
        raise TooLarge(f"the graph has a name of {len(graph.name)} characters")
    for tensor in graph.initializer:
        check_name(tensor.name, limits)
        if tensor.name in constants:
            raise Schema("a name stands for two constants", where=tensor.name)
        try:
            constants[str(tensor.name)] = _array(tensor, limits)
        except MalformedError as error:
            error.at(tensor.name)
            raise
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise Schema(f"{len(graph.input)} inputs and {len(graph.output)} outputs, one of each is in the profile")
    name, shape = _value(graph.input[0], "the input")
    output, output_shape = _value(graph.output[0], "the output")
    check_name(name, limits)
    check_name(output, limits)
    if name in constants:
        raise Schema("a name stands for the input and for a constant", where=name)
    if shape is None or any(size is None or size < 1 for size in shape[1:]) or len(shape) < 2:
        raise Schema(f"the input's axes {shape} are not [N, sizes...]", where=name)
    return RawModel(
        opset=model.opset_import[0].version,
        input=name,
        input_shape=shape,
        output=output,
        output_shape=output_shape,
        nodes=tuple(nodes),
        constants=constants,
        folded=frozenset(folded),
        ifs=tuple(ifs),
    )
