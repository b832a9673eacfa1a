"""A8: does the model still recognise near duplicates of a forgotten record?

Proves: a lower bound on what somebody sees who holds a slightly changed copy of a record.
Assumes: copies of forgotten and of never-seen records are made in the same way (they are, by one function).
Does not: say whether redirection reaches the copies; the check `persistence` does. A redirection that ends
short of them leaves the base's own answer there, and this attack then sees what the base gave away.
"""

from dataclasses import dataclass

import numpy as np

from auditor.attacks.observation import Scores, Unavailable, label_margin
from auditor.attacks.subjects import Subjects, ask, scatter
from protocol.errors import AuditorError


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """Mean logit-scaled confidence in the record's label over near duplicates of it.

    Attributes:
        distance: steps; see `subjects`.
        copies: near duplicates of each record.

    Source: the disparity measured by "Residual knowledge", NeurIPS 2025 (arXiv 2601.22359), with the confidence
        in place of the label's share and never-seen records in place of a retrained model.
    """

    distance: int = 4
    copies: int = 16

    def __post_init__(self) -> None:
        """Refuse parameters outside their range.

        Raises:
            AuditorError: a distance or number of copies below 1.
        """
        if min(self.distance, self.copies) < 1:
            raise AuditorError("near duplicates need a distance and a number of copies of at least 1")

    def __call__(self, subjects: Subjects, generator: np.random.Generator) -> Scores | Unavailable:
        """Return the means; the record itself is not asked about."""
        total = np.zeros(len(subjects.values))
        for _ in range(self.copies):
            inputs = subjects.schema.dequantise(scatter(subjects.values, subjects.schema, self.distance, generator))
            logits = ask(subjects.patched, inputs, subjects.labels)
            if isinstance(logits, Unavailable):
                return logits
            total += label_margin(logits, subjects.labels)
        return Scores(values=total / self.copies, settings=repr(self))
