"""The most memory that this process holds while something runs.

Linux only (`/proc`): the kernel's high-water mark of resident memory is set back first, so that what ran before does not
count; memory that an allocator keeps for later is given back as far as it can be. What else the process holds (the
interpreter, torch, the records) is counted. Source: proc(5), clear_refs 5 and VmHWM.
"""

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")


@dataclass
class Used:
    """The peak in bytes, and what was held at the start; None where the system does not tell."""

    bytes: int | None = None
    before: int | None = None


def held(name: str) -> int | None:
    """What the kernel says of this process under a name, in bytes: VmRSS now, VmHWM at most since it began.

    Not `getrusage`: its largest resident memory outlives exec, so that a child begins with its parent's.
    """
    with contextlib.suppress(OSError):
        for line in (_SELF / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


@contextlib.contextmanager
def peak() -> Iterator[Used]:
    """Measure what runs inside."""
    used = Used()
    gc.collect()
    reset = False
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        (_SELF / "clear_refs").write_text("5")
        reset = True
    used.before = held("VmRSS")
    yield used
    used.bytes = held("VmHWM") if reset else None
