"""A verified receipt in the forms that other people's clients read: a Sigstore bundle, an in-toto SVR.

Proves nothing beyond the receipt, which is verified first (the caller has the result). What is in them, and what
is not, is SPEC 14.5: a Sigstore client can check the auditor's signature over the receipt's statement under the
auditor's public key, and nothing about our log, whose entries are no Rekor entries; an SVR is the statement of
whoever exports it, that *they* verified the receipt, under a key of theirs.
Source: sigstore protobuf-specs, sigstore_bundle.proto (v0.3); in-toto attestation, predicates/svr.md (v0.1).
"""

import json

from auditor.receipts import VerifiedReceipt
from protocol import envelope as dsse
from protocol import receipt_file, statement
from protocol.digests import sha256_hex
from protocol.encoding import encode_base64, format_time
from protocol.errors import VerificationError
from protocol.keys import SigningKey, VerifierKey
from protocol.log.policy import Policy

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SVR = "https://in-toto.io/attestation/svr/v0.1"
VERIFIER = "https://prune-audit.dev/receipt-verifier/v1"
SUBJECT = "receipt.dsse.json"


def sigstore_bundle(receipt: bytes, signers: tuple[VerifierKey, ...]) -> bytes:
    """The receipt's envelope as a Sigstore bundle (protobuf-JSON).

    Args:
        receipt: the receipt's file, verified by the caller.
        signers: the keys that may have signed receipts, from the trust file.

    Raises:
        MalformedError: not a receipt.
        VerificationError: none of `signers` signed it.
    """
    raw = receipt_file.parse(receipt).envelopes["receipt"]
    envelope = dsse.parse(raw)
    signer = dsse.verify(envelope, signers)[0]
    message = dsse.pae(envelope.payload_type, envelope.payload)
    hint = f"{signer.name}+{signer.key_id.hex()}"
    value_of = next(one.value for one in envelope.signatures if _is_by(signer, one.value, message))
    value = {
        "mediaType": BUNDLE_TYPE,
        # No tlogEntries: a client would take them for Rekor's, whose entries have another form than ours.
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": encode_base64(envelope.payload),
            "payloadType": envelope.payload_type,
            # One signature: more are refused by its clients.
            "signatures": [{"sig": encode_base64(value_of), "keyid": hint}],
        },
    }
    return json.dumps(value, indent=1).encode() + b"\n"


def _is_by(key: VerifierKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except VerificationError:
        return False
    return True


def properties(result: VerifiedReceipt, policy: Policy) -> list[str]:
    """The properties that passed; a verdict that is not CONSISTENT is none of them."""
    passed = ["PRUNE_AUDIT_RECEIPT_VERIFIED", "PRUNE_AUDIT_LOGGED"]
    if policy.quorum != "none":
        passed.append("PRUNE_AUDIT_WITNESSED")
    if result.verdict == "CONSISTENT":
        passed += ["PRUNE_AUDIT_VERDICT_CONSISTENT", f"PRUNE_AUDIT_PROFILE_{result.profile}"]
    if result.requested_by_subject:
        passed.append("PRUNE_AUDIT_REQUESTED_BY_SUBJECT")
    return passed


def simple_verification_result(
    receipt: bytes,
    result: VerifiedReceipt,
    *,
    policy: Policy,
    policy_bytes: bytes,
    trust_bytes: bytes,
    key: SigningKey,
    now: int,
) -> bytes:
    """An envelope that says: the receipt was verified at this time, by whoever has this key.

    Args:
        receipt: the receipt's file.
        result: what its verification found.
        policy: the policy that it was verified by.
        policy_bytes: the same as a file, named by digest.
        trust_bytes: likewise the trust file.
        key: the exporter's own statement key.
        now: when it was verified, seconds since 1970.

    Raises:
        EncodingError: not a statement key.
    """
    payload = statement.serialise(
        subject_name=SUBJECT,
        subject_sha256=sha256_hex(receipt_file.parse(receipt).envelopes["receipt"]),
        predicate_type=SVR,
        predicate={
            "verifier": {
                "id": VERIFIER,
                "policy": {
                    "policy.txt": {"sha256": sha256_hex(policy_bytes)},
                    "trust.json": {"sha256": sha256_hex(trust_bytes)},
                },
            },
            "timeCreated": format_time(now),
            "properties": properties(result, policy),
        },
    )
    return dsse.sign(payload, [key])
