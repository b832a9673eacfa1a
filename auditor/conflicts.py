"""Which earlier box of a sketch can take an input of a region, for thousands of boxes and regions.

Proves, in integers: -1 where no earlier item with another output has a box that meets the region's hull in every
component. An index does not prove an input that both contain. Assumes hulls that contain the regions (`bounds`).
Source: SPEC 11.7.

Boxes are first compared in cells of a few components, as bits of words, 64 boxes at a time, which can only let too
many through; what is left is compared exactly.
"""

import numpy as np
from jaxtyping import Int64, Integer, UInt64

_CELLS = 256
_COMPONENTS = 16
_ELEMENTS = 1 << 15

Words = UInt64[np.ndarray, "row word"]


def _bits(flags: np.ndarray) -> Words:
    """Rows of flags as words, flag number b of a word being its bit b."""
    padded = np.zeros((len(flags), -(-flags.shape[1] // 64) * 64), np.bool_)
    padded[:, : flags.shape[1]] = flags
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def _order(
    low: Integer[np.ndarray, "item component"],
    high: Integer[np.ndarray, "item component"],
    hull_low: Integer[np.ndarray, "record component"],
    hull_high: Integer[np.ndarray, "record component"],
) -> Int64[np.ndarray, " component"]:
    """The components in which boxes overlap least come first."""
    width = (high.astype(np.float64) - low).mean(axis=0) + (hull_high - hull_low).mean(axis=0)
    return np.argsort(width / (low.max(axis=0).astype(np.float64) - low.min(axis=0) + 1), kind="stable")


def first_meeting(
    low: Integer[np.ndarray, "item component"],
    high: Integer[np.ndarray, "item component"],
    outputs: Integer[np.ndarray, " item"],
    *,
    hull_low: Integer[np.ndarray, "record component"],
    hull_high: Integer[np.ndarray, "record component"],
    own: Integer[np.ndarray, " record"],
    before: Integer[np.ndarray, " record"],
) -> Int64[np.ndarray, " record"]:
    """For each region the first item that may take an input of it, or -1.

    Args:
        low: the items' boxes.
        high: likewise.
        outputs: equal numbers for items with equal outputs.
        hull_low: least sketch of each region.
        hull_high: greatest sketch of each region.
        own: the output that each region should have.
        before: only items with a smaller number count.
    """
    result = np.full(len(own), -1, np.int64)
    if not len(own) or not len(low):
        return result
    order = _order(low, high, hull_low, hull_high)
    cells = []
    for component in order[:_COMPONENTS]:
        # A region's hull begins at or above a cut and ends at or below another: what misses these misses the hull.
        cuts = np.unique(np.quantile(low[:, component], np.linspace(0, 1, _CELLS), method="lower")).astype(np.int64)
        ends = np.append(cuts, np.iinfo(np.int64).max)
        begins = np.insert(cuts, 0, np.iinfo(np.int64).min)
        left = _bits(low[:, component][None] <= ends[:, None])
        right = _bits(high[:, component][None] >= begins[:, None])
        last = np.searchsorted(ends, hull_high[:, component], side="left")
        first = np.searchsorted(begins, hull_low[:, component], side="right") - 1
        cells.append((left, right, last, first))
    earlier = _bits(np.tri(65, 64, -1, dtype=np.bool_))[:, 0]
    by_number = np.argsort(before, kind="stable")
    step = max(1, _ELEMENTS // cells[0][0].shape[1])
    same: dict[int, Words] = {}
    for start in range(0, len(own), step):
        block = by_number[start : start + step]
        words = -(-int(before[block].max()) // 64)  # what comes later cannot matter to any of these
        alive = earlier[np.clip(before[block, None] - 64 * np.arange(words), 0, 64)]
        for left, right, last, first in cells:
            alive &= left[last[block], :words]
            alive &= right[first[block], :words]
        for place in np.flatnonzero(alive.any(axis=1)).tolist():
            record = int(block[place])
            output = int(own[record])
            if output not in same:
                same[output] = _bits((outputs == output)[None])[0]
            result[record] = _first_exact(
                alive[place] & ~same[output][:words], low, high, hull_low[record], hull_high[record], order
            )
    return result


def _first_exact(
    words: UInt64[np.ndarray, " word"],
    low: Integer[np.ndarray, "item component"],
    high: Integer[np.ndarray, "item component"],
    hull_low: Integer[np.ndarray, " component"],
    hull_high: Integer[np.ndarray, " component"],
    order: Int64[np.ndarray, " component"],
) -> int:
    some = np.flatnonzero(words)
    flags = np.unpackbits(words[some].astype("<u8").view(np.uint8).reshape(len(some), 8), axis=1, bitorder="little")
    word, bit = np.nonzero(flags)
    items = some[word] * 64 + bit
    for start in range(0, len(order), 16):
        if not len(items):
            return -1
        part = order[start : start + 16]
        box_low, box_high = low[items[:, None], part], high[items[:, None], part]
        items = items[((box_low <= hull_high[part]) & (box_high >= hull_low[part])).all(axis=1)]
    return int(items[0]) if len(items) else -1
