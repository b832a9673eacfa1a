"""Roots and proofs of a log, computed from its hash tiles, reading only the tiles they need.

Proves nothing: tiles come from the log's operator. What is computed here has to be checked against a
signed root, by `merkle.verify_*` or by comparing roots. Source: C2SP tlog-tiles v0.1.0. SPEC 5.4.
"""

from protocol.errors import MalformedError
from protocol.log import merkle
from protocol.log.files import Fetch
from protocol.log.tiles import HEIGHT, WIDTH, Tile, split_entries, split_hashes, tile_at


class TileTree:
    """The tree of a log at one size.

    Tiles are kept once read, so an instance serves one operation or one published checkpoint.

    Args:
        fetch: reads the log's files.
        size: leaves; tiles as a tree of this size has them (or the full ones that replaced partial ones).
    """

    def __init__(self, fetch: Fetch, size: int) -> None:
        self._fetch = fetch
        self.size = size
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def _read(self, tile: Tile) -> tuple[Tile, bytes]:
        # A log may delete a partial tile once the full one is there (tlog-tiles, "Partial Tiles").
        for candidate in (tile, tile.full):
            data = self._fetch(candidate.path, candidate.max_bytes)
            if data is not None:
                return candidate, data
        raise MalformedError("is missing", where=tile.path)

    def hashes(self, level: int, index: int) -> list[bytes]:
        """The hashes of tile `index` at tile level `level`, as far as this size has them.

        Raises:
            MalformedError: the tile is missing or has the wrong length.
        """
        found = self._tiles.get((level, index))
        if found is None:
            tile = tile_at(level, index, self.size)
            read, data = self._read(tile)
            found = self._tiles[level, index] = split_hashes(data, read)[: tile.width]
        return found

    def entries(self, index: int) -> list[bytes]:
        """The entries of bundle `index`, as far as this size has them.

        Raises:
            MalformedError: the bundle is missing or does not hold its number of entries.
        """
        tile = tile_at(None, index, self.size)
        found, data = self._read(tile)
        return split_entries(data, found)[: tile.width]

    def subtree(self, level: int, index: int) -> bytes:
        """Root of the complete subtree number `index` of `2**level` leaves."""
        tile_level, height = divmod(level, HEIGHT)
        number, place = divmod(index << height, WIDTH)
        return merkle.root_from_hashes(self.hashes(tile_level, number)[place : place + (1 << height)])

    def _range(self, low: int, high: int) -> bytes:
        return merkle.range_root(low, high, self.subtree)

    def root_at(self, size: int) -> bytes:
        """Root over the first `size` leaves, 0 to `self.size`."""
        return self._range(0, size) if size else merkle.EMPTY_ROOT

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Inclusion proof of leaf `index` at this size.

        Raises:
            EncodingError: no such leaf.
        """
        return tuple(self._range(*pair) for pair in merkle.inclusion_ranges(index, self.size))

    def consistency(self, size1: int, size2: int) -> tuple[bytes, ...]:
        """Consistency proof between two sizes up to this one.

        Raises:
            EncodingError: unless `1 <= size1 <= size2`.
        """
        return tuple(self._range(*pair) for pair in merkle.consistency_ranges(size1, size2))
