"""disclosure: can the forgotten record be rebuilt from the patch?

Three attacks on a sketch gate: the smallest record with the item's sketch (pseudo-inverse), a ridge
regression from sketches to records, fitted on the auditor's reference data, and the record nearest to that
whose own box is the item's (a box is clipped where the record is near the end of a column's range, which
the first two cannot undo). The best one counts. Compared with guessing the mean of the record's class. A gate
that fires on a record also confirms it to whoever tries candidates: inherent, and not what is measured here.
"""

import numpy as np
import torch

from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding

_RESAMPLES = 400
_STEPS = 200
_LARGEST = 500


def _ridge(inputs: np.ndarray, outputs: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    centre_in, centre_out = inputs.mean(axis=0), outputs.mean(axis=0)
    x, y = inputs - centre_in, outputs - centre_out
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += strength * max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.linalg.solve(gram, x.T @ y), centre_in, centre_out


def _matching_boxes(
    matrix: np.ndarray,
    *,
    low: np.ndarray,
    high: np.ndarray,
    start: np.ndarray,
    radius: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    # Projected gradient on the misfit between the item's box and the box that a candidate record would have.
    positive = torch.from_numpy(np.maximum(matrix, 0.0))
    negative = torch.from_numpy(np.minimum(matrix, 0.0))
    floor, ceiling = (torch.from_numpy(end.astype(np.float64)) for end in ends)
    wanted_low, wanted_high = torch.from_numpy(low), torch.from_numpy(high)
    spread = torch.from_numpy(radius.astype(np.float64))[:, None]
    norms = torch.from_numpy(np.maximum(np.abs(matrix).sum(axis=1), 1.0))
    record = torch.from_numpy(start.copy()).requires_grad_()
    step = float((ends[1] - ends[0]).max()) / 40
    optimiser = torch.optim.Adam([record], lr=step)
    for number in range(_STEPS):
        for group in optimiser.param_groups:
            group["lr"] = step * (1 - number / _STEPS)
        optimiser.zero_grad()
        bottom, top = torch.maximum(record - spread, floor), torch.minimum(record + spread, ceiling)
        own_low, own_high = bottom @ positive.T + top @ negative.T, top @ positive.T + bottom @ negative.T
        misfit = ((own_low - wanted_low) / norms) ** 2 + ((own_high - wanted_high) / norms) ** 2
        misfit.sum().backward()  # type: ignore[no-untyped-call,unused-ignore]
        optimiser.step()
        with torch.no_grad():
            record.clamp_(floor, ceiling)
    return record.detach().numpy()


def check(evidence: Evidence) -> CheckResult:
    """REFUTED if the rebuilt records are surely nearer than the level, relative to guessing."""
    level = float(evidence.profile.levels["disclosure"]["error_at_least"])
    patch, schema = evidence.case.patch, evidence.case.schema
    if patch is None or schema is None:
        return CheckResult(check="disclosure", verdict="INCONCLUSIVE", summary="The patch cannot be read.")
    if patch.gate is None:
        return CheckResult(
            check="disclosure", verdict="CONSISTENT", summary="The patch stores nothing about any single record."
        )
    values, labels, claims = evidence.claimed_records
    usable = [n for n, claim in enumerate(claims) if claim.item is not None and claim.item < len(patch.row_of_item)]
    if len(usable) > _LARGEST:
        usable = sorted(evidence.generator("disclosure-sample").choice(usable, _LARGEST, replace=False).tolist())
    if evidence.reference is None or not usable:
        reason = evidence.reference_missing if evidence.reference is None else "No record of the patch was opened."
        return CheckResult(check="disclosure", verdict="INCONCLUSIVE", summary=reason or "No reference data was given.")
    gate = patch.gate
    matrix = gate.matrix.astype(np.float64)
    items = np.array([claims[n].item for n in usable])
    truth, own = values[usable].astype(np.float64), labels[usable]
    centre = (gate.low[items].astype(np.float64) + gate.high[items].astype(np.float64)) / 2
    span = (schema.high - schema.low).astype(np.float64)
    span[span == 0] = 1.0

    reference = evidence.reference.values.astype(np.float64)
    overall = reference.mean(axis=0)
    means = np.array(
        [
            reference[evidence.reference.labels == klass].mean(axis=0)
            if (evidence.reference.labels == klass).any()
            else overall
            for klass in own
        ]
    )
    guess = (((means - truth) / span) ** 2).mean(axis=1)
    weight, centre_in, centre_out = _ridge(reference @ matrix.T, reference, 1e-4)
    rebuilt = {
        "ridge regression": (centre - centre_in) @ weight + centre_out,
        "smallest solution": centre @ np.linalg.pinv(matrix).T,
    }
    rebuilt["matching box"] = _matching_boxes(
        matrix,
        low=gate.low[items].astype(np.float64),
        high=gate.high[items].astype(np.float64),
        start=np.clip(rebuilt["ridge regression"], schema.low, schema.high).astype(np.float64),
        radius=np.array([claims[n].region.radius for n in usable]),
        ends=(schema.low, schema.high),
    )
    errors = {
        name: (((np.clip(found, schema.low, schema.high) - truth) / span) ** 2).mean(axis=1)
        for name, found in rebuilt.items()
    }
    best = min(errors, key=lambda name: float(errors[name].mean()))
    random = evidence.generator("disclosure")
    draws = random.integers(0, len(guess), size=(_RESAMPLES, len(guess)))
    scale = np.maximum(guess[draws].mean(axis=1), 1e-12)
    ratio = float(errors[best].mean() / max(float(guess.mean()), 1e-12))
    low, high = np.percentile(errors[best][draws].mean(axis=1) / scale, [2.5, 97.5])
    facts = {
        "attack": best,
        "error": float(errors[best].mean()),
        "guessing_error": float(guess.mean()),
        "ratio": ratio,
        "interval": [float(low), float(high)],
        "stored_numbers_per_record": int(gate.matrix.shape[0]),
        "features": int(schema.features),
        "level": level,
    }
    if high < level:
        message = f"the records can be rebuilt from the patch: error {ratio:.3f} of guessing, by {best}"
        return CheckResult(
            check="disclosure",
            verdict="REFUTED",
            summary=message[0].upper() + message[1:] + ".",
            evidence=facts,
            findings=(Finding(threat="patch-as-record", check="disclosure", message=message),),
        )
    if low < level:
        return CheckResult(
            check="disclosure",
            verdict="INCONCLUSIVE",
            summary=f"Rebuilding error is {ratio:.3f} of guessing; too few records to compare it with {level:g}.",
            evidence=facts,
        )
    return CheckResult(
        check="disclosure",
        verdict="CONSISTENT",
        summary=f"The best rebuilt record has {ratio:.2f} of the error of guessing its class mean.",
        evidence=facts,
    )
