"""Models as data: what a `.pml` file says of itself, and what Spin says of it.

Shows (`holds`): within the stated bounds no run of the model breaks a property. `remove` and `reach` give a shortest run that does, where a
protection was left out, or that reaches a property's antecedent. It does not show anything beyond the bounds, nor that the model
is the program: `Protection` names the place in SPEC and code, which a test looks up, and a reader has to compare.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parents[2] / "threat_models" / "formal"
TRACES = HOME / "traces"
HONEST_END = 99
_TIME_OUT = 1800
_MARK = "MSC: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """One thing that the protocol does and the model can leave out, or an assumption that it can drop (`limit`).

    Args:
        switches: preprocessor names, all set in one run.
        breaks: the property that does not hold then.
        clause: SPEC's clause.
        path: the file that implements it.
        name: the function, or class and function, in that file.
        text: what it does.
        bounds: the smallest bounds under which its absence shows.
        limit: whether the protocol does *not* do it.
    """

    switches: tuple[str, ...]
    breaks: str
    clause: str
    path: str
    name: str
    text: str
    bounds: tuple[str, ...]
    limit: bool

    @property
    def title(self) -> str:
        """The switches as one word."""
        return "+".join(self.switches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A `.pml` file and its `//@` lines."""

    name: str
    source: Path
    properties: dict[str, str]
    numbers: dict[str, int]
    protections: tuple[Protection, ...]
    small: tuple[tuple[str, ...], ...]
    full: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one search said: errors, states stored, whether it was cut short, and the messages of the run that it found."""

    errors: int
    states: int
    complete: bool
    messages: tuple[str, ...]


class ModelError(Exception):
    """A model that cannot be read, or a run that says nothing."""


def _words(text: str) -> tuple[str, ...]:
    return () if text.strip() == "-" else tuple(text.split())


def parse(path: Path) -> Model:
    """Read what a model says of itself."""
    text = path.read_text("utf-8")
    properties: dict[str, str] = {}
    protections: list[Protection] = []
    bounds: dict[str, list[tuple[str, ...]]] = {"small": [], "full": []}
    for line in re.findall(r"^//@ (.*)$", text, re.MULTILINE):
        kind, rest = line.split(" ", 1)
        if kind == "property":
            name, meaning = rest.split(": ", 1)
            properties[name] = meaning
        elif kind in bounds:
            bounds[kind].append(_words(rest))
        elif kind in ("protection", "limit"):
            head, clause, place, meaning, least = (part.strip() for part in rest.split(" | "))
            switches, _, broken = head.partition(" breaks ")
            file, name = place.split(" ")
            protections.append(
                Protection(
                    switches=tuple(switches.split("+")),
                    breaks=broken,
                    clause=clause.removeprefix("SPEC "),
                    path=file,
                    name=name,
                    text=meaning,
                    bounds=_words(least),
                    limit=kind == "limit",
                )
            )
        else:
            raise ModelError(f"{path.name}: unknown line {line!r}")
    numbers = {name: int(number) for name, number in re.findall(r"^#define P_(\w+) (\d+)$", text, re.MULTILINE)}
    return Model(
        name=path.stem,
        source=path,
        properties=properties,
        numbers=numbers,
        protections=tuple(protections),
        small=tuple(bounds["small"]),
        full=tuple(bounds["full"]),
    )


def load() -> tuple[Model, ...]:
    """All models, by name."""
    return tuple(parse(path) for path in sorted(HOME.glob("*.pml")))


def missing() -> str | None:
    """What is not installed; None if models can be run."""
    absent = [program for program in ("spin", "gcc") if shutil.which(program) is None]
    return f"{' and '.join(absent)} not installed (Debian: apt-get install spin gcc)" if absent else None


def _call(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIME_OUT,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TMPDIR": str(folder)},
    )
    # pan itself ends with 0 whatever it finds; a trail's replay with another code says nothing either.
    if done.returncode != 0 and command[0] in ("gcc", "spin") and "-t" not in command:
        raise ModelError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _search(model: Model, options: tuple[str, ...], folder: Path, *, shortest: bool) -> Run:
    # In breadth-first order the first run found is a shortest one, and the same one every time.
    flags = ["-DBFS", "-O0"] if shortest else ["-DCOLLAPSE", "-O2"]
    defined = [f"-D{option}" for option in options]
    _call(["spin", "-a", *defined, str(model.source)], folder)
    _call(["gcc", "-w", "-DSAFETY", "-DVECTORSZ=2048", "-DMEMLIM=6000", *flags, "-o", "pan", "pan.c"], folder)
    said = _call(["./pan", "-E", "-m100000"], folder)
    found = re.search(r"errors: (\d+)", said)
    stored = re.search(r"(\d+) states, stored", said)
    if found is None or stored is None:
        raise ModelError(f"{model.name} {options}: {said[-2000:]}")
    trail = folder / f"{model.source.name}.trail"
    messages: tuple[str, ...] = ()
    if int(found[1]):
        replayed = _call(["spin", "-t", "-k", str(trail), *defined, str(model.source)], folder)
        messages = tuple(line.split(_MARK, 1)[1].rstrip() for line in replayed.splitlines() if _MARK in line)
    cut = any(words in said for words in ("Search not completed", "max search depth too small", "out of memory"))
    return Run(errors=int(found[1]), states=int(stored[1]), complete=not cut, messages=messages)


def holds(model: Model, bounds: tuple[str, ...], folder: Path) -> Run:
    """Search every run within `bounds` for one that breaks any property."""
    return _search(model, bounds, folder, shortest=False)


def remove(model: Model, protection: Protection, folder: Path) -> Run:
    """Look for a shortest run that breaks the protection's property without it."""
    number = model.numbers[protection.breaks]
    return _search(model, (*protection.bounds, *protection.switches, f"ONLY={number}"), folder, shortest=True)


def reach(model: Model, number: int, folder: Path) -> Run:
    """Look for a shortest run, with every protection, in which a property's antecedent holds; 99: the honest end."""
    return _search(model, (f"REACH={number}",), folder, shortest=True)


def as_trace(model: Model, protection: Protection, run: Run) -> str:
    """The found run as text: who sends what to whom, in order."""
    lines = [
        f"{model.name}: {'with' if protection.limit else 'without'} {protection.title}",
        f"{'known limit' if protection.limit else 'left out'}: {protection.text} (SPEC {protection.clause})",
        f"broken: {protection.breaks}: {model.properties[protection.breaks]}",
        "",
        *(f"{step:2}. {message}" for step, message in enumerate(run.messages, 1)),
    ]
    return "\n".join(lines) + "\n"


def trace_file(model: Model, protection: Protection) -> Path:
    """Where the trace is kept."""
    word = protection.title.lower().replace("_", "-").replace("=", "-")
    return TRACES / f"{model.name}.{word}.txt"
