"""How much further do proofs reach with slopes that were looked for, and what does finding them cost beside checking?

    python -m tests.benchmarks.hints_bench [--data ../shared/data/mnist.npz] [--records 16] [--seconds 300]

For each record two claims: the base's own class leads (gate-free, the hardest: its margin shrinks to nothing), and a
class leads whose logit a shift lifts by three standard deviations of the logits (the head of a patch). Radii by bisection in the
auditor's own arithmetic, with intervals, with the usual slopes (CROWN), and with the owner's slopes packed as a file
of hints packs them; a radius is counted only if the auditor proves it. The grid is as fine as the data allow, digits on 16
times as many levels as they have, so that gains show. Then a residual convolutional net with normalisation: the largest
radius proven, if any. Cost: seconds for finding and for checking the same slopes at the same radii, one thread.
"""

import argparse
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from auditor.execute import Program
from auditor.largest import UNPROVEN, bisect
from auditor.propagation import Plan, bound_plan, make_plan, margin_rows, region
from owner.architectures import mlp, small_conv
from owner.relaxation import Question, Relaxation, search
from owner.training import train
from protocol.hints import STEPS
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema

TOGETHER = 4


@dataclass
class Cost:
    """Seconds, and how many bounds were asked for."""

    find: float = 0.0
    check: float = 0.0


@dataclass
class Claims:
    """Claims of one kind on a model: `rows @ logits > floor` within some steps of records."""

    graph: Graph
    plan: Plan
    relaxed: Relaxation
    schema: InputSchema
    grid: np.ndarray
    rows: np.ndarray
    floor: np.ndarray

    def usual(self, method: str, ceiling: int, cost: Cost) -> np.ndarray:
        """Largest radii without hints."""

        def test(which: np.ndarray, steps: np.ndarray) -> np.ndarray:
            low, high = region(self.schema, self.grid[which], steps)
            start = time.perf_counter()
            found = bound_plan(self.plan, low, high, objective=self.rows[which], method=method, neurons=512)
            cost.check += time.perf_counter() - start
            return (found.lower > self.floor[which]).all(axis=1)

        return bisect(test, np.full(len(self.grid), ceiling + 1))

    def packed(self, inner: np.ndarray, last: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Slopes by tensor, as the auditor takes them from a file."""
        names, sizes = [node.outputs[0] for node in self.relaxed.relus], self.relaxed.sizes
        ends = np.cumsum((0, *sizes))
        shapes = [self.plan.shapes[name] for name in names]
        cut = list(zip(names, shapes, ends[:-1], ends[1:], strict=True))
        return (
            {n: inner[:, a:b].reshape(-1, *shape) / STEPS for n, shape, a, b in cut},
            {n: last[..., a:b].reshape(*last.shape[:2], *shape) / STEPS for n, shape, a, b in cut},
        )

    def hinted(self, ceiling: int, start: np.ndarray, cost: Cost, *, inner: int) -> np.ndarray:
        """Largest radii with slopes that are looked for at every radius that is tried."""

        def test(which: np.ndarray, steps: np.ndarray) -> np.ndarray:
            good = np.zeros(len(which), np.bool_)
            for first in range(0, len(which), TOGETHER):
                some = slice(first, first + TOGETHER)
                part = which[some]
                low, high = region(self.schema, self.grid[part], steps[some])
                begun = time.perf_counter()
                asked = Question(low=low, high=high, rows=self.rows[part], floor=self.floor[part] + 1e-3)
                found = search(self.relaxed, asked, steps=20, inner=inner)
                begun, cost.find = time.perf_counter(), cost.find + time.perf_counter() - begun
                slopes, own = self.packed(*found.slopes.packed())
                proven = bound_plan(
                    self.plan, low, high, objective=self.rows[part], slopes=slopes, last_slopes=own, neurons=512
                )
                cost.check += time.perf_counter() - begun
                good[some] = (proven.lower > self.floor[part]).all(axis=1)
            return good

        # From the radius without hints upwards: nothing smaller is of interest.
        known = np.maximum(start, UNPROVEN)
        gained = bisect(
            lambda which, steps: test(which, steps + known[which] + 1), np.full(len(known), ceiling) - known
        )
        return np.where(gained == UNPROVEN, known, known + 1 + gained)


def told(radii: np.ndarray) -> str:
    """Median, mean and how many there are."""
    some = radii[radii != UNPROVEN]
    return f"{np.median(radii):g} / {radii.mean():.2f} ({len(some)} of {len(radii)})"


def measure(name: str, graph: Graph, schema: InputSchema, grid: np.ndarray, *, ceiling: int, inner: int) -> None:
    """Two rows of the table."""
    outputs = Program(graph)(schema.dequantise(grid))
    labels, classes = outputs.argmax(axis=1), graph.classes
    lift = 3 * float(outputs.std())
    other = (labels + 1) % classes
    kinds = {"own class": (labels, 0.0), f"lifted by {lift:.0f}": (other, -lift)}
    for kind, (klass, floor) in kinds.items():
        claims = Claims(
            graph=graph, plan=make_plan(graph), relaxed=Relaxation(graph), schema=schema, grid=grid,
            rows=margin_rows(klass, classes), floor=np.full((len(grid), classes - 1), floor),
        )  # fmt: skip
        cost, with_hints = Cost(), Cost()
        interval = claims.usual("interval", ceiling, Cost())
        crown = claims.usual("crown", ceiling, cost)
        last = claims.hinted(ceiling, crown, Cost() if inner else with_hints, inner=0)
        both = claims.hinted(ceiling, crown, with_hints, inner=inner) if inner else last
        assert (both >= crown).all()
        gain = np.mean(both[crown > 0] / crown[crown > 0]) if (crown > 0).any() else float("nan")
        ratio = with_hints.find / max(with_hints.check, 1e-9)
        print(
            f"| {name} | {kind} | {len(grid)} | {told(interval)} | {told(crown)} | {told(last)} | {told(both)} | "
            f"{gain:.2f} | {np.mean(both > crown):.0%} | {with_hints.find:.1f} | {with_hints.check:.2f} | {ratio:.0f} |",
            flush=True,
        )


def fitted(graph: Graph, schema: InputSchema, grid: np.ndarray, labels: np.ndarray, epochs: int = 15) -> Graph:
    """A trained model."""
    recipe = Recipe(epochs=epochs, batch=64)
    rng = np.random.default_rng(0)
    return train(
        graph, schema.dequantise(grid), labels, members=[np.arange(len(labels))], recipe=recipe, rng=rng
    ).model(0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--records", type=int, default=16)
    parser.add_argument("--inner", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(
        "| model | claim | records | interval | CROWN | slopes, last pass | slopes, all | times | larger | find s | check s | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    count, digits = arguments.records, load_digits()
    grid, labels = digits.images.reshape(-1, 64).astype(np.int64) * 16, digits.target.astype(np.int64)
    fine = InputSchema.uniform((64,), scale=256.0, low=0, high=256)
    model = fitted(mlp(64, (64, 64), classes=10), fine, grid, labels)
    measure("digits 64-64-64-10", model, fine, grid[:count], ceiling=128, inner=arguments.inner)
    if arguments.data is not None:
        with np.load(arguments.data) as archive:
            grid = archive["X_train"][:10000].reshape(-1, 784).astype(np.int64)
            labels = archive["y_train"][:10000].astype(np.int64)
        grey = InputSchema.uniform((784,), scale=255.0, low=0, high=255)
        model = fitted(mlp(784, (128, 64), classes=10), grey, grid, labels)
        measure("MNIST 784-128-64-10", model, grey, grid[:count], ceiling=64, inner=arguments.inner)
    image = InputSchema.uniform((1, 8, 8), scale=256.0, low=0, high=256)
    grid, labels = digits.images.reshape(-1, 64).astype(np.int64) * 16, digits.target.astype(np.int64)
    model = fitted(small_conv((1, 8, 8), classes=10, width=4), image, grid, labels, epochs=10)
    measure("digits residual conv + BN", model, image, grid[: min(count, 8)], ceiling=64, inner=0)


if __name__ == "__main__":
    main()
