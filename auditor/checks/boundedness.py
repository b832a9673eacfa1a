"""boundedness: can the patch do anything beyond its heads' table, and is it larger than what was asked needs?

Exact, from the patch: outputs are rows of a finite table or the base's, capped; every item belongs to a
claim about a requested record (`coverage` looks at those of which nothing is certified), every capped class
to a claim and a request. What a map adds is looked at on the reference records, and bounded over all inputs.
Bits hidden inside legitimate values are out of reach, and changed weights are only counted: they can do anything.
"""

import numpy as np

from auditor import coverage
from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding
from auditor.written_down import idle
from protocol.claims import Coverage, Redirection
from protocol.model.parts import AffineHead, SketchGate


def _maps(evidence: Evidence, *, whole: bool) -> list[float]:
    """The most that the affine heads add: on the reference records, or at most on all inputs inside the columns."""
    patch, schema, reference = evidence.case.patch, evidence.case.schema, evidence.reference
    assert patch is not None
    heads = [part.head for part in patch.parts if isinstance(part.head, AffineHead)]
    if not heads or schema is None or (reference is None and not whole):
        return []
    if whole:
        ends = np.stack([schema.low - 0.5, schema.high + 0.5])
        with np.errstate(over="ignore"):
            x = (ends - schema.offset) / schema.scale.astype(np.float64)
        middle, spread = x.mean(axis=0), np.abs(x[1] - x[0]) / 2
        return [
            float((np.abs(head.weights @ middle + head.rows) + np.abs(head.weights) @ spread).max()) for head in heads
        ]
    assert reference is not None
    known = schema.dequantise(reference.values).reshape(len(reference.values), -1).astype(np.float64)
    most = 0.0
    for head in heads:
        for weights, row in zip(head.weights, head.rows, strict=True):
            most = max(most, float(np.abs(known @ weights.T.astype(np.float64) + row).max()))
    return [most]


def check(evidence: Evidence) -> CheckResult:
    """REFUTED by items or caps that no claim accounts for, or logits far beyond the base's."""
    case = evidence.case
    patch = case.patch
    if patch is None or case.claims is None:
        return CheckResult(
            check="boundedness", verdict="INCONCLUSIVE", summary="The patch or its claims cannot be read."
        )
    findings: list[Finding] = []

    def accuse(message: str) -> None:
        findings.append(Finding(threat="hidden-payload", check="boundedness", message=message))

    items, rows = patch.items, sum(len(part.head.rows) for part in patch.parts)
    # A claim about something that nobody asked for accounts for nothing: it would be a way to other people's outputs.
    if evidence.lists_known:
        claims: tuple[Redirection | Coverage, ...] = (*evidence.redirections, *evidence.coverage)
        strangers = {claim.record for claim in claims} - evidence.requested
        if strangers:
            accuse(f"{len(strangers)} claims are about records that no request names")
        used = {claim.item for claim in claims if claim.record in evidence.requested}
        spare = sorted(set(range(items)) - used)
        if spare:
            accuse(
                f"{len(spare)} of {items} items belong to no claim about a requested record, "
                f"the first is item {spare[0]}"
            )
    for number, part in enumerate(patch.parts):
        if case.schema is None or not isinstance(part.gate, SketchGate):
            continue
        if part.gate.matrix.shape[1] == case.schema.features and len(left := idle(part.gate, case.schema)):
            accuse(
                f"{len(left)} of {len(part.gate.matrix)} components of part {number}'s sketch limit no item anywhere "
                f"on the input grid, the first is component {int(left[0])}: what they hold, no claim needs"
            )
    covering = coverage.assess(evidence, evidence.coverage)
    for message in covering.wrong:
        accuse(message)
    uncalled = sorted({claim.klass for claim in evidence.class_removals} - evidence.requested_classes)
    if uncalled:
        accuse(f"the removal of class {uncalled[0]} is claimed, which no request asks for")
    stray = sorted({cap.klass for cap in patch.caps} - set(evidence.removed_classes))
    if stray:
        accuse(f"the patch caps class {stray[0]}, which no request and claim are about")
    facts: dict[str, object] = {
        "weights": sum(weight.values.size for weight in patch.weights),
        "items": items,
        "rows": rows,
        "caps": len(patch.caps),
        "bytes": case.patch_bytes,
        "bytes_per_record": case.patch_bytes // max(1, items),
    }
    unsure = "" if evidence.lists_known else "Which records were requested is not known."
    if covering.open and not unsure:
        unsure = f"{covering.open[0][0].upper()}{covering.open[0][1:]}."
    if evidence.coverage:
        facts["items_for_coverage"] = len({claim.item for claim in evidence.coverage})
    if patch.weights and not unsure:
        unsure = f"{facts['weights']} weights are changed; what else they do cannot be read from them."
    if rows or patch.caps:
        heads = [float(np.abs(part.head.rows).max()) for part in patch.parts]
        largest = max([*heads, *_maps(evidence, whole=False), *(float(cap.margin) for cap in patch.caps)])
        facts["largest_logit"] = largest
        factor = float(evidence.profile.levels["boundedness"]["logit_factor_at_most"])
        if "reference" in evidence.others:
            base = float(np.abs(evidence.others["reference"][2]).max())
            if not np.isfinite(base):
                unsure = "The base's own outputs are not finite numbers."
            elif largest > factor * base:
                accuse(
                    f"a logit or margin of {largest:g} in the patch is over {factor:g} times the base's largest, "
                    f"{base:g}"
                )
            else:
                facts["largest_base_logit"] = base
                if max(_maps(evidence, whole=True), default=0.0) > factor * base:
                    unsure = f"A map in the patch can add over {factor:g} times the base's largest logit somewhere."
        else:
            unsure = evidence.reference_missing or "Without reference data the heads cannot be compared with the base."
    if findings:
        return CheckResult(
            check="boundedness",
            verdict="REFUTED",
            summary=findings[0].message[0].upper() + findings[0].message[1:] + ".",
            evidence=facts,
            findings=tuple(findings),
        )
    if unsure:
        return CheckResult(check="boundedness", verdict="INCONCLUSIVE", summary=unsure, evidence=facts)
    return CheckResult(
        check="boundedness",
        verdict="CONSISTENT",
        summary=f"The patch can only put out or add its {rows} rows, and has nothing that no claim needs.",
        evidence=facts,
    )
