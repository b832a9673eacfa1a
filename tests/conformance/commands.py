"""Programs under test: a command line in a process of its own, or one of ours in this process.

Both give the same thing back. What is in this process is looked at as strictly: an exception that leaves the program
is a crash.
"""

import contextlib
import io
import json
import shlex
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

REASONS = {
    4: {
        "malformed", "non-canonical", "schema", "unsupported-version", "too-large", "unverifiable", "unknown-key",
        "bad-signature", "digest-mismatch", "inclusion", "no-quorum", "expired", "rollback",
    },
    3: {"consistency", "refused"},
    2: {"usage"},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a program did. `code` is None if it did not end in time."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def answer(self) -> dict[str, Any] | None:
        """The last line of standard output, if it is a JSON object."""
        lines = self.out.strip().splitlines()
        try:
            value = json.loads(lines[-1]) if lines else None
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    @property
    def crashed(self) -> str:
        """Why this is a crash whatever was expected; empty if it is none."""
        if self.code is None:
            return "did not end in time"
        if self.code < 0:
            return f"was ended by signal {-self.code}"
        if "Traceback (most recent call last)" in self.err:
            return f"crashed: {self.err.strip().splitlines()[-1][:200]}"
        if self.code == 1 or self.code not in (0, 2, 3, 4, 5):
            return f"ended with {self.code}, which is a bug of the program: {self.err.strip()[-200:]}"
        return ""


class Program(Protocol):
    """Runs a program once."""

    quick: bool

    def __call__(self, arguments: Sequence[str]) -> Ran:
        """Run it with these arguments."""


@dataclass(frozen=True)
class External:
    """A command line, run in a process of its own."""

    command: tuple[str, ...]
    limit: float = 60.0
    quick: bool = False

    @classmethod
    def parse(cls, command: str, *, limit: float) -> "External":
        """A command as a shell would split it."""
        return cls(tuple(shlex.split(command)), limit)

    def __call__(self, arguments: Sequence[str]) -> Ran:
        start = time.monotonic()
        try:
            ran = subprocess.run(
                [*self.command, *arguments],
                capture_output=True,
                timeout=self.limit,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Ran(code=None, out="", err="", seconds=time.monotonic() - start)
        out, err = ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")
        return Ran(code=ran.returncode, out=out, err=err, seconds=time.monotonic() - start)


@dataclass(frozen=True)
class InProcess:
    """A click program of ours; importing torch is paid for once."""

    main: Callable[..., Any]
    name: str
    quick: bool = True

    def __call__(self, arguments: Sequence[str]) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        code, start = 0, time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                self.main(args=list(arguments), prog_name=self.name, standalone_mode=True)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except Exception:  # noqa: BLE001 - what a process would print and end with 1
                traceback.print_exc(file=err)
                code = 1
        return Ran(code=code, out=out.getvalue(), err=err.getvalue(), seconds=time.monotonic() - start)


def ours(name: str) -> Program:
    """`prune-auditor` or `prune-owner` in this process."""
    if name == "prune-auditor":
        import auditor.cli

        return InProcess(auditor.cli.main.main, name)
    import owner.cli

    return InProcess(owner.cli.main.main, name)
