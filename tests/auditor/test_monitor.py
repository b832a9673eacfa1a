"""monitor: records that come back, audits without a report, requests past their deadline."""

import dataclasses

import pytest

from auditor import monitor
from auditor.ledger import leaf_of, sign
from owner.workspace import Workspace
from protocol import openings, trust
from protocol.errors import DigestMismatch, Error, UnknownKey
from protocol.keys import load_signing_key
from protocol.log import files, policy, proof
from protocol.log.http import Client
from protocol.log.store import Log
from protocol.log.verify import verify_log, verify_served
from protocol.messages.opening import Opening
from protocol.messages.request import Request, Scope
from tests.demo.world import run
from tests.protocol.log.test_http import serving


class Scene:
    """A copy of the small world, and what its logs hold."""

    def __init__(self, world):
        self.world = world
        self.policy = policy.parse(world.policy.read_bytes())
        self.trust = trust.parse(world.trust.read_bytes())
        self.workspace = Workspace(folder=world.root / "commitment")
        self.receipt = world.root / "honest" / "report" / "receipts" / "000.receipt"
        self.forgotten = monitor.forgotten_records(
            [("r", self.receipt.read_bytes())], policy=self.policy, trust=self.trust
        )

    def log(self, whose, envelope):
        folder = self.world.owner_log if whose == "owner" else self.world.auditor_log
        key = load_signing_key(self.world.key(f"log.{whose}.example"))
        index = Log.open(folder).append([envelope], key)[0]
        return proof.to_bytes(Log.open(folder).prove_inclusion(index))

    def commit_again(self, *, log=True):
        """A later commitment to the same records; its envelope and proof."""
        again = dataclasses.replace(self.workspace.commitment, committed_at=self.world.clock.now)
        envelope = sign(again.payload(), load_signing_key(self.world.key("owner")))
        return envelope, self.log("owner", envelope) if log else b"none"

    def slip(self, envelope, logged, rows):
        opened = tuple(self.workspace.open_rows(list(rows)))
        return openings.serialise_slip(openings.Slip(openings=opened, commitment=envelope, commitment_proof=logged))

    def rows(self, forgotten=True):
        known = self.forgotten
        wanted = [row for row in range(400) if (self.workspace.commitments_of([row])[0] in known) == forgotten]
        return wanted[:3]

    def entries(self):
        found = []
        for folder in (self.world.owner_log, self.world.auditor_log):
            summary = verify_log(folder, self.policy, keep_leaves=False)
            found += monitor.read_entries(files.folder_fetch(folder), summary, self.trust)
        return found

    def watch(self, *slips, now=None):
        return monitor.watch(
            self.entries(), now=now or self.world.clock.now, forgotten=self.forgotten,
            slips=[(f"slip{n}", data) for n, data in enumerate(slips)],
        )  # fmt: skip


@pytest.fixture
def scene(world_copy):
    return Scene(world_copy)


def test_an_honest_pair_of_logs(scene):
    entries = scene.entries()
    kinds = {type(entry.message).__name__ for entry in entries}
    assert {"Commitment", "Certificate", "Request", "Opening", "Challenge", "Report", "Answer"} == kinds
    assert len(scene.forgotten) == 40
    found = scene.watch()
    assert (found.findings, found.proven) == ((), 0)


def test_a_record_that_comes_back(scene):
    envelope, logged = scene.commit_again()
    found = scene.watch(scene.slip(envelope, logged, scene.rows()))
    assert [(f.threat, f.check) for f in found.findings] == [("re-ingestion", "monitor")]
    assert found.proven == 1
    assert "3 records of a receipt" in found.findings[0].message
    # Its honest twins: other records in the later commitment, or the same ones in the commitment of the receipt.
    other = scene.watch(scene.slip(envelope, logged, scene.rows(forgotten=False)))
    assert other.findings == ()
    assert "none of its 3 records" in other.notes[0]
    first = scene.workspace
    before = scene.slip(first.envelope, (first.folder / "proofs" / "commitment.tlog-proof").read_bytes(), scene.rows())
    assert scene.watch(before).findings == ()


def test_slips_that_accuse_nobody(scene):
    envelope, logged = scene.commit_again(log=False)
    with pytest.raises(UnknownKey, match="not an entry"):
        scene.watch(scene.slip(envelope, logged, scene.rows()))
    # Signed by somebody else and put into the log: not the owner's commitment.
    forged = sign(scene.workspace.commitment.payload(), load_signing_key(scene.world.key("subject")))
    logged = scene.log("owner", forged)
    with pytest.raises(UnknownKey, match="not an entry"):
        scene.watch(scene.slip(forged, logged, scene.rows()))
    # An opening that does not verify is damage, not evidence.
    envelope, logged = scene.commit_again()
    slip = openings.parse_slip(scene.slip(envelope, logged, scene.rows()))
    false = dataclasses.replace(slip.openings[0], label=slip.openings[0].label + 1)
    with pytest.raises(DigestMismatch, match="slip0"):
        scene.watch(openings.serialise_slip(dataclasses.replace(slip, openings=(false,))))
    # Without the log that holds the certificate nothing shows the order.
    entries = [entry for entry in scene.entries() if type(entry.message).__name__ != "Certificate"]
    found = monitor.watch(
        entries, now=1, forgotten=scene.forgotten, slips=[("s", scene.slip(envelope, logged, scene.rows()))]
    )
    assert found.findings == ()
    assert "nothing shows the order" in found.notes[0]


def test_an_audit_without_a_report(scene):
    requested = next(e for e in scene.entries() if isinstance(e.message, Request))
    opened = Opening(
        subject="ab" * 32, requests=(requested.leaf,), nonce_commitment="cd" * 32, answer_within=3600,
        opened_at=scene.world.clock.now,
    )  # fmt: skip
    scene.log("auditor", sign(opened.payload(), load_signing_key(scene.world.key("auditor"))))
    waiting = scene.watch(now=scene.world.clock.now + 3600)
    assert waiting.findings == ()
    assert any("have no report yet" in note for note in waiting.notes)
    late = scene.watch(now=scene.world.clock.now + 3601)
    assert [(f.threat, f.check) for f in late.findings] == [("audit-shopping", "monitor")]
    assert late.proven == 0
    assert "opened and never challenged" in late.findings[0].message
    # One that was challenged and has no report: the same world without its reports.
    entries = [entry for entry in scene.entries() if type(entry.message).__name__ != "Report"]
    found = monitor.watch(entries, now=scene.world.clock.now + 10**8, forgotten={})
    assert any(", challenged at" in finding.message for finding in found.findings)


def test_a_request_past_its_deadline_is_told(scene):
    asked = Request(
        subject="ab" * 32, scope=Scope(kind="records"), records_root=bytes(32), record_count=1, on_behalf=False,
        requested_at=scene.world.clock.now, deadline=scene.world.clock.now + 10,
    )  # fmt: skip
    envelope = sign(asked.payload(), load_signing_key(scene.world.key("subject")))
    scene.log("auditor", envelope)
    assert not any("deadline" in note for note in scene.watch(now=asked.deadline).notes)
    found = scene.watch(now=asked.deadline + 1)
    assert found.findings == ()
    assert any(leaf_of(envelope)[:16] in note for note in found.notes)


def test_what_changed_after_it_was_verified_is_not_believed(scene):
    summary = verify_log(scene.world.owner_log, scene.policy, keep_leaves=False)
    fetch = files.folder_fetch(scene.world.owner_log)

    def changed(path, limit):
        data = fetch(path, limit)
        return data.replace(b"eyJ", b"eyK", 1) if "entries" in path else data

    with pytest.raises(DigestMismatch, match="while it was being read"):
        monitor.read_entries(changed, summary, scene.trust)


def test_a_receipt_that_does_not_verify_is_named(scene):
    with pytest.raises(Error, match="mine"):
        monitor.forgotten_records([("mine", b"{}")], policy=scene.policy, trust=scene.trust)


def test_the_command_finds_them_in_folders_and_at_addresses(scene, tmp_path):
    world = scene.world
    common = ("--policy", world.policy, "--trust", world.trust, "--now", world.clock.tick(), "--json")
    both = (world.owner_log, "--beside", world.auditor_log)
    state = ("--state", tmp_path / "state")
    ran = run("prune-auditor", "verify-log", *both, *common, "--receipt", scene.receipt, *state)
    assert (ran.code, ran.json["findings"]) == (0, [])
    assert "40 records of receipts are watched for" in ran.out
    envelope, logged = scene.commit_again()
    world.witness(world.owner_log)
    slip = tmp_path / "later.npz"
    slip.write_bytes(scene.slip(envelope, logged, scene.rows()))
    # The receipt is remembered from the first run.
    ran = run("prune-auditor", "verify-log", *both, *common, *state, "--slip", slip)
    assert (ran.code, ran.json["findings"]) == (3, [{"check": "monitor", "threat": "re-ingestion"}])
    assert "finding: re-ingestion (monitor): 3 records" in ran.out
    # A remembered receipt that no longer verifies is told, and stops nothing.
    (tmp_path / "state" / "receipts" / "old.receipt").write_bytes(b"{}")
    ran = run("prune-auditor", "verify-log", *both, *common, *state)
    assert ran.code == 0
    assert "no longer verifies" in ran.out
    assert "40 records of receipts" in ran.out
    late = (*common[:-2], "2999-01-01T00:00:00Z", "--json")
    opened = Opening(
        subject="ab" * 32, requests=("ef" * 32,), nonce_commitment="cd" * 32, answer_within=1, opened_at=5
    )  # fmt: skip
    scene.log("auditor", sign(opened.payload(), load_signing_key(world.key("auditor"))))
    world.witness(world.auditor_log)
    with serving(world.owner_log) as first, serving(world.auditor_log) as second:
        ran = run("prune-auditor", "verify-log", first, "--beside", second, *late)
        assert (ran.code, ran.json["findings"]) == (5, [{"check": "monitor", "threat": "audit-shopping"}])
        with Client(second) as client:
            assert verify_served(client.fetch, scene.policy).size == Log.open(world.auditor_log).size
    ran = run("prune-auditor", "verify-log", world.owner_log, "--policy", world.policy, "--slip", slip)
    assert (ran.code, "--trust" in ran.err) == (2, True)
