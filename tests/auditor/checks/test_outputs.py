"""locality, utility, persistence, disclosure, membership, redirection: what follows from outputs, every verdict."""

import dataclasses
import json

import numpy as np
import pytest

from auditor import attacking, float_gates, following, membership_pages
from auditor.attacks.catalogue import defaults
from auditor.checks import boundedness, disclosure, locality, membership, persistence, redirection, utility
from auditor.cores import Cores
from auditor.propagation import make_plan
from protocol.claims import Argmax, ClassRemoval, NoRedirection, Region
from protocol.model.parts import AffineHead, AlwaysGate, FeatureGate, Part, RegionGate, SetHead
from protocol.model.patch import Cap
from tests.auditor.samples import rebuilt

MODULES = (locality, utility, persistence, disclosure, redirection)


@pytest.mark.parametrize("module", MODULES)
def test_consistent(honest_evidence, module):
    found = module.check(honest_evidence)
    assert found.verdict == "CONSISTENT", found.summary
    json.dumps(found.evidence, allow_nan=False)


@pytest.mark.parametrize("module", MODULES)
def test_a_patch_that_cannot_be_read(unreadable, module):
    assert module.check(unreadable).verdict == "INCONCLUSIVE"


def test_membership_without_a_model(unreadable):
    assert membership.check(unreadable, membership.Outcome()).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("module", [locality, utility, disclosure])
def test_without_data(changed, module):
    evidence = changed(reference=None, reference_missing="No reference data was given.", transcript__opened=None)
    found = module.check(evidence)
    assert found.verdict == "INCONCLUSIVE"
    assert "reference" in found.summary
    bare = changed(reference=None, reference_missing="", transcript__opened=None)
    assert module.check(bare).verdict == "INCONCLUSIVE"


def _moved(evidence, share):
    """Evidence in which the patch moves this share of the other records, to another class."""
    changed = dataclasses.replace(evidence)
    others = {}
    for name, (values, labels, before, after) in evidence.others.items():
        count = round(share * len(labels))
        new = after.copy()
        new[:count] = -before[:count]
        others[name] = (values, labels, before, new)
    vars(changed)["others"] = others
    return changed


def test_locality_and_utility_of_a_patch_that_moves_others(honest_evidence):
    found = locality.check(_moved(honest_evidence, 0.5))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "excessive-support")
    found = utility.check(_moved(honest_evidence, 0.5))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "hidden-damage")
    assert locality.check(_moved(honest_evidence, 0.02)).verdict == "INCONCLUSIVE"
    assert utility.check(_moved(honest_evidence, 0.02)).verdict == "INCONCLUSIVE"


def test_a_twin_of_a_requested_record_accuses_nobody(honest_evidence):
    """No function of the input could redirect the one and spare the other."""
    values, labels = honest_evidence.requested_records
    same = dataclasses.replace(
        honest_evidence, reference=dataclasses.replace(honest_evidence.reference, values=values, labels=labels)
    )
    assert same.twins["reference"].all()
    assert locality.check(same).verdict == "INCONCLUSIVE"
    assert not locality.check(same).findings
    assert not utility.check(same).findings


def test_only_records_of_removed_classes(honest_evidence):
    evidence = dataclasses.replace(honest_evidence)
    vars(evidence)["removed_classes"] = tuple(range(10))
    assert locality.check(evidence).verdict == "INCONCLUSIVE"
    assert "remaining class" in utility.check(evidence).summary


def test_locality_needs_the_records_that_were_drawn(honest_evidence, changed):
    some = changed(transcript__opened=honest_evidence.transcript.opened[:-1])
    found = locality.check(some)
    assert found.verdict == "INCONCLUSIVE"
    assert "1 of 200 challenged records were not opened" in found.summary


# --- persistence -------------------------------------------------------------------------------------


def test_persistence_refuted_and_inconclusive(levels, changed, honest_evidence):
    found = persistence.check(levels("persistence", distance=16))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "point-lookup")
    share = found.evidence["share"]
    undecided = levels("persistence", distance=2, share_at_least=share)
    at_two = persistence.check(undecided).evidence["share"]
    near = levels("persistence", distance=2, share_at_least=max(at_two - 0.001, 0.0))
    assert persistence.check(near).verdict in ("INCONCLUSIVE", "CONSISTENT")
    assert persistence.check(levels("persistence", distance=99)).verdict == "INCONCLUSIVE"
    assert persistence.check(changed(case__opened=())).verdict == "INCONCLUSIVE"


def test_persistence_between_sure_and_refuted(honest_evidence):
    evidence = dataclasses.replace(honest_evidence)
    at = next(p for p in persistence.sweep(honest_evidence) if p.distance == 4)
    level = (at.low + at.high) / 2 if at.low < at.high else at.share
    merged = {**evidence.profile.levels, "persistence": {"distance": 4, "share_at_least": level}}
    evidence = dataclasses.replace(evidence, profile=dataclasses.replace(evidence.profile, levels=merged))
    assert persistence.check(evidence).verdict in ("INCONCLUSIVE", "CONSISTENT")
    without = dataclasses.replace(evidence, reference=None)
    assert persistence.check(without).evidence["control_share"] is None


# --- disclosure --------------------------------------------------------------------------------------


def test_disclosure(levels, changed, honest_evidence):
    found = disclosure.check(levels("disclosure", error_at_least=5.0))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "patch-as-record")
    ratio = disclosure.check(honest_evidence).evidence["ratio"]
    assert disclosure.check(levels("disclosure", error_at_least=ratio)).verdict == "INCONCLUSIVE"
    assert disclosure.check(changed(case__opened=())).verdict == "INCONCLUSIVE"
    capped = dataclasses.replace(honest_evidence.case.patch, parts=(), caps=(Cap(klass=1, margin="1"),))
    assert disclosure.check(changed(case__patch=capped)).verdict == "CONSISTENT"


def test_disclosure_of_many_records_looks_at_some(honest_evidence, monkeypatch):
    monkeypatch.setattr(attacking, "_LARGEST", 10)
    found = attacking.read_patch(honest_evidence, defaults("patch-read") | {"steps": 5}, np.random.default_rng(0))
    assert len(found.per_record) == 10
    assert disclosure.check(honest_evidence).verdict in ("CONSISTENT", "INCONCLUSIVE")


def test_disclosure_where_the_reference_lacks_a_class(honest_evidence):
    reference = honest_evidence.reference
    some = reference.labels != honest_evidence.requested_records[1][0]
    fewer = dataclasses.replace(
        honest_evidence,
        reference=dataclasses.replace(reference, values=reference.values[some], labels=reference.labels[some]),
    )
    assert disclosure.check(fewer).verdict in ("CONSISTENT", "INCONCLUSIVE")


# --- redirection -------------------------------------------------------------------------------------


def test_redirection_facts(honest_evidence):
    found = redirection.check(honest_evidence)
    assert found.evidence["proven"] == found.evidence["claims"] == 40
    assert found.evidence["counterexamples"] == 0


def test_redirection_nothing_claimed(changed):
    found = redirection.check(changed(case__claims=()))
    assert (found.verdict, found.summary) == ("INCONCLUSIVE", "No redirection is claimed.")
    found = redirection.check(changed(case__claims=(NoRedirection(record=bytes(32), reason="no"),)))
    assert found.verdict == "INCONCLUSIVE"
    assert redirection.check(changed(case__claims=None)).verdict == "INCONCLUSIVE"


def test_redirection_of_a_patch_without_a_gate(honest_evidence, changed):
    capped = dataclasses.replace(honest_evidence.case.patch, parts=(), caps=(Cap(klass=1, margin="1"),))
    found = redirection.check(changed(case__patch=capped))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "noop-patch")
    assert found.evidence["counterexamples"] == 40


def _claims(evidence, change):
    return tuple(change(claim) for claim in evidence.case.claims)


def test_redirection_what_is_not_proven(honest_evidence, changed):
    """Row without the property, earlier item in the way: open, not refuted, unless an output shows it."""
    case = honest_evidence.case
    # Every item's row leads by something; claiming a lead of 0 is claiming nothing that could be replayed.
    weak = _claims(
        honest_evidence,
        lambda c: dataclasses.replace(
            c, property=Argmax(klass=int(np.argmax(c.property.array())), margin="0"), target="relabel"
        ),
    )
    assert redirection.check(changed(case__claims=weak)).verdict == "REFUTED"
    # An item before all others, with another row and a box that meets every hull but holds no record.
    patch, gate, index = case.patch, case.patch.parts[0].gate, case.patch.parts[0].head.index
    low = np.concatenate([gate.low.max(axis=0, keepdims=True), gate.low])
    high = np.concatenate([np.full_like(gate.high[:1], gate.high.max()), gate.high])
    low[0] = gate.high.max()
    shifted = rebuilt(
        patch, gate=dataclasses.replace(gate, low=low, high=high), index=np.concatenate([index[:1], index])
    )
    moved = _claims(honest_evidence, lambda c: dataclasses.replace(c, item=c.item + 1))
    assert redirection.check(changed(case__patch=shifted, case__claims=moved)).verdict == "CONSISTENT"
    first = np.concatenate([gate.high[:1], gate.low]), np.concatenate([gate.high[:1] + 5, gate.high])
    touching = rebuilt(
        shifted, gate=dataclasses.replace(gate, low=first[0], high=first[1]), index=np.concatenate([index[1:2], index])
    )
    assert redirection.check(changed(case__patch=touching, case__claims=moved)).verdict in ("INCONCLUSIVE", "REFUTED")


@pytest.mark.parametrize(("radius", "verdict"), [(0, "CONSISTENT"), (16, "REFUTED")])
def test_redirection_by_bounds_on_the_bases_own_values(honest_evidence, changed, radius, verdict):
    """Items that fire on an inner tensor of the base: proven for the records' own cells, refuted for whole columns."""
    case = honest_evidence.case
    values, _, claims = honest_evidence.claimed_records
    # Three records: of many, some share hidden values as far as these bounds can tell.
    chosen = [number for number, claim in enumerate(claims) if claim.item < 3]
    chosen.sort(key=lambda number: claims[number].item)
    values, claims = values[chosen], tuple(claims[number] for number in chosen)
    cores = Cores(schema=case.schema, centre=values, steps=np.zeros((len(values), 1), np.int64))
    tensor = case.base.nodes[0].outputs[0]
    low, high = float_gates._inner(make_plan(case.base), tensor, cores, "interval")
    gate = FeatureGate(tensor=tensor, low=(low - 0.01).astype(np.float32), high=(high + 0.01).astype(np.float32))
    head = case.patch.parts[0].head
    rows, index = np.unique(head.index[:3], return_inverse=True)
    patch = rebuilt(case.patch, gate=gate, rows=head.rows[rows], index=index)
    region = Region(norm="linf", radius=radius, radius_data="0")
    told = tuple(dataclasses.replace(claim, gate="feature", region=region) for claim in claims)
    found = redirection.check(changed(case__patch=patch, case__claims=told))
    assert found.verdict == verdict, found.summary
    if verdict == "CONSISTENT":
        assert "by bounds on float32 programs" in found.summary
        wrong = tuple(dataclasses.replace(c, gate="sketch") for c in told)
        found = redirection.check(changed(case__patch=patch, case__claims=wrong))
        assert (found.verdict, "gate of kind feature" in found.summary) == ("INCONCLUSIVE", True)


def test_boundedness_and_disclosure_of_maps_and_of_other_gates(honest_evidence, changed):
    case = honest_evidence.case
    (part,) = case.patch.parts
    classes, features = case.patch.classes, case.patch.features

    def with_map(weights):
        head = AffineHead(weights=weights, rows=part.head.rows, index=part.head.index)
        return changed(case__patch=dataclasses.replace(case.patch, parts=(dataclasses.replace(part, head=head),)))

    small = np.full((len(part.head.rows), classes, features), 1e-4, np.float32)
    assert boundedness.check(with_map(small)).verdict == "CONSISTENT"
    large = small.copy()
    large[0, 0] = 1e4
    found = boundedness.check(with_map(large))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "hidden-payload")
    # A column that no reference record uses: nothing is seen, and nothing is proven.
    unused = np.flatnonzero((honest_evidence.reference.values == case.schema.low).all(axis=0))
    hidden = small.copy()
    hidden[0, 0, unused[:1]] = 1e4
    found = boundedness.check(with_map(hidden))
    assert len(unused)
    assert (found.verdict, "somewhere" in found.summary) == ("INCONCLUSIVE", True)
    always = dataclasses.replace(
        case.patch, parts=(Part(gate=AlwaysGate(), head=SetHead(rows=part.head.rows[:1], index=np.zeros(1, np.int64))),)
    )
    assert disclosure.check(changed(case__patch=always)).verdict == "INCONCLUSIVE"
    both = dataclasses.replace(case.patch, parts=(*always.parts, part))
    moved = _claims(honest_evidence, lambda c: dataclasses.replace(c, item=c.item + 1))
    # What a part that fires everywhere stores says nothing of a record; the sketch behind it is read as before.
    alone = disclosure.check(honest_evidence).evidence
    read = disclosure.check(changed(case__patch=both, case__claims=moved)).evidence
    assert abs(read["ratio"] - alone["ratio"]) < 0.1
    assert read["stored_numbers_per_record"] == alone["stored_numbers_per_record"] == part.gate.matrix.shape[0]
    whole = RegionGate(
        weights=np.repeat(np.eye(features, dtype=np.float32)[None], part.gate.items, axis=0),
        bounds=case.schema.dequantise(honest_evidence.claimed_records[0]).reshape(part.gate.items, -1)
        + np.float32(1e-3),
    )
    telling = dataclasses.replace(case.patch, parts=(dataclasses.replace(part, gate=whole),))
    found = disclosure.check(changed(case__patch=telling))
    assert found.evidence["stored_numbers_per_record"] == features * features


def test_redirection_classes_only(honest_evidence, changed):
    claim = ClassRemoval(klass=3, margin="1", nonce=bytes(32))
    found = redirection.check(changed(case__claims=(claim,)))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "noop-patch")


def test_an_unreplayable_norm_is_open(honest_evidence, changed):
    flips = _claims(
        honest_evidence,
        lambda c: dataclasses.replace(c, region=Region(norm="hamming", radius=1, radius_data="0")),
    )
    found = redirection.check(changed(case__claims=flips))
    assert (found.verdict, found.evidence["counterexamples"]) == ("INCONCLUSIVE", 0)


def test_holds_is_exact():
    from protocol.claims import Logits, Redirection

    def claim(wanted):
        region = Region(norm="linf", radius=0, radius_data="0")
        return Redirection(record=bytes(32), item=0, gate="sketch", region=region, property=wanted, target="match")

    claims = (
        claim(Logits(values=("1", "2"))), claim(Logits(values=("1",))), claim(Argmax(klass=1, margin="1")),
        claim(Argmax(klass=1, margin="1.0000001")), claim(Argmax(klass=7, margin="1")), claim(Argmax(klass=1, margin="0")),
    )  # fmt: skip
    output = np.array([[1, 2]] * 6, dtype=np.float32)
    assert following.holds(claims, np.arange(6), output).tolist() == [True, False, True, False, False, False]
    for bad in (np.nan, np.inf):
        assert not following.holds(claims, np.array([2]), np.array([[0, bad]], dtype=np.float32)).any()
    assert following.holds(claims, np.array([2]), np.array([[-np.inf, 2]], dtype=np.float32)).all()


# --- membership --------------------------------------------------------------------------------------


def _with_membership(evidence, **levels):
    merged = {**evidence.profile.levels, "membership": {**evidence.profile.levels["membership"], **levels}}
    # The plan's own section would hold beside it, the stricter of both.
    transcript = dataclasses.replace(
        evidence.transcript, plan=dataclasses.replace(evidence.transcript.plan, membership=None)
    )
    profile = dataclasses.replace(evidence.profile, levels=merged)
    return dataclasses.replace(evidence, profile=profile, transcript=transcript)


def test_membership_three_ways(honest_evidence):
    outcome = membership.Outcome()
    found = membership.check(_with_membership(honest_evidence, shadows=24, margin=0.45), outcome)
    assert found.verdict == "CONSISTENT", found.summary
    assert outcome.patched is not None and outcome.base is not None
    assert set(membership_pages.figures(outcome.patched)) == set(membership_pages.figures(outcome.base))
    for control in (False, True):
        assert len(membership_pages.curves(outcome.patched, like=outcome.patched, control=control)) == len(
            outcome.patched.comparisons
        )
    small = membership.check(_with_membership(honest_evidence, shadows=12, margin=0.001), membership.Outcome())
    assert small.verdict in ("INCONCLUSIVE", "REFUTED")


def test_membership_refutes_what_stands_out(honest_evidence, changed):
    patch = honest_evidence.case.patch
    rows = np.zeros_like(patch.parts[0].head.rows)
    labels = honest_evidence.requested_records[1]
    rows[np.arange(len(rows)), (labels[: len(rows)] + 1) % 10] = 20
    streisand = _with_membership(changed(case__patch=rebuilt(patch, rows=rows)), shadows=12, margin=0.1)
    found = membership.check(streisand, membership.Outcome())
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "over-forgetting")


def test_membership_inconclusive(honest_evidence, changed):
    def verdict(evidence):
        return membership.check(evidence, membership.Outcome())

    assert verdict(changed(reference=None, reference_missing="No data.")).summary == "No data."
    assert verdict(changed(case__opened=())).summary == "No forgotten record was opened."
    assert "plan cannot be run" in verdict(_with_membership(honest_evidence, attacks=["palm reading"])).summary
    tiny = dataclasses.replace(
        honest_evidence.reference, values=honest_evidence.reference.values[:3],
        labels=honest_evidence.reference.labels[:3],
    )  # fmt: skip
    assert "No shadow models" in verdict(changed(reference=tiny)).summary


def test_too_few_forgotten_records_are_refused_before_any_training(changed, monkeypatch):
    monkeypatch.setattr("auditor.attacking.prepare", lambda *_: pytest.fail("shadow models were trained in vain"))
    few = changed()
    values, labels = few.requested_records
    vars(few).update(requested_records=(values[:19], labels[:19]))
    found = membership.check(few, membership.Outcome())
    assert (found.verdict, found.summary) == ("INCONCLUSIVE", "19 forgotten records; at least 20 are needed.")


def test_shadow_models_that_the_committed_recipe_leaves_untrained(honest_evidence, changed):
    """The owner's recipe trains the auditor's shadows: one that trains nothing must not buy a CONSISTENT."""
    from protocol.model.recipe import Recipe

    idle = changed(case__recipe=Recipe(rate=1e-9, epochs=1))
    found = membership.check(
        _with_membership(idle, shadows=4, margin=0.49, required_attacks=["loss"]), membership.Outcome()
    )
    assert found.verdict == "INCONCLUSIVE"
    assert "do not resemble" in found.summary


def test_a_removed_class_that_is_still_predicted(honest_evidence, changed):
    evidence = changed()
    vars(evidence).update(requested=frozenset(), removed_classes=(3,))
    found = membership.check(evidence, membership.Outcome())
    assert (found.verdict, found.evidence["records_given_a_removed_class"] > 0) == ("REFUTED", True)
