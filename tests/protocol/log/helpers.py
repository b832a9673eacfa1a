"""Fixed keys, a policy over them, and small logs: nothing here is random."""

import base64
import hashlib
from pathlib import Path

from protocol.keys import USES, SigningKey
from protocol.log import policy
from protocol.log.store import Log

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
ORIGIN = "example.com/log"


def key(name: str, use: str) -> SigningKey:
    return SigningKey(name=name, use=USES[use], seed=hashlib.sha256(f"{use} {name}".encode()).digest())


LOG_KEY = key(ORIGIN, "log")
ML_DSA = key("witness.example/pq", "witness-ml-dsa")
WITNESSES = [key(f"witness.example/w{i}", "witness") for i in range(3)]
POLICY_TEXT = "\n".join(
    [
        "# two of three",
        f"log {LOG_KEY.verifier.vkey} https://example.com/log/",
        *(f"witness w{i} {w.verifier.vkey}" for i, w in enumerate(WITNESSES)),
        "group all-three 2 w0 w1 w2",
        "quorum all-three",
        "",
    ]
)
POLICY = policy.parse(POLICY_TEXT.encode())
NO_QUORUM = policy.parse(POLICY_TEXT.replace("quorum all-three", "quorum none").encode())


def make_log(path: Path, *batches: int) -> Log:
    """A log that got batches of so many entries, one after the other; entry i is `entry i`."""
    log = Log.create(path, LOG_KEY)
    size = 0
    for count in batches:
        log.append([b"entry %d" % i for i in range(size, size + count)], LOG_KEY)
        size += count
    return log


def unbase64(text: str) -> bytes:
    return base64.b64decode(text)
