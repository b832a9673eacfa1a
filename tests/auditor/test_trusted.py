"""Who may sign a report, and into which log; one key, one purpose."""

import pytest

from auditor import trusted
from protocol import keys
from protocol import trust as trust_file
from protocol.errors import AuditorError, Schema
from protocol.trust import Signer, Trust

OWNER, AUDITOR, LOG = (
    keys.SigningKey(name=n, use=keys.ED25519, seed=bytes([i]) * 32) for i, n in enumerate(("o", "a", "l"))
)
BOTH = Trust(
    signers=(
        Signer(key=OWNER.verifier, role="owner", logs=("owner.example",)),
        Signer(key=AUDITOR.verifier, role="auditor", logs=("auditor.example",)),
    ),
    thresholds={"owner": 1, "auditor": 1, "requester": 1},
)


def test_an_auditors_own_key_and_log_are_accepted_and_unknown_ones_too():
    trusted.check_own(AUDITOR, "auditor.example", BOTH)
    trusted.check_own(LOG, "elsewhere.example", BOTH)


def test_the_owners_key_and_log_are_not():
    with pytest.raises(AuditorError, match="the owner's in the trust file"):
        trusted.check_own(OWNER, "auditor.example", BOTH)
    with pytest.raises(AuditorError, match="give the auditor's own --log"):
        trusted.check_own(AUDITOR, "owner.example", BOTH)


def test_one_key_serves_one_purpose():
    policy = f"log {AUDITOR.verifier.vkey}\nquorum none\n".encode()
    with pytest.raises(Schema, match="also a log's"):
        trusted.read(policy, trust_file.serialise(BOTH))
    other = f"log {LOG.verifier.vkey}\nquorum none\n".encode()
    logs, signers = trusted.read(other, trust_file.serialise(BOTH))
    assert len(logs.logs) == 1
    assert signers == BOTH
