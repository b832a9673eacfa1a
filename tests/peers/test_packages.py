"""npm's `@sigstore/verify` and `@noble/*` accept what we write and reject what was changed."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol import envelope
from protocol.keys import USES, SigningKey
from protocol.log import checkpoint, cosignature
from protocol.log.checkpoint import Checkpoint
from tests.peers import ABSENT, HERE, MODULES, batch

pytestmark = pytest.mark.skipif(not (MODULES / "@noble").is_dir(), reason=f"the npm packages are absent: {ABSENT}")

SCRIPT = HERE / "readings.mjs"
SEED = hashlib.sha256(b"a seed for the peers").digest()
OWNER = SigningKey(name="owner", use=USES["statement"], seed=SEED)
OTHER = SigningKey(name="owner", use=USES["statement"], seed=bytes(32))
LOG = SigningKey(name="log.example", use=USES["log"], seed=SEED)
WITNESS = SigningKey(name="witness.example", use=USES["witness"], seed=SEED)
ML_DSA = SigningKey(name="witness.example", use=USES["witness-ml-dsa"], seed=SEED)
HEAD = Checkpoint(origin="log.example", size=3, root=hashlib.sha256(b"root").digest())
PAYLOAD = (
    b'{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"https://example.com/x","subject":[]}'
)


def flips(data, count=6):
    for number in range(count):
        place = number * (len(data) - 1) // (count - 1)
        yield data[:place] + bytes([data[place] ^ 1 << number % 8]) + data[place + 1 :]


def answers(cases, tmp_path):
    return [one["ok"] for one in batch(SCRIPT, cases, tmp_path)]


def accepted_and_rejected(what, key, message, signature, tmp_path):
    cases = [(what, key, message, signature)]
    cases += [(what, key, changed, signature) for changed in flips(message)]
    cases += [(what, key, message, changed) for changed in flips(signature)]
    first, *rest = answers(cases, tmp_path)
    assert first is True
    assert rest == [False] * 12


def test_noble_verifies_notes_and_cosignatures(tmp_path):
    signed, _ = checkpoint.parse_signed(checkpoint.sign(HEAD, LOG))
    own = signed.signatures[0].value
    accepted_and_rejected("ed25519", LOG.verifier.public, signed.text, own, tmp_path)
    line = cosignature.sign(signed.text, WITNESS, 1234)
    assert line.value[:8] == (1234).to_bytes(8, "big")
    message = b"cosignature/v1\ntime 1234\n" + signed.text
    accepted_and_rejected("ed25519", WITNESS.verifier.public, message, line.value[8:], tmp_path)


def test_noble_verifies_the_post_quantum_cosignature(tmp_path):
    text = checkpoint.to_text(HEAD)
    line = cosignature.sign(text, ML_DSA, 1234)
    message = b"subtree/v1\n\0" + b"".join((
        bytes([len(ML_DSA.name)]), ML_DSA.name.encode(), (1234).to_bytes(8, "big"), bytes([len(HEAD.origin)]),
        HEAD.origin.encode(), bytes(8), (3).to_bytes(8, "big"), HEAD.root,
    ))  # fmt: skip
    accepted_and_rejected("mldsa44", ML_DSA.verifier.public, message, line.value[8:], tmp_path)


def test_noble_signs_what_we_verify(tmp_path):
    """Also the other way round, and keys from the same seeds are the same."""
    message = b"a message"
    public, signature, post_quantum, long = answers(
        [
            ("publicEd25519", SEED),
            ("signEd25519", SEED, message),
            ("publicMldsa44", SEED),
            ("signMldsa44", SEED, message),
        ],
        tmp_path,
    )
    assert bytes.fromhex(public) == OWNER.verifier.public
    assert bytes.fromhex(post_quantum) == ML_DSA.verifier.public
    OWNER.verifier.verify(bytes.fromhex(signature), message)
    assert bytes.fromhex(signature) == OWNER.sign(message)
    ML_DSA.verifier.verify(bytes.fromhex(long), message)


def test_noble_hashes_agree(tmp_path):
    data = [bytes(n) for n in (0, 63, 64, 1000)]
    expected = [[hashlib.sha256(one).hexdigest(), hashlib.sha512(one).hexdigest()] for one in data]
    assert answers([("hashes", one) for one in data], tmp_path) == expected


def bundle(raw):
    """A Sigstore bundle (v0.3) around the exact parts of an envelope of ours."""
    value = json.loads(raw)
    return json.dumps({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": OWNER.name}, "tlogEntries": [], "timestampVerificationData": {}},
        "dsseEnvelope": value,
    }).encode()  # fmt: skip


def spki(key):
    return Ed25519PublicKey.from_public_bytes(key.verifier.public).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_sigstore_verifies_our_envelopes(tmp_path, small_demo):
    receipt = json.loads((small_demo.world.root / "honest" / "report" / "receipts" / "000.receipt").read_text())
    real = base64.b64decode(receipt["envelopes"]["certificate"])
    public = SigningKey(name="owner", use=USES["statement"], seed=seed_of(small_demo.world.key("owner")))
    made = envelope.sign(PAYLOAD, [OWNER])
    value = json.loads(made)
    changed = [("sigstore", bundle(made), spki(OTHER))]
    for payload in flips(PAYLOAD):
        other = {**value, "payload": base64.b64encode(payload).decode()}
        changed.append(("sigstore", bundle(json.dumps(other)), spki(OWNER)))
    for signature in flips(base64.b64decode(value["signatures"][0]["sig"])):
        other = {**value, "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}]}
        changed.append(("sigstore", bundle(json.dumps(other)), spki(OWNER)))
    changed.append(("sigstore", bundle(json.dumps({**value, "payloadType": "text/plain"})), spki(OWNER)))
    sound = [("sigstore", bundle(made), spki(OWNER)), ("sigstore", bundle(real), spki(public))]
    results = answers([*sound, *changed], tmp_path)
    assert results[:2] == [True, True]
    assert set(results[2:]) == {"VerificationError: SIGNATURE_ERROR"}


def seed_of(path):
    from protocol.keys import load_signing_key

    return load_signing_key(path).seed
