"""What a patch buys and what it tells, beside two things that anybody could do instead.

Measures, on the opened records: certified radius; how many noisy and shifted versions of a record are still
redirected; how well the record is rebuilt from the patch; how surely it is picked out among other records by running
the patch (inherent: a gate that fires on a record confirms it); bytes. The same for an exact-match deny-list of
digests (radius 0), for the linear region of the base around each record, on which earlier patches live, and for each
part of a patch of several: every sketch and box that can be seen in it.

Proves nothing; what is certified is the redirection check's to say. Noise and shifts are the auditor's own draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Int

from auditor import flips
from auditor.evidence import Evidence, moved
from auditor.following import Redirected
from auditor.linear_region import Regions
from auditor.view import FrontierPoint
from protocol.errors import AuditorError
from protocol.model.parts import Part, gate_kind
from protocol.model.schema import InputSchema

_RECORDS = 200
_NOISY = 8
_SPREAD = 0.02
"""Standard deviation of the noise, as a share of a column's range; and share of columns that flip."""
_WORK = 2e8
_DIGEST = 32


def noisy(
    schema: InputSchema, values: Int[np.ndarray, "record feature"], random: np.random.Generator
) -> Int[np.ndarray, "record feature"]:
    """Records with rounded Gaussian noise on numeric columns, and two in a hundred of the others flipped."""
    numeric = np.array([kind == "grid" for kind in schema.kind])
    noise = random.normal(0.0, _SPREAD, values.shape) * (schema.high - schema.low) * numeric
    points = np.clip(values + np.rint(noise).astype(np.int64), schema.low, schema.high)
    return flips.flipped(schema, points, random.binomial(len(flips.units(schema)), _SPREAD, len(values)), random)


def picture(schema: InputSchema) -> tuple[int, int, int] | None:
    """Channels, height and width, where records are pictures (a flattened square of equal columns counts as one)."""
    if len(schema.shape) == 3:
        return schema.shape[0], schema.shape[1], schema.shape[2]
    if len(schema.shape) == 2:
        return 1, schema.shape[0], schema.shape[1]
    side = round(schema.features**0.5)
    alike = (schema.scale == schema.scale[0]).all() and set(schema.kind) == {"grid"}
    return (1, side, side) if alike and side * side == schema.features and side >= 6 else None


def shifted(
    schema: InputSchema, values: Int[np.ndarray, "record feature"]
) -> Int[np.ndarray, "version feature"] | None:
    """Pictures moved by one pixel in each of four directions, the edge repeated; None where there are no pictures."""
    shape = picture(schema)
    if shape is None:
        return None
    images = values.reshape(len(values), *shape)
    height, width = np.arange(shape[1]), np.arange(shape[2])
    versions = [
        images[:, :, np.clip(height + down, 0, shape[1] - 1)][:, :, :, np.clip(width + right, 0, shape[2] - 1)]
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    return np.concatenate(versions).reshape(-1, schema.features)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """Some records with their noisy and shifted versions, each list `[version, record, feature]`."""

    records: Int[np.ndarray, "record"]
    values: Int[np.ndarray, "record feature"]
    noise: Int[np.ndarray, "version record feature"]
    shifts: Int[np.ndarray, "version record feature"] | None


def _draw(evidence: Evidence) -> _Drawn:
    schema = evidence.case.schema
    assert schema is not None
    random = evidence.generator("frontier")
    values = evidence.claimed_records[0]
    chosen = np.unique(np.linspace(0, len(values) - 1, min(_RECORDS, len(values))).astype(np.int64))
    values = values[chosen]
    moved_ = shifted(schema, values)
    return _Drawn(
        records=chosen,
        values=values,
        noise=np.stack([noisy(schema, values, random) for _ in range(_NOISY)]),
        shifts=None if moved_ is None else moved_.reshape(-1, *values.shape),
    )


def _covered(redirected: Redirected, drawn: _Drawn, versions: np.ndarray) -> float:
    points = versions.reshape(-1, drawn.values.shape[1])
    return float(redirected.at(points, np.tile(drawn.records, len(versions))).mean())


def _unit(evidence: Evidence) -> str:
    schema = evidence.case.schema
    return "flips" if schema is not None and flips.categorical(schema) else "steps"


def _identified(evidence: Evidence) -> tuple[float | None, int]:
    # Whoever runs base and patch on candidates sees which outputs differ.
    values = evidence.claimed_records[0]
    hits = moved(*evidence.run(values))
    others = sum(len(labels) for _, labels, _, _ in evidence.others.values())
    return float(hits.mean()), others + len(values)


def measure(evidence: Evidence, rebuilt: float | None = None) -> FrontierPoint:
    """The issued patch.

    Args:
        evidence: with opened records and a model that can be run.
        rebuilt: what the disclosure check found, relative to guessing.
    """
    drawn, redirected = _draw(evidence), Redirected.of(evidence)
    claims = evidence.claimed_records[2]
    steps = _unit(evidence) == "steps"
    radii = [c.region.steps if c.region.norm == "hamming" and steps else c.region.radius for c in claims]
    identified, candidates = _identified(evidence)
    return FrontierPoint(
        name="this patch",
        radius=float(np.median(radii)),
        noise=_covered(redirected, drawn, drawn.noise),
        augmented=None if drawn.shifts is None else _covered(redirected, drawn, drawn.shifts),
        rebuilt=rebuilt,
        identified=identified,
        candidates=candidates,
        bytes_per_record=evidence.case.patch_bytes / max(1, len(claims)),
    )


def _deny_list(drawn: _Drawn, candidates: int) -> FrontierPoint:
    def equal(versions: np.ndarray) -> float:
        return float((versions == drawn.values).all(axis=2).mean())

    return FrontierPoint(
        name="exact-match deny-list", radius=0.0, noise=equal(drawn.noise),
        augmented=None if drawn.shifts is None else equal(drawn.shifts), rebuilt=1.0, identified=1.0,
        candidates=candidates, bytes_per_record=float(_DIGEST),
    )  # fmt: skip


def _linear(evidence: Evidence, drawn: _Drawn, candidates: int) -> FrontierPoint | None:
    case = evidence.case
    assert case.base is not None
    assert case.schema is not None
    try:
        regions = Regions.of(case.base)
        count = int(np.clip(_WORK / (case.schema.features * regions.plan.largest), 2, 64))
        chosen = np.unique(np.linspace(0, len(drawn.values) - 1, min(count, len(drawn.values))).astype(np.int64))
        values = drawn.values[chosen]
        radii = regions.ball(case.schema, values)
    except AuditorError:
        return None
    schema = case.schema

    def pattern(points: np.ndarray) -> Bool[np.ndarray, "record bit"]:
        return regions.pattern(schema.dequantise(points).reshape(len(points), -1))

    own = pattern(values)

    def inside(versions: np.ndarray) -> float:
        return float(np.mean([(pattern(points[chosen]) == own).all(axis=1).mean() for points in versions]))

    halves = own.shape[1]
    return FrontierPoint(
        name="linear region", radius=float(np.median(radii)), noise=inside(drawn.noise),
        augmented=None if drawn.shifts is None else inside(drawn.shifts), rebuilt=None, identified=None,
        candidates=candidates, bytes_per_record=4.0 * halves * (schema.features + 1),
    )  # fmt: skip


_GATES = {"sketch": "sketch", "feature": "feature box", "linear-region": "linear region", "always": "always"}


def _stored(part: Part) -> int:
    # Bytes of a part's tensors.
    arrays = (getattr(holder, entry.name) for holder in (part.gate, part.head) for entry in fields(holder))
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


def parts(evidence: Evidence, rebuilt: Mapping[int, float]) -> tuple[FrontierPoint, ...]:
    """Each part of a patch of several, by itself: what its own items catch, certify, show and cost.

    Args:
        evidence: with opened records and a model that can be run.
        rebuilt: by part, what the disclosure check found, relative to guessing.
    """
    patch, drawn = evidence.case.patch, _draw(evidence)
    assert patch is not None
    assert evidence.case.schema is not None
    if len(patch.parts) < 2:
        return ()
    steps = _unit(evidence) == "steps"
    radii: dict[int, list[int]] = {number: [] for number in range(len(patch.parts))}
    for claim in evidence.claimed_records[2]:
        if claim.item is not None and claim.item < patch.items:
            size = claim.region.steps if claim.region.norm == "hamming" and steps else claim.region.radius
            radii[patch.place(claim.item).part].append(size)

    def fired(points: np.ndarray, number: int) -> float:
        inputs = evidence.case.schema.dequantise(points.reshape(-1, drawn.values.shape[1]))  # type: ignore[union-attr]
        (found,) = evidence.replay(inputs, (f"prune/p{number}/fired",))
        return float(found.mean())

    result = []
    for number, part in enumerate(patch.parts):
        certified = radii[number]
        name = f"part {number + 1}: {_GATES[gate_kind(part.gate)]}" + ("" if certified else ", coverage only")
        result.append(
            FrontierPoint(
                name=name,
                radius=float(np.median(certified)) if certified else 0.0,
                noise=fired(drawn.noise, number),
                augmented=None if drawn.shifts is None else fired(drawn.shifts, number),
                rebuilt=rebuilt.get(number),
                identified=fired(drawn.values, number),
                candidates=len(drawn.values),
                bytes_per_record=_stored(part) / part.gate.items,
            )
        )
    return tuple(result)


def frontier(
    evidence: Evidence, rebuilt: float | None, by_part: Mapping[int, float] | None = None
) -> tuple[FrontierPoint, ...]:
    """The issued patch, the deny-list and the linear region, then the patch's parts, on the same draws.

    Empty where nothing was opened.

    Args:
        evidence: what the checks look at.
        rebuilt: what the disclosure check found, relative to guessing.
        by_part: the same for each of several parts.
    """
    if not evidence.runnable or not len(evidence.claimed_records[2]) or evidence.case.schema is None:
        return ()
    drawn, own = _draw(evidence), measure(evidence, rebuilt)
    linear = _linear(evidence, drawn, own.candidates)
    others = () if linear is None else (linear,)
    return (own, _deny_list(drawn, own.candidates), *others, *parts(evidence, by_part or {}))
