"""Text spellings of bytes, times and real numbers, each with exactly one accepted form.

Proves: `decode(x)` succeeded, so `encode(decode(x)) == x` (up to the base64 alphabet where both
are allowed). Assumes nothing about the text. Does not know what a number or a time stands for.
Source: SPEC 2; RFC 4648 (base64), RFC 3339 (times).
"""

import base64
import binascii
import datetime as dt
import re
from decimal import Decimal
from typing import TypeGuard

import numpy as np

from protocol.errors import EncodingError, NonCanonical, Schema

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DECIMAL = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:e(-?\d+))?", re.ASCII)
_FLOAT = re.compile(r"(-?)(\d+)\.(\d*)e([+-]\d+)", re.ASCII)
_FLOAT32_END = 2.0**128 - 2.0**103  # from here on (halfway past the largest float32) rounding gives infinity
_HEX = re.compile(r"[0-9a-f]*", re.ASCII)
MAX_DECIMAL = 60
"""Characters of a decimal number."""
MAX_EXPONENT = 400
"""Largest magnitude of a decimal number's power of ten, so that no short text stands for a number of many digits."""


def is_hex(value: object, length: int = 32) -> TypeGuard[str]:
    """Whether `value` is a string of exactly `length` bytes in lower-case hexadecimal."""
    return isinstance(value, str) and len(value) == 2 * length and _HEX.fullmatch(value) is not None


def decode_base64(text: str, *, where: str = "", url_safe: bool = False) -> bytes:
    """Decode padded base64; with `url_safe`, either alphabet (DSSE 1.0.2 asks for both), never a mix.

    `b64decode("AB==") == b64decode("AA==")`, even with `validate=True`: unused bits must be
    zero here, so that no second spelling of a signature exists.

    Raises:
        Schema: not base64. NonCanonical: base64, but not the one spelling.
    """
    plain = text
    if url_safe and ("-" in text or "_" in text):
        if "+" in text or "/" in text:
            raise Schema("mixes the two base64 alphabets", where=where)
        plain = text.replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(plain.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Schema("not base64", where=where) from None
    if base64.b64encode(data).decode() != plain:
        raise NonCanonical("not the one base64 spelling of these bytes", where=where)
    return data


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def parse_time(text: str, *, where: str = "") -> int:
    """Seconds since 1970 of an RFC 3339 time in the one accepted form `2026-11-21T08:00:00Z`.

    Raises:
        Schema: another form, or no such instant (leap seconds included).
    """
    if not _TIME.fullmatch(text):
        raise Schema(f"{text[:40]!r} is not a time of the form 2026-11-21T08:00:00Z", where=where)
    try:
        moment = dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    except ValueError:
        raise Schema(f"{text!r} is not a time that exists", where=where) from None
    return (moment - _EPOCH) // dt.timedelta(seconds=1)


def format_time(seconds: int) -> str:
    """The RFC 3339 form of `seconds` since 1970.

    Raises:
        EncodingError: outside the years 1 to 9999.
    """
    try:
        moment = _EPOCH + dt.timedelta(seconds=seconds)
    except OverflowError:
        raise EncodingError("a number of seconds since 1970 that is no year from 1 to 9999") from None
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _spell(sign: str, digits: str, exponent: int) -> str:
    # The one spelling of +-digits * 10^exponent: no useless zeros, and a power of ten only where writing
    # the number out would take more than 12 zeros before or after its digits.
    digits = digits.lstrip("0")
    kept = digits.rstrip("0")
    if not kept:
        return "0"
    exponent += len(digits) - len(kept)
    first = exponent + len(kept) - 1  # power of ten of the first digit
    if first < -12 or exponent > 12:
        return f"{sign}{kept[0]}{'.' if kept[1:] else ''}{kept[1:]}e{first}"
    if exponent >= 0:
        return sign + kept + "0" * exponent
    if first >= 0:
        return f"{sign}{kept[: first + 1]}.{kept[first + 1 :]}"
    return f"{sign}0.{'0' * (-first - 1)}{kept}"


def parse_decimal(text: str, *, where: str = "") -> Decimal:
    """A real number in its one accepted decimal spelling (`0`, `-1.25`, `1500`, `3e-15`): exact.

    A power of ten is written only for numbers whose first digit stands beyond the twelfth place
    after the point, or that end in more than twelve zeros before it.

    Raises:
        Schema: no number, over 60 characters, or an exponent beyond +-400.
        NonCanonical: a number, spelled otherwise.
    """
    match = _DECIMAL.fullmatch(text) if len(text) <= MAX_DECIMAL else None
    if match is None:
        raise Schema(f"{text[:MAX_DECIMAL]!r} is not a decimal number of at most {MAX_DECIMAL} characters", where=where)
    sign, whole, fraction, power = match.groups(default="")
    exponent = int(power or "0")
    if abs(exponent) > MAX_EXPONENT:
        raise Schema(f"{text!r} has an exponent beyond +-{MAX_EXPONENT}", where=where)
    if _spell(sign, whole + fraction, exponent - len(fraction)) != text:
        raise NonCanonical(f"{text!r} is not the one spelling of this number", where=where)
    return Decimal(text)


def _checked(text: str) -> str:
    power = text.partition("e")[2]
    if len(text) > MAX_DECIMAL or (power and abs(int(power)) > MAX_EXPONENT):
        raise EncodingError(f"a decimal number over {MAX_DECIMAL} characters or an exponent beyond +-{MAX_EXPONENT}")
    return text


def format_decimal(value: Decimal | int) -> str:
    """The spelling that `parse_decimal` accepts, exact whatever the precision of the caller's context.

    Raises:
        EncodingError: not finite, or too long: round it first, in the direction that the claim needs.
    """
    sign, digits, exponent = Decimal(value).as_tuple()
    if not isinstance(exponent, int):
        raise EncodingError(f"{value} has no decimal spelling")
    return _checked(_spell("-" if sign else "", "".join(map(str, digits)), exponent))


def format_float32(value: np.float32 | float) -> str:
    """The shortest decimal that rounds back to this float32 (SPEC 2.4: tensors' entries in claims); -0 is `0`.

    Raises:
        EncodingError: NaN or infinite.
    """
    if isinstance(value, np.float32):
        number = value
    else:
        with np.errstate(over="ignore"):
            number = np.float32(value)
    match = _FLOAT.fullmatch(np.format_float_scientific(number, unique=True))
    if match is None:  # only NaN and infinity are written without a point
        raise EncodingError(f"{number} has no decimal spelling")
    sign, whole, fraction, power = match.groups()
    return _spell(sign, whole + fraction, int(power) - len(fraction))


def parse_float32(text: str, *, where: str = "") -> np.float32:
    """The float32 that `text` is the shortest spelling of.

    Raises:
        Schema: no number, or beyond float32. NonCanonical: not the shortest spelling of its float32.
    """
    if len(text) > MAX_DECIMAL or not _DECIMAL.fullmatch(text):
        raise Schema(f"{text[:MAX_DECIMAL]!r} is not a decimal number of at most {MAX_DECIMAL} characters", where=where)
    wide = float(text)
    if abs(wide) >= _FLOAT32_END:
        raise Schema(f"{text!r} is beyond float32", where=where)
    number = np.float32(wide)
    # Writing it again settles both: that this is the one spelling, and that reading it did not round twice.
    if format_float32(number) != text:
        raise NonCanonical(f"{text!r} is not the shortest spelling of a float32", where=where)
    return number
