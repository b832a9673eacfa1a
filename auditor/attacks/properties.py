"""Properties: what is true of a kind of patch whoever made it, beside the verdict and never part of it.

Proves: nothing; the probes fill it in.
Assumes: a reader who wants to know what a patch gives away by being a patch.
Does not: decide. A property has no null hypothesis of "forgotten", so it is never counted as at chance, and a
value of 0.5 or 0 is no reassurance: `counts` is False for every one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from auditor.attacks.observation import Unavailable
from auditor.statistics.areas import area_interval
from auditor.statistics.auc import delong
from auditor.statistics.proportions import interval


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Property:
    """One measured property.

    Attributes:
        name: of the probe.
        quantity: what `value` is, as a phrase.
        value: the measured value.
        low: lower end of its 95 % interval.
        high: upper end.
        reading: one sentence for people.
        settings: every hyper-parameter.
        per_record: one number for each record that was looked at.
        failing: places of the records that fail, where the probe is one that records can fail.
        facts: further numbers by name.
    """

    counts: ClassVar[bool] = False

    name: str
    quantity: str
    value: float
    low: float
    high: float
    reading: str
    settings: str
    per_record: Float[np.ndarray, "record"]
    failing: tuple[int, ...] = ()
    facts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def figures(self) -> dict[str, float]:
        """Return every number by a stable name."""
        found = {"value": self.value, "low": self.low, "high": self.high, "records": float(len(self.per_record))}
        if self.failing:
            found["failing"] = float(len(self.failing))
        return {f"{self.name}.{key}": value for key, value in (found | dict(self.facts)).items()}


def area(
    scores: Float[np.ndarray, "record"], positive: Bool[np.ndarray, "record"]
) -> tuple[float, float, float] | Unavailable:
    """Return an AUC with its 95 % interval, or why there is none.

    Args:
        scores: higher means more like a positive.
        positive: which records are positives.
    """
    if min(int(positive.sum()), int((~positive).sum())) < 2:
        return Unavailable(reason="an AUC with a variance needs two records on each side")
    if not np.isfinite(scores).all():
        return Unavailable(reason="scores that are not finite numbers")
    value = delong(scores, positive).value
    return value, *area_interval(value, int(positive.sum()), int((~positive).sum()))


def share(hits: Bool[np.ndarray, "record"]) -> tuple[float, float, float]:
    """Return a share with its exact 95 % interval; at least one record."""
    count = int(hits.sum())
    return count / hits.size, *interval(count, hits.size)


__all__ = ["Property", "area", "share"]
