"""Keeps no memory between runs: every look is a first one (SPEC 5.8)."""

from protocol.log.witness import Memory
from tests.conformance.broken import start

FAILS = ("log/rollback", "log/split-view", "log/split-view-later", "witness/split-view")


def patch(put):
    put(Memory, "remembered", lambda self, origin: None)


if __name__ == "__main__":
    start(patch)
