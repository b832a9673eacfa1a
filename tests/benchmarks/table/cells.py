"""Cells of the table: what they are, and the file that finished ones are kept in.

A cell is (data set, scenario, seed, method). A finished one is one line of JSON under a digest of what it is about, so
that files of several runs, on several machines, can be put together. A line is written at once and under a lock:
several processes may share a file. A torn last line, of a process that was killed, counts for nothing and spoils nothing.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from protocol.digests import jcs_digest
from tests.benchmarks.table.worlds import Size

ROWS: dict[str, tuple[str, ...]] = {
    "prune, match": ("--method", "prune", "--target", "match"),
    "prune, misclassify": ("--method", "prune", "--target", "misclassify"),
    "prune-paper, misclassify": ("--method", "prune-paper", "--target", "misclassify"),
    "deny-list, misclassify": ("--method", "deny-list", "--target", "misclassify"),
    "distribution-matching": ("--method", "distribution-matching"),
    "instance-wise": ("--method", "instance-wise", "--target", "misclassify"),
    "instance-wise, without kept records": ("--method", "instance-wise", "--target", "misclassify", "--set", "keep=0"),
    "instance-wise, as published": (
        "--method", "instance-wise", "--target", "misclassify", "--set", "keep=0", "--set", "form=negated",
        "--set", "strength=1", "--set", "decay=0.0001", "--set", "reach=0.15", "--set", "batch=32",
    ),
    "fine-tune": ("--method", "fine-tune"),
    "gradient-ascent": ("--method", "gradient-ascent"),
    "retrain": ("--method", "retrain"),
}  # fmt: skip


ROUND = 2
"""One more when a method's defaults, a profile or a figure's meaning change: older cells are not what they were."""


def digest(name: str, scenario: str, seed: int, row: str, size: Size) -> str:
    """What a finished cell is found under."""
    settings = {key: str(value) for key, value in asdict(size).items()}
    return jcs_digest({"data": name, "scenario": scenario, "seed": seed, "row": ROWS[row], "round": ROUND, **settings})


def _files(places: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        found += sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    return [path for path in found if path.is_file()]


def finished(places: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Lines by digest, of files and of all `*.jsonl` of folders; what an earlier file says of a cell stands.

    Within a file the last line about a cell stands.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in _files(places):
        own: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines():
            try:
                value = json.loads(line)
                own[value["cell"]] = value
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        found = {**own, **found}
    return found


def add(path: Path, cell: str, what: dict[str, Any], result: dict[str, Any]) -> None:
    """Append a finished cell.

    Args:
        path: the file; made if absent.
        cell: its digest.
        what: data set, scenario, seed and row, for people.
        result: its figures.
    """
    line = (json.dumps({"cell": cell, **what, "result": result}) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # what a killed process left
                line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
