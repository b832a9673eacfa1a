"""Ignores a listed witness's line that does not verify, as if it were a stranger's (SPEC 5.1 c)."""

from protocol.errors import BadSignature
from protocol.log import cosignature
from protocol.log import policy as policy_file
from tests.conformance.broken import start

FAILS = ("receipt/bad-cosignature", "receipt/cosignature-without-time")


def patch(put):
    class Lenient:
        @staticmethod
        def verify(line, key, text):
            try:
                return cosignature.verify(line, key, text)
            except BadSignature:
                return 1 << 62

    put(policy_file, "cosignature", Lenient)


if __name__ == "__main__":
    start(patch)
