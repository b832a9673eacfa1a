"""A graph as something that learns: which of its constants are learned, and how it runs on other values.

Proves nothing. The role of a constant follows from where it is used: weights and biases of Gemm, MatMul
and Conv, and BatchNormalization's scale and bias are learned; its mean and variance are running
averages; every other constant (an input normalisation, a shape) belongs to the architecture and stays.
Assumes a checked graph, in which biases and normalisation constants have one use each. Source: SPEC 7.5;
torch.nn.init (Linear, Conv2d, BatchNorm2d); ONNX BatchNormalization (momentum).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from owner.execute import OPERATORS, constants
from protocol.device import Device
from protocol.errors import OwnerError
from protocol.model.profile import Graph, Node, same_tensor

Parameters = dict[str, Tensor]


def _fan_in(node: Node, shape: tuple[int, ...]) -> int:
    if node.op == "Conv":
        return int(np.prod(shape[1:]))
    return shape[1] if node.attributes.get("transB") else shape[0]


def _weights(graph: Graph) -> Iterator[tuple[str, int]]:
    """Weights and biases with the number of inputs that each output of their layer has."""
    fan_in: dict[str, int] = {}  # by the output of a MatMul, whose bias is a node of its own
    for node in graph.nodes:
        if node.op in ("Gemm", "Conv", "MatMul"):
            inner = _fan_in(node, graph.initialisers[node.inputs[1]].shape)
            if node.op == "MatMul":
                fan_in[node.outputs[0]] = inner
            for name in node.inputs[1:]:
                yield name, inner
        if node.op == "Add" and (sources := [name for name in node.inputs if name in fan_in]):
            for name in node.inputs:
                if name in graph.initialisers:
                    yield name, fan_in[sources[0]]


class Network:
    """A graph's architecture.

    Args:
        graph: a model of the profile without a patch.
        device: where its parameters and inputs will be.

    Raises:
        OwnerError: the graph has nothing to learn.
    """

    def __init__(self, graph: Graph, device: Device = "cpu") -> None:
        self.graph = graph
        self.device = device
        self.fan_in = dict(_weights(graph))
        normalisations = [node.inputs[1:] for node in graph.nodes if node.op == "BatchNormalization"]
        self.ones = {name for scale, _, _, variance in normalisations for name in (scale, variance)}
        self.averages = sorted(name for _, _, mean, variance in normalisations for name in (mean, variance))
        affine = {name for scale, bias, _, _ in normalisations for name in (scale, bias)}
        self.learned = sorted(self.fan_in.keys() | affine)
        if not self.learned:
            raise OwnerError("the model has no parameters to train")
        self.shapes = {name: graph.initialisers[name].shape for name in (*self.learned, *self.averages)}
        self._fixed = {name: value.to(device) for name, value in constants(graph).items() if name not in self.shapes}

    def initial(self, count: int, rng: np.random.Generator) -> Parameters:
        """Fresh values for `count` models: uniform in +-1/sqrt(inputs) for weights and biases, as torch's layers."""
        result = {}
        for name, shape in self.shapes.items():
            values = np.full((count, *shape), float(name in self.ones))
            if name in self.fan_in:
                bound = 1.0 / np.sqrt(self.fan_in[name])
                values = rng.uniform(-bound, bound, (count, *shape))
            result[name] = torch.from_numpy(values.astype(np.float32)).to(self.device)
        return result

    def repeated(self, graph: Graph, count: int) -> Parameters:
        """The values of a graph of this architecture, for `count` models.

        Raises:
            OwnerError: another architecture.
        """
        if not _same_architecture(self, graph):
            raise OwnerError("the model to start from has another architecture")
        return {
            name: torch.tensor(np.stack([graph.initialisers[name]] * count), device=self.device) for name in self.shapes
        }

    def _run(self, parameters: Mapping[str, Tensor], x: Tensor, averages: Parameters | None) -> Tensor:
        values = {**self._fixed, **parameters, self.graph.input: x}
        for node in self.graph.nodes:
            inputs = [values[name] for name in node.inputs]
            if node.op == "BatchNormalization" and averages is not None:
                values[node.outputs[0]] = _normalise(node, inputs, averages)
            else:
                values[node.outputs[0]] = OPERATORS[node.op](node, inputs)
        return values[self.graph.output]

    def logits(self, parameters: Mapping[str, Tensor], x: Float32[Tensor, "record ..."]) -> Tensor:
        """Logits of one model, differentiable in parameters and inputs; normalisation by running averages."""
        return self._run(parameters, x, None)

    def training_logits(
        self, learned: Mapping[str, Tensor], averages: Mapping[str, Tensor], x: Float32[Tensor, "record ..."]
    ) -> tuple[Float32[Tensor, "record class"], Parameters]:
        """Logits of one model, normalised by the batch's own statistics, and the new running averages."""
        moved = dict(averages)
        logits = self._run({**learned, **averages}, x, moved)
        return logits, moved


def _normalise(node: Node, inputs: list[Tensor], averages: Parameters) -> Tensor:
    x, scale, bias, mean, variance = inputs
    axes = [axis for axis in range(x.ndim) if axis != 1]
    count = x.numel() // x.shape[1]
    spread, centre = torch.var_mean(x, dim=axes, correction=0)
    keep = float(node.attributes["momentum"])  # type: ignore[arg-type]
    unbiased = spread.detach() * (count / max(1, count - 1))
    averages[node.inputs[3]] = keep * mean + (1.0 - keep) * centre.detach()
    averages[node.inputs[4]] = keep * variance + (1.0 - keep) * unbiased
    along = [1, -1, *[1] * (x.ndim - 2)]  # one value per channel
    factor = scale / torch.sqrt(spread + float(node.attributes["epsilon"]))  # type: ignore[arg-type]
    return (x - centre.reshape(along)) * factor.reshape(along) + bias.reshape(along)


def _same_architecture(network: Network, graph: Graph) -> bool:
    mine = network.graph
    return (mine.input, mine.input_shape, mine.output, mine.nodes) == (
        graph.input,
        graph.input_shape,
        graph.output,
        graph.nodes,
    ) and all(
        (array.shape == graph.initialisers[name].shape)
        if name in network.shapes
        else same_tensor(array, graph.initialisers[name])
        for name, array in mine.initialisers.items()
    )


def parameters_of(graph: Graph) -> dict[str, Float32[np.ndarray, "..."]]:
    """The values that training would change, by initialiser name."""
    return {name: np.array(graph.initialisers[name]) for name in Network(graph).shapes}


def graph_with_parameters(graph: Graph, parameters: Mapping[str, Float32[np.ndarray, "..."]]) -> Graph:
    """The same architecture with other numbers.

    Args:
        graph: the architecture.
        parameters: new values by initialiser name; the others stay.

    Raises:
        OwnerError: a name that the graph does not have, or values of another type or shape.
    """
    for name, array in parameters.items():
        there = graph.initialisers.get(name)
        if there is None or there.shape != array.shape or there.dtype != array.dtype:
            raise OwnerError("the model has no parameter of this name, type and shape", where=name)
    return replace(graph, initialisers={**graph.initialisers, **{name: np.array(a) for name, a in parameters.items()}})
