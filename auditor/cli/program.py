"""What every command of `prune-auditor` shares: options, files as a user names them.

Holds no command; modules beside this one do, by group, and none of them imports another.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from auditor.engine import BACKENDS, Engine
from protocol.device import DEVICES, Device
from protocol.errors import AuditorError, Error
from protocol.program import FILE, FOLDER, PATH
from protocol.program import Program as Shared


class Program(Shared):
    """`prune-auditor`. Exit codes beside the common ones: 0 CONSISTENT or done, 3 REFUTED, 5 INCONCLUSIVE."""

    title = "prune-auditor"


KEY = click.option(
    "--key", required=True, type=FILE, help="The auditor's statement key (for witness: the witness key)."
)
LOG = click.option("--log", required=True, type=FOLDER, help="The auditor's log.")
POLICY = click.option("--policy", required=True, type=FILE, help="Trusted logs and witnesses (C2SP tlog-policy).")
TRUST = click.option("--trust", required=True, type=FILE, help="Trusted signers (trust.json).")
SEED = click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what no challenge determines."
)
REFERENCE = click.option("--reference", type=FILE, help="Your own data, which the model never saw: .npz with X, y.")
OPENINGS = click.option("--openings", type=FOLDER, help="The owner's answer to the challenge.")
OWNER_LOG = click.option(
    "--owner-log",
    callback=lambda _ctx, _option, text: _place(text),
    help="The owner's log, a folder or an http(s) URL, to check that it only grew.",
)
SHADOWS = click.option(
    "--shadows", "shadow_cache", type=PATH, help="Keep trained shadow models here.  [default: beside --log]"
)
BACKEND = click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Train shadow models on this engine instead of here; the same models come out.",
)
WORKERS = click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1), help="Processes of loky, tasks of ray."
)
DEVICE = click.option(
    "--device",
    default="cpu",
    show_default=True,
    type=click.Choice(DEVICES),
    help="Train shadow models on this, without --backend; a GPU adds up in another order, and the report says so.",
)
SCHEDULER = click.option("--scheduler", help="Address of the running dask scheduler or ray cluster.")


def _place(text: str | None) -> Path | str | None:
    from protocol.log import source

    return source.place(text) if text is not None else None


def engine_of(backend: str | None, workers: int, scheduler: str | None, device: Device) -> Engine | None:
    """Return where shadow models are to be trained; None is here.

    Raises:
        AuditorError: an address without an engine that has one, or the other way round; an engine and a device.
    """
    if backend is not None and device != "cpu":
        raise AuditorError("--backend trains on processors; leave --device away")
    if scheduler is not None and backend not in ("dask", "ray"):
        raise AuditorError("--scheduler is the address of a dask scheduler or ray cluster; give --backend dask or ray")
    if backend == "dask" and scheduler is None:
        raise AuditorError("--backend dask needs --scheduler, the address of a running scheduler")
    if backend is None:
        return None
    return Engine(backend=backend, workers=workers, address=scheduler)  # type: ignore[arg-type]


def progress_bar() -> Callable[[str, float], None]:
    """A bar on a terminal's standard error, with the time left; silent in a pipe."""
    if not sys.stderr.isatty():
        return lambda _stage, _share: None
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from auditor.profile import CHECKS

    # On standard error, and standard output left alone: a result must not be drawn over.
    bar = Progress(
        TextColumn("{task.description:24}"),
        BarColumn(),
        TimeRemainingColumn(),
        transient=True,
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
    main = bar.add_task("starting", total=1.0)
    within: dict[str, TaskID] = {}

    def show(stage: str, share: float) -> None:
        # A stage that is no check is work inside one: a line of its own, with its own time left, while it lasts.
        if stage in CHECKS or stage in ("loading", "done"):
            for task in within.values():
                bar.remove_task(task)
            within.clear()
            bar.update(main, description=stage, completed=share)
            return
        if stage not in within:
            within[stage] = bar.add_task(f"  {stage}", total=1.0)
        bar.update(within[stage], completed=share)

    bar.start()
    click.get_current_context().call_on_close(bar.stop)
    return show


def fresh(out: Path, force: bool) -> None:
    """Refuse to overwrite what is there.

    Raises:
        AuditorError: something is there and `force` was not given.
    """
    if out.exists() and not force:
        raise AuditorError("exists; give --force to overwrite, or another --out", where=str(out))


def read(path: Path, limit: int = 1 << 20) -> bytes:
    """Read a file of at most `limit` bytes."""
    from auditor.files import read_file

    return read_file(path, limit=limit)


def read_policy(path: Path) -> bytes:
    """Read a policy; an error names the file as the user wrote it."""
    from protocol.log import policy as policy_file

    return _checked(path, policy_file.parse)


def read_trust(path: Path) -> bytes:
    """Read a trust file; an error names the file as the user wrote it."""
    from protocol import trust as trust_file

    return _checked(path, trust_file.parse)


def _checked(path: Path, parse: Callable[[bytes], object]) -> bytes:
    # Parsed here only so that an error names the file as the user wrote it.
    data = read(path)
    try:
        parse(data)
    except Error as error:
        error.where = f"{path}, {error.where}" if error.where else str(path)
        raise
    return data
