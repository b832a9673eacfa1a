"""Answers open exactly what was challenged; acknowledgements name exactly what was opened."""

import dataclasses
import shutil
import threading

import pytest

from auditor.ledger import Ledger, sign
from owner import answer as owner_answer
from owner.workspace import Workspace
from protocol import manifest, messages, openings
from protocol.digests import sha256_hex
from protocol.errors import OwnerError
from protocol.keys import load_signing_key
from protocol.log.store import Log
from protocol.messages.challenge import Answer, Challenge
from protocol.messages.opening import Acknowledgement, Opening
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
    later = asked(world_copy, place, "openings/later", kind=Opening, opened_at=1_900_000_000).name
    ran = acknowledge(world_copy, "--json", opening=later)
    assert ran.code == 0, ran.err
    _, found = messages.read(out.read_bytes(), Acknowledgement)
    assert found.subject == sha256_hex((place / "bundle" / "certificate.dsse.json").read_bytes())
    assert out.with_suffix(".tlog-proof").is_file()
    one_line(acknowledge(world_copy, opening=later), 2, "--force")
    said, size = out.read_bytes(), Log.open(world_copy.owner_log).size
    # Asked again, whenever that is: one entry, or the auditor could choose between two challenges.
    assert acknowledge(world_copy, "--force", opening=later).code == 0
    assert (out.read_bytes(), Log.open(world_copy.owner_log).size) == (said, size)
    assert answer(world_copy, "--acknowledgement", out).code == 0
    folder = world_copy.root / "answer"
    listing = manifest.parse((folder / "manifest.json").read_bytes())
    assert (folder / listing.paths("acknowledgement")[0]).read_bytes() == out.read_bytes()
    assert (folder / "proofs" / "acknowledgement.tlog-proof").is_file()
    out.with_suffix(".tlog-proof").unlink()
    assert answer(world_copy, "--acknowledgement", out, "--force").code == 0
    assert not (folder / "proofs" / "acknowledgement.tlog-proof").exists()
    one_line(answer(world_copy, "--acknowledgement", world_copy.policy, "--force"), 4, "policy.txt")


def test_an_audit_that_the_certificate_names_needs_no_acknowledgement(world_copy):
    before = Log.open(world_copy.owner_log).size
    one_line(acknowledge(world_copy), 2, "named by the certificate")
    assert Log.open(world_copy.owner_log).size == before


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


# --- whose challenge it is ----------------------------------------------------------------------------------------


def asked(world, place, name="asked", *, key="auditor", logged=True, witnessed=True, kind=Challenge, **changes):
    """The world's challenge (or opened audit) with changes, signed by a key, logged by the auditor, cosigned."""
    original = place / "challenge.json" if kind is Challenge else world.root / "openings" / "honest.json"
    _, message = messages.read(original.read_bytes(), kind)
    path = world.root / f"{name}.json"
    path.write_bytes(sign(dataclasses.replace(message, **changes).payload(), load_signing_key(world.key(key))))
    ledger = Ledger(log=world.auditor_log)
    if logged:
        proof = ledger.append(path.read_bytes())
        if witnessed:
            world.witness(world.auditor_log)
            proof = ledger.refreshed(proof)
        path.with_suffix(".tlog-proof").write_bytes(proof)
    return path


def test_an_auditors_witnessed_challenge_is_answered_without_a_warning(world_copy):
    ran = answer(world_copy, *world_copy.trusted(), "--json")
    assert ran.code == 0, ran.err
    assert ran.json["warning"] is None
    assert "warning" not in ran.out.splitlines()[0]
    unchecked = answer(world_copy, "--json", out=world_copy.root / "unchecked")
    assert unchecked.code == 0
    assert "warning: nobody's signature on the challenge was checked" in unchecked.out
    assert "--trust" in unchecked.json["warning"]


@pytest.mark.parametrize("key", ["owner", "subject"])
def test_a_challenge_that_no_auditor_signed(world_copy, place, key):
    # Logged in the auditor's log and cosigned all the same: a log takes whatever it is handed.
    before = Log.open(world_copy.owner_log).size
    forged = asked(world_copy, place, key=key, count=400)
    one_line(answer(world_copy, *world_copy.trusted(), challenge=forged), 4, "asked.json")
    assert Log.open(world_copy.owner_log).size == before
    assert not (world_copy.root / "answer").exists()
    forged.with_suffix(".tlog-proof").unlink()
    one_line(answer(world_copy, *world_copy.trusted(), challenge=forged), 4, "asked.json")
    assert not (world_copy.root / "answer").exists()


def test_a_challenge_that_was_changed_after_it_was_signed(world_copy, place):
    envelope = (place / "challenge.json").read_bytes()
    other = asked(world_copy, place, "other", challenged_at=1_900_000_000, logged=False)
    payload, theirs = (data.split(b'"payload":"')[1].split(b'"')[0] for data in (envelope, other.read_bytes()))
    other.write_bytes(envelope.replace(payload, theirs))
    one_line(answer(world_copy, *world_copy.trusted(), challenge=other), 4, "other.json")


def test_a_challenge_that_only_its_own_log_saw(world_copy, place):
    (world_copy.root / "commitment" / "answered").rename(world_copy.root / "before")
    hidden = asked(world_copy, place, witnessed=False, challenged_at=1_900_000_000)
    one_line(answer(world_copy, *world_copy.trusted(), challenge=hidden), 4, "asked.tlog-proof", "quorum")
    hidden.with_suffix(".tlog-proof").write_bytes((place / "challenge.tlog-proof").read_bytes())
    one_line(answer(world_copy, *world_copy.trusted(), challenge=hidden), 4, "asked.json with")
    hidden.with_suffix(".tlog-proof").unlink()
    ran = answer(world_copy, *world_copy.trusted(), "--json", challenge=hidden)
    assert ran.code == 0, ran.err
    assert "no log proof" in ran.json["warning"]


@pytest.mark.parametrize("swap", ["opening", "subject"])
def test_a_challenge_of_another_opened_audit_than_the_entry_names(world_copy, place, swap):
    """A trusted auditor who could put one opened audit after another beside one entry would see every record."""
    other = asked(world_copy, place, **{swap: "0" * 64}, seed=bytes(32))
    for options in ((), (*world_copy.trusted(),)):
        one_line(answer(world_copy, *options, challenge=other), 2, "another opened audit")
    assert not (world_copy.root / "answer").exists()
    entry = Log.open(world_copy.owner_log)
    other = asked(world_copy, place, answers=entry.leaf_hashes()[0].hex())
    one_line(answer(world_copy, challenge=other), 2, "another opened audit")


@pytest.mark.parametrize("more", [{"seed": bytes(32)}, {"count": 400}, {"count": 100}])
def test_a_second_challenge_of_one_opened_audit(world_copy, place, more):
    """Another seed draws other records; another count draws more of them, or tells which were drawn first."""
    assert answer(world_copy, *world_copy.trusted(), out=world_copy.root / "first").code == 0
    other = asked(world_copy, place, **more)
    one_line(answer(world_copy, *world_copy.trusted(), challenge=other), 2, "second challenge")
    assert not (world_copy.root / "answer").exists()


def test_two_runs_at_once_open_one_sample(world_copy, place, monkeypatch):
    """Both look before either has written down what it answers: one of them has to wait for the other."""
    other = asked(world_copy, place, seed=bytes(32))
    shutil.rmtree(world_copy.root / "commitment" / "answered")
    look, ended, threads = owner_answer._refuse_too_much, {}, []

    def run_one(name, path):
        try:
            owner_answer.answer(
                Workspace(folder=world_copy.root / "commitment"), path, acknowledgement=None,
                key=load_signing_key(world_copy.key("owner")), log=world_copy.owner_log, out=world_copy.root / name,
                now=1_900_000_000, force=False,
            )  # fmt: skip
            ended[name] = "opened"
        except OwnerError as error:
            ended[name] = error.message

    def slow(*args, **kwargs):
        look(*args, **kwargs)
        if not threads:
            threads.append(threading.Thread(target=run_one, args=("second", other)))
            threads[0].start()
            threads[0].join(1.0)

    monkeypatch.setattr(owner_answer, "_refuse_too_much", slow)
    run_one("first", place / "challenge.json")
    threads[0].join(30.0)
    assert ended["first"] == "opened"
    assert "second challenge" in ended["second"]
    assert not (world_copy.root / "second").exists()


def test_one_file_of_trust_without_the_other(world_copy):
    one_line(answer(world_copy, "--policy", world_copy.policy), 2, "--trust")
    one_line(answer(world_copy, "--trust", world_copy.trust), 2, "--policy")
    one_line(acknowledge(world_copy, "--trust", world_copy.trust), 2, "--policy")


def test_an_audit_that_no_auditor_opened_is_not_acknowledged(world_copy, place):
    before = Log.open(world_copy.owner_log).size
    forged = asked(world_copy, place, "openings/forged", kind=Opening, key="subject")
    assert forged.name == "forged.json"
    one_line(acknowledge(world_copy, *world_copy.trusted(), opening="forged.json"), 4, "forged.json")
    hidden = asked(world_copy, place, "openings/hidden", kind=Opening, witnessed=False, opened_at=1_900_000_000)
    one_line(acknowledge(world_copy, *world_copy.trusted(), opening=hidden.name), 4, "hidden.tlog-proof", "quorum")
    assert Log.open(world_copy.owner_log).size == before
    seen = asked(world_copy, place, "openings/seen", kind=Opening, opened_at=1_900_000_001)
    ran = acknowledge(world_copy, *world_copy.trusted(), "--json", opening=seen.name)
    assert ran.code == 0, ran.err
    assert ran.json["warning"] is None
    unchecked = acknowledge(world_copy, "--json", "--force", opening="forged.json")
    assert "opened audit was checked" in unchecked.json["warning"]


def test_a_certificate_of_another_log_is_not_acknowledged(world_copy, tiny):
    ran = run(
        "prune-owner", "acknowledge", world_copy.root / "openings" / "honest.json",
        "--bundle", world_copy.root / "honest" / "bundle", *tiny.signing, "--out", world_copy.root / "a.json",
    )  # fmt: skip
    one_line(ran, 2, "not in this log")
