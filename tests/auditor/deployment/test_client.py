"""The wire: hostile servers on loopback. Nothing that one of them does is an error, and nothing of it is believed."""

import json
import time

import numpy as np
import pytest

from auditor.deployment.client import Nothing, Query, Rest, retry_after
from auditor.deployment.endpoint import Endpoint, Identity
from auditor.deployment.inference import Answer
from tests.auditor.deployment.services import ok, raw

QUERY = Query(record=np.arange(4, dtype=np.float32), input_name="in", output_name="out", classes=3)
CLINIC = Identity(name="clinic", headers={"Authorization": "Bearer t", "X-Tag": "7"})
REST = Rest(lambda: 1000.0)


def endpoint(url, **changes):
    return Endpoint(**({"urls": (url,), "model": "m", "model_version": "1", "timeout": 1.0} | changes))


def body(**changes):
    tensor = {"name": "out", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]} | changes
    return json.dumps({"model_name": "m", "model_version": "1", "outputs": [tensor]}).encode()


def ask(*answers, **changes):
    with raw(*answers) as (url, requests):
        return REST.ask(endpoint(url, **changes), url, CLINIC, QUERY), requests


def test_a_query_says_who_asks_and_shares_no_connection():
    with raw(ok(body())) as (url, requests):
        for _ in range(2):
            found = REST.ask(endpoint(url), url, CLINIC, QUERY)
            assert isinstance(found, Answer)
            assert (found.logits.tolist(), found.version) == ([1, 2, 3], "1")
        assert len(requests) == 2  # one connection each
        head, sent = requests[0].split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        assert lines[0] == "POST /v2/models/m/versions/1/infer HTTP/1.1"
        names = {line.split(":")[0]: line.split(": ", 1)[1] for line in lines[1:]}
        assert names["Authorization"] == "Bearer t"
        assert names["X-Tag"] == "7"
        assert names["Connection"] == "close"
        assert names["Content-Type"] == "application/json"
        assert set(names) == {  # nothing that says which program asks
            "Host", "Accept", "Accept-Encoding", "Connection", "Content-Type", "Content-Length", "Authorization", "X-Tag",
        }  # fmt: skip
        assert json.loads(sent) == {
            "inputs": [{"name": "in", "shape": [1, 4], "datatype": "FP32", "data": [0.0, 1.0, 2.0, 3.0]}]
        }


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + body(), "cut short"),
        (ok(body()[:-9]), "JSON"),
        (ok(b""), "JSON"),
        (ok(body().replace(b"2.0", b"NaN")), "NaN"),
        (ok(body(shape=[3, 1])), "shape"),
        (ok(body(data=[1.0, 2.0])), "2 numbers"),
        (ok(b" " * 100_000 + body()), "over"),
        (ok(body(), "Content-Encoding: gzip"), "compressed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n" + b"x" * 100_000, "over"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n", "redirects"),
        (b"HTTP/1.1 307 Temporary\r\nContent-Length: 0\r\n\r\n", "redirects"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "status 404"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000, "status 500"),
        (b"not HTTP\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nX: \x1b[2J\r\nContent-Length: 4\r\n\r\n\x1b[2J", "JSON"),
    ],
)
def test_whatever_is_no_answer_is_nothing(answer, reason):
    found, _ = ask(answer)
    assert isinstance(found, Nothing)
    assert reason in found.reason
    assert found.reason.isprintable()
    assert not found.busy


def test_busy_servers_say_how_long():
    for status, header, wait in (("429 Too Many", "Retry-After: 7", 7.0), ("503 Busy", "Retry-After: soon", None),
                                 ("503 Busy", "Retry-After: Thu, 01 Jan 1970 00:20:00 GMT", 200.0)):  # fmt: skip
        found, _ = ask(f"HTTP/1.1 {status}\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode())
        assert (found.busy, found.wait) == (True, wait)
    assert [retry_after(text, now=0.0) for text in ("-1", "1.5", "1e3", "٣", "", "x" * 9000)] == [None] * 6
    assert retry_after("Thu, 01 Jan 1970 00:00:10 GMT", now=100.0) == 0.0
    assert retry_after(" 12 ", now=0.0) == 12.0


def test_nobody_there_and_slow_servers():
    found = REST.ask(endpoint("http://127.0.0.1:1"), "http://127.0.0.1:1", CLINIC, QUERY)
    assert "cannot be read" in found.reason
    begun = time.monotonic()
    found, _ = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", timeout=0.3)
    assert isinstance(found, Nothing)
    assert time.monotonic() - begun < 3


def test_readiness():
    known = json.dumps({"name": "m", "inputs": [], "outputs": []}).encode()
    for answers, reason in (
        ((ok(b"{}"), ok(known)), None),
        ((ok(b""), ok(known)), None),
        ((ok(b"{}"), ok(known.replace(b"m", b"n", 1))), "metadata"),
        ((ok(b"{}"), b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), "404"),
        ((b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",), "503"),
    ):
        with raw(*answers) as (url, requests):
            said = REST.ready(endpoint(url), url, CLINIC)
            assert (said is None) == (reason is None)
            assert reason is None or reason in said.reason
            assert requests[0].startswith(b"GET /v2/health/ready ")
