"""Linear relaxation with slopes that are looked for: the largest lower bounds that lines below Relus can give.

Proves nothing that is signed: float64 bounds of real arithmetic, without the rounding errors of anybody's execution.
Whoever checks evaluates the slopes with sound arithmetic of their own; any slope in [0, 1] is sound, good ones make the
bound larger. This is for choosing radii and for the hints that go with claims. Products of two activations are not
relaxed here; a MaxPool is the value with the largest least, from below, and a constant from above.

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
_KINKS = ("Relu", "MaxPool")
_RATE = 0.25
"""Of the first step; later ones are smaller. Slopes lie in [0, 1], so a few steps reach anywhere."""
_FADING = 0.9


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
        """As hints store them: in steps of 1/255, all Relus' values one after the other; `last` must have rows."""
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


def _least(rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    # The least value of linear forms over a box.
    return (rows * (low + high) / 2 - rows.abs() * (high - low) / 2).flatten(2).sum(dim=2)


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
        self.kinks = tuple(node for node in graph.nodes if node.op in _KINKS)
        self.shapes = shapes
        self._fixed = {
            name: value.double() if value.is_floating_point() else value for name, value in constants(graph).items()
        }
        for node in graph.nodes:
            moving = sum(name in shapes for name in node.inputs)
            if node.op not in (*_AFFINE, *_KINKS) or (node.op == "Mul" and moving > 1):
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
            with torch.enable_grad():
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
        *,
        near: bool = False,
        direct: Tensor | None = None,
    ) -> Float[Tensor, "record row"]:
        # CROWN: the least value of linear forms of tensor `name`, in real arithmetic; `near` stops at the first Relus.
        records = len(rows)
        total, open_ = rows.new_zeros(rows.shape[:2]), {name: rows}
        if direct is not None:
            open_[self.graph.input] = direct + open_.get(self.graph.input, 0.0)
        kink = {node.outputs[0]: number for number, node in enumerate(self.kinks)}
        relu = {node.outputs[0]: number for number, node in enumerate(self.relus)}
        for node in reversed(self.graph.nodes):
            found = open_.pop(node.outputs[0], None)
            if found is None:
                continue
            if node.op not in _KINKS:
                total = total + self._affine(node, found.flatten(0, 1), open_, records)
                continue
            source, ends = node.inputs[0], limits[kink[node.outputs[0]]]
            if near:
                total = total + _least(found, *(OPERATORS[node.op](node, [end])[:, None] for end in ends))
                continue
            if node.op == "MaxPool":
                total = total + (found.clamp(max=0) * OPERATORS[node.op](node, [ends[1]])[:, None]).flatten(2).sum(
                    dim=2
                )
                made = _chosen(node, ends[0], found.clamp(min=0))
                open_[source] = open_[source] + made if source in open_ else made
                continue
            low, high = (limit[:, None] for limit in ends)
            slope = slopes[relu[node.outputs[0]]]
            slope = slope if slope.ndim == found.ndim else slope[:, None]
            undecided = (low < 0) & (high > 0)
            steep = torch.where(undecided, high / (high - low).clamp(min=1e-300), (low >= 0).double())
            below, above = found.clamp(max=0), found.clamp(min=0)
            lift = torch.where(undecided, -steep * low, torch.zeros_like(low))
            total = total + (below * lift).flatten(2).sum(dim=2)
            made = above * torch.where(undecided, slope, (low >= 0).double()) + below * steep
            open_[source] = open_[source] + made if source in open_ else made
        for last in open_.values():
            total = total + _least(last, *(end[:, None] for end in box))
        return total

    def limits(
        self, box: Limits, slopes: Sequence[Tensor] | None = None
    ) -> tuple[tuple[Limits, ...], Sequence[Tensor]]:
        """Limits of what each Relu and MaxPool takes, and the slopes that gave them.

        By the nearest Relus' limits alone, and, for values whose sign these leave open in some record, by a way back
        to the input.

        Args:
            box: least and greatest inputs, float64.
            slopes: `Slopes.inner`; None for 0 or 1, whichever leaves the smaller area.
        """
        found: list[Limits] = []
        used: list[Tensor] = []
        for number, node in enumerate(self.kinks):
            shape = self.shapes[node.inputs[0]]
            size = int(np.prod(shape))
            low, high = self._both(node.inputs[0], torch.arange(size), box, found, used, near=True)
            with torch.no_grad():
                open_ = (low < 0) & (high > 0) if node.op == "Relu" else low < high
                some = torch.nonzero(open_.any(dim=0))[:, 0]
            if number and len(some):
                better = self._both(node.inputs[0], some, box, found, used)
                low = low.index_copy(1, some, torch.maximum(low[:, some], better[0]))
                high = high.index_copy(1, some, torch.minimum(high[:, some], better[1]))
            low, high = low.reshape(-1, *shape), high.reshape(-1, *shape)
            found.append((low, high))
            if node.op == "Relu":
                used.append((high > -low).double() if slopes is None else slopes[len(used)])
        return tuple(found), used

    def _both(
        self, name: str, some: Tensor, box: Limits, limits: Sequence[Limits], slopes: Sequence[Tensor], *,
        near: bool = False,
    ) -> Limits:  # fmt: skip
        shape = self.shapes[name]
        unit = torch.zeros(len(some), int(np.prod(shape)), dtype=torch.float64)
        unit[torch.arange(len(some)), some] = 1.0
        rows = torch.cat([unit, -unit]).reshape(1, -1, *shape).expand(len(box[0]), -1, *shape)
        ends = self._back(name, rows, box, limits, slopes, near=near)
        return ends[:, : len(some)], -ends[:, len(some) :]

    def lower(
        self,
        box: Limits,
        rows: Float[Tensor, "record row ..."],
        slopes: Slopes,
        limits: Sequence[Limits] | None = None,
        direct: Float[Tensor, "record row ..."] | None = None,
    ) -> Float[Tensor, "record row"]:
        """Lower bounds of linear forms of the output.

        Args:
            box: least and greatest inputs, float64.
            rows: coefficients.
            slopes: for all lines.
            limits: what `limits` gave for these slopes, if it was called already.
            direct: coefficients of the inputs, added to the forms.
        """
        limits = self.limits(box, slopes.inner)[0] if limits is None else limits
        return torch.maximum(
            self._back(self.output, rows, box, limits, slopes.last, direct=direct),
            self._back(self.output, rows, box, limits, slopes.last, direct=direct, near=True),
        )

    def usual(self, box: Limits, rows: int) -> tuple[Slopes, tuple[Limits, ...]]:
        """The slopes without hints, and the limits that they give."""
        with torch.no_grad():
            limits, inner = self.limits(box)
        last = tuple(part[:, None].repeat(1, rows, *[1] * (part.ndim - 1)) for part in inner)
        return Slopes(inner=tuple(inner), last=last), limits


def _chosen(node: Node, low: Tensor, rows: Tensor) -> Tensor:
    # What a MaxPool's slopes make of rows, if each window is the value whose least is the largest.
    with torch.enable_grad():
        flat = low.detach()[:, None].expand(-1, rows.shape[1], *low.shape[1:]).flatten(0, 1).clone().requires_grad_()
        made = OPERATORS[node.op](node, [flat])
        (found,) = torch.autograd.grad(made, flat, rows.flatten(0, 1), create_graph=True)
    return found.reshape(len(rows), -1, *found.shape[1:])


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Linear forms over boxes, and how large each has to be.

    Args:
        low: least inputs.
        high: greatest inputs.
        rows: coefficients of the output.
        floor: what the forms have to reach.
        direct: coefficients of the inputs; None for none.
        shared: whether the objective's own way back uses the slopes of the hidden values, for want of room for its own.
    """

    low: Float32[np.ndarray, "record ..."]
    high: Float32[np.ndarray, "record ..."]
    rows: Float[np.ndarray, "record row ..."]
    floor: Float[np.ndarray, "record row"]
    direct: Float[np.ndarray, "record row ..."] | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    relaxed: Relaxation
    box: Limits
    rows: Tensor
    floor: Tensor
    direct: Tensor | None
    shared: bool

    def lower(self, slopes: Slopes, limits: Sequence[Limits] | None) -> Tensor:
        return self.relaxed.lower(self.box, self.rows, slopes, limits, self.direct)


def _ascend(asked: _Asked, start: Slopes, limits: Sequence[Limits] | None, steps: int) -> Slopes:
    # Adam on the part of each bound that is below what is needed; slopes are put back into [0, 1] after every step.
    inner = tuple(part.clone().requires_grad_(limits is None) for part in start.inner)
    last = inner if asked.shared else tuple(part.clone().requires_grad_() for part in start.last)
    moving = [part for part in {id(p): p for p in (*inner, *last)}.values() if part.requires_grad]
    best = [part.detach().clone() for part in (*inner, *last)]
    most = torch.full((len(asked.rows),), -torch.inf, dtype=torch.float64)
    optimiser = torch.optim.Adam(moving, lr=_RATE)
    fading = torch.optim.lr_scheduler.ExponentialLR(optimiser, _FADING)
    for step in range(steps + 1):
        lack = (asked.lower(Slopes(inner=inner, last=last), limits) - asked.floor).clamp(max=0)
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


def search(relaxed: Relaxation, question: Question, *, steps: int = 20, inner: int = 10) -> Found:
    """Slopes that raise lower bounds above what is needed, or as near to it as a few steps come.

    Args:
        relaxed: the model.
        question: what is to be bounded.
        steps: at most so many for the slopes of the objective's own way back, which are cheap.
        inner: and so many more for all slopes together, each with new limits of all hidden values.
    """

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.float64))

    asked = _Asked(
        relaxed=relaxed,
        box=(tensor(question.low), tensor(question.high)),
        rows=tensor(question.rows),
        floor=tensor(question.floor),
        direct=None if question.direct is None else tensor(question.direct),
        shared=question.shared,
    )
    found, limits = relaxed.usual(asked.box, question.rows.shape[1])
    if question.shared:
        found = Slopes(inner=found.inner, last=found.inner)
    usual = asked.lower(found, limits).detach()
    if relaxed.relus and bool((usual < asked.floor).any()):
        if steps and not question.shared:
            found = _ascend(asked, found, limits, steps)
        left = (asked.lower(found, limits).detach() < asked.floor).any()
        if inner and bool(left):
            found = _ascend(asked, found, None, inner)
    found = found.rounded()
    with torch.no_grad():
        lower = torch.maximum(asked.lower(found, None), usual)
    return Found(slopes=found, lower=lower.numpy(), usual=usual.numpy())
