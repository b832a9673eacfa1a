"""Radii under which regions keep clear of retained records and of each other, exactly.

Proves: at the radii that `reach` gives, no retained sketch lies in a record's box; at those of `share_out`, boxes of
different groups are disjoint besides. Boxes are the exact hulls of the clipped regions (`region.Cores`), so nothing is
lost to an estimate of their size. Regions grow with the radius and boxes with them, which is what bisection needs.
Found by sorting along one component and filtering by the others; 10,000 items take seconds. Source: SPEC 11.6, 11.7.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from owner.gates.region import Cores, Points

_NEAREST = 8
_ELEMENTS = 1 << 24


class Boxes:
    """Boxes (or points) that can be asked which of them meet a box."""

    def __init__(self, low: Points, high: Points) -> None:
        # The component along which they are spread the most, compared with their own width, is sorted. Which one it
        # is decides how fast, not what is found: some of them are enough to tell.
        some = slice(None, None, max(1, len(low) // 2000))
        deviation = low[some].astype(np.float64).std(axis=0) if len(low) else np.zeros(low.shape[1])
        width = (high[some].astype(np.float64) - low[some]).mean(axis=0) if len(low) else np.zeros(low.shape[1])
        self._order = np.argsort(-deviation / (width + 1.0), kind="stable")
        first = self._order[0]
        self._place = np.argsort(low[:, first], kind="stable")
        self._low = np.ascontiguousarray(low.T[:, self._place])
        points = high is low
        self._high = self._low if points else np.ascontiguousarray(high.T[:, self._place])
        self._widest = 0 if points else int((high[:, first].astype(np.int64) - low[:, first]).max(initial=0))

    def meeting(self, low: Int[np.ndarray, "component"], high: Int[np.ndarray, "component"]) -> Int[np.ndarray, "hit"]:
        """Indices of the boxes that meet the box low..high in every component."""
        first = self._order[0]
        start = np.searchsorted(self._low[first], int(low[first]) - self._widest, side="left")
        stop = np.searchsorted(self._low[first], int(high[first]), side="right")
        found = np.arange(start, stop)
        if self._widest:
            found = found[self._high[first, start:stop] >= low[first]]
        for component in self._order[1:]:
            if not found.size:
                break
            found = found[
                (self._low[component, found] <= high[component]) & (self._high[component, found] >= low[component])
            ]
        result: Int[np.ndarray, "hit"] = self._place[found]
        return result


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
    for item in range(count):
        one = np.array([item])
        low, high = cores.at(one, np.array([cores.ceiling]))
        near = obstacles.meeting(low[0], high[0])
        if near.size:
            result[item] = _largest(cores, item, cores.ceiling - 1, corners[0][near], corners[1][near])
        if item % 256 == 0:
            progress(item / count)
    progress(1.0)
    return result


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
    boxes = Boxes(low, high)
    found = []
    for item in range(len(low)):
        others = boxes.meeting(low[item], high[item])
        others = others[(others > item) & (group[others] != group[item])]
        if others.size:
            found.append(np.stack([np.full(others.size, item), others], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int64)


def _close_pairs(points: Points, group: Int[np.ndarray, "item"]) -> Int[np.ndarray, "pair 2"]:
    # The nearest few of other groups, in the plain distance: a first guess that later passes complete.
    values = points.astype(np.float64) - points.mean(axis=0)
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
    low, high = cores.at(everything, radius)
    start_boxes = Boxes(low, high)
    grown = np.zeros(len(radius), dtype=bool)
    for item in short[np.argsort(radius[short], kind="stable")]:
        own_low, own_high = cores.at(np.array([item]), largest[[item]])
        near = start_boxes.meeting(own_low[0], own_high[0])
        # Whoever has grown since is looked at as it is now.
        near = np.union1d(near, np.flatnonzero(grown))
        near = near[group[near] != group[item]]
        near = near[_meet(low[near], high[near], own_low, own_high)]
        best = int(largest[item]) if not near.size else _largest(cores, item, int(largest[item]), low[near], high[near])
        if best > radius[item]:
            radius[item] = best
            grown[item] = True
            low[[item]], high[[item]] = cores.at(np.array([item]), np.array([best]))
    return radius
