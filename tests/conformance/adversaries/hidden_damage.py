"""One item's box reaches over records of another class than it shows: they are classified wrong from now on."""

from dataclasses import dataclass

import numpy as np

from owner.certify import Draft
from tests.conformance.adversaries import wide_item
from tests.conformance.adversaries.adversary import Adversary
from tests.conformance.adversaries.scene import Scene, rows_by_item


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Which share of the retained records of one class lies in the box."""

    share: float

    @property
    def strength(self) -> float:
        return self.share


def play(scene: Scene, parameters: Parameters, generator: np.random.Generator) -> Draft:
    """See the module."""
    found = wide_item.candidates(scene, same_class=False)
    if found:
        item, klass = found[0]
    else:
        # Every record is shown as the base shows it: then an item that shows another class than its neighbours.
        item = scene.result.patch.items - 1
        shown = int(rows_by_item(scene.result.patch)[item].argmax())
        labels = scene.job.workspace.records.labels
        klass = int(np.bincount(labels[labels != shown]).argmax())
    return wide_item.widened(scene, wide_item.nearest(scene, klass, parameters.share, item), item)


ADVERSARY = Adversary(
    threat="hidden-damage",
    check="utility",
    honest=Parameters(share=0.0),
    sweep=(Parameters(share=0.05), Parameters(share=1.0)),
    limit=1.0,
    limit_text="a loss in one class that is surely above 10 %, or over all surely above 2 %",
    play=play,
    statistical=True,
)
