"""What the report draws, taken from the evidence: outputs and commitments, never a record."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from auditor import flips, membership_pages
from auditor.checks import persistence
from auditor.checks.membership import FORGOTTEN, Outcome
from auditor.evidence import Evidence
from auditor.frontier import frontier
from auditor.view import Pictures, RecordOutput, RocCurve
from protocol.claims import Region

_SHOWN = 6


def _unit(evidence: Evidence) -> str:
    schema = evidence.case.schema
    return "flips" if schema is not None and flips.categorical(schema) else "steps"


def _radius(region: Region, unit: str) -> int:
    # In tables of both kinds of columns steps are drawn; flips are in the claims.
    return region.steps if region.norm == "hamming" and unit == "steps" else region.radius


def _outputs(evidence: Evidence, unit: str) -> tuple[RecordOutput, ...]:
    values, labels, claims = evidence.claimed_records
    if not evidence.runnable or not len(claims):
        return ()
    chosen = np.unique(np.linspace(0, len(claims) - 1, _SHOWN).astype(np.int64))
    before, after = evidence.run(values[chosen])
    return tuple(
        RecordOutput(
            commitment=claims[int(number)].record.hex()[:16],
            label=int(labels[number]),
            radius=str(_radius(claims[int(number)].region, unit)),
            before=tuple(float(v) for v in before[place]),
            after=tuple(float(v) for v in after[place]),
        )
        for place, number in enumerate(chosen)
    )


def _all(outcome: Outcome, *, control: bool) -> tuple[RocCurve, ...]:
    # The forgotten records' curves first; those of further assessments say what they are about.
    found: list[RocCurve] = []
    for name, one in outcome.assessments.items():
        drawn = membership_pages.curves(one, like=one, control=control)
        found += drawn if name == FORGOTTEN else [replace(curve, name=f"{curve.name}: {name}") for curve in drawn]
    return tuple(found)


def pictures(
    evidence: Evidence, outcome: Outcome, rebuilt: float | None = None, parts: Mapping[int, float] | None = None
) -> Pictures:
    """Everything there is to draw.

    Args:
        evidence: what the checks looked at.
        outcome: of the attacks.
        rebuilt: what the disclosure check found, relative to guessing.
        parts: the same for each of several parts of the patch.
    """
    patched, base = outcome.patched, outcome.base
    unit = _unit(evidence)
    tables, notes = membership_pages.tables(outcome)
    curves = membership_pages.curves
    return Pictures(
        roc=_all(outcome, control=False),
        control=_all(outcome, control=True),
        base=curves(base, like=patched) if base is not None and patched is not None else (),
        scores=membership_pages.strips(outcome),
        outputs=_outputs(evidence, unit),
        persistence=persistence.sweep(evidence),
        radii=tuple(_radius(claim.region, unit) for claim in evidence.redirections),
        unit=unit,
        frontier=frontier(evidence, rebuilt, parts),
        tables=tables,
        notes=notes,
        shift=membership_pages.shift(outcome),
    )
