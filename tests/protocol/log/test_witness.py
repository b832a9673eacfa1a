import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import (
    BadSignature,
    Consistency,
    DigestMismatch,
    EncodingError,
    Error,
    MalformedError,
    Rollback,
    UnknownKey,
)
from protocol.log import checkpoint, cosignature, files, merkle, note, tree
from protocol.log.checkpoint import Checkpoint
from protocol.log.store import Log
from protocol.log.witness import Memory, cosign, cosign_served, watch
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, POLICY, WITNESSES, key, make_log, unbase64

W0, W1, W2 = WITNESSES


@pytest.fixture
def log(tmp_path):
    return make_log(tmp_path / "log", 3)


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def by(log, one, state, now=1000):
    return cosign(log.path, one, state, now, log_key=LOG_KEY.verifier)


def other_history(tmp_path, size):
    other = Log.create(tmp_path / "other", LOG_KEY)
    other.append([b"rewritten %d" % i for i in range(size)], LOG_KEY)
    return other


def evidence(state):
    place = Memory(folder=state).place(ORIGIN) / "evidence"
    return sorted((folder / name).read_bytes() for folder in place.iterdir() for name in ("offered", "remembered"))


def test_cosigning_adds_one_line_and_remembers(log, state, tmp_path):
    before = log.checkpoint_bytes()
    data = by(log, W0, state)
    assert data == log.checkpoint_bytes()
    assert data.startswith(before)
    by(log, W1, tmp_path / "state1", 1001)
    verified = POLICY.verify_checkpoint(log.checkpoint_bytes())
    assert dict(verified.cosigned) == {"w0": 1000, "w1": 1001}
    assert verified.quorum_met
    assert Memory(folder=state).remembered(ORIGIN) == before
    assert Memory(folder=state).remembered("example.com/other") is None


def test_a_later_cosignature_replaces_the_older_line(log, state):
    by(log, W0, state, 1000)
    by(log, W0, state, 2000)
    signed, _ = checkpoint.parse_signed(log.checkpoint_bytes())
    assert len(signed.signatures) == 2
    assert dict(POLICY.verify_checkpoint(log.checkpoint_bytes()).cosigned) == {"w0": 2000}


@pytest.mark.parametrize("batches", [(1, 2), (4, 4), (3, 300), (256, 1), (5, 7)])
def test_growth_is_cosigned(tmp_path, state, batches):
    log = Log.create(tmp_path / "log", LOG_KEY)
    by(log, W0, state)
    for number, count in enumerate(batches):
        log.append([b"%d %d" % (number, i) for i in range(count)], LOG_KEY)
        assert (
            cosignature.verify(
                checkpoint.parse_signed(by(log, W0, state))[0].signatures[1],
                W0.verifier,
                checkpoint.parse_signed(log.checkpoint_bytes())[0].text,
            )
            == 1000
        )


def test_a_rollback_is_refused_and_kept(log, state, tmp_path):
    shutil.copytree(log.path, tmp_path / "old")
    log.append([b"x"], LOG_KEY)
    by(log, W0, state)
    old = Log.open(tmp_path / "old")
    offered, remembered = old.checkpoint_bytes(), Memory(folder=state).remembered(ORIGIN)
    with pytest.raises(Rollback, match="kept in"):
        by(old, W0, state)
    assert old.checkpoint_bytes() == offered
    assert evidence(state) == sorted([offered, remembered])
    assert Memory(folder=state).remembered(ORIGIN) == remembered


@pytest.mark.parametrize(("first", "second"), [(3, 3), (4, 4), (3, 5), (4, 9), (1, 2), (255, 256), (256, 300)])
def test_a_second_history_is_refused_and_kept(tmp_path, state, first, second):
    log = make_log(tmp_path / "log", first)
    by(log, W0, state)
    remembered = Memory(folder=state).remembered(ORIGIN)
    other = other_history(tmp_path, second)
    offered = other.checkpoint_bytes()
    with pytest.raises(Consistency, match="kept in"):
        by(other, W0, state)
    assert other.checkpoint_bytes() == offered
    assert evidence(state) == sorted([offered, remembered])
    assert Memory(folder=state).remembered(ORIGIN) == remembered
    # The evidence stands without the log: its proof leads from another old root to the signed new one.
    shown = next((Memory(folder=state).place(ORIGIN) / "evidence").iterdir()) / "consistency"
    values = [unbase64(line) for line in shown.read_text().splitlines()]
    old, new = checkpoint.parse_signed(remembered)[1], checkpoint.parse_signed(offered)[1]
    if first == second:
        assert not values
    else:
        assert values[0] != old.root
        merkle.verify_consistency(old.size, values[0], new.size, new.root, values[1:])


def test_damaged_tiles_accuse_nobody(log, state):
    by(log, W0, state)
    log.append([b"x", b"y"], LOG_KEY)
    path = log.path / "tile/0/000.p/5"
    data = path.read_bytes()
    for place in range(0, 160, 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DigestMismatch):
            by(log, W0, state)
    path.unlink()
    with pytest.raises(MalformedError):
        by(log, W0, state)
    assert not (Memory(folder=state).place(ORIGIN) / "evidence").exists()


def test_first_contact_with_a_damaged_log_is_not_remembered(log, state):
    path = log.path / "tile/0/000.p/3"
    path.write_bytes(bytes(96))
    with pytest.raises(DigestMismatch, match="do not lead"):
        by(log, W0, state)
    assert Memory(folder=state).remembered(ORIGIN) is None


def test_tiles_that_contradict_each_other_accuse_nobody(tmp_path, state):
    # The root comes from the level-1 tile, the older root from a level-0 tile that was damaged.
    log = make_log(tmp_path / "log", 100, 412)
    small = make_log(tmp_path / "small", 100)
    by(small, W0, state)
    path = log.path / "tile/0/000"
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(DigestMismatch, match="contradict"):
        by(log, W0, state)
    path.write_bytes(data)
    by(log, W0, state)


def test_other_keys_and_logs(log, state):
    with pytest.raises(UnknownKey):
        cosign(log.path, W0, state, 1, log_key=key("example.com/other", "log").verifier)
    with pytest.raises(UnknownKey):
        cosign(log.path, W0, state, 1, log_key=key(ORIGIN, "statement").verifier)
    with pytest.raises(EncodingError):
        cosign(log.path, key(ORIGIN, "statement"), state, 1, log_key=LOG_KEY.verifier)
    with pytest.raises(EncodingError):
        by(log, W0, state, 0)
    (log.path / "checkpoint").write_bytes(log.checkpoint_bytes().replace(b"\n3\n", b"\n2\n"))
    with pytest.raises(BadSignature):
        by(log, W0, state)
    assert not state.exists()


def test_no_room_for_another_line(log, state):
    signed, _ = checkpoint.parse_signed(log.checkpoint_bytes())
    for number in range(14):
        signed = signed.with_signature(note.Signature(name=f"big{number}", key_id=b"abcd", value=bytes(6900)))
    (log.path / "checkpoint").write_bytes(signed.to_bytes())
    room = checkpoint.MAX_CHECKPOINT - len(signed.to_bytes())
    assert room > 0
    signed = signed.with_signature(note.Signature(name="filler", key_id=b"abcd", value=bytes((room - 60) * 3 // 4)))
    assert len(signed.to_bytes()) <= checkpoint.MAX_CHECKPOINT
    (log.path / "checkpoint").write_bytes(signed.to_bytes())
    with pytest.raises(EncodingError, match="room"):
        by(log, W0, state)
    assert not state.exists()


def test_a_damaged_memory_is_an_error_not_a_first_contact(log, state):
    by(log, W0, state)
    stored = Memory(folder=state).place(ORIGIN) / "checkpoint"
    stored.write_bytes(b"junk")
    with pytest.raises(MalformedError) as caught:
        by(log, W0, state)
    assert caught.value.where.startswith(str(state))


def test_memory_is_stored_before_the_cosignature_is_published(log, state, monkeypatch):
    write = files.write_atomic
    order = []
    monkeypatch.setattr(files, "write_atomic", lambda path, *a, **k: (order.append(path), write(path, *a, **k)))
    by(log, W0, state)
    assert order == [Memory(folder=state).place(ORIGIN) / "checkpoint", log.path / "checkpoint"]


def test_memory_does_not_depend_on_the_place_of_the_log(log, state, tmp_path):
    by(log, W0, state)
    shutil.copytree(log.path, tmp_path / "mirror")
    by(Log.open(tmp_path / "mirror"), W0, state)
    Memory(folder=state).advance(
        checkpoint.sign(
            Checkpoint(origin="example.com/else", size=0, root=log.root_at(0)), key("example.com/else", "log")
        ),
        tree.TileTree(files.folder_fetch(log.path), 0),
    )
    assert len([path for path in state.iterdir() if path.is_dir()]) == 2


COSIGNER = """
import sys
from pathlib import Path
from protocol.log.witness import cosign
from tests.protocol.log.helpers import LOG_KEY, WITNESSES
for i in range(15):
    cosign(Path(sys.argv[1]), WITNESSES[int(sys.argv[2])], Path(sys.argv[3]), 1000 + i, log_key=LOG_KEY.verifier)
"""


def test_witnesses_in_several_processes_keep_each_other_s_lines(log, tmp_path):
    root = Path(__file__).resolve().parents[3]
    running = [
        subprocess.Popen([sys.executable, "-c", COSIGNER, str(log.path), str(i), str(tmp_path / f"s{i}")], cwd=root)
        for i in range(2)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert dict(POLICY.verify_checkpoint(log.checkpoint_bytes()).cosigned) == {"w0": 1014, "w1": 1014}


OPEN = dataclasses.replace(POLICY, quorum="none")


class TestWatch:
    def test_growth(self, log, state):
        for size in (3, 3, 5, 300):
            log.append([b"more %d" % i for i in range(size - log.size)], LOG_KEY)
            assert watch(log.path, OPEN, state, origin=ORIGIN).size == size
        assert Memory(folder=state).remembered(ORIGIN) == log.checkpoint_bytes()

    def test_a_second_history_is_kept_as_evidence(self, log, state, tmp_path):
        watch(log.path, OPEN, state)
        other = other_history(tmp_path, 4)
        with pytest.raises(Consistency):
            watch(other.path, POLICY, state)
        assert evidence(state) == sorted([log.checkpoint_bytes(), other.checkpoint_bytes()])

    def test_what_no_quorum_cosigned_is_compared_and_not_remembered(self, log, state, tmp_path):
        assert not watch(log.path, POLICY, state).checkpoint.quorum_met
        assert Memory(folder=state).remembered(ORIGIN) is None
        watch(log.path, OPEN, state)
        kept = Memory(folder=state).remembered(ORIGIN)
        log.append([b"more"], LOG_KEY)
        watch(log.path, POLICY, state)
        assert Memory(folder=state).remembered(ORIGIN) == kept
        with pytest.raises(Consistency):
            watch(other_history(tmp_path, 4).path, POLICY, state)
        assert evidence(state)

    def test_a_damaged_log_is_not_remembered(self, log, state):
        (log.path / "tile/0/000.p/3").write_bytes(b"junk")
        with pytest.raises(Error) as caught:
            watch(log.path, POLICY, state)
        assert caught.value.where == "tile/0/000.p/3"
        assert not state.exists()


def test_a_log_that_is_only_read(tmp_path):
    log = make_log(tmp_path / "log", 3)
    fetch = files.folder_fetch(log.path)
    data = cosign_served(fetch, W0, tmp_path / "s", 7, log_key=LOG_KEY.verifier)
    assert POLICY.verify_checkpoint(data).cosigned == {"w0": 7}
    assert Memory(folder=tmp_path / "s").remembered(ORIGIN) == log.checkpoint_bytes()
    with pytest.raises(MalformedError, match="is missing"):
        cosign_served(lambda _path, _limit: None, W0, tmp_path / "s", 7, log_key=LOG_KEY.verifier)
