"""Every method of the source papers, side by side.

    python -m tests.benchmarks.table [--data ../shared/data] [--small] [--sets digits,mnist] [--scenarios records,class]
                                     [--seeds 3] [--jobs 4] [--limit 3600] [--first] [--device cpu]
                                     [--state table.jsonl] [--cache table-cache] [--out TABLE.md]

A cell is (data set, scenario, seed, method). Cells of one (data set, scenario, seed), a world, share the base, its
commitment, the request and the auditor's shadow models. A finished cell is a line of the state file, under a digest of
what it is about; an interrupted run goes on with the next one. `--state` may be given several times, and may be a
folder: cells are read from all of them, new ones go to the first.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from tests.benchmarks.table import cells
from tests.benchmarks.table.rendering import render
from tests.benchmarks.table.running import Task, run
from tests.benchmarks.table.worlds import SCENARIOS, SETS, SMALL, Size

SMALL_SCENARIOS = ("single", "records", "class", "trigger", "sequence")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--small", action="store_true", help="minutes instead of hours")
    parser.add_argument("--sets", help="data sets, separated by commas")
    parser.add_argument("--scenarios", help="scenarios, separated by commas")
    parser.add_argument("--methods", help="rows by name, separated by semicolons")
    parser.add_argument("--seeds", type=int, help="how many, from 0")
    parser.add_argument("--jobs", type=int, default=1, help="worlds at once, each in a process")
    parser.add_argument("--limit", type=float, help="seconds after which no cell is begun")
    parser.add_argument("--first", action="store_true", help="seed 0 of every world before seed 1 of any")
    parser.add_argument("--device", default="cpu", help="where owner and auditor train: cpu or cuda")
    parser.add_argument("--state", type=Path, action="append", help="file or folder of finished cells; repeatable")
    parser.add_argument("--cache", type=Path, default=Path("table-cache"), help="bases and shadow models by content")
    parser.add_argument("--out", type=Path, help="write the table here")
    parser.add_argument("--only-render", action="store_true", help="make no cell")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, then write the table."""
    given = _arguments()
    began = time.time()
    size = SMALL if given.small else Size()
    sets = given.sets.split(",") if given.sets else (["digits"] if given.small or given.data is None else list(SETS))
    wanted = given.scenarios.split(",") if given.scenarios else list(SMALL_SCENARIOS if given.small else SCENARIOS)
    rows = given.methods.split(";") if given.methods else list(cells.ROWS)
    seeds = given.seeds or (1 if given.small else 3)
    if bad := [*(set(sets) - set(SETS)), *(set(wanted) - set(SCENARIOS)), *(set(rows) - set(cells.ROWS))]:
        sys.exit(f"there is no {bad[0]!r}; sets {SETS}, scenarios {SCENARIOS}, methods {list(cells.ROWS)}")
    places = given.state or [Path("table.jsonl")]
    own = places[0] / f"table-{os.getpid()}.jsonl" if places[0].is_dir() else places[0]
    known = cells.finished(places)
    worlds = [(name, scenario, seed) for name in sets for scenario in wanted for seed in range(seeds)]
    if given.first:
        worlds.sort(key=lambda world: world[2])
    tasks = []
    for name, scenario, seed in worlds:
        missing = tuple(row for row in rows if cells.digest(name, scenario, seed, row, size) not in known)
        if missing and not given.only_render:
            tasks.append(
                Task(
                    name=name, scenario=scenario, seed=seed, rows=missing, size=size, data=given.data, state=own,
                    cache=given.cache, device=given.device, until=None if given.limit is None else began + given.limit,
                )
            )  # fmt: skip
    crashed = run(tasks, jobs=max(1, given.jobs))
    text = render(cells.finished(places), size, sets, wanted, seeds)
    if given.out:
        given.out.write_text(text)
    print(text)
    if crashed:
        sys.exit("crashed, and not in the table:\n" + "\n".join(crashed))


if __name__ == "__main__":
    main()
