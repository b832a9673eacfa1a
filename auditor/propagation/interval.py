"""Interval propagation alone: boxes forward, and one exact step back from the output.

Proves what `enclosure` and `backward` prove; the last affine part is taken together with the objective, so that
differences of logits are not bounded one logit at a time. Cheap (three matrix products per layer), and loose: good for
radius 0, small models and many records.
"""

import numpy as np
from jaxtyping import Float

from auditor.propagation.backward import Pass
from auditor.propagation.enclosure import State, propagate
from auditor.propagation.plan import Plan


def enclose(plan: Plan, low: Float[np.ndarray, "record ..."], high: Float[np.ndarray, "record ..."]) -> State:
    """Boxes around every tensor; see `enclosure.propagate`."""
    return propagate(plan, low, high)


def last_step(state: State, records: slice) -> Pass:
    """The way back that stops at the first Relu or MaxPool."""
    return Pass(state=state, records=records, slopes={}, through=False)
