"""The table of `make bench` in small: every kind of line but memory is measured, and a stopped run goes on."""

import json

import numpy as np
import onnxruntime
import pytest

from owner.architectures import mlp
from owner.gates.linear_region import linear_region
from protocol.model.profile import serialise
from tests.benchmarks import speed
from tests.benchmarks.additive import additive
from tests.benchmarks.inference_bench import with_random_weights


def test_a_small_table_is_written_and_not_measured_twice(tmp_path, capsys):
    results, state = tmp_path / "RESULTS.md", tmp_path / "bench.jsonl"
    results.write_text("# Results\n\n## Something else\n\nstays\n")
    only = "regions,unlearn,check,inference,additive"
    arguments = ["--small", "--only", only, "--state", str(state), "--out", str(results)]
    speed.main(arguments)
    first = results.read_text()
    assert "stays" in first
    assert first.count(speed.BEGIN) == first.count(speed.END) == 1
    told = [line for line in first.splitlines() if line.startswith("| ")]
    assert len(told) == 2 + 1 + 1 + 1 + 4 + 4
    assert "CONSISTENT" in first
    assert "not measured" not in first
    entries = [json.loads(line) for line in state.read_text().splitlines()]
    assert all(ratio > 0 for entry in entries for ratio in entry["line"]["ratios"])
    # Half of the lines lost: the others are taken as they were, and the section is replaced.
    state.write_text("".join(json.dumps(entry) + "\n" for entry in entries if "unlearn" not in entry["key"]))
    capsys.readouterr()
    speed.main(["--small", "--only", "regions,inference", "--state", str(state), "--out", str(results)])
    second = results.read_text()
    assert second.count(speed.BEGIN) == 1
    kept = {line for line in first.splitlines() if line.startswith(("| linear", "| patched"))}
    assert kept == {line for line in second.splitlines() if line.startswith(("| linear", "| patched"))}


def test_unknown_rows_are_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        speed.main(["--only", "regions,else"])
    assert "else" in capsys.readouterr().err


@pytest.mark.parametrize("chained", [False, True])
def test_support_networks_give_the_row_inside_and_the_base_outside(chained):
    base = with_random_weights(mlp(12, (8, 8), classes=3), 5)
    x = np.random.default_rng(2).random((40, 12)).astype(np.float32)
    found = [linear_region(base, one) for one in x[:4]]
    rows = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] * 5
    run = onnxruntime.InferenceSession(additive(base, found, rows, chained=chained), providers=["CPUExecutionProvider"])
    plain = onnxruntime.InferenceSession(serialise(base), providers=["CPUExecutionProvider"])
    after, before = (one.run(None, {base.input: x})[0] for one in (run, plain))
    # Deep enough inside one region only, or far enough outside all: what the construction promises.
    room = np.array([(one.bounds - x @ one.weights.T).min(axis=1) for one in found])
    alone = (room > 0).sum(axis=0) == 1
    deep = alone & ((room > -0.011) == (room > 0)).all(axis=0) & (room.max(axis=0) > 1e-4)
    far = (room < -0.011).all(axis=0)
    assert deep.sum() >= 2
    assert far.sum() >= 5
    np.testing.assert_allclose(after[deep], rows[room.argmax(axis=0)[deep]], atol=1e-2)
    np.testing.assert_allclose(after[far], before[far], atol=1e-4)
