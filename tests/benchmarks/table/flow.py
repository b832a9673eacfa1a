"""One world for all methods of a cell: base, commitment and request once, then for each method bundle and audits.

Everything between owner and auditor goes through the two programs, as printed under the table. Bases and the auditor's
shadow models are kept by content in a folder that outlives the world, so that an interrupted run trains none of them twice.
"""

import hashlib
import json
import os
import shutil
import statistics
import time
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from auditor.profile import load_profile, plan_template
from owner.architectures import mlp, small_conv
from owner.training import train
from protocol import messages
from protocol.digests import jcs_digest
from protocol.messages.certificate import Certificate
from protocol.model import patch as patch_file
from protocol.model import profile
from protocol.model import recipe as recipe_file
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe
from tests.benchmarks.memory import peak
from tests.benchmarks.redirection_study import START
from tests.benchmarks.table.worlds import Roles, Size
from tests.demo.world import Clock, World, must, run

PROFILES = ("redirection", "indistinguishable")
AUDITED = (1, 5, 10)
"""Of requests one after another: after which of them there is an audit, beside the last."""
UNCHANGED = "the method changed nothing"
VERDICTS = {0: "CONSISTENT", 3: "REFUTED", 5: "INCONCLUSIVE"}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A method's bundle, how long and how much memory (bytes, if known) it took, each profile's report's summary.

    Of several requests one after another: the last bundle, the median time, and figures after some of the requests.
    """

    bundle: Path
    seconds: float
    memory: int | None
    notes: tuple[str, ...]
    summaries: dict[str, dict[str, Any]]
    steps: tuple[dict[str, Any], ...] = ()
    times: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One run of the owner's program."""

    seconds: float = 0.0
    memory: int | None = None
    notes: tuple[str, ...] = ()


class Flow:
    """A commitment with one request, or several that are answered one after another.

    Args:
        root: an empty folder for this world.
        roles: whose data.
        kind: mlp or conv.
        size: how long things are trained.
        seed: of base, commitment, method and plan.
        cache: bases and shadow models by content; in `root` if None.
        device: where models are trained.
    """

    def __init__(
        self, root: Path, roles: Roles, *, kind: str, size: Size, seed: int, cache: Path | None = None,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        self.root, self.roles, self.size, self.seed, self.device = root, roles, size, seed, device
        self.cache = cache if cache is not None else root
        self.world = World(root=root, clock=Clock(START))
        self.world.build()
        data, classes = roles.data, int(max(roles.y.max(), roles.y_reference.max(), roles.y_unseen.max())) + 1
        inputs = self.inputs(roles.X, kind)
        self.kind, self.recipe = kind, Recipe(epochs=size.epochs, batch=64)
        graph = (
            small_conv(inputs.shape[1:], classes=classes, width=8)
            if kind == "conv"
            else mlp(inputs.shape[1], (128, 64), classes=classes)
        )
        serialised, self.training = self._base(graph, inputs)
        (root / "base.onnx").write_bytes(serialised)
        (root / "recipe.json").write_bytes(recipe_file.serialise(self.recipe))
        more = {} if roles.subjects is None else {"subject_train": roles.subjects}
        np.savez(
            root / "train.npz", X_train=roles.X, y_train=roles.y, X_test=roles.X_unseen, y_test=roles.y_unseen, **more
        )
        np.savez(root / "ref.npz", X=roles.X_reference, y=roles.y_reference)
        options: list[object] = []
        if data.schema is not None:
            (root / "schema.json").write_bytes(data.schema.to_bytes())
            options += ["--schema", root / "schema.json"]
        for name in PROFILES:
            text = load_profile(name).raw.decode().replace("shadows: 32", f"shadows: {size.shadows}")
            (root / f"{name}.yaml").write_text(text)
            plan = plan_template(load_profile(str(root / f"{name}.yaml")), seed=seed)
            (root / f"plan-{name}.yaml").write_bytes(plan)
        started = time.perf_counter()
        self._owner(
            "commit", "--model", root / "base.onnx", "--data", root / "train.npz", "--recipe", root / "recipe.json",
            *options, *self.placed, "--out", root / "commitment", "--seed", seed,
        )  # fmt: skip
        self.committing = time.perf_counter() - started
        self.world.witness(self.world.owner_log)
        must("prune-owner", "publish", root / "commitment", "--log", self.world.owner_log)
        whats: list[tuple[str, str]] = [
            ("--records", ",".join(map(str, rows.tolist()))) for rows in roles.requests or (roles.forget,)
        ]
        if roles.klass is not None:
            whats = [("--class", str(roles.klass))]
        if roles.subject is not None:
            whats = [("--subject", roles.subject)]
        self.asked = len(whats)
        for number, what in enumerate(whats):
            self._owner("request", "--commitment", root / "commitment", *what, "--out", self.requests[number])

    @property
    def requests(self) -> list[Path]:
        """The requests in their order."""
        return [self.root / f"request-{number:02}.json" for number in range(self.asked)]

    @property
    def placed(self) -> tuple[str, ...]:
        """Options for programs that train."""
        return () if self.device == "cpu" else ("--device", self.device)

    def _base(self, graph: Graph, inputs: np.ndarray) -> tuple[bytes, float]:
        # The model's bytes, and the seconds that training took when it was trained.
        content = {
            "graph": hashlib.sha256(profile.serialise(graph)).hexdigest(),
            "inputs": hashlib.sha256(np.ascontiguousarray(inputs).tobytes()).hexdigest(),
            "labels": hashlib.sha256(np.ascontiguousarray(self.roles.y).tobytes()).hexdigest(),
            "recipe": hashlib.sha256(recipe_file.serialise(self.recipe)).hexdigest(),
            "seed": self.seed,
            "device": self.device,
        }
        folder = self.cache / "bases" / jcs_digest(content)
        model, time_taken = folder / "base.onnx", folder / "seconds.json"
        if time_taken.is_file():
            return model.read_bytes(), float(json.loads(time_taken.read_text()))
        where: dict[str, Any] = {} if self.device == "cpu" else {"device": self.device}
        started = time.perf_counter()
        made = train(
            graph, inputs, self.roles.y, members=[np.arange(len(self.roles.y))], recipe=self.recipe,
            rng=np.random.default_rng(self.seed), **where,
        ).model(0)  # fmt: skip
        seconds = time.perf_counter() - started
        folder.mkdir(parents=True, exist_ok=True)
        # The seconds last: where they are, the model is whole.
        for path, data in ((model, profile.serialise(made)), (time_taken, json.dumps(seconds).encode())):
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_bytes(data)
            partial.replace(path)
        return model.read_bytes(), seconds

    def _owner(self, command: str, *arguments: object) -> Any:
        return must(
            "prune-owner", command, *arguments, "--key", self.world.key("owner"), "--log", self.world.owner_log,
            "--now", self.world.clock.tick(),
        )  # fmt: skip

    def inputs(self, X: np.ndarray, kind: str | None = None) -> np.ndarray:
        """Raw records as the base reads them."""
        data = self.roles.data
        if data.schema is not None:
            return data.schema.dequantise(X).reshape(len(X), -1)
        scaled = (X / data.scale).astype(np.float32) if X.dtype.kind != "f" else X.astype(np.float32)
        if (kind or self.kind) != "conv":
            return scaled.reshape(len(X), -1)
        return np.moveaxis(scaled, 3, 1) if scaled.ndim == 4 else scaled[:, None]

    def make(self, name: str, options: tuple[str, ...], profiles: tuple[str, ...] = PROFILES) -> Made | str:
        """A method's bundle and its audits, or why the owner's program refused."""
        if len(self.requests) > 1:
            return Line(self, name, options).answer()
        summaries: dict[str, dict[str, Any]] = {}
        answered, bundle = Answered(), self.root
        for chosen in profiles:
            place = self.root / f"{name}-{chosen}"
            opening, bundle = place / "opening.json", place / "bundle"
            self.open(self.requests, chosen, opening)
            found = self.unlearn(self.requests, opening, (*options, "--beside"), bundle)
            if isinstance(found, str):
                return found
            summary = self.examine(bundle, opening, chosen)
            if isinstance(summary, str):
                return summary
            answered, summaries[chosen] = found, summary
        return Made(
            bundle=bundle, seconds=answered.seconds, memory=answered.memory, notes=answered.notes, summaries=summaries
        )

    def open(self, requests: list[Path], chosen: str, opening: Path) -> None:
        """Open an audit of what answers these requests."""
        opening.parent.mkdir(parents=True, exist_ok=True)
        self._auditor("open-audit", *requests, "--plan", self.root / f"plan-{chosen}.yaml", "--out", opening)

    def unlearn(
        self, requests: list[Path], opening: Path | None, options: tuple[object, ...], bundle: Path
    ) -> Answered | str:
        """Make a bundle, or say why not."""
        asked = [part for request in requests for part in ("--request", request)]
        opened = () if opening is None else ("--opening", opening)
        bundle.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with peak() as used:
            ran = run(
                "prune-owner", "unlearn", "--commitment", self.root / "commitment", *asked, *opened, *options,
                *self.placed, "--seed", self.seed, "--out", bundle, "--key", self.world.key("owner"), "--log",
                self.world.owner_log, "--now", self.world.clock.tick(),
            )  # fmt: skip
        seconds = time.perf_counter() - started
        if ran.code:
            return ran.err.strip().splitlines()[-1]
        return Answered(seconds=seconds, memory=used.bytes, notes=tuple(ran.out.strip().splitlines()[:-1]))

    def examine(self, bundle: Path, opening: Path, chosen: str) -> dict[str, Any] | str:
        """Challenge, answer and audit; the report's summary."""
        place = bundle.parent
        self._auditor("challenge", bundle, "--opening", opening, "--out", place / "challenge.json")
        self._owner(
            "answer", place / "challenge.json", "--commitment", self.root / "commitment", "--out", place / "openings"
        )
        for log in (self.world.owner_log, self.world.auditor_log):
            self.world.witness(log)
        for folder in (bundle, place / "openings"):
            must("prune-owner", "publish", folder, "--log", self.world.owner_log)
        ran = run(
            "prune-auditor", "audit", bundle, *self.world.trusted(), "--profile", self.root / f"{chosen}.yaml",
            "--openings", place / "openings", "--reference", self.root / "ref.npz", "--shadows",
            self.cache / "shadows", "--seed", self.seed, *self.placed, "--key", self.world.key("auditor"), "--log",
            self.world.auditor_log, "--out", place / "report", "--now", self.world.clock.tick(60),
        )  # fmt: skip
        if ran.code not in VERDICTS:
            return f"audit ended with {ran.code}: {ran.err.strip()[-200:]}"
        found: dict[str, Any] = json.loads((place / "report" / "summary.json").read_text())
        return found

    def _auditor(self, command: str, *arguments: object) -> None:
        must(
            "prune-auditor", command, *arguments, "--key", self.world.key("auditor"), "--log", self.world.auditor_log,
            "--now", self.world.clock.tick(),
        )  # fmt: skip


class Line:
    """Requests one after another, each answered by a certificate that builds on the one before.

    A line has a world of its own, a copy: the owner's log of a commitment has one latest certificate.
    """

    def __init__(self, flow: Flow, name: str, options: tuple[str, ...]) -> None:
        self.options = options
        self.flow = self._copied(flow, flow.root.parent / f"{flow.root.name}-{name}")

    @staticmethod
    def _copied(flow: Flow, root: Path) -> Flow:
        shutil.copytree(flow.root, root, ignore=shutil.ignore_patterns("shadows", "bases"))
        other = copy(flow)
        other.root, other.world = root, World(root=root, clock=Clock(flow.world.clock.now))
        return other

    def answer(self) -> Made | str:
        """Answer all, and audit after some of them; the last one under every profile."""
        requests = self.flow.requests
        waiting: list[Path] = []
        previous: Path | None = None
        steps: list[dict[str, Any]] = []
        times: list[float] = []
        memory: int | None = None
        for number, request in enumerate(requests, 1):
            waiting.append(request)
            last = number == len(requests)
            audited = last or number in AUDITED
            summaries: dict[str, dict[str, Any]] = {}
            if last:
                # The same step once more in a copy of the line, for the other profiles: a certificate names one audit.
                for chosen in PROFILES[:-1]:
                    aside = self._copied(self.flow, self.flow.root.with_name(f"{self.flow.root.name}-{chosen}"))
                    beside = previous and aside.root / previous.relative_to(self.flow.root)
                    names = [aside.root / one.name for one in requests], [aside.root / one.name for one in waiting]
                    made = self._step(aside, number, *names, beside, chosen)
                    if isinstance(made, str):
                        return f"request {number}: {made}"
                    summaries |= made[2]
            found = self._step(
                self.flow, number, requests[:number], waiting, previous, PROFILES[-1] if audited else None
            )
            if isinstance(found, str):
                if last or UNCHANGED not in found:
                    return f"request {number} of {len(requests)}: {found}"
                continue  # nothing to do for these records as yet: they are asked for again with the next request
            answered, bundle, own = found
            summaries |= own
            times.append(answered.seconds)
            memory = max(memory or 0, answered.memory or 0) or None
            if audited:
                steps.append(self._figures(number, bundle, answered, summaries))
            previous, waiting = bundle, []
        assert previous is not None
        return Made(
            bundle=previous, seconds=statistics.median(times), memory=memory, notes=answered.notes,
            summaries=summaries, steps=tuple(steps), times=tuple(times),
        )  # fmt: skip

    def _step(
        self, flow: Flow, number: int, asked: list[Path], waiting: list[Path], previous: Path | None, chosen: str | None
    ) -> tuple[Answered, Path, dict[str, dict[str, Any]]] | str:
        place = flow.root / f"step-{number:02}"
        opening = None
        if chosen is not None:
            opening = place / "opening.json"
            flow.open(asked, chosen, opening)
        before = () if previous is None else ("--previous", previous)
        answered = flow.unlearn(waiting, opening, (*self.options, *before), place / "bundle")
        if isinstance(answered, str):
            return answered
        summaries = {}
        if opening is not None and chosen is not None:
            summary = flow.examine(place / "bundle", opening, chosen)
            if isinstance(summary, str):
                return summary
            summaries[chosen] = summary
        return answered, place / "bundle", summaries

    @staticmethod
    def _figures(number: int, bundle: Path, answered: Answered, summaries: dict[str, dict[str, Any]]) -> dict[str, Any]:
        patch = patch_file.parse((bundle / "patch.json").read_bytes(), (bundle / "patch.safetensors").read_bytes())
        certificate = messages.read((bundle / "certificate.dsse.json").read_bytes(), Certificate)[1]
        return {
            "request": number,
            "bundle": bundle,
            "seconds": answered.seconds,
            "parts": len(patch.parts),
            "items": patch.items,
            "dropped": len(certificate.dropped),
            "summary": summaries[PROFILES[-1]],
        }
