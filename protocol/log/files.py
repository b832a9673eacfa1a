"""A log folder's files: reading with limits, writing that survives a crash, locking.

Assumes a POSIX-like file system where a rename within a folder tree is atomic. What is read is not
believed: only regular files, never more than a limit. `Fetch` is the seam for other transports.
Lock, temporary file and marker live beside the folder, where they are no part of the log.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock, Timeout

from protocol.errors import Error, MalformedError, Schema, TooLarge

Fetch = Callable[[str, int], bytes | None]
"""Gives the bytes at a path relative to the log (at most so many), or None if nothing is there."""
LOCK_SECONDS = 60.0
"""How long to wait for another process before giving up."""
_WRITERS = 8


def beside(folder: Path, suffix: str) -> Path:
    """The path `<folder>.<suffix>`, the same whichever way the folder is spelt."""
    real = folder.resolve()
    return real.with_name(f"{real.name}.{suffix}")


def read_file(path: Path, *, limit: int, where: str) -> bytes | None:
    """Read a regular file of at most `limit` bytes; None if there is none.

    Raises:
        Schema: a link, a folder, a device or a pipe.
        TooLarge: over the limit.
        MalformedError: it cannot be read.
    """
    try:
        # lstat first: opening a pipe would wait for ever, and a link can lead out of the folder.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise Schema("not a regular file", where=where)
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise MalformedError(f"cannot be read: {error.strerror}", where=where) from None
    if len(data) > limit:
        raise TooLarge(f"over {limit} bytes", where=where)
    return data


def folder_fetch(folder: Path, *, planned: Mapping[str, bytes] = MappingProxyType({})) -> Fetch:
    """Read from a folder on disk, or what is about to be written to it.

    Args:
        folder: where the files are.
        planned: bytes by path that take precedence.
    """

    def fetch(path: str, limit: int) -> bytes | None:
        if path in planned:
            return planned[path]
        return read_file(folder / path, limit=limit, where=path)

    return fetch


def list_files(folder: Path) -> Iterator[str]:
    """Every file below `folder` as a `/`-separated relative path, in a fixed order; links are not followed.

    Raises:
        Schema: anything that is neither a regular file nor a folder.
        MalformedError: a folder that cannot be listed.
    """
    left = [""]
    while left:
        base = left.pop()
        try:
            entries = sorted(os.scandir(folder / base), key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise MalformedError(
                f"cannot be listed: {error.strerror}", where=ascii(base)[1:-1] or str(folder)
            ) from None
        for entry in entries:
            path = f"{base}/{entry.name}" if base else entry.name
            if entry.is_dir(follow_symlinks=False):
                left.append(path)
            elif entry.is_file(follow_symlinks=False):
                yield path
            else:
                raise Schema("not a regular file", where=ascii(path)[1:-1])


def _sync_folder(folder: Path) -> None:
    # A rename is durable only when its folder is; systems without O_DIRECTORY cannot (and need not) do this.
    if (flag := getattr(os, "O_DIRECTORY", None)) is not None:
        descriptor = os.open(folder, os.O_RDONLY | flag)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each durably."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def write_atomic(path: Path, data: bytes, *, temporary: Path) -> None:
    """Write a file so that after a crash it is there whole, or as it was before.

    Args:
        path: the file; its folder is made if missing.
        data: its bytes.
        temporary: a path on the same file system that nobody else uses now.
    """
    make_folder(path.parent)
    try:
        _write_durably(str(temporary), data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk every block counts
        raise
    _sync_folder(path.parent)


def _write_durably(path: str, data: bytes) -> None:
    # A new file in any case: what a crashed run left, or a link that somebody put there, is not written to.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileExistsError:
        os.unlink(path)  # noqa: PTH108  (a plain path: thousands are written in one append)
        descriptor = os.open(path, flags, 0o666)
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(root: Path, contents: Mapping[str, bytes]) -> None:
    """Write files that nobody reads yet, many at a time; on return all are durable.

    After a crash any of them may be missing or torn: the caller has to know by other means not to
    believe them (a log: they lie beyond its published size). Waiting for many disk writes at once is
    several times faster than one after the other.

    Args:
        root: the folder below which they are.
        contents: bytes by `/`-separated relative path; folders are made where missing.
    """
    folders = [root / name for name in dict.fromkeys(name.rpartition("/")[0] for name in contents)]
    for folder in folders:
        make_folder(folder)
    base = str(root)
    tasks = [(f"{base}/{name}", data) for name, data in contents.items()]
    count = min(_WRITERS, len(tasks))
    refused: list[BaseException] = []

    def write(start: int) -> None:
        # Every writer has its own share from the beginning: handing over one by one costs more than writing.
        try:
            for path, data in tasks[start::count]:
                if refused:
                    return
                _write_durably(path, data)
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            refused.append(error)

    threads = [threading.Thread(target=write, args=(start,), daemon=True) for start in range(1, count)]
    for thread in threads:
        thread.start()
    write(0)
    for thread in threads:
        thread.join()
    if refused:
        raise refused[0]
    for folder in folders:
        _sync_folder(folder)


def remove(path: Path) -> None:
    """Remove a file durably; nothing happens if there is none."""
    path.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def locked(folder: Path, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold `<folder>.lock`, which every writer of the folder takes.

    Args:
        folder: what is locked; need not exist yet, its parent is made.
        seconds: how long to wait.

    Raises:
        Error: another process holds it all that time; or, from here or from what is done under the lock,
            the system refused to write (a full disk, no permission).
    """
    try:
        path = beside(folder, "lock")
        make_folder(path.parent)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise Error(f"another process has held the lock for {seconds:g} s", where=str(path)) from None
        # The kernel's lock, not the file, is what counts: it ends with its process, however that ends.
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(folder)
        raise Error(f"cannot be written: {error.strerror or error}", where=where) from None
