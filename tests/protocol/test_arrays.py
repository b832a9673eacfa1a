import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protocol import arrays
from protocol.arrays import Expected, read_npz, write_npz
from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge
from tests.protocol.samples import mutated

KINDS = sorted(arrays._TYPES)
ANY = {"a": Expected(kinds=tuple(KINDS), dimensions=1)}
SAMPLE = {"a": np.arange(40, dtype=np.int32), "b": np.zeros((2, 3), dtype=np.float32), "c": np.array(7, dtype=np.int64)}
SAMPLE_EXPECTED = {name: Expected(kinds=(a.dtype.str,), dimensions=a.ndim) for name, a in SAMPLE.items()}
FILE = write_npz(SAMPLE)


@st.composite
def any_array(draw):
    kind = draw(st.sampled_from(KINDS))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    elements = {"allow_nan": False, "allow_infinity": False} if "f" in kind else None
    return draw(hnp.arrays(np.dtype(kind), shape, elements=elements))


def expected_of(values):
    return {name: Expected(kinds=(a.dtype.str,), dimensions=a.ndim) for name, a in values.items()}


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9_]{1,10}", fullmatch=True), any_array(), max_size=3))
def test_round_trip_and_numpy_agrees(values):
    data = write_npz(values)
    assert write_npz(dict(reversed(values.items()))) == data
    found = read_npz(data, expected_of(values))
    assert list(found) == sorted(values)
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        for name, array in values.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)
            assert not found[name].flags.writeable
            assert np.array_equal(archive[name], array)
            assert archive[name].dtype == array.dtype


@given(any_array())
def test_header_is_numpys(array):
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
    assert content.getvalue() == arrays._header(array.dtype.str, array.shape) + array.tobytes()


def test_container_is_zipfiles():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, array in SAMPLE.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type, info.create_system = zipfile.ZIP_DEFLATED, 3
            archive.writestr(info, arrays._header(array.dtype.str, array.shape) + array.tobytes())
    assert buffer.getvalue() == FILE
    with zipfile.ZipFile(io.BytesIO(FILE)) as archive:
        assert archive.testzip() is None


def test_column_order_and_strides_are_written_in_row_order():
    array = np.arange(24, dtype=np.int32).reshape(4, 6)
    for view in (np.asfortranarray(array), array[::-1][::-1], array[:, ::2]):
        assert np.array_equal(read_npz(write_npz({"a": view}), expected_of({"a": view}))["a"], view)


@given(mutated(FILE))
def test_any_mutation_is_malformed_or_the_same_arrays(data):
    # Only the deflate stream has second spellings, and a checksum stands over what it unpacks to.
    try:
        found = read_npz(data, SAMPLE_EXPECTED)
    except MalformedError:
        return
    assert all(np.array_equal(found[name], SAMPLE[name]) for name in SAMPLE)


@given(st.binary(max_size=80), st.integers(0, 80))
def test_any_bytes(data, keep):
    for hostile in (data, FILE[:keep] + data, data + FILE, FILE + data):
        if hostile != FILE:
            with pytest.raises(MalformedError):
                read_npz(hostile, SAMPLE_EXPECTED)


def member(name=b"a.npy", content=b"", *, stream=None, size=None, checksum=None, start=None, extra=0, packed=None):
    """A local header with its stream; every field can lie."""
    if stream is None:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        stream = packer.compress(content) + packer.flush()
    fields = (
        *(start or arrays._LOCAL_START),
        zlib.crc32(content) if checksum is None else checksum,
        len(stream) if packed is None else packed,
        len(content) if size is None else size,
        len(name),
        extra,
    )
    return fields, name, stream


def archive(*members):
    """An archive whose central directory agrees with its members."""
    data, entries, count = b"", b"", 0
    for fields, name, stream in members:
        offset = len(data)
        data += arrays._LOCAL.pack(*fields) + name + stream
        entries += arrays._CENTRAL.pack(b"PK\x01\x02", 0x0314, *fields[1:], 0, 0, 0, 0o600 << 16, offset) + name
        count += 1
    return data + entries + arrays._END.pack(b"PK\x05\x06", 0, 0, count, count, len(entries), len(data), 0)


def npy(array, **changes):
    return (changes.get("header") or arrays._header(array.dtype.str, array.shape)) + array.tobytes()


THREE = np.arange(3, dtype=np.int32)


def test_the_forger_makes_good_archives():
    assert np.array_equal(read_npz(archive(member(content=npy(THREE))), ANY)["a"], THREE)
    stored = zlib.compressobj(0, zlib.DEFLATED, -15)
    stream = stored.compress(npy(THREE)) + stored.flush()
    assert np.array_equal(read_npz(archive(member(content=npy(THREE), stream=stream)), ANY)["a"], THREE)


GOOD = archive(member(content=npy(THREE)))
LOCAL_START = list(arrays._LOCAL_START)


def started(place, value):
    start = [*LOCAL_START]
    start[place] = value
    return archive(member(content=npy(THREE), start=start))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"#!/bin/sh\n" + GOOD, id="prefix"),
        pytest.param(GOOD + b"\0", id="suffix"),
        pytest.param(GOOD[:-2] + b"\1\0x", id="comment"),
        pytest.param(GOOD[:-1], id="cut"),
        pytest.param(GOOD[:20], id="cut in the first header"),
        pytest.param(GOOD[:32], id="cut in the first name"),
        pytest.param(GOOD[:60], id="cut in the first stream"),
        pytest.param(b"", id="nothing"),
        pytest.param(GOOD + GOOD, id="two archives"),
        pytest.param(started(1, 45), id="zip64 version"),
        pytest.param(started(2, 1), id="encrypted"),
        pytest.param(started(2, 8), id="data descriptor"),
        pytest.param(started(2, 0x800), id="UTF-8 names"),
        pytest.param(started(3, 0), id="stored"),
        pytest.param(started(3, 12), id="bzip2"),
        pytest.param(started(3, 14), id="lzma"),
        pytest.param(started(4, 1), id="time"),
        pytest.param(started(5, 0x22), id="date"),
        pytest.param(archive(member(content=npy(THREE), extra=4)), id="extra field"),
        pytest.param(archive(member(b"a", npy(THREE))), id="no suffix"),
        pytest.param(archive(member(b"\xc3\xa4.npy", npy(THREE))), id="name not ASCII"),
        pytest.param(archive(member(b"z.npy", npy(THREE))), id="unexpected name"),
        pytest.param(archive(member(b"../a.npy", npy(THREE))), id="path"),
        pytest.param(archive(member(b"\x1b[2J.npy", npy(THREE))), id="control characters"),
        pytest.param(archive(member(b".npy", npy(THREE))), id="no name"),
        pytest.param(archive(*[member(content=npy(THREE))] * 2), id="more than expected"),
        pytest.param(archive(), id="missing"),
        pytest.param(archive(member(content=npy(THREE), checksum=1)), id="checksum"),
        pytest.param(archive(member(content=npy(THREE), size=139)), id="size too small"),
        pytest.param(archive(member(content=npy(THREE), size=141)), id="size too large"),
        pytest.param(archive(member(content=npy(THREE), packed=1 << 31)), id="packed size beyond the file"),
        pytest.param(archive(member(content=npy(THREE) + b"\0\0\0\0", size=140)), id="more behind the array"),
        pytest.param(archive(member(content=npy(THREE)[:-1], size=140)), id="array cut off"),
        pytest.param(archive(member(content=npy(THREE), stream=b"\xff")), id="no deflate stream"),
        pytest.param(archive(member(content=npy(THREE), stream=b"")), id="empty stream"),
        pytest.param(archive(member(content=b"")), id="empty member"),
        pytest.param(archive(member(content=b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 65535)), id="long header"),
        pytest.param(archive(member(content=b"\x93NUMPY\x02\x00v\0\0\0" + bytes(200))), id="format 2.0"),
        pytest.param(archive(member(content=npy(THREE)[:50])), id="header cut off"),
    ],
)
def test_hostile_archives(data):
    with pytest.raises(MalformedError) as caught:
        read_npz(data, ANY, where="file")
    assert caught.value.where.startswith("file")
    assert str(caught.value).isprintable()


def compressed(content):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def test_bytes_behind_the_stream():
    stream = compressed(npy(THREE))
    for hostile in (stream + b"x", stream + stream, stream[:-1]):
        with pytest.raises(MalformedError):
            read_npz(archive(member(content=npy(THREE), stream=hostile)), ANY)


def test_twice_and_unsorted():
    two = {**ANY, "b": ANY["a"]}
    first, second = member(content=npy(THREE)), member(b"b.npy", npy(THREE))
    assert set(read_npz(archive(first, second), two)) == {"a", "b"}
    for members in ([second, first], [first, first]):
        with pytest.raises(Schema):
            read_npz(archive(*members), two)


def test_overlapping_members():
    # Two directory entries for one stream: the skeleton has one member, so the directory does not fit.
    fields, name, stream = member(content=npy(THREE))
    local = arrays._LOCAL.pack(*fields) + name + stream
    entry = arrays._CENTRAL.pack(b"PK\x01\x02", 0x0314, *fields[1:], 0, 0, 0, 0o600 << 16, 0) + name
    data = local + entry * 2 + arrays._END.pack(b"PK\x05\x06", 0, 0, 2, 2, 2 * len(entry), len(local), 0)
    with zipfile.ZipFile(io.BytesIO(data)) as lenient:
        assert len(lenient.infolist()) == 2
    with pytest.raises(NonCanonical):
        read_npz(data, {**ANY, "b": ANY["a"]})


def headed(text, *, pad=64, body=b""):
    padded = text.encode("latin-1") + b"\n"
    padded = padded.rjust(len(padded)) if pad == 0 else text.encode("latin-1").ljust(117) + b"\n"
    return archive(member(content=arrays._MAGIC + len(padded).to_bytes(2, "little") + padded + body))


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<i4', 'fortran_order': True, 'shape': (3,), }",
        "{'descr': '<i4', 'fortran_order': 0, 'shape': (3,), }",
        "{'descr': '|O8', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '|V4', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '>i4', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '\xff\xff\xff', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': 3, }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (03,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (-3,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3,1), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3, 1), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3,)}",
        "{'shape': (3,), 'descr': '<i4', 'fortran_order': False, }",
        '{"descr": "<i4", "fortran_order": False, "shape": (3,), }',
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), 'more': 1, }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (4,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000000,), }",
        "__import__('os').getpid()",
        "(" * 117,
        "",
    ],
)
def test_hostile_headers(text):
    with pytest.raises(MalformedError):
        read_npz(headed(text, body=THREE.tobytes()), ANY)


def test_header_padding_has_one_spelling():
    text = "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }"
    assert read_npz(headed(text, body=THREE.tobytes()), ANY)
    with pytest.raises(NonCanonical):
        read_npz(headed(text, pad=0, body=THREE.tobytes()), ANY)


def test_sizes_that_only_an_empty_array_can_name():
    # 0 elements, but numpy refuses (with its own error) to make an array of these sizes.
    shape = (0, 2**39, 2**39)
    content = arrays._header("<i4", shape)
    with pytest.raises(TooLarge):
        read_npz(archive(member(content=content)), {"a": Expected(kinds=("<i4",), dimensions=3)})


@pytest.mark.parametrize(
    ("array", "kinds", "dimensions"),
    [
        (THREE, ("<i8",), 1),
        (THREE, ("<i4",), 2),
        (THREE.astype(np.float32), ("<i4",), 1),
    ],
)
def test_another_type_or_number_of_axes(array, kinds, dimensions):
    with pytest.raises(Schema):
        read_npz(write_npz({"a": array}), {"a": Expected(kinds=kinds, dimensions=dimensions)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_numbers_that_are_not_finite(bad, kind):
    array = np.array([0, bad], dtype=kind)
    with pytest.raises(EncodingError):
        write_npz({"a": array})
    with pytest.raises(Schema):
        read_npz(archive(member(content=npy(array))), ANY)


def test_truth_values_are_0_and_1():
    assert read_npz(write_npz({"a": np.array([True, False])}), ANY)["a"].tolist() == [True, False]
    with pytest.raises(Schema):
        read_npz(archive(member(content=arrays._header("|b1", (2,)) + b"\1\2")), ANY)


def test_optional():
    expected = {**ANY, "b": ANY["a"]}
    data = write_npz({"a": THREE})
    assert set(read_npz(data, expected, optional=["b"])) == {"a"}
    with pytest.raises(Schema) as caught:
        read_npz(data, expected)
    assert "'b'" in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"a": np.array(["x"])},
        {"a": np.array([None])},
        {"a": np.zeros(3, dtype=">i4")},
        {"a": np.zeros(3, dtype=np.float16)},
        {"a": np.zeros(3, dtype=np.complex64)},
        {"a": np.zeros((1,) * 9, dtype=np.int32)},
        {"": THREE},
        {"a/b": THREE},
        {"ä": THREE},
        {"a" * 61: THREE},
    ],
)
def test_writing_refuses_what_reading_would(values):
    with pytest.raises(EncodingError):
        write_npz(values)


def test_limits(monkeypatch):
    size = sum(a.nbytes + len(arrays._header(a.dtype.str, a.shape)) for a in SAMPLE.values())
    read_npz(FILE, SAMPLE_EXPECTED, limit=size)
    with pytest.raises(TooLarge):
        read_npz(FILE, SAMPLE_EXPECTED, limit=size - 1)
    monkeypatch.setattr(arrays, "MAX_MEMBER", 200)
    write_npz({"a": np.zeros(10, dtype=np.uint8), "b": np.zeros(10, dtype=np.uint8)})
    for values in (
        {"a": np.zeros(100, dtype=np.uint8)},
        {name: np.zeros(10, dtype=np.uint8) for name in "abcdef"},
    ):
        with pytest.raises(EncodingError):
            write_npz(values)


def peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_costs_nothing():
    size = 64 << 20
    bomb = compressed(arrays._header("|u1", (size,)) + bytes(size))
    honest = archive(member(content=b"", stream=bomb, size=size + 128, checksum=0))
    lying = archive(member(content=b"", stream=bomb, size=140, checksum=0))
    wrong = archive(member(content=b"", stream=compressed(bytes(size)), size=size, checksum=0))

    def refuse(data, limit):
        with pytest.raises(MalformedError):
            read_npz(data, ANY, limit=limit)

    assert len(honest) < 1 << 17
    assert peak(lambda: refuse(honest, 1 << 20)) < 1 << 20  # over the limit: not unpacked
    assert peak(lambda: refuse(lying, 1 << 20)) < 1 << 20  # says it is small: unpacked no further than that
    assert peak(lambda: refuse(wrong, 1 << 30)) < 1 << 20  # no array header: not unpacked further
    many = archive(*[member(content=npy(THREE))] * 2_000)
    assert peak(lambda: refuse(many, 1 << 30)) < 1 << 17  # stops at the second of one expected array


def test_structs_have_the_sizes_of_the_specification():
    assert (arrays._LOCAL.size, arrays._CENTRAL.size, arrays._END.size) == (30, 46, 22)
    assert isinstance(arrays._LOCAL, struct.Struct)
