"""Intervals of areas, and changes of areas on the same records."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.statistics.areas import area_interval, auc_interval, paired
from auditor.statistics.auc import delong
from protocol.errors import AuditorError


@settings(max_examples=40)
@given(st.floats(0, 1), st.integers(1, 300), st.integers(1, 300))
def test_the_interval_holds_the_estimate_and_mirrors(value, positives, negatives):
    low, high = area_interval(value, positives, negatives)
    assert 0.0 <= low <= value <= high <= 1.0
    assert low < high
    mirrored = area_interval(1.0 - value, positives, negatives)
    np.testing.assert_allclose(mirrored, (1.0 - high, 1.0 - low), atol=1e-5)


def test_perfect_separation_still_has_an_open_end():
    low, high = area_interval(1.0, 20, 100)
    assert high == 1.0
    assert 0.8 < low < 0.99
    assert area_interval(1.0, 200, 1000)[0] > low


def test_coverage_is_near_nominal():
    random = np.random.default_rng(0)
    # True area of normals one deviation apart. 400 repetitions: standard error of the coverage about 1.1 %.
    truth, hits = 0.7602499389065233, 0
    positive = np.arange(130) < 30
    for _ in range(400):
        low, high = area_interval(delong(random.normal(size=130) + positive, positive).value, 30, 100)
        hits += low <= truth <= high
    assert hits / 400 > 0.91


@pytest.mark.parametrize("bad", [(1.5, 3, 3, 0.95), (0.5, 0, 3, 0.95), (0.5, 3, 3, 1.0)])
def test_intervals_out_of_range_are_refused(bad):
    with pytest.raises(AuditorError):
        area_interval(*bad[:3], confidence=bad[3])


def test_paired_areas_agree_with_single_ones_and_vanish_for_equal_orders():
    random = np.random.default_rng(1)
    positive = np.arange(120) < 40
    before = random.normal(size=120) + positive
    after = before + random.normal(size=120) * 0.1
    found = paired(before, after, positive)
    assert found.before == pytest.approx(delong(before, positive).value)
    assert found.after == pytest.approx(delong(after, positive).value)
    alone = delong(before, positive).standard_error
    assert 0.0 < found.standard_error < alone / 3
    assert paired(before, np.exp(before), positive).standard_error == 0.0
    # Independent scores: variances add up.
    other = paired(before, random.normal(size=120), positive)
    assert other.standard_error > alone
    with pytest.raises(AuditorError):
        paired(before, after, np.arange(120) < 1)


def test_an_auc_s_interval_is_delong_s_and_never_a_point():
    random, wide = np.random.default_rng(7), []
    positive = np.arange(300) < 100
    for _ in range(400):
        low, high = auc_interval(random.normal(size=300) + positive, positive)
        wide.append(low <= 0.7602 <= high)  # Phi(1 / sqrt 2)
    assert 0.92 <= np.mean(wide) <= 0.98
    low, high = auc_interval(positive.astype(float), positive)
    assert (0.9 < low < 1.0, high) == (True, 1.0)
