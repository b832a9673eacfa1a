"""deployment: does the live endpoint serve the certified model, for everyone, all the time?

Queries from several identities, at random times, in a secret random order: probes inside supports (never a requested
record), probes just outside, and ordinary records. Zero cheats among n probes that can tell bound the share of cheated
queries by 1 - 0.05^(1/n): 299 of them show one in a hundred with probability 95 %. That holds for any way of choosing
which identities, times or queries to cheat, as long as it does not depend on the input: who holds the patch can see
that a probe is inside a support.

Never REFUTED. An answer over HTTP is signed by nobody, the address is the auditor's word, and no signed claim says
what is served there: what came back is the auditor's own observation, which only its own signature vouches for
(decision 0022). A deviating endpoint is INCONCLUSIVE with findings, and so never CONSISTENT; an answer that is missing,
malformed or damaged counts against the bound and accuses nobody.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from auditor.deployment import probes as probe_plan
from auditor.deployment.compare import Outcome, classify, probabilities
from auditor.deployment.journal import Journal, Line
from auditor.deployment.probes import Probe, Probes
from auditor.deployment.run import run
from auditor.deployment.source import Live, read
from auditor.deployment.spread import By, most_split
from auditor.evidence import Evidence
from auditor.statistics.proportions import clopper_pearson, negatives_needed
from auditor.view import CheckResult, Finding
from protocol.encoding import format_time

_CONFIDENCE = 0.95
_FEWEST_OTHER = 2
"""Answers of another model that it takes for a finding: one alone may be somebody else's answer, mixed up."""
_REMARK = "Whoever holds the patch can recognise probes inside a support: the bound is over identities and times."


class Asked:
    """What the check keeps for the report.

    Attributes:
        journal: the query log; None if nothing was asked.
    """

    def __init__(self) -> None:
        self.journal: Journal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A query, what came back, and what that is."""

    probe: Probe
    line: Line | None
    outcome: Outcome
    stale: bool


def at_most(cheats: int, queries: int) -> float:
    """Largest share of cheated queries that so many cheats among so many queries allow, one-sided at 95 %."""
    if not queries:
        return 1.0
    _, high = clopper_pearson(np.array([cheats]), queries, confidence=2 * _CONFIDENCE - 1)
    return float(high[0])


def check(evidence: Evidence, asked: Asked | None = None) -> CheckResult:
    """CONSISTENT if the bound is within the level and nothing deviates; else INCONCLUSIVE.

    Raises:
        Error: the endpoint stopped answering, or was asked under other conditions; what was asked is kept.
    """
    if evidence.served is None:
        return _open("No endpoint was queried: nothing is known of what is served.")
    if not evidence.runnable or evidence.case.schema is None:
        return _open(f"Nothing can be compared with an endpoint: {evidence.composed}.")
    if evidence.transcript.challenge_value is None:
        return _open("No endpoint was queried: without an opened audit anybody could foresee the probes.")
    levels = evidence.profile.levels["deployment"]
    drift = float(levels["drift_at_most"])
    journal = _journal(evidence, drift)
    if isinstance(journal, str):
        return _open(journal)
    probes, log = journal
    if asked is not None:
        asked.journal = log
    if len(probes.probes) != log.planned or any(
        line.kind != probe.kind or line.identity != _names(log)[probe.identity]
        for line, probe in zip(log.lines, probes.probes, strict=False)
    ):
        return _open("The query log does not belong to this challenge, these openings and this reference data.")
    tolerance = float(levels["tolerance"])
    if log.endpoint.get("tolerance") is not None:
        tolerance = min(tolerance, float(log.endpoint["tolerance"]))
    return _judge(_seen(probes, log, tolerance, drift), log, levels, tolerance)


def _open(summary: str) -> CheckResult:
    return CheckResult(check="deployment", verdict="INCONCLUSIVE", summary=summary)


def _names(log: Journal) -> list[str]:
    return [str(one["name"]) for one in log.endpoint["identities"]]


def _journal(evidence: Evidence, drift: float) -> tuple[Probes, Journal] | str:
    served = evidence.served
    assert served is not None
    assert evidence.case.schema is not None
    assert not isinstance(evidence.composed, str)
    if not isinstance(served, Live):
        endpoint = served.endpoint
        return probe_plan.draw(evidence, endpoint, drift=drift), served.journal
    probes = probe_plan.draw(evidence, served.endpoint, drift=drift)
    if not any(probe.kind == "core" for probe in probes.probes):
        return "No endpoint was queried: no input tells the certified model from the base."
    if served.spent:
        # What was asked before stands; nothing is asked any more.
        if served.state.exists():
            return probes, read(served.state)
        return f"No endpoint was queried: {served.spent}."
    graph = evidence.composed
    log = run(
        served, probes, schema=evidence.case.schema, names=(graph.input, graph.output), progress=evidence.progress
    )
    return probes, log


def _seen(probes: Probes, log: Journal, tolerance: float, drift: float) -> list[_Seen]:
    found = []
    for place, probe in enumerate(probes.probes):
        line = log.lines[place] if place < len(log.lines) else None
        outcome = Outcome.NONE
        if line is not None and line.logits is not None:
            outcome = classify(
                line.logits,
                probes.certified[place],
                probes.base[place],
                tells=probe.kind == "core",
                tolerance=tolerance,
                drift=drift,
            )
        found.append(
            _Seen(probe=probe, line=line, outcome=outcome, stale=line is not None and line.version is not None)
        )
    return found


def _count(seen: list[_Seen]) -> dict[str, int]:
    counted = Counter(one.outcome for one in seen)
    return {outcome.value: counted[outcome] for outcome in Outcome if counted[outcome]}


def _bad(one: _Seen) -> bool:
    return one.outcome in (Outcome.BASE, Outcome.OTHER) or one.stale


def _judge(seen: list[_Seen], log: Journal, levels: Mapping[str, Any], tolerance: float) -> CheckResult:
    level, fewest = float(levels["cheat_rate_at_most"]), int(levels["identities_at_least"])
    names = _names(log)
    core = [one for one in seen if one.probe.kind == "core"]
    rest = [one for one in seen if one.probe.kind != "core"]
    answered = [one for one in core if one.outcome not in (Outcome.NONE, Outcome.DAMAGED)]
    spoilt = sum(not one.outcome.good or one.stale for one in core)
    bound = at_most(spoilt, len(core))
    over_all = at_most(sum(not one.outcome.good or one.stale for one in seen), len(seen))
    facts = _facts(seen, log, names) | {
        "tolerance": tolerance,
        "core_probes": len(core),
        "core_probes_answered": len(answered),
        "core_probes_not_certified": spoilt,
        "cheat_rate_at_most": bound,
        "cheat_rate_at_most_over_all_queries": over_all,
        "level": level,
        "probes_needed_for_the_level": negatives_needed(level) if 0.0 < level < 1.0 else None,
    }
    form = [
        one.line.logits for one in seen if one.outcome is Outcome.OTHER and one.line and one.line.logits is not None
    ]
    if form and all(probabilities(row) for row in form):
        return CheckResult(
            check="deployment",
            verdict="INCONCLUSIVE",
            summary="The endpoint puts out probabilities where the certified file puts out logits: not comparable.",
            evidence=facts,
        )
    known = frozenset(place for place, one in enumerate(log.endpoint["identities"]) if one.get("known"))
    findings = _findings(core, rest, names, known, level)
    bounded = f"A cheat in at most {bound:.2%} of the queries is compatible with this (95 %)."
    if findings:
        return CheckResult(
            check="deployment",
            verdict="INCONCLUSIVE",
            summary=f"The auditor saw that {findings[0].message}. {bounded} Answers are not signed by the owner, so "
            "this is the auditor's own observation and accuses nobody.",
            evidence=facts,
            findings=findings,
        )
    missing = []
    if bound > level:
        missing.append(
            f"{len(core) - spoilt} of {len(core)} probes that can tell were answered as certified: a cheat in up to "
            f"{bound:.2%} of the queries would be compatible with this (95 %), the level is {level:.2%}"
        )
    elif over_all > level:
        missing.append(f"over all kinds of queries up to {over_all:.2%} may be answered otherwise")
    if not any(one.probe.kind == "ordinary" for one in seen):
        missing.append("no ordinary traffic to hide the probes in, for lack of reference data")
    if len(names) < fewest:
        missing.append(f"{len(names)} of at least {fewest} identities asked")
    if missing:
        text = "; ".join(missing)
        return CheckResult(
            check="deployment", verdict="INCONCLUSIVE", summary=f"{text[0].upper()}{text[1:]}.", evidence=facts
        )
    return CheckResult(
        check="deployment",
        verdict="CONSISTENT",
        summary=f"All {len(core)} probes that can tell, over {len(names)} identities, were answered as certified: a "
        f"cheat in {bound:.2%} of the queries or more would have been seen with probability 95 %. {_REMARK}",
        evidence=facts,
    )


def _facts(seen: list[_Seen], log: Journal, names: list[str]) -> dict[str, Any]:
    asked = [one for one in seen if one.line is not None]
    times = [one.line.at for one in asked if one.line is not None]
    failures = Counter(one.line.failure for one in asked if one.line is not None and one.line.failure)
    by_identity = []
    for place, name in enumerate(names):
        own = [one for one in seen if one.probe.identity == place and one.probe.kind == "core"]
        good = sum(one.outcome.good and not one.stale for one in own)
        by_identity.append({
            "identity": name, "core_probes": len(own), "not_certified": len(own) - good,
            "cheat_rate_at_most": at_most(len(own) - good, len(own)),
        })  # fmt: skip
    return {
        "endpoint": {key: log.endpoint[key] for key in ("urls", "model", "model_version") if key in log.endpoint},
        "queries": {
            "planned": log.planned,
            "sent": len(asked),
            "requests": log.requests,
            "interruptions": log.resumed,
            "first": format_time(int(min(times))) if times else None,
            "last": format_time(int(max(times))) if times else None,
        },
        "disclosed_to_the_endpoint": {
            "inputs_near_forgotten_records": sum(one.probe.kind != "ordinary" for one in asked),
            "reference_records": len({one.probe.source for one in asked if one.probe.kind == "ordinary"}),
            "requested_records": 0,
        },
        "answers": {
            kind: _count([one for one in seen if one.probe.kind == kind]) for kind in ("core", "near", "ordinary")
        },
        "records_probed": len({one.probe.source for one in asked if one.probe.style in ("all", "few")}),
        "inside_claimed_regions": sum(one.probe.certified for one in seen),
        "by_identity": by_identity,
        "no_answer": dict(failures.most_common(5)),
        "remark": _REMARK,
    }


def _findings(
    core: list[_Seen], rest: list[_Seen], names: list[str], known: frozenset[int], level: float
) -> tuple[Finding, ...]:
    findings: list[Finding] = []

    def report(threat: str, message: str) -> None:
        findings.append(Finding(threat=threat, check="deployment", message=message))

    _report_models(core, rest, names, known, report)
    _report_drift(core + rest, level, report)
    return tuple(findings)


def _report_models(
    core: list[_Seen],
    rest: list[_Seen],
    names: list[str],
    known: frozenset[int],
    report: Callable[[str, str], None],
) -> None:
    stale = [one for one in core + rest if one.stale]
    if stale:
        versions = sorted({one.line.version or "" for one in stale if one.line is not None})
        report("serving-swap", f"{len(stale)} answers name another version than the one asked for ({versions[0][:60]})")
    answered = [one for one in core if one.outcome not in (Outcome.NONE, Outcome.DAMAGED)]
    base = [one for one in answered if one.outcome is Outcome.BASE]
    other = [one for one in core + rest if one.outcome is Outcome.OTHER]
    if not base and len(other) < _FEWEST_OTHER:
        return
    if not base:
        total = sum(one.outcome not in (Outcome.NONE, Outcome.DAMAGED) for one in core + rest)
        report("serving-swap", f"{len(other)} of {total} answers are another model's than the certified one's")
        return
    bad = [one for one in answered if _bad(one)]
    if len(bad) == len(answered):
        report("patch-strip", f"all {len(answered)} answers inside supports are the base model's, as without the patch")
        return
    split = most_split(answered, names, bad=_bad, known=known)
    share = f"{len(bad)} of {len(answered)} answers inside supports are not the certified model's"
    if split is not None and split.by in (By.STYLE, By.KNOWN):
        report("audit-detector", f"{share}, and whether they are depends on {split.text}")
    else:
        report("serving-swap", f"{share}" + (f": {split.text}" if split is not None else ""))


def _report_drift(seen: list[_Seen], level: float, report: Callable[[str, str], None]) -> None:
    answered = [one for one in seen if one.outcome not in (Outcome.NONE, Outcome.DAMAGED)]
    off = sum(one.outcome is Outcome.DRIFT for one in answered)
    if not answered or not off:
        return
    low, _ = clopper_pearson(np.array([off]), len(answered), confidence=2 * _CONFIDENCE - 1)
    if float(low[0]) > level:
        report(
            "precision-drift",
            f"{off} of {len(answered)} answers are off by more than the tolerance and by as little as other arithmetic "
            "explains",
        )


__all__ = ["Asked", "at_most", "check"]
