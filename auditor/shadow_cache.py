"""Trained shadows on disk, so that an interrupted or repeated audit does not train them again.

Proves: a chunk that is read back has the bytes that were written, arrays of the expected names,
types and shapes, and finite values. A file that fails any of this counts as absent: the shadows
are trained again. The folder is the auditor's own; whoever can write to it can plant
shadows with a right digest, so this protects against accidents and mixed-up runs, not against
an intruder. No pickle is ever read.
"""

import io
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from protocol.digests import sha256_hex

_LARGEST_CHUNK_FILE = 4 << 30


def store_chunk(folder: Path, start: int, stop: int, part: Mapping[str, np.ndarray]) -> None:
    """Write a chunk under a name that holds its digest; complete or not there at all.

    Args:
        folder: of one key; made if absent.
        start: index of the chunk's first shadow.
        stop: index after its last.
        part: arrays by name; "" holds the indices of each shadow's half.
    """
    buffer = io.BytesIO()
    # Names of tensors may hold any character, "/" included: arrays are stored by position.
    np.savez(buffer, **{f"a{place}": part[name] for place, name in enumerate(sorted(part))})  # type: ignore[arg-type]
    data = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(folder / f"{start}-{stop}-{sha256_hex(data)}.npz")
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_chunk(
    folder: Path, start: int, stop: int, expected: Mapping[str, tuple[int, ...]], *, records: int
) -> dict[str, np.ndarray] | None:
    """A stored chunk, or None; a file whose bytes are not those of its name is removed and counts as not there.

    Args:
        folder: of one key.
        start: index of the chunk's first shadow.
        stop: index after its last.
        expected: shape of every array, by name.
        records: number of reference records; the indices in "" are below it.
    """
    for path in sorted(folder.glob(f"{start}-{stop}-*.npz")):
        digest = re.fullmatch(rf"{start}-{stop}-([0-9a-f]{{64}})\.npz", path.name)
        if digest is None or path.is_symlink() or path.stat().st_size > _LARGEST_CHUNK_FILE:
            continue
        data = path.read_bytes()
        if sha256_hex(data) != digest[1]:
            path.unlink()
            continue
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                part = {name: stored[f"a{place}"] for place, name in enumerate(sorted(expected))}
        except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile):
            continue
        within = (part[""] >= 0) & (part[""] < records)
        if within.all() and all(
            array.shape == expected[name]
            and array.dtype == (np.float32 if name else np.int64)
            and np.isfinite(array).all()
            for name, array in part.items()
        ):
            return part
    return None
