"""Deletion request: which committed records someone wants forgotten, and by when.

Subject: the commitment's envelope. Signed by the requester, or by the owner on their behalf
(`on_behalf`), shown as such. It holds a root and a count, never the records, and no names: a log
cannot be erased. The list of record commitments travels beside it (SPEC 12.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from protocol import records
from protocol import statement as intoto
from protocol.canonical import Fields, parse_json, to_bytes
from protocol.encoding import format_time, is_hex, parse_time
from protocol.errors import Schema

ScopeKind = Literal["records", "subject", "class", "trigger"]
MAX_LIST = 128 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the request is about: listed records, one subject's group, a whole class, or a trigger."""

    kind: ScopeKind
    group: str | None = None
    klass: int | None = None
    trigger: str | None = None

    @classmethod
    def parse(cls, fields: Fields) -> "Scope":
        """Read a scope; exactly the fields of its kind.

        Raises:
            MalformedError: not one.
        """
        with fields:
            kind = fields.text("kind", choices=("records", "subject", "class", "trigger"))
            return cls(
                kind=kind,  # type: ignore[arg-type]
                group=fields.hex("group") if kind == "subject" else None,
                klass=fields.integer("class", high=1 << 20) if kind == "class" else None,
                trigger=fields.hex("trigger") if kind == "trigger" else None,
            )

    def to_json(self) -> dict[str, object]:
        """The JSON form."""
        value: dict[str, object] = {"kind": self.kind}
        if self.group is not None:
            value["group"] = self.group
        if self.klass is not None:
            value["class"] = self.klass
        if self.trigger is not None:
            value["trigger"] = self.trigger
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A parsed request. `records_root` is the RFC 6962 root over the sorted record commitments."""

    PREDICATE: ClassVar[str] = intoto.PREDICATE_BASE + "request/v1"
    SUBJECT: ClassVar[str] = "commitment.dsse.json"

    subject: str
    scope: Scope
    records_root: bytes
    record_count: int
    on_behalf: bool
    requested_at: int
    deadline: int | None

    @classmethod
    def parse(cls, statement: intoto.Statement) -> "Request":
        """Read the predicate.

        Raises:
            MalformedError: not one.
        """
        with Fields(statement.predicate) as fields:
            with fields.object("records") as listed:
                root = bytes.fromhex(listed.hex("root"))
                count = listed.integer("count", high=1 << 32)
            scope = Scope.parse(fields.object("scope"))
            if count == 0 and scope.kind in ("records", "subject"):
                raise Schema("asks for no records")
            return cls(
                subject=statement.about(cls.SUBJECT, cls.PREDICATE),
                scope=scope,
                records_root=root,
                record_count=count,
                on_behalf=fields.flag("onBehalf"),
                requested_at=parse_time(fields.text("requestedAt")),
                deadline=parse_time(fields.text("deadline")) if fields.has("deadline") else None,
            )

    def payload(self) -> bytes:
        """The statement's bytes."""
        predicate: dict[str, object] = {
            "scope": self.scope.to_json(),
            "records": {"root": self.records_root.hex(), "count": self.record_count},
            "onBehalf": self.on_behalf,
            "requestedAt": format_time(self.requested_at),
        }
        if self.deadline is not None:
            predicate["deadline"] = format_time(self.deadline)
        return intoto.serialise(
            subject_name=self.SUBJECT,
            subject_sha256=self.subject,
            predicate_type=self.PREDICATE,
            predicate=predicate,
        )


def serialise_list(commitments: Sequence[bytes]) -> bytes:
    """The file of a request's record commitments: a JSON array in lower-case hexadecimal, sorted."""
    return to_bytes([commitment.hex() for commitment in sorted(commitments)])


def parse_list(data: bytes, request: Request, *, where: str) -> tuple[bytes, ...]:
    """Read a request's record commitments and check them against its root and count.

    Raises:
        MalformedError: not such a list, or another request's.
    """
    value = parse_json(data, limit=MAX_LIST, where=where, canonical=True)
    if not isinstance(value, list) or not all(is_hex(item) for item in value):
        raise Schema("not an array of record commitments", where=where)
    if value != sorted(set(value)):
        raise Schema("the record commitments are not sorted, or one occurs twice", where=where)
    commitments = tuple(bytes.fromhex(item) for item in value)
    if len(commitments) != request.record_count or records.list_root(commitments) != request.records_root:
        raise Schema("is not the list that the request's root stands for", where=where)
    return commitments
