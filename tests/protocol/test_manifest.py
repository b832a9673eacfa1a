import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import manifest
from protocol.canonical import to_bytes
from protocol.digests import sha256_hex
from protocol.errors import DigestMismatch, MalformedError, NonCanonical, Schema, TooLarge, UnsupportedVersion
from protocol.manifest import MAX_FILES, Entry
from tests.protocol.samples import hexes, mutated

paths = st.lists(
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,6}(\.[a-z]{1,3})?", fullmatch=True), min_size=1, max_size=4
)
entries = st.builds(
    lambda parts, role, size, sha256: {"path": "/".join(parts), "role": role, "size": size, "sha256": sha256},
    paths,
    st.text(st.characters(codec="ascii"), max_size=5),
    st.integers(0, 1 << 40),
    hexes,
)


def written(files, **changes):
    return to_bytes({"version": manifest.VERSION, "refers": "", "files": files, **changes})


def one(path="a", **changes):
    return {"path": path, "role": "r", "size": 0, "sha256": sha256_hex(b""), **changes}


SAMPLE = written([one("a"), one("b/c.json")], refers="ab" * 32)


def clash(files):
    """Slow reference: two files or folders whose paths differ only in case, or a file where a folder is."""
    places = {}
    for file in files:
        parts = file["path"].split("/")
        for end in range(1, len(parts) + 1):
            kind = "file" if end == len(parts) else "folder"
            places.setdefault("/".join(parts[:end]).lower(), set()).add(("/".join(parts[:end]), kind))
    return any(len(found) > 1 for found in places.values())


@given(st.lists(entries, max_size=4, unique_by=lambda e: e["path"]))
def test_round_trip(files):
    files.sort(key=lambda file: file["path"])
    data = written(files)
    if clash(files) or any(manifest._RESERVED.fullmatch(p) for f in files for p in f["path"].split("/")):
        with pytest.raises(Schema):
            manifest.parse(data)
        return
    found = manifest.parse(data)
    assert found.raw == data
    assert found.entries == tuple(Entry(**file) for file in files)
    assert written([{k: getattr(e, k) for k in Entry.__slots__} for e in found.entries], refers=found.refers) == data


@given(mutated(SAMPLE) | st.binary(max_size=30))
def test_any_mutation_is_a_manifest_or_malformed(data):
    try:
        found = manifest.parse(data)
    except MalformedError:
        return
    assert found.raw == data
    for entry in found.entries:
        manifest.check_path(entry.path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../a",
        "a/../b",
        ".",
        "./a",
        "a/.",
        ".hidden",
        "a//b",
        "a/",
        "a\\b",
        "C:a",
        "a:b",
        "a ",
        "a.",
        "a./b",
        "-rf",
        "~",
        "a\0",
        "a\n",
        "ä",
        "a\u202eb",
        "\ud800",
        "con",
        "NUL.txt",
        "a/Com1",
        "lpt9.tar.gz",
        "a/b/c/d/e",
        "a" * 122,
    ],
)
def test_hostile_paths(path):
    with pytest.raises(Schema) as caught:
        manifest.check_path(path)
    assert caught.value.where == "manifest.json"
    with pytest.raises(MalformedError):
        manifest.parse(json.dumps({"version": manifest.VERSION, "refers": "", "files": [one(path)]}).encode())
    if "\ud800" not in path:
        with pytest.raises(Schema) as caught:
            manifest.parse(written([one(path)]), where="mine")
        assert caught.value.where == "mine.files[0]"


@pytest.mark.parametrize("path", ["a", "a/b/c/d", "a.b.c", "a..b", "A_-9.x", "console", "com", "com10", "_", "a" * 121])
def test_good_paths(path):
    manifest.check_path(path)


@pytest.mark.parametrize(
    "names",
    [["b", "a"], ["a", "a"], ["A", "a"], ["A/x", "a/y"], ["a", "a/b"], ["A", "a/b"], ["A/b", "a"], ["a/B/x", "a/b/y"]],
)
def test_clashing_files(names):
    with pytest.raises(Schema):
        manifest.parse(written([one(name) for name in names]))


@pytest.mark.parametrize(
    "file",
    [
        one(size=-1),
        one(size=(1 << 40) + 1),
        one(size=True),
        one(sha256="AB" * 32),
        one(role=None),
        one(path=["a"]),
        one(more=1),
        {"path": "a"},
        [],
        None,
    ],
)
def test_hostile_entries(file):
    with pytest.raises(Schema):
        manifest.parse(written([file]))


def test_refused_as_a_whole():
    with pytest.raises(UnsupportedVersion):
        manifest.parse(written([], version="prune-audit/manifest/v2"))
    with pytest.raises(NonCanonical):
        manifest.parse(SAMPLE + b"\n")
    with pytest.raises(TooLarge):
        manifest.parse(written([one(f"f{n:05}") for n in range(MAX_FILES + 1)]))
    with pytest.raises(TooLarge):
        manifest.parse(b" " * (manifest.MAX_MANIFEST + 1))
    assert len(manifest.parse(written([one(f"f{n:05}") for n in range(MAX_FILES)])).entries) == MAX_FILES


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.json").write_bytes(b"{}")
    (folder / "sub" / "b.bin").write_bytes(b"\0\1\2")
    return folder, manifest.build(folder, [("sub/b.bin", "data"), ("a.json", "text")], refers="x")


def test_build_and_read(bundle):
    folder, listing = bundle
    assert listing == manifest.parse(listing.raw)
    assert listing.paths("data") == ("sub/b.bin",)
    assert listing.paths("none") == ()
    assert manifest.read_listed(folder, listing.entry("a.json"), limit=2) == b"{}"
    assert manifest.read_listed(folder, listing.entry("sub/b.bin"), limit=3) == b"\0\1\2"
    manifest.verify_only_listed(folder, listing, others=())
    with pytest.raises(Schema) as caught:
        listing.entry("c")
    assert caught.value.where == "c"


def refuse(folder, entry, error=DigestMismatch, limit=100):
    with pytest.raises(error) as caught:
        manifest.read_listed(folder, entry, limit=limit)
    assert caught.value.where == entry.path


def test_files_that_differ(bundle):
    folder, listing = bundle
    entry = listing.entry("a.json")
    refuse(folder, entry, TooLarge, limit=1)
    for content in (b"[]", b"{", b"{} ", b""):
        (folder / "a.json").write_bytes(content)
        refuse(folder, entry)
    (folder / "a.json").unlink()
    refuse(folder, entry)
    (folder / "a.json").mkdir()
    refuse(folder, entry)
    (folder / "a.json").rmdir()
    os.mkfifo(folder / "a.json")
    refuse(folder, entry)  # and does not wait for somebody to write into it


def test_links_are_not_followed(bundle, tmp_path):
    folder, listing = bundle
    (folder / "a.json").rename(tmp_path / "outside")
    (folder / "a.json").symlink_to(tmp_path / "outside")
    refuse(folder, listing.entry("a.json"))
    (folder / "sub").rename(tmp_path / "elsewhere")
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    refuse(folder, listing.entry("sub/b.bin"))
    with pytest.raises(MalformedError) as caught:
        manifest.verify_only_listed(folder, listing, others=("a.json", "sub"))
    assert caught.value.where in ("a.json", "sub")


def test_unreadable_files(bundle, monkeypatch):
    folder, listing = bundle
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda _: open("/proc/self/mem/none", "rb"))  # noqa: PTH123, SIM115
    refuse(folder, listing.entry("a.json"))


def test_a_file_that_says_it_is_huge_is_not_read(bundle):
    folder, _ = bundle
    entry = Entry(path="a.json", role="text", size=1 << 40, sha256=sha256_hex(b"{}"))
    refuse(folder, entry, limit=1 << 41)


def test_only_listed(bundle, tmp_path):
    folder, listing = bundle
    (folder / "proofs").mkdir()
    (folder / "proofs" / "x").write_bytes(b"")
    (folder / "manifest.json").write_bytes(b"")
    manifest.verify_only_listed(folder, listing, others=("manifest.json", "proofs/"))
    for others in (("manifest.json",), ("proofs/",), ("manifest.json", "proof"), ("manifest.json", "proofs")):
        with pytest.raises(MalformedError):
            manifest.verify_only_listed(folder, listing, others=others)
    (folder / "manifest.json").rename(folder / "sub" / "manifest.json")
    with pytest.raises(MalformedError) as caught:
        manifest.verify_only_listed(folder, listing, others=("manifest.json", "proofs/"))
    assert caught.value.where == "sub/manifest.json"
    with pytest.raises(MalformedError):
        manifest.verify_only_listed(tmp_path / "none", listing, others=())


def test_special_files_are_refused(bundle):
    folder, listing = bundle
    (folder / "a.json").unlink()
    os.mkfifo(folder / "a.json")
    with pytest.raises(MalformedError) as caught:
        manifest.verify_only_listed(folder, listing, others=())
    assert caught.value.where == "a.json"


def test_hostile_names_on_disk(bundle):
    folder, listing = bundle
    (folder / os.fsdecode(b"\xff\x1b[2J\n")).write_bytes(b"")
    with pytest.raises(MalformedError) as caught:
        manifest.verify_only_listed(folder, listing, others=())
    assert str(caught.value).isprintable()


def test_too_many_files(bundle, monkeypatch):
    folder, listing = bundle
    monkeypatch.setattr(manifest, "MAX_FOLDER", 3)
    manifest.verify_only_listed(folder, listing, others=())
    (folder / "sub" / "c").mkdir()
    with pytest.raises(TooLarge):
        manifest.verify_only_listed(folder, listing, others=())
