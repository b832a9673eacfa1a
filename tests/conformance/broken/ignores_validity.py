"""Never looks at a key's times: a revoked key signs for ever (SPEC 6.3)."""

from protocol.trust import Signer
from tests.conformance.broken import start

FAILS = ("receipt/revoked", "receipt/no-longer-valid", "receipt/time-limit-without-quorum-time")


def patch(put):
    put(Signer, "check_time", lambda self, witnessed, where: None)


if __name__ == "__main__":
    start(patch)
