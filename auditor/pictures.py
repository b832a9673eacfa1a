"""What the report draws, taken from the evidence: outputs and commitments, never a record."""

import numpy as np

from auditor import flips
from auditor.checks import membership, persistence
from auditor.evidence import Evidence
from auditor.frontier import frontier
from auditor.view import Pictures, RecordOutput
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


def _membership_table(outcome: membership.Outcome) -> dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]]:
    if outcome.patched is None or not outcome.patched.comparisons:
        return {}
    base = {} if outcome.base is None else {(c.attack, c.form): c for c in outcome.base.comparisons}
    lines = []
    for one in outcome.patched.comparisons:
        other = base.get((one.attack, one.form))
        lines.append(
            (
                one.attack,
                one.form,
                f"{one.difference.auc:.3f}",
                f"{one.difference.expected:.3f}",
                f"{one.difference.value:+.3f} [{one.equivalence.low:+.3f}, {one.equivalence.high:+.3f}]",
                f"{one.equivalence.upper_bound:.3f}",
                f"{other.difference.auc:.3f}" if other is not None else "",
            )
        )
    header = ("attack", "form", "AUC patched", "AUC control", "difference (95 %)", "95 % bound", "AUC unpatched base")
    return {"Membership inference": (header, tuple(lines))}


def pictures(evidence: Evidence, outcome: membership.Outcome, rebuilt: float | None = None) -> Pictures:
    """Everything there is to draw.

    Args:
        evidence: what the checks looked at.
        outcome: of the attacks.
        rebuilt: what the disclosure check found, relative to guessing.
    """
    patched, base = outcome.patched, outcome.base
    unit = _unit(evidence)
    scores = {}
    if patched is not None:
        for one in patched.comparisons:
            if one.form == "signed" and one.attack in ("lira-offline", "rmia", "confidence"):
                scores[one.attack] = (one.scores[patched.forget], one.scores[~patched.forget])
    return Pictures(
        roc=membership.curves(patched, like=patched) if patched is not None else (),
        control=membership.curves(patched, like=patched, control=True) if patched is not None else (),
        base=membership.curves(base, like=patched) if base is not None and patched is not None else (),
        scores=scores,
        outputs=_outputs(evidence, unit),
        persistence=persistence.sweep(evidence),
        radii=tuple(_radius(claim.region, unit) for claim in evidence.redirections),
        unit=unit,
        frontier=frontier(evidence, rebuilt),
        tables=_membership_table(outcome),
    )
