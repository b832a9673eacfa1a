"""Where items act: for each record to forget its items in one or more gates, and how far each surely fires.

Proves, in real arithmetic for gates that look at floats (`lines`): within `radius` grid steps of its record an
item fires; in integers for sketches. No item's support holds a retained record, sketches by exact integers, the others
as this program computes them in float32; two items whose outputs differ do not meet (sketches, features), or the later
record goes without (linear regions). Does not say what the output becomes. Source: certificate mathematics, gate kinds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, Integer

from owner.execute import Program
from owner.gates import feature
from owner.gates.linear_region import half_spaces, linear_region
from owner.gates.region import Shape
from owner.lines import ROOM, Relaxation, boxes
from owner.workspace import Workspace
from protocol.errors import OwnerError
from protocol.model.graph import Graph
from protocol.model.parts import AlwaysGate, Gate, RegionGate, SketchGate
from protocol.model.patch import PatchLimits

NONE = -1
"""Item of a record that a gate has none for; radius where nothing is proven."""
SHARE = 0.5
"""Of the way to the nearest other record that a box in a hidden layer reaches; the rest is for those never seen."""
LEAST = 0.01
"""Reach of a box, in spreads, that rounding is nothing beside."""
_BATCH = 32
_HALVES = 1 << 24
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One gate, and whose items it has.

    Args:
        gate: where the items act.
        item: of each record, or `NONE`.
        radius: within which it surely fires, or `NONE` where that is known of no region at all.
        note: for whoever runs the program.
    """

    gate: Gate
    item: Int[np.ndarray, "record"]
    radius: Int[np.ndarray, "record"]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """Whom items are made for, and whom they must not touch.

    Args:
        workspace: base, schema and records.
        forget: grid values of the records to forget.
        group: equal numbers mark records with the same output.
        others: grid values that no support may hold.
        shape: the kind of region.
        ceiling: largest radius.
        progress: called with a stage's name and the share done.
    """

    workspace: Workspace
    forget: Int[np.ndarray, "record feature"]
    group: Int[np.ndarray, "record"]
    others: Integer[np.ndarray, "other feature"]
    shape: Shape
    ceiling: int
    progress: Progress

    def steps(self, radius: Int[np.ndarray, "some"]) -> Int[np.ndarray, "some feature"]:
        """How far each column moves in regions of these radii (numeric columns; flips are not for floats)."""
        moving = self.shape.numeric | (self.shape.kind == "linf")
        found: Int[np.ndarray, "some feature"] = np.where(moving, np.maximum(radius, 0)[:, None], 0)
        return found

    @property
    def widest(self) -> int:
        """Largest radius to look at: none in flips, which only sketches certify."""
        return 0 if self.shape.kind == "flips" else min(self.ceiling, self.shape.widest)


def largest(
    count: int, ceiling: Int[np.ndarray, "record"], holds: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *, progress: Callable[[float], None] = lambda _: None,
) -> Int[np.ndarray, "record"]:  # fmt: skip
    """For each record the largest radius up to its ceiling at which something holds; `NONE` if it does not at 0.

    Args:
        count: of records.
        ceiling: of each; records with less than 0 are left out.
        holds: given records and a radius for each, whether it holds; what holds at a radius holds at smaller ones.
        progress: called with the share done.
    """
    bottom, top = np.full(count, NONE), ceiling.astype(np.int64).copy()
    rounds = 1 + int(top.max(initial=0)).bit_length()
    # Most regions that bounds can say anything of are small: 0 and 1 first, then halving.
    guess = np.minimum(top, 0)
    for number in range(64):
        open_ = np.flatnonzero(bottom < top)
        if not open_.size:
            break
        tried = guess[open_]
        good = holds(open_, tried)
        bottom[open_[good]] = tried[good]
        top[open_[~good]] = tried[~good] - 1
        guess = np.minimum((bottom + top + 1) // 2, np.maximum(1, 4 * bottom))
        progress(min(1.0, (number + 1) / rounds))
    return bottom


def _inputs(workspace: Workspace, values: Integer[np.ndarray, "record feature"]) -> Float32[np.ndarray, "record ..."]:
    return workspace.schema.dequantise(values)


def feature_site(around: Around) -> Site:
    """Boxes in the base's last hidden layer.

    Raises:
        OwnerError: there is no such layer, or no record has room for a box.
    """
    workspace, program = around.workspace, Program(around.workspace.base)
    tensor = feature.hidden_tensor(workspace.base)
    size = feature.size_of(workspace.base, tensor)

    def values(rows: np.ndarray) -> np.ndarray:
        (found,) = program(_inputs(workspace, rows), outputs=(tensor,))
        return found.reshape(len(rows), size)

    around.progress("hidden layer", 0.0)
    own = values(around.forget)
    same = around.group[:, None] == around.group[None, :]
    found = feature.boxes(tensor, own, values(around.others), same, share=SHARE, least=LEAST)
    if found.gate is None:
        raise OwnerError(
            "no record is far enough from retained ones in the last hidden layer for a box; use --gate sketch"
        )
    item = np.full(len(own), NONE)
    item[found.kept] = np.arange(len(found.kept))
    gate = found.gate

    def inside(some: np.ndarray, radius: np.ndarray) -> np.ndarray:
        good = np.zeros(len(some), dtype=bool)
        for start in range(0, len(some), _BATCH):
            part = slice(start, start + _BATCH)
            ends = boxes(workspace.schema, around.forget[some[part]], around.steps(radius[part]))
            low, high = Relaxation(workspace.base, *ends).ends(tensor, size)
            room = ROOM * (1e-3 + np.maximum(np.abs(low), np.abs(high)))
            items = item[some[part]]
            good[part] = ((low - room >= gate.low[items]) & (high + room <= gate.high[items])).all(axis=1)
        return good

    ceiling = np.where(item >= 0, around.widest, NONE)
    radius = largest(len(own), ceiling, inside, progress=lambda share: around.progress("hidden layer", share))
    lacking = int((item < 0).sum())
    note = f"gate: boxes of {size} values in the hidden layer {tensor}" + (
        f"; {lacking} records lie too near to others there and have none" if lacking else ""
    )
    return Site(gate=gate, item=item, radius=radius, note=note)


def regions_of(base: Graph, inputs: Float32[np.ndarray, "record feature"], *, progress: Progress) -> RegionGate:
    """A gate with the linear region around each record, a little widened for rounding.

    Raises:
        OwnerError: the base has none, or they do not fit in a patch.
    """
    halves, room = half_spaces(base), PatchLimits().tensors // 2
    if not halves:
        raise OwnerError("the base has no ReLU and is one linear region; use --gate sketch")
    size = halves * inputs.shape[1] * 4
    if size * len(inputs) > room:
        raise OwnerError(
            f"a linear region of this base takes {size >> 10} KiB a record, {len(inputs)} of them more than the "
            f"{room >> 20} MiB that a patch gives them; forget at most {room // size} records, or use --gate sketch"
        )
    weights = np.zeros((len(inputs), halves, inputs.shape[1]), np.float32)
    bounds = np.zeros(weights.shape[:2], np.float32)
    for number, x in enumerate(inputs):
        region = linear_region(base, x)
        weights[number] = region.weights
        # Room for rounding: the record itself may lie on an edge.
        reach = np.abs(region.weights) @ np.abs(x.astype(np.float64)) + np.abs(region.bounds) + 1e-6
        bounds[number] = region.bounds + lost(len(x)) * reach
        progress("linear regions", (number + 1) / len(inputs))
    return RegionGate(weights=weights, bounds=bounds)


def firing(around: Around, gate: RegionGate, item: Int[np.ndarray, "record"]) -> Int[np.ndarray, "record"]:
    """For each record the radius within which its item surely fires; `NONE` where it has none or that is not known."""

    def fires(some: np.ndarray, radius: np.ndarray) -> np.ndarray:
        low, high = boxes(around.workspace.schema, around.forget[some], around.steps(radius))
        middle, spread = (low + high) / 2, (high - low) / 2
        good = np.zeros(len(some), dtype=bool)
        for place, number in enumerate(item[some].tolist()):
            own = gate.weights[number].astype(np.float64)
            size = np.abs(own) @ np.maximum(np.abs(low[place]), np.abs(high[place]))
            top = own @ middle[place] + np.abs(own) @ spread[place] + 2 * lost(own.shape[1]) * size
            good[place] = (top <= gate.bounds[number]).all()
        return good

    return largest(len(item), np.where(item >= 0, around.widest, NONE), fires)


def region_site(around: Around) -> Site:
    """The linear region of the base around each record, as half-spaces of its inputs.

    Raises:
        OwnerError: the base has none, they do not fit in a patch, or no record has one to itself.
    """
    workspace = around.workspace
    inputs = _inputs(workspace, around.forget).reshape(len(around.forget), -1)
    found = regions_of(workspace.base, inputs, progress=around.progress)
    weights, bounds = found.weights, found.bounds
    others = _inputs(workspace, around.others).reshape(len(around.others), inputs.shape[1])
    alone = ~np.array([inside(weights[k], bounds[k], others).any() for k in range(len(inputs))])
    item, used = np.full(len(inputs), NONE), 0
    taken = np.zeros(len(inputs), dtype=bool)
    for number in np.flatnonzero(alone).tolist():
        if taken[number]:
            continue  # an earlier region with another output holds it
        mates = inside(weights[number], bounds[number], inputs)
        taken |= mates & (around.group != around.group[number])
        item[number], used = used, used + 1
    kept = np.flatnonzero(item >= 0)
    if not kept.size:
        raise OwnerError(
            "no record has a linear region to itself, retained records are in all of them; use --gate sketch"
        )
    gate = RegionGate(weights=weights[kept], bounds=bounds[kept])

    radius = firing(around, gate, item)
    note = f"gate: linear regions of {weights.shape[1]} half-spaces, {weights[0].nbytes >> 10} KiB a record" + (
        f"; {len(inputs) - len(kept)} records share theirs with others and have none" if len(kept) < len(inputs) else ""
    )
    return Site(gate=gate, item=item, radius=radius, note=note)


def lost(terms: int) -> float:
    """What a sum of so many float32 products may lose, relative to the sum of absolute values: known beforehand."""
    return (terms + 8) * 2.0**-23


def inside(
    weights: Float32[np.ndarray, "half feature"], bounds: Float32[np.ndarray, "half"],
    points: Float32[np.ndarray, "point feature"],
) -> Bool[np.ndarray, "point"]:  # fmt: skip
    """Which points a region holds, those included that rounding could put in it."""
    left = np.arange(len(points))
    # Half-spaces a few at a time: most points leave at the first ones.
    step = max(1, min(32, _HALVES // max(1, len(points))))
    size = max(1.0, float(np.abs(points).max(initial=0.0)))
    for start in range(0, len(weights), step):
        if not left.size:
            break
        part = slice(start, start + step)
        slack = 2 * lost(points.shape[1]) * (np.abs(bounds[part]) + np.abs(weights[part]).sum(axis=1) * size)
        left = left[(points[left] @ weights[part].T <= bounds[part] + slack).all(axis=1)]
    found = np.zeros(len(points), dtype=bool)
    found[left] = True
    return found


def always_site(around: Around) -> Site:
    """One item that fires on every input."""
    count = len(around.forget)
    radius = np.full(count, around.widest)
    return Site(
        gate=AlwaysGate(), item=np.zeros(count, np.int64), radius=radius, note="gate: every input, whoever it is"
    )


def certify(
    sites: list[Site], shape: Shape, forget: Int[np.ndarray, "record feature"], group: Int[np.ndarray, "record"]
) -> Int[np.ndarray, "record"]:
    """For each record the site with the largest region that surely has its item's output, or `NONE`.

    A later site counts if no sketch box before it with another output meets the region.
    """
    best, chosen = np.full(len(forget), NONE), np.full(len(forget), NONE)
    for number, site in enumerate(sites):
        better = np.flatnonzero((site.item >= 0) & (site.radius > best))
        free = np.array(
            [_free(sites[:number], shape, forget, group, row, int(site.radius[row])) for row in better.tolist()],
            np.bool_,
        )
        chosen[better[free]], best[better[free]] = number, site.radius[better[free]]
    return chosen


def _free(earlier: list[Site], shape: Shape, forget: np.ndarray, group: np.ndarray, row: int, radius: int) -> bool:
    for site in earlier:
        if not isinstance(site.gate, SketchGate):
            return False
        owners = np.flatnonzero((site.item >= 0) & (group != group[row]))
        low, high = shape.hull(site.gate.matrix, forget[[row]], np.array([radius]))
        items = np.unique(site.item[owners])
        if ((site.gate.low[items] <= high) & (site.gate.high[items] >= low)).all(axis=1).any():
            return False
    return True
