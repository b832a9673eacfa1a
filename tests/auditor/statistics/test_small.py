"""Proportions, multiplicity, equivalence and power against independent computations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from auditor.statistics.equivalence import equivalence, welch_freedom
from auditor.statistics.multiplicity import holm
from auditor.statistics.power import detectable_difference, equivalence_power
from auditor.statistics.proportions import clopper_pearson, interval, negatives_needed, zero_hits_bound
from protocol.errors import AuditorError


@given(st.integers(1, 400), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_clopper_pearson_is_scipy_s_exact_interval(trials, data, confidence):
    hits = data.draw(st.integers(0, trials))
    low, high = clopper_pearson(np.array([hits]), trials, confidence=confidence)
    expected = stats.binomtest(hits, trials).proportion_ci(confidence, method="exact")
    assert interval(hits, trials, confidence=confidence) == (low[0], high[0])
    assert low[0] == pytest.approx(expected.low, abs=1e-9)
    assert high[0] == pytest.approx(expected.high, abs=1e-9)


@given(st.integers(1, 25), st.floats(0.001, 0.999))
def test_clopper_pearson_covers(trials, rate):
    low, high = clopper_pearson(np.arange(trials + 1), trials)
    covered = (low <= rate) & (rate <= high)
    assert stats.binom.pmf(np.arange(trials + 1), trials, rate)[covered].sum() >= 0.95 - 1e-9


def test_numbers_of_the_literature():
    assert zero_hits_bound(20) == pytest.approx(0.139, abs=5e-4)
    assert zero_hits_bound(100) == pytest.approx(0.030, abs=5e-4)
    assert zero_hits_bound(500) == pytest.approx(0.006, abs=5e-4)
    assert negatives_needed(0.001) == 2995
    assert zero_hits_bound(2995) <= 0.001 < zero_hits_bound(2994)


@pytest.mark.parametrize(
    "call",
    [
        lambda: clopper_pearson(np.array([3]), 2),
        lambda: clopper_pearson(np.array([-1]), 2),
        lambda: clopper_pearson(np.array([0]), 0),
        lambda: clopper_pearson(np.array([0]), 2, confidence=1.0),
        lambda: zero_hits_bound(0),
        lambda: negatives_needed(0.0),
        lambda: negatives_needed(1.0),
        lambda: holm(np.array([0.5, 1.5])),
        lambda: holm(np.array([np.nan])),
        lambda: equivalence(0.1, standard_error=0.0, freedom=10, margin=0.1),
        lambda: equivalence(0.1, standard_error=0.1, freedom=0, margin=0.1),
        lambda: equivalence(0.1, standard_error=0.1, freedom=10, margin=0.0),
        lambda: equivalence(0.1, standard_error=0.1, freedom=10, margin=0.1, level=0.5),
    ],
)
def test_arguments_outside_their_range_are_refused(call):
    with pytest.raises(AuditorError):
        call()


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.3))
def test_holm_rejects_what_the_step_down_procedure_rejects(values, level):
    p = np.array(values)
    rejected = np.zeros(p.size, dtype=bool)
    for step, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (p.size - step) > level:
            break
        rejected[index] = True
    np.testing.assert_array_equal(holm(p) <= level, rejected)


@given(st.floats(-0.5, 0.5), st.floats(0.005, 0.2), st.floats(3, 500), st.floats(0.02, 0.3))
def test_bounds_and_p_values_of_the_equivalence_test_agree(difference, error, freedom, margin):
    found = equivalence(difference, standard_error=error, freedom=freedom, margin=margin)
    mirror = equivalence(-difference, standard_error=error, freedom=freedom, margin=margin)
    if abs(found.p_equivalent - 0.05) > 1e-9:
        assert (found.upper_bound < margin) == (found.p_equivalent < 0.05)
    assert found.p_beyond == mirror.p_beyond
    assert found.upper_bound == mirror.upper_bound
    assert found.low == pytest.approx(-mirror.high)
    assert found.low < difference < found.high
    assert not (found.p_equivalent < 0.05 and found.p_beyond < 0.05)
    if min(abs(found.low), abs(found.high)) > margin and found.low * found.high > 0:
        assert found.p_beyond < 0.05


@pytest.mark.parametrize("true", [0.1, -0.1])
def test_at_the_margin_both_statements_err_in_five_percent(true):
    generator = np.random.default_rng(9)
    runs, error = 1500, 0.03
    beyond = equivalent = 0
    for estimate in generator.normal(true, error, runs):
        found = equivalence(float(estimate), standard_error=error, freedom=1e6, margin=0.1)
        beyond += found.p_beyond <= 0.05
        equivalent += found.upper_bound < 0.1
    assert stats.binomtest(int(beyond), runs, 0.05).pvalue > 1e-3
    assert stats.binomtest(int(equivalent), runs, 0.05).pvalue > 1e-3


def test_welch():
    assert welch_freedom(((2.0, 9.0),)) == pytest.approx(9.0)
    assert welch_freedom(((1.0, 9.0), (1.0, 9.0))) == pytest.approx(18.0)
    assert welch_freedom(((0.0, 9.0),)) == math.inf


def test_power_is_what_simulation_finds():
    generator = np.random.default_rng(10)
    error, freedom, margin, runs = 0.02, 1e6, 0.05, 20_000
    effect = detectable_difference(error, freedom, level=0.05, margin=margin)
    estimates = generator.normal(effect, error, runs)
    found = np.mean((estimates - margin) / error > stats.norm.ppf(0.95))
    assert found == pytest.approx(0.8, abs=0.015)
    shown = np.mean(np.abs(generator.normal(0, error, runs)) + stats.norm.ppf(0.95) * error < margin)
    assert equivalence_power(error, freedom, margin=margin, level=0.05) == pytest.approx(shown, abs=0.015)
    assert equivalence_power(1.0, freedom, margin=margin, level=0.05) == 0.0
