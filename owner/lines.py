"""Lower lines of a model's tensors over boxes of inputs: what heads and radii are chosen by. The auditor has its own.

Proves, in real arithmetic: over each box every combination of a tensor's values is at least its line, `slope x +
offset`. Every ReLU whose sign is open is replaced by a line below or above it, whichever the combination asks for, and
the combination is carried back to the inputs; its limits come from passes of their own. Float64 without error bounds:
whoever uses a line leaves room for rounding (`ROOM`), and what is claimed is proven again by the auditor.
Models with other bent operators than ReLU get interval bounds.

`relaxation` looks for the slopes that raise a number, a bound; here the slopes are the usual ones (0 or 1), and
what is wanted is the line itself, which a head takes over (`methods.giving`). Source: Zhang et al. 2018 (CROWN).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from owner.execute import OPERATORS, constants
from owner.intervals import bounds
from protocol.model.profile import Graph
from protocol.model.schema import InputSchema

ROOM = 2.0**-9
"""Relative to the largest number that takes part: what rounding in float32, and proofs of it, may lose."""
_BENT = frozenset({"MaxPool", "Mul"})
_NEURONS = 2048
_ROWS = 1024
"""Combinations carried back at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """For each record's box and each row: the combination is at least `slope x + offset`, x flattened."""

    slope: Float[np.ndarray, "record row feature"]
    offset: Float[np.ndarray, "record row"]

    def least(
        self, low: Float[np.ndarray, "record feature"], high: Float[np.ndarray, "record feature"]
    ) -> Float[np.ndarray, "record row"]:
        """The least value of each line over the boxes."""
        middle, spread = (low + high) / 2, (high - low) / 2
        found: Float[np.ndarray, "record row"] = self.offset + (
            np.einsum("krd,kd->kr", self.slope, middle) - np.einsum("krd,kd->kr", np.abs(self.slope), spread)
        )
        return found


def boxes(
    schema: InputSchema, values: Int[np.ndarray, "record feature"], steps: Int[np.ndarray, "record #feature"]
) -> tuple[Float[np.ndarray, "record feature"], Float[np.ndarray, "record feature"]]:
    """Least and greatest inputs that round to grid values within `steps` of the records, a little widened."""
    ends = np.stack(
        [
            np.maximum(values.astype(np.int64) - steps, schema.low) - 0.501,
            np.minimum(values.astype(np.int64) + steps, schema.high) + 0.501,
        ]
    )
    inputs = (ends - schema.offset.astype(np.float64)) / schema.scale.astype(np.float64)
    return inputs.min(axis=0), inputs.max(axis=0)


class _Relu(torch.autograd.Function):
    """A ReLU whose backward pass carries a lower bound instead of a derivative, and notes what it loses here."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: Tensor, high: Tensor, lost: list[Tensor]) -> Tensor:
        ctx.save_for_backward(value, low, high)
        ctx.lost = lost
        return value.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (wanted,) = gradients
        value, low, high = ctx.saved_tensors
        open_ = (low < 0) & (high > 0)
        above = torch.where(open_, high / (high - low).clamp(min=1e-300), (low >= 0).double())
        below = torch.where(open_, (high > -low).double(), above)
        carried = wanted.clamp(min=0) * below + wanted.clamp(max=0) * above
        raised = torch.where(open_, -low * above, torch.zeros_like(low)) * wanted.clamp(max=0)
        gap = wanted * value.clamp(min=0) - carried * value - raised
        ctx.lost.append(gap.flatten(1).sum(dim=1))
        return carried, None, None, None


class Relaxation:
    """A base model over one box of inputs for each record.

    Args:
        graph: the base.
        low: least inputs, flattened.
        high: greatest.
    """

    def __init__(
        self, graph: Graph, low: Float[np.ndarray, "record feature"], high: Float[np.ndarray, "record feature"]
    ) -> None:
        self.graph, self.low, self.high = graph, low, high
        shape = (len(low), *graph.input_shape)
        self._ends = low.reshape(shape), high.reshape(shape)
        self._constants = {
            name: value.double() if value.is_floating_point() else value for name, value in constants(graph).items()
        }
        self._limits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._bent = any(node.op in _BENT for node in graph.nodes)
        if not self._bent:
            self._tighten()

    def lower(self, tensor: str, rows: Float[np.ndarray, "record row value"]) -> Lines:
        """A line below each row's combination of a tensor's values, flattened."""
        if self._bent:
            (box,) = bounds(self.graph, *self._ends, (tensor,))
            low, high = (side.reshape(len(rows), 1, -1) for side in (box.low, box.high))
            least = (np.maximum(rows, 0) * low + np.minimum(rows, 0) * high).sum(axis=2)
            return Lines(slope=np.zeros((*rows.shape[:2], self.low.shape[1])), offset=least)
        slopes, offsets = np.zeros((*rows.shape[:2], self.low.shape[1])), np.zeros(rows.shape[:2])
        for record in range(len(rows)):
            for start in range(0, rows.shape[1], _ROWS):
                part = slice(start, start + _ROWS)
                slopes[record, part], offsets[record, part] = self._carry(tensor, record, rows[record, part])
        return Lines(slope=slopes, offset=offsets)

    def ends(self, tensor: str, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest value of each element of a tensor, flattened."""
        unit = np.broadcast_to(np.concatenate([np.eye(size), -np.eye(size)]), (len(self.low), 2 * size, size))
        found = self.lower(tensor, unit).least(self.low, self.high)
        return found[:, :size], -found[:, size:]

    def _carry(self, tensor: str, record: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        middle = (self.low[record] + self.high[record]) / 2
        point = torch.from_numpy(np.repeat(middle[None], len(rows), axis=0)).reshape(-1, *self.graph.input_shape)
        point.requires_grad_()
        values, lost = {self.graph.input: point}, []  # type: tuple[dict[str, Tensor], list[Tensor]]
        for node in self.graph.nodes:
            if tensor in values:
                break
            inputs = [values[name] if name in values else self._constants[name] for name in node.inputs]
            if node.op == "Relu":
                low, high = (
                    torch.from_numpy(np.array(side[[record]])).expand_as(inputs[0])
                    for side in self._limits[node.inputs[0]]
                )
                values[node.outputs[0]] = _Relu.apply(inputs[0], low, high, lost)  # type: ignore[no-untyped-call]
            else:
                values[node.outputs[0]] = OPERATORS[node.op](node, inputs)
        total = (values[tensor].flatten(1) * torch.from_numpy(np.array(rows))).sum(dim=1)
        total.sum().backward()  # type: ignore[no-untyped-call]
        assert point.grad is not None
        slope = point.grad.flatten(1).numpy()
        least = total.detach().numpy() - (torch.stack(lost).sum(dim=0).numpy() if lost else 0.0)
        return slope, least - slope @ middle

    def _tighten(self) -> None:
        names = [node.inputs[0] for node in self.graph.nodes if node.op == "Relu"]
        for name, box in zip(names, bounds(self.graph, *self._ends, tuple(names)), strict=True):
            low, high = box.low.copy(), box.high.copy()
            flat_low, flat_high = low.reshape(len(low), -1), high.reshape(len(high), -1)
            for record in range(len(low)):
                open_ = np.flatnonzero((flat_low[record] < 0) & (flat_high[record] > 0))
                if not open_.size or open_.size > _NEURONS or name == self.graph.input:
                    continue
                rows = np.zeros((len(open_), flat_low.shape[1]))
                rows[np.arange(len(open_)), open_] = 1.0
                for side, sign in ((flat_low, 1.0), (flat_high, -1.0)):
                    slope, offset = self._carry(name, record, sign * rows)
                    reach = np.maximum(slope, 0) @ self.low[record] + np.minimum(slope, 0) @ self.high[record]
                    found = sign * (offset + reach)
                    better = np.maximum if sign > 0 else np.minimum
                    side[record, open_] = better(side[record, open_], found)
            self._limits[name] = low, high
