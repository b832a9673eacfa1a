"""Key files under a passphrase."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import keygen, keys, locked_key
from protocol.encoding import decode_base64, encode_base64
from protocol.errors import BadSignature, EncodingError, Error, MalformedError, Schema, TooLarge
from protocol.keys import SigningKey

KEY = SigningKey(name="example.com/owner", use=keys.ED25519, seed=bytes(range(32)))


def locked(passphrase=b"correct horse", key=KEY, cost=14):
    return locked_key.serialise(key.name, key.verifier.key_id, key.use, key.seed, passphrase, cost=cost)


@pytest.fixture(autouse=True)
def nothing_remembered():
    keys._unlocked.clear()


@pytest.mark.parametrize("use", keys.USES)
def test_round_trip_for_every_use(use):
    key = SigningKey(name="a.example/b", use=keys.USES[use], seed=bytes(range(32)))
    data = locked(key=key)
    asked = []
    assert keys.parse_key_file(data, ask=lambda name: asked.append(name) or b"correct horse") == key
    assert asked == ["a.example/b"]
    assert key.seed.hex().encode() not in data
    assert locked(key=key) != data  # a new salt and nonce every time
    assert len(data) < keys.MAX_KEY_TEXT


def test_another_passphrase_opens_nothing():
    for wrong in (b"correct horse ", b"x", b"\0"):
        with pytest.raises(BadSignature, match="passphrase does not open"):
            keys.parse_key_file(locked(), ask=lambda _, wrong=wrong: wrong)
    with pytest.raises(EncodingError, match="empty"):
        keys.parse_key_file(locked(), ask=lambda _: b"")
    with pytest.raises(TooLarge):
        keys.parse_key_file(locked(), ask=lambda _: b"x" * 1025)
    with pytest.raises(EncodingError, match="cost"):
        locked(cost=21)


def test_every_part_of_the_file_is_authenticated():
    data = locked()
    for place in range(0, len(data), 7):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((MalformedError, BadSignature)):
            keys.parse_key_file(changed, ask=lambda _: b"correct horse")
    other = SigningKey(name="example.com/other", use=KEY.use, seed=KEY.seed)
    renamed = data.replace(b"example.com/owner", b"example.com/other").replace(
        KEY.verifier.key_id.hex().encode(), other.verifier.key_id.hex().encode()
    )
    with pytest.raises(BadSignature):
        keys.parse_key_file(renamed, ask=lambda _: b"correct horse")


def test_a_sealed_key_that_is_not_the_named_one():
    data = locked_key.serialise(KEY.name, bytes(4), KEY.use, KEY.seed, b"p", cost=14)
    with pytest.raises(Schema, match="key id"):
        keys.parse_key_file(data, ask=lambda _: b"p")


def test_costs_that_would_hold_a_reader_are_refused_before_any_work():
    data = locked()
    head, material = data.rstrip(b"\n").split(KEY.verifier.key_id.hex().encode() + b"+")
    blob = bytearray(decode_base64(material.decode()))
    blob[1] = 30
    hostile = head + KEY.verifier.key_id.hex().encode() + b"+" + encode_base64(bytes(blob)).encode() + b"\n"
    with pytest.raises(TooLarge, match="cost"):
        keys.parse_key_file(hostile, ask=lambda _: pytest.fail("asked"))


def test_bytes_that_are_no_text():
    with pytest.raises(MalformedError, match="UTF-8"):
        keys.parse_key_file(locked_key.PREFIX.encode() + b"\xff\n")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_key_file_or_malformed(tail):
    with pytest.raises(MalformedError):
        locked_key.parse(locked_key.PREFIX.encode() + tail, lambda _: pytest.fail("asked"))


def test_where_a_passphrase_comes_from(tmp_path, monkeypatch):
    path = tmp_path / "pass"
    path.write_bytes(b"from a file\n")
    ask = locked_key.from_surroundings
    assert ask("k", environment={locked_key.PASSPHRASE_FILE: str(path), locked_key.PASSPHRASE: "x"}) == b"from a file"
    assert ask("k", environment={locked_key.PASSPHRASE: "p\u00e4ss"}) == "p\u00e4ss".encode()
    with pytest.raises(Error, match="cannot be read"):
        ask("k", environment={locked_key.PASSPHRASE_FILE: str(tmp_path / "none")})
    path.write_bytes(b"\n")
    with pytest.raises(EncodingError, match="empty"):
        ask("k", environment={locked_key.PASSPHRASE_FILE: str(path)})
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(Error, match=locked_key.PASSPHRASE_FILE):
        ask("k", environment={})

    class Terminal:
        def isatty(self):
            return True

    answers = iter(["one", "one", "one", "two"])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda _: next(answers))
    assert ask("k", environment={}, twice=True) == b"one"
    with pytest.raises(Error, match="differ"):
        ask("k", environment={}, twice=True)


def test_keygen_and_load(tmp_path, monkeypatch):
    monkeypatch.setattr(locked_key.serialise, "__kwdefaults__", {"cost": 14})
    secret, public, made = keygen.make_pair("o.example", "statement", tmp_path, locked=True, ask=lambda _: b"pw")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_bytes().startswith(b"LOCKED+PRIVATE+KEY+o.example+")
    assert keys.load_verifier_key(public) == made
    monkeypatch.setenv(locked_key.PASSPHRASE, "wrong")
    with pytest.raises(BadSignature) as caught:
        keys.load_signing_key(secret)
    assert caught.value.where == str(secret)
    monkeypatch.setenv(locked_key.PASSPHRASE, "pw")
    loaded = keys.load_signing_key(secret)
    assert loaded.verifier == made
    # Once unlocked, a program that signs many times does not ask again.
    monkeypatch.delenv(locked_key.PASSPHRASE)
    assert keys.load_signing_key(secret) == loaded
    with pytest.raises(Error, match="no secret here"):
        keygen.make_pair("o.example", "statement", tmp_path, locked=True, command="x")


def test_a_line_of_another_shape_or_length():
    for tail in (b"example.com+00000000\n", b"example.com+00000000+AAAA\n", b"example.com+0000000z+AAAA\n"):
        with pytest.raises(Schema):
            locked_key.parse(locked_key.PREFIX.encode() + tail, lambda _: pytest.fail("asked"))
