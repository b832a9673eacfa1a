"""The calibration study runs, stops and goes on; its table says what its entries say."""

import json
from dataclasses import replace

import pytest

from tests.benchmarks import calibration
from tests.benchmarks.calibration import SMALL, collect, run, table, written_by_hand


@pytest.fixture(scope="module")
def entries():
    return [run(replace(SMALL, epochs=8), number) for number in range(2)]


def test_a_study_that_was_interrupted_goes_on(entries, tmp_path, monkeypatch):
    settings = replace(SMALL, epochs=8)
    state = tmp_path / "state.jsonl"
    other = json.dumps(entries[1] | {"settings": "0" * 64, "run": 0})
    # A finished run, one of other settings, and a line that an interruption cut off.
    state.write_text(json.dumps(entries[0]) + "\n" + other + "\n" + json.dumps(entries[1])[:50])
    done = []

    def recorded(settings, number):
        done.append(number)
        return entries[number]

    monkeypatch.setattr(calibration, "run", recorded)
    assert list(collect(settings, 2, state)) == entries
    assert done == [1]
    assert list(collect(settings, 2, state)) == entries
    assert done == [1]


def test_runs_repeat_and_differ_from_each_other(entries):
    assert run(replace(SMALL, epochs=8), 1) == entries[1]
    assert entries[0]["models"] != entries[1]["models"]


def test_misclassified_records_are_refuted_and_counted(entries):
    assert [entry["models"]["over 1"]["verdict"] for entry in entries] == ["REFUTED"] * 2
    lines = table(replace(SMALL, epochs=8), entries)
    row = next(line for line in lines if line.startswith("| over 1 |"))
    assert "2/2 = 100.0%" in row
    assert any("False accusations among 2 honest models" in line for line in lines)


def test_a_new_run_leaves_what_was_written_by_hand(tmp_path):
    path = tmp_path / "out.md"
    assert written_by_hand(path) == ""
    path.write_text("# Table\n\nold\n\n## Reading\n\nwords\n")
    assert written_by_hand(path) == "\n## Reading\n\nwords\n"
