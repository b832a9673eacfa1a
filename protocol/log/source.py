"""Where a log is read from: a folder, or any static server over plain HTTP.

Proves nothing: what `Fetch` gives is not believed by whoever asks. Source: C2SP tlog-tiles v0.1.0. SPEC 5.4.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import Error
from protocol.log import http
from protocol.log.files import Fetch, folder_fetch

Place = Path | str
"""A log's folder, or its address as text."""


def place(text: str) -> Place:
    """What a user wrote: an address stays text, anything else is a folder.

    Raises:
        Error: neither an address nor a folder that is there.
    """
    if http.is_url(text):
        return text
    folder = Path(text)
    if not folder.is_dir():
        raise Error("is not a folder, nor an http(s) URL", where=text)
    return folder


@contextmanager
def reading(where: Place) -> Iterator[Fetch]:
    """Read a log's files for as long as the context lasts.

    Raises:
        Schema: text that is no address.
    """
    if isinstance(where, str):
        with http.Client(where) as client:
            yield client.fetch
    else:
        yield folder_fetch(where)
