"""Claims of an earlier certificate, or of this one's own root, are missing, and nobody says so.

Kinds: `list`, the list of claims on the table is shorter than the one that the root stands for; `successor`, a
certificate that builds on another takes its last claims back without dropping them by name; `skipped`, it builds on one
that another certificate has superseded already, whose claims it so gets rid of (seen with the owner's log at hand).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from owner.certify import Draft
from owner.succession import Predecessor, _read
from protocol.claims import NoRedirection
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene

if TYPE_CHECKING:
    from tests.auditor.workshop import Forged, Workshop


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """How many claims are missing, and how."""

    dropped: int
    kind: Literal["list", "successor", "skipped"] = "list"

    @property
    def strength(self) -> float:
        return float(self.dropped)


def before(workshop: "Workshop", parameters: Parameters) -> Predecessor | None:
    """The certificate that the bundle builds on, made honestly; where one is skipped, the one before it."""
    if parameters.kind == "list":
        return None
    forged = workshop.forge(challenge=False)
    first = _read(forged.bundle, (forged.bundle / "certificate.dsse.json").read_bytes(), workshop.world.owner_log)
    if parameters.kind == "skipped":
        workshop.forge(lambda scene: dataclasses.replace(scene, predecessor=first).draft(), challenge=False)
    return first


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    if parameters.kind == "successor":
        kept = len(scene.result.claims) - parameters.dropped
        taken = tuple(
            NoRedirection(record=claim.record, reason="it costs something") for claim in scene.redirections[kept:]
        )
        return scene.draft(dataclasses.replace(scene.result, claims=(*scene.redirections[:kept], *taken)))
    made = scene.draft()
    if parameters.kind == "list":
        role, data = made.files["claims.jsonl"]
        lines = data.splitlines(keepends=True)
        made.files["claims.jsonl"] = (role, b"".join(lines[: len(lines) - parameters.dropped]))
    return made


def around(
    workshop: "Workshop", forged: "Forged", parameters: Parameters, generator: np.random.Generator
) -> Mapping[str, Any]:
    """Where the line of certificates matters, the auditor looks at the owner's log."""
    return {} if parameters.kind == "list" else {"owner_log": workshop.world.owner_log}


ADVERSARY = Adversary(
    threat="silent-drop",
    check="binding",
    honest=Parameters(dropped=0, kind="successor"),
    sweep=(
        Parameters(dropped=1),
        Parameters(dropped=1, kind="successor"),
        Parameters(dropped=1, kind="skipped"),
        Parameters(dropped=10),
        Parameters(dropped=10, kind="successor"),
    ),
    limit=1.0,
    limit_text="one claim; a skipped certificate once the owner's log is looked at",
    play=play,
    before=before,
    around=around,
)
