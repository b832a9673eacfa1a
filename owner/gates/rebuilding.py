"""How well a record can be rebuilt from its item, estimated while a sketch is chosen.

Estimates: mean squared error of a ridge regression from boxes (both ends: where a box is clipped, its middle is not
the record's sketch) to records, learned on some known records and measured on others, relative to guessing the mean
record of the class. 1 is no better than guessing. An upper bound on the error only: the auditor measures with
attacks of its own (SPEC 13.4.11), some stronger, and a candidate that somebody already holds is always confirmed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from owner.gates.region import Shape

_LEARNED = 1500
_MEASURED = 300
_PENALTY = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Known records of the kind that is forgotten, with their classes; in no particular order."""

    values: Int[np.ndarray, "record feature"]
    labels: Int[np.ndarray, "record"]

    @classmethod
    def of(cls, values: Int[np.ndarray, "record feature"], labels: Int[np.ndarray, "record"]) -> "Sample":
        """As many of these records as the estimate uses, evenly spread."""
        chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), _LEARNED + _MEASURED)).astype(np.int64))
        # Data files are often sorted by class: learn and measure on the same mixture.
        chosen = np.random.default_rng(0).permutation(chosen)
        return cls(values=values[chosen], labels=labels[chosen])


def rebuilding_error(shape: Shape, matrix: Int[np.ndarray, "component feature"], sample: Sample, radius: int) -> float:
    """Error of rebuilding relative to guessing; 1 where there are too few records to learn from.

    Args:
        shape: the kind of region.
        matrix: the sketch.
        sample: known records.
        radius: of the regions that the boxes are hulls of.
    """
    count = len(sample.values)
    measured = min(_MEASURED, count // 4)
    if measured < 5:
        return 1.0
    span = np.maximum(shape.schema.high - shape.schema.low, 1).astype(np.float32)
    records = sample.values / span
    low, high = shape.hull(matrix, sample.values, np.full(count, radius))
    known = np.concatenate([low, high], axis=1).astype(np.float32)
    known = known[:, known.std(axis=0) > 0]
    known /= np.maximum(np.abs(known).max(axis=0), 1.0)
    test, learn = slice(0, measured), slice(measured, None)
    overall = records[learn].mean(axis=0)
    labels = sample.labels
    means = {k: records[learn][labels[learn] == k].mean(axis=0) for k in np.unique(labels[learn])}
    guess = np.array([means.get(k, overall) for k in labels[test]])
    x, y = known[learn].astype(np.float64), records[learn]
    centre = x.mean(axis=0)
    x = x - centre
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += _PENALTY * max(float(np.trace(gram)) / max(1, len(gram)), 1e-12)
    weight = np.linalg.solve(gram, x.T @ (y - overall))
    rebuilt = (known[test] - centre) @ weight + overall
    least, most = shape.schema.low / span, shape.schema.high / span
    error = ((np.clip(rebuilt, least, most) - records[test]) ** 2).mean()
    return float(error / max(float(((guess - records[test]) ** 2).mean()), 1e-12))
