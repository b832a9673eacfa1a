"""How well a record can be rebuilt from its item, estimated while a sketch is chosen.

Estimates: mean squared error of a ridge regression from boxes (both ends: where a box is clipped, its middle is not
the record's sketch) to records, learned on some known records and measured on others, relative to guessing the mean
record of the class. 1 is no better than guessing. An upper bound on the error only: the auditor measures with
attacks of its own (SPEC 13.4.11), some stronger, and a candidate that somebody already holds is always confirmed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer

from owner.gates.region import Shape

_LEARNED = 1500
_MEASURED = 300
_PENALTY = 1e-4
_LEAST = 5
"""Records to measure on; with fewer nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Known records of the kind that is forgotten, with their classes; in no particular order."""

    values: Int[np.ndarray, "record feature"]
    labels: Int[np.ndarray, "record"]

    @classmethod
    def of(cls, values: Integer[np.ndarray, "record feature"], labels: Int[np.ndarray, "record"]) -> "Sample":
        """As many of these records as the estimate uses, evenly spread."""
        chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), _LEARNED + _MEASURED)).astype(np.int64))
        # Data files are often sorted by class: learn and measure on the same mixture.
        chosen = np.random.default_rng(0).permutation(chosen)
        return cls(values=values[chosen].astype(np.int32), labels=labels[chosen])


class Rebuilder:
    """Estimates on one sample; what does not depend on a sketch is computed once."""

    def __init__(self, shape: Shape, sample: Sample) -> None:
        self._shape, self._values = shape, sample.values
        count = len(sample.values)
        self._measured = min(_MEASURED, count // 4)
        if self._measured < _LEAST:
            return
        span = np.maximum(shape.schema.high - shape.schema.low, 1).astype(np.float32)
        self._ends = (shape.schema.low / span, shape.schema.high / span)
        records = (sample.values / span).astype(np.float32)
        test, learn = slice(0, self._measured), slice(self._measured, None)
        self._overall = records[learn].mean(axis=0)
        self._test, self._learn = records[test], records[learn] - self._overall
        labels = sample.labels
        means = {k: records[learn][labels[learn] == k].mean(axis=0) for k in np.unique(labels[learn])}
        guess = np.array([means.get(k, self._overall) for k in labels[test]])
        self._guessing = max(float(((guess - self._test) ** 2).mean()), 1e-12)

    def error(self, matrix: Int[np.ndarray, "component feature"], radius: int) -> float:
        """Error of rebuilding relative to guessing; 1 where there are too few records to learn from.

        Args:
            matrix: the sketch.
            radius: of the regions that the boxes are hulls of.
        """
        if self._measured < _LEAST:
            return 1.0
        low, high = self._shape.hull(matrix, self._values, np.full(len(self._values), radius))
        known = np.concatenate([low, high], axis=1).astype(np.float32)
        known = known[:, known.std(axis=0) > 0]
        known /= np.maximum(np.abs(known).max(axis=0), 1.0)
        x = known[self._measured :]
        centre = x.mean(axis=0)
        x = x - centre
        gram = (x.T @ x).astype(np.float64)
        gram[np.diag_indices_from(gram)] += _PENALTY * max(float(np.trace(gram)) / max(1, len(gram)), 1e-12)
        weight = np.linalg.solve(gram, (x.T @ self._learn).astype(np.float64)).astype(np.float32)
        rebuilt = (known[: self._measured] - centre) @ weight + self._overall
        return float(((np.clip(rebuilt, *self._ends) - self._test) ** 2).mean() / self._guessing)
