"""What shadow models and attacks by them cost, against training one by one and against SACRO-ML, in one run.

    python -m tests.benchmarks.shadow_bench [--rounds 5] [--epochs 30] [--skip-peer] [--state bench.jsonl]

- 16 shadow models of a 100-256-10 perceptron on halves of 10,000 records, 30 epochs of batches of 64, fused Adam:
  all at once (`train_shadows`), against a plain loop over `torch.nn` models with the same optimiser.
- 64 of them against 16.
- 16 shadow models of a convolutional network with batch normalisation on halves of 1,000 pictures, all at once (one
  convolution in 16 groups), against the plain loop, and against the same stacked under `torch.vmap`.
- RMIA's scores of 10,000 records among a population of 10,000: time, and memory beyond the inputs.
- LiRA and RMIA end to end (shadow models, their outputs, scores) against SACRO-ML's LiRA, on the same float64 data and
  the same attacked model, if `.venv-sacroml` is there (`make sacroml`).

One thread each; sides of a ratio alternate within a round. Times are of the processor, which other work on the machine
changes less; ratios of wall time stand beside them. Medians, with the range in brackets. Ratios only: seconds are of
one machine.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from torch import nn

from auditor import shadows as module
from auditor.attacks.lira import FEWEST_MODELS, LiraOffline, LiraOnline
from auditor.attacks.observation import Scores, View, label_margin
from auditor.attacks.rmia import Rmia, log_ratio, population_share
from auditor.shadows import Shadows, train_shadows
from auditor.statistics.auc import delong
from owner.architectures import mlp, small_conv
from protocol.model.recipe import Recipe
from tests.benchmarks.resuming import part

RECORDS, FEATURES, CLASSES, HIDDEN, BATCH = 10_000, 100, 10, 256, 64
PEER = Path(".venv-sacroml/bin/python")


def data(seed: int, *, spread: float = 0.3, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Ten clouds in float64, a tenth of the labels at random, so that there is something to remember."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, RECORDS)
    x = spread * random.normal(size=(CLASSES, FEATURES))[labels] + random.normal(size=(RECORDS, FEATURES))
    wrong = random.random(RECORDS) < noise
    labels[wrong] = random.integers(0, CLASSES, int(wrong.sum()))
    return x, labels


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def one_by_one(x: np.ndarray, y: np.ndarray, *, count: int, epochs: int) -> None:
    """The same training as one would write it down for a single model, `count` times."""
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    for index in range(count):
        torch.manual_seed(index)
        model = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
        optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        half = torch.randperm(len(x))[: len(x) // 2]
        for _ in range(epochs):
            for picked in half[torch.randperm(len(half))].split(BATCH):
                loss = nn.functional.cross_entropy(model(inputs[picked]), labels[picked])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


def said(values: list[float], digits: int = 2) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def training(rounds: int, epochs: int) -> list[str]:
    """Lines on shadow training."""
    x, y = data(1)
    inputs, graph, recipe = (
        x.astype(np.float32),
        mlp(FEATURES, (HIDDEN,), classes=CLASSES),
        Recipe(epochs=epochs, batch=BATCH),
    )

    def shadows(count: int) -> Shadows:
        return train_shadows(graph, inputs, y, recipe=recipe, seed=1, count=count)

    # First calls set up libraries and memory: not part of either side.
    short = Recipe(epochs=1, batch=BATCH)
    train_shadows(graph, inputs, y, recipe=short, seed=1, count=16)
    one_by_one(inputs, y, count=2, epochs=1)
    together, loop, four, again = [], [], [], []
    for _ in range(rounds):
        loop.append(timed(lambda: one_by_one(inputs, y, count=16, epochs=epochs)))
        together.append(timed(lambda: shadows(16)))
        four.append(timed(lambda: shadows(64)))
        # On both sides of the long one: a machine that others use is not as quick a minute later.
        after = timed(lambda: shadows(16))
        again.append(tuple((a + b) / 2 for a, b in zip(together[-1], after, strict=True)))
    lines = ["| what | processor time | wall time |", "|---|---|---|"]
    for words, above, below in (
        ("16 one after the other / 16 at once", loop, together),
        ("64 / 16, both at once", four, again),
    ):
        cells = [said([a[k] / b[k] for a, b in zip(above, below, strict=True)]) for k in (1, 0)]
        lines.append(f"| {words} | {cells[0]} | {cells[1]} |")
    lines += ["", f"16 at once: {said([t[1] for t in together], 1)} s of the processor.", ""]
    return lines


def _block(inner: int, outer: int) -> list[nn.Module]:
    first, second = nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.Conv2d(outer, outer, 3, padding=1, bias=False)
    return [first, nn.BatchNorm2d(outer), nn.ReLU(), second, nn.BatchNorm2d(outer), nn.ReLU()]


def plain_conv(channels: int, width: int) -> nn.Sequential:
    """`owner.architectures.small_conv` without residual connections, as modules."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), *_block(width, width),
        nn.MaxPool2d(2), *_block(width, 2 * width), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2 * width, CLASSES),
    )  # fmt: skip


def convolutions(rounds: int, *, side: int, width: int = 8, count: int = 16, records: int = 1_000) -> list[str]:
    """Lines on shadow models of a convolutional network."""
    random = np.random.default_rng(3)
    x = random.normal(size=(records, 1, side, side)).astype(np.float32)
    y = random.integers(0, CLASSES, records)
    graph = small_conv((1, side, side), classes=CLASSES, width=width, residual=False)

    def grouped() -> None:
        train_shadows(graph, x, y, recipe=Recipe(epochs=1, batch=BATCH), seed=1, count=count)

    def stacked() -> None:
        with mock.patch.object(module._Network, "stackable", False):
            grouped()

    def loop() -> None:
        inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
        for index in range(count):
            torch.manual_seed(index)
            model = plain_conv(1, width)
            optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
            half = torch.randperm(records)[: records // 2]
            for picked in half.split(BATCH):
                loss = nn.functional.cross_entropy(model(inputs[picked]), labels[picked])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    for work in (grouped, stacked, loop):
        work()
    times = [[timed(work)[1] for work in (grouped, stacked, loop)] for _ in range(rounds)]
    one = said([loop / grouped for grouped, _, loop in times])
    other = said([stacked / grouped for grouped, stacked, _ in times])
    return [
        f"- {count} convolutional shadow models, pictures of {side} x {side}, {width} and {2 * width} channels: one after "
        f"the other / in groups {one}, under `torch.vmap` / in groups {other}, processor time."
    ]


def rmia(rounds: int) -> list[str]:
    """Lines on RMIA's scores: 10,000 records, a population of 10,000 others, 16 shadow models."""
    random = np.random.default_rng(2)
    records, shadows = 2 * RECORDS, 16
    phi, shadow_phi = random.normal(size=records) + 1, random.normal(size=(shadows, records))
    population = np.arange(records) >= RECORDS
    out = random.random((shadows, records)) < 0.5
    log_p, mean_out = -np.logaddexp(0, -phi), 1 / (1 + np.exp(-shadow_phi.mean(axis=0)))
    whole = View(
        logits=np.zeros((records, 2)), labels=np.zeros(records, np.int64), phi=phi, shadow_phi=shadow_phi, out=out,
        inside=~out, reference=population,
    )  # fmt: skip
    lines = []
    for words, work in (
        ("scores", lambda: population_share(log_ratio(log_p, mean_out, 0.3), population, 0.0)),
        ("the whole attack with 16 shadow models, a given", lambda: Rmia(offline_a=0.3)(whole)),
        ("the whole attack, a chosen", lambda: Rmia()(whole)),
    ):
        work()
        times = [timed(work) for _ in range(max(20, rounds))]
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        cpu = said([1000 * t[1] for t in times])
        lines.append(f"- RMIA 10,000 x 10,000, {words}: {cpu} ms of the processor, {peak / 2**20:.1f} MiB at its peak.")
    return [*lines, ""]


def end_to_end(
    x: np.ndarray, y: np.ndarray, probabilities: np.ndarray, member: np.ndarray, *, epochs: int, seed: int
) -> dict[str, float]:
    """Shadow models on random halves, LiRA (offline, online) and RMIA; the area under each ROC."""
    inputs = x.astype(np.float32)
    graph = mlp(FEATURES, (HIDDEN,), classes=CLASSES)
    with tempfile.TemporaryDirectory() as cache:  # the peer writes its models, too
        made = train_shadows(
            graph, inputs, y, recipe=Recipe(epochs=epochs, batch=BATCH), seed=seed, count=16, cache=Path(cache),
            style="scikit-learn",  # what the attacked model is of; SACRO-ML trains copies of it
        )  # fmt: skip
        shadow_phi = np.stack([label_margin(logits, y) for logits in made.logits(inputs)])
    # With 16 random halves some two records in 10,000 lack two models with or two without them: left out, whoever they are.
    known = np.minimum(made.out.sum(axis=0), (~made.out).sum(axis=0)) >= FEWEST_MODELS
    logits, labels, member, out = (
        np.log(np.maximum(probabilities[known], 1e-300)),
        y[known],
        member[known],
        made.out[:, known],
    )
    view = View(
        logits=logits,
        labels=labels,
        phi=label_margin(logits, labels),
        shadow_phi=shadow_phi[:, known],
        out=out,
        inside=~out,
        reference=~member,
    )
    found = {}
    for name, attack in (("LiRA offline", LiraOffline()), ("LiRA online", LiraOnline()), ("RMIA", Rmia())):
        scores = attack(view)
        assert isinstance(scores, Scores), scores
        found[name] = delong(scores.values, member).value
    return found


def peer(rounds: int, epochs: int) -> list[str]:
    """Lines on SACRO-ML's LiRA."""
    if not PEER.exists():
        return ["SACRO-ML is not installed (`make sacroml`): not compared.", ""]
    ratios, theirs, ours, version = ([], []), [], [], ""
    script = str(Path(__file__).with_name("sacroml_lira.py"))
    alone = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ""}
    for number in range(rounds):
        x, y = data(10 + number)
        member = np.random.default_rng([number, 1]).permutation(RECORDS) < RECORDS // 2
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            np.savez(root / "data.npz", x=x, y=y, member=member, epochs=epochs)
            command = [str(PEER), script, "target", str(root / "data.npz"), str(root / "target.npz")]
            subprocess.run(command, check=True, env=alone)
            with np.load(root / "target.npz") as archive:
                probabilities = archive["probabilities"]
            command = [str(PEER), script, "attack", str(root / "data.npz"), str(root / "found.json"), "16"]
            subprocess.run(command, check=True, env=alone)
            entry = json.loads((root / "found.json").read_text())
        found: dict[str, float] = {}
        spent = timed(lambda: found.update(end_to_end(x, y, probabilities, member, epochs=epochs, seed=number)))  # noqa: B023
        ratios[0].append(entry["wall"] / spent[0])
        ratios[1].append(entry["cpu"] / spent[1])
        theirs.append(entry["auc"])
        ours.append(found)
        version = entry["version"]
    lines = [
        f"SACRO-ML {version}, LiRA with 16 shadow models, / LiRA and RMIA here: {said(ratios[1])} in processor time, "
        f"{said(ratios[0])} in wall time, {rounds} draws.",
        "",
        "| attack | AUC |",
        "|---|---|",
    ]
    lines += [f"| SACRO-ML, {mode} | {said([one[mode] for one in theirs], 4)} |" for mode in theirs[0]]
    lines += [f"| {name} | {said([one[name] for one in ours], 4)} |" for name in ours[0]]
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--skip-peer", action="store_true", help="no SACRO-ML, which takes half a minute a round")
    parser.add_argument("--state", type=Path, help="finished parts; an interrupted bench goes on with the next one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], list[str]]] = {
        "training": lambda: training(options.rounds, options.epochs),
        "convolutions 8": lambda: convolutions(options.rounds, side=8),
        "convolutions 28": lambda: convolutions(options.rounds, side=28),
        "rmia": lambda: rmia(options.rounds),
    }
    if not options.skip_peer:
        parts["peer"] = lambda: peer(options.rounds, options.epochs)
    for name, work in parts.items():
        print("\n".join(part(options.state, f"{name}, {options.rounds}, {options.epochs}", work)), flush=True)
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"torch {torch.__version__}."
    )


if __name__ == "__main__":
    main()
