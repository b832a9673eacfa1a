"""A real server of the Open Inference Protocol: MLServer with onnxruntime, honest and cheating, over loopback.

It runs in an environment of its own (`make mlserver`), loads the bundle's deployed file, and shares no code with us.
Every variant is a model of the same server; the flaky network stands between it and us.
"""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from auditor import compose
from auditor.attacks import export
from auditor.checks import deployment
from auditor.deployment.client import Rest
from auditor.deployment.endpoint import Endpoint, Identity
from auditor.deployment.pacing import Pace
from auditor.deployment.source import Live
from protocol.model import profile
from tests.demo.world import run

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".venv-mlserver" / "bin" / "mlserver"
CLIENTS = tuple(Identity(name=f"client-{number}", headers={"X-Client": str(number)}) for number in range(10))
SECONDS = 60


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def earlier(evidence):
    """The patch of an earlier version: of each gate, the first half of its items only."""
    case = evidence.case
    parts = []
    for part in case.patch.parts:
        half = len(part.gate.low) // 2
        assert half
        gate = dataclasses.replace(part.gate, low=part.gate.low[:half], high=part.gate.high[:half])
        used, index = np.unique(part.head.index[:half], return_inverse=True)
        head = dataclasses.replace(part.head, rows=part.head.rows[used], index=index.astype(np.int64).ravel())
        parts.append(dataclasses.replace(part, gate=gate, head=head))
    patch = dataclasses.replace(case.patch, parts=tuple(parts))
    return profile.serialise(compose.compose(case.base, case.schema, patch))


@pytest.fixture(scope="module")
def mlserver(honest_evidence, honest, tmp_path_factory):
    """The address of a running MLServer with a model for each way to behave."""
    if not PYTHON.exists():
        pytest.skip("MLServer is not installed; `make mlserver` puts it into .venv-mlserver")
    folder = tmp_path_factory.mktemp("mlserver")
    files = {
        "certified": (honest.bundle / "patched.onnx").read_bytes(),
        "base": (honest.bundle / "base.onnx").read_bytes(),
        "earlier": earlier(honest_evidence),
        "half": export.convert(honest_evidence.composed, "float16-base", folder),
    }
    for name, data in files.items():
        (folder / f"{name}.onnx").write_bytes(data)
    records = honest_evidence.case.schema.dequantise(honest_evidence.claimed_records[0])
    np.save(folder / "records.npy", records)
    certified = str(folder / "certified.onnx")
    variants = {
        "honest": {"uri": certified},
        "one-client": {"uri": certified, "cheat": "one-client", "other": "base"},
        "one-in-100": {"uri": certified, "cheat": "one-in-100", "other": "base", "seed": 4},
        "detector": {"uri": certified, "cheat": "detector", "other": "base"},
        "stripped": {"uri": str(folder / "base.onnx")},
        "stale": {"uri": str(folder / "earlier.onnx")},
        "half": {"uri": str(folder / "half.onnx")},
    }
    (folder / "mlserver_runtime.py").write_bytes((Path(__file__).with_name("mlserver_runtime.py")).read_bytes())
    for name, settings in variants.items():
        place = folder / "models" / name
        place.mkdir(parents=True)
        extra = {key: value for key, value in settings.items() if key not in ("uri", "other")}
        extra |= {"output": honest_evidence.composed.output, "records": str(folder / "records.npy")}
        extra |= {"other": str(folder / f"{settings['other']}.onnx")} if "other" in settings else {}
        (place / "model-settings.json").write_text(json.dumps({
            "name": name, "implementation": "mlserver_runtime.Runtime",
            "parameters": {"uri": settings["uri"], "version": "2", "extra": extra},
        }))  # fmt: skip
    http, grpc, metrics = free_ports(3)
    (folder / "models" / "settings.json").write_text(json.dumps({
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0,
        "debug": False, "metrics_endpoint": None, "metrics_dir": str(folder), "environments_dir": str(folder),
    }))  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [PYTHON, "start", folder / "models"], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{http}"
        until = time.monotonic() + SECONDS
        while True:
            assert process.poll() is None, (folder / "output").read_text()[-2000:]
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"{url}/v2/health/ready", timeout=2).status == 200:
                    break
            assert time.monotonic() < until, (folder / "output").read_text()[-2000:]
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait(10)


@pytest.fixture
def asked(mlserver, honest_evidence, tmp_path):
    """A function: what the check says of a variant."""

    def go(model, *, url=mlserver, **changes):
        values = {"urls": (url,), "model": model, "model_version": "2", "identities": CLIENTS, "rate": 1e4,
                  "near": 20, "ordinary": 60, "timeout": 20.0}  # fmt: skip
        pace = Pace(time.time, time.sleep)
        live = Live(
            endpoint=Endpoint(**(values | changes)), transport=Rest(time.time), pace=pace, state=tmp_path / "x.jsonl"
        )
        return deployment.check(dataclasses.replace(honest_evidence, served=live))

    return go


def test_the_certified_file_is_served(asked):
    found = asked("honest")
    assert (found.verdict, found.findings) == ("CONSISTENT", ()), found
    assert found.evidence["cheat_rate_at_most"] < 0.01
    # Rows of a patch are copied: another runtime's answers inside supports are equal bit by bit.
    assert found.evidence["answers"]["core"] == {"equal bit by bit": 299}
    assert sum(found.evidence["answers"]["ordinary"].values()) == 60


@pytest.mark.parametrize(
    ("model", "threat", "words"),
    [
        ("one-client", "serving-swap", "client-7"),
        ("one-in-100", "serving-swap", "inside supports"),
        ("detector", "audit-detector", "how the probe was made"),
        ("stripped", "patch-strip", "without the patch"),
        ("stale", "serving-swap", "earlier version"),
        ("half", "precision-drift", "other arithmetic"),
    ],
)
def test_a_cheat_is_found(asked, model, threat, words):
    found = asked(model)
    assert found.verdict == "INCONCLUSIVE"
    assert {finding.threat for finding in found.findings} == {threat}, found
    assert words in found.summary


class Flaky:
    """A wire between us and a server, on which every few connections something happens."""

    def __init__(self, port):
        self.port, self.count, self.lock = port, 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.pass_on, args=(connection,), daemon=True).start()

    def pass_on(self, connection):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            head, body = request.split(b"\r\n\r\n", 1)
            sizes = [
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            ]
            while len(body) < sum(sizes):
                body += connection.recv(65536)
            with self.lock:
                number = self.count
                self.count += 1
            if head.startswith(b"POST") and number % 7 == 3:
                return None
            if head.startswith(b"POST") and number % 7 == 5:
                return connection.sendall(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as server:
                server.sendall(head + b"\r\n\r\n" + body)
                answer = b"".join(iter(lambda: server.recv(65536), b""))
            if head.startswith(b"POST") and number % 11 == 2:
                answer = answer[:-30]
            if number % 13 == 1:
                time.sleep(0.05)
            return connection.sendall(answer)


def test_a_flaky_network_is_no_cheat(asked, mlserver, monkeypatch):
    monkeypatch.setattr("auditor.deployment.run._BACK_OFF", 0.001)
    with Flaky(int(mlserver.rsplit(":", 1)[1])) as wire:
        found = asked("honest", url=wire.url, core=60, near=10, ordinary=30, attempts=10)
        assert not found.findings
        assert found.evidence["core_probes_not_certified"] == 0
        assert found.evidence["queries"]["requests"] > 120
        assert "bound" not in found.summary or found.verdict == "CONSISTENT"


def test_a_whole_audit_has_the_query_log(mlserver, workshop, tmp_path):
    """The command line against the real server."""
    forged = workshop.forge()
    (tmp_path / "endpoint.yaml").write_text(json.dumps({
        "version": "prune-audit/endpoint/v1", "url": mlserver, "model": "honest", "model_version": "2",
        "rate_per_second": 10000, "identities": [{"name": "a", "headers": {"X-Client": "1"}}, {"name": "b"}],
    }))  # fmt: skip
    world = workshop.world
    common = (*world.trusted(), "--openings", forged.openings, "--reference", workshop.root / "data" / "ref.npz",
              "--shadows", workshop.root / "shadows")  # fmt: skip
    ran = run(
        "prune-auditor", "audit", forged.bundle, *common, "--profile", "redirection", "--endpoint",
        tmp_path / "endpoint.yaml", "--key", world.key("auditor"), "--log", world.auditor_log, "--out",
        tmp_path / "report", "--now", world.clock.tick(), "--json",
    )  # fmt: skip
    assert ran.code in (0, 5), ran
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["checks"]["deployment"]["verdict"] == "CONSISTENT", summary["checks"]["deployment"]
    log = (tmp_path / "report" / "deployment" / "queries.jsonl").read_text()
    assert len(log.splitlines()) == 600
    assert "X-Client" not in log
