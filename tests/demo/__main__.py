"""The demonstration: an honest owner, then dishonest ones, each with the finding that gives it away.

    python -m tests.demo --out demo [--data file.npz] [--model mlp|conv] [--quick]

Writes `summary.json` and exits non-zero if any run is not as expected.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from auditor.profile import load_profile, plan_template
from owner.certify import sign_bundle
from owner.journal import append, sign
from owner.methods import prune
from owner.methods.job import Job
from owner.targets import Target
from owner.unlearn import read_request
from owner.workspace import Workspace
from protocol.digests import sha256_hex
from protocol.keys import load_signing_key
from protocol.log.store import Log
from protocol.messages.request import Request
from protocol.model import recipe as recipe_file
from protocol.model.recipe import Recipe
from tests.conformance.adversaries import ADVERSARIES, Scene
from tests.demo.data import Parts, digits, from_file, train_base
from tests.demo.world import OWNER_LOG, Clock, Ran, World, must, run

START = 1_780_000_000


class Demo:
    """One demonstration in one folder."""

    def __init__(self, world: World, parts: Parts, *, kind: str, seed: int) -> None:
        self.world, self.parts, self.kind, self.seed = world, parts, kind, seed
        self.recipe = Recipe(epochs=20 if kind == "conv" else 40, batch=32 if len(parts.y_train) < 2000 else 64)
        self.runs: list[dict[str, object]] = []
        self.commitment = world.root / "commitment"
        self.shadows = 32
        # Records of one person are not exchangeable with records of other people, so that no attack can be
        # read on them (the audit says INCONCLUSIVE): there the demonstration is about certified redirection.
        self.profile = "indistinguishable" if parts.subjects is None else "redirection"

    def say(self, text: str) -> None:
        print(text, flush=True)

    # --- the honest way, through the two programs -------------------------------------------------

    def prepare(self) -> None:
        world, parts = self.world, self.parts
        world.build()
        source = world.root / "data"
        source.mkdir()
        (source / "base.onnx").write_bytes(train_base(parts, self.kind, self.recipe, self.seed))
        (source / "recipe.json").write_bytes(recipe_file.serialise(self.recipe))
        extra = {} if parts.subjects is None else {"subject_train": parts.subjects}
        np.savez(
            source / "train.npz",
            X_train=parts.X_train, y_train=parts.y_train, X_test=parts.X_unseen, y_test=parts.y_unseen, **extra,
        )  # fmt: skip
        np.savez(source / "ref.npz", X=parts.X_reference, y=parts.y_reference)
        text = load_profile("indistinguishable").raw.decode()
        profile = text.replace("margin: 0.10", f"margin: {parts.margin}").replace(
            "shadows: 32", f"shadows: {self.shadows}"
        )
        (world.root / "profile.yaml").write_text(profile)
        for name in ("indistinguishable", "redirection"):
            path = world.root / "profile.yaml" if name == "indistinguishable" else name
            plan = plan_template(load_profile(str(path)), seed=self.seed)
            (world.root / f"plan-{name}.yaml").write_bytes(plan)
        must(
            "prune-owner", "commit", "--model", source / "base.onnx", "--data", source / "train.npz",
            "--recipe", source / "recipe.json", "--key", world.key("owner"), "--log", world.owner_log,
            "--out", self.commitment, "--seed", self.seed, "--now", world.clock.tick(),
        )  # fmt: skip
        world.witness(world.owner_log)
        must("prune-owner", "publish", self.commitment, "--log", world.owner_log)

    def request(self, name: str, *what: object) -> Path:
        out = self.world.root / "requests" / f"{name}.json"
        must(
            "prune-owner", "request", "--commitment", self.commitment, *what, "--key", self.world.key("owner"),
            "--log", self.world.owner_log, "--out", out, "--now", self.world.clock.tick(),
        )  # fmt: skip
        return out

    def open_audit(self, name: str, profile: str, *requests: Path) -> Path:
        out = self.world.root / "openings" / f"{name}.json"
        must(
            "prune-auditor", "open-audit", *requests, "--plan", self.world.root / f"plan-{profile}.yaml",
            "--key", self.world.key("auditor"), "--log", self.world.auditor_log, "--out", out,
            "--now", self.world.clock.tick(),
        )  # fmt: skip
        return out

    def unlearn(self, out: Path, request: Path, opening: Path, *options: object) -> Ran:
        return must(
            "prune-owner", "unlearn", "--commitment", self.commitment, "--request", request, "--opening", opening, "--beside",
            *options, "--key", self.world.key("owner"), "--log", self.world.owner_log, "--out", out,
            "--seed", self.seed, "--now", self.world.clock.tick(),
        )  # fmt: skip

    def challenge(self, bundle: Path, opening: Path, *, answered: bool = True) -> Path | None:
        place = bundle.parent
        challenge = (
            "prune-auditor", "challenge", bundle, "--opening", opening, "--key", self.world.key("auditor"),
            "--log", self.world.auditor_log, "--out", place / "challenge.json", "--now",
        )  # fmt: skip
        must(*challenge, self.world.clock.tick())
        if not answered:
            return None
        # The owner opens records only for a challenge that others can see, too: the same one, with a witnessed proof.
        self.world.witness(self.world.auditor_log)
        must(*challenge, self.world.clock.tick(), "--force")
        must(
            "prune-owner", "answer", place / "challenge.json", "--commitment", self.commitment, *self.world.trusted(),
            "--key", self.world.key("owner"), "--log", self.world.owner_log, "--out", place / "openings",
            "--now", self.world.clock.tick(),
        )  # fmt: skip
        return place / "openings"

    def settle(self, *folders: Path | None) -> None:
        """Witnesses look at both logs; the owner brings its proofs up to date."""
        for log in (self.world.owner_log, self.world.auditor_log):
            self.world.witness(log)
        for folder in folders:
            if folder is not None:
                must("prune-owner", "publish", folder, "--log", self.world.owner_log)

    def audit(
        self, name: str, bundle: Path, openings: Path | None, expected: str, finding: str | None,
        *, profile: str = "indistinguishable", report: str = "report", state: Path | None = None,
        owner_log: Path | None = None, later: int = 60,
    ) -> Path:  # fmt: skip
        world = self.world
        out = bundle.parent / report
        chosen = world.root / "profile.yaml" if profile == "indistinguishable" else profile
        started = time.monotonic()
        ran = run(
            "prune-auditor", "audit", bundle, *world.trusted(), "--profile", chosen,
            *(("--openings", openings) if openings is not None else ()),
            "--reference", world.root / "data" / "ref.npz",
            *(("--state", state) if state is not None else ()),
            *(("--owner-log", owner_log) if owner_log is not None else ()),
            "--shadows", world.root / "shadows", "--seed", self.seed,
            "--key", world.key("auditor"), "--log", world.auditor_log, "--out", out,
            "--now", world.clock.tick(later), "--json",
        )  # fmt: skip
        code = {"CONSISTENT": 0, "REFUTED": 3, "INCONCLUSIVE": 5}[expected]
        found = ran.json if ran.out and ran.code in (0, 3, 5) else {"verdict": f"exit {ran.code}", "findings": []}
        threats = [entry["threat"] for entry in found["findings"]]
        good = ran.code == code and found["verdict"] == expected and (finding is None) == (not threats)
        good = good and (finding is None or finding in threats)
        self.runs.append(
            {
                "name": name,
                "profile": profile,
                "expected": expected,
                "actual": found["verdict"],
                "expected_finding": finding,
                "findings": threats,
                "report": str(out.relative_to(world.root)),
                "as_expected": good,
            }
        )
        mark = "ok  " if good else "WRONG"
        self.say(
            f"{mark} {name:28} {profile:18} {found['verdict']:13} {', '.join(threats) or '-':40} "
            f"{time.monotonic() - started:5.1f} s"
        )
        if not good:
            self.say(ran.out + ran.err)
        if ran.code in (0, 3, 5):
            world.witness(world.auditor_log)
            must("prune-auditor", "receipt", out, "--log", world.auditor_log)
            must("prune-auditor", "verify-report", out, *world.trusted(), codes=(code,))
            for receipt in sorted((out / "receipts").glob("*.receipt")):
                must("prune-auditor", "verify-receipt", receipt, *world.trusted(), codes=(code,))
        return out

    def honest(self, name: str, request: Path, *options: object, folder: str, profile: str = "") -> Path:
        profile = profile or self.profile
        bundle = self.world.root / folder / "bundle"
        opening = self.open_audit(name, profile, request)
        self.unlearn(bundle, request, opening, *options)
        openings = self.challenge(bundle, opening)
        self.settle(bundle, openings)
        self.audit(name, bundle, openings, "CONSISTENT", None, profile=profile)
        return bundle

    # --- dishonest owners ---------------------------------------------------------------------------

    def scene(self, request: Path, opening: Path, *, spent: Path | None = None, target: str = "match") -> Scene:
        workspace = Workspace(folder=self.commitment)
        file = read_request(workspace, request)
        job = Job(
            workspace=workspace,
            requests=((file.request, tuple(workspace.rows_of(file.listed))),),
            target=Target(name=target),
            radius=None,
            ceiling=64,
            generator=np.random.default_rng(self.seed),
        )
        return Scene(
            job=job,
            result=prune.run(job),
            requests=(file,),
            opening=opening.read_bytes(),
            opening_proof=opening.with_suffix(".tlog-proof").read_bytes(),
            now=self.world.clock.now + 60,
            spent_opening=spent.read_bytes() if spent is not None else None,
            spent_opening_proof=spent.with_suffix(".tlog-proof").read_bytes() if spent is not None else None,
        )

    def dishonest(self, threat: str, request: Path, *, spent: Path | None = None) -> None:
        folder = self.world.root / "dishonest" / threat
        opening = self.open_audit(threat, self.profile, request)
        made = ADVERSARIES[threat](self.scene(request, opening, spent=spent))
        bundle = folder / "bundle"
        sign_bundle(made, key=load_signing_key(self.world.key("owner")), log=self.world.owner_log, out=bundle)
        self.world.clock.tick()
        named = made.certificate.opening
        from owner.journal import leaf_of

        openings = self.challenge(bundle, opening) if named == leaf_of(opening.read_bytes()) else None
        self.settle(bundle, openings)
        self.audit(threat, bundle, openings, "REFUTED", threat, profile=self.profile)

    def forged_request(self) -> None:
        """The owner signs a request in the name of a subject that never asked."""
        workspace = Workspace(folder=self.commitment)
        from protocol import records
        from protocol.messages.request import Scope, serialise_list

        listed = tuple(sorted(workspace.commitments_of([5, 6, 7])))
        request = Request(
            subject=sha256_hex(workspace.envelope), scope=Scope(kind="records"), records_root=records.list_root(listed),
            record_count=3, on_behalf=False, requested_at=self.world.clock.now, deadline=None,
        )  # fmt: skip
        envelope = sign(request.payload(), load_signing_key(self.world.key("owner")))
        path = self.world.root / "requests" / "forged-request.json"
        path.write_bytes(envelope)
        path.with_suffix(".leaves.json").write_bytes(serialise_list(listed))
        path.with_suffix(".tlog-proof").write_bytes(append(self.world.owner_log, envelope))
        bundle = self.world.root / "dishonest" / "forged-request" / "bundle"
        opening = self.open_audit("forged-request", "redirection", path)
        self.unlearn(bundle, path, opening)
        openings = self.challenge(bundle, opening)
        self.settle(bundle, openings)
        self.audit("forged-request", bundle, openings, "REFUTED", "forged-request", profile="redirection")

    def rollback(self, honest: Path, state: Path) -> None:
        """The owner rewrites its log after the auditor has seen it: one entry is gone."""
        folder = self.world.root / "dishonest" / "rollback"
        bundle, log = folder / "bundle", folder / "log"
        shutil.copytree(honest, bundle)
        original = Log.open(self.world.owner_log)
        key = load_signing_key(self.world.key(OWNER_LOG))
        log.parent.mkdir(parents=True, exist_ok=True)
        Log.create(log, key)
        entries = list(original.entries())
        kept = [entry for number, entry in enumerate(entries) if number != 1]
        Log.open(log).append([*kept, b"{}"], key)
        from owner.files import write_atomic
        from protocol.log import merkle, proof

        places = {merkle.leaf_hash(entry): number for number, entry in enumerate(Log.open(log).entries())}
        for path in sorted((bundle / "proofs").glob("*.tlog-proof")):
            name = path.name.removesuffix(".tlog-proof")
            envelope = bundle / (
                f"requests/{name[8:]}.dsse.json" if name.startswith("request-") else f"{name}.dsse.json"
            )
            place = places.get(merkle.leaf_hash(envelope.read_bytes()))
            if place is not None:
                write_atomic(path, proof.to_bytes(Log.open(log).prove_inclusion(place)))
            elif name.startswith("request-"):
                path.unlink()
        self.audit("rollback", bundle, None, "REFUTED", "rollback", profile=self.profile, state=state, owner_log=log)

    def withheld(self, request: Path) -> None:
        folder = self.world.root / "dishonest" / "withheld-opening"
        opening = self.open_audit("withheld-opening", "redirection", request)
        self.unlearn(folder / "bundle", request, opening)
        self.challenge(folder / "bundle", opening, answered=False)
        self.settle(folder / "bundle")
        # The deadline has passed when witnesses have seen the log after it: the auditor's own clock shows nothing.
        self.world.clock.tick(80 * 3600)
        self.world.witness(self.world.auditor_log)
        self.audit(
            "withheld-opening", folder / "bundle", None, "INCONCLUSIVE", "withheld-opening", profile="redirection"
        )

    def slip(self) -> None:
        """A subject asks for itself, with nothing but the slip; the receipt is checked against it."""
        world = self.world
        slip, request = world.root / "subject" / "slip.npz", world.root / "subject" / "request.json"
        what = ("--records", "3,17,40") if self.parts.subjects is None else ("--subject", str(self.parts.subjects[0]))
        must("prune-owner", "slip", "--commitment", self.commitment, *what, "--out", slip)
        must(
            "prune-auditor", "request", "--slip", slip, "--key", world.key("subject"), "--log", world.auditor_log,
            "--out", request, "--now", world.clock.tick(),
        )  # fmt: skip
        world.witness(world.auditor_log)
        must("prune-auditor", "receipt", "--help")
        bundle = self.honest("honest-subject", request, folder="honest-subject", profile="redirection")
        receipt = next((bundle.parent / "report" / "receipts").glob("*.receipt"))
        must("prune-auditor", "verify-receipt", receipt, *world.trusted(), "--slip", slip)

    def finish(self) -> int:
        summary = {"data": self.parts.name, "runs": self.runs}
        (self.world.root / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        for log in (self.world.owner_log, self.world.auditor_log):
            must("prune-auditor", "verify-log", log, "--policy", self.world.policy)
        wrong = [run["name"] for run in self.runs if not run["as_expected"]]
        self.say(f"{len(self.runs) - len(wrong)} of {len(self.runs)} runs as expected")
        self.say(f"report of the honest run: {self.world.root / 'honest' / 'report' / 'report.html'}")
        return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", choices=["mlp", "conv"], default="mlp")
    parser.add_argument("--quick", action="store_true", help="the honest runs and a few dishonest ones")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    started = time.monotonic()
    if options.out.exists():
        if (
            not (options.out / "summary.json").exists()
            and any(options.out.iterdir())
            and not (options.out / "keys").exists()
        ):
            sys.exit(f"{options.out} is not an earlier demonstration; give another --out")
        shutil.rmtree(options.out)
    options.out.mkdir(parents=True)
    parts = from_file(options.data) if options.data else digits()
    demo = Demo(World(root=options.out, clock=Clock(START)), parts, kind=options.model, seed=options.seed)
    demo.say(f"{parts.name}: {len(parts.y_train)} training records, {len(parts.y_reference)} reference records")
    demo.prepare()
    demo.say(f"     base trained, committed, cross-fitted models prepared: {time.monotonic() - started:.1f} s")
    if parts.subjects is None:
        rows = np.random.default_rng(options.seed).choice(len(parts.y_train), parts.forget, replace=False)
        records = demo.request("records", "--records", ",".join(str(int(row)) for row in sorted(rows)))
    else:
        records = demo.request("subject", "--subject", str(parts.subjects[-1]))
    honest = demo.honest("honest", records, folder="honest")
    state = demo.world.root / "state"
    demo.audit(
        "honest-again", honest, honest.parent / "openings", "CONSISTENT", None, report="report-again",
        profile=demo.profile, state=state, owner_log=demo.world.owner_log,
    )  # fmt: skip
    if parts.subjects is not None:
        demo.audit(
            "honest-not-exchangeable", honest, honest.parent / "openings", "INCONCLUSIVE", None,
            report="report-indistinguishable",
        )  # fmt: skip
    klass = demo.request("class", "--class", "3")
    # Attacking a removed class takes twenty opened members and a hundred never-seen records of it. Here there are
    # fewer: the report says that its members were not attacked, and decides on the removal.
    demo.honest("honest-class", klass, folder="honest-class")
    demo.slip()
    opening = demo.open_audit("misclassify", "redirection", records)
    wrong = demo.world.root / "misclassify" / "bundle"
    demo.unlearn(wrong, records, opening, "--target", "misclassify")
    answered = demo.challenge(wrong, opening)
    demo.settle(wrong, answered)
    demo.audit(
        "misclassify", wrong, answered, "CONSISTENT", "over-forgetting" if parts.subjects is None else None,
        profile="redirection",
    )  # fmt: skip
    if parts.subjects is None:
        again = demo.open_audit("over-forgetting", "indistinguishable", records)
        streisand = demo.world.root / "dishonest" / "over-forgetting" / "bundle"
        demo.unlearn(streisand, records, again, "--target", "misclassify")
        answered = demo.challenge(streisand, again)
        demo.settle(streisand, answered)
        demo.audit("over-forgetting", streisand, answered, "REFUTED", "over-forgetting")
    threats = ["noop-patch", "partial-forget-set"] if options.quick else list(ADVERSARIES)
    for threat in threats:
        demo.dishonest(threat, records, spent=demo.world.root / "openings" / "honest-class.json")
    demo.forged_request()
    demo.withheld(records)
    demo.rollback(honest, state)
    code = demo.finish()
    demo.say(f"total {time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
