"""One claimed item whose box is widened over other people's records: what both kinds of wide supports share.

The item goes to the end of the list, so that it takes nothing from the other claims, which stay true.
"""

import dataclasses

import numpy as np

from owner.certify import Draft
from owner.execute import Program
from owner.gates.sketch import sketch
from protocol.claims import Redirection
from protocol.model.patch import SetHead, SketchGate
from tests.conformance.adversaries import scene as with_scene
from tests.conformance.adversaries.scene import Scene


def widened(scene: Scene, covered: np.ndarray, item: int) -> Draft:
    """A bundle in which `item` of the last part also covers the records `covered` (grid values)."""
    patch = scene.result.patch
    last = patch.parts[-1]
    gate, head = with_scene.gate_of(last), with_scene.head_of(last)
    start = patch.items - gate.items
    place = item - start
    points = sketch(gate.matrix, covered) if len(covered) else gate.low[[place]]
    low, high = gate.low.copy(), gate.high.copy()
    low[place] = np.minimum(low[place], points.min(axis=0))
    high[place] = np.maximum(high[place], points.max(axis=0))
    order = np.array([*(number for number in range(gate.items) if number != place), place])
    moved = {int(old) + start: new + start for new, old in enumerate(order)}
    part = dataclasses.replace(
        last,
        gate=SketchGate(matrix=gate.matrix, low=low[order], high=high[order]),
        head=SetHead(rows=head.rows, index=head.index[order]),
    )
    claims = tuple(
        dataclasses.replace(claim, item=moved.get(claim.item, claim.item))
        if isinstance(claim, Redirection) and claim.item is not None
        else claim
        for claim in scene.result.claims
    )
    return scene.with_patch(with_scene.with_parts(patch, *patch.parts[:-1], part), claims)


def nearest(scene: Scene, klass: int, share: float, item: int) -> np.ndarray:
    """The share of the kept records of a class that lie nearest to the item's record, by values."""
    records = scene.job.workspace.records
    rows = scene.kept[records.labels[scene.kept] == klass]
    own = scene.values[scene.by_item[item]].astype(np.int64)
    distance = np.abs(records.values[rows].astype(np.int64) - own).sum(axis=1)
    return records.values[rows[np.argsort(distance, kind="stable")[: round(share * len(rows))]]]


def candidates(scene: Scene, *, same_class: bool) -> list[tuple[int, int]]:
    """Items of the last part with a class whose base output they would keep (or not): (item, class)."""
    patch = scene.result.patch
    start = patch.items - patch.parts[-1].gate.items
    shown = with_scene.rows_by_item(patch).argmax(axis=1)
    labels = scene.labels[scene.by_item]
    base = Program(scene.job.workspace.base)
    own = base(scene.job.workspace.schema.dequantise(scene.values[scene.by_item])).argmax(axis=1)
    found = []
    for item in range(start, patch.items):
        if same_class and shown[item] == labels[item] == own[item]:
            found.append((item, int(labels[item])))
        elif not same_class and shown[item] != own[item]:
            found.append((item, int(own[item])))
    return found
