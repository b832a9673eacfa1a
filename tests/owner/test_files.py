"""Files and folders are whole or not there, and failures are one readable line."""

import errno
import os
from pathlib import Path

import pytest

from owner import files
from protocol.errors import OwnerError


def test_a_file_is_whole_and_as_secret_as_asked(tmp_path):
    for secret, mode in ((True, 0o600), (False, 0o644)):
        path = tmp_path / "a" / f"{secret}"
        files.write_atomic(path, b"data", secret=secret)
        assert path.read_bytes() == b"data"
        assert path.stat().st_mode & 0o777 & ~mode == 0
        files.write_atomic(path, b"again", secret=secret)
        assert files.read_file(path) == b"again"
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OwnerError, match="No space left"):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_reading_has_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_file(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(OwnerError, match="over 4 bytes"):
        files.read_file(tmp_path / "file", limit=4)
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(OwnerError, match="cannot be read"):
            files.read_file(path)


def test_taken_places(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    files.check_free(tmp_path / "new", force=False)
    files.check_free(tmp_path / "file", force=True)
    files.check_free_folder(tmp_path / "new", force=False)
    files.check_free_folder(tmp_path / "folder", force=False)
    files.check_free_folder(tmp_path, force=True)
    for name in ("file", "link"):
        with pytest.raises(OwnerError, match="--force"):
            files.check_free(tmp_path / name, force=False)
    with pytest.raises(OwnerError, match="is a folder"):
        files.check_free(tmp_path / "folder", force=True)
    with pytest.raises(OwnerError, match="--force"):
        files.check_free_folder(tmp_path, force=False)
    with pytest.raises(OwnerError, match="is a file"):
        files.check_free_folder(tmp_path / "file", force=True)


def test_a_folder_that_cannot_be_looked_at(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(OwnerError, match="Permission denied"):
        files.check_free_folder(tmp_path, force=False)


def test_a_folder_takes_its_name_when_it_is_whole(tmp_path, monkeypatch):
    out = tmp_path / "out"
    for content in ("first", "second"):
        partial = files.begin_folder(out)
        (partial / "a").write_text(content)
        assert not out.exists() or (out / "a").read_text() == "first"
        files.finish_folder(out)
        assert (out / "a").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (files.begin_folder(out) / "b").write_text("x")
    assert list(files.begin_folder(out).iterdir()) == []
    (files.begin_folder(out) / "b").write_text("x")
    assert len(list(files.begin_folder(out, resume=True).iterdir())) == 1
    monkeypatch.chdir(out)
    assert files.partial_folder(Path()) == tmp_path / ".out.partial"


def test_a_refused_name_loses_nothing(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("first")
    (tmp_path / ".out.old").mkdir()  # a killed run's
    partial = files.begin_folder(out)
    (partial / "a").write_text("second")
    real = Path.rename

    def refuse(self, target):
        if self == partial:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refuse)
        with pytest.raises(OwnerError, match="cannot be put in place"):
            files.finish_folder(out)
    assert (out / "a").read_text() == "first"
    assert (partial / "a").read_text() == "second"
    files.finish_folder(out)
    assert (out / "a").read_text() == "second"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OwnerError, match="cannot be made"):
        files.begin_folder(tmp_path / "file" / "out")


@pytest.mark.parametrize("kept", [False, True])
def test_a_given_up_folder_goes(tmp_path, kept):
    partial = files.begin_folder(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), files.given_up(partial, unless="signed"):
        if kept:
            (partial / "signed").write_text("x")
        raise KeyboardInterrupt
    assert partial.exists() == kept
