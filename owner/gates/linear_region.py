"""Linear regions: the polytope around a record on which a ReLU network is one affine map, and that map.

Proves: in real arithmetic, `A x <= b` holds exactly on the inputs that switch every ReLU as the record does,
and there every tensor is `J x + c`. One forward pass of masked products gives all rows of all tensors (published
code accumulates gradients between rows and gets 1 of 256 right). Does not say how the float32 program switches:
for half of the records some ReLU is within rounding of its edge, so a claim needs the auditor's bounds.
Source: PRUNE (arXiv 2505.06520), support networks; REASSURE, section 3.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from owner.execute import OPERATORS, Apply, constants
from protocol.errors import OwnerError
from protocol.model.patch import RegionGate
from protocol.model.profile import Graph, Node, check_graph

_PIECEWISE = frozenset({"Relu"})
_BENT = frozenset({"MaxPool", "Mul"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRegion:
    """Where a network is affine around a record, and the affine map.

    Args:
        weights: half-spaces `weights x <= bounds` of flattened inputs, one for each ReLU.
        bounds: their right-hand sides.
        jacobian: of the logits.
        constant: the logits are `jacobian x + constant`.
    """

    weights: Float[np.ndarray, "half feature"]
    bounds: Float[np.ndarray, "half"]
    jacobian: Float[np.ndarray, "class feature"]
    constant: Float[np.ndarray, "class"]

    def largest_ball(self, x: Float[np.ndarray, "feature"]) -> float:
        """Radius of the largest L-infinity ball around `x` inside the region; 0 if `x` is on an edge."""
        reach = np.abs(self.weights).sum(axis=1)
        room = self.bounds - self.weights @ x
        return float(max(0.0, (room[reach > 0] / reach[reach > 0]).min(initial=np.inf)))


def _forward(graph: Graph, point: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Every activation at `point`, and its slope along every input: one pass for all rows of all Jacobians.

    An affine operator's slope is itself less its value at zero; a Relu's is the mask of the point.
    """
    fixed = {name: value.double() if value.is_floating_point() else value for name, value in constants(graph).items()}
    values = {graph.input: point.reshape(1, *graph.input_shape)}
    slopes = {graph.input: torch.eye(point.numel(), dtype=torch.float64).reshape(-1, *graph.input_shape)}
    for node in graph.nodes:
        name, apply = node.outputs[0], OPERATORS[node.op]

        def at(known: dict[str, Tensor], node: Node = node, apply: Apply = apply) -> Tensor:
            return apply(node, [known[source] if source in known else fixed[source] for source in node.inputs])

        values[name] = at(values)
        if node.op in _PIECEWISE:
            slopes[name] = slopes[node.inputs[0]] * (values[node.inputs[0]] > 0)
        else:
            nothing = {source: torch.zeros_like(value) for source, value in values.items() if source in node.inputs}
            slopes[name] = at(slopes) - at(nothing)
    return values, slopes


def half_spaces(graph: Graph) -> int:
    """How many half-spaces a linear region of this base has: one for each value that a Relu takes.

    Raises:
        OwnerError: the model has an operator that is neither affine nor ReLU.
    """
    if bent := sorted({node.op for node in graph.nodes} & _BENT):
        raise OwnerError(f"linear regions are found for affine layers and Relu only, the model has {bent[0]}")
    types = check_graph(graph)
    return sum(math.prod(types[node.inputs[0]].shape[1:]) for node in graph.nodes if node.op in _PIECEWISE)


def linear_region(graph: Graph, x: Float32[np.ndarray, "..."]) -> LinearRegion:
    """The linear region of one record.

    Args:
        graph: a base model of affine operators and ReLU.
        x: the record as the model takes it.

    Raises:
        OwnerError: the model has an operator that is neither affine nor ReLU.
    """
    half_spaces(graph)
    switched = tuple(node.inputs[0] for node in graph.nodes if node.op in _PIECEWISE)
    point = torch.from_numpy(np.array(x, dtype=np.float64)).reshape(-1)
    with torch.no_grad():
        values, slopes = _forward(graph, point)
    rows_of = {name: slopes[name].reshape(point.numel(), -1).T.numpy() for name in {*switched, graph.output}}
    jacobian, output = rows_of[graph.output], values[graph.output].reshape(-1).numpy()
    before = np.concatenate([values[name].reshape(-1).numpy() for name in switched] or [np.zeros(0)])
    rows = np.concatenate([rows_of[name] for name in switched] or [np.zeros((0, point.numel()))])
    offsets = before - rows @ point.numpy()
    # Active: J x + c >= 0. Inactive (0 counts as such): J x + c <= 0.
    signs = np.where(before > 0, -1.0, 1.0)
    return LinearRegion(
        weights=rows * signs[:, None],
        bounds=-offsets * signs,
        jacobian=jacobian,
        constant=output - jacobian @ point.numpy(),
    )


def region_gate(regions: list[LinearRegion]) -> RegionGate:
    """A gate with one item for each region, in float32; a half-space that no input can leave is kept."""
    return RegionGate(
        weights=np.stack([region.weights for region in regions]).astype(np.float32),
        bounds=np.stack([region.bounds for region in regions]).astype(np.float32),
    )
