"""A study's finished parts in a file of JSON lines, so that one that was interrupted goes on with the next part.

A part is known by a key of everything that decides it; a line that an interruption cut off counts as not there.
"""

import json
from collections.abc import Callable
from pathlib import Path


def finished(state: Path) -> dict[str, list[str]]:
    """Lines of every finished part, by key."""
    done: dict[str, list[str]] = {}
    for line in state.read_text().splitlines() if state.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        done[entry["key"]] = entry["lines"]
    return done


def part(state: Path | None, key: str, work: Callable[[], list[str]]) -> list[str]:
    """A part's lines from the file, or made now and stored at once; without a file always made."""
    if state is None:
        return work()
    done = finished(state)
    if key not in done:
        done[key] = work()
        with state.open("a") as file:
            file.write("\n" * (state.stat().st_size > 0 and not state.read_bytes().endswith(b"\n")))
            file.write(json.dumps({"key": key, "lines": done[key]}) + "\n")
    return done[key]
