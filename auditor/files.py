"""Reading the other side's files without trusting them, and writing our own so that nobody sees half of one."""

import os
import shutil
import stat
from functools import partial
from pathlib import Path

from protocol import atomic
from protocol.errors import AuditorError, MalformedError, TooLarge

MARK = "summary.json"
"""What tells an earlier report, even an unfinished one, from a folder of something else."""


def read_file(path: Path, *, limit: int, where: str = "") -> bytes:
    """The bytes of a plain file of at most `limit` bytes.

    Raises:
        MalformedError: not there, a link, not readable, or too large.
    """
    name = where or str(path)
    try:
        # lstat first: opening a pipe would wait for ever, and a link can lead out of the folder.
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            raise MalformedError("is a symbolic link", where=name)
        if not stat.S_ISREG(mode):
            raise MalformedError("is no plain file", where=name)
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise MalformedError(f"cannot be read: {error.strerror}", where=name) from None
    if len(data) > limit:
        raise TooLarge(f"over {limit} bytes", where=name)
    return data


write_atomic = partial(atomic.write_atomic, error=AuditorError)
"""`protocol.atomic.write_atomic`, whose errors are this side's."""


def new_folder(path: Path, *, force: bool) -> None:
    """Make `path`, which must not exist or be empty; with `force` an earlier report there is removed as a whole.

    A file that an earlier report left behind would not be listed by the new one, which nobody could verify then.

    Raises:
        AuditorError: something is there already, or with `force` something that is no report.
    """
    if path.exists() and not path.is_dir():
        raise AuditorError("is a file, a folder is needed", where=str(path))
    filled = path.is_dir() and any(path.iterdir())
    if filled and not force:
        raise AuditorError("exists and is not empty; give --force to overwrite, or another --out", where=str(path))
    if filled and not (path / MARK).is_file():
        raise AuditorError(
            f"holds other files than a report ({MARK} is not there); give another --out", where=str(path)
        )
    try:
        if filled:
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AuditorError(f"cannot be made: {error.strerror}", where=str(path)) from None
