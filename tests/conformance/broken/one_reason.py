"""Ends with the right exit codes, and always gives the same reason."""

from protocol.errors import MalformedError, VerificationError
from tests.conformance.broken import start

FAILS = ("receipt/no-quorum", "log/rollback", "log/another-root")


def patch(put):
    def everything(kind):
        for one in kind.__subclasses__():
            put(one, "reason", "malformed")
            everything(one)

    put(VerificationError, "reason", "malformed")
    everything(VerificationError)
    everything(MalformedError)


if __name__ == "__main__":
    start(patch)
