"""What is proven about redirection claims on the parts of a patch: the item fires, none before it, the head gives it.

Proves, for a claim without a reason to stay open: on every input of its region, in every execution that SPEC 7.8
allows, the claimed item is the first that fires, or those before it give the same output, and the output has the
property. Sketches with a `set` head: in integers and by copying. Gates that look at the base's values or at raw
inputs, and heads that add to the base's output: by bounds on float32 programs (`auditor.propagation`).

Assumes a patch whose composed graph is the deployed one. Refutes nothing: what is not proven may hold; the
examples, corners at which a sketch item does not fire, are for the caller to replay. Source: SPEC 11.6 to 11.8.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64, Integer

from auditor import flips, float_gates, float_heads, rows
from auditor.bounds import Counterexample
from auditor.conflicts import first_meeting
from auditor.cores import Cores
from auditor.hinting import Given
from auditor.largest import Reach, at, bisect, size, unit
from protocol.claims import Argmax, Redirection
from protocol.model.graph import Graph
from protocol.model.parts import (
    AffineHead,
    AlwaysGate,
    SetHead,
    SketchGate,
    gate_kind,
    head_kind,
)
from protocol.model.patch import Patch, Place
from protocol.model.schema import InputSchema

NO_CONFLICT = -1
MOST = 1024
"""Claims left open whose largest proven radius is looked for."""
MOST_FLOAT = 64
"""Such claims where every radius takes bounds on float32 programs."""
_HUGE = Fraction(2) ** 200
Holds = Callable[[tuple[Redirection, ...], np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is proven about some claims.

    Args:
        reasons: for each claim why it is not proven, or empty.
        examples: by claim, an attained grid point of its region on which its sketch item does not fire.
        integers: which claims need nothing but integers and a copy.
    """

    reasons: tuple[str, ...]
    examples: Mapping[int, Counterexample]
    integers: Bool[np.ndarray, " claim"]


def output_numbers(patch: Patch) -> tuple[Int64[np.ndarray, " item"], ...]:
    """For the items of each part, equal numbers where the output is surely the same: same head, same bits."""
    known: dict[tuple[str | bytes, ...], int] = {}
    result = []
    for part in patch.parts:
        head = part.head
        keys: list[tuple[str | bytes, ...]] = [(head_kind(head), row.tobytes()) for row in head.rows]
        if isinstance(head, AffineHead):
            keys = [(*key, weights.tobytes()) for key, weights in zip(keys, head.weights, strict=True)]
        numbers = np.array([known.setdefault(key, len(known)) for key in keys], np.int64)
        result.append(numbers[head.index])
    return tuple(result)


@dataclass(kw_only=True)
class _Prover:
    patch: Patch
    base: Graph
    cores: Cores
    claims: tuple[Redirection, ...]
    holds: Holds
    places: tuple[Place, ...]
    hints: Given
    reasons: list[str] = field(default_factory=list)
    examples: dict[int, Counterexample] = field(default_factory=dict)

    @cached_property
    def part(self) -> Int64[np.ndarray, " claim"]:
        return np.array([place.part for place in self.places], np.int64)

    @cached_property
    def item(self) -> Int64[np.ndarray, " claim"]:
        return np.array([place.item for place in self.places], np.int64)

    def run(self) -> Proof:
        self.reasons = ["" for _ in self.claims]
        for number, claim in enumerate(self.claims):
            kind = gate_kind(self.patch.parts[self.places[number].part].gate)
            if claim.gate != kind:
                self.fail(number, f"it names the gate {claim.gate}, and its item belongs to a gate of kind {kind}")
        self.outputs()
        self.firing()
        self.precedence()
        set_head = [isinstance(part.head, SetHead) for part in self.patch.parts]
        exact = [isinstance(part.gate, SketchGate | AlwaysGate) for part in self.patch.parts]
        alone = np.array([set_head[p] and all(exact[: p + 1]) for p in self.part.tolist()], np.bool_)
        return Proof(reasons=tuple(self.reasons), examples=self.examples, integers=alone)

    def fail(self, number: int, reason: str) -> None:
        if not self.reasons[number]:
            self.reasons[number] = reason

    def open(self, chosen: Integer[np.ndarray, " some"]) -> Int64[np.ndarray, " left"]:
        """Those of some claims that are not given up yet."""
        return np.array([n for n in chosen.tolist() if not self.reasons[n]], np.int64)

    def outputs(self) -> None:
        """Whether the head gives the property."""
        for number, part in enumerate(self.patch.parts):
            chosen = np.flatnonzero(self.part == number)
            if isinstance(part.head, SetHead):
                table = rows.cap_rows(part.head.rows, self.patch.caps)
                for claim in chosen.tolist():
                    row = table[int(part.head.index[self.item[claim]])]
                    if not self.holds((self.claims[claim],), np.zeros(1, np.int64), row[None])[0]:
                        self.fail(claim, "its item's row does not have the claimed property")
                continue
            capped = {cap.klass for cap in self.patch.caps}
            for claim in chosen.tolist():
                wanted = self.claims[claim].property
                if not isinstance(wanted, Argmax):
                    self.fail(claim, "exact logits are claimed where the base's own output takes part")
                elif not wanted.klass < self.patch.classes or wanted.klass in capped:
                    self.fail(claim, "the claimed class is capped, or there is none such")
                elif rows.exact(wanted.margin) <= 0:
                    self.fail(claim, "no margin is claimed: the class may tie")
            left = self.open(chosen)
            if len(left):
                self._lead(part.head, left)

    def _lead(self, head: float_heads.AddingHead, chosen: Int64[np.ndarray, " some"]) -> None:
        # Caps take from other classes only: what leads before them leads after them.
        wanted = [self.claims[n].property for n in chosen.tolist()]
        labels = np.array([each.klass for each in wanted if isinstance(each, Argmax)], np.int64)
        margins = [rows.exact(each.margin) for each in wanted if isinstance(each, Argmax)]
        leads = float_heads.least_leads(
            self.base,
            head,
            index=head.index[self.item[chosen]],
            labels=labels,
            # Only says where to look harder; the comparison below is exact.
            needed=np.nextafter(np.array([float(min(margin, _HUGE)) for margin in margins]), np.inf),
            cores=self.cores.only(chosen),
            hints=self.hints.only(chosen),
        )
        for claim, margin, lead in zip(chosen.tolist(), margins, leads.tolist(), strict=True):
            if not np.isfinite(lead):
                self.fail(claim, "nothing is proven about the lead of the claimed class")
            elif Fraction(lead) < margin:
                self.fail(claim, f"the claimed class is proven to lead by {lead:g} only")

    def firing(self) -> None:
        """Whether the item fires on the whole region."""
        for claim in np.flatnonzero(~self.cores.inside).tolist():
            self.fail(claim, "the record is outside the declared columns")
        for number, part in enumerate(self.patch.parts):
            gate = part.gate
            chosen = np.flatnonzero(self.part == number)
            if not len(chosen) or isinstance(gate, AlwaysGate):
                continue
            if isinstance(gate, SketchGate):
                proof = self.cores.only(chosen).proof(gate, self.item[chosen])
                proven = proof.proven
                self.examples |= {int(chosen[place]): found for place, found in proof.counterexamples.items()}
            else:
                chosen = self.open(chosen)
                own = self.hints.only(chosen)
                proven = float_gates.fires(self.base, gate, self.cores.only(chosen), self.item[chosen], own)
            for claim in chosen[~proven].tolist():
                self.fail(claim, "its claimed region is not inside its item's box" if isinstance(gate, SketchGate)
                          else "its item is not proven to fire on its whole claimed region")  # fmt: skip

    def precedence(self) -> None:
        """Whether an earlier item with another output may fire in the region."""
        numbers, starts = output_numbers(self.patch), self.patch.starts
        own = np.array([numbers[place.part][place.item] for place in self.places], np.int64)
        for number, part in enumerate(self.patch.parts):
            gate = part.gate
            chosen = self.open(np.flatnonzero(self.part >= number))
            if not len(chosen):
                continue
            before = np.where(self.part[chosen] == number, self.item[chosen], gate.items)
            cores = self.cores.only(chosen)
            if isinstance(gate, SketchGate):
                # The hull is asked of the part's own matrix; which item is named for it does not matter.
                hull = cores.proof(gate, np.zeros(len(chosen), np.int64))
                found = first_meeting(
                    gate.low, gate.high, numbers[number],
                    hull_low=hull.hull_low, hull_high=hull.hull_high, own=own[chosen], before=before,
                )  # fmt: skip
            elif isinstance(gate, AlwaysGate):
                found = np.where((before > 0) & (numbers[number][0] != own[chosen]), 0, NO_CONFLICT)
            else:
                found = float_gates.first_possible(
                    self.base, gate, cores, numbers[number], own=own[chosen], before=before
                )
            for claim, item in zip(chosen.tolist(), found.tolist(), strict=True):
                if item != NO_CONFLICT:
                    self.fail(
                        claim, f"the earlier item {starts[number] + item} with another output may take its region"
                    )


def prove(
    patch: Patch,
    base: Graph,
    cores: Cores,
    claims: tuple[Redirection, ...],
    *,
    holds: Holds,
    hints: Given | None = None,
) -> Proof:
    """Decide about claims on items of a patch.

    Args:
        patch: that fits the base and the schema (`compose` says so).
        base: the committed base.
        cores: the claims' regions, in their order.
        claims: whose items the patch has.
        holds: given claims, numbers of them, and outputs: whether each output has its claim's property, exactly.
        hints: slopes that were sent for these claims; they are evaluated, not believed.

    Raises:
        MalformedError: a claim names an item that the patch does not have.
    """
    places = tuple(patch.place(claim.item) for claim in claims)
    given = Given.none(len(claims)) if hints is None else hints
    return _Prover(patch=patch, base=base, cores=cores, claims=claims, holds=holds, places=places, hints=given).run()


def largest(
    patch: Patch,
    base: Graph,
    schema: InputSchema,
    centre: Integer[np.ndarray, "claim feature"],
    claims: tuple[Redirection, ...],
    *,
    holds: Holds,
    hints: Given,
) -> tuple[Reach, ...]:
    """How far claims that are not proven are proven, by smaller radii.

    Args:
        patch: as for `prove`.
        base: likewise.
        schema: the committed input schema.
        centre: the claims' records on the grid.
        claims: that `prove` left open; `MOST` of them at most are looked at, or `MOST_FLOAT` where bounds are needed.
        holds: as for `prove`.
        hints: likewise.
    """
    exact = all(isinstance(one.gate, SketchGate | AlwaysGate) and isinstance(one.head, SetHead) for one in patch.parts)
    count = min(len(claims), MOST if exact else MOST_FLOAT)
    # Beyond every column's range, and every unit's flip, nothing changes any more.
    widest = max(int((schema.high.astype(np.int64) - schema.low).max(initial=0)), schema.features) + 1

    def test(which: Int64[np.ndarray, " some"], radii: Int64[np.ndarray, " some"]) -> Bool[np.ndarray, " some"]:
        tried = tuple(at(claims[n], r) for n, r in zip(which.tolist(), radii.tolist(), strict=True))
        reach = flips.Reach.of(schema, tuple(claim.region for claim in tried))
        cores = Cores(schema=schema, centre=centre[which], steps=reach.steps, flips=reach.flips)
        found = prove(patch, base, cores, tried, holds=holds, hints=hints.only(which))
        return ~np.array(found.reasons, np.bool_)

    claimed = [size(claim.region) for claim in claims[:count]]
    proven = bisect(test, np.minimum(np.array(claimed, np.int64), widest))
    return tuple(
        Reach(claimed=all_, proven=one, unit=unit(claim.region))
        for all_, one, claim in zip(claimed, proven.tolist(), claims, strict=False)
    )
