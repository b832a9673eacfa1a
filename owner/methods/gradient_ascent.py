"""`gradient-ascent`: raises the loss on the records to forget while holding it down on those to keep; a baseline.

Stops when the mean loss on the records to forget has risen to that on unseen data (where there is some), else to
that of guessing. The loss to raise is capped at that of guessing, so that no record
is driven to extremes. It aims at no output and claims none. Source: the "NegGrad+" baseline as the literature has it
(Kurmanji et al. 2023, "Towards unbounded machine unlearning", section 4); the cap is ours.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from owner.methods.job import Job, Result
from owner.methods.settings import parse
from owner.methods.weights import Model, Pace, Parameters, Split, adjust, answer, batches
from protocol.errors import OwnerError


@dataclass(frozen=True, slots=True)
class Settings:
    """Steps at most, Adam's rate, records in a step, weight of what is to be forgotten (the rest is kept's)."""

    steps: int = 500
    rate: float = 3e-4
    batch: int = 64
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not (1 <= self.steps <= 10**6 and 0 < self.rate <= 10 and self.batch >= 1 and 0 < self.weight < 1):
            raise OwnerError("gradient-ascent: steps, rate and batch above 0, weight between 0 and 1")


def run(job: Job) -> Result:
    """Climb.

    Raises:
        OwnerError: nothing to keep, or the training diverged.
    """
    settings, split = parse(Settings, job.settings), Split.of(job)
    forget, labels = job.tensor(split.forget), job.tensor(split.forget_labels)
    retain, kept = job.tensor(split.retain), job.tensor(split.retain_labels)
    unseen, others = job.tensor(split.unseen), job.tensor(split.unseen_labels)
    of_forget = batches(len(forget), settings.batch, job.generator)
    of_retain = batches(len(retain), settings.batch, job.generator)
    guessing = math.log(job.workspace.base.classes)

    def loss(model: Model, _parameters: Parameters, _step: int) -> Tensor:
        chosen, spared = next(of_forget), next(of_retain)
        up = functional.cross_entropy(model(forget[chosen]), labels[chosen], reduction="none").clamp(max=guessing)
        down = functional.cross_entropy(model(retain[spared]), kept[spared])
        return (1 - settings.weight) * down - settings.weight * up.mean()

    def enough(model: Model) -> bool:
        aim = min(guessing, float(functional.cross_entropy(model(unseen), others))) if len(others) else guessing
        return float(functional.cross_entropy(model(forget), labels)) >= aim

    pace = Pace(steps=settings.steps, rate=settings.rate)
    parameters, steps = adjust(job, loss, pace, stop=enough, stage="gradient ascent")
    return answer(
        job,
        parameters,
        notes=(f"gradient-ascent: {settings!r}, {steps} steps taken",),
        reason="gradient ascent aims at no output",
    )
