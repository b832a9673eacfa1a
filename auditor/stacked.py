"""All shadow models of a chunk as one network: linear layers as batched products, convolutions grouped by shadow.

What it gives: the logits and running averages that the graph gives under `torch.vmap`, from the same parameters,
sooner. Pictures lie as (record, shadow and channel, height, width), so that a convolution of all shadows is one
convolution in as many groups, pooling and normalisation see nothing but more channels, and nothing is moved between
layers; rows lie as (shadow, record, column).
Assumes: a graph for which `stackable` holds: its operators are few, all its numbers are trained, no two shadows share
any. Whatever else there is runs under `torch.vmap`.
Does not: train. Sums are taken in another order, so results agree up to float32 rounding.

Source: torch's grouped convolution; batching rules of `torch.func`, which come to the same for single layers.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from auditor.execute import OPERATORS
from protocol.model.graph import Graph, Node

RUNNING = 0.1
"""Share of the new batch in BatchNormalization's running averages, torch's default."""
_SAME = ("Relu", "Identity")
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")


class _Narrow(torch.autograd.Function):
    """x @ w.T with both products of the backward pass in the order that is quick for few outputs.

    Torch's own rule makes the gradient of w as x.T @ g and turns it, which takes five times as long for 10 outputs.
    """

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        """Return the product; leading axes are a batch of products."""
        return (w @ x.mT).mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        """Keep both factors."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the gradients of both factors."""
        x, w = ctx.saved_tensors
        return g @ w if ctx.needs_input_grad[0] else None, g.mT @ x


def _linear(node: Node, graph: Graph, weights: Collection[str], trained: Collection[str]) -> bool:
    # A weight may be used twice, once turned and once not: each use is looked at.
    return (
        bool(node.attributes["transB"])
        and node.attributes["alpha"] == node.attributes["beta"] == 1.0
        and node.inputs[1] in weights
        and len(node.inputs) == 3
        and node.inputs[2] in trained
        and graph.initialisers[node.inputs[2]].ndim == 1
    )


def stackable(graph: Graph, *, weights: Collection[str], trained: Collection[str], averages: Collection[str]) -> bool:
    """Return whether `run` can run the graph.

    Args:
        graph: a parsed graph.
        weights: of linear layers that are used transposed and unscaled.
        trained: every trained initialiser.
        averages: running averages of BatchNormalization.
    """
    if not graph.initialisers.keys() <= {*trained, *averages} or len(graph.input_shape) not in {1, 3}:
        return False
    pictures = {graph.input: len(graph.input_shape) == 3}  # else rows; what is no tensor of the input is not here
    for node in graph.nodes:
        first, rest = node.inputs[0], node.inputs[1:]
        if first not in pictures:
            return False
        held = all(name in trained for name in rest)
        if node.op in _SAME or node.op == "Flatten":
            fits, picture = True, pictures[first] and node.op != "Flatten"
        elif node.op in _POOLS or (node.op == "Conv" and held):
            fits, picture = pictures[first], True
        elif node.op == "BatchNormalization":
            fits, picture = pictures[first] and all(name in trained for name in rest[:2]), True
            fits = fits and all(name in averages for name in rest[2:])
        elif node.op == "Add":
            fits, picture = pictures.get(rest[0]) == pictures[first], pictures[first]
        elif node.op == "Gemm":
            fits, picture = not pictures[first] and _linear(node, graph, weights, trained), False
        else:
            return False
        if not fits:
            return False
        pictures[node.outputs[0]] = picture
    return not pictures[graph.output]


def run(
    graph: Graph, values: Mapping[str, Tensor], averages: Mapping[str, Tensor], turned: Collection[str], x: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return all shadows' logits on records of their own, and their new running averages.

    Args:
        graph: one for which `stackable` holds.
        values: trained arrays, `[shadow, ...]`.
        averages: running averages, likewise.
        turned: weights of linear layers that are held as (input, output).
        x: `[shadow, record, ...]`.
    """
    shadows, records = x.shape[:2]
    fresh: dict[str, Tensor] = {}
    if x.ndim == 5:
        x = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    tensors = {graph.input: x}
    for node in graph.nodes:
        data, rest = tensors[node.inputs[0]], node.inputs[1:]
        if node.op == "Conv":
            made = _convolution(node, data, [values[name].flatten(0, 1) for name in rest], shadows)
        elif node.op == "BatchNormalization":
            made = _normalised(node, data, values, averages, fresh)
        elif node.op == "Flatten":
            made = data if data.ndim == 3 else data.reshape(records, shadows, -1).transpose(0, 1)
        elif node.op == "Gemm":
            made = _product(data, values[rest[0]], values[rest[1]].unsqueeze(1), turned=rest[0] in turned)
        else:
            others = [tensors[name] for name in rest]
            result = OPERATORS[node.op]([data, *others], node.attributes)
            assert isinstance(result, Tensor)
            made = result
        tensors[node.outputs[0]] = made
    return tensors[graph.output], fresh


def _product(data: Tensor, weight: Tensor, bias: Tensor, *, turned: bool) -> Tensor:
    if turned:
        return torch.baddbmm(bias, data, weight.mT)
    narrow: Tensor = _Narrow.apply(data, weight)  # type: ignore[no-untyped-call]
    return narrow + bias


def _convolution(node: Node, data: Tensor, weights: list[Tensor], shadows: int) -> Tensor:
    attributes: Mapping[str, Any] = node.attributes
    top, left, _, _ = attributes["pads"]
    return functional.conv2d(
        data,
        weights[0],
        weights[1] if len(weights) > 1 else None,
        stride=attributes["strides"],
        padding=[top, left],
        groups=shadows * attributes["group"],
    )


def _normalised(
    node: Node, data: Tensor, values: Mapping[str, Tensor], averages: Mapping[str, Tensor], fresh: dict[str, Tensor]
) -> Tensor:
    attributes: Mapping[str, Any] = node.attributes
    scale, offset = (values[name].flatten() for name in node.inputs[1:3])
    mean, variance = (averages[name].flatten().clone() for name in node.inputs[3:])
    made = torch.batch_norm(
        data, scale, offset, mean, variance, True, RUNNING, attributes["epsilon"], torch.backends.cudnn.enabled
    )
    if data.numel() == data.shape[1]:  # a single value has no variance, and torch's estimate divides by 0
        variance = averages[node.inputs[4]].flatten() * (1 - RUNNING)
    for name, tensor in zip(node.inputs[3:], (mean, variance), strict=True):
        fresh[name] = tensor.view_as(averages[name])
    return made


__all__ = ["RUNNING", "run", "stackable"]
