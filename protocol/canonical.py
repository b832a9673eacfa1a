"""Strict JSON: one accepted reading of any bytes, one way of writing any value.

Proves: a value that parses had no duplicate keys, no floats, no over-large integers, no
excessive depth, and (where asked) exactly the spelling that `to_bytes` writes. Assumes
nothing about the sender. Does not know what the fields mean; see `Fields` and `messages/`.
Source: SPEC 2.1, 2.2 (JSON), RFC 8259; RFC 8785 is used for digests of content only (`jcs_digest`).
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

from protocol.encoding import is_hex
from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32
"""Arrays and objects inside each other, the outermost included; the same for reading and writing."""
# A string (up to the end of the text if it is not closed) or one bracket.
_STRUCTURE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
T = TypeVar("T")


def _refuse_float(text: str) -> Any:
    raise Schema(f"the number {text[:40]} is not an integer; real numbers are decimal strings here")


def _integer(text: str) -> int:
    # Length first: int() of a long digit string is quadratic and has its own limit (and error) in CPython.
    if len(text) > 17 or abs(value := int(text)) > MAX_INTEGER:
        raise Schema(f"the integer {text[:20]} is outside +-(2^53 - 1)")
    if text == "-0":
        raise NonCanonical("-0 is not a spelling of 0")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise Schema(f"the key {twice[:40]!r} occurs twice in one object")
    return result


def _check_depth(text: str) -> None:
    # Done on the text, so that the parser (which recurses) never sees deep nesting. Up to the first
    # mistake in the text this counts what the parser counts, and the parser stops there.
    depth = 0
    for match in _STRUCTURE.finditer(text):
        token = match[0]
        if token in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise TooLarge(f"nested more than {MAX_DEPTH} deep")
        elif token in ("]", "}"):
            depth -= 1


def parse_json(data: bytes, *, limit: int, where: str = "", canonical: bool = False) -> Any:
    """Read one JSON value.

    Args:
        data: the bytes, nothing before or after the value but JSON white space.
        limit: largest accepted length in bytes.
        where: what to name in an error.
        canonical: also demand that `to_bytes` of the value gives back exactly `data`.

    Raises:
        MalformedError: with the reason; no other exception leaves this function.
    """
    try:
        if len(data) > limit:
            raise TooLarge(f"{len(data)} bytes, at most {limit} are accepted")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedError(f"not UTF-8 at byte {error.start}") from None
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(text)
        try:
            value = json.loads(
                text,
                object_pairs_hook=_object,
                parse_float=_refuse_float,
                parse_constant=_refuse_float,
                parse_int=_integer,
            )
        except json.JSONDecodeError as error:
            raise MalformedError(f"not JSON: {error.msg} at character {error.pos}") from None
        if canonical or "\\u" in text:
            try:
                spelled = _dump(value)
            except UnicodeEncodeError:
                # An escape like \ud800 alone is JSON, but no text: whoever encodes it later would fail.
                raise Schema("a string holds a lone surrogate, which UTF-8 cannot spell") from None
            if canonical and spelled != data:
                raise NonCanonical("not in the one accepted spelling (sorted keys, no white space, UTF-8)")
    except MalformedError as error:
        error.at(where)
        raise
    return value


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _check_value(value: Any, depth: int) -> None:
    if value is None or isinstance(value, (bool, str)):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise EncodingError("an integer is outside +-(2^53 - 1)")
    elif depth == MAX_DEPTH and isinstance(value, (dict, list, tuple)):
        raise EncodingError(f"nested more than {MAX_DEPTH} deep")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise EncodingError(f"the key {key!r} is not a string")
            _check_value(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_value(item, depth + 1)
    else:
        raise EncodingError(f"{type(value).__name__} has no JSON form here; real numbers are decimal strings")


def to_bytes(value: Any) -> bytes:
    """Write `value` (objects, arrays, strings, integers, booleans, null) in the one accepted spelling.

    Raises:
        EncodingError: for floats, large integers, other types, depth, or lone surrogates.
    """
    _check_value(value, 0)
    try:
        return _dump(value)
    except UnicodeEncodeError:
        raise EncodingError("a string holds a lone surrogate, which UTF-8 cannot spell") from None


class Fields:
    """Reads one JSON object field by field; refuses what is missing, unknown or of the wrong type.

    Used as a context manager, it checks on leaving that no field was left unread, and names itself
    as the place of a `MalformedError` raised inside that names none:

        with Fields(value, where="request") as fields:
            scope = fields.text("scope")
    """

    def __init__(self, value: Any, *, where: str = "") -> None:
        if not isinstance(value, dict):
            raise Schema("not an object", where=where)
        self._left = dict(value)
        self._where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.done()
        elif isinstance(error, MalformedError):
            error.at(self._where)

    def done(self) -> None:
        """Refuse fields that nobody asked for.

        Raises:
            Schema: naming the first of them.
        """
        if self._left:
            raise Schema(f"unknown field {min(self._left)[:60]!r}", where=self._where)

    def has(self, name: str) -> bool:
        """Whether the optional field `name` is there and was not read yet."""
        return name in self._left

    def any(self, name: str) -> Any:
        """Take a field of any type."""
        if name not in self._left:
            raise Schema(f"the field {name!r} is missing", where=self._where)
        return self._left.pop(name)

    def _typed(self, name: str, kind: type[T], word: str) -> T:
        value = self.any(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Schema(f"the field {name!r} is not {word}", where=self._where)
        return value

    def text(self, name: str, *, choices: tuple[str, ...] = (), longest: int = 4096) -> str:
        """Take a string of at most `longest` characters, one of `choices` if given."""
        value = self._typed(name, str, "a string")
        if len(value) > longest:
            raise TooLarge(f"the field {name!r} has {len(value)} characters, at most {longest}", where=self._where)
        if choices and value not in choices:
            raise Schema(f"the field {name!r} is {value[:40]!r}, not one of {', '.join(choices)}", where=self._where)
        return value

    def integer(self, name: str, *, low: int = 0, high: int = MAX_INTEGER) -> int:
        """Take an integer between `low` and `high`, both included."""
        value = self._typed(name, int, "an integer")
        if not low <= value <= high:
            raise Schema(f"the field {name!r} is {value}, not in {low}..{high}", where=self._where)
        return value

    def flag(self, name: str) -> bool:
        """Take a boolean."""
        return self._typed(name, bool, "true or false")

    def flag_or(self, name: str, word: str) -> bool | str:
        """Take a boolean, or one word that says more than true."""
        value = self.any(name)
        if not isinstance(value, bool) and value != word:
            raise Schema(f"the field {name!r} is not true, false or {word!r}", where=self._where)
        return value  # type: ignore[no-any-return]

    def hex(self, name: str, *, length: int = 32) -> str:
        """Take `length` bytes in lower-case hexadecimal."""
        value = self._typed(name, str, "a string")
        if not is_hex(value, length):
            raise Schema(f"the field {name!r} is not {length} bytes in lower-case hexadecimal", where=self._where)
        return value

    def array(self, name: str, *, longest: int = 100_000) -> list[Any]:
        """Take an array of at most `longest` elements."""
        value = self._typed(name, list, "an array")
        if len(value) > longest:
            raise TooLarge(f"the field {name!r} has {len(value)} elements, at most {longest}", where=self._where)
        return value

    def object(self, name: str) -> "Fields":
        """Take a nested object as a reader of its own; the caller closes it."""
        return Fields(self.any(name), where=f"{self._where}.{name}" if self._where else name)

    def each(self, name: str, read: Callable[["Fields"], T], *, longest: int = 100_000) -> tuple[T, ...]:
        """Take an array of objects, each read by `read`."""
        return tuple(self._each(name, read, longest))

    def _each(self, name: str, read: Callable[["Fields"], T], longest: int) -> Iterator[T]:
        for index, value in enumerate(self.array(name, longest=longest)):
            place = f"{self._where}.{name}[{index}]" if self._where else f"{name}[{index}]"
            with Fields(value, where=place) as fields:
                yield read(fields)
