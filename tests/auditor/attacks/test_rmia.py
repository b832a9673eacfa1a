"""A3: the sorted form against all pairs."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from auditor.attacks import Unavailable, build
from auditor.attacks.observation import View, log_probability, view
from auditor.attacks.rmia import _area, log_ratio, population_share, tune
from auditor.statistics.auc import delong
from protocol.errors import AuditorError
from tests.auditor.attacks.synthetic import gaussian
from tests.auditor.attacks.test_lira import reordered


def pairwise(ratios, population, log_gamma):
    shares = []
    for index, ratio in enumerate(ratios):
        others = [ratios[z] for z in np.flatnonzero(population) if z != index]
        shares.append(np.mean([ratio - log_gamma > other for other in others]))
    return np.array(shares)


@given(
    hnp.arrays(np.float64, st.integers(3, 30), elements=st.integers(-4, 4).map(float)),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.data(),
)
def test_sorting_equals_comparing_all_pairs_with_ties(ratios, log_gamma, data):
    population = data.draw(hnp.arrays(np.bool_, ratios.size).filter(lambda mask: mask.sum() >= 2))
    np.testing.assert_allclose(population_share(ratios, population, log_gamma), pairwise(ratios, population, log_gamma))


def test_ratio_is_the_published_formula():
    p, mean_out = np.array([0.9, 0.2, 1e-3]), np.array([0.5, 0.4, 0.9])
    for a in (0.0, 0.3, 1.0):
        expected = p / ((1 + a) / 2 * mean_out + (1 - a) / 2)
        np.testing.assert_allclose(np.exp(log_ratio(np.log(p), mean_out, a)), expected)
    assert np.isfinite(log_ratio(np.array([-2000.0]), np.array([0.0]), 1.0)).all()


def test_ten_thousand_against_ten_thousand_is_quick_and_small():
    ratios = np.random.default_rng(0).normal(size=20_000)
    population = np.arange(20_000) < 10_000
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        population_share(ratios, population, 0.0)
        best = min(best, time.process_time() - start)
    assert best < 0.02
    tracemalloc.start()
    population_share(ratios, population, 0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20  # all pairs would be 100 MB of booleans


@given(seed=st.integers(0, 2**32 - 1))
def test_scores_do_not_depend_on_record_order(seed):
    generator = np.random.default_rng(seed)
    observation, forget = gaussian(generator, forgotten=5, reference=20, shadows=8)
    seen = view(observation, forget, generator)
    order = generator.permutation(25)
    attack = build("rmia", rmia_a=0.4)
    np.testing.assert_allclose(attack(reordered(seen, order)).values, attack(seen).values[order], atol=1e-12)


def test_it_sees_members_and_says_its_settings():
    observation, forget = gaussian(
        np.random.default_rng(1), forgotten=500, reference=1000, shift=1.5, member_shift=1.5, hardness=1.0
    )
    seen = view(observation, forget, np.random.default_rng(2))
    found = build("rmia")(seen)
    assert delong(found.values, forget).value > 0.7
    assert f"a={tune(seen):.1f}, population=1000, models=8..8 of 16" in found.settings


def test_a_is_chosen_without_the_forgotten_records():
    observation, forget = gaussian(np.random.default_rng(1), member_shift=2.0)
    seen = view(observation, forget, np.random.default_rng(2))
    chosen = tune(seen)
    assert 0.0 <= chosen <= 1.0
    seen.shadow_phi[:, forget] = 7.0
    seen.phi[:] = 0.0
    assert tune(seen) == chosen


def test_tuning_takes_the_best_of_the_grid():
    observation, forget = gaussian(np.random.default_rng(3), shadows=2, member_shift=2.0)
    seen = view(observation, forget, np.random.default_rng(4))
    # With two shadow models each can be attacked only on what the other one left out: all members.
    assert tune(seen) is None
    assert "a=0.3" in build("rmia")(seen).settings
    wide, marked = gaussian(np.random.default_rng(3), shadows=5, member_shift=2.0)
    five = view(wide, marked, np.random.default_rng(4))
    totals = []
    for a in np.linspace(0, 1, 11):
        values = []
        for target in range(4):
            out = five.out[:, ~marked].copy()
            member = ~out[target]
            out[target] = False
            known = out.sum(axis=0) > 0
            p = np.exp(log_probability(five.shadow_phi[:, ~marked]))
            mean = np.array([p[out[:, i], i].mean() for i in np.flatnonzero(known)])
            score = log_ratio(np.log(p[target, known]), mean, a)
            pairs = score[member[known]][:, None] - score[~member[known]][None, :]
            values.append((pairs > 0).mean() + (pairs == 0).mean() / 2)
        totals.append(np.mean(values))
    assert totals[round(tune(five) * 10)] == pytest.approx(max(totals))


def test_what_cannot_be_run_says_why():
    observation, forget = gaussian(np.random.default_rng(0), shadows=0)
    found = build("rmia")(view(observation, forget, np.random.default_rng(0)))
    assert isinstance(found, Unavailable)
    assert "without a shadow model" in found.reason


@pytest.mark.parametrize("change", [{"rmia_gamma": 0.5}, {"rmia_a": 1.5}, {"rmia_a": -0.1}, {"rmia_gamma": np.nan}])
def test_parameters_outside_their_range_are_refused(change):
    with pytest.raises(AuditorError):
        build("rmia", **change)


def test_an_unknown_attack_is_refused():
    with pytest.raises(AuditorError, match="no attack is called 'lyra'"):
        build("lyra")


@pytest.mark.parametrize("seed", range(4))
def test_the_quick_area_is_that_of_ranks(seed):
    random = np.random.default_rng(seed)
    member = random.random(400) < 0.4
    scores = np.exp(random.normal(size=400) + member)
    if seed % 2:
        scores = np.round(scores)  # ties, also between members and others, and zeros
    ranks = stats.rankdata(scores)
    count = int(member.sum())
    expected = (ranks[member].sum() - count * (count + 1) / 2) / (count * (400 - count))
    assert _area(scores, member) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.5])
def test_the_chosen_a_is_as_good_as_the_best_of_all_eleven(gap):
    random = np.random.default_rng(1)
    out = random.random((16, 600)) < 0.5
    phi = random.normal(1, 2, size=600) + random.normal(size=(16, 600)) + gap * ~out
    seen = View(
        logits=np.zeros((600, 2)), labels=np.zeros(600, np.int64), phi=phi[0], shadow_phi=phi, out=out, inside=~out,
        reference=np.ones(600, bool),
    )  # fmt: skip
    probability = special.expit(phi)

    def mean_area(a):
        total = 0.0
        for target in range(4):
            others = out.copy()
            others[target] = False
            mean_out = (probability * others).sum(axis=0) / others.sum(axis=0)
            total += _area(np.exp(log_ratio(log_probability(phi[target]), mean_out, a)), ~out[target]) / 4
        return total

    assert mean_area(tune(seen)) >= max(mean_area(a) for a in np.linspace(0, 1, 11)) - 1e-3
