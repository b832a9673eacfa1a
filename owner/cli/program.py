"""What every command of `prune-owner` shares: options, keys, progress.

Holds no command; modules beside this one do, by group, and none of them imports another.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import click

from owner.refusal import Refused
from protocol import keys
from protocol.device import DEVICES
from protocol.errors import Error, OwnerError
from protocol.program import FILE, FOLDER
from protocol.program import Program as Shared

DEVICE = click.option(
    "--device",
    default="cpu",
    show_default=True,
    type=click.Choice(DEVICES),
    help="Where to train; a GPU adds up in another order, so models differ in rounding.",
)


KEY = click.option("--key", required=True, type=FILE, help="The owner's statement key.")
LOG = click.option("--log", required=True, type=FOLDER, help="The owner's log.")
SEED = click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what is random.")
RESUME = click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
POLICY = click.option("--policy", type=FILE, help="Logs and witnesses that count (C2SP tlog-policy); with --trust.")
TRUST = click.option("--trust", type=FILE, help="Whose signatures count, as what; with --policy.")


class Program(Shared):
    """`prune-owner`. Exit codes beside the common ones: 0 done, 3 refused to sign."""

    title = "prune-owner"
    codes: ClassVar[tuple[tuple[type[Error], int], ...]] = ((Refused, 3), *Shared.codes)


def wanted(records: str | None, subject: str | None, klass: int | None, trigger: str | None) -> Any:
    """What a request or slip is about, of which exactly one is given.

    Raises:
        OwnerError: none or several are given, or the row numbers are none.
    """
    from owner.requests import Wanted

    rows: tuple[int, ...] | None = None
    if records is not None:
        parts = [part.strip() for part in records.split(",")]
        if not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
            raise OwnerError("--records takes row numbers of the data file, from 0, separated by commas")
        rows = tuple(int(part) for part in parts)
    if sum(value is not None for value in (rows, subject, klass, trigger)) != 1:
        raise OwnerError("give exactly one of --records, --subject, --class, --trigger")
    return Wanted(rows=rows, subject=subject, klass=klass, trigger=trigger)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """Shows bars on a terminal while it is open; closed before results are printed."""
    if not sys.stderr.isatty():
        yield lambda _stage, _share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    # Standard output is for results, even when only standard error is a terminal.
    columns = (TextColumn("{task.description:28}"), BarColumn(), TimeRemainingColumn())
    tasks: dict[str, Any] = {}
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:

        def show(stage: str, share: float) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=share, visible=True)

        yield show


def statement_key(path: Path) -> keys.SigningKey:
    """Load a key that signs statements.

    Raises:
        OwnerError: a witness's.
    """
    key = keys.load_signing_key(path)
    if key.use != keys.USES["statement"]:
        raise OwnerError("is a witness's key; statements need their own (keygen --use statement)", where=str(path))
    return key
