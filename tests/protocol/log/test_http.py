import contextlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from functools import partial
from typing import ClassVar

import pytest

from protocol.errors import Consistency, DigestMismatch, Error, Expired, MalformedError, Rollback, Schema, TooLarge
from protocol.log import checkpoint, merkle, tiles, witness
from protocol.log.http import Client, is_url
from protocol.log.store import Log
from protocol.log.verify import verify_fresh, verify_log, verify_served
from protocol.log.witness import Memory, watch_served
from tests.protocol.log.helpers import LOG_KEY, NO_QUORUM, ORIGIN, POLICY, WITNESSES, make_log


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar = []

    def do_GET(self):
        self.seen.append((self.client_address, self.path))
        super().do_GET()

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(folder, *, context=None):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        server.daemon_threads = True
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def raw(*answers, hold=0.0):
    """A server that gives these bytes, one connection each, whatever is asked; then nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def run():
            for answer in answers:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    for part in answer if isinstance(answer, list) else [answer]:
                        connection.sendall(part)
                        done.wait(hold)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            done.set()
            with contextlib.suppress(OSError), socket.create_connection(listener.getsockname(), timeout=1) as last:
                last.sendall(b"x")
            thread.join(5)


def ok(body, *headers):
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


@pytest.fixture
def log(tmp_path):
    made = make_log(tmp_path / "www" / "log", 3, 300)
    for number, one in enumerate(WITNESSES[:2]):
        witness.cosign(made.path, one, tmp_path / f"state{number}", 1000 + number, log_key=LOG_KEY.verifier)
    return made


def test_a_static_server_is_enough(log, tmp_path):
    Quiet.seen.clear()
    with serving(tmp_path / "www") as url, Client(f"{url}/log") as client:
        served = verify_served(client.fetch, POLICY, origin=ORIGIN)
        local = verify_log(log.path, POLICY)
        assert served.checkpoint == local.checkpoint
        assert served.leaf_hashes == local.leaf_hashes == tuple(log.leaf_hashes())
        assert served.checkpoint_note == log.checkpoint_bytes()
        assert client.fetch("tile/0/000", 8192) == (log.path / "tile/0/000").read_bytes()
        assert client.fetch("nothing", 10) is None
    assert len({address for address, _ in Quiet.seen}) == 1  # one connection for all files
    assert {path for _, path in Quiet.seen} == {
        f"/log/{name}"
        for name in ["checkpoint", "tile/0/000", "tile/0/001.p/47", "tile/1/000.p/1", "tile/entries/000",
                     "tile/entries/001.p/47", "nothing"]
    }  # fmt: skip


@pytest.mark.parametrize("name", ["tile/0/000", "tile/0/001.p/47", "tile/1/000.p/1", "tile/entries/001.p/47"])
def test_garbage_and_missing_files_are_named(log, tmp_path, name):
    path = log.path / name
    data = path.read_bytes()
    with serving(tmp_path / "www") as url, Client(f"{url}/log/") as client:
        for changed in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1], data + b"\0"):
            path.write_bytes(changed)
            with pytest.raises(Error) as caught:
                verify_served(client.fetch, POLICY)
            assert caught.value.where == name
        path.unlink()
        with pytest.raises(MalformedError, match="missing") as caught:
            verify_served(client.fetch, POLICY)
        assert caught.value.where == name


def test_a_log_that_grows_while_it_is_read(log, tmp_path):
    old = log.checkpoint_bytes()
    log.append([b"x"] * 300, LOG_KEY)
    shutil.rmtree(log.path / "tile/0/001.p", ignore_errors=True)
    assert not (log.path / "tile/0/001.p/47").exists()
    (log.path / "checkpoint").write_bytes(old)
    with serving(log.path) as url, Client(url) as client:
        assert verify_served(client.fetch, POLICY).size == 303


def test_rollback_and_split_view_over_http(log, tmp_path):
    state = tmp_path / "state"
    with serving(tmp_path / "www") as url:

        def look(name):
            with Client(f"{url}/{name}") as client:
                return watch_served(client.fetch, NO_QUORUM, state, origin=ORIGIN)

        shutil.copytree(log.path, tmp_path / "www/old")
        assert look("log").leaf_hashes == ()
        log.append([b"more"], LOG_KEY)
        assert look("log").size == 304
        with pytest.raises(Rollback, match="kept in"):
            look("old")
        other = Log.create(tmp_path / "www/other", LOG_KEY)
        other.append([b"rewritten %d" % i for i in range(310)], LOG_KEY)
        with pytest.raises(Consistency, match="kept in"):
            look("other")
    assert Memory(folder=state).remembered(ORIGIN) == log.checkpoint_bytes()


def test_what_changes_between_the_two_passes_is_found(tmp_path):
    log = make_log(tmp_path / "log", 3)
    files = {name: (log.path / name).read_bytes() for name in ["checkpoint", "tile/0/000.p/3", "tile/entries/000.p/3"]}
    remembered = make_log(tmp_path / "small", 2).checkpoint_bytes()
    reads = []

    def fetch(path, limit):
        reads.append(path)
        if path.startswith("tile/entries") and reads.count(path) > 1:
            return tiles.join_entries([b"entry 0", b"entry 1", b"other"])
        return files.get(path)

    assert verify_served(fetch, POLICY).size == 3
    reads.clear()
    with pytest.raises(DigestMismatch, match="changed while") as caught:
        verify_served(fetch, POLICY, remembered=remembered)
    assert caught.value.where == "tile/entries/000.p/3"


@pytest.mark.parametrize("size", [256, 257, 600, 65536 + 300])
def test_remembered_sizes_within_bundles(tmp_path, size):
    # The root of an older tree, from bundle roots and one bundle read again.
    log = make_log(tmp_path / "log", size)
    hashes = log.leaf_hashes()
    for old in (1, 255, 256, size // 2, size - 1, size):
        head = checkpoint.Checkpoint(origin=ORIGIN, size=old, root=merkle.root_from_hashes(hashes[:old]))
        summary = verify_log(log.path, POLICY, remembered=checkpoint.sign(head, LOG_KEY), keep_leaves=False)
        assert (summary.size, summary.leaf_hashes) == (size, ())


def test_files_over_their_limit_are_not_read():
    with raw(ok(bytes(100)), ok(bytes(100)).replace(b"Content-Length: 100\r\n", b"")) as url:
        for _ in range(2):
            with Client(url) as client, pytest.raises(TooLarge) as caught:
                client.fetch("checkpoint", 99)
            assert caught.value.where == "checkpoint"


def test_answers_that_are_not_the_file():
    for answer, message in [
        (b"HTTP/1.1 301 Moved\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n", "redirects"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "304"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno", "500"),
        (b"HTTP/1.1 206 Part\r\nContent-Length: 2\r\n\r\nno", "206"),
        (ok(b"x", "Content-Encoding: gzip"), "compressed"),
        (ok(b"12345").replace(b"Length: 5", b"Length: 9"), "cut short after 5 of 9"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "cannot be read"),
        (b"not HTTP at all\r\n\r\n", "cannot be read"),
        (b"", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", "headers"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000 + b"\r\n\r\n", "line"),
    ]:
        with raw(answer) as url, Client(url) as client, pytest.raises(MalformedError, match=message) as caught:
            client.fetch("tile/0/000", 8192)
        assert caught.value.where == "tile/0/000"
        assert str(caught.value).isprintable()


def test_long_refusals_are_not_read_to_the_end():
    refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000)
    with raw(refusal, ok(b"12345")) as url, Client(url) as client:
        assert client.fetch("x", 5) is None
        assert client.fetch("x", 5) == b"12345"


def test_chunked_and_unframed_answers_are_read():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    with raw(chunked, b"HTTP/1.0 200 OK\r\n\r\nabcde", b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n") as url:
        for expected in (b"abcde", b"abcde", None):
            with Client(url) as client:
                assert client.fetch("x", 5) == expected


def test_a_connection_that_the_server_closed_is_opened_again():
    with raw(ok(b"one"), ok(b"two")) as url, Client(url) as client:
        assert client.fetch("x", 5) == b"one"
        assert client.fetch("x", 5) == b"two"


@pytest.mark.parametrize(
    "parts",
    [
        [b""] * 50,
        [b"H"] * 50,
        [b"HTTP/1.1 200 OK\r\n"] * 50,
        [ok(b"12345")[:-5], *[b"1"] * 5],
        [ok(b"12345", "Connection: close")[:-5], *[b"1"] * 5],
        [b"HTTP/1.0 200 OK\r\n\r\n", *[b"1"] * 50],
        [b"HTTP/1.0 404 OK\r\n\r\n", *[b"1"] * 50],
    ],
)
def test_slow_servers_do_not_hold_us(parts):
    with raw(parts, hold=0.2) as url, Client(url, seconds=0.25) as client:
        begun = time.monotonic()
        with pytest.raises(MalformedError, match=r"no answer within 0\.25 s"):
            client.fetch("x", 100)
        assert time.monotonic() - begun < 8  # whole answers would take ten


def test_silence_after_an_answer_is_not_asked_for_twice():
    first = [ok(b"one"), b"", b"", b"", b"", b"", b"", b"", b""]
    with raw(first, ok(b"two"), hold=0.08) as url, Client(url, seconds=0.25) as client:
        assert client.fetch("x", 5) == b"one"
        with pytest.raises(MalformedError, match="no answer"):
            client.fetch("x", 5)


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}", f"http://{'a' * 64}.example/"):
        with Client(url) as client, pytest.raises(MalformedError, match="cannot be read"):
            client.fetch("checkpoint", 10)


def test_the_watchdog_may_find_no_connection():
    client = Client("http://127.0.0.1:9")
    late = threading.Event()
    client._abort(late)
    assert late.is_set()


@pytest.mark.parametrize(
    "url",
    [
        "", "log", "file:///etc/passwd", "ftp://host/", "http://", "http:///log", "https://user:secret@host/",
        "http://host/?q", "http://host/#f", "http://host:99999/", "http://host:0/", "http://host:x/", "http://ho st/",
        "http://host/\n", "http://h\u00f6st/", "http://[::1/", "http://host\\@other/",
    ],
)  # fmt: skip
def test_addresses_that_are_none(url):
    with pytest.raises(Schema):
        Client(url)


def test_what_is_an_address():
    assert is_url("http://x")
    assert is_url("https://x")
    assert not is_url("logs/http:")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program here to make a certificate")
def test_https_with_an_authority_of_one_s_own(log, tmp_path):
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem"
        " -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    trust = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    with serving(log.path, context=context) as url:
        with Client(url, context=trust) as client:
            assert verify_served(client.fetch, POLICY).size == 303
        with Client(url) as client, pytest.raises(MalformedError, match="cannot be read"):
            client.fetch("checkpoint", 100)


def test_fresh_frozen_and_future(log):
    seen = verify_log(log.path, POLICY).checkpoint
    assert seen.time == 1001
    for now in (701, 1001, 1101):
        verify_fresh(seen, now=now, max_age=100)
    for now in (700, 1102):
        with pytest.raises(Expired):
            verify_fresh(seen, now=now, max_age=100)
    log.append([b"x"], LOG_KEY)
    with pytest.raises(Expired, match="no quorum"):
        verify_fresh(verify_log(log.path, POLICY).checkpoint, now=1001, max_age=100)
