"""Takes an old copy of a log for two histories (SPEC 5.7, 13.7)."""

from protocol.errors import Consistency
from protocol.log import witness
from tests.conformance.broken import start

FAILS = ("log/rollback", "witness/rollback")


def patch(put):
    real = witness._compare

    def compare(old, new, tree):
        if new.size < old.size:
            raise Consistency("smaller", where=new.origin)
        real(old, new, tree)

    put(witness, "_compare", compare)


if __name__ == "__main__":
    start(patch)
