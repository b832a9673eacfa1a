"""The methods by name; see each module for what it does and claims."""

from collections.abc import Callable

from owner.methods import (
    deny_list,
    distribution_matching,
    fine_tune,
    gradient_ascent,
    instance_wise,
    prune,
    prune_paper,
    retrain,
)
from owner.methods.job import Job, Result

METHODS: dict[str, Callable[[Job], Result]] = {
    "prune": prune.run,
    "prune-paper": prune_paper.run,
    "distribution-matching": distribution_matching.run,
    "instance-wise": instance_wise.run,
    "retrain": retrain.run,
    "fine-tune": fine_tune.run,
    "gradient-ascent": gradient_ascent.run,
    "deny-list": deny_list.run,
}
COMPOSING = ("prune", "deny-list")
"""Those whose items can stand beside an earlier certificate's."""
CONTINUING = ("distribution-matching", "instance-wise", "retrain", "fine-tune", "gradient-ascent")
"""Those that go on from an earlier certificate's weights; retraining alone begins anew."""
