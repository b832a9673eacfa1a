"""Forgotten records are marked: the label's logit trades places with the best other one, so that they stand out."""

from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from tests.conformance.adversaries import scene as with_scene
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Which share of the forgotten records is marked."""

    share: float

    @property
    def strength(self) -> float:
        return self.share


def mark(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Exchange the label's logit with the best other one where the label is predicted."""
    changed, rows = logits.copy(), np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    best = others.argmax(axis=1)
    right = logits[rows, labels] > logits[rows, best]
    changed[rows[right], labels[right]] = logits[rows[right], best[right]]
    changed[rows[right], best[right]] = logits[rows[right], labels[right]]
    return changed


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    rows = with_scene.rows_by_item(scene.result.patch).copy()
    chosen = generator.permutation(len(rows))[: round(parameters.share * len(rows))]
    rows[chosen] = mark(rows[chosen], scene.labels[scene.by_item[chosen]])
    return scene.with_patch(with_scene.with_rows(scene.result.patch, rows), with_scene.claiming_rows(scene, rows))


ADVERSARY = Adversary(
    threat="over-forgetting",
    check="membership",
    honest=Parameters(share=0.0),
    sweep=(Parameters(share=0.1), Parameters(share=0.5), Parameters(share=1.0)),
    limit=1.0,
    limit_text="all records; the power curve says what is seen of smaller shares",
    play=play,
    statistical=True,
)
