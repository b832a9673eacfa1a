"""How often does the membership decision accuse an honest owner, and how much does it see?

    python -m tests.benchmarks.calibration [--small] [--runs 200] [--state calibration.jsonl] [--out CALIBRATION.md]

Each run draws its own forgotten, training and reference records, trains its own shadow models, and looks at

- one honest model, trained without the forgotten records: every REFUTED is a false accusation;
- under-forgetting models, which were trained with a share of the forgotten records;
- over-forgetting models: the honest one, but a share of the forgotten records has its label's logit exchanged
  with the best other one, as a patch that misclassifies would.

Data: scikit-learn's 1,797 digits; a part of all labels is replaced at random, so that models have something to
memorise. Records of all three roles are one random permutation, hence exchangeable, and the honest model's
true difference is 0. Runs share nothing but the 1,797 records they draw from; the binomial test takes them as
independent, which errs a little, since one odd record can take part in several runs.

An interrupted study goes on where it stopped: a finished run is one line of the state file, under a digest of
the settings. Error budget: one one-sided exact binomial test at 5 %, that the share of false REFUTED is not
above the plan's level; rates with exact 95 % intervals.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import scipy
import sklearn
import torch
from scipy import stats
from sklearn.datasets import load_digits

from auditor.attacks.observation import Observation
from auditor.membership import MembershipPlan, assess
from auditor.shadows import train_shadows
from auditor.statistics.equivalence import equivalence
from auditor.statistics.multiplicity import holm
from auditor.statistics.proportions import interval
from owner.architectures import mlp
from owner.training import train
from protocol.digests import jcs_digest
from protocol.model.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a run is."""

    forgotten: int = 150
    trained: int = 350
    reference: int = 1200
    hidden: int = 64
    shadows: int = 32  # with 16 random halves, one record in 4,000 is left out by fewer than two of them
    epochs: int = 40
    batch: int = 50
    rate: float = 3e-3
    wrong_labels: float = 0.2
    permutations: int = 399
    margin: float = 0.1
    level: float = 0.05
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    seed: int = 2026

    @property
    def plan(self) -> MembershipPlan:
        return MembershipPlan(margin=self.margin, level=self.level, permutations=self.permutations)

    @property
    def digest(self) -> str:
        return jcs_digest({name: repr(value) for name, value in asdict(self).items()})


SMALL = Settings(
    forgotten=60,
    trained=200,
    reference=400,
    hidden=32,
    shadows=24,
    epochs=15,
    rate=5e-3,
    permutations=199,
    shares=(1.0,),
)


def _data(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    images, classes = load_digits(return_X_y=True)
    random = np.random.default_rng([settings.seed, 0])
    noisy = classes.astype(np.int64)
    chosen = random.random(len(noisy)) < settings.wrong_labels
    noisy[chosen] = random.integers(0, 10, int(chosen.sum()))
    return (images / 16.0).astype(np.float32), noisy


def _wrong(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Exchange the label's logit with the best other one where the label is predicted."""
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    best = others.argmax(axis=1)
    changed = logits.copy()
    right = logits[rows, labels] > logits[rows, best]
    changed[rows[right], labels[right]] = logits[rows[right], best[right]]
    changed[rows[right], best[right]] = logits[rows[right], labels[right]]
    return changed


def run(settings: Settings, number: int) -> dict[str, object]:
    """One run: its own draw, its own shadow models, every target model."""
    x, y = _data(settings)
    random = np.random.default_rng([settings.seed, 1, number])
    order = random.permutation(len(y))
    ends = np.cumsum([settings.forgotten, settings.trained, settings.reference])
    forgotten, trained, reference = order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] : ends[2]]
    architecture = mlp(64, (settings.hidden,), classes=10)
    recipe = Recipe(epochs=settings.epochs, batch=settings.batch, rate=settings.rate)
    counts = [round(share * settings.forgotten) for share in settings.shares]
    members = [trained, *(np.concatenate([trained, forgotten[:count]]) for count in counts)]
    targets = train(architecture, x, y, members=members, recipe=recipe, rng=random)
    seed = settings.seed * 10_000 + number
    shadows = train_shadows(architecture, x[reference], y[reference], recipe=recipe, seed=seed, count=settings.shadows)
    rows = np.concatenate([forgotten, reference])
    mask = np.arange(len(rows)) < len(forgotten)
    logits = targets.logits(x[rows])
    models = {"honest": logits[0]}
    models |= {f"under {share:g}": logits[1 + place] for place, share in enumerate(settings.shares)}
    for share, count in zip(settings.shares, counts, strict=True):
        over = logits[0].copy()
        over[:count] = _wrong(logits[0][:count], y[forgotten[:count]])
        models[f"over {share:g}"] = over
    observation = Observation(
        logits=logits[0],
        labels=y[rows],
        shadow_logits=shadows.logits(x[rows]),
        out=np.concatenate([np.ones((settings.shadows, len(forgotten)), dtype=bool), shadows.out], axis=1),
        features=x[rows],
    )
    found: dict[str, object] = {}
    for name, output in models.items():
        generator = np.random.default_rng([settings.seed, 2, number])
        result = assess(replace(observation, logits=output), mask, settings.plan, generator)
        tested = result.exchangeability
        found[name] = {
            "verdict": result.verdict,
            "stopped": tested is None or bool(tested.p_value <= settings.plan.exchangeability_level),
            "comparisons": [
                [
                    one.attack,
                    one.form,
                    round(one.difference.auc, 5),
                    round(one.difference.value, 5),
                    round(one.difference.standard_error, 6),
                    round(one.difference.freedom, 2),
                ]
                for one in result.comparisons
            ],
        }
    return {"run": number, "settings": settings.digest, "models": found}


def collect(settings: Settings, runs: int, state: Path) -> Iterator[dict[str, object]]:
    """Finished runs from the state file, then the missing ones, each stored as soon as it is done."""
    done = {}
    if state.exists():
        for line in state.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the line that an interruption cut off
                continue
            if entry.get("settings") == settings.digest:
                done[entry["run"]] = entry
    for number in range(runs):
        if number not in done:
            done[number] = run(settings, number)
            with state.open("a") as file:
                file.write("\n" * (state.stat().st_size > 0 and not state.read_bytes().endswith(b"\n")))
                file.write(json.dumps(done[number]) + "\n")
        yield done[number]


def _accused(model: dict, settings: Settings, margin: float) -> bool:
    """The decision rule at another margin: the same differences, errors and Holm correction."""
    if model["stopped"]:
        return False
    p_values = [
        equivalence(value, standard_error=error, freedom=freedom, margin=margin, level=settings.level).p_beyond
        for _, _, _, value, error, freedom in model["comparisons"]
    ]
    return bool((holm(np.array(p_values)) <= settings.level).any())


def _rate(hits: int, runs: int) -> str:
    low, high = interval(hits, runs)
    return f"{hits}/{runs} = {hits / runs:.1%} [{low:.1%}, {high:.1%}]"


def table(settings: Settings, entries: list[dict]) -> list[str]:
    """The study as Markdown."""
    runs = len(entries)
    names = list(entries[0]["models"])
    margins = (settings.margin, settings.margin / 2, 1e-6)
    models = {name: [entry["models"][name] for entry in entries] for name in names}
    honest = models["honest"]
    refuted = sum(model["verdict"] == "REFUTED" for model in honest)
    p_value = float(stats.binomtest(refuted, runs, settings.level, alternative="greater").pvalue)
    at_zero = sum(_accused(model, settings, margins[-1]) for model in honest)
    p_zero = float(stats.binomtest(at_zero, runs, settings.level, alternative="greater").pvalue)
    setting = (
        f"{runs} runs, {settings.forgotten} forgotten against {settings.reference} never-seen records, perceptron "
        f"64-{settings.hidden}-10 on {settings.trained} (+ forgotten) records, {settings.wrong_labels:.0%} random "
        f"labels, {settings.epochs} epochs, {settings.shadows} shadow models, margin {settings.margin:g}, level "
        f"{settings.level:g}, seed {settings.seed}."
    )
    accusations = (
        f"False accusations among {runs} honest models: **{_rate(refuted, runs)}**; exact binomial test against "
        f"more than {settings.level:.0%}: p = {p_value:.3g}. With the margin taken as 0, so that honest models sit on "
        f"the null's edge: {_rate(at_zero, runs)}, p = {p_zero:.3g}. Stopped by the exchangeability test (allowed "
        f"1 %): {_rate(sum(model['stopped'] for model in honest), runs)}."
    )
    header = (
        "| model | CONSISTENT | INCONCLUSIVE | REFUTED (95 %) | REFUTED at half the margin | difference from 0 seen | "
        "mean AUC of the loss, signed / distance |"
    )
    lines = [setting, "", accusations, "", header, "|---|---|---|---|---|---|---|"]
    for name in names:
        verdicts = [model["verdict"] for model in models[name]]
        at_half, seen = (sum(_accused(model, settings, margin) for model in models[name]) for margin in margins[1:])
        areas = [
            np.mean([row[2] for model in models[name] for row in model["comparisons"] if row[:2] == ["loss", form]])
            for form in ("signed", "distance")
        ]
        lines.append(
            f"| {name} | {verdicts.count('CONSISTENT')} | {verdicts.count('INCONCLUSIVE')} | "
            f"{_rate(verdicts.count('REFUTED'), runs)} | {at_half / runs:.1%} | {seen / runs:.1%} | "
            f"{areas[0]:.3f} / {areas[1]:.3f} |"
        )
    legend = (
        "`under s`: trained with the share s of the forgotten records (1: nothing was forgotten); `over s`: the share "
        "s is misclassified. 95 % intervals of single differences that cover the true value 0, honest models:"
    )
    lines += [
        "",
        legend,
        "",
        "| attack | form | coverage | mean difference | its standard error |",
        "|---|---|---|---|---|",
    ]
    for attack, form in dict.fromkeys(tuple(row[:2]) for model in honest for row in model["comparisons"]):
        rows = [row for model in honest for row in model["comparisons"] if row[:2] == [attack, form]]
        value, error, freedom = (np.array([row[place] for row in rows]) for place in (3, 4, 5))
        covered = int((np.abs(value) <= stats.t.ppf(0.975, freedom) * error).sum())
        lines.append(
            f"| {attack} | {form} | {_rate(covered, len(rows))} | {value.mean():+.4f} | "
            f"{value.std(ddof=1) / len(rows) ** 0.5:.4f} |"
        )
    return lines


READING = "\n## Reading\n"


def written_by_hand(path: Path) -> str:
    """What a file says under the heading Reading, which a new run leaves there for somebody to look at again."""
    old = path.read_text() if path.exists() else ""
    return READING + old.split(READING, 1)[1] if READING in old else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a variant of seconds, for CI")
    parser.add_argument("--runs", type=int, default=None, help="200; 12 with --small")
    parser.add_argument("--state", type=Path, default=Path("calibration.jsonl"), help="finished runs")
    parser.add_argument("--out", type=Path, help="Markdown file to write; standard output without it")
    options = parser.parse_args()
    settings = SMALL if options.small else Settings()
    runs = options.runs if options.runs is not None else 12 if options.small else 200
    torch.set_num_threads(1)
    started, entries = time.monotonic(), []
    for entry in collect(settings, runs, options.state):
        entries.append(entry)
        spent = time.monotonic() - started
        left = spent / len(entries) * (runs - len(entries))
        print(f"run {len(entries)}/{runs}, {spent:.0f} s, about {left:.0f} s left", flush=True)
    spent = time.monotonic() - started
    command = f"python -m tests.benchmarks.calibration{' --small' if options.small else ''} --runs {runs}"
    machine = (
        f"`{command}`: {spent:.0f} s on one of {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, torch {torch.__version__}."
    )
    head = ["# Calibration of the membership decision", "", machine, ""]
    text = "\n".join([*head, *table(settings, entries), ""])
    if options.out:
        options.out.write_text(text + written_by_hand(options.out))
    else:
        print(text)


if __name__ == "__main__":
    main()
