"""Bundles with hints: claims that only slopes prove, files that are missing, wrong or hostile, and the least change."""

import dataclasses
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from auditor import audit, minimal
from auditor.checks import hygiene, redirection
from owner import hinting
from owner.execute import Program
from owner.relaxation import Relaxation, search
from protocol import hints as hint_file
from protocol.claims import Argmax, Redirection
from protocol.encoding import format_decimal
from protocol.hints import Duals, Hints, Slopes
from protocol.model.parts import Part, ShiftHead

LIFT = 40.0


def shifted(scene):
    """The honest sketch with a shift for every record: a class of its own choice gets more, and is claimed to lead.

    Margins lie between what the usual slopes prove and what looked-for ones do.
    """
    result, job = scene.result, scene.job
    (old,) = result.patch.parts
    classes = job.workspace.base.classes
    # Rows of `misclassify` name the class; here the base's own output is lifted towards it.
    claims = [c for c in result.claims if isinstance(c, Redirection)]
    rows = np.zeros((classes, classes), np.float32)
    rows[np.arange(classes), np.arange(classes)] = LIFT
    labels = job.workspace.records.labels[job.workspace.rows_of(tuple(c.record for c in claims))]
    index = np.zeros(old.gate.items, np.int64)
    for claim, label in zip(claims, labels, strict=True):
        index[claim.item] = (int(label) + 1) % classes
    kept, index = np.unique(index, return_inverse=True)
    head = ShiftHead(rows=rows[kept], index=index.astype(np.int64))
    part = Part(gate=dataclasses.replace(old.gate, screen=None, branch=False), head=head)
    patch = dataclasses.replace(result.patch, parts=(part,))
    asked = [
        dataclasses.replace(c, property=Argmax(klass=int(kept[head.index[c.item]]), margin="1"), target="relabel")
        for c in claims
    ]
    tasks = hinting._tasks(job, patch, asked)
    prover = hinting._Prover(base=job.workspace.base, schema=job.workspace.schema, part=part)
    slopes, made = {}, list(asked)
    for task in tasks[:8]:
        radius = np.array([task.claim.region.radius])
        low, high = hinting._boxes(job.workspace.schema, task.values[None], radius)
        question = prover._leads([task], low, high)
        question = dataclasses.replace(question, floor=question.floor + 1000)
        found = search(Relaxation(job.workspace.base), question, steps=10, inner=3)
        usual, best = ((lower - question.floor).min() + 1001 for lower in (found.usual, found.lower))
        if best - usual > 0.05:
            margin = format_decimal(Decimal(f"{(usual + 2 * best) / 3:.4f}").normalize())
            made[task.line] = dataclasses.replace(
                task.claim, property=Argmax(klass=task.claim.property.klass, margin=margin)
            )
            slopes[task.line] = tuple(part[0] for part in found.slopes.packed())
    values = {task.claim.record: task.values for task in tasks}
    base, schema = job.workspace.base, job.workspace.schema
    duals = hinting.find_duals(base, schema, patch, made, values, Program(base))
    hints = Hints(slopes=hinting._slopes(slopes), duals=duals)
    return dataclasses.replace(result, patch=patch, claims=tuple(made), hints=hint_file.to_bytes(hints)), len(slopes)


@pytest.fixture(scope="module")
def drafted(workshop):
    """The bundle's contents, and how many claims need slopes."""
    kept = {}

    def change(scene):
        kept["result"], kept["count"] = shifted(scene)
        return scene.draft(kept["result"])

    forged = workshop.forge(change, challenge=False)
    return forged, kept["result"], kept["count"]


@pytest.fixture(scope="module")
def hinted(workshop, drafted):
    """What the checks look at."""
    return workshop.evidence(drafted[0])


def without(evidence, hints):
    return dataclasses.replace(evidence, case=dataclasses.replace(evidence.case, hints=hints))


def test_claims_that_need_slopes_are_proven_with_them_and_open_without(hinted, drafted):
    _, _, count = drafted
    assert count >= 3
    found = redirection.check(hinted)
    assert found.verdict == "CONSISTENT", found.summary
    assert found.evidence["proven"] == 40
    assert not hygiene.check(hinted).findings
    # A file that is not there, or slopes of a model of another size.
    for hints in (None, dataclasses.replace(hinted.case.hints, slopes=Slopes.none())):
        bare = redirection.check(without(hinted, hints))
        assert bare.verdict == "INCONCLUSIVE"
        assert bare.evidence["not_proven"]["claims"] == 40 - bare.evidence["proven"]
        assert count == 40 - bare.evidence["proven"]
        reached = bare.evidence["largest_proven_radius"]
        assert len(reached) == count
        assert all(one["proven"] == "none" or int(one["proven"]) < int(one["claimed"]) for one in reached.values())
        assert "the largest proven radius is" in bare.summary


@pytest.mark.parametrize("slope", [0, 1, 127, 255, None])
def test_hostile_slopes_prove_no_more_than_none_would(hinted, slope):
    """Whatever the slopes are, what is called proven is a claim that was true; what needs none stays proven."""
    rng = np.random.default_rng(0)
    old = hinted.case.hints.slopes

    def hostile(shape):
        return rng.integers(0, 256, shape).astype(np.uint8) if slope is None else np.full(shape, slope, np.uint8)

    slopes = dataclasses.replace(old, inner=hostile(old.inner.shape), last=hostile(old.last.shape))
    bad = redirection.check(without(hinted, dataclasses.replace(hinted.case.hints, slopes=slopes)))
    bare = redirection.check(without(hinted, None))
    assert bare.evidence["proven"] <= bad.evidence["proven"] <= 40
    assert bad.evidence["counterexamples"] == 0
    # A claim that is false by much is not proven by any slopes.
    claims = tuple(
        dataclasses.replace(c, property=Argmax(klass=c.property.klass, margin="200")) for c in hinted.case.claims
    )
    false = dataclasses.replace(without(hinted, dataclasses.replace(hinted.case.hints, slopes=slopes)))
    false = dataclasses.replace(false, case=dataclasses.replace(false.case, claims=claims))
    assert redirection.check(false).evidence["proven"] == 0


def test_the_least_change_is_shown(hinted, drafted):
    found = redirection.check(hinted).evidence["least_change_of_logits"]
    rows = len(drafted[1].patch.parts[0].head.rows)
    assert found["rows"] == rows
    # A lift of one logit alone is about twice what a lift and a drop would need, and these lifts are generous.
    assert all(found[name] >= 1 for name in ("largest_entry_over_bound_median", "largest_entry_over_bound_max"))


@pytest.mark.parametrize(
    "change",
    [
        {"part": 7}, {"row": 99}, {"claim": 99_999}, {"claim": 2**31 - 1}, {"rival": 10}, {"rival": 2**31 - 1},
        {"offset": 17}, {"offset": -(2**31)}, {"offset": 2**31 - 1},
    ],
)  # fmt: skip
def test_hostile_duals_say_nothing(hinted, change):
    (name, value), duals = next(iter(change.items())), hinted.case.hints.duals
    wrong = dataclasses.replace(duals, **{name: np.full_like(getattr(duals, name), value)})
    found = redirection.check(without(hinted, dataclasses.replace(hinted.case.hints, duals=wrong)))
    assert "least_change_of_logits" not in found.evidence
    short = dataclasses.replace(duals, offset=duals.offset[:, :3])
    found = redirection.check(without(hinted, dataclasses.replace(hinted.case.hints, duals=short)))
    assert "least_change_of_logits" not in found.evidence


def test_a_bundle_without_its_file_of_hints_verifies_and_proves_less(workshop, drafted, hinted):
    path = drafted[0].bundle / hint_file.FILE
    data = path.read_bytes()
    try:
        path.unlink()
        found = workshop.evidence(drafted[0])
    finally:
        path.write_bytes(data)
    assert found.case.hints is None
    assert not found.case.hostile
    assert not found.case.openings_erased
    assert redirection.check(found).evidence["proven"] < 40


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"PK bomb", "hints.npz"), (b"", "hints.npz"), ("second", "a second file of role hint")],
    ids=["garbage", "empty", "two files"],
)
def test_a_signed_file_of_hints_that_is_none_is_a_finding(workshop, drafted, content, said):
    def change(scene):
        made = scene.draft(drafted[1])
        if content == "second":
            made.files["more.npz"] = ("hint", made.files[hint_file.FILE][1])
        else:
            made.files[hint_file.FILE] = ("hint", content)
        return made

    case = workshop.case(workshop.forge(change, challenge=False))
    assert any(said in finding.message for finding in case.hostile)


def test_a_report_says_which_radii_are_proven(hinted, drafted):
    found = redirection.check(without(hinted, None))
    figures = audit._not_proven((hygiene.check(hinted), found))["not_proven"]
    assert figures["claims"] == drafted[2]
    assert 0 <= figures["without_a_proven_radius"] <= figures["claims"]
    assert audit._not_proven((redirection.check(hinted),)) == {}


def test_duals_are_weak_duality_and_no_more(hinted):
    """The bound against the linear program's own answer, at the same points."""
    case = hinted.case
    values, _, known = hinted.claimed_records
    centres = {claim.record: row for claim, row in zip(known, values, strict=True)}
    duals = case.hints.duals
    found = minimal.least_changes(case.base, case.schema, case.patch, case.claims, centres, duals)
    assert len(found) == len(duals.part)
    for number, one in enumerate(found):
        claim = case.claims[int(duals.claim[number])]
        point = centres[claim.record] + duals.offset[number]
        logits = hinted.base_model(case.schema.dequantise(point[None]))[0]
        lead = Fraction(float(logits[claim.property.klass])) - Fraction(float(logits[int(duals.rival[number])]))
        needed = (Fraction(claim.property.margin) - lead) / 2
        assert Fraction(one.bound) <= max(needed, 0)
        assert one.bound >= float(needed) - 1e-2
    # Two duals with opposite directions cancel; what is left promises nothing, and nothing is divided by zero.
    klass, rival = (case.claims[int(duals.claim[0])].property.klass, int(duals.rival[0]))
    both = Duals(**{f.name: getattr(duals, f.name)[[0, 0]] for f in dataclasses.fields(duals)})
    other = dataclasses.replace(
        case.claims[int(duals.claim[0])], property=Argmax(klass=rival, margin="1"), record=b"\1" * 32
    )
    both = dataclasses.replace(
        both, claim=np.array([duals.claim[0], len(case.claims)], np.int32), rival=np.array([rival, klass], np.int32)
    )
    centres[other.record] = centres[case.claims[int(duals.claim[0])].record]
    (one,) = minimal.least_changes(case.base, case.schema, case.patch, (*case.claims, other), centres, both)
    assert one.bound == 0
