"""The benches of shadow models and the study of attacks run in a small variant, stop and go on."""

import json

import pytest
import torch

from tests.benchmarks import attacks_study, shadow_bench
from tests.benchmarks.attacks_study import Settings, section
from tests.benchmarks.redirection_study import load
from tests.benchmarks.resuming import finished, part


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_parts_that_are_there_are_not_made_again(tmp_path):
    state, made = tmp_path / "state.jsonl", []

    def work(name):
        made.append(name)
        return [name]

    assert part(None, "a", lambda: work("a")) == ["a"]
    assert part(state, "a", lambda: work("a")) == ["a"]
    with state.open("a") as file:
        file.write(json.dumps({"key": "b", "lines": ["b"]})[:9])  # interrupted while it was written
    assert part(state, "b", lambda: work("b")) == ["b"]
    assert part(state, "a", lambda: work("a")) == ["a"]
    assert made == ["a", "a", "b"]
    assert finished(state) == {"a": ["a"], "b": ["b"]}


def test_an_interrupted_bench_goes_on_with_the_next_part(tmp_path, monkeypatch, capsys):
    state, made = tmp_path / "state.jsonl", []
    for name in ("training", "convolutions", "rmia"):

        def work(*_, name=name, **more):
            if name == "rmia" and made.count("training") and "stop" not in made:
                made.append("stop")
                raise KeyboardInterrupt
            made.append(name)
            return [f"- {name} {sorted(more)}"]

        monkeypatch.setattr(shadow_bench, name, work)
    monkeypatch.setattr("sys.argv", ["bench", "--skip-peer", "--state", str(state), "--rounds", "1"])
    with pytest.raises(KeyboardInterrupt):
        shadow_bench.main()
    capsys.readouterr()
    shadow_bench.main()
    assert made == ["training", "convolutions", "convolutions", "stop", "rmia"]
    assert capsys.readouterr().out.count("- convolutions") == 2


def test_the_bench_of_shadow_models_in_small(monkeypatch):
    monkeypatch.setattr(shadow_bench, "RECORDS", 200)
    lines = shadow_bench.training(1, 1)
    assert sum("one after the other" in line for line in lines) == 1
    assert "in groups" in shadow_bench.convolutions(1, side=8, width=2, count=2, records=40)[0]
    assert len([line for line in shadow_bench.rmia(1) if "MiB" in line]) == 3


def test_an_interrupted_study_of_attacks_goes_on_with_the_next_data_set(tmp_path, monkeypatch, capsys):
    state, made = tmp_path / "state.jsonl", []

    def one(name, data, settings):
        if name == "adult" and "stop" not in made:
            made.append("stop")
            raise KeyboardInterrupt
        made.append((name, settings.folds))
        return [f"### {name}"]

    monkeypatch.setattr(attacks_study, "section", one)
    monkeypatch.setattr(attacks_study, "load", lambda name, _: name)
    monkeypatch.setattr(
        "sys.argv", ["study", "--data", str(tmp_path), "--sets", "mnist,adult,uci_har", "--state", str(state)]
    )
    with pytest.raises(KeyboardInterrupt):
        attacks_study.main()
    attacks_study.main()
    assert made == [("mnist", 2), "stop", ("adult", 2), ("uci_har", 5)]
    assert capsys.readouterr().out.count("### mnist") == 2


@pytest.mark.slow
def test_the_study_of_attacks_in_small():
    settings = Settings(trained=500, reference=400, forgotten=40, draws=2, epochs=5)
    lines = section("digits", load("digits", None), settings)
    assert any(line.startswith("| verdict, pooled |") for line in lines)
    assert any(line.startswith("| largest 95 % bound, required |") for line in lines)
