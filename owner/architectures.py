"""Architectures as graphs, without a detour over a framework: a perceptron and a small residual network.

Proves nothing. The numbers in the graphs are placeholders of the right shape (weights zero); training
draws its own, see `training`. Source: He et al., "Deep residual learning" (the block of `small_conv`).
"""

import itertools

import numpy as np

from protocol.errors import OwnerError
from protocol.model.profile import Attribute, Graph, Node, check_graph, make_node

OPSET = 20


class _Layers:
    """A chain of nodes; each method appends to the current tensor and returns its name."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.current = "input"
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def apply(self, op: str, name: str, *inputs: str, **attributes: Attribute) -> str:
        self.nodes.append(make_node(op, inputs or (self.current,), name, **attributes))
        self.current = name
        return name

    def zeros(self, name: str, *shape: int) -> str:
        self.constants[name] = np.zeros(shape, np.float32)
        return name

    def linear(self, name: str, inner: int, outer: int) -> None:
        weight, bias = self.zeros(f"{name}.weight", outer, inner), self.zeros(f"{name}.bias", outer)
        self.apply("Gemm", name, self.current, weight, bias, transB=1)

    def convolution(self, name: str, inner: int, outer: int, *, stride: int = 1, kernel: int = 3) -> None:
        weight = self.zeros(f"{name}.weight", outer, inner, kernel, kernel)
        pads = (kernel // 2,) * 4
        strides, size = (stride, stride), (kernel, kernel)
        self.apply("Conv", name, self.current, weight, kernel_shape=size, pads=pads, strides=strides)
        self.normalisation(f"{name}.norm", outer)

    def normalisation(self, name: str, channels: int) -> None:
        values = [self.zeros(f"{name}.{part}", channels) for part in ("scale", "bias", "mean", "var")]
        for part in (values[0], values[3]):
            self.constants[part] = np.ones(channels, np.float32)
        self.apply("BatchNormalization", name, self.current, *values)

    def graph(self, classes: int) -> Graph:
        made = Graph(
            opset=OPSET,
            input="input",
            input_shape=self.shape,
            output=self.current,
            classes=classes,
            nodes=tuple(self.nodes),
            initialisers=self.constants,
        )
        check_graph(made)
        return made


def mlp(features: int | tuple[int, ...], hidden: tuple[int, ...] = (64, 128, 64), *, classes: int) -> Graph:
    """A perceptron with ReLU.

    Args:
        features: input values, or the shape of an input to flatten.
        hidden: widths of the layers between input and logits.
        classes: logits.

    Raises:
        OwnerError: a width below 1.
    """
    shape = features if isinstance(features, tuple) else (features,)
    if min(*shape, *hidden, classes) < 1:
        raise OwnerError(f"every width must be at least 1: {shape}, {hidden}, {classes}")
    layers = _Layers(shape)
    if len(shape) > 1:
        layers.apply("Flatten", "flat")
    widths = (int(np.prod(shape)), *hidden, classes)
    for index, (inner, outer) in enumerate(itertools.pairwise(widths)):
        layers.linear(f"layer{index}" if index < len(hidden) else "logits", inner, outer)
        if index < len(hidden):
            layers.apply("Relu", f"relu{index}")
    return layers.graph(classes)


def small_conv(shape: tuple[int, int, int], *, classes: int, width: int = 16, residual: bool = True) -> Graph:
    """A small convolutional network with batch normalisation and, unless told otherwise, residual blocks.

    Args:
        shape: channels, height, width of an image; at least 4 by 4.
        classes: logits.
        width: channels after the first convolution; the second half has twice as many.
        residual: add each block's input to its output.

    Raises:
        OwnerError: an image too small, or a width below 1.
    """
    channels, height, columns = shape
    if min(channels, classes, width) < 1 or min(height, columns) < 4:
        raise OwnerError(f"images of at least 4 x 4 and widths of at least 1, not {shape}, {width}, {classes}")
    layers = _Layers(shape)
    layers.convolution("stem", channels, width)
    layers.apply("Relu", "stem.relu")
    _block(layers, "block0", width, width, residual=residual)
    layers.apply("MaxPool", "pool0", kernel_shape=(2, 2), strides=(2, 2))
    _block(layers, "block1", width, 2 * width, residual=residual)
    layers.apply("AveragePool", "pool1", kernel_shape=(2, 2), strides=(2, 2))
    layers.apply("GlobalAveragePool", "pool2")
    layers.apply("Flatten", "flat")
    layers.linear("logits", 2 * width, classes)
    return layers.graph(classes)


def _block(layers: _Layers, name: str, inner: int, outer: int, *, residual: bool) -> None:
    start = layers.current
    layers.convolution(f"{name}.first", inner, outer)
    layers.apply("Relu", f"{name}.relu")
    layers.convolution(f"{name}.second", outer, outer)
    if residual:
        main = layers.current
        if inner != outer:
            layers.current = start
            layers.convolution(f"{name}.bypass", inner, outer, kernel=1)
            start = layers.current
        layers.apply("Add", f"{name}.sum", main, start)
    layers.apply("Relu", f"{name}.out")
