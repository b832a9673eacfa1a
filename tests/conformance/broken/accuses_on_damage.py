"""Ends with 3 where a file is damaged: an accusation of somebody who did nothing (SPEC 1.4 c, 13.7)."""

from auditor.cli import program
from tests.conformance.broken import start

FAILS = ("log/tile-changed", "receipt/proof-hash", "report/page-changed")


def patch(put):
    real = program.fail
    put(program, "fail", lambda error, code: real(error, 3 if code == 4 else code))


if __name__ == "__main__":
    start(patch)
