"""`fine-tune`: goes on training the model on the records to keep, for a few epochs; a baseline of the literature.

Forgets, if at all, because the records are no longer rehearsed. It aims at no output and claims none.
"""

from dataclasses import dataclass, replace

from owner.methods.job import Job, Result
from owner.methods.settings import parse
from owner.methods.weights import answer, trained
from protocol.errors import OwnerError
from protocol.model import recipe as recipe_file


@dataclass(frozen=True, slots=True)
class Settings:
    """Epochs on the records to keep, and the rate as a multiple of the recipe's."""

    epochs: int = 5
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not (1 <= self.epochs <= 1000 and 0 < self.rate <= 100):
            raise OwnerError("fine-tune: epochs from 1 to 1000, rate above 0 and at most 100 times the recipe's")


def run(job: Job) -> Result:
    """Train on.

    Raises:
        OwnerError: nothing is left to train on, or the training diverged.
    """
    settings = parse(Settings, job.settings)
    recipe = recipe_file.parse(job.workspace.recipe_bytes)
    shorter = replace(recipe, epochs=settings.epochs, rate=recipe.rate * settings.rate)
    return answer(
        job,
        trained(job, shorter, stage="fine-tuning", start=job.start),
        notes=(f"fine-tune: {settings!r}",),
        reason="fine-tuning aims at no output",
    )
