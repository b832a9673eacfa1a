"""The largest radius, in grid steps, at which a record's class is proven to win.

Proves, for the number it returns for a record: on every float32 input whose grid value is within that many steps of
the record's in every column (and that is inside the declared box), the label's float32 logit exceeds every other one
by the margin, in every execution. Larger radii are not refuted, only not proven: boxes are nested, but a bound need
not get worse in every step, so bisection finds a proven radius, usually the largest. Source: SPEC 11.6.
"""

import numpy as np
from jaxtyping import Float, Int64, Integer

from auditor.propagation.bounds import NEURONS, Method, bound_plan
from auditor.propagation.plan import make_plan
from auditor.propagation.region import region
from protocol.errors import AuditorError
from protocol.model.graph import Graph
from protocol.model.schema import InputSchema

UNPROVEN = -1
"""Instead of a radius: not even the record's own grid cell is proven."""


def margin_rows(labels: Integer[np.ndarray, " record"], classes: int) -> Float[np.ndarray, "record row class"]:
    """For each record the rows P with P f = the label's logit less each other class's."""
    others = np.array([[k for k in range(classes) if k != label] for label in labels.tolist()], np.int64)
    rows = np.zeros((len(labels), classes - 1, classes))
    places = np.arange(len(labels))
    rows[places, :, labels] = 1.0
    rows[places[:, None], np.arange(classes - 1)[None], others.reshape(len(labels), classes - 1)] = -1.0
    return rows


def margin_radius(
    graph: Graph,
    schema: InputSchema,
    grid: Integer[np.ndarray, "record feature"],
    labels: Integer[np.ndarray, " record"],
    *,
    margin: float = 0.0,
    ceiling: int = 64,
    method: Method = "crown",
    neurons: int = NEURONS,
    batch: int = 64,
) -> Int64[np.ndarray, " record"]:
    """For each record a radius at which its label is proven to win, the largest that bisection finds.

    Args:
        graph: a model of the profile.
        schema: its input schema.
        grid: grid values of records.
        labels: the class that is to win on each record.
        margin: by how much, at least 0; with 0 the logit must still be strictly greater.
        ceiling: largest radius to try, in grid steps.
        method: see `bounds.bound`.
        neurons: likewise.
        batch: records at a time.

    Returns:
        Radii in 0..ceiling, or `UNPROVEN`.

    Raises:
        AuditorError: arguments that do not fit.
    """
    if schema.shape != graph.input_shape:
        raise AuditorError(f"the input schema is for records of shape {schema.shape}, not {graph.input_shape}")
    if labels.shape != (len(grid),) or labels.dtype.kind not in "iu":
        raise AuditorError("every record needs one label")
    if labels.size and (labels.min() < 0 or labels.max() >= graph.classes):
        raise AuditorError(f"a label is not one of the model's {graph.classes} classes")
    if not (np.isfinite(margin) and margin >= 0) or ceiling < 0 or batch < 1:
        raise AuditorError("margin and ceiling must not be negative, and a batch has at least one record")
    planned = make_plan(graph)
    proven = np.full(len(grid), UNPROVEN, np.int64)
    failed = np.full(len(grid), ceiling + 1, np.int64)
    while (open_ := np.flatnonzero(failed - proven > 1)).size:
        for start in range(0, len(open_), batch):
            part = open_[start : start + batch]
            steps = (proven[part] + failed[part]) // 2
            low, high = region(schema, grid[part], steps)
            rows = margin_rows(labels[part], graph.classes)
            lower = bound_plan(planned, low, high, objective=rows, method=method, neurons=neurons).lower
            wins = ((lower > 0) & (lower >= margin)).all(axis=1)
            proven[part[wins]] = steps[wins]
            failed[part[~wins]] = steps[~wins]
    return proven
