"""The linear region around a record: what a ReLU network is there, and how far it reaches.

Proves nothing in float32: float64 arithmetic without error bounds, for comparison with what is certified. Within the
region of x every pre-activation and every logit is an affine function of the input, `J x + c`; the largest L-inf ball
around x in which no pre-activation changes its sign is `min |z_i| / sum_j |J_ij|`. J comes from pushing the unit
vectors through the network with the record's own pattern fixed: one batched pass instead of a backward pass for each
neuron. Covers what `propagation.plan` reads: also convolutions, normalisation, residual sums, pooling.

Source: PRUNE (arXiv 2505.06520) and REASSURE (arXiv 2110.07682), whose patches live on linear regions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

from auditor.propagation.plan import Affine, MaxPool, Plan, Relu, make_plan
from protocol.errors import AuditorError
from protocol.model.graph import Graph
from protocol.model.schema import InputSchema

_VALUES = 1 << 26
"""float64 numbers of one tensor's derivatives held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A record's linear region.

    Args:
        jacobian: derivative of every logit, `[class, feature]`.
        offset: logits are `jacobian @ x + offset`.
        normals: half-spaces `normals @ x <= bounds` whose intersection is the region, for the flattened input.
        bounds: their right-hand sides.
    """

    jacobian: Float[np.ndarray, "class feature"]
    offset: Float[np.ndarray, "class"]
    normals: Float[np.ndarray, "half feature"]
    bounds: Float[np.ndarray, "half"]

    def radius(self, x: Float[np.ndarray, "feature"], unit: Float[np.ndarray, "feature"]) -> float:
        """The largest ball around x inside the region, in the unit of each column (here: length of a grid step)."""
        room = self.bounds - self.normals @ x
        reach = np.abs(self.normals) @ unit
        # A half-space that no column moves towards stands in nobody's way.
        return float(np.min(room[reach > 0] / reach[reach > 0], initial=np.inf))


def _affine(
    step: Affine, values: dict[str, np.ndarray], slopes: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    value = sum(moved.forward(values[name], "signed") for moved, name in zip(step.maps, step.inputs, strict=True))
    slope = sum(moved.forward(slopes[name], "signed") for moved, name in zip(step.maps, step.inputs, strict=True))
    assert isinstance(value, np.ndarray)
    assert isinstance(slope, np.ndarray)
    return value if step.offset is None else value + step.offset["signed"], slope


def _pool(
    step: MaxPool, value: np.ndarray, slope: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    # The window's greatest entry is what comes through; that it is the greatest is what the region demands.
    flat, rows = value.reshape(-1), slope.reshape(len(slope), -1)
    seen = np.where(step.places >= 0, flat[step.places], -np.inf)
    best = step.places[np.arange(len(seen)), seen.argmax(axis=1)]
    others = [(b, o) for b, window in zip(best.tolist(), step.places.tolist(), strict=True) for o in window]
    pairs = np.array([(b, o) for b, o in others if o >= 0 and o != b], dtype=np.int64).reshape(-1, 2)
    excess = flat[pairs[:, 1]] - flat[pairs[:, 0]]
    steep = rows[:, pairs[:, 1]] - rows[:, pairs[:, 0]]
    return flat[best].reshape(1, *shape), rows[:, best].reshape(len(slope), *shape), excess, steep


def _linearise(plan: Plan, x: Float[np.ndarray, "feature"]) -> Linear:
    shape, features = plan.shapes[plan.graph.input], x.size
    values = {plan.graph.input: x.reshape(1, *shape)}
    slopes = {plan.graph.input: np.eye(features).reshape(features, *shape)}
    normals, bounds = [np.zeros((0, features))], [np.zeros(0)]

    def demand(excess: np.ndarray, steep: np.ndarray) -> None:
        # excess + steep (x' - x) <= 0 all over the region.
        bounds.append(steep.T @ x - excess)
        normals.append(steep.T)

    for step in plan.steps:
        if isinstance(step, Affine):
            values[step.output], slopes[step.output] = _affine(step, values, slopes)
            continue
        value, slope = values[step.input], slopes[step.input]
        if isinstance(step, Relu):
            on = value > 0
            sign = np.where(on, -1.0, 1.0)
            demand((sign * value).reshape(-1), (sign * slope).reshape(features, -1))
            values[step.output], slopes[step.output] = np.where(on, value, 0.0), np.where(on, slope, 0.0)
        else:
            values[step.output], slopes[step.output], excess, steep = _pool(
                step, value, slope, plan.shapes[step.output]
            )
            demand(excess, steep)
    logits, jacobian = values[plan.graph.output].reshape(-1), slopes[plan.graph.output].reshape(features, -1).T
    return Linear(
        jacobian=np.ascontiguousarray(jacobian),
        offset=logits - jacobian @ x,
        normals=np.concatenate(normals),
        bounds=np.concatenate(bounds),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """A graph that linear regions are asked of."""

    plan: Plan

    @classmethod
    def of(cls, graph: Graph) -> "Regions":
        """Read a graph.

        Raises:
            AuditorError: it has operators that are not piecewise linear, or none that this covers.
        """
        plan = make_plan(graph)
        if plan.refusal:
            raise AuditorError(f"no linear region: {plan.refusal}")
        return cls(plan=plan)

    def at(self, x: Float[np.ndarray, "feature"]) -> Linear:
        """The region of one flattened input.

        Raises:
            AuditorError: the derivatives of one layer would not fit in memory.
        """
        if x.size * self.plan.largest > _VALUES:
            raise AuditorError(f"{x.size} inputs and layers of {self.plan.largest} values are too many")
        return _linearise(self.plan, x.astype(np.float64))

    def pattern(self, x: Float[np.ndarray, "record feature"]) -> Bool[np.ndarray, "record bit"]:
        """Which ReLUs are on, and which entry each pooling takes: equal patterns mean the same linear region."""
        values = {self.plan.graph.input: x.astype(np.float64).reshape(len(x), *self.plan.shapes[self.plan.graph.input])}
        bits = [np.zeros((len(x), 0), dtype=bool)]
        for step in self.plan.steps:
            if isinstance(step, Affine):
                total = sum(m.forward(values[name], "signed") for m, name in zip(step.maps, step.inputs, strict=True))
                assert isinstance(total, np.ndarray)
                values[step.output] = total if step.offset is None else total + step.offset["signed"]
            elif isinstance(step, Relu):
                bits.append((values[step.input] > 0).reshape(len(x), -1))
                values[step.output] = np.maximum(values[step.input], 0.0)
            else:
                flat = np.concatenate([values[step.input].reshape(len(x), -1), np.full((len(x), 1), -np.inf)], axis=1)
                seen = flat[:, step.places]
                best = seen.argmax(axis=2)
                bits.append((best[:, :, None] == np.arange(seen.shape[2])).reshape(len(x), -1))
                values[step.output] = seen.max(axis=2).reshape(len(x), *self.plan.shapes[step.output])
        return np.concatenate(bits, axis=1)

    def ball(self, schema: InputSchema, grid: Integer[np.ndarray, "record feature"]) -> Float[np.ndarray, "record"]:
        """For each record the largest L-inf ball inside its region, in grid steps."""
        points = schema.dequantise(grid).reshape(len(grid), -1).astype(np.float64)
        unit = 1.0 / np.abs(schema.scale.astype(np.float64))
        found: Float[np.ndarray, "record"] = np.array([self.at(x).radius(x, unit) for x in points])
        return found
