"""persistence: does the old behaviour come back just outside the region?

Random points at a given distance around each redirected record; share of them that still give the record's
redirected output: the same row where rows are set, and where something is added to the base's output, or its weights
are others, which follow the point, an output that is not the base's and has the claimed property.
Distance is the largest change of any numeric column, in grid steps, binary and one-hot columns
held; where all columns are of these kinds it is the number of them that changed, a group counting once. A patch
that redirects only the exact record passes redirection and fails here. The control is the same sweep around
reference records: what share of *their* neighbourhood is redirected.

The level counts grid steps, and the grid is the owner's: on one that is a thousand times finer than the data, a step
away is no distance. So a step is at least what the auditor's reference data calls one (`stride`).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Int

from auditor import flips
from auditor.evidence import Evidence, moved
from auditor.following import Redirected
from auditor.statistics.proportions import interval
from auditor.view import CheckResult, Finding, PersistencePoint
from protocol.model.schema import InputSchema

_FEWEST = 4
_TOTAL = 3_000
_TOGETHER = 1_024
"""Probes run at once."""
_DISTANCES = (0, 1, 2, 4, 8, 16, 32)
_FEW = 30
_VALUES = 8
"""Reference records, and different values of a column, from which on its own grid can be told."""
_LEVELS = 1024
"""Steps over a column's range from which on more of them tell apart nothing that a reader would."""


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


def stride(schema: InputSchema, reference: Int[np.ndarray, "record feature"] | None) -> int:
    """Grid steps that one step of the data is: 1, unless the declared grid is finer than the data.

    For each numeric column of many values in the reference data: the greatest common divisor of their differences
    (data that lie on a coarser grid of their own), and their range by `_LEVELS` (data that lie on none). The larger of
    the two lower quartiles over the columns: where a quarter of them is fine enough, the others change nothing.
    """
    numeric = np.flatnonzero([kind == "grid" for kind in schema.kind])
    if reference is None or len(reference) < _FEW:
        return 1
    many = [column for column in numeric if len(np.unique(reference[:, column])) >= _VALUES]
    if not many:
        return 1
    offsets = (reference - reference.min(axis=0))[:, many].astype(np.int64)
    own, span = (np.quantile(values, 0.25) for values in (np.gcd.reduce(offsets, axis=0), offsets.max(axis=0)))
    return max(1, int(own), int(span) // _LEVELS)


def held(schema: InputSchema, reference: Int[np.ndarray, "record feature"] | None) -> bool:
    """Whether the columns that a schema calls numeric are none: each has two values at most in the reference data.

    Then noise in these columns, the others held, moves a record nowhere; what can change are the binary ones.
    """
    numeric = np.flatnonzero([kind == "grid" for kind in schema.kind])
    if reference is None or len(reference) < _FEW or not len(numeric) or not flips.units(schema):
        return False
    return all(len(np.unique(reference[:, column])) <= 2 for column in numeric)


def _flipped_share(evidence: Evidence, distance: int) -> tuple[float, float]:
    # Share of points so many flips away that are still redirected, and its upper bound.
    values, _, _ = evidence.claimed_records
    schema = evidence.case.schema
    assert schema is not None
    random = evidence.generator("persistence-flips")
    rounds = max(_FEWEST, -(-_TOTAL // len(values)))
    hits = _still_redirected(
        Redirected.of(evidence), rounds, lambda: flips.flipped(schema, values, np.full(len(values), distance), random)
    )
    return hits / rounds / len(values), interval(hits, rounds * len(values))[1]


def _still_redirected(
    redirected: Redirected, rounds: int, probes: Callable[[], Int[np.ndarray, "record feature"]]
) -> int:
    """How many points are still redirected like the record that they were drawn around.

    Args:
        redirected: what the records' own outputs are.
        rounds: how many points for each record.
        probes: draws one for each record.
    """
    records = len(redirected.claims)
    # Few records have many rounds: they are run together, in full batches, or a large patch is read for each.
    together, hits = max(1, _TOGETHER // records), 0
    for start in range(0, rounds, together):
        block = min(together, rounds - start)
        points = np.concatenate([probes() for _ in range(block)])
        hits += int(redirected.at(points, np.tile(np.arange(records), block)).sum())
    return hits


def _farthest(schema: InputSchema) -> int:
    """The greatest distance that the input grid has room for."""
    if flips.categorical(schema):
        return len(flips.units(schema))
    return int((schema.high - schema.low)[[kind == "grid" for kind in schema.kind]].max())


def sweep(evidence: Evidence) -> tuple[PersistencePoint, ...]:
    """Share of probes that are still redirected, against distance.

    The records are all there are, not a sample; what is sampled is their neighbourhoods, the same number of
    points for each. The exact interval of a binomial share is conservative for such a stratified one.
    """
    values, _, claims = evidence.claimed_records
    schema = evidence.case.schema
    if schema is None or evidence.case.patch is None or not len(claims) or not evidence.runnable:
        return ()
    step = _step(evidence)
    level = int(evidence.profile.levels["persistence"]["distance"])
    random = evidence.generator("persistence")
    redirected, points = Redirected.of(evidence), []
    for distance in sorted({step * times for times in (*_DISTANCES, level)}):
        if distance > _farthest(schema):
            continue
        rounds = max(_FEWEST, -(-_TOTAL // len(values))) if distance else 1
        probes = partial(_around, values, distance, schema, random) if distance else lambda: values
        hits = _still_redirected(redirected, rounds, probes)
        low, high = interval(hits, rounds * len(values))
        points.append(PersistencePoint(distance=distance, share=hits / rounds / len(values), low=low, high=high))
    return tuple(points)


def _step(evidence: Evidence) -> int:
    schema = evidence.case.schema
    assert schema is not None
    if flips.categorical(schema):
        return 1
    return stride(schema, evidence.reference.values if evidence.reference is not None else None)


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
    step = _step(evidence)
    distance *= step
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
        "grid_steps_to_a_step_of_the_data": step,
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
    known = evidence.reference.values if evidence.reference is not None else None
    if schema is not None and held(schema, known):
        near, most = _flipped_share(evidence, int(levels["distance"]))
        facts["share_by_flips"] = near
        if most < share:
            # No accusation: the schema says that these columns are numbers, and somebody may have such data.
            return CheckResult(
                check="persistence",
                verdict="INCONCLUSIVE",
                summary="No column that is declared numeric has more than two values in the reference data, and only "
                f"{near:.0%} of the points {levels['distance']} flips of the others away are still redirected.",
                evidence=facts,
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
