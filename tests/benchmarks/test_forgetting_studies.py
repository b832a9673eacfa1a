"""The studies of methods and of targets run in a small variant, stop and go on, and their own statistics are right."""

import json

import numpy as np
import pytest

from tests.benchmarks import instance_study
from tests.benchmarks.frontier_study import picture, table
from tests.benchmarks.instance_study import Base, study
from tests.benchmarks.matching_study import _auc, _ks


def test_a_study_of_instances_in_small_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(instance_study, "VARIANTS", {"default": {"steps": "60", "adv": "2", "strain": "1"}})
    state, base = tmp_path / "state.jsonl", Base(data="digits", kind="mlp", trained=150, epochs=5)
    lines = study(base, None, counts=[2, 3], seeds=1, state=state, only=["default"])
    assert [line.split(" | ")[:3] for line in lines[4:6]] == [["| 2", "1.33%", "default"], ["| 3", "2.00%", "default"]]
    monkeypatch.setattr(instance_study, "Bench", None)  # nothing is trained again
    assert study(base, None, counts=[2, 3], seeds=1, state=state, only=["default"]) == lines


def test_weighted_statistics_are_those_of_repeated_records():
    random = np.random.default_rng(0)
    a, b, weights = random.normal(0, 1, 40), random.normal(0.5, 1, 30).round(1), random.integers(1, 4, 30)
    repeated = np.repeat(b, weights)
    pairs = (a[:, None] > repeated[None]).mean() + (a[:, None] == repeated[None]).mean() / 2
    assert _auc(a, b, weights.astype(float)) == pytest.approx(pairs)
    points = np.concatenate([a, repeated])
    largest = max(abs((a <= point).mean() - (repeated <= point).mean()) for point in points)
    assert _ks(a, b, weights.astype(float)) == pytest.approx(largest)
    assert _ks(a, a, np.ones(40)) == pytest.approx(0)


def test_a_frontier_is_drawn_the_same_way_twice(tmp_path):
    point = {"cost": 5, "attack": "loss, signed", "verdict": "CONSISTENT"}
    points = [
        {**point, "name": name, "changed": changed, "difference": changed / 2, "bound": changed / 2 + 0.02}
        for name, changed in (("match, 5 models", 0.1), ("50% misclassify, others match", 0.5), ("misclassify", 1.0))
    ]
    for name in ("one.svg", "two.svg"):
        picture({"digits": points}, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "misclassify" in (tmp_path / "one.svg").read_text()
    lines = table("digits", json.loads(json.dumps(points)), "words")
    assert lines[-2] == "| misclassify | 5 | 100.0% | loss, signed | 0.500 | 0.520 | CONSISTENT |"
