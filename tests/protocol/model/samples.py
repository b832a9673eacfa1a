"""Random graphs inside the profile, and ONNX files that are nearly inside it."""

import io
import warnings

import numpy as np
import onnx
import torch
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from protocol.model.patch import (
    AffineHead,
    AlwaysGate,
    Cap,
    FeatureGate,
    Part,
    Patch,
    RegionGate,
    SetHead,
    ShiftHead,
    SketchGate,
    Weight,
)
from protocol.model.profile import Graph, make_node
from protocol.model.schema import InputSchema


class Chain:
    """Builds a graph layer by layer, keeping track of the current shape (without the batch)."""

    def __init__(self, shape, rng):
        self.input_shape, self.shape, self.rng = shape, shape, rng
        self.current, self.nodes, self.constants = "x", [], {}

    def apply(self, op, *inputs, **attributes):
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(make_node(op, (self.current, *inputs), name, **attributes))
        self.current = name
        return name

    def constant(self, *shape, low=-1.0, high=1.0):
        name = f"c{len(self.constants)}"
        self.constants[name] = self.rng.uniform(low, high, shape).astype(np.float32)
        return name

    def sizes(self, *values):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(values, np.int64)
        return name

    def graph(self, opset=20):
        return Graph(
            opset=opset,
            input="x",
            input_shape=self.input_shape,
            output=self.current,
            classes=self.shape[0],
            nodes=tuple(self.nodes),
            initialisers=self.constants,
        )


def _dense(chain, draw, width):
    if len(chain.shape) > 1:
        total = int(np.prod(chain.shape))
        match draw(st.sampled_from(["flatten", "rest", "same"])):
            case "flatten":
                chain.apply("Flatten")
            case "rest":
                chain.apply("Reshape", chain.sizes(-1, total))
            case "same":
                chain.apply("Reshape", chain.sizes(0, -1), allowzero=0)
        chain.shape = (total,)
    inner = chain.shape[0]
    match draw(st.sampled_from(["gemm", "gemm_t", "gemm_scaled", "gemm_nobias", "matmul"])):
        case "gemm":
            chain.apply("Gemm", chain.constant(inner, width), chain.constant(1, width))
        case "gemm_t":
            chain.apply("Gemm", chain.constant(width, inner), chain.constant(width), transB=1)
        case "gemm_scaled":
            chain.apply("Gemm", chain.constant(width, inner), chain.constant(width), transB=1, alpha=0.3, beta=1.7)
        case "gemm_nobias":
            chain.apply("Gemm", chain.constant(inner, width), alpha=draw(st.sampled_from([1.0, 0.5])))
        case "matmul":
            chain.apply("MatMul", chain.constant(inner, width))
            chain.apply("Add", chain.constant(width))
    chain.shape = (width,)


def _small(chain, draw):
    match draw(st.sampled_from(["relu", "mul", "sub", "norm", "identity", "residual", "none"])):
        case "relu":
            chain.apply("Relu")
        case "mul":
            chain.apply("Mul", chain.constant())
        case "sub":
            chain.apply("Sub", chain.constant(*chain.shape))
        case "identity":
            chain.apply("Identity")
        case "norm":
            channels = chain.shape[0]
            parts = [chain.constant(channels) for _ in range(3)]
            chain.apply("BatchNormalization", *parts, chain.constant(channels, low=0.1), epsilon=1e-3)
        case "residual":
            before = chain.current
            chain.apply("Relu")
            chain.apply("Add", before)


def _convolution(chain, draw):
    channels, height, width = chain.shape
    group = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0]))
    out = group * draw(st.integers(1, 3))
    kernel = (draw(st.integers(1, min(3, height))), draw(st.integers(1, min(3, width))))
    pads = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    strides = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    inputs = [chain.constant(out, channels // group, *kernel)]
    if draw(st.booleans()):
        inputs.append(chain.constant(out))
    chain.apply("Conv", *inputs, group=group, kernel_shape=kernel, pads=pads * 2, strides=strides)
    chain.shape = (out, *_slid(chain.shape[1:], kernel, pads, strides))


def _slid(sizes, kernel, pads, strides):
    return tuple((n + 2 * p - k) // s + 1 for n, k, p, s in zip(sizes, kernel, pads, strides, strict=True))


def _pool(chain, draw):
    sizes = chain.shape[1:]
    kernel = tuple(draw(st.integers(1, min(3, size))) for size in sizes)
    pads = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    strides = tuple(draw(st.integers(1, 2)) for _ in range(2))
    kind = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    extra = {"count_include_pad": draw(st.integers(0, 1))} if kind == "AveragePool" else {}
    chain.apply(kind, kernel_shape=kernel, pads=pads * 2, strides=strides, **extra)
    chain.shape = (chain.shape[0], *_slid(sizes, kernel, pads, strides))


@st.composite
def graphs(draw):
    """A perceptron, or a convolutional net that ends in one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        chain = Chain((draw(st.integers(1, 8)),), rng)
    else:
        chain = Chain((draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 7))), rng)
        for _ in range(draw(st.integers(0, 3))):
            draw(st.sampled_from([_convolution, _pool]))(chain, draw)
            _small(chain, draw)
        if draw(st.booleans()):
            chain.apply("Transpose", perm=(0, 2, 3, 1))
            chain.shape = (*chain.shape[1:], chain.shape[0])
        if draw(st.booleans()):
            chain.apply("GlobalAveragePool")
            chain.shape = (chain.shape[0], 1, 1)
    for _ in range(draw(st.integers(0, 2))):
        _dense(chain, draw, draw(st.integers(1, 9)))
        _small(chain, draw)
    _dense(chain, draw, draw(st.integers(1, 5)))
    return chain.graph(draw(st.integers(11, 24)))


def perceptron(features=4, classes=3, seed=0):
    chain = Chain((features,), np.random.default_rng(seed))
    chain.apply("Gemm", chain.constant(5, features), chain.constant(5), transB=1)
    chain.apply("Relu")
    chain.apply("Gemm", chain.constant(classes, 5), chain.constant(classes), transB=1)
    chain.shape = (classes,)
    return chain.graph()


@st.composite
def schemas(draw, shape=None):
    """Schemas with all kinds of columns."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)) if shape is None else shape
    count = int(np.prod(shape))
    kinds = draw(st.lists(st.sampled_from(["grid", "grid", "binary", "onehot"]), min_size=count, max_size=count))
    ranges = [(0, 1) if kind != "grid" else draw(_RANGES) for kind in kinds]
    return InputSchema.from_columns(
        shape,
        scale=np.array([draw(_SCALES) for _ in kinds]),
        offset=np.array([draw(st.integers(-40, 40)) / 8 for _ in kinds]),
        low=np.array([low for low, _ in ranges]),
        high=np.array([high for _, high in ranges]),
        kind=tuple(kinds),
        group=np.array([draw(st.integers(0, 2)) if kind == "onehot" else -1 for kind in kinds]),
        names=draw(st.sampled_from([(), tuple(f"column {n}" for n in range(count))])),
    )


_RANGES = st.tuples(st.integers(-100, 100), st.integers(0, 300)).map(lambda t: (t[0], t[0] + t[1]))
_SCALES = st.sampled_from([1.0, 16.0, 255.0, 127.5, -3.0, 0.1, 1e-3])


def _gate(draw, rng, features, tensor):
    kinds = ["sketch", "screened", "linear-region", "always"] + ["feature"] * (tensor is not None)
    kind, items = draw(st.sampled_from(kinds)), draw(st.integers(1, 5))
    if kind == "always":
        return AlwaysGate()
    if kind == "feature":
        low = rng.normal(-0.5, 1, (items, tensor[1])).astype(np.float32)
        return FeatureGate(tensor=tensor[0], low=low, high=low + rng.exponential(3, low.shape).astype(np.float32))
    if kind == "linear-region":
        weights = rng.normal(size=(items, draw(st.integers(1, 3)), features)).astype(np.float32)
        return RegionGate(weights=weights, bounds=rng.normal(2, 5, weights.shape[:2]).astype(np.float32))
    components = draw(st.integers(1, 3))
    if kind == "screened":  # several words of the table
        items, components = draw(st.integers(1, 150)), draw(st.integers(1, 9))
    low = rng.integers(-200, 200, (items, components), dtype=np.int32)
    width = rng.integers(0, draw(st.sampled_from([3, 300])), low.shape, dtype=np.int32)
    matrix = rng.integers(-3, 4, (components, features), dtype=np.int32)
    screen = None
    if kind == "screened":
        looked_at = draw(st.sampled_from([count for count in (1, 2, 4, 8) if count <= components]))
        screen = np.sort(rng.choice(components, looked_at, replace=False)).astype(np.int64)
    return SketchGate(
        matrix=matrix, low=low, high=low + width, screen=screen, branch=screen is not None and draw(st.booleans())
    )


def _head(draw, rng, items, features, classes):
    count = draw(st.integers(1, items))
    index = rng.permutation(np.concatenate([np.arange(count), rng.integers(0, count, items - count)]))
    rows = rng.normal(size=(count, classes)).astype(np.float32)
    match draw(st.sampled_from(["set", "shift", "affine"])):
        case "set":
            return SetHead(rows=rows, index=index)
        case "shift":
            return ShiftHead(rows=rows, index=index)
    weights = rng.normal(size=(count, classes, features)).astype(np.float32)
    return AffineHead(weights=weights, rows=rows, index=index)


@st.composite
def patches(draw, features=None, classes=None, tensor=None, weighted=False):
    """Patches with parts, caps, or both; `tensor` is an activation's name and size, for feature gates."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    features = draw(st.integers(1, 6)) if features is None else features
    classes = draw(st.integers(1, 4)) if classes is None else classes
    parts = []
    for _ in range(draw(st.integers(1 if classes == 1 else 0, 3))):
        gate = _gate(draw, rng, features, tensor)
        parts.append(Part(gate=gate, head=_head(draw, rng, gate.items, features, classes)))
    some = st.lists(st.integers(0, classes - 1), unique=True, min_size=0 if parts else 1, max_size=max(0, classes - 1))
    margins = st.sampled_from(["0", "1", "0.5", "0.1", "0.0000001"])
    capped = [] if classes == 1 else draw(some)
    caps = tuple(Cap(klass=klass, margin=draw(margins)) for klass in capped)
    weights = draw(st.sampled_from([(), (), ("a",), ("a", "b/c")]))
    return Patch(
        features=features, classes=classes, parts=tuple(parts), caps=caps,
        weights=tuple(Weight(name=name, values=rng.normal(size=(2, 3)[: len(name)]).astype(np.float32))
                      for name in weights) if weighted else (),
    )  # fmt: skip


def rows_patch(features, classes, gate, rows, row_of_item, caps=()):
    """A patch of at most one part, whose head sets rows."""
    parts = () if gate is None else (Part(gate=gate, head=SetHead(rows=rows, index=row_of_item)),)
    return Patch(features=features, classes=classes, parts=parts, caps=caps)


def proto(nodes, constants=(), *, shape=("N", 4), out=("N", 3), opset=20, ir=9, **extra):
    """An ONNX model as somebody else would write it: input `x`, output `y`."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()]
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, **extra)


def gemm_proto(**more):
    """A model that is fine, to spoil."""
    constants = {"w": np.ones((4, 3), np.float32), "b": np.zeros(3, np.float32)}
    return proto([helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="last")], constants, **more)


def torch_export(module, shape, *, dynamo, fixed=False):
    """What plain `torch.onnx.export` writes."""
    example = torch.zeros(2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not dynamo:
            axes = {} if fixed else {"input": {0: "batch"}}
            buffer = io.BytesIO()
            torch.onnx.export(module, (example,), buffer, dynamo=False, input_names=["input"], dynamic_axes=axes)
            return buffer.getvalue()
        batch = None if fixed else ({0: torch.export.Dim("batch")},)
        program = torch.onnx.export(module, (example,), dynamo=True, verbose=False, dynamic_shapes=batch)
        return program.model_proto.SerializeToString()


def changed(data, change):
    """The file with `change` applied to its protobuf message."""
    model = onnx.ModelProto.FromString(data)
    change(model)
    return model.SerializeToString()
