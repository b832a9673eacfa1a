"""Does the audit see that a patch which misclassifies makes forgotten records stand out, where a one-sided test does not?

    python -m tests.benchmarks.misclassify_study [--data ../shared/data/mnist.npz] [--seeds 5]

The set-up of the measured table in the membership design: a base for each seed, 100 forgotten records, 1,000
never-seen ones, 32 shadow models, and a local patch that misclassifies, made by the owner's own `prune` and composed
by the auditor. The control is the same architecture trained without the forgotten records, under the same attacks.
The digits have fewer records: 100 against 600. Figures are the AUC of LiRA offline read one-sided (a high score is a
member) and two-sided (unlikely on either side is a member), and the verdict of the default plan.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from auditor import compose
from auditor.attacks.observation import Observation
from auditor.execute import Program
from auditor.membership import MembershipAssessment, MembershipPlan, assess
from auditor.shadows import train_shadows
from owner.methods import prune
from owner.methods.job import Job
from owner.targets import Target
from owner.training import train
from owner.workspace import Workspace
from protocol.messages.request import Request, Scope
from protocol.model.recipe import Recipe
from tests.benchmarks.match_study import mnist
from tests.demo.__main__ import START, Demo
from tests.demo.data import Parts, digits
from tests.demo.world import Clock, World

MODELS = ("base", "retrained", "misclassify")


@dataclass(frozen=True)
class Draw:
    """One seed: what the attacks said of each model."""

    found: dict[str, MembershipAssessment]

    def one_sided(self, model: str) -> float:
        return self.found[model].comparison("lira-offline", "signed").difference.auc

    def two_sided(self, model: str) -> float:
        return self.found[model].comparison("lira-offline-two-sided", "signed").difference.auc


def draw(parts: Parts, seed: int, *, forgotten: int, reference: int, shadows: int, recipe: Recipe) -> Draw:
    """Train, forget, retrain and attack once."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(World(root=Path(folder), clock=Clock(START)), parts, kind="mlp", seed=seed)
        demo.recipe = recipe
        demo.prepare()
        workspace = Workspace(folder=demo.commitment)
        own, schema, graph = workspace.records, workspace.schema, workspace.base
        random = np.random.default_rng([seed, 0])
        rows = np.sort(random.choice(len(own.labels), forgotten, replace=False))
        known = random.permutation(len(parts.y_reference))[:reference]
        never = parts.X_reference.reshape(len(parts.X_reference), -1).astype(np.int32)[known]
        labels = parts.y_reference[known]
        request = Request(
            subject="0" * 64, scope=Scope(kind="records"), records_root=b"\0" * 32, record_count=forgotten,
            on_behalf=True, requested_at=0, deadline=None,
        )  # fmt: skip
        job = Job(
            workspace=workspace, requests=((request, tuple(int(row) for row in rows)),),
            target=Target(name="misclassify"), radius=None, ceiling=64, generator=np.random.default_rng([seed, 1]),
        )  # fmt: skip
        patched = compose.compose(graph, schema, prune.run(job).patch)
        kept = np.setdiff1d(np.arange(len(own.labels)), rows)
        inputs = schema.dequantise(own.values)
        without = train(
            graph, inputs, own.labels, members=[kept], recipe=recipe, rng=np.random.default_rng([seed, 2])
        ).model(0)
        models = {"base": graph, "retrained": without, "misclassify": patched}
        trained = train_shadows(graph, schema.dequantise(never), labels, recipe=recipe, seed=seed, count=shadows)
        values = np.concatenate([own.values[rows], never])
        everything = schema.dequantise(values)
        mask = np.arange(len(values)) < forgotten
        observed = {
            "labels": np.concatenate([own.labels[rows], labels]),
            "shadow_logits": trained.logits(everything),
            "out": np.concatenate([np.ones((shadows, forgotten), dtype=bool), trained.out], axis=1),
            "features": values.astype(np.float32),
        }
        plan = MembershipPlan(duplicates="drop")
        return Draw(
            {
                name: assess(
                    Observation(logits=Program(models[name])(everything), **observed), mask, plan,
                    np.random.default_rng([seed, 3]),
                )
                for name in MODELS
            }
        )  # fmt: skip


def study(parts: Parts, *, seeds: int, forgotten: int, reference: int, shadows: int, recipe: Recipe) -> list[str]:
    """Run the study; returns the lines of a Markdown section."""
    started = time.monotonic()
    draws = [
        draw(parts, seed, forgotten=forgotten, reference=reference, shadows=shadows, recipe=recipe)
        for seed in range(1, seeds + 1)
    ]
    lines = [
        f"### {parts.name}: {forgotten} forgotten against {reference} never-seen records, {shadows} shadow models, "
        f"{seeds} seeds",
        "",
        f"{len(parts.y_train)} training records, {recipe.epochs} epochs. Mean over the seeds, range in brackets.",
        "",
        "| | " + " | ".join(MODELS) + " |",
        "|---|" + "---|" * len(MODELS),
    ]
    for words, figure in (
        ("LiRA offline, one-sided", Draw.one_sided),
        ("LiRA offline, two-sided", Draw.two_sided),
    ):
        cells = []
        for model in MODELS:
            values = [figure(one, model) for one in draws]
            cells.append(f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]")
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    verdicts = {model: [one.found[model].verdict for one in draws] for model in MODELS}
    cells = [", ".join(f"{found.count(v)} {v}" for v in sorted(set(found))) for found in verdicts.values()]
    lines += ["| verdicts | " + " | ".join(cells) + " |", "", f"{time.monotonic() - started:.0f} s.", ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MNIST as the data folder's README describes it; digits without it")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=5_000)
    options = parser.parse_args()
    if options.data is None:
        lines = study(
            digits(), seeds=options.seeds, forgotten=100, reference=600, shadows=32, recipe=Recipe(epochs=40, batch=32)
        )
    else:
        lines = study(
            mnist(options.data, options.train, 4_000), seeds=options.seeds, forgotten=100, reference=1_000, shadows=32,
            recipe=Recipe(epochs=30, batch=64),
        )  # fmt: skip
    print("\n".join(lines))


if __name__ == "__main__":
    main()
