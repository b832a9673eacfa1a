"""Regions of flipped columns: exact hulls, attained corners, and points to replay.

Proves: `hull` are the least and greatest values that each component of S q takes when at most `flips` of the binary
columns and one-hot groups change (a group that changes holds exactly one 1 afterwards) and every column moves by its
own number of steps; both are attained, at `corner`. Integers throughout. A change that raises a component by nothing
is not made, so the hull of "at most" is the sum of the largest effects.

Assumes a parsed schema and centres inside its ranges. Does not look at items' rows (`auditor.rows`). Source: SPEC
11.2, 11.6. Independent of the program that chose the regions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer

from auditor import bounds
from auditor.bounds import CoreProof, Counterexample
from protocol.claims import Region
from protocol.errors import AuditorError
from protocol.model.patch import SketchGate
from protocol.model.schema import InputSchema

_ELEMENTS = 1 << 23


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far the regions of some records go.

    Args:
        steps: grid steps that each column may move.
        flips: how many binary columns and one-hot groups may change besides.
    """

    steps: Int[np.ndarray, "record feature"]
    flips: Int[np.ndarray, "record"]

    @classmethod
    def of(cls, schema: InputSchema, regions: tuple[Region, ...]) -> "Reach":
        """The reach of claimed regions. What goes beyond every column or group is cut to that: it means the same."""
        widest = int((schema.high - schema.low).max()) + 1
        numeric = np.array([kind == "grid" for kind in schema.kind])
        linf = np.array([region.norm == "linf" for region in regions], dtype=bool)
        own = np.array([region.radius if region.norm == "linf" else region.steps for region in regions], dtype=np.int64)
        steps = np.minimum(own, widest)[:, None] * (linf[:, None] | numeric)
        count = len(units(schema))
        flips = [0 if region.norm == "linf" else min(region.radius, count) for region in regions]
        return cls(steps=steps.reshape(len(regions), schema.features), flips=np.array(flips, dtype=np.int64))

    def only(self, rows: list[int] | Int[np.ndarray, "row"]) -> "Reach":
        """The reach of some of the records."""
        return Reach(steps=self.steps[rows], flips=self.flips[rows])


def categorical(schema: InputSchema) -> bool:
    """Whether no column moves in steps, so that distances are counted in flips."""
    return set(schema.kind) <= {"binary", "onehot"}


def units(schema: InputSchema) -> list[Int[np.ndarray, " member"]]:
    """What one flip may change: each binary column by itself, each one-hot group as a whole."""
    found: dict[int, list[int]] = {}
    for column, (kind, group) in enumerate(zip(schema.kind, schema.group.tolist(), strict=True)):
        if kind == "binary":
            found[-1 - column] = [column]
        elif kind == "onehot":
            found.setdefault(group, []).append(column)
    return [np.array(columns, dtype=np.int64) for columns in found.values()]


def _options(schema: InputSchema, unit: Int[np.ndarray, " member"], own: Integer[np.ndarray, " member"]) -> np.ndarray:
    # All that a unit may hold after a flip, one a row.
    if schema.kind[int(unit[0])] == "binary":
        return 1 - np.asarray(own, dtype=np.int64)[None]
    return np.eye(len(unit), dtype=np.int64)


def _effects(
    matrix: Int[np.ndarray, "component feature"], schema: InputSchema, centre: Int[np.ndarray, "record feature"]
) -> tuple[Int[np.ndarray, "record component unit"], Int[np.ndarray, "record component unit"]]:
    """The most that changing each unit can raise, and lower, each component; at least 0."""
    known = units(schema)
    up = np.zeros((len(centre), len(matrix), len(known)), dtype=np.int64)
    down = np.zeros_like(up)
    binary = np.array([schema.kind[int(unit[0])] == "binary" for unit in known], dtype=bool)
    columns = np.array([int(unit[0]) for unit in known], dtype=np.int64)[binary]
    change = matrix[None, :, columns] * (1 - 2 * centre[:, None, columns])
    up[:, :, binary], down[:, :, binary] = np.maximum(change, 0), np.maximum(-change, 0)
    for place in np.flatnonzero(~binary):
        part = matrix[:, known[place]]
        held = centre[:, known[place]] @ part.T
        up[:, :, place] = np.maximum(part.max(axis=1) - held, 0)
        down[:, :, place] = np.maximum(held - part.min(axis=1), 0)
    return up, down


def _largest_sums(
    effects: Int[np.ndarray, "record component unit"], flips: Int[np.ndarray, "record"]
) -> Int[np.ndarray, "record component"]:
    most = int(flips.max(initial=0))
    if not most or not effects.shape[2]:
        return np.zeros(effects.shape[:2], dtype=np.int64)
    best = torch.topk(torch.from_numpy(effects), most, dim=2).values.numpy().cumsum(axis=2)
    sums: Int[np.ndarray, "record component"] = best[np.arange(len(flips)), :, np.maximum(flips, 1) - 1]
    return np.where(flips[:, None] > 0, sums, 0)


def hull(
    matrix: Int[np.ndarray, "component feature"],
    schema: InputSchema,
    centre: Int[np.ndarray, "record feature"],
    reach: Reach,
) -> tuple[Int[np.ndarray, "record component"], Int[np.ndarray, "record component"]]:
    """Least and greatest value of each component over each region; both attained.

    Args:
        matrix: the sketch.
        schema: the committed input schema.
        centre: records inside the columns' ranges.
        reach: of their regions; columns that flip have no steps.

    Raises:
        AuditorError: a sum could leave exact arithmetic.
    """
    low, high = bounds.core_box(centre, reach.steps, schema.low, schema.high)
    least, greatest = bounds.sketch_hull(matrix, low, high)
    step = max(1, _ELEMENTS // max(1, len(matrix) * len(units(schema))))
    for start in range(0, len(centre) if reach.flips.any() else 0, step):
        part = slice(start, start + step)
        up, down = _effects(matrix, schema, centre[part])
        greatest[part] += _largest_sums(up, reach.flips[part])
        least[part] -= _largest_sums(down, reach.flips[part])
    return least, greatest


def corner(
    weights: Int[np.ndarray, " feature"],
    schema: InputSchema,
    centre: Int[np.ndarray, " feature"],
    reach: Reach,
    *,
    rises: bool,
) -> Int[np.ndarray, " feature"]:
    """A point of one record's region at which a component is greatest (or least).

    Args:
        weights: the component's row of the sketch.
        schema: the committed input schema.
        centre: the record.
        reach: of this one record's region.
        rises: whether the greatest value is wanted.
    """
    sign = 1 if rises else -1
    low, high = bounds.core_box(centre, reach.steps[0], schema.low, schema.high)
    point = np.where(weights == 0, centre, np.where(sign * weights > 0, high, low)).astype(np.int64)
    best: list[tuple[int, np.ndarray, np.ndarray]] = []
    for unit in units(schema):
        options = _options(schema, unit, centre[unit])
        gains = sign * (options - centre[unit]) @ weights[unit].astype(np.int64)
        best.append((int(gains.max()), unit, options[int(gains.argmax())]))
    best.sort(key=lambda entry: -entry[0])
    for gain, unit, option in best[: int(reach.flips[0])]:
        if gain > 0:
            point[unit] = option
    return point


def flipped(
    schema: InputSchema,
    centre: Int[np.ndarray, "record feature"],
    flips: Int[np.ndarray, "record"],
    random: np.random.Generator,
) -> Int[np.ndarray, "record feature"]:
    """Each record with exactly so many of its units changed (all of them, where it has fewer), drawn at random."""
    known = units(schema)
    points = np.array(centre, dtype=np.int64)
    if not known:
        return points
    order = random.random((len(centre), len(known))).argsort(axis=1)
    for record, count in enumerate(flips.tolist()):
        for place in order[record, :count]:
            unit = known[int(place)]
            options = _options(schema, unit, points[record, unit])
            options = options[(options != points[record, unit]).any(axis=1)]
            if len(options):
                points[record, unit] = options[int(random.integers(len(options)))]
    return points


def prove_core(
    gate: SketchGate,
    schema: InputSchema,
    *,
    centre: Integer[np.ndarray, "record feature"],
    reach: Reach,
    item: Integer[np.ndarray, " record"],
) -> CoreProof:
    """Decide for each record whether its whole region satisfies its item's sketch test.

    Args:
        gate: the patch's sketch gate.
        schema: the committed input schema.
        centre: the records on the grid.
        reach: of the claimed regions.
        item: which item is claimed to cover the record.

    Raises:
        AuditorError: arrays that do not fit together, or sums beyond exact arithmetic.
    """
    flat = np.where(reach.flips[:, None] > 0, 0, reach.steps)
    proof = bounds.prove_sketch_core(
        gate, centre=centre, radius=flat, item=item, column_low=schema.low, column_high=schema.high
    )
    flipping = np.flatnonzero(reach.flips > 0)
    if not flipping.size:
        return proof
    if not reach.steps.shape == centre.shape:
        raise AuditorError("steps need one number for each record and column")
    matrix = gate.matrix.astype(np.int64)
    values = centre.astype(np.int64)
    least, greatest = proof.hull_low.copy(), proof.hull_high.copy()
    proven = proof.proven.copy()
    found = {number: one for number, one in proof.counterexamples.items() if not reach.flips[number]}
    outside: Bool[np.ndarray, " record"] = np.any((values < schema.low) | (values > schema.high), axis=1)
    clipped = np.clip(values[flipping], schema.low, schema.high)
    least[flipping], greatest[flipping] = hull(matrix, schema, clipped, reach.only(flipping))
    box_low, box_high = gate.low[item].astype(np.int64), gate.high[item].astype(np.int64)
    excess = np.maximum(box_low - least, greatest - box_high)
    inside: Bool[np.ndarray, " record"] = np.all(excess <= 0, axis=1) & ~outside
    proven[flipping] = inside[flipping]
    for record in (int(index) for index in flipping if not proven[index]):
        if outside[record]:
            found[record] = Counterexample(point=values[record], component=None)
            continue
        component = int(excess[record].argmax())
        rises = bool(greatest[record, component] > box_high[record, component])
        point = corner(matrix[component], schema, values[record], reach.only([record]), rises=rises)
        found[record] = Counterexample(
            point=point,
            component=component,
            value=int(matrix[component] @ point),
            low=int(box_low[record, component]),
            high=int(box_high[record, component]),
        )
    return CoreProof(proven=proven, hull_low=least, hull_high=greatest, counterexamples=found)
