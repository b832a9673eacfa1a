"""redirection, for claims that name no gate: bounds through the whole patched model, and replays.

Proves what `auditor.proofs` proves: the property for every float32 input of the region, in every execution that
bounds cover. A claim that is not proven stays open, with the largest radius that is; it is refuted only by an output
that violates it, or one that is the base's own. Replays are the centre, both corners, a random corner and random
points, on the auditor's own composition. Source: SPEC 11.10, 13.4.6.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int

from auditor import bounds, proofs, rows
from auditor.evidence import Evidence, moved
from auditor.largest import UNPROVEN, Reach
from protocol.claims import Argmax, Redirection
from protocol.model.graph import Graph

Grid = Int[np.ndarray, "record feature"]
Holds = Callable[
    [tuple[Redirection, ...], Int[np.ndarray, "point"], Float32[np.ndarray, "point class"]], Bool[np.ndarray, "point"]
]
_RANDOM = 8


class Tally(Protocol):
    """Where findings are gathered; `redirection` has one for claims of all gates."""

    proven: int
    replayed: int
    refuted: list[str]
    open: list[str]
    reached: dict[str, Reach]
    inert: int
    centre_failed: int


def _probes(evidence: Evidence, values: Grid, claims: tuple[Redirection, ...]) -> tuple[Grid, Int[np.ndarray, "point"]]:
    schema, random = evidence.case.schema, evidence.generator("redirection-ungated")
    assert schema is not None
    widest = int((schema.high.astype(np.int64) - schema.low).max()) + 1
    # In flips a radius says how many columns may change, not how far: only the record itself is replayed.
    steps = [min(claim.region.radius, widest) if claim.region.norm == "linf" else 0 for claim in claims]
    box = np.array(steps, dtype=np.int64)[:, None]
    offsets = [np.zeros_like(values), -box, box, box * (2 * random.integers(0, 2, size=values.shape) - 1)]
    offsets += [random.integers(-box, box + 1, size=values.shape) for _ in range(_RANDOM if box.any() else 0)]
    points = np.concatenate([np.clip(values + offset, schema.low, schema.high) for offset in offsets])
    return points, np.tile(np.arange(len(claims)), len(offsets))


def check(
    evidence: Evidence,
    tally: Tally,
    *,
    values: Grid,
    labels: Int[np.ndarray, "record"],
    claims: tuple[Redirection, ...],
    holds: Holds,
    near: float,
) -> dict[str, object]:
    """Decide claims without a gate, add to the tally, and return the figures for the report.

    Args:
        evidence: with a composed model that runs.
        tally: what is found goes here.
        values: the claimed records, opened.
        labels: theirs.
        claims: about them, in the same order.
        holds: whether outputs have the claimed properties, exactly.
        near: relative change of the largest logit below which an output counts as the base's own.
    """
    graph, schema = evidence.composed, evidence.case.schema
    assert isinstance(graph, Graph)
    assert schema is not None
    found = proofs.prove(
        graph, schema, values, [c.region for c in claims], [c.property for c in claims], hints=evidence.hints(claims)
    )
    points, owner = _probes(evidence, values, claims)
    before, after = evidence.run(points)
    good = holds(claims, owner, after)
    tally.replayed += len(points)
    failed = {int(number) for number in owner[~good]}
    centre_good = good[: len(claims)]
    tally.centre_failed += int((~centre_good).sum())
    before, after = before[: len(claims)], after[: len(claims)]
    stayed = ~moved(before, after)
    with np.errstate(invalid="ignore", over="ignore"):
        close = np.abs(after - before).max(axis=1) <= near * np.abs(before).max(axis=1)
    # One output that stays close may be chance; most of them are a model that was not changed.
    stayed |= close & (close.mean() > 0.5)
    tally.inert += int(stayed.sum())
    for number, (claim, proof) in enumerate(zip(claims, found, strict=True)):
        name = claim.record.hex()[:16]
        steps = np.full(schema.features, min(claim.region.radius, 1 << 23), dtype=np.int64)
        wanted = claim.property
        if number in failed:
            where = "at the record itself" if not centre_good[number] else f"within {claim.region.radius} steps of it"
            tally.refuted.append(f"record {name}: the output is not the claimed one {where}")
        elif stayed[number]:
            tally.refuted.append(f"record {name}: its claimed output is the base's own, nothing is redirected")
        elif claim.target == "misclassify" and isinstance(wanted, Argmax) and wanted.klass == int(labels[number]):
            tally.open.append(f"record {name}: what is claimed as a misclassification is the record's own class")
        elif not proof.proven:
            unit = "steps" if claim.region.norm == "linf" else "flips"
            reach = Reach(claimed=claim.region.radius, proven=proof.radius, unit=unit)
            tally.reached[name] = reach
            tally.open.append(f"record {name}: {reach.told()}: {proof.reason}")
        elif rows.exact(claim.region.radius_data) > min(bounds.data_radius(schema, steps)):
            tally.open.append(f"record {name}: its radius in data units is larger than its steps give")
        else:
            tally.proven += 1
    radii = [proof.radius for proof in found if proof.radius != UNPROVEN]
    return {
        "claims": len(claims),
        "proven": sum(proof.proven for proof in found),
        "without_a_proven_radius": len(claims) - len(radii),
        "largest_proven_steps": {
            "min": min(radii, default=None), "median": float(np.median(radii)) if radii else None,
            "max": max(radii, default=None),
        },
    }  # fmt: skip
