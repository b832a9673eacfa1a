"""Keys that rotate, are revoked or leak, in policy and trust file: which receipts still verify, years later."""

import dataclasses
import json

import pytest

from auditor import receipts
from protocol import receipt_file, trust
from protocol.encoding import format_time
from protocol.errors import Error, Expired, UnknownKey
from protocol.keys import load_signing_key
from protocol.log import checkpoint, note, policy, proof
from protocol.log.checkpoint import Checkpoint
from tests.demo.world import run
from tests.protocol.log.helpers import key


class Kept:
    """A finished receipt, and the witnessed times of its five messages."""

    def __init__(self, world):
        self.world = world
        self.path = world.root / "honest" / "report" / "receipts" / "000.receipt"
        self.data = self.path.read_bytes()
        self.policy = policy.parse(world.policy.read_bytes())
        self.trust = trust.parse(world.trust.read_bytes())
        file = receipt_file.parse(self.data)
        self.times = {
            name: proof.verify(file.envelopes[name], proof.parse(logged), self.policy).checkpoint.time
            for name, logged in file.proofs.items()
        }

    def changed(self, role, **limits):
        signers = tuple(dataclasses.replace(s, **limits) if s.role == role else s for s in self.trust.signers)
        return dataclasses.replace(self.trust, signers=signers)

    def verdict(self, signers, logs=None):
        # Through the file, as a reader would have it.
        return receipts.verify(
            self.data, policy=logs or self.policy, trust=trust.parse(trust.serialise(signers))
        ).verdict


@pytest.fixture(scope="module")
def kept(small_demo):
    return Kept(small_demo.world)


OWNER = ("commitment", "request", "certificate")
AUDITOR = ("report", "receipt")


@pytest.mark.parametrize(("role", "names"), [("owner", OWNER), ("auditor", AUDITOR)])
def test_revoked_later_the_old_receipt_stays(kept, role, names):
    last = max(kept.times[name] for name in names)
    assert kept.verdict(kept.changed(role, revoked_since=last + 1)) == "CONSISTENT"
    # What was witnessed at the revocation or after it does not count: one second decides.
    with pytest.raises(Expired, match="revoked before this was witnessed"):
        kept.verdict(kept.changed(role, revoked_since=last))


@pytest.mark.parametrize("role", ["owner", "auditor"])
def test_compromised_nobody_knows_since_when_nothing_counts(kept, role):
    """SPEC 6.3: `revokedSince` before everything. The signatures still verify; they prove nothing any more."""
    with pytest.raises(Expired, match="revoked"):
        kept.verdict(kept.changed(role, revoked_since=0))


@pytest.mark.parametrize(("role", "names"), [("owner", OWNER), ("auditor", AUDITOR)])
def test_validity_windows(kept, role, names):
    first, last = (edge(kept.times[name] for name in names) for edge in (min, max))
    assert kept.verdict(kept.changed(role, valid_from=first, valid_to=last + 1)) == "CONSISTENT"
    with pytest.raises(Expired, match="before the key"):
        kept.verdict(kept.changed(role, valid_from=first + 1))
    with pytest.raises(Expired, match="stopped being valid"):
        kept.verdict(kept.changed(role, valid_to=last))


def test_rotation_of_statement_keys(kept):
    """The old key until a day, a new one from that day on: receipts of both times verify by one trust file."""
    last = max(kept.times.values())
    fresh = [
        dataclasses.replace(s, key=key(f"{s.role}.example/new", "statement").verifier, valid_from=last + 1)
        for s in kept.trust.signers
    ]
    old = [dataclasses.replace(s, valid_to=last + 1) for s in kept.trust.signers]
    rotated = dataclasses.replace(kept.trust, signers=(*old, *fresh))
    assert kept.verdict(rotated) == "CONSISTENT"
    with pytest.raises(UnknownKey):
        kept.verdict(dataclasses.replace(kept.trust, signers=tuple(fresh)))
    # A rotated key does not lend its window to the other.
    swapped = dataclasses.replace(
        kept.trust,
        signers=tuple(dataclasses.replace(s, valid_from=last + 1) for s in kept.trust.signers),
    )
    with pytest.raises(Expired):
        kept.verdict(swapped)


def test_a_key_with_a_limit_needs_a_witnessed_time(kept):
    alone = dataclasses.replace(kept.policy, quorum="none")
    assert kept.verdict(kept.trust, alone) == "CONSISTENT"
    with pytest.raises(Expired, match="no quorum witnessed"):
        kept.verdict(kept.changed("owner", valid_from=0), alone)


def test_rotation_of_log_and_witness_keys(kept):
    """Policy: the log's old and new key under one origin; a witness's two keys, of which one is enough."""
    text = kept.world.policy.read_text()
    origin = "log.owner.example"
    new_log = key(origin, "log")
    new_witness = key("witness-north", "witness")
    lines = [f"log {new_log.verifier.vkey}"]
    lines += [line for line in text.splitlines() if not line.startswith(("group", "quorum"))]
    lines += [f"witness north-new {new_witness.verifier.vkey}", "group north any witness-north north-new"]
    lines += ["group witnesses 2 north witness-south witness-east", "quorum witnesses"]
    rotated = policy.parse("\n".join([*lines, ""]).encode())
    assert kept.verdict(kept.trust, rotated) == "CONSISTENT"
    # What the new log key signs is accepted by the same policy; both lines of one witness count once.
    head = Checkpoint(origin=origin, size=1, root=bytes(32))
    assert rotated.verify_checkpoint(checkpoint.sign(head, new_log)).origin == origin
    both = note.sign(checkpoint.to_text(head), new_log, load_signing_key(kept.world.key(origin)))
    assert rotated.verify_checkpoint(both.to_bytes()).origin == origin
    # A log key that is taken out of the policy takes its proofs with it.
    without = policy.parse("\n".join([*(line for line in lines if kept.world.vkey(origin) not in line), ""]).encode())
    with pytest.raises(Error):
        kept.verdict(kept.trust, without)


def test_the_command_says_which_key_and_why(kept, tmp_path):
    since = max(kept.times[name] for name in OWNER)
    for revoked, code, word in ((since + 1, 0, ""), (since, 4, "was revoked before this was witnessed")):
        value = json.loads(kept.world.trust.read_text())
        for signer in value["signers"]:
            if signer["role"] == "owner":
                signer["revokedSince"] = format_time(revoked)
        path = tmp_path / "trust.json"
        path.write_text(json.dumps(value, indent=2))
        ran = run("prune-auditor", "verify-receipt", kept.path, "--policy", kept.world.policy, "--trust", path)
        assert ran.code == code
        assert word in ran.err
