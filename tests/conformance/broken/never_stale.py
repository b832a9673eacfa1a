"""Accepts a checkpoint of any age (SPEC 6.5)."""

from protocol.log import verify
from tests.conformance.broken import start

FAILS = ("log/frozen",)


def patch(put):
    put(verify, "verify_fresh", lambda seen, **_: None)


if __name__ == "__main__":
    start(patch)
