"""A place to make signed bundles in, honest or not, and to look at them with the auditor's own functions.

One copy of the small world for a whole session; every bundle has its own opened audit, challenge and answer.
"""

import copy
import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor import audit, case, transcript
from auditor.evidence import Evidence, load_reference
from auditor.ledger import Ledger
from auditor.profile import Profile, load_profile
from owner.certify import Draft, sign_bundle
from protocol import trust as trust_file
from protocol.digests import sha256_hex
from protocol.keys import load_signing_key
from protocol.log import policy as policy_file
from tests.conformance.adversaries import Scene
from tests.demo.world import Clock, World


@dataclass(frozen=True)
class Forged:
    """A bundle and its answer, and when that was: tests share one clock, which others move on."""

    bundle: Path
    openings: Path | None
    opening: Path
    at: int


class Workshop:
    """See the module."""

    def __init__(self, demo: Any, root: Path) -> None:
        shutil.copytree(demo.world.root, root)
        self.demo = copy.copy(demo)
        self.demo.world = World(root=root, clock=Clock(demo.world.clock.now))
        self.demo.commitment = root / "commitment"
        self.demo.runs = []
        self.root = root
        self.records = root / "requests" / "records.json"
        self.count = 0
        self._scenes: dict[Path, Scene] = {}

    @property
    def world(self) -> World:
        world: World = self.demo.world
        return world

    @property
    def ledger(self) -> Ledger:
        return Ledger(log=self.world.auditor_log)

    @property
    def policy(self) -> policy_file.Policy:
        return policy_file.parse(self.world.policy.read_bytes())

    @property
    def trust(self) -> trust_file.Trust:
        return trust_file.parse(self.world.trust.read_bytes())

    def scene(self, request: Path, opening: Path) -> Scene:
        if request not in self._scenes:
            self._scenes[request] = self.demo.scene(request, opening)
        return dataclasses.replace(
            self._scenes[request],
            opening=opening.read_bytes(),
            opening_proof=opening.with_suffix(".tlog-proof").read_bytes(),
            now=self.world.clock.now + 60,
        )

    def forge(
        self,
        change: Callable[[Scene], Draft] = Scene.draft,
        *,
        request: Path | None = None,
        opened_for: tuple[Path, ...] = (),
        plan: str = "redirection",
        challenge: bool = True,
        answer: bool = True,
    ) -> Forged:
        """A bundle in answer to `request`, changed before it is signed."""
        request = request or self.records
        self.count += 1
        folder = self.root / "forged" / str(self.count)
        opening = self.demo.open_audit(f"forged-{self.count}", plan, *(opened_for or (request,)))
        made = change(self.scene(request, opening))
        sign_bundle(
            made, key=load_signing_key(self.world.key("owner")), log=self.world.owner_log, out=folder / "bundle"
        )
        self.world.clock.tick()
        openings = self.demo.challenge(folder / "bundle", opening, answered=answer) if challenge else None
        self.demo.settle(folder / "bundle", openings)
        return Forged(folder / "bundle", openings, opening, self.world.clock.now)

    def case(self, forged: Forged) -> case.Case:
        return case.load(forged.bundle, policy=self.policy, trust=self.trust, own_proofs=self.ledger.proofs())

    def evidence(
        self, forged: Forged, *, profile: Profile | None = None, reference: bool = True, now: int | None = None
    ) -> Evidence:
        """What the checks look at."""
        found = self.case(forged)
        profile = profile or load_profile("redirection")
        known = transcript.replay(
            certificate=found.certificate,
            certificate_leaf=found.certificate_logged.leaf,
            certificate_sha256=sha256_hex(found.certificate_logged.envelope.raw),
            requests=tuple(request.logged.leaf for request in found.requests),
            commitment=found.commitment,
            answer_folder=forged.openings,
            ledger=self.ledger,
            policy=self.policy,
            trust=self.trust,
            profile_sha256=profile.sha256,
            now=now if now is not None else self.world.clock.now,
        )
        data = None
        if reference and found.schema is not None and found.base is not None:
            data = load_reference(self.root / "data" / "ref.npz", found.schema, found.base.classes)
        return Evidence(
            case=found,
            profile=profile,
            transcript=known,
            reference=data,
            reference_missing="" if data is not None else "No reference data was given (--reference).",
            seed=1,
            shadow_cache=self.root / "shadows",
            progress=lambda _stage, _share: None,
        )

    def inputs(self, forged: Forged, **changes: Any) -> audit.Inputs:
        """Arguments of a whole audit."""
        values: dict[str, Any] = {
            "bundle": forged.bundle,
            "policy": self.world.policy.read_bytes(),
            "trust": self.world.trust.read_bytes(),
            "profile": load_profile("redirection"),
            "openings": forged.openings,
            "reference": self.root / "data" / "ref.npz",
            "state": None,
            "owner_log": None,
            "key": load_signing_key(self.world.key("auditor")),
            "ledger": self.ledger,
            "shadow_cache": self.root / "shadows",
            "now": self.world.clock.now,
            "seed": 1,
            "progress": lambda _stage, _share: None,
        }
        return audit.Inputs(**(values | changes))

    def verdicts(self, forged: Forged, **changes: Any) -> tuple[str, dict[str, str], set[str]]:
        """Verdict, verdict of every check, and findings of a whole audit."""
        view = audit.examine(self.inputs(forged, **changes)).view
        return view.verdict, {c.check: c.verdict for c in view.checks}, {f.threat for f in view.findings}
