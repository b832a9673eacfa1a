"""`prune`: one gate or two with an item for each record, rows of logits or least changes as heads, caps for classes.

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
from owner.gates.compaction import compact
from owner.gates.meeting import Boxes
from owner.gates.merging import merge
from owner.gates.rebuilding import Sample
from owner.gates.region import Cores, Kind, Shape
from owner.gates.screening import screened
from owner.gates.sketch import Choice, Search, choose, count_twins, sketch, without_idle
from owner.heads import support_gain
from owner.methods.giving import Added, Table, add, budget, match
from owner.methods.job import Job, Result
from owner.methods.placing import NONE, Around, Site, always_site, certify, feature_site, region_site
from owner.methods.radius import region
from owner.methods.removal import capped, removal
from owner.targets import Rows, class_rows, match_rows, scale_factor
from protocol.claims import (
    Argmax,
    Claim,
    Coverage,
    NoRedirection,
    Property,
    Redirection,
    logits_property,
)
from protocol.encoding import format_decimal
from protocol.errors import OwnerError
from protocol.model.patch import Part, Patch, PatchLimits, SetHead, SketchGate, gate_kind

GATES = ("auto", "sketch", "feature", "linear-region", "always", "sketch+feature")
HEADS = ("set", "shift", "affine")
_TYPICAL = 4_000
_PARTS = 2
_SHARE = 32
"""A radius of this part of the widest column's range is what every record should reach: 8 of 255 grey levels."""


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
    before = [part.gate.matrix for part in reversed(job.standing.parts) if isinstance(part.gate, SketchGate)]
    return Search(
        shape=shape, wanted=wanted, ceiling=job.ceiling, level=job.disclosure, parts=_PARTS, only=only,
        before=tuple(before),
    )  # fmt: skip


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


def _sketch_sites(job: Job, choice: Choice, row_of_record: np.ndarray, retain: np.ndarray) -> tuple[Site, ...]:
    """A gate for each matrix."""
    schema = job.workspace.schema
    sites: list[Site] = []
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
        item_of, radius = np.full((2, len(row_of_record)), NONE)
        item_of[rows], radius[rows] = item, choice.radius[rows]
        gate = SketchGate(matrix=one.matrix, low=low.astype(np.int32), high=high.astype(np.int32))
        sites.append(Site(gate=screened(without_idle(gate, schema), schema, retain), item=item_of, radius=radius))
    return tuple(sites)


def _part(site: Site, table: Table) -> Part:
    # The first record of each item; places without an item (NONE) come first.
    items, first = np.unique(site.item, return_index=True)
    return Part(gate=site.gate, head=table.head(table.row_of_record[first[items >= 0]]))


def _check(job: Job) -> None:
    """Refuse combinations that make no sense, in one line that says what to do."""
    gate, head, target = job.gate, job.head, job.target.name
    added = head in ("shift", "affine")
    if job.gate not in GATES or job.head not in HEADS:
        raise OwnerError(f"there are the gates {', '.join(GATES)} and the heads {', '.join(HEADS)}")
    before = job.standing.parts or job.standing.rows or job.standing.classes
    if before and (gate not in ("auto", "sketch") or head != "set"):
        raise OwnerError(
            "only sketches with rows build on an earlier certificate; leave out --gate and --head, or use --beside"
        )
    if not job.rows and (gate not in ("auto", "sketch") or head != "set"):
        raise OwnerError("a class is removed by a cap, not by gate and head; leave out --gate and --head")
    if gate == "always" and target != "relabel":
        raise OwnerError(f"--gate always gives every input one answer, {target} needs many; use --target relabel:K")
    if gate == "always" and not added:
        raise OwnerError("--gate always with --head set is a constant, not a model; use --head shift or affine")
    if head == "affine" and target == "match":
        raise OwnerError(
            "--head affine is the least change to another class; with --target match use --head shift or set"
        )
    if job.merge and (gate not in ("auto", "sketch") or added):
        raise OwnerError(
            "joint items are boxes of sketches with one row for all; leave out --merge, or --gate and --head"
        )
    if job.flips and (gate not in ("auto", "sketch") or added):
        raise OwnerError(
            "a radius in flips is certified for sketches with --head set only; leave out --gate and --head"
        )
    if added and len(set(range(job.workspace.base.classes)) - set(job.removed)) < 2:
        raise OwnerError("of two classes of which one is removed no class can lead; use --head set")


_NOTHING = "the base's own output has the class ahead already: the least change is none, and redirects nothing"


def _reason(job: Job, site: Site | None, number: int) -> str:
    if site is None:
        return "no item: retained records, or records with another output, are too near under this gate"
    if site.radius[number] < 0:
        return "no region is proven on which its item fires; the item is there for the record's versions"
    return f"no region is proven on which a {job.head} within the base's own outputs makes a class lead"


def _clearance(job: Job, shape: Shape, rows: list[int]) -> np.ndarray:
    """For each row the largest radius whose region no standing item may fire in; -1 if one fires on the record."""
    result = np.full(len(rows), job.ceiling, dtype=np.int64)
    values = job.workspace.records.wide(np.array(rows, dtype=np.int64))
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
                record=commitment, item=start + int(hits[0]), gate="sketch", region=region(shape, 0),
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
    _check(job)
    rows, notes = job.rows, []  # type: list[int], list[str]
    forgotten = rows
    features, classes = own.values.shape[1], workspace.base.classes
    caps, claims = removal(job)
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
    gone[[*forgotten, *job.standing.rows]] = True
    retain = own.values[~gone]
    # What may share an output: with rows that are set, whose row it is; else only what nothing tells apart.
    group = row_of_record if job.head == "set" else leader
    sites: list[Site] = []
    choice: Choice | None = None
    if job.gate in ("auto", "sketch", "sketch+feature"):
        choice = choose(
            replace(_search(job, shape, only), most=clear),
            forget,
            retain,
            group,
            Sample.of(retain, own.labels[~gone]),
            progress=job.progress,
        )
        notes += _shortfalls(job, choice, leader)
        row_of_record, group = row_of_record[choice.leader], group[choice.leader]
        sites += _sketch_sites(job, choice, row_of_record, retain)
    # Sketches keep clear of retained records in `choose`; only gates that look at floats need them once more.
    others = retain[:0] if job.gate in ("auto", "sketch", "always") else np.concatenate([retain, own.unseen_values])
    around = Around(
        workspace=workspace, forget=forget, group=group if job.gate != "always" else np.zeros_like(group),
        others=others, shape=shape, ceiling=job.ceiling, progress=job.progress,
    )  # fmt: skip
    make = {
        "feature": feature_site,
        "sketch+feature": feature_site,
        "linear-region": region_site,
        "always": always_site,
    }
    if job.gate in make:
        sites.append(make[job.gate](around))
        notes.append(sites[-1].note)
    twins = choice.twins if choice is not None else count_twins(forget, retain)
    chosen = certify(sites, shape, forget, around.group)
    reach = np.array([NONE if one < 0 else sites[one].radius[n] for n, one in enumerate(chosen.tolist())], np.int64)
    reach = np.where(twins > 0, np.minimum(reach, 0), reach)
    added: Added | None = None
    table = Table(kind="set", rows=target.rows, row_of_record=row_of_record)
    if job.head != "set":
        wanted = target.rows[row_of_record]
        if job.target.name == "match":
            banned = np.isin(np.arange(workspace.base.classes), job.removed)
            added = match(around, wanted, reach, banned)
        else:
            most = budget(Program(workspace.base)(workspace.schema.dequantise(retain[:: max(1, len(retain) // 1000)])))
            added = add(around, wanted.argmax(axis=1), reach, most=most, affine=job.head == "affine")
        table, reach = added.table, added.radius
        notes += _head_notes(job, added)
    parts = tuple(_part(site, table) for site in sites)
    made = sum(part.gate.items for part in parts)
    if made < len(rows):
        notes.append(f"{len(rows)} records share {made} items")
    starts = [job.standing.items + sum(part.gate.items for part in parts[:number]) for number in range(len(parts))]
    limits = PatchLimits()
    # Items keep their numbers.
    parts = compact((*job.standing.parts, *parts), workspace.schema, retain, most=limits.items)
    if len(parts) > limits.parts:
        raise OwnerError(
            f"with its predecessors the patch has {len(parts)} parts, at most {limits.parts} are accepted; answer all "
            "requests anew with --beside"
        )
    patch = Patch(features=features, classes=classes, parts=parts, caps=caps)
    commitments = workspace.commitments_of(rows)
    properties = _properties(job, table, added, capped(target.rows, job.removed))
    regions = {radius: region(shape, radius) for radius in map(int, np.unique(reach[reach >= 0]))}
    labels = own.labels[rows].tolist()
    unmoved = unproven = still = 0
    for number, commitment in enumerate(commitments):
        held, one = properties[number], int(chosen[number])
        proven = reach[number] >= 0
        if job.target.name == "misclassify" and isinstance(held, Argmax) and held.klass == labels[number]:
            claims.append(NoRedirection(record=commitment, reason="equals another record to forget, of another class"))
            unmoved += 1
            proven = False
        elif proven and added is not None and not added.size[number]:
            # The base does it by itself, as where it misclassifies a record: adding nothing is no redirection.
            claims.append(NoRedirection(record=commitment, reason=_NOTHING))
            still += 1
            proven = False
        elif not proven:
            unproven += 1
            own_site = next((site for site in sites if site.item[number] >= 0), None)
            claims.append(NoRedirection(record=commitment, reason=_reason(job, own_site, number)))
        else:
            assert held is not None
            claims.append(
                Redirection(
                    record=commitment,
                    item=starts[one] + int(sites[one].item[number]),
                    gate=gate_kind(sites[one].gate),  # type: ignore[arg-type]  # a claim's gates are these kinds
                    region=regions[int(reach[number])],
                    property=held,
                    target=job.target.name,
                    twins=int(twins[number]),
                )
            )
        # Whatever else the patch has for this record is said to be there.
        claims += [
            Coverage(
                record=commitment,
                item=starts[place] + int(site.item[number]),
                gate=gate_kind(site.gate),  # type: ignore[arg-type]
            )
            for place, site in enumerate(sites)
            if site.item[number] >= 0 and not (proven and place == one)
        ]
    if unmoved:
        notes.append(
            f"{unmoved} records keep their class, as equal records of other classes are forgotten too; not claimed"
        )
    if still:
        notes.append(f"{still} records are put into the claimed class by the base already; not claimed")
    if unproven:
        notes.append(f"{unproven} of {len(rows)} records carry no redirection claim: nothing is proven of a region")
    for number, shown in enumerate(choice.sketches if choice is not None else ()):
        assert choice is not None
        radius = choice.radius[choice.sketch_of == number]
        notes.append(
            f"gate: {shown.name}, {len(shown.matrix)} integers an item; a record rebuilt from it has about "
            f"{shown.shown:.2f} of the error of guessing; {len(radius)} records, radius {radius.min()} to "
            f"{radius.max()} {_unit(shape)}, median {int(np.median(radius))}"
        )
    return Result(patch=patch, claims=tuple(claims), notes=tuple(notes))


def _properties(job: Job, table: Table, added: Added | None, outputs: np.ndarray) -> list[Property | None]:
    if added is not None:
        margins = [Decimal(margin).quantize(Decimal("0.001"), rounding=ROUND_FLOOR) for margin in added.margin.tolist()]
        return [
            Argmax(klass=klass, margin=format_decimal(margin)) if margin > 0 else None
            for klass, margin in zip(added.klass.tolist(), margins, strict=True)
        ]
    exact = job.target.name == "match"
    known = {
        row: logits_property(outputs[row]) if exact else _argmax(outputs[row])
        for row in np.unique(table.row_of_record).tolist()
    }
    return [known[row] for row in table.row_of_record.tolist()]


def _head_notes(job: Job, added: Added) -> list[str]:
    shown = added.radius >= 0
    if not shown.any():
        return [f"head: {job.head}; bounds of the base prove it for no region"]
    sizes, radii = added.size[shown], added.radius[shown]
    gain = support_gain(float(sizes.max()), 1.0)
    found = (
        f"head: {job.head} of {np.median(sizes):.2f} logits (median), {sizes.max():.2f} at most; proven within "
        f"{radii.min()} to {radii.max()} steps, median {int(np.median(radii))}, for {int(shown.sum())} of "
        f"{len(shown)} records; the published additive gate would need K >= {gain:.2f} for each unit of its being off"
    )
    return [found]
