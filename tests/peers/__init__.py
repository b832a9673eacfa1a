"""Other people's JavaScript: the node program and packages that `npm ci` installs here, and how tests call them."""

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
SECOND_AUDITOR = HERE.parent / "conformance" / "second_auditor"
ABSENT = "run `npm ci` in tests/peers"


def _new_enough(program: str) -> bool:
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    numbers = version.removeprefix("v").split(".")
    return numbers[0].isdigit() and [int(part) for part in numbers[:2]] >= [22, 22]


def find_node() -> str | None:
    """A node of at least 22.22: the one that npm's package `node` brings, or the machine's own."""
    for program in (str(MODULES / ".bin" / "node"), shutil.which("node")):
        if program and Path(program).exists() and _new_enough(program):
            return program
    return None


def node(script: Path, *arguments: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a script; skips the test where there is no node."""
    program = find_node()
    if program is None:
        pytest.skip(f"no node >= 22.22 here: {ABSENT}")
    command = [program, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def batch(script: Path, cases: Sequence[tuple[Any, ...]], folder: Path) -> list[dict[str, Any]]:
    """Answers of a script that reads JSON lines `[what, base64, ...]`; a crash of it fails the test."""
    lines = [json.dumps([what, *(base64.b64encode(data).decode() for data in given)]) for what, *given in cases]
    file = folder / "cases.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    ran = node(script, file)
    assert ran.returncode == 0, ran.stderr[-3000:]
    answers = [json.loads(line) for line in ran.stdout.split("\n") if line]
    assert len(answers) == len(cases)
    return answers
