"""`retrain`: the committed recipe once more, from fresh initial values, without the records to forget.

What every other method is measured against. It aims at no output, so no record carries a redirection claim; that
the records were left out cannot be shown from parameters (Thudi et al., arXiv 2110.11891).
"""

from dataclasses import dataclass

import numpy as np

from owner.methods.job import Job, Result
from owner.methods.settings import parse
from owner.methods.weights import answer
from owner.training import train
from protocol.model import recipe as recipe_file


@dataclass(frozen=True, slots=True)
class Settings:
    """None: the recipe is the committed one."""


def run(job: Job) -> Result:
    """Train anew.

    Raises:
        OwnerError: nothing is left to train on, or the training diverged.
    """
    settings = parse(Settings, job.settings)
    workspace = job.workspace
    own, recipe = workspace.records, recipe_file.parse(workspace.recipe_bytes)
    keep = np.flatnonzero(~job.gone)
    made = train(
        workspace.base,
        workspace.schema.dequantise(own.values),
        own.labels,
        members=[keep],
        recipe=recipe,
        rng=job.generator,
        progress=lambda done, total: job.progress("retraining", done / total),
    )
    return answer(
        job,
        {name: array[0] for name, array in made.parameters.items()},
        notes=(f"retrain: {settings!r}, {recipe!r}, on {len(keep)} records",),
        reason="retraining aims at no output",
    )
