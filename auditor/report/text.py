"""Strings of unknown origin and numbers, made fit to be shown.

Assumes: names, messages and evidence may have been chosen by the audited party. Escaping for HTML is not done
here (the template engine and `svg.tag` do it); this is about what escaping leaves: characters that reorder,
hide or stack text, lone surrogates that no encoder takes, and strings without end.
Does not: judge look-alike letters. Digests, not names, say which file is meant.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

LONGEST = 4_000  # characters of one string on the page
SHORT = 120  # of a name, an identifier or a table cell's heading
CELL = 300  # of a table cell
MARKS = 3  # combining marks on one letter: more than any orthography needs, less than a tower
DIGITS = 6  # significant digits in summary.json
_HEX = re.compile(r"[0-9a-f]{16,}")
_SIGNED = re.compile(r"[+−-]?[0-9][0-9.,]*([eE][+−-]?[0-9]+)?( ?%)?")


def clean(text: str, longest: int = LONGEST) -> str:
    """Return a string that shows what it holds: invisible and reordering characters as `‹U+202E›`, then cut.

    Args:
        text: any string, lone surrogates included.
        longest: characters to keep; what was left out is counted in the result.
    """
    kept, marks = [], 0
    for character in text[:longest]:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if character in "\n\t":
            kept.append(" ")
        elif category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            kept.append(f"‹U+{ord(character):04X}›")
        elif marks <= MARKS:
            kept.append(character)
    rest = len(text) - longest
    return "".join(kept) + (f"… ({rest:,} more characters)" if rest > 0 else "")


def is_hex(value: object) -> bool:
    """Whether a value is a digest or key id, to be set in a fixed-width face."""
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def is_number(value: str) -> bool:
    """Whether a table cell is a number, to be set flush right."""
    return _SIGNED.fullmatch(value) is not None


def shown(value: float | str | None) -> str:
    """Return one value as text: four significant digits for a float, thousands separated in an integer.

    Strings are returned as they are: the template engine and `svg.tag` clean every string they write.
    """
    if value is None:
        return "not available"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return (f"{value + 0.0:.4g}" if math.isfinite(value) else "not a finite number").replace("-", "−")


def percent(share: float) -> str:
    """Return a share in [0, 1] as per cent with three significant digits."""
    return f"{100 * share:.3g} %" if math.isfinite(share) else "not a finite number"


def plain(value: Any) -> Any:
    """Return evidence as JSON values: floats with six significant digits, and null where one is not finite.

    Raises:
        TypeError: something that has no JSON form, which is a mistake of the check that reported it.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # lone surrogates have no UTF-8
    if isinstance(value, int):
        return value if value.bit_length() < 64 else hex(value)
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") + 0.0 if math.isfinite(value) else None
    if isinstance(value, Decimal | Fraction):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=repr)
    raise TypeError(f"a report cannot show a {type(value).__name__}")
