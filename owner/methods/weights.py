"""What methods that train have in common: their data, one model's training loop, and what they may claim.

Proves nothing about forgetting. A changed model claims an output for a record where interval bounds of the whole model
prove it on the record's region; where they don't, the record carries an explicit claim of no redirection. A
removed class gets a cap, since nothing else keeps it away for *every* input. Source: SPEC 7.9, 11.4, 11.10.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from owner.compose import compose
from owner.device import plain_arithmetic
from owner.execute import Program
from owner.gates.region import Shape
from owner.intervals import bounds
from owner.methods.job import Job, Result
from owner.methods.radius import region
from owner.methods.removal import removal
from owner.network import Network, parameters_of
from owner.training import train
from protocol.claims import Argmax, Claim, NoRedirection, Redirection
from protocol.encoding import format_decimal
from protocol.errors import OwnerError
from protocol.model.graph import Graph
from protocol.model.patch import Patch, Weight
from protocol.model.recipe import Recipe

_MARGIN = Decimal("0.001")
_TOGETHER = 256
_MISSED = "its output is not what was aimed at"
_UNPROVEN = "no bound proves an output of the changed model"
Parameters = Mapping[str, Tensor]
Model = Callable[[Tensor], Tensor]
"""Logits of the model in training, differentiable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A commitment's records as model inputs: what to forget, what to keep, and what was never trained on."""

    forget: Float32[np.ndarray, "forget ..."]
    forget_labels: Int[np.ndarray, "forget"]
    retain: Float32[np.ndarray, "retain ..."]
    retain_labels: Int[np.ndarray, "retain"]
    unseen: Float32[np.ndarray, "unseen ..."]
    unseen_labels: Int[np.ndarray, "unseen"]
    gone: np.ndarray

    @classmethod
    def of(cls, job: Job) -> "Split":
        """Split by the requests: listed records and all members of removed classes are to be forgotten.

        Raises:
            OwnerError: nothing would be left, or nothing is to be forgotten.
        """
        own, schema = job.workspace.records, job.workspace.schema
        gone = job.gone
        if not gone.any():
            raise OwnerError("no committed record is asked to be forgotten, there is nothing to train on; use prune")
        if gone.all():
            raise OwnerError("no record would be left to keep")
        return cls(
            forget=schema.dequantise(own.values[gone]),
            forget_labels=own.labels[gone],
            retain=schema.dequantise(own.values[~gone]),
            retain_labels=own.labels[~gone],
            unseen=schema.dequantise(own.unseen_values) if len(own.unseen_labels) else np.zeros((0,), np.float32),
            unseen_labels=own.unseen_labels,
            gone=gone,
        )


def batches(count: int, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of places, each epoch in a new order; never empty, at most `size`. For at least one place."""
    while True:
        order = generator.permutation(count)
        yield from (order[start : start + size] for start in range(0, count, size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How to step.

    Args:
        steps: at most so many.
        rate: of Adam, or of SGD with momentum 0.9 if `sgd`.
        sgd: which of the two.
        decay: L2 factor.
        look: ask `stop` after every so many steps.
    """

    steps: int
    rate: float
    sgd: bool = False
    decay: float = 0.0
    look: int = 10


def adjust(
    job: Job,
    loss: Callable[[Model, Parameters, int], Tensor],
    pace: Pace,
    *,
    stop: Callable[[Model], bool] = lambda _model: False,
    stage: str = "training",
) -> tuple[dict[str, Float32[np.ndarray, "..."]], int]:
    """Change the parameters of `job.start` step by step; normalisation statistics stay as they are there.

    Args:
        job: whose model to start from.
        loss: of the model in training, its learned parameters, and the step's number.
        pace: how to step.
        stop: looked at before the first step and every few; True ends it.
        stage: name for progress.

    Returns:
        The changed parameters and the statistics by name, and the steps taken: an earlier certificate's weights may
        have other statistics than the base, and what was trained here is the model with these.

    Raises:
        OwnerError: the training diverged.
    """
    base = job.start
    network = Network(base, job.device)
    values = {name: job.tensor(array) for name, array in parameters_of(base).items()}
    learned = {name: values[name].clone().requires_grad_() for name in network.learned}
    fixed = {name: values[name] for name in network.averages}

    def model(x: Tensor) -> Tensor:
        return network.logits({**learned, **fixed}, x)

    tensors = list(learned.values())
    made: torch.optim.Optimizer = torch.optim.Adam(tensors, pace.rate, weight_decay=pace.decay)
    if pace.sgd:
        made = torch.optim.SGD(tensors, pace.rate, momentum=0.9, weight_decay=pace.decay)
    taken = 0
    with plain_arithmetic():
        for step in range(pace.steps):
            if step % pace.look == 0:
                job.progress(stage, step / pace.steps)
                with torch.no_grad():
                    if stop(model):
                        break
            value = loss(model, learned, step)
            if not torch.isfinite(value):
                raise OwnerError("the training diverged; use a lower --set rate=...")
            made.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            made.step()
            taken += 1
    job.progress(stage, 1.0)
    found = {name: tensor.detach().numpy(force=True).copy() for name, tensor in (*learned.items(), *fixed.items())}
    if not all(np.isfinite(array).all() for array in found.values()):
        raise OwnerError("the training diverged; use a lower --set rate=...")
    return found, taken


def trained(
    job: Job, recipe: Recipe, *, stage: str, start: Graph | None = None
) -> dict[str, Float32[np.ndarray, "..."]]:
    """The base's architecture trained by a recipe on the records to keep.

    Args:
        job: what was asked.
        recipe: how to train.
        stage: name for progress.
        start: take the initial values from this model; None draws them.

    Raises:
        OwnerError: nothing is left to train on, or the training diverged.
    """
    workspace = job.workspace
    made = train(
        workspace.base,
        workspace.schema.dequantise(workspace.records.values),
        workspace.records.labels,
        members=[np.flatnonzero(~job.gone)],
        recipe=recipe,
        rng=job.generator,
        start=start,
        progress=lambda done, total: job.progress(stage, done / total),
        device=job.device,
    )
    return {name: array[0] for name, array in made.parameters.items()}


def changed(base: Graph, parameters: Mapping[str, Float32[np.ndarray, "..."]]) -> tuple[Weight, ...]:
    """The constants that got other bits, in the order that a patch has them.

    Raises:
        OwnerError: none did.
    """
    weights = tuple(
        Weight(name=name, values=np.asarray(array, np.float32))
        for name, array in sorted(parameters.items())
        if np.asarray(array, np.float32).tobytes() != base.initialisers[name].tobytes()
    )
    if not weights:
        raise OwnerError("the method changed nothing: what it aims at holds for the base already, or it took no step")
    return weights


def _proven(
    job: Job, graph: Graph, shape: Shape, rows: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each record the largest radius on which interval bounds keep its class ahead (-1 for none), and by how much.

    Intervals alone, of the logits' pairs one by one: far below what is true, and never above it.
    """
    schema, own = job.workspace.schema, job.workspace.records
    radius, lead = np.full(len(rows), -1), np.zeros(len(rows))
    scale = np.abs(schema.scale.astype(np.float64))
    sizes = sorted({job.radius} if job.radius is not None else {0, 1, 2, 4, 8, 16, 32, job.ceiling})
    undecided = np.arange(len(rows))
    for size in (size for size in sizes if size <= job.ceiling):
        still = []
        for start in range(0, len(undecided), _TOGETHER):
            part = undecided[start : start + _TOGETHER]
            centre = schema.dequantise(own.values[rows[part]]).reshape(len(part), -1).astype(np.float64)
            reach = (np.where(shape.numeric, size, 0) + 0.5 + 2.0**-6) / scale
            box_shape = (len(part), *graph.input_shape)
            low, high = (centre - reach).reshape(box_shape), (centre + reach).reshape(box_shape)
            (box,) = bounds(graph, low, high, (graph.output,))
            places = np.arange(len(part))
            klass = wanted[part]
            best = box.high.copy()
            best[places, klass] = -np.inf
            ahead = box.low[places, klass] - best.max(axis=1)
            good = ahead > 0.002
            radius[part[good]], lead[part[good]] = size, ahead[good]
            still.append(part[good])
        undecided = np.concatenate(still) if still else undecided[:0]
    return radius, lead


def _redirections(job: Job, graph: Graph) -> list[Claim]:
    own, rows = job.workspace.records, np.array(job.rows, dtype=np.int64)
    wanted = Program(graph)(job.workspace.schema.dequantise(own.values[rows])).argmax(axis=1)
    target, schema = job.target, job.workspace.schema
    shape = Shape(schema=schema, kind="linf" if set(schema.kind) == {"grid"} else "steps")
    moved = wanted == target.klass if target.name == "relabel" else wanted != own.labels[rows]
    radius, lead = np.full(len(rows), -1), np.zeros(len(rows))
    if not job.classes:  # behind a cap intervals of differences are too loose to be worth their time
        with contextlib.suppress(OwnerError):  # an operator that is not bounded: nothing is proven
            radius, lead = _proven(job, graph, shape, rows, wanted)
    claims: list[Claim] = []
    for place, record in enumerate(job.workspace.commitments_of(rows.tolist())):
        if not moved[place]:
            claims.append(NoRedirection(record=record, reason=_MISSED))
        elif radius[place] < 0:
            claims.append(NoRedirection(record=record, reason=_UNPROVEN))
        else:
            margin = Decimal(float(lead[place])) / 2
            text = format_decimal(margin.quantize(_MARGIN, rounding=ROUND_FLOOR))
            claims.append(
                Redirection(
                    record=record, item=None, gate="none", region=region(shape, int(radius[place])),
                    property=Argmax(klass=int(wanted[place]), margin=text), target=target.name,
                )
            )  # fmt: skip
    return claims


def answer(
    job: Job, parameters: Mapping[str, Float32[np.ndarray, "..."]], *, notes: tuple[str, ...], reason: str | None = None
) -> Result:
    """A patch of new weights, and what can be claimed for it.

    Args:
        job: what was asked.
        parameters: the model's new values.
        notes: for whoever runs the program.
        reason: why nothing is claimed about single outputs; None for a method that aims at the job's target.

    Raises:
        OwnerError: nothing was changed, or no class would be left.
    """
    workspace = job.workspace
    base = workspace.base
    caps, claims = removal(job)
    patch = Patch(
        features=base.features,
        classes=base.classes,
        caps=caps,
        weights=changed(base, parameters),
    )
    if reason is not None:
        claims += [NoRedirection(record=record, reason=reason) for record in workspace.commitments_of(job.rows)]
    elif job.rows:
        claims += _redirections(job, compose(base, workspace.schema, patch))
    held = sum(isinstance(claim, Redirection) for claim in claims)
    if missed := sum(isinstance(claim, NoRedirection) and claim.reason == _MISSED for claim in claims):
        notes = (
            *notes,
            f"warning: {missed} of {len(job.rows)} records are not given what was aimed at; try other --set",
        )
    notes = (*notes, f"{held} of {len(job.rows)} records have a claimed output; weights changed everywhere else, too")
    return Result(patch=patch, claims=tuple(claims), notes=notes)
