"""Receipts: made, finished, verified offline; nothing in them can be exchanged."""

import dataclasses
import json

import pytest

from auditor import audit, receipts, verify
from auditor.files import write_atomic
from auditor.ledger import leaf_of, sign
from owner.requests import Wanted, make_slip
from owner.workspace import Workspace
from protocol import claims as claim_lines
from protocol import messages, openings, receipt_file
from protocol.errors import DigestMismatch, Error, Inclusion, MalformedError, UnknownKey, VerificationError
from protocol.keys import load_signing_key
from protocol.log import merkle
from protocol.messages.report import Receipt
from tests.demo.world import run


def _reported(workshop, forged, out, **changes):
    inputs = workshop.inputs(forged, **changes)
    audit.write_report(inputs, audit.examine(inputs), out, force=False)
    workshop.world.witness(workshop.world.auditor_log)
    verify.finish(out, workshop.ledger, write=write_atomic)
    return receipt_file.parse((out / "receipts" / "000.receipt").read_bytes())


@pytest.fixture(scope="module")
def receipt(workshop, honest, tmp_path_factory):
    return _reported(workshop, honest, tmp_path_factory.mktemp("receipts") / "report")


@pytest.fixture(scope="module")
def class_receipt(workshop, tmp_path_factory):
    request = workshop.demo.request("class-for-receipts", "--class", "3")
    folder = tmp_path_factory.mktemp("receipts") / "report"
    file = _reported(workshop, workshop.forge(request=request), folder)
    # A cap acts on every input: as far as the widest column goes.
    figures = json.loads((folder / "summary.json").read_text())["figures"]
    assert figures["certified_radius"] == {"norm": "linf", "unit": "step", "min": "16", "median": "16"}
    return file


def check(workshop, file, slip=None):
    return receipts.verify(file.to_bytes(), policy=workshop.policy, trust=workshop.trust, slip=slip)


def test_an_honest_receipt(workshop, receipt):
    found = check(workshop, receipt)
    assert (found.verdict, found.records, found.claims, found.findings) == ("CONSISTENT", 40, 40, ())
    assert not found.requested_by_subject
    assert any("on the subject's behalf" in line for line in found.not_proven)
    assert any("Without the slip" in line for line in found.not_proven)
    assert len(found.steps) == 7


def _slip(workshop, rows, tmp_path):
    out = tmp_path / "slip.npz"
    make_slip(Workspace(folder=workshop.demo.commitment), Wanted(rows=tuple(rows)), out=out, force=True)
    return out.read_bytes()


def test_whose_records(workshop, receipt, tmp_path):
    rows = sorted(workshop.scene(workshop.records, workshop.root / "openings" / "honest.json").job.rows)
    other = next(row for row in range(400) if row not in rows)
    found = check(workshop, receipt, _slip(workshop, [rows[0], other], tmp_path))
    assert any("opens 2 records of the commitment; 1 of them are among the 40" in step for step in found.steps)
    assert not any("Without the slip" in line for line in found.not_proven)
    with pytest.raises(DigestMismatch, match="none of its records"):
        check(workshop, receipt, _slip(workshop, [other], tmp_path))
    with pytest.raises(MalformedError):
        check(workshop, receipt, b"no slip")
    slip = openings.parse_slip(_slip(workshop, rows[:2], tmp_path))
    elsewhere = openings.serialise_slip(dataclasses.replace(slip, commitment=slip.commitment + b"\n"))
    with pytest.raises(DigestMismatch, match="another commitment"):
        check(workshop, receipt, elsewhere)
    false = dataclasses.replace(slip.openings[0], label=slip.openings[0].label + 1)
    with pytest.raises(Error, match="slip"):
        check(workshop, receipt, openings.serialise_slip(dataclasses.replace(slip, openings=(false,))))


def test_a_class_receipt(workshop, class_receipt, tmp_path):
    found = check(workshop, class_receipt)
    assert (found.verdict, found.claims) == ("CONSISTENT", 1)
    check(workshop, class_receipt, _slip(workshop, [3], tmp_path))
    with pytest.raises(DigestMismatch, match="class has no claim"):
        check(workshop, dataclasses.replace(class_receipt, claims=()))


@pytest.mark.parametrize("name", receipt_file.ENVELOPES)
def test_without_a_proof_or_with_another_ones(workshop, receipt, name):
    proofs = {key: value for key, value in receipt.proofs.items() if key != name}
    with pytest.raises(VerificationError, match=name):
        check(workshop, dataclasses.replace(receipt, proofs=proofs))
    other = "report" if name == "receipt" else "receipt"
    swapped = {**receipt.proofs, name: receipt.proofs[other]}
    with pytest.raises((VerificationError, MalformedError), match=name):
        check(workshop, dataclasses.replace(receipt, proofs=swapped))


@pytest.mark.parametrize("name", [name for name in receipt_file.ENVELOPES if name != "commitment"])
def test_an_envelope_of_another_receipt(workshop, receipt, class_receipt, name):
    """Validly signed and logged, but not what this receipt is about."""
    envelopes = {**receipt.envelopes, name: class_receipt.envelopes[name]}
    proofs = {**receipt.proofs, name: class_receipt.proofs[name]}
    with pytest.raises(VerificationError):
        check(workshop, dataclasses.replace(receipt, envelopes=envelopes, proofs=proofs))


def test_an_envelope_in_the_place_of_another(workshop, receipt):
    envelopes = {**receipt.envelopes, "report": receipt.envelopes["receipt"]}
    proofs = {**receipt.proofs, "report": receipt.proofs["receipt"]}
    with pytest.raises(MalformedError):
        check(workshop, dataclasses.replace(receipt, envelopes=envelopes, proofs=proofs))


def test_without_the_quorum(workshop, honest, tmp_path):
    inputs = workshop.inputs(honest)
    audit.write_report(inputs, audit.examine(inputs), tmp_path / "r", force=False)
    file = receipt_file.parse((tmp_path / "r" / "receipts" / "000.receipt").read_bytes())
    with pytest.raises(VerificationError, match="finished receipt"):
        check(workshop, file)
    alone = dataclasses.replace(workshop.policy, quorum="none")
    assert receipts.verify(file.to_bytes(), policy=alone, trust=workshop.trust).verdict == "CONSISTENT"


def test_claims_and_records(workshop, receipt, class_receipt):
    first, second, *rest = receipt.claims
    for claims in (
        (dataclasses.replace(first, line=second.line), second, *rest),
        (dataclasses.replace(first, path=second.path), second, *rest),
        (dataclasses.replace(first, path=first.path[:-1]), second, *rest),
        (first, second, *rest[:-1], dataclasses.replace(rest[-1], index=rest[-1].index + 1)),
    ):
        with pytest.raises(Inclusion, match=r"claims\["):
            check(workshop, dataclasses.replace(receipt, claims=claims))
    with pytest.raises(DigestMismatch, match="no claim in the receipt"):
        check(workshop, dataclasses.replace(receipt, claims=(second, *rest)))
    for records in (receipt.records[1:], ()):
        with pytest.raises(DigestMismatch):
            check(workshop, dataclasses.replace(receipt, records=records))
    with pytest.raises(VerificationError):
        check(workshop, dataclasses.replace(class_receipt, claims=receipt.claims))


def test_a_request_that_the_certificate_does_not_answer(workshop, receipt, class_receipt):
    """Even an auditor who signs for it cannot make the pieces fit."""
    swapped = dataclasses.replace(
        receipt,
        envelopes={**receipt.envelopes, "request": class_receipt.envelopes["request"]},
        proofs={**receipt.proofs, "request": class_receipt.proofs["request"]},
    )
    signed = _resigned(workshop, swapped, request=leaf_of(class_receipt.envelopes["request"]))
    with pytest.raises(DigestMismatch, match="does not answer this request"):
        check(workshop, signed)


def test_all_claims_and_records_taken_away(workshop, receipt):
    with pytest.raises(DigestMismatch, match="not those that the request was signed for"):
        check(workshop, dataclasses.replace(receipt, claims=(), records=()))


def test_trust_decides(workshop, receipt):
    strangers = dataclasses.replace(
        workshop.trust, signers=tuple(s for s in workshop.trust.signers if s.role != "auditor")
    )
    with pytest.raises(UnknownKey, match="receipt"):
        receipts.verify(receipt.to_bytes(), policy=workshop.policy, trust=strangers)


def _resigned(workshop, receipt, **changes):
    """A receipt statement with other contents, signed and logged by the auditor."""
    _, statement = messages.read(receipt.envelopes["receipt"], Receipt)
    envelope = sign(
        dataclasses.replace(statement, **changes).payload(), load_signing_key(workshop.world.key("auditor"))
    )
    proof = workshop.ledger.append(envelope)
    workshop.world.witness(workshop.world.auditor_log)
    proofs = {**receipt.proofs, "receipt": workshop.ledger.refreshed(proof)}
    return dataclasses.replace(receipt, envelopes={**receipt.envelopes, "receipt": envelope}, proofs=proofs)


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "REFUTED"}, {"profile": "other"}, {"request": "0" * 64}, {"certificate": "0" * 64},
        {"report": "0" * 64}, {"commitment": "0" * 64}, {"subject": "0" * 64},
    ],
)  # fmt: skip
def test_a_receipt_has_to_agree_with_what_it_carries(workshop, receipt, changes):
    with pytest.raises(DigestMismatch):
        check(workshop, _resigned(workshop, receipt, **changes))


def test_a_refuted_report_has_receipts_too(workshop, tmp_path):
    def false(scene):
        from owner.methods.job import Result

        claims = tuple(
            dataclasses.replace(c, region=dataclasses.replace(c.region, radius=c.region.radius + 9))
            for c in scene.result.claims
        )
        return scene.draft(Result(patch=scene.result.patch, claims=claims))

    file = _reported(workshop, workshop.forge(false), tmp_path / "report")
    found = check(workshop, file)
    assert found.verdict == "REFUTED"
    assert found.findings
    path = tmp_path / "report" / "receipts" / "000.receipt"
    ran = run("prune-auditor", "verify-receipt", path, *workshop.world.trusted(), "--json")
    assert (ran.code, ran.json["verdict"]) == (3, "REFUTED")
    assert "finding:" in ran.out


def test_claims_that_do_not_fit_their_root_are_not_handed_on(workshop, tmp_path):
    def other(scene):
        made = scene.draft()
        return dataclasses.replace(made, certificate=dataclasses.replace(made.certificate, claims_root=bytes(32)))

    file = _reported(workshop, workshop.forge(other), tmp_path / "report")
    assert file.claims == ()
    assert check(workshop, file).verdict == "REFUTED"


def test_a_request_whose_list_is_not_there(workshop, tmp_path):
    def other(scene):
        made = scene.draft()
        del made.files["requests/000.leaves.json"]
        return made

    file = _reported(workshop, workshop.forge(other), tmp_path / "report")
    assert (file.records, file.claims) == ((), ())
    assert check(workshop, file).verdict == "INCONCLUSIVE"


def test_only_own_claims_are_in_a_receipt(workshop, honest, receipt):
    case = workshop.case(honest)
    assert [claim.line for claim in receipt.claims] == list(case.claim_lines)
    nobody = dataclasses.replace(case.requests[0], listed=())
    assert receipts._own_claims(case, nobody) == ()
    one = dataclasses.replace(case.requests[0], listed=case.requests[0].listed[:1])
    (claim,) = receipts._own_claims(case, one)
    assert claim_lines.parse_claim(claim.line).record == case.requests[0].listed[0]
    merkle.verify_inclusion(merkle.leaf_hash(claim.line), claim.index, 40, claim.path, case.certificate.claims_root)
