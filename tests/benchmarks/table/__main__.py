"""Every method of the source papers, side by side.

    python -m tests.benchmarks.table [--data ../shared/data] [--small] [--sets digits,mnist] [--scenarios records,class]
                                     [--seeds 3] [--state table.jsonl] [--out TABLE.md]

A cell is (data set, scenario, seed, method). Cells of one (data set, scenario, seed) share the base, its commitment,
the request and the auditor's shadow models. A finished cell is a line of the state file, under a digest of what it
is about; an interrupted run goes on with the next one.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from protocol.digests import jcs_digest
from tests.benchmarks.table.figures import measure
from tests.benchmarks.table.flow import PROFILES, Flow
from tests.benchmarks.table.worlds import SCENARIOS, SETS, SMALL, Roles, Size, draw

ROWS: dict[str, tuple[str, ...]] = {
    "prune, match": ("--method", "prune", "--target", "match"),
    "prune, misclassify": ("--method", "prune", "--target", "misclassify"),
    "prune-paper, misclassify": ("--method", "prune-paper", "--target", "misclassify"),
    "deny-list, misclassify": ("--method", "deny-list", "--target", "misclassify"),
    "distribution-matching": ("--method", "distribution-matching"),
    "instance-wise": ("--method", "instance-wise", "--target", "misclassify"),
    "instance-wise, no regularisers": (
        "--method", "instance-wise", "--target", "misclassify", "--set", "adv=0", "--set", "imp=false",
    ),
    "fine-tune": ("--method", "fine-tune"),
    "gradient-ascent": ("--method", "gradient-ascent"),
    "retrain": ("--method", "retrain"),
}  # fmt: skip


def digest(name: str, scenario: str, seed: int, row: str, size: Size) -> str:
    """What a finished cell is found under."""
    settings = {key: str(value) for key, value in asdict(size).items()}
    return jcs_digest({"data": name, "scenario": scenario, "seed": seed, "row": ROWS[row], **settings})


def _kind(name: str) -> str:
    return "conv" if name.startswith("cifar10") else "mlp"


def finished(path: Path) -> dict[str, dict[str, Any]]:
    """The state file's lines by digest; a torn last line counts for nothing."""
    found: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                value = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[value["cell"]] = value
    return found


def _world(roles: Roles, name: str, seed: int, size: Size, rows: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        flow = Flow(Path(folder), roles, kind=_kind(name), size=size, seed=seed)
        results: dict[str, Any] = {}
        for row in rows:
            started = time.monotonic()
            made = flow.make(row.replace(", ", "-").replace(" ", "-"), ROWS[row])
            results[row] = {"refused": made} if isinstance(made, str) else measure(flow, made)
            print(f"  {row:32} {time.monotonic() - started:6.1f} s  {results[row].get('verdicts', made)}", flush=True)
        return results


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
            for row in ROWS:
                cells = [found.get(digest(name, scenario, seed, row, size)) for seed in range(seeds)]
                beside = [found.get(digest(name, scenario, seed, "retrain", size)) for seed in range(seeds)]
                there = [(c["result"], b) for c, b in zip(cells, beside, strict=True) if c is not None]
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


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--sets")
    parser.add_argument("--scenarios")
    parser.add_argument("--methods")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    size = SMALL if given.small else Size()
    sets = given.sets.split(",") if given.sets else (["digits"] if given.small or given.data is None else list(SETS))
    scenarios = (
        given.scenarios.split(",") if given.scenarios else (["records", "class"] if given.small else list(SCENARIOS))
    )
    rows = given.methods.split(";") if given.methods else list(ROWS)
    seeds = given.seeds or (1 if given.small else 3)
    state = given.state or Path("table.jsonl")
    for name in sets:
        for scenario in scenarios:
            for seed in range(seeds):
                known = finished(state)
                missing = [row for row in rows if digest(name, scenario, seed, row, size) not in known]
                roles = draw(name, scenario, seed, size, given.data) if missing else None
                if roles is None:
                    continue
                print(f"{name}, {scenario}, seed {seed}: {len(roles.forget)} of {len(roles.y)} records", flush=True)
                for row, result in _world(roles, name, seed, size, missing).items():
                    line = json.dumps({"cell": digest(name, scenario, seed, row, size), "result": result})
                    with state.open("a") as file:
                        file.write(line + "\n")
    text = render(finished(state), size, sets, scenarios, seeds)
    if given.out:
        given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
