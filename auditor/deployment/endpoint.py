"""The endpoint file: whom to ask, as whom, how often, and how much.

Proves: nothing about the endpoint. A file that parses names http(s) addresses without user, query or fragment, and
headers that cannot change the request around them. Header values are secrets (bearer tokens): they are sent, and
stand in no report, state file, error or repr. Levels are the profile's; a tolerance here can only be narrower.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from auditor.files import read_file
from auditor.strict_yaml import parse_mapping, refuse_unknown
from protocol.errors import AuditorError, MalformedError, Schema, UnsupportedVersion
from protocol.log.http import Client, is_url

VERSION = "prune-audit/endpoint/v1"
CORE, NEAR, ORDINARY = 299, 60, 240
"""Queries of each kind: zero of 299 bounds a rate by 1 % at 95 %."""
_MAX_FILE = 1 << 18
_MAX_IDENTITIES = 1000
_MAX_QUERIES = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
# Ours to set, or such that they change where the request ends.
_OURS = frozenset({
    "host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding", "te", "trailer",
    "upgrade", "expect", "accept", "accept-encoding", "keep-alive", "proxy-connection",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One client that the queries come from.

    Args:
        name: for the report.
        headers: what is sent with each of its queries; secret.
        known: whether the endpoint's owner knows this identity to be the auditor's.
    """

    name: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    known: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A parsed endpoint file.

    Args:
        urls: where the service is; each query goes to one of them, drawn at random. `/v2/...` follows.
        model: the model's name there.
        model_version: its version there; None asks for none, and accepts any.
        identities: whom the queries come from, spread evenly.
        rate: queries a second, at most.
        span: seconds over which the queries are spread.
        timeout: seconds for one answer.
        attempts: how often a query is sent that is not answered.
        budget: requests at most, repeated ones included.
        core: probes inside supports.
        near: probes just outside.
        ordinary: records of the reference data.
        tolerance: largest difference of an answer, of the spread of its logits; None leaves it to the profile.
        input_name: the input tensor's name; None takes the certified file's.
        output_name: the output tensor's; likewise.
    """

    urls: tuple[str, ...]
    model: str
    model_version: str | None = None
    identities: tuple[Identity, ...] = (Identity(name="anonymous"),)
    rate: float = 5.0
    span: float = 0.0
    timeout: float = 30.0
    attempts: int = 5
    budget: int = 2_000
    core: int = CORE
    near: int = NEAR
    ordinary: int = ORDINARY
    tolerance: float | None = None
    input_name: str | None = None
    output_name: str | None = None

    @property
    def path(self) -> str:
        """The model's path below an address."""
        place = f"v2/models/{quote(self.model, safe='')}"
        return f"{place}/versions/{quote(self.model_version, safe='')}" if self.model_version is not None else place

    def public(self) -> dict[str, Any]:
        """What a report may say of it: an endpoint file without the identities' headers."""
        value: dict[str, Any] = {
            "version": VERSION,
            "urls": list(self.urls),
            "model": self.model,
            "identities": [{"name": one.name, "known": one.known} for one in self.identities],
            "rate_per_second": self.rate,
            "span_seconds": self.span,
            "timeout_seconds": self.timeout,
            "attempts": self.attempts,
            "budget": self.budget,
            "queries": {"core": self.core, "near": self.near, "ordinary": self.ordinary},
        }
        optional = {
            "model_version": self.model_version, "tolerance": self.tolerance, "input": self.input_name,
            "output": self.output_name,
        }  # fmt: skip
        return value | {name: found for name, found in optional.items() if found is not None}


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Schema(f"{name} is not a name of letters, digits and . _ : -", where=where)
    return value


def _number(value: Mapping[str, Any], name: str, default: float, low: float, high: float, where: str) -> float:
    found = value.get(name, default)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        raise Schema(f"{name} is not a number", where=where)
    if not low <= found <= high:
        raise Schema(f"{name} is not from {low:g} to {high:g}", where=where)
    return float(found)


def _count(value: Mapping[str, Any], name: str, default: int, low: int, high: int, where: str) -> int:
    found = value.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
        raise Schema(f"{name} is not a whole number from {low} to {high}", where=where)
    return found


def _address(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > 1000 or not is_url(value):
        raise Schema("url is not an address of the form https://host/path/", where=where)
    try:
        Client(value)  # nothing is asked: it only looks at the address
    except MalformedError as error:
        raise error.at(where) from None
    return value.rstrip("/")


def _headers(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 20:
        raise Schema("headers is not a mapping of at most 20 names to values", where=where)
    for name, text in value.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name) or name.lower() in _OURS:
            raise Schema(f"{str(name)[:40]!r} is not a header that an identity may set", where=where)
        if not isinstance(text, str) or len(text) > 8000 or not text.isascii() or not text.isprintable():
            raise Schema(f"the value of the header {name} is not printable ASCII", where=where)
    if len({name.lower() for name in value}) != len(value):
        raise Schema("a header occurs twice", where=where)
    return dict(value)


def _identities(value: Any, where: str) -> tuple[Identity, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_IDENTITIES:
        raise Schema(f"identities is not a list of 1 to {_MAX_IDENTITIES}", where=where)
    found = []
    for place, one in enumerate(value):
        at = f"{where}: identities[{place}]"
        if not isinstance(one, dict):
            raise Schema("is not a mapping", where=at)
        refuse_unknown(one, {"name", "headers", "known"}, at)
        if not isinstance(one.get("known", False), bool):
            raise Schema("known is not true or false", where=at)
        name = _text(one.get("name"), "name", at)
        found.append(Identity(name=name, headers=_headers(one.get("headers", {}), at), known=one.get("known", False)))
    if len({one.name for one in found}) != len(found):
        raise Schema("two identities have one name", where=where)
    return tuple(found)


def parse(data: bytes, *, where: str = "endpoint") -> Endpoint:
    """Read an endpoint file.

    Raises:
        MalformedError: not one.
    """
    return from_value(parse_mapping(data, where=where, limit=_MAX_FILE), where=where)


def from_value(value: Mapping[str, Any], *, where: str) -> Endpoint:
    """Read an endpoint file's fields, or `Endpoint.public`.

    Raises:
        MalformedError: not them.
    """
    if value.get("version") != VERSION:
        raise UnsupportedVersion(f"version {str(value.get('version'))[:40]!r}, this reads {VERSION}", where=where)
    names = {
        "version", "url", "urls", "model", "model_version", "identities", "rate_per_second", "span_seconds",
        "timeout_seconds", "attempts", "budget", "queries", "tolerance", "input", "output",
    }  # fmt: skip
    refuse_unknown(value, names, where)
    if ("url" in value) == ("urls" in value):
        raise Schema("either url or urls is needed", where=where)
    urls = value["urls"] if "urls" in value else [value["url"]]
    if not isinstance(urls, list) or not 0 < len(urls) <= 100:
        raise Schema("urls is not a list of 1 to 100 addresses", where=where)
    queries = value.get("queries", {})
    if not isinstance(queries, dict):
        raise Schema("queries is not a mapping", where=where)
    refuse_unknown(queries, {"core", "near", "ordinary"}, f"{where}: queries")
    optional = {name: _text(value[name], name, where) for name in ("model_version", "input", "output") if name in value}
    return Endpoint(
        urls=tuple(_address(url, where) for url in urls),
        model=_text(value.get("model"), "model", where),
        model_version=optional.get("model_version"),
        identities=_identities(value["identities"], where) if "identities" in value else (Identity(name="anonymous"),),
        rate=_number(value, "rate_per_second", 5.0, 1e-4, 1e4, where),
        span=_number(value, "span_seconds", 0.0, 0.0, 31_622_400.0, where),
        timeout=_number(value, "timeout_seconds", 30.0, 0.01, 3600.0, where),
        attempts=_count(value, "attempts", 5, 1, 100, where),
        budget=_count(value, "budget", 2_000, 1, 10 * _MAX_QUERIES, where),
        core=_count(queries, "core", CORE, 1, _MAX_QUERIES, f"{where}: queries"),
        near=_count(queries, "near", NEAR, 0, _MAX_QUERIES, f"{where}: queries"),
        ordinary=_count(queries, "ordinary", ORDINARY, 1, _MAX_QUERIES, f"{where}: queries"),
        tolerance=_number(value, "tolerance", 0.0, 0.0, 1.0, where) if "tolerance" in value else None,
        input_name=optional.get("input"),
        output_name=optional.get("output"),
    )


def from_url(text: str) -> Endpoint:
    """An endpoint by the address of a model, `https://host/path/v2/models/NAME[/versions/V]`, with defaults.

    Raises:
        AuditorError: no such address.
    """
    base, found, rest = text.rstrip("/").partition("/v2/models/")
    parts = [unquote(part) for part in rest.removesuffix("/infer").split("/")]
    if not found or len(parts) not in (1, 3) or (len(parts) == 3 and parts[1] != "versions"):
        raise AuditorError(
            "an address ends in /v2/models/NAME or /v2/models/NAME/versions/VERSION; for more, give an endpoint file",
            where=text[:200],
        )
    try:
        return Endpoint(
            urls=(_address(base, text[:200]),),
            model=_text(parts[0], "the model's name", text[:200]),
            model_version=_text(parts[2], "the model's version", text[:200]) if len(parts) == 3 else None,
        )
    except MalformedError as error:
        raise AuditorError(error.message, where=error.where) from None


def load(text: str) -> Endpoint:
    """An endpoint by its file, or by a model's address.

    Raises:
        AuditorError: neither.
        MalformedError: a file that is no endpoint file.
    """
    if is_url(text):
        return from_url(text)
    path = Path(text)
    if not path.is_file():
        raise AuditorError("no such file, and no address (https://host/v2/models/NAME)", where=text[:200])
    return parse(read_file(path, limit=_MAX_FILE), where=text)


__all__ = ["Endpoint", "Identity", "from_url", "from_value", "load", "parse"]
