"""One query over HTTP: what came back, or why nothing did.

Proves: what it returns was read whole, within the size and time limits, from the address that was meant, and is an
answer by `inference`. Every query has a connection of its own: two identities that share one are one identity.
Assumes: over https, the certificates that this machine trusts; over http, nothing: anybody on the way can answer.
Does not: follow redirects, use proxies from the environment, or raise anything for what the other side does.
"""

import email.utils
import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float32

from auditor.deployment import inference
from auditor.deployment.endpoint import Endpoint, Identity
from auditor.deployment.inference import Answer
from protocol.errors import Error
from protocol.log.http import Client, Reply

_OK = 200
_BUSY = frozenset({429, 503})
_MAX_STATUS = 4096
_MAX_METADATA = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """No answer.

    Args:
        reason: why, in a few words.
        wait: seconds that the server asks for before the next request; None if it does not say.
        busy: whether the server says that it cannot answer now.
    """

    reason: str
    wait: float | None = None
    busy: bool = False


class Transport(Protocol):
    """Whatever can ask an endpoint."""

    def ready(self, endpoint: Endpoint, url: str, identity: Identity) -> Nothing | None:
        """None if service and model are there."""

    def ask(self, endpoint: Endpoint, url: str, identity: Identity, query: "Query") -> Answer | Nothing:
        """Send one query."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """A record to ask for, and what an answer has to look like."""

    record: Float32[np.ndarray, "..."]
    input_name: str
    output_name: str
    classes: int


def retry_after(text: str, *, now: float) -> float | None:
    """Seconds of a `Retry-After`, which is a number of them or a date; None if it is neither."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError, OSError, TypeError, IndexError):
        return None


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


@dataclass(frozen=True, slots=True)
class Rest:
    """Open Inference Protocol v2 over REST.

    Args:
        clock: seconds since 1970, for a `Retry-After` that is a date.
    """

    clock: "Clock"

    def ready(self, endpoint: Endpoint, url: str, identity: Identity) -> Nothing | None:
        """Ask whether the service is ready and knows the model; None if so."""
        for path, limit in (("v2/health/ready", _MAX_STATUS), (endpoint.path, _MAX_METADATA)):
            reply = self._exchange(endpoint, url, identity, "GET", path, limit=limit)
            if isinstance(reply, Nothing):
                return reply
            if path == endpoint.path:
                try:
                    inference.metadata(reply.body, model=endpoint.model)
                except Error as error:
                    return Nothing(reason=_printable(f"metadata: {error.message}"))
        return None

    def ask(self, endpoint: Endpoint, url: str, identity: Identity, query: Query) -> Answer | Nothing:
        """Send one record; its answer, or why there is none."""
        body = inference.request(query.record, name=query.input_name)
        reply = self._exchange(
            endpoint, url, identity, "POST", f"{endpoint.path}/infer", limit=inference.limit(query.classes), body=body
        )
        if isinstance(reply, Nothing):
            return reply
        try:
            return inference.answer(reply.body, model=endpoint.model, output=query.output_name, classes=query.classes)
        except Error as error:
            return Nothing(reason=_printable(error.message))

    def _exchange(
        self,
        endpoint: Endpoint,
        url: str,
        identity: Identity,
        method: str,
        path: str,
        *,
        limit: int,
        body: bytes | None = None,
    ) -> Reply | Nothing:
        headers = {**identity.headers, "Accept": "application/json", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            with Client(url, seconds=endpoint.timeout) as client:
                reply = client.exchange(method, path, limit=limit, body=body, headers=headers)
        except Error as error:
            return Nothing(reason=_printable(error.message))
        if reply.location or reply.status // 100 == 3:
            return Nothing(reason=f"HTTP status {reply.status}: redirects are not followed")
        if reply.status != _OK:
            wait = retry_after(reply.retry_after, now=self.clock()) if reply.retry_after else None
            return Nothing(reason=f"HTTP status {reply.status}", wait=wait, busy=reply.status in _BUSY)
        return reply


class Clock(Protocol):
    """Seconds since 1970."""

    def __call__(self) -> float:
        """The time."""


__all__ = ["Clock", "Nothing", "Query", "Rest", "Transport", "retry_after"]
