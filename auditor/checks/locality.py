"""locality: is the output unchanged away from the supports?

Compared bit by bit, base against patched output of one run of one program, on the auditor's reference
data and on retained records that the owner had to open at places which neither side chose. Zero moved
of n bounds the moved share: the upper Clopper-Pearson bound is what the level is about. A certificate that
does not say that nothing else moves is not accused where something does, and is not CONSISTENT either.
"""

import numpy as np

from auditor.evidence import Evidence, moved
from auditor.statistics.proportions import interval
from auditor.view import CheckResult, Finding


def check(evidence: Evidence) -> CheckResult:
    """REFUTED if surely more than the level moves, CONSISTENT if surely less in both populations."""
    level = float(evidence.profile.levels["locality"]["affected_at_most"])
    if not evidence.runnable:
        return CheckResult(
            check="locality", verdict="INCONCLUSIVE", summary=f"Nothing can be run: {evidence.composed}."
        )
    facts: dict[str, object] = {"level": level}
    findings: list[Finding] = []
    moving: list[str] = []
    inert = evidence.case.certificate.inert_outside_supports
    bounded: list[str] = []
    for name, (_, _, before, after) in evidence.others.items():
        spared = evidence.spared[name]
        total = int(spared.sum())
        if not total:
            continue
        # A removed class's own logit may fall, for any input: that is what its cap is for. Nothing else may move.
        kept = np.setdiff1d(np.arange(before.shape[1]), list(evidence.removed_classes))
        count = int(moved(before[spared][:, kept], after[spared][:, kept]).sum())
        low, high = interval(count, total)
        decided = before[spared][:, kept].argmax(axis=1) != after[spared][:, kept].argmax(axis=1)
        facts[name] = {
            "records": total,
            "moved": count,
            "decided_otherwise": int(decided.sum()),
            "share_at_most": high,
            "share_at_least": low,
            "equal_to_a_requested_record": int(evidence.twins[name].sum()),
        }
        if low > level and not inert:
            moving.append(f"{count} of {total} {name} records ({int(decided.sum())} get another class)")
        elif low > level:
            message = f"the patch moves {count} of {total} {name} records that nobody asked to forget"
            findings.append(Finding(threat="excessive-support", check="locality", message=message))
        elif high <= level and not (name == "retained" and evidence.retained_gap):
            bounded.append(name)
    if evidence.reference is not None:
        facts["reference_outside_the_input_box"] = evidence.reference.outside
    if findings:
        return CheckResult(
            check="locality",
            verdict="REFUTED",
            summary=findings[0].message[0].upper() + findings[0].message[1:] + ".",
            evidence=facts,
            findings=tuple(findings),
        )
    lacking = [name for name in ("reference", "retained") if name not in bounded]
    if moving:
        return CheckResult(
            check="locality",
            verdict="INCONCLUSIVE",
            summary=f"Outputs move on {' and '.join(moving)}; the certificate does not say that nothing else moves.",
            evidence=facts,
        )
    if lacking:
        reasons = [evidence.reference_missing] if evidence.reference is None and evidence.reference_missing else []
        if evidence.retained_gap:
            reasons.append(f"{evidence.retained_gap[0].upper()}{evidence.retained_gap[1:]}.")
        reasons += [f"{_bound(facts[name], name)} (95 %)." for name in bounded]
        return CheckResult(
            check="locality",
            verdict="INCONCLUSIVE",
            summary=" ".join(
                [f"Too few {' and '.join(lacking)} records to bound the moved share by {level:g}.", *reasons]
            ),
            evidence=facts,
        )
    return CheckResult(
        check="locality",
        verdict="CONSISTENT",
        summary="Outputs of other records are equal bit by bit, up to the stated bound: "
        + ", ".join(_bound(facts[name], name) for name in bounded)
        + " (95 %).",
        evidence=facts,
    )


def _bound(found: object, name: str) -> str:
    assert isinstance(found, dict)
    return f"{found['moved']} of {found['records']} {name} records moved, at most {found['share_at_most']:.2%} of all"
