"""Forward propagation of boxes: for every tensor what its float32 values can be, whatever the order of summation.

Words. A *source* is the graph's input or what a Relu or MaxPool made. Between sources everything is affine:
a tensor t there has an exact value r, the real affine function of the *float32* values of the sources, and
a computed one f. Proven, for every record that is still `alive`, every float32 input in its box and every
execution of the kind described in `rounding`:

- `|r - centre| <= radius` up to `slack * size`, `|r| <= size` likewise, and `|f - r| <= error`, where
  `error >= gamma(depth) size + underflow + slack size`;
- size is the sum of the absolute values of *all* terms that make t from its sources, through any number of affine
  nodes, so constants may as well have been multiplied together before (a normalisation folded into weights);
- no partial sum or product overflows: all are below `reach * magnitude`, which is checked against 2^126.

A record for which the last fails is no longer alive: nothing is said of it. Assumes a `Plan`.
Does not relate tensors to each other; `backward` does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from auditor.propagation.maps import Reading
from auditor.propagation.plan import Affine, MaxPool, Plan, Relu
from auditor.propagation.rounding import LARGEST, gamma, slack, underflow

Values = Float[np.ndarray, "record ..."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosure:
    """What is known of one tensor; see above.

    Args:
        centre: of the exact values.
        radius: around it, at least 0.
        size: bound on the sum of absolute values of terms.
        error: bound on the difference of computed and exact value; includes this program's own arithmetic.
        reach: for one record: bound on partial products and sums per unit of source magnitude.
        depth: float32 roundings on the way of any term since the sources.
        tight: whether centre and radius are attained but for rounding, so that nothing better can be found.
        independent: whether, besides, all values can be chosen independently of each other.
    """

    centre: Values
    radius: Values
    size: Values
    error: Values
    reach: Float[np.ndarray, "1 ..."]
    depth: int
    tight: bool
    independent: bool

    @property
    def low(self) -> Values:
        """Lower bounds of the computed values."""
        result: Values = self.centre - self.radius - self.error
        return result

    @property
    def high(self) -> Values:
        """Upper bounds of the computed values."""
        result: Values = self.centre + self.radius + self.error
        return result


@dataclass(slots=True, kw_only=True)
class State:
    """A propagation under way, for some records.

    Args:
        plan: of the model.
        alive: records of which something is said; see above.
        magnitude: greatest absolute value of any source so far, at least 1, by record.
        slack: relative allowance for this program's float64 arithmetic.
        values: enclosures by tensor name.
        limits: lower and upper bounds of the computed values that a Relu or MaxPool takes, by the name of its output.
    """

    plan: Plan
    alive: Bool[np.ndarray, " record"]
    magnitude: Float[np.ndarray, " record"]
    slack: float
    values: dict[str, Enclosure] = field(default_factory=dict)
    limits: dict[str, tuple[Values, Values]] = field(default_factory=dict)

    def column(self, of: Float[np.ndarray, " record"] | Bool[np.ndarray, " record"], like: Values) -> np.ndarray:
        """One value per record, in the rank of `like`."""
        return of.reshape(-1, *(1,) * (like.ndim - 1))

    def source(self, name: str, low: Values, high: Values, *, given: bool = False) -> None:
        """Enter a source: the float32 values of tensor `name` are in [low, high].

        Args:
            name: of the tensor.
            low: any float64; records with a value that is not below 2^126 are given up.
            high: at least `low`.
            given: whether this is the graph's input, whose values are attained independently of each other.
        """
        axes = tuple(range(1, low.ndim))
        size = np.maximum(np.abs(low), np.abs(high))
        # A comparison with NaN is false, so a record with a NaN is given up as well.
        self.alive &= (size < LARGEST).all(axis=axes)
        keep = self.column(self.alive, low)
        low, high, size = (np.where(keep, array, 0.0) for array in (low, high, size))
        self.magnitude = np.maximum(self.magnitude, size.max(axis=axes))
        centre = 0.5 * low + 0.5 * high
        radius = np.maximum(high - centre, centre - low)
        ones = np.ones((1, *low.shape[1:]))
        self.values[name] = self._enclosure(centre, radius, size, ones, depth=0, tight=given, independent=given)

    def _enclosure(
        self, centre: Values, radius: Values, size: Values, reach: Values, *, depth: int, tight: bool, independent: bool
    ) -> Enclosure:
        # An overflow of float64 on the way here leaves infinity or NaN in `reach`, never a number.
        worst = self.magnitude * reach.max(initial=0.0)
        self.alive &= (worst < LARGEST) & np.isfinite(gamma(depth))
        keep = self.column(self.alive, centre)
        if not self.alive.all():
            centre, radius, size = (np.where(keep, array, 0.0) for array in (centre, radius, size))
        lost = underflow(depth) * reach * self.column(np.where(self.alive, self.magnitude, 1.0), centre)
        rate = gamma(depth) if np.isfinite(gamma(depth)) else 0.0
        error = ((rate + self.slack) * size + np.where(keep, lost, 0.0)) * (1 + self.slack)
        return Enclosure(
            centre=centre,
            radius=radius,
            size=size,
            error=error,
            reach=reach,
            depth=depth,
            tight=tight,
            independent=independent,
        )

    def affine(self, step: Affine) -> None:
        """Enter what an affine node makes."""
        inputs = [self.values[name] for name in step.inputs]
        parts = []
        readings: list[tuple[Reading, list[np.ndarray]]] = [
            ("signed", [x.centre for x in inputs]),
            ("absolute", [x.radius for x in inputs]),
            ("absolute", [x.size for x in inputs]),
            ("reach", [x.reach for x in inputs]),
        ]
        for reading, arrays in readings:
            total = step.maps[0].forward(arrays[0], reading)
            for moved, array in zip(step.maps[1:], arrays[1:], strict=True):
                total = total + moved.forward(array, reading)
            parts.append(total)
        if step.offset is not None:
            parts[0] = parts[0] + step.offset["signed"]
            parts[2] = parts[2] + step.offset["absolute"]
            parts[3] = parts[3] + step.offset["reach"]
        alone = len(inputs) == 1
        mixing = any(moved.mixing for moved in step.maps)
        spread = alone and not mixing and inputs[0].centre[0:1].size == parts[0][0:1].size
        self.values[step.output] = self._enclosure(
            *parts,
            depth=max(x.depth for x in inputs) + step.roundings,
            tight=alone and (inputs[0].independent if mixing else inputs[0].tight),
            independent=spread and inputs[0].independent,
        )

    def activation(self, step: Relu | MaxPool) -> None:
        """Enter what a Relu or MaxPool makes, from the limits of its input."""
        low, high = self.limits[step.output]
        if isinstance(step, Relu):
            self.source(step.output, np.maximum(low, 0.0), np.maximum(high, 0.0))
        else:
            shape = self.plan.shapes[step.output]
            self.source(
                step.output, *(pick(step, array).max(axis=2).reshape(len(array), *shape) for array in (low, high))
            )


def pick(step: MaxPool, array: Values) -> Float[np.ndarray, "record item window"]:
    """What every window of a MaxPool sees of an array, minus infinity for padding."""
    flat = array.reshape(len(array), -1)
    padded = np.concatenate([flat, np.full((len(flat), 1), -np.inf)], axis=1)
    seen: Float[np.ndarray, "record item window"] = padded[:, step.places]
    return seen


Refine = Callable[[State, Relu | MaxPool], None]


def propagate(
    plan: Plan,
    low: Float[np.ndarray, "record ..."],
    high: Float[np.ndarray, "record ..."],
    *,
    refine: Refine | None = None,
) -> State:
    """Enclose every tensor of a graph.

    Args:
        plan: without refusal.
        low: least inputs of each record, in the model's shape.
        high: greatest inputs, not below `low`.
        refine: called before each Relu or MaxPool, to tighten its entry in `State.limits`.
    """
    records = len(low)
    # One term's way is no longer than the depth, one sum no longer than a tensor, and coefficients are added at
    # most once per edge of the graph.
    longest = sum(step.roundings for step in plan.steps if isinstance(step, Affine))
    state = State(
        plan=plan,
        alive=np.ones(records, np.bool_),
        magnitude=np.ones(records),
        slack=slack(longest + plan.largest + plan.edges),
    )
    with np.errstate(over="ignore", invalid="ignore"):
        state.source(plan.graph.input, low.astype(np.float64), high.astype(np.float64), given=True)
        for step in plan.steps:
            if isinstance(step, Affine):
                state.affine(step)
                continue
            found = state.values[step.input]
            state.limits[step.output] = (found.low, found.high)
            if refine is not None:
                refine(state, step)
            state.activation(step)
    return state
