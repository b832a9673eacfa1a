"""Scores of any attack, classes and retained records through the comparison of `membership`."""

from dataclasses import replace

import numpy as np
import pytest

from auditor.attacks import Scores, Unavailable, build
from auditor.attacks.neighbour_class import NeighbourClass
from auditor.attacks.observation import Observation, view
from auditor.comparisons import ScoredPlan, across, assess_class, assess_retained, assess_scores
from auditor.membership import MembershipPlan, assess
from auditor.statistics.multiplicity import holm
from protocol.errors import AuditorError
from tests.auditor.attacks.synthetic import gaussian, logits_with

PLAN = MembershipPlan(attacks=("loss",), required=("loss",), permutations=199)


def given(values, name="mine"):
    return {name: Scores(values=np.asarray(values, float), settings=name)}


def random(seed=1):
    return np.random.default_rng(seed)


def test_given_scores_are_decided_as_if_an_attack_had_made_them():
    observation, forget = gaussian(random(0), shift=2.0)
    own = build("loss")(view(observation, forget, random()))
    mine = assess_scores(observation, forget, {"loss": own}, PLAN, random())
    theirs = assess(observation, forget, PLAN, random())
    assert mine.figures() == theirs.figures()
    assert mine.verdict == theirs.verdict == "REFUTED"


def test_both_tails_are_seen():
    observation, forget = gaussian(random(0), forgotten=200, reference=800)
    noise = random(2).normal(size=forget.size)
    low = assess_scores(observation, forget, given(noise - 2.0 * forget), PLAN, random())
    assert low.verdict == "REFUTED"
    assert low.comparison("mine", "signed").difference.auc < 0.2
    wide = assess_scores(observation, forget, given(np.where(forget, 4 * noise, noise)), PLAN, random())
    assert wide.comparison("mine", "distance").difference.auc > 0.7
    null = assess_scores(observation, forget, given(noise), replace(PLAN, margin=0.15), random())
    assert null.verdict == "CONSISTENT"


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (given(np.zeros(500)), "constant"),
        (given(np.full(500, np.nan)), "constant"),
        ({"mine": Unavailable(reason="no such luck")}, "no such luck"),
    ],
)
def test_scores_that_say_nothing_are_inconclusive(scores, text):
    observation, forget = gaussian(random(0))
    found = assess_scores(observation, forget, scores, PLAN, random())
    assert found.verdict == "INCONCLUSIVE"
    assert any(text in reason for reason in found.reasons)


def test_ten_records_and_a_single_class_are_inconclusive():
    observation, forget = gaussian(random(0), forgotten=10)
    found = assess_scores(observation, forget, given(np.arange(forget.size)), PLAN, random())
    assert found.verdict == "INCONCLUSIVE"
    assert "10 forgotten" in found.reasons[0]
    flat = Observation(
        logits=observation.logits[:, :1],
        labels=np.zeros_like(observation.labels),
        shadow_logits=observation.shadow_logits[:, :, :1],
        out=observation.out,
        features=observation.features,
    )
    wide = np.arange(forget.size) < 100
    assert "single class" in assess_scores(flat, wide, given(np.arange(forget.size)), PLAN, random()).reasons[0]


def test_duplicates_are_dropped_with_their_scores_or_refused():
    observation, forget = gaussian(random(0))
    features = observation.features.copy()
    twins, source = np.flatnonzero(~forget)[:7], np.flatnonzero(forget)[:7]
    features[twins] = features[source]
    observation = replace(observation, features=features)
    scores = given(np.arange(forget.size))
    dropped = assess_scores(observation, forget, scores, replace(PLAN, duplicates="drop"), random())
    assert dropped.dropped == 7
    assert not np.isin(twins, dropped.records).any()
    signed = dropped.comparison("mine", "distance").scores
    assert signed.shape == dropped.records.shape
    assert "features of a forgotten" in assess_scores(observation, forget, scores, PLAN, random()).reasons[0]


def test_scores_that_do_not_fit_are_refused():
    observation, forget = gaussian(random(0))
    with pytest.raises(AuditorError):
        assess_scores(observation, forget, given(np.arange(3)), PLAN, random())
    with pytest.raises(AuditorError):
        assess_scores(observation, forget[:3], given(np.arange(forget.size)), PLAN, random())
    with pytest.raises(AuditorError):
        assess_scores(observation, forget, {}, PLAN, random())
    with pytest.raises(AuditorError, match="no scores"):
        ScoredPlan(attacks=("loss",), required=("loss",))


def removed_class(*, told, members=150, never=300, seed=0):
    """Records of class 0, capped; members favour its neighbour, class 1, less by `told` standard deviations."""
    generator = random(seed)
    count = members + never
    member = np.arange(count) < members
    logits = generator.normal(size=(count, 4))
    logits[:, 1] += 2.0 - told * member
    logits[:, 0] = logits[:, 1:].max(axis=1) - 1.0
    labels = np.zeros(count, int)
    labels[-20:] = 2  # other classes take no part
    return Observation(
        logits=logits.astype(np.float32),
        labels=labels,
        shadow_logits=np.zeros((0, count, 4), np.float32),
        out=np.zeros((0, count), bool),
        features=generator.normal(size=(count, 3)).astype(np.float32),
    ), member


CLASS_PLAN = MembershipPlan(
    attacks=("neighbour-class", "entropy"), required=("neighbour-class",), permutations=199, margin=0.15
)


def test_the_neighbouring_class_shows_who_was_a_member():
    observation, member = removed_class(told=2.0)
    found = assess_class(observation, member, 0, CLASS_PLAN, random())
    assert found.verdict == "REFUTED"
    assert found.comparison("neighbour-class", "signed").difference.auc > 0.75
    assert len(found.records) == 430
    honest, member = removed_class(told=0.0)
    assert assess_class(honest, member, 0, CLASS_PLAN, random()).verdict == "CONSISTENT"


def test_class_refusals():
    observation, member = removed_class(told=0.0)
    empty = assess_class(observation, member, 3, CLASS_PLAN, random())
    assert empty.verdict == "INCONCLUSIVE"
    assert empty.refused
    with pytest.raises(AuditorError):
        assess_class(observation, member[:3], 0, CLASS_PLAN, random())
    seen = view(observation, np.ones_like(member), random())
    assert "no never-seen" in NeighbourClass()(seen).reason
    two = replace(observation, logits=observation.logits[:, [0, 2]], labels=np.zeros_like(observation.labels),
                  shadow_logits=observation.shadow_logits[:, :, :2])  # fmt: skip
    assert "three classes" in NeighbourClass()(view(two, member, random())).reason


def moved(observation, shift):
    own = observation.logits[np.arange(len(observation.labels)), observation.labels].astype(float) - np.log(3)
    return replace(observation, logits=logits_with(own + shift, observation.labels, 4))


def test_retained_records_whose_outputs_stay_are_not_worse_off():
    observation, retained = gaussian(random(0), shift=1.0)
    plan = replace(PLAN, attacks=("loss", "lira-offline"), required=("loss", "lira-offline"))
    found = assess_retained(observation, observation, retained, plan, random())
    assert found.verdict == "CONSISTENT"
    assert [(one.exposure, one.standard_error) for one in found.changes] == [(0.0, 0.0)] * 4
    # They are members and can be told; that is no fault of the patch.
    assert found.before.comparison("lira-offline", "signed").difference.auc > 0.7


def test_a_patch_that_exposes_retained_records_is_found_out():
    observation, retained = gaussian(random(0), forgotten=200, reference=600, hardness=0.5)
    worse = assess_retained(observation, moved(observation, 2.0 * retained), retained, PLAN, random())
    assert worse.verdict == "REFUTED"
    assert worse.changes[0].after > worse.changes[0].before
    better = assess_retained(moved(observation, 2.0 * retained), observation, retained, PLAN, random())
    assert better.verdict == "CONSISTENT"
    assert better.changes[0].exposure < 0


def test_retained_records_that_cannot_be_judged():
    observation, retained = gaussian(random(0), forgotten=30, reference=100, hardness=0.5)
    noisy = moved(observation, random(3).normal(size=retained.size) * 2)
    found = assess_retained(observation, noisy, retained, replace(PLAN, margin=0.02), random())
    assert found.verdict == "INCONCLUSIVE"
    assert "could be more exposed" in found.reasons[0]
    few, ten = gaussian(random(0), forgotten=10)
    assert "10 forgotten" in assess_retained(few, few, ten, PLAN, random()).reasons[0]
    silent = replace(observation, logits=np.ones_like(observation.logits))
    lost = assess_retained(observation, silent, retained, PLAN, random())
    assert lost.verdict == "INCONCLUSIVE"
    assert "both forms" in lost.reasons[0]
    with pytest.raises(AuditorError):
        assess_retained(observation, few, retained, PLAN, random())


def test_several_assessments_are_one_family():
    """An accusation that stands alone need not stand among many: Holm over all attacks, forms, sets and changes."""
    observation, forget = gaussian(random(21), shift=1.2)
    one = assess(observation, forget, PLAN, random(22))
    other = assess(observation, forget, PLAN, random(23))
    retained = assess_retained(observation, moved(observation, np.zeros(len(forget))), forget, PLAN, random(24))
    found = across({"one": one, "other": other}, retained)
    raw = [c.equivalence.p_beyond for a in (one, other) for c in a.comparisons] + [c.p_worse for c in retained.changes]
    adjusted = [c.p_holm for a in ("one", "other") for c in found.assessments[a].comparisons]
    adjusted += [c.p_holm for c in found.retained.changes]
    np.testing.assert_allclose(adjusted, holm(np.array(raw)))
    alone = across({"one": one})
    assert alone.retained is None
    assert (alone.assessments["one"].verdict, alone.assessments["one"].reasons) == (one.verdict, one.reasons)
    refused = assess(observation, forget & (np.cumsum(forget) <= 5), PLAN, random(25))
    assert across({"refused": refused}).assessments["refused"] is refused


def test_what_one_attack_alone_would_accuse_is_not_accused_among_many():
    observation, forget = gaussian(random(26), forgotten=60, reference=300)
    one = assess(observation, forget, PLAN, random(27))
    borderline = replace(
        one,
        comparisons=tuple(
            replace(c, equivalence=replace(c.equivalence, p_beyond=0.04 if k == 0 else 1.0))
            for k, c in enumerate(one.comparisons[:1])
        ),
    )
    assert across({"one": borderline}).assessments["one"].verdict == "REFUTED"
    many = across({"one": borderline, "other": one})
    assert many.assessments["one"].verdict != "REFUTED"
