"""The signal phi, and which shadow models a record is compared with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from auditor.attacks.observation import Observation, label_margin, log_probability, view
from protocol.errors import AuditorError
from tests.auditor.attacks.synthetic import gaussian

LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 7)), elements=st.floats(-8, 8, width=32))


@given(LOGITS, st.data())
def test_phi_is_the_softmax_log_odds_where_softmax_is_accurate(logits, data):
    labels = data.draw(hnp.arrays(np.int64, len(logits), elements=st.integers(0, logits.shape[1] - 1)), label="labels")
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = p[np.arange(len(labels)), labels]
    other = p.sum(axis=1) - own
    np.testing.assert_allclose(label_margin(logits, labels), np.log(own) - np.log(other), atol=1e-7)


def test_phi_is_exact_where_softmax_rounds_to_zero_or_one():
    logits = np.array([[2000.0, 0.0, 0.0], [-2000.0, 0.0, 0.0]])
    phi = label_margin(logits, np.array([0, 0]))
    np.testing.assert_allclose(phi, [2000 - np.log(2), -2000 - np.log(2)], rtol=1e-15)
    np.testing.assert_allclose(log_probability(phi), [0.0, -2000 - np.log(2)], rtol=1e-15)


@given(LOGITS, st.floats(-100, 100))
def test_phi_ignores_a_common_offset(logits, offset):
    labels = np.zeros(len(logits), dtype=np.int64)
    np.testing.assert_allclose(label_margin(logits + offset, labels), label_margin(logits, labels), atol=1e-9)


def test_a_forgotten_record_borrows_a_reference_record_s_shadow_models():
    observation, forget = gaussian(np.random.default_rng(0), shadows=10)
    seen = view(observation, forget, np.random.default_rng(1))
    assert (seen.out.sum(axis=0) == 5).all()
    known = {column.tobytes() for column in observation.out[:, ~forget].T}
    assert {column.tobytes() for column in seen.out[:, forget].T} <= known
    assert len({column.tobytes() for column in seen.out[:, forget].T}) > 50
    assert not seen.inside[:, forget].any()
    np.testing.assert_array_equal(seen.out[:, ~forget], observation.out[:, ~forget])


def test_the_same_generator_state_borrows_the_same():
    observation, forget = gaussian(np.random.default_rng(0))
    first = view(observation, forget, np.random.default_rng(1))
    second = view(observation, forget, np.random.default_rng(1))
    np.testing.assert_array_equal(first.out, second.out)


def test_records_that_were_in_some_shadow_models_borrow_nothing():
    observation, forget = gaussian(np.random.default_rng(0), with_forgotten=True)
    seen = view(observation, forget, np.random.default_rng(1))
    np.testing.assert_array_equal(seen.out, observation.out)


def test_without_reference_nothing_can_be_borrowed():
    observation, forget = gaussian(np.random.default_rng(0))
    seen = view(observation, np.ones_like(forget), np.random.default_rng(1))
    np.testing.assert_array_equal(seen.out, observation.out)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("logits", lambda a: a[:, 0]),
        ("features", lambda a: a[:, 0]),
        ("shadow_logits", lambda a: a[0]),
        ("logits", lambda a: a[:-1]),
        ("labels", lambda a: a[:-1]),
        ("shadow_logits", lambda a: a[:, :, :-1]),
        ("out", lambda a: a[:-1]),
        ("features", lambda a: a[:-1]),
        ("out", lambda a: a.astype(np.int64)),
        ("labels", lambda a: a.astype(np.float64)),
        ("labels", lambda a: a - 1),
        ("labels", lambda a: a + 1),
    ],
)
def test_arrays_that_do_not_fit_are_the_caller_s_error(field, change):
    good, _ = gaussian(np.random.default_rng(0), forgotten=3, reference=40)
    parts = {name: getattr(good, name) for name in ("logits", "labels", "shadow_logits", "out", "features")}
    Observation(**parts)
    with pytest.raises(AuditorError):
        Observation(**{**parts, field: change(parts[field])})
