"""`retrain`: the committed recipe once more, from fresh initial values, without the records to forget.

What every other method is measured against. It aims at no output, so no record carries a redirection claim; that
the records were left out cannot be shown from parameters (Thudi et al., arXiv 2110.11891).
"""

from dataclasses import dataclass

from owner.methods.job import Job, Result
from owner.methods.settings import parse
from owner.methods.weights import answer, trained
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
    recipe = recipe_file.parse(job.workspace.recipe_bytes)
    return answer(
        job,
        trained(job, recipe, stage="retraining"),
        notes=(f"retrain: {settings!r}, {recipe!r}, on {int((~job.gone).sum())} records",),
        reason="retraining aims at no output",
    )
