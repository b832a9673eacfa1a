"""Believes that an envelope is signed by whoever may sign it; the signature is never looked at (SPEC 6.1)."""

from protocol.trust import Trust
from tests.conformance.broken import start

FAILS = (
    "receipt/forged-report",
    "receipt/re-signed-payload",
    "receipt/stranger-certificate",
    "report/challenge-by-a-stranger",
)


def patch(put):
    def verify(self, envelope, *, role, origin, witnessed, where="envelope"):
        return tuple(s for s in self.signers if s.role == role and origin in s.logs)

    put(Trust, "verify", verify)


if __name__ == "__main__":
    start(patch)
