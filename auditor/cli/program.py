"""What every command of `prune-auditor` shares: errors as exit codes, options, files as a user names them.

Holds no command; modules beside this one do, by group, and none of them imports another.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import click

from auditor.engine import BACKENDS, DEVICES, Device, Engine
from protocol.encoding import parse_time
from protocol.errors import AuditorError, Error, MalformedError, VerificationError

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


class Time(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A UTC time as the messages spell it, in seconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read one; our message becomes a usage error."""
        if isinstance(value, int):
            return value
        try:
            return parse_time(str(value))
        except MalformedError as error:
            self.fail(error.message, param, ctx)


def fail(error: Error, code: int) -> NoReturn:
    """Print an error as one line and leave with this exit code."""
    click.echo(f"prune-auditor: {error}", err=True)
    _reason(error.reason, error.where)
    sys.exit(code)


def _reason(reason: str, at: str = "") -> None:
    # For other programs, who cannot read a sentence: tests/conformance/CLI_PROTOCOL.md.
    if Program.as_json:
        click.echo(json.dumps({"reason": reason, "at": str(Error("", where=at)).removesuffix(": ")}, sort_keys=True))


class Program(click.Group):
    """Turns our errors into one line and an exit code; anything else is our own bug and says so."""

    as_json: ClassVar[bool] = False

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Register a command; options that every command takes by contract are accepted even where they do nothing."""
        click.version_option(package_name="prune-audit", prog_name="prune-auditor")(cmd)
        known = {option for parameter in cmd.params for option in parameter.opts}
        kinds: dict[str, dict[str, Any]] = {
            "--now": {"type": Time()},
            "--seed": {"type": click.IntRange(0)},
            "--force": {"is_flag": True},
            "--resume": {"is_flag": True},
        }
        for option, settings in kinds.items():
            if option not in known:
                cmd.params.append(click.Option([option], expose_value=False, hidden=True, **settings))
        super().add_command(cmd, name)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; a usage error is one line as well."""
        kwargs["standalone_mode"] = False
        given = kwargs["args"] if "args" in kwargs else args[0] if args else None
        Program.as_json = "--json" in (given if given is not None else sys.argv[1:])
        try:
            result = super().main(*args, **kwargs)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            click.echo(f"prune-auditor: {error.format_message()} (see --help)", err=True)
            _reason("usage")
            sys.exit(2)
        except click.Abort:
            sys.exit(130)
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command.

        Exit codes: 0 CONSISTENT or done, 1 our own bug, 2 usage, 3 REFUTED, 4 malformed or unverifiable,
        5 INCONCLUSIVE.
        """
        try:
            return super().invoke(ctx)
        except (MalformedError, VerificationError) as error:
            fail(error, 4)
        except Error as error:
            fail(error, 2)
        except (click.exceptions.ClickException, click.exceptions.Exit, click.exceptions.Abort):
            raise
        except Exception as error:
            click.echo(f"prune-auditor: this is a bug in prune-auditor ({type(error).__name__}: {error})", err=True)
            _reason("bug")
            if "PRUNE_AUDIT_DEBUG" in os.environ:
                raise
            sys.exit(1)


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON line, the last of standard output.")
NOW = click.option(
    "--now", type=Time(), default=None, help="Time to write, for tests and replays.  [default: the clock]"
)
FORCE = click.option("--force", is_flag=True, help="Overwrite what is there.")
KEY = click.option(
    "--key", required=True, type=FILE, help="The auditor's statement key (for witness: the witness key)."
)
LOG = click.option("--log", required=True, type=FOLDER, help="The auditor's log.")
OUT = click.option("--out", required=True, type=PATH, help="What to write.")
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


def with_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Apply options to a command, the first one first in its help."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


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


def clock(now: int | None) -> int:
    """Return the given time, or the clock's."""
    return int(time.time()) if now is None else now


def done(as_json: bool, lines: list[str], **facts: Any) -> None:
    """Print what was done, and the facts as the last line if JSON was asked for."""
    for line in lines:
        click.echo(line)
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))


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
