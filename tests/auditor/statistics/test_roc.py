"""ROC points and operating points by counting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.statistics.control import draw
from auditor.statistics.roc import OperatingPoint, Withheld, operating_point, roc


@pytest.mark.parametrize("ties", [False, True])
@given(seed=st.integers(0, 2**32 - 1))
def test_roc_points_are_counts_above_a_threshold(ties, seed):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=150)
    if ties:
        scores = np.round(scores)
    forget = np.arange(150) < 30
    labels = np.zeros(150, dtype=np.int64)
    draws = draw(labels[forget], labels[~forget], 40, generator)
    curve = roc(scores, forget, draws, points=12)
    positives, negatives = scores[forget], scores[~forget]
    allowed = np.unique(np.round(np.geomspace(1, 119, 12)).astype(int))
    for index, alarms in enumerate(allowed):
        threshold = np.sort(negatives)[::-1][alarms]
        assert curve.false_positive_rate[index] == (negatives > threshold).mean() <= alarms / 120
        assert curve.true_positive_rate[index] == (positives > threshold).mean()
        shares = [(negatives[row] > threshold).mean() for row in draws.members]
        assert curve.control[index] == pytest.approx(np.mean(shares))
        assert curve.control_low[index] == pytest.approx(np.quantile(shares, 0.025))
        assert curve.control_high[index] == pytest.approx(np.quantile(shares, 0.975))
    assert (curve.low <= curve.true_positive_rate).all()
    assert (curve.true_positive_rate <= curve.high).all()
    assert (np.diff(curve.false_positive_rate) >= 0).all()


def test_the_threshold_is_fixed_on_one_part_and_counted_on_the_other():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=1100)
    forget = np.arange(1100) < 100
    calibration = (np.arange(1100) >= 100) & (np.arange(1100) < 600)
    found = operating_point(scores, forget, calibration, 0.01)
    assert isinstance(found, OperatingPoint)
    assert (scores[calibration] > found.threshold).sum() == 5
    assert found.false_alarms == (scores[600:] > found.threshold).sum()
    assert found.hits == (scores[:100] > found.threshold).sum()
    assert found.negatives == 500
    assert found.low <= found.rate <= found.high
    assert found.false_low <= found.false_rate <= found.false_high
    moved = scores.copy()
    moved[forget] += 100
    assert operating_point(moved, forget, calibration, 0.01).threshold == found.threshold


@pytest.mark.parametrize(
    ("reference", "target", "shown"),
    [(199, 0.01, False), (200, 0.01, True), (2995, 0.001, False), (5988, 0.001, False), (5989, 0.001, True)],
)
def test_a_rate_needs_enough_negatives(reference, target, shown):
    scores = np.random.default_rng(0).normal(size=reference + 20)
    forget = np.arange(scores.size) < 20
    calibration = (np.arange(scores.size) - 20 < reference // 2) & ~forget
    found = operating_point(scores, forget, calibration, target)
    assert isinstance(found, OperatingPoint if shown else Withheld)
    if not shown:
        assert "this rate needs" in found.reason
