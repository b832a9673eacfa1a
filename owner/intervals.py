"""Interval bounds of a base model over boxes of inputs, for choosing heads and radii. The auditor has its own.

Proves (in float64, widened far beyond its rounding and float32's): every tensor of every input in the box lies
between the bounds. Loose for deep networks; a head chosen by loose bounds is larger than it need be, never too small.
Source: interval arithmetic (Gowal et al. 2018, "On the effectiveness of interval bound propagation").
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from owner.execute import OPERATORS, constants
from protocol.errors import OwnerError
from protocol.model.profile import Graph, Node

_MONOTONE = frozenset({"Relu", "MaxPool"})
_WIDEN = 2.0**-12
"""Relative to the largest number of a tensor: any order of summation of thousands of float32 terms stays within."""
_LINEAR = frozenset(
    {
        "Gemm", "MatMul", "Conv", "Add", "Sub", "Mul", "BatchNormalization", "AveragePool", "GlobalAveragePool",
        "Flatten", "Reshape", "Transpose", "Identity",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Bounds of one tensor, record by record."""

    low: Float[np.ndarray, "record ..."]
    high: Float[np.ndarray, "record ..."]


def _spread(node: Node, radius: list[Tensor | None], fixed: list[Tensor | None]) -> Tensor:
    """How far an affine operator can move when its inputs move by `radius`: its slopes, in absolute value."""
    inputs: list[Tensor] = []
    for place, (moving, constant) in enumerate(zip(radius, fixed, strict=True)):
        if moving is not None:
            inputs.append(moving)
        elif constant is None:
            raise OwnerError(f"{node.op} has an input that is neither bounded nor constant")
        elif not constant.is_floating_point():
            inputs.append(constant)
        elif node.op == "BatchNormalization":
            inputs.append([constant.abs(), torch.zeros_like(constant), torch.zeros_like(constant), constant][place - 1])
        elif place == 2 or node.op in ("Add", "Sub"):  # a bias or a constant summand moves nothing
            inputs.append(torch.zeros_like(constant))
        else:
            inputs.append(constant.abs())
    if node.op == "Sub":
        return inputs[0] + inputs[1]
    if node.op == "Gemm":
        attributes = {
            name: abs(value) if isinstance(value, float) else value for name, value in node.attributes.items()
        }
        node = Node(name=node.name, op=node.op, inputs=node.inputs, outputs=node.outputs, attributes=attributes)
    return OPERATORS[node.op](node, inputs)


def bounds(
    graph: Graph, low: Float[np.ndarray, "record ..."], high: Float[np.ndarray, "record ..."], names: tuple[str, ...]
) -> tuple[Box, ...]:
    """Bounds of named tensors over boxes of inputs.

    Args:
        graph: a base model.
        low: least input of each record.
        high: greatest input.
        names: activations.

    Raises:
        OwnerError: the model multiplies two activations, or has an operator that is not bounded here.
    """
    fixed = {name: value.double() if value.is_floating_point() else value for name, value in constants(graph).items()}
    lower, upper = torch.from_numpy(np.array(low, np.float64)), torch.from_numpy(np.array(high, np.float64))
    middle, radius = {graph.input: (lower + upper) / 2}, {graph.input: (upper - lower) / 2}
    with torch.no_grad():
        for node in graph.nodes:
            moving = [name for name in node.inputs if name in middle]
            if node.op == "Mul" and len(moving) == 2:
                raise OwnerError("the model multiplies two activations; no bounds")
            if node.op in _MONOTONE:
                source = moving[0]
                ends = [OPERATORS[node.op](node, [middle[source] + sign * radius[source]]) for sign in (-1.0, 1.0)]
                centre, spread = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
            elif node.op in _LINEAR:
                centre = OPERATORS[node.op](
                    node, [middle[name] if name in middle else fixed[name] for name in node.inputs]
                )
                spread = _spread(
                    node, [radius.get(name) for name in node.inputs], [fixed.get(name) for name in node.inputs]
                )
            else:
                raise OwnerError(f"{node.op} is not bounded here")
            largest = (centre.abs() + spread).flatten(1).amax(dim=1).reshape(-1, *[1] * (centre.ndim - 1))
            middle[node.outputs[0]], radius[node.outputs[0]] = centre, spread + _WIDEN * (largest + 2.0**-100)
    return tuple(
        Box(low=(middle[name] - radius[name]).numpy(), high=(middle[name] + radius[name]).numpy()) for name in names
    )
