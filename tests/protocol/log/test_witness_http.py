import contextlib
import hashlib
import http.client
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.encoding import encode_base64
from protocol.errors import BadSignature, EncodingError, Error, MalformedError, Rollback, UnknownKey, VerificationError
from protocol.log import checkpoint, cosignature, note, policy, witness, witness_http
from protocol.log.checkpoint import Checkpoint
from protocol.log.http import Client
from protocol.log.store import Log
from protocol.log.witness import Memory
from protocol.log.witness_client import submit
from protocol.log.witness_http import Request, Witness, serve
from tests.protocol.log.helpers import LOG_KEY, ML_DSA, ORIGIN, POLICY, WITNESSES, key, make_log

W0 = WITNESSES[0]
PLACE = hashlib.sha256(ORIGIN.encode()).hexdigest()


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def asked(state):
    return Witness(
        keys=[W0, ML_DSA],
        logs={ORIGIN: [LOG_KEY.verifier]},
        memory=Memory(folder=state),
        clock=lambda: 1000,
    )


def request(log, old=0, new=None, **changes):
    head = log.checkpoint()
    new = head.size if new is None else new
    signed = checkpoint.sign(Checkpoint(origin=ORIGIN, size=new, root=log.root_at(new)), LOG_KEY)
    proof = log.prove_consistency(old, new) if 0 < old <= new else ()
    return witness_http.to_bytes(Request(**({"old_size": old, "proof": proof, "checkpoint_note": signed} | changes)))


def signed_head(size, root, signer=LOG_KEY, origin=ORIGIN):
    """Signed though the root may be impossible: what a broken log would send."""
    text = f"{origin}\n{size}\n".encode() + encode_base64(root).encode() + b"\n"
    return note.sign(text, signer).to_bytes()


def test_two_hundred_and_what_is_kept(asked, tmp_path, state):
    log = make_log(tmp_path / "log", 3, 5)
    answer = asked.add_checkpoint(request(log, 0, 3))
    assert answer.status == 200
    text = checkpoint.to_text(Checkpoint(origin=ORIGIN, size=3, root=log.root_at(3)))
    lines = note.parse(text + b"\n" + answer.body).signatures
    assert [cosignature.verify(line, k.verifier, text) for line, k in zip(lines, [W0, ML_DSA], strict=True)] == [
        1000
    ] * 2
    assert asked.add_checkpoint(request(log, 3)).status == 200
    assert asked.add_checkpoint(request(log, 8)).status == 200  # the same again: a new time
    kept = Memory(folder=state).remembered(ORIGIN)
    assert checkpoint.parse_signed(kept)[1] == log.checkpoint()
    assert asked.latest(PLACE).body == kept
    both = policy.parse(
        f"log {LOG_KEY.verifier.vkey}\nwitness a {W0.verifier.vkey}\nwitness b {ML_DSA.verifier.vkey}\n"
        "group g all a b\nquorum g\n".encode()
    )
    assert both.verify_checkpoint(kept).quorum_met


def test_the_empty_tree_is_cosigned(asked, tmp_path):
    log = make_log(tmp_path / "log")
    assert asked.add_checkpoint(request(log)).status == 200
    log.append([b"x"], LOG_KEY)
    assert asked.add_checkpoint(request(log)).status == 200


def test_409_says_what_is_remembered(asked, tmp_path):
    log = make_log(tmp_path / "log", 9)
    answer = asked.add_checkpoint(request(log, 4))
    assert (answer.status, answer.body, answer.kind) == (409, b"0\n", "text/x.tlog.size")
    assert asked.add_checkpoint(request(log, 0, 5)).status == 200
    for old in (0, 4, 6):
        answer = asked.add_checkpoint(request(log, old))
        assert (answer.status, answer.body, answer.kind) == (409, b"5\n", "text/x.tlog.size")
    # Smaller than what was seen: whatever is claimed, nothing older is ever cosigned.
    assert asked.add_checkpoint(request(log, 3, 4)).status == 409


def test_422(asked, tmp_path, state):
    log = make_log(tmp_path / "log", 9)
    assert asked.add_checkpoint(request(log, 0, proof=(bytes(32),))).status == 422
    assert asked.add_checkpoint(request(log, 0, checkpoint_note=signed_head(0, bytes(32)))).status == 422
    assert asked.add_checkpoint(request(log, 0, 5)).status == 200
    good = log.prove_consistency(5, 9)
    for proof in ((), good[:-1], (*good, bytes(32)), good[::-1], (bytes(32), *good[1:])):
        assert asked.add_checkpoint(request(log, 5, proof=proof)).status == 422
    other = checkpoint.sign(Checkpoint(origin=ORIGIN, size=9, root=bytes(32)), LOG_KEY)
    assert asked.add_checkpoint(request(log, 5, checkpoint_note=other)).status == 422
    assert asked.add_checkpoint(request(log, 5, 5, proof=(bytes(32),))).status == 422
    place = Memory(folder=state).place(ORIGIN)
    assert not (place / "evidence").exists()  # a bad proof proves nothing against a log
    same = checkpoint.sign(Checkpoint(origin=ORIGIN, size=5, root=bytes(32)), LOG_KEY)
    stuffed = checkpoint.parse_signed(same)[0]
    for number in range(3):
        line = note.Signature(name=f"stranger{number}", key_id=b"abcd", value=b"noise")
        data = stuffed.with_signature(line).to_bytes()
        assert asked.add_checkpoint(request(log, 5, proof=(), checkpoint_note=data)).status == 422
    # Two roots for one size do, and are kept once, without what others wrote beside them.
    (kept,) = (place / "evidence").iterdir()
    offered = (kept / "offered").read_bytes()
    assert b"stranger" not in offered
    assert POLICY.verify_checkpoint(offered).checkpoint.root == bytes(32)
    assert POLICY.verify_checkpoint((kept / "remembered").read_bytes()).checkpoint.root == log.root_at(5)
    assert asked.add_checkpoint(request(log, 5)).status == 200


def test_403_and_404(asked, tmp_path, state):
    log = make_log(tmp_path / "log", 3)
    root = log.root_at(3)
    other = key("example.com/other", "log")
    unknown = signed_head(3, root, other, other.name)
    assert asked.add_checkpoint(request(log, checkpoint_note=unknown)).status == 404
    not_signed = signed_head(3, root, key(ORIGIN, "statement"))
    assert asked.add_checkpoint(request(log, checkpoint_note=not_signed)).status == 403
    signed, _ = checkpoint.parse_signed(signed_head(3, root))
    bad = note.Signature(name=ORIGIN, key_id=signed.signatures[0].key_id, value=bytes(64))
    for lines in ((bad,), (*signed.signatures, bad)):
        data = note.Note(text=signed.text, signatures=lines).to_bytes()
        assert asked.add_checkpoint(request(log, checkpoint_note=data)).status == 403
    assert not state.exists()


def test_400(asked, tmp_path):
    log = make_log(tmp_path / "log", 3)
    good = request(log)
    signed = good.partition(b"\n\n")[2]
    for body in (
        b"",
        b"old 0\n",
        b"old 0\n\n",
        b"old 0\n" + signed,
        b"old 00\n\n" + signed,
        b"old -1\n\n" + signed,
        b"old  0\n\n" + signed,
        b"new 0\n\n" + signed,
        b"old 0\r\n\r\n" + signed,
        b"old 0\nAAAA\n\n" + signed,
        b"old 0\nAB==\n\n" + signed,
        b"old 0\n\xff\n\n" + signed,
        b"old 9223372036854775808\n\n" + signed,
        b"old 0\n" + (encode_base64(bytes(32)).encode() + b"\n") * 64 + b"\n" + signed,
        good[:-1],
        good + b"\n",
        good.replace(b"\n3\n", b"\n03\n"),
        request(log, 4),
        bytes(witness_http.MAX_REQUEST + 1),
    ):
        assert asked.add_checkpoint(body).status == 400, body[:60]
    assert asked.add_checkpoint(good).status == 200


def test_500_when_the_memory_or_the_clock_fails(asked, tmp_path, state):
    log = make_log(tmp_path / "log", 3)
    wrong = Witness(keys=[W0], logs=asked.logs, memory=asked.memory, clock=lambda: 0)
    assert wrong.add_checkpoint(request(log)).status == 500
    assert asked.latest(PLACE).status == 404
    assert asked.add_checkpoint(request(log)).status == 200
    (Memory(folder=state).place(ORIGIN) / "checkpoint").write_bytes(b"junk")
    assert asked.add_checkpoint(request(log, 3)).status == 500
    assert asked.latest(PLACE).status == 500


def test_the_folder_command_and_the_endpoint_share_a_memory(asked, tmp_path, state):
    log = make_log(tmp_path / "log", 3)
    witness.cosign(log.path, W0, state, 5, log_key=LOG_KEY.verifier)
    assert asked.latest(PLACE).status == 404  # what it kept has no line of ours
    assert asked.add_checkpoint(request(log)).body == b"3\n"
    assert asked.add_checkpoint(request(log, 3)).status == 200
    assert asked.latest(PLACE).status == 200
    assert asked.latest("0" * 64).status == 404
    shutil.copytree(log.path, tmp_path / "old")
    log.append([b"x"], LOG_KEY)
    assert asked.add_checkpoint(request(log, 3)).status == 200
    with pytest.raises(Rollback):
        witness.cosign(tmp_path / "old", W0, state, 5, log_key=LOG_KEY.verifier)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_malformed(data):
    with contextlib.suppress(MalformedError):
        assert witness_http.to_bytes(witness_http.parse(data)) == data


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63), st.binary(max_size=40))
def test_requests_read_back(old_size, proof, signed):
    asked = Request(old_size=old_size, proof=tuple(proof), checkpoint_note=signed)
    assert witness_http.parse(witness_http.to_bytes(asked)) == asked


def talk(url, data):
    """Send raw bytes, give back everything until the server closes."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_over_http(asked, tmp_path):
    log = make_log(tmp_path / "log", 3, 300)
    with serve(asked, prefix="/w") as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)

        def ask(method, path, body=None):
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type"), answer.read()

        assert ask("GET", f"/w/{PLACE}/checkpoint")[0] == 404
        assert ask("POST", "/w/add-checkpoint", request(log, 0, 3))[0] == 200
        status, kind, body = ask("POST", "/w/add-checkpoint", request(log, 0, 3))
        assert (status, kind, body) == (409, "text/x.tlog.size", b"3\n")
        assert ask("POST", "/w/add-checkpoint", request(log, 3))[0] == 200
        status, kind, body = ask("GET", f"/w/{PLACE}/checkpoint")
        assert (status, kind) == (200, "text/plain; charset=utf-8")
        assert POLICY.verify_checkpoint(body).checkpoint == log.checkpoint()
        assert ask("GET", "/w/nothing")[0] == ask("POST", "/w/sign-subtree", b"x")[0] == 404
        assert ask("POST", "/add-checkpoint", b"x")[0] == 404
        assert ask("PUT", "/w/add-checkpoint", b"x")[0] == 501
        connection.close()


def test_http_framing(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(witness_http._Handler, "timeout", 0.3)
    log = make_log(tmp_path / "log", 3)
    body = request(log)
    post = b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    with serve(asked) as url:
        for head, status in [
            (b"\r\n", b"411"),
            (b"Content-Length: -1\r\n\r\n", b"411"),
            (b"Content-Length: 1e3\r\n\r\n", b"411"),
            (b"Transfer-Encoding: chunked\r\n" + length, b"411"),
            (b"Content-Length: 99999999\r\n\r\n", b"413"),
        ]:
            answer = talk(url, post + head + body)
            # One answer, then the connection is closed: the body is never taken for a second request.
            assert answer.split(b" ")[1] == status
            assert answer.count(b"HTTP/1.1 ") == 1
            assert b"Connection: close" in answer
        get = b"GET /%s/checkpoint HTTP/1.1\r\nHost: x\r\n" % PLACE.encode()
        assert talk(url, get + length + body).count(b"HTTP/1.1 ") == 1
        assert talk(url, post + length + body[:-1]) == b""  # cut short: nobody to answer
        both = talk(url, post + length + body + get + b"\r\n")
        assert both.count(b"HTTP/1.1 200") == 2
        assert talk(url, b"POST /add-checkpoint HTTP/1.0\r\n" + length + request(log)).count(b"Connection: close") == 1
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30) as silent:
            assert silent.recv(10) == b""  # closed by the server, or this times out


def test_too_many_connections_are_closed(asked, monkeypatch):
    monkeypatch.setattr(witness_http, "MAX_CONNECTIONS", 2)
    with serve(asked) as url, contextlib.ExitStack() as stack:
        address = (urlsplit(url).hostname, urlsplit(url).port)
        open_ones = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(2)]
        for one in open_ones:
            one.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            assert one.recv(12) == b"HTTP/1.1 404"
        third = stack.enter_context(socket.create_connection(address, timeout=30))
        with contextlib.suppress(ConnectionResetError):
            assert third.recv(12) == b""
        open_ones[0].close()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                answer = talk(url, b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if answer.startswith(b"HTTP/1.1 404"):
                    break
        else:
            pytest.fail("a closed connection's place was never free again")


def test_an_address_that_is_taken(asked):
    with serve(asked) as url, pytest.raises(Error, match="listen"), serve(asked, port=urlsplit(url).port):
        pass


def test_compare_and_store_is_one_step(asked, tmp_path, state):
    # Many senders at once: sizes never go back, and each size that won was cosigned from the one before.
    log = make_log(tmp_path / "log", 40)
    seen = []

    def push(new):
        old = 0
        for _ in range(60):
            answer = asked.add_checkpoint(request(log, old, new))
            if answer.status == 200:
                seen.append((old, new))
                return
            assert answer.status == 409
            old = int(answer.body)
            if old > new:
                return

    with serve(asked), ThreadPoolExecutor(6) as pool:
        list(pool.map(push, [5, 12, 3, 40, 33, 8, 25, 16, 1, 39]))
    assert max(new for _, new in seen) == 40
    steps = sorted(seen)
    assert [old for old, _ in steps] == [0, *(new for _, new in steps[:-1])]
    assert checkpoint.parse_signed(Memory(folder=state).remembered(ORIGIN))[1].size == 40


class TestSubmit:
    def submit(self, log, url, *keys):
        with Client(url, seconds=10) as client:
            return submit(log.path, client, keys or [W0.verifier, ML_DSA.verifier])

    def test_a_log_gets_its_quorum(self, asked, tmp_path):
        log = make_log(tmp_path / "log", 3)
        second = Witness(keys=[WITNESSES[1]], logs=asked.logs, memory=Memory(folder=tmp_path / "s1"), clock=lambda: 7)
        with serve(asked, prefix="/x") as one, serve(second) as two:
            for count in (0, 300, 1):
                if count:
                    log.append([b"more"] * count, LOG_KEY)
                self.submit(log, one + "/")
                data = self.submit(log, two, WITNESSES[1].verifier)
                assert data == log.checkpoint_bytes()
                verified = POLICY.verify_checkpoint(data)
                assert dict(verified.cosigned) == {"w0": 1000, "w1": 7}
                assert len(checkpoint.parse_signed(data)[0].signatures) == 4
                self.submit(log, one)
                assert len(checkpoint.parse_signed(log.checkpoint_bytes())[0].signatures) == 4

    def test_lost_entries_are_noticed(self, asked, tmp_path):
        log = make_log(tmp_path / "log", 3)
        shutil.copytree(log.path, tmp_path / "old")
        log.append([b"x"], LOG_KEY)
        with serve(asked) as url:
            self.submit(log, url)
            with pytest.raises(Rollback, match="has seen 4"):
                self.submit(Log.open(tmp_path / "old"), url)

    def test_refusals(self, asked, tmp_path):
        log = make_log(tmp_path / "log", 3)
        with serve(asked) as url:
            with pytest.raises(UnknownKey):
                self.submit(log, url, WITNESSES[2].verifier)
            with pytest.raises(VerificationError, match="404"):
                self.submit(log, url + "/elsewhere")
        assert b"witness" not in log.checkpoint_bytes()

    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (409, b"x\n", MalformedError),
            (409, b"\xff\n", MalformedError),
            (409, b"2\n", VerificationError),  # twice
            (200, b"junk", MalformedError),
            (200, b"", MalformedError),
            (200, b"\n\xe2\x80\x94 a b\n", MalformedError),
            (422, b"\x1b[2J\xff", VerificationError),
            (200, None, BadSignature),
        ],
    )
    def test_answers_that_are_not_believed(self, asked, tmp_path, monkeypatch, status, body, error):
        log = make_log(tmp_path / "log", 3)
        before = log.checkpoint_bytes()
        if body is None:
            body = note.Signature(name=W0.name, key_id=W0.verifier.key_id, value=bytes(72)).line
        answer = witness_http.Answer(status=status, body=body)
        monkeypatch.setattr(Witness, "add_checkpoint", lambda self, data: answer)
        with serve(asked) as url, pytest.raises(error) as caught:
            self.submit(log, url)
        assert str(caught.value).isprintable()
        assert log.checkpoint_bytes() == before

    def test_a_log_that_grew_meanwhile_keeps_its_checkpoint(self, asked, tmp_path, monkeypatch):
        log = make_log(tmp_path / "log", 3)
        ask = Client.ask

        def growing(self, *args, **kwargs):
            log.append([b"x"], LOG_KEY)
            return ask(self, *args, **kwargs)

        monkeypatch.setattr(Client, "ask", growing)
        with serve(asked) as url, pytest.raises(Error, match="grown"):
            self.submit(log, url)
        assert log.size == 4

    def test_no_room(self, asked, tmp_path):
        log = make_log(tmp_path / "log", 3)
        signed, _ = checkpoint.parse_signed(log.checkpoint_bytes())
        for number in range(14):
            signed = signed.with_signature(note.Signature(name=f"big{number}", key_id=b"abcd", value=bytes(6900)))
        (log.path / "checkpoint").write_bytes(signed.to_bytes())
        with serve(asked) as url, pytest.raises(EncodingError, match="room"):
            self.submit(log, url)


def test_threads_end_with_the_context(asked):
    before = threading.active_count()
    with serve(asked):
        assert threading.active_count() > before
    assert threading.active_count() == before
