"""`distribution-matching`: fine-tune until predictions on what is forgotten are distributed as on unseen data.

Our reconstruction of "Fast yet versatile machine unlearning" (Neural Networks, 2025): only its abstract was at hand,
which says that the model is fine-tuned until the distribution of its predictions on the data to forget matches the
one on unseen third-party data. What is ours: the distance (maximum mean discrepancy between softmax outputs, class by
class, with Gaussian kernels of several widths), a retaining term (cross-entropy on records to keep), and the stop (the
discrepancy is no larger than between two draws of the unseen data, in the median). For records of a removed class
the unseen data of that class is what is matched, the cap does the rest. It aims at a distribution, not at single
outputs, and claims none.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from owner.methods.job import Job, Result
from owner.methods.settings import parse
from owner.methods.weights import Model, Pace, Parameters, Split, adjust, answer, batches
from protocol.errors import OwnerError

_WIDTHS = (0.1, 0.3, 1.0)
_HALVES = 15


@dataclass(frozen=True, slots=True)
class Settings:
    """Steps at most, Adam's rate, records in a step, weight of the discrepancy against the retaining loss."""

    steps: int = 1000
    rate: float = 3e-4
    batch: int = 128
    weight: float = 5.0

    def __post_init__(self) -> None:
        if not (1 <= self.steps <= 10**6 and 0 < self.rate <= 10 and self.batch >= 2 and self.weight > 0):
            raise OwnerError("distribution-matching: steps, rate, weight above 0, batch at least 2")


def discrepancy(left: Tensor, right: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between two sets of rows, Gaussian kernels (Gretton et al. 2012, eq. 5)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = (a[:, None] - b[None]).square().sum(dim=2)
        return torch.stack([torch.exp(-squared / (2 * width**2)) for width in _WIDTHS]).mean(dim=(0, 1, 2))

    return kernel(left, left) + kernel(right, right) - 2 * kernel(left, right)


def _by_class(labels: np.ndarray, generator: np.random.Generator, wanted: np.ndarray) -> np.ndarray:
    """For each wanted label a place of `labels` that has it, drawn with replacement; any place where none has."""
    found = np.empty(len(wanted), dtype=np.int64)
    for klass in np.unique(wanted):
        there = np.flatnonzero(labels == klass)
        pool = there if there.size else np.arange(len(labels))
        found[wanted == klass] = generator.choice(pool, int((wanted == klass).sum()))
    return found


def run(job: Job) -> Result:
    """Match.

    Raises:
        OwnerError: there is no unseen data, or the training diverged.
    """
    settings, split = parse(Settings, job.settings), Split.of(job)
    if len(split.unseen_labels) < 20:
        raise OwnerError(
            "distribution-matching needs at least 20 records of unseen data: X_unseen and y_unseen in the data file "
            "at commit"
        )
    forget, labels = job.tensor(split.forget), split.forget_labels
    retain, kept = job.tensor(split.retain), job.tensor(split.retain_labels)
    unseen = job.tensor(split.unseen)
    of_forget = batches(len(forget), settings.batch, job.generator)
    of_retain = batches(len(retain), settings.batch, job.generator)

    def shown(model: Model, x: Tensor) -> Tensor:
        return functional.softmax(model(x), dim=1)

    def loss(model: Model, _parameters: Parameters, _step: int) -> Tensor:
        chosen, spared = next(of_forget), next(of_retain)
        # As many of each class on both sides: the classes' shares must not be what differs.
        beside = _by_class(split.unseen_labels, job.generator, labels[chosen])
        with torch.no_grad():
            aim = shown(model, unseen[beside])
        down = functional.cross_entropy(model(retain[spared]), kept[spared])
        return down + settings.weight * discrepancy(shown(model, forget[chosen]), aim)

    def enough(model: Model) -> bool:
        beside = _by_class(split.unseen_labels, job.generator, labels)
        aim, mine = shown(model, unseen[beside]), shown(model, forget)
        nulls = []
        for _ in range(_HALVES):
            other = shown(model, unseen[_by_class(split.unseen_labels, job.generator, labels)])
            nulls.append(float(discrepancy(other, aim)))
        return float(discrepancy(mine, aim)) <= float(np.median(nulls))

    pace = Pace(steps=settings.steps, rate=settings.rate, look=25)
    parameters, steps = adjust(job, loss, pace, stop=enough, stage="distribution matching")
    return answer(
        job,
        parameters,
        notes=(
            f"distribution-matching: {settings!r}, {steps} steps taken; a reconstruction from the paper's abstract",
        ),
        reason="what is matched is a distribution, not single outputs",
    )
