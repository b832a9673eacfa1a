"""A1 against the textbook formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from auditor.attacks import build
from auditor.attacks.confidence import class_margins
from auditor.attacks.observation import View, label_margin

LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(2, 8), st.integers(2, 6)), elements=st.floats(-6, 6, width=32))


def view_of(logits, labels):
    empty = np.zeros((0, len(labels)))
    return View(
        logits=logits,
        labels=labels,
        phi=label_margin(logits, labels),
        shadow_phi=empty,
        out=empty.astype(bool),
        inside=empty.astype(bool),
        reference=np.ones(len(labels), dtype=bool),
    )


@given(LOGITS, st.data())
def test_scores_are_the_published_ones_on_a_logarithmic_scale(logits, data):
    labels = data.draw(hnp.arrays(np.int64, len(logits), elements=st.integers(0, logits.shape[1] - 1)))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = p[np.arange(len(labels)), labels]
    entropy = -(p * np.log(p)).sum(axis=1)
    terms = -p * np.log1p(-p)
    terms[np.arange(len(labels)), labels] = -(1 - own) * np.log(own)
    expected = {
        "confidence": np.log(p.max(axis=1)) - np.log1p(-p.max(axis=1)),
        "loss": -np.log(np.expm1(-np.log(own))),
        "entropy": -np.log(entropy),
        "modified-entropy": -np.log(terms.sum(axis=1)),
    }
    for name, values in expected.items():
        found = build(name)(view_of(logits, labels))
        np.testing.assert_allclose(found.values, values, atol=1e-6, err_msg=name)
        assert found.settings


@given(LOGITS)
def test_every_class_s_margin_is_the_label_margin_of_that_class(logits):
    margins = class_margins(logits)
    for klass in range(logits.shape[1]):
        labels = np.full(len(logits), klass)
        np.testing.assert_allclose(margins[:, klass], label_margin(logits, labels), atol=1e-9)


def test_extreme_logits_give_finite_ordered_scores():
    logits = np.array([[3000.0, 0.0, 0.0], [300.0, 0.0, 0.0], [30.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-3e3, 0.0, 0.0]])
    labels = np.zeros(5, dtype=np.int64)
    for name in ("confidence", "loss", "entropy", "modified-entropy"):
        values = build(name)(view_of(logits, labels)).values
        assert np.isfinite(values).all()
        assert (np.diff(values[:4]) <= 0).all(), name
        assert values[1] > values[2] > values[3], name
    wrong = build("modified-entropy")(view_of(logits, labels)).values
    assert wrong[4] == wrong.min()  # certain and wrong is the least member-like
    assert build("entropy")(view_of(logits, labels)).values[4] > wrong[4]


@pytest.mark.parametrize("name", ["confidence", "loss", "entropy", "modified-entropy"])
@given(seed=st.integers(0, 2**32 - 1))
def test_scores_do_not_depend_on_record_order(name, seed):
    generator = np.random.default_rng(seed)
    logits, labels = generator.normal(size=(20, 5)) * 5, generator.integers(0, 5, 20)
    order = generator.permutation(20)
    plain = build(name)(view_of(logits, labels)).values
    moved = build(name)(view_of(logits[order], labels[order])).values
    np.testing.assert_allclose(moved, plain[order], rtol=1e-12)


def test_loss_orders_records_as_the_label_probability_does():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(200, 5)), generator.integers(0, 5, 200)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    values = build("loss")(view_of(logits, labels)).values
    np.testing.assert_array_equal(stats.rankdata(values), stats.rankdata(p[np.arange(200), labels]))
