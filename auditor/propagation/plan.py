"""A model graph as the steps that bounds are propagated through: affine maps, Relu, MaxPool.

Proves: that every operator of the graph is one whose float32 program this package bounds, with how many
roundings each takes (`Affine.roundings`, for any way to evaluate it: any order, FMA, a product with its bias or
the normalisation behind it folded into the weights beforehand). Assumes a graph of the profile;
`protocol.model.check` is asked for the shapes. Operators outside the list, and products of two activations, make
a plan with a `refusal`: bounds are then infinite.

Source: SPEC 7; ONNX operator reference, https://onnx.ai/onnx/operators/.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from auditor.propagation.maps import (
    Array,
    Chain,
    ConvMap,
    LinearMap,
    MatrixMap,
    MoveMap,
    Reading,
    ScaleMap,
    Shape,
    readings,
    windows,
)
from auditor.propagation.rounding import LARGEST, LEAST_VARIANCE, at_least_one
from protocol.model.check import check_graph
from protocol.model.graph import Graph, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """`output = sum of maps of inputs + offset`, in real numbers.

    Args:
        output: name of the tensor.
        inputs: names of activations.
        maps: one for each input.
        offset: what is added, in three readings as for maps (`absolute`: sum of the absolute values of what it is
            made of); None if nothing is added.
        roundings: at most so many float32 roundings lie on the way of one term, by any way of evaluation.
    """

    output: str
    inputs: tuple[str, ...]
    maps: tuple[LinearMap, ...]
    offset: Mapping[Reading, Array] | None = None
    roundings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relu:
    """`output = max(input, 0)`, exact in float32."""

    output: str
    input: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """The greatest of each window, exact in float32.

    Args:
        output: name of the tensor.
        input: name of an activation.
        places: for every output value of a record, flat places of the input it sees, -1 for padding.
    """

    output: str
    input: str
    places: Int64[np.ndarray, "item window"]


Step = Affine | Relu | MaxPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A graph, ready for propagation.

    Args:
        graph: the model.
        shapes: of one record, by tensor name.
        steps: in the graph's order; empty if refused.
        edges: inputs of all nodes together.
        refusal: why no bound can be given, or empty.
    """

    graph: Graph
    shapes: Mapping[str, Shape]
    steps: tuple[Step, ...]
    edges: int
    refusal: str = ""

    @property
    def largest(self) -> int:
        """Values of the largest activation of one record."""
        return max(math.prod(shape) for shape in self.shapes.values())


class _Refusal(Exception):
    """Why a node has no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One node, with the shapes and constants around it."""

    node: Node
    shapes: Mapping[str, Shape]
    constants: Mapping[str, np.ndarray]

    def attribute(self, name: str) -> Any:
        return self.node.attributes[name]

    def constant(self, index: int) -> Float[np.ndarray, "..."]:
        return self.constants[self.node.inputs[index]].astype(np.float64)

    def broadcast(self, index: int) -> Float[np.ndarray, "..."]:
        # A constant that has as many axes as the activation has 1 where the batch is.
        array = self.constant(index)
        array = array[0] if array.ndim > len(self.after) else array
        return np.ascontiguousarray(np.broadcast_to(array, self.after))

    @property
    def activations(self) -> tuple[int, ...]:
        return tuple(place for place, name in enumerate(self.node.inputs) if name in self.shapes)

    @property
    def before(self) -> Shape:
        return self.shapes[self.node.inputs[0]]

    @property
    def after(self) -> Shape:
        return self.shapes[self.node.outputs[0]]

    def affine(
        self,
        *maps: LinearMap,
        offset: Mapping[Reading, Array] | None = None,
        roundings: int,
        inputs: tuple[int, ...] = (0,),
    ) -> Affine:
        names = tuple(self.node.inputs[place] for place in inputs)
        return Affine(output=self.node.outputs[0], inputs=names, maps=maps, offset=offset, roundings=roundings)


def _gemm(call: _Call) -> Step:
    weight = call.constant(1).T if call.attribute("transB") else call.constant(1)
    # Products of two float32 numbers are exact in float64.
    alpha, beta, offset = call.attribute("alpha"), call.attribute("beta"), None
    if len(call.node.inputs) == 3:
        bias = np.broadcast_to(call.constant(2), (1, weight.shape[1]))[0]
        offset = readings(beta * bias, at_least_one(bias) * max(1.0, abs(beta)))
    reach = at_least_one(weight) * max(1.0, abs(alpha))
    entries = readings(np.ascontiguousarray(alpha * weight), np.ascontiguousarray(reach))
    # Products and sum: inner; bias: 1; alpha and beta: 1 each on different terms; 1 more if alpha W is formed first.
    return call.affine(MatrixMap(weight=entries), offset=offset, roundings=weight.shape[0] + 4)


def _matmul(call: _Call) -> Step:
    weight = call.constant(1)
    return call.affine(MatrixMap(weight=readings(weight)), roundings=weight.shape[0] + 2)


def _scaled(call: _Call, index: int, factor: float) -> ScaleMap:
    ones = np.full((1,) * len(call.after), factor)
    return ScaleMap(factor=readings(ones), before=call.shapes[call.node.inputs[index]], after=call.after)


def _sum(call: _Call) -> Step:
    signs = (1.0, -1.0 if call.node.op == "Sub" else 1.0)
    places = call.activations
    maps = tuple(_scaled(call, place, signs[place]) for place in places)
    constants = [place for place in (0, 1) if place not in places]
    offset = readings(signs[constants[0]] * call.broadcast(constants[0])) if constants else None
    return call.affine(*maps, offset=offset, roundings=2, inputs=places)


def _mul(call: _Call) -> Step:
    if len(call.activations) == 2:
        raise _Refusal("multiplies two activations")
    place = call.activations[0]
    factor = readings(call.broadcast(1 - place))
    moved = ScaleMap(factor=factor, before=call.shapes[call.node.inputs[place]], after=call.after)
    return call.affine(moved, roundings=2, inputs=(place,))


def _normalisation(call: _Call) -> Step:
    column = (-1,) + (1,) * (len(call.after) - 1)
    scale, bias, mean, variance = (call.constant(place).reshape(column) for place in range(1, 5))
    spread = variance + call.attribute("epsilon")
    if (spread < LEAST_VARIANCE).any() or (spread >= LARGEST).any():
        raise _Refusal("divides by a variance that float32 may flush to zero, or that overflows")
    inverse = 1 / np.sqrt(spread)
    factor = scale * inverse
    reach = at_least_one(scale) * at_least_one(inverse)
    offset: Mapping[Reading, Array] = {
        "signed": bias - mean * factor,
        "absolute": np.abs(bias) + np.abs(mean * factor),
        "reach": at_least_one(bias) + at_least_one(mean) * reach,
    }
    moved = ScaleMap(factor=readings(factor, reach), before=call.before, after=call.after)
    # mean: 1; epsilon, flush of it, root, quotient: 4; product: 1; bias: 1; once more if folded into weights before.
    return call.affine(moved, offset=offset, roundings=9)


def _move(call: _Call) -> Step:
    return call.affine(MoveMap(before=call.before, after=call.after), roundings=0)


def _transpose(call: _Call) -> Step:
    order = call.attribute("perm")[1:]
    return call.affine(MoveMap(before=call.before, after=call.after, order=order), roundings=0)


def _conv(call: _Call) -> Step:
    kernel = call.constant(1)
    offset = readings(call.constant(2)[:, None, None]) if len(call.node.inputs) == 3 else None
    moved = ConvMap(
        kernel=readings(kernel),
        before=call.before,
        strides=call.attribute("strides"),
        pads=call.attribute("pads")[:2],
        groups=call.attribute("group"),
    )
    return call.affine(moved, offset=offset, roundings=math.prod(kernel.shape[1:]) + 4)


def _windows(call: _Call) -> Int64[np.ndarray, "height width window"]:
    pads, strides = call.attribute("pads")[:2], call.attribute("strides")
    return windows(call.before[1:], call.attribute("kernel_shape"), strides, pads)  # type: ignore[arg-type]


def _average_pool(call: _Call) -> Step:
    kernel, channels = call.attribute("kernel_shape"), call.before[0]
    seen = (_windows(call) >= 0).sum(axis=2)
    counts = np.full(seen.shape, math.prod(kernel)) if call.attribute("count_include_pad") else seen
    # A convolution of each channel with ones is exact; the quotient is the one entry that is rounded. They are two
    # maps in real numbers, but one operator, so they are composed.
    ones = readings(np.ones((channels, 1, *kernel)))
    pool = ConvMap(
        kernel=ones,
        before=call.before,
        strides=call.attribute("strides"),
        pads=call.attribute("pads")[:2],
        groups=channels,
    )
    share = ScaleMap(factor=readings(1 / counts[None]), before=call.after, after=call.after)
    return call.affine(Chain(maps=(pool, share)), roundings=math.prod(kernel) + 4)


def _global_pool(call: _Call) -> Step:
    channels, *size = call.before
    ones = readings(np.ones((channels, 1, *size)))
    pool = ConvMap(kernel=ones, before=call.before, strides=(1, 1), pads=(0, 0), groups=channels)
    share = ScaleMap(factor=readings(np.full((1, 1, 1), 1 / math.prod(size))), before=call.after, after=call.after)
    return call.affine(Chain(maps=(pool, share)), roundings=math.prod(size) + 4)


def _relu(call: _Call) -> Step:
    return Relu(output=call.node.outputs[0], input=call.node.inputs[0])


def _max_pool(call: _Call) -> Step:
    channels, *size = call.before
    one = _windows(call).reshape(-1, math.prod(call.attribute("kernel_shape")))
    starts = (np.arange(channels) * math.prod(size))[:, None, None]
    places = np.where(one >= 0, one + starts, -1).reshape(-1, one.shape[1])
    return MaxPool(output=call.node.outputs[0], input=call.node.inputs[0], places=places)


def _refuse(_: _Call) -> Step:
    raise _Refusal("is not one that is bounded here")


_RULES: Mapping[str, Callable[[_Call], Step]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _sum,
    "Sub": _sum,
    "Mul": _mul,
    "Relu": _relu,
    "Flatten": _move,
    "Reshape": _move,
    "Identity": _move,
    "Transpose": _transpose,
    "Conv": _conv,
    "BatchNormalization": _normalisation,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
}


def make_plan(graph: Graph) -> Plan:
    """Read a graph for propagation.

    Raises:
        MalformedError: the graph is not in the profile at all.
    """
    types = check_graph(graph)
    shapes = {name: found.shape[1:] for name, found in types.items() if found.batched}
    edges = sum(len(node.inputs) for node in graph.nodes)
    steps: list[Step] = []
    for node in graph.nodes:
        try:
            steps.append(_RULES.get(node.op, _refuse)(_Call(node=node, shapes=shapes, constants=graph.initialisers)))
        except _Refusal as reason:
            return Plan(
                graph=graph, shapes=shapes, steps=(), edges=edges, refusal=f"{node.op} ({node.outputs[0]}) {reason}"
            )
    return Plan(graph=graph, shapes=shapes, steps=tuple(steps), edges=edges)
