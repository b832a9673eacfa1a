"""The receipt as a file: a signed receipt, and beside it everything needed to verify it offline for years.

Proves nothing by itself; it is one JSON object in one spelling, holding exact envelopes, log proofs, and the
request's own claims with their Merkle paths. Nobody else's claims are in it. Source: SPEC 14.1.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from protocol import envelope as dsse
from protocol.canonical import Fields, parse_json, to_bytes
from protocol.claims import MAX_CLAIMS, MAX_LINE
from protocol.encoding import decode_base64, encode_base64
from protocol.errors import Schema, TooLarge, UnsupportedVersion
from protocol.log.proof import MAX_TLOG_PROOF

VERSION = "prune-audit/receipt/v1"
MAX_RECEIPT = 64 << 20
MAX_RECORDS = 1_000_000
ENVELOPES = ("receipt", "report", "certificate", "commitment", "request")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedClaim:
    """A line of the certificate's claims, its place, and its path to the certificate's root."""

    line: bytes
    index: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptFile:
    """A receipt's file.

    Args:
        envelopes: exact bytes by name, one for each of `ENVELOPES`.
        proofs: tlog-proof by the same names; one that is missing can be added later (`prune-auditor receipt`).
        claims: the request's own claims, in the certificate's order.
        records: the record commitments that the request's root stands for.
    """

    envelopes: Mapping[str, bytes]
    proofs: Mapping[str, bytes]
    claims: tuple[OpenedClaim, ...]
    records: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The one spelling of the file."""
        return to_bytes(
            {
                "version": VERSION,
                "envelopes": {name: encode_base64(data) for name, data in self.envelopes.items()},
                "proofs": {name: encode_base64(data) for name, data in self.proofs.items()},
                "claims": [
                    {
                        "line": encode_base64(claim.line),
                        "index": claim.index,
                        "path": [digest.hex() for digest in claim.path],
                    }
                    for claim in self.claims
                ],
                "records": [record.hex() for record in self.records],
            }
        )


def _digests(values: list[object]) -> tuple[bytes, ...]:
    found = []
    for value in values:
        if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise Schema("not a SHA-256 in lower-case hexadecimal")
        found.append(bytes.fromhex(value))
    return tuple(found)


def _base64(fields: Fields, name: str, *, limit: int) -> bytes:
    # `limit` in bytes, as where these bytes are read by themselves: whatever can be made can be carried.
    data = decode_base64(fields.text(name, longest=-(-limit // 3) * 4), where=name)
    if len(data) > limit:
        raise TooLarge(f"{len(data)} bytes, at most {limit} are accepted", where=name)
    return data


def _claim(fields: Fields) -> OpenedClaim:
    return OpenedClaim(
        line=_base64(fields, "line", limit=MAX_LINE),
        index=fields.integer("index", high=MAX_CLAIMS - 1),
        path=_digests(fields.array("path", longest=40)),
    )


def parse(data: bytes, *, where: str = "receipt") -> ReceiptFile:
    """Read a receipt's file; nothing is verified yet.

    Raises:
        MalformedError: not one, or not in its one spelling.
    """
    with Fields(parse_json(data, limit=MAX_RECEIPT, where=where, canonical=True), where=where) as fields:
        version = fields.text("version")
        if version != VERSION:
            raise UnsupportedVersion(f"version {version[:40]!r}, this reads {VERSION}", where=where)
        envelopes, proofs = {}, {}
        with fields.object("envelopes") as listed:
            for name in ENVELOPES:
                envelopes[name] = _base64(listed, name, limit=dsse.MAX_ENVELOPE)
        with fields.object("proofs") as listed:
            for name in ENVELOPES:
                if listed.has(name):
                    proofs[name] = _base64(listed, name, limit=MAX_TLOG_PROOF)
        claims = fields.each("claims", _claim, longest=MAX_CLAIMS)
        records = _digests(fields.array("records", longest=MAX_RECORDS))
    if any(first.index >= second.index for first, second in itertools.pairwise(claims)):
        raise Schema("the claims are not in their order, or one occurs twice", where=where)
    if list(records) != sorted(set(records)):
        raise Schema("the records are not sorted, or one occurs twice", where=where)
    return ReceiptFile(envelopes=envelopes, proofs=proofs, claims=claims, records=records)
