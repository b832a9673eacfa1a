"""The table as text, from finished cells alone."""

import os
import platform
from typing import Any

import numpy as np
import torch

from tests.benchmarks.table import cells
from tests.benchmarks.table.flow import PROFILES
from tests.benchmarks.table.worlds import Size


def _number(values: list[float | None], form: str = "{:.3f}", signed: bool = False) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return "-"
    sign = "{:+" + form[2:] if signed else form
    text = sign.format(float(np.mean(there)))
    return f"{text} ±{form.format(float(np.std(there, ddof=1))).lstrip('0')}" if len(there) > 1 else text


def _line(row: str, cells: list[dict[str, Any]], beside: list[dict[str, Any] | None]) -> str:
    good = [(cell, other) for cell, other in zip(cells, beside, strict=True) if "refused" not in cell]
    if not good:
        return f"| {row} | refused: {cells[0]['refused'].removeprefix('prune-owner: ')} |" + " |" * 12

    def accuracy(kind: str) -> str:
        own = [cell["accuracy"]["patched"][kind] for cell, _ in good]
        away = [
            cell["accuracy"]["patched"][kind] - other["accuracy"]["patched"][kind]
            for cell, other in good
            if other is not None and other["accuracy"]["patched"][kind] is not None
        ]
        return f"{_number(own)} ({_number(away, signed=True)})" if away else _number(own)

    member = [cell["membership"] for cell, _ in good]
    seen = [one for one in member if "difference" in one]
    names = sorted({name for one in seen for name in one["tpr"]})
    rates = " ".join(
        f"{name} {np.mean([one['tpr'][name] for one in seen if name in one['tpr']]):.2f}" for name in names
    )
    radius = [cell["radius"]["median"] + " " + cell["radius"]["unit"] for cell, _ in good if cell["radius"]]
    verdicts = "; ".join(
        " ".join(sorted({cell["verdicts"][name] for cell, _ in good if name in cell["verdicts"]})) for name in PROFILES
    )
    findings = sorted({threat for cell, _ in good for names in cell["findings"].values() for threat in names})
    backdoor = [cell["backdoor"]["patched"] for cell, _ in good if cell["backdoor"]]
    properties = [cell["properties"] for cell, _ in good]

    def shown(name: str) -> str:
        return _number([one.get(name) for one in properties], "{:.2f}")

    cells_ = [
        row,
        accuracy("forget"),
        accuracy("retain"),
        accuracy("test"),
        f"{_number([one['difference'] for one in seen])} (≤ {_number([one['bound'] for one in seen])})"
        if seen
        else "-",
        rates or "-",
        f"{shown('difference')} / {shown('patch-strip')} / {shown('gate-probe')}",
        ", ".join(sorted(set(radius))) or "none",
        f"{_number([cell['persistence'] for cell, _ in good], '{:.2f}')} / "
        f"{_number([cell['rebuilt'] for cell, _ in good], '{:.2f}')}",
        _number(backdoor, "{:.2f}") if backdoor else "-",
        f"{_number([cell['training'] / cell['seconds'] for cell, _ in good], '{:.1f}')}",
        f"{int(np.mean([cell['bytes'] for cell, _ in good])) / 1000:.0f} kB, "
        f"{_number([cell['overhead'] for cell, _ in good], '{:.2f}')}",
        verdicts + (f" ({', '.join(findings)})" if findings else ""),
    ]
    return "| " + " | ".join(cells_) + " |"


HEAD = (
    "| method | forget acc. (minus retrain's) | retain acc. | test acc. | strongest membership difference (95 % bound) | "
    "TPR at 1 % FPR | A5 / A6 / A13 | certified radius, median | persistence / rebuilding | backdoor | "
    "faster than training the base | shipped, inference | redirection; indistinguishable |"
)


def render(found: dict[str, dict[str, Any]], size: Size, sets: list[str], scenarios: list[str], seeds: int) -> str:
    """The table as text."""
    lines = [
        "# Methods side by side", "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}; "
        f"seeds 0 to {seeds - 1}; {size!r}.", "",
        "Means over seeds ± standard deviation. Forgotten, retained and reference accuracy are of the deployed file under "
        "onnxruntime; in class cells the reference is of the remaining classes. The membership column is the largest "
        "distance of an AUC from its class-matched control among all attacks of the plan, both tails of score and distance, "
        "and the largest 95 % bound. A5 is the AUC of the pair against decoys, A6 what stripping the patch brings back, A13 the "
        "AUC of constant logits: properties of local patches, never counted. Rebuilding is error relative to guessing the "
        "class mean. Verdicts are under both built-in profiles, with the plan's number of shadow models.", "",
    ]  # fmt: skip
    for name in sets:
        for scenario in scenarios:
            rows = []
            for row in cells.ROWS:
                made = [found.get(cells.digest(name, scenario, seed, row, size)) for seed in range(seeds)]
                beside = [found.get(cells.digest(name, scenario, seed, "retrain", size)) for seed in range(seeds)]
                there = [(c["result"], b) for c, b in zip(made, beside, strict=True) if c is not None]
                if there:
                    others = [b["result"] if b is not None and "refused" not in b["result"] else None for _, b in there]
                    rows.append(_line(row, [cell for cell, _ in there], others))
            if rows:
                lines += [f"## {name}, {scenario}", "", HEAD, "|" + "---|" * 13, *rows, ""]
    lines += [
        "One cell by hand: `prune-owner unlearn --commitment commitment --request request.json --opening opening.json --method M ... "
        "--key owner.key --log log --out bundle`, then `prune-auditor audit bundle --policy policy.txt --trust trust.json --profile "
        "indistinguishable --openings openings --reference ref.npz --key auditor.key --log log --out report`.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
