"""The table as text, from finished cells alone."""

import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from tests.benchmarks.table import cells
from tests.benchmarks.table.figures import RATES
from tests.benchmarks.table.flow import PROFILES
from tests.benchmarks.table.worlds import SMALL, Size

Cell = dict[str, Any]
Beside = Cell | None
"""The cell of retraining in the same world, where there is one."""
Pairs = Sequence[tuple[Cell, Beside]]

SMALLER = "The small variant (`make table SMALL=1`): one data set, few records and shadow models."
INTRODUCTION = (
    "Means over seeds ± standard deviation; where a seed is missing or refused, the number of seeds stands behind the "
    "method's name. Forgotten, retained and test accuracy are of the deployed file under onnxruntime, in parentheses the "
    "mean distance to retraining's in the same world; test data are the auditor's reference, in class cells of the "
    "remaining classes. Membership is the largest distance of an AUC from its class-matched control among all attacks of "
    "the plan, scores and distances, both tails, and the largest 95 % bound; a single record has no AUC: there it is the "
    "record's z under LiRA (patched; base in parentheses), computed with the auditor's own shadow models and attack, as its "
    "report attacks no fewer than 20 records. TPR is at 1 % FPR, high tail / low tail, the larger of score and distance: A1 "
    "is the larger of confidence and loss. U-LiRA (A4) runs an owner's method on many shadow models; it is not run "
    "here. A5 is the AUC of the pair against decoys, A6 the difference from its control that LiRA has on the stripped "
    "base, A13 the AUC of constant logits: properties of what is shipped, never counted in a verdict. Rebuilding is error "
    "relative to guessing the class mean, of gates only. Backdoor is the share of stamped reference records of other "
    "classes that get the trigger's label, before and after. Times are seconds of one run; *faster* is against training "
    "the base; models that are cross-fitted at commit are in a column of their own. Memory is the most that the owner's "
    "process held while it ran, interpreter and records included. Inference is the deployed file's time over the base's, "
    "64 records, one thread. Verdicts are under both built-in profiles, with the plan's number of shadow models."
)
TRIGGER = (
    "The poisoned records are what is requested. `match` gives them what cross-fitted models say, and these saw the other "
    "poisoned records: the trigger stays. Gates act near the requested records, not on everything that wears the trigger."
)
SEQUENCE = (
    "Requests one after another: the figures are of the last certificate, the time is the median of one request. "
    "The second table is after some of the requests; below 20 records membership is not assessed, and so no verdict "
    "under `indistinguishable` is better than INCONCLUSIVE. Gates of earlier requests stay as they are certified: they keep "
    "clear of what was retained then, but leave no room around it, so that radii and persistence of later requests are "
    "smaller than where all are answered at once."
)
NOTES = {"trigger": TRIGGER, "sequence": SEQUENCE}


def _number(values: Sequence[float | None], form: str = "{:.3f}", signed: bool = False) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    sign = "{:+" + form[2:] if signed else form
    text = sign.format(float(np.mean(there)))
    return f"{text} ±{form.format(float(np.std(there, ddof=1))).lstrip('0')}" if len(there) > 1 else text


def _accuracy(kind: str) -> Callable[[Pairs], str]:
    def shown(pairs: Pairs) -> str:
        own = [cell["accuracy"]["patched"][kind] for cell, _ in pairs]
        away = [
            cell["accuracy"]["patched"][kind] - other["accuracy"]["patched"][kind]
            for cell, other in pairs
            if other is not None and other["accuracy"]["patched"][kind] is not None
        ]
        return f"{_number(own)} ({_number(away, signed=True)})" if away else _number(own)

    return shown


def _membership(pairs: Pairs) -> str:
    if scores := [cell["z"] for cell, _ in pairs if cell.get("z")]:
        shown, before = ([score[name] for score in scores] for name in ("patched", "base"))
        return f"z {_number(shown, '{:.2f}', signed=True)} ({_number(before, '{:.2f}', signed=True)})"
    seen = [cell["membership"] for cell, _ in pairs if "difference" in cell["membership"]]
    if not seen:
        return "-"
    return f"{_number([one['difference'] for one in seen])} (≤ {_number([one['bound'] for one in seen])})"


def _rates(name: str) -> Callable[[Pairs], str]:
    def shown(pairs: Pairs) -> str:
        found = [rate for cell, _ in pairs if (rate := cell["membership"].get("tpr", {}).get(name))]
        if not found:
            return "-"
        return " / ".join(_number([one.get(tail) for one in found], "{:.2f}") for tail in ("high", "low"))

    return shown


def _property(name: str) -> Callable[[Pairs], str]:
    return lambda pairs: _number([cell["properties"].get(name) for cell, _ in pairs], "{:.2f}")


def _figure(name: str, form: str, factor: float = 1.0) -> Callable[[Pairs], str]:
    def shown(pairs: Pairs) -> str:
        return _number([None if (v := cell.get(name)) is None else factor * v for cell, _ in pairs], form)

    return shown


def _radius(found: Sequence[dict[str, str] | None]) -> str:
    there = [one for one in found if one]
    if not there:
        return "none"
    units = {one["unit"].removesuffix("s").removesuffix("e") for one in there}
    if len(units) == 1:
        least, most = (sorted(float(one["median"]) for one in there)[place] for place in (0, -1))
        unit = there[0]["unit"]
        return f"{least:g} {unit}" if least == most else f"{least:g} to {most:g} {unit}"
    return ", ".join(sorted({f"{one['median']} {one['unit']}" for one in there}))


def _backdoor(pairs: Pairs) -> str:
    there = [cell["backdoor"] for cell, _ in pairs if cell["backdoor"]]
    return " → ".join(_number([one[name] for one in there], "{:.2f}") for name in ("base", "patched")) if there else "-"


def _verdict(name: str) -> Callable[[Pairs], str]:
    def shown(pairs: Pairs) -> str:
        verdicts = [cell["verdicts"][name] for cell, _ in pairs if name in cell["verdicts"]]
        found = sorted({threat for cell, _ in pairs for threat in cell["findings"].get(name, [])})
        counted = [
            f"{verdict} {verdicts.count(verdict)}x" if len(set(verdicts)) > 1 else verdict
            for verdict in sorted(set(verdicts))
        ]
        return ", ".join(counted) + (f" ({', '.join(found)})" if found else "")

    return shown


COLUMNS: tuple[tuple[str, Callable[[Pairs], str]], ...] = (
    ("forget acc.", _accuracy("forget")),
    ("retain acc.", _accuracy("retain")),
    ("test acc.", _accuracy("test")),
    ("membership", _membership),
    *((f"TPR {name}", _rates(name)) for name in RATES),
    ("A5", _property("difference")),
    ("A6", _property("patch-strip")),
    ("A13", _property("gate-probe")),
    ("radius, median", lambda pairs: _radius([cell["radius"] for cell, _ in pairs])),
    ("persistence", _figure("persistence", "{:.2f}")),
    ("rebuilding", _figure("rebuilt", "{:.2f}")),
    ("backdoor", _backdoor),
    ("seconds", _figure("seconds", "{:.2f}")),
    ("faster", lambda pairs: _number([cell["training"] / cell["seconds"] for cell, _ in pairs], "{:.1f}")),
    ("at commit, s", _figure("committing", "{:.1f}")),
    ("memory, MB", _figure("memory", "{:.0f}", 1e-6)),
    ("shipped, kB", _figure("bytes", "{:.1f}", 1e-3)),
    ("inference", _figure("overhead", "{:.2f}")),
    *((name, _verdict(name)) for name in PROFILES),
)
STEPS = ("request", "shipped, kB", "parts", "items", "radius, median", "inference", "membership", "seconds", "claims dropped",
         "indistinguishable")  # fmt: skip


def _line(row: str, made: Sequence[Cell], beside: Sequence[Beside], seeds: int) -> str:
    good = [(cell, other) for cell, other in zip(made, beside, strict=True) if "refused" not in cell]
    if not good:
        return f"| {row} | refused: {made[0]['refused'].removeprefix('prune-owner: ')} |" + " |" * (len(COLUMNS) - 1)
    name = row if len(good) == seeds else f"{row} ({len(good)} of {seeds} seeds)"
    return "| " + " | ".join([name, *(column(good) for _, column in COLUMNS)]) + " |"


def _table(head: Sequence[str], rows: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows, ""]


def _steps(row: str, made: Sequence[Cell]) -> list[str]:
    good = [cell["steps"] for cell in made if cell.get("steps")]
    lines = []
    for number in sorted({step["request"] for steps in good for step in steps}):
        at = [step for steps in good for step in steps if step["request"] == number]
        member = [one["membership"] for one in at if "difference" in one["membership"]]
        verdicts = [one["verdict"] for one in at]
        found = sorted({threat for one in at for threat in one["findings"]})
        shown = [
            row,
            str(number),
            _number([one["bytes"] / 1000 for one in at], "{:.1f}"),
            _number([one["parts"] for one in at], "{:.1f}"),
            _number([one["items"] for one in at], "{:.0f}"),
            _radius([one["radius"] for one in at]),
            _number([one["overhead"] for one in at], "{:.2f}"),
            f"{_number([one['difference'] for one in member])} (≤ {_number([one['bound'] for one in member])})"
            if member
            else "-",
            _number([one["seconds"] for one in at], "{:.2f}"),
            _number([one["dropped"] for one in at], "{:.0f}"),
            ", ".join(sorted(set(verdicts))) + (f" ({', '.join(found)})" if found else ""),
        ]
        lines.append("| " + " | ".join(shown) + " |")
    return lines


def _base(made: Sequence[Cell]) -> str:
    good = [cell for cell in made if "refused" not in cell]
    if not good:
        return ""
    shown = ", ".join(
        f"{kind} {_number([cell['accuracy']['base'][kind] for cell in good])}" for kind in ("forget", "retain", "test")
    )
    return (
        f"Base: accuracy {shown}; trained in {_number([cell['training'] for cell in good], '{:.1f}')} s on "
        f"{', '.join(sorted({cell['device'] for cell in good}))}."
    )


def render(found: dict[str, Cell], size: Size, sets: list[str], scenarios: list[str], seeds: int) -> str:
    """The table as text."""
    lines = [
        "# Methods side by side", "",
        f"Written on {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch "
        f"{torch.__version__}; seeds 0 to {seeds - 1}; {size!r}.", "",
        *([SMALLER, ""] if size == SMALL else []), INTRODUCTION, "",
    ]  # fmt: skip
    for name in sets:
        for scenario in scenarios:
            rows, steps, example = [], [], ""
            for row in cells.ROWS:
                here = [found.get(cells.digest(name, scenario, seed, row, size)) for seed in range(seeds)]
                retrained = [found.get(cells.digest(name, scenario, seed, "retrain", size)) for seed in range(seeds)]
                there = [(c["result"], b) for c, b in zip(here, retrained, strict=True) if c is not None]
                if not there:
                    continue
                others = [b["result"] if b is not None and "refused" not in b["result"] else None for _, b in there]
                made = [cell for cell, _ in there]
                rows.append(_line(row, made, others, seeds))
                steps += _steps(row, made)
                example = example or _base(made)
            if rows:
                lines += [f"## {name}, {scenario}", ""]
                if scenario in NOTES:
                    lines += [NOTES[scenario], ""]
                lines += [example, "", *_table(["method", *(head for head, _ in COLUMNS)], rows)]
                if steps:
                    lines += _table(["method", *STEPS], steps)
    lines += [
        "One cell by hand: `prune-owner unlearn --commitment commitment --request request.json --opening opening.json --method M ... "
        "--key owner.key --log log --out bundle`, then `prune-auditor audit bundle --policy policy.txt --trust trust.json --profile "
        "indistinguishable --openings openings --reference ref.npz --key auditor.key --log log --out report`. A method's options:",
        "",
        *(f"- {row}: `{' '.join(options)}`" for row, options in cells.ROWS.items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
