"""Cases of `audit`: small bundles by the reference owner, honest or not; and bundles that got damaged on the way.

Made with fresh keys for each session. The bundles are too small for statistics: their profile requires the checks that
decide exactly.
"""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from owner.certify import Draft, sign_bundle
from owner.methods import prune
from owner.methods.job import Job
from owner.targets import Target
from owner.unlearn import read_request
from owner.workspace import Workspace
from protocol.keys import load_signing_key
from protocol.messages.request import Scope, serialise_list
from tests.conformance import case
from tests.conformance.adversaries import ADVERSARIES, Scene, partial_forget_set
from tests.conformance.case import VERDICTS, Step
from tests.demo.world import must
from tests.owner import tiny as tiny_world

PROFILE = """version: prune-audit/profile/v1
name: exact
required: [authenticity, inclusion, freshness, binding, completeness, redirection, boundedness, hygiene]
levels: {membership: {shadows: 2}}
"""
CALL = (
    "audit", "@bundle", "--policy", "@policy.txt", "--trust", "@trust.json", "--profile", "@profile.yaml",
    "--reference", "@ref.npz", "--key", "@keys/auditor.key", "--log", "@log/auditor", "--out", "@report",
    "--now", "2026-06-01T00:00:00Z",
)  # fmt: skip


IDS = tuple(
    f"audit/{name}"
    for name in (
        "another-request", "base-swap", "certificate-damaged", "claims-damaged", "erased-openings", "forged-request",
        "hidden-payload", "honest", "hostile-artefact", "manifest-damaged", "model-damaged", "no-patch", "no-proof",
        "no-quorum", "noop-patch", "partial-forget-set", "replay", "silent-drop", "substituted-record", "symbolic-link",
        "unlisted-file", "unsound-region",
    )
)  # fmt: skip
"""What `write` makes; a list, so that nothing is made before a case is asked for."""


class Forge:
    """A small world in which bundles can be signed."""

    def __init__(self, root: Path) -> None:
        self.tiny = tiny_world.build(root)
        X, y = tiny_world.records(300, 9)
        np.savez(root / "ref.npz", X=X, y=y)
        (root / "profile.yaml").write_text(PROFILE)
        self.number = 0
        self._scenes: dict[Path, Scene] = {}

    def scene(self, request: Path) -> Scene:
        """An honest job and result in answer to a request."""
        if request not in self._scenes:
            self._scenes[request] = self._scene(request)
        return dataclasses.replace(self._scenes[request], now=self.tiny.world.clock.now + 60)

    def _scene(self, request: Path) -> Scene:
        workspace = Workspace(folder=self.tiny.commitment)
        file = read_request(workspace, request)
        job = Job(
            workspace=workspace, requests=((file.request, tuple(workspace.rows_of(file.listed))),),
            target=Target(name="misclassify"), radius=None, ceiling=4, generator=np.random.default_rng(1),
        )  # fmt: skip
        return Scene(
            job=job, result=prune.run(job), requests=(file,), opening=None, opening_proof=None,  # type: ignore[arg-type]
            now=self.tiny.world.clock.now + 60,
        )  # fmt: skip

    def bundle(self, change: Callable[[Scene], Draft], request: Path | None = None) -> Path:
        self.number += 1
        out = self.tiny.root / "bundles" / str(self.number)
        made = change(self.scene(request or self.tiny.request))
        world = self.tiny.world
        sign_bundle(made, key=load_signing_key(world.key("owner")), log=world.owner_log, out=out)
        world.clock.tick()
        return out

    def settle(self, *bundles: Path) -> None:
        world = self.tiny.world
        for log in (world.owner_log, world.auditor_log):
            world.witness(log)
        for bundle in bundles:
            must("prune-owner", "publish", bundle, "--log", world.owner_log)


def _certificate(**fields: Any) -> Callable[[Scene], Draft]:
    def change(scene: Scene) -> Draft:
        made = scene.draft()
        return dataclasses.replace(made, certificate=dataclasses.replace(made.certificate, **fields))

    return change


def _forged_request(forge: Forge) -> Path:
    """A request that says the subject made it, signed by the owner."""
    from owner.journal import append, sign
    from protocol import records
    from protocol.digests import sha256_hex
    from protocol.messages.request import Request

    workspace = Workspace(folder=forge.tiny.commitment)
    listed = tuple(sorted(workspace.commitments_of([5, 6])))
    message = Request(
        subject=sha256_hex(workspace.envelope), scope=Scope(kind="records"), records_root=records.list_root(listed),
        record_count=2, on_behalf=False, requested_at=forge.tiny.world.clock.now, deadline=None,
    )  # fmt: skip
    envelope = sign(message.payload(), load_signing_key(forge.tiny.world.key("owner")))
    path = forge.tiny.root / "forged.json"
    path.write_bytes(envelope)
    path.with_suffix(".leaves.json").write_bytes(serialise_list(listed))
    path.with_suffix(".tlog-proof").write_bytes(append(forge.tiny.world.owner_log, envelope))
    return path


def write(root: Path, work: Path) -> None:
    """Write every case of `audit`; `work` is where the world is built."""
    forge = Forge(work / "world")
    signed: list[tuple[str, str, Path, str, tuple[str, ...]]] = [
        ("honest", "An honest bundle for three records.", forge.bundle(Scene.draft), "CONSISTENT", ()),
    ]
    for threat in (
        "noop-patch", "partial-forget-set", "unsound-region", "base-swap", "substituted-record", "hidden-payload",
        "hostile-artefact",
    ):  # fmt: skip
        adversary = ADVERSARIES[threat]
        made = (
            (lambda scene: ADVERSARIES["partial-forget-set"](scene, partial_forget_set.Parameters(dropped=1)))
            if threat == "partial-forget-set"
            else adversary
        )
        why = (adversary.__doc__ or "").splitlines()[0]
        signed.append((threat, why, forge.bundle(made), "REFUTED", (threat,)))
    signed += [
        ("silent-drop", "The certificate's root is that of other claims.",
         forge.bundle(_certificate(claims_root=bytes(32))), "REFUTED", ("silent-drop",)),
        ("replay", "The certificate names another commitment.", forge.bundle(_certificate(commitment="0" * 64)),
         "REFUTED", ("replay",)),
        ("another-request", "The certificate answers a request that the bundle does not hold.",
         forge.bundle(_certificate(requests=("0" * 64,))), "REFUTED", ("partial-forget-set",)),
        ("forged-request", "The owner signed a request as if the subject had.",
         forge.bundle(Scene.draft, _forged_request(forge)), "REFUTED", ("forged-request",)),
    ]  # fmt: skip
    forge.settle(*(bundle for _, _, bundle, _, _ in signed))
    honest = signed[0][2]

    def put(name: str, why: str, bundle: Path, **expected: Any) -> Path:
        folder = root / "audit" / name
        shutil.copytree(bundle, folder / "bundle")
        world = forge.tiny.root
        for part in (
            "log/auditor",
            "log/auditor.key",
            "keys/auditor.key",
            "policy.txt",
            "trust.json",
            "ref.npz",
            "profile.yaml",
        ):
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (world / part).is_dir() else shutil.copy
            copy(world / part, folder / part)
        case.write(root, f"audit/{name}", clause="13.1, 13.4", why=why, steps=[Step(arguments=CALL, **expected)])
        return folder / "bundle"

    for name, why, bundle, verdict, threats in signed:
        result: dict[str, Any] = {"verdict": verdict, "profile": "exact"}
        # The honest bundle of so small a world still stores its records (patch-as-record), which its profile allows.
        result |= {"includes": list(threats)} if threats else {}
        put(name, why, bundle, exit=VERDICTS[verdict], result=result)
    erased = put(
        "erased-openings", "The opened records were erased: nobody can say more, and nobody is accused.", honest, exit=5,
        result={"verdict": "INCONCLUSIVE", "findings": []},
    )  # fmt: skip
    (erased / "openings.npz").unlink()

    def damaged(name: str, why: str, reasons: tuple[str, ...], change: Callable[[Path], object]) -> None:
        change(put(name, why, honest, exit=4, reasons=reasons))

    def append_to(path: str) -> Callable[[Path], object]:
        return lambda folder: (folder / path).write_bytes((folder / path).read_bytes() + b" ")

    forms = ("malformed", "non-canonical", "schema")
    damaged(
        "model-damaged",
        "A byte was added to the deployed model in transit.",
        ("digest-mismatch",),
        append_to("patched.onnx"),
    )
    damaged("claims-damaged", "A byte was added to the claims.", ("digest-mismatch",), append_to("claims.jsonl"))
    damaged("manifest-damaged", "The manifest is not the signed one.", ("digest-mismatch",), append_to("manifest.json"))
    damaged(
        "certificate-damaged",
        "The certificate is not the logged one.",
        ("inclusion", *forms),
        append_to("certificate.dsse.json"),
    )
    damaged(
        "unlisted-file", "A file that the manifest does not list.", forms, lambda f: (f / "notes.txt").write_bytes(b"x")
    )
    damaged("no-proof", "The certificate's proof is missing.", ("unverifiable", "inclusion"),
            lambda f: (f / "proofs" / "certificate.tlog-proof").unlink())  # fmt: skip
    damaged("no-patch", "A listed file is missing.", ("digest-mismatch", *forms), lambda f: (f / "patch.json").unlink())
    damaged(
        "no-quorum", "The certificate's checkpoint has lost its cosignatures.", ("no-quorum",), _without_cosignatures
    )
    place = put("symbolic-link", "A listed file is a link.", honest, exit=4, reasons=(*forms, "digest-mismatch"))
    shutil.move(place / "recipe.json", place.parent / "recipe.json")
    (place / "recipe.json").symlink_to("../recipe.json")


def _without_cosignatures(folder: Path) -> None:
    path = folder / "proofs" / "certificate.tlog-proof"
    text, _, lines = path.read_bytes().rpartition(b"\n\n")
    own = [line for line in lines.splitlines(keepends=True) if b"log.owner.example" in line]
    path.write_bytes(text + b"\n\n" + b"".join(own))
