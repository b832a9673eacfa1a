"""How much has to change for forgotten records to look never-seen: label changes against what two-sided attacks see.

    python -m tests.benchmarks.frontier_study [--data ../shared/data/mnist.npz] [--draws 5] [--state frontier.jsonl]
                                              [--picture tests/demo/pictures/frontier.svg]

A point is a way to choose rows: `match` with 2, 3, 5 or 10 cross-fitted models; without the rescaling; with the mean of four
sets of cross-fitted outputs, and with one of the four at random, for each record; `match` for some and `misclassify` for
the others; `misclassify`; and doing nothing. Across: the share of forgotten records whose label changes. Up: the largest
distance of an attack's AUC from its class-matched control, of all required attacks and both forms (a high score, and
one far from the never-seen ones' centre, whichever side), pooled over draws, with its 95 % bound. Cost: models trained
at commit. A certified region gives exactly the row that was chosen, so rows are attacked as they are, without patches
around them (`match_study` goes all the way). A control of never-seen records of the same size stands beside.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from auditor.attacks.observation import Observation
from auditor.execute import Program
from auditor.membership import MembershipPlan, assess, pool
from auditor.shadows import train_shadows
from owner.architectures import mlp
from owner.commit import cross_fit
from owner.methods.job import silent
from owner.targets import Target, class_rows, match_rows, scale_factor
from owner.training import train
from owner.workspace import Prepared
from protocol.model.recipe import Recipe
from tests.benchmarks.committed import committed
from tests.benchmarks.match_study import mnist
from tests.benchmarks.resuming import part
from tests.demo.data import Parts, digits

FOLDS = (2, 3, 5, 10)
SETS = 4
BASIS = 5
SHARES = (0.1, 0.25, 0.5, 0.75)


class Points:
    """Every way to choose rows, over one base."""

    def __init__(self, root: Path, parts: Parts, *, recipe: Recipe, shadows: int, seed: int) -> None:
        x = (parts.X_train.reshape(len(parts.X_train), -1) / parts.scale).astype(np.float32)
        graph = mlp(x.shape[1], (128, 64), classes=parts.classes)
        base = train(
            graph, x, parts.y_train, members=[np.arange(len(x))], recipe=recipe, rng=np.random.default_rng(seed)
        ).model(0)  # fmt: skip
        flat = parts.X_train.reshape(len(x), -1), parts.X_unseen.reshape(len(parts.X_unseen), -1)
        self.workspace = committed(root, base, recipe, (flat[0], parts.y_train), (flat[1], parts.y_unseen))
        self.own, self.schema, self.program = (
            self.workspace.records,
            self.workspace.schema,
            Program(self.workspace.base),
        )
        self.unseen = self.program(self.schema.dequantise(self.own.unseen_values))
        self.prepared: dict[tuple[int, int], Prepared] = {}
        for folds, again in [(folds, 0) for folds in FOLDS] + [(BASIS, again) for again in range(1, SETS)]:
            self.prepared[folds, again] = cross_fit(
                self.workspace.base, self.schema, self.own, recipe, folds=folds, seed=seed + 1000 * again,
                task=b"\0" * 32, keep=root / f"folds-{folds}-{again}", progress=silent,
            )  # fmt: skip
        self.reference = parts.X_reference.reshape(len(parts.X_reference), -1).astype(np.int32)
        self.labels = parts.y_reference
        inputs = self.schema.dequantise(self.reference)
        self.trained = train_shadows(self.workspace.base, inputs, self.labels, recipe=recipe, seed=seed, count=shadows)
        self.shadow = self.trained.logits(inputs)
        self.base_reference = self.program(inputs)
        self.shadows, self.seed = shadows, seed

    def _match(self, rows: np.ndarray, folds: int, again: int = 0, *, scaled: bool = True) -> np.ndarray:
        prepared = self.prepared[folds, again]
        factor = scale_factor(prepared, self.unseen, self.own.unseen_labels) if scaled else 1.0
        return match_rows(prepared, rows.tolist(), factor).rows

    def rows(self, rows: np.ndarray, random: np.random.Generator) -> dict[str, tuple[int, np.ndarray]]:
        """For each way the number of models trained at commit, and the forgotten records' outputs."""
        basis = self._match(rows, BASIS)
        sets = np.stack([self._match(rows, BASIS, again) for again in range(SETS)])
        own = self.program(self.schema.dequantise(self.own.values[rows]))
        keep = np.setdiff1d(np.arange(len(self.own.labels)), rows)
        banned = np.eye(own.shape[1], dtype=bool)[self.own.labels[rows]]
        typical = self.program(self.schema.dequantise(self.own.values[keep]))
        wrong = class_rows(Target(name="misclassify"), own, typical, self.own.labels[keep], banned)
        away = wrong.rows[wrong.row_of_record]
        order = random.permutation(len(rows))
        ways = {
            "nothing (the base)": (0, own),
            **{f"match, {folds} models": (folds, self._match(rows, folds)) for folds in FOLDS},
            f"match, {BASIS} models, not rescaled": (BASIS, self._match(rows, BASIS, scaled=False)),
            f"match, mean of {SETS} sets of {BASIS}": (SETS * BASIS, sets.mean(axis=0)),
            f"match, one of {SETS} sets of {BASIS}": (
                SETS * BASIS,
                sets[random.integers(0, SETS, len(rows)), np.arange(len(rows))],
            ),
        }
        for share in SHARES:
            chosen = order < share * len(rows)
            ways[f"{share:.0%} misclassify, others match"] = (BASIS, np.where(chosen[:, None], away, basis))
        return {**ways, "misclassify": (0, away)}

    def draw(self, number: int, forget: int, plan: MembershipPlan) -> dict[str, tuple[int, float, object]]:
        """One draw of forgotten records: for each way the cost, the share of changed labels, and what attacks see."""
        random = np.random.default_rng([self.seed, number])
        rows = np.sort(random.choice(len(self.own.labels), forget, replace=False))
        inputs = self.schema.dequantise(self.own.values[rows])
        out = np.concatenate([np.ones((self.shadows, forget), dtype=bool), self.trained.out], axis=1)
        observed = {
            "labels": np.concatenate([self.own.labels[rows], self.labels]),
            "shadow_logits": np.concatenate([self.trained.logits(inputs), self.shadow], axis=1),
            "out": out,
            "features": np.concatenate([self.own.values[rows], self.reference]).astype(np.float32),
        }
        mask = np.arange(out.shape[1]) < forget
        found = {}
        for name, (cost, logits) in self.rows(rows, random).items():
            everything = np.concatenate([logits, self.base_reference]).astype(np.float32)
            seen = assess(
                Observation(logits=everything, **observed), mask, plan, np.random.default_rng([self.seed, number, 1])
            )
            found[name] = cost, float((logits.argmax(axis=1) != self.own.labels[rows]).mean()), seen
        return found


def measure(
    parts: Parts, *, draws: int, forget: int, epochs: int, shadows: int, margin: float, seed: int
) -> list[dict[str, object]]:
    """All points, pooled over draws."""
    started = time.monotonic()
    plan = MembershipPlan(margin=margin, duplicates="drop")
    with tempfile.TemporaryDirectory() as root:
        points = Points(Path(root), parts, recipe=Recipe(epochs=epochs, batch=64), shadows=shadows, seed=seed)
        found = [points.draw(number, forget, plan) for number in range(draws)]
    result: list[dict[str, object]] = []
    for name in found[0]:
        pooled = pool([one[name][2] for one in found])  # type: ignore[misc]
        required = [one for one in pooled.comparisons if one.attack in plan.required]
        strongest = max(required, key=lambda one: abs(one.value))
        result.append(
            {
                "name": name, "cost": found[0][name][0], "changed": float(np.mean([one[name][1] for one in found])),
                "difference": abs(strongest.value), "attack": f"{strongest.attack}, {strongest.form}",
                "bound": max(one.equivalence.upper_bound for one in required), "verdict": str(pooled.verdict),
            }
        )  # fmt: skip
    print(f"{parts.name}: {time.monotonic() - started:.0f} s", flush=True)
    return result


def table(name: str, points: list[dict[str, object]], words: str) -> list[str]:
    """A Markdown section."""
    lines = [
        f"### {name}: {words}", "",
        "| rows | models at commit | labels changed | strongest required attack | difference | 95 % bound | pooled verdict |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {p['name']} | {p['cost']} | {p['changed']:.1%} | {p['attack']} | {p['difference']:.3f} | {p['bound']:.3f} | "
        f"{p['verdict']} |"
        for p in points
    ]
    return [*lines, ""]


def picture(found: dict[str, list[dict[str, object]]], path: Path) -> None:
    """One panel for each data set, as an SVG file with the same bytes for the same points."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "frontier"
    plt.rcParams["svg.fonttype"] = "none"
    figure, axes = plt.subplots(1, len(found), figsize=(5.2 * len(found), 3.8), squeeze=False, sharey=True)
    for axis, (name, points) in zip(axes[0], found.items(), strict=True):
        blend = [p for p in points if "misclassify" in str(p["name"]) or p["name"] == f"match, {BASIS} models"]
        blend.sort(key=lambda p: float(p["changed"]))  # type: ignore[arg-type]
        axis.plot([p["changed"] for p in blend], [p["difference"] for p in blend], color="0.7", zorder=1)
        for kind, colour, chosen in (
            ("match", "tab:blue", lambda n: n.startswith("match")),
            ("match and misclassify", "tab:orange", lambda n: "others" in n),
            ("misclassify", "tab:red", lambda n: n == "misclassify"),
            ("nothing", "black", lambda n: n.startswith("nothing")),
        ):
            mine = [p for p in points if chosen(str(p["name"]))]
            x, y = ([p[key] for p in mine] for key in ("changed", "difference"))
            up = [max(0.0, float(p["bound"]) - float(p["difference"])) for p in mine]  # type: ignore[arg-type]
            axis.errorbar(x, y, yerr=[[0.0] * len(y), up], fmt="o", ms=4, color=colour, label=kind, capsize=2, zorder=2)
        axis.set_title(name)
        axis.set_xlabel("share of forgotten records whose label changes")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("strongest two-sided attack: |AUC - control|,\nup to its 95 % bound")
    axes[0][0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MNIST as the data folder's README describes it, beside the digits")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--train", type=int, default=4_000)
    parser.add_argument("--reference", type=int, default=4_000)
    parser.add_argument("--shadows", type=int, default=32)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--state", type=Path, help="finished data sets; an interrupted run goes on after them")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    worlds = [(digits(), 40, 0.15)]
    if options.data is not None:
        worlds.append((mnist(options.data, options.train, options.reference), 30, 0.10))
    found = {}
    for parts, epochs, margin in worlds:
        how = {"draws": options.draws, "forget": parts.forget, "epochs": epochs, "shadows": options.shadows}
        key = f"{parts.name} {len(parts.y_train)} {len(parts.y_reference)} {how} {margin} {options.seed}"

        def work(parts: Parts = parts, how: dict[str, int] = how, margin: float = margin) -> list[str]:
            return [json.dumps(measure(parts, **how, margin=margin, seed=options.seed))]

        found[parts.name] = json.loads(part(options.state, key, work)[0])
        words = (
            f"{options.draws} draws of {parts.forget} of {len(parts.y_train)} trained records against "
            f"{len(parts.y_reference)} never seen, margin {margin:g}, {options.shadows} shadow models, seed {options.seed}"
        )
        print("\n".join(table(parts.name, found[parts.name], words)))
    if options.picture is not None:
        picture(found, options.picture)
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}."
    )


if __name__ == "__main__":
    main()
