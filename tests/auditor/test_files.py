"""Reading without trust, writing whole files or none."""

import os

import pytest

from auditor.files import MARK, new_folder, read_file, write_atomic
from protocol.errors import AuditorError, MalformedError, TooLarge


def test_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_file(path, limit=5) == b"12345"
    with pytest.raises(TooLarge, match="over 4 bytes"):
        read_file(path, limit=4)
    with pytest.raises(MalformedError, match="name: cannot be read"):
        read_file(tmp_path / "none", limit=5, where="name")


def test_links_pipes_and_folders_are_not_opened(tmp_path):
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("link", "symbolic link"), ("pipe", "no plain file"), (".", "no plain file")):
        with pytest.raises(MalformedError, match=reason):
            read_file(tmp_path / name, limit=5)


def test_write_is_whole_and_private_where_it_should_be(tmp_path):
    write_atomic(tmp_path / "sub" / "a", b"1", secret=True)
    assert (tmp_path / "sub" / "a").stat().st_mode & 0o777 == 0o600
    write_atomic(tmp_path / "sub" / "a", b"2")
    assert (tmp_path / "sub" / "a").read_bytes() == b"2"
    assert os.listdir(tmp_path / "sub") == ["a"]
    (tmp_path / "dir").mkdir()
    with pytest.raises(AuditorError, match="cannot be written"):
        write_atomic(tmp_path / "dir", b"1")
    with pytest.raises(AuditorError, match="cannot be written"):
        write_atomic(tmp_path / "sub" / "a" / "b", b"1")
    assert sorted(os.listdir(tmp_path)) == ["dir", "sub"]


def test_new_folder(tmp_path):
    new_folder(tmp_path / "a" / "b", force=False)
    new_folder(tmp_path / "a" / "b", force=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AuditorError, match="is a file"):
        new_folder(tmp_path / "file", force=True)
    with pytest.raises(AuditorError, match="cannot be made"):
        new_folder(tmp_path / "file" / "x", force=False)
    (tmp_path / "a" / "mine.txt").write_bytes(b"precious")
    with pytest.raises(AuditorError, match="--force"):
        new_folder(tmp_path / "a", force=False)
    with pytest.raises(AuditorError, match="other files than a report"):
        new_folder(tmp_path / "a", force=True)
    assert (tmp_path / "a" / "mine.txt").exists()
    (tmp_path / "a" / MARK).write_bytes(b"{}")
    new_folder(tmp_path / "a", force=True)
    assert not list((tmp_path / "a").iterdir())
