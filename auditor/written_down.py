"""Records that stand in the patch as they are: rows of numbers that no gate needs to hide a record, and words.

Proves (`resembled`): which records one of the patch's rows equals up to scale and offset, so nearly that what is left
is below a share of what the record's class mean leaves. Columns are measured in units of their range. The row need not
do anything: a sketch's component that limits no item, a half-space that never binds and a map's weights are read by
whoever holds the file, and no attack that solves for the record looks at them. Rows with fewer than `FEWEST` values
that are not zero, and records or rows that are flat, are left out: they tell too little, and the identity has them.

Proves (`idle`): which components of a sketch limit no item anywhere on the input grid, exactly.

Does not find a record in another order, or under a cipher: bits inside legitimate values are out of reach
(threats `hidden-payload`, `patch-as-record`). Own analysis of this project's patch format.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from protocol.model.parts import AffineHead, RegionGate, SketchGate
from protocol.model.patch import Patch
from protocol.model.schema import InputSchema

SHORTEST = 16
"""Features from which on a row can be recognised as a record; of fewer, many rows look alike by chance."""
FEWEST = 4
_BLOCK = 512


def rows_of(patch: Patch, schema: InputSchema) -> Iterator[Float[np.ndarray, "row feature"]]:
    """All rows of one number a feature that the patch stores, as grid values, some hundred at a time."""
    for part in patch.parts:
        found = []
        if isinstance(part.gate, SketchGate):
            found.append(part.gate.matrix)
        if isinstance(part.gate, RegionGate):
            found.append(part.gate.weights.reshape(-1, schema.features))
        if isinstance(part.head, AffineHead):
            found.append(part.head.weights.reshape(-1, schema.features))
        for rows in found:
            for start in range(0, len(rows), _BLOCK):
                yield rows[start : start + _BLOCK].astype(np.float64)


def _directions(
    values: Float[np.ndarray, "row feature"], span: Float[np.ndarray, "feature"]
) -> Float[np.ndarray, "row feature"]:
    # Of length 1 and mean 0; all zero where the row is flat. The inner product of two is their correlation.
    centred = values / span
    centred = centred - centred.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    flat = length[:, 0] <= 1e-9 * np.maximum(1.0, np.abs(values / span).max(axis=1))
    direction: np.ndarray = centred / np.where(flat[:, None], 1.0, length)
    direction[flat] = 0.0
    return direction


def resembled(
    patch: Patch,
    schema: InputSchema,
    records: Integer[np.ndarray, "record feature"],
    guesses: Float[np.ndarray, "record feature"],
    *,
    level: float,
) -> Bool[np.ndarray, "record"]:
    """Which records stand in the patch as a row, up to scale and offset.

    Args:
        patch: as it was signed.
        schema: the input grid.
        records: grid values.
        guesses: for each record the mean of its class, from data that the owner did not choose.
        level: what a row may leave of the record, relative to what the guess leaves (1 - squared correlation, each).
    """
    none = np.zeros(len(records), dtype=bool)
    if schema.features < SHORTEST or not len(records):
        return none
    span = np.maximum(schema.high - schema.low, 1).astype(np.float64)
    # A half-space or map is about inputs, a sketch about grid values; a scale for each column makes them two readings.
    scale, offset = schema.scale.astype(np.float64), schema.offset.astype(np.float64)
    same = np.ptp(scale) == 0 and np.ptp(offset) == 0
    wanted = _directions(records.astype(np.float64), span)
    left = 1.0 - np.einsum("rf,rf->r", wanted, _directions(guesses, span)) ** 2
    best = np.zeros(len(records))
    for rows in rows_of(patch, schema):
        telling = rows[(rows != 0).sum(axis=1) >= FEWEST]
        readings = [telling] if same else [telling, telling * scale + offset, telling * scale, telling / scale]
        for reading in readings:
            if len(reading):
                best = np.maximum(best, np.abs(wanted @ _directions(reading, span).T).max(axis=1))
    found: np.ndarray = (wanted.any(axis=1)) & (1.0 - best**2 < level * np.maximum(left, 1e-12))
    return found


def idle(gate: SketchGate, schema: InputSchema) -> Int[np.ndarray, "component"]:
    """Components whose box holds every value that the sketch can have, for every item, and whose row is not zero."""
    matrix = gate.matrix.astype(np.int64)
    ends = matrix * schema.low.astype(np.int64), matrix * schema.high.astype(np.int64)
    least, most = np.minimum(*ends).sum(axis=1), np.maximum(*ends).sum(axis=1)
    limits = (gate.low > least).any(axis=0) | (gate.high < most).any(axis=0)
    return np.flatnonzero(~limits & matrix.any(axis=1))


__all__ = ["FEWEST", "SHORTEST", "idle", "resembled", "rows_of"]
