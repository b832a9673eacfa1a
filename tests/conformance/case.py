"""A conformance case: a folder with files, a README and what has to come out. SPEC of the form: CLI_PROTOCOL.md."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol.errors import Error
from protocol.keys import load_signing_key
from protocol.log import cosignature, note
from tests.conformance.commands import REASONS, Program, Ran

GROUPS = ("receipt", "log", "witness", "report", "audit", "owner")
VERDICTS = {"CONSISTENT": 0, "REFUTED": 3, "INCONCLUSIVE": 5}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call and what has to come of it: an exit code with one of `reasons`, or with `result`."""

    arguments: tuple[str, ...]
    exit: int
    reasons: tuple[str, ...] = ()
    at: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)

    def problem(self, ran: Ran) -> str:
        """What is wrong with what a program did; empty if it is what has to come out."""
        if ran.crashed:
            return ran.crashed
        answer = ran.answer
        if answer is None:
            return f"ended with {ran.code}, and its last line is no JSON object: {ran.out.strip()[-120:]!r}"
        said = {name: answer[name] for name in ("verdict", "reason", "at") if name in answer}
        if ran.code != self.exit:
            wanted = "/".join(self.reasons) or self.result.get("verdict", "done")
            return f"ended with {ran.code} {said}, not with {self.exit} ({wanted})"
        if self.reasons:
            if answer.get("reason") not in self.reasons:
                return f"ended with {ran.code} for the reason {answer.get('reason')!r}, not {'/'.join(self.reasons)}"
            if self.at and answer.get("at") and not any(word in str(answer["at"]) for word in self.at):
                return f"says {answer.get('reason')} of {answer['at']!r}, not of {'/'.join(self.at)}"
            return ""
        for name, wanted in self.result.items():
            found = answer.get(name)
            if name == "includes":
                threats = {str(one.get("threat")) for one in answer.get("findings") or ()}
                if not set(wanted) <= threats:
                    return f"ended with {ran.code} and the findings {sorted(threats)}, without {sorted(wanted)}"
                continue
            if name == "findings" and isinstance(found, list):
                found = sorted({str(one.get("threat")) for one in found})
            if found != (sorted(wanted) if name == "findings" else wanted):
                return f"ended with {ran.code}, and says {name}: {found!r}, not {wanted!r}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folder's `case.json`; `folder` is where the files are."""

    id: str
    group: str
    clause: str
    why: str
    steps: tuple[Step, ...]
    folder: Path


def write(
    root: Path,
    name: str,
    *,
    clause: str,
    why: str,
    steps: Sequence[Step],
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a case's folder, `<group>/<name>` below `root`; files that are there already stay."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    value = {
        "id": name,
        "group": name.partition("/")[0],
        "clause": clause,
        "why": why,
        "steps": [
            {
                name: value
                for name, value in {
                    "arguments": list(step.arguments),
                    "exit": step.exit,
                    "reasons": list(step.reasons),
                    "at": list(step.at),
                    "result": dict(step.result),
                }.items()
                if value or name in ("arguments", "exit")
            }
            for step in steps
        ],
    }
    (folder / "case.json").write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    expected = "\n".join(
        f"- `{step.arguments[0]}`: exit code {step.exit}, "
        + (
            f"reason {' or '.join(step.reasons)}"
            if step.reasons
            else f"`{json.dumps(dict(step.result), sort_keys=True)}`"
        )
        for step in steps
    )
    (folder / "README.md").write_text(f"# {name}\n\n{why}\n\nSPEC {clause}. Expected:\n\n{expected}\n")


def load(folder: Path) -> Case:
    """Read a case's folder.

    Raises:
        ValueError: it is none, or expects something that the protocol does not have.
    """
    value = json.loads((folder / "case.json").read_text())
    steps = tuple(
        Step(
            arguments=tuple(step["arguments"]),
            exit=step["exit"],
            reasons=tuple(step.get("reasons", ())),
            at=tuple(step.get("at", ())),
            result=step.get("result", {}),
        )
        for step in value["steps"]
    )
    case = Case(
        id=value["id"], group=value["group"], clause=value["clause"], why=value["why"], steps=steps, folder=folder
    )
    if case.group not in GROUPS or not case.id.startswith(f"{case.group}/") or not steps or not case.why:
        raise ValueError(f"{folder}: not a case")
    for step in steps:
        verdict = step.result.get("verdict")
        if step.reasons and (step.result or not set(step.reasons) <= REASONS.get(step.exit, set())):
            raise ValueError(f"{folder}: reasons that do not go with the exit code {step.exit}")
        if not step.reasons and step.exit not in (0, 3, 5):
            raise ValueError(f"{folder}: an exit code without a reason")
        if verdict is not None and VERDICTS[verdict] != step.exit:
            raise ValueError(f"{folder}: the verdict {verdict} does not go with the exit code {step.exit}")
    return case


def discover(root: Path) -> list[Case]:
    """All cases below a folder, by id."""
    return sorted((load(path.parent) for path in root.rglob("case.json")), key=lambda case: case.id)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _witnessed(arguments: Sequence[str], *, signed: bool) -> str:
    # Whether the log's checkpoint has the witness's cosignature exactly where the witness says so.
    path = Path(arguments[1]) / "checkpoint"
    by = load_signing_key(Path(arguments[arguments.index("--key") + 1])).verifier
    found = note.parse(path.read_bytes())
    lines = [line for line in found.signatures if line.is_by(by)]
    if not signed:
        return "cosigned what it refuses" if lines else ""
    try:
        times = [cosignature.verify(line, by, found.text) for line in lines]
    except Error as error:
        return f"published a cosignature that does not verify: {error}"
    return "" if len(times) == 1 else f"ended with 0, and the checkpoint has {len(times)} lines of it"


def play(case: Case, program: Program, work: Path) -> str:
    """Run a case in a copy of its folder; say what is wrong, or nothing.

    Args:
        case: the case.
        program: the program under test.
        work: a folder that does not exist yet.
    """
    shutil.copytree(case.folder, work, symlinks=True)
    before = _contents(work)
    for number, step in enumerate(case.steps):
        arguments = [str(work / word[1:]) if word.startswith("@") else word for word in step.arguments]
        problem = step.problem(program([*arguments, "--json"]))
        if problem:
            where = f"step {number + 1} ({step.arguments[0]}): " if len(case.steps) > 1 else ""
            return where + problem
        if case.group == "witness" and (problem := _witnessed(arguments, signed=step.exit == 0)):
            return f"step {number + 1}: {problem}"
    after = _contents(work)
    for path, data in before.items():
        own = (case.group == "witness" and path.endswith("/checkpoint")) or (
            case.group == "audit" and path.startswith("log/")
        )
        if after.get(path) != data and not own:
            return f"changed {path}, which it may only read"
    return ""
