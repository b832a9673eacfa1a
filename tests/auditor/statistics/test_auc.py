"""AUC and its variance by brute force over all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from auditor.statistics.auc import delong, share_below
from protocol.errors import AuditorError

SCORES = hnp.arrays(np.float64, st.integers(4, 30), elements=st.integers(-3, 3).map(float))


def kernel(first, second):
    """1 where a first score is higher, one half where equal."""
    return (first[:, None] > second[None, :]) + 0.5 * (first[:, None] == second[None, :])


@given(SCORES, st.data())
def test_auc_and_delong_are_the_pairwise_definitions_with_ties(scores, data):
    positive = data.draw(hnp.arrays(np.bool_, scores.size).filter(lambda mask: 2 <= mask.sum() <= mask.size - 2))
    pairs = kernel(scores[positive], scores[~positive])
    found = delong(scores, positive)
    assert found.value == pytest.approx(pairs.mean())
    assert found.variance_positive == pytest.approx(pairs.mean(axis=1).var(ddof=1) / len(pairs), abs=1e-12)
    assert found.variance_negative == pytest.approx(pairs.mean(axis=0).var(ddof=1) / pairs.shape[1], abs=1e-12)
    assert found.value == pytest.approx(stats.mannwhitneyu(scores[positive], scores[~positive]).statistic / pairs.size)
    assert delong(-scores, positive).value == pytest.approx(1.0 - found.value)
    assert delong(np.exp(scores), positive) == found


def test_delong_s_error_is_the_spread_over_repetitions():
    generator = np.random.default_rng(1)
    positive = np.arange(300) < 60
    values = [delong(generator.normal(size=300) + 0.8 * positive, positive) for _ in range(1500)]
    spread = np.std([one.value for one in values])
    assert np.mean([one.standard_error for one in values]) == pytest.approx(spread, rel=0.06)


def test_one_record_on_a_side_has_no_variance():
    with pytest.raises(AuditorError):
        delong(np.arange(5.0), np.arange(5) == 0)


@given(SCORES, SCORES, st.integers(0, 99))
def test_share_below_is_a_weighted_count(points, at, seed):
    weights = np.random.default_rng(seed).random(points.size)
    np.testing.assert_allclose(share_below(points, weights, at), kernel(at, points) @ weights, atol=1e-12)
