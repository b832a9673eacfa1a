"""Settings of a method: names and values as given on the command line, read into the method's own dataclass.

A method's settings are a frozen dataclass of numbers and choices with defaults; what is printed in notes and tables
is its `repr`, so that a figure can always be traced to the settings that made it.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import TypeVar

from protocol.errors import OwnerError

T = TypeVar("T")


def _value(name: str, text: str, default: object) -> object:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (KeyError, ValueError):
        raise OwnerError(f"--set {name}={text[:40]}: not a value like {default}") from None
    return text


def parse(kind: type[T], given: Mapping[str, str]) -> T:
    """Read settings, each as its default's type.

    Args:
        kind: the method's dataclass; checks ranges itself.
        given: values by name.

    Raises:
        OwnerError: a name that the method does not have, or a value of another type or out of range.
    """
    known = {entry.name: entry.default for entry in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(given) - set(known)):
        there = ", ".join(f"{name} ({default})" for name, default in known.items()) or "none"
        raise OwnerError(f"--set {unknown[0]}: this method's settings are {there}")
    return kind(**{name: _value(name, text, known[name]) for name, text in given.items()})
