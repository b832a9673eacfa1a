"""A look at the outermost layers of a protobuf file before a library builds objects from it.

Proves: what is not raw tensor contents is small, so that building the message cannot cost much more
memory than the file has bytes (an empty submessage is 2 bytes on the wire and more than a hundred in
memory). Assumes nothing. Does not read the model. Source: SPEC 7.2; protobuf encoding,
https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator

from protocol.errors import MalformedError, TooLarge

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALISER = 7, 5
_LEAST = 16
_CONTENTS = frozenset({4, 9})
"""TensorProto.float_data and raw_data: as large in memory as on the wire."""


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at
    raise MalformedError("not protobuf: a number does not end")


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, where the field begins, where its contents begin, where it ends)."""
    at = start
    while at < end:
        begin = at
        key, at = _varint(data, at, end)
        wire = key & 7
        if wire == _VARINT:
            stop = _varint(data, at, end)[1]
        elif wire == _BYTES:
            length, at = _varint(data, at, end)
            stop = at + length
        elif wire in (_FIXED32, _FIXED64):
            stop = at + (4 if wire == _FIXED32 else 8)
        else:
            raise MalformedError(f"not protobuf: wire type {wire}")
        if stop > end:
            raise MalformedError("not protobuf: a field is longer than what holds it")
        # Only length-delimited fields can be the messages we look into.
        yield (key >> 3 if wire == _BYTES else 0), begin, at, stop
        at = stop


def check_wire(data: bytes, *, structure: int) -> None:
    """Refuse a model file with more than `structure` bytes that are not tensor contents.

    Raises:
        MalformedError: that, or the bytes are not protobuf on the layers looked at.
    """
    used = 0
    for number, begin, contents, stop in _walk(data):
        # No field counts as less than 16 bytes: it bounds how many of them are looked at, and how many are made.
        used += max(_LEAST, (contents if number in _CONTENTS else stop) - begin)
        if used > structure:
            raise TooLarge(f"more than {structure} bytes beside tensor contents")


def _walk(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    # Fields of the model, of its graph, and of that one's constants; the others' numbers don't matter.
    for number, begin, contents, stop in _fields(data, 0, len(data)):
        if number != _GRAPH:
            yield 0, begin, contents, stop
            continue
        yield 0, begin, contents, contents
        for part, part_begin, part_contents, part_stop in _fields(data, contents, stop):
            if part != _INITIALISER:
                yield 0, part_begin, part_contents, part_stop
                continue
            yield 0, part_begin, part_contents, part_contents
            yield from _fields(data, part_contents, part_stop)
