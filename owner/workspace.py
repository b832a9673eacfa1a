"""The owner's commitment folder: what was committed, in public and in private files.

Public: manifest, commitment envelope, base model, input schema, recipe, proof. Private (0700):
records, salts, the commitment secret, prepared cross-fitted outputs. Also keeps every request it
knows, so that a certificate can be made from `request.json` alone.
"""

import contextlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, Int32, Integer, UInt8

from owner.files import read_file, write_atomic
from owner.journal import LISTED, PROOF, leaf_of
from protocol import manifest, messages
from protocol import records as record_tree
from protocol.arrays import Expected, read_npz, write_npz
from protocol.digests import sha256_hex
from protocol.errors import MalformedError, OwnerError
from protocol.messages.commitment import Commitment
from protocol.messages.request import Request, parse_list, serialise_list
from protocol.model import profile, schema
from protocol.model.graph import Graph
from protocol.model.schema import InputSchema

_RECORDS = {
    "X": Expected(kinds=("|u1", "<i4"), dimensions=2),
    "y": Expected(kinds=("<i8",), dimensions=1),
    "salts": Expected(kinds=("|u1",), dimensions=2),
    "unseen_X": Expected(kinds=("|u1", "<i4"), dimensions=2),
    "unseen_y": Expected(kinds=("<i8",), dimensions=1),
}
_PREPARED = {
    "logits": Expected(kinds=("<f4",), dimensions=2),
    "fold": Expected(kinds=("<i8",), dimensions=1),
    "unseen_logits": Expected(kinds=("<f4",), dimensions=3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Outputs of cross-fitted models: for each training record, of a model that was trained without it.

    `unseen_logits` are every fold model's outputs on owner-side unseen data (possibly none).
    """

    logits: Float32[np.ndarray, "record class"]
    fold: Int[np.ndarray, "record"]
    unseen_logits: Float32[np.ndarray, "fold unseen class"]

    def to_bytes(self) -> bytes:
        """File form; its digest is in the commitment."""
        return write_npz({"logits": self.logits, "fold": self.fold, "unseen_logits": self.unseen_logits})

    @classmethod
    def parse(cls, data: bytes, *, where: str = "prepared.npz") -> "Prepared":
        """Read the file form.

        Raises:
            MalformedError: not it.
        """
        return cls(**read_npz(data, _PREPARED, limit=4 << 30, where=where))


def _narrow(values: Integer[np.ndarray, "record feature"]) -> Integer[np.ndarray, "record feature"]:
    # A quarter of what has to be unpacked and read at each answer, where values fit a byte.
    fits = not values.size or (int(values.min()) >= 0 and int(values.max()) <= 255)
    narrow: Integer[np.ndarray, "record feature"] = values.astype(np.uint8 if fits else np.int32, copy=False)
    return narrow


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateRecords:
    """The committed records in the data file's order, and what opens them.

    Values are in whatever integers hold them, bytes for pictures: widen them before any arithmetic (`wide`).
    """

    values: Integer[np.ndarray, "record feature"]
    labels: Int[np.ndarray, "record"]
    salts: UInt8[np.ndarray, "record 32"]
    subjects: tuple[str, ...]
    group_salts: dict[str, bytes]
    unseen_values: Integer[np.ndarray, "unseen feature"]
    unseen_labels: Int[np.ndarray, "unseen"]

    def wide(self, rows: Int[np.ndarray, "chosen"]) -> Int32[np.ndarray, "chosen feature"]:
        """Some records' values as 32-bit integers."""
        chosen = self.values[np.asarray(rows, dtype=np.int64)]
        found: Int32[np.ndarray, "chosen feature"] = chosen.astype(np.int32, copy=False)
        return found

    def write(self, folder: Path) -> None:
        """Write both files, readable by their owner only."""
        arrays = {
            "X": _narrow(self.values),
            "y": self.labels,
            "salts": self.salts,
            "unseen_X": _narrow(self.unseen_values),
            "unseen_y": self.unseen_labels,
        }
        write_atomic(folder / "records.npz", write_npz(arrays), secret=True)
        names = {
            "subjects": list(self.subjects),
            "groupSalts": {name: salt.hex() for name, salt in self.group_salts.items()},
        }
        write_atomic(folder / "subjects.json", json.dumps(names).encode(), secret=True)

    @classmethod
    def read(cls, folder: Path) -> "PrivateRecords":
        """Read both files.

        Raises:
            OwnerError: missing or damaged.
        """
        try:
            arrays = read_npz(read_file(folder / "records.npz"), _RECORDS, limit=8 << 30, where="records.npz")
            names = json.loads(read_file(folder / "subjects.json"))
            return cls(
                values=arrays["X"],
                labels=arrays["y"],
                salts=arrays["salts"],
                subjects=tuple(names["subjects"]),
                group_salts={name: bytes.fromhex(salt) for name, salt in names["groupSalts"].items()},
                unseen_values=arrays["unseen_X"],
                unseen_labels=arrays["unseen_y"],
            )
        except (MalformedError, ValueError, KeyError, TypeError) as error:
            raise OwnerError(f"the private records are damaged: {error}", where=str(folder)) from None


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A commitment folder; its parts are read when they are first needed, and have to be the committed ones."""

    folder: Path

    def _committed(self, name: str, digest: str | None, *, folder: Path | None = None) -> bytes:
        data = read_file((folder or self.folder) / name)
        if sha256_hex(data) != digest:
            raise OwnerError("is not the file that was committed", where=str((folder or self.folder) / name))
        return data

    @property
    def private(self) -> Path:
        """Where what must not leave the owner lies."""
        return self.folder / "private"

    @cached_property
    def envelope(self) -> bytes:
        """The commitment's exact envelope bytes."""
        return read_file(self.folder / "commitment.dsse.json", limit=1 << 16)

    @property
    def leaf(self) -> str:
        """The commitment's name in other messages."""
        return leaf_of(self.envelope)

    @cached_property
    def commitment(self) -> Commitment:
        """The commitment as a message (our own: signature and log are not re-checked)."""
        return messages.read(self.envelope, Commitment, where=str(self.folder / "commitment.dsse.json"))[1]

    @cached_property
    def base_bytes(self) -> bytes:
        """The base model's file."""
        return self._committed("base.onnx", self.commitment.base)

    @cached_property
    def base(self) -> Graph:
        """The base model."""
        return profile.parse(self.base_bytes)

    @cached_property
    def schema_bytes(self) -> bytes:
        """The input schema's file."""
        return self._committed("schema.json", self.commitment.schema)

    @property
    def recipe_bytes(self) -> bytes:
        """The training recipe's file."""
        return self._committed("recipe.json", self.commitment.recipe)

    @cached_property
    def schema(self) -> InputSchema:
        """The input schema."""
        return schema.parse(self.schema_bytes)

    @cached_property
    def records(self) -> PrivateRecords:
        """The committed records."""
        return PrivateRecords.read(self.private)

    @cached_property
    def tree(self) -> record_tree.RecordTree:
        """The record tree, recomputed and compared with the commitment.

        Raises:
            OwnerError: the private records are not the committed ones.
        """
        own = self.records
        tree = record_tree.build(own.values, own.labels, own.subjects, own.salts, own.group_salts)
        if tree.root != self.commitment.records_root:
            raise OwnerError("the private records are not the ones that were committed", where=str(self.folder))
        return tree

    @cached_property
    def prepared(self) -> Prepared | None:
        """The cross-fitted outputs, if they were prepared at `commit`."""
        if self.commitment.prepared is None:
            return None
        data = self._committed("prepared.npz", self.commitment.prepared, folder=self.private)
        return Prepared.parse(data)

    @cached_property
    def index_of_row(self) -> Int[np.ndarray, "record"]:
        """For each row of the data file its committed index."""
        inverse = np.empty(len(self.tree.order), dtype=np.int64)
        inverse[self.tree.order] = np.arange(len(inverse))
        return inverse

    def open_rows(self, rows: list[int]) -> list[record_tree.Opening]:
        """Open the records at these rows of the data file."""
        own = self.records
        indices = [int(self.index_of_row[row]) for row in rows]
        return self.tree.openings(indices, own.values, own.labels, own.salts)

    def open_indices(self, indices: list[int]) -> list[record_tree.Opening]:
        """Open committed records by index."""
        own = self.records
        return self.tree.openings(indices, own.values, own.labels, own.salts)

    def commitments_of(self, rows: list[int]) -> list[bytes]:
        """The record commitments of rows of the data file."""
        return [self.tree.commitments[int(self.index_of_row[row])] for row in rows]

    @cached_property
    def _places(self) -> dict[bytes, int]:
        return {commitment: index for index, commitment in enumerate(self.tree.commitments)}

    def rows_of(self, commitments: tuple[bytes, ...]) -> list[int]:
        """The rows of record commitments.

        Raises:
            OwnerError: one is not in this commitment.
        """
        try:
            return [int(self.tree.order[self._places[commitment]]) for commitment in commitments]
        except KeyError:
            raise OwnerError("the request names a record that is not in this commitment") from None

    def keep_request(self, envelope: bytes, listed: tuple[bytes, ...], proof: bytes | None) -> None:
        """Remember a request, its list and its proof, as far as the folder may be written: for comfort only."""
        stem = self.folder / "requests" / leaf_of(envelope)
        with contextlib.suppress(OwnerError):
            write_atomic(stem.with_suffix(LISTED), serialise_list(listed))
            if proof is not None:
                write_atomic(stem.with_suffix(PROOF), proof)
            write_atomic(stem.with_suffix(".json"), envelope)

    def _derived_list(self, request: Request) -> tuple[bytes, ...]:
        if request.scope.group is not None:
            group = bytes.fromhex(request.scope.group)
            if group not in self.tree.groups:
                return ()
            number = self.tree.groups.index(group)
            start, count = int(self.tree.starts[number]), int(self.tree.counts[number])
            return self.tree.commitments[start : start + count]
        if request.scope.klass is not None:
            rows = np.flatnonzero(self.records.labels == request.scope.klass)
            return tuple(self.commitments_of([int(row) for row in rows]))
        return ()

    def find_list(self, path: Path, envelope: bytes, request: Request) -> tuple[bytes, ...]:
        """The record commitments that a request's root stands for.

        Looked for beside the request, among the requests this folder knows, and, for a subject or a
        class, in the committed data itself; the root decides which list is the right one.

        Raises:
            OwnerError: nowhere to be found, or no list with the signed root.
        """
        beside = path.with_suffix(LISTED)
        wrong = ""
        for candidate in (beside, self.folder / "requests" / f"{leaf_of(envelope)}{LISTED}"):
            if candidate.is_file():
                try:
                    return parse_list(read_file(candidate), request, where=str(candidate))
                except MalformedError as error:
                    wrong = wrong or f" ({error})"
        listed = self._derived_list(request)
        if len(listed) != request.record_count or record_tree.list_root(listed) != request.records_root:
            raise OwnerError(
                f"the list of record commitments is missing; put it beside the request as {beside.name}{wrong}",
                where=str(path),
            )
        return tuple(sorted(listed))


def public_manifest(folder: Path) -> manifest.Manifest:
    """The manifest of a commitment folder's public files."""
    return manifest.build(folder, [("base.onnx", "base"), ("schema.json", "schema"), ("recipe.json", "recipe")])
