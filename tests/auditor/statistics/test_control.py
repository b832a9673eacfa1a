"""The class-matched null control."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from auditor.statistics.auc import delong
from auditor.statistics.control import Draws, centre, compare, draw
from auditor.statistics.equivalence import equivalence
from tests.auditor.statistics.test_auc import kernel


def population(generator, *, forgotten, reference, classes, shift=0.0, class_effect=0.0):
    weights = generator.dirichlet(np.full(classes, 3.0))
    labels = np.concatenate(
        [
            generator.choice(classes, forgotten, p=weights),
            np.repeat(np.arange(classes), 5),
            generator.integers(0, classes, reference - 5 * classes),
        ]
    )
    forget = np.arange(forgotten + reference) < forgotten
    scores = generator.normal(size=labels.size) + shift * forget + class_effect * labels
    return scores, forget, labels


@given(seed=st.integers(0, 2**32 - 1))
def test_draws_have_the_forgotten_records_class_mix_and_never_repeat(seed):
    generator = np.random.default_rng(seed)
    forget_labels = generator.integers(0, 4, 30)
    reference_labels = np.concatenate([np.repeat(np.arange(4), 60), generator.integers(0, 6, 50)])
    draws = draw(forget_labels, reference_labels, 25, generator)
    assert draws.members.shape == (25, 30)
    for row in draws.members:
        assert np.unique(row).size == row.size
        np.testing.assert_array_equal(np.sort(reference_labels[row]), np.sort(forget_labels))


def test_draws_shrink_where_a_class_is_short_of_reference_records():
    draws = draw(np.repeat([0, 1], [50, 5]), np.repeat([0, 1], [20, 200]), 10, np.random.default_rng(0))
    assert draws.size == 11  # a fifth: 10 of class 0 leave 10 to compare with
    rare = draw(np.repeat([0, 1], [50, 1]), np.repeat([0, 1], [20, 200]), 10, np.random.default_rng(0))
    assert rare.size == 11


@pytest.mark.parametrize("ties", [False, True])
def test_estimate_and_draws_are_their_definitions(ties):
    generator = np.random.default_rng(2)
    scores, forget, labels = population(generator, forgotten=25, reference=120, classes=3, shift=0.7, class_effect=1.0)
    if ties:
        scores = np.round(scores)
    draws = draw(labels[forget], labels[~forget], 1000, generator)
    found = compare(scores, forget, labels, draws)
    negatives, of_negative = scores[~forget], labels[~forget]
    pairs = kernel(negatives, negatives)
    np.fill_diagonal(pairs, 0.0)
    own = pairs.sum(axis=1) / (negatives.size - 1)
    expected = np.mean([own[of_negative == klass].mean() for klass in labels[forget]])
    assert found.auc == pytest.approx(kernel(scores[forget], negatives).mean())
    assert found.expected == pytest.approx(expected)
    null = []
    for row in draws.members:
        rest = np.setdiff1d(np.arange(negatives.size), row)
        null.append(kernel(negatives[row], negatives[rest]).mean())
    assert found.draws_mean == pytest.approx(np.mean(null))
    assert (found.draws_low, found.draws_high) == pytest.approx(tuple(np.quantile(null, [0.025, 0.975])))
    # 25 of 120 drawn: the rest's class mix differs a little from the whole reference's.
    assert found.draws_mean == pytest.approx(found.expected, abs=0.02)
    distant = np.abs(null - np.mean(null)) >= abs(found.value)
    assert found.p_null == pytest.approx((1 + distant.sum()) / 1001)


def test_without_classes_it_is_delong_with_a_control_of_one_half():
    generator = np.random.default_rng(3)
    scores, forget, labels = population(generator, forgotten=80, reference=300, classes=1, shift=0.3)
    found = compare(scores, forget, labels, draw(labels[forget], labels[~forget], 10, generator))
    plain = delong(scores, forget)
    assert found.expected == pytest.approx(0.5)
    assert found.auc == pytest.approx(plain.value)
    assert found.variance_reference == pytest.approx(plain.variance_negative, rel=0.02)
    assert found.variance_forget == pytest.approx(max(plain.variance_positive, 1 / 12 / 80), rel=0.02)


@pytest.mark.parametrize(
    ("forgotten", "reference", "classes", "shift", "class_effect"),
    [(100, 500, 1, 0.0, 0.0), (100, 500, 8, 0.0, 1.0), (60, 150, 5, 0.4, 0.5), (200, 200, 3, -0.4, 0.0)],
)
def test_its_error_is_the_spread_over_repetitions(forgotten, reference, classes, shift, class_effect):
    generator = np.random.default_rng(4)
    dummy = Draws(members=np.arange(10)[None, :])
    values, variances = [], []
    for _ in range(1200):
        scores, forget, labels = population(
            generator,
            forgotten=forgotten,
            reference=reference,
            classes=classes,
            shift=shift,
            class_effect=class_effect,
        )
        found = compare(scores, forget, labels, dummy)
        values.append(found.value)
        variances.append(found.standard_error**2)
    if shift == 0.0:
        assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    ratio = np.sqrt(np.mean(variances)) / np.std(values)
    assert 0.94 < ratio < 1.12  # never too bold; a little cautious where forgotten records score alike


def test_at_the_margin_an_accusation_is_wrong_in_at_most_five_percent():
    generator = np.random.default_rng(5)
    dummy = Draws(members=np.arange(10)[None, :])
    runs, wrong = 1500, 0
    for _ in range(runs):
        scores, forget, labels = population(
            generator, forgotten=40, reference=200, classes=1, shift=np.sqrt(2) * stats.norm.ppf(0.6)
        )
        found = compare(scores, forget, labels, dummy)
        wrong += (
            equivalence(found.value, standard_error=found.standard_error, freedom=found.freedom, margin=0.1).p_beyond
            <= 0.05
        )
    assert stats.binomtest(int(wrong), runs, 0.05, alternative="greater").pvalue > 1e-3


def test_a_class_shift_alone_is_no_difference():
    generator = np.random.default_rng(6)
    labels = np.concatenate([np.zeros(50, int), np.ones(50, int), np.zeros(50, int), np.ones(450, int)])
    forget = np.arange(600) < 100
    scores = generator.normal(size=600) + 3.0 * (labels == 0)
    found = compare(scores, forget, labels, draw(labels[forget], labels[~forget], 1000, generator))
    assert found.auc > 0.65  # class 0 is over-represented among the forgotten records
    assert abs(found.value) < 3 * found.standard_error


def test_forgotten_records_that_score_alike_are_no_evidence_of_precision():
    scores = np.concatenate([np.full(20, 0.3), np.random.default_rng(7).normal(size=200)])
    forget = np.arange(220) < 20
    labels = np.zeros(220, dtype=np.int64)
    found = compare(scores, forget, labels, Draws(members=np.arange(10)[None, :]))
    assert found.variance_forget == pytest.approx(1 / 12 / 20, rel=0.05)


@given(
    hnp.arrays(np.float64, st.integers(6, 24), elements=st.integers(-4, 4).map(float)),
    st.data(),
)
def test_a_reference_record_is_measured_from_the_median_of_the_others(scores, data):
    reference = data.draw(hnp.arrays(np.bool_, scores.size).filter(lambda mask: mask.sum() >= 2))
    groups = data.draw(hnp.arrays(np.int64, scores.size, elements=st.integers(0, 2)))
    found = centre(scores, reference, groups)
    for index, score in enumerate(scores):
        pool = reference & (groups == groups[index])
        if pool.sum() < 2:
            pool = reference
        elif reference[index]:
            pool = pool & (np.arange(scores.size) != index)
        assert found[index] == score - np.median(scores[pool])


def test_within_class_differences_are_not_hidden_by_differences_between_classes():
    generator = np.random.default_rng(8)
    scores, forget, labels = population(
        generator, forgotten=2000, reference=4000, classes=10, shift=1.0, class_effect=5.0
    )
    dummy = Draws(members=np.arange(10)[None, :])
    assert compare(scores, forget, labels, dummy).value < 0.06
    measured = centre(scores, ~forget, labels)
    assert compare(measured, forget, labels, dummy).auc == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.03)
