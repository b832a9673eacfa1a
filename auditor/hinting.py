"""Slopes that a bundle ships, for the claims at hand: looked up, never believed.

Proves nothing. Any slope in [0, 1] gives a bound that holds (`auditor.propagation`), so what is read here can make
a proof longer or shorter and nothing else. Entries whose sizes are not the model's are as good as none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, UInt8

from auditor.propagation import Plan
from auditor.propagation.plan import Relu
from protocol.claims import Claim, Redirection
from protocol.hints import MAX_ENTRY, STEPS, Hints, Slopes

NO_ENTRY = -1
_ELEMENTS = 1 << 22
"""Slopes that are unpacked together: 32 MiB."""
ByName = Mapping[str, Float64[np.ndarray, "claim ..."]]


def _cut(packed: UInt8[np.ndarray, "claim ... value"], plan: Plan) -> ByName:
    """Packed slopes of all Relus, by the names of their outputs."""
    found, start = {}, 0
    for step in plan.steps:
        if isinstance(step, Relu):
            shape = plan.shapes[step.output]
            end = start + int(np.prod(shape, dtype=np.int64))
            found[step.output] = packed[..., start:end].reshape(*packed.shape[:-1], *shape) / STEPS
            start = end
    return found


def values_of(plan: Plan) -> int:
    """How many slopes an entry needs for each row."""
    relus = [step.output for step in plan.steps if isinstance(step, Relu)]
    return sum(int(np.prod(plan.shapes[name], dtype=np.int64)) for name in relus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The slopes for some claims.

    Args:
        slopes: of the bundle.
        entry: for each claim its entry, or `NO_ENTRY`.
    """

    slopes: Slopes
    entry: Int64[np.ndarray, " claim"]

    @classmethod
    def of(cls, hints: Hints | None, all_claims: Sequence[Claim], chosen: Sequence[Redirection]) -> "Given":
        """What a bundle's hints hold for some of its claims.

        Args:
            hints: None if the bundle has none, or none that can be read.
            all_claims: in the order of their lines.
            chosen: the claims at hand.
        """
        slopes = hints.slopes if hints is not None else Slopes.none()
        by_line = dict(zip(slopes.claim.tolist(), slopes.entry.tolist(), strict=True))
        by_record = {
            claim.record: by_line[line]
            for line, claim in enumerate(all_claims)
            if isinstance(claim, Redirection) and line in by_line
        }
        entry = [by_record.get(claim.record, NO_ENTRY) for claim in chosen]
        return cls(slopes=slopes, entry=np.array(entry, np.int64))

    @classmethod
    def none(cls, count: int) -> "Given":
        """No hints for a number of claims."""
        return cls(slopes=Slopes.none(), entry=np.full(count, NO_ENTRY, np.int64))

    def __len__(self) -> int:
        return len(self.entry)

    def only(self, which: Integer[np.ndarray, " some"] | Bool[np.ndarray, " claim"]) -> "Given":
        """Those for some of the claims."""
        return Given(slopes=self.slopes, entry=self.entry[which])

    def usable(self, plan: Plan) -> Bool[np.ndarray, " claim"]:
        """Which claims have slopes that this model can use."""
        found: Bool[np.ndarray, " claim"] = self.entry != NO_ENTRY
        return found if self.slopes.inner.shape[1] == values_of(plan) > 0 else np.zeros_like(found)

    def together(self, rows: int) -> int:
        """How many claims' slopes are unpacked at a time, each for a number of rows."""
        return max(1, _ELEMENTS // max(1, (1 + rows) * int(self.slopes.inner.shape[1])))

    def inner(self, plan: Plan) -> ByName:
        """Slopes for the limits of hidden values; all claims must be usable."""
        return _cut(self.slopes.inner[self.entry], plan)

    def last(self, plan: Plan, rows: int) -> ByName:
        """Slopes for the way back of the claims' own inequalities, those of `inner` for rows that have none.

        None at all where they would not be few: `inner` serves every row then.

        Args:
            plan: of the model.
            rows: how many each claim is given.
        """
        if (1 + rows) * self.slopes.inner.shape[1] > MAX_ENTRY:
            return {}
        packed, held = self.slopes.inner[self.entry], min(rows, self.slopes.last.shape[1])
        whole = np.repeat(packed[:, None], rows, axis=1)
        whole[:, :held] = self.slopes.last[self.entry, :held]
        return _cut(whole, plan)
