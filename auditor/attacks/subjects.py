"""What attacks that ask the model further questions work on: records on the input grid, and models to query.

Proves: nothing.
Assumes: the models are the auditor's own execution of base and patched model, deterministic for a given record.
Does not: score. Attacks on `Subjects` have one signature, `attack(subjects, generator)`, and give one score for
each record (`Scores`) or a property (`Property`); `Unavailable` says why neither.

A step is one grid step in every column of kind `grid`; where a table has no such column, one step is one more
switch turned: a binary column flipped, or another value of a one-hot group. In a mixed table binary and one-hot
columns stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from auditor.attacks.observation import Scores, Unavailable
from auditor.attacks.properties import Property
from protocol.errors import AuditorError
from protocol.model.schema import InputSchema

Grid = Int[np.ndarray, "record feature"]
Model = Callable[[Float32[np.ndarray, "record ..."]], Float32[np.ndarray, "record class"]]
_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subjects:
    """Forgotten and never-seen records and the models that may be asked about them.

    Attributes:
        values: grid values.
        labels: the records' labels, from 0.
        forget: the forgotten records; all others were never seen.
        schema: how grid values become inputs.
        patched: the model as it is handed over.
        base: the model under the patch; None where only the patched one is at hand.
    """

    values: Grid
    labels: Int64[np.ndarray, "record"]
    forget: Bool[np.ndarray, "record"]
    schema: InputSchema
    patched: Model
    base: Model | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other.

        Raises:
            AuditorError: mismatched shapes or types, or values outside the schema.
        """
        records = (len(self.values),)
        if self.values.shape != (*records, self.schema.features) or not np.issubdtype(self.values.dtype, np.integer):
            raise AuditorError(f"values are integers, {self.schema.features} for each record")
        if self.labels.shape != records or self.forget.shape != records or self.forget.dtype != np.bool_:
            raise AuditorError("there is one label and one boolean for each record")
        if not np.issubdtype(self.labels.dtype, np.integer) or (len(self.labels) and int(self.labels.min()) < 0):
            raise AuditorError("labels are integers from 0")
        if ((self.values < self.schema.low) | (self.values > self.schema.high)).any():
            raise AuditorError("a value outside its column's range")

    @property
    def inputs(self) -> Float32[np.ndarray, "record ..."]:
        """The records as the models take them."""
        return self.schema.dequantise(self.values)


def ask(
    model: Model, inputs: Float32[np.ndarray, "record ..."], labels: Int64[np.ndarray, "record"]
) -> Float[np.ndarray, "record class"] | Unavailable:
    """Return a model's logits in double precision, asked in batches, or why an attack can do nothing with them.

    Args:
        model: what to ask.
        inputs: at least one record.
        labels: their labels; they must be classes of the model.
    """
    if not len(inputs):
        return Unavailable(reason="there are no records")
    parts = [model(inputs[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH)]
    logits = np.concatenate(parts).astype(np.float64)
    if logits.shape[1] < 2:
        return Unavailable(reason="the model has a single class")
    if not np.isfinite(logits).all():
        return Unavailable(reason="logits that are not finite numbers")
    if int(labels.max()) >= logits.shape[1]:
        return Unavailable(reason="a record has a class that the model does not have")
    return logits


def _switch(
    values: Grid, schema: InputSchema, chosen: Int[np.ndarray, "record"], generator: np.random.Generator
) -> Grid:
    # `chosen` numbers the binary columns first, then the one-hot groups.
    kinds = np.array(schema.kind)
    binary, groups = np.flatnonzero(kinds == "binary"), np.unique(schema.group[kinds == "onehot"])
    changed = values.copy()
    for number, column in enumerate(binary):
        rows = np.flatnonzero(chosen == number)
        changed[rows, column] = 1 - changed[rows, column]
    for number, group in enumerate(groups, start=binary.size):
        rows, columns = np.flatnonzero(chosen == number), np.flatnonzero(schema.group == group)
        if columns.size < 2:
            continue
        now = changed[np.ix_(rows, columns)].argmax(axis=1)
        other = (now + generator.integers(1, columns.size, rows.size)) % columns.size
        changed[np.ix_(rows, columns)] = 0
        changed[rows, columns[other]] = 1
    return changed


def _switches(schema: InputSchema) -> int:
    kinds = np.array(schema.kind)
    return int((kinds == "binary").sum()) + int(np.unique(schema.group[kinds == "onehot"]).size)


def _turned(values: Grid, schema: InputSchema, steps: int, generator: np.random.Generator) -> list[Grid]:
    count = _switches(schema)
    order = generator.permuted(np.tile(np.arange(count), (len(values), 1)), axis=1)
    found = [values]
    for step in range(min(steps, count)):
        found.append(_switch(found[-1], schema, order[:, step], generator))
    return found + [found[-1]] * (steps - min(steps, count))


def walk(
    values: Grid, schema: InputSchema, steps: int, generator: np.random.Generator
) -> Int[np.ndarray, "step record feature"]:
    """Return each record and the points 1, 2, ... steps away from it in one random direction of its own.

    Args:
        values: grid values.
        schema: their columns.
        steps: at least 1.
        generator: draws the directions. A column at the end of its range goes inwards.
    """
    grid = np.array(schema.kind) == "grid"
    if not grid.any():
        return np.stack(_turned(values, schema, steps, generator))
    sign = generator.choice(np.array([-1, 1]), size=values.shape)
    sign = np.where(values - steps < schema.low, 1, np.where(values + steps > schema.high, -1, sign))
    points = values + np.arange(steps + 1)[:, None, None] * np.where(grid, sign, 0)
    walked: np.ndarray = np.clip(points, schema.low, schema.high)
    return walked


def scatter(values: Grid, schema: InputSchema, distance: int, generator: np.random.Generator) -> Grid:
    """Return one random near duplicate of each record, `distance` steps away in at least one column.

    Args:
        values: grid values.
        schema: their columns.
        distance: largest change of a grid column, or number of switches turned; at least 1.
        generator: draws them.
    """
    columns = np.flatnonzero(np.array(schema.kind) == "grid")
    if not columns.size:
        return _turned(values, schema, distance, generator)[-1]
    noise = np.zeros(values.shape, dtype=np.int64)
    noise[:, columns] = generator.integers(-distance, distance + 1, size=(len(values), columns.size))
    rows, full = np.arange(len(values)), generator.choice(columns, size=len(values))
    middle = (schema.low[full] + schema.high[full]) / 2
    noise[rows, full] = np.where(values[rows, full] > middle, -distance, distance)
    moved: np.ndarray = np.clip(values + noise, schema.low, schema.high)
    return moved


QueryAttack = Callable[[Subjects, np.random.Generator], Scores | Unavailable]
Probe = Callable[[Subjects, np.random.Generator], Property | Unavailable]

__all__ = ["Grid", "Model", "Probe", "QueryAttack", "Subjects", "ask", "scatter", "walk"]
