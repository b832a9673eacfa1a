"""The safetensors format: a JSON header and raw tensor contents, read strictly and written in one way.

Proves: every byte of the file belongs to exactly one tensor of known type and shape, and the file is
in the one form that the safetensors library itself writes. Assumes nothing about the bytes. Does not
say what the tensors mean. Source: SPEC 7.7; https://huggingface.co/docs/safetensors (format).
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from protocol.canonical import Fields, parse_json
from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge

Tensor = Shaped[np.ndarray, "..."]
_KINDS: Mapping[str, np.dtype[np.generic]] = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "I64": np.dtype("<i8")}
_ORDER = ("I64", "F32", "I32")
"""The library's order: widest elements first, so that all contents are aligned; then by name."""
_HEADER = 64 << 10


def kind_of(array: Tensor) -> str:
    """The format's name of an array's element type.

    Raises:
        EncodingError: not float32, int32 or int64.
    """
    for kind, dtype in _KINDS.items():
        if array.dtype == dtype:
            return kind
    raise EncodingError(f"{array.dtype} has no place in a tensor file; float32, int32 and int64 have")


def write_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """The file's bytes; equal tensors give equal bytes, the same as the safetensors library gives.

    Raises:
        EncodingError: an element type that readers refuse.
    """
    kinds = {name: kind_of(array) for name, array in tensors.items()}
    order = sorted(tensors, key=lambda name: (_ORDER.index(kinds[name]), name))
    entries, contents, start = [], [], 0
    for name in order:
        raw = np.ascontiguousarray(tensors[name]).astype(_KINDS[kinds[name]], copy=False).tobytes()
        sizes = ",".join(map(str, tensors[name].shape))
        place = f"[{start},{start + len(raw)}]"
        entries.append(f'"{name}":{{"dtype":"{kinds[name]}","shape":[{sizes}],"data_offsets":{place}}}')
        contents.append(raw)
        start += len(raw)
    header = ("{" + ",".join(entries) + "}").encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + b"".join(contents)


def read_tensors(data: bytes, *, limit: int, where: str = "tensors") -> dict[str, Tensor]:
    """Read a file of named tensors (read-only arrays, no copy).

    Args:
        data: the whole file.
        limit: largest accepted length in bytes.
        where: what to name in an error.

    Raises:
        MalformedError: not such a file, in another form than `write_tensors` writes, or over the limit.
    """
    if len(data) > limit:
        raise TooLarge(f"{len(data)} bytes, at most {limit} are accepted", where=where)
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_HEADER, len(data) - 8):
        raise MalformedError("the header is cut off or over 64 KiB", where=where)
    header = parse_json(data[8 : 8 + length], limit=_HEADER, where=where)
    if not isinstance(header, dict):
        raise Schema("the header is not an object", where=where)
    contents = memoryview(data)[8 + length :]
    result: dict[str, Tensor] = {}
    end = 0
    for name, value in header.items():
        place = f"{where}[{name[:40]!r}]"
        if not name.replace(".", "").replace("_", "").isalnum() or not name.isascii() or len(name) > 64:
            raise Schema("a tensor's name has other characters than letters, digits, '.' and '_'", where=place)
        with Fields(value, where=place) as fields:
            dtype = _KINDS[fields.text("dtype", choices=tuple(_KINDS))]
            shape = fields.array("shape", longest=8)
            offsets = fields.array("data_offsets", longest=2)
        if any(type(size) is not int or not 0 <= size <= limit for size in shape):
            raise Schema("a shape that is not a list of sizes", where=place)
        size = math.prod(shape) * dtype.itemsize
        if offsets != [end, end + size] or end + size > len(contents):
            raise Schema("the contents are not where they should be, one tensor right behind the other", where=place)
        result[name] = np.frombuffer(contents[end : end + size], dtype=dtype).reshape(shape)
        end += size
    if end != len(contents):
        raise Schema(f"{len(contents) - end} bytes belong to no tensor", where=where)
    if write_tensors(result) != data:
        raise NonCanonical("the header is not in the one accepted spelling", where=where)
    return result
