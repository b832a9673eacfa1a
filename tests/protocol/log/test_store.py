import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.errors import BadSignature, DigestMismatch, EncodingError, Error, Inclusion, MalformedError, UnknownKey
from protocol.log import checkpoint, files, merkle, proof, tiles, tree
from protocol.log.store import Log, verify_log
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, POLICY, VECTORS, WITNESSES, key, make_log


def everything(folder):
    return {path: (folder / path).read_bytes() for path in files.list_files(folder)}


def test_a_new_log_is_the_signed_empty_tree(tmp_path):
    log = Log.create(tmp_path / "log", LOG_KEY)
    assert (log.size, log.origin) == (0, ORIGIN)
    assert everything(tmp_path / "log").keys() == {"checkpoint"}
    assert log.checkpoint().root == merkle.EMPTY_ROOT == log.root_at(0)
    assert log.leaf_hashes() == list(log.entries()) == []
    assert verify_log(tmp_path / "log", POLICY).size == 0


def test_creating_over_something_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    Log.create(tmp_path / "empty", LOG_KEY)
    (tmp_path / "file").write_bytes(b"")
    for name in ("empty", "file"):
        with pytest.raises(Error, match="exists"):
            Log.create(tmp_path / name, LOG_KEY)
    with pytest.raises(EncodingError):
        Log.create(tmp_path / "other", WITNESSES[0])
    assert not (tmp_path / "other").exists()


def test_opening_what_is_no_log(tmp_path):
    with pytest.raises(MalformedError) as caught:
        Log.open(tmp_path)
    assert caught.value.where == str(tmp_path / "checkpoint")
    (tmp_path / "checkpoint").write_bytes(b"junk")
    with pytest.raises(MalformedError) as caught:
        Log.open(tmp_path)
    assert caught.value.where == str(tmp_path / "checkpoint")


@pytest.mark.parametrize("batches", [(1,), (1, 1, 1), (255,), (256,), (257,), (3, 253, 1), (200, 400), (250, 6, 600)])
def test_any_batches_give_the_same_tree(tmp_path, batches):
    log = make_log(tmp_path / "log", *batches)
    size = sum(batches)
    entries = [b"entry %d" % i for i in range(size)]
    hashes = merkle.leaf_hashes(entries)
    assert log.size == size
    assert list(log.entries()) == entries
    assert log.leaf_hashes() == hashes
    for index in {0, size // 2, size - 1}:
        assert log.entry(index) == entries[index]
        made = log.prove_inclusion(index)
        assert list(made.hashes) == merkle.inclusion_proof(index, hashes)
        assert proof.verify(entries[index], made, POLICY, origin=ORIGIN).index == index
    for old in {1, size // 3 or 1, size}:
        assert log.root_at(old) == merkle.root_from_hashes(hashes[:old])
        assert list(log.prove_consistency(old, size)) == merkle.consistency_proof(old, hashes)
        middle = (old + size) // 2
        assert list(log.prove_consistency(old, middle)) == merkle.consistency_proof(old, hashes[:middle])
    assert verify_log(tmp_path / "log", POLICY).leaf_hashes == tuple(hashes)


def test_indices_and_the_files_of_the_format(tmp_path):
    log = Log.create(tmp_path / "log", LOG_KEY)
    assert log.append([b"a", b""], LOG_KEY) == [0, 1]
    assert log.append([], LOG_KEY) == []
    assert log.append([b"ccc"], LOG_KEY) == [2]
    found = everything(tmp_path / "log")
    assert found.keys() == {
        "checkpoint",
        "tile/0/000.p/2",
        "tile/0/000.p/3",
        "tile/entries/000.p/2",
        "tile/entries/000.p/3",
    }
    assert found["tile/entries/000.p/3"] == b"\0\1a\0\0\0\3ccc"


def test_partial_tiles_stay_until_the_full_one_is_there(tmp_path):
    log = make_log(tmp_path / "log", 255)
    assert "tile/0/000.p/255" in everything(tmp_path / "log")
    log.append([b"entry 255"], LOG_KEY)
    assert everything(tmp_path / "log").keys() == {"checkpoint", "tile/0/000", "tile/entries/000", "tile/1/000.p/1"}
    assert not (tmp_path / "log/tile/0/000.p").exists()


def test_a_tree_of_an_older_size_reads_the_full_tile(tmp_path):
    log = make_log(tmp_path / "log", 256)
    old = tree.TileTree(files.folder_fetch(log.path), 100)
    assert old.root_at(100) == merkle.root_from_hashes(log.leaf_hashes()[:100])
    assert old.entries(0) == list(log.entries())[:100]


def test_tessera_logs_read(tmp_path):
    shutil.copytree(VECTORS / "tlog-tiles-tessera/log", tmp_path / "log", copy_function=shutil.copyfile)
    for size in range(1, 10):
        _, head = checkpoint.parse_signed((tmp_path / f"log/checkpoint.{size}").read_bytes())
        read = tree.TileTree(files.folder_fetch(tmp_path / "log"), size)
        assert read.root_at(size) == head.root
        assert merkle.root_from_leaves(read.entries(0)) == head.root
        for index in range(size):
            leaf = read.hashes(0, 0)[index]
            merkle.verify_inclusion(leaf, index, size, read.inclusion(index), head.root)


def test_our_logs_have_tessera_s_files(tmp_path):
    theirs = everything(VECTORS / "tlog-tiles-tessera/log")
    entries = tree.TileTree(files.folder_fetch(VECTORS / "tlog-tiles-tessera/log"), 9).entries(0)
    log = Log.create(tmp_path / "log", LOG_KEY)
    for entry in entries:
        log.append([entry], LOG_KEY)
    ours = everything(tmp_path / "log")
    assert {path: data for path, data in ours.items() if path != "checkpoint"} == {
        path: data for path, data in theirs.items() if path.startswith("tile/")
    }


def test_entries_that_are_too_long(tmp_path):
    log = Log.create(tmp_path / "log", LOG_KEY)
    with pytest.raises(EncodingError, match="65536"):
        log.append([b"fine", bytes(tiles.MAX_ENTRY + 1)], LOG_KEY)
    assert log.size == 0
    assert log.append([bytes(tiles.MAX_ENTRY)], LOG_KEY) == [0]


def test_long_entries_are_refused_before_anything_is_locked(tmp_path):
    log = Log.create(tmp_path / "log", LOG_KEY)
    with files.locked(log.path), pytest.raises(EncodingError):
        log.append([bytes(tiles.MAX_ENTRY + 1)], LOG_KEY)


def test_what_is_not_there(tmp_path):
    log = make_log(tmp_path / "log", 3)
    for ask in (
        lambda: log.entry(3),
        lambda: log.entry(-1),
        lambda: log.root_at(4),
        lambda: log.root_at(-1),
        lambda: log.prove_inclusion(3),
        lambda: log.prove_consistency(1, 4),
        lambda: log.prove_consistency(0, 3),
        lambda: log.prove_consistency(3, 2),
    ):
        with pytest.raises(EncodingError):
            ask()


def test_only_the_log_s_key_appends(tmp_path):
    log = make_log(tmp_path / "log", 3)
    before = everything(tmp_path / "log")
    with pytest.raises(UnknownKey):
        log.append([b"x"], key("example.com/other", "log"))
    with pytest.raises(UnknownKey):
        log.append([b"x"], key(ORIGIN, "statement"))
    with pytest.raises(EncodingError):
        log.append([b"x"], WITNESSES[0])
    text = before["checkpoint"].replace(b"\n3\n", b"\n2\n")
    (tmp_path / "log/checkpoint").write_bytes(text)
    with pytest.raises(BadSignature):
        log.append([b"x"], LOG_KEY)


@pytest.mark.parametrize("path", ["tile/0/001.p/4", "tile/1/000.p/1", "tile/entries/001.p/4"])
@pytest.mark.parametrize("change", [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:-1], None])
def test_a_damaged_right_edge_is_never_signed(tmp_path, path, change):
    log = make_log(tmp_path / "log", 260)
    if change is None:
        (log.path / path).unlink()
    else:
        (log.path / path).write_bytes(change((log.path / path).read_bytes()))
    before = everything(log.path)
    with pytest.raises((DigestMismatch, MalformedError)):
        log.append([b"x"], LOG_KEY)
    assert everything(log.path) == before


def test_a_damaged_tile_gives_no_proof(tmp_path):
    log = make_log(tmp_path / "log", 5)
    path = log.path / "tile/0/000.p/5"
    data = path.read_bytes()
    for place in (0, 40, 159):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(Inclusion):
            log.prove_inclusion(1)
    with pytest.raises(DigestMismatch) as caught:
        log.entry(0)
    assert caught.value.where == "tile/entries/000.p/5"


def test_opening_reads_few_files(tmp_path):
    log = make_log(tmp_path / "log", 256 * 9 + 3)
    read = []
    fetch = files.folder_fetch(log.path)

    def counting(path, limit):
        read.append(path)
        return fetch(path, limit)

    seen = tree.TileTree(counting, log.size)
    assert seen.root_at(log.size) == log.checkpoint().root
    seen.inclusion(5)
    assert sorted(read) == ["tile/0/000", "tile/0/009.p/3", "tile/1/000.p/9"]


class Crash(Exception):
    pass


def dying(action, left):
    """`action`, until `left[0]` calls have been made by all that share `left`; then a crash."""

    def stepped(*args, **kwargs):
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        action(*args, **kwargs)

    return stepped


@pytest.mark.parametrize(("before", "added"), [(0, 1), (3, 2), (254, 1), (254, 2), (254, 700), (512, 1)])
def test_a_crash_at_any_write_leaves_the_old_or_the_new_log(tmp_path, monkeypatch, before, added):
    make_log(tmp_path / "original", *([before] if before else []))
    write, remove, rmtree, durably = files.write_atomic, files.remove, shutil.rmtree, files._write_durably
    for fatal in range(100):
        folder = tmp_path / f"log{fatal}"
        shutil.copytree(tmp_path / "original", folder)
        left = [fatal]
        log = Log.open(folder)
        new = [b"entry %d" % i for i in range(before, before + added)]
        with monkeypatch.context() as patch:
            patch.setattr(files, "_WRITERS", 1)
            patch.setattr(files, "_write_durably", dying(durably, left))
            patch.setattr(files, "write_atomic", dying(write, left))
            patch.setattr(files, "remove", dying(remove, left))
            patch.setattr("protocol.log.store.shutil.rmtree", dying(rmtree, left))
            try:
                log.append(new, LOG_KEY)
            except Crash:
                crashed = True
            else:
                crashed = False
        assert log.size in ((before, before + added) if crashed else (before + added,))
        for index in range(log.size):
            if index % 50 == 0:
                log.prove_inclusion(index)
        # The next writer continues, whatever was left, with other entries than the lost ones.
        survived = list(log.entries())
        log.append([b"after"], LOG_KEY)
        assert list(log.entries()) == [*survived, b"after"]
        assert verify_log(folder, POLICY).size == len(survived) + 1
        assert not files.beside(folder, "pending").exists()
        if not crashed:
            break
    else:
        pytest.fail("never ran to the end")
    assert fatal > 3


def test_recovery_keeps_what_is_not_a_tile(tmp_path):
    log = make_log(tmp_path / "log", 3)
    (log.path / "mine.txt").write_bytes(b"x")
    files.beside(log.path, "pending").write_bytes(b"")
    log.append([b"x"], LOG_KEY)
    assert (log.path / "mine.txt").exists()


APPENDER = """
import sys
from pathlib import Path
from protocol.log.store import Log
from tests.protocol.log.helpers import LOG_KEY
log = Log.open(Path(sys.argv[1]))
for i in range(40):
    print(*log.append([f"{sys.argv[2]} {i} {j}".encode() for j in range(1 + i % 3)], LOG_KEY))
"""


def test_two_processes_append_at_once(tmp_path):
    log = Log.create(tmp_path / "log", LOG_KEY)
    root = Path(__file__).resolve().parents[3]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(log.path), name], stdout=subprocess.PIPE, cwd=root, text=True
        )
        for name in ("one", "two")
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    entries = list(log.entries())
    assert len(entries) == log.size == 2 * sum(1 + i % 3 for i in range(40))
    for name, output in zip(("one", "two"), outputs, strict=True):
        places = [int(word) for word in output.split()]
        expected = [f"{name} {i} {j}".encode() for i in range(40) for j in range(1 + i % 3)]
        assert [entries[place] for place in places] == expected
    assert verify_log(log.path, POLICY).size == log.size


class LogMachine(RuleBasedStateMachine):
    """Any sequence of appends and crashes: what is published is always a prefix of what comes later."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.log = Log.create(Path(self.folder) / "log", LOG_KEY)
        self.entries = []
        self.seen = [self.log.checkpoint_bytes()]

    def teardown(self):
        shutil.rmtree(self.folder)

    @rule(batch=st.lists(st.binary(max_size=5), max_size=4))
    def append(self, batch):
        assert self.log.append(batch, LOG_KEY) == list(range(len(self.entries), len(self.entries) + len(batch)))
        self.entries += batch
        self.seen.append(self.log.checkpoint_bytes())

    @rule(count=st.integers(200, 300))
    def append_many(self, count):
        self.append([b"many %d" % i for i in range(count)])

    @rule(steps=st.integers(0, 4), batch=st.lists(st.binary(max_size=5), min_size=1, max_size=4))
    def crash(self, steps, batch):
        write = files.write_atomic
        files.write_atomic = dying(write, [steps])
        try:
            self.log.append(batch, LOG_KEY)
        except Crash:
            pass
        finally:
            files.write_atomic = write
        if self.log.size != len(self.entries):
            self.entries += batch

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def prove(self, data):
        index = data.draw(st.integers(0, len(self.entries) - 1))
        assert proof.verify(self.entries[index], self.log.prove_inclusion(index), POLICY).index == index

    @rule(data=st.data())
    def everything_seen_before_is_a_prefix(self, data):
        _, old = checkpoint.parse_signed(data.draw(st.sampled_from(self.seen)))
        assert self.log.root_at(old.size) == old.root

    @invariant()
    def published_is_the_model(self):
        assert self.log.checkpoint().root == merkle.root_from_leaves(self.entries)


LogMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestLogMachine = LogMachine.TestCase
