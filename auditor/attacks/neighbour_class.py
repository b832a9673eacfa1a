"""A11: the neighbouring class of a removed one.

Proves: a lower bound on what the other classes' logits show after a record's own class was taken away.
Assumes: at least three classes.
Does not: look at the record's own class, which a cap or a misclassifying patch has overwritten. A model that was
trained with the class has learned to tell it from its neighbour; one that never was confuses the two more.
"""

from dataclasses import dataclass

import numpy as np

from auditor.attacks.observation import Scores, Unavailable, View, label_margin


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourClass:
    """Confidence in the nearest other class, as if the record's own class did not exist, negated.

    The neighbour of a class is the other class with the largest mean logit over all its records, members and never-seen
    ones alike. Over the never-seen ones alone it would be the class that happens to lie high for them, and an honest
    model's members would stand out by that: an AUC of .513 in the calibration study.

    Source: Ebrahimpour-Boroojeny, Wang and Sundaram, "Unlearning Isn't Forgetting", ICML 2026 (CMIA); they
        compare with a retrained model, here never-seen records of the same class stand in its place.
    """

    def __call__(self, view: View) -> Scores | Unavailable:
        """Return minus phi of the neighbour among the classes other than the record's own."""
        records, classes = view.logits.shape
        if classes < 3:
            return Unavailable(reason="a neighbouring class among others needs three classes")
        values = np.zeros(records)
        for klass in np.unique(view.labels):
            rows = np.flatnonzero(view.labels == klass)
            if not view.reference[rows].any():
                return Unavailable(reason=f"class {klass} has no never-seen record")
            others = np.delete(view.logits[rows], klass, axis=1)
            neighbour = int(others.mean(axis=0).argmax())
            values[rows] = -label_margin(others, np.full(rows.size, neighbour))
        return Scores(values=values, settings=repr(self))
