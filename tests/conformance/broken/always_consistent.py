"""Says CONSISTENT whatever the report's verdict is, and whatever is wrong."""

import click

from auditor.cli import program
from tests.conformance.broken import start

FAILS = ("receipt/no-quorum", "log/tile-changed", "report/page-changed")


def patch(put):
    def fail(error, code):
        click.echo('{"verdict": "CONSISTENT", "profile": "redirection", "findings": []}')
        raise SystemExit(0)

    put(program, "fail", fail)


if __name__ == "__main__":
    start(patch)
