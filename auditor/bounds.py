"""Exact decisions about the sketch gate: is a claimed core inside its item's box.

Proves, in integers and with no rounding anywhere: that every grid point of a claimed region
makes the claimed item's sketch test true (`prove_sketch_core`), that the float32 program computes
the sketch without rounding (`inexact_sums`), and how large a ball in data units a number of grid steps
covers (`data_radius`). Where a core is *not* inside its box the answer is a grid point of the
region at which the item does not fire.

Assumes that `Patch` and `InputSchema` were parsed, and that the composed file was compared with
`auditor.compose`. Does not look at logits (`auditor.rows`), nor at whose item fires first
(`auditor.conflicts`), nor run anything (`auditor.execute`).

Source: SPEC 7.9, 11.6; the radius is Hölder's inequality made exact by
using each column's own clipped range.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float, Integer

from protocol.errors import AuditorError
from protocol.model.parts import SketchGate
from protocol.model.schema import InputSchema

EXACT_FLOAT32 = 2**24
_EXACT_FLOAT64 = 2**52  # one bit spare: sums of low + high are formed before halving
_BLOCK_ELEMENTS = 1 << 23
_UNIT = Fraction(1, 2**24)  # unit roundoff of float32, round to nearest
_TINY = Fraction(1, 2**126)  # smallest normal float32: what flush-to-zero can lose


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """A grid point of a claimed region at which the claimed item does not fire.

    Args:
        point: the grid point, inside the region and the column ranges; the centre itself
            when `component` is None.
        component: index of the sketch component that leaves the box, or None when the
            centre lies outside the column ranges, so that no gate fires on it.
        value: the component's exact value at `point`.
        low: the box's lower bound for that component.
        high: the box's upper bound for that component.
    """

    point: Integer[np.ndarray, " feature"]
    component: int | None
    value: int = 0
    low: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreProof:
    """What is decided about the cores of some records.

    Args:
        proven: the record's whole core lies inside its item's box. Exact in both directions.
        hull_low: least value of each sketch component over the core; attained.
        hull_high: greatest value, attained likewise.
        counterexamples: one attained grid point for every record that is not proven.
    """

    proven: Bool[np.ndarray, " record"]
    hull_low: Integer[np.ndarray, "record component"]
    hull_high: Integer[np.ndarray, "record component"]
    counterexamples: Mapping[int, Counterexample]


def _whole(name: str, values: Integer[np.ndarray, "..."], dimensions: int) -> Integer[np.ndarray, "..."]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.ndim != dimensions:
        raise AuditorError(f"{name} must be a {dimensions}-dimensional array of integers")
    # Compared before the conversion: a uint64 above 2^63 would wrap to a negative number.
    if array.size and (int(array.max()) > _EXACT_FLOAT64 or int(array.min()) < -_EXACT_FLOAT64):
        raise AuditorError(f"{name} holds an integer beyond +-2^52")
    return array.astype(np.int64)


def _magnitudes(
    matrix: Integer[np.ndarray, "component feature"],
    low: Integer[np.ndarray, " feature"],
    high: Integer[np.ndarray, " feature"],
) -> Float[np.ndarray, " component"]:
    # Exact below 2^53; above, off by a relative error far too small to fall back under 2^52.
    reach = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    sums: Float[np.ndarray, " component"] = np.abs(matrix).astype(np.float64) @ reach
    return sums


def inexact_sums(
    gate: SketchGate,
    column_low: Integer[np.ndarray, " feature"],
    column_high: Integer[np.ndarray, " feature"],
) -> str | None:
    """Say why the float32 program might round a sketch, or None if it can't.

    Below 2^24 every partial sum of integers is a float32, so any order of summation, with
    or without fused multiply-add, gives the same bits.

    Args:
        gate: the patch's sketch gate.
        column_low: least grid value of each column.
        column_high: greatest grid value of each column.
    """
    matrix = _whole("sketch matrix", gate.matrix, 2)
    low, high = _whole("column_low", column_low, 1), _whole("column_high", column_high, 1)
    if not matrix.shape[1] == low.size == high.size:
        return f"the sketch has {matrix.shape[1]} columns and the input grid {low.size}"
    sums = _magnitudes(matrix, low, high)
    if sums.size and sums.max() >= EXACT_FLOAT32:
        worst = int(sums.argmax())
        return f"sketch component {worst} can reach {sums[worst]:.0f}; float32 is exact below {EXACT_FLOAT32}"
    # The boxes need no look: a SketchGate's bounds are within +-2^24, so the float32 comparisons are exact.
    return None


def core_box(
    centre: Integer[np.ndarray, "*record feature"],
    radius: Integer[np.ndarray, "*record #feature"],
    column_low: Integer[np.ndarray, " feature"],
    column_high: Integer[np.ndarray, " feature"],
) -> tuple[Integer[np.ndarray, "*record feature"], Integer[np.ndarray, "*record feature"]]:
    """First and last grid value of every column of every core.

    Args:
        centre: the records on the grid, inside the column ranges.
        radius: grid steps, at least 0; one number per record or one per record and column.
        column_low: least grid value of each column.
        column_high: greatest grid value of each column.
    """
    return np.maximum(centre - radius, column_low), np.minimum(centre + radius, column_high)


def sketch_hull(
    matrix: Integer[np.ndarray, "component feature"],
    low: Integer[np.ndarray, "record feature"],
    high: Integer[np.ndarray, "record feature"],
) -> tuple[Integer[np.ndarray, "record component"], Integer[np.ndarray, "record component"]]:
    """Least and greatest value of each component of `matrix @ q` over the boxes low <= q <= high.

    Exact and attained: with h = high - low and m = high + low, twice the extremes are
    S m -+ |S| h, and every sum stays under 2^53, so float64 products (which are fast) are
    integer arithmetic.

    Raises:
        AuditorError: when a sum could leave the exact range.
    """
    if low.size and _magnitudes(matrix, low.min(axis=0), high.max(axis=0)).max(initial=0) >= _EXACT_FLOAT64:
        raise AuditorError("a sketch sum could exceed 2^52, beyond exact arithmetic")
    signed = matrix.T.astype(np.float64)
    middle = (high + low).astype(np.float64) @ signed
    spread = (high - low).astype(np.float64) @ np.abs(signed)
    return ((middle - spread) / 2).astype(np.int64), ((middle + spread) / 2).astype(np.int64)


def prove_sketch_core(
    gate: SketchGate,
    *,
    centre: Integer[np.ndarray, "record feature"],
    radius: Integer[np.ndarray, "record #feature"],
    item: Integer[np.ndarray, " record"],
    column_low: Integer[np.ndarray, " feature"],
    column_high: Integer[np.ndarray, " feature"],
) -> CoreProof:
    """Decide for each record whether its whole core satisfies its item's sketch test.

    Args:
        gate: the patch's sketch gate.
        centre: the records on the grid.
        radius: claimed radius in grid steps, at least 0; per record, or per record and
            column (a column held fixed has 0).
        item: which item is claimed to cover the record.
        column_low: least grid value of each column.
        column_high: greatest grid value of each column.

    Returns:
        Exact answers; the core is clipped to the column ranges, outside of which the gate
        is 0 and nothing is claimed.

    Raises:
        AuditorError: arrays whose shapes, types or ranges do not fit together.
    """
    matrix = _whole("sketch matrix", gate.matrix, 2)
    box_low, box_high = _whole("item lows", gate.low, 2), _whole("item highs", gate.high, 2)
    centre, radius = _whole("centre", centre, 2), _whole("radius", radius, 2)
    item = _whole("item", item, 1)
    column_low, column_high = _whole("column_low", column_low, 1), _whole("column_high", column_high, 1)
    records, features = centre.shape
    if not features == matrix.shape[1] == column_low.size == column_high.size:
        raise AuditorError("sketch, records and column ranges have different numbers of columns")
    if radius.shape not in {(records, 1), (records, features)} or item.shape != (records,):
        raise AuditorError("radius and item need one row per record")
    if radius.size and radius.min() < 0:
        raise AuditorError("a radius is negative")
    if item.size and not (item.min() >= 0 and item.max() < len(box_low)):
        raise AuditorError("a claim names an item that the patch does not have")
    outside: Bool[np.ndarray, " record"] = np.any((centre < column_low) | (centre > column_high), axis=1)
    hull_low = np.zeros((records, len(matrix)), np.int64)
    hull_high = np.zeros_like(hull_low)
    # Blocks, since the float64 copies of many records' columns would not fit in memory together.
    step = max(1, _BLOCK_ELEMENTS // max(1, features))
    for start in range(0, records, step):
        part = slice(start, start + step)
        low, high = core_box(np.clip(centre[part], column_low, column_high), radius[part], column_low, column_high)
        hull_low[part], hull_high[part] = sketch_hull(matrix, low, high)
    excess = np.maximum(box_low[item] - hull_low, hull_high - box_high[item])
    proven = ~outside & (excess <= 0).all(axis=1)
    found = {}
    for record in (int(index) for index in np.flatnonzero(~proven)):
        if outside[record]:
            found[record] = Counterexample(point=centre[record], component=None)
            continue
        component = int(excess[record].argmax())
        least, most = int(box_low[item[record], component]), int(box_high[item[record], component])
        low, high = core_box(centre[record], radius[record], column_low, column_high)
        point = _corner(matrix[component], centre[record], low, high, rises=bool(hull_high[record, component] > most))
        value = int(matrix[component] @ point)
        found[record] = Counterexample(point=point, component=component, value=value, low=least, high=most)
    return CoreProof(proven=proven, hull_low=hull_low, hull_high=hull_high, counterexamples=found)


def _corner(
    weights: Integer[np.ndarray, " feature"],
    centre: Integer[np.ndarray, " feature"],
    low: Integer[np.ndarray, " feature"],
    high: Integer[np.ndarray, " feature"],
    *,
    rises: bool,
) -> Integer[np.ndarray, " feature"]:
    """The point of the box at which a component is greatest (or least).

    Columns that the component does not see stay at the centre: the smallest change that shows the fault.
    """
    towards_high = weights > 0 if rises else weights < 0
    return np.where(weights == 0, centre, np.where(towards_high, high, low))


def _column_radius(scale: Fraction, offset: Fraction, low: int, high: int, steps: int) -> Fraction:
    edge, slope = Fraction(1, 2), abs(scale)
    if slope < _TINY:
        return Fraction(0)  # flush-to-zero would take the scale itself
    product = max(abs(low - edge - offset), abs(high + edge - offset))
    # x s, rounded (or flushed, with x itself flushed); then the sum with b (or b flushed), rounded.
    # A fused multiply-add rounds once, which the same bound covers.
    lost = _UNIT * product + _TINY * (1 + slope)
    lost += _UNIT * (max(abs(low), abs(high)) + edge + lost + _TINY) + 2 * _TINY
    # The centre is float32((q - b) / s) by way of float64: three roundings.
    lost += (_UNIT + Fraction(1, 2**50)) * max(abs(low - offset), abs(high - offset)) + _TINY * slope
    # Strictly more than can be lost, so that nothing lands on a tie, which Round could send either way.
    lost += Fraction(1, 2**60)
    return max(Fraction(0), (steps + edge - lost) / slope)


def data_radius(schema: InputSchema, steps: Integer[np.ndarray, " feature"]) -> tuple[Fraction, ...]:
    """Radius in data units, per column, of a ball that surely rounds into a core of `steps` grid steps.

    For the float32 number c = dequantise(q) and any float32 x with |x - c| <= radius whose
    exact affine value stays the same rounding margin inside [low - 1/2, high + 1/2], the program
    computes a grid value within `steps` of q and calls x inside, whether it fuses the
    multiply-add or flushes subnormals or not. The value is (steps + 1/2 - tau) / |scale|,
    exact; 0 where no ball is proven. Print it with `auditor.rows.decimal_below`.

    Args:
        schema: the committed input schema.
        steps: grid steps per column, at least 0.
    """
    steps = _whole("steps", steps, 1)
    if steps.shape != schema.scale.shape or (steps.size and steps.min() < 0):
        raise AuditorError("steps needs one non-negative integer per column")
    known: dict[tuple[float, float, int, int, int], Fraction] = {}
    result = []
    columns = (schema.scale, schema.offset, schema.low, schema.high, steps)
    for key in zip(*(column.tolist() for column in columns), strict=True):
        if key not in known:
            known[key] = _column_radius(Fraction(key[0]), Fraction(key[1]), *key[2:])
        result.append(known[key])
    return tuple(result)
