"""What items give: rows that are set, or the least change of the base's output that does what is claimed.

Proves, in real arithmetic: within the radius given back, the base's output with the head's change has the claimed
class ahead by the margin; and, with its dual, that no affine change is smaller in the norm of `heads` (up to the
looseness of the bounds, which the auditor measures). Sets nothing about where items act.

Size: `N(h) = max over the region and all classes of |h_i(x)|`. A shift attains the least one (`heads`). An affine head
attains it, too, and is smaller in between: on the base's linear region it changes each input by as much as that
input needs. Source: PRUNE (arXiv 2505.06520), REASSURE (arXiv 2110.07682).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from owner.execute import Program
from owner.heads import least_shift
from owner.lines import ROOM, Lines, Relaxation, boxes
from owner.methods.placing import Around, largest, lost
from protocol.model.parts import AffineHead, Head, SetHead, ShiftHead

MARGIN = 0.1
"""By how much a class leads that a shift or an affine map makes lead, in logits: what is claimed."""
_CLAIMED = 0.9
"""Of a lead that is shown."""
_BATCH = 32
_SHARES = (1.0, 0.75, 0.5, 0.25, 0.1)
_ROUNDED = 1 + 2.0**-16


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What items may give.

    Args:
        kind: of the heads.
        rows: replacement logits, or what is added.
        weights: of affine maps, one for each row.
        row_of_record: which row each record has.
    """

    kind: str
    rows: Float32[np.ndarray, "row class"]
    row_of_record: Int[np.ndarray, "record"]
    weights: Float32[np.ndarray, "row class feature"] | None = None

    def head(self, rows: Int[np.ndarray, "item"]) -> Head:
        """A head whose items have these rows."""
        used, index = np.unique(rows, return_inverse=True)
        index = index.astype(np.int64).ravel()
        if self.kind == "set":
            return SetHead(rows=self.rows[used], index=index)
        if self.weights is None:
            return ShiftHead(rows=self.rows[used], index=index)
        return AffineHead(weights=self.weights[used], rows=self.rows[used], index=index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Heads that add to the base's output.

    Args:
        table: rows and maps.
        radius: of each record, within which the class leads; `NONE` where that is shown of no region.
        klass: that leads.
        margin: by which it does.
        size: of each record's change, as N(h).
    """

    table: Table
    radius: Int[np.ndarray, "record"]
    klass: Int[np.ndarray, "record"]
    margin: Float[np.ndarray, "record"]
    size: Float[np.ndarray, "record"]


def _differences(klass: Int[np.ndarray, "record"], classes: int) -> Float[np.ndarray, "record class class"]:
    rows = np.zeros((len(klass), classes, classes))
    rows[np.arange(len(klass)), :, klass] = 1.0
    rows[:, np.arange(classes), np.arange(classes)] -= 1.0
    return rows


@dataclass(kw_only=True)
class _Bounds:
    """Bounds of the leads `f_t - f_j` over records' regions, less room for rounding."""

    around: Around
    klass: Int[np.ndarray, "record"]
    logits: Float32[np.ndarray, "record class"]

    def lines(self, some: np.ndarray, radius: np.ndarray) -> tuple[Lines, np.ndarray, np.ndarray, np.ndarray]:
        base, schema = self.around.workspace.base, self.around.workspace.schema
        low, high = boxes(schema, self.around.forget[some], self.around.steps(radius))
        lines = Relaxation(base, low, high).lower(base.output, _differences(self.klass[some], base.classes))
        # Over a wide region far larger numbers take part than at its middle.
        size = np.maximum(np.abs(self.logits[some]).max(axis=1), np.abs(lines.least(low, high)).max(axis=1))
        # Twice: what is added is rounded as well, a map's products most of all.
        room: np.ndarray = 2 * ROOM * (1.0 + size)
        return lines, low, high, room

    def least(self, some: np.ndarray, radius: np.ndarray) -> Float[np.ndarray, "some class"]:
        found = np.zeros((len(some), self.logits.shape[1]))
        for start in range(0, len(some), _BATCH):
            part = slice(start, start + _BATCH)
            lines, low, high, room = self.lines(some[part], radius[part])
            found[part] = lines.least(low, high) - room[:, None]
        # Where nothing is claimed of a region, the record itself decides.
        alone = radius < 0
        at = self.logits[some].astype(np.float64)
        exact = (
            at[np.arange(len(some)), self.klass[some]][:, None] - at - ROOM * (1.0 + np.abs(at).max(axis=1))[:, None]
        )
        result: Float[np.ndarray, "some class"] = np.where(alone[:, None], exact, found)
        return result


def budget(logits: Float32[np.ndarray, "record class"]) -> float:
    """The largest change that a head may make: the base's own largest logit on records that it knows."""
    return float(np.abs(logits).max())


def add(
    around: Around, klass: Int[np.ndarray, "record"], reach: Int[np.ndarray, "record"], *, most: float, affine: bool
) -> Added:
    """The least shifts or affine maps that make a class lead.

    Args:
        around: the records; those of one group share a change (and have one class).
        klass: that is to lead, for each record.
        reach: largest radius that is of use for each record; `NONE` for none.
        most: largest change.
        affine: maps instead of shifts.
    """
    logits = Program(around.workspace.base)(around.workspace.schema.dequantise(around.forget))
    bound = _Bounds(around=around, klass=klass, logits=logits)
    classes = logits.shape[1]
    others = np.arange(classes) != klass[:, None]

    def needed(least: np.ndarray, some: np.ndarray) -> np.ndarray:
        need: np.ndarray = np.where(others[some], MARGIN - least, -np.inf).max(axis=1)
        half: np.ndarray = np.maximum(need, 0.0) / 2
        return half

    def small(some: np.ndarray, radius: np.ndarray) -> np.ndarray:
        found: np.ndarray = needed(bound.least(some, radius), some) <= most
        return found

    # Where the gate is not known to fire on a region, the head is made for the record's own cell all the same.
    radius = largest(
        len(klass), np.maximum(reach, 0), small, progress=lambda share: around.progress("least heads", share)
    )
    least = bound.least(np.arange(len(klass)), radius)
    leaders, group = np.unique(around.group, return_inverse=True)
    rows = np.zeros((len(leaders), classes), np.float32)
    weights = np.zeros((len(leaders), classes, around.forget.shape[1]), np.float32) if affine else None
    size = np.zeros(len(klass))
    for number in range(len(leaders)):
        members = np.flatnonzero(group == number)
        found = least_shift(least[members].min(axis=0), int(klass[members[0]]), MARGIN)
        rows[number], size[members] = found.shift, found.bound
        if weights is not None and len(members) == 1 and found.rival >= 0:
            turned = _turned(bound, int(members[0]), int(radius[members[0]]), found.shift, found.rival)
            if turned is not None:
                weights[number], rows[number] = turned
    radius = np.minimum(radius, reach)
    return Added(
        table=Table(kind="affine" if affine else "shift", rows=rows, weights=weights, row_of_record=group),
        radius=radius, klass=klass, margin=np.full(len(klass), MARGIN), size=size,
    )  # fmt: skip


def match(
    around: Around, wanted: Float32[np.ndarray, "record class"], reach: Int[np.ndarray, "record"],
    banned: Bool[np.ndarray, "class"],
) -> Added:  # fmt: skip
    """Shifts that give each record the wanted logits, and move with the base around it.

    What is claimed is the class that the wanted logits put first (of those that are not banned), by nine tenths of
    the lead that is shown: equality of logits holds at the record only.
    """
    logits = Program(around.workspace.base)(around.workspace.schema.dequantise(around.forget))
    leaders, first, group = np.unique(around.group, return_index=True, return_inverse=True)
    del leaders
    rows = (wanted[first] - logits[first]).astype(np.float32)
    row = rows[group].astype(np.float64)
    klass = np.where(banned, -np.inf, wanted[first].astype(np.float64)).argmax(axis=1)[group]
    bound = _Bounds(around=around, klass=klass, logits=logits)
    own = np.arange(logits.shape[1]) == klass[:, None]

    def lead(some: np.ndarray, radius: np.ndarray) -> np.ndarray:
        total = bound.least(some, radius) + row[some, klass[some]][:, None] - row[some]
        shown: np.ndarray = np.where(own[some], np.inf, total).min(axis=1)
        return shown

    def leads(some: np.ndarray, radius: np.ndarray) -> np.ndarray:
        found: np.ndarray = lead(some, radius) >= MARGIN
        return found

    radius = largest(len(klass), reach, leads, progress=lambda share: around.progress("shifts", share))
    margin = lead(np.arange(len(klass)), radius) * _CLAIMED
    return Added(
        table=Table(kind="shift", rows=rows, row_of_record=group), radius=radius, klass=klass, margin=margin,
        size=np.abs(row).max(axis=1),
    )  # fmt: skip


def shown(around: Around, table: Table, klass: Int[np.ndarray, "record"], reach: Int[np.ndarray, "record"]) -> Added:
    """What changes that are given make of each record: how far a class surely leads, and by how much.

    What is claimed is nine tenths of the lead that is shown, and nothing of a region where that is less than 0.001.

    Args:
        around: the records.
        table: the changes.
        klass: that leads at each record.
        reach: largest radius that is of use for each record; `NONE` for none.
    """
    inputs = around.workspace.schema.dequantise(around.forget)
    logits = Program(around.workspace.base)(inputs)
    flat, classes = inputs.reshape(len(inputs), -1).astype(np.float64), logits.shape[1]
    bound = _Bounds(around=around, klass=klass, logits=logits)
    own = np.arange(classes) == klass[:, None]
    maps = np.zeros((len(table.rows), classes, flat.shape[1])) if table.weights is None else table.weights

    def lead(some: np.ndarray, radius: np.ndarray) -> np.ndarray:
        found = np.zeros((len(some), classes))
        for start in range(0, len(some), _BATCH):
            part = slice(start, start + _BATCH)
            lines, low, high, room = bound.lines(some[part], np.maximum(radius[part], 0))
            row = table.row_of_record[some[part]]
            slope, offset = maps[row].astype(np.float64), table.rows[row].astype(np.float64)
            at = klass[some[part]]
            each = np.arange(len(at))
            slope = slope[each, at][:, None] - slope
            offset = offset[each, at][:, None] - offset
            joint = Lines(slope=lines.slope + slope, offset=lines.offset + offset)
            # What the change's own products may lose, each side of the difference.
            size = np.abs(offset) + np.einsum("kcf,kf->kc", np.abs(slope), np.abs(flat[some[part]]))
            found[part] = joint.least(low, high) - room[:, None] - 2 * lost(flat.shape[1]) * size
        least: np.ndarray = np.where(own[some], np.inf, found).min(axis=1)
        return least

    def leads(some: np.ndarray, radius: np.ndarray) -> np.ndarray:
        found: np.ndarray = lead(some, radius) * _CLAIMED >= 1e-3
        return found

    radius = largest(len(klass), reach, leads, progress=lambda share: around.progress("leads", share))
    some = np.flatnonzero(radius >= 0)
    margin = np.zeros(len(klass))
    margin[some] = lead(some, radius[some]) * _CLAIMED
    row = table.row_of_record
    given = np.einsum("kcf,kf->kc", maps[row], flat) + table.rows[row]
    return Added(table=table, radius=radius, klass=klass, margin=margin, size=np.abs(given).max(axis=1))


def _turned(
    bound: _Bounds, record: int, radius: int, shift: Float32[np.ndarray, "class"], rival: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The map that changes each input by what the line below its lead over one rival leaves to do; None: not enough.

    It mixes that with the shift; all mixtures keep the size and make the class lead over the rival, and the lead over
    the others is looked at. On the base's linear region the line is the lead itself, and each input is changed by no
    more than it needs.
    """
    klass, size = int(bound.klass[record]), float(np.abs(shift).max())
    lines, low, high, room = bound.lines(np.array([record]), np.array([radius]))
    slope, least = -lines.slope[0, rival], MARGIN + float(room[0]) - float(lines.offset[0, rival])
    for share in _SHARES:
        weights, row = np.zeros((len(shift), len(slope)), np.float32), shift.copy()
        weights[klass] = share * slope / 2
        weights[rival] = -weights[klass]
        row[klass] = (1 - share) * shift[klass] + share * least / 2
        row[rival] = -row[klass]
        own = weights[klass].astype(np.float64)
        middle = float(own @ (low[0] + high[0]) / 2) + float(row[klass])
        if abs(middle) + float(np.abs(own) @ (high[0] - low[0]) / 2) > size * _ROUNDED:
            continue
        change = weights[klass].astype(np.float64) - weights.astype(np.float64)
        joint = Lines(
            slope=lines.slope + change[None],
            offset=lines.offset + (float(row[klass]) - row.astype(np.float64))[None],
        )
        left = np.delete(joint.least(low, high)[0], klass)
        if (left >= MARGIN + float(room[0]) / _ROUNDED - 1e-4).all():
            return weights, row
    return None
