"""Run the models: `python -m tests.formal [--small] [--write]`.

Without `--write` every trace, and without `--small` every figure, is compared with what is committed.
"""

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.formal import models
from tests.formal.models import HOME, HONEST_END, Model, Protection, Run

RESULTS = HOME / "RESULTS.md"
_HEAD = """# What the models were found to say

Written by `python -m tests.formal --write` (Spin 6.5.2). "States" are those that a whole search stored, with Spin's
partial-order reduction; bounds that are not named have the defaults of the model. Every search was complete, none used
hashing (`-DBITSTATE`). What this means, and does not mean, is in README.md.

| model | bounds | states | properties broken |
|---|---|---|---|
"""


def _in_folder(job):
    with tempfile.TemporaryDirectory() as folder:
        return job(Path(folder))


def _all(jobs, workers):
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(_in_folder, jobs))


def run(*, small: bool, write: bool, workers: int | None = None, say=print) -> list[str]:
    """Run everything; return what is wrong, a sentence each."""
    wrong: list[str] = []
    found = models.load()
    whole: list[tuple[Model, tuple[str, ...]]] = [
        (model, bounds) for model in found for bounds in (*model.small, *(() if small else model.full))
    ]
    without: list[tuple[Model, Protection]] = [(model, one) for model in found for one in model.protections]
    ends: list[tuple[Model, str, int]] = [
        (model, name, number)
        for model in found
        for name, number in (*(() if small else model.numbers.items()), ("the honest end", HONEST_END))
    ]
    jobs = [
        *(lambda folder, m=m, b=b: models.holds(m, b, folder) for m, b in whole),
        *(lambda folder, m=m, p=p: models.remove(m, p, folder) for m, p in without),
        *(lambda folder, m=m, n=n: models.reach(m, n, folder) for m, _, n in ends),
    ]
    results: list[Run] = _all(jobs, workers or os.cpu_count() or 1)
    rows = []
    for (model, bounds), result in zip(whole, results, strict=False):
        named = " ".join(bounds) or "defaults"
        say(f"{model.name:12} {named:60} {result.states:>9} states, {result.errors} errors")
        rows.append(f"| `{model.name}` | {named} | {result.states:,} | none of {len(model.properties)} |")
        if result.errors or not result.complete:
            wrong.append(f"{model.name} with {named}: a property does not hold, or the search was cut short")
            wrong += [f"    {message}" for message in result.messages]
    results = results[len(whole) :]
    kept = {path.name for path in models.TRACES.glob("*.txt")}
    for (model, one), result in zip(without, results, strict=False):
        path = models.trace_file(model, one)
        kept.discard(path.name)
        if not result.errors or not result.messages:
            wrong.append(f"{model.name}: {one.breaks} still holds without {one.title}; nothing shows that it is needed")
            continue
        text = models.as_trace(model, one, result)
        say(f"{model.name:12} {one.title:60} breaks {one.breaks} in {len(result.messages)} steps")
        if write:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            wrong.append(f"{path.name} is not the trace that was found; --write keeps the new one")
    wrong += [f"{name} belongs to no protection" for name in sorted(kept)]
    results = results[len(without) :]
    for (model, name, _), result in zip(ends, results, strict=True):
        say(f"{model.name:12} {name:60} reached in {len(result.messages)} steps" if result.errors else f"{name}: never")
        if not result.errors:
            wrong.append(f"{model.name}: no run reaches {name}, so nothing is said about it")
    if not small:
        text = _HEAD + "\n".join(rows) + "\n"
        if write:
            RESULTS.write_text(text, "utf-8")
        elif not RESULTS.exists() or RESULTS.read_text("utf-8") != text:
            wrong.append("RESULTS.md has other figures; --write keeps the new ones")
    return wrong


def main() -> int:
    """Command line."""
    options = argparse.ArgumentParser(prog="python -m tests.formal", description=__doc__)
    options.add_argument("--small", action="store_true", help="small bounds; the honest end only")
    options.add_argument("--write", action="store_true", help="keep traces and figures")
    given = options.parse_args()
    absent = models.missing()
    if absent:
        print(absent, file=sys.stderr)
        return 2
    began = time.monotonic()
    wrong = run(small=given.small, write=given.write)
    print(f"{time.monotonic() - began:.0f} seconds")
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
