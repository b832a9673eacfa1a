"""DSSE 1.0.2 envelopes: exactly these bytes, signed by these keys.

Proves (`verify`): at least `threshold` different trusted keys signed exactly `payload` under
exactly `payload_type`. Assumes Ed25519 and that the keys given are the ones to trust; it does
not say *when* something was signed (the log does, SPEC 6.5) nor what it means (`messages/`).
Source: https://github.com/secure-systems-lab/dsse, protocol.md and envelope.md v1.0.2; SPEC 6.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from protocol.canonical import parse_json, to_bytes
from protocol.encoding import decode_base64, encode_base64
from protocol.errors import BadSignature, EncodingError, Schema, TooLarge, UnknownKey
from protocol.keys import ED25519, SigningKey, VerifierKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE = 65_535  # SPEC 5.4: a log entry's length is a uint16
MAX_SIGNATURES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature: `keyid` is a hint only and never decides anything (DSSE)."""

    keyid: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A parsed envelope; `raw` are the exact bytes received, which are what a log entry holds."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]
    raw: bytes


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding, the bytes that are signed (DSSE protocol.md)."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise Schema(f"the field {name!r} is missing or not a string", where=where)
    return value


def parse(data: bytes, *, where: str = "envelope") -> Envelope:
    """Read an envelope. Unknown fields are ignored and an absent (or null) keyid is empty, as DSSE asks.

    Raises:
        MalformedError: not an envelope, or over a limit.
    """
    value = parse_json(data, limit=MAX_ENVELOPE, where=where)
    if not isinstance(value, dict):
        raise Schema("not an object", where=where)
    entries = value.get("signatures")
    if not isinstance(entries, list) or not entries:
        raise Schema("the field 'signatures' is missing, empty or not an array", where=where)
    if len(entries) > MAX_SIGNATURES:
        raise TooLarge(f"{len(entries)} signatures, at most {MAX_SIGNATURES}", where=where)
    signatures = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise Schema("a signature is not an object", where=where)
        signatures.append(
            Signature(
                # Some writers spell an absent keyid as null.
                keyid=_text(entry["keyid"] if entry.get("keyid") is not None else "", "keyid", where),
                value=decode_base64(_text(entry.get("sig"), "sig", where), where=where, url_safe=True),
            )
        )
    return Envelope(
        payload=decode_base64(_text(value.get("payload"), "payload", where), where=where, url_safe=True),
        payload_type=_text(value.get("payloadType"), "payloadType", where),
        signatures=tuple(signatures),
        raw=data,
    )


def sign(payload: bytes, keys: Sequence[SigningKey], *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Envelope bytes over `payload`, signed by each of `keys`, in this project's one spelling.

    Args:
        payload: the bytes to sign.
        keys: statement keys, 1 to 16.
        payload_type: media type of the payload.

    Raises:
        EncodingError: no key or too many, a witness's key, or an envelope too large to be logged.
    """
    if not 1 <= len(keys) <= MAX_SIGNATURES:
        raise EncodingError(f"{len(keys)} keys to sign with, not 1 to {MAX_SIGNATURES}")
    if any(key.use != ED25519 for key in keys):
        raise EncodingError("a witness's key signs nothing but cosignatures; use a key made for statements")
    message = pae(payload_type, payload)
    data = to_bytes(
        {
            "payload": encode_base64(payload),
            "payloadType": payload_type,
            "signatures": [
                {"keyid": f"{key.name}+{key.verifier.key_id.hex()}", "sig": encode_base64(key.sign(message))}
                for key in keys
            ],
        }
    )
    if len(data) > MAX_ENVELOPE:
        raise EncodingError(f"the signed message has {len(data)} bytes, at most {MAX_ENVELOPE} can be logged")
    return data


def verify(
    envelope: Envelope, keys: Sequence[VerifierKey], *, threshold: int = 1, where: str = "envelope"
) -> tuple[VerifierKey, ...]:
    """Check the signatures against every given key and return the *different* keys that signed.

    Args:
        envelope: as parsed.
        keys: the keys trusted for this purpose.
        threshold: how many different keys must have signed, at least 1.
        where: what to name in an error.

    Raises:
        UnknownKey: no signature by any of `keys`.
        BadSignature: some signed, but fewer than `threshold`.
    """
    message = pae(envelope.payload_type, envelope.payload)
    # keyid is never used to choose a key: every signature is tried against every key.
    found: dict[bytes, VerifierKey] = {}
    for signature in envelope.signatures:
        for key in keys:
            if key.public not in found:
                try:
                    key.verify(signature.value, message)
                except BadSignature:
                    continue
                found[key.public] = key
    if not found:
        raise UnknownKey("no trusted key for this role signed these bytes", where=where)
    if len(found) < threshold:
        raise BadSignature(f"{len(found)} trusted keys signed, {threshold} are needed", where=where)
    return tuple(found.values())
