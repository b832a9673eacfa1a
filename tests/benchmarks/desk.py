"""Bundles that are never written: an adversary's draft as the evidence that the auditor's checks look at.

For studies of hundreds of runs. What a signed bundle would add (signatures, log proofs, digests) is taken from one
honest bundle of the same world; patch, claims, requested records, openings and the challenge's draw are the run's own,
and go through the parsers of the files that a bundle has. The checks are the auditor's, unchanged.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from auditor.evidence import Evidence, Reference
from auditor.profile import Profile, load_profile
from owner.certify import Draft, RequestFile
from owner.methods import prune
from owner.methods.job import Job
from owner.targets import Target
from owner.workspace import Workspace
from protocol import claims as claim_lines
from protocol import openings
from protocol.model import patch as patch_file
from protocol.records import list_root
from tests.auditor.workshop import Workshop
from tests.benchmarks.matrix import Settings, parts_of, world_of
from tests.conformance.adversaries import Scene

OPENED = 200


class Desk:
    """One world, and any number of runs in it."""

    def __init__(self, workshop: Workshop, forgotten: int) -> None:
        self.workshop, self.forgotten = workshop, forgotten
        forged = workshop.forge(plan="indistinguishable")
        profile = load_profile(str(workshop.root / "profile.yaml"))
        self.honest: Evidence = workshop.evidence(forged, profile=profile)
        self.usual: Scene = workshop.scene(workshop.records, forged.opening)
        self.workspace: Workspace = self.usual.job.workspace
        self.trained = len(self.workspace.records.labels)

    def scene(self, rows: np.ndarray, generator: np.random.Generator) -> Scene:
        """An honest owner's result for these rows of the training data."""
        (file,) = self.usual.requests
        listed = tuple(sorted(self.workspace.commitments_of(rows.tolist())))
        request = dataclasses.replace(file.request, records_root=list_root(listed), record_count=len(listed))
        job = Job(
            workspace=self.workspace, requests=((request, tuple(int(row) for row in rows)),),
            target=Target(name="match"), radius=None, ceiling=64, generator=generator,
        )  # fmt: skip
        return Scene(
            job=job, result=prune.run(job),
            requests=(RequestFile(envelope=file.envelope, request=request, listed=listed, proof=file.proof),),
            opening=self.usual.opening, opening_proof=self.usual.opening_proof, now=self.usual.now,
        )  # fmt: skip

    def draw(self, generator: np.random.Generator, forgotten: int | None = None) -> np.ndarray:
        """Rows to forget."""
        count = forgotten if forgotten is not None else self.forgotten
        return np.sort(generator.choice(self.trained, count, replace=False))

    def evidence(
        self, draft: Draft, scene: Scene, generator: np.random.Generator,
        *, reference: Reference | None = None, profile: Profile | None = None,
    ) -> Evidence:  # fmt: skip
        """What the checks would look at, had the draft been signed and challenged with a fresh draw."""
        case, files = self.honest.case, draft.files
        patch = patch_file.parse(files["patch.json"][1], files["patch.safetensors"][1])
        lines = claim_lines.split_lines(files["claims.jsonl"][1])
        (entry,) = scene.requests
        known = dataclasses.replace(case.requests[0], request=entry.request, listed=entry.listed)
        challenge = self.honest.transcript.challenge
        assert challenge is not None
        count = min(OPENED, self.trained)
        drawn = np.sort(generator.choice(self.trained, count, replace=False))
        return dataclasses.replace(
            self.honest,
            case=dataclasses.replace(
                case, patch=patch, patch_bytes=len(files["patch.safetensors"][1]),
                claims=claim_lines.parse_file(files["claims.jsonl"][1]), claim_lines=lines,
                claims_root=claim_lines.root(lines), requests=(known,),
                opened=openings.parse(files["openings.npz"][1]),
            ),
            transcript=dataclasses.replace(
                self.honest.transcript, challenge_value=generator.bytes(32),
                challenge=dataclasses.replace(challenge, count=count),
                opened=tuple(self.workspace.open_indices([int(index) for index in drawn])),
            ),
            reference=reference if reference is not None else self.honest.reference,
            profile=profile if profile is not None else self.honest.profile,
        )  # fmt: skip


def desk(settings: Settings, number: int) -> "tuple[Desk, tempfile.TemporaryDirectory[str]]":
    """A desk with a seed of its own, and the folder to clean up."""
    folder = tempfile.TemporaryDirectory()
    own = dataclasses.replace(settings, seed=settings.seed + number)
    workshop = world_of(parts_of("digits", own, None), "mlp", own, Path(folder.name))
    return Desk(workshop, settings.forgotten), folder


__all__ = ["Desk", "desk"]
