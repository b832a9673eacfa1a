"""A13: a gate, seen from outside.

Proves: how surely somebody who may ask about neighbouring inputs picks out the forgotten records.
Assumes: questions about single grid steps are answered with all their digits.
Does not: fail anybody. A row of logits in the place of a function is constant inside its core and jumps at its
edge; a shift hides the first and not the second. Inherent in gates.
"""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from auditor.attacks.observation import Unavailable
from auditor.attacks.properties import Property, area, share
from auditor.attacks.subjects import Subjects, ask, walk
from protocol.errors import AuditorError


@dataclass(frozen=True, slots=True, kw_only=True)
class GateProbe:
    """For how many steps away from a record the logits stay the same, bit for bit.

    Attributes:
        steps: length of a walk; see `subjects.walk`.
        walks: random directions for each record.
    """

    steps: int = 8
    walks: int = 2

    def __post_init__(self) -> None:
        """Refuse parameters outside their range.

        Raises:
            AuditorError: fewer than two steps, or no walk.
        """
        if self.steps < 2 or self.walks < 1:
            raise AuditorError("a gate probe walks at least two steps, once")

    def __call__(self, subjects: Subjects, generator: np.random.Generator) -> Property | Unavailable:
        """Return the AUC of the constancy; AUCs of the largest jump and the share of repeated rows beside it."""
        records = len(subjects.values)
        constancy, jump, first = np.zeros(records), np.zeros(records), np.zeros((records, 0))
        for _ in range(self.walks):
            points = walk(subjects.values, subjects.schema, self.steps, generator)
            flat = points.reshape(-1, points.shape[-1])
            asked = ask(subjects.patched, subjects.schema.dequantise(flat), np.tile(subjects.labels, self.steps + 1))
            if isinstance(asked, Unavailable):
                return asked
            logits = asked.reshape(self.steps + 1, records, -1)
            # A walk that the end of a range stops repeats a point; that is no constancy.
            moved = (points[1:] != points[:-1]).any(axis=2)
            same = (logits[1:] == logits[:1]).all(axis=2) & moved
            constancy += np.logical_and.accumulate(same, axis=0).sum(axis=0) / self.steps / self.walks
            jump = np.maximum(jump, np.abs(np.diff(logits, axis=0)).max(axis=2).max(axis=0))
            first = logits[0]
        found, jumping = area(constancy, subjects.forget), area(jump, subjects.forget)
        if isinstance(found, Unavailable):
            return found
        assert not isinstance(jumping, Unavailable)  # the same records; differences of finite logits
        _, group, count = np.unique(first, axis=0, return_inverse=True, return_counts=True)
        repeated = (count[group.reshape(-1)] > 1)[subjects.forget]
        elsewhere = float((constancy[~subjects.forget] > 0.0).mean())
        constant, low, high = share(constancy[subjects.forget] > 0.0)
        return Property(
            name="gate-probe",
            quantity="AUC of constant logits, forgotten against never-seen records",
            value=found[0],
            low=found[1],
            high=found[2],
            reading=f"{constant:.0%} of the forgotten records give the same logits a step away, and {elsewhere:.0%} of "
            f"the never-seen ones; the largest jump on the way has AUC {jumping[0]:.3f}. Inherent in gates.",
            settings=repr(self),
            per_record=constancy,
            facts=MappingProxyType(
                {
                    "auc_jump": jumping[0],
                    "auc_jump_low": jumping[1],
                    "auc_jump_high": jumping[2],
                    "constant_share": constant,
                    "constant_low": low,
                    "constant_high": high,
                    "repeated_share": float(repeated.mean()),
                }
            ),
        )
