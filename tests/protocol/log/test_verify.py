import os
import shutil

import pytest

from protocol.errors import (
    BadSignature,
    Consistency,
    DigestMismatch,
    Error,
    MalformedError,
    Rollback,
    Schema,
    UnknownKey,
)
from protocol.log import checkpoint, files, merkle, note, tiles, witness
from protocol.log.checkpoint import Checkpoint
from protocol.log.store import Log, verify_log
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, POLICY, WITNESSES, key, make_log


@pytest.fixture
def log(tmp_path):
    made = make_log(tmp_path / "log", 2, 3)
    for number, one in enumerate(WITNESSES[:2]):
        witness.cosign(made.path, one, tmp_path / f"state{number}", 1000 + number, log_key=LOG_KEY.verifier)
    return made


def test_summary(log):
    summary = verify_log(log.path, POLICY, origin=ORIGIN)
    assert (summary.origin, summary.size, summary.root) == (ORIGIN, 5, log.root_at(5))
    assert summary.leaf_hashes == tuple(log.leaf_hashes())
    assert summary.checkpoint_note == log.checkpoint_bytes()
    assert summary.files == 5
    assert summary.checkpoint.quorum_met
    assert summary.checkpoint.time == 1001


def changes(data):
    for place, byte in enumerate(data):
        for other in {byte ^ 1, byte ^ 0x20, byte ^ 0x80, (byte + 1) % 256, 0x0A} - {byte}:
            yield place, data[:place] + bytes([other]) + data[place + 1 :]


def outcome(path):
    try:
        return verify_log(path, POLICY), ""
    except Error as error:
        return None, error.where


def test_any_changed_byte_of_any_file_is_found_and_the_file_named(log):
    whole = verify_log(log.path, POLICY)
    checked = exempt = 0
    for name in sorted(files.list_files(log.path)):
        path = log.path / name
        data = path.read_bytes()
        for place, changed in changes(data):
            path.write_bytes(changed)
            checked += 1
            summary, blamed = outcome(log.path)
            if summary is None:
                assert blamed == name, place
            else:
                # Only a witness's line that by now is one of nobody known: it stops counting, visibly.
                exempt += 1
                assert name == "checkpoint"
                assert place > data.rindex(b"\n\n")
                assert dict(summary.checkpoint.cosigned) != dict(whole.checkpoint.cosigned)
                assert not summary.checkpoint.quorum_met
        path.write_bytes(data)
    assert checked > 2000
    assert exempt < 300
    assert verify_log(log.path, POLICY) == whole


@pytest.mark.parametrize(
    "name", ["checkpoint", "tile/0/000.p/2", "tile/0/000.p/5", "tile/entries/000.p/2", "tile/entries/000.p/5"]
)
@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"", lambda d: d + d, lambda d: bytes(9_000_000)]
)
def test_changed_lengths_are_found(log, name, change):
    path = log.path / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(Error) as caught:
        verify_log(log.path, POLICY)
    assert caught.value.where == name


def test_changed_bytes_in_a_log_of_several_levels(tmp_path):
    log = make_log(tmp_path / "log", 250, 20, 256)
    for name in sorted(files.list_files(log.path)):
        path = log.path / name
        data = path.read_bytes()
        for place in (0, 1, 31, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
            with pytest.raises(Error) as caught:
                verify_log(log.path, POLICY)
            assert caught.value.where == name, (name, place)
        path.write_bytes(data)
    assert verify_log(log.path, POLICY).size == 526


def test_missing_files_are_named(tmp_path):
    log = make_log(tmp_path / "log", 250, 20)
    required = {"checkpoint", *(tile.path for tile in tiles.tiles_of(270))}
    for name in sorted(files.list_files(log.path)):
        path = log.path / name
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(MalformedError, match="missing") as caught:
            verify_log(log.path, POLICY)
        assert caught.value.where == name
        assert name in required
        path.write_bytes(data)


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "checkpoint.old",
        ".hidden",
        "tile/readme",
        "tile/0/000",
        "tile/0/000.p/6",
        "tile/0/001.p/1",
        "tile/1/000.p/1",
        "tile/7/000.p/1",
        "tile/entries/000",
        "tile/entries/000.p/6",
        "tile/0/x000/000.p/5",
        "tile/0/000.p/05",
        "tile/0/bad\x1bname",
        "Checkpoint",
    ],
)
def test_files_that_do_not_belong_are_named(log, name):
    path = log.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((log.path / "tile/0/000.p/5").read_bytes())
    with pytest.raises(Schema) as caught:
        verify_log(log.path, POLICY)
    assert caught.value.where == name.replace("\x1b", "\\x1b")


def test_links_and_pipes_are_refused(log):
    for make in (lambda p: p.symlink_to(log.path / "checkpoint"), os.mkfifo):
        make(log.path / "extra")
        with pytest.raises(Schema) as caught:
            verify_log(log.path, POLICY)
        assert caught.value.where == "extra"
        (log.path / "extra").unlink()
    tile = log.path / "tile/0/000.p/5"
    tile.rename(log.path.parent / "moved")
    tile.symlink_to(log.path.parent / "moved")
    with pytest.raises(Schema) as caught:
        verify_log(log.path, POLICY)
    assert caught.value.where == "tile/0/000.p/5"


def test_entries_and_tiles_changed_together_are_not_what_was_signed(tmp_path):
    log = make_log(tmp_path / "log", 3)
    other = Log.create(tmp_path / "other", LOG_KEY)
    other.append([b"entry 0", b"forged", b"entry 2"], LOG_KEY)
    shutil.rmtree(log.path / "tile")
    shutil.copytree(other.path / "tile", log.path / "tile")
    with pytest.raises(DigestMismatch) as caught:
        verify_log(log.path, POLICY)
    assert caught.value.where == "checkpoint"


def test_a_false_size_ends_at_a_missing_file(tmp_path):
    log = make_log(tmp_path / "log", 3)
    head = Checkpoint(origin=ORIGIN, size=merkle.MAX_TREE_SIZE, root=bytes(32))
    (log.path / "checkpoint").write_bytes(checkpoint.sign(head, LOG_KEY))
    with pytest.raises(MalformedError, match="missing") as caught:
        verify_log(log.path, POLICY)
    assert caught.value.where == "tile/entries/000"


def test_an_unfinished_append_is_named(tmp_path):
    log = make_log(tmp_path / "log", 3)
    old = log.checkpoint_bytes()
    log.append([b"x"], LOG_KEY)
    (log.path / "checkpoint").write_bytes(old)
    with pytest.raises(Schema, match="unfinished") as caught:
        verify_log(log.path, POLICY)
    assert caught.value.where in {"tile/0/000.p/4", "tile/entries/000.p/4"}


def test_other_logs_and_keys(log):
    with pytest.raises(UnknownKey) as caught:
        verify_log(log.path, POLICY, origin="example.com/other")
    assert caught.value.where == "checkpoint"
    signed, _ = checkpoint.parse_signed(log.checkpoint_bytes())
    other = note.sign(signed.text, key(ORIGIN, "statement"))
    (log.path / "checkpoint").write_bytes(other.to_bytes())
    with pytest.raises(UnknownKey) as caught:
        verify_log(log.path, POLICY)
    assert caught.value.where == "checkpoint"


def test_lines_of_unknown_keys_do_not_matter(log):
    signed, _ = checkpoint.parse_signed(log.checkpoint_bytes())
    extra = signed.with_signature(note.Signature(name="stranger", key_id=b"abcd", value=b"anything"))
    (log.path / "checkpoint").write_bytes(extra.to_bytes())
    assert verify_log(log.path, POLICY).checkpoint.quorum_met


def test_nothing_is_written(log):
    before = {path: path.stat().st_mtime_ns for path in log.path.parent.rglob("*")}
    verify_log(log.path, POLICY)
    assert {path: path.stat().st_mtime_ns for path in log.path.parent.rglob("*")} == before


class TestRemembered:
    def test_growth(self, tmp_path):
        log = make_log(tmp_path / "log")
        seen = [log.checkpoint_bytes()]
        for count in (1, 1, 3, 300):
            log.append([b"entry %d" % i for i in range(count)], LOG_KEY)
            seen.append(log.checkpoint_bytes())
            for remembered in seen:
                assert verify_log(log.path, POLICY, remembered=remembered).size == log.size

    def test_rollback(self, tmp_path):
        log = make_log(tmp_path / "log", 3)
        shutil.copytree(log.path, tmp_path / "old")
        log.append([b"x"], LOG_KEY)
        with pytest.raises(Rollback) as caught:
            verify_log(tmp_path / "old", POLICY, remembered=log.checkpoint_bytes())
        assert caught.value.where == "checkpoint"

    @pytest.mark.parametrize("grown", [0, 1, 4])
    def test_another_history(self, tmp_path, grown):
        remembered = make_log(tmp_path / "log", 4).checkpoint_bytes()
        other = Log.create(tmp_path / "other", LOG_KEY)
        other.append([b"rewritten %d" % i for i in range(4 + grown)], LOG_KEY)
        with pytest.raises(Consistency) as caught:
            verify_log(other.path, POLICY, remembered=remembered)
        assert caught.value.where == "checkpoint"

    def test_a_damaged_or_foreign_memory(self, log):
        foreign = key("example.com/other", "log")
        for remembered, error in (
            (b"junk", MalformedError),
            (log.checkpoint_bytes().replace(b"\n5\n", b"\n4\n"), BadSignature),
            (checkpoint.sign(Checkpoint(origin=foreign.name, size=1, root=bytes(32)), foreign), UnknownKey),
        ):
            with pytest.raises(error) as caught:
                verify_log(log.path, POLICY, remembered=remembered)
            assert caught.value.where == "remembered checkpoint"
