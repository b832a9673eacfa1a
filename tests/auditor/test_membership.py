"""The membership decision on models whose privacy is known."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import stats

from auditor.attacks import NAMES
from auditor.membership import MembershipPlan, Observation, assess, pool
from protocol.errors import AuditorError
from tests.auditor.attacks.synthetic import gaussian, logits_with

QUICK = MembershipPlan(attacks=("loss", "lira-offline", "rmia"), permutations=199)
POOLED = replace(QUICK, permutations=1_999)


def change(observation, **parts):
    return Observation(**{one.name: getattr(observation, one.name) for one in fields(Observation)} | parts)


def look(seed, plan=QUICK, **how):
    observation, forget = gaussian(np.random.default_rng(seed), **how)
    return assess(observation, forget, plan, np.random.default_rng(seed + 1))


def with_phi(observation, phi):
    return change(observation, logits=logits_with(phi, observation.labels, observation.logits.shape[1]))


def phi_of(observation):
    own = observation.logits[np.arange(len(observation.labels)), observation.labels].astype(np.float64)
    return own - np.log(observation.logits.shape[1] - 1)


def test_a_model_that_never_saw_the_records_is_consistent_with_enough_of_them():
    found = look(
        0,
        MembershipPlan(attacks=tuple(name for name in NAMES if name != "lira-online")),
        forgotten=400,
        reference=1200,
        shadows=32,
    )
    assert found.verdict == "CONSISTENT"
    assert len(found.comparisons) == 14
    assert not found.unavailable
    assert not found.refused
    for one in found.comparisons:
        assert one.equivalence.low < one.difference.value < one.equivalence.high
        assert one.difference.draws_low < one.difference.expected < one.difference.draws_high
        assert one.scores.shape == found.forget.shape == found.records.shape
        assert one.power > 0.9
        assert one.refutable > 0.1 > one.detectable
        assert [tail.tail for tail in one.tails] == ["high", "low"]


def test_too_few_records_give_inconclusive_and_say_how_much_they_could_have_seen():
    found = look(1, forgotten=25, reference=120)
    assert found.verdict == "INCONCLUSIVE"
    assert "the difference could be" in found.reasons[0]
    figures = found.figures()
    assert figures["lira-offline.signed.detectable"] > 0.15
    assert figures["lira-offline.signed.power"] < 0.2
    assert figures["zero_hits_bound"] == pytest.approx(1 - 0.05 ** (1 / 25))


def test_figures_are_finite_numbers_with_stable_names():
    found = look(2, forgotten=30, reference=400)
    figures = found.figures()
    assert all(type(value) is float and np.isfinite(value) for value in figures.values())
    assert json.loads(json.dumps(figures)) == figures
    assert figures["forgotten"] == 30.0
    assert figures["rmia.signed.difference"] == pytest.approx(
        figures["rmia.signed.auc"] - figures["rmia.signed.control"]
    )
    assert figures["rmia.distance.low.tpr@0.01.low"] <= figures["rmia.distance.low.tpr@0.01"]
    assert not any("tpr@0.001" in name for name in figures)  # 200 negatives cannot speak of 0.1 %
    withheld = found.comparison("loss", "signed").tails[0].points[1]
    assert withheld.target == 0.001


def test_ordinary_members_are_refuted():
    found = look(3, shift=2.0, member_shift=2.0)
    assert found.verdict == "REFUTED"
    assert found.comparison("lira-offline", "signed").difference.auc > 0.85


def test_records_far_below_their_null_are_refuted_although_a_one_sided_attack_sees_nothing():
    found = look(4, shift=-4.0)
    assert found.verdict == "REFUTED"
    signed = found.comparison("lira-offline", "signed")
    assert signed.difference.auc < 0.02
    high, low = (tail.points[0] for tail in signed.tails)
    assert high.rate == 0.0
    assert low.rate > 0.8
    assert found.comparison("lira-offline", "distance").difference.auc > 0.95
    assert any("lira-offline (signed): AUC 0.0" in reason for reason in found.reasons)


def test_records_that_stand_out_on_both_sides_are_refuted_by_their_distance():
    observation, forget = gaussian(np.random.default_rng(5), forgotten=150, reference=500, hardness=0.3)
    phi = phi_of(observation)
    phi[forget] += np.where(np.arange(forget.sum()) % 2, 4.0, -4.0)
    found = assess(with_phi(observation, phi), forget, QUICK, np.random.default_rng(6))
    assert abs(found.comparison("lira-offline", "signed").difference.value) < 0.1
    assert found.comparison("lira-offline", "distance").difference.auc > 0.9
    assert found.verdict == "REFUTED"


def test_records_that_are_too_close_to_their_null_are_refuted_as_well():
    """A patch that writes the mean of models without the record, and not one draw, is recognisable."""
    observation, forget = gaussian(np.random.default_rng(7), forgotten=150, reference=500)
    phi = phi_of(observation)
    own = np.take_along_axis(
        observation.shadow_logits, np.broadcast_to(observation.labels, observation.out.shape)[..., None], axis=2
    )
    phi[forget] = own[:, forget, 0].mean(axis=0) - np.log(observation.logits.shape[1] - 1)
    found = assess(with_phi(observation, phi), forget, QUICK, np.random.default_rng(8))
    distance = found.comparison("lira-offline", "distance")
    assert distance.difference.auc < 0.3
    assert distance.p_holm < 0.05
    assert found.verdict == "REFUTED"


def test_false_accusations_stay_within_the_error_budget():
    """With a margin of nearly nothing every null model sits on it: the budget is used, and not exceeded."""
    plan = replace(QUICK, margin=1e-6, rmia_a=0.3, permutations=199)
    runs = 200
    refuted = stopped = 0
    for seed in range(runs):
        found = look(1000 + seed, plan, forgotten=40, reference=150, shadows=8)
        refuted += found.verdict == "REFUTED"
        stopped += "before any training" in found.reasons[0]
    assert stats.binomtest(refuted, runs, 0.05, alternative="greater").pvalue > 1e-3
    assert stats.binomtest(stopped, runs, 0.01, alternative="greater").pvalue > 1e-3


def test_false_reassurance_stays_within_the_error_budget():
    """Difference at the margin for one required attack: CONSISTENT in at most 5 %."""
    plan = MembershipPlan(attacks=("lira-offline",), required=("lira-offline",), margin=0.12, permutations=199)
    # z has variance 1 + 1/k with k = 8 OUT models of 16, and the class centre is nearly exact.
    shift = stats.norm.ppf(0.62) * np.sqrt(2 * (1 + 1 / 8))
    runs = 120
    consistent = sum(
        look(3000 + seed, replace(plan, variance="global"), forgotten=150, reference=400, shift=shift).verdict
        == "CONSISTENT"
        for seed in range(runs)
    )
    assert stats.binomtest(consistent, runs, 0.05, alternative="greater").pvalue > 1e-3


def test_several_models_share_what_was_drawn():
    base, forget = gaussian(np.random.default_rng(9), shift=2.0)
    phi = phi_of(base)
    phi[forget] -= 2.0
    plan = replace(QUICK, centre="all")
    first = assess(base, forget, plan, np.random.default_rng(10))
    second = assess(with_phi(base, phi), forget, plan, np.random.default_rng(10))
    for attack in plan.attacks:
        one, two = first.comparison(attack, "signed"), second.comparison(attack, "signed")
        assert one.difference.expected == pytest.approx(two.difference.expected, abs=1e-12)
        assert one.difference.auc > two.difference.auc
    again = assess(base, forget, plan, np.random.default_rng(10))
    assert again.figures() == first.figures()


def test_sets_that_differ_before_training_decide_nothing():
    observation, forget = gaussian(np.random.default_rng(11), shift=3.0)
    features = observation.features.copy()
    features[forget, 2] += 2.0
    found = assess(change(observation, features=features), forget, QUICK, np.random.default_rng(0))
    assert found.verdict == "INCONCLUSIVE"
    assert "differ before any training" in found.reasons[0]
    assert "feature 2" in found.reasons[0]
    assert found.comparison("loss", "signed").difference.auc > 0.6  # shown, and not used


def test_a_required_attack_that_cannot_be_run_prevents_reassurance_only():
    found = look(12, forgotten=400, reference=1200, shadows=0)
    assert found.verdict == "INCONCLUSIVE"
    assert set(found.unavailable) == {"lira-offline", "rmia"}
    assert any(reason.startswith("rmia: ") for reason in found.reasons)
    with pytest.raises(AuditorError):
        found.comparison("rmia", "signed")
    assert look(13, forgotten=400, reference=1200, shadows=0, shift=5.0).verdict == "REFUTED"
    plan = replace(QUICK, required=("loss",))
    assert look(12, plan, forgotten=400, reference=1200, shadows=0).verdict == "CONSISTENT"


def test_online_needs_shadow_models_with_the_forgotten_records():
    plan = MembershipPlan(attacks=("lira-online",), required=("lira-online",))
    assert look(14, plan).verdict == "INCONCLUSIVE"
    found = look(14, plan, with_forgotten=True, shift=2.0, member_shift=2.0)
    assert found.verdict == "REFUTED"


def test_constant_scores_are_not_a_result():
    observation, forget = gaussian(np.random.default_rng(15))
    flat = assess(
        change(observation, logits=np.zeros_like(observation.logits)),
        forget,
        replace(QUICK, attacks=("loss",), required=("loss",)),
        np.random.default_rng(0),
    )
    assert flat.verdict == "INCONCLUSIVE"
    assert flat.unavailable == {
        "loss (signed)": "the never-seen records' scores are constant",
        "loss (distance)": "the never-seen records' scores are constant",
    }
    assert flat.repeated == 100
    assert flat.repeated_reference == 400


def test_scores_constant_within_the_forgotten_classes_are_not_a_result():
    observation, forget = gaussian(np.random.default_rng(16), forgotten=60, reference=400)
    labels = np.where(forget | (np.arange(460) % 2 == 0), 0, 1)
    phi = np.where(labels == 0, 2.0, np.random.default_rng(0).normal(size=460))
    logits = logits_with(phi, labels, 4)
    found = assess(
        change(observation, logits=logits, labels=labels),
        forget,
        replace(QUICK, attacks=("loss",), required=("loss",)),
        np.random.default_rng(0),
    )
    assert found.verdict == "INCONCLUSIVE"
    assert set(found.unavailable.values()) == {"scores are constant within every forgotten class"}


def small(**how):
    return gaussian(np.random.default_rng(17), **{"forgotten": 30, "reference": 130, "features": 3} | how)


def refusal(observation, forget, plan=QUICK):
    found = assess(observation, forget, plan, np.random.default_rng(0))
    assert found.verdict == "INCONCLUSIVE"
    assert found.refused
    assert found.comparisons == ()
    assert all(np.isfinite(value) for value in found.figures().values())
    return found.reasons[0]


def test_refusals():
    assert refusal(*small(forgotten=19)).startswith("19 forgotten records")
    assert refusal(*small(reference=99)).startswith("99 reference records")
    observation, forget = small()
    assert refusal(observation, np.zeros_like(forget)).startswith("0 forgotten records")
    one = change(
        observation,
        logits=observation.logits[:, :1],
        shadow_logits=observation.shadow_logits[:, :, :1],
        labels=np.zeros_like(observation.labels),
    )
    assert refusal(one, forget) == "the model has a single class"
    for name in ("logits", "shadow_logits", "features"):
        for bad in (np.nan, np.inf):
            array = getattr(observation, name).copy()
            array.flat[5] = bad
            assert refusal(change(observation, **{name: array}), forget).endswith("not finite numbers")
    labels = np.where(forget, 0, 1)
    labels[np.flatnonzero(~forget)[:4]] = 0
    assert refusal(change(observation, labels=labels), forget).startswith("class 0 has 4 reference records")


def test_duplicates_are_refused_or_dropped():
    observation, forget = small()
    features = observation.features.copy()
    twins = np.flatnonzero(~forget)[:3]
    source = np.flatnonzero(forget)[0]
    features[source] = [0.0, 1.0, 2.0]
    features[twins] = [-0.0, 1.0, 2.0]
    doubled = change(observation, features=features)
    assert refusal(doubled, forget).startswith("3 reference records have the features of a forgotten record")
    found = assess(doubled, forget, replace(QUICK, duplicates="drop"), np.random.default_rng(0))
    assert found.dropped == 3
    assert not found.refused
    assert not np.isin(twins, found.records).any()
    np.testing.assert_array_equal(forget[found.records], found.forget)


def test_rows_of_logits_that_repeat_are_counted():
    observation, forget = small()
    logits = observation.logits.copy()
    logits[np.flatnonzero(forget)[:7]] = logits[np.flatnonzero(forget)[0]]
    found = assess(change(observation, logits=logits), forget, QUICK, np.random.default_rng(0))
    assert (found.repeated, found.repeated_reference) == (7, 0)


def test_forget_must_fit():
    observation, forget = small()
    for bad in (forget[:-1], forget.astype(np.int64)):
        with pytest.raises(AuditorError):
            assess(observation, bad, QUICK, np.random.default_rng(0))


@pytest.mark.parametrize(
    "bad",
    [
        {"attacks": ("lyra",), "required": ("lyra",)},
        {"required": ()},
        {"required": ("lira-online",)},
        {"attacks": ("loss", "loss"), "required": ("loss",)},
        {"margin": 0.0},
        {"margin": 0.5},
        {"level": 0.0},
        {"exchangeability_level": 1.0},
        {"draws": 999},
        {"permutations": 98},
        {"permutations": 99},
        {"roc_points": 1},
        {"rates": (0.0,)},
        {"rmia_gamma": 0.0},
    ],
)
def test_plans_that_cannot_be_carried_out_are_refused(bad):
    with pytest.raises(AuditorError):
        MembershipPlan(**bad)


def test_pooling_narrows_what_one_draw_leaves_open():
    draws = [look(100 + seed, POOLED, forgotten=60, reference=400) for seed in range(5)]
    found = pool(draws)
    apart = pool(draws, shared_reference=False)
    assert found.verdict == "CONSISTENT"
    assert any(one.verdict == "INCONCLUSIVE" for one in draws)
    for one, other in zip(found.comparisons, apart.comparisons, strict=True):
        parts = [draw.comparison(one.attack, one.form).difference for draw in draws]
        assert one.value == pytest.approx(np.mean([part.value for part in parts]))
        assert one.auc - one.expected == pytest.approx(one.value)
        assert other.standard_error == pytest.approx(np.sqrt(sum(part.standard_error**2 for part in parts)) / 5)
        assert other.standard_error < one.standard_error < min(part.standard_error for part in parts)
    figures = found.figures()
    assert figures["draws"] == 5.0
    assert all(type(value) is float and np.isfinite(value) for value in figures.values())


def test_pooling_finds_what_every_draw_is_too_small_for():
    draws = [look(200 + seed, POOLED, forgotten=40, reference=300, shift=0.9) for seed in range(5)]
    assert pool(draws).verdict == "REFUTED"
    assert any(one.verdict == "INCONCLUSIVE" for one in draws)


def test_pooling_carries_refusals_and_obstacles():
    good = look(300, POOLED, forgotten=40, reference=300)
    refused = look(301, POOLED, forgotten=10, reference=300)
    found = pool([good, refused])
    assert found.verdict == "INCONCLUSIVE"
    assert found.reasons == ("draw 2: 10 forgotten records; at least 20 are needed",)
    observation, forget = gaussian(np.random.default_rng(302), forgotten=40, reference=300)
    features = observation.features + 3.0 * forget[:, None].astype(np.float32)
    shifted = assess(change(observation, features=features), forget, POOLED, np.random.default_rng(0))
    assert "differ before any training" in pool([good, shifted]).reasons[0]
    blind = look(303, POOLED, forgotten=40, reference=300, shadows=0)
    without = pool([good, blind])
    assert without.verdict == "INCONCLUSIVE"
    assert "lira-offline: draw 2: " in without.reasons[0]
    assert {one.attack for one in without.comparisons} == {"loss"}


def test_pooling_skips_a_form_that_a_draw_could_not_compare():
    plan = replace(POOLED, attacks=("loss",), required=("loss",))
    one = look(500, plan, forgotten=40, reference=300)
    other = replace(one, comparisons=one.comparisons[:1], unavailable={"loss (distance)": "constant"})
    found = pool([one, other])
    assert [(done.attack, done.form) for done in found.comparisons] == [("loss", "signed")]
    assert found.verdict == "INCONCLUSIVE"
    assert found.reasons[0] == "loss (distance): draw 2: constant"


def test_pooling_takes_several_assessments_under_one_plan():
    one = look(400, POOLED, forgotten=40, reference=300)
    other = look(400, replace(POOLED, margin=0.2), forgotten=40, reference=300)
    for bad in ([], [one], [one, other], [one] * 11):
        with pytest.raises(AuditorError):
            pool(bad)
