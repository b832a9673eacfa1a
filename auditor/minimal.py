"""How small a head's change of the logits could be at most: duals that were sent, evaluated.

Proves (`least_change`), for one row of a head that adds to the base's logits, and for any other head in its place,
that gives the claimed classes their leads on the same regions: some logit is changed by at least the returned
amount, in real numbers, on some input of these regions. The dual of the program that minimises the greatest change.
With weights w and inputs x, each in the region of a claim that class t leads by m, r being a rival: the changes h there
satisfy `sum w (h_t(x) - h_r(x)) >= sum w (m - f_t(x) + f_r(x))`, and the left side is at most `max |h|` times
the sum of the absolute values of its coefficients (each input's own, since a map may differ between inputs; for a shift
those of all inputs together). f is bounded from the side that helps least, in every execution, and sums are rational.
Says nothing about heads that are allowed to move other inputs. Source: PRUNE (arXiv 2505.06520), confusion patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64, Integer

from auditor.cores import Cores
from auditor.propagation import bound_plan, make_plan
from auditor.rows import exact
from protocol.claims import Argmax, Claim, Redirection
from protocol.hints import Duals
from protocol.model.graph import Graph
from protocol.model.parts import AffineHead, ShiftHead
from protocol.model.patch import Patch
from protocol.model.schema import InputSchema

_HUGE = Fraction(2) ** 200
_OUTWARDS = 1 + 2.0**-40
MOST = 1024
"""Duals that are evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastChange:
    """What is known of one row of a head.

    Args:
        part: whose head.
        row: of that head.
        bound: no head changes every logit by less than this everywhere; 0 says nothing.
        largest: greatest absolute entry of the row; of an affine head the greatest change of a logit on the regions of
            the claims that its duals name (of a Hamming region: on the record's own grid cell), bounded from above.
    """

    part: int
    row: int
    bound: float
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    # One dual that belongs to a claim: its class's lead at a point of the claim's region.
    dual: int
    klass: int
    margin: Fraction
    centre: Integer[np.ndarray, " feature"]
    reach: int
    point: Integer[np.ndarray, " feature"]


def _uses(
    patch: Patch, schema: InputSchema, claims: Sequence[Claim], centres: dict[bytes, np.ndarray], duals: Duals
) -> list[_Use]:
    """Duals about a claim on the row that they name, at a point of its region; the others say nothing."""
    found = []
    capped = {cap.klass for cap in patch.caps}
    for number in range(min(len(duals.part), MOST)):
        line, rival = int(duals.claim[number]), int(duals.rival[number])
        claim = claims[line] if line < len(claims) else None
        if not isinstance(claim, Redirection) or claim.item is None or not isinstance(claim.property, Argmax):
            continue
        centre = centres.get(claim.record)
        klass = claim.property.klass
        if centre is None or claim.item >= patch.items or duals.offset.shape[1] != len(centre):
            continue
        place = patch.place(claim.item)
        head = patch.parts[place.part].head
        named = place.part == duals.part[number] and head.index[place.item] == duals.row[number]
        # What a cap takes from a rival, no head need take.
        if not named or klass == rival or max(klass, rival) >= patch.classes or capped & {klass, rival}:
            continue
        offset = duals.offset[number].astype(np.int64)
        reach = claim.region.radius if claim.region.norm == "linf" else 0
        point = centre + offset
        if np.abs(offset).max(initial=0) > reach or (point < schema.low).any() or (point > schema.high).any():
            continue
        margin = exact(claim.property.margin)
        found.append(_Use(dual=number, klass=klass, margin=margin, centre=centre, reach=reach, point=point))
    return found


def _size(schema: InputSchema, head: ShiftHead | AffineHead, row: int, uses: Sequence[_Use]) -> float:
    """At most by how much a row changes a logit on the regions of claims; more than that only by float64's rounding."""
    offset = head.rows[row].astype(np.float64)
    if isinstance(head, ShiftHead):
        return float(np.abs(offset).max())
    centre, steps = np.stack([use.centre for use in uses]), np.array([[use.reach] for use in uses], np.int64)
    low, high = (
        end.reshape(len(uses), -1).astype(np.float64)
        for end in Cores(schema=schema, centre=centre, steps=steps).boxes()
    )
    weights = head.weights[row].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        middle, spread = (low / 2 + high / 2) @ weights.T + offset, (high / 2 - low / 2) @ np.abs(weights).T
        found = float((np.abs(middle) + spread).max()) * _OUTWARDS
    return found if np.isfinite(found) else float(_HUGE)


def _leads(
    base: Graph, schema: InputSchema, uses: Sequence[_Use], rivals: Integer[np.ndarray, " use"]
) -> Float64[np.ndarray, " use"]:
    """At most by how much each class leads its rival at the input of its grid cell's middle."""
    x = schema.dequantise(np.stack([use.point for use in uses]))
    rows = np.zeros((len(uses), 1, base.classes))
    places = np.arange(len(uses))
    rows[places, 0, [use.klass for use in uses]] = 1.0
    rows[places, 0, rivals] = -1.0
    found: Float64[np.ndarray, " use"] = bound_plan(make_plan(base), x, x, objective=rows, method="interval").upper[
        :, 0
    ]
    return found


def least_changes(
    base: Graph,
    schema: InputSchema,
    patch: Patch,
    claims: Sequence[Claim],
    centres: dict[bytes, np.ndarray],
    duals: Duals,
) -> tuple[LeastChange, ...]:
    """Evaluate the duals of a bundle.

    Args:
        base: the committed base.
        schema: the committed input schema.
        patch: that fits them.
        claims: in the order of their lines.
        centres: grid values of opened records, inside their columns, by commitment.
        duals: from whomever.

    Returns:
        One entry for each row of a shift or affine head that some dual is about.
    """
    uses = _uses(patch, schema, claims, centres, duals)
    if not uses or schema.shape != base.input_shape:
        return ()
    numbers = np.array([use.dual for use in uses])
    leads = _leads(base, schema, uses, duals.rival[numbers])
    by_row: dict[tuple[int, int], list[int]] = {}
    for place, number in enumerate(numbers.tolist()):
        by_row.setdefault((int(duals.part[number]), int(duals.row[number])), []).append(place)
    found = []
    for (part, row), places in sorted(by_row.items()):
        head = patch.parts[part].head
        if not isinstance(head, ShiftHead | AffineHead):
            continue
        gained = Fraction(0)
        mass: dict[tuple[bytes, int], Fraction] = {}
        for place in places:
            if not np.isfinite(leads[place]):
                continue
            use, weight = uses[place], Fraction(int(duals.weight[numbers[place]]))
            gained += weight * (use.margin - Fraction(float(leads[place])))
            input_ = use.point.tobytes() if isinstance(head, AffineHead) else b""
            for klass, sign in ((use.klass, 1), (int(duals.rival[numbers[place]]), -1)):
                mass[input_, klass] = mass.get((input_, klass), Fraction(0)) + sign * weight
        total = sum((abs(value) for value in mass.values()), Fraction(0))
        # Weights that cancel altogether promise nothing about the change.
        bound = min(max(Fraction(0), gained / total), _HUGE) if total else Fraction(0)
        below = np.nextafter(float(bound), -np.inf) if bound else 0.0
        largest = _size(schema, head, row, [uses[place] for place in places])
        found.append(LeastChange(part=part, row=row, bound=max(0.0, float(below)), largest=largest))
    return tuple(found)
