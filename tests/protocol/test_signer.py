"""Keys that stay elsewhere: whatever the signer does, only a signature by the named key over these bytes comes out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from protocol import envelope, keygen, keys, signer
from protocol.errors import BadSignature, EncodingError, MalformedError, Schema, UnsupportedVersion, VerificationError
from protocol.keys import SigningKey
from protocol.log import checkpoint, cosignature
from protocol.log.store import Log, verify_log
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, POLICY

SCRIPT = Path(__file__).parent / "reference_signer.py"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))


def words(tmp_path, key, mode="honest"):
    (tmp_path / "token").write_text(key.skey + "\n")
    return (sys.executable, str(SCRIPT), str(tmp_path / "token"), mode)


def external(tmp_path, key=LOG_KEY, mode="honest", seconds=20.0):
    return signer.ExternalKey(
        name=key.name, use=key.use, public=key.verifier.public, command=words(tmp_path, key, mode), seconds=seconds
    )


def test_a_log_whose_key_is_in_a_signer(tmp_path):
    key = external(tmp_path)
    log = Log.create(tmp_path / "log", key)
    log.append([b"one"], key)
    assert verify_log(log.path, POLICY).size == 1
    assert checkpoint.parse_signed(log.checkpoint_bytes())[0].signatures[0].is_by(LOG_KEY.verifier)


@pytest.mark.parametrize("use", ["statement", "witness", "witness-ml-dsa"])
def test_statements_and_cosignatures(tmp_path, use):
    inner = SigningKey(name="t.example", use=keys.USES[use], seed=bytes(range(32)))
    key = external(tmp_path, inner)
    assert key.verifier == inner.verifier
    if use == "statement":
        assert envelope.verify(envelope.parse(envelope.sign(b"{}", [key])), [inner.verifier]) == (inner.verifier,)
    else:
        text = f"{ORIGIN}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n".encode()
        assert cosignature.verify(cosignature.sign(text, key, 7), inner.verifier, text) == 7


@pytest.mark.parametrize(
    ("mode", "error", "says"),
    [
        ("refuse", VerificationError, "not this time"),
        ("other", BadSignature, "does not verify"),
        ("silent", VerificationError, "no answer within"),
        ("garbage", MalformedError, "JSON"),
        ("two", MalformedError, "one line"),
        ("dies", MalformedError, "status 7"),
    ],
)
def test_what_a_signer_may_do_wrong(tmp_path, mode, error, says):
    with pytest.raises(error, match=says):
        external(tmp_path, mode=mode, seconds=0.5 if mode == "silent" else 20.0).sign(b"message")


def test_no_such_program(tmp_path):
    key = signer.ExternalKey(name="k", use=1, public=LOG_KEY.verifier.public, command=(str(tmp_path / "none"),))
    with pytest.raises(VerificationError, match="cannot be run"):
        key.sign(b"m")
    with pytest.raises(EncodingError, match="cannot be written"):
        _ = key.skey
    with pytest.raises(Schema):
        signer.ExternalKey(name="k", use=1, public=LOG_KEY.verifier.public, command=())
    assert "seed" not in repr(key)


def test_keygen_and_key_file(tmp_path):
    inner = SigningKey(name="t.example", use=keys.ED25519, seed=bytes(range(32)))
    command = " ".join(words(tmp_path, inner))
    secret, _, made = keygen.make_pair("t.example", "statement", tmp_path / "keys", command=command)
    assert made == inner.verifier
    assert inner.skey.rsplit("+", 1)[1] not in secret.read_text()
    loaded = keys.load_signing_key(secret)
    assert loaded.verifier == made
    assert loaded.sign(b"m") == inner.sign(b"m")
    with pytest.raises(VerificationError, match="refuses"):
        keygen.make_pair("other.example", "statement", tmp_path / "keys", command=command)
    with pytest.raises(BadSignature):  # a public key whose secret the signer does not have
        keygen.make_pair("t.example", "statement", tmp_path / "k2", command=" ".join(words(tmp_path, inner, "other")))
    assert not (tmp_path / "k2").exists()
    value = json.loads(secret.read_text())
    for change, error in (
        ({"version": "prune-audit/signer/v2"}, UnsupportedVersion),
        ({"command": []}, Schema),
        ({"command": "sh -c x"}, MalformedError),
        ({"command": ["a", ""]}, Schema),
        ({"vkey": value["vkey"][:-3] + "AAA"}, MalformedError),
        ({"timeoutSeconds": 0}, Schema),
        ({"extra": 1}, Schema),
    ):
        secret.write_text(json.dumps(value | change))
        with pytest.raises(error):
            keys.load_signing_key(secret)
    del value["timeoutSeconds"]
    assert signer.parse_key_file(json.dumps(value).encode()).seconds == signer.SECONDS


def test_an_interrupt_ends_the_signer_as_well(tmp_path, monkeypatch):
    started = []

    def interrupted(process, *_, **__):
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        external(tmp_path, mode="silent").sign(b"m")
    assert started[0].returncode is not None
