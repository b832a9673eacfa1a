"""What we write is accepted, and what was changed is rejected, by programs that share no code with us.

Go's `sumdb/note` and `sumdb/tlog` (Debian: golang-1.19-go, golang-golang-x-mod-dev), the OpenSSL program, and
Python's securesystemslib. Each is skipped where it is absent.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol import envelope, keys
from protocol.encoding import decode_base64, encode_base64
from protocol.errors import BadSignature, MalformedError
from protocol.log import checkpoint, cosignature, files, merkle, note, proof
from protocol.log.checkpoint import Checkpoint
from protocol.log.store import Log
from protocol.log.tree import TileTree
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, VECTORS, WITNESSES, key, make_log

GO = next((path for path in ("/usr/lib/go-1.19/bin/go", shutil.which("go")) if path and Path(path).exists()), None)
GO_SOURCE = Path("/usr/share/gocode")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program here")


def openssl_accepts(folder, public, message, signature):
    pem = Ed25519PublicKey.from_public_bytes(public).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for name, data in (("key", pem), ("message", message), ("signature", signature)):
        (folder / name).write_bytes(data)
    command = "openssl pkeyutl -verify -rawin -pubin -inkey key -in message -sigfile signature"
    return subprocess.run(command.split(), cwd=folder, capture_output=True, check=False).returncode == 0


def flips(data, count=6):
    """The same bytes with one bit changed, at places spread over them."""
    for number in range(count):
        place = number * (len(data) - 1) // (count - 1)
        yield data[:place] + bytes([data[place] ^ 1 << number % 8]) + data[place + 1 :]


@needs_openssl
def test_openssl_verifies_checkpoints_and_cosignatures(tmp_path):
    signed, _ = checkpoint.parse_signed(checkpoint.sign(Checkpoint(origin=ORIGIN, size=3, root=bytes(32)), LOG_KEY))
    line = cosignature.sign(signed.text, WITNESSES[0], 1234)
    message = b"cosignature/v1\ntime 1234\n" + signed.text
    assert openssl_accepts(tmp_path, LOG_KEY.verifier.public, signed.text, signed.signatures[0].value)
    assert openssl_accepts(tmp_path, WITNESSES[0].verifier.public, message, line.value[8:])
    assert not openssl_accepts(tmp_path, WITNESSES[0].verifier.public, signed.text, line.value[8:])
    for changed in flips(signed.text):
        assert not openssl_accepts(tmp_path, LOG_KEY.verifier.public, changed, signed.signatures[0].value)
    for changed in flips(signed.signatures[0].value):
        assert not openssl_accepts(tmp_path, LOG_KEY.verifier.public, signed.text, changed)


@needs_openssl
def test_openssl_verifies_envelopes(tmp_path):
    signer = key("example.com/owner", "statement")
    written = json.loads(envelope.sign(b'{"any": "payload"}', [signer]))
    body = decode_base64(written["payload"])
    kind = written["payloadType"].encode()
    # The pre-authentication encoding by DSSE 1.0.2's text, not by our function.
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
    signature = decode_base64(written["signatures"][0]["sig"])
    assert openssl_accepts(tmp_path, signer.verifier.public, message, signature)
    for changed in flips(message):
        assert not openssl_accepts(tmp_path, signer.verifier.public, changed, signature)


def openssl_signs(folder, signer, message):
    pem = Ed25519PrivateKey.from_private_bytes(signer.seed).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "secret").write_bytes(pem)
    (folder / "message").write_bytes(message)
    command = "openssl pkeyutl -sign -rawin -inkey secret -in message -out signed"
    subprocess.run(command.split(), cwd=folder, capture_output=True, check=True)
    return (folder / "signed").read_bytes()


@needs_openssl
def test_what_openssl_signs_verifies_here_and_is_what_we_sign(tmp_path):
    text = checkpoint.to_text(Checkpoint(origin=ORIGIN, size=3, root=bytes(32)))
    value = openssl_signs(tmp_path, LOG_KEY, text)
    made = note.Note(text=text, signatures=(note.Signature(name=ORIGIN, key_id=LOG_KEY.verifier.key_id, value=value),))
    assert made.to_bytes() == checkpoint.sign(Checkpoint(origin=ORIGIN, size=3, root=bytes(32)), LOG_KEY)
    assert note.verify(note.parse(made.to_bytes()), [LOG_KEY.verifier]) == (LOG_KEY.verifier,)
    message = b"cosignature/v1\ntime 77\n" + text
    line = note.Signature(
        name=WITNESSES[0].name,
        key_id=WITNESSES[0].verifier.key_id,
        value=(77).to_bytes(8, "big") + openssl_signs(tmp_path, WITNESSES[0], message),
    )
    assert cosignature.verify(line, WITNESSES[0].verifier, text) == 77
    for changed in flips(line.value):
        with pytest.raises(BadSignature):
            cosignature.verify(
                note.Signature(name=line.name, key_id=line.key_id, value=changed), WITNESSES[0].verifier, text
            )
    signer = key("example.com/owner", "statement")
    body = b'{"any": "payload"}'
    signature = openssl_signs(tmp_path, signer, envelope.pae(envelope.PAYLOAD_TYPE, body))
    value = {
        "payload": encode_base64(body),
        "payloadType": envelope.PAYLOAD_TYPE,
        "signatures": [{"sig": encode_base64(signature)}],
    }
    read = envelope.parse(json.dumps(value).encode())
    assert envelope.verify(read, [signer.verifier]) == (signer.verifier,)


def test_securesystemslib_verifies_envelopes():
    dsse = pytest.importorskip("securesystemslib.dsse", reason="the package securesystemslib is not installed")
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    signers = [key(f"example.com/owner{number}", "statement") for number in range(2)]
    data = envelope.sign(b'{"any": "payload"}', signers)

    def theirs(signer):
        keyid = f"{signer.name}+{signer.verifier.key_id.hex()}"
        return SSlibKey(keyid, "ed25519", "ed25519", {"public": signer.verifier.public.hex()})

    trusted = [theirs(signer) for signer in signers]
    read = dsse.Envelope.from_dict(json.loads(data))
    assert read.payload == b'{"any": "payload"}'
    assert read.pae() == envelope.pae(read.payload_type, read.payload)
    assert len(read.verify(trusted, 2)) == 2
    with pytest.raises(VerificationError):
        read.verify([trusted[0], theirs(key("example.com/stranger", "statement"))], 2)
    value = json.loads(data)
    for changed in (
        value | {"payload": encode_base64(b'{"any": "Payload"}')},
        value | {"payloadType": "application/other"},
        value | {"signatures": [entry | {"sig": encode_base64(bytes(64))} for entry in value["signatures"]]},
    ):
        with pytest.raises(VerificationError):
            dsse.Envelope.from_dict(json.loads(json.dumps(changed))).verify(trusted, 2)


def test_envelopes_of_securesystemslib_verify_here():
    dsse = pytest.importorskip("securesystemslib.dsse", reason="the package securesystemslib is not installed")
    from securesystemslib.signer import CryptoSigner

    signer = CryptoSigner.generate_ed25519()
    made = dsse.Envelope(b"{}", envelope.PAYLOAD_TYPE, {})
    made.sign(signer)
    read = envelope.parse(json.dumps(made.to_dict()).encode())
    public = bytes.fromhex(signer.public_key.keyval["public"])
    verifier = type(LOG_KEY.verifier)(name="peer", use=1, public=public)
    assert envelope.verify(read, [verifier]) == (verifier,)
    made.payload = b"{ }"
    with pytest.raises(BadSignature):
        made.signatures = {k: v for k, v in made.signatures.items()}
        changed = envelope.parse(json.dumps(made.to_dict()).encode())
        verifier.verify(changed.signatures[0].value, envelope.pae(changed.payload_type, changed.payload))


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """Run the Go program: gives its exit status and output."""
    if GO is None or not (GO_SOURCE / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        pytest.skip("no Go with sumdb/note and sumdb/tlog here (Debian: golang-1.19-go golang-golang-x-mod-dev)")
    program = tmp_path_factory.mktemp("go") / "peer"
    source = Path(__file__).parent / "peers" / "main.go"
    settings = {"GO111MODULE": "off", "GOPATH": str(GO_SOURCE), "GOFLAGS": "", "CGO_ENABLED": "0"}
    if "HOME" not in os.environ:
        settings["GOCACHE"] = str(tmp_path_factory.mktemp("go-cache"))
    subprocess.run([GO, "build", "-o", str(program), str(source)], check=True, env=os.environ | settings)

    def run(*words):
        done = subprocess.run([str(program), *map(str, words)], capture_output=True, check=False)
        assert done.returncode in (0, 3), done.stderr.decode()
        return done.returncode == 0, done.stdout

    return run


def b64(values):
    return [encode_base64(value) for value in values]


def test_go_opens_our_notes(go, tmp_path):
    log = make_log(tmp_path / "log", 3)
    data = log.checkpoint_bytes()
    path = tmp_path / "note"
    signed, _ = checkpoint.parse_signed(data)
    cosigned = signed.with_signature(cosignature.sign(signed.text, WITNESSES[0], 5)).to_bytes()
    for accepted in (data, cosigned):
        path.write_bytes(accepted)
        assert go("note", LOG_KEY.verifier.vkey, path) == (True, signed.text)
    for changed in flips(data, 20):
        path.write_bytes(changed)
        assert not go("note", LOG_KEY.verifier.vkey, path)[0]
    path.write_bytes(data)
    assert not go("note", key(ORIGIN, "statement").verifier.vkey, path)[0]


def test_go_and_we_sign_the_same_bytes(go, tmp_path):
    # The key file's form is Go's; Ed25519 is deterministic.
    text = checkpoint.to_text(Checkpoint(origin=ORIGIN, size=3, root=bytes(32)))
    (tmp_path / "text").write_bytes(text)
    accepted, signed = go("sign", LOG_KEY.skey, tmp_path / "text")
    assert accepted
    assert signed == note.sign(text, LOG_KEY).to_bytes()
    assert note.verify(note.parse(signed), [LOG_KEY.verifier]) == (LOG_KEY.verifier,)


@pytest.mark.parametrize("batches", [(1,), (3, 5), (255, 1), (257,), (200, 400, 1)])
def test_go_reads_our_tiles_and_agrees_on_every_proof(go, tmp_path, batches):
    log = make_log(tmp_path / "log", *batches)
    head = log.checkpoint()
    size, root = head.size, encode_base64(head.root)
    assert go("tree", log.path, size, root)[0]
    assert not go("tree", log.path, size, encode_base64(bytes(32)))[0]
    leaves = log.leaf_hashes()
    for index in {0, size // 2, size - 1}:
        made = log.prove_inclusion(index).hashes
        accepted, theirs = go("inclusion", log.path, size, index)
        assert accepted
        assert theirs.decode().split() == b64(made)
        assert go("check-inclusion", size, root, index, encode_base64(leaves[index]), *b64(made))[0]
        if size > 1:
            other = encode_base64(leaves[(index + 1) % size])
            assert not go("check-inclusion", size, root, index, other, *b64(made))[0]
            for changed in flips(made[0], 3):
                wrong = [changed, *made[1:]]
                assert not go("check-inclusion", size, root, index, encode_base64(leaves[index]), *b64(wrong))[0]
    for old in {1, size // 2 or 1, size}:
        made = log.prove_consistency(old, size)
        old_root = encode_base64(log.root_at(old))
        accepted, theirs = go("consistency", log.path, old, size)
        assert accepted
        assert theirs.decode().split() == b64(made)
        assert go("check-consistency", old, old_root, size, root, *b64(made))[0]
        assert not go("check-consistency", old, encode_base64(bytes(32)), size, root, *b64(made))[0]
        for number in range(len(made)):
            wrong = [*made[:number], bytes(32), *made[number + 1 :]]
            assert not go("check-consistency", old, old_root, size, root, *b64(wrong))[0]


def test_go_finds_any_changed_tile(go, tmp_path):
    log = make_log(tmp_path / "log", 600)
    root = encode_base64(log.checkpoint().root)
    for name in ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"]:
        data = (log.path / name).read_bytes()
        for changed in flips(data, 3):
            (log.path / name).write_bytes(changed)
            assert not go("tree", log.path, 600, root)[0]
        (log.path / name).write_bytes(data)
    assert go("tree", log.path, 600, root)[0]


def test_go_and_we_agree_on_a_real_log(go, tmp_path):
    folder = tmp_path / "log"
    shutil.copytree(VECTORS / "tlog-tiles-tessera/log", folder, copy_function=shutil.copyfile)
    for size in range(1, 10):
        _, head = checkpoint.parse_signed((folder / f"checkpoint.{size}").read_bytes())
        assert go("tree", folder, size, encode_base64(head.root))[0]
        tree = TileTree(files.folder_fetch(folder), size)
        for index in range(size):
            assert go("inclusion", folder, size, index)[1].decode().split() == b64(tree.inclusion(index))
    assert go("note", (VECTORS / "tlog-tiles-tessera/log.vkey").read_text().strip(), folder / "checkpoint.9")[0]


def test_logs_that_we_open_again_are_go_s_too(go, tmp_path):
    # One entry at a time over a tile's edge, each published checkpoint checked by Go.
    log = make_log(tmp_path / "log", 254)
    for _ in range(4):
        Log.open(log.path).append([b"one more"], LOG_KEY)
        head = log.checkpoint()
        assert go("tree", log.path, head.size, encode_base64(head.root))[0]
        assert head.root == merkle.root_from_hashes(log.leaf_hashes())


def test_go_reads_our_key_files_and_refuses_changed_ones(go, tmp_path):
    secret, public = keys.write_key_pair(LOG_KEY, tmp_path)
    (tmp_path / "text").write_bytes(b"some text\n")
    skey, vkey = secret.read_text().rstrip("\n"), public.read_text().rstrip("\n")
    accepted, signed = go("sign", skey, tmp_path / "text")
    assert accepted
    (tmp_path / "note").write_bytes(signed)
    assert go("note", vkey, tmp_path / "note") == (True, b"some text\n")
    # The key id and the type are checked on both sides alike; what is in base64 is 33 bytes on both sides.
    name, mark, material = vkey.split("+", 2)
    for changed in (f"{name}x+{mark}+{material}", f"{name}+{'0' * 8}+{material}", f"{name}+{mark}+{material[:-4]}"):
        assert not go("note", changed, tmp_path / "note")[0]
        with pytest.raises(MalformedError):
            keys.parse_vkey(changed)
    for changed in (skey.replace("PRIVATE+KEY", "PUBLIC+KEY"), skey[:-4], skey.replace(mark, "0" * 8)):
        assert not go("sign", changed, tmp_path / "text")[0]
        with pytest.raises(MalformedError):
            keys.parse_skey(changed.encode() + b"\n")


@pytest.mark.parametrize("count", [1, 256, 300])
def test_go_finds_the_leaf_hashes_of_our_entries(go, tmp_path, count):
    log = make_log(tmp_path / "log", count)
    assert go("entries", log.path, count)[0]
    path = log.path / ("tile/entries/000" if count >= 256 else f"tile/entries/000.p/{count}")
    data = path.read_bytes()
    for changed in (*flips(data, 5), data[:-1], data + b"\0\0"):
        path.write_bytes(changed)
        assert not go("entries", log.path, count)[0]


def test_go_checks_a_tlog_proof_from_its_text(go, tmp_path):
    """The proof as a subject keeps it: read line by line here, checked by Go's note and tlog alone."""
    log = make_log(tmp_path / "log", 300)
    text = proof.to_bytes(log.prove_inclusion(123)).decode()
    head, checkpoint_text = text.split("\n\n", 1)
    version, index, *hashes = head.split("\n")
    assert version == "c2sp.org/tlog-proof@v1"
    (tmp_path / "note").write_text(checkpoint_text)
    accepted, opened = go("note", LOG_KEY.verifier.vkey, tmp_path / "note")
    assert accepted
    _, size, root = opened.decode().split("\n")[:3]
    leaf = encode_base64(hashlib.sha256(b"\x00entry 123").digest())
    number = index.removeprefix("index ")
    assert go("check-inclusion", size, root, number, leaf, *hashes)[0]
    assert not go("check-inclusion", size, root, "124", leaf, *hashes)[0]
    assert not go("check-inclusion", size, root, number, leaf, *hashes[:-1])[0]
    assert not go("check-inclusion", size, root, number, leaf, *hashes[1:], hashes[0])[0]
