"""The search for unsound certificates finds none, and finds those that are planted."""

from dataclasses import replace

import numpy as np
import pytest

from protocol.claims import Argmax, Logits, linear_property
from tests.auditor import samples
from tests.benchmarks import soundness
from tests.demo.data import digits


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Signed claims on a hundred digits."""
    parts = digits()
    parts = replace(parts, X_train=parts.X_train[:100], y_train=parts.y_train[:100])
    root = tmp_path_factory.mktemp("signed")
    return soundness.signed(parts, "mlp", root, epochs=2, forget=12, name="small"), root


def test_signed_claims_hold(small):
    row = soundness.search(small[0], 3000, 1)
    assert row.violations == []
    assert row.points >= 3000
    assert row.executions == 4 * row.points
    assert row.one_by_one > 0
    assert row.closest == 0
    assert set(row.kinds) == set(soundness.ATTACKS)
    assert min(row.kinds.values()) > 200
    assert {1, 256} <= row.sizes


def test_a_region_that_is_one_step_too_wide_is_found(small):
    target = small[0]
    wider = replace(target, radii=target.radii + 1)
    row = soundness.search(wider, 2000, 1)
    assert row.violations
    assert row.closest < 0


PLAIN = samples.grid_schema((6,), scale=20.0, offset=0.0, low=-60, high=60)


def proven(extra=0.0):
    graph = samples.mlp([6, 16, 16, 3], seed=1)
    grid = np.random.default_rng(0).integers(-60, 61, (20, 6))
    target = soundness.proven(graph, PLAIN, grid, name="plain", ceiling=16, seed=1, extra=extra)
    assert target is not None
    return target


def test_proven_margins_hold():
    row = soundness.search(proven(), 3000, 1)
    assert row.violations == []
    assert 0 < row.closest < 0.1
    assert row.one_by_one > 0


def test_a_margin_that_is_a_little_too_large_is_found():
    row = soundness.search(proven(extra=0.2), 3000, 1)
    assert row.violations
    assert any(violation.startswith("one rounding at a time") for violation in row.violations)


def test_networks_built_to_fool_are_proven_somewhere_and_hold():
    for target in soundness.fooling(3, 4):
        row = soundness.search(target, 300, 1)
        assert row.violations == []


def test_the_last_float_of_a_cell_is_the_last():
    schema = samples.grid_schema((5,), scale=-255.0, offset=0.3, low=0, high=255)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (200, 5))
    for side in (-1, 1):
        sides = np.full(values.shape, side)
        x = soundness.last_floats(schema, values, sides)
        assert soundness.rounds_to(schema, x, values).all()
        beyond = np.nextafter(x, np.float32(-np.inf if side == 1 else np.inf))
        assert not soundness.rounds_to(schema, beyond, values).any()


def test_leads_and_violations_agree():
    output = np.array([1.0, 3.0], np.float32)
    for wanted, kept in (
        (Argmax(klass=1, margin="2"), True),
        (Argmax(klass=1, margin="2.0000000000001"), False),
        (Argmax(klass=0, margin="1"), False),
        (Logits(values=("1", "3")), True),
        (Logits(values=("1", "3.5")), False),
        (linear_property(np.array([[1, 1]], np.float32), ["4"]), True),
        (linear_property(np.array([[1, 1]], np.float32), ["4.0000000000001"]), False),
    ):
        assert soundness.broken(wanted, output) is not kept
        assert (soundness.lead(wanted, output[None])[0] >= -1e-9) is np.True_ or not kept
    assert soundness.broken(Argmax(klass=1, margin="1"), np.array([np.nan, 1], np.float32))


def test_a_study_keeps_its_rows_and_reports_them(small, tmp_path, monkeypatch):
    state = tmp_path / "rows.jsonl"
    study = soundness.Study(points=2000, seed=1, state=state, say=lambda _: None)
    study.done(soundness.together([soundness.search(small[0], 300, 1)], "all"))
    study.fooling(2)
    again = soundness.Study(points=2000, seed=1, state=state, say=lambda _: None)
    monkeypatch.setattr(soundness, "search", None)
    again.fooling(2)
    assert again.rows == study.rows
    text = again.report()
    assert text == study.report()
    assert "**0 violations**" in text
    assert text.count("| 0 |\n") == 2
    assert "Points by attack: record" in text
    other = soundness.Study(points=2000, seed=2, state=state, say=lambda _: None)
    other.read()
    assert other.rows == {}
