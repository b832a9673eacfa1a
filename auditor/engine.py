"""Where shadow models are trained, as data: what the command line says and `auditor.shadow_backend` does.

Proves nothing. It stands alone so that programs which train nothing do not load what trains.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Backend = Literal["loky", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where shadow models are trained, if not in this process.

    Attributes:
        backend: which engine.
        workers: processes of loky, tasks at a time of ray; dask decides for itself.
        address: of a running dask scheduler or ray cluster.
    """

    backend: Backend
    workers: int = 2
    address: str | None = None


__all__ = ["BACKENDS", "Backend", "Engine"]
