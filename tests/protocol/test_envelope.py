import base64
import json

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes as algorithms
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given
from hypothesis import strategies as st

from protocol import envelope as dsse
from protocol.errors import BadSignature, EncodingError, MalformedError, Schema, TooLarge, UnknownKey, VerificationError
from tests.protocol.log.helpers import VECTORS, WITNESSES, key
from tests.protocol.samples import AUDITOR, OWNER, STRANGER, mutated

EXAMPLE = json.loads((VECTORS / "dsse/protocol-example.json").read_bytes())
SIGSTORE = sorted(
    path for path in (VECTORS / "sigstore-conformance").glob("*dsse*") if "mismatch" not in path.name
)  # the others are valid in themselves, and not what was logged: tests/protocol/test_vectors.py
PAYLOAD = b'{"any":"thing"}'
SIGNED = dsse.sign(PAYLOAD, [OWNER])


def public(*keys):
    return [key.verifier for key in keys]


def edited(data=SIGNED, **changes):
    return json.dumps({**json.loads(data), **changes}).encode()


def test_pae_of_the_specification():
    assert dsse.pae(EXAMPLE["payloadType"], EXAMPLE["payload"].encode()) == EXAMPLE["pae"].encode()


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary())
def test_pae_counts_bytes(kind, payload):
    encoded = kind.encode()
    expected = f"DSSEv1 {len(encoded)} ".encode() + encoded + f" {len(payload)} ".encode() + payload
    assert dsse.pae(kind, payload) == expected


def test_ecdsa_signature_of_the_specification_verifies_over_our_reading():
    envelope = dsse.parse(json.dumps(EXAMPLE["envelope"]).encode())
    numbers = ec.EllipticCurvePublicNumbers(int(EXAMPLE["key"]["x"]), int(EXAMPLE["key"]["y"]), ec.SECP256R1())
    (signature,) = envelope.signatures
    assert signature.keyid == ""
    raw = signature.value
    encoded = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    message = dsse.pae(envelope.payload_type, envelope.payload)
    numbers.public_key().verify(encoded, message, ec.ECDSA(algorithms.SHA256()))


@pytest.mark.parametrize("folder", SIGSTORE, ids=lambda path: path.name)
def test_sigstore_envelopes(folder):
    bundle = json.loads((folder / "bundle.sigstore.json").read_bytes())
    envelope = dsse.parse(json.dumps(bundle["dsseEnvelope"]).encode())
    assert envelope.payload == base64.b64decode(bundle["dsseEnvelope"]["payload"])
    material = bundle["verificationMaterial"]["certificate"]["rawBytes"]
    signer = x509.load_der_x509_certificate(base64.b64decode(material)).public_key()
    message = dsse.pae(envelope.payload_type, envelope.payload)
    if folder.name.endswith("_fail"):
        with pytest.raises(InvalidSignature):
            signer.verify(envelope.signatures[0].value, message, ec.ECDSA(algorithms.SHA256()))
    else:
        signer.verify(envelope.signatures[0].value, message, ec.ECDSA(algorithms.SHA256()))
    with pytest.raises(UnknownKey):
        dsse.verify(envelope, public(OWNER))


def test_a_keyid_that_is_null_is_an_absent_one():
    value = json.loads(SIGNED)
    value["signatures"][0]["keyid"] = None
    assert dsse.parse(json.dumps(value).encode()).signatures[0].keyid == ""


def test_all_three_sigstore_cases_are_there():
    assert len(SIGSTORE) == 3


@given(st.binary(max_size=200), st.sampled_from(["text/plain", dsse.PAYLOAD_TYPE, "", "é"]))
def test_sign_parse_verify(payload, kind):
    data = dsse.sign(payload, [OWNER, AUDITOR], payload_type=kind)
    envelope = dsse.parse(data)
    assert (envelope.payload, envelope.payload_type, envelope.raw) == (payload, kind, data)
    assert set(dsse.verify(envelope, public(OWNER, AUDITOR, STRANGER), threshold=2)) == set(public(OWNER, AUDITOR))


@given(st.data())
def test_a_flipped_bit_never_verifies_as_something_else(data):
    place, bit = data.draw(st.integers(0, len(SIGNED) - 1)), data.draw(st.integers(0, 7))
    hostile = SIGNED[:place] + bytes([SIGNED[place] ^ 1 << bit]) + SIGNED[place + 1 :]
    try:
        envelope = dsse.parse(hostile)
        dsse.verify(envelope, public(OWNER))
    except (MalformedError, VerificationError):
        return
    # What is left are bits that nobody signs: the keyid, or the name of the field that holds it.
    assert (envelope.payload, envelope.payload_type) == (PAYLOAD, dsse.PAYLOAD_TYPE)
    start = SIGNED.index(b'"keyid"')
    assert start <= place < SIGNED.index(b',"sig"')


@given(st.data())
def test_flipped_bits_of_what_is_signed(data):
    message = dsse.parse(SIGNED)
    part = data.draw(st.sampled_from(["payload", "kind", "sig"]))
    values = {"payload": PAYLOAD, "kind": message.payload_type.encode(), "sig": message.signatures[0].value}
    place = data.draw(st.integers(0, len(values[part]) - 1))
    flipped = bytearray(values[part])
    flipped[place] ^= 1 << data.draw(st.integers(0, 6 if part == "kind" else 7))
    values[part] = bytes(flipped)
    hostile = dsse.Envelope(
        payload=values["payload"],
        payload_type=values["kind"].decode(),
        signatures=(dsse.Signature(keyid="", value=values["sig"]),),
        raw=b"",
    )
    with pytest.raises(UnknownKey):
        dsse.verify(hostile, public(OWNER))


@given(st.data())
def test_any_mutation_is_an_envelope_or_malformed(data):
    hostile = data.draw(mutated(SIGNED) | st.binary(max_size=40))
    try:
        envelope = dsse.parse(hostile)
    except MalformedError:
        return
    with_strangers = public(STRANGER)
    with pytest.raises(UnknownKey):  # whatever parses can be checked: no other error
        dsse.verify(envelope, with_strangers)


def test_threshold_counts_keys_not_signatures():
    once = json.loads(SIGNED)["signatures"][0]
    twice = dsse.parse(edited(signatures=[once, {**once, "keyid": "another"}, once]))
    assert dsse.verify(twice, public(OWNER, AUDITOR)) == (OWNER.verifier,)
    with pytest.raises(BadSignature):
        dsse.verify(twice, public(OWNER, AUDITOR), threshold=2)
    renamed = key("example.com/second-name", "statement")
    same = type(OWNER)(name=renamed.name, use=OWNER.use, seed=OWNER.seed)
    with pytest.raises(BadSignature):  # one key under two names is one key
        dsse.verify(dsse.parse(dsse.sign(PAYLOAD, [OWNER, same])), public(OWNER, same), threshold=2)
    both = dsse.parse(dsse.sign(PAYLOAD, [OWNER, AUDITOR]))
    assert len(dsse.verify(both, public(OWNER, AUDITOR), threshold=2)) == 2


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_keyid_decides_nothing(keyid):
    entry = json.loads(SIGNED)["signatures"][0]
    envelope = dsse.parse(edited(signatures=[{**entry, "keyid": keyid}]))
    assert dsse.verify(envelope, public(STRANGER, OWNER)) == (OWNER.verifier,)
    without = dsse.parse(edited(signatures=[{"sig": entry["sig"]}]))
    assert without.signatures[0].keyid == ""
    assert dsse.verify(without, public(OWNER)) == (OWNER.verifier,)
    # The owner's keyid on a stranger's signature helps nobody.
    foreign = json.loads(dsse.sign(PAYLOAD, [STRANGER]))["signatures"][0]
    with pytest.raises(UnknownKey):
        dsse.verify(dsse.parse(edited(signatures=[{**foreign, "keyid": entry["keyid"]}])), public(OWNER))


def test_keyid_is_name_and_key_id():
    for number in range(20):  # some of these keys have a '+' in their base64
        signer = key(f"k{number}", "statement")
        keyid = dsse.parse(dsse.sign(b"", [signer])).signatures[0].keyid
        assert keyid == f"k{number}+{signer.verifier.key_id.hex()}"


def test_a_bad_signature_beside_a_good_one_is_ignored():
    good = json.loads(SIGNED)["signatures"][0]
    junk = [{"sig": ""}, {"sig": "AAAA"}, {"sig": base64.b64encode(b"x" * 64).decode()}]
    assert dsse.verify(dsse.parse(edited(signatures=[*junk, good])), public(OWNER)) == (OWNER.verifier,)
    with pytest.raises(UnknownKey):
        dsse.verify(dsse.parse(edited(signatures=junk)), public(OWNER))


def test_url_safe_base64_is_accepted():
    payload = b"\xfb\xff\xfe" * 4
    signer = next(k for k in (key(str(n), "statement") for n in range(99)) if b"\xfb" in k.sign(dsse.pae("t", payload)))
    data = json.loads(dsse.sign(payload, [signer], payload_type="t"))
    data["payload"] = base64.urlsafe_b64encode(payload).decode()
    sig = base64.b64decode(data["signatures"][0]["sig"])
    data["signatures"][0]["sig"] = base64.urlsafe_b64encode(sig).decode()
    assert "-" in data["payload"] or "_" in data["payload"]
    assert dsse.verify(dsse.parse(json.dumps(data).encode()), public(signer)) == (signer.verifier,)


def test_unknown_fields_are_ignored():
    entry = {**json.loads(SIGNED)["signatures"][0], "cert": None, "extension": {"kind": [1]}}
    envelope = dsse.parse(edited(signatures=[entry], more={"nested": [True]}))
    assert dsse.verify(envelope, public(OWNER)) == (OWNER.verifier,)


@pytest.mark.parametrize(
    "changes",
    [
        {"signatures": []},
        {"signatures": None},
        {"signatures": {}},
        {"signatures": ["x"]},
        {"signatures": [[]]},
        {"signatures": [{}]},
        {"signatures": [{"sig": None}]},
        {"signatures": [{"sig": ["AAAA"]}]},
        {"signatures": [{"sig": "AAAA", "keyid": 1}]},
        {"signatures": [{"sig": "AAAA", "keyid": 0}]},
        {"signatures": [{"sig": "AA"}]},
        {"payload": None},
        {"payload": {}},
        {"payload": "A"},
        {"payload": "AB=="},
        {"payloadType": None},
        {"payloadType": 1},
        {"payloadType": "\ud800"},
    ],
)
def test_refused(changes):
    with pytest.raises(MalformedError) as caught:
        dsse.parse(edited(**changes), where="file")
    assert caught.value.where == "file"


def test_refused_as_a_whole():
    for missing in ("payload", "payloadType", "signatures"):
        value = json.loads(SIGNED)
        del value[missing]
        with pytest.raises(Schema):
            dsse.parse(json.dumps(value).encode())
    for data in (b"[]", b'"x"', b"1", b"null"):
        with pytest.raises(Schema):
            dsse.parse(data)
    with pytest.raises(Schema):  # a second payload would be read by others
        dsse.parse(SIGNED[:-1] + b',"payload":"AAAA"}')


def test_limits():
    entry = json.loads(SIGNED)["signatures"][0]
    assert len(dsse.parse(edited(signatures=[entry] * dsse.MAX_SIGNATURES)).signatures) == 16
    with pytest.raises(TooLarge):
        dsse.parse(edited(signatures=[entry] * (dsse.MAX_SIGNATURES + 1)))
    with pytest.raises(TooLarge):
        dsse.parse(edited(more="x" * dsse.MAX_ENVELOPE))
    largest = max(
        n for n in range(48_500, 49_152) if 4 * -(-n // 3) <= dsse.MAX_ENVELOPE - len(dsse.sign(b"", [OWNER]))
    )
    assert len(dsse.sign(b"x" * largest, [OWNER])) <= dsse.MAX_ENVELOPE
    with pytest.raises(EncodingError):
        dsse.sign(b"x" * (largest + 1), [OWNER])


def test_signing_refuses_what_nobody_would_accept():
    for keys in ([], [OWNER] * 17, [WITNESSES[0]]):
        with pytest.raises(EncodingError):
            dsse.sign(PAYLOAD, keys)


def test_no_keys_no_signature():
    with pytest.raises(UnknownKey) as caught:
        dsse.verify(dsse.parse(SIGNED), [], where="certificate.dsse.json")
    assert caught.value.where == "certificate.dsse.json"
