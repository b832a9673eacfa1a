"""Reads every version of a format as if it were its own (SPEC 1.4 d)."""

from protocol import receipt_file
from protocol import trust as trust_file
from tests.conformance.broken import start

FAILS = ("receipt/file-version-two", "receipt/trust-version")


def patch(put):
    class Any(str):
        __slots__ = ()

        def __ne__(self, other):
            return False

        __hash__ = str.__hash__

    # `version != VERSION` asks the right side first where it is a subclass of str.
    put(receipt_file, "VERSION", Any(receipt_file.VERSION))
    put(trust_file, "VERSION", Any(trust_file.VERSION))


if __name__ == "__main__":
    start(patch)
