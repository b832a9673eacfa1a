"""Loading a bundle: trust file rules, log proofs, what is an error and what a finding."""

import dataclasses
import shutil

import pytest

from auditor.case import load, read_proof
from protocol import envelope as dsse
from protocol.errors import Expired, Inclusion, MalformedError, UnknownKey, VerificationError
from protocol.keys import generate, load_signing_key
from protocol.log import policy as policy_file
from protocol.logged import verify_logged
from protocol.trust import Signer, Trust


def _owner(workshop, **changes):
    """The trust file with the owner's entry changed."""
    signers = tuple(
        dataclasses.replace(signer, **changes) if signer.role == "owner" else signer
        for signer in workshop.trust.signers
    )
    return dataclasses.replace(workshop.trust, signers=signers)


def _load(workshop, forged, trust=None, policy=None):
    return load(
        forged.bundle,
        policy=policy or workshop.policy,
        trust=trust or workshop.trust,
        own_proofs=workshop.ledger.proofs(),
    )


def test_an_honest_case(workshop, honest):
    case = _load(workshop, honest)
    assert not case.hostile
    assert len(case.opened) == len(case.claims) == case.requests[0].request.record_count == 40
    assert case.requests[0].logged.signed_as == "owner"
    assert case.certificate.opening == case.opening_logged.leaf
    assert case.certificate_logged.time <= workshop.world.clock.now
    assert not case.openings_erased


def test_openings_may_be_erased_after_the_audit(workshop, honest, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(honest.bundle, bundle)
    (bundle / "openings.npz").unlink()
    forged = dataclasses.replace(honest, bundle=bundle)
    case = _load(workshop, forged)
    assert (case.opened, case.openings_erased, case.hostile) == (None, True, ())
    verdict, checks, findings = workshop.verdicts(forged)
    assert (verdict, findings) == ("INCONCLUSIVE", set())
    for check in ("binding", "boundedness", "challenge", "locality", "utility", "hygiene", "freshness"):
        assert checks[check] == "CONSISTENT", check


def test_a_key_revoked_after_the_witnessed_time_still_counts(workshop, honest):
    witnessed = _load(workshop, honest).certificate_logged.time
    _load(workshop, honest, _owner(workshop, revoked_since=witnessed + 1))
    _load(workshop, honest, _owner(workshop, valid_from=1, valid_to=witnessed + 1))
    with pytest.raises(Expired, match="was revoked before this was witnessed"):
        _load(workshop, honest, _owner(workshop, revoked_since=witnessed))
    with pytest.raises(Expired, match=r"certificate\.dsse\.json"):
        _load(workshop, honest, _owner(workshop, valid_from=witnessed + 1))
    with pytest.raises(Expired):
        _load(workshop, honest, _owner(workshop, valid_to=witnessed))


def test_a_time_limit_needs_witnesses(workshop, honest):
    alone = policy_file.parse(
        b"".join(
            line + b"\n" for line in workshop.world.policy.read_bytes().splitlines() if line.startswith(b"log ")
        ) + b"quorum none\n"
    )  # fmt: skip
    _load(workshop, honest, policy=alone)
    with pytest.raises(Expired, match="no quorum witnessed"):
        _load(workshop, honest, _owner(workshop, revoked_since=1 << 40), policy=alone)


def test_another_log_than_the_key_may_sign_in(workshop, honest):
    with pytest.raises(UnknownKey, match=r"certificate\.dsse\.json: no key of role owner may sign in the log"):
        _load(workshop, honest, _owner(workshop, logs=("other.example",)))
    strangers = tuple(signer for signer in workshop.trust.signers if signer.role != "owner")
    with pytest.raises(UnknownKey):
        _load(workshop, honest, dataclasses.replace(workshop.trust, signers=strangers))


def test_a_log_that_the_policy_does_not_list(workshop, honest):
    other = generate("log.owner.example", use="log").verifier.vkey
    lines = [
        line for line in workshop.world.policy.read_text().splitlines() if not line.startswith("log log.owner.example")
    ]
    with pytest.raises(VerificationError, match=r"certificate"):
        _load(workshop, honest, policy=policy_file.parse("\n".join([*lines, ""]).encode()))
    with pytest.raises(VerificationError, match=r"certificate"):
        _load(workshop, honest, policy=policy_file.parse("\n".join([f"log {other}", *lines, ""]).encode()))


def test_threshold_of_two(workshop, honest):
    second = generate("owner-two", use="statement")
    signers = (*workshop.trust.signers, Signer(key=second.verifier, role="owner", logs=("log.owner.example",)))
    trust = Trust(signers=signers, thresholds={"owner": 2, "auditor": 1, "requester": 1})
    with pytest.raises(UnknownKey, match="1 trusted keys of role owner signed, 2 are needed"):
        _load(workshop, honest, trust)
    # The same key twice is one key; two keys are two.
    key = load_signing_key(workshop.world.key("owner"))
    for keys, enough in (([key, key], False), ([key, second], True)):
        data = dsse.sign(b"{}", keys)
        check = lambda data=data: verify_logged(
            data, None, roles=("owner",), policy=workshop.policy, trust=trust, where="x", place="y"
        )
        if enough:
            assert len(check().signers) == 2
        else:
            with pytest.raises(UnknownKey):
                check()


def test_nobody_may_sign_this(workshop):
    empty = Trust(signers=(), thresholds={"owner": 1, "auditor": 1, "requester": 1})
    data = dsse.sign(b"{}", [generate("a", use="statement")])
    with pytest.raises(UnknownKey, match="lists nobody"):
        verify_logged(data, None, roles=("owner",), policy=workshop.policy, trust=empty, where="x", place="y")


def test_a_proof_of_another_entry(workshop, honest):
    data = (honest.bundle / "certificate.dsse.json").read_bytes()
    with pytest.raises(Inclusion, match=r"a\.json with b\.tlog-proof"):
        verify_logged(
            data, read_proof(honest.bundle, "commitment"), roles=("owner",), policy=workshop.policy, trust=workshop.trust,
            where="a.json", place="b.tlog-proof",
        )  # fmt: skip
    with pytest.raises(MalformedError, match=r"b\.tlog-proof"):
        verify_logged(
            data,
            b"",
            roles=("owner",),
            policy=workshop.policy,
            trust=workshop.trust,
            where="a.json",
            place="b.tlog-proof",
        )


def test_the_most_telling_refusal_is_shown(workshop, honest):
    """A key that is known but expired says more than a role that nobody of this name has."""
    case = _load(workshop, honest)
    (request,) = case.requests
    trust = _owner(workshop, revoked_since=1)
    with pytest.raises(Expired):
        verify_logged(
            request.logged.envelope.raw, read_proof(honest.bundle, "request-000"), roles=("requester", "owner"),
            policy=workshop.policy, trust=trust, where="x", place="y",
        )  # fmt: skip


def test_without_any_proof_of_a_request(workshop, honest, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(honest.bundle, bundle)
    (bundle / "proofs" / "request-000.tlog-proof").unlink()
    case = _load(workshop, dataclasses.replace(honest, bundle=bundle))
    assert case.requests[0].logged.entry is None


def test_the_auditors_own_log_proves_what_is_in_it(workshop, honest):
    """The proof that the bundle ships has no cosignatures; the auditor's log has by now."""
    workshop.world.witness(workshop.world.auditor_log)
    own = workshop.ledger.proofs()
    case = _load(workshop, honest)
    assert case.opening_logged.leaf in own
    assert case.opening_logged.entry.checkpoint.quorum_met
    bare = load(honest.bundle, policy=workshop.policy, trust=workshop.trust)
    assert not bare.opening_logged.entry.checkpoint.quorum_met


def test_no_quorum_accuses_nobody(workshop):
    from auditor import audit

    forged = workshop.forge(challenge=False)
    proofs = forged.bundle / "proofs"
    data = (proofs / "certificate.tlog-proof").read_bytes()
    text, _, signatures = data.rpartition(b"\n\n")
    own = [line for line in signatures.splitlines() if b"log.owner.example" in line]
    (proofs / "certificate.tlog-proof").write_bytes(text + b"\n\n" + b"\n".join(own) + b"\n")
    with pytest.raises(VerificationError, match=r"proofs/certificate\.tlog-proof.*lacks the quorum's cosignatures"):
        audit.examine(workshop.inputs(forged))
