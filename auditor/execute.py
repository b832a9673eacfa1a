"""The auditor's interpreter of the model profile.

Runs a `Graph` node by node with torch on the CPU, in the arithmetic that claims are about:
IEEE float32, products neither in TF32 nor in bfloat16 nor by Winograd transforms, whatever
switches the surrounding process has set (`float32_arithmetic` sets them for the duration of a
run and puts them back). The order of summation is the library's, as a claim must hold for any.

Assumes a graph that `profile.parse` accepted or `auditor.compose` built. What it proves is one
thing only: what this runtime computes. Bits of a *base* output may depend on the runtime, the
machine and the number of records in a batch (another kernel is chosen), so outputs are compared
bit by bit only between runs over the same records and batch size; gate decisions are
exact integers and do not depend on any of that. A NaN among logits that are capped stays NaN here; other
runtimes may skip it (ReduceMax in onnxruntime does), so a base that overflows has no one capped output.

Source: SPEC 7; ONNX operator reference, https://onnx.ai/onnx/operators/.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor
from torch.nn import functional

from protocol.errors import AuditorError
from protocol.model.branches import branches
from protocol.model.graph import Graph, Node
from protocol.model.operators import BOOL, INT64

Kernel = Callable[[Sequence[Tensor], Mapping[str, Any]], Tensor | tuple[Tensor, ...]]


@contextmanager
def float32_arithmetic() -> Iterator[None]:
    """Plain float32 products on the CPU inside the block; the process's own settings come back after it."""
    settings: tuple[Any, ...] = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def _gemm(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    left, right, *bias = inputs
    product = left @ (right.transpose(-1, -2) if attributes["transB"] else right)
    if attributes["alpha"] != 1.0:
        product = product * attributes["alpha"]
    if bias:
        product = product + (bias[0] if attributes["beta"] == 1.0 else bias[0] * attributes["beta"])
    return product


def _reshape(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    data, target = inputs
    first, *sizes = target.tolist()
    if first not in ({-1} if attributes["allowzero"] else {-1, 0}):
        raise ValueError("the first axis must stay the batch")
    for axis, size in enumerate(sizes, start=1):
        if size == 0 and not attributes["allowzero"]:
            sizes[axis - 1] = data.shape[axis]
    if -1 in sizes:
        # Worked out from one record: for an empty batch the number of elements says nothing.
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(data.shape[1:]) // known
    return data.reshape(data.shape[0], *sizes)


def _padding(attributes: Mapping[str, Any]) -> list[int]:
    top, left, bottom, right = attributes["pads"]
    if (top, left) != (bottom, right):
        raise ValueError("padding differs between opposite sides")
    return [top, left]


def _conv(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    data, weight, *bias = inputs
    return functional.conv2d(
        data,
        weight,
        bias[0] if bias else None,
        stride=attributes["strides"],
        padding=_padding(attributes),
        groups=attributes["group"],
    )


def _batch_normalization(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    data, scale, offset, mean, variance = inputs
    shape = (-1,) + (1,) * (data.ndim - 2)
    factor = scale / torch.sqrt(variance + attributes["epsilon"])
    return (data - mean.reshape(shape)) * factor.reshape(shape) + offset.reshape(shape)


def _max_pool(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    return functional.max_pool2d(inputs[0], attributes["kernel_shape"], attributes["strides"], _padding(attributes))


def _average_pool(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    return functional.avg_pool2d(
        inputs[0],
        attributes["kernel_shape"],
        attributes["strides"],
        _padding(attributes),
        count_include_pad=bool(attributes["count_include_pad"]),
    )


def _reduce(reduce: Callable[[Tensor, list[int], bool], Tensor]) -> Kernel:
    def kernel(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
        return reduce(inputs[0], inputs[1].tolist(), bool(attributes["keepdims"]))

    return kernel


def _largest(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    if len(inputs) == 2:
        return inputs[0].amax(inputs[1].tolist(), bool(attributes["keepdims"]))
    # Of integers that are not negative; an empty batch has none, and 0 says the same as a batch of zeros.
    return torch.cat([inputs[0].reshape(-1), torch.zeros(1, dtype=inputs[0].dtype)]).max()


def _gather(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    # Indices from 0 up; index_select refuses any other, where indexing would count from the end.
    (data, index), axis = inputs, attributes["axis"]
    return data.index_select(axis, index.reshape(-1)).reshape(*data.shape[:axis], *index.shape, *data.shape[axis + 1 :])


def _cast(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    # NaN, infinity and what int64 cannot hold become some integer; a composed graph cuts it to a range.
    return inputs[0].to({INT64: torch.int64, BOOL: torch.bool}.get(attributes["to"], torch.float32))


def _scatter(inputs: Sequence[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    data, index, updates = inputs
    return data.scatter_reduce(attributes["axis"], index, updates, "amin", include_self=True)


OPERATORS: Mapping[str, Kernel] = {
    "Gemm": _gemm,
    "MatMul": lambda inputs, _: inputs[0] @ inputs[1],
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Relu": lambda inputs, _: functional.relu(inputs[0]),
    "Flatten": lambda inputs, _: inputs[0].flatten(1),
    "Reshape": _reshape,
    "Transpose": lambda inputs, attributes: inputs[0].permute(attributes["perm"]),
    "Identity": lambda inputs, _: inputs[0],
    "Conv": _conv,
    "BatchNormalization": _batch_normalization,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean(dim=(2, 3), keepdim=True),
    "Round": lambda inputs, _: torch.round(inputs[0]),  # half to even, as ONNX says
    "Max": lambda inputs, _: torch.maximum(inputs[0], inputs[1]),
    "Min": lambda inputs, _: torch.minimum(inputs[0], inputs[1]),
    "LessOrEqual": lambda inputs, _: inputs[0] <= inputs[1],  # false for NaN, like the next two
    "GreaterOrEqual": lambda inputs, _: inputs[0] >= inputs[1],
    "Greater": lambda inputs, _: inputs[0] > inputs[1],
    "Less": lambda inputs, _: inputs[0] < inputs[1],
    "And": lambda inputs, _: inputs[0] & inputs[1],
    "BitwiseAnd": lambda inputs, _: inputs[0] & inputs[1],
    "Cast": _cast,
    "ReduceMin": _reduce(torch.amin),
    "ReduceMax": _largest,
    "ReduceSum": _reduce(torch.sum),
    # torch documents the first index among equals, as ONNX does for select_last_index = 0.
    "ArgMax": lambda inputs, attributes: torch.argmax(inputs[0], attributes["axis"], bool(attributes["keepdims"])),
    "Unsqueeze": lambda inputs, _: inputs[0].unsqueeze(int(inputs[1])),
    "Gather": _gather,
    "Where": lambda inputs, _: torch.where(
        inputs[0], inputs[1], inputs[2]
    ),  # a selection: NaN in the branch not taken does no harm
    "Split": lambda inputs, attributes: inputs[0].tensor_split(attributes["num_outputs"], attributes["axis"]),
    "NonZero": lambda inputs, _: torch.nonzero(inputs[0]).T,  # places in row-major order, as ONNX lists them
    "ScatterElements": _scatter,
    "If": lambda inputs, _: inputs[1] if bool(inputs[0]) else inputs[2],
}
"""What each operator of the profile computes; attributes are complete, as `operators.normalise` left them."""


def apply(node: Node, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """What a node makes of its inputs, by name."""
    made = OPERATORS[node.op](inputs, node.attributes)
    return dict(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))


def needed_nodes(graph: Graph, outputs: Sequence[str]) -> tuple[Node, ...]:
    """The nodes, in order, on which `outputs` depend."""
    wanted = set(outputs)
    chosen = []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            chosen.append(node)
            wanted.update(node.inputs)
    return tuple(reversed(chosen))


def tensor(array: np.ndarray) -> Tensor:
    """A torch copy of an array (read-only ones included)."""
    return torch.from_numpy(np.array(array))


class Program:
    """A graph, ready to run.

    Args:
        graph: a parsed or composed graph; its constants are copied.

    Raises:
        AuditorError: the graph uses an operator that this interpreter does not have.
    """

    def __init__(self, graph: Graph) -> None:
        unknown = sorted({node.op for node in graph.nodes} - OPERATORS.keys())
        if unknown:
            raise AuditorError(f"the operator {unknown[0]} is not one this program runs")
        self.graph = graph
        self._constants = {name: tensor(array) for name, array in graph.initialisers.items()}

    @overload
    def __call__(
        self, x: Float32[np.ndarray, "record ..."], *, outputs: None = None, batch: int = ...
    ) -> Shaped[np.ndarray, "record ..."]: ...

    @overload
    def __call__(
        self, x: Float32[np.ndarray, "record ..."], *, outputs: tuple[str, ...], batch: int = ...
    ) -> tuple[Shaped[np.ndarray, "record ..."], ...]: ...

    def __call__(
        self, x: Float32[np.ndarray, "record ..."], *, outputs: tuple[str, ...] | None = None, batch: int = 256
    ) -> Shaped[np.ndarray, "record ..."] | tuple[Shaped[np.ndarray, "record ..."], ...]:
        """Run all records, `batch` of them at a time.

        Args:
            x: the records as the model takes them; NaN and infinities are allowed.
            outputs: names of tensors made from the input; None for the graph's output alone.
            batch: records per run, at least 1. Give the same one where bits are to be compared; `memory.batch_limit`
                says how many a graph should be given.

        Returns:
            The output's array, or one array per named tensor (of a list of places, what the batches list, one after
            another). Nothing is kept between calls.

        Raises:
            AuditorError: `x` is not what the graph takes, an output is unknown, or a node can't
                be run on its inputs (only in graphs that were not parsed).
        """
        names = (self.graph.output,) if outputs is None else outputs
        if x.dtype != np.float32 or x.shape[1:] != self.graph.input_shape or batch < 1:
            raise AuditorError(
                f"the model takes float32 records of shape {self.graph.input_shape} in batches of at least 1,"
                f" not {x.dtype} of shape {x.shape[1:]}"
            )
        nodes = needed_nodes(self.graph, names)
        made = {output for node in nodes for output in node.outputs} | {self.graph.input}
        if missing := [name for name in names if name not in made]:
            raise AuditorError(f"the graph computes no tensor named {missing[0]!r}")
        last = {name: place for place, node in enumerate(nodes) for name in node.inputs}
        parts: list[list[np.ndarray]] = [[] for _ in names]
        with torch.no_grad(), float32_arithmetic():
            for start in range(0, max(1, len(x)), batch):
                values = self._run(nodes, last, frozenset(names), tensor(x[start : start + batch]))
                for part, name in zip(parts, names, strict=True):
                    part.append(values[name].numpy())
        arrays = tuple(np.concatenate(part) for part in parts)
        return arrays[0] if outputs is None else arrays

    def _run(
        self, nodes: Sequence[Node], last: Mapping[str, int], keep: frozenset[str], x: Tensor
    ) -> dict[str, Tensor]:
        values = {self.graph.input: x}
        # Ifs by the place of what makes their condition: behind it stands the branch, which is left out where the
        # condition is false, unless somebody asked for a tensor of it.
        ifs = {branch.start: branch.end for branch in branches(nodes)}
        skip_to = 0
        for place, node in enumerate(nodes):
            if place < skip_to:
                continue
            inputs = [values[name] if name in values else self._constants[name] for name in node.inputs]
            try:
                values |= apply(node, inputs)
            except (RuntimeError, IndexError, TypeError, ValueError) as error:
                raise AuditorError(f"can't run {node.op}: {error}", where=node.name) from None
            # An activation is let go after its last use: a deep net over large images would not fit otherwise.
            for name in node.inputs:
                if last[name] == place and name not in keep:
                    values.pop(name, None)
            end = ifs.get(place)
            inside = nodes[place + 1 : end] if end is not None else ()
            if end is None or bool(values[node.outputs[0]]) or any(keep & set(one.outputs) for one in inside):
                continue
            values[nodes[end].outputs[0]] = values[nodes[end].inputs[2]]
            skip_to = end + 1
        return values
