"""Does `distribution-matching` match forgotten records to unseen ones, keep the rest, and take a backdoor away?

    python -m tests.benchmarks.matching_study [--data ../shared/data] [--sets digits,mnist,uci_har]
                                              [--scenarios records,class,trigger] [--seeds 3] [--state matching.jsonl]

The table's worlds, the owner's own `commit` and method, the auditor's composition. For base, method (each way of telling
a record's class) and retraining: accuracy on forgotten, retained and reference records (the remaining classes'),
distance of the confidence in the label between forgotten and reference records (Kolmogorov-Smirnov, and AUC, .5 is
matched), each with reference records weighed to the forgotten ones' classes, and the attack's success: the share of
reference records of other classes that the trigger turns into the attacker's. For poisoned records the label is the
attacker's, so what is compared is the confidence in the class that they show, against unstamped reference records.
"""

import argparse
import json
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from auditor import compose
from auditor.execute import Program
from owner.architectures import mlp, small_conv
from owner.methods import distribution_matching, retrain
from owner.methods.job import Job
from owner.targets import Target
from owner.training import train
from protocol.errors import OwnerError
from protocol.messages.request import Request, Scope
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe
from tests.benchmarks.committed import committed
from tests.benchmarks.resuming import part
from tests.benchmarks.table.worlds import TARGET_LABEL, Roles, Size, draw

MODELS: dict[str, dict[str, str] | None] = {
    "base": None,
    "auto": {},
    "labels=given": {"labels": "given"},
    "retrained": None,
}
FIGURES = ("forget", "retain", "reference", "ks", "auc", "backdoor", "seconds")


def _auc(high: np.ndarray, low: np.ndarray, weights: np.ndarray) -> float:
    """P(high > low) + P(=) / 2, the low ones weighed."""
    order = np.argsort(low)
    total = np.concatenate([[0.0], np.cumsum(weights[order])]) / weights.sum()
    below, upto = (total[np.searchsorted(low[order], high, side=side)] for side in ("left", "right"))  # type: ignore[call-overload]
    return float((below + upto).mean() / 2)


def _ks(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """Largest distance between two distribution functions, b's weighed."""
    order = np.argsort(b)
    total = np.concatenate([[0.0], np.cumsum(weights[order])]) / weights.sum()
    points = np.concatenate([a, b])
    mine = np.searchsorted(np.sort(a), points, side="right") / len(a)
    return float(np.abs(mine - total[np.searchsorted(b[order], points, side="right")]).max())


def figures(graph: Graph, roles: Roles, inputs: object, *, scenario: str) -> dict[str, float]:
    """All figures of one model but the time."""
    program = Program(graph)

    def probabilities(X: np.ndarray) -> np.ndarray:
        x = inputs(X)  # type: ignore[operator]
        logits = np.concatenate([program(x[start : start + 500]) for start in range(0, len(x), 500)]).astype(np.float64)
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: np.ndarray = exponent / exponent.sum(axis=1, keepdims=True)
        return shares

    kept = np.ones(len(roles.y), bool)
    kept[roles.forget] = False
    own, rest, never = (probabilities(X) for X in (roles.X[roles.forget], roles.X[kept], roles.X_reference))
    labels, others = roles.y[roles.forget], roles.y_reference
    known = others != roles.klass if roles.klass is not None else np.ones(len(others), bool)
    if scenario == "trigger":
        mine, theirs, weights = own.max(axis=1), never.max(axis=1), np.ones(len(others))
    else:
        mine, theirs = own[np.arange(len(own)), labels], never[np.arange(len(never)), others]
        share = np.bincount(labels, minlength=never.shape[1]) / np.maximum(
            1, np.bincount(others, minlength=never.shape[1])
        )
        weights = share[others]
    found = {
        "forget": float((own.argmax(axis=1) == labels).mean()),
        "retain": float((rest.argmax(axis=1) == roles.y[kept]).mean()),
        "reference": float((never.argmax(axis=1) == others)[known].mean()),
        "ks": _ks(mine, theirs, weights),
        "auc": _auc(mine, theirs, weights),
        "backdoor": float("nan"),
    }
    if roles.X_triggered is not None:
        found["backdoor"] = float((probabilities(roles.X_triggered).argmax(axis=1) == TARGET_LABEL).mean())
    return found


def world(
    name: str, scenario: str, seed: int, size: Size, folder: Path | None, wanted: list[str]
) -> dict[str, dict[str, float]]:
    """Every wanted model's figures in one world."""
    roles = draw(name, scenario, seed, size, folder)
    if roles is None:
        return {}
    data = roles.data

    def inputs(X: np.ndarray) -> np.ndarray:
        x = data.schema.dequantise(X) if data.schema is not None else X.astype(np.float32)
        if data.schema is None and X.dtype.kind != "f":
            x = (X / data.scale).astype(np.float32)
        return np.moveaxis(x, 3, 1) if data.kind == "conv" and x.ndim == 4 else x.reshape(len(x), -1)

    x, classes = inputs(roles.X), int(max(roles.y.max(), roles.y_reference.max())) + 1
    graph = (
        small_conv(x.shape[1:], classes=classes) if data.kind == "conv" else mlp(x.shape[1], (128, 64), classes=classes)
    )
    recipe = Recipe(epochs=size.epochs, batch=64)
    base = train(
        graph, x, roles.y, members=[np.arange(len(roles.y))], recipe=recipe, rng=np.random.default_rng(seed)
    ).model(0)  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as root:
        workspace = committed(
            Path(root), base, recipe, (roles.X, roles.y), (roles.X_unseen, roles.y_unseen), schema=data.schema
        )
        scope = Scope(kind="class", klass=roles.klass) if scenario == "class" else Scope(kind="records")
        rows = () if scenario == "class" else tuple(int(row) for row in roles.forget)
        request = Request(
            subject="0" * 64, scope=scope, records_root=None if scenario == "class" else b"\0" * 32,
            record_count=None if scenario == "class" else len(rows), on_behalf=True, requested_at=0, deadline=None,
        )  # fmt: skip
        for kind in wanted:
            started = time.perf_counter()
            made = base
            if kind != "base":
                job = Job(
                    workspace=workspace, requests=((request, rows),), target=Target(name="match"), radius=None, ceiling=64,
                    generator=np.random.default_rng([seed, 7]), settings=MODELS[kind] or {},
                )  # fmt: skip
                try:
                    patch = (retrain if kind == "retrained" else distribution_matching).run(job).patch
                    # Without the cap that a removed class gets: what the method did, not what the cap does.
                    made = compose.compose(workspace.base, workspace.schema, replace(patch, caps=()))
                except OwnerError as error:  # the base matches already: nothing to do
                    if "changed nothing" not in str(error):
                        raise
            seconds = time.perf_counter() - started
            found[kind] = {**figures(made, roles, inputs, scenario=scenario), "seconds": seconds}
            print(name, scenario, seed, kind, {k: round(v, 3) for k, v in found[kind].items()}, flush=True)
    return found


def study(
    name: str, scenario: str, *, seeds: int, size: Size, folder: Path | None, state: Path | None, wanted: list[str]
) -> list[str]:
    """A scenario's lines; a world that the state file has is not made again."""
    worlds = []
    for seed in range(seeds):
        settings = [distribution_matching.Settings(**(MODELS[kind] or {})) for kind in wanted]  # type: ignore[arg-type]
        key = f"{name} {scenario} {seed} {size} {wanted} {settings}"
        lines = part(state, key, lambda seed=seed: [json.dumps(world(name, scenario, seed, size, folder, wanted))])
        worlds.append(json.loads(lines[0]))
    if not worlds[0]:
        return []
    lines = []
    for kind in wanted:
        cells = []
        for figure in FIGURES:
            values = [one[kind][figure] for one in worlds]
            spread = f" ±{np.std(values, ddof=1):.3f}" if len(values) > 1 and figure != "seconds" else ""
            digits_ = ".1f" if figure == "seconds" else ".3f"
            cells.append("-" if np.isnan(values).any() else f"{np.mean(values):{digits_}}{spread}")
        lines.append(f"| {name}, {scenario} | {kind} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the data folder; digits alone without it")
    parser.add_argument("--sets", default="digits")
    parser.add_argument("--scenarios", default="records,class,trigger")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trained", type=int, default=4000)
    parser.add_argument("--state", type=Path, help="finished worlds; an interrupted run goes on after them")
    options = parser.parse_args()
    lines = [
        "| data, scenario | model | forgotten | retained | reference | KS | AUC | backdoor | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in options.sets.split(","):
        for scenario in options.scenarios.split(","):
            lines += study(
                name, scenario, seeds=options.seeds, size=Size(trained=options.trained), folder=options.data,
                state=options.state, wanted=options.models.split(","),
            )  # fmt: skip
    print("\n".join(lines))
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, seeds 0 to {options.seeds - 1}."
    )


if __name__ == "__main__":
    main()
