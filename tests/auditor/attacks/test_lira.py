"""A2 against the published formulas and a case with a known optimum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from auditor.attacks import Unavailable, build
from auditor.attacks.lira import fit, inverse_trigamma, shrink
from auditor.attacks.observation import View, view
from auditor.statistics.auc import delong
from tests.auditor.attacks.synthetic import gaussian

KINDS = ["record", "global", "shrunk"]


def reordered(seen, order):
    return View(
        logits=seen.logits[order],
        labels=seen.labels[order],
        phi=seen.phi[order],
        shadow_phi=seen.shadow_phi[:, order],
        out=seen.out[:, order],
        inside=seen.inside[:, order],
        reference=seen.reference[order],
    )


def test_scores_are_the_published_formulas():
    observation, forget = gaussian(np.random.default_rng(0), shadows=12, with_forgotten=True)
    seen = view(observation, forget, np.random.default_rng(1))
    offline = build("lira-offline", variance="record")(seen).values
    two_sided = build("lira-offline-two-sided", variance="record")(seen).values
    online = build("lira-online", variance="record")(seen).values
    for record in range(0, 500, 7):
        null = seen.shadow_phi[seen.out[:, record], record]
        member = seen.shadow_phi[seen.inside[:, record], record]
        out = stats.norm(null.mean(), null.std(ddof=1))
        inside = stats.norm(member.mean(), member.std(ddof=1))
        phi = seen.phi[record]
        assert stats.norm.cdf(offline[record]) == pytest.approx(out.cdf(phi), abs=1e-12)
        assert two_sided[record] == pytest.approx(-out.logpdf(phi), abs=1e-9)
        assert online[record] == pytest.approx(inside.logpdf(phi) - out.logpdf(phi), abs=1e-9)


def test_the_global_variance_is_pooled_within_records():
    observation, forget = gaussian(np.random.default_rng(0), shadows=32, hardness=50.0)
    seen = view(observation, forget, np.random.default_rng(1))
    null = fit(seen.shadow_phi, seen.out, "global")
    assert np.ptp(null.deviation) == 0.0
    assert null.deviation[0] == pytest.approx(1.0, abs=0.03)  # not 50, the spread between records


@pytest.mark.parametrize("name", ["lira-offline", "lira-offline-two-sided", "lira-online"])
@pytest.mark.parametrize("variance", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_scores_do_not_depend_on_record_order(name, variance, seed):
    generator = np.random.default_rng(seed)
    observation, forget = gaussian(generator, forgotten=5, reference=20, shadows=8, with_forgotten=True)
    seen = view(observation, forget, generator)
    order = generator.permutation(25)
    attack = build(name, variance=variance)
    np.testing.assert_allclose(attack(reordered(seen, order)).values, attack(seen).values[order], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("variance", KINDS)
def test_offline_attack_is_as_good_as_theory_allows(variance):
    """z is normal with variance 1 + 1/k, k OUT models: AUC = Phi(shift / sqrt(2 (1 + 1/k)))."""
    observation, forget = gaussian(
        np.random.default_rng(3), forgotten=2000, reference=2000, shadows=64, shift=1.0, hardness=5.0
    )
    seen = view(observation, forget, np.random.default_rng(4))
    found = delong(build("lira-offline", variance=variance)(seen).values, forget)
    best = stats.norm.cdf(1.0 / np.sqrt(2.0 * (1.0 + 1.0 / 32)))
    assert best - 0.02 <= found.value <= best + 4 * found.standard_error


def test_online_attack_is_as_good_as_theory_allows():
    """The true likelihood ratio at shift 1 has AUC Phi(1 / sqrt 2) = .760; estimation costs a little."""
    observation, forget = gaussian(
        np.random.default_rng(5),
        forgotten=2000,
        reference=2000,
        shadows=64,
        shift=1.0,
        member_shift=1.0,
        with_forgotten=True,
    )
    seen = view(observation, forget, np.random.default_rng(6))
    found = delong(build("lira-online", variance="global")(seen).values, forget)
    assert 0.73 <= found.value <= stats.norm.cdf(1 / np.sqrt(2)) + 4 * found.standard_error


def test_auto_names_what_it_chose():
    few, forget = gaussian(np.random.default_rng(0), shadows=16)
    many, marked = gaussian(np.random.default_rng(0), shadows=64)
    attack = build("lira-offline")
    assert "variance=shrunk" in attack(view(few, forget, np.random.default_rng(0))).settings
    assert "variance=record" in attack(view(many, marked, np.random.default_rng(0))).settings
    assert "models=8..8 of 16" in attack(view(few, forget, np.random.default_rng(0))).settings


@pytest.mark.parametrize("value", [1e-9, 1e-3, 0.1, 1.0, 5.0, 1e3, 1e9])
def test_inverse_trigamma(value):
    assert special.polygamma(1, inverse_trigamma(value)) == pytest.approx(value, rel=2e-4)


def test_shrinking_recovers_a_known_prior():
    generator = np.random.default_rng(8)
    prior, common, freedom = 6.0, 2.0, np.full(20_000, 7)
    true = prior * common / generator.chisquare(prior, freedom.size)
    sample = true * generator.chisquare(freedom) / freedom
    shrunk, found = shrink(sample, freedom)
    assert found == pytest.approx(prior, rel=0.1)
    worst = np.mean((np.log(sample) - np.log(true)) ** 2)
    assert np.mean((np.log(shrunk) - np.log(true)) ** 2) < 0.8 * worst


def test_equal_variances_are_all_shrunk_to_one_value():
    shrunk, prior = shrink(np.full(50, 3.0), np.full(50, 9))
    assert np.isinf(prior)
    assert np.ptp(shrunk) == 0.0
    assert shrink(np.array([2.0]), np.array([4]))[1] == np.inf


def test_what_cannot_be_run_says_why():
    generator = np.random.default_rng(0)
    observation, forget = gaussian(generator)
    seen = view(observation, forget, generator)
    for name in ("lira-offline", "lira-offline-two-sided", "lira-online"):
        none = view(gaussian(generator, shadows=2)[0], forget, generator)
        found = build(name)(none)
        assert isinstance(found, Unavailable)
        assert "fewer than 2 shadow models" in found.reason
    found = build("lira-online")(seen)
    assert isinstance(found, Unavailable)
    assert found.reason.startswith("trained with: ")
    constant = View(
        logits=seen.logits,
        labels=seen.labels,
        phi=seen.phi,
        shadow_phi=np.zeros_like(seen.shadow_phi),
        out=seen.out,
        inside=seen.inside,
        reference=seen.reference,
    )
    assert "agree exactly on every record" in build("lira-offline")(constant).reason
    constant.shadow_phi[:, 1:] = seen.shadow_phi[:, 1:]
    assert "stands alone" in build("lira-offline", variance="record")(constant).reason
    assert np.isfinite(build("lira-offline", variance="shrunk")(constant).values).all()
