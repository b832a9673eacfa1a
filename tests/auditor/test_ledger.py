"""The auditor's log and secrets."""

import pytest

from auditor.ledger import Ledger, Secret, leaf_of, sign
from protocol.errors import AuditorError, MalformedError
from protocol.keys import generate
from protocol.log import merkle, proof
from protocol.log.store import Log


@pytest.fixture
def ledger(tmp_path):
    key = generate("log.example", use="log")
    Log.create(tmp_path / "log", key)
    found = Ledger(log=tmp_path / "log")
    found.key_path.write_text(f"{key.skey}\n")
    return found


def test_append_and_prove(ledger):
    first = ledger.append(b"{}")
    second = ledger.append(b"[]")
    assert (proof.parse(first).index, proof.parse(second).index) == (0, 1)
    proofs = ledger.proofs()
    assert set(proofs) == {leaf_of(b"{}"), leaf_of(b"[]")}
    assert proof.parse(proofs[leaf_of(b"{}")]).checkpoint_note.split(b"\n")[1] == b"2"
    assert ledger.refreshed(first) == proofs[leaf_of(b"{}")]
    assert leaf_of(b"{}") == merkle.leaf_hash(b"{}").hex()


def test_a_proof_from_elsewhere_stays_as_it_is(ledger, tmp_path):
    key = generate("other.example", use="log")
    Log.create(tmp_path / "other", key)
    other = Ledger(log=tmp_path / "other")
    other.key_path.write_text(f"{key.skey}\n")
    foreign = other.append(b"{}")
    ledger.append(b"{}")
    assert ledger.refreshed(foreign) == foreign
    assert ledger.refreshed(b"nonsense") == b"nonsense"


def test_no_log(tmp_path):
    ledger = Ledger(log=tmp_path / "none")
    assert ledger.proofs() == {}
    assert ledger.secret("0" * 64) is None
    assert ledger.challenge("0" * 64) is None
    assert ledger.challenged_for("0" * 64) == set()
    assert not ledger.revealed("0" * 64)
    with pytest.raises(AuditorError):
        ledger.append(b"{}")


def test_secrets_are_kept_and_private(ledger):
    secret = Secret(nonce=bytes(32), plan=b"plan: 1\n", opening=b"{}")
    ledger.keep(secret)
    assert ledger.secret(leaf_of(b"{}")) == secret
    path = ledger.private / "openings" / f"{leaf_of(b'{}')}.json"
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"{}")
    with pytest.raises(MalformedError):
        ledger.secret(leaf_of(b"{}"))
    ledger.reveal("0" * 64)
    assert ledger.revealed("0" * 64)


def test_a_message_too_large_to_log(ledger):
    with pytest.raises(AuditorError):
        sign(b" " * 70_000, generate("a", use="statement"))
