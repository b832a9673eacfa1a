import base64
import datetime as dt
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.encoding import (
    decode_base64,
    encode_base64,
    format_decimal,
    format_float32,
    format_time,
    is_hex,
    parse_decimal,
    parse_float32,
    parse_time,
)
from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema
from tests.protocol.samples import times

floats = st.floats(width=32, allow_nan=False, allow_infinity=False).map(np.float32)


@given(st.binary())
def test_base64_round_trip(data):
    text = encode_base64(data)
    assert decode_base64(text) == decode_base64(text, url_safe=True) == data
    assert decode_base64(base64.urlsafe_b64encode(data).decode(), url_safe=True) == data


@given(st.text("AB/+-_= \n\rQg", max_size=9) | st.text(max_size=9), st.booleans())
def test_base64_has_one_spelling_in_each_alphabet(text, url_safe):
    try:
        data = decode_base64(text, url_safe=url_safe)
    except MalformedError:
        return
    spellings = {encode_base64(data), base64.urlsafe_b64encode(data).decode() if url_safe else encode_base64(data)}
    assert text in spellings


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("AB==", NonCanonical),  # decodes like AA==
        ("AAB=", NonCanonical),
        ("AA=", Schema),
        ("AA", Schema),
        ("A", Schema),
        ("AAAA\n", Schema),
        (" AAAA", Schema),
        ("AA==AA==", Schema),
        ("AAAA====", NonCanonical),
        ("é", Schema),
        ("\ud800", Schema),
        ("-_-_", Schema),
    ],
)
def test_base64_refused(text, error):
    with pytest.raises(error) as caught:
        decode_base64(text, where="sig")
    assert caught.value.where == "sig"


def test_base64_alphabets_do_not_mix():
    assert decode_base64("-_-_", url_safe=True) == decode_base64("+/+/", url_safe=True) == b"\xfb\xff\xbf"
    for text in ("+_+_", "-/-/"):
        with pytest.raises(Schema):
            decode_base64(text, url_safe=True)
    with pytest.raises(NonCanonical):
        decode_base64("_-==", url_safe=True)


@given(st.binary(max_size=40), st.integers(0, 40))
def test_hex(data, length):
    assert is_hex(data.hex(), length) == (len(data) == length)
    assert not is_hex(data, length)
    assert not is_hex(data.hex() + "G\n", len(data) + 1)


@pytest.mark.parametrize("value", [None, 1, ["ab"] * 32, {}, "AB" * 32, "ab" * 31 + "a\n", "٠" * 64])
def test_not_hex(value):
    assert not is_hex(value)


@given(times)
def test_time_round_trip(seconds):
    text = format_time(seconds)
    assert parse_time(text) == seconds
    assert dt.datetime.fromisoformat(text).timestamp() == seconds


@given(st.from_regex(r"[0-3]\d\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-6]\d:[0-6]\dZ", fullmatch=True) | st.text(max_size=25))
def test_time_has_one_spelling(text):
    try:
        seconds = parse_time(text)
    except Schema:
        return
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T08:00:00+00:00",
        "2026-11-21t08:00:00z",
        "2026-11-21 08:00:00Z",
        "2026-11-21T08:00:00.0Z",
        "2026-11-21T08:00Z",
        "2026-11-21T24:00:00Z",
        "2016-12-31T23:59:60Z",
        "2026-02-29T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "-001-01-01T00:00:00Z",
        "２０２６-11-21T08:00:00Z",
        "2026-11-21T08:00:00Z\n",
        "",
    ],
)
def test_time_refused(text):
    with pytest.raises(Schema) as caught:
        parse_time(text, where="file")
    assert caught.value.where == "file"


@pytest.mark.parametrize("seconds", [-62135596801, 253402300800, 10**30, -(10**30)])
def test_time_without_a_year(seconds):
    with pytest.raises(EncodingError):
        format_time(seconds)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40))
def test_decimal_round_trip(value):
    try:
        text = format_decimal(value)
    except EncodingError:
        assert len(value.as_tuple().digits) > 20 or abs(value.adjusted()) > 400
        return
    assert Fraction(parse_decimal(text)) == Fraction(value)


@given(st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{1,4})?(e-?[0-9]{1,3})?", fullmatch=True) | st.text("-+.e019_ ", max_size=9))
@example("100")
@example("1e2")
@example("-0")
@example("1e-400")
def test_decimal_has_one_spelling(text):
    try:
        value = parse_decimal(text)
    except MalformedError:
        return
    assert format_decimal(value) == text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1e2", NonCanonical),
        ("1.50", NonCanonical),
        ("1.0", NonCanonical),
        ("01", NonCanonical),
        ("-0", NonCanonical),
        ("0e5", NonCanonical),
        ("0.0", NonCanonical),
        ("15e14", NonCanonical),
        ("1e07", NonCanonical),
        ("0.00000000000001", NonCanonical),
        ("1" + "0" * 13, NonCanonical),
        (".5", Schema),
        ("5.", Schema),
        ("+1", Schema),
        ("1E5", Schema),
        ("1e+15", Schema),
        ("1_000", Schema),
        (" 1", Schema),
        ("NaN", Schema),
        ("Infinity", Schema),
        ("١", Schema),
        ("1\n", Schema),
        ("", Schema),
        ("1e401", Schema),
        ("1e-401", Schema),
        ("1e999999999999999999", Schema),
        ("1" * 61, Schema),
    ],
)
def test_decimal_refused(text, error):
    with pytest.raises(error) as caught:
        parse_decimal(text, where="file")
    assert caught.value.where == "file"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1500", 1500),
        ("1000000000000", 10**12),
        ("1e13", 10**13),
        ("-1.25", Decimal("-1.25")),
        ("0.000000000001", Decimal("1e-12")),
        ("1e-13", Decimal("1e-13")),
        ("1.5e-13", Decimal("1.5e-13")),
        ("1e400", Decimal("1e400")),
    ],
)
def test_decimal_spellings(text, value):
    assert parse_decimal(text) == value
    assert format_decimal(value) == text


def test_decimal_is_exact_whatever_the_context():
    value = Decimal("1." + "1" * 40)
    with localcontext() as context:
        context.prec = 5
        assert format_decimal(value) == "1." + "1" * 40
        assert parse_decimal("1." + "1" * 40) == value


@pytest.mark.parametrize(
    "value",
    [
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("1e401"),
        Decimal("1." + "1" * 59),
        pytest.param(10**500 + 1, id="long"),
    ],
)
def test_decimal_without_a_spelling(value):
    with pytest.raises(EncodingError):
        format_decimal(value)


@given(floats)
@example(np.float32(1e-45))
@example(np.float32(3.4028235e38))
@example(np.float32(16777216))
def test_float32_round_trip(value):
    text = format_float32(value)
    assert parse_float32(text) == value
    assert Fraction(parse_decimal(text)) == Fraction(text)  # it is a decimal in its one spelling, too
    assert np.float32(float(text)) == value


@given(floats, st.integers(-3, 3))
def test_float32_shortest_is_the_only_spelling(value, shift):
    text = format_float32(value)
    digits = text.split("e")[0]
    near = digits[:-1] + str((int(digits[-1]) + shift) % 10) + text[len(digits) :]
    try:
        again = parse_float32(near)
    except MalformedError:
        return
    assert format_float32(again) == near


def test_zero_has_no_sign():
    assert format_float32(np.float32(-0.0)) == format_float32(0.0) == "0"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1e39", Schema),
        ("-1e400", Schema),
        ("1e999", Schema),
        ("3.4028236e38", Schema),
        ("nan", Schema),
        ("1" * 61, Schema),
        ("1e-60", NonCanonical),
        ("0.10000000149011612", NonCanonical),
        ("0.1000000015", NonCanonical),
        ("1.0", NonCanonical),
        ("28874659e15", NonCanonical),  # reading it through float64 rounds twice
    ],
)
def test_float32_refused(text, error):
    with pytest.raises(error):
        parse_float32(text)


@pytest.mark.parametrize("value", [np.float32("nan"), np.float32("inf"), -np.inf, 1e39])
def test_float32_without_a_spelling(value):
    with pytest.raises(EncodingError):
        format_float32(value)
