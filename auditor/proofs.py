"""Proofs about any model of the profile: that a claimed property holds on a whole region of the grid.

Proves, where it says `proven`: for every float32 input x that is inside the declared box with |Q(x) - q| <= radius
in every column, and for every execution that `auditor.propagation` covers, the model's float32 logits have the
property: `P f(x) >= q` row by row, a class that leads by a margin, or equal to a row. A radius beneath the claimed one
is proven in the same way. Nothing here ever refutes: what is not proven may hold or not.

Assumes a graph of the profile. A flip may turn a column's value into any other of its range, so a region of one flip
or more is enlarged to the whole declared box, which is sound and rarely proves anything. Equality with a row is asked
of bounds that rounding keeps apart; it is attempted in the same way, and proves nothing but constants that are exact.

What it may cost is decided before it begins (`effort`): the work of all claims together, counted in products of one
backward pass, stays below a fixed number, by fewer hidden values with a pass of their own, then by interval
bounds, then by leaving claims out, and the reason says so. Source: SPEC 11.10; certificate.md, Claims.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Float64, Integer

from auditor.hinting import Given
from auditor.largest import UNPROVEN, bisect
from auditor.propagation import NEURONS, Plan, bound_plan, make_plan, margin_rows, region
from auditor.propagation.maps import Chain, ConvMap, LinearMap, MatrixMap
from auditor.propagation.plan import Affine
from auditor.rows import exact, nearest_float32
from protocol.claims import Argmax, Linear, Property, Region
from protocol.errors import AuditorError
from protocol.model.graph import Graph
from protocol.model.schema import InputSchema

WORK = 1 << 44
"""Products and sums that all claims of one certificate may cost together: about half an hour on one core."""
_WIDEST = 1 << 23
_BATCH = 64
_ELEMENTS = 1 << 22
"""Coefficients of all claims that are looked at together: 32 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """`rows @ f >= least`, the bounds as rational numbers."""

    rows: Float64[np.ndarray, "row class"]
    least: tuple[Fraction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is proven about one claim.

    Args:
        proven: the property holds on the whole claimed region.
        radius: largest radius, up to the claimed one, for which a proof was found; `UNPROVEN` if none.
        reason: why it is not proven, or empty.
    """

    proven: bool
    radius: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is spent on a number of claims.

    Args:
        neurons: see `propagation.bound`; 0 with `relaxed` false means interval bounds only.
        relaxed: whether linear relaxation is used at all.
        claims: how many of them are looked at.
    """

    neurons: int
    relaxed: bool
    claims: int


def asked(wanted: Property, classes: int) -> int | str:
    """How many inequalities a property is, or why nothing can be proven of it."""
    if isinstance(wanted, Argmax):
        if wanted.klass >= classes or classes < 2:
            return f"a model of {classes} classes has nothing that class {wanted.klass} could lead"
        if exact(wanted.margin) <= 0:
            return "a class that leads by a margin of 0 may tie"
        return classes - 1
    width = len(wanted.rows[0]) if isinstance(wanted, Linear) else len(wanted.values)
    if width != classes:
        return f"the property is about {width} classes, the model has {classes}"
    return len(wanted.least) if isinstance(wanted, Linear) else 2 * classes


def demand(wanted: Property, classes: int) -> Demand:
    """What a property asks of the logits; `asked` must have found it sensible."""
    if isinstance(wanted, Argmax):
        rows = margin_rows(np.array([wanted.klass]), classes)[0]
        return Demand(rows=rows, least=(exact(wanted.margin),) * len(rows))
    if isinstance(wanted, Linear):
        return Demand(rows=wanted.matrix(), least=tuple(exact(text) for text in wanted.least))
    values = [Fraction(float(nearest_float32(text))) for text in wanted.values]
    both = np.concatenate([np.eye(classes), -np.eye(classes)])
    return Demand(rows=both, least=(*values, *(-value for value in values)))


def _not_below(value: Fraction) -> float:
    """A float64 that is not below a rational number."""
    try:
        guess = float(value)
    except OverflowError:
        return math.inf if value > 0 else -float(np.finfo(np.float64).max)
    return guess if Fraction(guess) >= value else math.nextafter(guess, math.inf)


def _products(moved: LinearMap, step: Affine, plan: Plan) -> int:
    """Products and sums of one row on its way back through a map."""
    after = math.prod(plan.shapes[step.output])
    if isinstance(moved, MatrixMap):
        weight = moved.weight["signed"]
        return int(weight.size) * (after // int(weight.shape[1]))
    if isinstance(moved, ConvMap):
        return int(moved.kernel["signed"].size) * max(1, after // len(moved.kernel["signed"]))
    if isinstance(moved, Chain):
        return sum(_products(one, step, plan) for one in moved.maps)
    return after


def _relevant(graph: Graph) -> Graph:
    """The part of a graph that its output depends on; a composed model also carries the base's own output."""
    needed = {graph.output}
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    constants = {name: array for name, array in graph.initialisers.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(kept)), initialisers=constants)


def effort(plan: Plan, claims: int, *, rows: int, trials: int, work: int = WORK) -> Effort:
    """How to stay within `work`.

    Args:
        plan: of the model.
        claims: their number.
        rows: of the largest property.
        trials: radii that may be tried for one claim.
        work: products and sums altogether.
    """
    row = sum(_products(moved, step, plan) for step in plan.steps if isinstance(step, Affine) for moved in step.maps)
    hidden = [math.prod(plan.shapes[step.input]) for step in plan.steps if not isinstance(step, Affine)]
    each = max(1, work // max(1, claims * trials))
    # Forward: three products a layer. The objective: both ways, by two passes.
    fixed = row * (4 + 4 * rows)
    neurons = NEURONS
    while neurons and fixed + sum(2 * min(neurons, size) for size in hidden) * row > each:
        neurons //= 2
    return Effort(neurons=neurons, relaxed=fixed <= each, claims=min(claims, work // max(1, fixed * trials)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prover:
    plan: Plan
    schema: InputSchema
    grid: Integer[np.ndarray, "claim feature"]
    properties: Sequence[Property]
    flips: Sequence[bool]
    effort: Effort
    hints: Given

    def holds(self, which: Integer[np.ndarray, " part"], steps: Integer[np.ndarray, " part"]) -> list[str]:
        """For each of some claims, at a radius each: empty if it is proven, else why not.

        With slopes that were sent where there are some, and without them what these leave open.
        """
        reasons = ["not looked at"] * len(which)
        hinted = np.flatnonzero(self.hints.usable(self.plan)[which]) if self.effort.relaxed else np.zeros(0, np.int64)
        rows = [asked(self.properties[n], self.plan.graph.classes) for n in which]
        together = self.hints.together(max(count for count in rows if isinstance(count, int)))
        for start in range(0, len(hinted), together):
            part = hinted[start : start + together]
            for place, reason in zip(part.tolist(), self._tried(which[part], steps[part], hinted=True), strict=True):
                reasons[place] = reason
        left = np.array([place for place, reason in enumerate(reasons) if reason], np.int64)
        if left.size:
            for place, reason in zip(left.tolist(), self._tried(which[left], steps[left], hinted=False), strict=True):
                reasons[place] = reason
        return reasons

    def _tried(
        self, which: Integer[np.ndarray, " part"], steps: Integer[np.ndarray, " part"], *, hinted: bool
    ) -> list[str]:
        widest = np.where(np.array([self.flips[n] for n in which]) & (steps > 0), _WIDEST, steps)
        low, high = region(self.schema, self.grid[which], widest)
        demands = [demand(self.properties[n], self.plan.graph.classes) for n in which]
        most = max(len(one.least) for one in demands)
        # Padded with a claim's own first row and no bound, so that every claim of the batch has as many rows.
        rows = np.stack([np.concatenate([d.rows, *[d.rows[:1]] * (most - len(d.rows))]) for d in demands])
        floor = np.full(rows.shape[:2], -math.inf)
        for place, one in enumerate(demands):
            floor[place, : len(one.least)] = [_not_below(value) for value in one.least]
        found = bound_plan(
            self.plan,
            low,
            high,
            objective=rows,
            method="crown" if self.effort.relaxed else "interval",
            slopes=self.hints.only(which).inner(self.plan) if hinted else None,
            last_slopes=self.hints.only(which).last(self.plan, most) if hinted else None,
            neurons=self.effort.neurons,
        )
        good = (np.isfinite(found.lower) & (found.lower >= floor)).all(axis=1)
        failed = "its bounds are too loose, or it does not hold"
        return ["" if fine else reason or failed for fine, reason in zip(good.tolist(), found.reasons, strict=True)]

    def largest(self, which: Integer[np.ndarray, " part"], claimed: Integer[np.ndarray, " part"]) -> list[Proof]:
        """The claimed radius first; below it by bisection."""
        reasons = self.holds(which, claimed)
        # What is proven at the claimed radius is not looked at again.
        below = np.array([int(r) if reason else UNPROVEN for r, reason in zip(claimed, reasons, strict=True)])
        found = bisect(lambda some, steps: ~np.array(self.holds(which[some], steps), np.bool_), below)
        proven = np.where(below == UNPROVEN, claimed, found)
        return [Proof(proven=not why, radius=int(r), reason=why) for r, why in zip(proven, reasons, strict=True)]


def prove(
    graph: Graph,
    schema: InputSchema,
    grid: Integer[np.ndarray, "claim feature"],
    regions: Sequence[Region],
    properties: Sequence[Property],
    *,
    hints: Given | None = None,
    work: int = WORK,
) -> tuple[Proof, ...]:
    """Decide claims about one model.

    Args:
        graph: the model that the claims are about, e.g. the composed one.
        schema: the committed input schema.
        grid: the record of each claim, as grid values inside the columns' ranges.
        regions: around these records.
        properties: of the logits there.
        hints: slopes for these claims. Whoever made them, they are only evaluated: any slope in [0, 1] gives a
            bound that holds. Those that do not fit the model are left aside.
        work: see `effort`.

    Returns:
        One proof per claim, in order.

    Raises:
        AuditorError: arguments that do not fit each other.
        MalformedError: the graph is not in the profile.
    """
    if schema.shape != graph.input_shape:
        raise AuditorError(f"the input schema is for records of shape {schema.shape}, not {graph.input_shape}")
    given = Given.none(len(grid)) if hints is None else hints
    if not len(grid) == len(regions) == len(properties) == len(given):
        raise AuditorError("every claim needs a record, a region and a property")
    plan = make_plan(_relevant(graph))
    counts = [asked(wanted, graph.classes) for wanted in properties]
    reasons = [plan.refusal or (count if isinstance(count, str) else "") for count in counts]
    # A box of steps beside columns that flip is a region of another form: nothing smaller may stand for it.
    mixed = "regions of steps beside columns that flip are not bounded without a gate"
    reasons = [reason or (mixed if one.steps else "") for reason, one in zip(reasons, regions, strict=True)]
    proofs = [Proof(proven=False, radius=UNPROVEN, reason=reason) for reason in reasons]
    open_ = np.array([n for n, reason in enumerate(reasons) if not reason], np.int64)
    if not open_.size:
        return tuple(proofs)
    rows = max(count for n, count in enumerate(counts) if not reasons[n] and isinstance(count, int))
    flips = [one.norm == "hamming" for one in regions]
    claimed = np.array([min(one.radius, 1 if flip else _WIDEST) for one, flip in zip(regions, flips, strict=True)])
    # Beyond every column's range nothing changes any more.
    claimed = np.minimum(claimed, int((schema.high.astype(np.int64) - schema.low).max(initial=0)) + 1)
    spent = effort(
        plan,
        len(open_),
        rows=rows,
        trials=1 + int(claimed[open_].max()).bit_length(),
        # Whatever is open with hints is looked at once more without them.
        work=work // 2 if given.usable(plan).any() else work,
    )
    prover = _Prover(plan=plan, schema=schema, grid=grid, properties=properties, flips=flips, effort=spent, hints=given)
    for place in open_[spent.claims :]:
        proofs[place] = Proof(
            proven=False, radius=UNPROVEN, reason="proving it would cost more than this auditor spends"
        )
    looked_at = open_[: spent.claims]
    together = max(1, min(_BATCH, _ELEMENTS // (rows * graph.classes)))
    for start in range(0, len(looked_at), together):
        part = looked_at[start : start + together]
        for place, proof in zip(part, prover.largest(part, claimed[part]), strict=True):
            proofs[place] = replace(proof, radius=regions[place].radius) if proof.proven else proof
    return tuple(proofs)
