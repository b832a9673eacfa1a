"""Verifying reports, and replaying them: same verdict, findings and figures, or the difference in words."""

import dataclasses
import json
import shutil

import pytest

from auditor import audit, verify
from auditor.files import write_atomic
from auditor.profile import parse_plan
from protocol import manifest
from protocol.digests import sha256_hex
from protocol.errors import AuditorError, DigestMismatch, Error, MalformedError, VerificationError
from protocol.keys import generate, load_signing_key


@pytest.fixture(scope="module")
def reported(workshop, tmp_path_factory):
    """A finished report on a bundle of its own, under `indistinguishable`, membership and all."""
    forged = workshop.forge()
    out = tmp_path_factory.mktemp("reported") / "report"
    inputs = workshop.inputs(forged)
    audit.write_report(inputs, audit.examine(inputs), out, force=False)
    workshop.world.witness(workshop.world.auditor_log)
    verify.finish(out, workshop.ledger, write=write_atomic)
    return forged, out


def replay(workshop, forged, out, **changes):
    arguments = {
        "policy": workshop.world.policy.read_bytes(),
        "trust": workshop.world.trust.read_bytes(),
        "openings": forged.openings,
        "reference": workshop.root / "data" / "ref.npz",
        "owner_log": None,
        "key": generate("replay", use="statement"),
        "seed": 0,
        "shadow_cache": workshop.root / "shadows",
        "progress": lambda _stage, _share: None,
    }
    return verify.replay(out, forged.bundle, **(arguments | changes))


def test_a_replay_reproduces_verdict_and_figures_membership_included(workshop, reported):
    differences, fresh = replay(workshop, *reported)
    assert differences == []
    assert fresh["verdict"] == "CONSISTENT"
    assert fresh["figures"]["membership"]


def test_a_replay_trains_its_own_shadows(workshop, reported):
    assert replay(workshop, *reported, shadow_cache=None)[0] == []


def test_a_replay_with_less_is_not_the_same(workshop, reported):
    forged, out = reported
    assert any("challenge" in line for line in replay(workshop, forged, out, openings=None)[0])
    assert any("locality" in line for line in replay(workshop, forged, out, reference=None)[0])
    with pytest.raises(AuditorError, match="another policy"):
        replay(workshop, forged, out, policy=workshop.world.policy.read_bytes() + b"# x\n")


def test_a_report_that_kept_its_nonce_is_replayed(workshop, tmp_path):
    """The certificate names no opened audit: plan and requests are known all the same, the nonce is not."""

    def nameless(scene):
        made = scene.draft()
        return dataclasses.replace(made, certificate=dataclasses.replace(made.certificate, opening=None))

    own = workshop.demo.request("own", "--records", "3,4,5")
    further = workshop.demo.request("further-of-a-secret-nonce", "--records", "1,2")
    forged = workshop.forge(nameless, request=own, challenge=False, opened_for=(own, further))
    inputs = workshop.inputs(forged)
    outcome = audit.examine(inputs)
    assert {c.check: c.verdict for c in outcome.view.checks}["completeness"] == "INCONCLUSIVE"
    report = audit.write_report(inputs, outcome, tmp_path / "r", force=False)
    assert report.opening is not None
    assert report.nonce is None
    workshop.world.witness(workshop.world.auditor_log)
    verify.finish(tmp_path / "r", workshop.ledger, write=write_atomic)
    assert replay(workshop, forged, tmp_path / "r")[0] == []


def _rewritten(workshop, out, target, change, **statement):
    """The report with another summary, validly signed: an auditor who writes down what it did not find.

    `statement` are fields of the signed report to change; files that `change` removed are not listed.
    """
    from auditor.ledger import sign
    from protocol import messages
    from protocol.messages.report import Report

    shutil.copytree(out, target)
    shutil.rmtree(target / "receipts")
    summary = json.loads((target / "summary.json").read_text())
    change(summary)
    (target / "summary.json").write_text(json.dumps(summary))
    _, report = messages.read((target / "report.dsse.json").read_bytes(), Report)
    old = manifest.parse((target / "manifest.json").read_bytes())
    listing = manifest.build(
        target, [(e.path, e.role) for e in old.entries if (target / e.path).exists()], refers=old.refers
    )
    (target / "manifest.json").write_bytes(listing.raw)
    signed = dataclasses.replace(report, subject=sha256_hex(listing.raw), **statement)
    envelope = sign(signed.payload(), load_signing_key(workshop.world.key("auditor")))
    (target / "report.dsse.json").write_bytes(envelope)
    (target / "proofs" / "report.tlog-proof").write_bytes(workshop.ledger.append(envelope))
    workshop.world.witness(workshop.world.auditor_log)
    verify.finish(target, workshop.ledger, write=write_atomic)
    return target


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda s: s.update(verdict="REFUTED"), "verdict"),
        (lambda s: s["checks"]["binding"].update(verdict="REFUTED"), "binding"),
        (lambda s: s["checks"].update(astrology={"verdict": "CONSISTENT"}), "astrology"),
        (lambda s: s["findings"].append({"threat": "base-swap", "check": "binding", "message": ""}), "findings"),
        (lambda s: s["figures"].update(forget_records=41), "forget_records"),
        (lambda s: s["figures"].pop("certified_radius"), "certified_radius"),
        (lambda s: s["figures"]["membership"]["loss.signed"].update(auc=0.9), "loss.signed.auc"),
        (lambda s: s["figures"]["membership"]["loss.signed"]["interval"].append(1), "interval"),
        (lambda s: s["figures"]["membership"]["loss.signed"]["interval"].__setitem__(0, -0.9), r"interval\[0\]"),
    ],
)
def test_a_replay_sees_a_changed_summary(workshop, reported, tmp_path, change, difference):
    import re

    forged, out = reported
    target = _rewritten(workshop, out, tmp_path / "report", change)
    differences, _ = replay(workshop, forged, target)
    assert any(re.search(difference, line) for line in differences), differences


@pytest.mark.parametrize("lost", ["plan.yaml", "profile.yaml", "transcript/opening.dsse.json"])
def test_a_report_that_lacks_what_a_replay_needs(workshop, reported, tmp_path, lost):
    forged, out = reported
    complete = _rewritten(workshop, out, tmp_path / "a", lambda _: None)
    (complete / lost).unlink()
    target = _rewritten_without(workshop, complete, tmp_path / "b")
    with pytest.raises(VerificationError, match=lost):
        replay(workshop, forged, target)


def _rewritten_without(workshop, folder, target):
    (folder / "receipts").mkdir(exist_ok=True)
    return _rewritten(workshop, folder, target, lambda _: None)


def test_verify_report(workshop, reported, tmp_path):
    _, out = reported
    policy, trust = workshop.world.policy.read_bytes(), workshop.world.trust.read_bytes()
    verified = verify.verify_report(out, policy=policy, trust=trust)
    assert verified.report.verdict == "CONSISTENT"
    assert verified.receipts == 1
    assert "summary.json" in verified.files
    other = tmp_path / "report"
    shutil.copytree(out, other)
    (other / "proofs" / "report.tlog-proof").unlink()
    with pytest.raises(VerificationError, match=r"proofs/report\.tlog-proof"):
        verify.verify_report(other, policy=policy, trust=trust)


@pytest.mark.parametrize(
    ("statement", "gone", "message"),
    [
        ({"profile_sha256": "0" * 64}, (), "profile.yaml: is not the profile"),
        ({}, ("profile.yaml",), "profile.yaml: is missing"),
        ({"opening": "0" * 64}, (), "opening.dsse.json: is not the opened audit"),
        ({"nonce": bytes(32)}, (), "report.dsse.json: reveals another nonce"),
        ({"nonce": None}, (), "challenge.dsse.json: was made, and the report reveals no nonce"),
        ({"opening": None}, (), "plan.yaml: belongs to an opened audit"),
        (
            {"opening": None},
            (
                "plan.yaml",
                "transcript/opening.dsse.json",
                "transcript/challenge.dsse.json",
                "transcript/entry.dsse.json",
            ),
            "reveals a nonce and names no opened audit",
        ),
        ({}, ("plan.yaml",), "plan.yaml: is missing"),
        ({}, ("transcript/challenge.tlog-proof",), "challenge.tlog-proof: is missing"),
        ({}, ("transcript/entry.dsse.json",), "entry.dsse.json: is missing"),
    ],
)
def test_a_report_names_what_lies_beside_it(workshop, reported, tmp_path, statement, gone, message):
    """Signed by the auditor, and still not what the folder holds."""
    _, out = reported
    target = _rewritten(workshop, out, tmp_path / "a", lambda _: None)
    for name in gone:
        (target / name).unlink()
    (target / "receipts").mkdir(exist_ok=True)
    target = _rewritten(workshop, target, tmp_path / "b", lambda _: None, **statement)
    with pytest.raises(VerificationError, match=message):
        verify.verify_report(target, policy=workshop.world.policy.read_bytes(), trust=workshop.world.trust.read_bytes())


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("plan.yaml", "plan.yaml: is not the plan"),
        ("challenge", "entry.dsse.json: is not the owner's entry that the challenge answers"),
        ("challenge and entry", "entry.dsse.json: the certificate does not name this opened audit"),
    ],
)
def test_a_report_with_another_plan_or_challenge(workshop, reported, tmp_path, which, message):
    _, out = reported
    other = workshop.forge()
    folder = tmp_path / "a"
    shutil.copytree(out, folder)
    if which == "plan.yaml":
        (folder / which).write_bytes((folder / which).read_bytes() + b"# more\n")
    else:
        made = workshop.ledger.challenge(workshop.case(other).certificate_logged.leaf)
        (folder / "transcript" / "challenge.dsse.json").write_bytes(made[0])
        (folder / "transcript" / "challenge.tlog-proof").write_bytes(workshop.ledger.refreshed(made[1]))
        if which == "challenge and entry":
            entry = folder / "transcript" / "entry.dsse.json"
            entry.write_bytes((other.bundle / "certificate.dsse.json").read_bytes())
            proof = (other.bundle / "proofs" / "certificate.tlog-proof").read_bytes()
            entry.with_name("entry.tlog-proof").write_bytes(proof)
    target = _rewritten(workshop, folder, tmp_path / "b", lambda _: None)
    with pytest.raises(DigestMismatch, match=message):
        verify.verify_report(target, policy=workshop.world.policy.read_bytes(), trust=workshop.world.trust.read_bytes())


def test_a_receipt_of_another_report(workshop, reported, small_demo, tmp_path):
    _, out = reported
    other = tmp_path / "report"
    shutil.copytree(out, other)
    shutil.copy(
        small_demo.world.root / "honest" / "report" / "receipts" / "000.receipt", other / "receipts" / "001.receipt"
    )
    with pytest.raises(DigestMismatch, match=r"receipts/001\.receipt: belongs to another report"):
        verify.verify_report(other, policy=workshop.world.policy.read_bytes(), trust=workshop.world.trust.read_bytes())


def test_without_the_quorum(workshop, tmp_path, honest):
    inputs = workshop.inputs(honest)
    audit.write_report(inputs, audit.examine(inputs), tmp_path / "r", force=False)
    with pytest.raises(VerificationError, match="lacks the quorum"):
        verify.verify_report(tmp_path / "r", policy=inputs.policy, trust=inputs.trust)
    free = inputs.policy.rpartition(b"quorum")[0] + b"quorum none\n"
    verify.verify_report(tmp_path / "r", policy=free, trust=inputs.trust)


def test_a_report_that_names_another_certificate(workshop, reported, tmp_path, monkeypatch):
    _, out = reported
    target = tmp_path / "r"
    real = manifest.build
    monkeypatch.setattr(manifest, "build", lambda *a, **k: real(*a, **{**k, "refers": "0" * 64}))
    _rewritten(workshop, out, target, lambda _: None)
    with pytest.raises(DigestMismatch, match="another certificate"):
        verify.verify_report(target, policy=workshop.world.policy.read_bytes(), trust=workshop.world.trust.read_bytes())


def test_finishing_something_that_is_no_report(workshop, tmp_path):
    with pytest.raises((MalformedError, Error)):
        verify.finish(tmp_path, workshop.ledger, write=write_atomic)


def test_a_withheld_answer_is_found_again_by_whoever_replays(own_workshop, tmp_path):
    workshop = own_workshop
    forged = workshop.forge(answer=False)
    workshop.ledger.settle()  # the first cosigned checkpoint is kept: the deadline counts from it
    early = audit.examine(workshop.inputs(forged, openings=None, reference=None))
    assert not [f for f in early.view.findings if f.threat == "withheld-opening"]
    workshop.world.clock.tick(parse_plan((workshop.root / "plan-redirection.yaml").read_bytes()).answer_within + 3600)
    workshop.demo.settle(forged.bundle)
    inputs = workshop.inputs(forged, openings=None, reference=None)
    outcome = audit.examine(inputs)
    assert outcome.view.verdict == "INCONCLUSIVE"
    assert [f.threat for f in outcome.view.findings] == ["withheld-opening"]
    audit.write_report(inputs, outcome, tmp_path / "late", force=False)
    workshop.demo.settle()
    verify.finish(tmp_path / "late", workshop.ledger, write=write_atomic)
    differences, fresh = replay(workshop, forged, tmp_path / "late", openings=None, reference=None)
    assert differences == []
    assert [f["threat"] for f in fresh["findings"]] == ["withheld-opening"]
