"""Exporters' habits come out as the profile's own nodes, with the same numbers."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from protocol.errors import MalformedError, Schema
from protocol.model.profile import PATCHED, parse, serialise
from tests.protocol.model.samples import proto, torch_export

node = helper.make_node


def runs_alike(data, shape, tolerance=1e-5, batch=3):
    graph = parse(data)
    x = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
    found = []
    for model in (data, serialise(graph)):
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        found.append(session.run(None, {graph.input: x})[0])
    assert np.abs(found[0] - found[1]).max() <= tolerance
    return graph


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.other_norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        inner = torch.relu(self.norm(self.first(x)))
        return torch.relu(x + self.other_norm(self.second(inner)))


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.linear = nn.Linear(64, 3)

    def forward(self, x):
        x = self.norm(x.view(x.size(0), -1)) * 2.0 - 0.5
        return self.linear(x.reshape(x.shape[0], 8, 8).transpose(1, 2).flatten(1))


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


CONVOLUTIONAL = nn.Sequential(
    nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), Residual(4),
    nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
)  # fmt: skip
MODULES = {
    "perceptron": nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)),
    "convolutional": CONVOLUTIONAL,
    "viewed": Viewed(),
    "mean": nn.Sequential(nn.Conv2d(1, 3, 3), Mean()),
}


@pytest.mark.parametrize("dynamo", [False, True], ids=["trace", "dynamo"])
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore")
def test_plain_torch_exports_are_read(name, dynamo):
    torch.manual_seed(0)
    graph = runs_alike(torch_export(MODULES[name].eval(), (1, 8, 8), dynamo=dynamo), (1, 8, 8))
    assert graph.classes == 3


@pytest.mark.parametrize("dynamo", [False, True], ids=["trace", "dynamo"])
@pytest.mark.filterwarnings("ignore")
def test_a_fixed_batch_is_opened(dynamo):
    torch.manual_seed(0)
    data = torch_export(MODULES["viewed"].eval(), (1, 8, 8), dynamo=dynamo, fixed=True)
    graph = runs_alike(data, (1, 8, 8), batch=2)
    session = onnxruntime.InferenceSession(serialise(graph), providers=["CPUExecutionProvider"])
    assert session.run(None, {graph.input: np.zeros((7, 1, 8, 8), np.float32)})[0].shape == (7, 3)


@pytest.mark.parametrize("module", [nn.Sigmoid(), nn.GELU(), nn.Softmax(1), nn.Hardtanh(0, 6)])
def test_other_layers_are_refused_by_the_operators_name(module):
    data = torch_export(nn.Sequential(nn.Linear(4, 3), module), (4,), dynamo=False)
    written = {found.op_type for found in onnx.ModelProto.FromString(data).graph.node}
    with pytest.raises(MalformedError, match="operator") as caught:
        parse(data)
    assert any(op in str(caught.value) for op in written - {"Gemm"})


F = np.float32


def image_model(nodes, constants=(), **more):
    return proto(nodes, constants, shape=("N", 3, 4, 5), **more).SerializeToString()


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3, -2]])
@pytest.mark.parametrize("opset", [13, 18])
def test_means_over_an_image_are_pooling(axes, opset):
    if opset < 18:
        nodes = [node("ReduceMean", ["x"], ["m"], axes=axes, keepdims=1), node("Flatten", ["m"], ["y"])]
        data = image_model(nodes, opset=opset, ir=8)
    else:
        data = image_model([node("ReduceMean", ["x", "a"], ["y"], keepdims=0)], {"a": np.array(axes)}, ir=8)
    graph = runs_alike(data, (3, 4, 5))
    assert [found.op for found in graph.nodes] == ["GlobalAveragePool", "Flatten"]


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({"axes": [1, 2]}, ("N", 3, 4, 5)),
        ({"axes": [2]}, ("N", 3, 4, 5)),
        ({}, ("N", 3, 4, 5)),
        ({"axes": [2, 3]}, ("N", 3, 4)),
        ({"axes": [2, 3], "other": 1}, ("N", 3, 4, 5)),
    ],
)
def test_other_means_are_refused(attributes, shape):
    data = proto([node("ReduceMean", ["x"], ["y"], **attributes)], shape=shape, opset=13).SerializeToString()
    with pytest.raises(Schema, match="ReduceMean"):
        parse(data)
    with pytest.raises(Schema, match="ReduceMean"):
        parse(proto([node("ReduceMean", [], ["y"], **attributes)], opset=13).SerializeToString())


def shaped(target, extra=(), constants=(), opset=20):
    """A model that flattens by arithmetic on its input's shape."""
    nodes = [node("Shape", ["x"], ["s"]), *extra, node("Reshape", ["x", target], ["f"])]
    nodes.append(node("Gemm", ["f", "w"], ["y"]))
    return image_model(nodes, {"w": np.ones((60, 3), F), **dict(constants)}, opset=opset, ir=8)


ZERO, AXES, REST = {"zero": np.array(0)}, {"axes": np.array([0])}, {"rest": np.array([-1])}


@pytest.mark.parametrize("old", [False, True])
def test_arithmetic_on_shapes_becomes_a_constant(old):
    unsqueeze = node("Unsqueeze", ["n"], ["n1"], axes=[0]) if old else node("Unsqueeze", ["n", "axes"], ["n1"])
    extra = [node("Gather", ["s", "zero"], ["n"], axis=0), unsqueeze, node("Concat", ["n1", "rest"], ["t"], axis=0)]
    constants = {**ZERO, **REST, **({} if old else AXES)}
    graph = runs_alike(shaped("t", extra, constants, opset=12 if old else 20), (3, 4, 5))
    assert [found.op for found in graph.nodes] == ["Reshape", "Gemm"]
    assert sorted(graph.initialisers) == ["f/sizes", "w"]
    assert graph.initialisers["f/sizes"].tolist() == [0, -1]


@pytest.mark.parametrize(
    ("target", "extra", "constants", "reason"),
    [
        ("t", [node("Gather", ["s", "zero"], ["t"], axis=1)], ZERO, "Gather"),
        ("t", [node("Gather", ["s", "far"], ["t"])], {"far": np.array(9)}, "Gather"),
        ("t", [node("Gather", ["s", "zero"], ["t"])], ZERO, "Reshape"),
        ("t", [node("Unsqueeze", ["s", "axes"], ["t"])], AXES, "Unsqueeze"),
        ("t", [node("Concat", ["s", "zero"], ["t"], axis=0)], ZERO, "Concat"),
        ("t", [node("Concat", ["s", "s", "s"], ["t"], axis=0)], {}, "Concat"),
        ("t", [node("Concat", ["s", "s"], ["t"], axis=1)], {}, "Concat"),
        ("t", [node("Concat", ["s", "s"], ["t"], axis=0)], {}, "depends on the batch"),
        ("t", [node("Concat", ["rest", "s"], ["t"], axis=0)], REST, "depends on the batch"),
        ("t", [node("Concat", ["rest", "real"], ["t"], axis=0)], {**REST, "real": np.ones(1, F)}, "Concat"),
        ("t", [node("Shape", ["w"], ["t"], start=1)], {}, "Shape"),
        ("t", [node("Shape", ["nothing"], ["t"])], {}, "Shape"),
        ("s", [node("Relu", ["s"], ["t"])], {}, "before anything makes it"),
        ("s", [node("Shape", ["x"], ["s"])], {}, "two tensors"),
        ("s", [], {"f/sizes": np.array([1])}, "two tensors"),
    ],
)
def test_other_arithmetic_is_refused(target, extra, constants, reason):
    with pytest.raises(Schema, match=reason):
        parse(shaped(target, extra, constants))


def test_reshape_to_a_shape_of_the_model_itself():
    graph = parse(shaped("t", [node("Gather", ["s", "zero"], ["n"]), node("Unsqueeze", ["n", "axes"], ["n1"]),
                               node("Concat", ["n1", "sixty"], ["t"], axis=0)],
                         {**ZERO, **AXES, "sixty": np.array([60])}))  # fmt: skip
    assert graph.initialisers["f/sizes"].tolist() == [0, 60]


def test_constants_under_several_names_are_one():
    nodes = [node("Identity", ["w"], ["v"]), node("Identity", ["v"], ["u"]), node("Gemm", ["x", "u"], ["y"])]
    graph = parse(proto(nodes, {"w": np.ones((4, 3), F)}).SerializeToString())
    assert graph.nodes[0].inputs == ("x", "w")
    with pytest.raises(Schema, match="two tensors"):
        parse(proto([nodes[0], nodes[0], nodes[1], nodes[2]], {"w": np.ones((4, 3), F)}).SerializeToString())


def shared(**constants):
    names = ["s", "s", "s", "s"]
    nodes = [node("BatchNormalization", ["x", *names], ["n"]), node("Gemm", ["n", "w", "b"], ["z"])]
    nodes.append(node("Gemm", ["z", "v", "b"], ["y"]))
    weights = {"w": np.ones((4, 3), F), "v": np.ones((3, 3), F), "b": np.zeros(3, F), "s": np.ones(4, F)}
    return proto(nodes, {**weights, **constants})


def test_learned_constants_are_not_shared():
    graph = runs_alike(shared().SerializeToString(), (4,))
    assert graph.nodes[0].inputs == ("x", "n/scale", "n/bias", "n/mean", "n/var")
    assert graph.nodes[2].inputs == ("z", "v", "y/bias")
    assert "s" not in graph.initialisers
    with pytest.raises(Schema, match="two tensors"):
        parse(shared(**{"n/bias": np.ones(4, F)}).SerializeToString())


def test_shared_weights_stay_shared():
    nodes = [node("Gemm", ["x", "w"], ["z"]), node("Gemm", ["z", "w"], ["y"])]
    graph = parse(proto(nodes, {"w": np.ones((3, 3), F)}, shape=("N", 3)).SerializeToString())
    assert [found.inputs[1] for found in graph.nodes] == ["w", "w"]


def test_reshape_without_a_target_is_refused():
    for inputs in (["x"], ["x", "nothing"]):
        with pytest.raises(Schema, match="Reshape"):
            parse(proto([node("Reshape", inputs, ["y"])]).SerializeToString())


def test_a_kernels_shape_is_that_of_its_weights():
    nodes = [node("Conv", ["x", "w"], ["c"]), node("GlobalAveragePool", ["c"], ["p"]), node("Flatten", ["p"], ["y"])]
    graph = runs_alike(image_model(nodes, {"w": np.ones((3, 3, 2, 3), F)}), (3, 4, 5))
    assert graph.nodes[0].attributes["kernel_shape"] == (2, 3)
    with pytest.raises(Schema, match="kernel_shape"):
        parse(image_model([node("Conv", ["x", "x"], ["c"]), *nodes[1:]]))


def test_a_split_into_one_name_is_refused():
    split = node("Split", ["x"], ["y", "y"], axis=1, num_outputs=2)
    with pytest.raises(Schema, match="two tensors"):
        parse(proto([split], (), shape=("N", 6)).SerializeToString(), operators=PATCHED)
