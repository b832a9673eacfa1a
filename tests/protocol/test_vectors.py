"""All vectors of the real projects: every valid case accepted, every invalid one rejected for its own reason.

The folders whose formats are ours are read in the tests of their modules; what is here are bundles of Sigstore and of
OpenSSF model signing, from the envelope to the log, with this project's parsers and hashes. Only ECDSA and certificates,
which this project has no use for, come from elsewhere. The last test counts that no vector is left out.
"""

import base64
import hashlib
import json
import re

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from protocol import envelope as dsse
from protocol import statement
from protocol.canonical import parse_json
from protocol.digests import sha256_hex
from protocol.encoding import decode_base64
from protocol.errors import (
    BadSignature,
    DigestMismatch,
    Error,
    Inclusion,
    MalformedError,
    Schema,
    UnknownKey,
    UnsupportedVersion,
)
from protocol.keys import ED25519, VerifierKey
from protocol.log import checkpoint, merkle, note
from tests.protocol.log.helpers import VECTORS

SIGSTORE = VECTORS / "sigstore-conformance"
MODELS = VECTORS / "openssf-model-signing"
VERSIONS = {f"application/vnd.dev.sigstore.bundle.v0.{n}+json" for n in (3,)} | {
    f"application/vnd.dev.sigstore.bundle+json;version=0.{n}" for n in (1, 2, 3)
}
REKOR = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2G2Y+2tabdTV5BcGiBIx0a9fAFwrkBbmLSGtks4L3qX6yYY0zufBnhC8Ur/iy55GhWP/9A/bY2LhC30M9+RYtw=="
"""The public key of Sigstore's first log; its SHA-256 is the log id that the bundles name."""
REASONS = {
    "bundle-invalid-base64-signature": Schema,
    "bundle-malformed-json": MalformedError,
    "bundle-unknown-version": UnsupportedVersion,
    "checkpoint-bad-keyhint": UnknownKey,
    "dsse-invalid-sig": BadSignature,
    "dsse-mismatch-envelope": DigestMismatch,
    "inclusion-proof-corrupted-hash": Inclusion,
    "invalid-checkpoint-signature": BadSignature,
    "managed-key-no-key": UnknownKey,
    "managed-key-wrong-key": UnknownKey,
    "rekor2-checkpoint-missing-origin": Schema,
    "rekor2-checkpoint-missing-root-hash": Schema,
    "rekor2-checkpoint-no-matching-signature": UnknownKey,
    "rekor2-dsse-invalid-sig": BadSignature,
    "rekor2-dsse-mismatch-envelope": DigestMismatch,
    "rekor2-no-inclusion-proof": Inclusion,
    "wrong-hashedrekord-cert-and-sig": DigestMismatch,
    "wrong-hashedrekord-entry": DigestMismatch,
}


def _log_keys():
    """The logs' keys by origin and key id, of every trusted root that is among the vectors."""
    raw = base64.b64decode(REKOR)
    found = {("rekor.sigstore.dev", hashlib.sha256(raw).digest()[:4]): load_der_public_key(raw)}
    for path in sorted(SIGSTORE.rglob("trusted_root.json")):
        for log in json.loads(path.read_bytes())["tlogs"]:
            raw = base64.b64decode(log["publicKey"]["rawBytes"])
            origin = re.sub(r"^https://", "", log["baseUrl"]).rstrip("/")
            if "ED25519" in log["publicKey"]["keyDetails"]:
                key = VerifierKey(name=origin, use=ED25519, public=raw[-32:])
                found[origin, key.key_id] = key
            else:  # the older log's key id is a hash of the key alone
                found[origin, hashlib.sha256(raw).digest()[:4]] = load_der_public_key(raw)
    return found


def _verify_ecdsa(key, signature, message, *, hashed=False):
    algorithm = SHA384() if key.curve.name == "secp384r1" else SHA256()
    try:
        key.verify(signature, message, ec.ECDSA(utils.Prehashed(algorithm) if hashed else algorithm))
    except InvalidSignature:
        raise BadSignature("ECDSA") from None


def _verify_checkpoint(text, keys):
    signed, head = checkpoint.parse_signed(text)
    origin = head.origin.partition(" ")[0]
    for line in signed.signatures:
        key = keys.get((line.name, line.key_id))
        if line.name != origin or key is None:
            continue
        if isinstance(key, VerifierKey):
            note.verify(signed, [key])
        else:
            _verify_ecdsa(key, line.value, signed.text)
        return head
    raise UnknownKey("no line by the log")


def _verify_entry(entry, keys):
    proof = entry.get("inclusionProof")
    if not proof:
        raise Inclusion("no proof")
    head = _verify_checkpoint(proof["checkpoint"]["envelope"].encode(), keys)
    body = decode_base64(entry["canonicalizedBody"])
    path = [decode_base64(value) for value in proof.get("hashes", [])]
    if head.root != decode_base64(proof["rootHash"]) or head.size != int(proof["treeSize"]):
        raise Inclusion("the proof is for another checkpoint")
    merkle.verify_inclusion(merkle.leaf_hash(body), int(proof.get("logIndex", 0)), head.size, path, head.root)
    return parse_json(body, limit=1 << 20)


def verify_sigstore(folder):
    """Steps as a Sigstore client's, without certificate chains and time stamps.

    Raises:
        Error: the first thing that is wrong.
    """
    bundle = parse_json((folder / "bundle.sigstore.json").read_bytes(), limit=1 << 20)
    if bundle["mediaType"] not in VERSIONS:
        raise UnsupportedVersion(bundle["mediaType"])
    material = bundle["verificationMaterial"]
    if "dsseEnvelope" in bundle:
        envelope = dsse.parse(json.dumps(bundle["dsseEnvelope"]).encode())
        statement.parse(envelope.payload, ours=False)
        signature, message = envelope.signatures[0].value, dsse.pae(envelope.payload_type, envelope.payload)
        digest = hashlib.sha256(message).digest()
    else:
        envelope = None
        signature = decode_base64(bundle["messageSignature"]["signature"])
        digest = decode_base64(bundle["messageSignature"]["messageDigest"]["digest"])
    (entry,) = material["tlogEntries"]
    logged = _verify_entry(entry, _log_keys())
    if "publicKey" in material:
        path = folder / "key.pub"
        if not path.is_file():
            raise UnknownKey("no key was given")
        try:
            key = load_pem_public_key(path.read_bytes())
        except ValueError:
            raise UnknownKey("not the key that was expected, and none at all") from None
        spelled = [key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)]
    else:
        chain = material.get("x509CertificateChain", {}).get("certificates")
        raw = decode_base64((chain[0] if chain else material["certificate"])["rawBytes"])
        certificate = x509.load_der_x509_certificate(raw)
        key, spelled = certificate.public_key(), [raw, certificate.public_bytes(Encoding.PEM)]
    _verify_ecdsa(key, signature, digest, hashed=True)
    _compare(logged, envelope, signature, digest, spelled, key)


def _compare(logged, envelope, signature, digest, spelled, key):
    # Whether the log's entry is about this signature.
    spec = logged["spec"]
    if logged["kind"] == "dsse":
        fits = spec["payloadHash"]["value"] == sha256_hex(envelope.payload)
        fits = fits and decode_base64(spec["signatures"][0]["signature"]) == signature
    elif "hashedRekordV002" in spec:
        spec = spec["hashedRekordV002"]
        verifier = spec["signature"]["verifier"]
        by = decode_base64((verifier.get("x509Certificate") or verifier["publicKey"])["rawBytes"])
        fits = (
            decode_base64(spec["data"]["digest"]) == digest and decode_base64(spec["signature"]["content"]) == signature
        )
        fits = fits and by in spelled
    else:
        by = decode_base64(spec["signature"]["publicKey"]["content"])
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        fits = (
            spec["data"]["hash"]["value"] == digest.hex() and decode_base64(spec["signature"]["content"]) == signature
        )
        fits = fits and by.strip() in {form.strip() for form in (*spelled, pem)}
    if not fits:
        raise DigestMismatch("the log's entry is about something else")


CASES = sorted(path.parent for path in SIGSTORE.rglob("bundle.sigstore.json"))


@pytest.mark.parametrize("folder", CASES, ids=lambda p: p.name)
def test_sigstore(folder):
    if not folder.name.endswith("_fail"):
        verify_sigstore(folder)
        return
    with pytest.raises(Error) as caught:
        verify_sigstore(folder)
    assert isinstance(caught.value, REASONS[folder.name.removesuffix("_fail")]), repr(caught.value)


def _tree_digest(digests):
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()


@pytest.mark.parametrize("folder", sorted(MODELS.glob("v*")), ids=lambda p: p.name)
def test_signed_models(folder):
    """Envelope, statement and file digests; the signature where the key is among the vectors."""
    bundle = parse_json((folder / "model.sig").read_bytes(), limit=1 << 20)
    envelope = dsse.parse(json.dumps(bundle["dsseEnvelope"]).encode())
    said = statement.parse(envelope.payload, ours=False)
    assert envelope.payload_type == dsse.PAYLOAD_TYPE
    listed = {one["name"]: one["digest"] for one in said.predicate["resources"]}
    assert said.subjects[0].digest["sha256"] == _tree_digest(listed.values())
    # The oldest bundle signs one file, under the name of its folder.
    files = {"signme-1": listed["."]} if "." in listed else listed
    assert files == {name: sha256_hex((folder / name).read_bytes()) for name in files}
    assert sha256_hex((folder / "signme-1").read_bytes() + b"x") != files["signme-1"]
    chain = bundle["verificationMaterial"].get("x509CertificateChain", {}).get("certificates")
    if chain:
        raw = decode_base64(chain[0]["rawBytes"])
        key = x509.load_der_x509_certificate(raw).public_key()
        own = load_pem_public_key((MODELS / "keys/certificate/signing-key-pub.pem").read_bytes())
        assert key.public_numbers() == own.public_numbers()
        message = dsse.pae(envelope.payload_type, envelope.payload)
        _verify_ecdsa(key, envelope.signatures[0].value, message)
        with pytest.raises(BadSignature):
            _verify_ecdsa(key, envelope.signatures[0].value, message.replace(b"signme-1", b"signme-0"))
    with pytest.raises(MalformedError):
        statement.parse(envelope.payload)  # a statement, and not one of ours


def test_the_canonical_form_in_hexadecimal_too():
    for path in sorted((VECTORS / "jcs-rfc8785/outhex").glob("*.txt")):
        told = bytes.fromhex("".join(path.read_text().split()))
        assert told == (VECTORS / f"jcs-rfc8785/output/{path.stem}.json").read_bytes()


COUNTS = {
    # folder: cases, and where they are run
    "cctv-ed25519": (610, "tests/protocol/test_keys.py"),
    "dsse": (1, "tests/protocol/test_envelope.py"),
    "in-toto-statement": (8, "tests/protocol/test_statement.py"),
    "jcs-rfc8785": (4, "tests/protocol/test_digests.py"),
    "merkle-rfc6962": (107, "tests/protocol/log/test_merkle.py"),
    "openssf-model-signing": (3, "tests/protocol/test_vectors.py"),
    "signed-note": (13, "tests/protocol/log/test_note.py"),
    "sigstore-conformance": (27, "tests/protocol/test_vectors.py"),
    "tlog-proof-malformed": (7, "tests/protocol/log/test_proof.py"),
    "tlog-tiles-tessera": (29, "tests/protocol/log/test_store.py"),
    "wycheproof": (236, "tests/protocol/test_keys.py"),
}


def _count(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "SOURCE.txt"]
    if folder.name == "cctv-ed25519":
        return len(json.loads(files[0].read_bytes()))
    if folder.name == "jcs-rfc8785":
        return sum(path.parent.name == "input" for path in files)
    if folder.name == "openssf-model-signing":
        return sum(path.name == "model.sig" for path in files)
    if folder.name == "sigstore-conformance":
        return sum(path.name == "bundle.sigstore.json" for path in files)
    if folder.name == "wycheproof":
        return sum(len(g["tests"]) for path in files for g in json.loads(path.read_bytes())["testGroups"])
    return len(files)


def test_every_folder_of_vectors_is_run():
    folders = {path.name for path in VECTORS.iterdir() if path.is_dir()} - {"fuzz"}
    assert folders == set(COUNTS)
    for name, (count, where) in COUNTS.items():
        assert _count(VECTORS / name) == count
        assert name in (VECTORS.parents[1] / where).read_text(), f"{where} does not read {name}"


def test_no_shared_vector_is_left_out():
    shared = VECTORS.parents[2] / "shared" / "vectors"
    if not shared.is_dir():
        pytest.skip("the shared vectors are not beside this checkout")
    for path in sorted(shared.rglob("*")):
        if path.is_file() and path.name != "SOURCE.txt":
            own = VECTORS / path.relative_to(shared)
            assert own.read_bytes() == path.read_bytes(), (
                f"{path.relative_to(shared)} is not among the project's vectors"
            )
