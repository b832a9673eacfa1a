"""in-toto Statement v1: what an envelope's payload says about which artefact.

Proves nothing by itself; it gives a checked reading of verified bytes. Our own statements have
exactly one subject, because tools accept a match on *any* subject (SPEC 6.2). Does not look at the
predicate; `messages/` does.
Source: https://github.com/in-toto/attestation, spec/v1/statement.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocol.canonical import Fields, parse_json, to_bytes
from protocol.envelope import MAX_ENVELOPE
from protocol.errors import Schema

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_BASE = "https://prune-audit.dev/"
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)
_SIZES = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An artefact by name and digests (algorithm to lower-case hexadecimal)."""

    name: str
    digest: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A reading of an in-toto statement; `predicate` is still unchecked JSON, None if there is none."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Any

    def about(self, name: str, predicate_type: str) -> str:
        """SHA-256 (hexadecimal) of the one artefact that this statement of `predicate_type` is about.

        Args:
            name: what the artefact has to be called.
            predicate_type: what has to be said about it.

        Raises:
            Schema: another type, more than one subject, another name, or other digests than a SHA-256.
        """
        if self.predicate_type != predicate_type:
            raise Schema(f"is a {self.predicate_type[:60]!r}, not a {predicate_type}")
        if len(self.subjects) != 1 or set(self.subjects[0].digest) != {"sha256"}:
            raise Schema("not exactly one subject with just a SHA-256")
        if self.subjects[0].name != name:
            raise Schema(f"the subject is called {self.subjects[0].name[:60]!r}, not {name}")
        return self.subjects[0].digest["sha256"]


def _subject(fields: Fields) -> Subject:
    name = fields.text("name", longest=1024)
    digest = fields.any("digest")
    if not isinstance(digest, dict) or not digest:
        raise Schema("the subject has no digest")
    for algorithm, value in digest.items():
        size = _SIZES.get(algorithm)
        if not isinstance(value, str) or not _HEX.fullmatch(value) or (size and len(value) != size):
            raise Schema(f"the {algorithm[:20]!r} digest is not {size or 'some'} lower-case hexadecimal digits")
    return Subject(name=name, digest=digest)


def _in_toto(value: Any) -> Any:
    # What in-toto asks of a reader: fields it does not know are ignored; predicate and names are optional.
    if not isinstance(value, dict):
        return value
    known = {name: value[name] for name in ("_type", "subject", "predicateType") if name in value}
    if isinstance(subjects := value.get("subject"), list):
        known["subject"] = [
            {"name": subject.get("name", ""), "digest": subject.get("digest")} if isinstance(subject, dict) else subject
            for subject in subjects
        ]
    return {**known, "predicate": value.get("predicate")}


def parse(payload: bytes, *, where: str = "statement", ours: bool = True) -> Statement:
    """Read a statement.

    Args:
        payload: the verified bytes of an envelope.
        where: what to name in an error.
        ours: demand what SPEC 6.2 adds to in-toto: one subject with just a SHA-256, the predicate
            present, no unknown fields, and the one spelling of the whole. Without it, any in-toto
            statement v1 is read (but no floats, also not in its predicate).

    Raises:
        MalformedError: anything else.
    """
    value = parse_json(payload, limit=MAX_ENVELOPE, where=where, canonical=ours)
    if not ours:
        value = _in_toto(value)
    with Fields(value, where=where) as fields:
        kind = fields.text("_type")
        if kind != STATEMENT_TYPE:
            raise Schema(f"_type is {kind[:60]!r}, not {STATEMENT_TYPE}", where=where)
        subjects = fields.each("subject", _subject, longest=1000)
        if not subjects:
            raise Schema("no subject", where=where)
        predicate_type = fields.text("predicateType")
        if not predicate_type:
            raise Schema("predicateType is empty", where=where)
        predicate = fields.any("predicate")
    if ours and (len(subjects) != 1 or set(subjects[0].digest) != {"sha256"}):
        raise Schema("not exactly one subject with just a SHA-256", where=where)
    return Statement(subjects=subjects, predicate_type=predicate_type, predicate=predicate)


def serialise(*, subject_name: str, subject_sha256: str, predicate_type: str, predicate: Any) -> bytes:
    """Payload bytes of a statement about one artefact.

    Raises:
        EncodingError: a predicate that JSON cannot spell here.
    """
    return to_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": subject_name, "digest": {"sha256": subject_sha256}}],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )
