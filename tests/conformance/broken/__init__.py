"""Deliberately broken programs: each breaks one rule, and the kit must fail each for that.

A module here has a docstring that says which rule, `patch(put)`, which replaces one thing in the reference program by
`put(module, name, value)`, and `FAILS`, the cases that have to notice. As a program:
`python -m tests.conformance.broken.<name> verify-receipt ...`, from the top of the repository.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

Put = Callable[[Any, str, Any], None]


def names() -> list[str]:
    """All broken programs."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Any:
    """One of them."""
    return importlib.import_module(f"{__name__}.{name}")


def start(patch: Callable[[Put], None], program: str = "prune-auditor") -> None:
    """Run the reference program with one thing replaced."""
    patch(setattr)
    if program == "prune-owner":
        from owner.cli import main
    else:
        from auditor.cli import main
    main()
