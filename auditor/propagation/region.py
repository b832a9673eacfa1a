"""The float32 inputs of a claimed region, as boxes of real numbers.

Proves: every float32 input that is inside the declared box and whose grid value differs from a record's by at most
the given steps in every column lies between the two arrays that `region` returns, whichever way the quantiser's
product and sum are executed (fused or not, subnormals flushed or not). Not every number in the box need be in the
region: it is widened by what rounding may hide. Assumes a parsed schema. Source: SPEC 7.6.
"""

import numpy as np
from jaxtyping import Float32, Integer

from auditor.propagation.rounding import TINY, UNIT
from protocol.errors import AuditorError
from protocol.model.schema import InputSchema

_WIDER = 2.0**-49


def region(
    schema: InputSchema,
    grid: Integer[np.ndarray, "record feature"],
    steps: Integer[np.ndarray, "..."],
) -> tuple[Float32[np.ndarray, "record ..."], Float32[np.ndarray, "record ..."]]:
    """Boxes around the inputs within some steps of records.

    The float32 number a = x s + b, as computed, lies between `max(q - e, low) - 1/2` and
    `min(q + e, high) + 1/2`: Round takes ties to either side. With A the greater absolute value of the two, the sum
    before its rounding differs from a by at most u A (1 + 2u) + 4t, the product from x s by
    u (1 + 2u) (A (1 + 2u) + |b| + 6t) + (2 + |s|) t; together below 5 u (A + |b|) + 8 t (1 + |s|).

    Args:
        schema: the committed input schema.
        grid: grid values of records, inside the columns' ranges.
        steps: at least 0; one number, one for each record (shape [record]), or one for each record and column.

    Returns:
        Least and greatest inputs, float32, in the model's shape. Infinite in columns whose scale is so small that
        it may be flushed to zero.

    Raises:
        AuditorError: arguments that do not fit.
    """
    reach = np.asarray(steps)
    reach = reach[:, None] if reach.ndim == 1 else reach
    if (
        grid.ndim != 2
        or grid.shape[1] != schema.features
        or grid.dtype.kind not in "iu"
        or reach.dtype.kind not in "iu"
    ):
        raise AuditorError(f"records need {schema.features} whole grid values each, and steps whole numbers")
    if reach.shape not in ((), (len(grid), 1), grid.shape):
        raise AuditorError(f"steps of shape {reach.shape} do not fit records of shape {grid.shape}")
    if (reach < 0).any() or (grid < schema.low).any() or (grid > schema.high).any():
        raise AuditorError("a number of steps is negative, or a grid value outside its column's range")
    # No column is wider than 2^23 steps, so a greater number means the same, and nothing can wrap around.
    reach = np.minimum(reach, 1 << 23).astype(np.int64)
    centre = grid.astype(np.int64)
    least = np.maximum(centre - reach, schema.low) - 0.5
    greatest = np.minimum(centre + reach, schema.high) + 0.5
    scale, offset = schema.scale.astype(np.float64), schema.offset.astype(np.float64)
    lost = 5 * UNIT * (np.maximum(np.abs(least), np.abs(greatest)) + np.abs(offset)) + 8 * TINY * (1 + np.abs(scale))
    with np.errstate(over="ignore"):
        ends = np.stack([(least - lost - offset) / scale, (greatest + lost - offset) / scale])
        flushed = np.abs(scale) < TINY
        low = np.where(flushed, -np.inf, ends.min(axis=0) - _WIDER * np.abs(ends).max(axis=0))
        high = np.where(flushed, np.inf, ends.max(axis=0) + _WIDER * np.abs(ends).max(axis=0))
        shape = (len(grid), *schema.shape)
        lowest = np.nextafter(low.astype(np.float32), np.float32(-np.inf)).reshape(shape)
        highest = np.nextafter(high.astype(np.float32), np.float32(np.inf)).reshape(shape)
    return lowest, highest
