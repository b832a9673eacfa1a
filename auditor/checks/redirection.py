"""redirection: does the patched model give the claimed output on every record and its whole region?

Proves, for sketches that set a row: exactly, in integers, whether the claimed core lies in its item's box and
meets no earlier box with another row; then the row has the property, by copying. Other gates and heads are proven
by bounds on float32 programs (`parts_proof`). Where the proof
fails, an attained grid point outside the box is run through the composed model: if it violates
the claim, that is a counterexample. Replays (centre, corners, random points) find faults of the
implementation; they prove nothing. Source: SPEC 13.4.6.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int

from auditor import bounds, flips, minimal, parts_proof, rows
from auditor.checks import ungated
from auditor.cores import Cores
from auditor.evidence import Evidence, moved
from auditor.following import NEAR, holds
from auditor.largest import Reach, figures
from auditor.statistics.proportions import interval
from auditor.view import CheckResult, Finding
from protocol.claims import Argmax, Redirection
from protocol.model.patch import Patch, SketchGate
from protocol.model.schema import InputSchema

_RANDOM = 8
_REPLAYED = 64
"""Proven claims whose regions are replayed besides all that are not proven: more find no other fault."""
_LISTED = 1000
"""Claims that are not proven whose largest proven radius is listed one by one."""
_OUTSIDE = 0.10
"""Share of reference records outside the declared input box from which on the box hides inputs."""


@dataclass(slots=True)
class _Tally:
    proven: int = 0
    replayed: int = 0
    refuted: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    reached: dict[str, Reach] = field(default_factory=dict)
    inert: int = 0
    centre_failed: int = 0
    integers: bool = True


def _matrices(patch: Patch, claims: tuple[Redirection, ...]) -> tuple[Int[np.ndarray, "component feature"] | None, ...]:
    gates = [patch.parts[patch.place(claim.item).part].gate for claim in claims]
    whole = {id(gate): gate.matrix.astype(np.int64) for gate in gates if isinstance(gate, SketchGate)}
    return tuple(whole.get(id(gate)) for gate in gates)


def _own_class(claim: Redirection, label: int) -> bool:
    return claim.target == "misclassify" and isinstance(claim.property, Argmax) and claim.property.klass == label


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
                evidence, tally, values=values[free], labels=labels[free], claims=others, holds=holds, near=NEAR
            )
        _check_records(
            case.patch, case.schema, values=values[~free], labels=labels[~free], claims=gated, evidence=evidence,
            tally=tally,
        )  # fmt: skip
        _check_twins(evidence, values, known, tally, facts)
        for name, sizes in (
            ("radius_steps", [c.region.steps if c.region.norm == "hamming" else c.region.radius for c in known]),
            ("radius_flips", [c.region.radius for c in known if c.region.norm == "hamming"]),
        ):
            if sizes and (name == "radius_steps" or any(sizes)):
                facts[name] = {"min": min(sizes), "median": float(np.median(sizes)), "max": max(sizes)}
    if tally.reached:
        facts["not_proven"] = figures(tuple(tally.reached.values()))
        facts["largest_proven_radius"] = {n: reach.facts() for n, reach in list(tally.reached.items())[:_LISTED]}
    _least_changes(evidence, values, known, facts)
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
    exact = tally.integers and "without_a_gate" not in facts
    means = "in exact integers" if exact else "in exact integers or by bounds on float32 programs"
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


def _honest_data(schema: InputSchema, claims: tuple[Redirection, ...], reach: flips.Reach) -> Bool[np.ndarray, "claim"]:
    """Whether each claim's radius in data units is at most what its steps give in every column."""
    known: dict[bytes, object] = {}
    result = np.zeros(len(claims), dtype=bool)
    for number, claim in enumerate(claims):
        key = reach.steps[number].tobytes()
        if key not in known:
            known[key] = min(bounds.data_radius(schema, reach.steps[number]))
        result[number] = rows.exact(claim.region.radius_data) <= known[key]  # type: ignore[operator]
    return result


def _distance(claim: Redirection) -> str:
    region = claim.region
    if region.norm == "linf":
        return f"{region.radius} steps"
    return f"{region.radius} flips" + (f" and {region.steps} steps" if region.steps else "")


def _probes(
    schema: InputSchema,
    values: Int[np.ndarray, "record feature"],
    reach: flips.Reach,
    examples: Mapping[int, bounds.Counterexample],
    matrices: tuple[Int[np.ndarray, "component feature"] | None, ...],
    replayed: Int[np.ndarray, "replayed"],
    random: np.random.Generator,
) -> tuple[Int[np.ndarray, "point feature"], Int[np.ndarray, "point"]]:
    """Points of some claims' regions, and whose they are: corners, random points, those that a proof or flips name."""
    centre, own = values[replayed], reach.only(replayed)
    box = own.steps
    probes, which = [np.zeros((0, schema.features), np.int64)], [np.zeros(0, np.int64)]
    for offset in (-box, box, box * (2 * random.integers(0, 2, size=box.shape) - 1)):
        probes.append(np.clip(centre + offset, schema.low, schema.high))
        which.append(replayed)
    for _ in range(_RANDOM if box.any() or own.flips.any() else 0):
        near = np.clip(centre + random.integers(-box, box + 1, size=box.shape), schema.low, schema.high)
        probes.append(flips.flipped(schema, near, own.flips, random))
        which.append(replayed)
    for number in replayed.tolist():
        if number in examples:
            probes.append(np.asarray(examples[number].point, dtype=np.int64)[None])
            which.append(np.array([number]))
        if reach.flips[number] and (matrix := matrices[number]) is not None:
            # Flips that push one component the furthest: the worst that a region of flips holds.
            low, high = flips.hull(matrix, schema, values[[number]], reach.only([number]))
            weights = matrix[int((high - low)[0].argmax())]
            for rises in (False, True):
                worst = flips.corner(weights, schema, values[number], reach.only([number]), rises=rises)
                probes.append(worst[None])
                which.append(np.array([number]))
    return np.concatenate(probes), np.concatenate(which)


def _least_changes(
    evidence: Evidence,
    values: Int[np.ndarray, "record feature"],
    known: tuple[Redirection, ...],
    facts: dict[str, object],
) -> None:
    """How far heads that add to the base's logits are from the smallest change that does the same."""
    case = evidence.case
    if case.hints is None or case.base is None or case.schema is None or case.patch is None or case.claims is None:
        return
    inside = [bool(((row >= case.schema.low) & (row <= case.schema.high)).all()) for row in values]
    centres = {claim.record: row for claim, row, good in zip(known, values, inside, strict=True) if good}
    found = minimal.least_changes(evidence.retrained, case.schema, case.patch, case.claims, centres, case.hints.duals)
    ratios = [one.largest / one.bound for one in found if one.bound > 0]
    if found:
        facts["least_change_of_logits"] = {
            "rows": len(found),
            "with_a_bound": len(ratios),
            "largest_entry_over_bound_median": float(np.median(ratios)) if ratios else None,
            "largest_entry_over_bound_max": max(ratios, default=None),
        }


def _check_twins(
    evidence: Evidence,
    values: Int[np.ndarray, "record feature"],
    claims: tuple[Redirection, ...],
    tally: _Tally,
    facts: dict[str, object],
) -> None:
    """What the claims say about retained twins, and whether an opened retained record says otherwise."""
    facts["claims_with_a_retained_twin"] = sum(claim.twins > 0 for claim in claims)
    facts["retained_twins"] = sum(claim.twins for claim in claims)
    if evidence.retained is None:
        return
    opened = {row.tobytes() for row in np.ascontiguousarray(evidence.retained[0], dtype=np.int64)}
    hidden = [
        claim.record.hex()[:16]
        for claim, row in zip(claims, np.ascontiguousarray(values, dtype=np.int64), strict=True)
        if not claim.twins and row.tobytes() in opened
    ]
    if hidden:
        tally.open.append(f"{len(hidden)} claims count no retained twin where one was opened, the first is {hidden[0]}")


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
    there = np.array([claim.item is not None and claim.item < patch.items for claim in claims], dtype=bool)
    for claim, known in zip(claims, there, strict=True):
        if not known:
            tally.refuted.append(f"record {claim.record.hex()[:16]}: the patch has no item {claim.item}")
            tally.inert += 1
    claims = tuple(claim for claim, known in zip(claims, there, strict=True) if known)
    values, labels = values[there], labels[there]
    if not claims:
        return
    reach = flips.Reach.of(schema, tuple(claim.region for claim in claims))
    names = [claim.record.hex()[:16] for claim in claims]
    if not flips.units(schema) and any(claim.region.norm == "hamming" and claim.region.radius for claim in claims):
        tally.open.append("a radius in flips is claimed, and no column of the input grid is binary or one-hot")
    cores = Cores(schema=schema, centre=values, steps=reach.steps, flips=reach.flips)
    hints = evidence.hints(claims)
    proof = parts_proof.prove(patch, evidence.retrained, cores, claims, holds=holds, hints=hints)
    tally.integers &= bool(proof.integers.all())
    honest_data = _honest_data(schema, claims, reach)

    # Replay: every record; regions of what is not proven, for there a counterexample may be, and of some proven claims.
    random = evidence.generator("redirection")
    chosen = np.array([bool(reason) for reason in proof.reasons])
    chosen[random.permutation(len(claims))[:_REPLAYED]] = True
    replayed = np.flatnonzero(chosen)
    points, owner = _probes(schema, values, reach, proof.examples, _matrices(patch, claims), replayed, random)
    before, own = evidence.run(values)
    centre_good = holds(claims, np.arange(len(claims)), own)
    tally.centre_failed += int((~centre_good).sum())
    _, after = evidence.run(points)
    good = holds(claims, owner, after)
    tally.replayed += len(values) + len(points)
    failed = {int(number) for number in (*owner[~good], *np.flatnonzero(~centre_good))}
    stayed = ~moved(before, own)
    # An item whose row is the base's own output there fires and changes nothing; nor do rounding errors of it.
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(own - before).max(axis=1) <= NEAR * np.abs(before).max(axis=1)
    if (stayed & ~centre_good).all() or near.mean() > 0.5:
        tally.inert += len(claims)
    open_ = np.array([n for n, why in enumerate(proof.reasons) if why and n not in failed], np.int64)
    reached = parts_proof.largest(
        patch, evidence.retrained, schema, values[open_], tuple(claims[n] for n in open_.tolist()), holds=holds,
        hints=hints.only(open_),
    )  # fmt: skip
    tally.reached |= {names[n]: reach for n, reach in zip(open_.tolist(), reached, strict=False)}
    own_class = np.array([_own_class(claim, int(label)) for claim, label in zip(claims, labels, strict=True)])
    for number, name in enumerate(names):
        if number in failed:
            where = "at the record itself" if not centre_good[number] else f"within {_distance(claims[number])} of it"
            tally.refuted.append(f"record {name}: the output is not the claimed one {where}")
        elif stayed[number] or (near[number] and near.mean() > 0.5):
            tally.refuted.append(f"record {name}: its claimed output is the base's own, nothing is redirected")
        elif own_class[number]:
            tally.open.append(f"record {name}: what is claimed as a misclassification is the record's own class")
        elif proof.reasons[number]:
            far = f"; {tally.reached[name].told()}" if name in tally.reached else ""
            tally.open.append(f"record {name}: {proof.reasons[number]}{far}")
        elif not honest_data[number]:
            tally.open.append(f"record {name}: its radius in data units is larger than its steps give")
        else:
            tally.proven += 1


__all__ = ["Argmax", "check", "holds"]
