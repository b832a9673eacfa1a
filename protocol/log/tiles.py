"""Names and contents of a log's static files: hash tiles and entry bundles.

Proves nothing; says what a path means and cuts bytes. Assumes nothing about the sender.
Source: C2SP tlog-tiles v0.1.0. SPEC 5.4.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from protocol.errors import EncodingError, NonCanonical, Schema
from protocol.log.merkle import HASH_SIZE, MAX_TREE_SIZE

HEIGHT = 8
WIDTH = 256
"""Hashes in a full tile, entries in a full bundle."""
MAX_LEVEL = 7
"""Highest tile level of a tree of at most 2^63 - 1 leaves."""
MAX_ENTRY = 65_535
"""Bytes of one entry: its length is written in two bytes."""
MAX_BUNDLE = WIDTH * (2 + MAX_ENTRY)
MAX_PATH = 60
_LENGTH = struct.Struct(">H")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One file of the log.

    Args:
        level: 0 for leaf hashes, up to `MAX_LEVEL`; None for an entry bundle.
        index: number within the level.
        width: hashes or entries in it, 1 to 256 (256 is a full one).
    """

    level: int | None
    index: int
    width: int

    @property
    def path(self) -> str:
        """`tile/<L>/<N>[.p/<W>]`, relative to the log's folder."""
        left, last = divmod(self.index, 1000)
        number = f"{last:03d}"
        while left:
            left, group = divmod(left, 1000)
            number = f"x{group:03d}/{number}"
        suffix = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{number}{suffix}"

    @property
    def full(self) -> "Tile":
        """The full tile in the same place."""
        return Tile(level=self.level, index=self.index, width=WIDTH)

    @property
    def max_bytes(self) -> int:
        """Largest length of the file; the exact one for a hash tile."""
        return self.width * (2 + MAX_ENTRY if self.level is None else HASH_SIZE)


def parse_path(path: str) -> Tile:
    """Read a path relative to the log's folder.

    Raises:
        MalformedError: not the one spelling of a tile's or bundle's path.
    """
    match = re.fullmatch(r"tile/([0-9]|entries)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", path)
    if len(path) > MAX_PATH or match is None:
        raise Schema(f"{path[:80]!r} is not the path of a tile or entry bundle")
    kind, number, width = match.groups()
    level = None if kind == "entries" else int(kind)
    tile = Tile(
        level=level,
        index=int(number.replace("x", "").replace("/", "")),
        width=WIDTH if width is None else int(width),
    )
    if tile.width > WIDTH or (level or 0) > MAX_LEVEL or tile.index > MAX_TREE_SIZE >> HEIGHT:
        raise Schema(f"{path[:80]!r} is outside of any tree")
    if tile.path != path:
        raise NonCanonical(f"{path[:80]!r} is not the one accepted spelling {tile.path!r}")
    return tile


def tile_at(level: int | None, index: int, size: int) -> Tile:
    """Tile number `index` of `level` as a tree of `size` leaves has it: full, or partial at the right edge.

    Raises:
        EncodingError: the tree has no such tile.
    """
    width = min(WIDTH, (size >> HEIGHT * (level or 0)) - index * WIDTH)
    if index < 0 or width < 1:
        raise EncodingError(f"a tree of {size} has no tile {index} at level {level}")
    return Tile(level=level, index=index, width=width)


def tiles_of(size: int) -> Iterator[Tile]:
    """All tiles and bundles that a tree of `size` leaves needs: per level full ones and at most one partial."""
    for level in (None, *range(MAX_LEVEL + 1)):
        count = size >> HEIGHT * (level or 0)
        for index in range(-(-count // WIDTH)):
            yield tile_at(level, index, size)


def split_hashes(data: bytes, tile: Tile) -> list[bytes]:
    """Cut a hash tile.

    Raises:
        Schema: not exactly the tile's width times 32 bytes.
    """
    if len(data) != tile.width * HASH_SIZE:
        raise Schema(f"a tile of {len(data)} bytes, not {tile.width * HASH_SIZE}", where=tile.path)
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]


def check_entries(entries: Sequence[bytes]) -> None:
    """Refuse entries that no bundle can hold.

    Raises:
        EncodingError: an entry over `MAX_ENTRY` bytes.
    """
    longest = max(map(len, entries), default=0)
    if longest > MAX_ENTRY:
        raise EncodingError(f"an entry of {longest} bytes, at most {MAX_ENTRY} fit into a log")


def join_entries(entries: Sequence[bytes]) -> bytes:
    """Write an entry bundle: each entry after its length in two bytes, big-endian.

    Raises:
        EncodingError: an entry over `MAX_ENTRY` bytes.
    """
    check_entries(entries)
    parts = [b""] * (2 * len(entries))
    parts[::2] = map(_LENGTH.pack, map(len, entries))
    parts[1::2] = entries
    return b"".join(parts)


def split_entries(data: bytes, bundle: Tile) -> list[bytes]:
    """Cut an entry bundle.

    Raises:
        Schema: not exactly the bundle's width of entries.
    """
    entries, place = [], 0
    for _ in range(bundle.width):
        end = place + 2 + int.from_bytes(data[place : place + 2], "big")
        if end > len(data) or place + 2 > len(data):
            raise Schema(f"fewer than {bundle.width} entries", where=bundle.path)
        entries.append(data[place + 2 : end])
        place = end
    if place != len(data):
        raise Schema(f"{len(data) - place} bytes after the last of {bundle.width} entries", where=bundle.path)
    return entries
