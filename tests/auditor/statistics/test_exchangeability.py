"""Exact level under the null, and power against what it is for."""

import numpy as np
import pytest
from scipy import stats

from auditor.statistics.exchangeability import _sample, exchangeability


def features(generator, *, forgotten=60, reference=200, columns=6, classes=3):
    labels = generator.integers(0, classes, forgotten + reference)
    forget = np.arange(labels.size) < forgotten
    return generator.normal(size=(labels.size, columns)) + labels[:, None], forget, labels


def test_level():
    generator = np.random.default_rng(0)
    runs = 300
    found = []
    for _ in range(runs):
        values, forget, labels = features(generator, forgotten=30, reference=60)
        found.append(exchangeability(values, forget, labels, generator, permutations=99))
    for name in ("p_energy", "p_feature", "p_value"):
        low = sum(getattr(one, name) <= 0.1 for one in found)
        assert stats.binomtest(low, runs, 0.1, alternative="greater").pvalue > 1e-3, name
    assert sum(one.p_energy <= 0.1 for one in found) > 0.04 * runs
    assert sum(one.p_feature <= 0.1 for one in found) > 0.04 * runs


def test_a_shift_of_one_feature_is_found_and_named():
    generator = np.random.default_rng(1)
    values, forget, labels = features(generator, columns=50)
    values[forget, 17] += 1.0
    found = exchangeability(values, forget, labels, generator)
    assert found.p_feature == 0.001
    assert found.worst_feature == 17
    assert found.p_value == 0.002


def test_a_change_of_spread_without_a_shift_is_found():
    generator = np.random.default_rng(2)
    values, forget, labels = features(generator, columns=4, classes=1)
    values[forget] *= 2.5
    found = exchangeability(values, forget, labels, generator)
    assert found.p_energy <= 0.002
    assert found.p_value <= 0.004


def test_a_different_class_mix_alone_is_not_found():
    generator = np.random.default_rng(3)
    labels = np.concatenate([np.zeros(80, int), np.ones(20, int), np.zeros(40, int), np.ones(260, int)])
    forget = np.arange(400) < 100
    values = generator.normal(size=(400, 5)) + 4.0 * labels[:, None]
    assert exchangeability(values, forget, labels, generator).p_value > 0.01


def test_p_values_do_not_depend_on_units():
    generator = np.random.default_rng(4)
    values, forget, labels = features(generator)
    first = exchangeability(values, forget, labels, np.random.default_rng(0))
    second = exchangeability(values * 1000 + 7, forget, labels, np.random.default_rng(0))
    assert (first.p_energy, first.p_feature) == (second.p_energy, second.p_feature)


def test_constant_features_and_classes_on_one_side_say_nothing():
    labels = np.repeat([0, 1, 2], [20, 20, 20])
    forget = np.arange(60) % 2 == 0
    forget[40:] = True
    values = np.ones((60, 3))
    values[40:] = 9.0  # class 2 has no reference record
    found = exchangeability(values, forget, labels, np.random.default_rng(0))
    assert (found.p_energy, found.p_feature, found.p_value) == (1.0, 1.0, 1.0)
    assert (found.forgotten, found.reference) == (20, 20)


def test_large_sets_are_sampled_in_proportion():
    generator = np.random.default_rng(5)
    labels = np.repeat([0, 1, 2], [6000, 3000, 1000])
    chosen = _sample(labels, 1000, generator)
    np.testing.assert_allclose(np.bincount(labels[chosen]), [600, 300, 100], atol=2)
    values, forget, labels = features(generator, forgotten=50, reference=500)
    found = exchangeability(values, forget, labels, generator, limit=100)
    assert (found.forgotten, found.reference) == (50, 100)


def test_a_class_lost_in_sampling_takes_no_part():
    labels = np.concatenate([np.zeros(300, int), np.ones(2, int)])
    forget = np.zeros(302, dtype=bool)
    forget[[*range(50), 300]] = True
    values = np.random.default_rng(0).normal(size=(302, 2))
    found = exchangeability(values, forget, labels, np.random.default_rng(1), limit=20)
    assert found.p_value == pytest.approx(found.p_value)
    assert found.forgotten <= 20
