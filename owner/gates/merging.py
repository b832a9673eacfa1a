"""Items shared by several records: per-coordinate hulls of their boxes in the sketch.

Proves: a merged box holds the boxes of all its members, no sketch that it has to keep out, and meets no box of
another group. So each member's core lies in the shared item's box, which is all that its claim needs, and nothing
that was retained enters a support. Records that are merged need the same output row. A shared box says less about
each of its records, and a patch with fewer items is smaller and faster. Does not look for the best partition: each
record in turn is joined to the items of its nearest neighbours. Source: SPEC 11.6; representatives as in
PRUNE (arXiv 2505.06520).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from owner.gates.meeting import Boxes
from owner.gates.region import Points

_NEIGHBOURS = 6
_ELEMENTS = 1 << 24


def _neighbours(low: Points, high: Points, rows: Int[np.ndarray, "member"]) -> list[tuple[int, int]]:
    # Pairs of a group from the nearest on, by the distance of their boxes' middles.
    middle = (low[rows].astype(np.float64) + high[rows]) / 2
    middle -= middle.mean(axis=0)
    square = (middle**2).sum(axis=1)
    found, apart = [], []
    step, count = max(1, _ELEMENTS // len(rows)), min(_NEIGHBOURS, len(rows) - 1)
    for start in range(0, len(rows), step):
        part = np.arange(start, min(start + step, len(rows)))
        distance = square[None] - 2 * middle[part] @ middle.T + square[part][:, None]
        distance[np.arange(len(part)), part] = np.inf
        nearest = np.argpartition(distance, count - 1, axis=1)[:, :count]
        found.append(np.stack([np.repeat(part, count), nearest.ravel()], axis=1))
        apart.append(np.take_along_axis(distance, nearest, axis=1).ravel())
    pairs, first = np.unique(np.sort(np.concatenate(found), axis=1), axis=0, return_index=True)
    order = np.argsort(np.concatenate(apart)[first], kind="stable")
    return [(int(rows[a]), int(rows[b])) for a, b in pairs[order]]


def merge(
    low: Points,
    high: Points,
    group: Int[np.ndarray, "item"],
    outside: Points,
    *,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Int[np.ndarray, "item"], Points, Points]:
    """Join items of a group while the joint box stays clear.

    Args:
        low: least sketches of each item's box.
        high: greatest.
        group: items with the same number have the same row.
        outside: sketches that no joint box may hold.
        progress: called with the share done.

    Returns:
        For each item the number of its joint item, counted from 0 in the order of their first members, and the
        joint items' boxes.
    """
    leader = np.arange(len(low))
    low, high = low.copy(), high.copy()
    points = Boxes(outside, outside)
    # A box only grows into another group's if some box of that group, as it is at last, meets it: start from all of
    # them and look at what has grown since beside that.
    start = Boxes(low, high)
    grown = np.zeros(len(low), dtype=bool)

    def find(item: int) -> int:
        while leader[item] != item:
            leader[item] = leader[leader[item]]
            item = int(leader[item])
        return item

    groups = [np.flatnonzero(group == g) for g in np.unique(group)]
    pairs = [pair for rows in groups if len(rows) > 1 for pair in _neighbours(low, high, rows)]
    for number, (a, b) in enumerate(pairs):
        if number % 256 == 0:
            progress(number / len(pairs))
        one, other = find(a), find(b)
        if one == other:
            continue
        joint_low, joint_high = np.minimum(low[one], low[other]), np.maximum(high[one], high[other])
        if points.meeting(joint_low, joint_high).size:
            continue
        met = start.meeting(joint_low, joint_high)
        if (group[met] != group[a]).any():
            continue
        rivals = np.flatnonzero(grown & (group != group[a]))
        if rivals.size and ((low[rivals] <= joint_high) & (high[rivals] >= joint_low)).all(axis=1).any():
            continue
        first, second = min(one, other), max(one, other)
        leader[second] = first
        low[first], high[first] = joint_low, joint_high
        grown[second], grown[first] = False, True
    roots = np.array([find(item) for item in range(len(leader))])
    kept, item_of = np.unique(roots, return_inverse=True)
    return item_of.ravel(), low[kept], high[kept]
