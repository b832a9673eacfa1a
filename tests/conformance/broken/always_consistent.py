"""Says CONSISTENT whatever the report's verdict is, and whatever is wrong."""

import click

from protocol.program import Program
from tests.conformance.broken import start

FAILS = ("receipt/no-quorum", "log/tile-changed", "report/page-changed")


def patch(put):
    def fail(cls, error, code):
        click.echo('{"verdict": "CONSISTENT", "profile": "redirection", "findings": []}')
        raise SystemExit(0)

    put(Program, "fail", classmethod(fail))


if __name__ == "__main__":
    start(patch)
