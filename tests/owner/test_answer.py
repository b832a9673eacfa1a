"""Answers open exactly what was challenged; acknowledgements name exactly what was opened."""

import shutil

import pytest

from owner.workspace import Workspace
from protocol import manifest, messages, openings
from protocol.digests import sha256_hex
from protocol.log.store import Log
from protocol.messages.challenge import Answer, Challenge
from protocol.messages.opening import Acknowledgement
from tests.demo.world import run
from tests.owner.tiny import one_line


@pytest.fixture
def place(world_copy):
    return world_copy.root / "honest"


def signing(world):
    return ("--key", world.key("owner"), "--log", world.owner_log, "--now", world.clock.tick())


def answer(world, *options, out=None, challenge=None, commitment=None):
    return run(
        "prune-owner", "answer", challenge or world.root / "honest" / "challenge.json",
        "--commitment", commitment or world.root / "commitment", *signing(world),
        "--out", out or world.root / "answer", *options,
    )  # fmt: skip


def acknowledge(world, *options, opening="honest.json", out=None):
    return run(
        "prune-owner", "acknowledge", world.root / "openings" / opening, "--bundle", world.root / "honest" / "bundle",
        *signing(world), "--out", out or world.root / "acknowledgement.json", *options,
    )  # fmt: skip


def test_the_challenged_records_and_no_others(world_copy, place):
    ran = answer(world_copy, "--json")
    assert ran.code == 0, ran.err
    _, challenge = messages.read((place / "challenge.json").read_bytes(), Challenge)
    opened = openings.parse((world_copy.root / "answer" / "openings.npz").read_bytes())
    assert [o.index for o in opened] == challenge.indices().tolist()
    assert ran.json["opened"] == len(opened)
    commitment = Workspace(folder=world_copy.root / "commitment").commitment
    for one in opened:
        one.verify(commitment.records_root, groups=commitment.group_count, count=commitment.record_count)
    listing = (world_copy.root / "answer" / "manifest.json").read_bytes()
    _, found = messages.read((world_copy.root / "answer" / "answer.dsse.json").read_bytes(), Answer)
    assert found.subject == sha256_hex(listing)
    assert found.opened == len(opened)
    manifest.verify_only_listed(
        world_copy.root / "answer", manifest.parse(listing), others=["manifest.json", "answer.dsse.json", "proofs/"]
    )


def test_nothing_old_stays_in_a_forced_answer(world_copy, place):
    out = world_copy.root / "answer"
    assert answer(world_copy).code == 0
    (out / "stale").write_text("old")
    one_line(answer(world_copy), 2, "--force")
    assert (out / "stale").exists()
    assert answer(world_copy, "--force").code == 0
    assert not (out / "stale").exists()
    assert not list(world_copy.root.glob(".answer*"))


def test_another_commitments_challenge(world_copy, tiny):
    before = Log.open(world_copy.owner_log).size
    one_line(answer(world_copy, commitment=tiny.commitment), 2, "about 400 records, this commitment has 60")
    one_line(answer(world_copy, challenge=world_copy.root / "requests" / "records.json"), 4, "records.json")
    one_line(answer(world_copy, challenge=world_copy.root / "policy.txt"), 4, "policy.txt")
    assert Log.open(world_copy.owner_log).size == before
    assert not (world_copy.root / "answer").exists()


def test_a_failed_answer_leaves_nothing(world_copy):
    shutil.rmtree(world_copy.owner_log / "tile")
    assert answer(world_copy).code == 2
    assert not (world_copy.root / "answer").exists()
    assert not list(world_copy.root.glob(".answer*"))


def test_what_cannot_be_remembered_is_not_opened(world_copy):
    kept = world_copy.root / "commitment" / "answered"
    shutil.rmtree(kept, ignore_errors=True)
    kept.write_text("in the way")
    before = Log.open(world_copy.owner_log).size
    assert answer(world_copy).code != 0
    assert Log.open(world_copy.owner_log).size == before
    assert not (world_copy.root / "answer").exists()


def test_an_audit_opened_later_is_acknowledged(world_copy, place):
    out = world_copy.root / "acknowledgement.json"
    ran = acknowledge(world_copy, "--json")
    assert ran.code == 0, ran.err
    _, found = messages.read(out.read_bytes(), Acknowledgement)
    assert found.subject == sha256_hex((place / "bundle" / "certificate.dsse.json").read_bytes())
    assert out.with_suffix(".tlog-proof").is_file()
    one_line(acknowledge(world_copy), 2, "--force")
    assert acknowledge(world_copy, "--force").code == 0
    assert answer(world_copy, "--acknowledgement", out).code == 0
    folder = world_copy.root / "answer"
    listing = manifest.parse((folder / "manifest.json").read_bytes())
    assert (folder / listing.paths("acknowledgement")[0]).read_bytes() == out.read_bytes()
    assert (folder / "proofs" / "acknowledgement.tlog-proof").is_file()
    out.with_suffix(".tlog-proof").unlink()
    assert answer(world_copy, "--acknowledgement", out, "--force").code == 0
    assert not (folder / "proofs" / "acknowledgement.tlog-proof").exists()
    one_line(answer(world_copy, "--acknowledgement", world_copy.policy, "--force"), 4, "policy.txt")


def test_an_audit_of_other_requests_is_not_acknowledged(world_copy):
    requests = world_copy.root / "requests"
    asked = run("prune-owner", "request", "--commitment", world_copy.root / "commitment", "--records", 1,
                *signing(world_copy), "--out", requests / "other.json")  # fmt: skip
    assert asked.code == 0, asked.err
    opened = run(
        "prune-auditor", "open-audit", requests / "other.json", "--plan", world_copy.root / "plan-redirection.yaml",
        "--key", world_copy.key("auditor"), "--log", world_copy.auditor_log,
        "--out", world_copy.root / "openings" / "other.json",
    )  # fmt: skip
    assert opened.code == 0, opened.err
    one_line(acknowledge(world_copy, opening="other.json"), 2, "other requests")
    unlearned = run(
        "prune-owner", "unlearn", "--commitment", world_copy.root / "commitment",
        "--request", requests / "records.json",
        "--opening", world_copy.root / "openings" / "other.json", *signing(world_copy), "--out", world_copy.root / "b",
    )  # fmt: skip
    one_line(unlearned, 2, "other requests")
