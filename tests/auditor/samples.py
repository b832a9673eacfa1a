"""Random small models, schemas and patches for the tests of both readings of the model format."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from auditor.execute import Program
from protocol.model.graph import Graph, Node
from protocol.model.operators import MAX_OPSET, make_node
from protocol.model.parts import (
    SCREENS,
    AffineHead,
    AlwaysGate,
    FeatureGate,
    Gate,
    Head,
    Part,
    RegionGate,
    SetHead,
    ShiftHead,
    SketchGate,
    Weight,
)
from protocol.model.patch import Cap, Patch
from protocol.model.schema import InputSchema


class Builder:
    """Adds nodes one after the other; weights come from the generator."""

    def __init__(self, random: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.random = random
        self.input_shape = shape
        self.shape = shape
        self.last = "x"
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def weight(self, *shape: int, scale: float = 0.5, positive: bool = False) -> str:
        values = self.random.normal(size=shape) * scale
        return self.constant((np.abs(values) + 0.1 if positive else values).astype(np.float32))

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.constants)}"
        self.constants[name] = array
        return name

    def apply(self, op: str, *inputs: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> None:
        name = f"t{len(self.nodes)}"
        self.nodes.append(make_node(op, inputs, name, **attributes))
        self.last = name
        self.shape = self.shape if shape is None else shape

    def linear(self, outputs: int, kind: str) -> None:
        size = self.shape[0]
        if kind == "matmul":
            self.apply("MatMul", self.last, self.weight(size, outputs), shape=(outputs,))
            self.apply("Add", self.last, self.weight(outputs))
        elif kind == "gemm":
            self.apply("Gemm", self.last, self.weight(size, outputs), shape=(outputs,), alpha=0.5)
        else:
            bias = self.weight(outputs)
            self.apply("Gemm", self.last, self.weight(outputs, size), bias, shape=(outputs,), transB=1, beta=2.0)

    def flatten(self) -> None:
        self.apply("Flatten", self.last, shape=(int(np.prod(self.shape)),))

    def graph(self, *, opset: int = 18) -> Graph:
        return Graph(
            opset=opset,
            input="x",
            input_shape=self.input_shape,
            output=self.last,
            classes=self.shape[0],
            nodes=tuple(self.nodes),
            initialisers=self.constants,
        )


def mlp(sizes: Sequence[int], *, seed: int = 0) -> Graph:
    """Gemm and Relu layers, as torch exports them."""
    builder = Builder(np.random.default_rng(seed), (sizes[0],))
    for place, size in enumerate(sizes[1:]):
        if place:
            builder.apply("Relu", builder.last)
        weight, bias = builder.weight(size, builder.shape[0]), builder.weight(size)
        builder.apply("Gemm", builder.last, weight, bias, shape=(size,), transB=1)
    return builder.graph()


def conv_net(*, seed: int = 0, side: int = 6, classes: int = 3) -> Graph:
    """Convolution, BatchNormalization, pooling, linear."""
    builder = Builder(np.random.default_rng(seed), (1, side, side))
    kernel = builder.weight(4, 1, 3, 3)
    builder.apply("Conv", "x", kernel, shape=(4, side, side), kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    names = [builder.weight(4), builder.weight(4), builder.weight(4), builder.weight(4, positive=True)]
    builder.apply("BatchNormalization", builder.last, *names)
    builder.apply("Relu", builder.last)
    half = side // 2
    builder.apply("MaxPool", builder.last, shape=(4, half, half), kernel_shape=(2, 2), strides=(2, 2))
    builder.flatten()
    bias, weight = builder.weight(classes), builder.weight(classes, builder.shape[0])
    builder.apply("Gemm", builder.last, weight, bias, shape=(classes,), transB=1)
    return builder.graph()


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any mixture of the base operators that fits together."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = draw(st.booleans())
    channels, height, width = draw(st.integers(1, 3)), draw(st.integers(4, 6)), draw(st.integers(4, 6))
    builder = Builder(random, (channels, height, width) if image else (draw(st.integers(1, 6)),))
    if image:
        _image_part(draw, builder)
        if draw(st.booleans()):
            target = draw(st.sampled_from([[0, -1], [-1, int(np.prod(builder.shape))]]))
            shape = (int(np.prod(builder.shape)),)
            builder.apply("Reshape", builder.last, builder.constant(np.array(target, np.int64)), shape=shape)
        else:
            builder.flatten()
    for _ in range(draw(st.integers(0, 2))):
        builder.linear(draw(st.integers(2, 5)), draw(st.sampled_from(["matmul", "gemm", "bias"])))
        builder.apply(draw(st.sampled_from(["Relu", "Identity"])), builder.last)
        if draw(st.booleans()):
            names = [builder.weight(builder.shape[0], positive=place == 3) for place in range(4)]
            builder.apply("BatchNormalization", builder.last, *names, epsilon=1e-3)
        op = draw(st.sampled_from(["Sub", "Mul", "residual", ""]))
        if op == "residual":
            builder.apply("Add", builder.last, builder.last)
        elif op:
            builder.apply(op, builder.last, builder.weight(builder.shape[0]))
    builder.linear(draw(st.integers(2, 4)), draw(st.sampled_from(["matmul", "gemm", "bias"])))
    return builder.graph(opset=draw(st.integers(14, MAX_OPSET)))


def _image_part(draw: st.DrawFn, builder: Builder) -> None:
    channels, height, width = builder.shape
    group = channels if draw(st.booleans()) else 1
    pad, stride = draw(st.integers(0, 1)), draw(st.integers(1, 2))
    size = [(side + 2 * pad - 3) // stride + 1 for side in (height, width)]
    inputs = [builder.weight(2 * group, channels // group, 3, 3)]
    if draw(st.booleans()):
        inputs.append(builder.weight(2 * group))
    windows = {"kernel_shape": (3, 3), "pads": (pad,) * 4, "strides": (stride, stride), "group": group}
    builder.apply("Conv", builder.last, *inputs, shape=(2 * group, *size), **windows)
    if draw(st.booleans()):
        names = [builder.weight(2 * group, positive=place == 3) for place in range(4)]
        builder.apply("BatchNormalization", builder.last, *names)
    builder.apply("Relu", builder.last)
    pool = draw(st.sampled_from(["", "MaxPool", "AveragePool", "GlobalAveragePool", "Transpose"]))
    if pool in {"MaxPool", "AveragePool"}:
        pads = draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 1, 0)]))
        size = [side + 2 * pads[axis] - 2 + 1 for axis, side in enumerate(size)]
        extra = {"count_include_pad": draw(st.integers(0, 1))} if pool == "AveragePool" else {}
        if min(size) >= 1:
            shape = (2 * group, *size)
            builder.apply(pool, builder.last, shape=shape, kernel_shape=(2, 2), pads=pads, **extra)
    elif pool == "GlobalAveragePool":
        builder.apply(pool, builder.last, shape=(2 * group, 1, 1))
    elif pool == "Transpose":
        builder.apply(pool, builder.last, shape=(size[0], size[1], 2 * group), perm=(0, 2, 3, 1))


def grid_schema(shape: tuple[int, ...], *, scale: float, offset: float, low: int, high: int) -> InputSchema:
    """Every column alike."""
    return InputSchema.uniform(shape, scale=scale, offset=offset, low=low, high=high)


def rebuilt(
    patch: Patch,
    *,
    gate: Gate | None = None,
    rows: np.ndarray | None = None,
    index: np.ndarray | None = None,
    caps: tuple[Cap, ...] | None = None,
) -> Patch:
    """A patch of one part whose head sets rows, with some of it changed."""
    (part,) = patch.parts
    assert isinstance(part.head, SetHead)
    head = SetHead(rows=part.head.rows if rows is None else rows, index=part.head.index if index is None else index)
    return replace(
        patch,
        parts=(Part(gate=part.gate if gate is None else gate, head=head),),
        caps=patch.caps if caps is None else caps,
    )


@st.composite
def schemas(draw: st.DrawFn, shape: tuple[int, ...]) -> InputSchema:
    """A coarse grid, so that random records share cells; columns differ."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features = int(np.prod(shape))
    low = random.integers(-4, 1, features)
    return InputSchema.from_columns(
        shape,
        scale=random.choice([-2.0, 0.7, 1.0, 3.0], features),
        offset=random.choice([0.0, 0.5, -1.3], features),
        low=low,
        high=low + random.integers(1, 9, features),
    )


def _words(random: np.random.Generator, draw: st.DrawFn, items: int) -> int:
    # Now and then more items than fit into one word of a screen.
    return items if draw(st.integers(0, 3)) else int(random.integers(60, 135))


def _sketch_gate(draw: st.DrawFn, random: np.random.Generator, features: int, centres: np.ndarray) -> SketchGate:
    items, components = _words(random, draw, draw(st.integers(1, 5))), draw(st.integers(1, 9))
    matrix = random.integers(-2, 3, (components, features)).astype(np.int32)
    spread = random.integers(0, 12, (items, components))
    sketches = centres[random.integers(0, len(centres), items)].astype(np.int64) @ matrix.T
    looked_at = draw(st.sampled_from([0, *(size for size in SCREENS if size <= components)]))
    return SketchGate(
        matrix=matrix,
        low=(sketches - spread).astype(np.int32),
        high=(sketches + spread).astype(np.int32),
        screen=np.sort(random.permutation(components)[:looked_at]) if looked_at else None,
        branch=bool(looked_at) and draw(st.booleans()),
    )


def _gate(draw: st.DrawFn, random: np.random.Generator, graph: Graph, schema: InputSchema, centres: np.ndarray) -> Gate:
    kind = draw(st.sampled_from(["sketch", "sketch", "feature", "linear-region", "always"]))
    if kind == "sketch":
        return _sketch_gate(draw, random, schema.features, centres)
    if kind == "always":
        return AlwaysGate()
    items = draw(st.integers(1, 4))
    x = schema.dequantise(centres[random.integers(0, len(centres), items)])
    if kind == "feature":
        tensor = draw(st.sampled_from([output for node in graph.nodes for output in node.outputs]))
        (values,) = Program(graph)(x, outputs=(tensor,))
        middle = values.reshape(items, -1)
        width = random.uniform(0, draw(st.sampled_from([2, 40])), middle.shape).astype(np.float32)
        return FeatureGate(tensor=tensor, low=middle - width, high=middle + width)
    weights = random.normal(size=(items, draw(st.integers(1, 3)), schema.features)).astype(np.float32)
    products = np.einsum("ihd,id->ih", weights, x.reshape(items, -1))
    return RegionGate(
        weights=weights,
        bounds=(products + random.uniform(-0.5, draw(st.sampled_from([4, 40])), products.shape)).astype(np.float32),
    )


def _head(draw: st.DrawFn, random: np.random.Generator, *, items: int, features: int, classes: int) -> Head:
    count = draw(st.integers(1, min(items, 5)))
    rows = random.normal(size=(count, classes)).astype(np.float32)
    index = random.permutation(np.concatenate([np.arange(count), random.integers(0, count, items - count)]))
    kind = draw(st.sampled_from(["set", "set", "shift", "affine"]))
    if kind == "set":
        return SetHead(rows=rows, index=index)
    if kind == "shift":
        return ShiftHead(rows=rows, index=index)
    weights = random.normal(size=(count, classes, features)).astype(np.float32)
    return AffineHead(weights=weights, rows=rows, index=index)


@st.composite
def weights_for(draw: st.DrawFn, graph: Graph) -> tuple[Weight, ...]:
    """New values for none, some or all of a base's float32 constants; variances stay positive."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = sorted(name for name, array in graph.initialisers.items() if array.dtype == np.float32)
    names = [name for name in names if random.random() < draw(st.sampled_from([0, 0, 0.5, 1]))]
    grown = ((name, graph.initialisers[name]) for name in names)
    factors = random.uniform(1.1, 2, len(names)).astype(np.float32)
    changed = [(name, array, array * factor) for (name, array), factor in zip(grown, factors, strict=True)]
    # What is all zeros stays what it is, and is no new value.
    return tuple(Weight(name=name, values=new) for name, old, new in changed if new.tobytes() != old.tobytes())


@st.composite
def patches(draw: st.DrawFn, graph: Graph, schema: InputSchema, centres: np.ndarray) -> Patch:
    """A patch of up to three parts, with items around some of the grid points `centres`, so that they fire."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = graph.classes
    caps = tuple(
        Cap(klass=int(klass), margin=str(random.choice(["0", "0.5", "1.25"])))
        for klass in random.permutation(classes)[: draw(st.integers(0, min(2, classes - 1)))]
    )
    parts = []
    for _ in range(draw(st.integers(0 if caps else 1, 3))):
        gate = _gate(draw, random, graph, schema, centres)
        head = _head(draw, random, items=gate.items, features=schema.features, classes=classes)
        parts.append(Part(gate=gate, head=head))
    weights = draw(weights_for(graph))
    return Patch(features=schema.features, classes=classes, parts=tuple(parts), caps=caps, weights=weights)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Graph, InputSchema, Patch, np.ndarray]:
    """Base, schema, patch, and records on, off and between the grid, some outside it, some NaN or infinite."""
    graph = draw(graphs())
    schema = draw(schemas(graph.input_shape))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = random.integers(schema.low, schema.high + 1, (12, schema.features))
    patch = draw(patches(graph, schema, grid))
    x = schema.dequantise(grid).reshape(12, -1)
    x[3:6] += random.uniform(-0.7, 0.7, x[3:6].shape).astype(np.float32)
    # Exactly half-way between two grid values, or on an edge of the box, up to float32.
    x[6:9] += (np.float32(0.5) / schema.scale) * random.integers(-1, 2, x[6:9].shape).astype(np.float32)
    odd = draw(st.sampled_from([0.0, np.nan, np.inf, -np.inf, 1e30]))
    x[9, random.integers(schema.features)] += np.float32(odd)
    x[10] *= 3
    return graph, schema, patch, x.reshape(12, *graph.input_shape)
