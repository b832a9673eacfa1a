"""Of claims that are not proven: how far they are. Bisection, with bounded work.

Proves, for the radius it gives a claim: what the given test proves at that radius. Regions of smaller radii lie in
larger ones, but a bound need not get better in every step down, so a proven radius is found, usually the largest.
Nothing here refutes. Source: SPEC 11.10.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64, Integer

from protocol.claims import Redirection, Region

UNPROVEN = -1
"""Instead of a radius: not even the record's own grid cell is proven."""
Test = Callable[[Int64[np.ndarray, " some"], Int64[np.ndarray, " some"]], Bool[np.ndarray, " some"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far one claim that is not proven was proven after all.

    Args:
        claimed: its radius.
        proven: the largest that was proven, or `UNPROVEN`.
        unit: plural noun.
    """

    claimed: int
    proven: int
    unit: str

    def told(self) -> str:
        """For people."""
        largest = "none" if self.proven == UNPROVEN else f"{self.proven} {self.unit}"
        return f"{self.claimed} {self.unit} are claimed, the largest proven radius is {largest}"

    def facts(self) -> dict[str, str]:
        """For the evidence."""
        proven = "none" if self.proven == UNPROVEN else str(self.proven)
        return {"claimed": str(self.claimed), "proven": proven, "unit": self.unit}


def bisect(test: Test, failed: Integer[np.ndarray, " claim"]) -> Int64[np.ndarray, " claim"]:
    """For each claim a radius that passes a test, the largest that bisection finds.

    Args:
        test: given numbers of claims, and a radius for each: which of them pass.
        failed: for each claim a radius at which it is not proven; smaller ones are tried.

    Returns:
        Radii, or `UNPROVEN`.
    """
    over = failed.astype(np.int64)
    proven = np.full(len(over), UNPROVEN, np.int64)
    while (open_ := np.flatnonzero(over - proven > 1)).size:
        steps = (proven[open_] + over[open_]) // 2
        good = test(open_, steps)
        proven[open_[good]] = steps[good]
        over[open_[~good]] = steps[~good]
    return proven


def size(region: Region) -> int:
    """The number of a region that `at` replaces: flips where there are any, else steps."""
    return region.radius if region.norm == "linf" or region.radius else region.steps


def at(claim: Redirection, radius: int) -> Redirection:
    """The same claim for another radius."""
    region = claim.region
    part = "radius" if region.norm == "linf" or region.radius else "steps"
    return replace(claim, region=replace(region, **{part: radius}))  # type: ignore[arg-type]


def unit(region: Region) -> str:
    """What `size` counts."""
    return "flips" if region.norm == "hamming" and region.radius else "steps"


def figures(reaches: Sequence[Reach]) -> dict[str, object]:
    """What a report says of all claims that are not proven."""
    radii = [one.proven for one in reaches if one.proven != UNPROVEN]
    return {
        "claims": len(reaches),
        "without_a_proven_radius": len(reaches) - len(radii),
        "min": min(radii, default=None),
        "median": float(np.median(radii)) if radii else None,
        "max": max(radii, default=None),
    }
