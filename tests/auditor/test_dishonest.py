"""An owner who knows this code and signs validly: whatever is tried, no CONSISTENT under `redirection`.

Each function makes one bundle that cheats; the honest twin is `test_the_honest_twin`. What is required is the
verdict and the check (not only some check) that has to see it.
"""

import dataclasses
import json

import numpy as np
import pytest

from auditor import audit
from auditor.checks import boundedness, completeness, locality, redirection
from auditor.opening import make_challenge
from owner.gates import sketch
from owner.journal import leaf_of
from owner.methods.job import Result
from protocol import claims as claim_lines
from protocol import openings
from protocol.claims import Argmax, ClassRemoval, NoRedirection, Region
from protocol.encoding import format_float32
from protocol.errors import AuditorError, DigestMismatch
from protocol.keys import load_signing_key
from protocol.model.patch import Cap, SketchGate
from protocol.records import list_root
from tests.auditor.samples import rebuilt
from tests.conformance.adversaries import Scene

TINY, HUGE = format_float32(np.float32(1e-20)), format_float32(np.float32(1e38))


def claims_changed(change):
    """A draft whose claims are `change(claims)`."""
    return lambda scene: scene.draft(Result(patch=scene.result.patch, claims=tuple(change(scene.result.claims))))


def with_radius(claim, radius, data=None):
    region = dataclasses.replace(claim.region, radius=radius, radius_data=data or claim.region.radius_data)
    return dataclasses.replace(claim, region=region)


def _second_claim(claims):
    """Two claims for one record; the second says something else."""
    klass = int(np.argmin(claims[0].property.array()))
    return [*claims, dataclasses.replace(claims[0], property=Argmax(klass=klass, margin="1"), target="relabel")]


def _huge_radius(claims):
    return [with_radius(claim, 10**9, "1000000000") for claim in claims]


def _largest_radius(claims):
    return [with_radius(claim, 9_999_999_999) for claim in claims]


def _item_out_of_range(claims):
    return [dataclasses.replace(claims[0], item=1_000_000), *claims[1:]]


def _swapped_items(claims):
    first, second, *rest = claims
    return [dataclasses.replace(first, item=second.item), dataclasses.replace(second, item=first.item), *rest]


def _data_radius_overstated(claims):
    return [with_radius(claim, claim.region.radius, "1000") for claim in claims]


def _nothing_claimed(claims):
    return [NoRedirection(record=claim.record, reason="because") for claim in claims]


def _one_not_claimed(claims):
    return [NoRedirection(record=claims[0].record, reason="because"), *claims[1:]]


def _other_gate(claims):
    return [dataclasses.replace(claim, gate="feature") for claim in claims]


def _hamming(claims):
    return [dataclasses.replace(claim, region=Region(norm="hamming", radius=2, radius_data="0")) for claim in claims]


def _strangers_claim(claims):
    return [*claims, NoRedirection(record=bytes(32), reason="nobody")]


def _removal_nobody_asked_for(claims):
    return [*claims, ClassRemoval(klass=5, margin="1", nonce=bytes(32))]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (_second_claim, "REFUTED"),
        (_huge_radius, "REFUTED"),
        (_largest_radius, "REFUTED"),
        (_item_out_of_range, "REFUTED"),
        (_swapped_items, "INCONCLUSIVE"),
        (_data_radius_overstated, "INCONCLUSIVE"),
        (_nothing_claimed, "INCONCLUSIVE"),
        (_one_not_claimed, "INCONCLUSIVE"),
        (_other_gate, "INCONCLUSIVE"),
        (_hamming, "INCONCLUSIVE"),
        (_removal_nobody_asked_for, "REFUTED"),
    ],
)
def test_claims_that_do_not_hold(workshop, change, verdict):
    evidence = workshop.evidence(workshop.forge(claims_changed(change), answer=False))
    assert redirection.check(evidence).verdict == verdict


def test_the_honest_twin(workshop, honest):
    verdict, checks, findings = workshop.verdicts(honest)
    assert verdict == "CONSISTENT", checks
    assert not findings


def test_a_claim_about_a_record_that_was_not_opened(workshop):
    def change(scene):
        claims = (*scene.result.claims, dataclasses.replace(scene.result.claims[0], record=bytes(32)))
        return scene.draft(Result(patch=scene.result.patch, claims=claims))

    evidence = workshop.evidence(workshop.forge(change, answer=False))
    assert redirection.check(evidence).verdict == "INCONCLUSIVE"
    assert boundedness.check(evidence).verdict == "REFUTED"


def _base_outputs(scene: Scene) -> np.ndarray:
    from owner.execute import Program

    workspace = scene.job.workspace
    return Program(workspace.base)(workspace.schema.dequantise(workspace.records.values[scene.job.rows]))


@pytest.mark.parametrize("distance", [0.0, 1e-5])
def test_a_patch_that_redirects_to_the_bases_own_output(workshop, distance):
    """It fires, its claims hold, and nothing was changed by it."""

    def change(scene):
        rows = (_base_outputs(scene) * np.float32(1 + distance)).astype(np.float32)
        index = scene.result.patch.parts[0].head.index
        patch = rebuilt(scene.result.patch, rows=rows[np.argsort(index)])
        claims = tuple(
            dataclasses.replace(
                claim, property=claim_lines.logits_property(patch.parts[0].head.rows[index[claim.item]])
            )
            for claim in scene.result.claims
        )
        return scene.draft(Result(patch=patch, claims=claims))

    evidence = workshop.evidence(workshop.forge(change, answer=False))
    found = redirection.check(evidence)
    assert found.verdict == "REFUTED"
    assert found.findings[0].threat == "noop-patch"


def test_one_record_of_many_redirected_to_its_own_output(workshop):
    def change(scene):
        patch, own = scene.result.patch, _base_outputs(scene)
        head = patch.parts[0].head
        rows = head.rows.copy()
        rows[head.index[0]] = own[0]
        changed = rebuilt(patch, rows=rows)
        first = dataclasses.replace(scene.result.claims[0], property=claim_lines.logits_property(own[0]))
        return scene.draft(Result(patch=changed, claims=(first, *scene.result.claims[1:])))

    found = redirection.check(workshop.evidence(workshop.forge(change, answer=False)))
    assert found.verdict == "REFUTED"
    assert found.evidence["counterexamples"] == 1


def test_a_misclassification_into_the_own_class(workshop):
    def change(scene):
        patch, labels = scene.result.patch, scene.job.workspace.records.labels[scene.job.rows]
        head = patch.parts[0].head
        rows = np.zeros_like(head.rows)
        rows[head.index, labels] = 5
        claims = tuple(
            dataclasses.replace(claim, property=Argmax(klass=int(labels[claim.item]), margin="1"), target="misclassify")
            for claim in scene.result.claims
        )
        return scene.draft(Result(patch=rebuilt(patch, rows=rows), claims=claims))

    found = redirection.check(workshop.evidence(workshop.forge(change, answer=False)))
    assert found.verdict == "INCONCLUSIVE"
    assert "own class" in found.summary


def _stranger(scene: Scene) -> int:
    return next(row for row in range(400) if row not in scene.job.rows)


def test_items_and_claims_for_records_that_nobody_asked_about(workshop):
    """A record of somebody else is redirected, with a claim that holds; statistics on 400 records cannot see one."""

    def change(scene):
        patch, workspace, row = scene.result.patch, scene.job.workspace, _stranger(scene)
        gate, index = patch.parts[0].gate, patch.parts[0].head.index
        low, high = sketch.boxes(gate.matrix, workspace.schema, workspace.records.values[[row]], np.array([1]))
        bigger = rebuilt(
            patch,
            gate=SketchGate(
                matrix=gate.matrix,
                low=np.concatenate([gate.low, low.astype(np.int32)]),
                high=np.concatenate([gate.high, high.astype(np.int32)]),
            ),
            index=np.concatenate([index, index[:1]]),
        )
        extra = dataclasses.replace(
            with_radius(scene.result.claims[0], 1, "0"),
            record=workspace.commitments_of([row])[0],
            item=patch.items,
        )
        made = scene.draft(Result(patch=bigger, claims=(*scene.result.claims, extra)))
        opened = workspace.open_rows([*scene.job.rows, row])
        made.files["openings.npz"] = ("opening", openings.serialise(opened, features=patch.features))
        return made

    verdict, checks, findings = workshop.verdicts(workshop.forge(change))
    assert verdict == "REFUTED"
    assert checks["boundedness"] == "REFUTED"
    assert findings == {"hidden-payload"}


def test_a_class_removed_that_nobody_asked_for(workshop):
    """Locality and utility leave out removed classes: only the ones that were asked for."""

    def change(scene):
        removal = ClassRemoval(klass=5, margin="1", nonce=bytes(32))
        patch = dataclasses.replace(scene.result.patch, caps=(Cap(klass=5, margin="1"),))
        head = patch.parts[0].head
        rows = head.rows.copy()
        rows[:, 5] = np.minimum(rows[:, 5], np.delete(rows, 5, axis=1).max(axis=1) - 1)
        claims = tuple(
            dataclasses.replace(claim, property=claim_lines.logits_property(rows[head.index[claim.item]]))
            for claim in scene.result.claims
        )
        return scene.draft(Result(patch=patch, claims=(*claims, removal)))

    verdict, checks, _ = workshop.verdicts(workshop.forge(change))
    assert verdict == "REFUTED"
    for check in ("boundedness", "locality", "utility"):
        assert checks[check] == "REFUTED", check


def test_more_records_opened_than_were_asked_about_thin_nothing_out(workshop):
    def change(scene):
        made, workspace = scene.draft(), scene.job.workspace
        opened = workspace.open_rows([*scene.job.rows, *(r for r in range(400) if r not in scene.job.rows)])
        made.files["openings.npz"] = ("opening", openings.serialise(opened, features=64))
        return made

    evidence = workshop.evidence(workshop.forge(change, answer=False))
    assert len(evidence.case.opened) == 400
    assert len(evidence.requested_records[0]) == 40
    assert evidence.requested_missing == 0


def test_half_of_the_records_opened(workshop):
    def change(scene):
        made, workspace = scene.draft(), scene.job.workspace
        made.files["openings.npz"] = (
            "opening", openings.serialise(workspace.open_rows(scene.job.rows[:20]), features=64)
        )  # fmt: skip
        return made

    verdict, checks, _ = workshop.verdicts(workshop.forge(change))
    assert verdict == "INCONCLUSIVE"
    assert {checks["completeness"], checks["redirection"], checks["membership"]} == {"INCONCLUSIVE"}


def test_no_openings_at_all(workshop):
    def change(scene):
        made = scene.draft()
        del made.files["openings.npz"]
        return made

    verdict, checks, _ = workshop.verdicts(workshop.forge(change))
    assert verdict == "INCONCLUSIVE"
    assert checks["completeness"] == checks["membership"] == checks["persistence"] == "INCONCLUSIVE"


def test_a_request_named_but_left_out_of_the_bundle(workshop):
    def change(scene):
        made = scene.draft()
        del made.files["requests/000.dsse.json"]
        del made.files["requests/000.leaves.json"]
        del made.proofs["request-000"]
        return made

    evidence = workshop.evidence(workshop.forge(change, answer=False))
    found = completeness.check(evidence)
    assert found.verdict == "REFUTED"
    assert found.findings[0].threat == "partial-forget-set"
    assert boundedness.check(evidence).verdict == "REFUTED"


def test_a_list_left_out_of_the_bundle_leaves_nothing_sure(workshop):
    def change(scene):
        made = scene.draft()
        del made.files["requests/000.leaves.json"]
        return made

    verdict, checks, _ = workshop.verdicts(workshop.forge(change))
    assert verdict == "INCONCLUSIVE"
    # Who was asked about is unknown, so nobody can be accused of redirecting somebody else.
    assert {checks["completeness"], checks["boundedness"], checks["locality"]} == {"INCONCLUSIVE"}


def test_an_opening_for_further_requests(workshop):
    other = workshop.demo.request("further", "--records", "1,2,3")
    forged = workshop.forge(opened_for=(workshop.records, other))
    found = completeness.check(workshop.evidence(forged))
    assert found.verdict == "INCONCLUSIVE"
    assert "1 further requests" in found.summary


@pytest.fixture(scope="module")
def spent(workshop):
    """An opened audit for another request, whose nonce a report revealed."""
    other = workshop.demo.request("spent", "--records", "1,2,3")
    return workshop.demo.open_audit("spent", "redirection", other)


@pytest.mark.parametrize("shown", [True, False])
def test_a_certificate_that_names_a_spent_opening(workshop, spent, shown):
    """Whether or not the bundle holds the opened audit: the auditor knows what it was opened for."""

    def change(scene):
        made = scene.draft()
        if shown:
            made.files["opening.dsse.json"] = ("audit-opening", spent.read_bytes())
            made.proofs["opening"] = spent.with_suffix(".tlog-proof").read_bytes()
        else:
            del made.files["opening.dsse.json"]
            del made.proofs["opening"]
        named = dataclasses.replace(made.certificate, opening=leaf_of(spent.read_bytes()))
        return dataclasses.replace(made, certificate=named)

    forged = workshop.forge(change, challenge=False)
    verdict, checks, findings = workshop.verdicts(forged)
    assert verdict == "REFUTED"
    assert (checks["freshness"], checks["challenge"]) == ("REFUTED", "INCONCLUSIVE")
    assert findings == {"replay"}
    with pytest.raises(AuditorError, match="other requests"):
        _challenge(workshop, forged, spent)


def _challenge(workshop, forged, opening):
    return make_challenge(
        forged.bundle,
        opening.read_bytes(),
        acknowledgement=None,
        key=load_signing_key(workshop.world.key("auditor")),
        ledger=workshop.ledger,
        out=forged.bundle.parent / "again.json",
        now=workshop.world.clock.now,
    )


def _same_opening(opening):
    """Another certificate that names an opening of an earlier one."""

    def change(scene):
        made = scene.draft()
        made.files["opening.dsse.json"] = ("audit-opening", opening.read_bytes())
        made.proofs["opening"] = opening.with_suffix(".tlog-proof").read_bytes()
        named = dataclasses.replace(made.certificate, opening=leaf_of(opening.read_bytes()), certified_at=1_790_000_000)
        return dataclasses.replace(made, certificate=named)

    return change


def test_one_opened_audit_has_one_challenge(workshop):
    """Else an owner tries certificates until the drawn records suit it."""
    first = workshop.forge()
    second = workshop.forge(_same_opening(first.opening), challenge=False)
    with pytest.raises(AuditorError, match="open a new audit"):
        _challenge(workshop, second, first.opening)
    assert workshop.verdicts(second)[1]["challenge"] == "INCONCLUSIVE"
    _challenge(workshop, first, first.opening)  # the same question may be asked again


def test_no_challenge_once_the_nonce_is_known(workshop, tmp_path):
    first = workshop.forge(challenge=False)
    inputs = workshop.inputs(first)
    audit.write_report(inputs, audit.examine(inputs), tmp_path / "report", force=False)
    second = workshop.forge(_same_opening(first.opening), challenge=False)
    for forged in (first, second):
        with pytest.raises(AuditorError, match="known from a report"):
            _challenge(workshop, forged, first.opening)


def test_a_bundle_that_names_no_audit_does_not_spoil_the_open_one(workshop, tmp_path):
    """A report on it would reveal the nonce, and the next certificate could be made to suit the challenge."""

    def unopened(scene):
        made = scene.draft()
        del made.files["opening.dsse.json"]
        del made.proofs["opening"]
        return dataclasses.replace(made, certificate=dataclasses.replace(made.certificate, opening=None))

    request = workshop.demo.request("not-spoilt", "--records", "1,2,3")
    forged = workshop.forge(unopened, request=request, challenge=False)
    inputs = workshop.inputs(forged)
    outcome = audit.examine(inputs)
    report = audit.write_report(inputs, outcome, tmp_path / "report", force=False)
    assert (report.opening, report.nonce) == (leaf_of(forged.opening.read_bytes()), None)
    assert not workshop.ledger.revealed(report.opening)
    secret = workshop.ledger.secret(report.opening).nonce
    assert not any(secret.hex().encode() in p.read_bytes() for p in (tmp_path / "report").rglob("*") if p.is_file())
    # The audit can still be had: with a certificate that names it.
    later = workshop.forge(_same_opening(forged.opening), request=request, challenge=False)
    _challenge(workshop, later, forged.opening)


def test_a_challenge_is_made_from_the_commitment_that_the_certificate_names(workshop):
    forged = workshop.forge(challenge=False)
    path = forged.bundle / "commitment.dsse.json"
    data = path.read_bytes()
    path.write_bytes(data + b"\n")
    with pytest.raises(DigestMismatch, match="not the commitment"):
        _challenge(workshop, forged, forged.opening)


def test_a_challenge_for_other_records_than_the_commitment_has(workshop, honest, monkeypatch):
    """Kept from before, made from whatever was shown then: it says nothing about the commitment at hand."""
    evidence = workshop.evidence(honest)
    commitment = dataclasses.replace(evidence.case.commitment, record_count=399)
    real = workshop.case(honest)
    monkeypatch.setattr(workshop, "case", lambda _: dataclasses.replace(real, commitment=commitment))
    transcript = workshop.evidence(honest).transcript
    assert transcript.opened is None
    assert "other records" in transcript.problems[0][0]


def _answer(workshop, forged, keep):
    """The owner's signed answer, but only with the records that `keep` lets through."""
    from owner.journal import append, sign
    from protocol import manifest, messages
    from protocol.digests import sha256_hex
    from protocol.messages.challenge import Answer, Challenge

    folder = forged.bundle.parent / "partial"
    data = (forged.bundle.parent / "challenge.json").read_bytes()
    _, challenge = messages.read(data, Challenge)
    workspace = next(iter(workshop._scenes.values())).job.workspace
    opened = [o for o in workspace.open_indices([int(i) for i in challenge.indices()]) if keep(o)]
    folder.mkdir()
    (folder / "openings.npz").write_bytes(openings.serialise(opened, features=64))
    listing = manifest.build(folder, [("openings.npz", "opening")], refers=leaf_of(data))
    (folder / "manifest.json").write_bytes(listing.raw)
    statement = Answer(
        subject=sha256_hex(listing.raw),
        challenge=leaf_of(data),
        opened=len(opened),
        answered_at=workshop.world.clock.now,
    )
    envelope = sign(statement.payload(), load_signing_key(workshop.world.key("owner")))
    (folder / "answer.dsse.json").write_bytes(envelope)
    (folder / "proofs").mkdir()
    (folder / "proofs" / "answer.tlog-proof").write_bytes(append(workshop.world.owner_log, envelope))
    workshop.demo.settle(folder)
    return dataclasses.replace(forged, openings=folder)


@pytest.mark.parametrize("which", ["only the forgotten", "all but ten"])
def test_an_answer_with_the_records_that_suit_the_owner(workshop, which):
    forged = workshop.forge(answer=False)
    requested = {bytes.fromhex(item) for item in json.loads(workshop.records.with_suffix(".leaves.json").read_text())}
    left = [10]

    def keep(opened):
        if which == "only the forgotten":
            return opened.commitment in requested
        left[0] -= 1
        return left[0] < 0

    answered = _answer(workshop, forged, keep)
    verdict, checks, findings = workshop.verdicts(answered)
    assert verdict == "INCONCLUSIVE"
    assert checks["challenge"] == "INCONCLUSIVE"
    assert checks["locality"] == "INCONCLUSIVE"
    assert findings == {"withheld-opening"}


def test_an_answer_that_opens_other_values_than_were_committed(workshop):
    forged = workshop.forge(answer=False)

    def keep(opened):
        object.__setattr__(opened, "values", np.clip(opened.values + 1, 0, 16))
        return True

    verdict, checks, findings = workshop.verdicts(_answer(workshop, forged, keep))
    assert (verdict, checks["challenge"]) == ("REFUTED", "REFUTED")
    assert "substituted-record" in findings


def test_a_subjects_request_that_lists_other_peoples_records(workshop):
    """Each record is a group of its own here: a group's id with somebody else's record behind it."""
    from owner.journal import append, sign
    from protocol.digests import sha256_hex
    from protocol.messages.request import Request, Scope, serialise_list

    demo = workshop.demo
    honest = demo.scene(workshop.records, workshop.root / "openings" / "honest.json")
    workspace = honest.job.workspace
    (mine,) = workspace.open_rows([3])

    def ask(name, rows):
        listed = tuple(sorted(workspace.commitments_of(rows)))
        request = Request(
            subject=sha256_hex(workspace.envelope), scope=Scope(kind="subject", group=mine.group.hex()),
            records_root=list_root(listed), record_count=len(listed), on_behalf=True,
            requested_at=workshop.world.clock.now, deadline=None,
        )  # fmt: skip
        path = workshop.root / "requests" / f"{name}.json"
        path.write_bytes(sign(request.payload(), load_signing_key(workshop.world.key("owner"))))
        path.with_suffix(".leaves.json").write_bytes(serialise_list(listed))
        path.with_suffix(".tlog-proof").write_bytes(append(workshop.world.owner_log, path.read_bytes()))
        return path

    for rows, verdict, threat in (([3], "CONSISTENT", None), ([5], "REFUTED", "substituted-record")):
        found = completeness.check(
            workshop.evidence(workshop.forge(request=ask(f"subject-{rows[0]}", rows), answer=False), now=0)
        )
        assert found.verdict == verdict, found.summary
        assert [f.threat for f in found.findings] == ([threat] if threat else [])


# --- classes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def class_request(workshop):
    return workshop.demo.request("class-three", "--class", "3")


def class_draft(caps, claims):
    """A bundle for a class request with these caps and claims."""

    def change(scene):
        patch = dataclasses.replace(scene.result.patch, caps=caps)
        return scene.draft(Result(patch=patch, claims=claims))

    return change


def removal(klass, margin="1"):
    return ClassRemoval(klass=klass, margin=margin, nonce=bytes(32))


def test_the_honest_class(workshop, class_request):
    verdict, checks, findings = workshop.verdicts(workshop.forge(request=class_request))
    assert verdict == "CONSISTENT", checks
    assert checks["membership"] == "CONSISTENT"
    assert not findings


@pytest.mark.parametrize(
    ("caps", "claims", "check", "verdict"),
    [
        ((Cap(klass=4, margin="1"),), (removal(4),), "completeness", "REFUTED"),
        ((Cap(klass=3, margin="1"), Cap(klass=4, margin="1")), (removal(3), removal(4)), "boundedness", "REFUTED"),
        ((Cap(klass=3, margin="1"), Cap(klass=4, margin="1")), (removal(3), removal(4)), "locality", "REFUTED"),
        ((Cap(klass=3, margin="1"),), (removal(3, "100"), removal(3, "1")), "redirection", "REFUTED"),
        ((Cap(klass=3, margin="0"),), (removal(3, "0"),), "redirection", "REFUTED"),
        ((Cap(klass=3, margin="1"),), (removal(3, "0"),), "redirection", "INCONCLUSIVE"),
        ((Cap(klass=3, margin=TINY),), (removal(3, TINY),), "redirection", "REFUTED"),
        ((Cap(klass=3, margin=HUGE),), (removal(3),), "boundedness", "REFUTED"),
        ((Cap(klass=4, margin="1"),), (removal(3),), "redirection", "REFUTED"),
        ((Cap(klass=3, margin="1"),), (), "completeness", "REFUTED"),
    ],
)  # fmt: skip
def test_class_requests_with_wrong_caps_and_claims(workshop, class_request, caps, claims, check, verdict):
    from auditor.checks import membership, utility

    evidence = workshop.evidence(workshop.forge(class_draft(caps, claims), request=class_request))
    results = {
        name: module.check(evidence)
        for name, module in (
            ("completeness", completeness), ("redirection", redirection), ("boundedness", boundedness),
            ("locality", locality), ("utility", utility),
        )
    }  # fmt: skip
    assert results[check].verdict == verdict, results[check].summary
    assert membership.check(evidence, membership.Outcome()).verdict in ("CONSISTENT", "REFUTED", "INCONCLUSIVE")


def test_a_request_for_a_class_and_for_records_is_not_about_a_class_only(workshop, class_request):
    """Records that were asked for one by one are attacked one by one, even where a class goes as well."""

    evidence = workshop.evidence(workshop.forge(request=class_request, answer=False))
    real = workshop.evidence(workshop.forge(answer=False))
    from auditor.checks import membership

    mixed = dataclasses.replace(
        evidence,
        case=dataclasses.replace(evidence.case, requests=(*evidence.case.requests, *real.case.requests), opened=()),
    )
    assert membership.check(evidence, membership.Outcome()).verdict == "CONSISTENT"
    assert membership.check(mixed, membership.Outcome()).verdict == "INCONCLUSIVE"


def test_a_thousand_caps_over_many_classes_are_not_composed(honest_evidence, monkeypatch):
    caps = tuple(Cap(klass=klass, margin="1") for klass in range(9))
    patch = dataclasses.replace(honest_evidence.case.patch, caps=caps)
    monkeypatch.setattr("auditor.evidence._MAX_CAPPED", 80)
    found = dataclasses.replace(honest_evidence, case=dataclasses.replace(honest_evidence.case, patch=patch))
    assert "too many to compose" in str(found.composed)
    assert redirection.check(found).verdict == "INCONCLUSIVE"
