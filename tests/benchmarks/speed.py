"""One table of what is fast and what it is compared with, for redirection: `make bench` writes it into RESULTS.md.

    python -m tests.benchmarks.speed [--data ../shared/data/mnist.npz] [--small] [--only unlearn,inference] [--fresh]

Each line is a ratio of two times taken alternately in one run, round by round: the median over rounds, the least and
the greatest. Sizes grow by tens. A line that is finished is kept in `bench.jsonl` until the table is whole, and not
measured again (`--fresh` begins anew), so that a run can be stopped. Real MNIST with `--data`, else digits of scikit-learn.

- regions: one pass for all rows of a linear region against one backward pass for each neuron; the rows are compared.
- unlearn: `prune-owner unlearn` as a whole (reading, record tree, search, self-check, writing, signing, logging)
  against 20 epochs of training: steps of the recipe's batch are timed and counted up. Trained by this project's
  trainer and by a plain loop with a fused optimiser, whichever is quicker counts. Cross-fitted models are made at
  `commit`, before any request: shown beside.
- check: `unlearn` against the auditor's `redirection` check (proof, conflicts, replays) of the same bundle.
- inference: the patched file against the base's, onnxruntime, two threads; outputs are compared first.
- additive: additive support networks against the patched file, likewise.
- memory: the largest resident memory of a process that unlearns, against one that trains.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from auditor.checks import redirection
from owner.architectures import mlp, small_conv
from owner.compose import compose
from owner.execute import OPERATORS, constants
from owner.gates.linear_region import linear_region
from owner.training import train
from protocol.model.patch import Patch
from protocol.model.profile import Graph, serialise
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema
from tests.benchmarks.additive import MAX_BYTES, additive, size_of
from tests.benchmarks.inference_bench import (
    BATCHES,
    THREADS,
    check_unmoved,
    images_of,
    patch_for,
    session,
    with_random_weights,
)
from tests.benchmarks.memory import held
from tests.benchmarks.redirection_study import Data, Study

EPOCHS, BATCH = 20, 64
CONV, MLP = "conv net, residual, 16 and 32 channels", "MLP 784-256-256-256-10"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
_TURNS = 8
HEADER = ["what", "against", "size", "ratio, median (least to greatest)", "rounds", "times", "beside"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table; `ratios` are those of the rounds, empty where nothing could be measured."""

    what: str
    against: str
    size: str
    ratios: list[float]
    times: str = ""
    beside: str = ""

    def cells(self) -> list[str]:
        """The line's cells, by `HEADER`."""
        found = self.ratios
        told = f"**{np.median(found):.3g}** ({min(found):.3g} to {max(found):.3g})" if found else "not measured"
        return [self.what, self.against, self.size, told, str(len(found)), self.times, self.beside]


def alternately(calls: Sequence[Callable[[int], object]], *, rounds: int, seconds: float) -> np.ndarray:
    """Times of calls that take turns: `[round, call]`, the median of as many as fit in `seconds` for each call.

    A turn is a burst of calls, whose first one is not counted: it finds the caches full of the others' data, and their
    threads still waiting for work.
    """
    found = []
    for _ in range(rounds):
        times: list[list[float]] = [[] for _ in calls]
        end, turn = time.perf_counter() + seconds * len(calls), 0
        while time.perf_counter() < end or turn < 2:
            for place, call in enumerate(calls):
                call(turn)
                burst = time.perf_counter() + seconds / _TURNS
                while True:
                    begin = time.perf_counter()
                    call(turn + len(times[place]))
                    times[place].append(time.perf_counter() - begin)
                    if time.perf_counter() > burst:
                        break
            turn += 1
        found.append([float(np.median(one)) for one in times])
    return np.array(found)


class Clock:
    """What time is taken of: the wall's, or on a busy machine this process's."""

    now: Callable[[], float] = staticmethod(time.perf_counter)


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = Clock.now()
    call()
    return Clock.now() - begin


def told(seconds: float) -> str:
    """A time for people."""
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= size or unit == "us":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


# -- regions ----------------------------------------------------------------------------------------------------------


def one_backward_pass_each(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Rows of every ReLU's input as a function of the record, one backward pass after the other."""
    point = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    fixed = {name: value.double() for name, value in constants(graph).items()}
    values = {graph.input: point.reshape(1, -1)}
    rows = []
    for node in graph.nodes:
        inputs = [values[name] if name in values else fixed[name] for name in node.inputs]
        if node.op == "Relu":
            rows += [torch.autograd.grad(one, point, retain_graph=True)[0] for one in inputs[0].reshape(-1)]
        values[node.outputs[0]] = OPERATORS[node.op](node, inputs)
    return torch.stack(rows).numpy()


def regions(bench: "Bench") -> Iterator[tuple[str, Callable[[], Line]]]:
    """Sizes: neurons."""
    features = bench.flat.shape[1]
    for neurons in (30,) if bench.small else (30, 300, 3000):
        graph = with_random_weights(mlp(features, (neurons // 3,) * 3, classes=10), 3)
        x = (bench.flat[0] / bench.top).astype(np.float32)

        def measure(graph: Graph = graph, neurons: int = neurons, x: np.ndarray = x) -> Line:
            found = linear_region(graph, x)
            if not np.allclose(np.abs(found.weights), np.abs(one_backward_pass_each(graph, x)), atol=1e-9):
                raise AssertionError("another linear region")
            pair = alternately(
                [lambda _: one_backward_pass_each(graph, x), lambda _: linear_region(graph, x)],
                rounds=bench.rounds,
                seconds=bench.seconds,
            )
            return Line(
                what="linear region of a record, all rows at once", against="one backward pass for each neuron",
                size=f"{neurons} neurons", ratios=(pair[:, 0] / pair[:, 1]).tolist(),
                times=f"{told(np.median(pair[:, 1]))}, {told(np.median(pair[:, 0]))}", beside="times faster",
            )  # fmt: skip

        yield f"{neurons}", measure


# -- unlearning -------------------------------------------------------------------------------------------------------


def plain_loop(graph_kind: str, inputs: np.ndarray, labels: np.ndarray, steps: int) -> float:
    """Seconds for so many steps of a plain training loop: Adam, fused, batches of `BATCH`."""
    net = _plain_net(graph_kind, inputs.shape[1:])
    optimiser = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[: steps * BATCH].reshape(steps, -1)
    threads = torch.get_num_threads()
    begin = Clock.now()
    if graph_kind == "mlp":
        torch.set_num_threads(1)  # more of them are slower for matrices as small as these
    try:
        for picked in order:
            optimiser.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(net(x[picked]), y[picked]).backward()
            optimiser.step()
        return Clock.now() - begin
    finally:
        torch.set_num_threads(threads)


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer))
        past: list[nn.Module] = [nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer)]
        self.past = nn.Sequential(*past) if inner != outer else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The residual block of `architectures.small_conv`."""
        return torch.relu(self.second(self.first(x)) + self.past(x))


def _plain_net(kind: str, shape: tuple[int, ...]) -> nn.Module:
    if kind == "mlp":
        widths = [int(np.prod(shape)), 256, 256, 256]
        layers: list[nn.Module] = [nn.Flatten()]
        for inner, outer in itertools.pairwise(widths):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(256, 10))
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), _Block(16, 16),
        nn.MaxPool2d(2), _Block(16, 32), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def our_trainer(graph: Graph, inputs: np.ndarray, labels: np.ndarray, steps: int) -> float:
    """Seconds for so many steps of this project's trainer."""
    members = [np.arange(steps * BATCH)]
    recipe = Recipe(epochs=1, batch=BATCH)
    return timed(lambda: train(graph, inputs, labels, members=members, recipe=recipe, rng=np.random.default_rng(0)))


def unlearn(bench: "Bench") -> Iterator[tuple[str, Callable[[], Line]]]:
    """Sizes: records; for each base."""
    for kind in ("mlp",) if bench.small else ("mlp", "conv"):
        for count in (10,) if bench.small else (10, 100, 1000, 10_000) if kind == "mlp" else (1000,):

            def measure(kind: str = kind, count: int = count) -> Line:
                study = bench.study(kind)
                inputs = study.data.inputs
                inputs = inputs if kind == "conv" else inputs.reshape(len(inputs), -1)
                total = -(-len(inputs) // BATCH)
                steps = min(total - 1, 5 if bench.small else 30 if kind == "conv" else 300)
                rounds = 1 if count >= 10_000 else min(bench.rounds, 3 if kind == "conv" else bench.rounds)
                takes, ours, plain = [], [], []
                for _ in range(rounds):
                    ours.append(our_trainer(study.graph, inputs, study.data.y, steps) / steps * total * EPOCHS)
                    takes.append(bench.unlearning(kind, count))
                    plain.append(plain_loop(kind, inputs, study.data.y, steps) / steps * total * EPOCHS)
                best = np.minimum(ours, plain)
                return Line(
                    what=f"unlearn {count:,} of {len(inputs):,} records, match: {bench.names[kind]}",
                    against=f"training {EPOCHS} epochs, batch {BATCH}", size=f"{count:,}",
                    ratios=(best / takes).tolist(), times=f"{told(np.median(takes))}, {told(np.median(best))}",
                    beside=f"times faster ({np.median(np.divide(ours, takes)):.3g} than this project's trainer, "
                    f"{told(np.median(ours))}; plain loop {told(np.median(plain))}); "
                    f"at commit: {study.folds} fold models of one epoch and the record tree, {told(study.committing)}",
                )  # fmt: skip

            yield f"{kind}/{count}", measure


def check(bench: "Bench") -> Iterator[tuple[str, Callable[[], Line]]]:
    """Sizes: records."""
    for count in (10,) if bench.small else (10, 100, 1000, 10_000):

        def measure(count: int = count) -> Line:
            study = bench.study("mlp")
            takes, looks, verdict = [], [], ""
            for _ in range(1 if count >= 10_000 else min(3, bench.rounds)):
                takes.append(bench.unlearning("mlp", count))
                evidence = study.evidence(bench.bundle)
                # Read, parsed, composed and opened by other checks, too: what is timed is this check alone.
                assert evidence.runnable
                assert evidence.others
                begin = Clock.now()
                verdict = redirection.check(evidence).verdict
                looks.append(Clock.now() - begin)
            return Line(
                what=f"check the redirection of {count:,} records", against="finding it: unlearn as a whole",
                size=f"{count:,}", ratios=[a / b for a, b in zip(takes, looks, strict=True)],
                times=f"{told(np.median(looks))}, {told(np.median(takes))}", beside=f"times faster; {verdict}",
            )  # fmt: skip

        yield f"{count}", measure


# -- inference --------------------------------------------------------------------------------------------------------


def inference(bench: "Bench") -> Iterator[tuple[str, Callable[[], Line]]]:
    """Sizes: items; batch 1 and 64."""
    for kind in ("mlp", "conv"):
        for count in (10,) if bench.small else (1, 10, 100, 1000, 10_000):
            for batch in BATCHES:

                def measure(kind: str = kind, count: int = count, batch: int = batch) -> Line:
                    base, schema = bench.base(kind)
                    patch = bench.patch(count)
                    data = serialise(compose(base, schema, patch))
                    plain, patched = session(serialise(base)), session(data)
                    x = schema.dequantise(bench.others).reshape(-1, *schema.shape)
                    check_unmoved(plain, patched, x, patch, schema)
                    pair = alternately(
                        [_runner(plain, x, batch), _runner(patched, x, batch)],
                        rounds=bench.rounds, seconds=bench.seconds,
                    )  # fmt: skip
                    gate = patch.parts[0].gate
                    screen = "none" if gate.screen is None else f"{len(gate.screen)} of {len(gate.matrix)}"
                    return Line(
                        what=f"patched inference: {bench.names[kind]}", against="the base",
                        size=f"{count:,} items, batch {batch}", ratios=(pair[:, 1] / pair[:, 0]).tolist(),
                        times=f"{told(np.median(pair[:, 1]))}, {told(np.median(pair[:, 0]))}",
                        beside=f"times slower; screen {screen}, {len(data) - len(serialise(base)):,} bytes added",
                    )  # fmt: skip

                yield f"{kind}/{count}/{batch}", measure


def _runner(run: onnxruntime.InferenceSession, x: np.ndarray, batch: int) -> Callable[[int], object]:
    name, places = run.get_inputs()[0].name, len(x) - batch + 1

    def once(turn: int) -> object:
        start = turn * batch % places
        return run.run(None, {name: x[start : start + batch]})

    return once


def additive_networks(bench: "Bench") -> Iterator[tuple[str, Callable[[], Line]]]:
    """Sizes: items; summed and chained, batch 1 and 64."""
    for chained in (False, True):
        for count in (2,) if bench.small else (1, 10, 100, 1000):
            for batch in BATCHES:

                def measure(chained: bool = chained, count: int = count, batch: int = batch) -> Line:
                    base, schema = bench.base("mlp")
                    how = "joined by maxima" if chained else "summed"
                    what = {"what": f"additive support networks, {how}: {bench.names['mlp']}",
                            "against": "the patched file with as many items", "size": f"{count:,} items, batch {batch}"}  # fmt: skip
                    halves = sum(
                        len(base.initialisers[node.inputs[2]]) for node in base.nodes[:-1] if node.op == "Gemm"
                    )
                    size = size_of(halves, base.features, count)
                    if size > MAX_BYTES:
                        note = f"{size:,} bytes of half-spaces: more than one ONNX file can hold"
                        return Line(**what, ratios=[], beside=note)
                    data = bench.additive(count, chained=chained)
                    ours = serialise(compose(base, schema, bench.patch(count)))
                    runs = [session(serialise(base)), session(ours), session(data)]
                    x = schema.dequantise(bench.others)
                    took = alternately(
                        [_runner(run, x, batch) for run in runs], rounds=bench.rounds, seconds=bench.seconds
                    )
                    median = np.median(took, axis=0)
                    return Line(
                        **what, ratios=(took[:, 2] / took[:, 1]).tolist(),
                        times=f"{told(median[2])}, {told(median[1])}",
                        beside=f"times slower; {median[2] / median[0]:.3g} times the base, {halves} half-spaces an item, "
                        f"{len(data) / len(ours):.3g} times the bytes",
                    )  # fmt: skip

                yield f"{'max' if chained else 'sum'}/{count}/{batch}", measure


# -- memory -----------------------------------------------------------------------------------------------------------


def memory(bench: "Bench") -> Iterator[tuple[str, Callable[[], Line]]]:
    """Sizes: records."""
    for count in (10,) if bench.small else (1000, 10_000):

        def measure(count: int = count) -> Line:
            study = bench.study("mlp")
            bench.request("mlp", count)
            unlearns = bench.child("unlearn", study.root)
            trains = bench.child("train", study.root)
            return Line(
                what=f"largest memory of unlearning {count:,} records", against="of training in float32",
                size=f"{count:,}", ratios=[unlearns / trains], times=f"{unlearns:.0f} MiB, {trains:.0f} MiB",
                beside="times; processes of their own, libraries included",
            )  # fmt: skip

        yield f"{count}", measure


def child(what: str, root: Path) -> None:
    """Do one thing in this process and print the largest resident memory in MiB."""
    from tests.demo.world import must

    if what == "unlearn":
        must("prune-owner", *json.loads((root / "unlearn.json").read_text()))
    else:
        with np.load(root / "train.npz") as file:
            X, y = file["X_train"], file["y_train"].astype(np.int64)
        x = (X.reshape(len(X), -1) / np.float32(X.max())).astype(np.float32)
        our_trainer(mlp(x.shape[1], (256, 256, 256), classes=10), x, y, min(100, len(x) // BATCH))
    print((held("VmHWM") or 0) / (1 << 20))


# -- the run ----------------------------------------------------------------------------------------------------------


class Bench:
    """What the lines share: data, commitments, patches, each made when first needed."""

    def __init__(self, root: Path, data: Path | None, *, small: bool, rounds: int) -> None:
        self.root, self.source, self.small = root, data, small
        self.rounds, self.seconds = (2, 0.01) if small else (rounds, 0.2)
        self.names = {"mlp": MLP, "conv": CONV}
        self._studies: dict[str, Study] = {}
        self._patches: dict[int, Patch] = {}
        self._additive: dict[tuple[int, bool], bytes] = {}
        self._number = 0
        self.bundle = root

    @cached_property
    def images(self) -> np.ndarray:
        """Shuffled pictures as integers; enlarged digits without a data file."""
        return images_of(None if self.source is None else str(self.source))

    @cached_property
    def flat(self) -> np.ndarray:
        """The same, a row each, less those kept for inference."""
        return self.images[: -2000 if not self.small else -200].reshape(-1, 784)

    @property
    def others(self) -> np.ndarray:
        """Pictures that no patch is about, as a deployed model sees them."""
        return self.images[len(self.flat) :].reshape(-1, 784)

    @property
    def top(self) -> int:
        """The largest value of a picture."""
        return 255

    def base(self, kind: str) -> tuple[Graph, InputSchema]:
        """A base with drawn weights: time does not depend on what was learnt."""
        shape = (784,) if kind == "mlp" else (1, 28, 28)
        graph = mlp(784, (256,) * 3, classes=10) if kind == "mlp" else small_conv((1, 28, 28), classes=10)
        return with_random_weights(graph, 0), InputSchema.uniform(shape, scale=255.0, low=0, high=255)

    def patch(self, count: int) -> Patch:
        """A patch for some pictures, found beside 20,000 others."""
        if count not in self._patches:
            _, schema = self.base("mlp")
            known = self.flat[: 600 if self.small else count + 20_000]
            self._patches[count] = patch_for(schema, known, count, 10, ceiling=24)
        return self._patches[count]

    def additive(self, count: int, *, chained: bool) -> bytes:
        """Support networks for as many pictures, which do what they are for."""
        base, _ = self.base("mlp")
        x = (self.flat[:count] / self.top).astype(np.float32)
        rows = np.random.default_rng(1).normal(size=(count, 10)).astype(np.float32)
        found = [linear_region(base, one) for one in x]
        data = additive(base, found, rows, chained=chained)
        plain, patched = session(serialise(base)), session(data)
        others = (self.others[:64] / self.top).astype(np.float32)
        inside, outside = (patched.run(None, {base.input: part})[0] for part in (x, others))
        kept = plain.run(None, {base.input: others})[0]
        # Rounding is multiplied by K and the slope: it is never exact, but it has to be the row, and else the base.
        scale = max(1.0, float(np.abs(kept).max()))
        if np.abs(inside - rows).max() > 0.05 * scale or np.abs(outside - kept).max() > 1e-3 * scale:
            raise AssertionError("the support networks do not do what they are for")
        return data

    def study(self, kind: str) -> Study:
        """A commitment to the data with a base of this kind."""
        if kind not in self._studies:
            if self.source is None:
                found = images_of(None).reshape(-1, 784).astype(np.uint8)
                # Any labels: what a model learns changes no time.
                labels, count = np.arange(len(found)) % 10, 400 if self.small else 1000
                data = Data("digits", found[:count], labels[:count], found[count:], labels[count:], hidden=(256,) * 3)
            else:
                with np.load(self.source) as file:
                    data = Data(
                        "mnist", file["X_train"], file["y_train"].astype(np.int64), file["X_test"],
                        file["y_test"].astype(np.int64), hidden=(256,) * 3,
                    )  # fmt: skip
            if kind == "conv":
                data.X, data.X_test = data.X.reshape(-1, 28, 28, 1), data.X_test.reshape(-1, 28, 28, 1)
                data.kind = "conv"
            root = self.root / kind
            root.mkdir()
            self._studies[kind] = Study(root, data, epochs=1, folds=2, reference=100 if self.small else 4000)
        return self._studies[kind]

    def request(self, kind: str, count: int) -> list[str]:
        """A request for records drawn at random; returns how `unlearn` answers it, once, on no earlier answer."""
        study = self.study(kind)
        rows = np.sort(np.random.default_rng(count).permutation(len(study.data.y))[:count])
        self._number += 1
        place = study.root / f"run{self._number}"
        place.mkdir()
        study._owner(
            "request", "--commitment", study.root / "commitment", "--records", ",".join(map(str, rows)), "--out",
            place / "request.json",
        )  # fmt: skip
        world = study.world
        made = [
            "unlearn", "--commitment", study.root / "commitment", "--request", place / "request.json", "--out",
            place / "bundle", "--target", "match", "--beside", "--key", world.key("owner"), "--log", world.owner_log, "--now",
            world.clock.tick(),
        ]  # fmt: skip
        self.bundle = place / "bundle"
        (study.root / "unlearn.json").write_text(json.dumps([str(part) for part in made]))
        return [str(part) for part in made]

    def unlearning(self, kind: str, count: int) -> float:
        """Seconds that the answer to a new request takes."""
        from tests.demo.world import must

        arguments = self.request(kind, count)
        return timed(lambda: must("prune-owner", *arguments))

    def child(self, what: str, root: Path) -> float:
        """MiB that a process of its own takes at most."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.speed", "--child", what, str(root)],
            check=True, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        return float(done.stdout.strip().splitlines()[-1])


ROWS: dict[str, Callable[[Bench], Iterator[tuple[str, Callable[[], Line]]]]] = {
    "regions": regions,
    "unlearn": unlearn,
    "check": check,
    "memory": memory,
    "inference": inference,
    "additive": additive_networks,
}


def table(lines: Sequence[Line]) -> str:
    """The Markdown table."""
    rows = [HEADER, ["---"] * len(HEADER), *(line.cells() for line in lines)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def machine() -> str:
    """Where and with what it was measured, in words."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")),
        "processor",
    )
    kind = "processor seconds" if Clock.now is time.process_time else "elapsed time"
    return (
        f"Unlearning, training and checking in {kind}, all else elapsed time; {torch.get_num_threads()} thread(s) of "
        f"torch, {THREADS} of onnxruntime, {_cores()} cores ({model}), "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, "
        f"onnxruntime {onnxruntime.__version__}"
    )


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def written(text: str, section: str) -> str:
    """A results file with the section between its two marks replaced, or added at the end."""
    marked = f"{BEGIN}\n{section}\n{END}"
    if BEGIN not in text:
        return text.rstrip("\n") + f"\n\n{marked}\n"
    before, rest = text.split(BEGIN, 1)
    return before + marked + rest.split(END, 1)[1]


def section(lines: Sequence[Line], data: str) -> str:
    """What stands in the results file."""
    return (
        "## What is fast, and beside what\n\n"
        f"`make bench` (`python -m tests.benchmarks.speed`), {data}. {machine()}. Each ratio is of times taken in turns in "
        "one run;\nmedian of the rounds, least and greatest. Times: the line's own, then what it is compared with.\n\n"
        + table(lines)
    )


def run(options: argparse.Namespace, out: Callable[[str], object]) -> list[Line]:
    """Measure what is not known yet; returns all lines."""
    state: Path = options.state
    kind = "small" if options.small else str(options.data)
    if options.fresh and state.exists():
        state.unlink()
    known: dict[str, Line] = {}
    if state.exists():
        for text in state.read_text().splitlines():
            entry = json.loads(text)
            if entry["data"] == kind and entry["machine"] == machine():
                known[entry["key"]] = Line(**entry["line"])
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.data, small=options.small, rounds=options.rounds)
        for name in dict.fromkeys(part.split("/")[0] for part in options.only or ROWS):
            for key, measure in ROWS[name](bench):
                whole = f"{name}/{key}"
                if options.only and not any(f"{whole}/".startswith(f"{part}/") for part in options.only):
                    continue
                if whole not in known:
                    line = known[whole] = measure()
                    entry = {"key": whole, "data": kind, "machine": machine(), "line": asdict(line)}
                    with state.open("a") as file:
                        file.write(json.dumps(entry) + "\n")
                    out(table([line]).splitlines()[-1])
                lines.append(known[whole])
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table; with --out, write it into the results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="an .npz file with X_train of 28 x 28 grey images, or its folder")
    parser.add_argument("--small", action="store_true", help="a few small lines, in seconds")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {','.join(ROWS)}; or unlearn/mlp/1000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--state", type=Path, default=Path("bench.jsonl"), help="finished lines")
    parser.add_argument("--fresh", action="store_true", help="measure finished lines again")
    parser.add_argument(
        "--processor", action="store_true", help="processor time for unlearning and training: on a busy machine"
    )
    parser.add_argument("--out", type=Path, help="results file whose section is written")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    if unknown := {part.split("/")[0] for part in options.only or ROWS} - set(ROWS):
        parser.error(f"no rows called {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    Clock.now = staticmethod(time.process_time if options.processor else time.perf_counter)
    if options.data is not None and options.data.is_dir():
        options.data = options.data / "mnist.npz"
    lines = run(options, lambda text: print(text, flush=True))
    name = "scikit-learn's digits" if options.data is None else "real MNIST"
    found = section(lines, name)
    print("\n" + found)
    if options.out is not None:
        options.out.write_text(written(options.out.read_text() if options.out.exists() else "# Results\n", found))
    if not options.only:
        # Whole: the next run measures what the program is then.
        options.state.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
