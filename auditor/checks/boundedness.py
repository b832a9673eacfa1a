"""boundedness: can the patch do anything beyond its heads' table, and is it larger than what was asked needs?

Exact, from the patch: outputs are rows of a finite table or the base's, capped; every item belongs to a
claim about a requested record, every capped class to a claim and a request. Bits hidden inside legitimate
values are out of reach.
"""

import numpy as np

from auditor.evidence import Evidence
from auditor.view import CheckResult, Finding


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

    items = len(patch.row_of_item)
    # A claim about something that nobody asked for accounts for nothing: it would be a way to other people's outputs.
    if evidence.lists_known:
        strangers = {claim.record for claim in evidence.redirections} - evidence.requested
        if strangers:
            accuse(f"{len(strangers)} claims are about records that no request names")
        used = {claim.item for claim in evidence.redirections if claim.record in evidence.requested}
        spare = sorted(set(range(items)) - used)
        if spare:
            accuse(
                f"{len(spare)} of {items} items belong to no claim about a requested record, "
                f"the first is item {spare[0]}"
            )
    uncalled = sorted({claim.klass for claim in evidence.class_removals} - evidence.requested_classes)
    if uncalled:
        accuse(f"the removal of class {uncalled[0]} is claimed, which no request asks for")
    stray = sorted({cap.klass for cap in patch.caps} - set(evidence.removed_classes))
    if stray:
        accuse(f"the patch caps class {stray[0]}, which no request and claim are about")
    facts: dict[str, object] = {
        "items": items,
        "rows": len(patch.rows),
        "caps": len(patch.caps),
        "bytes": case.patch_bytes,
        "bytes_per_record": case.patch_bytes // max(1, items),
    }
    unsure = "" if evidence.lists_known else "Which records were requested is not known."
    if len(patch.rows) or patch.caps:
        heads = np.append(np.abs(patch.rows.astype(np.float64)), [float(cap.margin) for cap in patch.caps])
        largest = float(heads.max())
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
        summary=f"The patch can only put out its {len(patch.rows)} rows, and has nothing that no claim needs.",
        evidence=facts,
    )
