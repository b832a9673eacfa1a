"""What both programs tell other programs: exit codes, one line for an error, one line of JSON, options for everybody.

A program that calls `prune-owner` or `prune-auditor` (an implementer's test, a service) goes by the exit code and, with
`--json`, by the last line of standard output: what was done, or `{"reason": ..., "at": ...}`. Nothing but our errors
comes out; what else is raised is a bug here, and is called one. The contract: tests/conformance/CLI_PROTOCOL.md.
"""

import errno
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import click

from protocol.encoding import parse_time
from protocol.errors import Error, MalformedError, VerificationError

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
DEBUG = "PRUNE_AUDIT_DEBUG"
"""In the environment: a bug shows its traceback."""


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


class Program(click.Group):
    """Turns our errors into one line and an exit code.

    Attributes:
        title: the program's name.
        codes: exit codes by kind of error, the first that fits; every other error of ours ends with 2.
    """

    title: ClassVar[str]
    codes: ClassVar[tuple[tuple[type[Error], int], ...]] = ((MalformedError, 4), (VerificationError, 4))
    as_json: ClassVar[bool] = False

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Register a command; options that every command takes by contract are accepted even where they do nothing."""
        click.version_option(package_name="prune-audit", prog_name=self.title)(cmd)
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
            self._say(f"{error.format_message()} (see --help)", "usage")
            sys.exit(2)
        except click.Abort:
            sys.exit(130)
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; its errors become exit codes (2 usage, 4 malformed or unverifiable, 1 our own bug)."""
        try:
            return super().invoke(ctx)
        except Error as error:
            self.fail(error, next((code for kind, code in self.codes if isinstance(error, kind)), 2))
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output went away; click knows what to do
                raise
            self.fail(Error(f"the file system refuses: {error.strerror or error}", where=str(error.filename or "")), 2)
        except MemoryError:
            self.fail(Error("not enough memory for this; use smaller files or a larger machine"), 2)
        except (click.exceptions.ClickException, click.exceptions.Exit, click.exceptions.Abort):
            raise
        except Exception as error:  # the last resort: a readable line instead of a traceback
            self._say(f"this is a bug in {self.title} ({type(error).__name__}: {error})", "bug")
            if DEBUG in os.environ:
                raise
            sys.exit(1)

    @classmethod
    def fail(cls, error: Error, code: int) -> NoReturn:
        """Print an error as one line and leave with this exit code."""
        cls._say(str(error), error.reason, error.where)
        sys.exit(code)

    @classmethod
    def _say(cls, message: str, reason: str, at: str = "") -> None:
        click.echo(f"{cls.title}: {message}", err=True)
        if Program.as_json:  # for other programs, who cannot read a sentence
            facts = {"reason": reason, "at": str(Error("", where=at)).removesuffix(": ")}
            click.echo(json.dumps(facts, sort_keys=True))


def clock(now: int | None) -> int:
    """Return the given time, or the clock's."""
    return int(time.time()) if now is None else now


def done(as_json: bool, lines: list[str], **facts: Any) -> None:
    """Print what was done, and the facts as the last line if JSON was asked for."""
    for line in lines:
        click.echo(line)
    if as_json:
        click.echo(json.dumps(facts, sort_keys=True))


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON line, the last of standard output.")
NOW = click.option(
    "--now", type=Time(), default=None, help="Time to write, for tests and replays.  [default: the clock]"
)
FORCE = click.option("--force", is_flag=True, help="Overwrite what is there.")
OUT = click.option("--out", required=True, type=PATH, help="What to write.")


def with_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Apply options to a command, the first one first in its help."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


KEYGEN = with_options(
    click.argument("name"),
    click.option(
        "--use",
        required=True,
        type=click.Choice(["statement", "log", "witness", "witness-ml-dsa"]),
        help="What the key is for.",
    ),
    click.option(
        "--passphrase", "locked", is_flag=True, help="Protect the secret; asked for, or from the environment."
    ),
    click.option(
        "--signer", help="Command of a signer that has the secret (SPEC 4.6); only its public key is kept here."
    ),
)
"""What both programs' `keygen` takes."""
