"""Accepts every 32 bytes as an Ed25519 public key (SPEC 4.2)."""

from protocol import keys
from tests.conformance.broken import start

FAILS = ("receipt/low-order-key", "receipt/non-canonical-key")


def patch(put):
    put(keys, "check_ed25519", lambda public: None)


if __name__ == "__main__":
    start(patch)
