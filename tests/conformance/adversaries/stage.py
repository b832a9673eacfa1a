"""Plays an adversary: its bundle through the auditor's own entry point, in a workshop that keeps keys, logs and clock."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from auditor import audit
from auditor.profile import Profile, load_profile, parse_profile, plan_template
from auditor.view import ReportView
from protocol.messages.report import CheckLine, VerdictName, combine
from tests.auditor.workshop import Forged, Workshop
from tests.conformance.adversaries.adversary import INDISTINGUISHABLE, QUICK, Adversary, Parameters
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the auditor says.

    Args:
        verdict: of the audit; REFUTED for a finding of the monitor, and CONSISTENT for none.
        checks: every check's verdict, and whether it was required.
        findings: pairs of threat and check.
        why: the summaries of the required checks that are not CONSISTENT.
    """

    verdict: VerdictName
    checks: tuple[CheckLine, ...]
    findings: frozenset[tuple[str, str]]
    why: tuple[str, ...] = ()

    def without(self, check: str) -> VerdictName:
        """The verdict if `check` always said CONSISTENT."""
        return combine(
            tuple(dataclasses.replace(c, verdict="CONSISTENT") if c.check == check else c for c in self.checks)
        )


def seen(view: ReportView) -> Seen:
    """What a finished audit says."""
    return Seen(
        verdict=view.verdict,
        checks=tuple(
            CheckLine(check=c.check, verdict=c.verdict, required=c.check in view.required) for c in view.checks
        ),
        findings=frozenset((finding.threat, finding.check) for finding in view.findings),
        why=tuple(
            f"{c.check}: {c.summary}" for c in view.checks if c.check in view.required and c.verdict != "CONSISTENT"
        ),
    )


def _profile(workshop: Workshop, adversary: Adversary) -> tuple[str, Profile]:
    # Where membership decides, the workshop's own `indistinguishable`; else what is as strict without it.
    if adversary.check == "membership":
        return INDISTINGUISHABLE, load_profile(str(workshop.root / "profile.yaml"))
    profile = parse_profile(QUICK.encode())
    plan = workshop.root / "plan-quick.yaml"
    if not plan.exists():
        plan.write_bytes(plan_template(profile, seed=workshop.demo.seed))
    return "quick", profile


def prepare(
    workshop: Workshop, adversary: Adversary, parameters: Parameters, generator: np.random.Generator
) -> tuple[Forged, dict[str, object]]:
    """The signed bundle, and what is special about its audit."""
    plan, profile = _profile(workshop, adversary)
    request = adversary.ask(workshop, parameters, generator) if adversary.ask is not None else None
    before = adversary.before(workshop, parameters) if adversary.before is not None else None
    forged = workshop.forge(
        lambda scene: adversary.make(
            dataclasses.replace(spent(workshop, scene), predecessor=before), parameters, generator
        ),
        request=request,
        plan=plan,
        challenge=not (adversary.threat == "replay" and parameters.strength),
        answer=adversary.answered,
    )
    changes: dict[str, object] = {"profile": profile}
    if adversary.around is not None:
        changes |= adversary.around(workshop, forged, parameters, generator)
    return forged, changes


def spent(workshop: Workshop, scene: Scene) -> Scene:
    """The scene with an audit that was opened for another request."""
    path = workshop.root / "openings" / "spent.json"
    if not path.exists():
        other = workshop.demo.request("spent", "--records", "0,1")
        workshop.demo.open_audit("spent", INDISTINGUISHABLE, other)
    return dataclasses.replace(
        scene,
        spent_opening=path.read_bytes(),
        spent_opening_proof=path.with_suffix(".tlog-proof").read_bytes(),
    )


def perform(workshop: Workshop, adversary: Adversary, parameters: Parameters, generator: np.random.Generator) -> Seen:
    """Play it, audit it under the workshop's profile, and say what was seen."""
    forged, changes = prepare(workshop, adversary, parameters, generator)
    if adversary.watch is not None:
        watched = adversary.watch(workshop, forged, parameters, generator)
        return Seen(
            verdict="REFUTED" if watched.findings else "CONSISTENT",
            checks=(
                CheckLine(check="monitor", verdict="REFUTED" if watched.findings else "CONSISTENT", required=True),
            ),
            findings=frozenset((finding.threat, finding.check) for finding in watched.findings),
            why=watched.notes,
        )
    return seen(audit.examine(workshop.inputs(forged, **changes)).view)


__all__ = ["Seen", "perform", "prepare", "seen"]
