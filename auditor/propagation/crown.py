"""Limits of hidden values by linear relaxation, where interval bounds leave them open.

Proves: the limits that `refiner` writes hold for the computed values, being the better of the interval's and of a
backward pass (`backward`) of their own. Only values whose sign (for a Relu) or place (for a MaxPool) the interval
leaves open are worth a pass; those that stay as they are lose nothing but a little rounding error.

Does not choose good slopes: a hint is evaluated as it is given.
"""

import numpy as np
from jaxtyping import Bool, Int64

from auditor.propagation.backward import Pass, Slopes
from auditor.propagation.enclosure import Refine, State, pick
from auditor.propagation.plan import MaxPool, Relu

ELEMENTS = 1 << 19
"""Coefficients of one tensor that a pass holds at a time: 4 MiB, which stays in the cache."""


def undecided(state: State, step: Relu | MaxPool) -> Bool[np.ndarray, "record item"]:
    """Input values of a Relu or MaxPool, flat, whose part in the output depends on the record's input."""
    low, high = state.limits[step.output]
    if isinstance(step, Relu):
        found: Bool[np.ndarray, "record item"] = ((low < 0) & (high > 0)).reshape(len(low), -1)
        return found
    least, greatest = pick(step, low), pick(step, high)
    # A value matters if it may exceed every other one's least, and somebody else may too.
    rival = greatest >= least.max(axis=2, keepdims=True)
    open_ = rival & (rival.sum(axis=2, keepdims=True) > 1)
    result = np.zeros((len(low), low[0:1].size + 1), np.bool_)
    for record, window in enumerate(open_):
        result[record, step.places[window]] = True
    return result[:, :-1]


def _most(limit: int, record: Int64[np.ndarray, " item"], width: np.ndarray) -> Int64[np.ndarray, " item"]:
    # Those that are most open: with the largest loss of a relaxation.
    if len(record) <= limit:
        return record
    return record[np.argsort(-width[record], kind="stable")[:limit]]


def refiner(slopes: Slopes, *, neurons: int) -> Refine:
    """What `enclosure.propagate` calls to tighten limits.

    Args:
        slopes: checked hints, by record and neuron.
        neurons: at most so many values of one tensor and record get a pass of their own, the most open first.
    """

    def refine(state: State, step: Relu | MaxPool) -> None:
        known = state.values[step.input]
        if known.tight:
            return
        low, high = (limit.reshape(len(limit), -1).copy() for limit in state.limits[step.output])
        chosen = undecided(state, step) & state.alive[:, None]
        size = low[0:1].size
        together = max(1, ELEMENTS // (2 * state.plan.largest))
        for record in np.flatnonzero(chosen.any(axis=1)):
            places = _most(neurons, np.flatnonzero(chosen[record]), np.minimum(-low[record], high[record]))
            one = Pass(state=state, records=slice(int(record), int(record) + 1), slopes=slopes)
            for start in range(0, len(places), together):
                part = places[start : start + together]
                rows = np.zeros((1, 2 * len(part), size))
                rows[0, np.arange(len(part)), part] = 1.0
                rows[0, len(part) + np.arange(len(part)), part] = -1.0
                found = one.lower(step.input, rows.reshape(1, 2 * len(part), *known.centre.shape[1:]))[0]
                low[record, part] = np.maximum(low[record, part], found[: len(part)])
                high[record, part] = np.minimum(high[record, part], -found[len(part) :])
        shape = known.centre.shape
        state.limits[step.output] = (low.reshape(shape), high.reshape(shape))

    return refine
