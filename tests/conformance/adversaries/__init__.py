"""Dishonest owners, one module for each threat: the file is named after the threat's id in threat_models/.

`ROLES` has all of them, with their strengths and honest twins; `ADVERSARIES` what the demonstration and the
conformance cases play of them, each a function of a scene; `SEATS` the threats that nobody plays here, and why.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from owner.certify import Draft
from tests.conformance.adversaries.adversary import Adversary, Parameters
from tests.conformance.adversaries.scene import Scene

_SHARED = {"__init__", "adversary", "scene", "stage", "wide_item", "rewritten_log"}
_DEPLOYMENT = "played against a live endpoint, by the tests of the deployment check"
SEATS: dict[str, str] = {
    "serving-swap": _DEPLOYMENT,
    "patch-strip": _DEPLOYMENT,
    "audit-detector": _DEPLOYMENT,
    "precision-drift": _DEPLOYMENT,
    "pair-leakage": "a property of every local patch, reported and never failed: an honest owner has it, too",
    "relabel-disguise": "no check looks at features; on outputs it is over-forgetting, which is played",
    "denied-record": "a slip is verified where a request or a receipt is; an audit has no finding of it",
    "decoy-commitment": "mostly undetectable, and stated so",
    "key-compromise": "such a message is refused on loading, which accuses nobody; tests of the trust file play it",
    "curious-auditor": "the auditor's own duty: no bundle shows it",
    "retentive-auditor": "the auditor's own duty: no bundle shows it",
    "colluding-auditor": "shown by replaying a report, not by an audit",
    "forged-training-log": "undetectable from parameters alone, and stated so",
}
"""Threats without an adversary here. A threat whose finding exists must leave this list and get a module."""


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

__all__ = ["ADVERSARIES", "ROLES", "SEATS", "Adversary", "Parameters", "Scene"]
