"""persistence: does the old behaviour come back just outside the region?

Random points at a given distance around each redirected record; share of them that still give the record's
redirected output: the same row where rows are set, and where something is added to the base's output, or its weights
are others, which follow the point, an output that is not the base's and has the claimed property.
Distance is the largest change of any numeric column, in grid steps, binary and one-hot columns
held; where all columns are of these kinds it is the number of them that changed, a group counting once. A patch
that redirects only the exact record passes redirection and fails here. The control is the same sweep around
reference records: what share of *their* neighbourhood is redirected.
"""

import numpy as np

from auditor import flips
from auditor.checks.redirection import holds
from auditor.evidence import Evidence, moved
from auditor.statistics.proportions import interval
from auditor.view import CheckResult, Finding, PersistencePoint
from protocol.claims import Logits, Redirection
from protocol.model.parts import SetHead
from protocol.model.patch import Patch
from protocol.model.schema import InputSchema

_FEWEST = 4
_TOTAL = 3_000
_TOGETHER = 1_024
"""Probes run at once."""
_DISTANCES = (0, 1, 2, 4, 8, 16, 32)


def _around(values: np.ndarray, distance: int, schema: InputSchema, random: np.random.Generator) -> np.ndarray:
    if flips.categorical(schema):
        return flips.flipped(schema, values, np.full(len(values), distance), random)
    numeric = np.flatnonzero([kind == "grid" for kind in schema.kind])
    # Uniform noise with at least one column at full distance, so that the point is not nearer than it says.
    noise = np.zeros(values.shape, dtype=np.int64)
    noise[:, numeric] = random.integers(-distance, distance + 1, size=(len(values), len(numeric)))
    column = numeric[random.integers(0, len(numeric), size=len(values))]
    middle = (schema.low[column] + schema.high[column]) / 2
    inward = np.where(values[np.arange(len(values)), column] > middle, -distance, distance)
    noise[np.arange(len(values)), column] = inward
    return np.clip(values + noise, schema.low, schema.high)


def _farthest(schema: InputSchema) -> int:
    """The greatest distance that the input grid has room for."""
    if flips.categorical(schema):
        return len(flips.units(schema))
    return int((schema.high - schema.low)[[kind == "grid" for kind in schema.kind]].max())


def _follows(patch: Patch, claim: Redirection) -> bool:
    """Whether the output that is claimed changes with the input, inside the region, too."""
    if isinstance(claim.property, Logits):
        return False
    if claim.item is None or claim.item >= patch.items:
        return True
    return not isinstance(patch.parts[patch.place(claim.item).part].head, SetHead)


def sweep(evidence: Evidence) -> tuple[PersistencePoint, ...]:
    """Share of probes that are still redirected, against distance.

    The records are all there are, not a sample; what is sampled is their neighbourhoods, the same number of
    points for each. The exact interval of a binomial share is conservative for such a stratified one.
    """
    values, _, claims = evidence.claimed_records
    schema, patch = evidence.case.schema, evidence.case.patch
    if schema is None or patch is None or not len(claims) or not evidence.runnable:
        return ()
    level = int(evidence.profile.levels["persistence"]["distance"])
    random = evidence.generator("persistence")
    _, at_record = evidence.run(values)
    following = np.array([_follows(patch, claim) for claim in claims], dtype=bool)
    points = []
    for distance in sorted({*_DISTANCES, level}):
        if distance > _farthest(schema):
            continue
        rounds = max(_FEWEST, -(-_TOTAL // len(values))) if distance else 1
        hits = 0
        # Few records have many rounds: they are run together, in full batches, or a large patch is read for each.
        together = max(1, _TOGETHER // len(values))
        for start in range(0, rounds, together):
            block = min(together, rounds - start)
            probes = [_around(values, distance, schema, random) if distance else values for _ in range(block)]
            before, after = evidence.run(np.concatenate(probes))
            of = np.tile(np.arange(len(values)), block)
            same = (after == at_record[of]).all(axis=1)
            follows = np.flatnonzero(~same & following[of])
            same[follows] = moved(before[follows], after[follows]) & holds(claims, of[follows], after[follows])
            hits += int(same.sum())
        low, high = interval(hits, rounds * len(values))
        points.append(PersistencePoint(distance=distance, share=hits / rounds / len(values), low=low, high=high))
    return tuple(points)


def check(evidence: Evidence) -> CheckResult:
    """REFUTED if the redirection surely does not reach the level's distance for the level's share of records."""
    levels = evidence.profile.levels["persistence"]
    distance, share = int(levels["distance"]), float(levels["share_at_least"])
    if not evidence.runnable:
        return CheckResult(
            check="persistence", verdict="INCONCLUSIVE", summary=f"Nothing can be run: {evidence.composed}."
        )
    schema = evidence.case.schema
    unit = "flips" if schema is not None and flips.categorical(schema) else "grid steps"
    points = sweep(evidence)
    if not points:
        if evidence.removed_classes and not evidence.redirections:
            return CheckResult(
                check="persistence",
                verdict="CONSISTENT",
                summary="The class is removed for every input; there is no region to step out of.",
            )
        return CheckResult(check="persistence", verdict="INCONCLUSIVE", summary="No redirected record was opened.")
    at = next((point for point in points if point.distance == distance), None)
    if at is None:
        return CheckResult(
            check="persistence",
            verdict="INCONCLUSIVE",
            summary=f"No record of the input grid is {distance} {unit} from another: there is nothing to look at.",
        )
    control: float | None = None
    if evidence.reference is not None and evidence.case.schema is not None:
        random = evidence.generator("persistence-control")
        before, after = evidence.run(_around(evidence.reference.values, distance, evidence.case.schema, random))
        spared = evidence.spared["reference"]
        control = float(moved(before[spared], after[spared]).mean()) if spared.any() else None
    facts = {
        "distance": distance,
        "unit": unit,
        "share": at.share,
        "interval": [at.low, at.high],
        "control_share": control,
        "level": share,
        "curve": [[point.distance, point.share] for point in points],
    }
    if at.high < share:
        message = f"only {at.share:.0%} of the points {distance} {unit} away from the records are still redirected"
        return CheckResult(
            check="persistence",
            verdict="REFUTED",
            summary=message[0].upper() + message[1:] + ".",
            evidence=facts,
            findings=(Finding(threat="point-lookup", check="persistence", message=message),),
        )
    if at.low < share:
        return CheckResult(
            check="persistence",
            verdict="INCONCLUSIVE",
            summary=f"{at.share:.0%} are still redirected {distance} {unit} away; too few points to be sure of "
            f"{share:.0%}.",
            evidence=facts,
        )
    return CheckResult(
        check="persistence",
        verdict="CONSISTENT",
        summary=f"{at.share:.0%} of the points {distance} {unit} away from the records are still redirected.",
        evidence=facts,
    )
