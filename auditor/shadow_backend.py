"""Shadow models spread over processes or machines, through joblib alone.

What it gives: the same shadows as `auditor.shadows.train_shadows`, chunk by chunk on any joblib backend: `loky`
(processes on this machine), `dask` or `ray` (an engine that is running already). Each shadow draws everything
from its own seed, so where a chunk is trained makes no difference; with the same chunk size, libraries and kind
of processor the results are equal bit for bit. Every worker trains on one thread, which fixes the order of sums.

Progress comes by files: each worker writes how many epochs its chunk has seen, and whoever waits reads that until a
chunk is complete. Where workers see other disks nothing arrives, and a chunk is told of when it comes in.

Assumes workers that the auditor trusts with its reference data: they get all of it, and joblib talks to them by
pickle. Does not start clusters, and reads no pickle from anybody else.
"""

import importlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from jaxtyping import Float32, Int64

from auditor import shadows
from auditor.engine import BACKENDS, Backend
from auditor.shadow_cache import load_chunk, store_chunk
from auditor.shadows import Progress, Shadows, train_shadows
from protocol.errors import AuditorError
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe

_PAUSE = 0.1
_PATIENCE = 60.0
"""Seconds without a word from any worker, after which one only waits for the next chunk to come in."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Task:
    """What a worker needs: plain data, of which each worker makes its own job."""

    graph: Graph
    inputs: Float32[np.ndarray, "record ..."]
    labels: Int64[np.ndarray, "record"]
    recipe: Recipe
    seed: int
    count: int

    def job(self) -> "shadows._Job":
        """The job; its arrays are copies, since joblib may hand over read-only maps of files."""
        return shadows._Job(  # noqa: SLF001 (this is the other half of that module)
            network=shadows._Network(self.graph),  # noqa: SLF001
            inputs=np.array(self.inputs),
            labels=np.array(self.labels),
            recipe=self.recipe,
            seed=self.seed,
            count=self.count,
        )


@contextmanager
def _engine(backend: Backend, workers: int, address: str | None) -> Iterator[None]:
    """Enter the backend; what is opened here is closed again, the engine itself is left running."""
    if backend not in BACKENDS:
        raise AuditorError(f"a backend is one of {', '.join(BACKENDS)}, not {backend!r}")
    if backend == "loky":
        with joblib.parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1):
            yield
        return
    if backend == "dask":
        try:
            distributed: Any = importlib.import_module("dask.distributed")
        except ImportError:
            raise AuditorError("the dask backend needs the packages dask and distributed") from None
        if address is None:
            raise AuditorError("the dask backend needs the address of a running scheduler")
        try:
            client = distributed.Client(address, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise AuditorError(f"no dask scheduler answers at {address}: {error}") from None
        with client, joblib.parallel_config(backend="dask", client=client):
            yield
        return
    try:
        ray: Any = importlib.import_module("ray")
        register: Any = importlib.import_module("ray.util.joblib").register_ray
    except ImportError:
        raise AuditorError("the ray backend needs the package ray") from None
    if not ray.is_initialized():
        try:
            ray.init(address=address or "auto")
        except (OSError, ValueError, RuntimeError) as error:  # ConnectionError is an OSError
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise AuditorError(f"no ray cluster answers at {address or 'auto'}: {reason}") from None
    register()
    with joblib.parallel_config(backend="ray", n_jobs=workers):
        yield


def _chunk(task: _Task, bounds: tuple[int, int], told: Path) -> tuple[tuple[int, int], dict[str, np.ndarray]]:
    """Train the shadows from the first up to the second bound; runs in a worker."""

    def report(epochs: int) -> None:
        with suppress(OSError):  # another machine's disk
            told.write_text(str(epochs))

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return bounds, shadows._train(task.job(), range(*bounds), report)  # noqa: SLF001
    finally:
        torch.set_num_threads(before)


class _Told:
    """What workers have written about chunks that are not in yet."""

    def __init__(self, folder: Path, chunks: Iterable[tuple[int, int]], epochs: int) -> None:
        self._epochs = epochs
        self._seen = dict.fromkeys(chunks, 0)
        self._paths = {bounds: folder / f"{bounds[0]}-{bounds[1]}" for bounds in self._seen}

    def path(self, bounds: tuple[int, int]) -> Path:
        """Where the worker of a chunk writes."""
        return self._paths[bounds]

    def ended(self, bounds: tuple[int, int]) -> None:
        """Forget a chunk that came in."""
        del self._seen[bounds]

    def read(self) -> int:
        """Return how many epochs of single shadows the chunks under way have seen."""
        for bounds, seen in self._seen.items():
            with suppress(OSError, ValueError):  # not there yet, or being written
                self._seen[bounds] = max(seen, min(self._epochs, int(self._paths[bounds].read_text())))
        return sum((stop - start) * epochs for (start, stop), epochs in self._seen.items())

    def wait(self, told: Callable[[int], None]) -> None:
        """Tell of each epoch until a chunk is complete, or nobody has written anything for a while.

        What then comes in, a result or the end of a worker that was killed, is for joblib to say.
        """
        last, since = -1, time.monotonic()
        while time.monotonic() - since < _PATIENCE:
            done = self.read()
            if done != last:
                told(done)
                last, since = done, time.monotonic()
            if self._epochs in self._seen.values():
                return
            time.sleep(_PAUSE)


def train_shadows_on(
    graph: Graph,
    inputs: Float32[np.ndarray, "record ..."],
    labels: Int64[np.ndarray, "record"],
    *,
    recipe: Recipe,
    seed: int,
    count: int,
    backend: Backend = "loky",
    workers: int = 2,
    address: str | None = None,
    cache: Path | None = None,
    chunk: int = 16,
    progress: Progress | None = None,
) -> Shadows:
    """Train shadows on a backend; see `auditor.shadows.train_shadows` for what they are.

    Args:
        graph: as there, like all arguments that are not named below.
        inputs: they go to the workers.
        labels: likewise.
        recipe: as there.
        seed: as there.
        count: as there.
        backend: where to train.
        workers: processes of loky, tasks at a time of ray; dask decides for itself.
        address: of a running dask scheduler or ray cluster.
        cache: as there; chunks are interchangeable with those of a local run.
        chunk: shadows in a task.
        progress: as there, while chunks are under way as well; on ray, which joblib gives no results of before the
            last, at the end only.

    Raises:
        AuditorError: as there, or the backend is not there.
    """
    task = _Task(graph=graph, inputs=inputs, labels=labels, recipe=recipe, seed=seed, count=count)
    job = task.job()
    network = job.network
    shadows._check(job, chunk)  # noqa: SLF001
    if workers < 1:
        raise AuditorError("there must be at least one worker")
    with tempfile.TemporaryDirectory() as temporary:
        root = cache or Path(temporary)
        folder = root / shadows._key(job)  # noqa: SLF001
        shapes = {name: graph.initialisers[name].shape for name in (*network.trained, *sorted(network.averages))}
        missing = []
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            expected = {name: (stop - start, *shape) for name, shape in shapes.items()}
            expected[""] = (stop - start, len(inputs) // 2)
            if load_chunk(folder, start, stop, expected, records=len(inputs)) is None:
                missing.append((start, stop))
        ready = count - sum(stop - start for start, stop in missing)
        with _engine(backend, workers, address):
            notes = Path(temporary) / "told"
            notes.mkdir()
            told = _Told(notes, missing, recipe.epochs)
            tasks = (joblib.delayed(_chunk)(task, bounds, told.path(bounds)) for bounds in missing)
            # Dispatched at once; what `next` waits for is under way in the meantime.
            results: Iterator[tuple[tuple[int, int], dict[str, np.ndarray]]] = (
                iter(joblib.Parallel(return_as="list" if backend == "ray" else "generator_unordered")(tasks))
                if missing
                else iter(())
            )

            def under_way(epochs: int) -> None:
                if progress is not None:
                    progress(ready * recipe.epochs + epochs, count * recipe.epochs)

            for _ in missing:
                if progress is not None and backend != "ray":
                    told.wait(under_way)
                (start, stop), part = next(results)
                store_chunk(folder, start, stop, part)
                told.ended((start, stop))
                ready += stop - start
            if progress is not None and missing:
                progress(count * recipe.epochs, count * recipe.epochs)
        # Every chunk is there: this only puts them together, under the same checks as any other run.
        return train_shadows(graph, inputs, labels, recipe=recipe, seed=seed, count=count, cache=root, chunk=chunk)
