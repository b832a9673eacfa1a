"""`prune`: a sketch gate with one item for each record, rows of logits as heads, a cap for a whole class.

Source: PRUNE (arXiv 2505.06520), unlearning as repair: a patch redirects the prediction on the
records to forget and leaves the rest alone. Gate, head and certificate are this project's own
(SPEC 11.8): exact by construction instead of by linear regions.
"""

from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal

import numpy as np
from jaxtyping import Float32

from owner.execute import Program
from owner.gates.apart import reach
from owner.gates.meeting import Boxes
from owner.gates.merging import merge
from owner.gates.rebuilding import Sample
from owner.gates.region import Cores, Kind, Shape
from owner.gates.screening import screened
from owner.gates.sketch import Choice, Search, choose, count_twins, sketch
from owner.methods.job import Job, Result
from owner.methods.radius import data_radius
from owner.targets import Rows, class_rows, match_rows, scale_factor
from protocol.claims import Argmax, Claim, ClassRemoval, NoRedirection, Redirection, Region, logits_property
from protocol.encoding import format_decimal
from protocol.errors import OwnerError
from protocol.model.patch import Cap, Part, Patch, PatchLimits, SetHead, SketchGate

CAP_MARGIN = "1"
_TYPICAL = 4_000
_PARTS = 2
_SHARE = 32
"""A radius of this part of the widest column's range is what every record should reach: 8 of 255 grey levels."""


def capped(rows: Float32[np.ndarray, "row class"], classes: list[int]) -> Float32[np.ndarray, "row class"]:
    """What the deployed model puts out on a core: the row after the caps, in the same float32 operations."""
    result = rows.copy()
    for klass in classes:
        others = np.delete(result, classes, axis=1).max(axis=1)
        result[:, klass] = np.minimum(result[:, klass], others - np.float32(CAP_MARGIN))
    return result


def _argmax(row: Float32[np.ndarray, "class"]) -> Argmax:
    klass = int(row.argmax())
    runner_up = max(Decimal(float(value)) for index, value in enumerate(row) if index != klass)
    margin = (Decimal(float(row[klass])) - runner_up).quantize(Decimal("0.001"), rounding=ROUND_FLOOR)
    if margin <= 0:
        raise OwnerError(f"the target output of class {klass} does not lead by a margin of 0.001")
    return Argmax(klass=klass, margin=format_decimal(margin))


def _banned(job: Job, leader: np.ndarray) -> np.ndarray:
    # What `misclassify` must not show: a record's own class, that of any equal record, and removed classes.
    classes = job.workspace.base.classes
    labels = job.workspace.records.labels[job.rows]
    alike = np.zeros((len(labels), classes), dtype=bool)
    np.logical_or.at(alike, (leader, labels), True)
    banned: np.ndarray = alike[leader]
    banned[:, job.removed] = True
    # Equal records of all classes: one of them has to stay what it is (and is not claimed to be redirected).
    hopeless = banned.all(axis=1)
    banned[hopeless] = False
    banned[hopeless, labels[leader[hopeless]]] = True
    banned[:, job.removed] = True
    return banned


def _target_rows(job: Job, leader: np.ndarray, notes: list[str]) -> Rows:
    workspace, own = job.workspace, job.workspace.records
    program = Program(workspace.base)
    rows = job.rows
    if job.target.name == "match":
        factor = 1.0
        if workspace.prepared is not None and len(own.unseen_labels):
            unseen = program(workspace.schema.dequantise(own.unseen_values))
            factor = scale_factor(workspace.prepared, unseen, own.unseen_labels)
            if not 0.75 < factor < 1.33:
                notes.append(
                    f"warning: on unseen data the base is {factor:.2f} times as confident as the cross-fitted models; "
                    "was it trained by another recipe (commit --recipe)? An attacker may see the difference"
                )
        return match_rows(workspace.prepared, rows, factor)
    if job.target.klass in job.removed:
        raise OwnerError(f"relabel:{job.target.klass}: that class is to be removed; choose another target")
    keep = np.setdiff1d(np.arange(len(own.labels)), rows)
    typical = keep[:: max(1, len(keep) // _TYPICAL)]
    return class_rows(
        job.target,
        program(workspace.schema.dequantise(own.values[rows])),
        program(workspace.schema.dequantise(own.values[typical])),
        own.labels[typical],
        _banned(job, leader),
    )


def _coinciding(values: np.ndarray) -> np.ndarray:
    # Records with equal values cannot have different outputs: the first one's row serves all of them.
    _, first, inverse = np.unique(values, axis=0, return_index=True, return_inverse=True)
    leader: np.ndarray = first[inverse.ravel()]
    return leader


def _shape(job: Job) -> Shape:
    """The kind of region that a table of this schema gets: see SPEC 11.2."""
    kinds = set(job.workspace.schema.kind)
    if kinds == {"grid"}:
        kind: Kind = "linf"
        if job.flips:
            raise OwnerError("a radius in flips needs binary or one-hot columns; on a grid it is in steps")
    else:
        kind = "flips" if "grid" not in kinds or job.flips else "steps"
        if kind == "flips" and job.radius is not None and not job.flips:
            raise OwnerError("all columns are binary or one-hot: give the radius in flips, such as 4flips")
    return Shape(schema=job.workspace.schema, kind=kind)


def _unit(shape: Shape) -> str:
    return "flips" if shape.kind == "flips" else "steps"


def _search(job: Job, shape: Shape, only: str | None) -> Search:
    usual = 1 if shape.kind == "flips" else -(-shape.widest // _SHARE)
    wanted = job.radius if job.radius is not None else usual
    return Search(shape=shape, wanted=wanted, ceiling=job.ceiling, level=job.disclosure, parts=_PARTS, only=only)


def _region(shape: Shape, radius: int) -> Region:
    schema = shape.schema
    if shape.kind == "linf":
        return Region(norm="linf", radius=radius, radius_data=data_radius(schema, radius))
    if shape.kind == "steps":
        data = data_radius(schema, radius, shape.numeric)
        return Region(norm="hamming", radius=0, radius_data=data, steps=radius)
    return Region(norm="hamming", radius=radius, radius_data=data_radius(schema, 0))


def _shortfalls(job: Job, choice: Choice, leader: np.ndarray) -> list[str]:
    notes = []
    if twins := int((choice.twins > 0).sum()):
        notes.append(f"{twins} records have a retained twin: radius 0, and the twin is redirected with them")
    if job.radius is not None and (choice.radius < job.radius).any():
        short = int((choice.radius < job.radius).sum())
        unit = "flips" if job.flips else "steps"
        notes.append(f"{short} of {len(leader)} records cannot reach {job.radius} {unit}; their claims are reduced")
    if blurred := int((choice.leader != leader).sum()):
        notes.append(f"{blurred} records to forget look like another one under the gate's sketch and share its output")
    return notes


def _parts(
    job: Job, choice: Choice, row_of_record: np.ndarray, table: Float32[np.ndarray, "row class"], retain: np.ndarray
) -> tuple[tuple[Part, ...], np.ndarray]:
    """A part for each matrix, and each record's item, counted through the parts."""
    schema = job.workspace.schema
    parts: list[Part] = []
    item_of = np.zeros(len(row_of_record), dtype=np.int64)
    for number, one in enumerate(choice.sketches):
        rows = np.flatnonzero(choice.sketch_of == number)
        low, high = (np.array([side[row] for row in rows.tolist()]) for side in (choice.low, choice.high))
        item = np.arange(len(rows))
        # Of several parts only the last one's boxes may grow: nothing comes after them that they could take.
        if job.merge and job.target.name != "match" and len(rows) > 1 and number + 1 == len(choice.sketches):
            # Data that was never trained on stays outside, too: a joint box must not reach for those whom nobody
            # asked about.
            values = (retain, job.workspace.records.unseen_values)
            outside = np.concatenate([sketch(one.matrix, part) for part in values])
            item, low, high = merge(
                low, high, row_of_record[rows], outside, progress=lambda share: job.progress("joint items", share)
            )
        item_of[rows] = item + sum(part.gate.items for part in parts)
        first = np.unique(item, return_index=True)[1]
        used, index = np.unique(row_of_record[rows][first], return_inverse=True)
        gate = SketchGate(matrix=one.matrix, low=low.astype(np.int32), high=high.astype(np.int32))
        head = SetHead(rows=table[used], index=index.astype(np.int64).ravel())
        parts.append(Part(gate=screened(gate, schema, retain), head=head))
    return tuple(parts), item_of


def _clearance(job: Job, shape: Shape, rows: list[int]) -> np.ndarray:
    """For each row the largest radius whose region no standing item may fire in; -1 if one fires on the record."""
    result = np.full(len(rows), job.ceiling, dtype=np.int64)
    values = job.workspace.records.wide(np.array(rows))
    for part in job.standing.parts if rows else ():
        assert isinstance(part.gate, SketchGate)
        boxes = part.gate.low, part.gate.high
        cores = Cores(shape, part.gate.matrix, values, job.ceiling)
        result = np.minimum(result, reach(cores, len(rows), Boxes(*boxes), boxes))
    return result


def _already(job: Job, shape: Shape, rows: list[int], notes: list[str]) -> list[Claim]:
    """Claims about records on which a standing item fires: twins of what was forgotten before share its output."""
    claims: list[Claim] = []
    if not rows:
        return claims
    own = job.workspace.records
    gone = np.zeros(len(own.labels), dtype=bool)
    gone[[*job.rows, *job.standing.rows]] = True
    twins = count_twins(own.wide(np.array(rows)), own.values[~gone])
    for row, commitment, count in zip(rows, job.workspace.commitments_of(rows), twins.tolist(), strict=True):
        start = 0
        for part in job.standing.parts:
            assert isinstance(part.gate, SketchGate)
            assert isinstance(part.head, SetHead)
            point = sketch(part.gate.matrix, own.wide(np.array([row])))[0]
            hits = np.flatnonzero(((part.gate.low <= point) & (point <= part.gate.high)).all(axis=1))
            if hits.size:
                output = capped(part.head.rows[part.head.index[hits[:1]]], job.removed)[0]
                break
            start += part.gate.items
        held = logits_property(output) if job.target.name == "match" else _argmax(output)
        if job.target.name == "misclassify" and isinstance(held, Argmax) and held.klass == int(own.labels[row]):
            claims.append(NoRedirection(record=commitment, reason="equals a record forgotten before, of another class"))
            continue
        claims.append(
            Redirection(
                record=commitment, item=start + int(hits[0]), gate="sketch", region=_region(shape, 0),
                property=held, target=job.target.name, twins=int(count),
            )
        )  # fmt: skip
    notes.append(f"{len(rows)} records equal one that was forgotten before, and share its output")
    return claims


def run(job: Job, *, only: str | None = None) -> Result:
    """Make the patch and the claims.

    Args:
        job: what was asked.
        only: the one sketch to use, by name; None to choose.

    Raises:
        OwnerError: the target cannot be had, or the gate cannot be exact on this schema.
    """
    workspace, own = job.workspace, job.workspace.records
    rows, notes = job.rows, []  # type: list[int], list[str]
    forgotten = list(rows)
    features, classes = own.values.shape[1], workspace.base.classes
    if len(job.removed) >= classes:
        raise OwnerError("at least one class has to stay: a removed class is kept below the others")
    caps = tuple(Cap(klass=klass, margin=CAP_MARGIN) for klass in job.removed)
    claims: list[Claim] = [
        ClassRemoval(klass=klass, margin=CAP_MARGIN, nonce=job.generator.bytes(32))
        for klass in job.classes
        if klass not in job.standing.classes
    ]
    shape = _shape(job)
    clear = _clearance(job, shape, rows)
    claims += _already(job, shape, [row for row, radius in zip(rows, clear.tolist(), strict=True) if radius < 0], notes)
    rows, clear = [row for row, radius in zip(rows, clear.tolist(), strict=True) if radius >= 0], clear[clear >= 0]
    if not rows:
        patch = Patch(features=features, classes=classes, parts=job.standing.parts, caps=caps)
        return Result(patch=patch, claims=tuple(claims), notes=tuple(notes))
    if len(rows) < len(job.rows):
        left = frozenset(rows)
        job = replace(
            job, requests=tuple((r, tuple(row for row in listed if row in left)) for r, listed in job.requests)
        )
    forget = own.wide(np.array(rows))
    leader = _coinciding(forget)
    shared = int((leader != np.arange(len(rows))).sum())
    if shared:
        notes.append(f"{shared} records to forget equal another one in every value and share its output")
    job.progress("targets", 0.0)
    target = _target_rows(job, leader, notes)
    job.progress("targets", 1.0)
    row_of_record = target.row_of_record[leader]
    gone = np.zeros(len(own.labels), dtype=bool)
    gone[[*rows, *job.standing.rows, *forgotten]] = True
    retain = own.values[~gone]
    choice = choose(
        replace(_search(job, shape, only), most=clear),
        forget,
        retain,
        row_of_record,
        Sample.of(retain, own.labels[~gone]),
        progress=job.progress,
    )
    notes += _shortfalls(job, choice, leader)
    row_of_record = row_of_record[choice.leader]
    parts, item_of = _parts(job, choice, row_of_record, target.rows, retain)
    made = sum(part.gate.items for part in parts)
    if made < len(rows):
        notes.append(f"{len(rows)} records share {made} items")
    parts = (*job.standing.parts, *parts)
    if len(parts) > (most := PatchLimits().parts):
        raise OwnerError(
            f"with its predecessors the patch has {len(parts)} parts, at most {most} are accepted; answer all requests "
            "anew with --beside"
        )
    patch = Patch(features=features, classes=classes, parts=parts, caps=caps)
    outputs = capped(target.rows, job.removed)
    commitments = workspace.commitments_of(rows)
    properties = {
        row: logits_property(outputs[row]) if job.target.name == "match" else _argmax(outputs[row])
        for row in np.unique(row_of_record).tolist()
    }
    regions = {radius: _region(shape, radius) for radius in map(int, np.unique(choice.radius))}
    labels = own.labels[rows].tolist()
    unmoved = 0
    for number, commitment in enumerate(commitments):
        held = properties[int(row_of_record[number])]
        if job.target.name == "misclassify" and isinstance(held, Argmax) and held.klass == labels[number]:
            claims.append(NoRedirection(record=commitment, reason="equals another record to forget, of another class"))
            unmoved += 1
            continue
        claims.append(
            Redirection(
                record=commitment,
                item=job.standing.items + int(item_of[number]),
                gate="sketch",
                region=regions[int(choice.radius[number])],
                property=held,
                target=job.target.name,
                twins=int(choice.twins[number]),
            )
        )
    if unmoved:
        notes.append(
            f"{unmoved} records keep their class, as equal records of other classes are forgotten too; not claimed"
        )
    for number, one in enumerate(choice.sketches):
        radius = choice.radius[choice.sketch_of == number]
        notes.append(
            f"gate: {one.name}, {len(one.matrix)} integers an item; a record rebuilt from it has about {one.shown:.2f} "
            f"of the error of guessing; {len(radius)} records, radius {radius.min()} to {radius.max()} {_unit(shape)}, "
            f"median {int(np.median(radius))}"
        )
    return Result(patch=patch, claims=tuple(claims), notes=tuple(notes))
