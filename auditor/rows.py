"""Exact decisions about logit rows: caps, margins, equality with claimed decimals.

Proves: that a float32 row, after the patch's caps have been applied with float32 arithmetic,
has a claimed property. Every comparison with a claimed real number is made between rationals,
so no margin is won or lost to rounding. Assumes rows of finite float32 numbers. Does not know
for which inputs a row is the output; that is `auditor.bounds`.

Source: SPEC 7.9, 11.2, 11.3.
"""

import struct
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float32, Integer

from protocol.encoding import format_decimal, parse_decimal, parse_float32
from protocol.errors import AuditorError
from protocol.model.patch import Cap

_SMALLEST_NORMAL, _LARGE = 2.0**-126, 2.0**127
_DOUBLE, _BITS = struct.Struct("<d"), struct.Struct("<Q")
_LOST, _MIDDLE = (1 << 29) - 1, 1 << 28
_BELOW_ALL = Fraction(-(10**1000))


def exact(text: str) -> Fraction:
    """The rational number that a decimal string spells.

    Raises:
        Schema: not the one spelling of a finite decimal of sensible length and exponent.
    """
    return Fraction(parse_decimal(text))


def round_float32(value: Fraction) -> np.float32:
    """The float32 nearest to a rational number, ties to even; never rounded twice.

    Raises:
        AuditorError: it would round to infinity.
    """
    if abs(value) >= Fraction(2**25 - 1) * 2**103:
        raise AuditorError("a number is beyond the range of float32")
    with np.errstate(over="ignore"):  # the guess, or its neighbour, may be infinite; the answer is not
        guess = np.float32(float(value))
        # float64 on the way can put the guess one step off, never two.
        around = [guess, np.nextafter(guess, np.float32(-np.inf)), np.nextafter(guess, np.float32(np.inf))]

    def rank(candidate: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(candidate)) - value), int(candidate.view(np.uint32)) & 1

    return min((candidate for candidate in around if np.isfinite(candidate)), key=rank)


def nearest_float32(text: str) -> np.float32:
    """The float32 nearest to a decimal string.

    Rounded twice, by way of float64, where that cannot matter: float64 holds every middle between two float32 numbers,
    so rounding to it never crosses one, and a number that does not land on a middle is on the right side of it.

    Raises:
        Schema: not a finite decimal in its one spelling.
        AuditorError: beyond the range of float32.
    """
    value = parse_decimal(text)
    near = float(value)
    # Normal numbers of float32 with room at both ends; the last 29 bits of a middle are a one and zeros.
    if _SMALLEST_NORMAL <= abs(near) <= _LARGE and _BITS.unpack(_DOUBLE.pack(near))[0] & _LOST != _MIDDLE:
        return np.float32(near)
    return round_float32(Fraction(value))


def decimal_below(value: Fraction, *, digits: int = 6) -> str:
    """A decimal string of at most `digits` significant digits, not above `value`."""
    context = Context(prec=digits, rounding=ROUND_FLOOR)
    return format_decimal(context.divide(Decimal(value.numerator), Decimal(value.denominator)))


def distinct_rows(rows: Float32[np.ndarray, "row class"]) -> Integer[np.ndarray, " row"]:
    """Index of the first row with the same bits, for every row."""
    bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
    _, first, inverse = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    result: Integer[np.ndarray, " row"] = first[inverse.reshape(-1)]
    return result


def cap_rows(rows: Float32[np.ndarray, "row class"], caps: Sequence[Cap]) -> Float32[np.ndarray, "row class"]:
    """What the patch's caps make of each row: min(row_c, fl(max of the classes without a cap - margin))."""
    capped = np.array(rows, np.float32)
    for cap in caps:
        others = np.delete(capped, [other.klass for other in caps], axis=1).max(axis=1)
        # A huge margin may overflow to -inf; the program does the same, so it is not an error here.
        with np.errstate(over="ignore"):
            limit = others - nearest_float32(cap.margin)
        capped[:, cap.klass] = np.minimum(capped[:, cap.klass], limit)
    return capped


def leads(
    rows: Float32[np.ndarray, "record class"], klass: Integer[np.ndarray, " record"], margin: str
) -> Bool[np.ndarray, " record"]:
    """Whether class `klass` exceeds every other class by at least `margin`, exactly.

    With a margin of 0 a tie counts as leading; a claim that wants the argmax itself needs a
    margin above 0.
    """
    needed = exact(margin)
    return np.array([lead >= needed for lead in _leads(rows, klass)], np.bool_)


def trails(
    rows: Float32[np.ndarray, "record class"], klass: Integer[np.ndarray, " record"], margin: str
) -> Bool[np.ndarray, " record"]:
    """Whether some other class exceeds class `klass` by at least `margin`, exactly."""
    needed = exact(margin)
    return np.array([-lead >= needed for lead in _leads(rows, klass)], np.bool_)


def _rational(value: float) -> Fraction:
    # A cap whose margin is near the end of float32's range makes -inf: below everything that can be claimed.
    return _BELOW_ALL if value == -np.inf else Fraction(value)


def _leads(rows: Float32[np.ndarray, "record class"], klass: Integer[np.ndarray, " record"]) -> list[Fraction]:
    """Own logit less the greatest other one, as rationals."""
    if np.isnan(rows).any() or (rows == np.inf).any():
        raise AuditorError("a logit row holds NaN or infinity")
    if len(rows) != len(klass) or (len(klass) and not (klass.min() >= 0 and klass.max() < rows.shape[1])):
        raise AuditorError("one class per row, and no class that the model does not have")
    others = np.array(rows, np.float32)
    index = np.arange(len(rows))
    own = others[index, klass]
    others[index, klass] = -np.inf
    best = others.max(axis=1)
    return [_rational(a) - _rational(b) for a, b in zip(own.tolist(), best.tolist(), strict=True)]


def equals_claim(row: Float32[np.ndarray, " class"], claimed: Sequence[str]) -> bool:
    """Whether each logit is the float32 nearest to its claimed decimal string (0 and -0 are the same number)."""
    return len(claimed) == row.size and all(
        bool(value == nearest_float32(text)) for value, text in zip(row, claimed, strict=True)
    )


def satisfies(row: Float32[np.ndarray, " class"], matrix: Sequence[Sequence[str]], bound: Sequence[str]) -> bool:
    """Whether `matrix @ row >= bound` holds in every line, in rational arithmetic.

    Args:
        row: finite logits.
        matrix: coefficients as float32 texts, one line per inequality and one entry per class.
        bound: decimal right-hand sides.

    Raises:
        AuditorError: shapes that do not fit.
        Schema: a number that is not in its one spelling.
    """
    if len(matrix) != len(bound) or any(len(line) != row.size for line in matrix):
        raise AuditorError("a linear property needs one coefficient per class and one bound per line")
    values = [_rational(value) for value in row.tolist()]
    return all(
        sum(
            (Fraction(float(parse_float32(weight))) * value for weight, value in zip(line, values, strict=True)),
            Fraction(0),
        )
        >= exact(right)
        for line, right in zip(matrix, bound, strict=True)
    )
