"""Unlearning certificate: the owner's signed claims about a bundle, in answer to logged requests.

Subject: the bundle's manifest, which lists base model, patch, patched model and claims by digest.
It names every request that it answers, the opened audit if there was one, its predecessor, and
what became of the predecessor's claims. It proves that the owner said so, at the place where the
log has it; whether the claims hold is the auditor's to check.
"""

from dataclasses import dataclass
from typing import ClassVar

from protocol import statement as intoto
from protocol.canonical import Fields
from protocol.encoding import format_time, parse_time
from protocol.errors import Schema
from protocol.messages.opening import hex_list


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Claims of the predecessor that this certificate no longer makes, with the reason."""

    record: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A parsed certificate. Entries of logs are named by leaf hash (hexadecimal)."""

    PREDICATE: ClassVar[str] = intoto.PREDICATE_BASE + "certificate/v1"
    SUBJECT: ClassVar[str] = "manifest.json"

    subject: str
    commitment: str
    requests: tuple[str, ...]
    opening: str | None
    predecessor: str | None
    dropped: tuple[Dropped, ...]
    method: str
    claims_root: bytes
    claim_count: int
    inert_outside_supports: bool
    certified_at: int

    @classmethod
    def parse(cls, statement: intoto.Statement) -> "Certificate":
        """Read the predicate.

        Raises:
            MalformedError: not one.
        """
        with Fields(statement.predicate) as fields:
            with fields.object("claims") as claims:
                root = bytes.fromhex(claims.hex("root"))
                count = claims.integer("count", high=1_000_000)
            requests = hex_list(fields, "requests", longest=200)
            if not requests:
                raise Schema("answers no request")
            predecessor = fields.hex("predecessor") if fields.has("predecessor") else None
            dropped = fields.each(
                "dropped",
                lambda d: Dropped(record=d.hex("record"), reason=d.text("reason", longest=400)),
                longest=300,
            )
            if dropped and predecessor is None:
                raise Schema("drops claims of no predecessor")
            if len({one.record for one in dropped}) != len(dropped):
                raise Schema("drops the claims of one record twice")
            return cls(
                subject=statement.about(cls.SUBJECT, cls.PREDICATE),
                commitment=fields.hex("commitment"),
                requests=requests,
                opening=fields.hex("opening") if fields.has("opening") else None,
                predecessor=predecessor,
                dropped=dropped,
                method=fields.text("method", longest=60),
                claims_root=root,
                claim_count=count,
                inert_outside_supports=fields.flag("inertOutsideSupports"),
                certified_at=parse_time(fields.text("certifiedAt")),
            )

    def payload(self) -> bytes:
        """The statement's bytes."""
        predicate: dict[str, object] = {
            "commitment": self.commitment,
            "requests": list(self.requests),
            "dropped": [{"record": d.record, "reason": d.reason} for d in self.dropped],
            "method": self.method,
            "claims": {"root": self.claims_root.hex(), "count": self.claim_count},
            "inertOutsideSupports": self.inert_outside_supports,
            "certifiedAt": format_time(self.certified_at),
        }
        if self.opening is not None:
            predicate["opening"] = self.opening
        if self.predecessor is not None:
            predicate["predecessor"] = self.predecessor
        return intoto.serialise(
            subject_name=self.SUBJECT,
            subject_sha256=self.subject,
            predicate_type=self.PREDICATE,
            predicate=predicate,
        )
