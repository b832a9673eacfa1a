"""How much do the statistical checks see, and how often do they accuse an honest owner?

    python -m tests.benchmarks.power [--runs 200] [--state power.jsonl] [--out threat_models/POWER.md]

Digits, perceptron 128-64. Ten worlds (base, split, shadow models); in each, runs with their own forgotten records,
their own challenge and their own honest patch by `prune`. In each run every statistical adversary plays each of its
strengths, 0 included, and the check that has to see it decides. Counted are that check's verdicts: a rate over seeded
runs, with exact (Clopper-Pearson) 95 % intervals. Runs of one world share its base and reference records, so that the
intervals are about these ten worlds; false alarms of the membership decision with models of their own in each run are
in tests/benchmarks/CALIBRATION.md.

An interrupted study goes on: a finished run is one line of the state file, under a digest of the settings.
"""

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy
import torch

from auditor.checks import locality, membership, persistence, utility
from auditor.evidence import Evidence, Reference
from auditor.membership import MembershipPlan, obstacles_of
from auditor.statistics.exchangeability import exchangeability
from auditor.statistics.proportions import interval
from auditor.view import CheckResult
from protocol.digests import jcs_digest
from tests.benchmarks.desk import Desk, desk
from tests.benchmarks.matrix import Settings, described
from tests.conformance.adversaries import (
    ROLES,
    Parameters,
    easy_negatives,
    excessive_support,
    hidden_damage,
    over_forgetting,
    point_lookup,
)

WORLDS = 10
SETTINGS = Settings(trained=700, unseen=100, reference=900, forgotten=60, shadows=16, epochs=15, margin=0.15)


def _membership(evidence: Evidence) -> CheckResult:
    return membership.check(evidence, membership.Outcome())


def _exchangeable(evidence: Evidence) -> CheckResult:
    # The test that precedes every assessment, alone: it stops the membership check whatever the attacks say.
    schema, reference = evidence.case.schema, evidence.reference
    assert schema is not None
    assert reference is not None
    plan = MembershipPlan()
    forgotten, labels = evidence.requested_records
    values = np.concatenate([forgotten, reference.values])
    mask = np.arange(len(values)) < len(forgotten)
    tested = exchangeability(
        schema.dequantise(values).reshape(len(values), -1), mask, np.concatenate([labels, reference.labels]),
        evidence.generator("membership"), permutations=plan.permutations,
    )  # fmt: skip
    stopped = obstacles_of(tested, plan)
    return CheckResult(check="membership", verdict="INCONCLUSIVE" if stopped else "CONSISTENT", summary="")


CURVES: dict[str, tuple[Callable[[Evidence], CheckResult], tuple[Parameters, ...]]] = {
    "over-forgetting": (
        _membership, tuple(over_forgetting.Parameters(share=s) for s in (0.0, 0.25, 0.5, 1.0))
    ),
    "easy-negatives": (_exchangeable, tuple(easy_negatives.Parameters(shift=s) for s in (0.0, 0.02, 0.05, 0.1, 0.2))),
    "point-lookup": (
        persistence.check, tuple(point_lookup.Parameters(share=s) for s in (0.0, 0.05, 0.1, 0.2))
    ),
    "excessive-support": (
        locality.check, tuple(excessive_support.Parameters(share=s) for s in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0))
    ),
    "hidden-damage": (
        utility.check, tuple(hidden_damage.Parameters(share=s) for s in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0))
    ),
}  # fmt: skip


def _shifted(evidence: Evidence, shift: float) -> Reference:
    reference = evidence.reference
    assert reference is not None
    values = easy_negatives.shifted(reference.values, reference.labels, shift)
    return dataclasses.replace(reference, values=values)


def run(place: Desk, number: int, seed: int, threats: tuple[str, ...] = tuple(CURVES)) -> dict[str, list[str]]:
    """One run: for each of these threats the verdict at each strength."""
    found: dict[str, list[str]] = {}
    generator = np.random.default_rng([seed, number])
    scene = place.scene(place.draw(generator), generator)
    for threat in threats:
        check, strengths = CURVES[threat]
        verdicts = []
        for parameters in strengths:
            own = np.random.default_rng([seed, number, *threat.encode()])
            if isinstance(parameters, easy_negatives.Parameters):
                shifted = _shifted(place.honest, parameters.shift)
                evidence = place.evidence(scene.draft(), scene, own, reference=shifted)
            else:
                evidence = place.evidence(ROLES[threat].make(scene, parameters, own), scene, own)
            # One seed for each run: shadow models are the world's, the control's draws the run's own.
            verdicts.append(check(evidence).verdict)
        found[threat] = verdicts
    return found


def _key(settings: Settings, threat: str) -> str:
    values = {key: str(value) for key, value in dataclasses.asdict(settings).items()}
    return jcs_digest(values | {threat: ", ".join(map(repr, CURVES[threat][1]))})


def read_state(settings: Settings, states: tuple[Path, ...]) -> dict[str, dict[int, list[str]]]:
    """For each threat its finished runs, from state files that belong to these settings and strengths."""
    done: dict[str, dict[int, list[str]]] = {threat: {} for threat in CURVES}
    keys = {threat: _key(settings, threat) for threat in CURVES}
    for state in states:
        for line in state.read_text().splitlines() if state.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the line that an interruption cut off
                continue
            if keys.get(entry["threat"]) == entry["key"]:
                done[entry["threat"]][entry["run"]] = entry["verdicts"]
    return done


def fill(
    settings: Settings, runs: int, state: Path, threats: tuple[str, ...], worlds: tuple[int, ...]
) -> Iterator[tuple[str, int]]:
    """Run what is missing in the state file; each threat's run is stored as soon as it is done."""
    done = read_state(settings, (state,))
    for world in worlds:
        numbers = [number for number in range(runs) if number % WORLDS == world]
        missing = {number: [t for t in threats if number not in done[t]] for number in numbers}
        if not any(missing.values()):
            continue
        place, folder = desk(settings, world)
        with folder:
            for number, wanted in missing.items():
                for threat, verdicts in run(place, number, settings.seed, tuple(wanted)).items():
                    entry = {
                        "key": _key(settings, threat), "threat": threat, "run": number, "verdicts": verdicts,
                    }  # fmt: skip
                    with state.open("a") as file:
                        file.write("\n" * (state.stat().st_size > 0 and not state.read_bytes().endswith(b"\n")))
                        file.write(json.dumps(entry) + "\n")
                    yield threat, number


def _rate(hits: int, runs: int) -> str:
    low, high = interval(hits, runs)
    return f"{hits}/{runs} = {hits / runs:.1%} [{low:.1%}, {high:.1%}]"


def table(found: dict[str, dict[int, list[str]]]) -> list[str]:
    """The curves as Markdown."""
    lines = [
        "| threat (check) | strength | REFUTED (exact 95 %) | INCONCLUSIVE | CONSISTENT |",
        "|---|---|---|---|---|",
    ]
    for threat, (_, strengths) in CURVES.items():
        for place, parameters in enumerate(strengths if found[threat] else ()):
            verdicts = [one[place] for _, one in sorted(found[threat].items())]
            name = f"{threat} ({ROLES[threat].check})" if not place else ""
            twin = ", the honest twin" if not parameters.strength else ""
            lines.append(
                f"| {name} | {described(parameters)}{twin} | {_rate(verdicts.count('REFUTED'), len(verdicts))} | "
                f"{verdicts.count('INCONCLUSIVE')} | {_rate(verdicts.count('CONSISTENT'), len(verdicts))} |"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--worlds", help="only these, such as 0,1,2; for several processes with a state file each")
    parser.add_argument("--only", help="only these threats, with commas")
    parser.add_argument("--finished", action="store_true", help="run nothing: write what the state files hold")
    parser.add_argument("--merge", type=Path, nargs="*", default=(), help="state files of other processes")
    parser.add_argument("--state", type=Path, default=Path("power.jsonl"), help="finished runs")
    parser.add_argument("--out", type=Path, help="Markdown file to write; standard output without it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    worlds = tuple(map(int, options.worlds.split(","))) if options.worlds else tuple(range(WORLDS))
    threats = tuple(options.only.split(",")) if options.only else tuple(CURVES)
    threats = () if options.finished else threats
    for threat, number in fill(SETTINGS, options.runs, options.state, threats, worlds):
        print(f"{threat}, run {number}: {time.process_time() - started:.0f} s", flush=True)
    found = read_state(SETTINGS, (options.state, *options.merge))
    command = f"`python -m tests.benchmarks.power --runs {options.runs}`"
    head = [
        "# What the statistical checks see", "",
        f"{command}: {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, scipy "
        f"{scipy.__version__}, torch {torch.__version__}.", "",
        f"Seeded runs in {WORLDS} worlds on digits: {SETTINGS.trained} training, {SETTINGS.reference} reference "
        f"records, {SETTINGS.forgotten} forgotten, {SETTINGS.shadows} shadow models, margin {SETTINGS.margin:g}, seed "
        f"{SETTINGS.seed}. Strength 0 is the honest twin: its REFUTED are false alarms. Strengths are explained in "
        "tests/conformance/adversaries.", "",
    ]  # fmt: skip
    text = "\n".join([*head, *table(found), ""])
    if options.out:
        options.out.write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
