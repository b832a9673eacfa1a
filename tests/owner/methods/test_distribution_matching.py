"""`distribution-matching`: whose class a record is matched to, and a planted backdoor that is gone afterwards."""

import numpy as np
import pytest
import torch

from owner.methods.distribution_matching import _classes, discrepancy, neighbours
from owner.methods.weights import Split
from protocol.errors import OwnerError
from tests.benchmarks.matching_study import world
from tests.benchmarks.table.worlds import Size


def around(random, labels):
    return (np.eye(4)[labels] * 4 + random.normal(0, 0.6, (len(labels), 4))).astype(np.float32)


def split_of(random, given):
    true = random.integers(0, 4, 60)
    unseen = random.integers(0, 4, 120)
    labels = true if given is None else np.full(60, given)
    x = around(random, true)
    return true, Split(
        forget=x, forget_labels=labels, retain=x, retain_labels=true, unseen=around(random, unseen), unseen_labels=unseen,
        gone=np.ones(60, bool),
    )  # fmt: skip


def test_labels_are_believed_where_the_unseen_bear_them_out():
    random = np.random.default_rng(3)
    _, split = split_of(random, None)
    classes, words = _classes(split, "auto")
    assert (classes == split.forget_labels).all()
    assert words == "as given"


def test_labels_of_an_attacker_are_not_believed():
    random = np.random.default_rng(3)
    true, split = split_of(random, 0)
    classes, words = _classes(split, "auto")
    assert (classes == true).mean() > 0.95
    assert "nearest" in words
    assert (_classes(split, "given")[0] == 0).all()
    assert (_classes(split, "near")[0] == classes).all()


def test_one_class_alone_is_no_sign_of_an_attacker():
    random = np.random.default_rng(4)
    _, split = split_of(random, None)
    one = split.forget_labels == 2
    alone = Split(
        forget=split.forget[one], forget_labels=split.forget_labels[one], retain=split.retain,
        retain_labels=split.retain_labels, unseen=split.unseen, unseen_labels=split.unseen_labels, gone=split.gone,
    )  # fmt: skip
    assert _classes(alone, "auto")[1] == "as given"


def test_nobody_is_their_own_neighbour():
    x = np.array([[0.0], [0.1], [5.0], [5.1], [5.2]], np.float32)
    labels = np.array([0, 1, 2, 2, 2])
    assert neighbours(x[:1], x, labels).tolist() == [2]  # four of five vote
    own = neighbours(x, x, np.array([0, 1, 1, 1, 1]), same=True)
    assert own.tolist() == [1, 1, 1, 1, 1]


def test_equal_outputs_of_other_classes_do_not_match():
    rows = torch.eye(3).repeat(4, 1)
    classes = torch.arange(3).repeat(4)
    assert float(discrepancy(rows, rows, (classes, classes))) == pytest.approx(0, abs=1e-7)
    assert float(discrepancy(rows, rows, (classes, (classes + 1) % 3))) > 0.1


def test_a_planted_backdoor_is_gone():
    small = Size(trained=500, unseen=200, reference=400, epochs=15)
    found = world("digits", "trigger", 1, small, None, ["base", "auto"])
    assert found["base"]["backdoor"] > 0.7
    assert found["auto"]["backdoor"] < 0.35
    assert found["auto"]["reference"] > found["base"]["reference"] - 0.03
    assert found["auto"]["retain"] > found["base"]["retain"] - 0.02


def test_an_unknown_way_to_tell_classes_is_refused():
    from owner.methods.distribution_matching import Settings

    with pytest.raises(OwnerError, match="auto, given, near"):
        Settings(labels="other")
