"""Opened audit and acknowledgement: the auditor fixes plan and nonce; the owner then names that entry.

Order is what counts (SPEC 9.3): the opening is logged first, the owner's entry that names it second
(the certificate, or for a later audit an acknowledgement), so that neither side can choose the
challenge. Subject of the opening: the plan file. Subject of the acknowledgement: the certificate.
"""

from dataclasses import dataclass
from typing import ClassVar

from protocol import statement as intoto
from protocol.canonical import Fields
from protocol.digests import tagged
from protocol.encoding import format_time, is_hex, parse_time
from protocol.errors import Schema


def nonce_commitment(nonce: bytes) -> str:
    """What the opening shows of the 32-byte nonce."""
    return tagged("nonce", nonce).hex()


def hex_list(fields: Fields, name: str, *, longest: int) -> tuple[str, ...]:
    """An array of different SHA-256 digests, in the order given.

    Raises:
        Schema: anything else.
    """
    values = fields.array(name, longest=longest)
    if not all(is_hex(value) for value in values):
        raise Schema(f"the field {name!r} is not an array of SHA-256 digests")
    if len(set(values)) != len(values):
        raise Schema(f"the field {name!r} names one entry twice")
    return tuple(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """An opened audit. `requests` are leaf hashes (hexadecimal); `answer_within` is in seconds."""

    PREDICATE: ClassVar[str] = intoto.PREDICATE_BASE + "opening/v1"
    SUBJECT: ClassVar[str] = "plan.yaml"

    subject: str
    requests: tuple[str, ...]
    nonce_commitment: str
    answer_within: int
    opened_at: int

    @classmethod
    def parse(cls, statement: intoto.Statement) -> "Opening":
        """Read the predicate.

        Raises:
            MalformedError: not one.
        """
        with Fields(statement.predicate) as fields:
            requests = hex_list(fields, "requests", longest=200)
            if not requests:
                raise Schema("opens an audit of no request")
            return cls(
                subject=statement.about(cls.SUBJECT, cls.PREDICATE),
                requests=requests,
                nonce_commitment=fields.hex("nonceCommitment"),
                answer_within=fields.integer("answerWithinSeconds", low=0, high=1 << 32),
                opened_at=parse_time(fields.text("openedAt")),
            )

    def payload(self) -> bytes:
        """The statement's bytes."""
        return intoto.serialise(
            subject_name=self.SUBJECT,
            subject_sha256=self.subject,
            predicate_type=self.PREDICATE,
            predicate={
                "requests": list(self.requests),
                "nonceCommitment": self.nonce_commitment,
                "answerWithinSeconds": self.answer_within,
                "openedAt": format_time(self.opened_at),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The owner's answer to an audit opened after certification: names opening and certificate by leaf hash."""

    PREDICATE: ClassVar[str] = intoto.PREDICATE_BASE + "acknowledgement/v1"
    SUBJECT: ClassVar[str] = "certificate.dsse.json"

    subject: str
    opening: str
    certificate: str
    acknowledged_at: int

    @classmethod
    def parse(cls, statement: intoto.Statement) -> "Acknowledgement":
        """Read the predicate.

        Raises:
            MalformedError: not one.
        """
        with Fields(statement.predicate) as fields:
            return cls(
                subject=statement.about(cls.SUBJECT, cls.PREDICATE),
                opening=fields.hex("opening"),
                certificate=fields.hex("certificate"),
                acknowledged_at=parse_time(fields.text("acknowledgedAt")),
            )

    def payload(self) -> bytes:
        """The statement's bytes."""
        return intoto.serialise(
            subject_name=self.SUBJECT,
            subject_sha256=self.subject,
            predicate_type=self.PREDICATE,
            predicate={
                "opening": self.opening,
                "certificate": self.certificate,
                "acknowledgedAt": format_time(self.acknowledged_at),
            },
        )
