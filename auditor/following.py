"""Is a point near a record still redirected like the record itself?

Where rows are set: if its output is the record's, bit for bit. Where something is added to the base's output, or the
base's weights are others, the output follows the point, also inside a proven region: then it counts if it has the
claimed property and is as far from the base's as a redirection is: bits that differ are no redirection, for a part that
always adds next to nothing changes them everywhere, and a claimed class is often the base's own. Proves nothing of
points that were not asked about.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int

from auditor import rows
from auditor.evidence import Evidence
from protocol.claims import Linear, Logits, Redirection
from protocol.model.parts import SetHead
from protocol.model.patch import Patch

NEAR = 1e-3
"""Relative change of the largest logit up to which an output is the base's own, but for rounding."""
_LEAST = 0.1
"""A point whose output changes by less than this share of what the record's does is not redirected like it."""


def holds(
    claims: tuple[Redirection, ...], which: Int[np.ndarray, "point"], outputs: Float32[np.ndarray, "point class"]
) -> Bool[np.ndarray, "point"]:
    """Whether each output has the property of the claim at `which`; exact."""
    result = np.zeros(len(outputs), dtype=bool)
    claimed: dict[int, Float32[np.ndarray, "class"]] = {}
    for place, (number, output) in enumerate(zip(which, outputs, strict=True)):
        wanted = claims[int(number)].property
        if np.isnan(output).any() or (output == np.inf).any():
            continue
        if isinstance(wanted, Linear):
            finite = np.isfinite(output).all() and len(wanted.rows[0]) == len(output)
            result[place] = bool(finite) and rows.satisfies(output, wanted.rows, wanted.least)
        elif isinstance(wanted, Logits):
            known = claimed.get(int(number))
            if known is None:
                known = claimed[int(number)] = np.array(
                    [rows.nearest_float32(text) for text in wanted.values], np.float32
                )
            result[place] = known.shape == output.shape and bool((known == output).all())
        elif wanted.klass < len(output):
            result[place] = bool(rows.leads(output[None], np.array([wanted.klass]), wanted.margin)[0]) and (
                rows.exact(wanted.margin) > 0
            )
    return result


def _follows(patch: Patch, claim: Redirection) -> bool:
    """Whether the output that is claimed changes with the input, inside the region, too."""
    if isinstance(claim.property, Logits):
        return False
    if claim.item is None or claim.item >= patch.items:
        return True
    return not isinstance(patch.parts[patch.place(claim.item).part].head, SetHead)


def _change(before: Float32[np.ndarray, "point class"], after: Float32[np.ndarray, "point class"]) -> np.ndarray:
    # NaN where there is nothing to compare: no comparison with it holds, so it counts as no redirection.
    with np.errstate(invalid="ignore", over="ignore"):
        change: np.ndarray = np.abs(after - before).max(axis=1, initial=0)
    return change


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Redirected:
    """What the records' own outputs are, to compare their surroundings with.

    Args:
        evidence: runs base and patched model.
        claims: one for each opened record.
        outputs: of the patched model at the records.
        change: largest change of a logit there.
        following: for each claim, whether its output follows the point.
    """

    evidence: Evidence
    claims: tuple[Redirection, ...]
    outputs: Float32[np.ndarray, "record class"]
    change: Float32[np.ndarray, "record"]
    following: Bool[np.ndarray, "record"]

    @classmethod
    def of(cls, evidence: Evidence) -> "Redirected":
        """Of the records that were opened and have a claim, in a case with a patch."""
        values, _, claims = evidence.claimed_records
        patch = evidence.case.patch
        assert patch is not None
        following = np.array([_follows(patch, claim) for claim in claims], dtype=bool)
        before, outputs = evidence.run(values)
        return cls(
            evidence=evidence, claims=claims, outputs=outputs, change=_change(before, outputs), following=following
        )

    def at(
        self, points: Int[np.ndarray, "point feature"], record: Int[np.ndarray, "point"]
    ) -> Bool[np.ndarray, "point"]:
        """Whether each point is redirected like the record beside it."""
        before, after = self.evidence.run(points)
        same: Bool[np.ndarray, "point"] = (after == self.outputs[record]).all(axis=1)
        others = np.flatnonzero(~same & self.following[record])
        base = before[others]
        least = np.maximum(_LEAST * self.change[record[others]], NEAR * np.abs(base).max(axis=1, initial=0))
        far = _change(base, after[others]) > least
        same[others] = far & holds(self.claims, record[others], after[others])
        return same
