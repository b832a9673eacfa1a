"""The calibration study runs, stops and goes on; its verdict is the check's; its table says what its entries say."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from auditor import attacking
from auditor.attacks import rerun
from auditor.attacks.rerun import Method
from auditor.checks import membership
from auditor.checks.membership import AGAIN
from auditor.section import Section
from tests.benchmarks import calibration, retraining
from tests.benchmarks.calibration import RETAINED, accused, attacked, collect, run, table, verdict, written_by_hand
from tests.benchmarks.calibration_world import SMALL, command, drawn, quick


@pytest.fixture(scope="module")
def entries():
    return [json.loads(json.dumps(run(SMALL, number))) for number in range(2)]


def test_a_study_that_was_interrupted_goes_on(entries, tmp_path, monkeypatch):
    state = tmp_path / "state.jsonl"
    other = json.dumps(entries[1] | {"settings": "0" * 64, "run": 0})
    # A finished run, one of other settings, and a line that an interruption cut off.
    state.write_text(json.dumps(entries[0]) + "\n" + other + "\n" + json.dumps(entries[1])[:50])
    done = []

    def recorded(settings, number):
        done.append(number)
        return entries[number]

    monkeypatch.setattr(calibration, "run", recorded)
    assert list(collect(SMALL, 2, state)) == entries
    assert done == [1]
    assert list(collect(SMALL, 2, state)) == entries
    assert done == [1]


def test_runs_repeat_and_differ_from_each_other(entries):
    assert json.loads(json.dumps(run(SMALL, 1))) == entries[1]
    assert entries[0]["models"]["honest"] != entries[1]["models"]["honest"]
    assert [list(entry["models"]) for entry in entries] == [["honest", "under 1"], ["honest", "over 1"]]


def test_every_attack_that_decides_takes_part(entries):
    # The two dear ones do so in even runs, here.
    for number, entry in enumerate(entries):
        for model in entry["models"].values():
            named = {(row[0], row[1]) for row in model["rows"]}
            attacks = {attack for _, attack in named}
            assert {"loss", "rmia", "near-duplicates", "gap", "boundary-distance", "neighbour-class"} <= attacks
            assert RETAINED in {section for section, _ in named}
            assert ((AGAIN, "rerun") in named) is (number == 0)
            assert ("quantile-regression" in attacks) is (number == 0)
    assert {"difference", "patch-strip", "gate-probe, jump", "export-int8"} <= entries[0]["properties"].keys()


def test_the_study_decides_as_the_check_does(tmp_path):
    # Once by the parts that the study puts together in its quick way, and once by the whole check without it.
    with quick(SMALL.recipe):
        draw = drawn(SMALL, 1, tmp_path)
        world = draw.worlds["honest"]
        together, _ = attacked(world, SMALL, draw)
    suite = SMALL.suite(1)
    section = Section(attacks=suite.attacks, margin=SMALL.margin, level=SMALL.level, shadows=SMALL.shadows)
    levels = {"membership": {**world.profile.levels["membership"], "shadows": SMALL.shadows}}
    vars(world).update(
        profile=SimpleNamespace(levels=levels),
        transcript=SimpleNamespace(plan=SimpleNamespace(membership=section), challenge_value=None),
    )
    outcome = membership.Outcome()
    found = membership.check(world, outcome)
    assert found.verdict == verdict(together), found.summary
    for theirs, ours in zip(outcome.assessments.values(), together.assessments.values(), strict=True):
        assert theirs.verdict == ours.verdict
        assert [one.p_holm for one in theirs.comparisons] == [one.p_holm for one in ours.comparisons]
    assert outcome.retained.changes == together.retained.changes


def test_the_method_run_as_a_program_gives_the_same_model(tmp_path):
    values, labels = np.random.default_rng(0).random((30, 64), np.float32), np.arange(30) % 10
    model = drawn(SMALL, 1, tmp_path).models["honest"]
    method, how = Method.parse(command(SMALL.recipe)), {"folder": tmp_path, "seed": 5}
    by_program = method(model, values, labels, np.arange(5), **how)
    with quick(SMALL.recipe):
        here = method(model, values, labels, np.arange(5), **how)
    assert rerun.Method.__call__ is Method.__call__
    assert here.initialisers.keys() == by_program.initialisers.keys()
    for name, array in here.initialisers.items():
        np.testing.assert_allclose(array, by_program.initialisers[name], atol=1e-5)
    assert retraining.__file__ in command(SMALL.recipe)


def test_a_large_difference_is_an_accusation_and_is_counted(entries):
    honest, other = entries[1]["models"]["honest"], entries[1]["models"]["over 1"]
    assert not accused(honest | {"rows": [[*row[:4], 0.0, 0.03, row[6]] for row in honest["rows"]]}, SMALL, 0.1)
    far = other | {
        "verdict": "REFUTED",
        "stopped": [],
        "rows": [[*other["rows"][0][:4], -0.4, 0.03, 90.0], *other["rows"][1:]],
    }
    assert accused(far, SMALL, 0.1)
    assert not accused(far | {"stopped": sorted({row[0] for row in far["rows"]})}, SMALL, 0.1)
    changed = [entries[0], entries[1] | {"models": {"honest": honest, "over 1": far}}]
    lines = table(SMALL, changed)
    assert any(line.startswith("| over 1 | 1 | 0 | 0 | 1/1 = 100.0%") for line in lines)
    assert any("False accusations among 2 honest models: **" in line for line in lines)
    assert any(line.startswith("| gate-probe, jump |") for line in lines)


def test_records_of_a_class_are_told_by_their_labels_alone(tmp_path):
    with quick(SMALL.recipe):
        draw = drawn(SMALL, 0, tmp_path)
        world = draw.worlds["honest"]
        field = attacking.prepare(world, replace(SMALL.suite(1), shadows=2))
    # The base takes some never-seen records for the removed class; to leave those out would favour one side.
    wrong = world.base_model(calibration_inputs(world)).argmax(axis=1) == draw.klass
    assert (wrong & field.spared).any()
    assert (field.spared == (world.reference.labels != draw.klass)).all()


def calibration_inputs(world):
    return world.case.schema.dequantise(world.reference.values)


def test_a_new_run_leaves_what_was_written_by_hand(tmp_path):
    path = tmp_path / "out.md"
    assert written_by_hand(path) == ""
    path.write_text("# Table\n\nold\n\n## Reading\n\nwords\n")
    assert written_by_hand(path) == "\n## Reading\n\nwords\n"
