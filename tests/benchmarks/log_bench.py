"""How much a log costs beyond its hashes, and whether memory stays flat as it grows.

    python -m tests.benchmarks.log_bench [--entries 1000000] [--ten-million] [--folder DIR] [--rounds 5]

Every ratio is against bare `hashlib` SHA-256 for the same number of hashes of the same lengths, timed in the same
run, alternating; median and range over the rounds. First `--rounds` batches of 65,536 short entries into fresh
logs (in memory where /dev/shm is there, and on `--folder`'s disk with every wait for it), then inclusion proofs:
the hash path by itself, parsing and signatures apart. Then one log of so many synthetic entries: append in batches,
open and prove, verify every file; peak memory of this process after each step. An append is the whole call: lock,
check of what is there, hashes, 514 new files each waited for (fsync), folders, checkpoint, signature.

Nothing is deleted before the end: on ext4 a new file costs 20 times as much (0.6 ms of kernel time on the machine
of RESULTS.md) for minutes after others were deleted near it, which would measure the bench and not the log.
"""

import argparse
import hashlib
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.log import files, merkle, policy, proof
from protocol.log.store import Log
from protocol.log.tree import TileTree
from protocol.log.verify import verify_log
from tests.protocol.log.helpers import LOG_KEY, POLICY, key

BATCH = 65_536
PROOFS = 2_000


def timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def bare(leaves: list[bytes], nodes: int) -> None:
    """The hashes alone, the way one would write them: no tree, no slices, nothing kept."""
    sha256 = hashlib.sha256
    for leaf in leaves:
        sha256(b"\x00" + leaf).digest()
    left = right = bytes(32)
    for _ in range(nodes):
        sha256(b"\x01" + left + right).digest()


def figure(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f} to {max(values):.2f})"


def report(name: str, ratios: list[float], seconds: list[float], hashes: int) -> None:
    each = [value / hashes * 1e6 for value in seconds]
    print(f"{name:<58} {figure(ratios, ' x bare'):<30} {figure(each, ' us/hash')}", flush=True)


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def appends(name: str, folder: Path | None, rounds: int) -> None:
    entries = [b"entry %d" % number for number in range(BATCH)]
    ratios, seconds = [], []
    with scratch(folder) as path:
        for number in range(rounds):
            log = Log.create(path / f"log{number}", LOG_KEY)
            base = timed(lambda: bare(entries, BATCH - 1))
            seconds.append(timed(lambda log=log: log.append(entries, LOG_KEY)))
            ratios.append(seconds[-1] / base)
    report(name, ratios, seconds, 2 * BATCH - 1)


def inclusions(rounds: int) -> None:
    size = 1_000_003
    with scratch(Path("/dev/shm") if Path("/dev/shm").is_dir() else None) as path:
        log = Log.create(path / "log", LOG_KEY)
        for first in range(0, size, BATCH):
            log.append([b"entry %d" % number for number in range(first, min(size, first + BATCH))], LOG_KEY)
        head, data = log.checkpoint(), log.checkpoint_bytes()
        tree = TileTree(files.folder_fetch(log.path), size)
        places = [number * 7919 % size for number in range(PROOFS)]
        entries = [b"entry %d" % place for place in places]
        made = [tree.inclusion(place) for place in places]
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    nodes = sum(map(len, made))
    written = [
        proof.to_bytes(proof.TlogProof(index=place, hashes=hashes, checkpoint_note=data))
        for place, hashes in zip(places, made, strict=True)
    ]

    def paths() -> None:
        for leaf, place, hashes in zip(leaves, places, made, strict=True):
            merkle.verify_inclusion(leaf, place, size, hashes, head.root)

    results: dict[str, tuple[list[float], list[float]]] = {}
    for name, action in (
        ("inclusion proofs of 10^6: hash paths", paths),
        ("  the same proofs: parsing", lambda: [proof.parse(text) for text in written]),
        ("  the same proofs: one signature each", lambda: [POLICY.verify_checkpoint(data) for _ in written]),
    ):
        ratios, seconds = results.setdefault(name, ([], []))
        for _ in range(rounds):
            base = timed(lambda: bare([], nodes))
            seconds.append(timed(action))
            ratios.append(seconds[-1] / base)
        report(name, ratios, seconds, nodes)


def peak() -> str:
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"


def large(entries: int, folder: Path | None) -> None:
    with scratch(folder) as path:
        log = Log.create(path / "log", LOG_KEY)
        print(f"\none log of {entries:,} entries, {BATCH:,} a batch; before: {peak()}", flush=True)
        slowest = 0.0
        begun = time.perf_counter()
        for first in range(0, entries, BATCH):
            batch = [b"synthetic %d" % number for number in range(first, min(entries, first + BATCH))]
            slowest = max(slowest, timed(lambda batch=batch: log.append(batch, LOG_KEY)))
            if first == 8 * BATCH:
                print(f"  append    after {first + BATCH:,}: {peak()}", flush=True)
        spent = time.perf_counter() - begun
        print(f"  append    {spent:.1f} s, slowest batch {slowest:.2f} s, {peak()}", flush=True)
        read: list[str] = []
        fetch = files.folder_fetch(log.path)

        def counting(path: str, limit: int) -> bytes | None:
            read.append(path)
            return fetch(path, limit)

        opened = Log.open(path / "log")
        tree = TileTree(counting, opened.size)
        assert tree.root_at(opened.size) == opened.checkpoint().root
        print(f"  open      root from {len(read)} tiles", flush=True)
        places = [number * 7919 % entries for number in range(200)]
        trusted = policy.parse(f"log {key(LOG_KEY.name, 'log').verifier.vkey}\nquorum none\n".encode())
        spent = timed(
            lambda: [proof.verify(b"synthetic %d" % place, opened.prove_inclusion(place), trusted) for place in places]
        )
        print(f"  prove     {spent / len(places) * 1e3:.2f} ms a proof, made and verified, {peak()}", flush=True)
        base = timed(lambda: bare([b"synthetic 1234567"] * BATCH, BATCH)) * entries / BATCH
        spent = timed(lambda: verify_log(path / "log", trusted, keep_leaves=False))
        print(f"  verify    {spent:.1f} s, {spent / base:.2f} x bare (all files), {peak()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--ten-million", action="store_true", help="10^7 entries: some minutes, 2 GB of disk")
    parser.add_argument("--folder", type=Path, help="on which disk; the system's temporary folder if not given")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {sys.version.split()[0]}; medians of {arguments.rounds}, with their range")
    if Path("/dev/shm").is_dir():
        appends("append 65,536 entries, files in memory", Path("/dev/shm"), arguments.rounds)
    appends("append 65,536 entries, on disk and waited for", arguments.folder, arguments.rounds)
    inclusions(arguments.rounds)
    large(10_000_000 if arguments.ten_million else arguments.entries, arguments.folder)


if __name__ == "__main__":
    main()
