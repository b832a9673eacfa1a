"""What an adversary is: a behaviour with a strength, an honest twin, and the finding that it must earn.

The twin is the same code at strength 0, so that an accusation of it would be one of an honest owner.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from auditor.monitor import Watched
from owner.certify import Draft
from protocol.messages.report import VerdictName
from tests.conformance.adversaries.scene import Scene

if TYPE_CHECKING:
    from pathlib import Path

    from owner.succession import Predecessor
    from tests.auditor.workshop import Forged, Workshop

INDISTINGUISHABLE = "indistinguishable"
QUICK = """version: prune-audit/profile/v1
name: quick
required: [authenticity, inclusion, freshness, binding, completeness, redirection, locality, utility, persistence,
  disclosure, boundedness, challenge, hygiene]
levels: {membership: {shadows: 2, controls: 100, attacks: [loss], required_attacks: [loss]}}
"""
"""The checks and levels of `redirection`; what it does not require (membership) is kept short."""


class Parameters(Protocol):
    """A frozen dataclass of what an adversary can choose."""

    @property
    def strength(self) -> float:
        """0 for the honest twin; more is more of the threat."""


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """One threat, played.

    Args:
        threat: its id in threat_models/.
        check: the check that has to see it.
        also: further checks whose finding of this threat will do, where the strengths are of different kinds.
        honest: parameters of strength 0: the honest twin.
        sweep: parameters, weakest first.
        limit: strength from which on it has to be found.
        limit_text: the same in words, for the matrix.
        play: makes the bundle, dishonest by these parameters; None if the bundle is honest and something else is not.
        shown: what the demonstration plays; None if it is not in `ADVERSARIES`.
        seed: of the demonstration's generator.
        expected: the audit's verdict from the limit on; of the monitor REFUTED stands for a finding.
        accuses: whether the finding has to be there; some threats make a verdict INCONCLUSIVE and accuse nobody.
        says: where nobody is accused, words that the auditor's reason has to hold.
        statistical: whether the verdict follows from a sample, so that the matrix is not the place to state its rates.
        ask: makes the request that the bundle answers; None takes the usual one.
        before: signs, in the same log, the certificate that the bundle builds on; None for a first one.
        answered: whether the owner answers the challenge at all.
        around: after the bundle is signed, what changes for the audit (fields of `audit.Inputs`).
        watch: looks at the logs afterwards; the finding then comes from the monitor.
    """

    threat: str
    check: str
    honest: Parameters
    sweep: tuple[Parameters, ...]
    limit: float
    limit_text: str
    also: tuple[str, ...] = ()
    play: Callable[[Scene, Any, np.random.Generator], Draft] | None = None
    shown: Parameters | None = None
    seed: int = 0
    expected: VerdictName = "REFUTED"
    accuses: bool = True
    says: str = ""
    statistical: bool = False
    ask: "Callable[[Workshop, Any, np.random.Generator], Path | None] | None" = None
    before: "Callable[[Workshop, Any], Predecessor | None] | None" = None
    answered: bool = True
    around: "Callable[[Workshop, Forged, Any, np.random.Generator], Mapping[str, Any]] | None" = None
    watch: "Callable[[Workshop, Forged, Any, np.random.Generator], Watched] | None" = None

    def __str__(self) -> str:
        return self.threat

    def detectable(self, parameters: Parameters) -> bool:
        """Whether it has to be found at this strength."""
        return parameters.strength >= self.limit

    def found(self, verdict: str, findings: frozenset[tuple[str, str]], why: tuple[str, ...]) -> bool:
        """Whether the auditor's answer is the one that this adversary has to get from its limit on."""
        if verdict != self.expected:
            return False
        if self.accuses:
            return bool({(self.threat, check) for check in (self.check, *self.also)} & findings)
        return not findings and any(self.says in reason for reason in why)

    def make(self, scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
        """The bundle."""
        return self.play(scene, parameters, generator) if self.play is not None else scene.draft()


__all__ = ["INDISTINGUISHABLE", "QUICK", "Adversary", "Parameters"]
