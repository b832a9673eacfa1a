"""Writing a file so that nobody ever sees half of one. Logs write many at once: `protocol.log.files`."""

import contextlib
import os
from pathlib import Path

from protocol.errors import Error


def write_atomic(path: Path, data: bytes, *, secret: bool = False, error: type[Error] = Error) -> None:
    """Write `data` to `path`: temporary file, fsync, rename.

    Args:
        path: where to; missing folders are made.
        data: the whole content.
        secret: readable by its owner only.
        error: what to raise.

    Raises:
        Error: of the kind `error`: the disk or the permissions refuse. Nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if secret else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise error(f"cannot be written: {problem.strerror}", where=str(path)) from None
