"""A report that goes out is searched for the records that the auditor was shown: values and salts.

Proves (`leaks` is empty): none of the forms below occurs in the files. Searched in every file as it is, and in what it
packs (base64 words, zlib and gzip streams, zip members, PNG pixels): salts as bytes, hexadecimal and base64; rows of
values on the grid, as model inputs and as grey levels, as bytes of every usual integer and float type in both byte
orders, and as decimal numbers in text, whatever stands between them. A part of a row counts as well, if it is at least
`WINDOW` values long and holds at least `DISTINCT` different ones: else it is a stretch of background that says nothing
(of very many or very long records the most telling stretches are looked for). Records of fewer than 8 values are
looked for by their salts alone: a few small numbers stand in every report by chance. Does not say that no other
encoding hides a record, nor that the auditor keeps no copy. Source: SPEC 13.5.
"""

import base64
import binascii
import contextlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from protocol.model.schema import InputSchema
from protocol.records import Opening

WINDOW = 12
"""Consecutive values of one record that are looked for; shorter records are looked for as a whole."""
DISTINCT = 5
"""Different values that a window has to hold, or all of a record that has fewer."""
_SHORTEST = 8
_SMALL = 512
_NEEDLES = 20_000
_UNPACKED = 64 << 20
_DEPTH = 3
_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_KINDS = ("<i2", ">i2", "<i4", ">i4", "<i8", ">i8", "<f4", ">f4", "<f8", ">f8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """What was found: the file, which record by its place in the answer (never its values), and in which form."""

    path: str
    record: int
    form: str


@dataclass(frozen=True, slots=True)
class _Needles:
    # By length of bytes: what to look for and whose it is; and runs of numbers, rounded as text rounds them.
    exact: dict[int, dict[bytes, tuple[int, str]]]
    heads: dict[int, UInt64[np.ndarray, "needle"]]
    numbers: dict[tuple[float, ...], tuple[int, str]]
    run: int


def _rows(opened: Iterable[Opening], schema: InputSchema | None) -> Iterator[tuple[int, str, np.ndarray]]:
    for number, one in enumerate(opened):
        grid = np.asarray(one.values, dtype=np.int64)
        yield number, "grid values", grid.astype(np.float64)
        if schema is None or len(grid) != schema.features:
            continue
        yield number, "model inputs", schema.dequantise(grid[None].astype(np.int32)).ravel().astype(np.float64)
        span = int(schema.high.max() - schema.low.min())
        if (span and 255 % max(1, span) != 0) or span not in (0, 255):
            yield number, "grey levels", np.round((grid - int(schema.low.min())) * 255.0 / max(1, span))


def _needles(opened: tuple[Opening, ...], schema: InputSchema | None) -> _Needles:
    exact: dict[int, dict[bytes, tuple[int, str]]] = {}
    numbers: dict[tuple[float, ...], tuple[int, str]] = {}

    def add(data: bytes, record: int, form: str) -> None:
        exact.setdefault(len(data), {}).setdefault(data, (record, form))

    for number, one in enumerate(opened):
        add(one.salt, number, "salt")
        add(one.salt.hex().encode(), number, "salt in hexadecimal")
        add(base64.b64encode(one.salt)[:40], number, "salt in base64")
    features = min((len(one.values) for one in opened), default=0)
    run = min(WINDOW, features)
    most = max(2, min(16, _NEEDLES // max(1, len(opened))))
    for number, form, row in _rows(opened, schema):
        needed = max(3, min(DISTINCT, len(np.unique(row))))
        starts = range(0, max(1, len(row) - run + 1), max(1, run // 2))
        telling = sorted(starts, key=lambda start: -len(np.unique(row[start : start + run])))
        for start in sorted(telling[:most]):
            part = row[start : start + run]
            # Too short, or hardly more than one value: nothing that a text would not hold by chance.
            if run < _SHORTEST or len(np.unique(part)) < needed:
                continue
            numbers.setdefault(tuple(float(f"{value:.5g}") for value in part), (number, f"{form} in text"))
            for kind in _KINDS:
                whole = np.dtype(kind).kind == "i"
                if whole and not (part == np.round(part)).all():
                    continue
                add(part.astype(kind).tobytes(), number, f"{form} as {kind}")
            if (part == np.round(part)).all() and part.min() >= 0 and part.max() <= 255:
                add(part.astype(np.uint8).tobytes(), number, f"{form} as bytes")
    heads = {
        length: np.unique(np.array([int.from_bytes(needle[:8], "little") for needle in wanted], dtype=np.uint64))
        for length, wanted in exact.items()
    }
    return _Needles(exact, heads, numbers, run)


def _unfiltered(data: bytes) -> bytes | None:
    # Pixels of a PNG, row by row without their filter bytes; None if it is none that this reads.
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    place, packed, width, channels = 8, b"", 0, 1
    with contextlib.suppress(struct.error, IndexError, zlib.error):
        while place + 8 <= len(data):
            (length,), kind = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
            body = data[place + 8 : place + 8 + length]
            if kind == b"IHDR":
                width, _, depth, colour = struct.unpack(">IIBB", body[:10])
                if depth != 8:
                    return None
                channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
            elif kind == b"IDAT":
                packed += body
            place += 12 + length
        raw = zlib.decompressobj().decompress(packed, _UNPACKED)
        stride, rows, above = width * channels, [], bytes(width * channels)
        for start in range(0, len(raw) - stride, stride + 1):
            line = bytearray(raw[start + 1 : start + 1 + stride])
            for i in range(stride):
                left = line[i - channels] if i >= channels else 0
                corner = above[i - channels] if i >= channels else 0
                line[i] = (line[i] + _predicted(raw[start], left, above[i], corner)) % 256
            rows.append(bytes(line))
            above = bytes(line)
        return b"".join(row[::channels] for row in rows)
    return None


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    if kind == 4:
        guess = left + up - corner
        return min((left, up, corner), key=lambda value: abs(guess - value))
    return (0, left, up, (left + up) // 2)[kind] if kind < 4 else 0


def _inside(data: bytes, depth: int) -> Iterator[bytes]:
    """The data and everything packed in it, as far as `_DEPTH` and sizes allow."""
    yield data
    if depth == 0:
        return
    pixels = _unfiltered(data)
    if pixels is not None:
        yield pixels
    if data[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b"):
        with contextlib.suppress(zlib.error):
            yield from _inside(zlib.decompressobj(wbits=47).decompress(data, _UNPACKED), depth - 1)
    if data[:4] == b"PK\x03\x04":
        with (
            contextlib.suppress(zipfile.BadZipFile, OSError, zlib.error, NotImplementedError, RuntimeError),
            zipfile.ZipFile(io.BytesIO(data)) as archive,
        ):
            for info in archive.infolist():
                with archive.open(info) as member:
                    yield from _inside(member.read(_UNPACKED), depth - 1)
    for word in _BASE64.findall(data):
        text = word.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        with contextlib.suppress(binascii.Error):
            whole = text[: len(text) - (len(text) % 4 == 1)]
            yield from _inside(base64.b64decode(whole + b"=" * (-len(whole) % 4)), depth - 1)


def _find(data: bytes, needles: _Needles) -> Iterator[tuple[int, str]]:
    all_words = np.zeros(max(0, len(data) - 7), dtype=np.uint64)
    if len(data) > _SMALL:
        octets = np.frombuffer(data, dtype=np.uint8).astype(np.uint64)
        for step in range(8):
            all_words |= octets[step : step + len(all_words)] << np.uint64(8 * step)
    for length, wanted in needles.exact.items():
        if len(data) < length:
            continue
        places: Iterable[int] = range(len(data) - length + 1)
        if len(data) > _SMALL:
            # Candidates by their first eight bytes: most places are none.
            words = all_words[: len(data) - length + 1]
            near = np.searchsorted(needles.heads[length], words)
            near[near == len(needles.heads[length])] = 0
            places = np.flatnonzero(needles.heads[length][near] == words).tolist()
        for place in places:
            if (hit := wanted.get(data[place : place + length])) is not None:
                yield hit
    if needles.numbers and needles.run:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return
        found = [float(f"{float(word):.5g}") for word in _NUMBER.findall(data)]
        for start in range(len(found) - needles.run + 1):
            if (hit := needles.numbers.get(tuple(found[start : start + needles.run]))) is not None:
                yield hit


class Search:
    """What is looked for, made ready once."""

    def __init__(self, opened: Iterable[Opening], schema: InputSchema | None = None) -> None:
        """Prepare the search.

        Args:
            opened: the records that the auditor was shown.
            schema: the input grid, to look for model inputs and grey levels as well.
        """
        opened = tuple(opened)
        self._needles = _needles(opened, schema) if opened else None

    def __call__(self, files: Mapping[str, bytes]) -> tuple[Leak, ...]:
        """What can be read in the files; each record, file and form once."""
        found: dict[Leak, None] = {}
        if self._needles is None:
            return ()
        for path, data in files.items():
            for part in _inside(data, _DEPTH):
                for record, form in _find(part, self._needles):
                    found[Leak(path=path, record=record, form=form)] = None
        return tuple(found)


def leaks(files: Mapping[str, bytes], opened: Iterable[Opening], schema: InputSchema | None = None) -> tuple[Leak, ...]:
    """What of the opened records can be read in the files: `Search`, once.

    Args:
        files: content by path.
        opened: the records that the auditor was shown.
        schema: the input grid, to look for model inputs and grey levels as well.
    """
    return Search(opened, schema)(files)


__all__ = ["Leak", "Search", "leaks"]
