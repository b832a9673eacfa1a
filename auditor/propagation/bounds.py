"""`bound`: what a model's float32 outputs can be on boxes of inputs, for any linear objective.

Proves: for every record k, every float32 input x with low_k <= x <= high_k, and every execution of the model in
the arithmetic of `rounding`, `lower[k, i] <= P_i f(x) <= upper[k, i]`, f(x) being the float32 logits and P_i f(x)
their exact combination. Where that cannot be proven the bound is infinite: overflow is possible, an operator is not
one that is bounded here, the inputs are not finite.

Assumes a graph of the profile. Hints make bounds better or worse, never wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from auditor.propagation.backward import Pass, Slopes
from auditor.propagation.crown import ELEMENTS, refiner
from auditor.propagation.enclosure import propagate
from auditor.propagation.interval import enclose, last_step
from auditor.propagation.plan import Plan, Relu, make_plan
from protocol.errors import AuditorError
from protocol.model.graph import Graph

Method = Literal["interval", "crown"]
NEURONS = 4096
"""Hidden values of one tensor and record that CROWN bounds by a pass of their own, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Proven bounds of an objective.

    Args:
        lower: of each objective row on each record's box; minus infinity where nothing is proven.
        upper: likewise; infinity where nothing is proven.
        reasons: for each record why nothing is proven about it, or empty.
        method: how they were found.
    """

    lower: Float[np.ndarray, "record row"]
    upper: Float[np.ndarray, "record row"]
    reasons: tuple[str, ...]
    method: Method


def _check_boxes(planned: Plan, low: np.ndarray, high: np.ndarray) -> None:
    shape = planned.graph.input_shape
    if low.dtype != np.float32 or high.dtype != np.float32 or low.shape != high.shape or low.shape[1:] != shape:
        raise AuditorError(f"boxes need two float32 arrays of records of shape {shape}")
    if (low > high).any():
        raise AuditorError("a box's lower end is above its upper end")


def _check_objective(planned: Plan, records: int, objective: np.ndarray) -> Float[np.ndarray, "record row class"]:
    if objective.dtype != np.float64 or objective.ndim not in (2, 3) or objective.shape[-1] != planned.graph.classes:
        raise AuditorError(f"an objective needs float64 rows of {planned.graph.classes} coefficients")
    if not np.isfinite(objective).all():
        raise AuditorError("an objective's coefficient is NaN or infinite")
    if objective.ndim == 3 and len(objective) != records:
        raise AuditorError(f"objectives of {len(objective)} records for {records} boxes")
    return np.broadcast_to(objective, (records, *objective.shape[-2:]))


def _check_slopes(
    planned: Plan, shape: tuple[int, int], slopes: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]
) -> tuple[Slopes, Slopes]:
    """Hints for all passes, and hints for the last one alone (twice: for lower and upper bounds)."""
    relus = {step.output for step in planned.steps if isinstance(step, Relu)}
    always: dict[str, np.ndarray] = {}
    last: dict[str, np.ndarray] = {}
    every = [(name, values, False) for name, values in slopes.items()]
    for name, values, rows_only in (*every, *((name, values, True) for name, values in own.items())):
        if name not in relus:
            raise AuditorError("slopes are given for a tensor that is no Relu's output", where=name[:80])
        one = planned.shapes[name]
        accepted = ((*shape, *one),) if rows_only else ((shape[0], *one), (*shape, *one))
        if values.dtype.kind != "f" or values.shape not in accepted:
            raise AuditorError(f"slopes need the shape [record, {one}] or [record, row, {one}]", where=name)
        if not ((values >= 0) & (values <= 1)).all():
            raise AuditorError("a slope is not in [0, 1]", where=name)
        exact = values.astype(np.float64)
        if not rows_only and exact.shape[1:] == one:
            always[name] = last[name] = exact
        else:
            last[name] = np.concatenate([exact, exact], axis=1)
    return always, last


def _unbounded(records: int, rows: int, reason: str, method: Method) -> Bounds:
    lower = np.full((records, rows), -np.inf)
    return Bounds(lower=lower, upper=-lower, reasons=(reason,) * records, method=method)


def bound_plan(
    planned: Plan,
    low: Float32[np.ndarray, "record ..."],
    high: Float32[np.ndarray, "record ..."],
    *,
    objective: Float[np.ndarray, "*record row class"],
    method: Method = "crown",
    slopes: Mapping[str, np.ndarray] | None = None,
    last_slopes: Mapping[str, np.ndarray] | None = None,
    neurons: int = NEURONS,
) -> Bounds:
    """`bound` for a graph that was planned before (`make_plan`), for many calls on one model.

    `last_slopes`, `[record, row, ...]`, take the place of `slopes` in the objective's own pass.
    """
    _check_boxes(planned, low, high)
    rows = _check_objective(planned, len(low), objective)
    if method not in ("interval", "crown") or neurons < 0:
        raise AuditorError(f"{method!r} is not a method, or {neurons} not a number of neurons")
    if planned.refusal:
        return _unbounded(rows.shape[0], rows.shape[1], planned.refusal, method)
    always, last = _check_slopes(planned, rows.shape[:2], slopes or {}, last_slopes or {})
    if (slopes or last_slopes) and method == "interval":
        raise AuditorError("interval propagation takes no slopes")
    if method == "interval":
        state = enclose(planned, low, high)
    else:
        state = propagate(planned, low, high, refine=refiner(always, neurons=neurons))
    both = np.concatenate([rows, -rows], axis=1)
    together = max(1, ELEMENTS // max(1, both.shape[1] * planned.largest))
    parts = []
    for start in range(0, len(low), together):
        records = slice(start, start + together)
        part = last_step(state, records).lower(planned.graph.output, both[records])
        if method == "crown":
            # Neither way is always the better one; both are proven.
            way = Pass(state=state, records=records, slopes=last)
            part = np.maximum(part, way.lower(planned.graph.output, both[records]))
        parts.append(part)
    found = np.concatenate(parts) if parts else np.zeros((0, both.shape[1]))
    count = rows.shape[1]
    reasons = tuple("" if alive else "an input or an intermediate result may overflow" for alive in state.alive)
    return Bounds(lower=found[:, :count], upper=-found[:, count:], reasons=reasons, method=method)


def bound(
    graph: Graph,
    low: Float32[np.ndarray, "record ..."],
    high: Float32[np.ndarray, "record ..."],
    *,
    objective: Float[np.ndarray, "*record row class"],
    method: Method = "crown",
    slopes: Mapping[str, np.ndarray] | None = None,
    neurons: int = NEURONS,
) -> Bounds:
    """Bounds of linear combinations of the float32 logits over boxes of float32 inputs.

    Args:
        graph: a model of the profile.
        low: least inputs, in the model's shape; ends included.
        high: greatest inputs.
        objective: P, float64: the same rows for all records, or rows for each record.
        method: "interval" (fast, loose) or "crown".
        slopes: proof hints for "crown": by the name of a Relu's output, the slopes in [0, 1] of the lower
            line of every neuron whose sign is open, `[record, ...]` for every pass or `[record, row, ...]`
            for the objective's own pass only. They may come from anybody.
        neurons: at most so many values of one hidden tensor and record are bounded by a pass of their own; the others
            keep interval bounds. What a deep convolutional net costs is governed by this.

    Raises:
        AuditorError: arguments that do not fit the model, an empty box, or an invalid hint.
        MalformedError: the graph is not in the profile.
    """
    return bound_plan(make_plan(graph), low, high, objective=objective, method=method, slopes=slopes, neurons=neurons)
