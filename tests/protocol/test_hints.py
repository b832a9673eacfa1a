"""Files of hints: read as written, refused if anything about them is odd, never more than their limits."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import hints
from protocol.arrays import write_npz
from protocol.errors import Error, MalformedError, Schema
from protocol.hints import Duals, Hints, Slopes

INT = np.int32


def slopes(**changes):
    rng = np.random.default_rng(0)
    arrays = {
        "claim": np.array([0, 2, 7], INT),
        "entry": np.array([1, 0, 1], INT),
        "inner": rng.integers(0, 256, (2, 5), np.uint8),
        "last": rng.integers(0, 256, (2, 3, 5), np.uint8),
    }
    return Slopes(**(arrays | changes))


def duals(**changes):
    arrays = {name: np.array([0, 3], INT) for name in ("part", "row", "claim", "rival")}
    arrays |= {"weight": np.array([1, 9], INT), "offset": np.array([[0, -1], [2, 0]], INT)}
    return Duals(**(arrays | changes))


def same(left, right):
    for part in ("slopes", "duals"):
        mine, other = getattr(left, part), getattr(right, part)
        for entry in dataclasses.fields(mine):
            a, b = getattr(mine, entry.name), getattr(other, entry.name)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "made",
    [
        Hints(slopes=slopes(), duals=duals()),
        Hints(slopes=Slopes.none(), duals=duals()),
        Hints(slopes=slopes(last=np.zeros((2, 0, 5), np.uint8)), duals=Duals.none()),
        Hints(slopes=Slopes.none(), duals=Duals.none()),
    ],
    ids=["both", "duals", "slopes", "none"],
)
def test_what_is_written_is_read(made):
    same(hints.parse(hints.to_bytes(made)), made)


@pytest.mark.parametrize(
    "change",
    [
        {"claim": np.array([0, 2], INT)},
        {"claim": np.array([2, 0, 7], INT)},
        {"claim": np.array([0, 0, 7], INT)},
        {"claim": np.array([-1, 0, 7], INT)},
        {"claim": np.array([0, 1, 1_000_000], INT)},
        {"claim": np.array([-(2**31), 1, 2**31 - 1], INT)},
        {"entry": np.array([0, 1, 2], INT)},
        {"entry": np.array([0, -1, 1], INT)},
        {"last": np.zeros((2, 3, 4), np.uint8)},
        {"last": np.zeros((1, 3, 5), np.uint8)},
        {"last": np.zeros((2, 1025, 5), np.uint8)},
        {"inner": np.zeros((2, 2**23), np.uint8), "last": np.zeros((2, 2, 2**23), np.uint8)},
        {"inner": np.zeros((0, 5), np.uint8), "last": np.zeros((0, 3, 5), np.uint8)},
    ],
)
def test_slopes_that_do_not_fit_together_are_refused(change):
    with pytest.raises(Schema):
        slopes(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"weight": np.array([1, 0], INT)},
        {"weight": np.array([-(2**31), 1], INT)},
        {"row": np.array([0, -1], INT)},
        {"claim": np.array([0], INT)},
        {"offset": np.zeros((3, 2), INT)},
        {"part": np.zeros(hints.MAX_DUALS + 1, INT)},
    ],
)
def test_duals_that_do_not_fit_together_are_refused(change):
    with pytest.raises(Schema):
        duals(**change)


def arrays(made):
    found = {entry.name: getattr(made.slopes, entry.name) for entry in dataclasses.fields(Slopes)}
    return found | {f"dual_{entry.name}": getattr(made.duals, entry.name) for entry in dataclasses.fields(Duals)}


@pytest.mark.parametrize(
    "change",
    [
        {"inner": np.full((2, 5), 0.5, np.float32)},
        {"last": np.full((2, 3, 5), 0.5)},
        {"claim": np.array([0, 2, 7])},
        {"extra": np.zeros(1, np.uint8)},
        {"dual_weight": np.array([1.0, np.finfo(np.float64).max])},
        {"entry": np.array([1, 0, 9], INT)},
    ],
)
def test_files_with_other_arrays_are_malformed(change):
    data = write_npz(arrays(Hints(slopes=slopes(), duals=duals())) | change)
    with pytest.raises(MalformedError):
        hints.parse(data, where="hints.npz")


def test_missing_arrays_are_malformed():
    whole = arrays(Hints(slopes=slopes(), duals=duals()))
    for name in whole:
        with pytest.raises(MalformedError, match=name):
            hints.parse(write_npz({other: array for other, array in whole.items() if other != name}))


def test_a_file_that_unpacks_beyond_the_limit_is_refused_unread(monkeypatch):
    monkeypatch.setattr(hints, "MAX_UNPACKED", 1 << 20)
    whole = arrays(Hints(slopes=Slopes.none(), duals=Duals.none()))
    data = write_npz(whole | {"inner": np.zeros((17, 1 << 16), np.uint8), "last": np.zeros((17, 0, 1 << 16), np.uint8)})
    assert len(data) < 1 << 14
    with pytest.raises(MalformedError, match="expands"):
        hints.parse(data)
    with pytest.raises(Schema, match="over what a reader accepts"):
        large = slopes(inner=np.zeros((16, 1 << 16), np.uint8), last=np.zeros((16, 0, 1 << 16), np.uint8))
        hints.to_bytes(Hints(slopes=large, duals=Duals.none()))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_give_our_errors_or_sound_hints(data):
    good = bytearray(hints.to_bytes(Hints(slopes=slopes(), duals=duals())))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(good) - 1))
        good[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)) | st.just(len(good)))
    try:
        found = hints.parse(bytes(good[:cut]))
    except Error:
        return
    assert found.slopes.entry.max(initial=0) < max(1, len(found.slopes.inner))
