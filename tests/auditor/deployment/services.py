"""Endpoints to ask: in this process, honest or not, and raw answers over loopback."""

import contextlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from auditor.deployment.client import Nothing
from auditor.deployment.inference import Answer
from auditor.deployment.pacing import Pace


class Time:
    """A clock that only waiting moves, and by how much it was moved."""

    def __init__(self, now=1_790_000_000.0):
        self.now, self.waits = now, []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.waits.append(seconds)
        self.now += seconds

    @property
    def pace(self):
        return Pace(self.clock, self.sleep)


KNOWN = {}
"""Outputs on records that were asked for before, by patch: the same challenge asks for the same ones."""


class Service:
    """A transport without a wire: answers as `cheat` says, on which it can look at everything that a server sees.

    `cheat(identity, base, certified, record)` gives the logits, or a `Nothing`.
    """

    def __init__(self, evidence, cheat=None, *, version=None, time=None):
        self.evidence, self.cheat, self.version, self.time = evidence, cheat, version, time
        self.seen, self.sent_at, self.ready_calls = [], [], 0
        self._known = KNOWN.setdefault(id(evidence.case.patch), {})

    def learn(self, probes):
        """Run the models once for all probes, and not for each."""
        inputs = self.evidence.case.schema.dequantise(probes.values)
        for row, base, after in zip(inputs, probes.base, probes.certified, strict=True):
            self._known[row.tobytes()] = (base, after)

    def ready(self, endpoint, url, identity):
        self.ready_calls += 1

    def ask(self, endpoint, url, identity, query):
        key = query.record.tobytes()
        self.seen.append((identity.name, url, key))
        if self.time is not None:
            self.sent_at.append(self.time.now)
        base, after = self._known[key] if key in self._known else self._both(query.record)
        said = after if self.cheat is None else self.cheat(identity.name, base, after, query.record)
        if isinstance(said, Nothing):
            return said
        return Answer(logits=np.asarray(said, dtype=np.float32), version=self.version)

    def _both(self, record):
        grid, _ = self.evidence.case.schema.quantise(record[None])
        base, after = self.evidence.run(np.asarray(grid, dtype=np.int64))
        self._known[record.tobytes()] = base[0], after[0]
        return base[0], after[0]


@contextlib.contextmanager
def raw(*answers):
    """A server that reads a request and sends these bytes, one for each connection; the last one again and again."""
    left, requests = list(answers), []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    request = connection.recv(1 << 20)
                    if request == b"stop":
                        return
                    head, _, rest = request.partition(b"\r\n\r\n")
                    length = re.search(rb"(?i)content-length: (\d+)", head)
                    while length and len(rest) < int(length[1]):
                        rest += (more := connection.recv(1 << 20))
                        request += more
                    requests.append(request)
                    connection.sendall(left.pop(0) if len(left) > 1 else left[0])

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        finally:
            with contextlib.suppress(OSError), socket.create_connection(listener.getsockname(), timeout=1) as last:
                last.sendall(b"stop")
            thread.join(5)


def ok(body, *headers):
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


@contextlib.contextmanager
def serving(model, answer, *, mishap=lambda number: None):
    """The protocol over real HTTP: `answer(identity header, record)` gives logits.

    `mishap(number)` gives raw bytes to send in place of the answer to the request of this number (empty: hang up).
    """
    count, lock, seen = [0], threading.Lock(), []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def reply(self, value):
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path == "/v2/health/ready":
                return self.reply({})
            assert self.path.startswith(f"/v2/models/{model}"), self.path
            return self.reply({"name": model, "platform": "", "inputs": [], "outputs": []})

        def do_POST(self):
            value = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = count[0]
                count[0] += 1
            spoilt = mishap(number)
            if spoilt is not None:
                self.wfile.write(spoilt)
                self.close_connection = True
                return None
            (tensor,) = value["inputs"]
            record = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])[0]
            seen.append((self.headers.get("Authorization", ""), tensor["name"]))
            logits = [float(x) for x in answer(self.headers.get("Authorization", ""), record)]
            output = {"name": "prune/output", "datatype": "FP32", "shape": [1, len(logits)], "data": logits}
            return self.reply({"model_name": model, "id": "x", "outputs": [output]})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
