"""The screen of a sketch gate: a table of bits that says which items could fire, and the exact test of those alone.

Proves: the constants and nodes are those of SPEC 7.9, in exact integers with one rounding to float32 where there
is one. Assumes a parsed gate whose sums are exact (`bounds.inexact_sums`). That a screen loses nothing is the
argument of SPEC 7.9; tests compare it with the gate without one.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float32, Int64, Integer

from auditor.rows import round_float32
from auditor.tail import Tail
from protocol.errors import AuditorError
from protocol.model.patch import SketchGate
from protocol.model.schema import InputSchema

CELLS = 64
_COLUMNS = 2**20
_SCALE = 2.0**64
_OFFSET = 2.0**24
_FINEST = 149
"""Every finite float32 is a multiple of 2^-149."""


def unfit(schema: InputSchema) -> str | None:
    """Say why no screen can be proven for this schema, or None if one can."""
    if schema.features + 8 >= _COLUMNS:
        return f"a screen over {schema.features} columns"
    size = np.abs(schema.scale)
    if (size < 1 / _SCALE).any() or (size > _SCALE).any() or (np.abs(schema.offset) > _OFFSET).any():
        return "a screen over a column whose scale is not within 2^-64 and 2^64, or whose offset is beyond 2^24"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """How one component of the sketch is cut into cells: cell v holds values from `least + v 2^power` on."""

    least: int
    power: int
    slack: int


def _dot(weights: Integer[np.ndarray, " feature"], values: Integer[np.ndarray, " feature"]) -> int:
    # Exact: int64 where no sum can leave it, Python's integers otherwise.
    most = float(np.abs(weights).astype(np.float64) @ np.abs(values).astype(np.float64))
    if most < 2.0**62:
        return int(weights.astype(np.int64) @ values.astype(np.int64))
    return sum(a * b for a, b in zip(weights.tolist(), values.tolist(), strict=True))


def component(weights: Integer[np.ndarray, " feature"], schema: InputSchema) -> Component:
    """The cells of one component, and by how much an item's range is widened in them."""
    row = weights.astype(np.int64)
    size = np.abs(row)
    # |S_j| and the ranges are within 2^24 and 2^22: their products are far from the end of int64, and so are the sums,
    # which exactness keeps below 2^24. Offsets take no part in exactness; their sums can be large.
    ends = np.stack([row * schema.low, row * schema.high])
    least, greatest = int(ends.min(axis=0).sum()), int(ends.max(axis=0).sum())
    reach = np.maximum(np.abs(schema.low), np.abs(schema.high)) + np.ceil(np.abs(schema.offset)).astype(np.int64) + 1
    power = 0
    while greatest - least + 1 > CELLS << power:
        power += 1
    spread, total = int(size.sum()), _dot(size, reach)
    arithmetic = (schema.features + 8) * (3 * total + (512 << power))
    slack = -(-spread // 2) - (-arithmetic // 2**23) + 1
    return Component(least=least, power=power, slack=slack)


def _bias(weights: Integer[np.ndarray, " feature"], schema: InputSchema, cells: Component, place: int) -> np.float32:
    offsets, group = np.unique(schema.offset, return_inverse=True)
    sums = np.zeros(len(offsets), np.int64)
    np.add.at(sums, group.reshape(-1), weights.astype(np.int64))
    exact = sum(
        count * int(Fraction(value) * 2**_FINEST) for count, value in zip(sums.tolist(), offsets.tolist(), strict=True)
    )
    moved = (Fraction(exact, 2**_FINEST) - cells.least) / 2**cells.power + CELLS * place
    return round_float32(moved) + np.float32(0)  # the zero of SPEC 2.4 has no sign


def _bits(
    low: Int64[np.ndarray, " item"], high: Int64[np.ndarray, " item"], cells: Component, word: int
) -> Int64[np.ndarray, "cell word"]:
    first, last = (
        np.clip((bound - cells.least + widening) >> cells.power, 0, CELLS - 1)
        for bound, widening in ((low, -cells.slack), (high, cells.slack))
    )
    words = -(-len(low) // word)
    value, item = np.arange(CELLS)[:, None], np.arange(len(low))
    here: Bool[np.ndarray, "cell word bit"] = np.zeros((CELLS, words, 64), np.bool_)
    here[:, item // word, item % word] = (first <= value) & (value <= last)
    return np.packbits(here.reshape(CELLS, -1), axis=1, bitorder="little").view("<i8").astype(np.int64)


def _boxes(
    bound: Integer[np.ndarray, "item component"], filler: int, word: int
) -> Float32[np.ndarray, "word place component"]:
    words = -(-len(bound) // word)
    result = np.full((words * word, bound.shape[1]), filler, np.float32)
    result[: len(bound)] = bound
    return result.reshape(words, word, bound.shape[1])


def left_by_the_table(tail: Tail, here: str, flat: str, gate: SketchGate) -> tuple[str, str]:
    """Steps 15 and 16: the cell of each component [N,c], and the items that fit all of them, as bits [N,1,W].

    Raises:
        AuditorError: no screen can be proven for this schema.
    """
    assert gate.screen is not None
    if reason := unfit(tail.schema):
        raise AuditorError(f"{reason} is not composed")
    schema, looked_at = tail.schema, gate.screen.tolist()
    cuts = [component(gate.matrix[place], schema) for place in looked_at]
    # 25 bits times 24 bits fit float64, and so does the power of two: one rounding, to float32. Adding 0 turns -0 to 0.
    weights = np.stack(
        [
            gate.matrix[i] * schema.scale.astype(np.float64) / 2**cut.power
            for i, cut in zip(looked_at, cuts, strict=True)
        ]
    )
    bias = [
        _bias(gate.matrix[i], schema, cut, place) for place, (i, cut) in enumerate(zip(looked_at, cuts, strict=True))
    ]
    table = [
        _bits(gate.low[:, i].astype(np.int64), gate.high[:, i].astype(np.int64), cut, gate.word)
        for i, cut in zip(looked_at, cuts, strict=True)
    ]
    ends = CELLS * np.arange(len(cuts), dtype=np.int64)
    coarse = tail.apply(
        "Gemm",
        here + "coarse",
        flat,
        tail.constant(here + "screen_weights", np.ascontiguousarray((weights.T + 0.0).astype(np.float32))),
        tail.constant(here + "screen_bias", np.array(bias, np.float32)),
        alpha=1.0,
        beta=1.0,
        transB=0,
    )
    whole = tail.apply("Cast", here + "coarse_cell", coarse, to=7)
    raised = tail.apply("Max", here + "cell_raised", whole, tail.constant(here + "cell_low", ends))
    cell = tail.apply("Min", here + "cell", raised, tail.constant(here + "cell_high", ends + CELLS - 1))
    bits = tail.apply("Gather", here + "bits", tail.constant(here + "table", np.concatenate(table)), cell, axis=0)
    for step in range(int(math.log2(len(cuts)))):
        left, right = tail.halves(f"{here}left{step}", f"{here}right{step}", bits)
        bits = tail.apply("BitwiseAnd", f"{here}both{step}", left, right)
    return cell, bits


def screened(tail: Tail, here: str, flat: str, gate: SketchGate, cell: str, bits: str) -> tuple[str, str]:
    """Steps 17 to 22: the first item that fires or the number of items [N], and whether one fires [N,1]."""
    assert gate.screen is not None
    items = gate.items
    words = -(-items // gate.word)
    places = tail.apply("NonZero", here + "places", bits)
    record, word = (
        tail.apply("Gather", here + name, places, tail.constant(f"place{row}", np.array(row, np.int64)), axis=0)
        for row, name in ((0, "record"), (2, "word"))
    )
    seen = tail.apply("Gather", here + "seen", flat, record, axis=0)
    affine, inside = tail.inside(here, seen)
    grid = tail.grid(here, affine)
    sketch = tail.constant(here + "sketch", np.ascontiguousarray(gate.matrix.T.astype(np.float32)))
    sketched = tail.apply("MatMul", here + "sketched", grid, sketch)
    row = tail.apply("Unsqueeze", here + "row", sketched, tail.axes(1))
    low, high = (
        tail.apply(
            "Gather",
            f"{here}{name}_here",
            tail.constant(f"{here}word_{name}", _boxes(bound, filler, gate.word)),
            word,
            axis=0,
        )
        for name, bound, filler in (("low", gate.low, 1), ("high", gate.high, 0))
    )
    hits = tail.hits(here, tail.boxed(here, row, low, high), inside)
    hit = tail.apply("Greater", here + "hit", hits, tail.half())
    numbers = np.minimum(np.arange(words * gate.word, dtype=np.int64), items).reshape(words, gate.word)
    no_item = tail.constant(here + "no_item", np.array(items, np.int64))
    number = tail.apply("Gather", here + "numbers", tail.constant(here + "item_numbers", numbers), word, axis=0)
    candidates = tail.apply("Where", here + "candidates", hit, number, no_item)
    candidate = tail.apply("ReduceMin", here + "candidate", candidates, tail.axes(1), keepdims=0)
    some_cell = tail.apply("ReduceMax", here + "some_cell", cell, tail.axes(1), keepdims=0)
    nothing = tail.constant(here + "nothing", np.full(CELLS * len(gate.screen), items, np.int64))
    none = tail.apply("Gather", here + "none", nothing, some_cell, axis=0)
    first = tail.apply("ScatterElements", here + "first", none, record, candidate, axis=0, reduction="min")
    fires = tail.apply("Less", here + "fires", first, no_item)
    return first, tail.apply("Unsqueeze", here + "fired", fires, tail.axes(1))
