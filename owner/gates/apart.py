"""Radii under which regions keep clear of retained records and of each other, exactly.

Proves: at the radii that `reach` gives, no retained sketch lies in a record's box; at those of `share_out`, boxes of
different groups are disjoint besides. Boxes are the exact hulls of the clipped regions (`region.Cores`), so nothing is
lost to an estimate of their size. Regions grow with the radius and boxes with them, which is what bisection needs.
Whom a box could meet is looked up in bits (`meeting`); 10,000 items take seconds. Source: SPEC 11.6, 11.7.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from owner.gates.meeting import Boxes
from owner.gates.region import Cores, Points

_NEAREST = 8
_ELEMENTS = 1 << 24
_AT_ONCE = 256


def _meet(low: Points, high: Points, other_low: Points, other_high: Points) -> Bool[np.ndarray, "pair"]:
    met: Bool[np.ndarray, "pair"] = np.all((low <= other_high) & (high >= other_low), axis=1)
    return met


def reach(
    cores: Cores,
    count: int,
    obstacles: Boxes,
    corners: tuple[Points, Points],
    *,
    progress: Callable[[float], None] = lambda _: None,
) -> Int[np.ndarray, "item"]:
    """For each record the largest radius whose box meets no obstacle, up to the ceiling; -1 if even radius 0 does.

    Args:
        cores: the records' regions.
        count: how many records there are.
        obstacles: what has to stay outside: the sketches of retained records, or other items' boxes.
        corners: least and greatest values of the obstacles (equal for points).
        progress: called with the share done.
    """
    result = np.full(count, cores.ceiling, dtype=np.int64)
    for start in range(0, count, _AT_ONCE):
        items = np.arange(start, min(start + _AT_ONCE, count))
        low, high = cores.at(items, np.full(len(items), cores.ceiling))
        for asked, near in obstacles.meetings(low, high):
            held, number = np.unique(asked, return_inverse=True)
            result[items[held]] = _largest_of_many(cores, items[held], number, near, corners)
        progress(start / count)
    progress(1.0)
    return result


def _largest_of_many(
    cores: Cores,
    items: Int[np.ndarray, "item"],
    number: Int[np.ndarray, "pair"],
    near: Int[np.ndarray, "pair"],
    corners: tuple[Points, Points],
) -> Int[np.ndarray, "item"]:
    # For each item the largest radius below the ceiling at which it meets none of the obstacles near it, which it
    # meets at the ceiling; -1 if there is none.
    bottom, top = np.full(len(items), -1), np.full(len(items), cores.ceiling - 1)
    while (open_ := bottom < top).any():
        middle = np.where(open_, (bottom + top + 1) // 2, np.maximum(bottom, 0))
        own_low, own_high = cores.at(items, middle)
        met = np.zeros(len(near), dtype=bool)
        step = max(1, _ELEMENTS // own_low.shape[1])
        for start in range(0, len(near), step):
            part = slice(start, start + step)
            one, other = number[part], near[part]
            met[part] = _meet(corners[0][other], corners[1][other], own_low[one], own_high[one])
        hit = np.zeros(len(items), dtype=bool)
        hit[number[met]] = True
        top = np.where(open_ & hit, middle - 1, top)
        bottom = np.where(open_ & ~hit, middle, bottom)
        # What a smaller box misses, a still smaller one misses too.
        kept = (met | ~hit[number]) & (bottom < top)[number]
        number, near = number[kept], near[kept]
    return bottom


def _largest(cores: Cores, item: int, top: int, low: Points, high: Points) -> int:
    # The largest radius up to `top` at which the item's box meets none of these boxes; -1 if there is none.
    bottom, one = -1, np.array([item])
    while bottom < top:
        middle = (bottom + top + 1) // 2
        own_low, own_high = cores.at(one, np.array([middle]))
        met = _meet(low, high, own_low, own_high)
        if met.any():
            # What a smaller box misses, a still smaller one misses too.
            top, low, high = middle - 1, low[met], high[met]
        else:
            bottom = middle
    return bottom


def overlaps(low: Points, high: Points, group: Int[np.ndarray, "item"]) -> Int[np.ndarray, "pair 2"]:
    """All pairs (first < second) of boxes of different groups that meet."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    for first, second in Boxes(low, high).meetings(low, high):
        wanted = (second > first) & (group[second] != group[first])
        found.append(np.stack([first[wanted], second[wanted]], axis=1))
    return np.concatenate(found)


def _close_pairs(points: Points, group: Int[np.ndarray, "item"]) -> Int[np.ndarray, "pair 2"]:
    # The nearest few of other groups, in the plain distance: a first guess that later passes complete.
    values = (points - points.mean(axis=0)).astype(np.float32)
    square = (values**2).sum(axis=1)
    found = []
    step = max(1, _ELEMENTS // max(1, len(points)))
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        distance = square[None] - 2 * values[part] @ values.T
        distance[group[part][:, None] == group[None]] = np.inf
        count = min(_NEAREST, len(points) - 1)
        nearest = np.argpartition(distance, count, axis=1)[:, :count] if count else np.zeros((0, 0), dtype=np.int64)
        rows, places = np.nonzero(np.isfinite(np.take_along_axis(distance, nearest, axis=1)))
        found.append(np.stack([rows + start, nearest[rows, places]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _together(
    cores: Cores, pairs: Int[np.ndarray, "pair 2"], radius: Int[np.ndarray, "item"]
) -> Int[np.ndarray, "pair"]:
    # For each pair the largest radius that both can have (each no more than its own) without meeting.
    first, second = pairs.T
    bottom = np.zeros(len(pairs), dtype=np.int64)
    top = np.maximum(radius[first], radius[second])
    while (bottom < top).any():
        middle = (bottom + top + 1) // 2
        met = _meet(
            *cores.at(first, np.minimum(middle, radius[first])), *cores.at(second, np.minimum(middle, radius[second]))
        )
        top = np.where(met, middle - 1, top)
        bottom = np.where(met, bottom, middle)
    return bottom


def share_out(
    cores: Cores, points: Points, group: Int[np.ndarray, "item"], largest: Int[np.ndarray, "item"]
) -> Int[np.ndarray, "item"]:
    """Radii up to `largest` under which boxes of different groups are disjoint.

    Each pair in each other's way first gets the same radius; then the smallest radii are raised as far as the others
    leave room, so that as many records as possible get any region at all.

    Args:
        cores: the regions.
        points: the records' sketches; those of different groups differ.
        group: items with the same number may overlap (they have the same row).
        largest: the largest radius that each item could have by itself, at least 0.
    """
    radius = largest.astype(np.int64).copy()
    everything = np.arange(len(radius))
    pairs = _close_pairs(points, group)
    while len(pairs):
        for start in range(0, len(pairs), 1 << 18):
            part = pairs[start : start + (1 << 18)]
            shared = _together(cores, part, radius)
            for side in part.T:
                np.minimum.at(radius, side, shared)
        pairs = overlaps(*cores.at(everything, radius), group)
    short = np.flatnonzero(radius < largest)
    short = short[np.argsort(radius[short], kind="stable")]
    low, high = cores.at(everything, radius)
    # Whom an item could meet at all: those that it meets when everybody is as large as could be.
    widest = Boxes(*cores.at(everything, largest)) if len(short) else None
    for start in range(0, len(short), _AT_ONCE):
        items = short[start : start + _AT_ONCE]
        wide_low, wide_high = cores.at(items, largest[items])
        assert widest is not None
        for asked, others in widest.meetings(wide_low, wide_high):
            held = np.unique(asked)
            ends = np.searchsorted(asked, [*held, len(items)])
            for place, begin, end in zip(held.tolist(), ends, ends[1:], strict=False):
                item, near = int(items[place]), others[begin:end]
                near = near[group[near] != group[item]]
                near = near[_meet(low[near], high[near], wide_low[place], wide_high[place])]
                best = int(largest[item])
                if near.size:
                    best = _largest(cores, item, best, low[near], high[near])
                if best > radius[item]:
                    radius[item] = best
                    low[[item]], high[[item]] = cores.at(np.array([item]), np.array([best]))
    return radius
