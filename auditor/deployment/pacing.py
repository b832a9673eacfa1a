"""When queries are sent: never faster than the rate, at times drawn at random, spread over the span.

Proves: two sendings are at least 1/rate apart. Does not: hide that there is an audit from somebody who reads all
traffic. Time and waiting enter as arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from auditor.deployment.client import Clock

_SLACK = 0.5
"""Mean of what is waited beyond the least distance, as a share of it."""


def offsets(count: int, *, rate: float, span: float, random: np.random.Generator) -> Float[np.ndarray, " query"]:
    """Seconds after the beginning at which each query is due, at least 1/rate apart.

    Args:
        count: how many.
        rate: queries a second, at most.
        span: seconds over which to spread them; it takes longer where the rate asks for it.
        random: from the challenge.
    """
    gaps = (1.0 + random.exponential(_SLACK, size=count)) / rate
    earliest = np.sort(random.uniform(0.0, span, size=count)) if span > 0.0 else np.zeros(count)
    due = np.zeros(count)
    last = 0.0
    for place in range(count):
        last = max(last + float(gaps[place]), float(earliest[place]))
        due[place] = last
    return due


@dataclass(frozen=True, slots=True)
class Pace:
    """A clock, and a way to wait."""

    clock: Clock
    sleep: Callable[[float], None]

    def until(self, when: float) -> None:
        """Wait until the clock says `when`."""
        while (left := when - self.clock()) > 0.0:
            self.sleep(min(left, 3600.0))
