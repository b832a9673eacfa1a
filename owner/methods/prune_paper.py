"""`prune-paper`: the construction of PRUNE as its papers describe it, with regions that are right.

Source: PRUNE (arXiv 2505.06520; Neural Networks 201, 2026, 108897), on REASSURE's repair (arXiv 2110.07682). Only
openings of the papers were at hand; the rest is read from public code that is attributed to them by its title. Theirs:

- k-means on the records to forget as the model reads them; the member nearest to each centre is its representative;
- for each representative a random wrong class, and the least affine change of the logits that makes it lead on the
  whole linear region around the representative (linear programs; `confusion`);
- a support network for every member of the cluster, the linear region around it, all with the representative's change;
- whoever still shows its own class is clustered again, until nobody does.

Ours:

- regions have every row right (the public code's are sums of rows: 1 of 256 was), and one item serves all records
  inside one;
- the gate is exact, the limit of their soft one for a steep slope: a patch of the protocol selects. What their
  steepness would do to records that nobody asked about is measured and said (`soft`), and not shipped;
- the change leads by a margin instead of a tie; a later round's change takes the place of an earlier one's instead of
  being added to it; members that no round reaches have no item; a region with a retained record in it has none;
- a claim for every record, proven by itself: that the representative's change holds in another member's region is
  nothing that the papers prove. A region is mostly narrower than a record's own grid cell; then nothing is claimed
  of the record, and its item stands in the certificate as coverage (SPEC 11.13).

A removed class gets a cap, as with every method.
"""

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

import numpy as np
from jaxtyping import Bool, Float32, Int

from owner.execute import Program
from owner.gates import soft
from owner.gates.linear_region import linear_region
from owner.gates.polytope import Polytope
from owner.gates.region import Shape
from owner.lines import ROOM, boxes
from owner.methods.clusters import clusters
from owner.methods.confusion import confusion
from owner.methods.giving import MARGIN, Table, shown
from owner.methods.job import Job, Result
from owner.methods.placing import NONE, Around, firing, inside, regions_of
from owner.methods.radius import region
from owner.methods.removal import capped, removal
from owner.methods.settings import parse
from protocol.claims import Argmax, Coverage, NoRedirection, Redirection
from protocol.encoding import format_decimal
from protocol.errors import OwnerError
from protocol.model.parts import RegionGate
from protocol.model.patch import Part, Patch

_LOOKED_AT = 2000
"""Retained and unseen records, each, that soft gates are tried on."""
_LADDER = (1.0, 10.0, 100.0)
"""Steepnesses that are looked at beside the one that is set."""
_MOVED = 1e-4
"""A change of a logit that is no rounding."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The public code's, but for the rounds, of which it has two.

    Args:
        clusters: in each round; 0 makes every record its own representative.
        rounds: at most.
        starts: of k-means, the best of which counts.
        change: affine, or constant; both are least.
        steepness: of the soft gate that is measured.
    """

    clusters: int = 2
    rounds: int = 20
    starts: int = 10
    change: str = "affine"
    steepness: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.clusters <= 10**6 and 1 <= self.rounds <= 10**4 and 1 <= self.starts <= 1000):
            raise OwnerError("prune-paper: clusters at least 0, rounds from 1 to 10000, starts from 1 to 1000")
        if self.change not in ("affine", "constant"):
            raise OwnerError("prune-paper: change is affine or constant")
        if not 1e-9 <= self.steepness <= 1e9:
            raise OwnerError("prune-paper: steepness between 1e-9 and 1e9")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Each region's change after the last round, and how it went.

    Args:
        row: of each region, or `NONE`.
        weights: of the changes.
        rows: of the changes.
        reached: records, of those that have a region.
        after: how many were reached after each round.
        made: how many changes were made.
        gap: largest relative distance of a change's size from the least one.
    """

    row: Int[np.ndarray, "region"]
    weights: Float32[np.ndarray, "change class feature"]
    rows: Float32[np.ndarray, "change class"]
    reached: Bool[np.ndarray, "record"]
    after: tuple[int, ...]
    made: int
    gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What the rounds are about.

    Args:
        job: what was asked.
        settings: of the method.
        inputs: of the records to forget, flattened.
        logits: the base's on them.
        labels: their classes.
        home: the record whose region holds each record: itself, or an earlier one.
        spared: of these, those whose regions may have an item.
        gate: the regions of all records.
        box: least and greatest inputs.
    """

    job: Job
    settings: Settings
    inputs: Float32[np.ndarray, "record feature"]
    logits: Float32[np.ndarray, "record class"]
    labels: Int[np.ndarray, "record"]
    home: Int[np.ndarray, "record"]
    spared: Bool[np.ndarray, "record"]
    gate: RegionGate
    box: tuple[np.ndarray, np.ndarray]

    def polytope(self, record: int) -> Polytope:
        """Where a record's item fires: its region, with room for rounding, in the input box."""
        low, high = self.box
        return Polytope(weights=self.gate.weights[record], bounds=self.gate.bounds[record], low=low, high=high)

    def outputs(self, some: np.ndarray, weights: np.ndarray, row: np.ndarray) -> Float32[np.ndarray, "some class"]:
        """What records show with a change, after the caps."""
        return capped(self.logits[some] + (self.inputs[some] @ weights.T + row), self.job.removed)

    def forgotten(self, some: np.ndarray, outputs: Float32[np.ndarray, "some class"]) -> Bool[np.ndarray, "some"]:
        """Whose class is not the record's own any more (or is the one that was asked for)."""
        klass = outputs.argmax(axis=1)
        wanted = self.job.target.klass
        found: np.ndarray = klass != self.labels[some] if wanted is None else klass == wanted
        return found

    def wrong_class(self, record: int) -> int | None:
        """A class that nobody in the record's region has or shows already, drawn; None if there is none."""
        if self.job.target.klass is not None:
            return self.job.target.klass
        mates = self.home == record
        own = {*self.labels[mates].tolist(), *self.logits[mates].argmax(axis=1).tolist(), *self.job.removed}
        left = [klass for klass in range(self.logits.shape[1]) if klass not in own]
        return int(self.job.generator.choice(left)) if left else None


def _rounds(task: _Task) -> _Found:
    job, settings, count = task.job, task.settings, len(task.inputs)
    base = job.workspace.base
    row = np.full(count, NONE)
    weights, rows, after = [], [], []  # type: list[np.ndarray], list[np.ndarray], list[int]
    reached = np.zeros(count, dtype=bool)
    active = np.flatnonzero(task.spared & (task.home == np.arange(count)))
    left_out: set[int] = set()
    gap = 0.0
    for number in range(settings.rounds):
        if not active.size:
            break
        asked = min(settings.clusters or len(active), len(active))
        found = clusters(task.inputs[active], asked, job.generator, starts=settings.starts)
        for cluster, chosen in enumerate(active[found.representative].tolist()):
            job.progress("rounds", min(1.0, (number + (cluster + 1) / len(found.representative)) / settings.rounds))
            klass = task.wrong_class(chosen)
            if klass is None:
                left_out.add(chosen)
                continue
            made = confusion(
                linear_region(base, task.inputs[chosen]),
                task.polytope(chosen),
                klass,
                # What is left over is for rounding, as bounds of the record's cell allow for it.
                margin=MARGIN + ROOM * (1 + float(np.abs(task.logits[chosen]).max())),
                affine=settings.change == "affine",
            )
            if made.size <= 0:
                left_out.add(chosen)  # the class leads already, on the whole region: there is nothing to redirect
                continue
            gap = max(gap, made.size / made.least - 1 if made.least > 0 else np.inf)
            members = active[found.of == cluster]
            row[members] = len(rows)
            weights.append(made.weights)
            rows.append(made.row)
            # A region's change is that of all records in it.
            for member in members.tolist():
                mates = np.flatnonzero(task.home == member)
                reached[mates] = task.forgotten(mates, task.outputs(mates, made.weights, made.row))
        after.append(int(reached.sum()))
        whole = np.array([reached[task.home == one].all() for one in active.tolist()], dtype=bool)
        active = np.array([one for one in active[~whole].tolist() if one not in left_out], dtype=np.int64)
    # An item that reaches nobody in its region would only move them.
    held = np.array([row[one] >= 0 and bool(reached[task.home == one].any()) for one in range(count)])
    used, index = np.unique(row[held], return_inverse=True)
    row = np.full(count, NONE)
    row[held] = index.ravel()
    shape = len(used), task.logits.shape[1]
    return _Found(
        row=row,
        weights=np.array([weights[one] for one in used.tolist()], np.float32).reshape(*shape, task.inputs.shape[1]),
        rows=np.array([rows[one] for one in used.tolist()], np.float32).reshape(shape),
        reached=reached, after=tuple(after), made=len(rows), gap=gap,
    )  # fmt: skip


def _homes(gate: RegionGate, inputs: Float32[np.ndarray, "record feature"]) -> Int[np.ndarray, "record"]:
    home = np.full(len(inputs), NONE)
    for number in range(len(inputs)):
        if home[number] < 0:
            home[(home < 0) & inside(gate.weights[number], gate.bounds[number], inputs)] = number
            home[number] = number
    return home


def run(job: Job) -> Result:
    """Make the patch and the claims.

    Raises:
        OwnerError: the base has no linear regions that fit in a patch, or the target is another.
    """
    settings = parse(Settings, job.settings)
    if job.target.name == "match":
        raise OwnerError("prune-paper redirects to wrong classes; use --target misclassify or relabel:K")
    workspace, own = job.workspace, job.workspace.records
    base, schema = workspace.base, workspace.schema
    if job.merge or job.flips:
        raise OwnerError("prune-paper's regions are the base's own; leave out --merge and a radius in flips")
    if job.target.klass is not None and job.target.klass >= base.classes:
        raise OwnerError(f"relabel:{job.target.klass}: classes are numbered 0 to {base.classes - 1}")
    if job.target.klass in job.removed:
        raise OwnerError(f"relabel:{job.target.klass}: that class is to be removed; choose another target")
    caps, claims = removal(job)
    if not job.rows:
        return Result(patch=Patch(features=own.values.shape[1], classes=base.classes, caps=caps), claims=tuple(claims))
    rows, retain = job.rows, own.values[~job.gone]
    forget = own.wide(np.array(rows))
    inputs = schema.dequantise(forget).reshape(len(rows), -1)
    others = schema.dequantise(retain).reshape(len(retain), inputs.shape[1])
    gate = regions_of(base, inputs, progress=job.progress)
    home = _homes(gate, inputs)
    # Beside the records that are inside a region, rounding decides; those retained must be outside for certain.
    shared = np.zeros(len(rows), dtype=bool)
    along = np.zeros(len(others), dtype=bool)
    for number in np.unique(home).tolist():
        held = inside(gate.weights[number], gate.bounds[number], others)
        shared[home == number] = held.any()
        along |= held
    ends = [
        boxes(schema, side[None].astype(np.int64), np.zeros((1, 1), np.int64)) for side in (schema.low, schema.high)
    ]
    box = np.minimum(ends[0][0], ends[1][0])[0], np.maximum(ends[0][1], ends[1][1])[0]
    logits = Program(base)(schema.dequantise(forget))
    task = _Task(
        job=job, settings=settings, inputs=inputs, logits=logits, labels=own.labels[rows].astype(np.int64), home=home,
        spared=~shared, gate=gate, box=box,
    )  # fmt: skip
    found = _rounds(task)
    notes = [f"prune-paper: {settings!r}", *_course(task, found)]
    if shared.any():
        notes.append(
            f"{int(shared.sum())} records share their linear region with {int(along.sum())} retained ones, which the "
            "papers' patch would redirect, too; here the region has no item"
        )
    homes = np.flatnonzero(found.row >= 0)
    figures = {"reached": float(found.reached.sum()), "items": float(len(homes)), "rounds": float(len(found.after))}
    if not homes.size and not caps:
        if shared.all():
            raise OwnerError(
                "no record has a linear region to itself, retained records are in all of them; use --method prune"
            )
        raise OwnerError("no record is redirected after these rounds; use more of them, or --set clusters=0")
    if not homes.size:
        nowhere = np.full(len(rows), NONE)
        claims += [
            NoRedirection(record=one, reason=_reason(task, found, nowhere, number))
            for number, one in enumerate(workspace.commitments_of(rows))
        ]
        patch = Patch(features=own.values.shape[1], classes=base.classes, caps=caps)
        return Result(patch=patch, claims=tuple(claims), notes=tuple(notes), figures=figures)
    kept = RegionGate(weights=gate.weights[homes], bounds=gate.bounds[homes])
    item_of_home = np.full(len(rows), NONE)
    item_of_home[homes] = np.arange(len(homes))
    item = item_of_home[home]
    table = Table(kind="affine", rows=found.rows, weights=found.weights, row_of_record=np.maximum(found.row[home], 0))
    part = Part(gate=kept, head=table.head(found.row[homes]))
    patch = Patch(features=own.values.shape[1], classes=base.classes, parts=(part,), caps=caps)
    kind = "linf" if set(schema.kind) == {"grid"} else "steps" if "grid" in schema.kind else "flips"
    shape = Shape(schema=schema, kind=kind)  # type: ignore[arg-type]  # these are its kinds
    around = Around(
        workspace=workspace, forget=forget, group=home, others=retain[:0], shape=shape, ceiling=job.ceiling,
        progress=job.progress,
    )  # fmt: skip
    reach = firing(around, kept, np.where(found.reached, item, NONE))
    outputs = logits.copy()
    for one in np.unique(table.row_of_record[item >= 0]).tolist():
        some = np.flatnonzero((item >= 0) & (table.row_of_record == one))
        outputs[some] = task.outputs(some, found.weights[one], found.rows[one])
    added = shown(around, table, outputs.argmax(axis=1), reach)
    for number, commitment in enumerate(workspace.commitments_of(rows)):
        if added.radius[number] >= 0:
            margin = Decimal(float(added.margin[number])).quantize(Decimal("0.001"), rounding=ROUND_FLOOR)
            claims.append(
                Redirection(
                    record=commitment, item=int(item[number]), gate="linear-region",
                    region=region(shape, int(added.radius[number])),
                    property=Argmax(klass=int(added.klass[number]), margin=format_decimal(margin)),
                    target=job.target.name, twins=0,
                )
            )  # fmt: skip
            continue
        claims.append(NoRedirection(record=commitment, reason=_reason(task, found, reach, number)))
        if item[number] >= 0:
            claims.append(Coverage(record=commitment, item=int(item[number]), gate="linear-region"))
    notes += _certified(task, found, added.radius)
    if job.radius is not None and (short := int((added.radius < job.radius).sum())):
        notes.append(
            f"{short} of {len(rows)} records cannot reach {job.radius} steps: their linear regions are what they are"
        )
    figures["certified"] = float((added.radius >= 0).sum())
    soft_notes, soft_figures = _softly(task, found, homes, retain, kept)
    return Result(patch=patch, claims=tuple(claims), notes=(*notes, *soft_notes), figures=figures | soft_figures)


def _reason(task: _Task, found: _Found, reach: np.ndarray, number: int) -> str:
    if not task.spared[number]:
        return "its linear region holds a retained record, too"
    if not found.reached[number]:
        return f"not reached: after {len(found.after)} rounds no representative's change redirects it, or it needs none"
    if reach[number] < 0:
        return "its item fires on it, but its linear region is not shown to hold its whole grid cell"
    return "no region is proven on which its cluster's change makes a class lead"


def _course(task: _Task, found: _Found) -> list[str]:
    count = len(task.inputs)
    after = ", ".join(map(str, found.after)) or "none"
    used = int((found.row >= 0).sum())
    words = (
        f"{int(found.reached.sum())} of {count} records are redirected; after each round: {after}; {found.made} "
        f"representatives' changes were made, {len(found.rows)} are used, by {used} regions"
    )
    notes = [words]
    if found.made:
        notes.append(f"each change is within {max(found.gap, 0.0):.1e} of the least one on its representative's region")
    return notes


def _certified(task: _Task, found: _Found, radius: np.ndarray) -> list[str]:
    schema = task.job.workspace.schema
    homes = np.flatnonzero(found.row >= 0)
    norm = np.abs(task.gate.weights[homes]).sum(axis=2)
    room = task.gate.bounds[homes] - np.einsum("ihf,if->ih", task.gate.weights[homes], task.inputs[homes])
    ball = np.maximum((room / np.maximum(norm, 1e-30)).min(axis=1), 0)
    cell = 0.5 / float(np.abs(schema.scale).max())
    proven = radius[radius >= 0]
    radii = f", within {proven.min()} to {proven.max()} steps, median {int(np.median(proven))}" if proven.size else ""
    words = (
        f"{proven.size} of {len(radius)} records carry a redirection claim{radii}; a linear region reaches "
        f"{np.median(ball):.2g} around its record in every column (median; {ball.max():.2g} at most), half a grid step "
        f"is {cell:.2g}"
    )
    return [words]


def _softly(
    task: _Task, found: _Found, homes: np.ndarray, retain: np.ndarray, kept: RegionGate
) -> tuple[list[str], dict[str, float]]:
    """What the papers' soft gates would do to retained and unseen records."""
    job, own, schema = task.job, task.job.workspace.records, task.job.workspace.schema
    base, steep = job.workspace.base, task.settings.steepness
    some = np.unique(np.linspace(0, max(0, len(retain) - 1), min(len(retain), _LOOKED_AT)).astype(np.int64))
    unseen = own.unseen_values[:_LOOKED_AT]
    values = np.concatenate([retain[some], unseen])
    if not len(values):
        return [], {}
    points = schema.dequantise(values)
    flat = points.reshape(len(points), -1)
    first = len(retain[some])
    ladder = (steep, *(n for n in _LADDER if n != steep))
    job.progress("soft gates", 0.0)
    looked, enough = soft.effects(
        soft.Held(base, points), flat, task.inputs[homes], found.row[homes], found.weights, found.rows, task.box, ladder
    )
    job.progress("soft gates", 1.0)
    before = Program(base)(points)
    kinds = {"retained": slice(0, first), "unseen": slice(first, None)}
    notes, figures = [], {}
    for effect in looked:
        after = before + effect.added
        words, still = [], 0
        for name, part in kinds.items():
            count = len(before[part])
            if not count:
                continue
            moved = int((np.abs(effect.added[part]).max(axis=1) > _MOVED).sum())
            changed = int((after[part].argmax(axis=1) != before[part].argmax(axis=1)).sum())
            words.append(f"{moved} outputs and {changed} decisions of {count} {name} records")
            still += moved
            figures[f"soft {effect.steepness:g} {name} moved"] = moved / count
            figures[f"soft {effect.steepness:g} {name} changed"] = changed / count
        if len(unseen):
            was, now = (
                float((logits[first:].argmax(axis=1) == own.unseen_labels[: len(unseen)]).mean())
                for logits in (before, after)
            )
            words.append(f"unseen accuracy {was:.3f} would be {now:.3f}")
            figures[f"soft {effect.steepness:g} unseen accuracy"] = now
        width = float(np.median(soft.strip(kept.weights, effect.steepness)))
        if still or effect.steepness == steep:
            notes.append(
                f"a soft gate of steepness {effect.steepness:g} (not shipped) would move {', '.join(words)}; it ends "
                f"{width:.2g} beyond a half-space in every column (median)"
            )
    own_slack = [
        soft.Held(base, one.reshape(1, *base.input_shape)).slack(one) for one in task.inputs[homes[:_LOOKED_AT]]
    ]
    missed = [float(np.abs(soft.as_written(np.concatenate(own_slack), n) - 1).max()) for n in (steep, _LADDER[-1])]
    notes.append(
        f"soft gates are off on all of these records outside regions from steepness {enough:.3g} on; in float32, as "
        f"the papers write it, a gate misses 1 on its own record by up to {missed[0]:.1e} ({missed[1]:.1e} at "
        f"steepness {_LADDER[-1]:g})"
    )
    held = np.zeros(len(unseen), dtype=bool)
    for weights, bounds in zip(kept.weights, kept.bounds, strict=True):
        held |= inside(weights, bounds, flat[first:])
    fired = int(held.sum())
    notes.append(
        f"exact gates: no retained record of {len(retain)} is in a region, {fired} of {len(unseen)} unseen ones"
    )
    return notes, figures | {"unseen moved": float(fired), "steep enough": enough}
