"""Which of many boxes meet a box: exactly, for thousands of boxes and tens of thousands of others.

Proves: what is returned are all boxes that meet the one asked for in every component, and no others. Components are
first compared in cells, as bits of words, 64 boxes at a time; cells grow with the values, so that this can only let
too many through, and what is left is compared exactly. Assumes that everything fits in memory: a few bits for each
box and cell. Does not say how boxes came about; `region` does. Source: bitmap indices (O'Neil and Quass 1997).
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from jaxtyping import Int, UInt64

from owner.gates.region import Points

_CELLS = 63
_COMPONENTS = 20
_SAMPLE = 4000
_WORDS = 1 << 17
"""Words of a block of answers: what stays in a processor's cache."""
_PAIRS = 1 << 20

Pairs = tuple[Int[np.ndarray, "pair"], Int[np.ndarray, "pair"]]


def _prefixes(cells: Int[np.ndarray, "box"]) -> UInt64[np.ndarray, "cell word"]:
    """For each cell the boxes whose cell is below it, as bits."""
    flags = np.zeros((_CELLS + 2, -(-len(cells) // 64) * 64), dtype=bool)
    flags[:, : len(cells)] = cells < np.arange(_CELLS + 2, dtype=cells.dtype)[:, None]
    return np.packbits(flags, axis=1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


class Boxes:
    """Boxes (or points) that can be asked which of them meet a box.

    Args:
        low: least values of each box.
        high: greatest values; the same array as `low` for points.
    """

    def __init__(self, low: Points, high: Points) -> None:
        self._points = high is low
        self._count = len(low)
        self._low = np.ascontiguousarray(low.T)
        self._high = self._low if self._points else np.ascontiguousarray(high.T)
        # The components in which boxes overlap least come first. Which ones these are decides how fast, not what is
        # found: some of the boxes are enough to tell.
        some = slice(None, None, max(1, len(low) // _SAMPLE))
        deviation = low[some].astype(np.float64).std(axis=0) if len(low) else np.zeros(low.shape[1])
        width = (high[some].astype(np.float64) - low[some]).mean(axis=0) if len(low) else np.zeros(low.shape[1])
        self._order = np.argsort(-deviation / (width + 1.0), kind="stable")

    @cached_property
    def _tables(self) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        # For each component that is looked at in cells: where cells end, and prefixes of both ends of the boxes.
        made = []
        some = slice(None, None, max(1, self._count // _SAMPLE))
        for component in self._order[:_COMPONENTS].tolist():
            low, high = self._low[component], self._high[component]
            known = np.sort(np.concatenate([low[some], high[some]]))
            edges = np.unique(known[np.linspace(0, len(known) - 1, _CELLS).astype(np.int64)])
            begins = _prefixes(np.searchsorted(edges, low, side="right").astype(np.uint8))
            ends = begins if self._points else _prefixes(np.searchsorted(edges, high, side="right").astype(np.uint8))
            made.append((component, edges, begins, ends))
        return made

    def meeting(self, low: Int[np.ndarray, "component"], high: Int[np.ndarray, "component"]) -> Int[np.ndarray, "hit"]:
        """Indices of the boxes that meet the box low..high in every component, in ascending order."""
        found = [hits for _, hits in self.meetings(low[None], high[None])]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def meetings(self, low: Points, high: Points) -> Iterator[Pairs]:
        """For many boxes asked for: pairs of the number of one and the index of a box that meets it.

        Pairs come in blocks of memory that is limited, ordered by both numbers; all pairs of one box asked for are in
        one block. A block may be empty.
        """
        if not self._count:
            return
        step = max(1, _WORDS * 64 // self._count)
        for start in range(0, len(low), step):
            asked, found = self._likely(low[start : start + step], high[start : start + step])
            # Of all pairs of one box asked for at most as many as there are boxes: a block grows no further.
            ends = np.searchsorted(asked, np.arange(min(step, len(low) - start) + 1))
            first = 0
            while first < len(ends) - 1:
                last = max(first + 1, int(np.searchsorted(ends, ends[first] + _PAIRS, side="right")) - 1)
                part = slice(ends[first], ends[last])
                yield self._exact(asked[part] + start, found[part], low, high)
                first = last

    def _likely(self, low: Points, high: Points) -> Pairs:
        alive: np.ndarray | None = None
        for component, edges, begins, ends in self._tables:
            # A box that begins above the last value, or ends below the first, is in another cell or in the same one.
            starts = begins[np.searchsorted(edges, high[:, component], side="right") + 1]
            over = ends[np.searchsorted(edges, low[:, component], side="right")]
            np.bitwise_and(starts, ~over, out=starts)
            alive = starts if alive is None else np.bitwise_and(alive, starts, out=alive)
        assert alive is not None
        row, word = np.nonzero(alive)
        bits = np.unpackbits(alive[row, word].astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        place, bit = np.nonzero(bits)
        return row[place], word[place] * 64 + bit

    def _exact(
        self, asked: Int[np.ndarray, "pair"], found: Int[np.ndarray, "pair"], low: Points, high: Points
    ) -> Pairs:
        for component in self._order.tolist():
            if not len(asked):
                break
            met = (self._low[component, found] <= high[asked, component]) & (
                self._high[component, found] >= low[asked, component]
            )
            if not met.all():
                asked, found = asked[met], found[met]
        return asked, found
