"""What the report draws, taken from the evidence: outputs and commitments, never a record."""

from dataclasses import replace

import numpy as np

from auditor import membership_pages
from auditor.checks import persistence
from auditor.checks.membership import FORGOTTEN, Outcome
from auditor.evidence import Evidence
from auditor.view import Pictures, RecordOutput, RocCurve

_SHOWN = 6


def _outputs(evidence: Evidence) -> tuple[RecordOutput, ...]:
    values, labels, claims = evidence.claimed_records
    if not evidence.runnable or not len(claims):
        return ()
    chosen = np.unique(np.linspace(0, len(claims) - 1, _SHOWN).astype(np.int64))
    before, after = evidence.run(values[chosen])
    return tuple(
        RecordOutput(
            commitment=claims[int(number)].record.hex()[:16],
            label=int(labels[number]),
            radius=str(claims[int(number)].region.radius),
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


def pictures(evidence: Evidence, outcome: Outcome) -> Pictures:
    """Everything there is to draw."""
    patched, base = outcome.patched, outcome.base
    tables, notes = membership_pages.tables(outcome)
    curves = membership_pages.curves
    return Pictures(
        roc=_all(outcome, control=False),
        control=_all(outcome, control=True),
        base=curves(base, like=patched) if base is not None and patched is not None else (),
        scores=membership_pages.strips(outcome),
        outputs=_outputs(evidence),
        persistence=persistence.sweep(evidence),
        radii=tuple(claim.region.radius for claim in evidence.redirections),
        tables=tables,
        notes=notes,
        shift=membership_pages.shift(outcome),
    )
