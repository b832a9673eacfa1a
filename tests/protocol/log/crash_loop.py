"""Kills processes that append to and cosign one log, at random instants, and checks what is left each time.

    python -m tests.protocol.log.crash_loop FOLDER KILLS SEED

Each round forks one to three processes (appenders, a witness, one that publishes to a witness over HTTP, and that
witness's service), kills them by SIGKILL after a random time and checks, before anybody has put anything in order: the checkpoint is signed; every
acknowledged entry is where its acknowledgement said; what else is there is exactly whole batches that were under
way; the log extends every checkpoint published before; no acknowledged cosigning is forgotten, and every line of the
service that is in the checkpoint is in its memory. Every tenth round one
undisturbed cosigning follows and then the whole folder has to verify. Prints one line of figures.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

from protocol.errors import Error
from protocol.log.http import Client
from protocol.log.store import Log, verify_log
from protocol.log.witness import Memory, cosign
from protocol.log.witness_client import submit
from protocol.log.witness_http import Witness, serve
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, POLICY, WITNESSES


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


PORT = free_port()


def child(work, log, state, tag, seed, pipe):
    """Works until killed; says on the pipe what it begins and what is done."""

    def say(*words):
        os.write(pipe, json.dumps(words).encode() + b"\n")  # short, so written whole or not at all

    chance = random.Random(seed)
    number = 0
    say("ready")
    if work == "serve":
        memory = Memory(folder=state.with_name("served"))
        service = Witness(keys=[WITNESSES[2]], logs={ORIGIN: [LOG_KEY.verifier]}, memory=memory, clock=lambda: 1000)
        with serve(service, port=PORT):
            time.sleep(60)
    while True:
        if work == "append":
            count = chance.choice([1, 1, 1, 2, 5, 120])
            say("begin", number, count)
            first = log.append([f"{tag} {n}".encode() for n in range(number, number + count)], LOG_KEY)[0]
            say("done", first, number, count)
            number += count
        elif work == "publish":
            try:
                with Client(f"http://127.0.0.1:{PORT}", seconds=5) as client:
                    size = log.size
                    submit(log.path, client, [WITNESSES[2].verifier])
                say("published", size)
            except Error as error:
                # The service may not be up yet, or the log may have grown meanwhile: asked again.
                if "grown meanwhile" not in str(error) and "cannot be read" not in str(error):
                    raise
        else:
            size = log.size
            cosign(log.path, WITNESSES[0], state, 1000, log_key=LOG_KEY.verifier)
            say("cosigned", size)


def start(work, log, state, tag, seed):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            child(work, log, state, tag, seed, write)
        except BaseException as error:  # noqa: BLE001  (told to the parent, which fails)
            os.write(write, json.dumps(["failed", repr(error)]).encode() + b"\n")
        finally:
            os._exit(1)
    os.close(write)
    return pid, read


def events_of(pipe):
    with os.fdopen(pipe, "rb") as file:
        return [json.loads(line) for line in file.read().splitlines()]


class Checker:
    def __init__(self, log, state):
        self.log, self.state = log, state
        self.known = []  # every entry that was ever published
        self.root = log.root_at(0)
        self.cosigned = self.published = 0
        self.figures = {"kills": 0, "acknowledged": 0, "survived unacknowledged": 0, "lost unacknowledged": 0,
                        "left unfinished": 0, "cosigned": 0, "published": 0}  # fmt: skip

    def check(self, told):
        log, figures = self.log, self.figures
        head = POLICY.verify_checkpoint(log.checkpoint_bytes(), origin=ORIGIN).checkpoint
        assert log.root_at(head.size) == head.root
        assert log.root_at(len(self.known)) == self.root, "not an extension of what was published"
        figures["left unfinished"] += log.path.with_name("log.pending").exists()
        expected, open_batches = {}, []
        for tag, events in told.items():
            begun = None
            for name, *words in events:
                assert name != "failed", words
                if name == "begin":
                    begun = words
                elif name == "done":
                    first, number, count = words
                    expected.update({first + i: f"{tag} {number + i}".encode() for i in range(count)})
                    begun = None
                elif name == "cosigned":
                    self.cosigned = max(self.cosigned, words[0])
                    figures["cosigned"] += 1
                elif name == "published":
                    self.published = max(self.published, words[0])
                    figures["published"] += 1
            if begun is not None:
                number, count = begun
                open_batches.append([f"{tag} {number + i}".encode() for i in range(count)])
        new = [log.entry(index) for index in range(len(self.known), head.size)]
        for index, entry in expected.items():
            assert index >= len(self.known)
            assert index < head.size, f"the acknowledged entry {index} is lost"
            assert new[index - len(self.known)] == entry
        figures["acknowledged"] += len(expected)
        place = 0
        while place < len(new):
            if len(self.known) + place in expected:
                place += 1
                continue
            batch = next(batch for batch in open_batches if batch[0] == new[place])
            assert new[place : place + len(batch)] == batch, "a part of a batch"
            open_batches.remove(batch)
            place += len(batch)
            figures["survived unacknowledged"] += 1
        figures["lost unacknowledged"] += len(open_batches)
        self.known += new
        self.root = head.root
        remembered = Memory(folder=self.state).remembered(ORIGIN)
        if remembered is not None:
            seen = POLICY.verify_checkpoint(remembered).checkpoint
            assert seen.size >= self.cosigned
            assert log.root_at(seen.size) == seen.root
        served = Memory(folder=self.state.with_name("served")).remembered(ORIGIN)
        seen = POLICY.verify_checkpoint(served).checkpoint if served is not None else None
        if seen is not None:
            assert log.root_at(seen.size) == seen.root
        shown = POLICY.verify_checkpoint(log.checkpoint_bytes())
        # Nothing leaves the service before it is in its memory: neither what was acknowledged nor what is shown.
        least = max(self.published, shown.checkpoint.size if "w2" in shown.cosigned else 0)
        assert least == 0 or (seen is not None and seen.size >= least)
        if head.size:
            log.prove_inclusion(head.size - 1)


def main(folder, kills, seed):
    chance = random.Random(seed)
    folder = Path(folder)
    log, state = Log.create(folder / "log", LOG_KEY), folder / "state"
    checker = Checker(log, state)
    for kill in range(kills):
        works = chance.choice([["append"], ["append"], ["append", "append"], ["append", "witness"], ["witness"],
                               ["append", "append", "witness"], ["publish", "serve"],
                               ["append", "publish", "serve"]])  # fmt: skip
        running = {
            f"{kill}-{number}": start(work, log, state, f"{kill}-{number}", chance.random())
            for number, work in enumerate(works)
        }
        time.sleep(chance.random() * (0.6 if "serve" in works else 0.2))
        for pid, _ in running.values():
            os.kill(pid, signal.SIGKILL)
        for pid, _ in running.values():
            os.waitpid(pid, 0)
        checker.figures["kills"] += 1
        checker.check({tag: events_of(pipe) for tag, (_, pipe) in running.items()})
        if kill % 10 == 9:
            cosign(log.path, WITNESSES[1], folder / "state1", 1000, log_key=LOG_KEY.verifier)
            assert verify_log(log.path, POLICY, keep_leaves=False).size == len(checker.known)
    checker.figures["entries"] = len(checker.known)
    print(json.dumps(checker.figures))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
