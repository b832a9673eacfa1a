"""Dishonest owners, one module for each threat: the file is named after the threat's id in threat_models/.

`ROLES` has all of them, with their strengths and honest twins; `ADVERSARIES` what the demonstration and the
conformance cases play of them, each a function of a scene; `SEATS` the threats that nobody plays here, and why.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from owner.certify import Draft
from tests.conformance.adversaries.adversary import Adversary, Parameters
from tests.conformance.adversaries.scene import Scene

_SHARED = {"__init__", "adversary", "scene", "stage", "wide_item", "rewritten_log"}


@dataclass(frozen=True)
class Seat:
    """Why nobody plays a threat here, and the test that plays it elsewhere, if its finding exists."""

    reason: str
    played_by: str | None = None


_DEPLOYMENT = "played against a live endpoint, by the tests of the deployment check"
SEATS: dict[str, Seat] = {
    "serving-swap": Seat(_DEPLOYMENT),
    "patch-strip": Seat(_DEPLOYMENT),
    "audit-detector": Seat(_DEPLOYMENT),
    "precision-drift": Seat(_DEPLOYMENT),
    "pair-leakage": Seat("a property of every local patch, reported and never failed: an honest owner has it, too"),
    "relabel-disguise": Seat("no check looks at features; on outputs it is over-forgetting, which is played"),
    "denied-record": Seat("a slip is verified where a request or a receipt is; an audit has no finding of it"),
    "decoy-commitment": Seat("mostly undetectable, and stated so"),
    "key-compromise": Seat("refused on loading, which accuses nobody; tests of the trust file play it"),
    "curious-auditor": Seat("the auditor's own duty: no bundle shows it"),
    "retentive-auditor": Seat("the auditor's own duty: no bundle shows it"),
    "colluding-auditor": Seat("shown by replaying a report, not by an audit"),
    "forged-training-log": Seat("undetectable from parameters alone, and stated so"),
}
"""Threats without an adversary here. A threat whose finding exists needs a module, or the test that plays it."""


def _load() -> dict[str, Adversary]:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py"))
    found = (import_module(f"{__name__}.{name}").ADVERSARY for name in names if name not in _SHARED)
    return {adversary.threat: adversary for adversary in found}


ROLES: dict[str, Adversary] = _load()


def _shown(adversary: Adversary) -> Callable[..., Draft]:
    def make(scene: Scene, parameters: Parameters | None = None) -> Draft:
        chosen = parameters if parameters is not None else adversary.shown
        assert chosen is not None
        return adversary.make(scene, chosen, np.random.default_rng(adversary.seed))

    module = import_module(f"{__name__}.{adversary.threat.replace('-', '_')}")
    make.__doc__ = module.__doc__
    return make


_ORDER = (
    "noop-patch", "partial-forget-set", "unsound-region", "base-swap", "substituted-record", "excessive-support",
    "replay", "point-lookup", "patch-as-record", "hostile-artefact", "hidden-payload",
)  # fmt: skip
ADVERSARIES: dict[str, Callable[..., Draft]] = {name: _shown(ROLES[name]) for name in _ORDER}

__all__ = ["ADVERSARIES", "ROLES", "SEATS", "Adversary", "Parameters", "Scene", "Seat"]
