"""Byte fuzzing of every parser with atheris: `python -m tests.fuzz --seconds 10 [--keep] [TARGET ...]`.

Each target runs in a process of its own, with limits of memory and of time for one input. A fault's input is written to
`--out`, and the run ends with 1. With `--keep`, small inputs that reached new code go to tests/vectors/fuzz.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[1] / "vectors" / "fuzz"
MEMORY_MB = 2_048
INPUT_SECONDS = 10
KEPT, KEPT_BYTES = 12, 1_024


def child(name: str, arguments: list[str]) -> None:
    """Fuzz one target; does not return."""
    import atheris

    with atheris.instrument_imports(include=["protocol", "auditor", "yaml"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]

    def one(data: bytes) -> None:
        target(data)

    for seed in target.seeds():
        target(seed)  # what is imported late is imported before the clock runs
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def seeds(name: str, folder: Path) -> None:
    """Write a target's seeds and kept inputs."""
    from tests.fuzz.targets import TARGETS

    folder.mkdir(parents=True)
    for number, data in enumerate(TARGETS[name].seeds()):
        (folder / f"seed-{number}").write_bytes(data)
    for path in sorted((CORPUS / name).glob("*")):
        (folder / path.name).write_bytes(path.read_bytes())


def run(name: str, seconds: int, out: Path, *, keep: bool) -> tuple[int, str]:
    """Fuzz one target; give the number of executions, and what went wrong."""
    with tempfile.TemporaryDirectory() as temporary:
        given, found = Path(temporary) / "given", Path(temporary) / "found"
        seeds(name, given)
        found.mkdir()
        options = [
            f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={INPUT_SECONDS}", "-max_len=16384",
            f"-artifact_prefix={out}/{name}-", "-print_final_stats=1", "-seed=1", "-len_control=20",
        ]  # fmt: skip
        ran = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", "--child", name, "--", *options, str(found), str(given)],
            capture_output=True, text=True, errors="replace", check=False, timeout=seconds * 4 + 120,
        )  # fmt: skip
        done = re.search(r"number_of_executed_units:\s*(\d+)", ran.stderr)
        if ran.returncode:
            return int(done[1]) if done else 0, ran.stderr[-3_000:]
        if keep:
            _keep(name, found)
        return int(done[1]) if done else 0, ""


def _keep(name: str, found: Path) -> None:
    # The smallest first: a corpus is read by people too.
    small = sorted(
        (path for path in found.iterdir() if path.stat().st_size <= KEPT_BYTES), key=lambda p: p.stat().st_size
    )
    target = CORPUS / name
    target.mkdir(parents=True, exist_ok=True)
    room = KEPT - sum(1 for _ in target.iterdir())
    step = max(1, len(small) // max(1, room))
    for path in small[::step][: max(0, room)]:
        (target / path.name[:16]).write_bytes(path.read_bytes())


def main() -> int:
    """Fuzz what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Byte fuzzing of every parser.")
    parser.add_argument("--seconds", type=int, default=10, help="for each parser")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where inputs that show a fault go")
    parser.add_argument("--keep", action="store_true", help="add small inputs to tests/vectors/fuzz")
    parser.add_argument("targets", nargs="*")
    arguments = parser.parse_args()
    from tests.fuzz.targets import TARGETS

    arguments.out.mkdir(parents=True, exist_ok=True)
    names = arguments.targets or list(TARGETS)
    total, faults = 0, 0
    for name in names:
        count, problem = run(name, arguments.seconds, arguments.out, keep=arguments.keep)
        total += count
        faults += bool(problem)
        print(f"{name:18} {count:10,} executions{'  FAULT' if problem else ''}", flush=True)
        if problem:
            print(problem, flush=True)
    print(f"{len(names)} parsers, {total:,} executions, {faults} faults", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    if "--child" in sys.argv:
        place = sys.argv.index("--child")
        child(sys.argv[place + 1], sys.argv[place + 3 :])
    sys.exit(main())
