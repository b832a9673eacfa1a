"""Endpoint files, protocol messages and query logs: one accepted reading, our errors only."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.deployment import endpoint, inference, journal
from auditor.deployment.journal import Journal, Line
from auditor.deployment.source import Recorded
from protocol.errors import AuditorError, Error, MalformedError, TooLarge, UnsupportedVersion

HEAD = "version: prune-audit/endpoint/v1\nurl: http://127.0.0.1:8080\nmodel: digits\n"
FULL = """version: prune-audit/endpoint/v1
urls: ["https://a.example/", "https://b.example/base"]
model: digits
model_version: "2"
identities:
  - {name: anonymous}
  - {name: clinic, headers: {Authorization: "Bearer top-secret", X-Client: "7"}}
  - {name: us, known: true}
rate_per_second: 2.5
span_seconds: 3600
timeout_seconds: 10
attempts: 3
budget: 1500
queries: {core: 100, near: 10, ordinary: 50}
tolerance: 0.00001
input: input
output: "logits:0"
"""


def test_an_endpoint_file():
    found = endpoint.parse(FULL.encode())
    assert found.urls == ("https://a.example", "https://b.example/base")
    assert found.path == "v2/models/digits/versions/2"
    assert [one.name for one in found.identities] == ["anonymous", "clinic", "us"]
    assert found.identities[1].headers == {"Authorization": "Bearer top-secret", "X-Client": "7"}
    assert (found.core, found.near, found.ordinary, found.budget) == (100, 10, 50, 1500)
    small = endpoint.parse(HEAD.encode())
    assert (small.path, small.identities[0].name, small.core, small.tolerance) == (
        "v2/models/digits", "anonymous", 299, None,
    )  # fmt: skip


def test_secrets_stand_nowhere():
    found = endpoint.parse(FULL.encode())
    assert "secret" not in repr(found)
    public = found.public()
    assert "secret" not in json.dumps(public)
    assert "headers" not in json.dumps(public)
    again = endpoint.from_value(public, where="w")
    assert again == replace(found, identities=tuple(replace(one, headers={}) for one in found.identities))
    with pytest.raises(Error) as caught:
        endpoint.parse(FULL.replace("Authorization:", "Transfer-Encoding:").encode())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("http://127.0.0.1:8080", "ftp://x"), "address"),
        (("http://127.0.0.1:8080", "http://u:p@x/"), "address"),
        (("http://127.0.0.1:8080", "http://x/?q=1"), "address"),
        (("http://127.0.0.1:8080", "http://x/#f"), "address"),
        (("http://127.0.0.1:8080", "file:///etc/passwd"), "address"),
        (("url: http://127.0.0.1:8080\n", ""), "either url or urls"),
        (("model: digits", "model: ../x"), "model"),
        (("model: digits", "model: 'a b'"), "model"),
        (("model: digits", "model: digits\nsurprise: 1"), "unknown field"),
        (("model: digits", "model: digits\nrate_per_second: 0"), "rate_per_second"),
        (("model: digits", "model: digits\nrate_per_second: .inf"), "rate_per_second"),
        (("model: digits", "model: digits\nrate_per_second: true"), "rate_per_second"),
        (("model: digits", "model: digits\nbudget: 0"), "budget"),
        (("model: digits", "model: digits\nbudget: 1.5"), "budget"),
        (("model: digits", "model: digits\nqueries: {core: 0}"), "core"),
        (("model: digits", "model: digits\nqueries: {ordinary: 0}"), "ordinary"),
        (("model: digits", "model: digits\nqueries: [1]"), "queries"),
        (("model: digits", "model: digits\ntolerance: 2"), "tolerance"),
        (("model: digits", "model: digits\nmodel_version: 2"), "model_version"),
        (("model: digits", "model: digits\nidentities: []"), "identities"),
        (("model: digits", "model: digits\nidentities: [1]"), "mapping"),
        (("model: digits", "model: digits\nidentities: [{name: a}, {name: a}]"), "one name"),
        (("model: digits", "model: digits\nidentities: [{name: a, known: 1}]"), "known"),
        (("model: digits", 'model: digits\nidentities: [{name: a, headers: {X: "a\\r\\nB: c"}}]'), "printable"),
        (("model: digits", "model: digits\nidentities: [{name: a, headers: {Host: x}}]"), "Host"),
        (("model: digits", "model: digits\nidentities: [{name: a, headers: {content-length: '0'}}]"), "content-length"),
        (("model: digits", "model: digits\nidentities: [{name: a, headers: {'X Y': x}}]"), "X Y"),
        (("model: digits", "model: digits\nidentities: [{name: a, headers: {x: a, X: b}}]"), "twice"),
        (("model: digits", "model: digits\nidentities: [{name: a, headers: {X: 1}}]"), "printable"),
        (("endpoint/v1", "endpoint/v2"), "version"),
    ],
)
def test_endpoint_files_that_are_refused(change, message):
    text = HEAD.replace(*change)
    assert text != HEAD
    with pytest.raises(MalformedError, match=message):
        endpoint.parse(text.encode())


def test_addresses_of_models(tmp_path):
    found = endpoint.load("http://127.0.0.1:9/base/v2/models/digits/versions/3/infer")
    assert (found.urls, found.model, found.model_version) == (("http://127.0.0.1:9/base",), "digits", "3")
    assert endpoint.load("https://h.example/v2/models/digits/").path == "v2/models/digits"
    for text in (
        "http://x", "http://x/v2/models/", "http://x/v2/models/a/b", "http://x/v2/models/a/other/1",
        "http://u@x/v2/models/a", "http://x/v2/models/a%2F..%2Fb", str(tmp_path / "none.yaml"), str(tmp_path),
    ):  # fmt: skip
        with pytest.raises(AuditorError):
            endpoint.load(text)
    path = tmp_path / "endpoint.yaml"
    path.write_text(HEAD.replace("v1", "v9"))
    with pytest.raises(UnsupportedVersion) as caught:
        endpoint.load(str(path))
    assert caught.value.where == str(path)


# --- messages ---------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_inputs_are_read_back_bit_by_bit(values):
    record = np.array(values, dtype=np.float32)
    (tensor,) = json.loads(inference.request(record.reshape(1, -1), name="x"))["inputs"]
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("x", [1, 1, len(values)], "FP32")
    assert np.array(tensor["data"], dtype=np.float32).tobytes() == record.tobytes()


def output(**changes):
    return {"name": "out", "datatype": "FP32", "shape": [1, 3], "data": [1.5, -2, 0.1]} | changes


def body(**changes):
    return json.dumps({"model_name": "m", "outputs": [output()]} | changes).encode()


def read(data):
    return inference.answer(data, model="m", output="out", classes=3)


@pytest.mark.parametrize(
    "data",
    [
        body(),
        body(model_version="1", id="abc", parameters={"a": {"b": 1}}),
        body(model_version=None, id=None, parameters=None),
        body(outputs=[output(data=[[1.5, -2, 0.1]], parameters={})]),
    ],
)
def test_answers_that_are_read(data):
    assert read(data).logits.tolist() == np.array([1.5, -2, 0.1], dtype=np.float32).tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "JSON"),
        (b"\xff", "JSON"),
        (b"null", "not an object"),
        (b"[]", "not an object"),
        (b"[" * 100_000, "JSON|too many"),
        (b"[" * 1_000_000, "too many"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "JSON|deep"),
        (b'{"model_name": "m", "model_name": "m"}', "twice"),
        (body()[:-5], "JSON"),
        (body() + b"x", "JSON"),
        (body(model_name="n"), "of a model"),
        (body(model_name=None), "of a model"),
        (body(outputs=[]), "exactly one"),
        (body(outputs=[output(), output()]), "exactly one"),
        (body(outputs={}), "exactly one"),
        (body(outputs=[[]]), "not an object"),
        (body(surprise=1), "surprise"),
        (body(model_version=1), "model_version"),
        (body(model_version="x" * 201), "model_version"),
        (body(id=5), "id"),
        (body(parameters=[1]), "parameters"),
        (body(outputs=[output(name="other")]), "named"),
        (body(outputs=[output(datatype="FP64")]), "FP64"),
        (body(outputs=[output(datatype="BYTES")]), "BYTES"),
        (body(outputs=[output(shape=[3])]), "shape"),
        (body(outputs=[output(shape=[1, 4])]), "shape"),
        (body(outputs=[output(shape=[True, 3])]), "shape"),
        (body(outputs=[output(shape=[1.0, 3])]), "shape"),
        (body(outputs=[output(shape="13")]), "shape"),
        (body(outputs=[output(data=[1, 2])]), "2 numbers"),
        (body(outputs=[output(data=[1, 2, 3, 4])]), "4 numbers"),
        (body(outputs=[output(data=[1, 2, [3]])]), "mixes"),
        (body(outputs=[output(data="1,2,3")]), "array"),
        (body(outputs=[output(data=[1, 2, "3"])]), "not a number"),
        (body(outputs=[output(data=[1, 2, None])]), "not a number"),
        (body(outputs=[output(data=[1, 2, True])]), "not a number"),
        (body(outputs=[output(data=[1, 2, float("nan")])]), "NaN"),
        (body(outputs=[output(data=[1, 2, float("inf")])]), "Infinity"),
        (body().replace(b"1.5", b"1e999"), "beyond"),
        (body().replace(b"1.5", b"1e39"), "beyond"),
        (body().replace(b"1.5", b"1" + b"0" * 400), "beyond"),
        (body().replace(b"1.5", b"1" * 5000), "JSON|beyond"),
        (body(outputs=[{"name": "out", "datatype": "FP32", "shape": [1, 3]}]), "has no data"),
    ],
)
def test_answers_that_are_refused(data, message):
    with pytest.raises(MalformedError, match=message):
        read(data)


@given(st.one_of(st.binary(max_size=80), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["model_name", "outputs", "name", "shape", "data", "datatype", "id", "parameters", "x"]), inner
    ), max_leaves=12,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_bytes_are_an_answer_or_our_error(data):
    for reader in (read, lambda data: inference.metadata(data, model="m"), lambda d: journal.parse(d, where="w")):
        with contextlib.suppress(MalformedError):
            reader(data)


def test_metadata():
    good = {"name": "m", "versions": ["1"], "platform": "", "outputs": [],
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3], "parameters": {}}]}  # fmt: skip
    inference.metadata(json.dumps(good).encode(), model="m")
    for change in ({"name": "n"}, {"inputs": [{"name": "x", "datatype": "INT8", "shape": [1]}]}, {"inputs": 5},
                   {"inputs": [1]}, {"extra": 1}, {"outputs": [{"name": "x"}]}):  # fmt: skip
        with pytest.raises(MalformedError):
            inference.metadata(json.dumps(good | change).encode(), model="m")


# --- query logs -------------------------------------------------------------------------------------------------


LINES = (
    Line(kind="core", identity="anonymous", url=0, at=1.25, requests=1, logits=np.array([1, -0.0, 3e-45], np.float32)),
    Line(kind="near", identity="clinic", url=1, at=2.0, requests=5, logits=None, failure="HTTP status 503"),
    Line(kind="ordinary", identity="us", url=0, at=3.0, requests=2, logits=np.zeros(3, np.float32), version="1"),
)
LOG = Journal(endpoint=endpoint.parse(FULL.encode()).public(), plan="00", planned=4, classes=3, lines=LINES)


def test_a_query_log_is_read_back():
    again = journal.parse(LOG.to_bytes(), where="w")
    assert again.to_bytes() == LOG.to_bytes()
    assert again.requests == 8
    assert [None if line.logits is None else line.logits.tobytes() for line in again.lines] == [
        None if line.logits is None else line.logits.tobytes() for line in LINES
    ]
    assert Recorded.of(LOG.to_bytes(), where="w").endpoint.identities[2].known


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"queries/v1", b"queries/v2"), (b'"n":1', b'"n":2'), (b'"kind":"near"', b'"kind":"far"'),
        (b'"at":1.25', b'"at":"x"'), (b'"at":1.25', b'"at":true'), (b'"at":1.25', b'"at":NaN'),
        (b'"requests":5', b'"requests":0'), (b'"url":1', b'"url":-1'), (b'"failure":"HTTP status 503"', b'"failure":""'),
        (b'"logits":"00', b'"logits":"0'), (b'"logits":"0000803f', b'"logits":"0000c07f'),
        (b'"logits":"00', b'"logits":"0G'), (b'"planned":4', b'"planned":2'), (b'"classes":3', b'"classes":0'),
        (b'"identity":"us"', b'"identity":5'), (b'"resumed":0', b'"resumed":0,"x":1'), (b"}\n", b"}"),
    ],
)  # fmt: skip
def test_query_logs_that_are_refused(old, new):
    data = LOG.to_bytes()
    assert old in data
    with pytest.raises(MalformedError) as caught:
        journal.parse(data.replace(old, new), where="w")
    assert caught.value.where == "w"


def test_query_logs_have_a_limit(monkeypatch):
    monkeypatch.setattr(journal, "MAX_FILE", 10)
    with pytest.raises(TooLarge):
        journal.parse(LOG.to_bytes(), where="w")
    with pytest.raises(MalformedError):
        Recorded.of(replace(LOG, endpoint={"version": "x"}).to_bytes()[:9], where="w")
