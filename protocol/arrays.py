"""Named arrays in one file (`.npz`), read without trusting it and written the same way every time.

Proves: names, types, shapes and sizes were checked against what the caller expects before an
array was built; nothing was unpickled; the archive cannot expand beyond its limit, and no other
reader of zip files can find anything else in it: around the compressed streams every byte of the
container is the one that `write_npz` writes, so nothing can be put before, between or after them.
Does not say what the numbers mean, nor that two files of equal arrays are equal (another zlib may
compress otherwise). Source: SPEC 8.2; numpy's NEP 1 (array headers), PKWARE APPNOTE (zip), RFC 1951.
"""

import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge

Array = Shaped[np.ndarray, "..."]
MAX_MEMBER = (1 << 32) - 2
"""Bytes of one array, packed or not: what the zip format holds without its 64-bit extension."""
MAX_DIMENSIONS = 8
_TYPES = {np.dtype(name).str: np.dtype(name) for name in ("|u1", "<i4", "<i8", "<u4", "<u8", "<f4", "<f8", "|b1")}
_NAME = re.compile(r"[A-Za-z0-9_]{1,60}", re.ASCII)
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([^']{3})', 'fortran_order': False, 'shape': \((|[0-9]+,|[0-9]+(?:, [0-9]+)+)\), \} *\n"
)
_MAX_HEADER = 1024

# PKWARE APPNOTE 4.3.7, 4.3.12, 4.3.16. What never varies: version 2.0 to unpack, no flags, deflate,
# 1980-01-01 00:00, no extra field, no comment, one disk. Member attributes: made on Unix, mode 0600.
_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_START = (b"PK\x03\x04", 20, 0, 8, 0, 0x21)
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_CENTRAL_START = (b"PK\x01\x02", 0x0314, 20, 0, 8, 0, 0x21)
_END = struct.Struct("<4s4H2IH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an array must be: one of `kinds` (numpy type strings) and `dimensions` axes."""

    kinds: tuple[str, ...]
    dimensions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One file of the archive; `size` is the unpacked one, `start` and `packed` say where its stream lies."""

    name: str
    checksum: int
    size: int
    packed: int
    start: int

    def local(self) -> bytes:
        name = self.name.encode("ascii")
        return _LOCAL.pack(*_LOCAL_START, self.checksum, self.packed, self.size, len(name), 0) + name

    def central(self) -> bytes:
        name = self.name.encode("ascii")
        offset = self.start - _LOCAL.size - len(name)
        return (
            _CENTRAL.pack(
                *_CENTRAL_START, self.checksum, self.packed, self.size, len(name), 0, 0, 0, 0, 0o600 << 16, offset
            )
            + name
        )


def _tail(members: list[_Member], place: int) -> bytes:
    # Central directory and end record of an archive whose members end at `place`.
    directory = b"".join(member.central() for member in members)
    return directory + _END.pack(b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), place, 0)


def _header(kind: str, shape: tuple[int, ...]) -> bytes:
    # As numpy.lib.format writes version 1.0, spare digits for the first axis included: one spelling of each header.
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    text += " " * ((21 - len(str(shape[0]))) if shape else 0)
    length = -(-(len(_MAGIC) + 2 + len(text) + 1) // 64) * 64 - len(_MAGIC) - 2
    return _MAGIC + length.to_bytes(2, "little") + text.ljust(length - 1).encode("ascii") + b"\n"


def _check_values(array: Array) -> str:
    # What is wrong with an array's values, or nothing.
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return "holds NaN or infinity"
    if array.dtype.kind == "b" and (array.view(np.uint8) > 1).any():
        return "holds a truth value other than 0 and 1"
    return ""


def write_npz(arrays: Mapping[str, Array]) -> bytes:
    """`.npz` bytes that `read_npz` (and numpy) reads: fixed order, times and attributes.

    Equal arrays give equal bytes as long as zlib stays the same.

    Raises:
        EncodingError: a name, type, value or size that readers refuse.
    """
    pieces: list[bytes] = []
    members: list[_Member] = []
    place = 0
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        if not _NAME.fullmatch(name):
            raise EncodingError(f"{name[:60]!r} is not a name of an array")
        if array.dtype.str not in _TYPES or array.ndim > MAX_DIMENSIONS:
            raise EncodingError(f"the array {name} has type {array.dtype} or {array.ndim} axes, which readers refuse")
        if problem := _check_values(array):
            raise EncodingError(f"the array {name} {problem}")
        header = _header(array.dtype.str, array.shape)
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        stream = packer.compress(header) + packer.compress(array.data if array.size else b"") + packer.flush()
        size = len(header) + array.nbytes
        if max(size, len(stream)) > MAX_MEMBER or place + len(stream) > MAX_MEMBER:
            raise EncodingError(f"the arrays up to {name} have over 4 GiB, which no archive of this form holds")
        member = _Member(
            name=f"{name}.npy",
            checksum=zlib.crc32(array.data if array.size else b"", zlib.crc32(header)),
            size=size,
            packed=len(stream),
            start=place + _LOCAL.size + len(name) + 4,
        )
        members.append(member)
        pieces += [member.local(), stream]
        place = member.start + member.packed
    return b"".join([*pieces, _tail(members, place)])


def _members(data: bytes, most: int, limit: int, where: str) -> list[_Member]:
    # The archive's skeleton; nothing is unpacked here.
    members: list[_Member] = []
    place = total = 0
    while data[place : place + 4] == b"PK\x03\x04":
        if len(members) == most:
            raise Schema(f"more than the {most} arrays that are expected", where=where)
        if len(data) < place + _LOCAL.size:
            raise MalformedError("cut off", where=where)
        *start, checksum, packed, size, length, extra = _LOCAL.unpack_from(data, place)
        place += _LOCAL.size
        name = data[place : place + length]
        place += length
        if tuple(start) != _LOCAL_START or extra or not name.endswith(b".npy"):
            raise NonCanonical("not an archive in the one accepted form", where=where)
        try:
            text = name.decode("ascii")
        except UnicodeDecodeError:
            raise Schema("the name of an array is not ASCII", where=where) from None
        if members and text <= members[-1].name:
            raise Schema("the arrays are not sorted by name, or one occurs twice", where=where)
        if packed > len(data) - place:
            raise MalformedError("cut off", where=where)
        total += size
        if total > limit:
            raise TooLarge(f"expands to over {limit} bytes", where=where)
        members.append(_Member(name=text, checksum=checksum, size=size, packed=packed, start=place))
        place += packed
    if data[place:] != _tail(members, place):
        raise NonCanonical("not an archive in the one accepted form, or one with something added", where=where)
    return members


def _array(data: bytes, member: _Member, expected: Expected, where: str) -> Array:
    # Type and shape come first: memory is taken only for what belongs here.
    unpacker = zlib.decompressobj(-15)
    stream = memoryview(data)[member.start : member.start + member.packed]
    try:
        head = unpacker.decompress(stream, len(_MAGIC) + 2)
        length = int.from_bytes(head[len(_MAGIC) :], "little")
        if not head.startswith(_MAGIC) or not 0 < length <= _MAX_HEADER:
            raise Schema("not an array of format 1.0", where=where)
        head += unpacker.decompress(unpacker.unconsumed_tail, length)
        match = _HEADER.fullmatch(head, len(_MAGIC) + 2)
        if match is None:
            raise Schema("the array header has another form", where=where)
        kind = match[1].decode("latin-1")
        shape = tuple(int(size) for size in match[2].replace(b",", b" ").split())
        if kind not in expected.kinds or kind not in _TYPES or len(shape) != expected.dimensions:
            raise Schema(f"is {kind!r} with {len(shape)} axes, which is not what belongs here", where=where)
        if head != _header(kind, shape):
            raise NonCanonical("the array header is not in its one spelling", where=where)
        dtype = _TYPES[kind]
        # An empty array must not name sizes that numpy cannot hold either, so zeros count as ones here.
        if math.prod(max(1, size) for size in shape) * dtype.itemsize > MAX_MEMBER:
            raise TooLarge("the shape is beyond 4 GiB", where=where)
        size = math.prod(shape) * dtype.itemsize
        if size != member.size - len(head):
            raise Schema("has another length than its shape says", where=where)
        body = unpacker.decompress(unpacker.unconsumed_tail, size + 1)
    except zlib.error as error:
        raise MalformedError(f"cannot be unpacked: {error}", where=where) from None
    # At the end exactly, with no byte of the stream left over.
    if len(body) != size or not unpacker.eof or unpacker.unused_data or unpacker.unconsumed_tail:
        raise MalformedError("unpacks to another length than it says", where=where)
    if zlib.crc32(body, zlib.crc32(head)) != member.checksum:
        raise MalformedError("damaged: another checksum", where=where)
    array: Array = np.frombuffer(body, dtype=dtype).reshape(shape)
    if problem := _check_values(array):
        raise Schema(problem, where=where)
    return array


def read_npz(
    data: bytes,
    expected: Mapping[str, Expected],
    *,
    optional: Iterable[str] = (),
    limit: int = 1 << 30,
    where: str = "arrays",
) -> dict[str, Array]:
    """Read exactly the expected arrays (read-only).

    Args:
        data: the whole file, as `write_npz` writes it.
        expected: name to type and number of axes; an archive with any other name is refused.
        optional: names that may be missing.
        limit: largest total of uncompressed bytes.
        where: what to name in an error.

    Raises:
        MalformedError: not such an archive; nothing beyond `limit` was allocated.
    """
    result: dict[str, Array] = {}
    for member in _members(data, len(expected), limit, where):
        name = member.name.removesuffix(".npy")
        place = f"{where}[{name[:40]}]"
        if name not in expected:
            raise Schema("an array that is not expected here", where=place)
        result[name] = _array(data, member, expected[name], place)
    missing = set(expected) - set(result) - set(optional)
    if missing:
        raise Schema(f"the array {min(missing)!r} is missing", where=where)
    return result
