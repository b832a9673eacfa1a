"""The constants of a screen: which items of a sketch may fire, as a table of bits over a few components.

Proves (in integers): an item whose box holds S Q(x) has its bit set in every cell that the float32 program
can compute for x. Assumes a sketch whose sums are exact. Never decides what fires: the exact test does.
Source: SPEC 7.9, the screen.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Int64

from protocol.errors import OwnerError
from protocol.model.patch import SketchGate
from protocol.model.schema import InputSchema

CELLS = 64
_LARGEST_OFFSET = 2.0**24
_LEAST_SCALE, _LARGEST_SCALE = 2.0**-64, 2.0**64
_FEATURES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Constants of SPEC 7.9.

    Args:
        weights: approximate sketch of a raw input, in cells.
        bias: of each component, with the place of its cells in the table.
        table: for every cell of every component a bit for each item.
    """

    weights: Float32[np.ndarray, "feature component"]
    bias: Float32[np.ndarray, "component"]
    table: Int64[np.ndarray, "cell word"]


def allowed(schema: InputSchema) -> bool:
    """Whether a screen can be computed within its slack for this schema."""
    scale, offset = np.abs(schema.scale.astype(np.float64)), np.abs(schema.offset.astype(np.float64))
    in_range = bool(((scale >= _LEAST_SCALE) & (scale <= _LARGEST_SCALE)).all())
    return schema.features + 8 < _FEATURES and in_range and bool((offset <= _LARGEST_OFFSET).all())


def _ceil_div(value: int, by: int) -> int:
    return -(-value // by)


def nearest(value: Fraction) -> np.float32:
    """The float32 nearest to a rational number, ties to even: rounded once."""
    guess = np.float32(float(value))
    with np.errstate(over="ignore"):
        near = [guess, np.nextafter(guess, np.float32(np.inf)), np.nextafter(guess, np.float32(-np.inf))]
    return min(
        (one for one in near if np.isfinite(one)),
        key=lambda one: (abs(Fraction(float(one)) - value), int(one.view(np.uint32)) & 1),
    )


def screen(gate: SketchGate, schema: InputSchema) -> Screen:
    """The constants of a gate's screen.

    Raises:
        OwnerError: the gate names no components, or the schema's numbers are out of the range for which the
            slack was derived.
    """
    if gate.screen is None:
        raise OwnerError("this sketch has no screen")
    if not allowed(schema):
        raise OwnerError("no screen can be computed for this input schema; leave it out")
    items, words = gate.items, _ceil_div(gate.items, gate.word)
    weights = np.zeros((schema.features, len(gate.screen)), dtype=np.float32)
    bias = np.zeros(len(gate.screen), dtype=np.float32)
    table = np.zeros((len(gate.screen), CELLS, words * gate.word), dtype=bool)
    reach = np.maximum(np.abs(schema.low), np.abs(schema.high)) + np.ceil(np.abs(schema.offset)).astype(np.int64) + 1
    for place, component in enumerate(gate.screen.tolist()):
        row = gate.matrix[component].astype(np.int64)
        used = np.flatnonzero(row)
        size = np.abs(row[used])
        weight = int(size.sum())
        moved = sum(int(a) * int(b) for a, b in zip(size, reach[used], strict=True))
        ends = row[used] * schema.low[used], row[used] * schema.high[used]
        least, greatest = int(np.minimum(*ends).sum()), int(np.maximum(*ends).sum())
        shift = max(0, math.ceil(math.log2(_ceil_div(greatest - least + 1, CELLS))))
        width = 1 << shift
        slack = _ceil_div(weight, 2) + _ceil_div((schema.features + 8) * (3 * moved + 512 * width), 2**23) + 1
        # A product of two float32 numbers is exact in float64, a quotient by a power of two too: rounded once. Zero
        # times a negative scale is -0, and the sum with 0 makes it 0.
        weights[:, place] = (row * schema.scale.astype(np.float64) / width + 0.0).astype(np.float32)
        middle = sum(
            (Fraction(int(row[j])) * Fraction(float(schema.offset[j])) for j in used if schema.offset[j]), Fraction(0)
        )
        bias[place] = nearest((middle - least) / width + CELLS * place) + np.float32(0)
        first = np.clip((gate.low[:, component].astype(np.int64) - slack - least) // width, 0, CELLS - 1)
        last = np.clip((gate.high[:, component].astype(np.int64) + slack - least) // width, 0, CELLS - 1)
        cells = np.arange(CELLS)[:, None]
        table[place, :, :items] = (cells >= first) & (cells <= last)
    places = table.reshape(-1, words, gate.word)
    # 64 bits a word, of which the last one, the sign, stays 0 where only 63 are used.
    packed = np.packbits(np.pad(places, ((0, 0), (0, 0), (0, 64 - gate.word))), axis=2, bitorder="little")
    return Screen(weights=weights, bias=bias, table=packed.view("<i8")[:, :, 0].astype(np.int64))
