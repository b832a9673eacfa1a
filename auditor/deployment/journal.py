"""What was asked and what came back, one line each: the query log of the report, and the state of an interrupted run.

Proves: a file that parses holds a header and, without gaps, the queries from the first on, each with an answer of
finite logits or a reason why there is none. Holds numbers, names of identities and answers; no input, no header of an
identity, no record (threat `retentive-auditor`). The file is replaced as a whole after each query.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from auditor.deployment.inference import parse_json
from protocol.errors import MalformedError, NonCanonical, Schema, TooLarge

VERSION = "prune-audit/queries/v1"
MAX_FILE = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Line:
    """One query.

    Args:
        kind: core, near or ordinary.
        identity: name of the identity.
        url: place of the address in the header's list.
        at: seconds since 1970 when it was first sent.
        requests: how often it was sent.
        logits: the answer; None if there was none.
        version: the model version that the answer names, if another one was asked for.
        failure: why there is no answer; empty if there is.
    """

    kind: str
    identity: str
    url: int
    at: float
    requests: int
    logits: Float32[np.ndarray, " class"] | None
    version: str | None = None
    failure: str = ""

    def to_bytes(self, number: int) -> bytes:
        """One line of JSON; logits as the hexadecimal of their little-endian bytes."""
        value: dict[str, Any] = {
            "n": number, "kind": self.kind, "identity": self.identity, "url": self.url, "at": round(float(self.at), 3),
            "requests": self.requests,
        }  # fmt: skip
        if self.logits is not None:
            value["logits"] = self.logits.astype("<f4").tobytes().hex()
        if self.version is not None:
            value["version"] = self.version
        if self.failure:
            value["failure"] = self.failure
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """A query log.

    Args:
        endpoint: `Endpoint.public`.
        plan: digest of the probes, for `--resume`.
        planned: how many queries were to be sent.
        classes: logits of an answer.
        resumed: how often the run was interrupted and taken up again; each may have sent one query twice.
        lines: the queries, in the order of sending.
    """

    endpoint: dict[str, Any]
    plan: str
    planned: int
    classes: int
    resumed: int = 0
    lines: tuple[Line, ...] = ()

    @property
    def requests(self) -> int:
        """Requests that were sent, repeated ones included."""
        return sum(line.requests for line in self.lines)

    def header(self) -> bytes:
        """The first line."""
        value = {
            "version": VERSION, "endpoint": self.endpoint, "plan": self.plan, "planned": self.planned,
            "classes": self.classes, "resumed": self.resumed,
        }  # fmt: skip
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    def to_bytes(self) -> bytes:
        """The whole file."""
        return self.header() + b"".join(line.to_bytes(number) for number, line in enumerate(self.lines))


def _whole(value: Any, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise Schema(f"{name} is not a whole number from {low} to {high}")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > 400 or not value.isprintable():
        raise Schema(f"{name} is not a printable text")
    return value


def _line(raw: bytes, number: int, classes: int) -> Line:
    value = parse_json(raw)
    known = {"n", "kind", "identity", "url", "at", "requests", "logits", "version", "failure"}
    if not isinstance(value, dict) or set(value) - known or value.get("n") != number:
        raise Schema("is not a query, or not the next one")
    if value.get("kind") not in ("core", "near", "ordinary"):
        raise Schema("kind is none")
    at = value.get("at")
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not math.isfinite(at):
        raise Schema("at is not a time")
    logits = None
    if "logits" in value:
        text = _text_of_bytes(value["logits"], classes)
        logits = np.frombuffer(text, dtype="<f4").astype(np.float32)
        if not np.isfinite(logits).all():
            raise Schema("a logit is not finite")
    failure = _text(value.get("failure", ""), "failure")
    if (logits is None) != bool(failure):
        raise Schema("has neither an answer nor a failure, or both")
    return Line(
        kind=value["kind"],
        identity=_text(value.get("identity"), "identity"),
        url=_whole(value.get("url"), "url", 0, 99),
        at=float(at),
        requests=_whole(value.get("requests"), "requests", 1, 1_000_000),
        logits=logits,
        version=_text(value["version"], "version") if "version" in value else None,
        failure=failure,
    )


def _text_of_bytes(value: Any, classes: int) -> bytes:
    if not isinstance(value, str) or len(value) != 8 * classes or set(value) - set("0123456789abcdef"):
        raise Schema(f"logits is not the hexadecimal of {classes} float32")
    return bytes.fromhex(value)


def parse(data: bytes, *, where: str) -> Journal:
    """Read a query log.

    Raises:
        MalformedError: not one, or not in the spelling that `Journal.to_bytes` writes.
    """
    if len(data) > MAX_FILE:
        raise TooLarge(f"over {MAX_FILE} bytes", where=where)
    try:
        first, *rest = data.split(b"\n")
        if not rest or rest[-1] != b"":
            raise Schema("does not end with a line")
        head = parse_json(first)
        names = {"version", "endpoint", "plan", "planned", "classes", "resumed"}
        if not isinstance(head, dict) or set(head) != names or head["version"] != VERSION:
            raise Schema(f"is not a query log of version {VERSION}")
        if not isinstance(head["endpoint"], dict):
            raise Schema("endpoint is not an object")
        classes = _whole(head["classes"], "classes", 1, 1 << 20)
        planned = _whole(head["planned"], "planned", 0, 1_000_000)
        if len(rest) - 1 > planned:
            raise Schema("has more queries than were planned")
        found = Journal(
            endpoint=head["endpoint"],
            plan=_text(head["plan"], "plan"),
            planned=planned,
            classes=classes,
            resumed=_whole(head["resumed"], "resumed", 0, 1_000_000),
            lines=tuple(_line(raw, number, classes) for number, raw in enumerate(rest[:-1])),
        )
    except MalformedError as error:
        raise error.at(where) from None
    if found.to_bytes() != data:
        raise NonCanonical("is not spelled as a query log is written", where=where)
    return found


__all__ = ["Journal", "Line", "parse"]
