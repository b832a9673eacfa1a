import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from protocol import statement
from protocol.digests import tagged
from protocol.errors import Schema
from protocol.messages import challenge
from protocol.messages.challenge import Challenge
from tests.protocol.samples import hashes


def words(seed):
    """The stream of 64-bit words, one bit string at a time."""
    counter = 0
    while True:
        block = hashlib.sha256(seed + counter.to_bytes(8, "big")).hexdigest()
        for start in range(0, 64, 16):
            yield int(block[start : start + 16], 16)
        counter += 1


def slow_indices(seed, count, population):
    """What SPEC 9.6 says, without haste: draw, refuse the incomplete last interval, skip repeats."""
    if count >= population:
        return list(range(population))
    usable = 2**64 // population * population
    chosen = []
    stream = words(seed)
    while len(chosen) < count:
        word = next(stream)
        if word < usable and word % population not in chosen:
            chosen.append(word % population)
    return sorted(chosen)


@given(hashes, st.integers(0, 30), st.integers(0, 40) | st.integers(1, 1 << 32))
def test_indices_match_the_slow_reference(seed, count, population):
    found = challenge.indices(seed, count, population)
    assert found.dtype == np.int64
    assert found.tolist() == slow_indices(seed, count, population)
    assert len(set(found.tolist())) == min(count, population)


def test_indices_are_the_same_for_ever():
    assert challenge.indices(b"\0" * 32, 5, 1000).tolist() == [187, 308, 593, 620, 891]
    assert challenge.indices(b"\0" * 32, 3, 3).tolist() == [0, 1, 2]


def test_indices_are_uniform():
    # 2,000 draws of 5 below 20; chi-squared with 19 degrees of freedom. Seeds are fixed, so this holds or never does.
    counts = np.zeros(20, dtype=np.int64)
    for number in range(2000):
        counts[challenge.indices(hashlib.sha256(b"%d" % number).digest(), 5, 20)] += 1
    assert counts.sum() == 10_000
    # Without replacement the variance is smaller by (20 - 5) / (20 - 1): scaled back before the test.
    statistic = ((counts - 500) ** 2 / 500).sum() * 19 / 15
    assert stats.chi2.sf(statistic, 19) > 1e-3


def test_the_incomplete_last_interval_is_refused(monkeypatch):
    # Words of all ones, then zeros: the first would favour small indices if it counted.
    blocks = iter([b"\xff" * 32, bytes(32)])
    monkeypatch.setattr(challenge.hashlib, "sha256", lambda _: type("H", (), {"digest": lambda self: next(blocks)})())
    assert challenge.indices(b"", 1, 3).tolist() == [0]
    assert (2**64 - 1) % 3 == 0  # so without the rule nothing would differ here ...
    blocks = iter([b"\xff" * 32, bytes(32)])
    assert challenge.indices(b"", 1, 10).tolist() == [0]
    assert (2**64 - 1) % 10 == 5  # ... but here it would


@given(hashes, hashes, hashes)
def test_value_and_seeds_depend_on_everything(nonce, leaf, other):
    value = challenge.value(nonce, leaf)
    assert value == tagged("challenge", nonce, leaf)
    assert (challenge.value(nonce, other) == value) == (other == leaf)
    assert challenge.seed(value, "locality") == tagged("challenge-seed", value, b"locality")
    assert challenge.seed(value, "locality") != challenge.seed(value, "persistence")


def message(count, population):
    return Challenge(
        subject="ab" * 32,
        opening="01" * 32,
        answers="02" * 32,
        seed=b"\0" * 32,
        count=count,
        population=population,
        challenged_at=0,
    )


def test_message_gives_its_indices():
    assert message(5, 1000).indices().tolist() == challenge.indices(b"\0" * 32, 5, 1000).tolist()


@pytest.mark.parametrize(("count", "population"), [(0, 5), (6, 5), (1_000_001, 1 << 32), (1, (1 << 32) + 1), (1, 0)])
def test_counts(count, population):
    with pytest.raises(Schema):
        Challenge.parse(statement.parse(message(count, population).payload()))
