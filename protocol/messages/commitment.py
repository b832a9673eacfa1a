"""Commitment: the owner fixes base model, input schema, recipe and training records before any request.

Subject: the commitment's manifest. Once logged, it defeats swapping the base model and "that
record was never in there". It does not prove that the committed data is what was trained on.
"""

from dataclasses import dataclass
from typing import ClassVar

from protocol import statement as intoto
from protocol.canonical import Fields
from protocol.encoding import format_time, parse_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """A parsed commitment. Digests are SHA-256 in hexadecimal, `committed_at` seconds since 1970 (a claim)."""

    PREDICATE: ClassVar[str] = intoto.PREDICATE_BASE + "commitment/v1"
    SUBJECT: ClassVar[str] = "manifest.json"

    subject: str
    base: str
    schema: str
    recipe: str
    prepared: str | None
    records_root: bytes
    record_count: int
    group_count: int
    committed_at: int

    @classmethod
    def parse(cls, statement: intoto.Statement) -> "Commitment":
        """Read the predicate.

        Raises:
            MalformedError: not one.
        """
        with Fields(statement.predicate) as fields:
            prepared = fields.hex("prepared") if fields.has("prepared") else None
            with fields.object("records") as records:
                root = bytes.fromhex(records.hex("root"))
                count = records.integer("count", low=1, high=1 << 32)
                groups = records.integer("groups", low=1, high=count)
            return cls(
                subject=statement.about(cls.SUBJECT, cls.PREDICATE),
                base=fields.hex("base"),
                schema=fields.hex("schema"),
                recipe=fields.hex("recipe"),
                prepared=prepared,
                records_root=root,
                record_count=count,
                group_count=groups,
                committed_at=parse_time(fields.text("committedAt")),
            )

    def payload(self) -> bytes:
        """The statement's bytes."""
        predicate: dict[str, object] = {
            "base": self.base,
            "schema": self.schema,
            "recipe": self.recipe,
            "records": {"root": self.records_root.hex(), "count": self.record_count, "groups": self.group_count},
            "committedAt": format_time(self.committed_at),
        }
        if self.prepared is not None:
            predicate["prepared"] = self.prepared
        return intoto.serialise(
            subject_name=self.SUBJECT,
            subject_sha256=self.subject,
            predicate_type=self.PREDICATE,
            predicate=predicate,
        )
