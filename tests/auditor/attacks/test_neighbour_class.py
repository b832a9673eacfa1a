"""A11's neighbouring class is chosen without favouring either side."""

import numpy as np

from auditor.attacks.neighbour_class import NeighbourClass
from auditor.attacks.observation import View
from auditor.statistics.auc import delong


def test_members_like_all_others_do_not_stand_out():
    # Classes whose means nearly tie: the largest mean over the never-seen records alone would be large for them by luck.
    areas = []
    for seed in range(150):
        logits = np.random.default_rng(seed).normal(size=(168, 10))
        reference, none = np.arange(168) >= 40, np.zeros((0, 168))
        view = View(
            logits=logits, labels=np.zeros(168, np.int64), phi=logits[:, 0], shadow_phi=none, out=none.astype(bool),
            inside=none.astype(bool), reference=reference,
        )  # fmt: skip
        areas.append(delong(NeighbourClass()(view).values, ~reference).value)
    assert abs(np.mean(areas) - 0.5) < 4 * np.std(areas) / len(areas) ** 0.5
