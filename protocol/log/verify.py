"""Check a whole log that somebody else made, every byte of it: a folder, or what a static server gives.

Proves: the files are exactly the entries under a trusted log's signed root, all tiles follow from
them, no other file is in the folder (a server cannot be asked for that), and (given a remembered
checkpoint) the log has only grown since. Assumes the policy. Only lines by unknown keys in the
checkpoint are not checked; nobody can. Memory: one hash per 256 entries, unless all are asked for.
Says nothing about what the entries mean. Source: SPEC 5.7.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import Consistency, DigestMismatch, Error, Expired, MalformedError, Rollback, Schema
from protocol.log import files, merkle, tiles
from protocol.log.checkpoint import MAX_CHECKPOINT
from protocol.log.files import Fetch
from protocol.log.policy import Policy, VerifiedCheckpoint
from protocol.log.tiles import HEIGHT, WIDTH, Tile

CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What was checked.

    Args:
        checkpoint: the log's signed tree head and who cosigned it when.
        checkpoint_note: the same as bytes, to be remembered.
        leaf_hashes: of all entries, in order; empty if they were not to be kept.
        files: number of files read, the checkpoint included.
    """

    checkpoint: VerifiedCheckpoint
    checkpoint_note: bytes
    leaf_hashes: tuple[bytes, ...]
    files: int

    @property
    def origin(self) -> str:
        """The log."""
        return self.checkpoint.origin

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.checkpoint.checkpoint.size

    @property
    def root(self) -> bytes:
        """Root over them, 32 bytes."""
        return self.checkpoint.checkpoint.root


def _read(fetch: Fetch, tile: Tile) -> list[bytes]:
    # The hashes of a tile, or the leaf hashes of a bundle's entries. A log may have put the full one in the
    # place of a partial one since its checkpoint was read (tlog-tiles, "Partial Tiles").
    for candidate in dict.fromkeys((tile, tile.full)):
        data = fetch(candidate.path, candidate.max_bytes)
        if data is not None:
            break
    else:
        raise MalformedError("is missing", where=tile.path)
    if tile.level is None:
        return merkle.leaf_hashes(tiles.split_entries(data, candidate)[: tile.width])
    return tiles.split_hashes(data, candidate)[: tile.width]


class _Entries:
    # What one pass over the entry bundles leaves in memory: the root of each bundle. They are what the
    # second pass is held against, so files that change meanwhile gain nothing.

    def __init__(self, fetch: Fetch, size: int, kept: list[bytes] | None) -> None:
        self._fetch = fetch
        self.size = size
        self.roots: list[bytes] = []
        # One bundle at a time: a false size ends at a missing file.
        for index in range(-(-size // WIDTH)):
            leaves = _read(fetch, tiles.tile_at(None, index, size))
            self.roots.append(merkle.root_from_hashes(leaves))
            if kept is not None:
                kept += leaves
        self._levels = [self.roots[: size // WIDTH]]  # of tile level 1 and up: roots of the full tiles below
        while len(self._levels[-1]) >= WIDTH:
            below = self._levels[-1]
            ends = range(WIDTH, len(below) + 1, WIDTH)
            self._levels.append([merkle.root_from_hashes(below[end - WIDTH : end]) for end in ends])
        self._last: tuple[int, list[bytes]] = (-1, [])

    def _leaves(self, index: int) -> list[bytes]:
        # Leaf hashes of one bundle, read again and believed only under the root that the first pass saw.
        if self._last[0] != index:
            bundle = tiles.tile_at(None, index, self.size)
            leaves = _read(self._fetch, bundle)
            if merkle.root_from_hashes(leaves) != self.roots[index]:
                raise DigestMismatch("changed while it was being checked", where=bundle.path)
            self._last = (index, leaves)
        return self._last[1]

    def root_at(self, size: int) -> bytes:
        # Pairing whole bundles and carrying the rest up is the same tree as over the leaves.
        full, rest = divmod(size, WIDTH)
        tail = [merkle.root_from_hashes(self._leaves(full)[:rest])] if rest else []
        return merkle.root_from_hashes(self.roots[:full] + tail)

    def agree(self, tile: Tile, found: list[bytes]) -> bool:
        # Whether these are the hashes that a tile or bundle within the tree has to have.
        if tile.level:
            return found == self._levels[tile.level - 1][tile.index * WIDTH : tile.index * WIDTH + tile.width]
        if tile == tiles.tile_at(tile.level, tile.index, self.size):
            return merkle.root_from_hashes(found) == self.roots[tile.index]
        return found == self._leaves(tile.index)[: tile.width]


def _blame(fetch: Fetch, entries: _Entries) -> str:
    # The entries do not have the signed root. A bundle that its hash tile contradicts is the damaged
    # file; if all agree, entries and tiles together are not what the checkpoint speaks of.
    for index, root in enumerate(entries.roots):
        tile = tiles.tile_at(0, index, entries.size)
        data = fetch(tile.path, tile.max_bytes) or b""
        hashes = [data[place : place + merkle.HASH_SIZE] for place in range(0, len(data), merkle.HASH_SIZE)]
        if len(data) != tile.max_bytes or merkle.root_from_hashes(hashes) != root:
            return tiles.tile_at(None, index, entries.size).path
    return CHECKPOINT


def _check_file(fetch: Fetch, path: str, entries: _Entries) -> None:
    try:
        tile = tiles.parse_path(path)
    except MalformedError:
        # The name is somebody else's choice: no control characters of it reach a terminal.
        raise Schema("no file of a log", where=ascii(path)[1:-1]) from None
    if tile.index * WIDTH + tile.width > entries.size >> HEIGHT * (tile.level or 0):
        raise Schema("beyond the published tree; an unfinished append?", where=path)
    if tile.level is None and tile == tiles.tile_at(None, tile.index, entries.size):
        return  # read by the first pass
    if not entries.agree(tile, _read(fetch, tile)):
        raise DigestMismatch("differs from what the signed root says", where=path)


def _check_remembered(policy: Policy, remembered: bytes, new: VerifiedCheckpoint, entries: _Entries) -> None:
    try:
        old = policy.verify_checkpoint(remembered, origin=new.origin).checkpoint
    except Error as error:
        error.at("remembered checkpoint")
        raise
    if old.size > new.checkpoint.size:
        raise Rollback(f"{new.checkpoint.size} entries, {old.size} were there before", where=CHECKPOINT)
    if entries.root_at(old.size) != old.root:
        raise Consistency(f"the first {old.size} entries are not those that were there before", where=CHECKPOINT)


def verify_log(
    path: Path,
    policy: Policy,
    *,
    remembered: bytes | None = None,
    origin: str | None = None,
    keep_leaves: bool = True,
) -> LogSummary:
    """Check every file of a log's folder. Nothing in it is written.

    Args:
        path: the folder.
        policy: which log keys and witnesses count; whether the quorum is met is in the summary.
        remembered: a checkpoint of the same log seen earlier, with its signatures.
        origin: the log that it has to be; any listed log if None.
        keep_leaves: return all leaf hashes; without, memory hardly grows with the log.

    Raises:
        MalformedError: a file is missing, superfluous, or not of its form.
        DigestMismatch: a file differs from what the signed root says.
        UnknownKey: not a trusted log.
        BadSignature: a listed key's line in the checkpoint does not verify.
        Rollback: fewer entries than remembered.
        Consistency: other entries than remembered.
        Every one names the file at fault.
    """
    fetch = files.folder_fetch(path)
    return _verify(fetch, files.list_files(path), policy, remembered, origin, keep_leaves=keep_leaves)


def verify_served(
    fetch: Fetch,
    policy: Policy,
    *,
    remembered: bytes | None = None,
    origin: str | None = None,
    keep_leaves: bool = True,
) -> LogSummary:
    """Check every file that a log has to have, wherever `fetch` reads them; see `verify_log`.

    Superfluous files and partial tiles of earlier sizes go unseen: a static server lists nothing.

    Args:
        fetch: reads the log's files, over HTTP for instance (`http.http_fetch`).
        policy: as for `verify_log`, like the further arguments and errors.
        remembered: likewise.
        origin: likewise.
        keep_leaves: likewise.
    """
    return _verify(fetch, None, policy, remembered, origin, keep_leaves=keep_leaves)


def _verify(
    fetch: Fetch,
    names: Iterable[str] | None,
    policy: Policy,
    remembered: bytes | None,
    origin: str | None,
    *,
    keep_leaves: bool,
) -> LogSummary:
    # 1. The checkpoint is the log's: from here on size and root are what the log signed.
    data = fetch(CHECKPOINT, MAX_CHECKPOINT)
    if data is None:
        raise MalformedError("is missing; is this a log's folder?", where=CHECKPOINT)
    try:
        verified = policy.verify_checkpoint(data, origin=origin)
    except Error as error:
        error.at(CHECKPOINT)
        raise
    size = verified.checkpoint.size
    # 2. The entries are the ones under the root.
    leaves: list[bytes] | None = [] if keep_leaves else None
    entries = _Entries(fetch, size, leaves)
    if merkle.root_from_hashes(entries.roots) != verified.checkpoint.root:
        raise DigestMismatch("not the entries that the log signed", where=_blame(fetch, entries))
    # 3. Every other file follows from the entries, and none is there that does not.
    required = {tile.path for tile in tiles.tiles_of(size)}
    count = 0
    for name in [CHECKPOINT, *sorted(required)] if names is None else names:
        count += 1
        required.discard(name)
        if name != CHECKPOINT:
            _check_file(fetch, name, entries)
    # 4. None is missing.
    for name in sorted(required):
        raise MalformedError("is missing", where=name)
    # 5. The log has only grown.
    if remembered is not None:
        _check_remembered(policy, remembered, verified, entries)
    return LogSummary(checkpoint=verified, checkpoint_note=data, leaf_hashes=tuple(leaves or ()), files=count)


def verify_fresh(seen: VerifiedCheckpoint, *, now: int, max_age: int, skew: int = 300) -> None:
    """Check that a quorum of witnesses saw this checkpoint not long ago: that nobody shows a frozen log.

    Args:
        seen: a verified checkpoint.
        now: POSIX seconds.
        max_age: seconds that may have gone by since the quorum's time.
        skew: seconds that a witness's clock may be ahead of `now`.

    Raises:
        Expired: there is no quorum's time, it is too long ago, or it lies in the future.
    """
    if seen.time is None:
        raise Expired("no quorum of witnesses says when this checkpoint was current", where=CHECKPOINT)
    if seen.time > now + skew:
        raise Expired(f"witnessed {seen.time - now} s in the future", where=CHECKPOINT)
    if now - seen.time > max_age:
        raise Expired(f"witnessed {now - seen.time} s ago, at most {max_age} s are accepted", where=CHECKPOINT)
