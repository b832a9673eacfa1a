import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digests import file_digest, jcs_digest, sha256_hex, tagged, tagged_rows
from protocol.errors import EncodingError
from tests.protocol.log.helpers import VECTORS

JCS = VECTORS / "jcs-rfc8785"


@given(st.binary())
def test_sha256(data):
    assert sha256_hex(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_file_digest(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(b"a" * size)
    assert file_digest(path) == (sha256_hex(b"a" * size), size)


def slow_tagged(domain, *parts):
    text = b""
    for part in (b"prune-audit/" + domain.encode() + b"/v1", *parts):
        text += len(part).to_bytes(8, "big") + part
    return hashlib.sha256(text).digest()


parts = st.lists(st.binary(max_size=4), max_size=4)


@given(st.text(max_size=5), parts)
def test_tagged(domain, values):
    assert tagged(domain, *values) == slow_tagged(domain, *values)


@given(st.integers(0, 9), st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 200))
def test_rows_are_tagged_one_by_one(count, sizes, together):
    random = np.random.default_rng(count)
    arrays = [random.integers(0, 256, (count, size)).astype(np.uint8) for size in sizes]
    wanted = [tagged("rows", *(array[row].tobytes() for array in arrays)) for row in range(count)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("protocol.digests._TOGETHER", together)
        assert tagged_rows("rows", *arrays) == wanted


@given(parts, parts)
def test_parts_cannot_be_shifted(first, second):
    assert (tagged("x", *first) == tagged("x", *second)) == (first == second)


def test_domains_differ():
    assert tagged("a", b"b") != tagged("b", b"a") != tagged("ab") != tagged("a/v1", b"b")
    assert tagged("record").hex() == "26facf434dfa42f45c07dec12d94ac970f2d0903a172740d310e18a620b36a3f"


@pytest.mark.parametrize("name", sorted(path.name for path in (JCS / "input").iterdir()))
def test_jcs_vectors(name):
    value = json.loads((JCS / "input" / name).read_bytes())
    assert jcs_digest(value) == sha256_hex((JCS / "output" / name).read_bytes())


def too_deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [float("nan"), 2**53, pytest.param(10**5000, id="huge"), {1: 2}, object(), "\ud800", {"\ud800": 1}]
)
def test_jcs_refusals(value):
    with pytest.raises(EncodingError):
        jcs_digest({"key": value})


def test_jcs_refuses_depth():
    with pytest.raises(EncodingError):
        jcs_digest(too_deep())
