"""Attacks on a Gaussian location family, where the best possible attack and its AUC are known.

Stated tolerance: 0.03 of AUC below the optimum, four standard errors above it. 2,000 records a side, fixed seeds.
"""

import numpy as np
import pytest
from scipy import integrate, stats

from auditor.attacks import build
from auditor.attacks.observation import view
from auditor.statistics.auc import delong
from tests.auditor.attacks.synthetic import gaussian, logits_with

TOLERANCE = 0.03


def near(found, best):
    assert best - TOLERANCE <= found.value <= best + 4 * found.standard_error, (found.value, best)


@pytest.mark.parametrize("name", ["loss", "lira-offline", "rmia"])
def test_one_location_for_all_records(name):
    """phi is N(m, 1) or N(m + 1, 1) with one m: the likelihood ratio rises with phi, AUC = Phi(1 / sqrt 2) = .760."""
    observation, forget = gaussian(
        np.random.default_rng(11), forgotten=2000, reference=2000, shadows=64, classes=2, shift=1.0, hardness=0.0
    )
    # One class and one mean, so that no attack has anything to calibrate by.
    flat = np.zeros_like(observation.labels)
    phi = observation.logits[np.arange(len(flat)), observation.labels] - 0.5 * observation.labels
    observation = type(observation)(
        logits=logits_with(phi.astype(np.float64), flat, 2),
        labels=flat,
        shadow_logits=logits_with(
            np.random.default_rng(12).normal(1.0, 1.0, observation.shadow_logits.shape[:2]), flat, 2
        ),
        out=observation.out,
        features=observation.features,
    )
    scores = build(name)(view(observation, forget, np.random.default_rng(13))).values
    # RMIA's shares rise in phi like the likelihood ratio, LiRA divides by a spread that it has to estimate.
    near(delong(scores, forget), float(stats.norm.cdf(1 / np.sqrt(2))))


def two_sided_optimum(shift):
    """P(|X| > |Y|), X = N(+-shift, 1), Y = N(0, 1): the mixture's likelihood ratio is cosh(shift z), rising in |z|."""
    return integrate.quad(
        lambda z: 2 * stats.norm.pdf(z) * (stats.norm.sf(z - shift) + stats.norm.cdf(-z - shift)), 0, 12
    )[0]


def test_shifts_to_either_side_are_found_as_well_as_they_can_be():
    shift = 2.5
    observation, forget = gaussian(
        np.random.default_rng(14), forgotten=2000, reference=2000, shadows=64, shift=0.0, hardness=5.0
    )
    sign = np.random.default_rng(15).choice([-1.0, 1.0], len(forget))
    moved = logits_with(
        observation.logits[np.arange(len(forget)), observation.labels].astype(np.float64)
        - np.log(observation.logits.shape[1] - 1)
        + shift * sign * forget,
        observation.labels,
        observation.logits.shape[1],
    )
    seen = view(
        type(observation)(
            logits=moved, labels=observation.labels, shadow_logits=observation.shadow_logits, out=observation.out,
            features=observation.features,
        ),
        forget,
        np.random.default_rng(16),
    )  # fmt: skip
    one_sided = build("lira-offline", variance="global")(seen).values
    two_sided = build("lira-offline-two-sided", variance="global")(seen).values
    best = two_sided_optimum(shift / np.sqrt(1 + 1 / 32))  # what is left of the shift in units of z's spread
    near(delong(two_sided, forget), best)
    near(delong(np.abs(one_sided), forget), best)  # the form "distance" of the signed score
    assert abs(delong(one_sided, forget).value - 0.5) < 0.05  # a one-sided attack sees nothing
