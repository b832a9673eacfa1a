"""Every dishonest owner against the auditor, at every strength, on real data: the threat model, run.

    python -m tests.benchmarks.matrix [--small] [--data ../shared/data] [--state matrix.jsonl] [--confirm 20] [--out F]

For each data set and architecture one world is made (base trained and committed, cross-fitted models, logs, witnesses);
each adversary of tests/conformance/adversaries then signs a bundle at each of its strengths, and `auditor.audit` looks at
it as at anybody's. Strength 0 is the honest twin: the same code, nothing dishonest done by it.

Expected is, from the adversary's stated limit on, its verdict with a finding of its own threat by a check that the
threat names; of the twin CONSISTENT without a finding, or INCONCLUSIVE, and then why. Anything else makes the program
exit with 1. Below the limit the matrix says what happened, and demands nothing.

A row is stored with a digest of the source that made it. One that an earlier state of the source made counts as
finished; `--confirm 20` plays that many of them again, drawn at random, and ends with 1 if a verdict or a finding is
another one now.

Records of all roles are one random draw from a whole data file. Threats whose check is membership are audited under
`indistinguishable`, the others under the checks and levels of `redirection`. An interrupted run goes on where it
stopped: a finished row is one line of the state file, under a digest of settings, adversary and strength.
"""

import argparse
import functools
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import scipy
import torch

from protocol.digests import jcs_digest
from protocol.model.recipe import Recipe
from tests.auditor.workshop import Workshop
from tests.conformance.adversaries import ROLES, SEATS, Adversary, Parameters
from tests.conformance.adversaries.stage import Seen, perform
from tests.demo.__main__ import START, Demo
from tests.demo.data import Parts, digits
from tests.demo.world import Clock, World


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a row says."""

    trained: int = 800
    unseen: int = 100
    reference: int = 600
    forgotten: int = 60
    shadows: int = 16
    epochs: int = 25
    margin: float = 0.2
    seed: int = 2026
    small: bool = False


PAIRS = (
    ("digits", "mlp"), ("digits", "conv"), ("mnist", "mlp"), ("mnist", "wide"), ("uci_har", "mlp"), ("uci_har", "wide"),
)  # fmt: skip
FORGOTTEN = {("digits", "conv"): 100}
"""Forgotten records in worlds where the usual number cannot bound an honest owner's difference by the margin: for threats
whose check is membership, whose power is a matter of how many there are."""
SMALL = Settings(trained=400, unseen=60, reference=400, forgotten=40, shadows=12, epochs=15, margin=0.3, small=True)


def settings_of(settings: Settings, names: tuple[str, str], adversary: Adversary) -> Settings:
    """The settings of one threat in one world."""
    if settings.small or adversary.check != "membership":
        return settings
    return replace(settings, forgotten=FORGOTTEN.get(names, settings.forgotten))


class Worlds:
    """The worlds of one data set and architecture, each made when it is first needed."""

    def __init__(self, names: tuple[str, str], data: Path | None, folder: Path) -> None:
        self.names, self.data, self.folder = names, data, folder
        self.made: dict[Settings, Workshop] = {}

    def __call__(self, settings: Settings) -> Workshop:
        """The world of these settings."""
        if settings not in self.made:
            place = self.folder / str(len(self.made))
            place.mkdir()
            parts = parts_of(self.names[0], settings, self.data)
            self.made[settings] = world_of(parts, self.names[1], settings, place)
        return self.made[settings]


def parts_of(name: str, settings: Settings, data: Path | None) -> Parts:
    """The three roles, drawn anew from all records of a data set.

    Raises:
        FileNotFoundError: the data set is not at hand.
    """
    if name == "digits":
        whole = digits()
        X = np.concatenate([whole.X_train, whole.X_unseen, whole.X_reference])
        y = np.concatenate([whole.y_train, whole.y_unseen, whole.y_reference])
        scale = whole.scale
    else:
        with np.load((data or Path("../shared/data")) / f"{name}.npz", allow_pickle=False) as archive:
            X = np.concatenate([archive["X_train"], archive["X_test"]])
            y = np.concatenate([archive["y_train"], archive["y_test"]]).astype(np.int64)
        scale = 255.0 if X.dtype == np.uint8 else 1.0
    order = np.random.default_rng([settings.seed, 0]).permutation(len(y))
    ends = np.cumsum([settings.trained, settings.unseen, settings.reference])
    if ends[-1] > len(y):
        raise ValueError(f"{name} has {len(y)} records, {ends[-1]} are needed")
    own, unseen, reference = order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] : ends[2]]
    return Parts(
        name, X[own], y[own], X[unseen], y[unseen], X[reference], y[reference], None, scale, int(y.max()) + 1,
        settings.forgotten, settings.margin,
    )  # fmt: skip


def world_of(parts: Parts, kind: str, settings: Settings, root: Path) -> Workshop:
    """A world in which both programs have played up to the usual request."""
    demo = Demo(World(root=root / "world", clock=Clock(START)), parts, kind=kind, seed=settings.seed % 1000)
    demo.recipe = Recipe(epochs=settings.epochs, batch=32)
    demo.shadows = settings.shadows
    demo.prepare()
    rows = np.random.default_rng([settings.seed, 1]).choice(settings.trained, settings.forgotten, replace=False)
    demo.request("records", "--records", ",".join(str(int(row)) for row in sorted(rows)))
    return Workshop(demo, root / "workshop")


def described(parameters: Parameters) -> str:
    """What was chosen, without the class's name."""
    return repr(parameters).split("(", 1)[1][:-1]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One adversary at one strength in one world."""

    data: str
    kind: str
    threat: str
    parameters: str
    strength: float
    due: bool
    verdict: str
    findings: tuple[tuple[str, str], ...]
    why: str
    good: bool
    checks: dict[str, str]
    seconds: float
    source: str = ""

    @property
    def said(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What has to come out again."""
        return self.verdict, self.findings


@functools.cache
def source() -> str:
    """Digest of the source that a row follows from: both programs, the adversaries, and what they are played in."""
    root = Path(__file__).resolve().parents[2]
    found = hashlib.sha256()
    for folder in ("protocol", "owner", "auditor", "tests/conformance/adversaries", "tests/demo"):
        for path in sorted((root / folder).rglob("*.py")):
            found.update(f"{path.relative_to(root)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def row(workshop: Workshop, names: tuple[str, str], adversary: Adversary, parameters: Parameters, seed: int) -> Row:
    """Play one adversary, and hold what the auditor says against what it has to say."""
    started = time.process_time()
    seen: Seen = perform(workshop, adversary, parameters, np.random.default_rng([seed, *adversary.threat.encode()]))
    due = bool(parameters.strength) and adversary.detectable(parameters)
    if due:
        good = adversary.found(seen.verdict, seen.findings, seen.why)
    else:
        good = bool(parameters.strength) or (seen.verdict != "REFUTED" and not seen.findings)
    return Row(
        data=names[0], kind=names[1], threat=adversary.threat, parameters=described(parameters),
        strength=parameters.strength, due=due, verdict=seen.verdict, findings=tuple(sorted(seen.findings)),
        why=" ".join(seen.why)[:300], good=good, checks={c.check: c.verdict for c in seen.checks if c.required},
        seconds=round(time.process_time() - started, 2), source=source(),
    )  # fmt: skip


def strengths(adversary: Adversary, settings: Settings, names: tuple[str, str]) -> tuple[Parameters, ...]:
    """The twin and the sweep: all of it in the first world, elsewhere the weakest that is due and the strongest."""
    due = [one for one in adversary.sweep if adversary.detectable(one)]
    if settings.small:
        return (adversary.honest, due[0])
    if names == PAIRS[0]:
        return (adversary.honest, *adversary.sweep)
    return tuple(dict.fromkeys((adversary.honest, due[0], due[-1])))


def _key(settings: Settings, names: tuple[str, str], adversary: Adversary, parameters: Parameters) -> str:
    values = {key: str(value) for key, value in asdict(settings_of(settings, names, adversary)).items()}
    return jcs_digest({"names": "/".join(names), "threat": adversary.threat, "parameters": repr(parameters), **values})


def read_state(states: tuple[Path, ...]) -> dict[str, Row]:
    """Finished rows by key."""
    done: dict[str, Row] = {}
    for state in states:
        for line in state.read_text().splitlines() if state.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the line that an interruption cut off
                continue
            known = entry["row"] | {"findings": tuple(tuple(pair) for pair in entry["row"]["findings"])}
            done[entry["key"]] = Row(**known)
    return done


def collect(
    settings: Settings, pairs: tuple[tuple[str, str], ...], state: Path, data: Path | None,
    *, others: tuple[Path, ...] = (), play: bool = True,
) -> Iterator[Row]:  # fmt: skip
    """Rows from the state files, and the missing ones (unless `play` is off), each stored as soon as it is known."""
    done = read_state((state, *others))
    for names in pairs:
        wanted = [(one, p) for one in ROLES.values() for p in strengths(one, settings, names)]
        keys = [_key(settings, names, one, p) for one, p in wanted]
        with tempfile.TemporaryDirectory() as folder:
            worlds = Worlds(names, data, Path(folder))
            for key, (adversary, parameters) in zip(keys, wanted, strict=True):
                if key not in done:
                    if not play:
                        continue
                    workshop = worlds(settings_of(settings, names, adversary))
                    done[key] = row(workshop, names, adversary, parameters, settings.seed)
                    _store(state, key, done[key])
                yield done[key]


def confirm(
    settings: Settings, pairs: tuple[tuple[str, str], ...], state: Path, data: Path | None,
    *, others: tuple[Path, ...] = (), count: int, seed: int = 0,
) -> Iterator[tuple[Row, Row]]:  # fmt: skip
    """Play rows again that an earlier state of the source made: (as it was, as it is); the new one is stored."""
    done = read_state((state, *others))
    old = [
        (names, adversary, parameters, key)
        for names in pairs
        for adversary in ROLES.values()
        for parameters in strengths(adversary, settings, names)
        if (key := _key(settings, names, adversary, parameters)) in done and done[key].source != source()
    ]
    drawn = np.random.default_rng(seed).choice(len(old), min(count, len(old)), replace=False)
    chosen = [old[number] for number in sorted(drawn)]
    for names in dict.fromkeys(one[0] for one in chosen):
        with tempfile.TemporaryDirectory() as folder:
            worlds = Worlds(names, data, Path(folder))
            for there, adversary, parameters, key in chosen:
                if there == names:
                    again = row(
                        worlds(settings_of(settings, names, adversary)), names, adversary, parameters, settings.seed
                    )
                    _store(state, key, again)
                    yield done[key], again


def _store(state: Path, key: str, one: Row) -> None:
    with state.open("a") as file:
        file.write("\n" * (state.stat().st_size > 0 and not state.read_bytes().endswith(b"\n")))
        file.write(json.dumps({"key": key, "row": asdict(one)}) + "\n")


def _cell(one: Row) -> str:
    own = any(threat == one.threat for threat, _ in one.findings)
    text = one.verdict if own or not one.findings else f"{one.verdict}, other finding"
    return text if one.good else f"**{text}**"


def due(adversary: Adversary, parameters: Parameters) -> str:
    """What has to come out: of the twin CONSISTENT, from the limit on the stated verdict, below it nothing."""
    if not parameters.strength:
        return "CONSISTENT (twin)"
    if not adversary.detectable(parameters):
        return "nothing: below the limit"
    if not adversary.accuses:
        return f"{adversary.expected}, nobody accused"
    return adversary.expected if adversary.expected == "REFUTED" else f"{adversary.expected}, with its finding"


def table(rows: list[Row], settings: Settings) -> list[str]:
    """The matrix as Markdown: one line for each threat and strength, one column for each world."""
    worlds = list(dict.fromkeys((one.data, one.kind) for one in rows))
    found = {(one.threat, one.parameters, one.data, one.kind): one for one in rows}
    above, twins = [one for one in rows if one.due], [one for one in rows if not one.strength]
    accused = [one for one in above if ROLES[one.threat].expected == "REFUTED"]
    doubted = [one for one in above if ROLES[one.threat].expected != "REFUTED"]
    consistent = sum(one.verdict == "CONSISTENT" for one in twins)
    lines = [
        f"Of {len(accused)} bundles above a stated limit whose signed bytes prove the fault {sum(one.good for one in accused)} "
        f"are REFUTED with a finding of their own threat. Of {len(doubted)} where nothing signed proves it "
        f"{sum(one.good for one in doubted)} are INCONCLUSIVE, for that very reason. Of {len(twins)} honest twins {consistent} are CONSISTENT, "
        f"{sum(one.verdict == 'INCONCLUSIVE' for one in twins)} INCONCLUSIVE, "
        f"{sum(one.verdict == 'REFUTED' for one in twins)} REFUTED. {_sources(rows)}",
        "",
        "| threat | strength | has to be | " + " | ".join("/".join(world) for world in worlds) + " |",
        "|---|---|---|" + "---|" * len(worlds),
    ]
    for adversary in ROLES.values():
        for parameters in dict.fromkeys(p for world in worlds for p in strengths(adversary, settings, world)):
            text = described(parameters)
            cells = [found.get((adversary.threat, text, *world)) for world in worlds]
            lines.append(
                f"| {adversary.threat} | {text} | {due(adversary, parameters)} | "
                + " | ".join("" if cell is None else _cell(cell) for cell in cells)
                + " |"
            )
    lines += ["", "Limits, from which on a strength is due:", ""]
    lines += [f"- {one.threat} ({one.check}): {one.limit_text}." for one in ROLES.values()]
    unsure = [one for one in twins if one.verdict != "CONSISTENT"]
    if unsure:
        lines += ["", "Honest twins that are not CONSISTENT, and why:", ""]
        lines += [f"- {one.threat}, {one.data}/{one.kind}: {one.verdict}: {one.why}" for one in unsure]
    lines += ["", "Threats without a row, and why:", ""]
    return lines + [f"- {threat}: {seat.reason}." for threat, seat in SEATS.items()]


def _sources(rows: list[Row]) -> str:
    earlier = sum(one.source != source() for one in rows)
    if not earlier:
        return f"All {len(rows)} rows were played by the source as it was at the end ({source()})."
    return (
        f"Of {len(rows)} rows {len(rows) - earlier} were played by the source as it was at the end ({source()}), {earlier} by "
        "earlier states of it."
    )


def _exceptions() -> str:
    more = ", ".join(f"{number} on {'/'.join(names)}" for names, number in FORGOTTEN.items())
    return f"{more}, for threats whose check is membership: fewer leave the honest twin INCONCLUSIVE"


def head(settings: Settings, rows: list[Row], command: str) -> list[str]:
    """What the matrix was made with."""
    machine = (
        f"`{command}`: {sum(one.seconds for one in rows):.0f} s of processor time for the audits, on one of "
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"scipy {scipy.__version__}, torch {torch.__version__}."
    )
    made = (
        f"{settings.trained} training, {settings.unseen} unseen and {settings.reference} reference records, "
        f"{settings.forgotten} forgotten ({_exceptions()}), {settings.shadows} shadow models, {settings.epochs} epochs, margin "
        f"{settings.margin:g}, seed {settings.seed}. mlp: perceptron 128-64; wide: 256-128; conv: small residual network."
    )
    reading = (
        "REFUTED stands for a refuted bundle with a finding of the row's own threat (of the monitor: for its finding). "
        "INCONCLUSIVE is all that a withheld answer, a shifted reference or an unplanned audit can give: nothing that "
        "anybody signed proves it. An empty cell was not played. Strength 0 is the honest twin. Bold is what should not be."
    )
    return ["# The threat matrix", "", machine, "", made, "", reading, ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--small", action="store_true", help="digits, one architecture, the weakest strength that is due"
    )
    parser.add_argument("--data", type=Path, help="folder with mnist.npz and uci_har.npz; without it digits only")
    parser.add_argument("--worlds", help="only these, such as digits/mlp,mnist/wide")
    parser.add_argument("--merge", type=Path, nargs="*", default=(), help="state files of other processes")
    parser.add_argument("--confirm", type=int, default=0, help="play so many rows of an earlier source again")
    parser.add_argument("--finished", action="store_true", help="play nothing: write what the state files hold")
    parser.add_argument("--state", type=Path, help="finished rows; matrix.jsonl, none with --small")
    parser.add_argument("--out", type=Path, help="Markdown file to write; standard output without it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = SMALL if options.small else Settings()
    pairs = PAIRS[:1] if options.small else PAIRS if options.data else PAIRS[:2]
    if options.worlds:
        pairs = tuple(pair for pair in pairs if "/".join(pair) in options.worlds.split(","))
    with tempfile.TemporaryDirectory() as folder:
        state = options.state or (Path(folder) / "small.jsonl" if options.small else Path("matrix.jsonl"))
        changed = 0
        for was, now in confirm(
            settings, pairs, state, options.data, others=tuple(options.merge), count=options.confirm
        ):
            changed += was.said != now.said
            mark = "same " if was.said == now.said else "OTHER"
            print(f"{mark} {now.data}/{now.kind} {now.threat} {now.parameters}: {was.said} {now.said}", flush=True)
        rows = []
        for one in collect(
            settings, pairs, state, options.data, others=tuple(options.merge), play=not options.finished
        ):
            rows.append(one)
            mark = "ok   " if one.good else "WRONG"
            print(f"{mark} {one.data}/{one.kind} {one.threat} {one.parameters}: {_cell(one)}", flush=True)
    command = f"python -m tests.benchmarks.matrix{' --small' if options.small else ''}"
    text = "\n".join([*head(settings, rows, command), *table(rows, settings), ""])
    if options.out:
        options.out.write_text(text)
    else:
        print(text)
    return 0 if all(one.good for one in rows) and not changed else 1


if __name__ == "__main__":
    sys.exit(main())
