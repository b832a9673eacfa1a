"""SHA-256 in the three forms this project uses: of bytes, of a file, of tagged parts.

Tagged hashes separate purposes: no two domains can be made to collide by choosing parts,
because domain and every part are preceded by their length. Source: SPEC 3.2.
"""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import rfc8785
from jaxtyping import UInt8

from protocol.errors import EncodingError

_TOGETHER = 1 << 20


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> tuple[str, int]:
    """SHA-256 (hexadecimal) and size in bytes of the file at `path`, read once in blocks.

    Raises:
        OSError: it cannot be read; `manifest.read_listed` is for files of somebody else.
    """
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def tagged(domain: str, *parts: bytes) -> bytes:
    """SHA-256 over a domain name and parts, each preceded by its length as a big-endian uint64."""
    digest = hashlib.sha256(_opening(domain))
    for part in parts:
        digest.update(_length(part))
        digest.update(part)
    return digest.digest()


def tagged_rows(domain: str, *parts: UInt8[np.ndarray, "row size"]) -> list[bytes]:
    """`tagged` of each row of arrays of bytes with one size each: the same digests, for very many rows."""
    count = len(parts[0])
    opening = _opening(domain)
    size = len(opening) + sum(8 + part.shape[1] for part in parts)
    found: list[bytes] = []
    step = max(1, _TOGETHER // size)
    buffer = np.empty((min(step, count), size), np.uint8)
    buffer[:, : len(opening)] = np.frombuffer(opening, np.uint8)
    sha256 = hashlib.sha256
    for start in range(0, count, step):
        rows, place = min(step, count - start), len(opening)
        for part in parts:
            buffer[:, place : place + 8] = np.frombuffer(part.shape[1].to_bytes(8, "big"), np.uint8)
            place += 8
            buffer[:rows, place : place + part.shape[1]] = part[start : start + rows]
            place += part.shape[1]
        whole = buffer.data.cast("B")
        found += [sha256(whole[at : at + size]).digest() for at in range(0, rows * size, size)]
    return found


@cache
def _opening(domain: str) -> bytes:
    name = f"prune-audit/{domain}/v1".encode()
    return _length(name) + name


def _length(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big")


def jcs_digest(value: object) -> str:
    """SHA-256 (hexadecimal) of the RFC 8785 form of a JSON value: for content digests only, never under a signature.

    Raises:
        EncodingError: when RFC 8785 has no form for the value (or it is nested too deep to find out).
    """
    try:
        return sha256_hex(rfc8785.dumps(value))  # type: ignore[arg-type]
    except (ValueError, RecursionError) as error:
        # Its own errors are ValueErrors; so is what Python raises for a surrogate in a key or a huge integer.
        raise EncodingError(f"no canonical JSON form: {error}") from None
