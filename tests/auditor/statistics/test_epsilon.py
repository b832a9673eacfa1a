"""The epsilon lower bound is exact in its arithmetic and keeps its confidence where the truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from auditor.statistics.epsilon import RATES, epsilon_bound
from protocol.errors import AuditorError


def split(forgotten, negatives):
    forget = np.arange(forgotten + negatives) < forgotten
    calibration = ~forget & (np.arange(forgotten + negatives) % 2 == 0)
    return forget, calibration


def test_it_is_the_hypothesis_testing_bound_with_exact_limits():
    forget, calibration = split(100, 1000)
    scores = np.where(forget, 1.0, 0.0)
    found = epsilon_bound(scores, forget, calibration, delta=1e-5)
    part = 0.05 / (2 * 2 * len(RATES))
    misses, alarms = (stats.beta.ppf(1 - part, 1, n) for n in (100, 500))
    assert found.value == pytest.approx(
        max(math.log((1 - 1e-5 - alarms) / misses), math.log((1 - 1e-5 - misses) / alarms))
    )
    assert found.value == pytest.approx(found.most)
    assert epsilon_bound(-scores, forget, calibration).value == pytest.approx(found.value, abs=1e-3)


def test_constant_scores_show_nothing():
    forget, calibration = split(100, 1000)
    assert epsilon_bound(np.zeros(1100), forget, calibration).value == 0.0


def test_it_stays_below_the_truth_as_often_as_it_says():
    # Randomised response: scores are a bit that is flipped with probability 1 / (1 + e^epsilon), plus an order inside.
    truth, random, wrong, values = 1.0, np.random.default_rng(1), 0, []
    forget, calibration = split(300, 1200)
    flip = 1 / (1 + math.exp(truth))
    for _ in range(300):
        bit = forget ^ (random.random(forget.size) < flip)
        found = epsilon_bound(bit + random.uniform(0, 0.5, forget.size), forget, calibration, delta=0.0)
        wrong += found.value > truth
        values.append(found.value)
    assert wrong <= stats.binom.ppf(0.999, 300, 0.05)
    assert np.median(values) > 0.3  # and it says something


@pytest.mark.parametrize(
    "change",
    [
        {"delta": 1.0},
        {"confidence": 1.0},
        {"forget": np.zeros(20, dtype=bool)},
        {"calibration": np.zeros(20, dtype=bool)},
        {"calibration": np.ones(20, dtype=bool)},
    ],
)
def test_refusals(change):
    forget, calibration = split(5, 15)
    given = {"forget": forget, "calibration": calibration, "delta": 1e-5, "confidence": 0.95} | change
    with pytest.raises(AuditorError):
        epsilon_bound(np.zeros(20), **given)
