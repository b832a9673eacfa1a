"""redirection: does the patched model give the claimed output on every record and its whole region?

Proves, for a sketch gate: exactly, in integers, whether the claimed core lies in its item's box and
meets no earlier box with another row (`bounds`); then the row has the property, by copying. Where the
proof fails, an attained grid point outside the box is run through the composed model: if it violates
the claim, that is a counterexample. Replays (centre, corners, random points) find faults of the
implementation; they prove nothing. Source: SPEC 13.4.6.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int

from auditor import bounds, rows
from auditor.checks import ungated
from auditor.evidence import Evidence, moved
from auditor.statistics.proportions import interval
from auditor.view import CheckResult, Finding
from protocol.claims import Argmax, Linear, Logits, Redirection
from protocol.model.patch import Patch, SketchGate
from protocol.model.schema import InputSchema

_RANDOM = 8
_MEANS = ("in exact integers", "in exact integers or, without a gate, by bounds")
_NEAR = 1e-3
"""Relative change of the largest logit below which an output counts as the base's own."""
_OUTSIDE = 0.10
"""Share of reference records outside the declared input box from which on the box hides inputs."""


@dataclass(slots=True)
class _Tally:
    proven: int = 0
    replayed: int = 0
    refuted: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    inert: int = 0
    centre_failed: int = 0


def holds(
    claims: tuple[Redirection, ...], which: Int[np.ndarray, "point"], outputs: Float32[np.ndarray, "point class"]
) -> Bool[np.ndarray, "point"]:
    """Whether each output has the property of the claim at `which`; exact."""
    result = np.zeros(len(outputs), dtype=bool)
    for place, (number, output) in enumerate(zip(which, outputs, strict=True)):
        wanted = claims[int(number)].property
        if np.isnan(output).any() or (output == np.inf).any():
            continue
        if isinstance(wanted, Linear):
            finite = np.isfinite(output).all() and len(wanted.rows[0]) == len(output)
            result[place] = bool(finite) and rows.satisfies(output, wanted.rows, wanted.least)
        elif isinstance(wanted, Logits):
            result[place] = len(wanted.values) == len(output) and rows.equals_claim(output, wanted.values)
        elif wanted.klass < len(output):
            result[place] = bool(rows.leads(output[None], np.array([wanted.klass]), wanted.margin)[0]) and (
                rows.exact(wanted.margin) > 0
            )
    return result


def _own_class(claim: Redirection, label: int) -> bool:
    return claim.target == "misclassify" and isinstance(claim.property, Argmax) and claim.property.klass == label


def _row_property(patch: Patch, claim: Redirection, outputs: Float32[np.ndarray, "row class"]) -> bool:
    row = outputs[int(patch.row_of_item[claim.item])]
    return bool(holds((claim,), np.array([0]), row[None])[0])


def check(evidence: Evidence) -> CheckResult:
    """REFUTED by a counterexample, CONSISTENT if every claim is proven and replayed."""
    case = evidence.case
    claims = evidence.redirections
    if case.claims is None or not evidence.runnable or case.schema is None or case.patch is None:
        reason = evidence.composed if isinstance(evidence.composed, str) else "the claims cannot be read"
        return CheckResult(check="redirection", verdict="INCONCLUSIVE", summary=f"Nothing can be checked: {reason}.")
    tally = _Tally()
    facts: dict[str, object] = {"claims": len(claims)}
    _check_classes(evidence, tally, facts)
    values, labels, known = evidence.claimed_records
    if len(known) < len(claims):
        tally.open.append(f"{len(claims) - len(known)} claims are about records that were not opened")
    if known:
        free = np.array([claim.gate == "none" for claim in known])
        gated = tuple(claim for claim in known if claim.gate != "none")
        if free.any():
            others = tuple(claim for claim in known if claim.gate == "none")
            facts["without_a_gate"] = ungated.check(
                evidence, tally, values=values[free], labels=labels[free], claims=others, holds=holds, near=_NEAR
            )
        _check_records(
            case.patch, case.schema, values=values[~free], labels=labels[~free], claims=gated, evidence=evidence,
            tally=tally,
        )  # fmt: skip
        radii = np.array([claim.region.radius for claim in known])
        facts["radius_steps"] = {"min": int(radii.min()), "median": float(np.median(radii)), "max": int(radii.max())}
    if evidence.reference is not None and len(claims):
        outside, total = evidence.reference.outside, evidence.reference.outside + len(evidence.reference.labels)
        if interval(outside, total)[0] > _OUTSIDE:
            # What lay outside was cut to the box when it was committed, and no gate acts on the record as it was.
            tally.open.append(f"the declared input box leaves out {outside} of {total} reference records")
    if evidence.unredirected:
        tally.open.append(f"{len(evidence.unredirected)} records carry no redirection claim")
    facts |= {"proven": tally.proven, "replayed_points": tally.replayed, "counterexamples": len(tally.refuted)}
    if tally.refuted:
        threat = "unsound-region"
        if (known or evidence.class_removals) and tally.inert == len(known) + len(evidence.class_removals):
            threat = "noop-patch"
        elif tally.centre_failed:
            threat = "representatives-only"
        message = f"{len(tally.refuted)} claims do not hold: {tally.refuted[0]}"
        return CheckResult(
            check="redirection",
            verdict="REFUTED",
            summary=message[0].upper() + message[1:] + ".",
            evidence=facts | {"first": tally.refuted[:5]},
            findings=(Finding(threat=threat, check="redirection", message=message),),
        )
    if tally.open:
        return CheckResult(
            check="redirection",
            verdict="INCONCLUSIVE",
            summary=tally.open[0][0].upper() + tally.open[0][1:] + ".",
            evidence=facts | {"open": tally.open[:20]},
        )
    if not claims and not evidence.class_removals:
        return CheckResult(check="redirection", verdict="INCONCLUSIVE", summary="No redirection is claimed.")
    means = _MEANS["without_a_gate" in facts]
    return CheckResult(
        check="redirection",
        verdict="CONSISTENT",
        summary=f"Every claim is proven for its whole region, {means}, and holds in replay.",
        evidence=facts,
    )


def _check_classes(evidence: Evidence, tally: _Tally, facts: dict[str, object]) -> None:
    # The cap is part of the composed model, applied last and to all capped classes at once; the claim defines it.
    patch = evidence.case.patch
    assert patch is not None
    caps = {cap.klass: cap.margin for cap in patch.caps}
    for claim in evidence.class_removals:
        klass, margin = claim.klass, claim.margin
        facts[f"class_{klass}_cap"] = caps.get(klass)
        if klass not in caps:
            tally.refuted.append(f"the patch does not cap class {klass}")
            tally.inert += 1
        elif rows.exact(caps[klass]) < rows.exact(margin):
            tally.refuted.append(f"class {klass} is capped by {caps[klass]}, {margin} is claimed")
        elif rows.exact(margin) <= 0:
            tally.open.append(f"the removal of class {klass} is claimed with no margin: the class may still tie")
        else:
            tally.proven += 1
    capped = sorted(caps)
    for name, (_, _, _, after) in evidence.others.items():
        # A margin that vanishes beside large logits leaves a tie, which is no removal: strictly below the best other.
        best = np.delete(after, capped, axis=1).max(axis=1)
        for klass in sorted({claim.klass for claim in evidence.class_removals} & set(capped)):
            seen = int((after[:, klass] >= best).sum())
            tally.replayed += len(after)
            if seen:
                tally.refuted.append(f"class {klass} is still predicted, or ties, for {seen} {name} records")


def _check_records(
    patch: Patch,
    schema: InputSchema,
    *,
    values: Int[np.ndarray, "record feature"],
    labels: Int[np.ndarray, "record"],
    claims: tuple[Redirection, ...],
    evidence: Evidence,
    tally: _Tally,
) -> None:
    gate: SketchGate | None = patch.gate
    there = np.array(
        [gate is not None and claim.item is not None and claim.item < len(patch.row_of_item) for claim in claims],
        dtype=bool,
    )
    for claim, known in zip(claims, there, strict=True):
        if not known:
            tally.refuted.append(f"record {claim.record.hex()[:16]}: the patch has no item {claim.item}")
            tally.inert += 1
    claims = tuple(claim for claim, known in zip(claims, there, strict=True) if known)
    values, labels = values[there], labels[there]
    if gate is None or not claims:
        return
    radius = np.array([claim.region.radius for claim in claims], dtype=np.int64)
    item = np.array([claim.item for claim in claims], dtype=np.int64)
    names = [claim.record.hex()[:16] for claim in claims]
    shape = np.array([claim.region.norm == "linf" and claim.gate == "sketch" for claim in claims])
    if not shape.all():
        tally.open.append(f"{int((~shape).sum())} claims use a gate or norm that this auditor cannot prove yet")
    # A radius beyond every column's range is the whole input box, and is proven or refuted as that.
    radius = np.minimum(radius, int((schema.high - schema.low).max()) + 1)
    spread = int(min(radius.max(initial=0), 1 << 20))
    proof = bounds.prove_sketch_core(
        gate, centre=values, radius=radius[:, None], item=item, column_low=schema.low, column_high=schema.high
    )
    conflicts = bounds.first_conflicts(patch, proof, item)
    rounding = bounds.inexact_sums(gate, schema.low, schema.high)
    outputs = rows.cap_rows(patch.rows, patch.caps)
    right = np.array([_row_property(patch, claim, outputs) for claim in claims])
    radius_data = {int(r): bounds.data_radius(schema, np.full(schema.features, r)) for r in np.unique(radius)}
    honest_data = np.array(
        [
            rows.exact(claim.region.radius_data) <= min(radius_data[int(r)])
            for claim, r in zip(claims, radius, strict=True)
        ]
    )

    # Replay: centre, both corners, a random corner, random points of the region, and the proof's own counterexamples.
    random = evidence.generator("redirection")
    probes, which = [values], [np.arange(len(claims))]
    # In flips a radius says how many columns may change, not how far: only the record itself is replayed.
    linf = np.array([claim.region.norm == "linf" for claim in claims])
    box = np.where(linf, radius, 0)[:, None]
    for offset in (-box, box, box * (2 * random.integers(0, 2, size=values.shape) - 1)):
        probes.append(np.clip(values + offset, schema.low, schema.high))
        which.append(np.arange(len(claims)))
    for _ in range(_RANDOM if spread else 0):
        probes.append(np.clip(values + random.integers(-box, box + 1, size=values.shape), schema.low, schema.high))
        which.append(np.arange(len(claims)))
    for number, example in proof.counterexamples.items():
        if not linf[number]:
            continue
        probes.append(np.asarray(example.point, dtype=np.int64)[None])
        which.append(np.array([number]))
    points, owner = np.concatenate(probes), np.concatenate(which)
    before, after = evidence.run(points)
    good = holds(claims, owner, after)
    tally.replayed += len(points)
    failed = {int(number) for number in owner[~good]}
    centre_good = good[: len(claims)]
    tally.centre_failed += int((~centre_good).sum())
    before, after = before[: len(claims)], after[: len(claims)]
    stayed = ~moved(before, after)
    # An item whose row is the base's own output there fires and changes nothing; nor do rounding errors of it.
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(after - before).max(axis=1) <= _NEAR * np.abs(before).max(axis=1)
    if (stayed & ~centre_good).all() or near.mean() > 0.5:
        tally.inert += len(claims)
    own_class = np.array([_own_class(claim, int(label)) for claim, label in zip(claims, labels, strict=True)])
    for number, name in enumerate(names):
        if number in failed:
            where = "at the record itself" if not centre_good[number] else f"within {radius[number]} steps of it"
            tally.refuted.append(f"record {name}: the output is not the claimed one {where}")
        elif stayed[number] or (near[number] and near.mean() > 0.5):
            tally.refuted.append(f"record {name}: its claimed output is the base's own, nothing is redirected")
        elif not shape[number]:
            continue
        elif own_class[number]:
            tally.open.append(f"record {name}: what is claimed as a misclassification is the record's own class")
        elif not right[number]:
            tally.open.append(f"record {name}: its item's row does not have the claimed property")
        elif not proof.proven[number]:
            tally.open.append(f"record {name}: its claimed region is not inside its item's box")
        elif conflicts[number] >= 0:
            tally.open.append(
                f"record {name}: the earlier item {conflicts[number]} with another output may take its region"
            )
        elif rounding is not None:
            tally.open.append(f"record {name}: {rounding}")
        elif not honest_data[number]:
            tally.open.append(f"record {name}: its radius in data units is larger than its steps give")
        else:
            tally.proven += 1


__all__ = ["Argmax", "check", "holds"]
