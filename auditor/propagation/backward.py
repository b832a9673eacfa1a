"""Backward propagation of linear forms (CROWN): a lower bound of a form, as a linear form of the input box.

Proves, from a `State` and for rows of coefficients P of a tensor t: a number below P f(x) for every float32 input x
of a record's box and every execution, f being the *computed* values of t and P f their exact combination.

The invariant of the pass: `P f >= sum over open tensors of rows * value + total - penalty`, value being
the exact one (`r` of `enclosure`) of the same execution. An affine step replaces its output by its inputs, exactly but
for float64 rounding, which is at most slack * |rows| * size at the tensors where the affine part ends.
There, at every input of a Relu or MaxPool and at t itself, |rows| * error is charged: `error` holds the
float32 rounding and that slack. A Relu is replaced by any line below it (slope in [0, 1], from
whomever) where its coefficient is positive, and by a line above it elsewhere, a MaxPool by one of the values it sees
and by a constant. Wrong arithmetic could only come from overflow, which ends in an infinite penalty or NaN: no bound.

Source: Zhang et al., Efficient Neural Network Robustness Certification with General Activation Functions
(CROWN), NeurIPS 2018, sections 3.2 and 3.3; Singh et al. (DeepPoly), POPL 2019, for MaxPool.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64

from auditor.propagation.enclosure import Enclosure, State, Values, pick
from auditor.propagation.plan import Affine, MaxPool, Relu
from auditor.propagation.rounding import FLOOR

Rows = Float[np.ndarray, "record row ..."]
Slopes = Mapping[str, Float[np.ndarray, "record ..."]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """For each neuron of a Relu: `lower * f <= max(f, 0) <= upper * f + offset` between its limits.

    Args:
        lower: slopes in [0, 1], by record and neuron, or by record, row and neuron.
        upper: slopes in [0, 1].
        offset: at least 0.
    """

    lower: np.ndarray
    upper: Values
    offset: Values


def lines(low: Values, high: Values, slopes: np.ndarray | None = None) -> Lines:
    """Relaxations of Relus between limits.

    Args:
        low: limits of the computed values.
        high: likewise.
        slopes: in [0, 1], for neurons whose sign is open, with or without an axis of rows after the records; None
            for 0 or 1, whichever leaves the smaller area.
    """
    active, idle = low >= 0, high <= 0
    open_ = ~(active | idle)
    # Any upper slope is sound as long as the offset lifts the line above both ends; Relu is convex.
    upper = np.where(open_, np.clip(high / np.where(open_, high - low, 1.0), 0.0, 1.0), active)
    lifted = np.maximum(-upper * low, (1.0 - upper) * high) * (1 + 2.0**-50)
    chosen = (high > -low).astype(np.float64) if slopes is None else slopes
    if chosen.ndim > low.ndim:
        open_rows, active_rows = open_[:, None], active[:, None]
    else:
        open_rows, active_rows = open_, active
    return Lines(lower=np.where(open_rows, chosen, active_rows), upper=upper, offset=np.where(open_, lifted, 0.0))


@dataclass(slots=True, kw_only=True)
class _Sums:
    """What has been gathered on the way back; everything by record and row."""

    total: Float[np.ndarray, "record row"]
    mass: Float[np.ndarray, "record row"]
    penalty: Float[np.ndarray, "record row"]
    open: dict[str, Rows] = field(default_factory=dict)

    def add(self, amount: Float[np.ndarray, "record row"]) -> None:
        self.total = self.total + amount
        self.mass = self.mass + np.abs(amount)

    def put(self, name: str, rows: Rows) -> None:
        self.open[name] = self.open[name] + rows if name in self.open else rows


def _dot(rows: Rows, values: Values) -> Float[np.ndarray, "record row"]:
    flat = rows.reshape(*rows.shape[:2], -1)
    product: Float[np.ndarray, "record row"] = np.matmul(flat, values.reshape(len(values), -1, 1))[..., 0]
    return product


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One way back through a state, for a slice of its records.

    Args:
        state: enclosures of every tensor that comes before.
        records: which of its records.
        slopes: hints by the name of a Relu's output; already checked.
        through: whether to go on through Relus and MaxPools to the input, or to stop at the first ones.
    """

    state: State
    records: slice
    slopes: Slopes
    through: bool = True

    def lower(self, name: str, rows: Rows) -> Float[np.ndarray, "record row"]:
        """Lower bounds of linear forms of tensor `name`; minus infinity where there is none.

        Args:
            name: a tensor of the state.
            rows: coefficients, as many records as the slice has.
        """
        zero = np.zeros(rows.shape[:2])
        sums = _Sums(total=zero, mass=zero, penalty=zero)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            self._charge(sums, name, rows)
            sums.put(name, rows)
            for step in reversed(self.state.plan.steps):
                if step.output not in sums.open:
                    continue
                found = sums.open.pop(step.output)
                if isinstance(step, Affine):
                    self._affine(sums, step, found)
                elif not self.through:
                    self._close(sums, step.output, found)
                elif isinstance(step, Relu):
                    self._relu(sums, step, found)
                else:
                    self._max_pool(sums, step, found)
            for last, found in sums.open.items():
                self._close(sums, last, found)
            slack = self.state.slack
            result = (sums.total - sums.penalty) - slack * (sums.mass + sums.penalty) - FLOOR
        return np.where(np.isfinite(result) & self.state.alive[self.records, None], result, -np.inf)

    def _known(self, name: str) -> Enclosure:
        return self.state.values[name]

    def _charge(self, sums: _Sums, name: str, rows: Rows) -> None:
        sums.penalty = sums.penalty + _dot(np.abs(rows), self._known(name).error[self.records])

    def _close(self, sums: _Sums, name: str, rows: Rows) -> None:
        # The least value over the source's box.
        known, chosen = self._known(name), self.records
        sums.add(_dot(rows, known.centre[chosen]))
        wide = known.radius[chosen] + self.state.slack * known.size[chosen]
        sums.penalty = sums.penalty + _dot(np.abs(rows), wide)

    def _affine(self, sums: _Sums, step: Affine, rows: Rows) -> None:
        records, count = rows.shape[:2]
        flat = rows.reshape(records * count, *rows.shape[2:])
        for name, moved in zip(step.inputs, step.maps, strict=True):
            found = moved.backward(flat)
            sums.put(name, found.reshape(records, count, *found.shape[1:]))
        if step.offset is not None:
            offset = np.broadcast_to(step.offset["signed"], (1, *rows.shape[2:]))
            sums.add((flat.reshape(records * count, -1) @ offset.reshape(-1)).reshape(records, count))

    def _relu(self, sums: _Sums, step: Relu, rows: Rows) -> None:
        low, high = (limit[self.records] for limit in self.state.limits[step.output])
        hint = self.slopes.get(step.output)
        found = lines(low, high, hint[self.records] if hint is not None else None)
        lower = found.lower if found.lower.ndim > low.ndim else found.lower[:, None]
        below = np.minimum(rows, 0.0)
        sums.add(_dot(below, found.offset))
        made = np.maximum(rows, 0.0)
        made *= lower
        below *= found.upper[:, None]
        made += below
        self._charge(sums, step.input, made)
        sums.put(step.input, made)

    def _max_pool(self, sums: _Sums, step: MaxPool, rows: Rows) -> None:
        low, high = (pick(step, limit[self.records]) for limit in self.state.limits[step.output])
        best: Int64[np.ndarray, "record item"] = low.argmax(axis=2)
        ceiling = high.max(axis=2)
        rivals = high.copy()
        np.put_along_axis(rivals, best[..., None], -np.inf, axis=2)
        # Where no other value can exceed the best one's least, the maximum *is* that value.
        settled = np.take_along_axis(low, best[..., None], axis=2)[..., 0] >= rivals.max(axis=2)
        flat = rows.reshape(*rows.shape[:2], -1)
        below = np.minimum(flat, 0.0)
        flats = np.where(settled, 0.0, ceiling)
        sums.add(_dot(below, flats))
        # Terms of both signs: their rounding is not a small part of their sum.
        sums.penalty = sums.penalty - self.state.slack * _dot(below, np.abs(flats))
        kept = np.maximum(flat, 0.0) + below * settled[:, None]
        place = np.take_along_axis(np.broadcast_to(step.places, low.shape), best[..., None], axis=2)[..., 0]
        shape = self.state.plan.shapes[step.input]
        gathered = torch.zeros((*rows.shape[:2], math.prod(shape)), dtype=torch.float64)
        index = torch.from_numpy(place)[:, None].expand(kept.shape)
        made = gathered.scatter_add_(2, index, torch.from_numpy(kept)).numpy().reshape(*rows.shape[:2], *shape)
        self._charge(sums, step.input, made)
        sums.put(step.input, made)
