import os
import time

import pytest

from protocol.errors import Error, MalformedError, Schema, TooLarge
from protocol.log import files


def test_missing_files_are_none(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    fetch = files.folder_fetch(tmp_path)
    assert fetch("file", 1) == b"x"
    assert fetch("nothing", 1) is None
    assert fetch("file/below", 1) is None
    assert files.folder_fetch(tmp_path, planned={"nothing": b"new"})("nothing", 1) == b"new"


def test_only_regular_files_up_to_the_limit_are_read(tmp_path):
    (tmp_path / "big").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "big")
    os.mkfifo(tmp_path / "pipe")
    fetch = files.folder_fetch(tmp_path)
    with pytest.raises(TooLarge) as caught:
        fetch("big", 4)
    assert caught.value.where == "big"
    for name in ("folder", "link", "pipe"):
        with pytest.raises(Schema) as caught:
            fetch(name, 100)
        assert caught.value.where == name


def test_unreadable_names_are_malformed(tmp_path):
    with pytest.raises(MalformedError, match="cannot be read"):
        files.folder_fetch(tmp_path)("x" * 5000, 1)


def test_listing(tmp_path):
    for path in ("b/2", "b/1", "a", "c/d/e"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    assert sorted(files.list_files(tmp_path)) == ["a", "b/1", "b/2", "c/d/e"]
    (tmp_path / "c/d/link").symlink_to(tmp_path)
    with pytest.raises(Schema) as caught:
        list(files.list_files(tmp_path))
    assert caught.value.where == "c/d/link"
    with pytest.raises(MalformedError, match="listed"):
        list(files.list_files(tmp_path / "nowhere"))


def test_writing_replaces_whole_files_and_leaves_nothing_else(tmp_path):
    temporary = tmp_path / "temporary"
    temporary.write_bytes(b"left by a crash")
    for data in (b"one", b"two"):
        files.write_atomic(tmp_path / "a/b/file", data, temporary=temporary)
        assert (tmp_path / "a/b/file").read_bytes() == data
    assert sorted(files.list_files(tmp_path)) == ["a/b/file"]
    files.remove(tmp_path / "a/b/file")
    files.remove(tmp_path / "a/b/file")
    assert sorted(files.list_files(tmp_path)) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomic(path, b"old", temporary=tmp_path / "temporary")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomic(path, b"new", temporary=tmp_path / "temporary")
    assert path.read_bytes() == b"old"


def test_data_is_synced_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    path_type = type(tmp_path)
    sync, replace = os.fsync, path_type.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), sync(fd)))
    monkeypatch.setattr(path_type, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    files.write_atomic(tmp_path / "file", b"x", temporary=tmp_path / "temporary")
    assert events == ["sync", "rename", "sync"]


def test_systems_without_folder_descriptors(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY")
    files.write_atomic(tmp_path / "file", b"x", temporary=tmp_path / "temporary")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_locks_exclude_and_lie_beside_the_folder(tmp_path):
    folder = tmp_path / "new" / "log"
    with files.locked(folder):
        with pytest.raises(Error, match="lock") as caught, files.locked(folder, seconds=0.05):
            pass
        (tmp_path / "alias").symlink_to(tmp_path / "new")
        with pytest.raises(Error), files.locked(tmp_path / "alias" / "log", seconds=0.05):
            pass
    assert caught.value.where == str(files.beside(folder, "lock")) == str((tmp_path / "new").resolve() / "log.lock")
    with files.locked(folder):
        assert not folder.exists()


def test_the_other_writers_stop_when_one_is_refused(tmp_path, monkeypatch):
    tried = []

    def write(path, _data):
        tried.append(path)
        if path.endswith("/0"):
            raise OSError(28, "full")
        time.sleep(0.2)

    monkeypatch.setattr(files, "_WRITERS", 2)
    monkeypatch.setattr(files, "_write_durably", write)
    with pytest.raises(OSError, match="full"):
        files.write_new(tmp_path, {str(n): b"" for n in range(20)})
    assert len(tried) < 15  # three on an idle machine
