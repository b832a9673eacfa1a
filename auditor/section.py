"""The part of a plan that is about attacks, as data.

Proves: nothing; `auditor.suite` reads it and joins it with a profile. It stands alone so that programs that only
handle plans do not load every attack.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The part of a plan that is about attacks; None where the plan does not say.

    Attributes:
        attacks: name to settings.
        properties: likewise.
        required: attacks that CONSISTENT needs, beside the profile's.
        margin: the largest difference of AUC that counts as none.
        level: error probability of accusation and of reassurance.
        exchangeability_level: level of the test that precedes everything.
        delta: of the epsilon lower bound.
        rates: false-positive rates at which the true-positive rate is wanted.
        shadows: number of shadow models.
        controls: pseudo-forget draws of the null control.
    """

    attacks: Mapping[str, Settings] = field(default_factory=dict)
    properties: Mapping[str, Settings] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    margin: float | None = None
    level: float | None = None
    exchangeability_level: float | None = None
    delta: float | None = None
    rates: tuple[float, ...] | None = None
    shadows: int | None = None
    controls: int | None = None
