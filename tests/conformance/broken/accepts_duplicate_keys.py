"""Lets the last of two equal keys of an object win (SPEC 2.1 b)."""

from protocol import canonical
from tests.conformance.broken import start

FAILS = ("receipt/envelope-duplicate-key", "receipt/trust-duplicate-key")


def patch(put):
    put(canonical, "_object", dict)


if __name__ == "__main__":
    start(patch)
