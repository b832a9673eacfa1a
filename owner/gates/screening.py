"""Which components of a sketch a screen should look at: those that leave the fewest items to be tested exactly.

Proves nothing and need not: a screen never changes which items fire (SPEC 7.9), only what an inference costs.
Chosen greedily on a sample of retained records, which is what a deployed model mostly sees.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Integer, UInt64

from owner.gates.sketch import sketch
from owner.screen import allowed
from protocol.model.parts import SCREENS
from protocol.model.patch import SketchGate
from protocol.model.schema import InputSchema

WORTHWHILE = 65
"""Items from which on a screen is cheaper than testing every item: more than one word of its table."""
_SAMPLE = 512
_ITEMS = 1024
_LIKELY = 64
"""Components looked at in each step: those that vary most beside the width of the boxes."""


def screened(
    gate: SketchGate, schema: InputSchema, others: Integer[np.ndarray, "record feature"], *, least: int = WORTHWHILE
) -> SketchGate:
    """The gate with a screen, or as it is where one would not pay or cannot be had.

    Args:
        gate: a sketch gate.
        schema: the input grid.
        others: canonical records that the model will mostly see.
        least: items from which on a screen is made.
    """
    if gate.items < least or not allowed(schema) or not len(others):
        return gate
    points = sketch(gate.matrix, others[:: max(1, len(others) // _SAMPLE)])
    some = np.arange(0, gate.items, max(1, gate.items // _ITEMS))
    low, high = gate.low[some], gate.high[some]
    count = max(size for size in SCREENS if size <= len(gate.matrix))
    width = (high.astype(np.int64) - low).mean(axis=0) + 1
    likely = np.argsort(-points.std(axis=0) / width, kind="stable")[:_LIKELY]
    # As bits, so that looking at one more component is an AND: for each likely component the pairs of a record and an
    # item whose box holds it there.
    held = {
        int(component): _bits(
            (points[:, component, None] >= low[None, :, component])
            & (points[:, component, None] <= high[None, :, component])
        )
        for component in likely
    }
    alive = _bits(np.ones((len(points), len(some)), dtype=bool))
    chosen: list[int] = []
    for _ in range(count):
        left = {component: alive & bits for component, bits in held.items() if component not in chosen}
        best = min(left, key=lambda component: (int(np.bitwise_count(left[component]).sum()), component))
        chosen.append(best)
        alive = left[best]
    return replace(gate, screen=np.array(sorted(chosen), dtype=np.int64), branch=True)


def _bits(flags: Bool[np.ndarray, "record item"]) -> UInt64[np.ndarray, "word"]:
    padded = np.zeros(-(-flags.size // 64) * 64, dtype=bool)
    padded[: flags.size] = flags.ravel()
    return np.packbits(padded).view(np.uint64)
