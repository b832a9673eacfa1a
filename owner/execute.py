"""Runs a `Graph` with torch, for the owner: records in, logits (or any inner tensors) out.

Proves nothing about other runtimes: sums may be added up in another order there, so logits of a
deep model agree within rounding only (SPEC 7.8); within one call every output belongs to one run,
so a tensor and what is selected from it agree bit for bit. Assumes a checked graph. TF32, bf16 and
similar shortcuts stay off, and everything runs on the CPU. Does not train; see `training`.
Source: SPEC 7.3 (operators); ONNX operator reference.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor
from torch.nn import functional

from owner.windows import average_pool, convolution, max_pool
from protocol.errors import OwnerError
from protocol.model.branches import Branch, branches
from protocol.model.operators import BOOL, INT64
from protocol.model.profile import BATCH, Graph, Node, check_graph
from protocol.model.tensor_types import TensorType

Apply = Callable[[Node, Sequence[Tensor]], Tensor]
_FAR = 2.0**40
"""Beyond any cell of a screen, and exact as float32 and int64."""
_ACTIVATION_BUDGET = 1 << 26
"""Elements of the largest activation of one batch: 256 MiB of float32."""


def _gemm(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    alpha, beta = _number(node, "alpha"), _number(node, "beta")
    weight = inputs[1] if node.attributes["transB"] else inputs[1].T
    bias = inputs[2].reshape(-1) if len(inputs) > 2 else None
    if alpha == 1.0 and (bias is None or beta == 1.0):
        return functional.linear(inputs[0], weight, bias)
    product: Tensor = alpha * functional.linear(inputs[0], weight)
    return product if bias is None else product + beta * bias


def _number(node: Node, name: str) -> Any:
    return node.attributes[name]


def _normalisation(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, scale, bias, mean, variance = inputs
    return functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=_number(node, "epsilon"))


def _argmax(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    # torch leaves open which of several greatest elements argmax names; ONNX wants the first one.
    x, axis = inputs[0], _number(node, "axis")
    greatest = x.amax(dim=axis, keepdim=True)
    places = torch.arange(x.shape[axis], device=x.device).reshape(-1, *[1] * (x.ndim - axis - 1))
    first = torch.where(x == greatest, places, x.shape[axis] - 1).amin(dim=axis, keepdim=True)
    return first if node.attributes["keepdims"] else first.squeeze(axis)


def _gather(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    table, index = inputs
    axis = _number(node, "axis")
    picked = torch.index_select(table, axis, index.reshape(-1))
    return picked.reshape(*table.shape[:axis], *index.shape, *table.shape[axis + 1 :])


def _cast(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    if _number(node, "to") == BOOL:
        return inputs[0].to(torch.bool)
    if _number(node, "to") != INT64:
        return inputs[0].to(torch.float32)
    # NaN may become any integer (SPEC 7.9); here it becomes 0, for torch leaves it to the machine.
    return torch.nan_to_num(inputs[0], nan=0.0, posinf=_FAR, neginf=-_FAR).clamp(-_FAR, _FAR).to(torch.int64)


def _scatter(_: Node, inputs: Sequence[Tensor]) -> Tensor:
    data, index, updates = inputs
    return data.scatter_reduce(0, index, updates, reduce="amin", include_self=True)


def _split(_: Node, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return inputs[0].chunk(2, dim=1)


def _reduce(reduce: Callable[..., Tensor]) -> Apply:
    def apply(node: Node, inputs: Sequence[Tensor]) -> Tensor:
        return reduce(inputs[0], dim=int(inputs[1][0]), keepdim=bool(node.attributes["keepdims"]))

    return apply


def _greatest(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    if len(inputs) > 1:
        return _reduce(torch.amax)(node, inputs)
    return inputs[0].amax() if inputs[0].numel() else torch.tensor(0)  # nothing is in an empty batch


def _plain(function: Callable[..., Tensor]) -> Apply:
    return lambda _, inputs: function(*inputs)


def _reshape(_: Node, inputs: Sequence[Tensor]) -> Tensor:
    # The checker saw to it that the first entry stands for the batch; 0 keeps a size, -1 is what is left.
    x, sizes = inputs[0], [int(size) for size in inputs[1]]
    kept = [x.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    return x.reshape([x.shape[0], *kept[1:]])


OPERATORS: Mapping[str, Apply] = {
    "Gemm": _gemm,
    "MatMul": _plain(torch.matmul),
    "Add": _plain(torch.add),
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Relu": _plain(torch.relu),
    "Flatten": _plain(lambda x: x.flatten(1)),
    "Reshape": _reshape,
    "Transpose": lambda node, inputs: inputs[0].permute(_number(node, "perm")),
    "Identity": _plain(lambda x: x),
    "Conv": lambda node, inputs: convolution(node.attributes, *inputs),
    "BatchNormalization": _normalisation,
    "MaxPool": lambda node, inputs: max_pool(node.attributes, inputs[0]),
    "AveragePool": lambda node, inputs: average_pool(node.attributes, inputs[0]),
    "GlobalAveragePool": _plain(lambda x: x.mean(dim=(2, 3), keepdim=True)),
    "Round": _plain(torch.round),  # half to even, as ONNX
    "Max": _plain(torch.maximum),
    "Min": _plain(torch.minimum),
    "LessOrEqual": _plain(torch.le),
    "GreaterOrEqual": _plain(torch.ge),
    "Greater": _plain(torch.gt),
    "And": _plain(torch.logical_and),
    "Cast": _cast,
    "ReduceMin": _reduce(torch.amin),
    "ReduceMax": _greatest,
    "ReduceSum": _reduce(torch.sum),
    "ArgMax": _argmax,
    "Unsqueeze": lambda _, inputs: inputs[0].unsqueeze(int(inputs[1][0])),
    "Gather": _gather,
    "Where": _plain(torch.where),
    "Less": _plain(torch.lt),
    "BitwiseAnd": _plain(torch.bitwise_and),
    "NonZero": _plain(lambda x: x.nonzero().T),
    "ScatterElements": _scatter,
    "If": _plain(lambda condition, chosen, kept: chosen if condition else kept),
}


def constants(graph: Graph) -> dict[str, Tensor]:
    """The graph's constants as tensors of their own (a copy: torch has no read-only tensors)."""
    return {name: torch.tensor(array) for name, array in graph.initialisers.items()}


def _most(shape: tuple[int, ...], types: Mapping[str, TensorType]) -> int:
    # Values for one record; along a list of places, as many as it could have.
    lists = [math.prod(found.places[1:]) for found in types.values() if found.places is not None]
    return math.prod(shape[1:]) * (1 if shape[0] == BATCH else max(lists))


class Program:
    """A graph made ready to run; calling it runs it.

    Args:
        graph: a model of the profile, patched or not.

    Raises:
        MalformedError: the graph is not in the profile.
    """

    def __init__(self, graph: Graph) -> None:
        types = check_graph(graph)
        self.graph = graph
        self._constants = constants(graph)
        self._activations = {name: found for name, found in types.items() if found.batched}
        largest = max(_most(found.shape, types) for found in self._activations.values())
        self._batch = max(1, _ACTIVATION_BUDGET // largest)
        self._branches = {branch.start: branch for branch in branches(graph.nodes)}
        self._last_use = {name: node.outputs[0] for node in graph.nodes for name in node.inputs}

    def __repr__(self) -> str:
        return f"Program({self.graph.input_shape} -> {self.graph.classes}, {len(self.graph.nodes)} nodes)"

    @overload
    def __call__(
        self, x: Float32[np.ndarray, "record ..."], *, outputs: None = None, batch: int = 256
    ) -> Float32[np.ndarray, "record class"]: ...
    @overload
    def __call__(
        self, x: Float32[np.ndarray, "record ..."], *, outputs: tuple[str, ...], batch: int = 256
    ) -> tuple[Shaped[np.ndarray, "record ..."], ...]: ...
    def __call__(
        self, x: Float32[np.ndarray, "record ..."], *, outputs: tuple[str, ...] | None = None, batch: int = 256
    ) -> Shaped[np.ndarray, "record ..."] | tuple[Shaped[np.ndarray, "record ..."], ...]:
        """Run the model.

        Args:
            x: float32 records in the model's shape.
            outputs: names of activations to return; only the graph's output if None.
            batch: records at a time; fewer where a model's activations are large.

        Returns:
            The logits, or one array per name in `outputs`.

        Raises:
            OwnerError: records of another type or shape, or a name that is no activation.
        """
        if x.dtype != np.float32 or x.shape[1:] != self.graph.input_shape:
            raise OwnerError(f"{x.dtype} records of shape {x.shape[1:]}, not float32 {self.graph.input_shape}")
        names = (self.graph.output,) if outputs is None else outputs
        for name in names:
            if name not in self._activations:
                raise OwnerError("the model has no activation of this name", where=name)
        step = max(1, min(batch, self._batch))
        parts = [self._run(x[start : start + step], names) for start in range(0, max(len(x), 1), step)]
        whole = tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
        return whole[0] if outputs is None else whole

    def _run(self, x: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            values = {self.graph.input: torch.from_numpy(np.array(x))}
            resume = 0
            for place, node in enumerate(self.graph.nodes):
                if place < resume:
                    continue
                inputs = [values[name] if name in values else self._constants[name] for name in node.inputs]
                if node.op == "Split":
                    values |= zip(node.outputs, _split(node, inputs), strict=True)
                else:
                    values[node.outputs[0]] = OPERATORS[node.op](node, inputs)
                for name in node.inputs:  # what nobody reads again need not stay in memory
                    if self._last_use[name] == node.outputs[0] and name not in names:
                        values.pop(name, None)
                if place in self._branches and not values[node.outputs[0]]:
                    resume = self._leave_out(self._branches[place], values, names)
            return tuple(values[name].numpy() for name in names)

    def _leave_out(self, branch: Branch, values: dict[str, Tensor], names: tuple[str, ...]) -> int:
        # Somebody may want to see what a branch makes: then it is run, and makes nothing of note.
        nodes = self.graph.nodes[branch.start + 1 : branch.end]
        if any(output in names for node in nodes for output in node.outputs):
            return 0
        last = self.graph.nodes[branch.end]
        values[last.outputs[0]] = values[last.inputs[2]]
        return branch.end + 1
