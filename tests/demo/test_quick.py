"""The demonstration in its quick form: the honest runs and some dishonest ones, each as expected."""

import json

from tests.demo import __main__ as demo


def test_every_quick_run_is_as_expected(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["demo", "--quick", "--out", str(tmp_path / "demo")])
    code = demo.main()
    runs = json.loads((tmp_path / "demo" / "summary.json").read_text())["runs"]
    wrong = [run for run in runs if run["actual"] != run["expected"]]
    assert (code, wrong) == (0, []), capsys.readouterr().out[-3000:]
    assert {"honest", "honest-class", "misclassify", "forged-request", "withheld-opening", "rollback"} <= {
        run["name"] for run in runs
    }
