"""Hints that go with claims: slopes where they make a radius larger, duals that show a head to be small.

Proves nothing: the auditor evaluates both with bounds of its own. Before a radius is raised, this side's bounds, less
an allowance for rounding, reach what the claim needs; a larger region of an unchanged patch lets in nobody whom the
gate kept out, since a region lies in its item's support. Claims whose item is decided in integers and whose head sets
a row need no hint. Source: certificate.md, Proof hints; SPEC 11.12.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from owner.execute import OPERATORS, Program, constants
from owner.methods.job import Job, Result
from owner.methods.radius import data_radius
from owner.relaxation import Question, Relaxation, search
from protocol.claims import Argmax, Claim, Redirection, Region
from protocol.errors import OwnerError
from protocol.hints import MAX_ENTRY, Duals, Hints, Slopes, to_bytes
from protocol.model.graph import Graph
from protocol.model.parts import AffineHead, AlwaysGate, FeatureGate, Part, SetHead, ShiftHead, SketchGate, head_kind
from protocol.model.patch import Patch
from protocol.model.schema import InputSchema

MOST = 256
"""Claims that are looked at."""
VALUES = 4096
"""Hidden values of a model beyond which no slopes are looked for."""
_DUALS = 1024
"""Claims that duals are looked for with."""
_TOGETHER = 8
_GUARD = 2.0**-12
"""Of the largest number of a form: what an execution's rounding may cost, generously."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One claim whose radius a bound decides."""

    line: int
    claim: Redirection
    part: Part
    item: int
    values: Int64[np.ndarray, " feature"]


def _boxes(
    schema: InputSchema, values: Int64[np.ndarray, "record feature"], steps: Int64[np.ndarray, " record"]
) -> tuple[Float32[np.ndarray, "record ..."], Float32[np.ndarray, "record ..."]]:
    """Inputs that round to grid values within some steps of records, a little widened."""
    low = np.maximum(values - steps[:, None], schema.low) - 0.5
    high = np.minimum(values + steps[:, None], schema.high) + 0.5
    scale, offset = schema.scale.astype(np.float64), schema.offset.astype(np.float64)
    ends = np.stack([(low - offset) / scale, (high - offset) / scale])
    wide = 2.0**-20 * (np.abs(ends).max(axis=0) + 1 / np.abs(scale))
    shape = (len(values), *schema.shape)
    return (
        (ends.min(axis=0) - wide).astype(np.float32).reshape(shape),
        (ends.max(axis=0) + wide).astype(np.float32).reshape(shape),
    )


def _lead_rows(labels: list[int], classes: int) -> Float[np.ndarray, "record row class"]:
    """Rows whose products with logits are a class's lead over each other one, in the order of classes."""
    eye = np.eye(classes)
    return np.stack([(eye[label] - eye)[np.arange(classes) != label] for label in labels])


def _disjoint(part: Part, item: int) -> bool:
    """Whether no earlier item of a part with another output can fire where this one does."""
    gate, head = part.gate, part.head
    if isinstance(gate, AlwaysGate):
        return item == 0
    if not isinstance(gate, SketchGate | FeatureGate):
        return False
    rivals = np.flatnonzero(head.index[:item] != head.index[item])
    apart = (gate.low[rivals] > gate.high[item]) | (gate.high[rivals] < gate.low[item])
    return bool(apart.any(axis=1).all())


def _tasks(job: Job, patch: Patch, claims: Sequence[object]) -> list[_Task]:
    """Claims that bounds decide, of the first part (nothing comes before it)."""
    found: list[tuple[int, Redirection, Part, int]] = []
    for line, claim in enumerate(claims):
        if not isinstance(claim, Redirection) or claim.item is None or claim.region.norm != "linf" or claim.twins:
            continue
        place = patch.place(claim.item)
        part = patch.parts[place.part]
        adding = not isinstance(part.head, SetHead) and isinstance(claim.property, Argmax)
        bounded = adding or (isinstance(part.gate, FeatureGate) and isinstance(part.head, SetHead))
        if bounded and place.part == 0 and _disjoint(part, place.item):
            found.append((line, claim, part, place.item))
    rows = job.workspace.rows_of(tuple(claim.record for _, claim, _, _ in found[:MOST]))
    values = job.workspace.records.values[rows].astype(np.int64)
    return [
        _Task(line=line, claim=claim, part=part, item=item, values=own)
        for (line, claim, part, item), own in zip(found, values, strict=False)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What a try at some radii gave: whether each claim is reached, without hints and with them, and the slopes."""

    usual: np.ndarray
    hinted: np.ndarray
    inner: np.ndarray
    last: np.ndarray


@dataclass(kw_only=True)
class _Prover:
    """Bounds for the claims on one part."""

    base: Graph
    schema: InputSchema
    part: Part
    steps: int = 20
    inner: int = 10

    def __post_init__(self) -> None:
        self.whole = Relaxation(self.base)
        if sum(self.whole.sizes) > VALUES:
            raise OwnerError(f"more than {VALUES} hidden values")
        gate = self.part.gate
        self.tensor = Relaxation(self.base, gate.tensor) if isinstance(gate, FeatureGate) else None

    def _fires(self, tasks: Sequence[_Task], low: np.ndarray, high: np.ndarray) -> Question | None:
        gate, items = self.part.gate, [task.item for task in tasks]
        if self.tensor is None or not isinstance(gate, FeatureGate):
            return None
        shape = self.tensor.shapes[gate.tensor]
        unit = np.eye(gate.low.shape[1]).reshape(-1, *shape)
        rows = np.broadcast_to(np.concatenate([unit, -unit]), (len(tasks), 2 * len(unit), *shape))
        floor = np.concatenate([gate.low[items], -gate.high[items]], axis=1).astype(np.float64)
        return Question(low=low, high=high, rows=rows, floor=floor + _GUARD * (1 + np.abs(floor)), shared=True)

    def _leads(self, tasks: Sequence[_Task], low: np.ndarray, high: np.ndarray) -> Question | None:
        head = self.part.head
        if isinstance(head, SetHead):
            return None
        wanted = [task.claim.property for task in tasks]
        rows = _lead_rows([one.klass for one in wanted if isinstance(one, Argmax)], self.base.classes)
        margins = np.array([float(Decimal(one.margin)) for one in wanted if isinstance(one, Argmax)])
        index = head.index[[task.item for task in tasks]]
        added = head.rows[index].astype(np.float64)
        floor = margins[:, None] - (rows @ added[:, :, None])[..., 0]
        guard = _GUARD * (1 + np.abs(floor) + 2 * np.abs(added).max(axis=1)[:, None])
        direct = None
        if isinstance(head, AffineHead):
            maps = head.weights[index].astype(np.float64)
            direct = (rows @ maps).reshape(*rows.shape[:2], *self.base.input_shape)
        return Question(low=low, high=high, rows=rows, floor=floor + guard, direct=direct)

    def _in_sketch(self, tasks: Sequence[_Task], steps: Int64[np.ndarray, " task"]) -> np.ndarray:
        gate = self.part.gate
        if not isinstance(gate, SketchGate):
            return np.ones(len(tasks), np.bool_)
        values, items = np.stack([task.values for task in tasks]), [task.item for task in tasks]
        matrix = gate.matrix.astype(np.int64)
        least = np.maximum(values - steps[:, None], self.schema.low)
        greatest = np.minimum(values + steps[:, None], self.schema.high)
        rising, falling = np.maximum(matrix, 0).T, np.minimum(matrix, 0).T
        low, high = least @ rising + greatest @ falling, greatest @ rising + least @ falling
        inside: np.ndarray = ((low >= gate.low[items]) & (high <= gate.high[items])).all(axis=1)
        return inside

    def at(self, tasks: Sequence[_Task], steps: Int64[np.ndarray, " task"]) -> _Answer:
        """Try a radius for each claim."""
        low, high = _boxes(self.schema, np.stack([task.values for task in tasks]), steps)
        usual = hinted = self._in_sketch(tasks, steps)
        size = sum(self.whole.sizes)
        inner, last = np.zeros((len(tasks), size), np.uint8), np.zeros((len(tasks), 0, size), np.uint8)
        questions = (self.tensor, self._fires(tasks, low, high)), (self.whole, self._leads(tasks, low, high))
        for relaxed, question in questions:
            if relaxed is None or question is None:
                continue
            # For a lead the objective's own slopes give nearly all there is, for a small part of the cost (measured);
            # a gate's many values share those of the hidden values.
            # With a gate's slopes the hidden values' limits are others than a lead's were looked for with, so a lead
            # beside a feature gate has to do without.
            alone = question.shared or self.tensor is None
            tried = self.steps if alone else 0
            found = search(relaxed, question, steps=tried, inner=self.inner if question.shared else 0)
            usual = usual & (found.usual >= question.floor).all(axis=1)
            hinted = hinted & (found.lower >= question.floor).all(axis=1)
            if question.shared:
                inner, _ = replace(found.slopes, last=tuple(p[:, None] for p in found.slopes.inner)).packed()
            else:
                own, last = found.slopes.packed()
                inner = own if self.tensor is None else inner
        return _Answer(usual=usual, hinted=hinted, inner=inner, last=last)


@dataclass(slots=True, kw_only=True)
class _Kept:
    # A claim's radius so far, and the slopes that it needs, if any.
    radius: int
    slopes: tuple[np.ndarray, np.ndarray] | None = None


def _raise(prover: _Prover, tasks: Sequence[_Task], ceiling: int) -> list[_Kept]:
    """The largest radius of each claim that bounds with hints reach, by bisection from the claimed one upwards."""
    proven = np.array([task.claim.region.radius for task in tasks], np.int64)
    kept = [_Kept(radius=int(radius)) for radius in proven]
    failed = np.maximum(proven, ceiling) + 1
    # The claimed radius itself first: a hint may be what proves it.
    tried = proven.copy()
    open_ = np.arange(len(tasks))
    first = True
    while open_.size:
        answer = prover.at([tasks[n] for n in open_.tolist()], tried[open_])
        for place, number in enumerate(open_.tolist()):
            if answer.hinted[place]:
                proven[number] = tried[number]
                slopes = None if answer.usual[place] else (answer.inner[place], answer.last[place])
                kept[number] = _Kept(radius=int(tried[number]), slopes=slopes)
            else:
                failed[number] = tried[number] if not first else proven[number] + 1
        # One step more is tried before the middle: where hints do not help, nothing else does.
        tried = np.where(first, np.minimum(proven + 1, failed), (proven + failed) // 2)
        open_ = np.flatnonzero(failed - proven > 1)
        first = False
    return kept


def _slopes(found: dict[int, tuple[np.ndarray, np.ndarray]]) -> Slopes:
    # Claims with different numbers of rows do not occur in one file: a row for each class but one.
    entries: dict[bytes, int] = {}
    index = []
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for line in sorted(found):
        inner, last = found[line]
        key = inner.tobytes() + last.tobytes()
        if key not in entries:
            entries[key] = len(kept)
            kept.append((inner, last))
        index.append(entries[key])
    return Slopes(
        claim=np.array(sorted(found), np.int32),
        entry=np.array(index, np.int32),
        inner=np.stack([inner for inner, _ in kept]),
        last=np.stack([last for _, last in kept]),
    )


def _gradient_signs(base: Graph, x: np.ndarray, klass: int, rivals: list[int]) -> np.ndarray:
    """For each rival the signs of the slope of its lead at one input."""
    point = torch.from_numpy(np.repeat(x[None], len(rivals), axis=0)).requires_grad_()
    values, fixed = {base.input: point}, constants(base)
    for node in base.nodes:
        inputs = [values[name] if name in values else fixed[name] for name in node.inputs]
        values[node.outputs[0]] = OPERATORS[node.op](node, inputs)
    logits = values[base.output]
    lead = logits[torch.arange(len(rivals)), torch.tensor(rivals)] - logits[:, klass]
    (slope,) = torch.autograd.grad(lead.sum(), point)
    signs: np.ndarray = torch.sign(slope).flatten(1).numpy().astype(np.int64)
    return signs


def find_duals(
    base: Graph,
    schema: InputSchema,
    patch: Patch,
    claims: Sequence[object],
    values: dict[bytes, Int64[np.ndarray, " feature"]],
    outputs: Callable[[Float32[np.ndarray, "point ..."]], Float32[np.ndarray, "point class"]],
) -> Duals:
    """For each row of a shift or affine head a point of some claim's region that needs about as large a change.

    Args:
        base: the model.
        schema: its input schema.
        patch: whose heads they are.
        claims: in the order of their lines.
        values: grid values of the claims' records, by commitment.
        outputs: the base's logits.

    Returns:
        One dual of weight 1 for each row that has a claim with a class: the class's worst rival at the worst corner
        that the base's slope points to, or at the record itself.
    """
    best: dict[tuple[int, int], tuple[float, int, int, np.ndarray]] = {}
    for line, claim in enumerate(claims):
        if not isinstance(claim, Redirection) or claim.item is None or not isinstance(claim.property, Argmax):
            continue
        if claim.region.norm != "linf" or claim.record not in values:
            continue
        place = patch.place(claim.item)
        head = patch.parts[place.part].head
        if not isinstance(head, ShiftHead | AffineHead):
            continue
        klass, own = claim.property.klass, values[claim.record]
        rivals = [k for k in range(base.classes) if k != klass]
        signs = _gradient_signs(base, schema.dequantise(own[None])[0], klass, rivals)
        moved = np.clip(own + claim.region.radius * np.concatenate([0 * signs[:1], signs]), schema.low, schema.high)
        found = outputs(schema.dequantise(moved)).astype(np.float64)
        need = float(Decimal(claim.property.margin)) - (found[:, [klass]] - found[:, rivals])
        point, rival = np.unravel_index(int(need.argmax()), need.shape)
        key = (place.part, int(head.index[place.item]))
        if key not in best or need.max() > best[key][0]:
            best[key] = (float(need.max()), line, rivals[int(rival)], moved[point] - own)
    if not best:
        return Duals.none()
    keys = sorted(best)
    return Duals(
        part=np.array([part for part, _ in keys], np.int32),
        row=np.array([row for _, row in keys], np.int32),
        claim=np.array([best[key][1] for key in keys], np.int32),
        rival=np.array([best[key][2] for key in keys], np.int32),
        weight=np.ones(len(keys), np.int32),
        offset=np.stack([best[key][3] for key in keys]).astype(np.int32),
    )


def _larger(schema: InputSchema, radius: int) -> Region:
    return Region(norm="linf", radius=radius, radius_data=data_radius(schema, radius))


def improve(job: Job, result: Result, *, steps: int = 20, inner: int = 10) -> Result:
    """A method's result with the hints that make its claims larger, and with these larger claims.

    Radii are raised up to the ceiling where none was asked for. Nothing else about a claim changes.

    Args:
        job: the task.
        result: of the method.
        steps: see `relaxation.search`; for heads.
        inner: likewise, for feature gates.
    """
    patch, schema, base = result.patch, job.workspace.schema, job.workspace.base
    adding = [part for part in patch.parts if head_kind(part.head) != "set"]
    if not adding and not _feature(patch):
        return result
    claims, slopes, notes = _raised(job, result, steps=steps, inner=inner)
    records = _records(job, patch, claims) if adding else {}
    duals = find_duals(base, schema, patch, claims, records, Program(base)) if records else Duals.none()
    hints = Hints(slopes=_slopes(slopes) if slopes else Slopes.none(), duals=duals)
    return replace(
        result,
        claims=tuple(claims),
        notes=(*result.notes, *notes),
        hints=to_bytes(hints) if slopes or len(duals.part) else None,
    )


def _records(job: Job, patch: Patch, claims: Sequence[Claim]) -> dict[bytes, Int64[np.ndarray, " feature"]]:
    """Grid values of records whose claims are on heads that add to the logits, of any part."""
    found = [
        claim.record
        for claim in claims
        if isinstance(claim, Redirection)
        and claim.item is not None
        and head_kind(patch.parts[patch.place(claim.item).part].head) != "set"
    ][:_DUALS]
    values = job.workspace.records.values[job.workspace.rows_of(tuple(found))].astype(np.int64)
    return dict(zip(found, values, strict=True))


def _raised(
    job: Job, result: Result, *, steps: int, inner: int
) -> tuple[list[Claim], dict[int, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
    """Claims with the radii that slopes give them, the slopes by line, and notes."""
    claims, slopes = list(result.claims), {}  # type: list[Claim], dict[int, tuple[np.ndarray, np.ndarray]]
    tasks = _tasks(job, result.patch, claims)
    if not tasks:
        return claims, slopes, ()
    schema = job.workspace.schema
    try:
        prover = _Prover(base=job.workspace.base, schema=schema, part=tasks[0].part, steps=steps, inner=inner)
    except OwnerError as error:
        return claims, slopes, (f"no proof hints: {error.message}",)
    ceiling = job.ceiling if job.radius is None else job.radius
    for start in range(0, len(tasks), _TOGETHER):
        job.progress("proof hints", start / len(tasks))
        some = tasks[start : start + _TOGETHER]
        for task, kept in zip(some, _raise(prover, some, ceiling), strict=True):
            if kept.radius > task.claim.region.radius:
                claims[task.line] = replace(task.claim, region=_larger(schema, kept.radius))
            if kept.slopes is not None:
                slopes[task.line] = kept.slopes
    job.progress("proof hints", 1.0)
    while slopes and sum(a.nbytes + b.nbytes for a, b in slopes.values()) > 2 * MAX_ENTRY:
        line = max(slopes)
        claims[line] = result.claims[line]
        del slopes[line]
    larger = sum(new != old for new, old in zip(claims, result.claims, strict=True))
    note = f"proof hints: {larger} radii are larger than without, {len(slopes)} claims need their slopes"
    return claims, slopes, (note,)


def _feature(patch: Patch) -> bool:
    return any(isinstance(part.gate, FeatureGate) for part in patch.parts)
