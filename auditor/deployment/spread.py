"""Where deviating answers gather: in some identities, one style of probe, some claims, or one end of the time.

Proves: a split is named only where chance gives one as clear in fewer than one of a thousand endpoints that cheat
without looking (Fisher's exact test, divided by the number of ways that were looked at). Describes; decides nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import comb
from typing import Protocol, TypeVar

import numpy as np
from scipy import stats

from auditor.deployment.probes import Probe

_CHANCE = 1e-3


class Answered(Protocol):
    """An answer and the probe it answers."""

    @property
    def probe(self) -> Probe:
        """The probe."""


T = TypeVar("T", bound=Answered)


class By(Enum):
    """What answers can depend on."""

    IDENTITY = "identity"
    STYLE = "style"
    KNOWN = "known"
    CLAIM = "claim"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What deviating answers depend on."""

    by: By
    chance: float
    text: str


def _chance(bad: Sequence[bool], inside: Sequence[bool]) -> float:
    table = np.zeros((2, 2), dtype=np.int64)
    for one, within in zip(bad, inside, strict=True):
        table[int(within), int(one)] += 1
    return float(stats.fisher_exact(table)[1])


def most_split(
    answered: Sequence[T], names: Sequence[str], *, bad: Callable[[T], bool], known: frozenset[int] = frozenset()
) -> Split | None:
    """What deviating answers depend on most clearly; None if on nothing.

    Args:
        answered: answers inside supports, in the order of sending.
        names: of the identities.
        bad: whether an answer deviates.
        known: places of the identities that the owner knows as the auditor's.
    """
    wrong = [bad(one) for one in answered]
    if not any(wrong) or all(wrong):
        return None
    # How many ways to choose there were is the last of each: a set of identities that was chosen by its result counts
    # for as many as there are sets of its size.
    candidates: list[tuple[By, list[bool], str, int]] = [
        (By.STYLE, [one.probe.style == "few" for one in answered], "how the probe was made from a record", 1)
    ]
    if known:
        inside = [one.probe.identity in known for one in answered]
        candidates.append((By.KNOWN, inside, "whether the identity is known as the auditor's", 1))
    shares = {
        place: [one for one, answer in zip(wrong, answered, strict=True) if answer.probe.identity == place]
        for place in range(len(names))
    }
    ranked = sorted(shares, key=lambda place: -sum(shares[place]) / max(1, len(shares[place])))
    for count in (1, 2, 3):
        if count < len(names):
            chosen = ranked[:count]
            listed = ", ".join(names[place] for place in chosen)
            inside = [one.probe.identity in chosen for one in answered]
            candidates.append((By.IDENTITY, inside, f"they gather in {listed}", comb(len(names), count)))
    half = len(answered) // 2
    candidates.append((By.TIME, [place < half for place in range(len(answered))], "they gather in time", 1))
    by_claim: dict[int, list[bool]] = {}
    for one, answer in zip(wrong, answered, strict=True):
        by_claim.setdefault(answer.probe.source, []).append(one)
    never = {claim for claim, found in by_claim.items() if all(found)}
    if never and len(never) < len(by_claim):
        mixed = sum(any(found) and not all(found) for found in by_claim.values())
        repeated = any(len(by_claim[claim]) > 1 for claim in never)
        if not mixed and repeated:
            text = f"they are those of {len(never)} of {len(by_claim)} records, as of an earlier version"
            candidates.append((By.CLAIM, [one.probe.source in never for one in answered], text, 1))
    found = [
        Split(by=by, chance=min(1.0, _chance(wrong, inside) * ways * len(candidates)), text=text)
        for by, inside, text, ways in candidates
    ]
    best = min(found, key=lambda split: split.chance)
    return best if best.chance < _CHANCE else None


__all__ = ["By", "Split", "most_split"]
