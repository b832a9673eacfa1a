"""Rows, caps and decimals, against numpy's and Python's own exact arithmetic."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from auditor.rows import (
    cap_rows,
    decimal_below,
    distinct_rows,
    equals_claim,
    exact,
    leads,
    nearest_float32,
    round_float32,
    satisfies,
    trails,
)
from protocol.encoding import format_decimal, format_float32
from protocol.errors import AuditorError, EncodingError, Schema
from protocol.model.patch import Cap

FLOATS = st.floats(-1e6, 1e6, width=32)
ROWS = arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 4)), elements=FLOATS)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_decimal_of_a_float32_gives_it_back(value):
    short = format_float32(value)
    assert nearest_float32(short) == np.float32(value)
    assert round_float32(Fraction(value)) == np.float32(value)


def test_no_double_rounding():
    # Just above the midpoint of 1 and its successor, by less than float64 can see: through float64 it
    # becomes the midpoint itself and then the even neighbour 1.
    value = 1 + Fraction(1, 2**24) + Fraction(1, 2**60)
    assert np.float32(float(value)) == np.float32(1)
    assert round_float32(value) == np.nextafter(np.float32(1), np.float32(2))
    assert round_float32(1 + Fraction(1, 2**24)) == np.float32(1)


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, 2, 3, 4]),
    st.sampled_from(["0", "1e-9", "-1e-9", "1e-25", "-1e-25"]),
)
def test_the_quick_way_rounds_as_rationals_do(value, quarter, nudge):
    # From one float32 number to the next in quarters, and beside them by more and by less than float64 can tell.
    here, there = Fraction(value), Fraction(float(np.nextafter(np.float32(value), np.float32(0))))
    with localcontext() as context:
        context.prec = 40
        exact_ = here + (there - here) * quarter / 4
        near = (Decimal(exact_.numerator) / Decimal(exact_.denominator)) * (1 + Decimal(nudge))
    try:
        text = format_decimal(near)
        wanted = round_float32(exact(text))
    except (AuditorError, EncodingError, Schema):
        return
    found = nearest_float32(text)
    assert (found.tobytes(), type(found)) == (wanted.tobytes(), np.float32)


def test_the_ends_of_the_range():
    largest = np.finfo(np.float32).max
    assert nearest_float32("3.4028235e38") == largest
    assert nearest_float32("-3.40282356e38") == -largest
    assert nearest_float32("1e-46") == 0
    for text in ("3.5e38", "-1e39"):
        with pytest.raises(AuditorError, match="beyond"):
            nearest_float32(text)


@pytest.mark.parametrize("text", ["", "nan", "inf", "-Infinity", "1e999999999", "1_0", "1" * 65, "1e401"])
def test_what_is_no_sensible_decimal(text):
    with pytest.raises(Schema):
        exact(text)


@given(st.fractions(min_value=-(10**6), max_value=10**6), st.integers(1, 8))
def test_decimals_are_rounded_down(value, digits):
    shown = Fraction(decimal_below(value, digits=digits))
    assert shown <= value
    assert value - shown <= abs(value) * Fraction(10) ** (1 - digits)


@given(ROWS, st.integers(0, 3), st.floats(0, 10, width=32))
def test_a_cap_is_the_float32_formula(rows, klass, margin):
    klass %= rows.shape[1]
    capped = cap_rows(rows, [Cap(klass=klass, margin=format_float32(margin))])
    for before, after in zip(rows, capped, strict=True):
        best = max(value for place, value in enumerate(before) if place != klass)
        assert after[klass] == min(before[klass], np.float32(best) - np.float32(margin))
        assert (np.delete(after, klass) == np.delete(before, klass)).all()


def test_caps_are_measured_against_the_classes_without_one():
    # One after the other against all others, class 1's cap would have let class 0 lead again: [1, 0, 1].
    rows = np.array([[3, 2, 1]], np.float32)
    caps = [Cap(klass=0, margin="1"), Cap(klass=1, margin="1")]
    assert cap_rows(rows, caps).tolist() == [[0, 0, 1]]
    assert rows.tolist() == [[3, 2, 1]]


def test_a_margin_at_the_end_of_the_range():
    rows = cap_rows(np.array([[1, -3e38]], np.float32), [Cap(klass=0, margin="3e38")])
    assert rows[0, 0] == -np.inf
    assert not leads(rows, np.array([0]), "0").any()
    assert trails(rows, np.array([0]), "1e38").all()
    assert satisfies(rows[0], [["-1", "0"]], ["1e39"])
    assert not satisfies(rows[0], [["1", "0"]], ["-1e39"])
    with pytest.raises(AuditorError, match="NaN"):
        leads(np.array([[np.nan, 1]], np.float32), np.array([0]), "0")


@given(ROWS, st.integers(0, 3), st.decimals(-10, 10, places=3))
def test_leads_and_trails_are_the_rational_comparison(rows, klass, margin):
    klass %= rows.shape[1]
    classes = np.full(len(rows), klass)
    needed, spelt = Fraction(margin), format_decimal(margin)
    for row, first, last in zip(rows, leads(rows, classes, spelt), trails(rows, classes, spelt), strict=True):
        gaps = [Fraction(float(row[klass])) - Fraction(float(v)) for i, v in enumerate(row) if i != klass]
        assert first == all(gap >= needed for gap in gaps)
        assert last == any(-gap >= needed for gap in gaps)


def test_a_margin_that_float64_would_round_away():
    rows = np.array([[2.0**60, 2.0**-60]], np.float32)
    # The exact lead is 2^60 - 2^-60: float64 would call it 2^60.
    assert not leads(rows, np.array([0]), str(2**60))
    assert leads(rows, np.array([0]), str(2**60 - 1))


@pytest.mark.parametrize("classes", [[0], [0, 2], [0, -1]])
def test_classes_that_do_not_fit(classes):
    with pytest.raises(AuditorError, match="one class per row"):
        leads(np.zeros((2, 2), np.float32), np.array(classes), "0")


def test_no_rows_at_all():
    assert leads(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), "0").shape == (0,)


def test_equality_with_claimed_decimals():
    row = np.array([0.1, -0.0, 3], np.float32)
    assert equals_claim(row, ["0.1", "0", "3"])
    assert not equals_claim(row, ["0.10000001", "0", "3"]) or np.float32("0.10000001") == np.float32(0.1)
    assert not equals_claim(row, ["0.1", "0", "3.0000003"])
    assert not equals_claim(row, ["0.1", "0"])


@given(ROWS)
def test_a_row_equals_its_own_decimals(rows):
    assert all(equals_claim(row, [format_float32(value) for value in row]) for row in rows)


def test_linear_properties():
    row = np.array([1, 2], np.float32)
    assert satisfies(row, [["-1", "1"], ["0.5", "0"]], ["1", "0.5"])
    assert not satisfies(row, [["-1", "1"]], ["1.0000000000000000000001"])
    for matrix, bound in (([["1"]], ["0"]), ([["1", "1"]], [])):
        with pytest.raises(AuditorError, match="one coefficient per class"):
            satisfies(row, matrix, bound)


def test_distinct_rows_go_by_bits():
    rows = np.array([[1, 0], [2, 0], [1, 0], [1, -0.0]], np.float32)
    assert distinct_rows(rows).tolist() == [0, 1, 0, 3]
