"""Writing files and folders so that nobody ever sees half of one.

A folder grows beside its place, as `.<name>.partial`, and takes its name when it is whole: what was
there before stays until then, and an interrupted run can go on.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from protocol import atomic
from protocol.errors import OwnerError

write_atomic = partial(atomic.write_atomic, error=OwnerError)
"""`protocol.atomic.write_atomic`, whose errors are this side's."""


def read_file(path: Path, *, limit: int = 1 << 31) -> bytes:
    """The bytes of a file.

    Raises:
        OwnerError: it is not there, not readable, or over `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise OwnerError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > limit:
        raise OwnerError(f"over {limit} bytes", where=str(path))
    return data


def check_free(path: Path, *, force: bool) -> None:
    """Refuse a file's place that is taken.

    Raises:
        OwnerError: something is there and `force` was not given, or it is a folder.
    """
    if path.is_dir():
        raise OwnerError("is a folder, a file is needed", where=str(path))
    if os.path.lexists(path) and not force:
        raise OwnerError("exists; give --force to overwrite, or another --out", where=str(path))


def check_free_folder(path: Path, *, force: bool) -> None:
    """Refuse a folder's place that is taken.

    Raises:
        OwnerError: a file, or a folder that is not empty and `force` was not given.
    """
    try:
        if path.exists() and not path.is_dir():
            raise OwnerError("is a file, a folder is needed", where=str(path))
        if path.is_dir() and any(path.iterdir()) and not force:
            raise OwnerError("exists and is not empty; give --force to overwrite, or another --out", where=str(path))
    except OSError as error:
        raise OwnerError(f"cannot be looked at: {error.strerror}", where=str(path)) from None


def partial_folder(path: Path) -> Path:
    """Where the folder `path` grows until it is whole."""
    place = path if path.name and path.name != ".." else path.resolve()
    return place.with_name(f".{place.name}.partial")


def begin_folder(path: Path, *, resume: bool = False) -> Path:
    """An empty folder to fill, or with `resume` the one that an interrupted run left; `finish_folder` puts it in place.

    Raises:
        OwnerError: it cannot be made.
    """
    partial = partial_folder(path)
    try:
        if partial.is_dir() and not resume:
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OwnerError(f"cannot be made: {error.strerror}", where=str(partial)) from None
    return partial


@contextlib.contextmanager
def given_up(partial: Path, *, unless: str = "") -> Iterator[None]:
    """Remove an unfinished folder when filling it fails, unless the file `unless` is in it already."""
    try:
        yield
    except BaseException:
        if not unless or not (partial / unless).exists():
            shutil.rmtree(partial, ignore_errors=True)
        raise


def finish_folder(path: Path) -> None:
    """Give a filled folder its name; an older folder of that name goes only now.

    Raises:
        OwnerError: the file system refuses; both folders are still there then.
    """
    partial = partial_folder(path)
    place = partial.with_name(partial.name.removeprefix(".").removesuffix(".partial"))
    old = partial.with_name(f".{place.name}.old")
    try:
        if old.exists():
            shutil.rmtree(old)
        if place.exists():
            place.rename(old)
        try:
            partial.rename(place)
        except OSError:
            if old.exists():
                old.rename(place)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OwnerError(f"cannot be put in place: {error.strerror}", where=str(path)) from None
