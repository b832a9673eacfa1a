"""Linear relaxation with slopes that are looked for: the largest lower bounds that lines below Relus can give.

Proves nothing that is signed: float64 bounds of real arithmetic, without the rounding errors of anybody's execution.
Whoever checks evaluates the slopes with sound arithmetic of their own; any slope in [0, 1] is sound, good ones make the
bound larger. This is for choosing radii and for the hints that go with claims. MaxPool and products of two
activations are not relaxed here.

Source: Zhang et al. 2018 (CROWN); Xu et al., "Fast and Complete: Enabling Complete Neural Network Verification with
Rapid and Massively Parallel Incomplete Verifiers" (ICLR 2021), for slopes by projected gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from owner.execute import OPERATORS, constants
from protocol.errors import OwnerError
from protocol.hints import STEPS
from protocol.model.profile import Graph, Node, check_graph

_AFFINE = frozenset(
    {
        "Gemm", "MatMul", "Conv", "Add", "Sub", "Mul", "BatchNormalization", "AveragePool", "GlobalAveragePool",
        "Flatten", "Reshape", "Transpose", "Identity",
    }
)  # fmt: skip
_RATE = 0.25
"""Of the first step; later ones are smaller. Slopes lie in [0, 1], so a few steps reach anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slopes:
    """Slopes of lower lines, a tensor for each Relu in the graph's order.

    Args:
        inner: by record and value: for bounds of hidden values.
        last: by record, row and value: for the objective's own way back.
    """

    inner: tuple[Float[Tensor, "record ..."], ...]
    last: tuple[Float[Tensor, "record row ..."], ...]

    def packed(self) -> tuple[UInt8[np.ndarray, "record value"], UInt8[np.ndarray, "record row value"]]:
        """As hints store them: in steps of 1/255, all Relus' values one after the other."""
        inner = [torch.round(part.detach() * STEPS).to(torch.uint8).flatten(1) for part in self.inner]
        last = [torch.round(part.detach() * STEPS).to(torch.uint8).flatten(2) for part in self.last]
        return torch.cat(inner, dim=1).numpy(), torch.cat(last, dim=2).numpy()

    def rounded(self) -> "Slopes":
        """The slopes that a reader of `packed` gets."""
        return Slopes(
            inner=tuple(torch.round(part.detach() * STEPS) / STEPS for part in self.inner),
            last=tuple(torch.round(part.detach() * STEPS) / STEPS for part in self.last),
        )


Limits = tuple[Tensor, Tensor]


class Relaxation:
    """A model, ready for bounds of linear forms of its values over boxes of inputs.

    Args:
        graph: a base model.
        output: the activation that objectives are about; the graph's output if None.

    Raises:
        OwnerError: an operator that is not relaxed here.
    """

    def __init__(self, graph: Graph, output: str | None = None) -> None:
        shapes = {name: found.shape[1:] for name, found in check_graph(graph).items() if found.batched}
        self.graph, self.output = graph, graph.output if output is None else output
        self.relus = tuple(node for node in graph.nodes if node.op == "Relu")
        self.shapes = shapes
        self._fixed = {
            name: value.double() if value.is_floating_point() else value for name, value in constants(graph).items()
        }
        for node in graph.nodes:
            moving = sum(name in shapes for name in node.inputs)
            if (node.op not in _AFFINE and node.op != "Relu") or (node.op == "Mul" and moving > 1):
                raise OwnerError(f"{node.op} is not relaxed here")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of each Relu."""
        return tuple(int(np.prod(self.shapes[node.outputs[0]])) for node in self.relus)

    def _affine(self, node: Node, rows: Tensor, open_: dict[str, Tensor], records: int) -> Tensor:
        # rows [record * row, ...]: replaced by rows of the node's inputs; returns what its constants add.
        if node.op in ("Gemm", "MatMul") and node.inputs[0] in self.shapes:
            weight = self._fixed[node.inputs[1]]
            alpha = float(node.attributes.get("alpha", 1.0))  # type: ignore[arg-type]
            across = alpha * (weight if node.attributes.get("transB") else weight.T)
            moved, added = {node.inputs[0]: rows @ across}, rows.new_zeros(len(rows))
            if len(node.inputs) == 3:
                beta = float(node.attributes["beta"])  # type: ignore[arg-type]
                added = (rows * (beta * self._fixed[node.inputs[2]])).sum(dim=-1)
        else:
            # An affine map's slopes are its derivative, and its offset what it makes of zero.
            names = list(dict.fromkeys(name for name in node.inputs if name in self.shapes))
            zeros = {name: rows.new_zeros((len(rows), *self.shapes[name]), requires_grad=True) for name in names}
            made = OPERATORS[node.op](node, [zeros.get(name, self._fixed.get(name)) for name in node.inputs])  # type: ignore[misc]
            found = torch.autograd.grad(made, list(zeros.values()), rows, create_graph=True)
            moved, added = dict(zip(names, found, strict=True)), (made.detach() * rows).flatten(1).sum(dim=1)
        for name, flat in moved.items():
            part = flat.reshape(records, -1, *flat.shape[1:])
            open_[name] = open_[name] + part if name in open_ else part
        return added.reshape(records, -1)

    def _back(
        self,
        name: str,
        rows: Float[Tensor, "record row ..."],
        box: Limits,
        limits: Sequence[Limits],
        slopes: Sequence[Tensor],
    ) -> Float[Tensor, "record row"]:
        # CROWN: the least value of linear forms of tensor `name`, in real arithmetic.
        records = len(rows)
        total, open_ = rows.new_zeros(rows.shape[:2]), {name: rows}
        place = {node.outputs[0]: number for number, node in enumerate(self.relus)}
        for node in reversed(self.graph.nodes):
            found = open_.pop(node.outputs[0], None)
            if found is None:
                continue
            if node.op != "Relu":
                total = total + self._affine(node, found.flatten(0, 1), open_, records)
                continue
            low, high = (limit[:, None] for limit in limits[place[node.outputs[0]]])
            slope = slopes[place[node.outputs[0]]]
            slope = slope if slope.ndim == found.ndim else slope[:, None]
            undecided = (low < 0) & (high > 0)
            steep = torch.where(undecided, high / (high - low).clamp(min=1e-300), (low >= 0).double())
            below, above = found.clamp(max=0), found.clamp(min=0)
            lift = torch.where(undecided, -steep * low, torch.zeros_like(low))
            total = total + (below * lift).flatten(2).sum(dim=2)
            made = above * torch.where(undecided, slope, (low >= 0).double()) + below * steep
            source = node.inputs[0]
            open_[source] = open_[source] + made if source in open_ else made
        least, greatest = box
        middle, radius = (least + greatest)[:, None] / 2, (greatest - least)[:, None] / 2
        for last in open_.values():
            total = total + (last * middle - last.abs() * radius).flatten(2).sum(dim=2)
        return total

    def limits(self, box: Limits, slopes: Sequence[Tensor]) -> tuple[Limits, ...]:
        """Limits of what each Relu takes, every value by a way back of its own.

        Args:
            box: least and greatest inputs, float64.
            slopes: `Slopes.inner`.
        """
        found: list[Limits] = []
        for number, node in enumerate(self.relus):
            shape = self.shapes[node.inputs[0]]
            size = self.sizes[number]
            unit = torch.eye(size, dtype=torch.float64).reshape(1, size, *shape).expand(len(box[0]), -1, *shape)
            both = self._back(node.inputs[0], torch.cat([unit, -unit], dim=1), box, found, slopes)
            low, high = both[:, :size].reshape(-1, *shape), -both[:, size:].reshape(-1, *shape)
            found.append((low, high))
        return tuple(found)

    def lower(
        self, box: Limits, rows: Float[Tensor, "record row ..."], slopes: Slopes, limits: Sequence[Limits] | None = None
    ) -> Float[Tensor, "record row"]:
        """Lower bounds of linear forms of the output.

        Args:
            box: least and greatest inputs, float64.
            rows: coefficients.
            slopes: for all lines.
            limits: what `limits` gave for these slopes, if it was called already.
        """
        limits = self.limits(box, slopes.inner) if limits is None else limits
        return self._back(self.output, rows, box, limits, slopes.last)

    def usual(self, box: Limits, rows: int) -> tuple[Slopes, tuple[Limits, ...]]:
        """The slopes without hints, 0 or 1, whichever leaves the smaller area; and the limits that they give."""
        inner: list[Tensor] = []
        found: list[Limits] = []
        with torch.no_grad():
            for number, node in enumerate(self.relus):
                shape, size = self.shapes[node.inputs[0]], self.sizes[number]
                unit = torch.eye(size, dtype=torch.float64).reshape(1, size, *shape).expand(len(box[0]), -1, *shape)
                both = self._back(node.inputs[0], torch.cat([unit, -unit], dim=1), box, found, inner)
                low, high = both[:, :size].reshape(-1, *shape), -both[:, size:].reshape(-1, *shape)
                found.append((low, high))
                inner.append((high > -low).double())
        last = tuple(part[:, None].repeat(1, rows, *[1] * (part.ndim - 1)) for part in inner)
        return Slopes(inner=tuple(inner), last=last), tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search ended with.

    Args:
        slopes: rounded as hints store them.
        lower: bounds with these slopes.
        usual: bounds without hints.
    """

    slopes: Slopes
    lower: Float[np.ndarray, "record row"]
    usual: Float[np.ndarray, "record row"]


def _ascend(
    relaxed: Relaxation, box: Limits, rows: Tensor, floor: Tensor, start: Slopes, limits: Sequence[Limits] | None,
    steps: int,
) -> Slopes:  # fmt: skip
    # Adam on the part of each bound that is below what is needed; slopes are put back into [0, 1] after every step.
    inner = tuple(part.clone().requires_grad_(limits is None) for part in start.inner)
    last = tuple(part.clone().requires_grad_() for part in start.last)
    moving = [*last, *(inner if limits is None else ())]
    best = [part.detach().clone() for part in (*inner, *last)]
    most = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
    optimiser = torch.optim.Adam(moving, lr=_RATE)
    fading = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9)
    for step in range(steps + 1):
        lower = relaxed.lower(box, rows, Slopes(inner=inner, last=last), limits)
        lack = (lower - floor).clamp(max=0)
        worst = lack.detach().sum(dim=1)
        better = worst > most
        most = torch.where(better, worst, most)
        for kept, part in zip(best, (*inner, *last), strict=True):
            kept[better] = part.detach()[better]
        if step == steps or bool((most >= 0).all()):
            break
        optimiser.zero_grad()
        (-lack.sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        fading.step()
        with torch.no_grad():
            for part in moving:
                part.clamp_(0.0, 1.0)
    count = len(inner)
    return Slopes(inner=tuple(best[:count]), last=tuple(best[count:]))


def search(
    relaxed: Relaxation,
    low: Float32[np.ndarray, "record ..."],
    high: Float32[np.ndarray, "record ..."],
    rows: Float[np.ndarray, "record row ..."],
    floor: Float[np.ndarray, "record row"],
    *,
    steps: int = 20,
    inner: int = 10,
) -> Found:
    """Slopes that raise lower bounds above what is needed, or as near to it as a few steps come.

    Args:
        relaxed: the model.
        low: least inputs.
        high: greatest inputs.
        rows: linear forms of the output.
        floor: what each of them has to reach.
        steps: at most so many for the slopes of the objective's own way back, which are cheap.
        inner: and so many more for all slopes together, each with new limits of all hidden values.
    """
    box = torch.from_numpy(low.astype(np.float64)), torch.from_numpy(high.astype(np.float64))
    wanted, needed = torch.from_numpy(rows.astype(np.float64)), torch.from_numpy(floor.astype(np.float64))
    start, limits = relaxed.usual(box, rows.shape[1])
    usual = relaxed.lower(box, wanted, start, limits).detach()
    found = start
    if bool((usual < needed).any()):
        found = _ascend(relaxed, box, wanted, needed, found, limits, steps)
        left = (relaxed.lower(box, wanted, found, limits).detach() < needed).any(dim=1)
        if inner and bool(left.any()):
            found = _ascend(relaxed, box, wanted, needed, found, None, inner)
    found = found.rounded()
    with torch.no_grad():
        lower = torch.maximum(relaxed.lower(box, wanted, found), usual)
    return Found(slopes=found, lower=lower.numpy(), usual=usual.numpy())
