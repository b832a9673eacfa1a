"""Crashes on hostile bytes instead of refusing them."""

from protocol import canonical
from protocol.errors import MalformedError
from tests.conformance.broken import start

FAILS = ("receipt/file-spaces", "log/another-file", "report/file-unlisted")


def patch(put):
    put(canonical, "_check_depth", lambda text: None)
    put(MalformedError, "__init__", lambda self, message, **_: (_ for _ in ()).throw(KeyError(message)))


if __name__ == "__main__":
    start(patch)
