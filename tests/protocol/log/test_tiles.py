import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema
from protocol.log import tiles
from protocol.log.merkle import MAX_TREE_SIZE
from protocol.log.tiles import Tile

levels = st.one_of(st.none(), st.integers(0, tiles.MAX_LEVEL))
tile_values = st.builds(Tile, level=levels, index=st.integers(0, MAX_TREE_SIZE >> 8), width=st.integers(1, tiles.WIDTH))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(level=0, index=0, width=256), "tile/0/000"),
        (Tile(level=0, index=1234067, width=256), "tile/0/x001/x234/067"),
        (Tile(level=1, index=999, width=7), "tile/1/999.p/7"),
        (Tile(level=2, index=1000, width=255), "tile/2/x001/000.p/255"),
        (Tile(level=None, index=273, width=112), "tile/entries/273.p/112"),
    ],
)
def test_paths_of_the_specification(tile, path):
    assert tile.path == path
    assert tiles.parse_path(path) == tile


@given(tile_values)
def test_paths_read_back(tile):
    assert tiles.parse_path(tile.path) == tile
    assert tile.full.width == 256
    assert tile.full.index == tile.index


@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(r"tile/([0-9]{1,2}|entries)/(x[0-9]{3}/){0,8}[0-9]{2,4}(\.p/[0-9]{1,4})?", fullmatch=True),
    )
)
def test_any_text_is_a_path_in_its_one_spelling_or_malformed(text):
    try:
        tile = tiles.parse_path(text)
    except MalformedError:
        return
    assert tile.path == text


@pytest.mark.parametrize(
    "path",
    [
        "",
        "checkpoint",
        "tile/0",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/8/000",
        "tile/10/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/257",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/001/234",
        "tile/0/X001/234",
        "tile/0/x001/x234",
        "tile/0/000\n",
        "/tile/0/000",
        "tile//0/000",
        "tile/0/../000",
        "tile\\0\\000",
        "tile/0/٠٠٠",
        "tile/Entries/000",
        "tile/0/x999/x999/x999/x999/x999/999",
        "tile/0/" + "x001/" * 50 + "001",
    ],
)
def test_malformed_paths(path):
    with pytest.raises(Schema):
        tiles.parse_path(path)


@pytest.mark.parametrize("path", ["tile/0/x000/000", "tile/0/x000/x001/000", "tile/0/000.p/256"])
def test_second_spellings_of_paths(path):
    with pytest.raises(NonCanonical):
        tiles.parse_path(path)


def test_tiles_of_the_specification_s_tree_of_70000():
    found = list(tiles.tiles_of(70_000))
    by_level = {level: [tile for tile in found if tile.level == level] for level in (None, 0, 1, 2, 3)}
    assert [len(by_level[level]) for level in by_level] == [274, 274, 2, 1, 0]
    assert [by_level[level][-1].width for level in (None, 0, 1, 2)] == [112, 112, 17, 1]
    assert [tile.path for tile in tiles.tiles_of(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert list(tiles.tiles_of(0)) == []


@pytest.mark.parametrize(("level", "index", "size"), [(0, 0, 0), (0, 1, 256), (1, 0, 255), (None, 3, 768), (0, -1, 5)])
def test_tiles_that_a_tree_does_not_have(level, index, size):
    with pytest.raises(EncodingError):
        tiles.tile_at(level, index, size)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=20))
def test_bundles_read_back(entries):
    bundle = Tile(level=None, index=0, width=len(entries))
    data = tiles.join_entries(entries)
    assert tiles.split_entries(data, bundle) == entries
    assert len(data) <= bundle.max_bytes
    for changed in (data + b"\0", data[:-1]):
        with pytest.raises(Schema) as caught:
            tiles.split_entries(changed, bundle)
        assert caught.value.where == f"tile/entries/000.p/{len(entries)}"


@given(st.binary(max_size=60), st.integers(1, 5))
def test_any_bytes_are_a_bundle_or_malformed(data, width):
    try:
        entries = tiles.split_entries(data, Tile(level=None, index=0, width=width))
    except MalformedError:
        return
    assert tiles.join_entries(entries) == data


def test_the_longest_entry():
    longest = bytes(tiles.MAX_ENTRY)
    bundle = Tile(level=None, index=0, width=1)
    assert tiles.split_entries(tiles.join_entries([longest]), bundle) == [longest]
    with pytest.raises(EncodingError, match="65535"):
        tiles.join_entries([longest + b"\0"])


def test_hash_tiles():
    tile = Tile(level=3, index=0, width=2)
    assert tiles.split_hashes(bytes(32) + b"\1" * 32, tile) == [bytes(32), b"\1" * 32]
    assert tile.max_bytes == 64
    for data in (b"", bytes(63), bytes(65)):
        with pytest.raises(Schema) as caught:
            tiles.split_hashes(data, tile)
        assert caught.value.where == tile.path
