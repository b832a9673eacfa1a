"""Kinds of attacks beyond outputs, through the check: removed classes, the method re-run, retained records, properties."""

import dataclasses
import sys

import numpy as np
import pytest

from auditor import attacking, membership_pages
from auditor.attacks.observation import Unavailable
from auditor.checks import membership
from auditor.evidence import Reference
from auditor.suite import parse_section
from tests.demo.data import digits

QUICK = {"shadows": 24, "attacks": ["loss", "lira-offline", "rmia"], "margin": 0.3}


def with_plan(evidence, section=None, **levels):
    """The evidence under other levels of the check, and with a plan's section."""
    merged = {**evidence.profile.levels, "membership": {**evidence.profile.levels["membership"], **QUICK, **levels}}
    own = None if section is None else parse_section(section, where="plan")
    return dataclasses.replace(
        evidence,
        profile=dataclasses.replace(evidence.profile, levels=merged),
        transcript=dataclasses.replace(
            evidence.transcript, plan=dataclasses.replace(evidence.transcript.plan, membership=own)
        ),
    )


def look(evidence):
    outcome = membership.Outcome()
    return membership.check(evidence, outcome), outcome


@pytest.fixture(scope="module")
def removed(workshop):
    """A class removal, with every committed record of the class opened and 150 never-seen ones of it at hand."""
    evidence = workshop.evidence(workshop.forge(request=workshop.demo.request("class-three-attacked", "--class", "3")))
    parts = digits()
    small = workshop.demo.parts
    members = (small.X_train.reshape(len(small.X_train), -1), small.y_train)
    whole = np.concatenate([parts.X_train, parts.X_unseen, parts.X_reference]).reshape(-1, 64)
    labels = np.concatenate([parts.y_train, parts.y_unseen, parts.y_reference])
    apart = ~attacking.twins_of(whole, members[0])
    evidence = dataclasses.replace(
        evidence,
        reference=Reference(values=whole[apart].astype(np.int32), labels=labels[apart].astype(np.int64), outside=0),
    )
    vars(evidence)["retained"] = (members[0].astype(np.int64), members[1].astype(np.int64))
    return evidence


def fresh(evidence, **cached):
    """A copy that computes everything anew, but for what is given and the opened records."""
    found = dataclasses.replace(evidence)
    vars(found).update({"retained": evidence.retained} | cached)
    return found


def test_held_out_members_of_a_removed_class_are_attacked(removed):
    evidence = fresh(
        with_plan(removed, {"attacks": {"neighbour-class": {}}, "required": []}), retained=removed.retained
    )
    found, outcome = look(evidence)
    (name,) = outcome.assessments
    assert name == "members of the removed class 3"
    assert {one.attack for one in outcome.assessments[name].comparisons} >= {"loss", "neighbour-class"}
    assert outcome.patched is None
    tables, notes = membership_pages.tables(outcome)
    assert f"Membership inference: {name}" in tables
    assert "never-seen ones" in notes[f"Membership inference: {name}"]
    # A cap hides the class's own logit and nothing else: with this margin nobody is accused, and it is no free pass.
    assert found.verdict == outcome.assessments[name].verdict != "REFUTED"
    assert found.evidence["members_of_the_removed_class_3"]["verdict"] == found.verdict


def test_members_that_stand_out_among_their_class_are_found(removed):
    evidence = fresh(with_plan(removed), retained=removed.retained)
    known, run = attacking.twins_of, evidence.run
    members = attacking.members_of(evidence, 3)

    def leaking(values):
        before, after = run(values)
        after = after.copy()
        after[known(values, members), 0] += 30.0  # the label's own class stays capped: nobody is given it
        return before, after

    vars(evidence)["run"] = leaking
    found, _ = look(evidence)
    assert found.verdict == "REFUTED"
    assert "members of the removed class 3 stand out" in found.findings[0].message


def demanding(evidence, *, required):
    """Under a profile that wants members of a removed class attacked, whatever it takes, or does not."""
    levels = {**evidence.profile.levels}
    levels["membership"] = {**levels["membership"], "class_members_required": required}
    return dataclasses.replace(evidence, profile=dataclasses.replace(evidence.profile, levels=levels))


def test_a_class_with_too_few_records_is_not_silently_fine(removed):
    values, labels = removed.retained
    few = np.concatenate([np.flatnonzero(labels == 3)[:5], np.flatnonzero(labels != 3)])
    relaxed = demanding(removed, required=False)
    found, outcome = look(fresh(with_plan(relaxed), retained=(values[few], labels[few])))
    assert (found.verdict, outcome.assessments) == ("CONSISTENT", {})
    assert "Members of class 3 were not attacked, and nothing is said of them: 5 records of the" in found.summary
    strict = demanding(removed, required=True)
    found, outcome = look(fresh(with_plan(strict), retained=(values[few], labels[few])))
    assert (found.verdict, outcome.assessments) == ("INCONCLUSIVE", {})
    assert "5 records of the removed class 3 were opened" in found.summary
    lacking = removed.reference.labels != 3
    reference = dataclasses.replace(
        removed.reference, values=removed.reference.values[lacking], labels=removed.reference.labels[lacking]
    )
    found, _ = look(fresh(dataclasses.replace(with_plan(strict), reference=reference), retained=removed.retained))
    assert found.verdict == "INCONCLUSIVE"
    assert "The reference has 0 records of the removed class 3" in found.summary


def rerun(code, **settings):
    command = f"{sys.executable} -c '{code}' {{base}} {{out}} {{train}} {{forget}}"
    return {"rerun": {"command": command, "shadows": 8, "never_seen": 120, **settings}}


def test_a_required_method_that_fails_prevents_consistent_and_says_why(honest_evidence):
    section = {"attacks": rerun("raise SystemExit(7)"), "required": ["rerun"]}
    found, outcome = look(with_plan(honest_evidence, section))
    assert found.verdict in ("INCONCLUSIVE", "REFUTED")
    assert "ended with status 7" in found.summary
    assert "the owner's method re-run" not in outcome.assessments
    # The same method where nobody requires it is only told of.
    alone, _ = look(with_plan(honest_evidence, {"attacks": rerun("raise SystemExit(7)")}))
    assert "status 7" in alone.evidence["rerun_failed"]
    assert "status 7" not in alone.summary


def test_retained_records_that_nobody_opened(honest_evidence):
    evidence = with_plan(honest_evidence, {"attacks": {"retained": None}, "required": ["retained"]})
    vars(evidence)["retained"] = None
    found, outcome = look(evidence)
    assert isinstance(outcome.retained, Unavailable)
    assert found.verdict == "INCONCLUSIVE"
    assert "The attack retained could not be run" in found.summary
    assert "not_run" in membership_pages.all_figures(outcome)["membership_retained"]


def test_a_patch_that_exposes_retained_records_is_refuted(honest_evidence):
    evidence = with_plan(honest_evidence, {"attacks": {"retained": None}})
    values, _ = evidence.retained
    run = evidence.run

    def leaking(asked):
        before, after = run(asked)
        after = after.copy()
        rows = np.flatnonzero(attacking.twins_of(asked, values))
        after[rows, after[rows].argmax(axis=1)] += 40.0
        return before, after

    vars(evidence)["run"] = leaking
    found, outcome = look(evidence)
    assert (found.verdict, outcome.retained.verdict) == ("REFUTED", "REFUTED")
    assert "retained records have AUC" in found.summary


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [
        ({"difference": {"at_most": 1.0}}, "CONSISTENT"),
        ({"gate-probe": {"at_most": 0.6}}, "REFUTED"),
        ({"patch-strip": {"at_least": 0.9}}, "REFUTED"),
        ({"patch-strip": {"at_most": -0.001}}, "INCONCLUSIVE"),
    ],
    ids=str,
)
def test_properties_count_only_where_the_profile_sets_a_limit(honest_evidence, limit, verdict):
    free, outcome = look(with_plan(honest_evidence, margin=0.45))
    assert free.verdict == "CONSISTENT", free.summary  # though a property of gates is far from chance
    assert outcome.properties["gate-probe"].low > 0.6
    found, limited = look(with_plan(honest_evidence, property_limits=limit, margin=0.45))
    assert found.verdict == verdict, found.summary
    (name,) = limit
    counted = {row[0]: row[-1] for row in membership_pages.tables(limited)[0]["Properties"][1]}
    assert counted.pop(name) == "by the profile's limit"
    assert set(counted.values()) <= {"no", ""}
    assert verdict == "CONSISTENT" or f"The property {name} is" in found.summary


def test_a_property_that_is_not_known_cannot_be_within_its_limit(honest_evidence, monkeypatch):
    monkeypatch.setattr(attacking, "read_patch", lambda *_: Unavailable(reason="nobody read it"))
    found, _ = look(with_plan(honest_evidence, property_limits={"patch-read": {"at_least": 0.1}}, margin=0.45))
    assert (found.verdict, found.summary) == ("INCONCLUSIVE", "The property patch-read is not known: nobody read it.")
