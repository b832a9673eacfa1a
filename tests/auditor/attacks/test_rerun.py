"""A4: the owner's method as a command, with tiny scripts in its place."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from auditor.attacks import build
from auditor.attacks.observation import Observation, view
from auditor.attacks.rerun import Method, read_model, rerun
from auditor.execute import Program
from auditor.statistics.auc import delong
from protocol.errors import AuditorError
from protocol.model import profile
from protocol.model.recipe import Recipe
from tests.auditor.samples import mlp

# Does nothing but hand the model back, and writes down what it was given.
SAME = """
import shutil, sys
base, train, forget, out, seed = sys.argv[1:]
with open("seen", "w") as file:
    file.write(seed)
shutil.copy(base, out)
"""
GRAPH = mlp([6, 32, 3], seed=1)
RECIPE = Recipe(epochs=40, batch=30, rate=2e-2)


def script(tmp_path, text, name="method.py"):
    path = tmp_path / name
    path.write_text(text)
    return (sys.executable, str(path), "{base}", "{train}", "{forget}", "{out}", "{seed}")


def records(count=240, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 6)).astype(np.float32), random.integers(0, 3, count)


def one(method, tmp_path, graph=GRAPH):
    inputs, labels = records(20)
    folder = tmp_path / "work"
    folder.mkdir()
    return method(graph, inputs, labels, np.array([3, 5]), folder=folder, seed=7)


def test_a_method_gets_files_it_can_read_and_its_model_comes_back(tmp_path):
    check = """
import sys, numpy as np
base, train, forget, out, seed = sys.argv[1:]
with np.load(train) as known, np.load(forget) as gone:
    assert known["X"].shape == (20, 6) and known["X"].dtype == np.float32 and known["y"].shape == (20,)
    assert gone["rows"].tolist() == [3, 5]
    assert (gone["X"] == known["X"][gone["rows"]]).all() and (gone["y"] == known["y"][gone["rows"]]).all()
assert seed == "7"
open(out, "wb").write(open(base, "rb").read())
"""
    assert one(Method(arguments=script(tmp_path, check)), tmp_path) == GRAPH


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import sys; print('out of luck'); sys.exit(3)", "status 3: out of luck"),
        ("import sys; sys.exit(4)", "status 4: no message"),
        ("pass", "wrote no model"),
        ("import sys; open(sys.argv[4], 'wb').write(b'x' * 99)", "cannot be read"),
        ("import os, sys; os.symlink(sys.argv[1], sys.argv[4])", "wrote no model"),
    ],
)
def test_a_method_that_fails_is_an_error_with_its_reason(tmp_path, text, reason):
    with pytest.raises(AuditorError, match=reason):
        one(Method(arguments=script(tmp_path, text)), tmp_path)


def test_limits_of_time_and_size(tmp_path):
    slow = "import subprocess, sys, time\nchild = subprocess.Popen(['sleep', '60'])\n"
    slow += "print(child.pid, flush=True)\ntime.sleep(60)"
    started = time.monotonic()
    with pytest.raises(AuditorError, match=r"more than 1\.5 seconds"):
        one(Method(arguments=script(tmp_path, slow), seconds=1.5), tmp_path)
    assert time.monotonic() - started < 20
    child = int((tmp_path / "work" / "log").read_text())
    for _ in range(50):  # the helper it started is gone as well, or about to be reaped
        try:
            state = Path(f"/proc/{child}/stat").read_text().split()[2]
        except FileNotFoundError:
            state = "X"
        if state in "XZ":
            break
        time.sleep(0.1)
    assert state in "XZ"
    (tmp_path / "work").rename(tmp_path / "old")
    large = "import sys; open(sys.argv[4], 'wb').write(b'x' * (1 << 20))"
    with pytest.raises(AuditorError, match="status"):
        one(Method(arguments=script(tmp_path, large), size=1 << 16), tmp_path)


def test_the_environment_is_bare(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    text = "import os, shutil, sys; assert 'SECRET_TOKEN' not in os.environ; shutil.copy(sys.argv[1], sys.argv[4])"
    assert one(Method(arguments=script(tmp_path, text)), tmp_path) == GRAPH


def test_a_program_that_is_not_there(tmp_path, monkeypatch):
    arguments = ("/nowhere/method", "{train}", "{forget}", "{out}")
    with pytest.raises(AuditorError, match="status"):
        one(Method(arguments=arguments), tmp_path)
    (tmp_path / "work").rename(tmp_path / "old")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(AuditorError, match="cannot be started"):
        one(Method(arguments=arguments), tmp_path)


def test_models_that_do_not_fit_or_are_too_large():
    with pytest.raises(AuditorError, match="not \\(6,\\) and 3"):
        read_model(profile.serialise(mlp([6, 32, 4])), GRAPH, 1 << 20)
    with pytest.raises(AuditorError, match="cannot be read"):
        read_model(profile.serialise(GRAPH), GRAPH, 16)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Method.parse("method {train} {out}"),
        lambda: Method.parse("method '{train}"),
        lambda: Method.parse("m {train} {forget} {out}", seconds=0),
        lambda: Method.parse("m {train} {forget} {out}", size=0),
    ],
)
def test_templates_that_cannot_work_are_refused(make):
    with pytest.raises(AuditorError):
        make()


def test_a_command_line_is_split_as_by_a_shell_but_not_run_by_one():
    method = Method.parse("prune --data={train} '--drop {forget}' -o {out}; rm x")
    assert method.arguments == ("prune", "--data={train}", "--drop {forget}", "-o", "{out};", "rm", "x")
    assert "seconds=600.0" in repr(method)


def test_a_method_that_forgets_nothing_is_found_out_and_an_interrupted_run_goes_on(tmp_path):
    inputs, labels = records(300)
    audited = np.arange(300) < 160
    method = Method(arguments=script(tmp_path, SAME))
    folder, told = tmp_path / "kept", []
    how = {"recipe": RECIPE, "seed": 3, "folder": folder}
    worlds = rerun(method, GRAPH, inputs, labels, audited, count=6, progress=lambda *x: told.append(x), **how)
    assert told == [(number + 1, 6) for number in range(6)]
    assert worlds.shadow_logits.shape == (6, 160, 3)
    assert worlds.out.shape == (6, 160)
    assert 0.3 < worlds.out.mean() < 0.7
    # The target: another model of the same kind; the audited records of its half were "forgotten".
    kept = sorted(folder.glob("*.onnx"))
    target = Program(profile.parse(kept[0].read_bytes()))
    forget = ~worlds.out[0]
    observation = Observation(
        logits=target(inputs[audited]),
        labels=labels[audited],
        shadow_logits=worlds.shadow_logits[1:],
        out=worlds.out[1:],
        features=inputs[audited],
    )
    known = (worlds.out[1:].sum(axis=0) > 1) & (worlds.out[1:].sum(axis=0) < 4)
    observation = Observation(
        logits=observation.logits[known],
        labels=observation.labels[known],
        shadow_logits=observation.shadow_logits[:, known],
        out=observation.out[:, known],
        features=observation.features[known],
    )
    scores = build("lira-online")(view(observation, forget[known], np.random.default_rng(0)))
    assert delong(scores.values, forget[known]).value > 0.75

    stamp = {path.name: path.stat().st_mtime_ns for path in kept}
    kept[2].unlink()
    again = rerun(method, GRAPH, inputs, labels, audited, count=6, **how)
    np.testing.assert_array_equal(again.shadow_logits, worlds.shadow_logits)
    changed = [path.name for path in sorted(folder.glob("*.onnx")) if path.stat().st_mtime_ns != stamp[path.name]]
    assert changed == [kept[2].name]
    assert not list(folder.glob("*.work"))
    assert any((folder / "shadows").iterdir())


def test_nothing_to_audit_is_refused(tmp_path):
    inputs, labels = records(20)
    with pytest.raises(AuditorError, match="audited"):
        rerun(
            Method(arguments=script(tmp_path, SAME)), GRAPH, inputs, labels, np.zeros(20, bool),
            recipe=RECIPE, seed=0, count=2, folder=tmp_path,
        )  # fmt: skip
