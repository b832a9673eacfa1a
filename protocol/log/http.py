"""Reading a log over plain HTTP from any static server.

Proves nothing: what comes back is as unbelieved as a file in somebody's folder. Assumes only that the
caller meant this address; nothing else is ever asked. Redirects are reported and not followed, proxies
from the environment are not used, nothing is uncompressed. Every file has a size limit and a time limit
that a server which sends one byte now and then cannot stretch.
Source: C2SP tlog-tiles v0.1.0 (static files over HTTP). SPEC 5.4.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urlsplit

from protocol.errors import MalformedError, Schema, TooLarge

SECONDS = 30.0
"""Time limit for one file, from asking to its last byte (connecting has the same again)."""
_ABSENT = frozenset({404, 410})
_OK = 200
_MAX_REFUSAL = 4096  # bytes that are looked at of an answer that is not what was asked for


def is_url(text: str) -> bool:
    """Whether a log's place is meant as an address and not as a folder."""
    return text.startswith(("http://", "https://"))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    plain = url.isascii() and url.isprintable() and not any(c in url for c in " ?#\\@")
    if not known or not plain:
        raise Schema(f"{url[:100]!r} is not an address of the form https://host/path/")
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server answered.

    Args:
        status: the HTTP status.
        body: all of it where the status is 200, else its beginning.
        location: where to, of a redirect; empty otherwise.
        kind: the `Content-Type`, as sent.
        retry_after: the `Retry-After`, as sent.
    """

    status: int
    body: bytes
    location: str = ""
    kind: str = ""
    retry_after: str = ""


class Client:
    """One server, asked over one connection for as long as that lasts. A context manager.

    Args:
        url: `http` or `https`, a host, and the path below which the files are; no query, no user.
        seconds: time limit for one answer.
        context: whom to trust for `https`; the system's certificates if None.

    Raises:
        Schema: not such an address.
    """

    def __init__(self, url: str, *, seconds: float = SECONDS, context: ssl.SSLContext | None = None) -> None:
        parts = _split(url)
        self._base = parts.path.rstrip("/") + "/"
        self._seconds = seconds
        host = parts.hostname or ""
        self._socket: socket.socket | None = None
        self._connection: HTTPConnection
        if parts.scheme == "https":
            trust = context or ssl.create_default_context()
            self._connection = HTTPSConnection(host, parts.port, timeout=seconds, context=trust)
        else:
            self._connection = HTTPConnection(host, parts.port, timeout=seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def fetch(self, path: str, limit: int) -> bytes | None:
        """Get a file; this method is a `files.Fetch`.

        Args:
            path: relative to the address, made of characters that need no quoting.
            limit: largest accepted length in bytes.

        Raises:
            TooLarge: over the limit.
            MalformedError: no answer, an answer cut short, or one that is neither the file nor "not found".
        """
        status, data, location = self.ask("GET", path, limit=limit)
        if status in _ABSENT:
            return None
        if location:
            raise MalformedError(
                f"is elsewhere, the server says: {location[:200]!r}; redirects are not followed", where=path
            )
        if status != _OK:
            raise MalformedError(f"the server answers with HTTP status {status}", where=path)
        return data

    def ask(self, method: str, path: str, *, limit: int, body: bytes | None = None) -> tuple[int, bytes, str]:
        """Send one request; gives status, body and, for a redirect, where to.

        Args:
            method: `GET` or `POST`.
            path: as for `fetch`.
            limit: largest accepted length of the answer in bytes; of one with another status than 200 only
                the beginning is read.
            body: what to send.

        Raises:
            TooLarge, MalformedError: as for `fetch`.
        """
        reply = self.exchange(method, path, limit=limit, body=body)
        return reply.status, reply.body, reply.location

    def exchange(
        self, method: str, path: str, *, limit: int, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """`ask`, with headers of one's own, and with more of what came back.

        Args:
            method: as for `ask`, like the next three.
            path: the same.
            limit: the same.
            body: the same.
            headers: names and values that the caller has looked at.

        Raises:
            TooLarge, MalformedError: as for `fetch`.
        """
        late = threading.Event()
        timer = threading.Timer(self._seconds, self._abort, (late,))
        timer.daemon = True
        timer.start()
        try:
            answer = self._ask(method, path, limit, body, headers, late)
        except (OSError, HTTPException, UnicodeError, MalformedError) as error:
            self._connection.close()  # part of an answer may still be in it
            if late.is_set() or isinstance(error, TimeoutError):
                raise self._late(path) from None
            if isinstance(error, MalformedError):
                raise
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise MalformedError(f"cannot be read: {reason}", where=path) from None
        finally:
            timer.cancel()
        if late.is_set():
            # Cut off by us, which an answer without a length does not show.
            self._connection.close()
            raise self._late(path)
        return answer

    def _late(self, path: str) -> MalformedError:
        return MalformedError(f"cannot be read: no answer within {self._seconds:g} s", where=path)

    def _ask(
        self,
        method: str,
        path: str,
        limit: int,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        late: threading.Event,
    ) -> Reply:
        reused = self._connection.sock is not None
        try:
            return self._once(method, path, limit, body, headers)
        except ConnectionError:
            # A server may have closed the connection since its last answer; a new one decides.
            if not reused or late.is_set():
                raise
            self._connection.close()
            return self._once(method, path, limit, body, headers)

    def _once(self, method: str, path: str, limit: int, body: bytes | None, headers: Mapping[str, str] | None) -> Reply:
        if self._connection.sock is None:
            self._connection.connect()
        # The connection forgets its socket when an answer is to be the last one on it; the watchdog may not.
        self._socket = self._connection.sock
        self._connection.request(method, self._base + path, body, {"Accept-Encoding": "identity", **(headers or {})})
        with self._connection.getresponse() as answer:
            if answer.status == _OK:
                data = _body(answer, path, limit)
            else:
                data = answer.read(_MAX_REFUSAL)
                if not answer.isclosed():
                    self._connection.close()
            return Reply(
                status=answer.status,
                body=data,
                location=answer.getheader("Location", "") if answer.status // 100 == 3 else "",
                kind=answer.getheader("Content-Type", ""),
                retry_after=answer.getheader("Retry-After", ""),
            )

    def _abort(self, late: threading.Event) -> None:
        late.set()
        if self._socket is not None:
            # Wakes the reader. Not SSLSocket.shutdown, which would let it go on without decryption.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _body(answer: HTTPResponse, path: str, limit: int) -> bytes:
    if answer.getheader("Content-Encoding", "identity") != "identity":
        raise MalformedError("comes compressed, though that was not asked for", where=path)
    if answer.length is not None and answer.length > limit:
        raise TooLarge(f"over {limit} bytes", where=path)
    expected = answer.length
    data = answer.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"over {limit} bytes", where=path)
    if expected is not None and len(data) != expected:
        raise MalformedError(f"cut short after {len(data)} of {expected} bytes", where=path)
    answer.read()  # the end of a chunked answer
    return data
