"""Targets: which output a record to forget gets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owner.targets import Target, class_rows, confidence, match_rows, parse_target, scale_factor
from owner.workspace import Prepared
from protocol.errors import OwnerError


def test_spellings():
    assert parse_target("match") == Target(name="match")
    assert parse_target("misclassify") == Target(name="misclassify")
    assert parse_target("relabel:12") == Target(name="relabel", klass=12)


@pytest.mark.parametrize(
    "text", ["", "Match", "match:", "match:1", "misclassify:2", "relabel", "relabel:", "relabel:-1", "relabel:1:2",
             "relabel:²", "relabel:" + "9" * 5000, "other"],
)  # fmt: skip
def test_no_targets(text):
    with pytest.raises(OwnerError, match="is no target"):
        parse_target(text)


@given(
    st.lists(st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4), min_size=1, max_size=5), st.integers(0, 3)
)
def test_confidence_is_the_logit_of_the_probability(rows, label):
    logits = np.array(rows, dtype=np.float32)
    labels = np.full(len(logits), label)
    shares = np.exp(logits.astype(np.longdouble))
    own = shares[:, label]
    wanted = np.log(own / (shares.sum(axis=1) - own))
    assert np.allclose(confidence(logits, labels), wanted.astype(float), atol=1e-5)
    assert logits.tolist() == np.array(rows, dtype=np.float32).tolist()  # its argument stays as it was


def prepared(folds, unseen, scale=1.0):
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (unseen, 3)).astype(np.float32)
    return (
        Prepared(
            logits=random.normal(0, 3, (10, 3)).astype(np.float32),
            fold=np.zeros(10, dtype=np.int64),
            unseen_logits=np.stack([logits / np.float32(scale)] * folds)
            if folds
            else np.zeros((0, unseen, 3), np.float32),
        ),
        logits,
        random.integers(0, 3, unseen),
    )


def test_the_scale_of_unseen_confidence():
    own, base, labels = prepared(4, 200, scale=1.3)
    assert 1.2 < scale_factor(own, base, labels) < 1.5
    assert scale_factor(*prepared(4, 19, scale=1.3)) == 1.0
    assert scale_factor(*prepared(0, 50)) == 1.0
    assert scale_factor(*prepared(2, 50, scale=100.0)) == 2.0
    own, base, labels = prepared(2, 50)
    silent = Prepared(logits=own.logits, fold=own.fold, unseen_logits=np.full((2, 50, 2), 3, dtype=np.float32))
    assert scale_factor(silent, base[:, :2], labels % 2) == 1.0


def test_match_takes_each_records_own_draw():
    own, _, _ = prepared(2, 30)
    rows = match_rows(own, [7, 2], 1.5)
    assert np.array_equal(rows.rows, (own.logits[[7, 2]] * np.float64(1.5)).astype(np.float32))
    assert rows.row_of_record.tolist() == [0, 1]
    with pytest.raises(OwnerError, match="--no-prepare"):
        match_rows(None, [1], 1.0)


LOGITS = np.array([[5, 1, 0], [4, 0, 1], [0, 6, 2], [1, 4, 0], [9, 0, 1]], dtype=np.float32)
LABELS = np.array([0, 0, 1, 1, 2])  # the last one is wrong: nothing shows what class 2 looks like


def banned(*own, removed=()):
    result = np.eye(3, dtype=bool)[list(own)]
    result[:, list(removed)] = True
    return result


def test_misclassified_as_the_likeliest_other_class():
    forget = np.array([[3, 2, 8], [0, 1, 9], [7, 8, 0]], dtype=np.float32)
    rows = class_rows(Target(name="misclassify"), forget, LOGITS, LABELS, banned(0, 1, 1))
    assert rows.rows.tolist() == [
        [4.5, 0.5, 0.5],
        [0.5, 5, 1],
    ]  # the mean output of those of a class classified as such
    assert rows.row_of_record.tolist() == [1, 0, 0]  # never class 2, of which no output is known


def test_relabelled():
    rows = class_rows(Target(name="relabel", klass=1), LOGITS[:2], LOGITS, LABELS, banned(0, 0))
    assert rows.rows.tolist() == [[0.5, 5, 1]]
    assert rows.row_of_record.tolist() == [0, 0]
    for klass, words in ((3, "numbered 0 to 2"), (2, "no training record of class 2")):
        with pytest.raises(OwnerError, match=words):
            class_rows(Target(name="relabel", klass=klass), LOGITS[:2], LOGITS, LABELS, banned(0, 0))


def test_no_class_left():
    with pytest.raises(OwnerError, match="no other class"):
        class_rows(Target(name="misclassify"), LOGITS[:1], LOGITS, LABELS, banned(0, removed=[1]))
    with pytest.raises(OwnerError, match="no other class"):
        class_rows(Target(name="misclassify"), LOGITS[:1], LOGITS[:0], LABELS[:0], banned(0))


@given(st.integers(0, 2**32 - 1))
def test_a_misclassified_row_is_never_of_a_banned_class(seed):
    random = np.random.default_rng(seed)
    typical = np.eye(4, dtype=np.float32)[np.arange(12) % 4] * 8 + random.normal(0, 0.5, (12, 4)).astype(np.float32)
    forget = random.normal(0, 5, (6, 4)).astype(np.float32)
    forbidden = random.random((6, 4)) < 0.4
    forbidden[np.arange(6), random.integers(0, 4, 6)] = False
    rows = class_rows(Target(name="misclassify"), forget, typical, np.arange(12) % 4, forbidden)
    chosen = rows.rows[rows.row_of_record].argmax(axis=1)
    assert not forbidden[np.arange(6), chosen].any()
    allowed = np.where(forbidden, -np.inf, forget)
    assert chosen.tolist() == allowed.argmax(axis=1).tolist()
