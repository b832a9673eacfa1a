"""The manifest of a folder: every file's path, role, size and SHA-256.

Proves (`verify_file`): these bytes are the ones that the manifest lists. Who stands behind the
manifest is the business of the envelope whose subject it is. Paths use `/` only and cannot leave
the folder on any operating system (SPEC 8.1).
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.canonical import Fields, parse_json, to_bytes
from protocol.digests import file_digest, sha256_hex
from protocol.errors import DigestMismatch, MalformedError, Schema, TooLarge, UnsupportedVersion

VERSION = "prune-audit/manifest/v1"
MAX_MANIFEST = 4 << 20
MAX_FILES = 2_000
MAX_FOLDER = 10 * MAX_FILES
"""Files and folders that are looked at before a folder is refused."""
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}", re.ASCII)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file: its path in the folder, what it is for, its size in bytes and its SHA-256 (hexadecimal)."""

    path: str
    role: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A parsed manifest; `raw` are its exact bytes, `refers` names the entry it belongs to (or is empty)."""

    entries: tuple[Entry, ...]
    refers: str
    raw: bytes

    def entry(self, path: str) -> Entry:
        """The entry for `path`.

        Raises:
            Schema: not listed.
        """
        for entry in self.entries:
            if entry.path == path:
                return entry
        raise Schema("not listed in the manifest", where=path)

    def paths(self, role: str) -> tuple[str, ...]:
        """The paths of all files with `role`, in order."""
        return tuple(entry.path for entry in self.entries if entry.role == role)


def check_path(path: str, *, where: str = "manifest.json") -> None:
    """Refuse a path that could mean something else on another system.

    Raises:
        Schema: empty, absolute, `..`, a backslash, a colon, a reserved name, or too deep.
    """
    parts = path.split("/")
    if len(parts) > 4 or not all(_PART.fullmatch(part) and not part.endswith(".") for part in parts):
        raise Schema(f"the path {path[:80]!r} is not accepted (relative, `/` only, plain names)", where=where)
    if any(_RESERVED.fullmatch(part) for part in parts):
        raise Schema(f"the path {path[:80]!r} is a reserved name on some systems", where=where)


def _entry(fields: Fields) -> Entry:
    path = fields.text("path")
    check_path(path, where="")
    return Entry(
        path=path,
        role=fields.text("role", longest=40),
        size=fields.integer("size", high=1 << 40),
        sha256=fields.hex("sha256"),
    )


def _check_clashes(paths: list[str], where: str) -> None:
    if any(first >= second for first, second in itertools.pairwise(paths)):
        raise Schema("the files are not sorted, or one is listed twice", where=where)
    # Every file and every folder by its lower-case path: on some systems two spellings would be one place.
    spelled: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            place = "/".join(parts[:end]) + ("/" if end < len(parts) else "")
            if spelled.setdefault(place.rstrip("/").lower(), place) != place:
                raise Schema(f"{place[:80]!r} clashes with a path that differs only in case or is a file", where=where)


def parse(data: bytes, *, where: str = "manifest.json") -> Manifest:
    """Read a manifest.

    Raises:
        MalformedError: not one, a hostile path, or entries that are unsorted or clash.
    """
    with Fields(parse_json(data, limit=MAX_MANIFEST, where=where, canonical=True), where=where) as fields:
        version = fields.text("version")
        if version != VERSION:
            raise UnsupportedVersion(f"version {version[:40]!r}, this reads {VERSION}", where=where)
        refers = fields.text("refers", longest=64)
        entries = fields.each("files", _entry, longest=MAX_FILES)
    _check_clashes([entry.path for entry in entries], where)
    return Manifest(entries=entries, refers=refers, raw=data)


def build(folder: Path, files: Iterable[tuple[str, str]], *, refers: str = "") -> Manifest:
    """The manifest of `files`, pairs of path and role, under `folder`."""
    entries = []
    for path, role in sorted(files):
        sha256, size = file_digest(folder / path)
        entries.append({"path": path, "role": role, "size": size, "sha256": sha256})
    return parse(to_bytes({"version": VERSION, "refers": refers, "files": entries}))


def read_listed(folder: Path, entry: Entry, *, limit: int) -> bytes:
    """The bytes of a listed file, after checking that they are the listed ones.

    Raises:
        TooLarge: over `limit` bytes. DigestMismatch: other bytes, a link, or no such file.
    """
    if entry.size > limit:
        raise TooLarge(f"{entry.size} bytes, at most {limit} are accepted", where=entry.path)
    path = folder
    for part in entry.path.split("/"):
        path /= part
        if path.is_symlink():
            raise DigestMismatch("is, or lies behind, a symbolic link", where=entry.path)
    try:
        # Only a plain file is opened: a pipe would block. Its size comes first: `read` allocates what it is asked for.
        size = path.stat().st_size if path.is_file() else None
        data = path.read_bytes() if size == entry.size else None
    except OSError as error:
        raise DigestMismatch(f"cannot be read: {error.strerror}", where=entry.path) from None
    if size is None:
        raise DigestMismatch("listed in the manifest, but not there as a plain file", where=entry.path)
    if data is None or sha256_hex(data) != entry.sha256:
        raise DigestMismatch("differs from the SHA-256 in the manifest", where=entry.path)
    return data


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    # Everything under `folder` by its path with `/`, links not followed; nothing is skipped silently.
    pending = [("", folder)]
    while pending:
        prefix, place = pending.pop()
        with os.scandir(place) as found:
            for item in found:
                yield prefix + item.name, item
                if item.is_dir(follow_symlinks=False):
                    pending.append((f"{prefix}{item.name}/", Path(item.path)))


def verify_only_listed(folder: Path, manifest: Manifest, *, others: Iterable[str]) -> None:
    """Refuse files in `folder` that nothing accounts for.

    Args:
        folder: the folder.
        manifest: its manifest.
        others: further accepted paths; one that ends in `/` accepts a whole sub-folder.

    Raises:
        MalformedError: naming such a file, a symbolic link, or what is neither file nor folder.
    """
    known = {entry.path for entry in manifest.entries} | set(others)
    folders = tuple(name for name in known if name.endswith("/"))
    try:
        for count, (name, item) in enumerate(_walk(folder)):
            if count >= MAX_FOLDER:
                raise TooLarge(f"holds more than {MAX_FOLDER} files and folders", where=str(folder))
            if item.is_symlink():
                raise MalformedError("is a symbolic link", where=name)
            if item.is_dir():
                continue
            if not item.is_file():
                raise MalformedError("is no plain file", where=name)
            if name not in known and not name.startswith(folders):
                raise MalformedError("is not listed in the manifest", where=name)
    except OSError as error:
        raise MalformedError(f"cannot be listed: {error.strerror}", where=str(folder)) from None
