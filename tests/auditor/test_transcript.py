"""The replayed challenge: what is missing is a gap, what is damaged an error, what is signed and false a finding."""

import dataclasses
import shutil

import pytest

from auditor import transcript
from auditor.entries import Looked, look
from auditor.ledger import Ledger
from auditor.profile import load_profile
from protocol.digests import sha256_hex
from protocol.errors import MalformedError, VerificationError


def replayed(workshop, forged, **changes):
    case = workshop.case(forged)
    arguments = {
        "certificate": case.certificate,
        "certificate_leaf": case.certificate_logged.leaf,
        "certificate_sha256": sha256_hex(case.certificate_logged.envelope.raw),
        "requests": tuple(request.logged.leaf for request in case.requests),
        "commitment": case.commitment,
        "answer_folder": forged.openings,
        "ledger": workshop.ledger,
        "policy": workshop.policy,
        "trust": workshop.trust,
        "profile_sha256": load_profile("redirection").sha256,
        "now": forged.at,
    }
    return transcript.replay(**(arguments | changes))


def test_an_honest_transcript(workshop, honest):
    found = replayed(workshop, honest)
    assert found.problems == ()
    assert found.answered_in_time
    assert len(found.opened) == found.challenge.count == 200
    assert {o.index for o in found.opened} == {int(i) for i in found.challenge.indices()}


def test_no_ledger_and_no_opened_audit(workshop, honest, tmp_path):
    assert replayed(workshop, honest, ledger=None) == transcript.Transcript()
    assert replayed(workshop, honest, ledger=Ledger(log=tmp_path / "none")) == transcript.Transcript()


def test_another_profile_than_the_plans(workshop, honest):
    assert "profile in use" in replayed(workshop, honest, profile_sha256="0" * 64).problems[0][0]


def test_no_answer(workshop, honest):
    early = replayed(workshop, honest, answer_folder=None)
    assert early.problems == (("the challenged records were not opened (yet)", None, False),)
    # The auditor's own clock accuses nobody: only a witness time without an answer does.
    alone = replayed(workshop, honest, answer_folder=None, now=1 << 40)
    ((message, finding, _),) = alone.problems
    assert ("no witness time shows it" in message, finding) == (True, None)
    shown = Looked(entries=(), time=1 << 40, witnessed=True, size=9, origin="log.owner.example")
    late = replayed(workshop, honest, answer_folder=None, now=1 << 40, owner_log=shown)
    ((message, finding, proven),) = late.problems
    assert "by the deadline" in message
    assert (finding.threat, proven) == ("withheld-opening", False)
    unwitnessed = dataclasses.replace(workshop.policy, quorum="none")
    ((_, finding, _),) = replayed(workshop, honest, answer_folder=None, now=1 << 40, policy=unwitnessed).problems
    assert finding is None


def test_an_answer_in_the_owners_log_that_nobody_handed_over(workshop, honest):
    found = look(workshop.world.owner_log, policy=workshop.policy, trust=workshop.trust)
    later = dataclasses.replace(found, time=1 << 40)
    ((message, finding, _),) = replayed(workshop, honest, answer_folder=None, now=1 << 40, owner_log=later).problems
    assert ("give --openings" in message, finding) == (True, None)


def test_in_time_by_the_witnesses_or_the_auditors_clock(workshop, honest):
    witnessed = replayed(workshop, honest, now=1 << 40)
    assert witnessed.answered_in_time
    assert not witnessed.problems
    alone = dataclasses.replace(workshop.policy, quorum="none")
    assert replayed(workshop, honest, policy=alone).answered_in_time
    late = replayed(workshop, honest, policy=alone, now=1 << 40)
    assert late.answered_in_time is None
    assert "by the deadline" in late.problems[0][0]


def test_no_challenge(workshop):
    forged = workshop.forge(challenge=False)
    found = replayed(workshop, forged)
    assert "no challenge was made" in found.problems[0][0]
    assert found.challenge_value is not None


def _copied(workshop, tmp_path):
    """A ledger whose secrets can be broken."""
    shutil.copytree(workshop.ledger.private, tmp_path / "auditor.private")
    return Ledger(log=tmp_path / "auditor")


def test_kept_secrets_that_are_not_the_logged_ones(workshop, honest, tmp_path):
    ledger = _copied(workshop, tmp_path)
    leaf = replayed(workshop, honest).opening_leaf
    path = ledger.private / "openings" / f"{leaf}.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"openings: 200", b"openings: 100"))
    with pytest.raises(MalformedError, match="not the one that was logged"):
        replayed(workshop, honest, ledger=ledger)
    path.write_bytes(good)
    for challenge in (ledger.private / "challenges").glob("*.json"):
        other = workshop.forge()
        case = workshop.case(other)
        real = workshop.ledger.challenge(case.certificate_logged.leaf)
        own = ledger.private / "challenges" / f"{workshop.case(honest).certificate_logged.leaf}.json"
        own.write_bytes(real[0])
        own.with_suffix(".tlog-proof").write_bytes(real[1])
        with pytest.raises(MalformedError, match="does not follow from the nonce"):
            replayed(workshop, honest, ledger=ledger)
        assert challenge
        break


@pytest.fixture
def answer(honest, tmp_path):
    folder = tmp_path / "openings"
    shutil.copytree(honest.openings, folder)
    return folder


def test_an_answer_to_another_challenge(workshop, honest):
    other = workshop.forge()
    with pytest.raises(VerificationError, match="answers another challenge"):
        replayed(workshop, honest, answer_folder=other.openings)


@pytest.mark.parametrize("name", ["answer.dsse.json", "manifest.json", "openings.npz", "proofs/answer.tlog-proof"])
def test_a_file_of_the_answer_got_lost(workshop, honest, answer, name):
    (answer / name).unlink()
    with pytest.raises((MalformedError, VerificationError), match=name):
        replayed(workshop, honest, answer_folder=answer)


def test_a_proof_too_many(workshop, honest, answer):
    shutil.copy(answer / "proofs" / "answer.tlog-proof", answer / "proofs" / "more.tlog-proof")
    with pytest.raises(MalformedError, match="belongs to nothing"):
        replayed(workshop, honest, answer_folder=answer)


def test_an_answer_without_the_quorum(workshop, honest, answer):
    path = answer / "proofs" / "answer.tlog-proof"
    text, _, lines = path.read_bytes().rpartition(b"\n\n")
    own = [line for line in lines.splitlines() if b"log.owner.example" in line]
    path.write_bytes(text + b"\n\n" + b"\n".join(own) + b"\n")
    with pytest.raises(VerificationError, match="lacks the quorum's cosignatures"):
        replayed(workshop, honest, answer_folder=answer)


def _signed_answer(workshop, forged, files, folder):
    from owner.journal import append, leaf_of, sign
    from protocol import manifest
    from protocol.digests import sha256_hex
    from protocol.keys import load_signing_key
    from protocol.messages.challenge import Answer

    challenge = leaf_of((forged.bundle.parent / "challenge.json").read_bytes())
    folder.mkdir()
    for name, (_, data) in files.items():
        (folder / name).write_bytes(data)
    listing = manifest.build(folder, [(name, role) for name, (role, _) in files.items()], refers=challenge)
    (folder / "manifest.json").write_bytes(listing.raw)
    statement = Answer(
        subject=sha256_hex(listing.raw), challenge=challenge, opened=1, answered_at=workshop.world.clock.now
    )
    envelope = sign(statement.payload(), load_signing_key(workshop.world.key("owner")))
    (folder / "answer.dsse.json").write_bytes(envelope)
    (folder / "proofs").mkdir()
    (folder / "proofs" / "answer.tlog-proof").write_bytes(append(workshop.world.owner_log, envelope))
    workshop.demo.settle(folder)


@pytest.mark.parametrize(
    ("files", "threat", "proven"),
    [
        ({"notes.txt": ("poem", b"x")}, "withheld-opening", False),
        ({"openings.npz": ("opening", b"PK bomb")}, "hostile-artefact", True),
    ],
)
def test_signed_answers_that_say_nothing(workshop, tmp_path, files, threat, proven):
    forged = workshop.forge(answer=False)
    _signed_answer(workshop, forged, files, tmp_path / "answer")
    found = replayed(workshop, forged, answer_folder=tmp_path / "answer")
    assert [(finding.threat, known) for _, finding, known in found.problems] == [(threat, proven)]
    assert found.opened == ()
