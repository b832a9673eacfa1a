"""Prints no JSON line."""

from auditor import cli
from tests.conformance.broken import start

FAILS = ("receipt/no-quorum", "log/tile-changed")


def patch(put):
    put(cli, "_reason", lambda reason, at="": None)


if __name__ == "__main__":
    start(patch)
