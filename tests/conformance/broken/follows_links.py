"""Follows symbolic links in a log (SPEC 5.7, step 3)."""

from pathlib import Path

from protocol.log import files
from tests.conformance.broken import start

FAILS = ("log/symbolic-link",)


def patch(put):
    def read(path, *, limit, where):
        return path.read_bytes() if path.exists() else None

    def listed(folder):
        for path in sorted(Path(folder).rglob("*")):
            if not path.is_dir():
                yield path.relative_to(folder).as_posix()

    put(files, "read_file", read)
    put(files, "list_files", listed)


if __name__ == "__main__":
    start(patch)
