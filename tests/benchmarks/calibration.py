"""How often does the membership decision accuse an honest owner, and how much does it see?

    python -m tests.benchmarks.calibration [--small] [--runs 200] [--state calibration.jsonl] [--out CALIBRATION.md]

Each run draws its own forgotten, training, retained and reference records and its own removed class, trains its own
shadow models (`calibration_world`), and lets a plan that names every attack judge

- one honest model, trained without the forgotten records and the class: every REFUTED is a false accusation;
- one other model: in even runs an under-forgetting one, trained with a share of them; in odd runs an over-forgetting
  one, trained with a share of them under wrong labels.

The verdict is the check's: all comparisons of all attacks on forgotten records (A1 to A3, A8, A9, A14), on held-out
members of the removed class (A11), on retained records (A10) and with the method re-run (A4) are one Holm family
(`auditor.comparisons.across`). For their cost A14 takes part in one run of five and A4 in one of 13. Properties (A5,
A6, A12, A13) decide nothing; what they say of honest models is shown. A7 reads a patch, and there is none here.

Runs share nothing but the 1,797 records they draw from; the binomial test takes them as independent, which errs a
little, since one odd record can take part in several runs. An interrupted study goes on where it stopped: a finished
run is one line of the state file, under a digest of the settings. Error budget: one one-sided exact binomial test at
5 %, that the share of false REFUTED is not above the plan's level; rates with exact 95 % intervals.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy
import sklearn
import torch
from scipy import stats

from auditor import attacking
from auditor.attacks.observation import Unavailable
from auditor.checks.membership import AGAIN, FORGOTTEN
from auditor.comparisons import Together, across
from auditor.statistics.equivalence import equivalence
from auditor.statistics.multiplicity import holm
from auditor.statistics.proportions import interval
from tests.benchmarks.calibration_world import SMALL, Draw, Settings, World, drawn, quick

MEMBERS = "members of the removed class"
RETAINED = "retained records"
MARGINS = (0.05, 1e-6)
"""Beside the plan's own: what would have been decided at half of it, and at none, where honest models sit on the edge."""


def verdict(together: Together) -> str:
    """What the check makes of these assessments: the re-run and the retained records only accuse, unless required."""
    found = [one.verdict for name, one in together.assessments.items() if name != AGAIN or one.verdict == "REFUTED"]
    if together.retained is not None and together.retained.verdict == "REFUTED":
        found.append("REFUTED")
    return "REFUTED" if "REFUTED" in found else "INCONCLUSIVE" if "INCONCLUSIVE" in found else "CONSISTENT"


def attacked(world: World, settings: Settings, draw: Draw) -> tuple[Together, attacking.Field]:
    """Every attack on one model, decided together."""
    field = attacking.prepare(world, settings.suite(draw.number))
    observed = field.observe(*world.requested_records, field.spared)[1]
    found = {FORGOTTEN: attacking.attack_records(field, attacking.subjects_of(field), observed)}
    if settings.again(draw.number):
        found[AGAIN] = attacking.attack_again(field)
    _, after, members = attacking.observe_class(field, draw.klass)
    found[MEMBERS] = attacking.attack_members(field, draw.klass, after, members)
    retained = attacking.attack_retained(field)
    assert not isinstance(retained, Unavailable), retained
    return across(found, retained), field


def _rows(together: Together) -> list[list[object]]:
    """Every comparison: section, attack, form, AUC, difference, standard error, degrees of freedom (None: normal)."""
    rows: list[list[object]] = []
    for name, found in together.assessments.items():
        for one in found.comparisons:
            difference = one.difference
            figures = (difference.auc, difference.value, difference.standard_error, difference.freedom)
            rows.append([name, one.attack, one.form, *(round(figure, 6) for figure in figures)])
    assert together.retained is not None
    for change in together.retained.changes:
        figures = (change.after, change.exposure, change.standard_error)
        rows.append([RETAINED, change.attack, change.form, *(round(figure, 6) for figure in figures), None])
    return rows


def _stopped(together: Together) -> list[str]:
    """Sections that no verdict but INCONCLUSIVE was open to: the sets differ before training, or are too small."""
    found = []
    for name, one in together.assessments.items():
        test = one.exchangeability
        if test is None or test.p_value <= one.plan.exchangeability_level:
            found.append(name)
    return found


def _properties(world: World, field: attacking.Field) -> dict[str, list[float]]:
    """What the properties say of a model, with the jump of the gate probe."""
    subjects = attacking.subjects_of(field)
    base, patched = field.observe(*world.requested_records, field.spared)
    off, on = (attacking.attack_records(field, subjects, one) for one in (base, patched))
    found = {}
    for name, one in attacking.measure(field, subjects, on, off).items():
        if not isinstance(one, Unavailable):
            found[name] = [one.value, one.low, one.high]
            if "auc_jump" in one.facts:
                found[f"{name}, jump"] = [one.facts[f"auc_jump{end}"] for end in ("", "_low", "_high")]
    return found


def run(settings: Settings, number: int) -> dict[str, object]:
    """One run: its own draw, its own shadow models, every target model."""
    found: dict[str, object] = {}
    entry: dict[str, object] = {"run": number, "settings": settings.digest, "models": found}
    with tempfile.TemporaryDirectory() as folder, quick(settings.recipe):
        draw = drawn(settings, number, Path(folder))
        for name, world in draw.worlds.items():
            together, field = attacked(world, settings, draw)
            parts = {part: one.verdict for part, one in together.assessments.items()}
            assert together.retained is not None
            found[name] = {
                "verdict": verdict(together),
                "parts": parts | {RETAINED: together.retained.verdict},
                "stopped": _stopped(together),
                "rows": _rows(together),
            }
            if name == "honest" and settings.again(number):
                entry["properties"] = _properties(world, field)
    return entry


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


def _p_values(model: dict, settings: Settings, margin: float) -> tuple[list[list], np.ndarray]:
    """The rows that may accuse, with their p-values at a margin, adjusted over the whole family."""
    p_values = []
    for *_, value, error, freedom in model["rows"]:
        if freedom is None:
            p_values.append(float(stats.norm.sf((value - margin) / error)) if error > 0 else float(value <= margin))
        else:
            against = equivalence(value, standard_error=error, freedom=freedom, margin=margin, level=settings.level)
            p_values.append(against.p_beyond)
    return model["rows"], holm(np.array(p_values))


def accused(model: dict, settings: Settings, margin: float, *, without: Sequence[str] = ()) -> bool:
    """The decision rule at another margin: the same differences, errors and Holm correction."""
    kept = model | {"rows": [row for row in model["rows"] if row[0] not in without]}
    rows, adjusted = _p_values(kept, settings, margin)
    return any(p <= settings.level for row, p in zip(rows, adjusted, strict=True) if row[0] not in model["stopped"])


def _rate(hits: int, runs: int) -> str:
    low, high = interval(hits, runs)
    return f"{hits}/{runs} = {hits / runs:.1%} [{low:.1%}, {high:.1%}]"


def _above(hits: int, runs: int, level: float) -> str:
    return f"p = {float(stats.binomtest(hits, runs, level, alternative='greater').pvalue):.3g}"


def _mean(models: list[dict], section: str, attack: str, form: str) -> str:
    values = [row[4] for model in models for row in model["rows"] if row[:3] == [section, attack, form]]
    return f"{np.mean(values):+.3f}" if values else "-"


def _share(name: str) -> tuple[str, float]:
    kind, _, share = name.partition(" ")
    return kind, float(share or 0)


def table(settings: Settings, entries: list[dict]) -> list[str]:
    """The study as Markdown."""
    runs = len(entries)
    names = sorted({name for entry in entries for name in entry["models"]}, key=_share)
    models = {name: [entry["models"][name] for entry in entries if name in entry["models"]] for name in names}
    honest = models["honest"]
    refuted = sum(model["verdict"] == "REFUTED" for model in honest)
    edge = sum(accused(model, settings, MARGINS[-1], without=(RETAINED,)) for model in honest)
    stopped = sum(bool(model["stopped"]) for model in honest)
    again, trees = (
        sum(any(row[place] == name for row in model["rows"]) for model in honest)
        for place, name in ((0, AGAIN), (1, "quantile-regression"))
    )
    family = sorted({len(model["rows"]) for model in honest})
    setting = (
        f"{runs} runs. {settings.forgotten} forgotten records and a removed class with {settings.members} opened members, "
        f"{settings.opened} retained ones, about {settings.never_seen} never-seen ones of other classes; perceptron "
        f"64-{settings.hidden}-10 trained on {settings.trained} (+ forgotten) records, {settings.wrong_labels:.0%} random "
        f"labels, {settings.epochs} epochs, {settings.shadows} shadow models, margin {settings.margin:g}, level "
        f"{settings.level:g}, seed {settings.seed}; one Holm family of {family[0]} to {family[-1]} comparisons. A4 takes "
        f"part in {again} runs, with 16 shadow models each, A14 in {trees}."
    )
    accusations = (
        f"False accusations among {runs} honest models: **{_rate(refuted, runs)}**; exact binomial test against "
        f"more than {settings.level:.0%}: {_above(refuted, runs, settings.level)}. With the margin taken as 0, so that "
        f"honest models sit on the null's edge (without A10, whose two models differ in truth): {_rate(edge, runs)}, "
        f"{_above(edge, runs, settings.level)}. With some part stopped by its exchangeability test (each allowed 1 %): "
        f"{_rate(stopped, runs)}."
    )
    header = (
        "| model | runs | CONSISTENT | INCONCLUSIVE | REFUTED (95 %) | REFUTED at half the margin | difference from 0 "
        "seen | mean difference: loss, LiRA; class: loss; re-run |"
    )
    lines = [setting, "", accusations, "", header, "|---|---|---|---|---|---|---|---|"]
    for name in names:
        verdicts = [model["verdict"] for model in models[name]]
        count = len(verdicts)
        half, seen = (
            sum(accused(model, settings, margin, without=(RETAINED,) if margin == MARGINS[-1] else ())
                for model in models[name])
            for margin in MARGINS
        )  # fmt: skip
        shown = ((FORGOTTEN, "loss"), (FORGOTTEN, "lira-offline"), (MEMBERS, "loss"), (AGAIN, "rerun"))
        means = ", ".join(_mean(models[name], section, attack, "signed") for section, attack in shown)
        lines.append(
            f"| {name} | {count} | {verdicts.count('CONSISTENT')} | {verdicts.count('INCONCLUSIVE')} | "
            f"{_rate(verdicts.count('REFUTED'), count)} | {_rate(half, count)} | {_rate(seen, count)} | {means} |"
        )
    legend = (
        "`under s`: trained with the share s of what should have been forgotten (1: nothing was); `over s`: the share s of "
        "it under wrong labels. 95 % intervals of single comparisons that cover the true value 0, honest models (A10 "
        "compares the base with a model trained on fewer records, whose truth is not 0: no coverage is asked of it):"
    )
    header = "| of | attack | form | coverage | below 95 %? | mean difference | its standard error |"
    lines += ["", legend, "", header, "|---|---|---|---|---|---|---|"]
    for section, attack, form in dict.fromkeys(tuple(row[:3]) for model in honest for row in model["rows"]):
        rows = [row for model in honest for row in model["rows"] if tuple(row[:3]) == (section, attack, form)]
        value, error = (np.array([row[place] for row in rows]) for place in (4, 5))
        covered, low = "not asked", ""
        if section != RETAINED:
            freedom = np.array([row[6] for row in rows])
            hits = int((np.abs(value) <= stats.t.ppf(0.975, freedom) * error).sum())
            covered = _rate(hits, len(rows))
            low = f"p = {float(stats.binomtest(hits, len(rows), 0.95, alternative='less').pvalue):.2g}"
        spread = f"{value.std(ddof=1) / len(rows) ** 0.5:.4f}" if len(rows) > 1 else "-"
        lines.append(f"| {section} | {attack} | {form} | {covered} | {low} | {value.mean():+.4f} | {spread} |")
    return [*lines, *_measured(entries)]


def _measured(entries: list[dict]) -> list[str]:
    known = [entry["properties"] for entry in entries if "properties" in entry]
    if not known:
        return []
    lines = [
        "",
        f"Properties of {len(known)} honest models, which decide nothing: mean, least and largest value, and how many of "
        "their 95 % intervals hold 0.5, the value of an AUC that says nothing.",
        "",
        "| property | mean | least | largest | intervals with 0.5 |",
        "|---|---|---|---|---|",
    ]
    for name in known[0]:
        rows = np.array([one[name] for one in known if name in one])
        inside = int(((rows[:, 1] <= 0.5) & (rows[:, 2] >= 0.5)).sum())
        lines.append(
            f"| {name} | {rows[:, 0].mean():.3f} | {rows[:, 0].min():.3f} | {rows[:, 0].max():.3f} | "
            f"{inside}/{len(rows)} |"
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
