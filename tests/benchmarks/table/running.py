"""Worlds in processes of their own: each finishes cell after cell, and writes each one as it is done.

A cell that crashes is told of and left out of the state, so that the next run tries it again; the world's other cells
go on. After the limit no cell is begun; the ones in work are finished.
"""

import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.table import cells
from tests.benchmarks.table.figures import measure
from tests.benchmarks.table.flow import Flow
from tests.benchmarks.table.worlds import Size, draw


@dataclass(frozen=True, kw_only=True)
class Task:
    """One world.

    Args:
        name: data set.
        scenario: what is forgotten.
        seed: of everything.
        rows: the methods that are missing.
        size: how many records, how long.
        data: folder of data sets.
        state: where finished cells go.
        cache: bases and shadow models by content.
        device: where models are trained.
        until: time (seconds since 1970) from which on no cell is begun; None for no such time.
    """

    name: str
    scenario: str
    seed: int
    rows: tuple[str, ...]
    size: Size
    data: Path | None
    state: Path
    cache: Path
    device: str
    until: float | None

    @property
    def title(self) -> str:
        return f"{self.name}, {self.scenario}, seed {self.seed}"

    @property
    def over(self) -> bool:
        """Whether no further cell is to be begun: the time is up, or whoever started this process is gone."""
        parent = multiprocessing.parent_process()
        return (self.until is not None and time.time() >= self.until) or (parent is not None and not parent.is_alive())


@dataclass
class Done:
    """What became of a world: cells finished, cells that crashed (with the last line of the error), cells left."""

    finished: int = 0
    crashed: tuple[str, ...] = ()
    left: int = 0


def say(text: str) -> None:
    """A line of progress, written at once: several processes share the stream."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _kind(name: str) -> str:
    return "conv" if name.startswith("cifar10") else "mlp"


def _cell(flow: Flow, row: str) -> dict[str, Any]:
    made = flow.make(row.replace(", ", "-").replace(" ", "-"), cells.ROWS[row])
    return {"refused": made, "device": flow.device} if isinstance(made, str) else measure(flow, made)


def world(task: Task) -> Done:
    """Make one world's missing cells."""
    done = Done(left=len(task.rows))
    if task.over:
        return done
    began = time.process_time()
    try:
        roles = draw(task.name, task.scenario, task.seed, task.size, task.data)
        if roles is None:
            return Done()
        with tempfile.TemporaryDirectory() as folder:
            flow = Flow(
                Path(folder) / "world", roles, kind=_kind(task.name), size=task.size, seed=task.seed, cache=task.cache,
                device=task.device,
            )  # fmt: skip
            setup = time.process_time() - began
            say(
                f"{task.title}: {len(roles.forget)} of {len(roles.y)} records; base and commitment took "
                f"{setup:.0f} s of processor time"
            )
            for row in task.rows:
                if task.over:
                    break
                started, busy = time.monotonic(), time.process_time()
                done.left -= 1
                try:
                    result = _cell(flow, row)
                except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it is, other cells can be made
                    traceback.print_exc()
                    last = str(error).strip().splitlines()[-1:] or [""]
                    done.crashed += (f"{task.title}: {row}: {type(error).__name__}: {last[0][:300]}",)
                    continue
                result |= {"processor": time.process_time() - busy, "setup": setup}
                what = {"data": task.name, "scenario": task.scenario, "seed": task.seed, "row": row}
                cells.add(task.state, cells.digest(task.name, task.scenario, task.seed, row, task.size), what, result)
                done.finished += 1
                say(
                    f"{task.title}: {row}: {time.monotonic() - started:.1f} s, "
                    f"{result.get('verdicts') or result['refused']}"
                )
    except (Exception, SystemExit) as error:  # noqa: BLE001  # one world is not the whole table
        traceback.print_exc()
        done.crashed += (f"{task.title}: {type(error).__name__}: {str(error).strip()[:300]}",)
    return done


def _start(threads: int) -> None:
    torch.set_num_threads(threads)


def run(tasks: list[Task], *, jobs: int) -> list[str]:
    """Run worlds, `jobs` at once, in the given order; return what crashed."""
    crashed: list[str] = []
    finished = left = 0

    def count(number: int, done: Done) -> None:
        nonlocal finished, left
        crashed.extend(done.crashed)
        finished, left = finished + done.finished, left + done.left
        say(f"-- {number} of {len(tasks)} worlds; {finished} cells made, {len(crashed)} crashed, {left} not begun")

    if jobs == 1:
        for number, task in enumerate(tasks, 1):
            count(number, world(task))
        return crashed
    # Processes share the cores among themselves: threads within each would only wait for one another.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(1,)) as pool:
        futures = [pool.submit(world, task) for task in tasks]
        for number, future in enumerate(as_completed(futures), 1):
            count(number, future.result())
    return crashed
