import base64
import contextlib
import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import keys
from protocol.errors import BadSignature, Error, MalformedError, NonCanonical, Schema, TooLarge
from protocol.keys import SigningKey, VerifierKey
from tests.protocol.log.helpers import VECTORS, key

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P

names = st.text(
    st.characters(exclude_characters="+", min_codepoint=0x21, exclude_categories=["Z", "Cs", "Cc"]),
    min_size=1,
    max_size=40,
)


def add(a, b):
    """The curve's addition law (RFC 8032 5.1.4 in affine form): slow and obvious."""
    k = D * a[0] * b[0] * a[1] * b[1] % P
    return (
        (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, P) % P,
        (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, P) % P,
    )


def recover_x(y):
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x * x % P == square else None


def times(n, point):
    result = (0, 1)
    while n:
        if n & 1:
            result = add(result, point)
        point = add(point, point)
        n >>= 1
    return result


def test_low_order_points_are_exactly_those_of_order_dividing_eight():
    for y in keys._LOW_ORDER_Y:
        assert times(8, (recover_x(y), y)) == (0, 1)
    # The torsion subgroup has 8 elements: y = 1 and y = -1 give one each, the other three two each.
    assert len(keys._LOW_ORDER_Y) == 5
    base = 4 * pow(5, -1, P) % P
    assert times(8, (recover_x(base), base)) != (0, 1)


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", sorted(keys._LOW_ORDER_Y))
def test_low_order_keys_are_refused(y, sign):
    with pytest.raises(Schema):
        keys.check_ed25519((y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("excess", range(19))
def test_second_encodings_are_refused(excess, sign):
    with pytest.raises(NonCanonical):
        keys.check_ed25519((P + excess | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_another_length_are_refused(length):
    public = key("k", "log").verifier.public
    with pytest.raises(Schema, match="32 bytes"):
        keys.check_ed25519((public + public)[:length])
    with pytest.raises(Schema, match="32 bytes"):
        SigningKey(name="k", use=keys.ED25519, seed=bytes(length))


def test_points_off_the_curve_are_refused():
    refused = accepted = 0
    for y in range(2, 60):
        encoded = y.to_bytes(32, "little")
        if recover_x(y) is None:
            refused += 1
            with pytest.raises(Schema, match="no point"):
                keys.check_ed25519(encoded)
        else:
            accepted += 1
            keys.check_ed25519(encoded)
    assert refused > 10 < accepted


def test_cctv_every_key_that_rfc_8032_forbids_is_refused():
    cases = json.loads((VECTORS / "cctv-ed25519/ed25519vectors.json").read_bytes())
    refused = 0
    for case in cases:
        flags = case["flags"] or []
        public = bytes.fromhex(case["key"])
        if "low_order_A" in flags or "non_canonical_A" in flags:
            refused += 1
            with pytest.raises(MalformedError):
                VerifierKey(name="k", use=keys.ED25519, public=public)
        else:
            VerifierKey(name="k", use=keys.ED25519, public=public)
    assert 0 < refused < len(cases)


def test_cctv_low_order_signatures_verify_for_nobody():
    # With the forbidden keys gone, whatever is left and verifies has to satisfy the strict equation.
    cases = json.loads((VECTORS / "cctv-ed25519/ed25519vectors.json").read_bytes())
    accepted = 0
    for case in cases:
        try:
            verifier = VerifierKey(name="k", use=keys.ED25519, public=bytes.fromhex(case["key"]))
            verifier.verify(bytes.fromhex(case["sig"]), case["msg"].encode())
        except Error:
            continue
        accepted += 1
        assert "non_canonical_R" not in (case["flags"] or [])
        assert "low_order_residue" not in (case["flags"] or [])
    assert accepted


def test_wycheproof():
    groups = json.loads((VECTORS / "wycheproof/ed25519_test.json").read_bytes())["testGroups"]
    seen = {"valid": 0, "invalid": 0}
    for group in groups:
        verifier = VerifierKey(name="k", use=keys.ED25519, public=bytes.fromhex(group["publicKey"]["pk"]))
        for case in group["tests"]:
            seen[case["result"]] += 1
            signature, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
            if case["result"] == "valid":
                verifier.verify(signature, message)
            else:
                with pytest.raises(BadSignature):
                    verifier.verify(signature, message)
    assert min(seen.values()) > 10


def test_wycheproof_ml_dsa_44():
    groups = json.loads((VECTORS / "wycheproof/mldsa_44_verify_test.json").read_bytes())["testGroups"]
    seen = {"valid": 0, "invalid": 0, "another context": 0, "no key": 0}
    for group in groups:
        public = bytes.fromhex(group["publicKey"])
        if any("IncorrectPublicKeyLength" in case["flags"] for case in group["tests"]):
            assert {case["result"] for case in group["tests"]} == {"invalid"}
            seen["no key"] += 1
            with pytest.raises(Schema, match="1312"):
                VerifierKey(name="k", use=keys.COSIGNATURE_ML_DSA, public=public)
            continue
        verifier = VerifierKey(name="k", use=keys.COSIGNATURE_ML_DSA, public=public)
        for case in group["tests"]:
            signature, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
            # What we verify has an empty context, so a signature under another one is none of ours.
            if case["result"] == "valid" and not case.get("ctx"):
                seen["valid"] += 1
                verifier.verify(signature, message)
            else:
                seen["another context" if case["result"] == "valid" else "invalid"] += 1
                with pytest.raises(BadSignature):
                    verifier.verify(signature, message)
    assert seen["valid"] > 50 < seen["invalid"]
    assert seen["another context"] > 0 < seen["no key"]


@pytest.mark.parametrize("path", sorted((VECTORS / "signed-note").glob("vkey-*.json")), ids=lambda p: p.stem)
def test_vkey_vectors(path):
    case = json.loads(path.read_bytes())
    if case["accept"]:
        assert keys.parse_vkey(case["vkey"]).vkey == case["vkey"]
    else:
        with pytest.raises(MalformedError):
            keys.parse_vkey(case["vkey"])


@given(names, st.sampled_from(["statement", "log", "witness", "witness-ml-dsa"]), st.binary(min_size=32, max_size=32))
def test_written_keys_read_back(name, use, seed):
    secret = SigningKey(name=name, use=keys.USES[use], seed=seed)
    assert keys.parse_skey(f"{secret.skey}\n".encode()) == secret
    assert keys.parse_vkey(secret.verifier.vkey) == secret.verifier
    secret.verifier.verify(secret.sign(b"message"), b"message")


@given(st.text(max_size=120))
def test_any_text_is_a_key_or_malformed(text):
    for read in (keys.parse_vkey, lambda t: keys.parse_skey(t.encode("utf-8", "surrogatepass")), keys.check_name):
        with contextlib.suppress(MalformedError):
            read(text)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_one_changed_character_is_refused(where, what):
    for text, read in (
        (key("example.com/k", "log").verifier.vkey, keys.parse_vkey),
        (key("example.com/k", "log").skey + "\n", lambda t: keys.parse_skey(t.encode())),
    ):
        alphabet = [c for c in map(chr, range(0x20, 0x7F)) if c != text[where % len(text)]]
        changed = list(text)
        changed[where % len(text)] = alphabet[what % len(alphabet)]
        with pytest.raises(MalformedError):
            read("".join(changed))


def test_base64_has_one_spelling():
    vkey = key("k", "log").verifier.vkey
    # 33 bytes fill 44 characters without padding, so stray bits need another length: a key id mismatch is
    # not what refuses this one.
    assert base64.b64decode("AA==") == base64.b64decode("AB==", validate=True)
    with pytest.raises(NonCanonical):
        keys.parse_vkey("k+00000000+AB==")
    with pytest.raises(Schema):
        keys.parse_vkey(vkey + "\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k",
        "k+00000000",
        "k+0000000+AA==",
        "k+0000000A+AA==",
        "k+00000000+",
        "+00000000+AA==",
        "k+00000000+A",
        "k k+00000000+AQ==",
    ],
)
def test_malformed_vkeys(text):
    with pytest.raises(Schema):
        keys.parse_vkey(text)


def test_unknown_signature_type():
    for use in (0x00, 0x02, 0x05, 0x07, 0xFF):
        with pytest.raises(Schema, match=f"{use:#04x}"):
            VerifierKey(name="k", use=use, public=key("k", "log").verifier.public)
    with pytest.raises(Schema, match="0x06"):
        VerifierKey(name="k", use=0x06, public=key("k", "log").verifier.public)


def test_ml_dsa_keys():
    secret = keys.generate("w", use="witness-ml-dsa")
    assert secret.use == 0x06
    assert len(secret.verifier.public) == 1312
    one, other = secret.sign(b"message"), secret.sign(b"message")
    assert len(one) == 2420
    assert one != other  # randomised
    for signature in (one, other):
        secret.verifier.verify(signature, b"message")
        with pytest.raises(BadSignature):
            secret.verifier.verify(signature, b"another")
    for broken in (b"", one[:-1], one + b"\0", bytes([one[0] ^ 1]) + one[1:]):
        with pytest.raises(BadSignature):
            secret.verifier.verify(broken, b"message")
    ed25519 = SigningKey(name="w", use=keys.COSIGNATURE, seed=secret.seed)
    assert ed25519.verifier.key_id != secret.verifier.key_id


def test_limits():
    with pytest.raises(TooLarge):
        keys.parse_vkey("k" * (keys.MAX_KEY_TEXT + 1))
    with pytest.raises(TooLarge):
        key("k" * (keys.MAX_NAME + 1), "log")
    assert key("k" * keys.MAX_NAME, "log").verifier.name == "k" * keys.MAX_NAME


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a\tb",
        "a\nb",
        "a\u00a0b",
        "a\u2028b",
        "a\u0085b",
        "a\u3000b",
        "a+b",
        "a\x00b",
        "a\x1fb",
        "a\x7fb",
        "a\u009fb",
        "a\ud800b",
    ],
)
def test_names_that_no_note_can_carry(name):
    with pytest.raises(Schema):
        keys.generate(name, use="log")


def test_key_id_depends_on_the_use():
    log, witness = key("k", "log"), SigningKey(name="k", use=keys.COSIGNATURE, seed=key("k", "log").seed)
    assert log.verifier.public == witness.verifier.public
    assert log.verifier.key_id != witness.verifier.key_id


def test_generated_keys_differ():
    assert keys.generate("k", use="statement") != keys.generate("k", use="statement")


def test_representation_hides_the_secret():
    secret = key("k", "log")
    shown = repr(secret)
    assert "k" in shown
    assert secret.seed.hex() not in shown
    assert str(secret.seed) not in shown


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s,
        lambda s: s + b"\n\n",
        lambda s: s.replace(b"PRIVATE", b"PUBLIC") + b"\n",
        lambda s: s + b"\xff\n",
        lambda s: s[:-44] + base64.b64encode(b"\x01" + bytes(31)) + b"\n",
        lambda s: s[:-53] + b"00000000" + s[-45:] + b"\n",
    ],
)
def test_malformed_key_files(change):
    with pytest.raises(MalformedError) as caught:
        keys.parse_skey(change(key("k", "log").skey.encode()))
    assert key("k", "log").skey[-40:] not in str(caught.value)


def test_key_files(tmp_path):
    secret = key("example.com/log", "log")
    paths = keys.write_key_pair(secret, tmp_path / "keys")
    assert [path.name for path in paths] == ["example.com_log.key", "example.com_log.vkey"]
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600
    assert keys.load_signing_key(paths[0]) == secret
    assert keys.load_verifier_key(paths[1]) == secret.verifier


@pytest.mark.parametrize("suffix", ["key", "vkey"])
def test_nothing_is_overwritten_without_force(tmp_path, suffix):
    (tmp_path / f"k.{suffix}").write_bytes(b"mine")
    with pytest.raises(Error, match="--force"):
        keys.write_key_pair(key("k", "log"), tmp_path)
    assert (tmp_path / f"k.{suffix}").read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_force_replaces_links_and_modes_instead_of_writing_through_them(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / "k.key").symlink_to(tmp_path / "elsewhere")
    secret, _ = keys.write_key_pair(key("k", "log"), tmp_path, force=True)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"
    assert not secret.is_symlink()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_file_names_stay_in_the_folder(tmp_path):
    for name in ("../../etc/passwd", "..", "a/b", "a\\b", "c:d", "é"):
        for path in keys.write_key_pair(key(name, "log"), tmp_path, force=True):
            assert path.parent == tmp_path
            assert path.resolve().parent == tmp_path.resolve()
    assert keys.file_stem("...") == "_"
    assert len(keys.file_stem("k" * 255)) == 200


@pytest.mark.parametrize("load", [keys.load_signing_key, keys.load_verifier_key])
@pytest.mark.parametrize(
    "content", [None, b"", b"junk\n", b"\xff\n", b"k" * (keys.MAX_KEY_TEXT + 1), b"k" * (keys.MAX_KEY_FILE + 1)]
)
def test_unreadable_key_files_are_named(tmp_path, load, content):
    path = tmp_path / "k.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MalformedError) as caught:
        load(path)
    assert caught.value.where == str(path)
