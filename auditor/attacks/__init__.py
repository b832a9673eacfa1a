"""The attacks, by name.

Attacks on a `View` map it to one score for each record. Attacks that ask the model further questions map
`Subjects` and a generator to scores, and probes map them to a `Property`, which is reported and never decides.
`patch_read`, `strip` and `rerun` need other material; see their modules.
"""

from collections.abc import Callable

from auditor.attacks.confidence import Confidence, Entropy, Loss, ModifiedEntropy
from auditor.attacks.label_only import BoundaryDistance, Gap
from auditor.attacks.lira import LiraOffline, LiraOfflineTwoSided, LiraOnline, Variance
from auditor.attacks.near import NearDuplicates
from auditor.attacks.neighbour_class import NeighbourClass
from auditor.attacks.observation import Observation, Scores, Unavailable, View
from auditor.attacks.properties import Property
from auditor.attacks.quantile import QuantileRegression
from auditor.attacks.rmia import Rmia
from auditor.attacks.subjects import Probe, QueryAttack, Subjects
from protocol.errors import AuditorError

Attack = Callable[[View], Scores | Unavailable]

NAMES = (
    "confidence",
    "loss",
    "entropy",
    "modified-entropy",
    "lira-offline",
    "lira-offline-two-sided",
    "lira-online",
    "rmia",
)
CLASS_NAMES = ("neighbour-class",)
"""Attacks on a `View` that only make sense for a removed class."""
QUERY_NAMES = ("near-duplicates", "gap", "boundary-distance", "quantile-regression")


def build(name: str, *, variance: Variance = "auto", rmia_gamma: float = 1.0, rmia_a: float | None = None) -> Attack:
    """Return the attack of this name.

    Args:
        name: one of `NAMES` or `CLASS_NAMES`.
        variance: how the likelihood-ratio attacks estimate variances; see `lira.py`.
        rmia_gamma: factor of RMIA's comparison, at least 1.
        rmia_a: RMIA's a in [0, 1]; None lets the shadow models choose it.

    Raises:
        AuditorError: an unknown name or a parameter outside its range.
    """
    attacks: dict[str, Callable[[], Attack]] = {
        "confidence": Confidence,
        "loss": Loss,
        "entropy": Entropy,
        "modified-entropy": ModifiedEntropy,
        "lira-offline": lambda: LiraOffline(variance=variance),
        "lira-offline-two-sided": lambda: LiraOfflineTwoSided(variance=variance),
        "lira-online": lambda: LiraOnline(variance=variance),
        "rmia": lambda: Rmia(gamma=rmia_gamma, offline_a=rmia_a),
        "neighbour-class": NeighbourClass,
    }
    if name not in attacks:
        raise AuditorError(f"no attack is called {name!r}; there are {', '.join((*NAMES, *CLASS_NAMES))}")
    return attacks[name]()


def build_query(name: str) -> QueryAttack:
    """Return the attack of this name that asks the model further questions, with its default parameters.

    Args:
        name: one of `QUERY_NAMES`.

    Raises:
        AuditorError: an unknown name.
    """
    attacks: dict[str, Callable[[], QueryAttack]] = {
        "near-duplicates": NearDuplicates,
        "gap": Gap,
        "boundary-distance": BoundaryDistance,
        "quantile-regression": QuantileRegression,
    }
    if name not in attacks:
        raise AuditorError(f"no attack by queries is called {name!r}; there are {', '.join(QUERY_NAMES)}")
    return attacks[name]()


__all__ = [
    "CLASS_NAMES",
    "NAMES",
    "QUERY_NAMES",
    "Attack",
    "Observation",
    "Probe",
    "Property",
    "QueryAttack",
    "Scores",
    "Subjects",
    "Unavailable",
    "Variance",
    "View",
    "build",
    "build_query",
]
