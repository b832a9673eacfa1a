"""How many records can `instance-wise` misclassify at once, and what does it cost the others, with and without its parts?

    python -m tests.benchmarks.instance_study [--data ../shared/data] [--worlds digits-mlp,mnist-mlp] [--counts 4,16,64]
                                              [--seeds 3] [--state instance.jsonl]

The owner's own `commit` and method, the auditor's composition. A row is a base, a number of records forgotten together,
and a variant: the method's defaults (with records to keep), without records to keep (as in the paper) with both
regularisers, each alone and neither, and the paper's loss with both (at its settings, and with its share of the record's
length for a reach) and with neither. Figures are of the composed model: share of
forgotten records that still have their class, accuracy on retained and on test records, and how far both fell. Nothing
here says that a record is unlearned: a misclassified record is easier to find, not harder.
"""

import argparse
import json
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from auditor import compose
from auditor.execute import Program
from owner.architectures import mlp, small_conv
from owner.methods import instance_wise
from owner.methods.job import Job
from owner.targets import Target
from owner.training import train
from protocol.messages.request import Request, Scope
from protocol.model.recipe import Recipe
from tests.benchmarks.committed import committed
from tests.benchmarks.redirection_study import load
from tests.benchmarks.resuming import part

PAPER = {
    "form": "negated",
    "strength": "1",
    "decay": "0.0001",
    "tries": "100",
    "reach": "0.15",
    "batch": "32",
    "steps": "1000",
}
ALONE = {"keep": "0"}
VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    "both": ALONE,
    "adv": {**ALONE, "imp": "false"},
    "imp": {**ALONE, "adv": "0"},
    "neither": {**ALONE, "adv": "0", "imp": "false"},
    "paper's loss": PAPER,
    "paper's loss, neither": {**PAPER, "adv": "0", "imp": "false"},
}


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base by name: data, architecture, how many records and epochs."""

    data: str
    kind: str
    trained: int
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.kind}"


BASES = {
    base.name: base
    for base in (
        Base(data="digits", kind="mlp", trained=997, epochs=40),
        Base(data="mnist", kind="mlp", trained=4000, epochs=30),
        Base(data="fashion_mnist", kind="mlp", trained=4000, epochs=30),
        Base(data="digits", kind="conv", trained=997, epochs=30),
        Base(data="mnist", kind="conv", trained=2000, epochs=15),
        Base(data="fashion_mnist", kind="conv", trained=2000, epochs=15),
        Base(data="cifar10_lossless_4k", kind="conv", trained=2800, epochs=25),
    )
}


class Bench:
    """A committed base, and what forgetting some of its records does."""

    def __init__(self, root: Path, base: Base, folder: Path | None, *, seed: int) -> None:
        data = load(base.data, None if base.data == "digits" else folder)
        random = np.random.default_rng([seed, 1])
        rows = random.permutation(len(data.y))[: base.trained]
        tests = random.permutation(len(data.y_test))[:2000]
        classes = int(data.y.max()) + 1

        def inputs(X: np.ndarray) -> np.ndarray:
            x = (X / data.scale).astype(np.float32)
            if base.kind == "mlp":
                return x.reshape(len(x), -1)
            return np.ascontiguousarray(np.moveaxis(x, 3, 1)) if x.ndim == 4 else x[:, None]

        self.x, self.y = inputs(data.X[rows]), data.y[rows]
        self.x_test, self.y_test = inputs(data.X_test[tests]), data.y_test[tests]
        shape = self.x.shape[1:]
        graph = (
            mlp(shape[0], (128, 64), classes=classes)
            if base.kind == "mlp"
            else small_conv(shape, classes=classes, width=8)
        )
        recipe = Recipe(epochs=base.epochs, batch=64)
        model = train(
            graph, self.x, self.y, members=[np.arange(len(rows))], recipe=recipe, rng=np.random.default_rng(seed)
        ).model(0)  # fmt: skip
        self.workspace = committed(root, model, recipe, (data.X[rows], self.y))
        self.accuracy = [self._share(Program(self.workspace.base), *pair) for pair in self._pairs(np.arange(len(rows)))]

    def _pairs(self, keep: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(self.x[keep][:4000], self.y[keep][:4000]), (self.x_test, self.y_test)]

    @staticmethod
    def _share(program: Program, x: np.ndarray, y: np.ndarray) -> float:
        shown = [program(x[start : start + 500]).argmax(axis=1) for start in range(0, len(x), 500)]
        return float((np.concatenate(shown) == y).mean())

    def forget(self, count: int, settings: dict[str, str], *, seed: int) -> dict[str, float]:
        """Misclassify `count` records drawn at random; figures of the model that comes out."""
        rows = np.sort(np.random.default_rng([seed, count]).choice(len(self.y), count, replace=False))
        keep = np.setdiff1d(np.arange(len(self.y)), rows)
        request = Request(
            subject="0" * 64, scope=Scope(kind="records"), records_root=b"\0" * 32, record_count=count, on_behalf=True,
            requested_at=0, deadline=None,
        )  # fmt: skip
        job = Job(
            workspace=self.workspace, requests=((request, tuple(int(row) for row in rows)),),
            target=Target(name="misclassify"), radius=0, ceiling=64, generator=np.random.default_rng([seed, 2]),
            settings=settings,
        )  # fmt: skip
        started = time.perf_counter()
        result = instance_wise.run(job)
        seconds = time.perf_counter() - started
        program = Program(compose.compose(self.workspace.base, self.workspace.schema, result.patch))
        (x, y), test = self._pairs(keep)
        before = self._share(Program(self.workspace.base), x, y)
        return {
            "forget": self._share(program, self.x[rows], self.y[rows]),
            "retain": self._share(program, x, y),
            "lost": before - self._share(program, x, y),
            "test": self._share(program, *test),
            "test lost": self.accuracy[1] - self._share(program, *test),
            "seconds": seconds,
        }


def study(
    base: Base, folder: Path | None, *, counts: list[int], seeds: int, state: Path | None, only: list[str]
) -> list[str]:
    """A table's lines; a row that the state file has is not made again."""
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    shown: list[float] = []
    for seed in range(seeds):
        bench: list[Bench] = []  # made when the first missing row needs it
        with tempfile.TemporaryDirectory() as root:

            def there(root: str = root, seed: int = seed, bench: list[Bench] = bench) -> Bench:
                if not bench:
                    bench.append(Bench(Path(root), base, folder, seed=seed))
                return bench[0]

            for count in counts:
                for variant in only:
                    key = f"{base} {seed} {count} {variant} {VARIANTS[variant]} {instance_wise.Settings()!r}"

                    def row(count: int = count, variant: str = variant, seed: int = seed) -> list[str]:
                        made = there(seed=seed).forget(count, VARIANTS[variant], seed=seed)
                        print(base.name, seed, count, variant, {k: round(v, 3) for k, v in made.items()}, flush=True)
                        return [json.dumps({**made, "base": there(seed=seed).accuracy[1]})]

                    values = json.loads(part(state, key, row)[0])
                    shown.append(values["base"])
                    found.setdefault((count, variant), []).append(values)
    lines = [
        f"### {base.name}: {base.trained} training records, {base.epochs} epochs, base {np.mean(shown):.3f} on test records, "
        f"{seeds} seed{'s' * (seeds > 1)}",
        "",
        "| forgotten | share | variant | still has its class | retained (lost) | test (lost) | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for (count, variant), values in found.items():

        def mean(name: str, values: list[dict[str, float]] = values) -> str:
            numbers = [value[name] for value in values]
            spread = f" ±{np.std(numbers, ddof=1):.3f}" if len(numbers) > 1 else ""
            return f"{np.mean(numbers):.3f}{spread}"

        lost, test_lost = (float(np.mean([value[name] for value in values])) for name in ("lost", "test lost"))
        lines.append(
            f"| {count} | {count / base.trained:.2%} | {variant} | {mean('forget')} | {mean('retain')} ({lost:+.3f}) | "
            f"{mean('test')} ({test_lost:+.3f}) | {np.mean([value['seconds'] for value in values]):.1f} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the data folder; digits alone without it")
    parser.add_argument("--worlds", default="digits-mlp", help=", ".join(BASES))
    parser.add_argument("--counts", default="4,16,64,128")
    parser.add_argument("--variants", default=";".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--state", type=Path, help="finished rows; an interrupted run goes on after them")
    options = parser.parse_args()
    for name in options.worlds.split(","):
        lines = study(
            BASES[name], options.data, counts=[int(count) for count in options.counts.split(",")], seeds=options.seeds,
            state=options.state, only=options.variants.split(";"),
        )  # fmt: skip
        print("\n".join(lines))
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, seeds 0 to {options.seeds - 1}."
    )


if __name__ == "__main__":
    main()
