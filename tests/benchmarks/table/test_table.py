"""The table's machinery on cells small enough for every run: roles are disjoint, figures are the file's, runs resume."""

import json

import numpy as np
import pytest

from tests.benchmarks.table import __main__ as table
from tests.benchmarks.table.worlds import Size, draw

TINY = Size(trained=240, unseen=60, reference=240, epochs=4, shadows=4, share=0.1)


@pytest.mark.parametrize("scenario", ["single", "records", "class", "trigger"])
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
                 "--state", str(state), "--out", str(out)]  # fmt: skip
    state.write_text("")
    monkeypatch.setattr("sys.argv", arguments)
    table.main()
    lines = [json.loads(line) for line in state.read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        figures = line["result"]
        assert set(figures["verdicts"]) == {"redirection", "indistinguishable"}
        assert 0 <= figures["accuracy"]["patched"]["forget"] <= 1
        assert set(figures["backdoor"]) == {"base", "patched"}
    gated = lines[0]["result"]
    assert gated["radius"] is not None
    assert gated["accuracy"]["patched"]["retain"] == gated["accuracy"]["base"]["retain"]
    monkeypatch.setattr(table, "_world", lambda *_: pytest.fail("a finished cell was run again"))
    table.main()
    text = out.read_text()
    assert "## digits, trigger" in text
    assert sum(line.startswith("| fine-tune |") for line in text.splitlines()) == 1
    with state.open("a") as file:
        file.write('{"cell": "torn')
    assert len(table.finished(state)) == 2
    capsys.readouterr()
