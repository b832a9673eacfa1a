"""A8, A9, A14: attacks that ask the model further questions, against models whose memory is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from auditor.attacks import QUERY_NAMES, Unavailable, build_query
from auditor.attacks.label_only import BoundaryDistance, Gap
from auditor.attacks.near import NearDuplicates
from auditor.attacks.quantile import QuantileRegression
from auditor.attacks.subjects import Subjects, scatter, walk
from auditor.statistics.auc import delong
from protocol.errors import AuditorError
from protocol.model.schema import InputSchema
from tests.auditor.attacks.worlds import CLASSES, FEATURES, grid, remembering


def subjects_with(model=None, *, forgotten=40, reference=160, seed=0, boost=3.0, reach=1.0):
    random = np.random.default_rng(seed)
    values = random.integers(0, 17, (forgotten + reference, FEATURES))
    labels = random.integers(0, CLASSES, len(values))
    schema = grid()
    known = remembering(values[:forgotten], schema, boost=boost, reach=reach, labels=labels[:forgotten])
    return Subjects(
        values=values, labels=labels, forget=np.arange(len(values)) < forgotten, schema=schema, patched=model or known
    )


def auc(scores, subjects):
    return delong(scores.values, subjects.forget).value


@pytest.mark.parametrize("name", QUERY_NAMES)
def test_every_attack_says_what_it_did_and_gives_the_same_again(name):
    subjects, attack = subjects_with(), build_query(name)
    first, second = (attack(subjects, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)
    assert first.values.shape == subjects.labels.shape
    assert first.settings.startswith(repr(attack))
    assert "(" in repr(attack)


@pytest.mark.parametrize("name", QUERY_NAMES)
def test_every_attack_finds_what_a_model_remembers(name):
    # Remembered everywhere within a quarter of the range, by far more than records differ.
    subjects = subjects_with(boost=8.0, reach=0.4)
    found = build_query(name)(subjects, np.random.default_rng(0))
    assert auc(found, subjects) > 0.75


@pytest.mark.parametrize("name", QUERY_NAMES)
def test_every_attack_is_at_chance_where_nothing_is_remembered(name):
    areas = []
    for seed in range(4):
        subjects = subjects_with(boost=0.0, seed=seed)
        areas.append(auc(build_query(name)(subjects, np.random.default_rng(seed)), subjects))
    # 160 forgotten against 640: standard error about .025.
    assert abs(np.mean(areas) - 0.5) < 0.08


@pytest.mark.parametrize("name", QUERY_NAMES)
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda x: np.full((len(x), CLASSES), np.nan, np.float32), "not finite"),
        (lambda x: np.zeros((len(x), 1), np.float32), "single class"),
        (lambda x: np.zeros((len(x), 2), np.float32), "does not have"),
    ],
)
def test_what_cannot_be_attacked_is_said(name, model, reason):
    found = build_query(name)(subjects_with(model), np.random.default_rng(0))
    assert isinstance(found, Unavailable)
    assert reason in found.reason


def test_no_records_at_all():
    subjects = subjects_with()
    empty = replace(subjects, values=subjects.values[:0], labels=subjects.labels[:0], forget=subjects.forget[:0])
    assert isinstance(NearDuplicates()(empty, np.random.default_rng(0)), Unavailable)


def test_near_duplicates_see_a_memory_that_ends_before_them_as_nothing():
    subjects = subjects_with(boost=8.0, reach=2 / 16)
    inside = NearDuplicates(distance=2)(subjects, np.random.default_rng(0))
    beyond = NearDuplicates(distance=5)(subjects, np.random.default_rng(0))
    assert auc(inside, subjects) > 0.9
    assert abs(auc(beyond, subjects) - 0.5) < 0.15


def test_the_boundary_of_a_half_space_is_found_where_it_is():
    # Class 1 from the middle of column 0 on: along d the label changes at (0.5 - x0) / d0, known exactly.
    schema = grid(4)
    values = np.array([[4, 8, 8, 8], [7, 8, 8, 8], [12, 8, 8, 8], [4, 8, 8, 8]])
    model = lambda x: np.stack([0.5 - x[:, 0], x[:, 0] - 0.5], axis=1).astype(np.float32)
    subjects = Subjects(
        values=values, labels=np.array([0, 0, 1, 1]), forget=np.array([True, False] * 2), schema=schema, patched=model
    )
    attack = BoundaryDistance(directions=64, halvings=12)
    found = attack(subjects, np.random.default_rng(0)).values
    assert 0 < found[1] < found[0]
    assert found[3] == pytest.approx(-found[0], rel=0.3)  # the same place with the wrong label
    one = BoundaryDistance(directions=1, halvings=20)
    ray = np.random.default_rng(5).normal(size=(4, 4))
    ray /= np.sqrt((ray**2).mean(axis=1, keepdims=True))
    exact = (0.5 - values[:, 0] / 16) / ray[:, 0]
    clipped = np.abs(values / 16 + ray * exact[:, None] - 0.5).max(axis=1) > 0.5
    expected = np.where((exact > 0) & (exact < 0.5) & ~clipped, exact, 0.5)
    measured = np.abs(one(subjects, np.random.default_rng(5)).values)
    np.testing.assert_allclose(measured[~clipped], expected[~clipped], atol=1e-4)
    assert attack.queries == 1 + 64 * 18


def test_quantile_regression_explains_what_depends_on_features():
    # phi is a steep function of column 0, noise 0.3; forgotten records lie 1 above it. The optimum: AUC of N(1/.3).
    random = np.random.default_rng(0)
    schema = grid(3)
    values = random.integers(0, 17, (700, 3))
    forget = np.arange(700) < 100
    phi = values[:, 0] * 1.0 + random.normal(size=700) * 0.3 + forget
    model = lambda _: np.stack([phi, np.zeros(700)], axis=1).astype(np.float32)
    subjects = Subjects(values=values, labels=np.zeros(700, int), forget=forget, schema=schema, patched=model)
    plain = delong(phi, forget).value
    optimum = float(stats.norm.cdf(1.0 / (0.3 * 2**0.5)))
    assert plain < 0.65
    # Trees approximate the slope by steps of at least 20 records; the linear model is the right one here.
    for kind, tolerance in (("trees", 0.08), ("linear", 0.02)):
        scored = QuantileRegression(kind=kind)(subjects, np.random.default_rng(1))
        assert auc(scored, subjects) == pytest.approx(optimum, abs=tolerance)


def test_quantile_regression_refuses_too_little_and_constant_confidence():
    few = subjects_with(forgotten=10, reference=10)
    assert "need" in QuantileRegression()(few, np.random.default_rng(0)).reason
    flat = subjects_with(lambda x: np.zeros((len(x), CLASSES), np.float32))
    assert "same confidence" in QuantileRegression()(flat, np.random.default_rng(0)).reason


def test_quantile_regression_bears_crossing_quantiles_and_more_folds_than_positives():
    values = np.zeros((61, FEATURES), int)
    random = np.random.default_rng(0)
    phi = np.where(np.arange(61) % 10 == 0, random.normal(size=61), 0.0)
    model = lambda _: np.stack([phi, np.zeros(61)], axis=1).astype(np.float32)
    subjects = Subjects(values=values, labels=np.zeros(61, int), forget=np.arange(61) < 1, schema=grid(), patched=model)
    found = QuantileRegression(folds=5, rounds=2)(subjects, random)
    assert np.isfinite(found.values).all()
    lone = replace(subjects, forget=np.arange(61) < 11, labels=np.zeros(61, int))
    assert np.isfinite(QuantileRegression(folds=60, rounds=1)(lone, random).values).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: NearDuplicates(distance=0),
        lambda: NearDuplicates(copies=0),
        lambda: BoundaryDistance(directions=0),
        lambda: BoundaryDistance(reach=0.0),
        lambda: BoundaryDistance(reach=float("nan")),
        lambda: QuantileRegression(low=0.6),
        lambda: QuantileRegression(kind="forest"),
        lambda: QuantileRegression(folds=1),
        lambda: QuantileRegression(penalty=-1.0),
        lambda: build_query("psychic"),
    ],
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(AuditorError):
        make()


@pytest.mark.parametrize(
    "change",
    [
        {"values": np.zeros((200, 3), int)},
        {"values": np.zeros((200, FEATURES))},
        {"values": np.full((200, FEATURES), 17)},
        {"labels": np.zeros(3, int)},
        {"labels": np.zeros(200)},
        {"labels": np.full(200, -1)},
        {"forget": np.zeros(200)},
    ],
)
def test_subjects_that_do_not_fit_are_refused(change):
    with pytest.raises(AuditorError):
        replace(subjects_with(), **change)


MIXED = InputSchema.from_columns(
    (6,),
    scale=np.ones(6),
    offset=np.zeros(6),
    low=np.zeros(6),
    high=np.array([1, 1, 1, 1, 1, 1]),
    kind=("binary", "binary", "onehot", "onehot", "onehot", "onehot"),
    group=np.array([-1, -1, 0, 0, 0, 1]),
)


def test_steps_on_a_grid_and_on_switches():
    random = np.random.default_rng(0)
    values = random.integers(0, 17, (50, FEATURES))
    path = walk(values, grid(), 5, random)
    np.testing.assert_array_equal(path[0], values)
    assert (np.abs(np.diff(path, axis=0)) == 1).all()  # five steps fit into the range from everywhere
    assert path.min() >= 0
    assert path.max() <= 16
    moved = np.abs(scatter(values, grid(), 3, random) - values)
    assert (moved.max(axis=1) == 3).all()

    rows = np.array([[0, 1, 0, 1, 0, 1]] * 40)
    path = walk(rows, MIXED, 5, random)
    flips = (path != rows).astype(int)
    assert (flips[1].sum(axis=1) <= 2).all()
    assert (path[..., 2:5].sum(axis=-1) == 1).all()  # one value in each group, always
    assert (path[..., 5] == 1).all()  # a group of one column has no other value
    np.testing.assert_array_equal(path[5], path[4])  # all four switches are turned by then
    assert (path[4][:, :2] != rows[:, :2]).all()
    assert (path[4][:, 2:5] != rows[:, 2:5]).any(axis=1).all()
    assert scatter(rows, MIXED, 2, random).shape == rows.shape


def test_the_gap_is_the_plain_question():
    subjects = subjects_with()
    right = subjects.patched(subjects.inputs).argmax(axis=1) == subjects.labels
    np.testing.assert_array_equal(Gap()(subjects, np.random.default_rng(0)).values, right)


def test_a_model_that_breaks_down_on_the_way_is_said():
    calls = []

    def model(inputs):
        calls.append(len(inputs))
        return np.full((len(inputs), 2), np.nan if len(calls) > 1 else 0.5, np.float32) * [1, 2]

    subjects = replace(subjects_with(), labels=np.zeros(200, int), patched=model)
    assert "not finite" in BoundaryDistance()(subjects, np.random.default_rng(0)).reason
