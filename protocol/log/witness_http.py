"""The witness as an HTTP endpoint: `POST <prefix>/add-checkpoint`, `GET <prefix>/<origin hash>/checkpoint`.

Proves: what `witness` proves; a sender brings the consistency proof, so the witness never reads the log.
Whoever can reach the port can ask, and gets nothing but cosignatures of what a known log signed. Assumes
that TLS and limits per client, where wanted, are in front of it. What leaves the witness is on disk first.
`sign-subtree`, which is optional, is not offered. Source: C2SP tlog-witness v1.0.0. SPEC 5.8.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from protocol.encoding import decode_base64, encode_base64
from protocol.errors import Consistency, EncodingError, Error, MalformedError, Schema, TooLarge, VerificationError
from protocol.keys import SigningKey, VerifierKey
from protocol.log import checkpoint, cosignature, merkle, note
from protocol.log.checkpoint import MAX_CHECKPOINT
from protocol.log.witness import Memory

MAX_REQUEST = MAX_CHECKPOINT + 4096
"""Bytes of a request: a checkpoint, 63 proof lines of 45 bytes, the old size."""
MAX_CONNECTIONS = 64
"""Served at a time; further ones are closed at once."""
IDLE_SECONDS = 10.0
"""How long a connection may be silent."""
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a log sends.

    Args:
        old_size: entries of the checkpoint that the witness is believed to remember.
        proof: consistency proof from there, 32 bytes each.
        checkpoint_note: the new checkpoint with its signatures.
    """

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint_note: bytes


def parse(data: bytes) -> Request:
    """Read the body of `add-checkpoint`; the checkpoint in it is not looked at.

    Raises:
        MalformedError: with the reason.
    """
    if len(data) > MAX_REQUEST:
        raise TooLarge(f"a request of {len(data)} bytes, at most {MAX_REQUEST} are accepted")
    head, blank, signed = data.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Schema("proof lines are ASCII") from None
    if not blank or not first.startswith("old "):
        raise Schema("a request is: old <size>, proof lines, an empty line, a checkpoint")
    if len(lines) > merkle.MAX_PROOF:
        raise TooLarge(f"{len(lines)} proof lines, at most {merkle.MAX_PROOF} are possible")
    proof = tuple(decode_base64(line) for line in lines)
    if any(len(value) != merkle.HASH_SIZE for value in proof):
        raise Schema(f"a proof line that is not {merkle.HASH_SIZE} bytes")
    old_size = checkpoint.parse_decimal(first.removeprefix("old "), what="old size")
    return Request(old_size=old_size, proof=proof, checkpoint_note=signed)


def to_bytes(request: Request) -> bytes:
    """Write a request's body, for a log to send."""
    lines = [f"old {request.old_size}", *(encode_base64(value) for value in request.proof)]
    return "".join(f"{line}\n" for line in lines).encode() + b"\n" + request.checkpoint_note


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer: status, body, and the body's type."""

    status: int
    body: bytes
    kind: str = _TEXT


def _refuse(status: int, why: object) -> Answer:
    return Answer(status=status, body=f"{why}\n".encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """Who cosigns, for which logs, remembering where. Nothing here knows of sockets.

    Args:
        keys: one witness key, or one of each type.
        logs: the keys trusted for each origin.
        memory: the checkpoints seen last; also what the command `witness` uses.
        clock: gives POSIX seconds.
    """

    keys: Sequence[SigningKey]
    logs: Mapping[str, Sequence[VerifierKey]]
    memory: Memory
    clock: Callable[[], int]

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer `add-checkpoint`; the order of checks is the specification's."""
        # 1. A request of the right form: 400.
        try:
            request = parse(body)
            signed = note.parse(request.checkpoint_note, limit=MAX_CHECKPOINT)
            head = checkpoint.parse(signed.text, any_empty_root=True)
        except MalformedError as error:
            return _refuse(400, error)
        # 2. Of a known log, 404, that signed it, 403: from here on the log answers for what it says.
        known = self.logs.get(head.origin)
        if known is None:
            return _refuse(404, "not a log that this witness knows")
        try:
            signers = note.verify(signed, known)
        except VerificationError as error:
            return _refuse(403, error)
        # 3. Sizes that can be, 400, and a root that can be, 422.
        if request.old_size > head.size:
            return _refuse(400, f"the old size {request.old_size} is above the checkpoint's size {head.size}")
        if head.size == 0 and head.root != merkle.EMPTY_ROOT:
            return _refuse(422, "a tree of size 0 whose root is not that of the empty tree")
        # 4. Only the lines that were verified, each key's first, and our own are kept: nobody else's text.
        lines = [next(line for line in signed.signatures if line.is_by(key)) for key in signers]
        try:
            now = self.clock()
            own = [cosignature.sign(signed.text, key, now) for key in self.keys]
        except EncodingError as error:
            return _refuse(500, error)  # a wrong clock, or an origin that the key's type cannot speak of
        cosigned = note.Note(text=signed.text, signatures=(*lines, *own)).to_bytes()
        # 5. Compare and store, one step under a lock: 409 and the size that is remembered, or 422.
        try:
            remembered = self.memory.replace(cosigned, request.old_size, request.proof)
        except Consistency as error:
            return _refuse(422, error)
        except Error:
            return _refuse(500, "the witness cannot use its memory now")
        if remembered is not None:
            return Answer(status=409, body=f"{remembered}\n".encode(), kind="text/x.tlog.size")
        return Answer(status=200, body=b"".join(line.line for line in own))

    def latest(self, origin_hash: str) -> Answer:
        """Answer `GET <origin hash>/checkpoint`: the checkpoint cosigned last, with our lines."""
        for origin in self.logs:
            if hashlib.sha256(origin.encode()).hexdigest() == origin_hash:
                try:
                    data = self.memory.remembered(origin)
                    # The command `witness` remembers the log's own lines only: that is not served.
                    lines = checkpoint.parse_signed(data)[0].signatures if data is not None else ()
                except Error:
                    return _refuse(500, "the witness cannot use its memory now")
                if data is not None and any(line.is_by(key.verifier) for line in lines for key in self.keys):
                    return Answer(status=200, body=data)
        return _refuse(404, "no checkpoint of such a log was cosigned here")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "prune-audit"
    sys_version = ""
    timeout = IDLE_SECONDS
    server: "_Server"

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        close = self.close_connection
        # What is not read of a request must not be taken for the next one: close after every refusal here.
        self.close_connection = True
        if self.path != f"{self.server.prefix}/add-checkpoint":
            self._send(_refuse(404, "no such call"))
        elif "Transfer-Encoding" in self.headers or not re.fullmatch(r"[0-9]{1,9}", length):
            self._send(_refuse(411, "a request needs a length"))
        elif int(length) > MAX_REQUEST:
            self._send(_refuse(413, f"at most {MAX_REQUEST} bytes are accepted"))
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                self.close_connection = close
                self._send(self.server.witness.add_checkpoint(body))

    def do_GET(self) -> None:
        self.close_connection |= "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        found = re.fullmatch(r"/([0-9a-f]{64})/checkpoint", self.path.removeprefix(self.server.prefix))
        self._send(self.server.witness.latest(found[1]) if found else _refuse(404, "no such file"))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
        # Addresses of those who ask are nobody's business here; a proxy in front may keep a log.
        del format, args


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], witness: Witness, prefix: str) -> None:
        self.witness = witness
        self.prefix = prefix
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A peer that went away or fell silent; the base class would print a traceback.
        del request, client_address


@contextmanager
def serve(witness: Witness, *, host: str = "127.0.0.1", port: int = 0, prefix: str = "") -> Iterator[str]:
    """Answer requests in threads of this process for as long as the context lasts; gives the URL prefix.

    Args:
        witness: who answers.
        host: address to listen at; only this machine by default.
        port: 0 for any free one.
        prefix: path before `/add-checkpoint`, beginning with `/` unless empty.

    Raises:
        Error: the address cannot be had.
    """
    try:
        server = _Server((host, port), witness, prefix)
    except (OSError, OverflowError) as error:
        raise Error(f"cannot listen: {error}", where=f"{host}:{port}") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
