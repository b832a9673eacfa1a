"""Model files: what is read, what is refused and how it is named, and that writing and reading agree."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, StringStringEntryProto, TensorProto, helper, numpy_helper

from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge, UnsupportedVersion
from protocol.model.profile import DEPLOYED, Graph, Limits, graph_digest, make_node, parse, serialise
from tests.protocol.model.samples import changed, gemm_proto, graphs, perceptron, proto

GOOD = gemm_proto().SerializeToString()
node = helper.make_node


@settings(deadline=None)
@given(graphs())
def test_reading_what_was_written_gives_the_same_graph(graph):
    data = serialise(graph)
    again = parse(data, limits=DEPLOYED)
    assert again == graph
    assert serialise(again) == data
    assert graph_digest(again) == graph_digest(graph)
    onnx.checker.check_model(onnx.ModelProto.FromString(data), full_check=True)


def test_graphs_are_compared_bit_by_bit():
    graph = perceptron()
    for change in (
        {"c1": -np.zeros(5, np.float32)},
        {"c1": np.zeros((1, 5), np.float32)},
        {"c9": np.zeros(5, np.float32)},
    ):
        zeros = replace(graph, initialisers={**graph.initialisers, "c1": np.zeros(5, np.float32)})
        assert zeros != replace(zeros, initialisers={**zeros.initialisers, **change})
        assert zeros != graph
    assert graph == perceptron()
    assert hash(graph) == hash(perceptron())
    assert graph != replace(graph, opset=19)
    assert graph != "graph"
    assert hash(graph.nodes[0]) == hash(perceptron().nodes[0])


def test_graphs_do_not_change():
    graph = perceptron()
    with pytest.raises(ValueError, match="read-only"):
        graph.initialisers["c0"][0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        graph.opset = 3


def test_a_file_of_somebody_else_is_read():
    graph = parse(GOOD)
    assert (graph.input_shape, graph.classes, graph.opset, graph.features) == ((4,), 3, 20, 4)
    assert graph.nodes[0].attributes == {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    assert graph.initialisers["w"].tolist() == np.ones((4, 3)).tolist()


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_graph_or_malformed(data):
    with pytest.raises(MalformedError):  # so few bytes hold no model
        parse(data)


@settings(deadline=None, max_examples=1000)
@given(st.sampled_from([GOOD, serialise(perceptron())]), st.data())
def test_a_changed_file_gives_a_graph_or_malformed(data, draw):
    changed_data = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        place = draw.draw(st.integers(0, len(changed_data) - 1))
        match draw.draw(st.sampled_from(["flip", "cut", "insert", "delete"])):
            case "flip":
                changed_data[place] = draw.draw(st.integers(0, 255))
            case "cut":
                changed_data = changed_data[: place + 1]
            case "insert":
                changed_data[place:place] = draw.draw(st.binary(min_size=1, max_size=4))
            case "delete":
                del changed_data[place : place + draw.draw(st.integers(1, 4))]
        if not changed_data:
            break
    try:
        graph = parse(bytes(changed_data))
    except MalformedError as error:
        reason = str(error)
    else:
        reason = ""
        assert parse(serialise(graph)) == graph
    assert "\n" not in reason


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def only_claims_external(model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def quietly_external(model):
    model.graph.initializer[0].external_data.add(key="location", value="w.bin")


def function(model):
    model.functions.add(name="f", domain="custom")


def training(model):
    model.training_info.add()


def metadata(model):
    model.metadata_props.add(key="k", value="v")


def sparse(model):
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    model.graph.sparse_initializer.add(values=values)


def quantisation(model):
    model.graph.quantization_annotation.add(tensor_name="w")


def custom_domain(model):
    model.opset_import.add(domain="com.microsoft", version=1)


def no_opset(model):
    del model.opset_import[:]


def not_a_number(model):
    model.graph.initializer[0].raw_data = np.full((4, 3), np.nan, np.float32).tobytes()


def infinite(model):
    model.graph.initializer[0].raw_data = np.full((4, 3), np.inf, np.float32).tobytes()


def duplicate_constant(model):
    model.graph.initializer.append(model.graph.initializer[0])


def duplicate_constant_node(model):
    constant = node("Constant", [], ["w"], value_float=1.0)
    model.graph.node.insert(0, constant)


def two_constant_nodes(model):
    constant = node("Constant", [], ["k"], value_float=1.0)
    model.graph.node.extend([constant, constant])


def duplicate_output(model):
    model.graph.node.append(model.graph.node[0])


def duplicate_node_name(model):
    model.graph.node[0].output[0] = "z"
    model.graph.node.append(node("Relu", ["z"], ["y"], name="last"))


def unused(model):
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "u"))


def dead(model):
    model.graph.node.append(node("Relu", ["x"], ["z"]))


def constant_output(model):
    model.graph.node[0].CopyFrom(node("Identity", ["w"], ["y"]))


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (4, 3)))


def overridable(model):
    model.graph.input[0].name = "w"


def second_output(model):
    model.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4)))


def other_output(model):
    model.graph.output[0].name = "x"


def no_output(model):
    model.graph.output[0].name = "nothing"


def wrong_output(model):
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


def wrong_rank(model):
    model.graph.output[0].type.tensor_type.shape.dim.add(dim_value=1)


def double_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def sequence_input(model):
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


def shapeless_input(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def symbolic_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "features"


def scalar_input(model):
    del model.graph.input[0].type.tensor_type.shape.dim[1:]


def negative_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1


def huge_input(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40


def long_axis_name(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N" * 300


def denotation(model):
    model.graph.input[0].type.denotation = "IMAGE"


def double_constant(model):
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((4, 3)), "w"))


def short_constant(model):
    model.graph.initializer[0].raw_data = bytes(44)


def short_typed_constant(model):
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].float_data.extend([1.0] * 11)


def both_kinds_of_data(model):
    model.graph.initializer[0].float_data.extend([1.0] * 12)


def huge_constant(model):
    model.graph.initializer[0].dims[:] = [2**62, 2**62]


def negative_constant(model):
    model.graph.initializer[0].dims[:] = [-4, -3]


def deep_constant(model):
    model.graph.initializer[0].dims[:] = [4, 3, 1, 1, 1, 1, 1, 1, 1, 1]


def empty_constant(model):
    model.graph.initializer.append(numpy_helper.from_array(np.ones((0, 3), np.float32), "u"))
    model.graph.node.append(node("Add", ["y", "u"], ["z"]))


def segmented(model):
    model.graph.initializer[0].segment.begin = 0


def old_ir(model):
    model.ir_version = 3


def new_ir(model):
    model.ir_version = 99


def old_opset(model):
    model.opset_import[0].version = 10


def new_opset(model):
    model.opset_import[0].version = 99


def unnamed(model):
    model.graph.node[0].output[0] = ""


def unprintable(model):
    model.graph.node[0].name = "a\nb"


def long_name(model):
    model.graph.node[0].name = "n" * 300


def long_graph_name(model):
    model.graph.name = "n" * 300


def attribute_twice(model):
    model.graph.node[0].attribute.extend([helper.make_attribute("alpha", 1.0), helper.make_attribute("alpha", 2.0)])


def attribute_of_two_kinds(model):
    attribute = model.graph.node[0].attribute.add(name="alpha", type=AttributeProto.FLOAT, f=1.0)
    attribute.s = b"hidden"


def attribute_reference(model):
    model.graph.node[0].attribute.add(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="a")


def attribute_of_another_type(model):
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 1))


def attribute_list_of_floats(model):
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", [1.5]))


def infinite_attribute(model):
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", float("inf")))


def unknown_attribute(model):
    model.graph.node[0].attribute.append(helper.make_attribute("secret", 1))


def text_that_is_not_utf8(model):
    model.graph.node[0].attribute.add(name="secret", type=AttributeProto.STRING, s=b"\xff")


def tensor_attribute(model):
    model.graph.node[0].attribute.append(helper.make_attribute("secret", numpy_helper.from_array(np.ones(1))))


def overload(model):
    model.graph.node[0].overload = "other"


def device(model):
    model.graph.node[0].device_configurations.add(configuration_id="gpu")


def reads_nothing(model):
    model.graph.node[0].input[0] = "nothing"


def reads_an_empty_name(model):
    model.graph.node[0].input[1] = ""


def two_outputs(model):
    model.graph.node[0].output.append("second")


def no_nodes(model):
    del model.graph.node[:]


def empty_graph(model):
    model.ClearField("graph")


SPOILED = [
    (external, Schema, "external data"),
    (only_claims_external, Schema, "external data"),
    (quietly_external, Schema, "external data"),
    (function, Schema, "functions"),
    (training, Schema, "training_info"),
    (metadata, Schema, "metadata_props"),
    (sparse, Schema, "sparse_initializer"),
    (quantisation, Schema, "quantization"),
    (custom_domain, Schema, "domains"),
    (no_opset, Schema, "domains"),
    (not_a_number, Schema, "NaN"),
    (infinite, Schema, "infinity"),
    (duplicate_constant, Schema, "two constants"),
    (duplicate_constant_node, Schema, "two constants"),
    (two_constant_nodes, Schema, "two constants"),
    (duplicate_output, Schema, "two tensors"),
    (duplicate_node_name, Schema, "two nodes"),
    (unused, Schema, "no node uses"),
    (dead, MalformedError, "does not contribute"),
    (constant_output, Schema, "output"),
    (second_input, Schema, "2 inputs"),
    (overridable, Schema, "the input and for a constant"),
    (second_output, Schema, "2 outputs"),
    (other_output, Schema, "output"),
    (no_output, Schema, "output"),
    (wrong_output, Schema, "declared"),
    (wrong_rank, Schema, "declared"),
    (double_input, Schema, "element type"),
    (sequence_input, Schema, "sequence_type"),
    (shapeless_input, Schema, "axes"),
    (symbolic_input, Schema, "axes"),
    (scalar_input, Schema, "axes"),
    (negative_input, Schema, "axes"),
    (huge_input, MalformedError, "values per record|multiply"),
    (long_axis_name, TooLarge, "300"),
    (denotation, Schema, "denotation"),
    (double_constant, Schema, "element type 11"),
    (short_constant, Schema, "44 bytes"),
    (short_typed_constant, Schema, "11 values"),
    (both_kinds_of_data, Schema, "two sets"),
    (huge_constant, Schema, "48 bytes"),
    (negative_constant, Schema, "shape"),
    (deep_constant, Schema, "shape"),
    (empty_constant, Schema, "shape"),
    (segmented, Schema, "segment"),
    (old_ir, UnsupportedVersion, "version 3"),
    (new_ir, UnsupportedVersion, "version 99"),
    (old_opset, UnsupportedVersion, "opset 10"),
    (new_opset, UnsupportedVersion, "opset 99"),
    (unnamed, Schema, "name"),
    (unprintable, Schema, "printable"),
    (long_name, Schema, "256"),
    (long_graph_name, TooLarge, "300"),
    (attribute_twice, Schema, "twice"),
    (attribute_of_two_kinds, Schema, "with s"),
    (attribute_reference, Schema, "ref_attr_name"),
    (attribute_of_another_type, Schema, "float"),
    (attribute_list_of_floats, Schema, "float"),
    (infinite_attribute, Schema, "finite"),
    (unknown_attribute, Schema, "secret"),
    (text_that_is_not_utf8, MalformedError, "UTF-8"),
    (tensor_attribute, Schema, "tensor attribute"),
    (overload, Schema, "overload"),
    (device, Schema, "device_configurations"),
    (reads_nothing, Schema, "before anything makes it"),
    (reads_an_empty_name, Schema, "before anything makes it"),
    (two_outputs, Schema, "2 outputs"),
    (no_nodes, Schema, "declared|no node"),
    (empty_graph, Schema, "0 inputs"),
]


@pytest.mark.parametrize(("spoil", "kind", "reason"), SPOILED, ids=[case[0].__name__ for case in SPOILED])
def test_a_spoiled_file_is_refused_for_the_right_reason(spoil, kind, reason):
    with pytest.raises(kind, match=reason):
        parse(changed(GOOD, spoil))


@pytest.mark.parametrize("op", ["Sigmoid", "LSTM", "Softmax", "If", "Loop", "Scan", "Dropout", "Erf", "Round", "Where"])
def test_other_operators_are_refused_by_name(op):
    model = gemm_proto()
    model.graph.node[0].output[0] = "z"
    model.graph.node.append(node(op, ["z"], ["y"]))
    with pytest.raises(MalformedError, match=f"'{op}' is not in the profile"):
        parse(model.SerializeToString())


@pytest.mark.parametrize("kind", ["g", "graphs", "sparse_tensor", "tensors", "type_protos"])
def test_subgraphs_are_refused_by_the_operators_name(kind):
    model = gemm_proto()
    attribute = model.graph.node[0].attribute.add(name="then_branch")
    attribute.type = {"g": 5, "graphs": 10, "sparse_tensor": 11, "tensors": 9, "type_protos": 14}[kind]
    if kind in ("graphs", "tensors", "type_protos"):
        getattr(attribute, kind).add()
    else:
        getattr(attribute, kind).SetInParent()
    model.graph.node[0].op_type = "If"
    with pytest.raises(Schema, match="operator 'If' is not in the profile"):
        parse(model.SerializeToString())


def test_a_domain_is_refused_by_the_operators_name():
    model = gemm_proto()
    model.graph.node[0].domain = "com.microsoft"
    with pytest.raises(Schema, match=r"'Gemm' of the domain 'com\.microsoft'"):
        parse(model.SerializeToString())
    model.graph.node[0].domain = "ai.onnx"
    model.opset_import[0].domain = "ai.onnx"
    assert parse(model.SerializeToString()) == parse(GOOD)


def test_optional_inputs_and_outputs_may_be_left_empty():
    def spell_out(model):
        model.graph.node[0].input[2] = ""
        model.graph.node[0].input.append("")
        model.graph.node[0].output.append("")
        del model.graph.initializer[1]

    assert parse(changed(GOOD, spell_out)).nodes[0].inputs == ("x", "w")


def test_bytes_that_no_field_accounts_for_are_refused():
    unknown = bytes([0xFA, 0x3F, 3]) + b"abc"  # field 1023
    again = onnx.ModelProto(ir_version=9).SerializeToString()
    graph = gemm_proto().graph.SerializeToString()
    nested = changed(GOOD, lambda model: model.ClearField("graph"))
    nested += bytes([0x3A, len(graph) + 6 & 0x7F | 0x80, (len(graph) + 6) >> 7]) + graph + unknown
    for data in (GOOD + unknown, GOOD + again, nested):
        assert onnx.ModelProto.FromString(data).graph.node  # onnx itself takes them all
        with pytest.raises(NonCanonical, match="no field"):
            parse(data)


def test_nested_messages_do_not_exhaust_the_stack():
    inner = b""
    for _ in range(2000):  # a graph in an attribute of a node in a graph, and so on
        for field in (6, 5, 1):
            length = len(inner)
            size = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14 & 0x7F | 0x80, length >> 21])
            inner = bytes([field << 3 | 2]) + size + inner
    size = bytes([len(inner) & 0x7F | 0x80, len(inner) >> 7 & 0x7F | 0x80, len(inner) >> 14])
    with pytest.raises(MalformedError, match="does not parse"):
        parse(bytes([7 << 3 | 2]) + size + inner)


def test_notes_are_counted_and_dropped():
    def talk(model):
        model.doc_string = model.graph.doc_string = model.producer_name = "a" * 100
        model.graph.node[0].doc_string = model.graph.initializer[0].doc_string = "b" * 100
        model.graph.node[0].metadata_props.append(StringStringEntryProto(key="k", value="c" * 100))
        model.graph.input[0].doc_string = "d"
        model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, (1,)))
        model.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0, doc_string="e" * 100))

    data = changed(GOOD, talk)
    assert parse(data) == parse(GOOD)
    with pytest.raises(TooLarge, match="documentation and metadata"):
        parse(data, limits=Limits(notes=500))
    with pytest.raises(TooLarge, match="documentation and metadata"):
        parse(data, limits=DEPLOYED)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(size=100),
        Limits(structure=50),
        Limits(initialisers=1),
        Limits(elements=2),
        Limits(elements=3),
        Limits(nodes=0),
        Limits(rank=1),
        Limits(name=3),
    ],
)
def test_limits_hold(limits):
    with pytest.raises(MalformedError):
        parse(GOOD, limits=limits)


def test_many_nodes_are_refused():
    nodes = [node("Relu", ["x" if n == 0 else f"t{n - 1}"], [f"t{n}"]) for n in range(20)]
    nodes.append(node("Identity", ["t19"], ["y"]))
    model = proto(nodes, shape=("N", 3)).SerializeToString()
    assert len(parse(model).nodes) == 21
    for nodes_limit in (5, 15):
        with pytest.raises(TooLarge):
            parse(model, limits=Limits(nodes=nodes_limit))


def test_constants_may_be_typed_data_or_nodes():
    def typed(model):
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor).reshape(-1)
            tensor.ClearField("raw_data")
            tensor.float_data.extend(values.tolist())

    assert parse(changed(GOOD, typed)) == parse(GOOD)

    def as_node(model):
        tensor = model.graph.initializer.pop(0)
        assert tensor.name == "w"
        model.graph.node.insert(0, node("Constant", [], ["w"], value=tensor))

    assert parse(changed(GOOD, as_node)) == parse(GOOD)


@pytest.mark.parametrize(
    ("given", "shape"), [({"value_float": 2.0}, ()), ({"value_floats": [1.0, 2.0, 3.0, 4.0]}, (4,))]
)
def test_constant_nodes_of_the_short_kinds(given, shape):
    model = gemm_proto()
    model.graph.node.insert(0, node("Constant", [], ["k"], **given))
    model.graph.node.insert(1, node("Mul", ["x", "k"], ["scaled"]))
    model.graph.node[2].input[0] = "scaled"
    assert parse(model.SerializeToString()).initialisers["k"].shape == shape


@pytest.mark.parametrize(
    "constant",
    [
        node("Constant", [], ["k"]),
        node("Constant", ["x"], ["k"], value_float=1.0),
        node("Constant", [], ["k", "l"], value_float=1.0),
        node("Constant", [], ["k"], value_float=1.0, value_int=1),
        node("Constant", [], ["k"], value_string="text"),
        node("Constant", [], ["k"], value=3),
        node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(1, np.float32)), value_int=1),
    ],
)
def test_bad_constant_nodes(constant):
    model = gemm_proto()
    model.graph.node.insert(0, constant)
    with pytest.raises(Schema, match="Constant"):
        parse(model.SerializeToString())


@pytest.mark.parametrize("kind", ["raw", "typed"])
def test_booleans_are_zero_or_one(kind):
    model = gemm_proto()
    mask = numpy_helper.from_array(np.array([[True, False, True]]), "m")
    if kind == "raw":
        mask.raw_data = b"\x01\x00\x02"
    else:
        mask.ClearField("raw_data")
        mask.int32_data.extend([1, 0, 2])
    model.graph.initializer.append(mask)
    with pytest.raises(Schema, match="boolean"):
        parse(model.SerializeToString())


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (replace(perceptron(), classes=4), "output"),
        (replace(perceptron(), initialisers={**perceptron().initialisers, "u": np.zeros(1)}), "element type"),
        (replace(perceptron(), input_shape=()), "static"),
        (replace(perceptron(), input="c0"), "input and for a constant"),
        (replace(perceptron(), nodes=(replace(perceptron().nodes[0], attributes={}),)), "lacks attributes"),
        (replace(perceptron(), nodes=(replace(perceptron().nodes[0], outputs=("a", "b")),)), "2 outputs"),
    ],
)
def test_graphs_outside_the_profile_are_not_written(graph, reason):
    with pytest.raises(EncodingError, match=reason):
        serialise(graph)


def test_attributes_are_exact_types():
    with pytest.raises(Schema, match="axis"):
        make_node("Flatten", ("x",), "y", axis=True)
    with pytest.raises(Schema, match="perm"):
        make_node("Transpose", ("x",), "y", perm=(0, 1.5))
    with pytest.raises(Schema, match="perm"):
        make_node("Transpose", ("x",), "y")
    assert make_node("Transpose", ("x",), "y", perm=[0, 2, 1]).attributes == {"perm": (0, 2, 1)}


def test_noncontiguous_constants_are_kept_whole():
    whole = np.arange(20, dtype=np.float32).reshape(5, 4)
    graph = replace(perceptron(), initialisers={**perceptron().initialisers, "c0": np.asfortranarray(whole)})
    assert parse(serialise(graph)).initialisers["c0"].tolist() == whole.tolist()
    assert isinstance(graph, Graph)
