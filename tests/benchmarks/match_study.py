"""Does `match` make forgotten records indistinguishable from never-seen ones, over five draws?

    python -m tests.benchmarks.match_study [--data ../shared/data/mnist.npz] [--draws 5] [--small]

Both programs' own code, base to patch to composed model to attacks: `prune` makes each patch, the auditor
composes and attacks it. Pools the draws (`auditor.membership.pool`) and prints one table for `match`,
`misclassify` and the unpatched base. Error budget: TOST at 5 % for each required attack and form.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from auditor import compose
from auditor.attacks.observation import Observation
from auditor.execute import Program
from auditor.membership import MembershipPlan, assess, pool
from auditor.shadows import train_shadows
from owner.methods import prune
from owner.methods.job import Job
from owner.targets import Target
from owner.workspace import Workspace
from protocol.messages.request import Request, Scope
from protocol.model.recipe import Recipe
from tests.demo.__main__ import START, Demo
from tests.demo.data import Parts, digits
from tests.demo.world import Clock, World


def mnist(path: Path, train: int, reference: int) -> Parts:
    """A part of MNIST: training records from the official training set, unseen and reference from the test set."""
    with np.load(path, allow_pickle=False) as archive:
        X, y = archive["X_train"], archive["y_train"].astype(np.int64)
        X_test, y_test = archive["X_test"], archive["y_test"].astype(np.int64)
    random = np.random.default_rng(2026)
    rows, order = random.permutation(len(X))[:train], random.permutation(len(X_test))
    unseen, ref = order[:1000], order[1000 : 1000 + reference]
    return Parts(
        "mnist", X[rows], y[rows], X_test[unseen], y_test[unseen], X_test[ref], y_test[ref], None, 255.0, 10, 200, 0.10
    )


def study(parts: Parts, *, draws: int, shadows: int, epochs: int, margin: float, seed: int) -> list[str]:
    """Run the study; returns the lines of a Markdown section."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(World(root=Path(folder), clock=Clock(START)), parts, kind="mlp", seed=seed)
        demo.recipe = Recipe(epochs=epochs, batch=64)
        demo.prepare()
        workspace = Workspace(folder=demo.commitment)
        own, schema = workspace.records, workspace.schema
        base = Program(workspace.base)
        accuracy = float((base(schema.dequantise(own.values)).argmax(axis=1) == own.labels).mean())
        reference = parts.X_reference.reshape(len(parts.X_reference), -1).astype(np.int32)
        inputs = schema.dequantise(reference)
        test_accuracy = float((base(inputs).argmax(axis=1) == parts.y_reference).mean())
        trained = train_shadows(workspace.base, inputs, parts.y_reference, recipe=demo.recipe, seed=seed, count=shadows)
        reference_shadow = trained.logits(inputs)
        plan = MembershipPlan(margin=margin, duplicates="drop")
        kinds = ("match", "misclassify", "base")
        found: dict[str, list] = {kind: [] for kind in kinds}
        radii, changed = [], []
        for draw in range(draws):
            rows = np.sort(np.random.default_rng([seed, draw]).choice(len(own.labels), parts.forget, replace=False))
            request = Request(
                subject="0" * 64, scope=Scope(kind="records"), records_root=b"\0" * 32, record_count=len(rows),
                on_behalf=True, requested_at=0, deadline=None,
            )  # fmt: skip
            forget_inputs = schema.dequantise(own.values[rows])
            shadow_logits = np.concatenate([trained.logits(forget_inputs), reference_shadow], axis=1)
            out = np.concatenate([np.ones((shadows, len(rows)), dtype=bool), trained.out], axis=1)
            mask = np.arange(len(rows) + len(reference)) < len(rows)
            everything = np.concatenate([forget_inputs, inputs])
            for kind in kinds:
                if kind == "base":
                    logits = base(everything)
                else:
                    job = Job(
                        workspace=workspace, requests=((request, tuple(int(r) for r in rows)),), target=Target(name=kind),
                        radius=None, ceiling=64, generator=np.random.default_rng([seed, draw]),
                    )  # fmt: skip
                    result = prune.run(job)
                    logits = Program(compose.compose(workspace.base, schema, result.patch))(everything)
                    if kind == "match":
                        radii += [claim.region.radius for claim in result.claims]
                        changed.append(float((logits[: len(rows)].argmax(axis=1) != own.labels[rows]).mean()))
                observation = Observation(
                    logits=logits,
                    labels=np.concatenate([own.labels[rows], parts.y_reference]),
                    shadow_logits=shadow_logits,
                    out=out,
                    features=np.concatenate([own.values[rows], reference]).astype(np.float32),
                )
                found[kind].append(assess(observation, mask, plan, np.random.default_rng([seed, draw, 1])))
        pooled = {kind: pool(found[kind]) for kind in kinds}
    required = set(plan.required)
    lines = [
        f"### {parts.name}: {draws} draws of {parts.forget} forgotten against {len(reference)} never-seen records",
        "",
        f"Base: perceptron {'-'.join(map(str, (own.values.shape[1], 128, 64, parts.classes)))}, {len(own.labels)} training "
        f"records, {epochs} epochs; accuracy {accuracy:.3f} on them, {test_accuracy:.3f} on the reference. "
        f"{shadows} shadow models on halves of the reference. Margin {margin:g}. Certified radius: median "
        f"{int(np.median(radii))}, least {min(radii)} grid steps. Label changed by `match`: {np.mean(changed):.1%}.",
        "",
        "| attack | form | AUC match | control | difference (95 %) | 95 % bound | AUC misclassify | AUC base |",
        "|---|---|---|---|---|---|---|---|",
    ]
    others = {k: {(c.attack, c.form): c for c in pooled[k].comparisons} for k in ("misclassify", "base")}
    worst = 0.0
    for one in pooled["match"].comparisons:
        star = "*" if one.attack in required else ""
        if star:
            worst = max(worst, one.equivalence.upper_bound)
        lines.append(
            f"| {one.attack}{star} | {one.form} | {one.auc:.3f} | {one.expected:.3f} | {one.value:+.3f} "
            f"[{one.equivalence.low:+.3f}, {one.equivalence.high:+.3f}] | {one.equivalence.upper_bound:.3f} | "
            f"{others['misclassify'][one.attack, one.form].auc:.3f} | {others['base'][one.attack, one.form].auc:.3f} |"
        )
    verdicts = {kind: pooled[kind].verdict for kind in kinds}
    single = {kind: [a.verdict for a in found[kind]] for kind in kinds}
    lines += [
        "",
        f"\\* required. Largest 95 % bound of a required attack for `match`: **{worst:.3f}**. Pooled verdicts: "
        + ", ".join(f"{kind} {verdict}" for kind, verdict in verdicts.items())
        + ". Single draws: "
        + "; ".join(
            f"{kind} " + ", ".join(f"{single[kind].count(v)} {v}" for v in sorted(set(single[kind]))) for kind in kinds
        )
        + f". {time.monotonic() - started:.0f} s on {torch.get_num_threads()} threads, seed {seed}.",
        "",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST as described in the data folder's README; digits without it")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--reference", type=int, default=4_000)
    parser.add_argument("--shadows", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    parts = digits() if options.data is None else mnist(options.data, options.train, options.reference)
    margin = 0.15 if options.data is None else 0.10
    epochs = 40 if options.data is None else options.epochs
    lines = study(parts, draws=options.draws, shadows=options.shadows, epochs=epochs, margin=margin, seed=options.seed)
    print("\n".join(lines))
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}."
    )


if __name__ == "__main__":
    main()
