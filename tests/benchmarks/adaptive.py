"""Owners who know the auditor's code, profile and every past challenge, and tune the cheat to pass: what they gain.

    python -m tests.benchmarks.adaptive [--draws 3] [--state adaptive.jsonl] [--out threat_models/ADAPTIVE.md]

Digits, perceptron 128-64. The owner searches against the auditor's own check functions, on the auditor's own reference
data and attack seed (more than a real owner has): by bisection or greedily for the strongest cheat that the check still
calls CONSISTENT. Only the challenge is not known to it; where the check depends on it, the cheat found is tried against
fresh challenges. Gains are stated beside what the same cheat gets without tuning.
"""

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch

from auditor.checks import boundedness, disclosure, locality, membership, persistence, redirection, utility
from auditor.evidence import Evidence, moved
from auditor.statistics.proportions import interval
from auditor.view import CheckResult
from owner.certify import Draft
from owner.gates.sketch import sketch
from protocol.claims import Redirection
from protocol.digests import jcs_digest
from protocol.encoding import format_decimal
from protocol.messages import challenge as challenge_message
from protocol.messages.challenge import Challenge
from tests.benchmarks.desk import Desk, desk
from tests.benchmarks.matrix import Settings
from tests.conformance.adversaries import (
    Scene,
    easy_negatives,
    noop_patch,
    over_forgetting,
    point_lookup,
    wide_item,
)  # fmt: skip
from tests.conformance.adversaries import scene as with_scene

CHALLENGES = 20
SETTINGS = Settings(trained=700, unseen=100, reference=900, forgotten=100, shadows=16, epochs=15, margin=0.2)
Check = Callable[[Evidence], CheckResult]


def attacked(evidence: Evidence) -> CheckResult:
    """The membership check."""
    return membership.check(evidence, membership.Outcome())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gain:
    """One line of the table."""

    threat: str
    cheat: str
    untuned: str
    gained: str
    wins: bool


def largest(passes: Callable[[int], bool], most: int) -> int:
    """The largest whole number from 0 to `most` that passes, by bisection; 0 has to."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def _passes(place: Desk, draft: Draft, scene: Scene, seed: int, *checks: Check) -> bool:
    evidence = place.evidence(draft, scene, np.random.default_rng(seed))
    return all(check(evidence).verdict == "CONSISTENT" for check in checks)


def _marked(scene: Scene, count: int, *, balanced: bool) -> Draft:
    # Balanced: every second record is made surer instead, so that the one tail makes up for the other.
    rows = with_scene.rows_by_item(scene.result.patch).copy()
    labels = scene.labels[scene.by_item]
    chosen = np.arange(count)
    wrong = chosen[::2] if balanced else chosen
    rows[wrong] = over_forgetting.mark(rows[wrong], labels[wrong])
    if balanced:
        rows[chosen[1::2]] *= np.float32(2)
    return scene.with_patch(with_scene.with_rows(scene.result.patch, rows), with_scene.claiming_rows(scene, rows))


def marking(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """As many records as the margin allows, in one tail or in both."""
    found = []
    for balanced, words in ((False, "misclassified"), (True, "every second misclassified, the others made surer")):
        counts = [
            largest(
                lambda n, scene=scene, both=balanced: _passes(
                    place, _marked(scene, n, balanced=both), scene, 1, attacked
                ),
                SETTINGS.forgotten,
            )
            for scene in scenes
        ]
        found.append(
            Gain(
                threat="over-forgetting", cheat=f"as many records as pass are {words}",
                untuned="all marked: REFUTED",
                gained=f"{' / '.join(map(str, counts))} of {SETTINGS.forgotten} marked, CONSISTENT", wins=max(counts) > 0,
            )
        )  # fmt: skip
    return found


def near_the_base(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """Outputs just far enough from the base's own to count as redirected."""
    distance = 0.0011
    verdicts = []
    for scene in scenes:
        draft = noop_patch.play(scene, noop_patch.Parameters(distance=distance), np.random.default_rng(1))
        evidence = place.evidence(draft, scene, np.random.default_rng(1))
        verdicts.append((redirection.check(evidence).verdict, attacked(evidence).verdict))
    passed = sum(pair == ("CONSISTENT", "CONSISTENT") for pair in verdicts)
    alone = sum(pair[0] == "CONSISTENT" for pair in verdicts)
    return [
        Gain(
            threat="noop-patch", cheat=f"the base's own output, scaled by {1 + distance:g}",
            untuned="the base's own output: REFUTED",
            gained=f"redirection CONSISTENT in {alone} of {len(scenes)}, membership as well in {passed}", wins=alone > 0,
        )
    ]  # fmt: skip


def just_the_distance(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """Boxes that reach exactly as far as the probes of the level."""
    shares, verdicts, honest = [], [], []
    for scene in scenes:
        draft = point_lookup.play(scene, point_lookup.Parameters(share=1, reach=1), np.random.default_rng(1))
        for made, kept in ((draft, shares), (scene.draft(), honest)):
            found = persistence.check(place.evidence(made, scene, np.random.default_rng(1)))
            kept.append(dict(found.evidence["curve"])[4])  # type: ignore[call-overload]
            if made is draft:
                verdicts.append(found.verdict)
    count = [
        largest(
            lambda n, scene=scene: _passes(
                place,
                point_lookup.play(
                    scene, point_lookup.Parameters(share=n / SETTINGS.forgotten), np.random.default_rng(1)
                ),
                scene, 1, persistence.check,
            ),
            SETTINGS.forgotten,
        )
        for scene in scenes
    ]  # fmt: skip
    return [
        Gain(
            threat="point-lookup", cheat="every radius cut to 1 step, the distance of the level",
            untuned="radius 0: REFUTED",
            gained=f"{verdicts.count('CONSISTENT')} of {len(scenes)} CONSISTENT; at 4 steps "
            f"{np.mean(shares):.0%} are still redirected, of honest ones {np.mean(honest):.0%}",
            wins="CONSISTENT" in verdicts,
        ),
        Gain(
            threat="point-lookup", cheat="radius 0 for as many records as pass", untuned="all: REFUTED",
            gained=f"{' / '.join(map(str, count))} of {SETTINGS.forgotten} records", wins=max(count) > 0,
        ),
    ]  # fmt: skip


def _outward(scene: Scene) -> Draft:
    # Greedy: each side of each component to its end, where none of the owner's own records gets in.
    patch, schema = scene.result.patch, scene.job.workspace.schema
    records = scene.job.workspace.records
    last = patch.parts[-1]
    gate = with_scene.gate_of(last)
    own = sketch(gate.matrix, np.concatenate([records.values[scene.kept], records.unseen_values]))
    weights = gate.matrix.astype(np.int64)
    least = np.minimum(weights * schema.low, weights * schema.high).sum(axis=1)
    most = np.maximum(weights * schema.low, weights * schema.high).sum(axis=1)
    low, high = gate.low.astype(np.int64), gate.high.astype(np.int64)
    item = gate.items - 1
    for component in range(len(weights)):
        for side, end in ((low, least), (high, most)):
            before = side[item, component]
            side[item, component] = end[component]
            if ((own >= low[item]) & (own <= high[item])).all(axis=1).any():
                side[item, component] = before
    return scene.with_patch(with_scene.with_parts(patch, *patch.parts[:-1], with_scene.boxes(last, low, high)))


def where_nobody_looks(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """A support widened to wherever no record of the owner's lies."""
    verdicts, noise, inverted, plain = [], [], [], []
    random = np.random.default_rng(3)
    for scene in scenes:
        evidence = place.evidence(_outward(scene), scene, np.random.default_rng(1))
        honest = place.evidence(scene.draft(), scene, np.random.default_rng(1))
        verdicts.append([check(evidence).verdict for check in (redirection.check, locality.check, boundedness.check)])
        schema, reference = evidence.case.schema, evidence.reference
        assert schema is not None
        assert reference is not None
        uniform = random.integers(schema.low, schema.high + 1, size=(4000, schema.features))
        for values, kept in ((uniform, noise), (schema.high + schema.low - reference.values, inverted)):
            kept.append(float(moved(*evidence.run(values)).mean()))
        plain.append(float(moved(*honest.run(uniform)).mean()))
    passed = sum(set(one) == {"CONSISTENT"} for one in verdicts)
    return [
        Gain(
            threat="excessive-support", cheat="one box widened to wherever none of the owner's own records lies",
            untuned="a box over a class: REFUTED",
            gained=f"{passed} of {len(scenes)} pass; uniform noise moved {np.mean(noise):.1%} (honest "
            f"{np.mean(plain):.1%}), inverted digits {np.mean(inverted):.1%}",
            wins=passed > 0,
        )
    ]  # fmt: skip


def few_of_a_class(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """As much damage in one class as passes, then the same against challenges that nobody knows."""
    counts, rates = [], []
    for scene in scenes:
        item, klass = wide_item.candidates(scene, same_class=False)[0]
        records = scene.job.workspace.records
        total = int((records.labels[scene.kept] == klass).sum())

        def draft(count: int, scene: Scene = scene, item: int = item, klass: int = klass, total: int = total) -> Draft:
            return wide_item.widened(scene, wide_item.nearest(scene, klass, count / total, item), item)

        count = largest(
            lambda n, scene=scene, draft=draft: _passes(place, draft(n), scene, 1, locality.check, utility.check), total
        )
        counts.append((count, total))
        passed = sum(
            _passes(place, draft(count), scene, 100 + n, locality.check, utility.check) for n in range(CHALLENGES)
        )
        rates.append(passed)
    low, high = interval(sum(rates), CHALLENGES * len(scenes))
    return [
        Gain(
            threat="hidden-damage", cheat="the records of one class nearest to a forgotten one, as many as pass",
            untuned="a whole class: REFUTED",
            gained=f"{' / '.join(f'{n} of {total}' for n, total in counts)} retained records of the class damaged; against "
            f"fresh challenges {sum(rates)} of {CHALLENGES * len(scenes)} pass [{low:.0%}, {high:.0%}]",
            wins=any(n for n, _ in counts),
        )
    ]  # fmt: skip


def _hidden_bits(scene: Scene, bits: int, generator: np.random.Generator) -> tuple[Draft, int]:
    rows = with_scene.rows_by_item(scene.result.patch).copy()
    plain = rows.view(np.uint32)
    payload = generator.integers(0, 1 << bits, size=plain.shape, dtype=np.uint32)
    rows = ((plain & ~np.uint32((1 << bits) - 1)) | payload).view(np.float32)
    draft = scene.with_patch(with_scene.with_rows(scene.result.patch, rows), with_scene.claiming_rows(scene, rows))
    return draft, bits * plain.size


def message_in_the_rows(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """A message in the low bits of the rows."""
    carried = []
    for scene in scenes:

        def passes(bits: int, scene: Scene = scene) -> bool:
            draft, _ = _hidden_bits(scene, bits, np.random.default_rng(1))
            return _passes(place, draft, scene, 1, boundedness.check, redirection.check, attacked)

        bits = largest(passes, 23)
        carried.append((bits, bits * with_scene.rows_by_item(scene.result.patch).size))
    return [
        Gain(
            threat="hidden-payload", cheat="a message in the low bits of the rows' mantissas",
            untuned="an item of its own: REFUTED",
            gained=f"{' / '.join(f'{total} bits ({bits} a logit)' for bits, total in carried)}, CONSISTENT",
            wins=any(total for _, total in carried),
        )
    ]  # fmt: skip


def half_a_step(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """Radii in data units overstated by half a step."""
    verdicts: list[str] = []
    for scene in scenes:
        half = Decimal(f"{0.5 / float(np.abs(scene.job.workspace.schema.scale).max()):.9f}")
        claims = tuple(
            with_scene.with_radius(
                claim, claim.region.radius, format_decimal(Decimal(claim.region.radius_data) + half)
            )
            if isinstance(claim, Redirection)
            else claim
            for claim in scene.result.claims
        )  # fmt: skip
        evidence = place.evidence(scene.with_patch(scene.result.patch, claims), scene, np.random.default_rng(1))
        verdicts.append(redirection.check(evidence).verdict)
    return [
        Gain(
            threat="unsound-region", cheat="radii in data units larger by half a step, steps as they are",
            untuned="by a whole step: REFUTED",
            gained=f"{verdicts.count('CONSISTENT')} of {len(verdicts)} CONSISTENT, "
            f"{verdicts.count('INCONCLUSIVE')} INCONCLUSIVE: nothing",
            wins="CONSISTENT" in verdicts,
        )
    ]  # fmt: skip


def fewer_stored(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """As many of the record's own values in the gate as the level of disclosure allows."""
    from tests.conformance.adversaries import patch_as_record

    counts = []
    for scene in scenes:
        features = scene.job.workspace.schema.features

        def passes(n: int, scene: Scene = scene, features: int = features) -> bool:
            draft = patch_as_record.play(
                scene, patch_as_record.Parameters(stored=n / features), np.random.default_rng(1)
            )
            return _passes(place, draft, scene, 1, disclosure.check)

        counts.append((largest(passes, features), features))
    return [
        Gain(
            threat="patch-as-record", cheat="the columns that vary most, as they are, as many as pass",
            untuned="all: REFUTED",
            gained=f"{' / '.join(f'{n} of {features}' for n, features in counts)} values of each record in the patch",
            wins=any(n for n, _ in counts),
        )
    ]  # fmt: skip


def scrambled_rows(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """Whole records as rows of the sketch, their columns in an order that only the owner and a friend know."""
    from tests.conformance.adversaries.patch_as_record import in_matrix, rows_of

    passed, plain = [], []
    for scene in scenes:
        rows = rows_of(scene)
        order = np.random.default_rng(3).permutation(rows.shape[1])
        for shown, verdicts in ((rows[:, order], passed), (rows, plain)):
            draft = in_matrix(scene, shown, corner=True)
            verdicts.append(_passes(place, draft, scene, 1, disclosure.check, boundedness.check))
    return [
        Gain(
            threat="patch-as-record", cheat="records as rows that limit one corner of the grid, columns in another order",
            untuned="in their own order: " + ("REFUTED" if not any(plain) else "passes"),
            gained=f"{sum(passed)} of {len(passed)} pass, all {SETTINGS.forgotten} records in the patch", wins=any(passed),
        )
    ]  # fmt: skip


def gentle_shift(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """Reference data made as easy as the test of exchangeability lets it be, with marked records."""
    reference = place.honest.reference
    assert reference is not None
    best = []
    for scene in scenes:
        counts = []
        for shift in (0.0, 0.02):
            easy = dataclasses.replace(
                reference, values=easy_negatives.shifted(reference.values, reference.labels, shift)
            )

            def passes(n: int, scene: Scene = scene, easy: object = easy) -> bool:
                draft = _marked(scene, n, balanced=False)
                evidence = place.evidence(draft, scene, np.random.default_rng(1), reference=easy)  # type: ignore[arg-type]
                return attacked(evidence).verdict == "CONSISTENT"

            counts.append(largest(passes, SETTINGS.forgotten) if passes(0) else 0)
        best.append(counts)
    return [
        Gain(
            threat="easy-negatives", cheat="reference records 2 % nearer to their class's mean, and marked records",
            untuned="20 % nearer: INCONCLUSIVE",
            gained=f"{' / '.join(f'{b} (without the shift {a})' for a, b in best)} of {SETTINGS.forgotten} marked pass",
            wins=any(b > a for a, b in best),
        )
    ]  # fmt: skip


def past_challenges(place: Desk, scenes: list[Scene]) -> list[Gain]:
    """Damage to retained records that were never drawn in fifty past challenges, or to any."""
    random, trials, harmed = np.random.default_rng(5), 2000, 10

    def drawn() -> np.ndarray:
        value = random.bytes(32)
        made = Challenge(
            subject="0" * 64, opening="0" * 64, answers="0" * 64, seed=challenge_message.seed(value, "locality"),
            count=min(200, place.trained), population=place.trained, challenged_at=0,
        )  # fmt: skip
        return np.array([int(index) for index in made.indices()])

    seen = np.bincount(np.concatenate([drawn() for _ in range(5)]), minlength=place.trained)
    never = np.flatnonzero(seen == 0)[:harmed]
    any_of_them = random.choice(place.trained, len(never), replace=False)
    hits = {"never": 0, "any": 0}
    for _ in range(trials):
        now = drawn()
        hits["never"] += bool(np.isin(never, now).any())
        hits["any"] += bool(np.isin(any_of_them, now).any())
    rates = {name: (count / trials, interval(count, trials)) for name, count in hits.items()}
    return [
        Gain(
            threat="hidden-damage",
            cheat=f"{len(never)} retained records that none of five past challenges drew",
            untuned=f"{len(never)} drawn at random: a challenge of 200 of {place.trained} meets one in "
            f"{rates['any'][0]:.1%} [{rates['any'][1][0]:.1%}, {rates['any'][1][1]:.1%}]",
            gained=f"{rates['never'][0]:.1%} [{rates['never'][1][0]:.1%}, {rates['never'][1][1]:.1%}]: nothing",
            wins=False,
        )
    ]  # fmt: skip


SEARCHES = (
    marking, near_the_base, just_the_distance, where_nobody_looks, few_of_a_class, message_in_the_rows, half_a_step,
    fewer_stored, scrambled_rows, gentle_shift, past_challenges,
)  # fmt: skip


ANY_SCENES = (scrambled_rows, past_challenges)
"""Searches in which membership plays no part: the first draws will do."""


def table(gains: list[Gain]) -> list[str]:
    """The gains as Markdown."""
    lines = ["| threat | the tuned cheat | without tuning | with it | passes |", "|---|---|---|---|---|"]
    return lines + [
        f"| {one.threat} | {one.cheat} | {one.untuned} | {one.gained} | {'yes' if one.wins else 'no'} |"
        for one in gains
    ]


def sure_scenes(place: Desk, draws: int, *, sure: bool = True) -> list[Scene]:
    """Draws of forgotten records whose honest owner is CONSISTENT: from another, a search would find nothing."""
    scenes: list[Scene] = []
    for number in range(10 * draws):
        if len(scenes) == draws:
            break
        generator = np.random.default_rng([SETTINGS.seed, 77, number])
        scene = place.scene(place.draw(generator), generator)
        if not sure or _passes(place, scene.draft(), scene, 1, attacked):
            scenes.append(scene)
    return scenes


def _key(draws: int) -> str:
    return jcs_digest({"draws": str(draws)} | {name: str(v) for name, v in dataclasses.asdict(SETTINGS).items()})


def read_state(state: Path, draws: int) -> dict[str, list[Gain]]:
    """Finished searches of these settings."""
    done: dict[str, list[Gain]] = {}
    for line in state.read_text().splitlines() if state.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the line that an interruption cut off
            continue
        if entry["key"] == _key(draws):
            done[entry["search"]] = [Gain(**gain) for gain in entry["gains"]]
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3, help="forgotten sets")
    parser.add_argument("--only", help="names of searches, with commas")
    parser.add_argument("--state", type=Path, default=Path("adaptive.jsonl"), help="finished searches")
    parser.add_argument("--out", type=Path, help="Markdown file to write; standard output without it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.only.split(",") if options.only else [search.__name__ for search in SEARCHES]
    started = time.process_time()
    done = read_state(options.state, options.draws)
    missing = [search for search in SEARCHES if search.__name__ in names and search.__name__ not in done]
    if missing:
        place, folder = desk(SETTINGS, 77)
        with folder:
            first = sure_scenes(place, options.draws, sure=False)
            surely = [] if all(search in ANY_SCENES for search in missing) else sure_scenes(place, options.draws)
            for search in missing:
                done[search.__name__] = search(place, first if search in ANY_SCENES else surely)
                entry = {"key": _key(options.draws), "search": search.__name__}
                entry["gains"] = [dataclasses.asdict(gain) for gain in done[search.__name__]]
                with options.state.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
                print(f"{search.__name__} ({time.process_time() - started:.0f} s)", flush=True)
    gains = [gain for search in SEARCHES for gain in done.get(search.__name__, ())]
    head = [
        "# Adaptive owners: what tuning gains", "",
        f"`python -m tests.benchmarks.adaptive --draws {options.draws}`: {platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, torch "
        f"{torch.__version__}.", "",
        f"Digits, {SETTINGS.trained} training, {SETTINGS.reference} reference records, {options.draws} sets of "
        f"{SETTINGS.forgotten} forgotten records, margin {SETTINGS.margin:g}, profile `indistinguishable`, seed "
        f"{SETTINGS.seed}. The owner searches with the auditor's own reference data and attack seed, which a real owner does "
        "not have: what it gains is at most this. Figures with slashes are of the sets, one after the other.", "",
    ]  # fmt: skip
    text = "\n".join([*head, *table(gains), ""])
    if options.out:
        options.out.write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
