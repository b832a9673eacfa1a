"""Ends with 3 where a file is damaged: an accusation of somebody who did nothing (SPEC 1.4 c, 13.7)."""

from protocol.program import Program
from tests.conformance.broken import start

FAILS = ("log/tile-changed", "receipt/proof-hash", "report/page-changed")


def patch(put):
    real = Program.fail.__func__
    put(Program, "fail", classmethod(lambda cls, error, code: real(cls, error, 3 if code == 4 else code)))


if __name__ == "__main__":
    start(patch)
