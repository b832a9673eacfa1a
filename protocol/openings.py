"""Opened records and a subject's slip as files of arrays.

Proves nothing by itself: `records.Opening.verify` does, once the arrays are read. One layout for
the bundle's `openings.npz` (requested records, for the auditor only), an answer's `openings.npz`
(challenged records) and `slip.npz` (a subject's own records). Source: SPEC 8.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protocol.arrays import Array, Expected, read_npz, write_npz
from protocol.errors import EncodingError, Schema, TooLarge
from protocol.records import Opening

MAX_OPENINGS_FILE = 1 << 30
MAX_SLIP_FILE = 1 << 28
_PATHS = 40
_EXPECTED = {
    "X": Expected(kinds=("<i4",), dimensions=2),
    "y": Expected(kinds=("<i8",), dimensions=1),
    "salts": Expected(kinds=("|u1",), dimensions=2),
    "indices": Expected(kinds=("<i8",), dimensions=1),
    "groups": Expected(kinds=("|u1",), dimensions=2),
    "group_start": Expected(kinds=("<i8",), dimensions=1),
    "group_count": Expected(kinds=("<i8",), dimensions=1),
    "group_index": Expected(kinds=("<i8",), dimensions=1),
    "record_path": Expected(kinds=("|u1",), dimensions=3),
    "record_path_length": Expected(kinds=("<i8",), dimensions=1),
    "group_path": Expected(kinds=("|u1",), dimensions=3),
    "group_path_length": Expected(kinds=("<i8",), dimensions=1),
}
_SLIP = {
    **_EXPECTED,
    "commitment": Expected(kinds=("|u1",), dimensions=1),
    "commitment_proof": Expected(kinds=("|u1",), dimensions=1),
}


def _pack(paths: Sequence[tuple[bytes, ...]]) -> tuple[Array, Array]:
    lengths = np.array([len(path) for path in paths], dtype=np.int64)
    packed = np.zeros((len(paths), int(lengths.max(initial=0)), 32), dtype=np.uint8)
    for row, path in enumerate(paths):
        packed[row, : len(path)] = np.frombuffer(b"".join(path), dtype=np.uint8).reshape(len(path), 32)
    return packed, lengths


def _unpack(packed: Array, lengths: Array, where: str) -> list[tuple[bytes, ...]]:
    if packed.shape[1] > _PATHS or packed.shape[2] != 32:
        raise Schema("a path has more steps than any tree, or hashes that are not 32 bytes", where=where)
    if (lengths < 0).any() or (lengths > packed.shape[1]).any():
        raise Schema("a path's length is outside its array", where=where)
    beyond = np.arange(packed.shape[1])[None, :] >= lengths[:, None]
    if packed[beyond].any() or int(lengths.max(initial=0)) != packed.shape[1]:
        raise Schema("bytes beyond the end of a path, or an array wider than its longest path", where=where)
    paths = []
    for row, length in zip(packed, lengths.tolist(), strict=True):
        joined = row[:length].tobytes()
        paths.append(tuple(joined[start : start + 32] for start in range(0, len(joined), 32)))
    return paths


def _arrays(openings: Sequence[Opening], features: int) -> dict[str, Array]:
    record_path, record_length = _pack([o.record_path for o in openings])
    group_path, group_length = _pack([o.group_path for o in openings])
    values = np.array([o.values for o in openings], dtype=np.int32).reshape(len(openings), features)

    def column(name: str) -> Array:
        return np.array([getattr(o, name) for o in openings], dtype=np.int64)

    def hashes(name: str) -> Array:
        joined = b"".join(getattr(o, name) for o in openings)
        return np.frombuffer(joined, dtype=np.uint8).reshape(len(openings), 32)

    return {
        "X": values,
        "y": column("label"),
        "salts": hashes("salt"),
        "indices": column("index"),
        "groups": hashes("group"),
        "group_start": column("group_start"),
        "group_count": column("group_count"),
        "group_index": column("group_index"),
        "record_path": record_path,
        "record_path_length": record_length,
        "group_path": group_path,
        "group_path_length": group_length,
    }


def _openings(arrays: dict[str, Array], where: str) -> list[Opening]:
    total = len(arrays["X"])
    if any(len(array) != total for name, array in arrays.items() if name in _EXPECTED):
        raise Schema("the arrays have different lengths", where=where)
    for name in ("salts", "groups"):
        if arrays[name].shape[1] != 32:
            raise Schema(f"{name} are not 32 bytes each", where=where)
    for name in ("y", "indices", "group_start", "group_count", "group_index"):
        if (arrays[name] < 0).any() or (arrays[name] >= 1 << 32).any():
            raise Schema(f"{name} has a value outside 0..2^32 - 1", where=where)
    if len(np.unique(arrays["indices"])) != total:
        raise Schema("one record is opened twice", where=where)
    record_paths = _unpack(arrays["record_path"], arrays["record_path_length"], where)
    group_paths = _unpack(arrays["group_path"], arrays["group_path_length"], where)
    return [
        Opening(
            index=int(arrays["indices"][row]),
            values=arrays["X"][row],
            label=int(arrays["y"][row]),
            salt=arrays["salts"][row].tobytes(),
            group=arrays["groups"][row].tobytes(),
            group_start=int(arrays["group_start"][row]),
            group_count=int(arrays["group_count"][row]),
            record_path=record_paths[row],
            group_index=int(arrays["group_index"][row]),
            group_path=group_paths[row],
        )
        for row in range(total)
    ]


def serialise(openings: Sequence[Opening], *, features: int) -> bytes:
    """The file of opened records, each of `features` values."""
    return write_npz(_arrays(openings, features))


def parse(data: bytes, *, where: str = "openings.npz") -> list[Opening]:
    """Read a file of opened records; nothing is verified yet.

    Raises:
        MalformedError: not such a file.
    """
    if len(data) > MAX_OPENINGS_FILE:
        raise TooLarge(f"{len(data)} bytes, at most {MAX_OPENINGS_FILE} are accepted", where=where)
    return _openings(read_npz(data, _EXPECTED, limit=MAX_OPENINGS_FILE, where=where), where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """What a data subject gets from the owner: own records opened, the commitment, and proof that it is logged."""

    openings: tuple[Opening, ...]
    commitment: bytes
    commitment_proof: bytes


def serialise_slip(slip: Slip) -> bytes:
    """The slip's file.

    Raises:
        EncodingError: a slip of no record.
    """
    if not slip.openings:
        raise EncodingError("a slip of no record")
    arrays = _arrays(slip.openings, len(slip.openings[0].values))
    arrays["commitment"] = np.frombuffer(slip.commitment, dtype=np.uint8)
    arrays["commitment_proof"] = np.frombuffer(slip.commitment_proof, dtype=np.uint8)
    return write_npz(arrays)


def parse_slip(data: bytes, *, where: str = "slip.npz") -> Slip:
    """Read a slip; nothing is verified yet.

    Raises:
        MalformedError: not a slip.
    """
    if len(data) > MAX_SLIP_FILE:
        raise TooLarge(f"{len(data)} bytes, at most {MAX_SLIP_FILE} are accepted", where=where)
    arrays = read_npz(data, _SLIP, limit=MAX_SLIP_FILE, where=where)
    commitment = arrays.pop("commitment").tobytes()
    proof = arrays.pop("commitment_proof").tobytes()
    openings = _openings(arrays, where)
    if not openings:
        raise Schema("a slip of no record", where=where)
    return Slip(openings=tuple(openings), commitment=commitment, commitment_proof=proof)
