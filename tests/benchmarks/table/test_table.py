"""The table's machinery on cells small enough for every run: roles are disjoint, figures are the file's, runs resume."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.benchmarks.table import __main__ as table
from tests.benchmarks.table import cells, flow, rendering, running
from tests.benchmarks.table.figures import measure
from tests.benchmarks.table.worlds import Size, draw

TINY = Size(trained=240, unseen=60, reference=240, epochs=4, shadows=4, share=0.1)


@pytest.mark.parametrize("scenario", ["single", "records", "class", "trigger", "sequence"])
def test_roles_are_disjoint_and_forget_what_the_scenario_says(scenario):
    roles = draw("digits", scenario, 1, TINY, None)
    assert (len(roles.y), len(roles.y_unseen), len(roles.y_reference)) == (240, 60, 240)
    rows = [
        {row.tobytes() for row in np.ascontiguousarray(part)} for part in (roles.X, roles.X_unseen, roles.X_reference)
    ]
    if scenario != "trigger":
        assert not rows[0] & rows[1]
        assert not rows[0] & rows[2]
    assert len(roles.forget) == {"single": 1, "records": 24}.get(scenario, len(roles.forget))
    if scenario == "sequence":
        assert len(roles.requests) == 20
        assert sorted(np.concatenate(roles.requests).tolist()) == roles.forget.tolist()
        assert len(set(roles.forget.tolist())) == 20
    if scenario == "class":
        assert set(roles.y[roles.forget]) == {1}
    if scenario == "trigger":
        assert (roles.X[roles.forget][:, :3, :3] == 16).all()
        assert set(roles.y[roles.forget]) == {0}
        assert (roles.X_triggered[:, :3, :3] == 16).all()
    assert draw("digits", "subject", 1, TINY, None) is None


def test_a_run_writes_its_cells_goes_on_and_renders(tmp_path, monkeypatch, capsys):
    state, out = tmp_path / "state.jsonl", tmp_path / "TABLE.md"
    monkeypatch.setattr(table, "SMALL", TINY)
    arguments = ["table", "--small", "--scenarios", "trigger", "--methods", "prune, match;fine-tune",
                 "--state", str(state), "--cache", str(tmp_path / "cache"), "--out", str(out)]  # fmt: skip
    monkeypatch.setattr("sys.argv", [*arguments, "--limit", "-1"])
    table.main()
    assert not state.exists()  # the time was up before it began
    monkeypatch.setattr("sys.argv", arguments)
    table.main()
    lines = [json.loads(line) for line in state.read_text().splitlines()]
    assert [line["row"] for line in lines] == ["prune, match", "fine-tune"]
    for line in lines:
        figures = line["result"]
        assert set(figures["verdicts"]) == {"redirection", "indistinguishable"}
        assert 0 <= figures["accuracy"]["patched"]["forget"] <= 1
        assert set(figures["backdoor"]) == {"base", "patched"}
    gated = lines[0]["result"]
    assert gated["radius"] is not None
    assert gated["accuracy"]["patched"]["retain"] == gated["accuracy"]["base"]["retain"]
    monkeypatch.setattr(running, "Flow", lambda *_, **__: pytest.fail("a finished cell was run again"))
    table.main()
    text = out.read_text()
    assert "## digits, trigger" in text
    assert sum(line.startswith("| fine-tune |") for line in text.splitlines()) == 1
    capsys.readouterr()


def test_requests_one_after_another_build_on_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "AUDITED", (1,))
    size = replace(TINY, requests=3)
    roles = draw("digits", "sequence", 0, size, None)
    world = flow.Flow(tmp_path / "world", roles, kind="mlp", size=size, seed=0, cache=tmp_path / "cache")
    found = measure(world, world.make("prune", cells.ROWS["prune, match"]))
    assert [step["request"] for step in found["steps"]] == [1, 3]
    first, last = found["steps"]
    assert (first["parts"], first["items"], last["parts"], last["items"]) == (1, 8, 1, 24)
    assert last["bytes"] > first["bytes"]
    assert (first["dropped"], last["dropped"]) == (0, 0)
    assert set(found["verdicts"]) == {"redirection", "indistinguishable"}
    assert len(found["times"]) == 3
    text = "\n".join(rendering._steps("prune, match", [found]))
    assert text.count("| prune, match |") == 2


@pytest.mark.slow
def test_a_single_record_has_a_z_and_no_auc(tmp_path):
    size = replace(TINY, shadows=12, epochs=15)
    roles = draw("digits", "single", 0, size, None)
    world = flow.Flow(tmp_path / "world", roles, kind="mlp", size=size, seed=0, cache=tmp_path / "cache")
    made = world.make("prune", ("--method", "prune", "--target", "misclassify"), profiles=("indistinguishable",))
    found = measure(world, made)
    assert "difference" not in found["membership"]
    # A member stands out of what models without it give; given another class, far less.
    assert found["z"]["base"] > 3
    assert found["z"]["patched"] < found["z"]["base"] - 3


def test_a_crash_costs_one_cell_and_is_told(tmp_path, monkeypatch, capsys):
    def crash(flow, row):
        if row == "retrain":
            raise RuntimeError("out of something")
        return {"refused": "no"}

    class Nothing:
        device = "cpu"

        def __init__(self, *_, **__):
            pass

    monkeypatch.setattr(running, "Flow", Nothing)
    monkeypatch.setattr(running, "_cell", crash)
    state = tmp_path / "all" / "state.jsonl"
    monkeypatch.setattr("sys.argv", ["table", "--small", "--scenarios", "records", "--methods",
                                     "retrain;fine-tune", "--state", str(state)])  # fmt: skip
    with pytest.raises(SystemExit, match="retrain: RuntimeError: out of something"):
        table.main()
    assert [json.loads(line)["row"] for line in state.read_text().splitlines()] == ["fine-tune"]
    assert "1 cells made, 1 crashed, 0 not begun" in capsys.readouterr().err


def test_states_are_put_together_and_torn_lines_spoil_nothing(tmp_path):
    one, folder = tmp_path / "one.jsonl", tmp_path / "folder"
    folder.mkdir()
    cells.add(one, "a", {"row": "x"}, {"n": 1})
    with one.open("a") as file:
        file.write('{"cell": "torn')
    cells.add(one, "b", {"row": "x"}, {"n": 2})
    cells.add(folder / "two.jsonl", "b", {"row": "x"}, {"n": 3})
    cells.add(folder / "two.jsonl", "c", {"row": "x"}, {"n": 4})
    cells.add(folder / "three.jsonl", "d", {"row": "x"}, {"n": 5})
    found = cells.finished([one, folder, tmp_path / "absent"])
    assert {name: line["result"]["n"] for name, line in found.items()} == {"a": 1, "b": 2, "c": 4, "d": 5}


def test_seed_0_comes_first_where_asked(monkeypatch, capsys):
    tasks = []
    monkeypatch.setattr(table, "run", lambda found, jobs: tasks.extend(found) or [])
    monkeypatch.setattr("sys.argv", ["table", "--small", "--seeds", "2", "--first", "--state", "/nowhere.jsonl"])
    table.main()
    assert [(task.scenario, task.seed) for task in tasks] == [
        (scenario, seed) for seed in range(2) for scenario in table.SMALL_SCENARIOS
    ]
    capsys.readouterr()


def test_a_process_whose_parent_is_gone_begins_no_cell(tmp_path, monkeypatch):
    class Gone:
        def is_alive(self):
            return False

    task = running.Task(
        name="digits", scenario="records", seed=0, rows=("prune, match",), size=TINY, data=None,
        state=tmp_path / "state.jsonl", cache=tmp_path / "cache", device="cpu", until=None,
    )  # fmt: skip
    assert not task.over
    monkeypatch.setattr(running.multiprocessing, "parent_process", Gone)
    assert running.world(task) == running.Done(left=1)


@pytest.mark.slow
def test_worlds_run_beside_each_other(tmp_path):
    task = running.Task(
        name="digits", scenario="records", seed=0, rows=("prune, match",), size=TINY, data=None,
        state=tmp_path / "state.jsonl", cache=tmp_path / "cache", device="cpu", until=None,
    )  # fmt: skip
    assert running.run([task, replace(task, seed=1)], jobs=2) == []
    assert len(cells.finished([tmp_path])) == 2
