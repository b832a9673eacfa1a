"""A9: attacks on a model that gives away nothing but the predicted label.

Proves: a lower bound on what hiding the confidences still shows.
Assumes: any input may be asked about, a bounded number of times; directions are random, so a distance is that
along them and at least the distance to the boundary.
Does not: search for the nearest point of the boundary (HopSkipJump asks thousands of questions for each record);
all records and directions advance together, in batches.
"""

from dataclasses import dataclass

import numpy as np

from auditor.attacks.observation import Scores, Unavailable
from auditor.attacks.subjects import Subjects, ask
from protocol.errors import AuditorError


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """1 if the label is predicted, else 0.

    Source: Yeom et al., CSF 2018, adversary 1.
    """

    def __call__(self, subjects: Subjects, generator: np.random.Generator) -> Scores | Unavailable:
        """Return whether the record's label is predicted; nothing random."""
        del generator
        logits = ask(subjects.patched, subjects.inputs, subjects.labels)
        if isinstance(logits, Unavailable):
            return logits
        right = logits.argmax(axis=1) == subjects.labels
        return Scores(values=right.astype(np.float64), settings=repr(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryDistance:
    """Mean distance to a change of the predicted label along random directions, negative if the label is wrong.

    Distances are root mean squares over the columns, in units of each column's range. A direction is first
    walked with doubling steps to the first change, and that is then halved; inputs stay in the declared box.

    Attributes:
        directions: random directions for each record.
        scan: doublings up to `reach`.
        halvings: bisections between the last unchanged and the first changed point.
        reach: largest distance; what does not change up to there counts as this far.

    Source: Choquette-Choo et al., "Label-Only Membership Inference Attacks", ICML 2021, section 3.2.
    """

    directions: int = 8
    scan: int = 6
    halvings: int = 5
    reach: float = 0.5

    def __post_init__(self) -> None:
        """Refuse parameters outside their range.

        Raises:
            AuditorError: nothing to ask, or a reach that is not above 0.
        """
        if min(self.directions, self.scan) < 1 or self.halvings < 0 or not 0.0 < self.reach < np.inf:
            raise AuditorError(
                "a boundary distance needs directions and scans of at least 1, and a finite reach above 0"
            )

    @property
    def queries(self) -> int:
        """Questions for each record."""
        return 1 + self.directions * (self.scan + self.halvings)

    def __call__(self, subjects: Subjects, generator: np.random.Generator) -> Scores | Unavailable:
        """Return the distances."""
        schema, inputs = subjects.schema, subjects.inputs
        logits = ask(subjects.patched, inputs, subjects.labels)
        if isinstance(logits, Unavailable):
            return logits
        start = logits.argmax(axis=1)
        ends = schema.dequantise(np.stack([schema.low, schema.high]))
        bottom, top = ends.min(axis=0), ends.max(axis=0)
        total = np.zeros(len(start))
        for _ in range(self.directions):
            ray = generator.normal(size=inputs.shape)
            size = np.sqrt((ray.reshape(len(ray), -1) ** 2).mean(axis=1))
            ray = ray / size.reshape(-1, *(1,) * (ray.ndim - 1)) * (top - bottom)
            same, changed = np.zeros(len(start)), np.full(len(start), np.inf)
            for step in range(self.scan + self.halvings):
                found = changed < np.inf
                if step < self.scan:
                    at = np.full(len(start), self.reach * 2.0 ** (step + 1 - self.scan))
                else:
                    at = np.where(found, (same + np.where(found, changed, 0.0)) / 2.0, self.reach)
                points = inputs + ray * at.reshape(-1, *(1,) * (ray.ndim - 1))
                logits = ask(subjects.patched, np.clip(points, bottom, top).astype(np.float32), subjects.labels)
                if isinstance(logits, Unavailable):
                    return logits
                differs = logits.argmax(axis=1) != start
                first = differs & (at < changed)
                changed[first] = at[first]
                kept = ~differs & (at > same) & (at < changed)
                same[kept] = at[kept]
            total += np.where(changed < np.inf, (same + np.minimum(changed, self.reach)) / 2.0, self.reach)
        distance = total / self.directions
        signed = np.where(start == subjects.labels, distance, -distance)
        return Scores(values=signed, settings=f"{self!r}: {self.queries} queries a record")
