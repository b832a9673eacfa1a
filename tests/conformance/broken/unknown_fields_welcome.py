"""Ignores fields that it does not know, also where a misspelt one was meant to limit a key (SPEC 2.1 e)."""

from protocol.canonical import Fields
from tests.conformance.broken import start

FAILS = ("receipt/trust-unknown-field", "receipt/payload-unknown-field")


def patch(put):
    put(Fields, "done", lambda self: None)


if __name__ == "__main__":
    start(patch)
