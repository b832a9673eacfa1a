"""The owner's log: appended to, proven in, and its failures told in one line."""

import errno
import os
import shutil
import subprocess
import sys

import pytest

from owner import journal
from owner.certify import refresh_proofs
from owner.files import write_atomic
from protocol import keys
from protocol.errors import DigestMismatch, OwnerError
from protocol.log import files as log_files
from protocol.log import policy, proof, witness
from protocol.log.store import Log
from protocol.log.verify import verify_log

ORIGIN = "log.example"


@pytest.fixture
def log(tmp_path):
    key = keys.generate(ORIGIN, use="log")
    path = tmp_path / "log"
    Log.create(path, key)
    write_atomic(journal.log_key_path(path), key.skey.encode() + b"\n", secret=True)
    return path


@pytest.fixture
def key():
    return keys.generate("owner", use="statement")


def trusting(log):
    vkey = keys.load_signing_key(journal.log_key_path(log)).verifier.vkey
    return policy.parse(f"log {vkey}\nquorum none\n".encode())


def test_what_is_appended_is_proven(log):
    for number in range(5):
        entry = f"entry {number}".encode()
        found = proof.verify(entry, proof.parse(journal.append(log, entry)), trusting(log), origin=ORIGIN)
        assert (found.index, journal.find(log, entry)) == (number, number)
    assert journal.find(log, b"another") is None
    assert journal.leaf_of(b"entry 1") == Log.open(log).leaf_hashes()[1].hex()


def test_once_is_once(log):
    first = journal.append(log, b"entry", once=True)
    journal.append(log, b"other")
    again = journal.append(log, b"entry", once=True)
    assert Log.open(log).size == 2
    assert proof.parse(first).index == proof.parse(again).index == 0
    proof.verify(b"entry", proof.parse(again), trusting(log), origin=ORIGIN)
    journal.append(log, b"entry")
    assert Log.open(log).size == 3


def test_a_log_that_is_none(tmp_path, log, key):
    write_atomic(journal.log_key_path(tmp_path / "empty"), journal.log_key_path(log).read_bytes())
    (tmp_path / "empty").mkdir()
    for act in (
        lambda path: journal.append(path, b"x"),
        lambda path: journal.find(path, b"x"),
        lambda path: journal.check_log(path, key),
    ):
        with pytest.raises(OwnerError, match="missing") as caught:
            act(tmp_path / "empty")
        assert "empty" in caught.value.where


def test_a_log_without_its_key_or_with_another(log, key):
    journal.check_log(log, key)
    other = keys.generate(ORIGIN, use="log")
    journal.log_key_path(log).write_text(other.skey + "\n")
    for act in (lambda: journal.append(log, b"x"), lambda: journal.check_log(log, key)):
        with pytest.raises(OwnerError):
            act()
    journal.log_key_path(log).unlink()
    for act in (lambda: journal.append(log, b"x"), lambda: journal.check_log(log, key)):
        with pytest.raises(OwnerError, match="cannot be read") as caught:
            act()
        assert caught.value.where.endswith("log.key")
    assert Log.open(log).size == 0


def test_the_logs_key_signs_no_statements(log):
    with pytest.raises(OwnerError, match="log's own key"):
        journal.check_log(log, keys.load_signing_key(journal.log_key_path(log)))


def test_a_full_disk_is_told_and_hurts_nothing(log, monkeypatch):
    journal.append(log, b"before")

    def full(path, data, *, temporary):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(log_files, "write_atomic", full)
        with pytest.raises(OwnerError, match="No space left") as caught:
            journal.append(log, b"lost")
        assert caught.value.where.startswith(str(log))
    journal.append(log, b"after")
    assert list(Log.open(log).entries()) == [b"before", b"after"]
    verify_log(log, trusting(log), remembered=None)


def test_two_processes_append_to_one_log(log):
    code = (
        "import sys; from pathlib import Path; from owner import journal\n"
        "for n in range(15): journal.append(Path(sys.argv[1]), f'{sys.argv[2]} {n}'.encode())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(log), name]) for name in ("one", "two")]
    assert [process.wait(60) for process in running] == [0, 0]
    entries = list(Log.open(log).entries())
    assert sorted(entries) == sorted(f"{name} {n}".encode() for name in ("one", "two") for n in range(15))
    for name in ("one", "two"):
        mine = [entry for entry in entries if entry.startswith(name.encode())]
        assert mine == [f"{name} {n}".encode() for n in range(15)]
    verify_log(log, trusting(log), remembered=None)


def cosigned(log, state, now):
    log_key = keys.load_signing_key(journal.log_key_path(log)).verifier
    witness.cosign(log, keys.SigningKey(name="w", use=keys.COSIGNATURE, seed=bytes(32)), state, now, log_key=log_key)


def test_a_proof_is_brought_up_to_date_for_more_cosignatures_only(log, tmp_path):
    old = journal.append(log, b"entry")
    journal.append(log, b"other")
    assert journal.refreshed(log, old) == old
    cosigned(log, tmp_path / "state", 1000)
    fresh = journal.refreshed(log, old)
    assert proof.verify(b"entry", proof.parse(fresh), trusting(log), origin=ORIGIN).checkpoint.checkpoint.size == 2
    # The earlier witness time is what a deadline is measured by: a later checkpoint does not replace it.
    journal.append(log, b"third")
    cosigned(log, tmp_path / "state", 2000)
    assert journal.refreshed(log, fresh) == fresh


def test_another_logs_proof_is_left_alone(log, tmp_path):
    stranger = keys.generate("elsewhere.example", use="log")
    Log.create(tmp_path / "other", stranger)
    Log.open(tmp_path / "other").append([b"entry"], stranger)
    old = proof.to_bytes(Log.open(tmp_path / "other").prove_inclusion(0))
    journal.append(log, b"entry")
    assert journal.refreshed(log, old) == old


def test_a_rewritten_log_makes_no_new_proofs(log):
    journal.append(log, b"a")
    old = journal.append(log, b"b")
    key = keys.load_signing_key(journal.log_key_path(log))
    for entries in ([b"a"], [b"a", b"c"], [b"a", b"c", b"b"]):
        shutil.rmtree(log)
        Log.create(log, key)
        Log.open(log).append(entries, key)
        with pytest.raises(OwnerError, match="rewritten"):
            journal.refreshed(log, old)


def test_a_whole_folder_of_proofs(log, tmp_path):
    folder = tmp_path / "bundle"
    write_atomic(folder / "proofs" / "a.tlog-proof", journal.append(log, b"a"))
    write_atomic(folder / "proofs" / "b.tlog-proof", journal.append(log, b"b"))
    assert refresh_proofs(folder, log) == 0
    cosigned(log, tmp_path / "state", 1000)
    assert refresh_proofs(folder, log) == 2
    assert refresh_proofs(folder, log) == 0
    with pytest.raises(OwnerError, match="no log proofs"):
        refresh_proofs(tmp_path, log)
    write_atomic(folder / "proofs" / "c.tlog-proof", b"nonsense")
    with pytest.raises(OwnerError):
        refresh_proofs(folder, log)


def test_a_message_is_whole_or_not_there(log, tmp_path, monkeypatch):
    out = tmp_path / "new" / "request.json"
    proven = journal.publish_message(out, b"one", log, beside={".leaves.json": b"[]"}, force=False)
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "request.json",
        "request.leaves.json",
        "request.tlog-proof",
    ]
    assert out.with_suffix(".tlog-proof").read_bytes() == proven
    with pytest.raises(OwnerError, match="--force"):
        journal.publish_message(out, b"two", log, beside={}, force=False)
    out.unlink()
    with pytest.raises(OwnerError, match="--force"):
        journal.publish_message(out, b"two", log, beside={}, force=False)
    journal.publish_message(out, b"two", log, beside={}, force=True)

    def refuse(*_, **__):
        raise OwnerError("the log refuses")

    monkeypatch.setattr(journal, "append", refuse)
    with pytest.raises(OwnerError, match="the log refuses"):
        journal.publish_message(out, b"three", log, beside={}, force=True)
    assert out.read_bytes() == b"two"
    assert len(list(out.parent.iterdir())) == 3


def test_a_logged_message_is_not_lost(log, tmp_path, monkeypatch):
    out = tmp_path / "request.json"

    def full(path, data, **_):
        if path.name.endswith(".tlog-proof"):
            raise OwnerError("No space left on device")
        write_atomic(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(journal, "write_atomic", full)
        with pytest.raises(OwnerError, match=r"was logged.*No space left.*\.request\.json\.partial"):
            journal.publish_message(out, b"one", log, beside={}, force=False)
    assert (tmp_path / ".request.json.partial" / "file").read_bytes() == b"one"
    assert journal.find(log, b"one") == 0


def test_whatever_the_file_system_says_about_a_log_is_ours(log, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Log, "append", refuse)
    with pytest.raises(OwnerError, match="the log cannot be written: Read-only file system"):
        journal.append(log, b"x")


def test_a_message_cannot_take_a_folders_place(log, tmp_path):
    (tmp_path / "out.tlog-proof").mkdir()
    with pytest.raises(OwnerError, match="is a folder"):
        journal.publish_message(tmp_path / "out", b"one", log, beside={}, force=True)
    assert Log.open(log).size == 0


def test_a_damaged_folder_is_not_signed_on(log):
    for number in range(3):
        journal.append(log, bytes([number]))
    tile = next(
        path for path in log.rglob("*") if path.is_file() and "entries" not in str(path) and "tile" in str(path)
    )
    tile.write_bytes(bytes(len(tile.read_bytes())))
    with pytest.raises(OwnerError):
        journal.append(log, b"x")
    with pytest.raises(DigestMismatch):
        Log.open(log).append([b"x"], keys.load_signing_key(journal.log_key_path(log)))


def test_statements_are_signed_by_statement_keys(key):
    with pytest.raises(OwnerError):
        journal.sign(b"{}", keys.generate("w", use="witness"))
    assert b"payload" in journal.sign(b'{"_type":"x"}', key)
    assert journal.read_proof(journal.Path("nowhere.tlog-proof")) is None
