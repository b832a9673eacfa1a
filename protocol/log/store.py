"""A log as a folder of static files: create, append, read, prove.

Proves: what `prove_inclusion` returns verifies against the published checkpoint. Assumes that the
folder is the caller's own; `verify_log` is for folders of others. A checkpoint is signed only if the
tiles on disk lead to the one before it, so a damaged folder cannot make its log sign a second history.
After a crash the folder is at the old or the new size; the next append removes what was left over.
Source: C2SP tlog-tiles v0.1.0. SPEC 5.4.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import DigestMismatch, EncodingError, Error, MalformedError
from protocol.keys import SigningKey
from protocol.log import checkpoint, files, merkle, note, tiles
from protocol.log.checkpoint import Checkpoint
from protocol.log.proof import TlogProof
from protocol.log.tiles import HEIGHT, WIDTH, Tile
from protocol.log.tree import TileTree
from protocol.log.verify import CHECKPOINT, LogSummary, verify_log

__all__ = ["Log", "LogSummary", "verify_log"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A handle on a log's folder. It holds no state: every read is of the checkpoint published then.

    Args:
        path: the folder; made by `create`, looked at by `open`.
    """

    path: Path

    @staticmethod
    def create(path: Path, key: SigningKey) -> "Log":
        """Make a log: a folder with the signed checkpoint of the empty tree.

        Args:
            path: the folder; missing or empty.
            key: the log's key; its name is the log's origin.

        Raises:
            EncodingError: not a log's key.
            Error: something is there already.
        """
        empty = Checkpoint(origin=key.name, size=0, root=merkle.EMPTY_ROOT)
        data = checkpoint.sign(empty, key)
        log = Log(path=path)
        with files.locked(path):
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise Error("exists already and is not empty; a log begins in a folder of its own", where=str(path))
            log._publish(data)
        return log

    @staticmethod
    def open(path: Path) -> "Log":
        """Look at an existing log.

        Raises:
            MalformedError: no checkpoint there that parses.
        """
        log = Log(path=path)
        log.checkpoint()
        return log

    def checkpoint_bytes(self) -> bytes:
        """The published checkpoint with its signatures.

        Raises:
            MalformedError: there is none.
        """
        place = str(self.path / CHECKPOINT)
        data = files.read_file(self.path / CHECKPOINT, limit=checkpoint.MAX_CHECKPOINT, where=place)
        if data is None:
            raise MalformedError("is missing; is this a log's folder?", where=place)
        return data

    def checkpoint(self) -> Checkpoint:
        """The published checkpoint, its signatures unverified.

        Raises:
            MalformedError: it does not parse.
        """
        return self._head()[2]

    @property
    def origin(self) -> str:
        """The log's identity as its checkpoint says."""
        return self.checkpoint().origin

    @property
    def size(self) -> int:
        """Number of entries in the published tree."""
        return self.checkpoint().size

    def entry(self, index: int) -> bytes:
        """Entry number `index`, checked against its leaf hash in the tiles.

        Raises:
            EncodingError: no such entry.
            MalformedError: its bundle or tile is missing or cut wrongly.
            DigestMismatch: bundle and tile disagree.
        """
        tree = self._tree()
        if not 0 <= index < tree.size:
            raise EncodingError(f"no entry {index} in a log of {tree.size}")
        number, place = divmod(index, WIDTH)
        return self._bundle(tree, number)[place]

    def entries(self) -> Iterator[bytes]:
        """All entries of the tree published when this is called, each checked as by `entry`."""
        tree = self._tree()
        for number in range(-(-tree.size // WIDTH)):
            yield from self._bundle(tree, number)

    def leaf_hashes(self) -> list[bytes]:
        """All leaf hashes of the published tree, in order."""
        tree = self._tree()
        return [value for number in range(-(-tree.size // WIDTH)) for value in tree.hashes(0, number)]

    def root_at(self, size: int) -> bytes:
        """Root of the tree over the first `size` entries.

        Raises:
            EncodingError: the log has fewer entries.
        """
        tree = self._tree()
        if not 0 <= size <= tree.size:
            raise EncodingError(f"no tree of {size} in a log of {tree.size}")
        return tree.root_at(size)

    def prove_inclusion(self, index: int) -> TlogProof:
        """Prove that entry `index` is in the published tree; the proof carries the checkpoint as it is now.

        Raises:
            EncodingError: no such entry.
            MalformedError: a tile is missing or has the wrong length.
            Inclusion: the folder is damaged: its tiles do not lead to its checkpoint.
        """
        data, _, head = self._head()
        tree = TileTree(files.folder_fetch(self.path), head.size)
        proof = TlogProof(index=index, hashes=tree.inclusion(index), checkpoint_note=data)
        leaf = tree.hashes(0, index // WIDTH)[index % WIDTH]
        merkle.verify_inclusion(leaf, index, head.size, proof.hashes, head.root)
        return proof

    def prove_consistency(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Prove that the tree of `old_size` entries is the beginning of that of `new_size`.

        Raises:
            EncodingError: unless `1 <= old_size <= new_size <=` the published size.
            MalformedError: a tile is missing or has the wrong length.
        """
        tree = self._tree()
        if new_size > tree.size:
            raise EncodingError(f"no tree of {new_size} in a log of {tree.size}")
        return tree.consistency(old_size, new_size)

    def append(self, entries: Sequence[bytes], key: SigningKey) -> list[int]:
        """Add entries and publish the checkpoint over them; all or, after a failure, none.

        Cosignatures stay with the checkpoints they were made for: the new one has the log's only.

        Args:
            entries: at most 65,535 bytes each.
            key: the log's key.

        Returns:
            The entries' indices, in order.

        Raises:
            EncodingError: an entry that is too long.
            UnknownKey: the published checkpoint is not signed by `key`.
            BadSignature: its signature by `key` does not verify.
            DigestMismatch: the folder is damaged; nothing is signed.
            MalformedError: likewise.
            Error: the system refused to write, on a full disk for instance. The log is as it was, unless
                only the very last wait for the disk failed: its size says which.
        """
        tiles.check_entries(entries)  # refuses before anything is locked or read
        if not entries:
            return []
        with files.locked(self.path):
            _, signed, head = self._head()
            note.verify(signed, [key.verifier])
            self.recover()
            tree = TileTree(files.folder_fetch(self.path), head.size)
            if tree.root_at(head.size) != head.root:
                raise DigestMismatch(
                    "the tiles do not lead to the checkpoint; nothing was signed", where=str(self.path)
                )
            try:
                self._extend(tree, head, list(entries), key)
            except OSError:
                # Whatever got written is beyond the published tree: give its space back. If even that
                # fails, the marker stays and the next writer does it.
                with contextlib.suppress(OSError):
                    self.recover()
                raise
        return list(range(head.size, head.size + len(entries)))

    def _extend(self, tree: TileTree, head: Checkpoint, entries: list[bytes], key: SigningKey) -> None:
        size = head.size + len(entries)
        planned: dict[str, bytes] = {}
        replaced: list[str] = []
        for tile, data in self._edge(tree, entries):
            path = tile.path
            planned[path] = data
            if tile.width == WIDTH and tile.index == tree.size >> HEIGHT * ((tile.level or 0) + 1):
                replaced.append(path)
        new_tree = TileTree(files.folder_fetch(self.path, planned=planned), size)
        new = Checkpoint(origin=key.name, size=size, root=new_tree.root_at(size))
        if head.size:
            # Never sign what a consistency proof cannot connect to the signed past.
            proof = new_tree.consistency(head.size, size)
            merkle.verify_consistency(head.size, head.root, size, new.root, proof)
        # The marker tells the next writer to clean up, should this one not come to its end.
        files.write_atomic(self._marker, f"{head.size} {size}\n".encode(), temporary=self._temporary)
        files.write_new(self.path, planned)
        # Everything that the new checkpoint speaks of is on disk before it is.
        self._publish(checkpoint.sign(new, key))
        # From here on the entries are in the log; leftovers are the next writer's to remove.
        for path in replaced:
            # A partial tile may go once the full one is there; old proofs are made from the full one.
            shutil.rmtree(self.path / f"{path}.p", ignore_errors=True)
        with contextlib.suppress(OSError):
            files.remove(self._marker)

    def _edge(self, tree: TileTree, entries: list[bytes]) -> Iterator[tuple[Tile, bytes]]:
        # The tiles that change: per level the right-most one and those after it. Bundle by
        # bundle: what was just hashed is hashed again while it is near.
        size = tree.size + len(entries)
        first, held = divmod(tree.size, WIDTH)
        old = self._bundle(tree, first) if held else []
        hashes = tree.hashes(0, first) if held else []
        new: list[bytes] = []
        for number in range(first, -(-size // WIDTH)):
            end = number * WIDTH + WIDTH - tree.size
            chunk = entries[max(0, end - WIDTH) : end]
            yield tiles.tile_at(None, number, size), tiles.join_entries(old + chunk)
            hashes = hashes + merkle.leaf_hashes(chunk)
            yield Tile(level=0, index=number, width=len(hashes)), b"".join(hashes)
            if len(hashes) == WIDTH:
                new.append(merkle.root_from_hashes(hashes))
            old, hashes = [], []
        level = 1
        while new:
            first, held = divmod(tree.size >> HEIGHT * level, WIDTH)
            hashes = (tree.hashes(level, first) if held else []) + new
            chunks = [hashes[start : start + WIDTH] for start in range(0, len(hashes), WIDTH)]
            for number, chunk in enumerate(chunks, first):
                yield Tile(level=level, index=number, width=len(chunk)), b"".join(chunk)
            new = [merkle.root_from_hashes(chunk) for chunk in chunks if len(chunk) == WIDTH]
            level += 1

    def recover(self) -> None:
        """Remove what an append that was cut off left beyond the published tree; nothing signed speaks of it.

        The caller holds the log's lock (`files.locked`) and has verified the checkpoint's signature.
        Every append and every cosigning does this, so nobody has to call it by hand.

        Raises:
            Error: the published checkpoint is neither that from before nor that from after the append, an
                older one from a backup perhaps; nothing is removed.
        """
        marker = files.read_file(self._marker, limit=100, where=str(self._marker))
        if marker is None:
            return
        size = self.size
        if marker and str(size).encode() not in marker.split():
            raise Error(
                f"the checkpoint is of {size} entries, an unfinished append was from and to {marker!r}; was the"
                " checkpoint replaced by an older one? Put the newest one back",
                where=str(self.path / CHECKPOINT),
            )
        for path in list(files.list_files(self.path)):
            try:
                tile = tiles.parse_path(path)
            except MalformedError:
                continue  # the checkpoint, or not ours to remove
            if tile.index * WIDTH + tile.width > size >> HEIGHT * (tile.level or 0):
                files.remove(self.path / path)
        files.remove(self._marker)

    @property
    def _marker(self) -> Path:
        return files.beside(self.path, "pending")

    @property
    def _temporary(self) -> Path:
        return files.beside(self.path, "tmp")

    def _head(self) -> tuple[bytes, note.Note, Checkpoint]:
        data = self.checkpoint_bytes()
        try:
            return data, *checkpoint.parse_signed(data)
        except MalformedError as error:
            error.at(str(self.path / CHECKPOINT))
            raise

    def _tree(self) -> TileTree:
        return TileTree(files.folder_fetch(self.path), self.size)

    def _bundle(self, tree: TileTree, number: int) -> list[bytes]:
        entries = tree.entries(number)
        if merkle.leaf_hashes(entries) != tree.hashes(0, number):
            where = tiles.tile_at(None, number, tree.size).path
            raise DigestMismatch("the entries do not have the leaf hashes in the tile", where=where)
        return entries

    def _publish(self, data: bytes) -> None:
        files.write_atomic(self.path / CHECKPOINT, data, temporary=self._temporary)
