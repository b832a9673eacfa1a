"""What is left of a log whose writer was killed, whose disk filled up, or whose machine lost power."""

import contextlib
import errno
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import Error
from protocol.log import checkpoint, files, tiles
from protocol.log.store import Log, verify_log
from protocol.log.witness import Memory, cosign
from tests.protocol.log.helpers import LOG_KEY, ORIGIN, POLICY, WITNESSES, make_log

ROOT = Path(__file__).resolve().parents[3]


def everything(folder):
    return {name: (folder / name).read_bytes() for name in files.list_files(folder)}


def kill_at_random(folder, kills, seed):
    command = [sys.executable, "-m", "tests.protocol.log.crash_loop", str(folder), str(kills), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60 + 2 * kills)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    print(figures)
    assert figures["kills"] == kills
    # The kills did fall into the midst of the work, and work did get done.
    assert figures["left unfinished"] > 0
    assert figures["lost unacknowledged"] > 0 < figures["acknowledged"]
    return figures


def test_nothing_acknowledged_is_lost_in_twenty_kills(tmp_path):
    # The study kills 1,000 times (`make crash`); its figures are in tests/benchmarks/RESULTS.md.
    kill_at_random(tmp_path, 20, 1)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_in_a_thousand_kills(tmp_path):
    figures = kill_at_random(tmp_path, 1000, 2)
    assert min(figures["cosigned"], figures["published"]) > 50


FILL = """
import resource, sys
from pathlib import Path
from protocol.errors import Error
from protocol.log.store import Log
from protocol.log.witness import cosign
from tests.protocol.log.helpers import LOG_KEY, WITNESSES
log = Log.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    log.append([b"x" * 60_000], LOG_KEY)
except Error as error:
    print("refused:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    cosign(log.path, WITNESSES[0], Path(sys.argv[2]), 5, log_key=LOG_KEY.verifier)
except Error as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files here")
def test_a_disk_that_takes_no_more_at_the_kernel_s_word(tmp_path):
    """The same as above without a patch: the kernel refuses the write (RLIMIT_FSIZE), append and cosigning give up."""
    log = make_log(tmp_path / "log", 3)
    before = everything(log.path)
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(log.path), str(tmp_path / "state")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused:") == 2, done.stdout
    assert "cannot be written" in done.stdout
    assert everything(log.path) == before
    # Nothing was signed that is not remembered, and nobody has to put anything in order.
    assert b"witness" not in log.checkpoint_bytes()
    log.append([b"x" * 60_000], LOG_KEY)
    cosign(log.path, WITNESSES[0], tmp_path / "state", 5, log_key=LOG_KEY.verifier)
    assert verify_log(log.path, POLICY).size == 4


class PowerLoss(Exception):
    pass


def losing_power(monkeypatch, at, chance, log):
    """At the `at`-th wait for the disk, power is lost: what was not yet waited for is gone, torn or there."""
    sync, write = os.fsync, files._write_durably
    left, created, before = [at], [], log.checkpoint_bytes()

    def recorded(path, data):
        created.append(Path(path))
        write(path, data)

    def fsync(descriptor):
        if left[0] > 0:
            left[0] -= 1
            sync(descriptor)
            return
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.ftruncate(descriptor, chance.randrange(os.fstat(descriptor).st_size + 1))
        else:
            folder = Path(f"/proc/self/fd/{descriptor}").readlink()
            for path in created:
                # Names in a folder that was not synced may be lost; so may the rename of the checkpoint.
                if path.parent == folder and path.is_file() and chance.random() < 0.5:
                    path.unlink()
            if folder == log.path and chance.random() < 0.5:
                (log.path / "checkpoint").write_bytes(before)
        raise PowerLoss

    monkeypatch.setattr(files, "_WRITERS", 1)
    monkeypatch.setattr(files, "_write_durably", recorded)
    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to know which folder is synced")
@pytest.mark.parametrize(("before", "added"), [(0, 1), (3, 2), (254, 1), (254, 300)])
def test_torn_and_missing_files_after_a_loss_of_power(tmp_path, monkeypatch, before, added):
    make_log(tmp_path / "original", *([before] if before else []))
    entries = [b"entry %d" % i for i in range(before + added)]
    chance = random.Random(before * 1000 + added)
    torn = 0
    for at in range(60):
        folder = tmp_path / f"log{at}"
        shutil.copytree(tmp_path / "original", folder)
        log = Log.open(folder)
        with monkeypatch.context() as patch:
            losing_power(patch, at, chance, log)
            try:
                log.append(entries[before:], LOG_KEY)
                lost = False
            except PowerLoss:
                lost = True
        assert log.size in ((before, before + added) if lost else (before + added,))
        survived = log.size
        assert list(log.entries()) == entries[:survived]
        torn += len(everything(folder)) > len(everything(tmp_path / "original")) and survived == before
        # Whoever writes next, appender or witness, puts it in order.
        if at % 2:
            log.append([b"after"], LOG_KEY)
            assert list(log.entries()) == [*entries[:survived], b"after"]
        else:
            cosign(folder, WITNESSES[0], tmp_path / f"state{at}", 5, log_key=LOG_KEY.verifier)
        assert verify_log(folder, POLICY).size == log.size
        if not lost:
            break
    else:
        pytest.fail("never ran to the end")
    assert torn > 0


def failing(real, at, number=errno.ENOSPC):
    left = [at]

    def action(*args, **kwargs):
        if left[0] == 0:
            raise OSError(number, os.strerror(number))
        left[0] -= 1
        return real(*args, **kwargs)

    return action


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("what", ["fsync", "open"])
def test_a_full_disk_at_any_write_leaves_the_log_as_it_was(tmp_path, monkeypatch, what, number):
    monkeypatch.setattr(files, "_WRITERS", 1)
    log = make_log(tmp_path / "log", 254)
    opened, sync = os.open, os.fsync
    for at in range(60):
        before = everything(log.path)
        size = log.size
        with monkeypatch.context() as patch:
            if what == "fsync":
                patch.setattr(os, "fsync", failing(sync, at, number))
            else:
                fails = failing(opened, at, number)
                patch.setattr(
                    os, "open", lambda p, flags, *m, f=fails: (f if flags & os.O_EXCL else opened)(p, flags, *m)
                )
            try:
                log.append([b"x", b"y", b"z"], LOG_KEY)
                failed = False
            except Error as error:
                failed = True
                assert not isinstance(error, OSError)
                assert os.strerror(number) in error.message
                assert error.where.startswith(str(tmp_path))
        if not failed:
            break
        if log.size == size:
            # A failing disk may not let go of what is beyond the published tree; a full one does.
            if what == "open":
                assert everything(log.path) == before
                assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.lock"]
        else:
            assert log.size == size + 3  # only the very last wait failed
        log.append([b"next"], LOG_KEY)
        assert verify_log(log.path, POLICY).size == log.size
    else:
        pytest.fail("never ran to the end")
    assert at > 3


def test_a_witness_on_a_full_disk_signs_nothing_it_does_not_remember(tmp_path, monkeypatch):
    log = make_log(tmp_path / "log", 3)
    state, sync = tmp_path / "state", os.fsync
    for at in range(30):
        before = log.checkpoint_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(sync, at))
            try:
                cosign(log.path, WITNESSES[0], state, 100 + at, log_key=LOG_KEY.verifier)
                break
            except Error as error:
                assert os.strerror(errno.ENOSPC) in error.message
        cosigned = POLICY.verify_checkpoint(log.checkpoint_bytes()).cosigned
        assert log.checkpoint_bytes() == before or cosigned == {"w0": 100 + at}
        remembered = Memory(folder=state).remembered(ORIGIN)
        assert not cosigned or remembered is not None
    assert 2 < at < 29
    assert checkpoint.parse_signed(Memory(folder=state).remembered(ORIGIN))[1] == log.checkpoint()


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (that takes the administrator)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def test_a_disk_that_is_really_full(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        log = Log.create(disk / "log", LOG_KEY)
        acknowledged = []
        with pytest.raises(Error, match=os.strerror(errno.ENOSPC)) as caught:
            for number in range(1000):
                before = everything(log.path)
                batch = [b"%d %d" % (number, i) + bytes(3000) for i in range(7)]
                log.append(batch, LOG_KEY)
                acknowledged += batch
        assert caught.value.where.startswith(str(disk))
        assert number > 2
        assert everything(log.path) == before
        assert list(log.entries()) == acknowledged
        assert verify_log(log.path, POLICY).size == len(acknowledged)
        assert sorted(path.name for path in disk.iterdir()) == ["log", "log.lock"]
        # Smaller ones still fit; and nobody has to clean up before a larger disk goes on.
        with contextlib.suppress(Error):
            cosign(log.path, WITNESSES[0], tmp_path / "state", 5, log_key=LOG_KEY.verifier)
        assert verify_log(log.path, POLICY).size == len(acknowledged)
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True, capture_output=True)
        log.append([b"more"], LOG_KEY)
        assert list(log.entries()) == [*acknowledged, b"more"]
        assert verify_log(log.path, POLICY).size == len(acknowledged) + 1


def test_creating_on_a_full_disk(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync, 1))
        with pytest.raises(Error, match=os.strerror(errno.ENOSPC)):
            Log.create(tmp_path / "log", LOG_KEY)
    assert Log.create(tmp_path / "log", LOG_KEY).size == 0


def test_what_lies_where_a_tile_will_be_is_replaced_not_written_through(tmp_path):
    log = make_log(tmp_path / "log", 3)
    (tmp_path / "precious").write_bytes(b"precious")
    path = log.path / tiles.Tile(level=0, index=0, width=4).path
    path.symlink_to(tmp_path / "precious")
    log.append([b"x"], LOG_KEY)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert verify_log(log.path, POLICY).size == 4


def test_an_older_checkpoint_put_back_after_a_crash_removes_nothing(tmp_path):
    # Found by the state machine: recovery took the tiles of acknowledged entries for leftovers.
    log = make_log(tmp_path / "log", 2)
    old = log.checkpoint_bytes()
    log.append([b"acknowledged"], LOG_KEY)
    newest = log.checkpoint_bytes()
    files.beside(log.path, "pending").write_bytes(b"3 5\n")
    (log.path / "checkpoint").write_bytes(old)
    before = everything(log.path)
    for action in (
        lambda: log.append([b"x"], LOG_KEY),
        lambda: cosign(log.path, WITNESSES[0], tmp_path / "state", 5, log_key=LOG_KEY.verifier),
    ):
        with pytest.raises(Error, match="older one") as caught:
            action()
        assert caught.value.where == str(log.path / "checkpoint")
        assert everything(log.path) == before
    (log.path / "checkpoint").write_bytes(newest)
    assert log.append([b"x"], LOG_KEY) == [3]
    assert verify_log(log.path, POLICY).size == 4


def test_a_smaller_checkpoint_that_is_not_the_log_s_removes_nothing(tmp_path):
    # Recovery believes the published size only under the log's signature.
    log = make_log(tmp_path / "log", 5)
    files.beside(log.path, "pending").write_bytes(b"")
    (log.path / "checkpoint").write_bytes(log.checkpoint_bytes().replace(b"\n5\n", b"\n2\n"))
    before = everything(log.path)
    for action in (
        lambda: log.append([b"x"], LOG_KEY),
        lambda: cosign(log.path, WITNESSES[0], tmp_path / "state", 5, log_key=LOG_KEY.verifier),
    ):
        with pytest.raises(Error):
            action()
        assert everything(log.path) == before
