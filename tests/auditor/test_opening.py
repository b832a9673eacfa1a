"""Opening an audit, challenging, a subject's own request."""

import dataclasses

import numpy as np
import pytest

from auditor import audit, verify
from auditor.files import write_atomic
from auditor.ledger import leaf_of
from auditor.opening import make_challenge, open_audit, request_from_slip
from auditor.profile import load_profile, plan_template
from owner.requests import make_slip
from protocol import messages, openings
from protocol.errors import AuditorError, DigestMismatch, MalformedError
from protocol.keys import load_signing_key
from protocol.messages.challenge import Challenge
from protocol.messages.opening import Opening, nonce_commitment
from protocol.messages.request import Request, parse_list


def _open(workshop, tmp_path, *requests, plan=None):
    plan = plan if plan is not None else plan_template(load_profile("redirection"), seed=1)
    return open_audit(
        requests, plan, nonce=bytes(range(32)), key=load_signing_key(workshop.world.key("auditor")),
        ledger=workshop.ledger, out=tmp_path / "opening.json", now=1_780_000_500,
    )  # fmt: skip


def test_what_is_logged_hides_the_nonce(workshop, tmp_path):
    envelope = _open(workshop, tmp_path, workshop.records)
    _, opening = messages.read(envelope, Opening)
    assert opening.nonce_commitment == nonce_commitment(bytes(range(32)))
    assert bytes(range(32)).hex().encode() not in envelope
    assert len(opening.requests) == 1
    assert (tmp_path / "opening.tlog-proof").is_file()


def test_bad_requests_and_plans(workshop, tmp_path):
    with pytest.raises(MalformedError):
        _open(workshop, tmp_path, workshop.records, plan=b"nothing")
    bad = tmp_path / "bad.json"
    bad.write_bytes(b"{}")
    with pytest.raises(MalformedError, match=r"bad\.json"):
        _open(workshop, tmp_path, bad)
    for requests in ((), (workshop.records, workshop.records)):
        with pytest.raises(AuditorError, match="at least one request, and for each of them once"):
            _open(workshop, tmp_path, *requests)


def _challenge(workshop, bundle, opening, acknowledgement=None):
    return make_challenge(
        bundle, opening, acknowledgement=acknowledgement, key=load_signing_key(workshop.world.key("auditor")),
        ledger=workshop.ledger, out=bundle.parent / "more.json", now=workshop.world.clock.now,
    )  # fmt: skip


def test_challenges(workshop, tmp_path):
    forged = workshop.forge(challenge=False)
    envelope = _challenge(workshop, forged.bundle, forged.opening.read_bytes())
    _, challenge = messages.read(envelope, Challenge)
    assert (challenge.count, challenge.population) == (200, 400)
    later = _open(workshop, tmp_path, workshop.records)
    with pytest.raises(AuditorError, match="does not name this opened audit"):
        _challenge(workshop, forged.bundle, later)
    with pytest.raises(AuditorError, match="knows no such opened audit"):
        _challenge(workshop, forged.bundle, b"{}")


def test_a_later_audit_is_acknowledged_first(workshop, tmp_path):
    from owner.answer import acknowledge

    forged = workshop.forge(challenge=False)
    other = workshop.forge(challenge=False)
    later = workshop.demo.open_audit(f"later-{workshop.count}", "redirection", workshop.records)
    shown = tmp_path / "acknowledgement.json"

    def said(bundle):
        return acknowledge(
            later, bundle, key=load_signing_key(workshop.world.key("owner")), log=workshop.world.owner_log,
            out=shown, now=workshop.world.clock.now, force=True,
        )[0]  # fmt: skip

    with pytest.raises(AuditorError, match="names another"):
        _challenge(workshop, forged.bundle, later.read_bytes(), said(other.bundle))
    _challenge(workshop, forged.bundle, later.read_bytes(), said(forged.bundle))
    answered = _answered(workshop, forged, shown)
    evidence = workshop.evidence(answered)
    # The certificate names its own opened audit, too; the one that was acknowledged is the one that is answered.
    assert evidence.transcript.opening_leaf == leaf_of(later.read_bytes())
    assert not evidence.transcript.problems
    assert len(evidence.transcript.opened) == 200


def _answered(workshop, forged, acknowledgement):
    from owner.answer import answer
    from owner.workspace import Workspace

    folder = forged.bundle.parent / "openings"
    answer(
        Workspace(folder=workshop.demo.commitment), forged.bundle.parent / "more.json",
        acknowledgement=acknowledgement, key=load_signing_key(workshop.world.key("owner")),
        log=workshop.world.owner_log, out=folder, now=workshop.world.clock.now, force=False,
    )  # fmt: skip
    workshop.demo.settle(folder)
    return dataclasses.replace(forged, openings=folder)


def test_a_certificate_without_an_opened_audit_and_a_later_one(workshop, tmp_path):
    """Opened afterwards, acknowledged in the log, challenged, answered: as good as an audit opened before."""
    from owner.answer import acknowledge

    def unopened(scene):
        made = scene.draft()
        del made.files["opening.dsse.json"]
        del made.proofs["opening"]
        return dataclasses.replace(made, certificate=dataclasses.replace(made.certificate, opening=None))

    forged = workshop.forge(unopened, challenge=False)
    later = forged.opening
    shown = tmp_path / "acknowledgement.json"
    said, _ = acknowledge(
        later, forged.bundle, key=load_signing_key(workshop.world.key("owner")), log=workshop.world.owner_log,
        out=shown, now=workshop.world.clock.now, force=True,
    )  # fmt: skip
    _challenge(workshop, forged.bundle, later.read_bytes(), said)
    answered = _answered(workshop, forged, shown)
    found = workshop.evidence(answered).transcript
    assert not found.problems
    assert len(found.opened) == 200
    assert found.acknowledged[0] == said
    # Whoever has the report alone sees the acknowledgement that the challenge answers.
    inputs = workshop.inputs(answered, reference=None)
    audit.write_report(inputs, audit.examine(inputs), tmp_path / "report", force=False)
    workshop.demo.settle()
    verify.finish(tmp_path / "report", workshop.ledger, write=write_atomic)
    verified = verify.verify_report(tmp_path / "report", policy=inputs.policy, trust=inputs.trust)
    assert verified.files["transcript/entry.dsse.json"] == said
    without = workshop.evidence(dataclasses.replace(answered, openings=None)).transcript
    assert any("does not name the audit" in message for message, _, _ in without.problems)
    # Every byte of the acknowledgement and its proof is checked; only the name in a cosignature's line may
    # turn into that of a witness nobody asked for, so the proof is changed above those lines.
    for name, spare in (
        ("acknowledgement.dsse.json", b""),
        ("proofs/acknowledgement.tlog-proof", "\n\u2014 ".encode()),
    ):
        path = answered.openings / name
        data = path.read_bytes()
        checked = data.index(spare) if spare else len(data)
        for place in (0, checked // 2, checked - 2):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(Exception, match="acknowledgement"):
                workshop.evidence(answered)
        path.unlink()
        with pytest.raises(Exception, match="acknowledgement"):
            workshop.evidence(answered)
        path.write_bytes(data)


def _slip(workshop, rows, tmp_path):
    from owner.requests import Wanted
    from owner.workspace import Workspace

    out = tmp_path / "slip.npz"
    make_slip(Workspace(folder=workshop.demo.commitment), Wanted(rows=tuple(rows)), out=out, force=False)
    return out.read_bytes()


def _ask(workshop, slip, tmp_path):
    out = tmp_path / "request.json"
    envelope = request_from_slip(
        slip, key=load_signing_key(workshop.world.key("subject")), ledger=workshop.ledger, out=out,
        now=workshop.world.clock.now, deadline=None,
    )  # fmt: skip
    return messages.read(envelope, Request)[1], out


def test_a_subjects_own_request(workshop, tmp_path):
    request, out = _ask(workshop, _slip(workshop, [3, 17], tmp_path), tmp_path)
    assert (request.on_behalf, request.record_count, request.scope.kind) == (False, 2, "records")
    assert len(parse_list(out.with_suffix(".leaves.json").read_bytes(), request, where="x")) == 2
    single, _ = _ask(workshop, _slip(workshop, [5], tmp_path / "b"), tmp_path)
    assert single.scope.kind == "subject"  # a record without a subject is a group of its own


def test_a_slip_that_opens_something_else(workshop, tmp_path):
    slip = openings.parse_slip(_slip(workshop, [3, 17], tmp_path))
    first = dataclasses.replace(slip.openings[0], values=np.zeros_like(slip.openings[0].values))
    bad = openings.serialise_slip(dataclasses.replace(slip, openings=(first, *slip.openings[1:])))
    with pytest.raises(DigestMismatch):
        _ask(workshop, bad, tmp_path)
