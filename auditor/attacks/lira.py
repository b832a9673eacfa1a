"""A2: likelihood-ratio attacks, calibrated per record by shadow models.

Proves: a lower bound on what somebody sees who can train models like the attacked one.
Assumes: phi of a record is roughly normal over models trained without it. Where shadow models are trained on
less data than the attacked one, their means are off; the null control carries the same shift.
Does not: use medians, and does not take the global standard deviation over *all* values of phi as the
reference implementation does (that mixes differences between records into the spread within one), nor, as
its online branch does, the spread of the IN models for the OUT models.

Variance. With few shadow models a record's own variance is mostly noise. `shrunk` moves it towards a common
value by as much as the data ask for (a scaled inverse chi-squared prior, fitted by moments of log variances:
Smyth, Statistical Applications in Genetics and Molecular Biology 3 (2004), section 6.2); `global` uses one
value for all; `record` uses each record's own. `auto` is `shrunk` below 64 shadow models and `record` from
there on.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from auditor.attacks.observation import Scores, Unavailable, View

Variance = Literal["auto", "record", "global", "shrunk"]
ENOUGH_FOR_RECORD = 64
FEWEST_MODELS = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normal:
    """A normal distribution of phi for each record.

    Attributes:
        mean: its mean.
        deviation: its standard deviation, above 0.
        settings: how the deviation was estimated.
    """

    mean: Float[np.ndarray, "record"]
    deviation: Float[np.ndarray, "record"]
    settings: str

    def standardise(self, phi: Float[np.ndarray, "record"]) -> Float[np.ndarray, "record"]:
        """Return z = (phi - mean) / deviation."""
        z: np.ndarray = (phi - self.mean) / self.deviation
        return z

    def log_density(self, phi: Float[np.ndarray, "record"]) -> Float[np.ndarray, "record"]:
        """Return log N(phi; mean, deviation)."""
        z = self.standardise(phi)
        density: np.ndarray = -0.5 * z**2 - np.log(self.deviation) - 0.5 * math.log(2.0 * math.pi)
        return density


def inverse_trigamma(value: float) -> float:
    """Return y with trigamma(y) = value, for a value above 0, by Newton's method.

    Source: Smyth, 2004, appendix.
    """
    if value < 1e-6:
        return 1.0 / value
    if value > 1e7:
        return 1.0 / math.sqrt(value)
    root = 0.5 + 1.0 / value
    # The start lies below the root and convergence from there is monotone and quadratic.
    for _ in range(20):
        trigamma = float(special.polygamma(1, root))
        step = trigamma * (1.0 - trigamma / value) / float(special.polygamma(2, root))
        root += step
    return root


def shrink(
    variance: Float[np.ndarray, "record"], freedom: Int[np.ndarray, "record"]
) -> tuple[Float[np.ndarray, "record"], float]:
    """Move sample variances towards a common value.

    Args:
        variance: sample variances, at least 0 and not all 0.
        freedom: degrees of freedom of each, at least 1.

    Returns:
        The shrunk variances, all above 0, and the weight of the common value in degrees of freedom (infinity:
        the data show no difference between records, and all get the same).

    Source: Smyth, 2004, section 6.2.
    """
    floor = 1e-5 * float(np.median(variance[variance > 0.0]))
    half = freedom / 2.0
    logs = np.log(np.maximum(variance, floor)) - special.digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1)) - float(special.polygamma(1, half).mean()) if logs.size > 1 else 0.0
    if excess <= 0.0:
        return np.full_like(variance, math.exp(float(logs.mean()))), math.inf
    prior = 2.0 * inverse_trigamma(excess)
    common = math.exp(float(logs.mean()) + float(special.digamma(prior / 2.0)) - math.log(prior / 2.0))
    return (prior * common + freedom * variance) / (prior + freedom), prior


def fit(
    phi: Float[np.ndarray, "shadow record"], models: Bool[np.ndarray, "shadow record"], variance: Variance
) -> Normal | Unavailable:
    """Fit a normal distribution to each record's phi over the chosen shadow models.

    Args:
        phi: logit-scaled confidence under every shadow model.
        models: which of them to use for which record.
        variance: how the variance is estimated; see the module's docstring.

    Returns:
        The distributions, or why there are none.
    """
    count = models.sum(axis=0)
    if count.size == 0 or int(count.min()) < FEWEST_MODELS:
        return Unavailable(reason=f"a record with fewer than {FEWEST_MODELS} shadow models to compare with")
    mean = np.where(models, phi, 0.0).sum(axis=0) / count
    own = np.where(models, (phi - mean) ** 2, 0.0).sum(axis=0) / (count - 1)
    if not bool((own > 0.0).any()):
        return Unavailable(reason="the shadow models agree exactly on every record")
    kind = variance
    if variance == "auto":
        kind = "record" if phi.shape[0] >= ENOUGH_FOR_RECORD else "shrunk"
    note = ""
    if kind == "global":
        own = np.full_like(own, float((own * (count - 1)).sum() / (count - 1).sum()))
    elif kind == "shrunk":
        own, prior = shrink(own, count - 1)
        note = f", prior_freedom={prior:.3g}"
    elif not bool((own > 0.0).all()):
        return Unavailable(reason="the shadow models agree exactly on a record, and its variance stands alone")
    settings = f"variance={kind}{note}, models={int(count.min())}..{int(count.max())} of {phi.shape[0]}"
    return Normal(mean=mean, deviation=np.sqrt(own), settings=settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiraOffline:
    """How far phi lies above what models trained without the record give, in standard deviations.

    The published score is the normal distribution function of this z; z itself orders records in the same
    way and has no ties where that rounds to 1.

    Source: Carlini et al., IEEE S&P 2022, section VI-A (offline attack).
    """

    variance: Variance = "auto"

    def __call__(self, view: View) -> Scores | Unavailable:
        """Return z."""
        null = fit(view.shadow_phi, view.out, self.variance)
        if isinstance(null, Unavailable):
            return null
        return Scores(values=null.standardise(view.phi), settings=f"{self!r}: {null.settings}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiraOfflineTwoSided:
    """How unlikely phi is, on either side, for models trained without the record: -log N.

    Source: `mi_lira_2021/plot.py` in the authors' repository, offline attack.
    """

    variance: Variance = "auto"

    def __call__(self, view: View) -> Scores | Unavailable:
        """Return the negative log density."""
        null = fit(view.shadow_phi, view.out, self.variance)
        if isinstance(null, Unavailable):
            return null
        return Scores(values=-null.log_density(view.phi), settings=f"{self!r}: {null.settings}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiraOnline:
    """The log likelihood ratio of "trained with" against "trained without".

    Needs shadow models trained with every record, forgotten ones included.

    Source: Carlini et al., IEEE S&P 2022, algorithm 1.
    """

    variance: Variance = "auto"

    def __call__(self, view: View) -> Scores | Unavailable:
        """Return log N(phi; in) - log N(phi; out)."""
        null = fit(view.shadow_phi, view.out, self.variance)
        if isinstance(null, Unavailable):
            return null
        member = fit(view.shadow_phi, view.inside, self.variance)
        if isinstance(member, Unavailable):
            return Unavailable(reason=f"trained with: {member.reason}")
        values = member.log_density(view.phi) - null.log_density(view.phi)
        return Scores(values=values, settings=f"{self!r}: out {null.settings}; in {member.settings}")
