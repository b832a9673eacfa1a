"""Proof hints of a bundle: numbers that make a bound larger or a minimum plain, and that nobody has to believe.

Proves nothing, and need not: a slope is one of 256 steps of [0, 1], each of which is the slope of a line below a Relu,
and a dual is a whole number from 1 on, from which a bound follows by weak duality. So every file that can be read is
sound, whoever wrote it; a bad one only proves less. Which claim a hint is for is by its line in claims.jsonl; whether
the sizes fit the model is for whoever uses them. Slopes follow from the records that they were looked for on: the
file is for the auditor, and may be erased like the opened records.

Source: SPEC 11.12; certificate.md, Proof hints.
"""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Int32, UInt8

from protocol.arrays import Expected, read_npz, write_npz
from protocol.claims import MAX_CLAIMS
from protocol.errors import Schema

ROLE = "hint"
FILE = "hints.npz"
MAX_FILE = 64 << 20
MAX_UNPACKED = 256 << 20
MAX_ENTRY = 1 << 24
"""Slopes of one entry: rows times values."""
MAX_ROWS = 1024
MAX_DUALS = 100_000
STEPS = 255
"""A stored slope k is the number k / 255."""
_INT, _BYTE = Expected(kinds=("<i4",), dimensions=1), Expected(kinds=("|u1",), dimensions=2)
_EXPECTED = {
    "claim": _INT,
    "entry": _INT,
    "inner": _BYTE,
    "last": Expected(kinds=("|u1",), dimensions=3),
    "dual_part": _INT,
    "dual_row": _INT,
    "dual_claim": _INT,
    "dual_rival": _INT,
    "dual_weight": _INT,
    "dual_offset": Expected(kinds=("<i4",), dimensions=2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slopes:
    """Slopes of lower lines of Relus.

    Args:
        claim: lines of claims.jsonl, ascending.
        entry: which row of `inner` and `last` each of them uses; claims may share one.
        inner: for the limits of hidden values, and where `last` has no row: in steps of 1/255, for all values of the
            composed graph's Relus, in the order of its nodes.
        last: for the claim's own inequalities, row by row.
    """

    claim: Int32[np.ndarray, " claim"]
    entry: Int32[np.ndarray, " claim"]
    inner: UInt8[np.ndarray, "entry value"]
    last: UInt8[np.ndarray, "entry row value"]

    def __post_init__(self) -> None:
        if len(self.entry) != len(self.claim):
            raise Schema("every claim with slopes needs one entry")
        if len(self.claim) and (self.claim[0] < 0 or self.claim[-1] >= MAX_CLAIMS or (np.diff(self.claim) <= 0).any()):
            raise Schema("the claims with slopes are not lines in ascending order")
        if len(self.entry) and (self.entry.min() < 0 or self.entry.max() >= len(self.inner)):
            raise Schema("a claim's entry is not there")
        if self.last.shape[::2] != self.inner.shape:
            raise Schema("slopes of inner and last passes are for different values")
        if self.last.shape[1] > MAX_ROWS or (1 + self.last.shape[1]) * self.last.shape[2] > MAX_ENTRY:
            raise Schema(f"an entry of more than {MAX_ROWS} rows or {MAX_ENTRY} slopes")

    @classmethod
    def none(cls) -> "Slopes":
        """No slopes."""
        empty = np.zeros(0, np.int32)
        return cls(claim=empty, entry=empty, inner=np.zeros((0, 0), np.uint8), last=np.zeros((0, 0, 0), np.uint8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Duals:
    """Weights that show that a head's change of the logits cannot be smaller; one entry for each positive weight.

    Args:
        part: whose head.
        row: of that head.
        claim: line of claims.jsonl whose property needs the change.
        rival: a class that the claimed one has to overtake.
        weight: 1 or more; only their proportions count.
        offset: grid steps from the claim's record to an input of its region where the rival is far ahead.
    """

    part: Int32[np.ndarray, " dual"]
    row: Int32[np.ndarray, " dual"]
    claim: Int32[np.ndarray, " dual"]
    rival: Int32[np.ndarray, " dual"]
    weight: Int32[np.ndarray, " dual"]
    offset: Int32[np.ndarray, "dual feature"]

    def __post_init__(self) -> None:
        count = len(self.part)
        if count > MAX_DUALS or any(len(getattr(self, entry.name)) != count for entry in fields(self)):
            raise Schema(f"more than {MAX_DUALS} duals, or arrays of different lengths")
        for name in ("part", "row", "claim", "rival"):
            if count and getattr(self, name).min() < 0:
                raise Schema(f"a dual's {name} is negative")
        if count and self.weight.min() < 1:
            raise Schema("a dual's weight is not positive")

    @classmethod
    def none(cls) -> "Duals":
        """No duals."""
        empty = np.zeros(0, np.int32)
        return cls(
            part=empty, row=empty, claim=empty, rival=empty, weight=empty, offset=np.zeros((0, 0), np.int32)
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a file of hints holds."""

    slopes: Slopes
    duals: Duals


def to_bytes(hints: Hints) -> bytes:
    """The file's bytes; `parse` reads them.

    Raises:
        EncodingError: too large for any archive.
        Schema: too large for a reader.
    """
    arrays = {entry.name: getattr(hints.slopes, entry.name) for entry in fields(hints.slopes)}
    arrays |= {f"dual_{entry.name}": getattr(hints.duals, entry.name) for entry in fields(hints.duals)}
    data = write_npz(arrays)
    if len(data) > MAX_FILE or sum(array.nbytes for array in arrays.values()) > MAX_UNPACKED - (1 << 16):
        raise Schema(f"hints of {len(data)} bytes, over what a reader accepts", where=FILE)
    return data


def parse(data: bytes, *, where: str = FILE) -> Hints:
    """Read a file of hints.

    Raises:
        MalformedError: not such a file, or too large.
    """
    arrays = read_npz(data, _EXPECTED, limit=MAX_UNPACKED, where=where)
    try:
        return Hints(
            slopes=Slopes(**{entry.name: arrays[entry.name] for entry in fields(Slopes)}),
            duals=Duals(**{entry.name: arrays[f"dual_{entry.name}"] for entry in fields(Duals)}),
        )
    except Schema as error:
        raise error.at(where) from None
