"""`distribution-matching`: fine-tune until predictions on what is forgotten are distributed as on unseen data.

Our reconstruction of "Fast yet versatile machine unlearning" (Neural Networks, 2025): only its abstract was at hand,
which says that the model is fine-tuned until the distribution of its predictions on the data to forget matches the
one on unseen third-party data, and that backdoor triggers, whole classes and subsets are forgotten so. What is ours:
the distance (maximum mean discrepancy between outputs, probabilities and their logarithms, class by class, with
Gaussian kernels of several widths), a retaining term (cross-entropy on records to keep), and the stop (the discrepancy
is no larger than between two draws of the unseen data, in the median, and on average a record's class is no more than
0.01 likelier than unseen records').

Whose class: a record's label, or, where labels are not to be believed, that of the unseen records next to it. Poisoned
records all carry the attacker's label, and the base agrees with them; matched to unseen data of *that* class they
match already, and the backdoor stays (measured: attack success unchanged). So labels are believed if the nearest
unseen records bear them out about as often as they do each other's (`labels=auto`); a trigger that covers most of a
record would defeat that, and `labels=given` or `near` decide by hand.

For records of a removed class the unseen data of that class is what is matched, the cap does the rest. It aims at a
distribution, not at single outputs, and claims none.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor
from torch.nn import functional

from owner.methods.job import Job, Result
from owner.methods.settings import parse
from owner.methods.weights import Model, Pace, Parameters, Split, adjust, answer, batches
from protocol.errors import OwnerError

_WIDTHS = (0.1, 0.3, 1.0)
_HALVES = 15
_FLOOR, _SCALE = -12.0, 4.0
_TOLERANCE = 0.01
_NEAR = 5
_SLACK = 3.0
LABELS = ("auto", "given", "near")


@dataclass(frozen=True, slots=True)
class Settings:
    """Steps at most, Adam's rate, records in a step, the discrepancy's weight against retaining, whose class."""

    steps: int = 1000
    rate: float = 3e-4
    batch: int = 128
    weight: float = 5.0
    labels: str = "auto"

    def __post_init__(self) -> None:
        if not (1 <= self.steps <= 10**6 and 0 < self.rate <= 10 and self.batch >= 2 and self.weight > 0):
            raise OwnerError("distribution-matching: steps, rate, weight above 0, batch at least 2")
        if self.labels not in LABELS:
            raise OwnerError(f"distribution-matching: labels is one of {', '.join(LABELS)}")


def discrepancy(left: Tensor, right: Tensor, classes: tuple[Tensor, Tensor]) -> Tensor:
    """Squared maximum mean discrepancy between two sets of rows (Gretton et al. 2012, eq. 5).

    Gaussian kernels times whether both rows are of one class: what is compared is row and class together.

    Args:
        left: `[record, class]`.
        right: likewise.
        classes: a class for each row of either.
    """

    def kernel(a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
        squared = (a[:, None] - b[None]).square().sum(dim=2)
        each = torch.stack([torch.exp(-squared / (2 * width**2)) for width in _WIDTHS]).mean(dim=0)
        return (each * (of_a[:, None] == of_b[None])).mean()

    mine, other = classes
    return kernel(left, left, mine, mine) + kernel(right, right, other, other) - 2 * kernel(left, right, mine, other)


def neighbours(
    x: Float32[np.ndarray, "record ..."],
    there: Float32[np.ndarray, "unseen ..."],
    labels: Int[np.ndarray, "unseen"],
    *,
    same: bool = False,
) -> Int[np.ndarray, "record"]:
    """The commonest label among the nearest of `there`, in L2; with `same`, x is `there` and none counts for itself."""
    a, b = (torch.from_numpy(np.array(part, np.float64).reshape(len(part), -1)) for part in (x, there))
    count = min(_NEAR, len(labels) - 1)
    found = np.empty(len(x), dtype=np.int64)
    for start in range(0, len(x), 1024):
        far = torch.cdist(a[start : start + 1024], b)
        if same:
            far[torch.arange(len(far)), torch.arange(start, start + len(far))] = torch.inf
        votes = labels[far.topk(count, largest=False).indices.numpy()]
        found[start : start + len(votes)] = [np.bincount(vote).argmax() for vote in votes]
    return found


def _classes(split: Split, how: str) -> tuple[Int[np.ndarray, "forget"], str]:
    """A class for each record to forget, and where it is from."""
    if how == "given":
        return split.forget_labels, "as given"
    near = neighbours(split.forget, split.unseen, split.unseen_labels)
    if how == "near":
        return near, "of the nearest unseen records"
    own, count = split.forget_labels, len(split.forget_labels)
    # By leave-one-out among the unseen, class by class: some classes are harder than others.
    usual = neighbours(split.unseen, split.unseen, split.unseen_labels, same=True) == split.unseen_labels
    share = {klass: float(usual[split.unseen_labels == klass].mean()) for klass in np.unique(split.unseen_labels)}
    expected = float(np.mean([share.get(klass, 0.0) for klass in own]))
    spread = (max(expected * (1 - expected), 0.01) * (1 / count + 1 / len(split.unseen_labels))) ** 0.5
    agreed = float((near == own).mean())
    if agreed >= min(expected - _SLACK * spread, 0.9 * expected):
        return own, "as given"
    return near, f"of the nearest unseen records, since they bear out {agreed:.0%} of the labels, not {expected:.0%}"


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
    forget, (labels, source) = job.tensor(split.forget), _classes(split, settings.labels)
    retain, kept = job.tensor(split.retain), job.tensor(split.retain_labels)
    unseen = job.tensor(split.unseen)
    of_forget = batches(len(forget), settings.batch, job.generator)
    of_retain = batches(len(retain), settings.batch, job.generator)

    def shown(model: Model, x: Tensor) -> Tensor:
        # Logarithms beside probabilities: those of sure predictions all but coincide, and have no slope.
        logs = functional.log_softmax(model(x), dim=1)
        return torch.cat([logs.exp(), logs.clamp(min=_FLOOR) / _SCALE], dim=1)

    counts = np.bincount(split.unseen_labels, minlength=job.workspace.base.classes)
    mix = np.bincount(labels, minlength=len(counts)) / np.maximum(1, counts)
    weights = job.tensor(mix[split.unseen_labels].astype(np.float32))
    own_class, their_class = job.tensor(labels), job.tensor(split.unseen_labels)

    def above(model: Model) -> float:
        """How much likelier their own classes are for what is forgotten than for unseen data of the same classes."""
        left, right = (functional.softmax(model(x), dim=1) for x in (forget, unseen))
        usual = right.gather(1, their_class[:, None])[:, 0]
        if not float(weights.sum()):
            return 0.0
        return float(left.gather(1, own_class[:, None]).mean() - (usual * weights).sum() / weights.sum())

    def loss(model: Model, _parameters: Parameters, _step: int) -> Tensor:
        chosen, spared = next(of_forget), next(of_retain)
        # As many of each class on both sides: the classes' shares must not be what differs.
        beside = _by_class(split.unseen_labels, job.generator, labels[chosen])
        with torch.no_grad():
            aim = shown(model, unseen[beside])
        down = functional.cross_entropy(model(retain[spared]), kept[spared])
        pair = job.tensor(labels[chosen]), job.tensor(split.unseen_labels[beside])
        return down + settings.weight * discrepancy(shown(model, forget[chosen]), aim, pair)

    def enough(model: Model) -> bool:
        if above(model) > _TOLERANCE:
            return False
        beside = _by_class(split.unseen_labels, job.generator, labels)
        aim, mine = shown(model, unseen[beside]), shown(model, forget)
        nulls = []
        for _ in range(_HALVES):
            again = _by_class(split.unseen_labels, job.generator, labels)
            pair = job.tensor(split.unseen_labels[again]), job.tensor(split.unseen_labels[beside])
            nulls.append(float(discrepancy(shown(model, unseen[again]), aim, pair)))
        pair = job.tensor(labels), job.tensor(split.unseen_labels[beside])
        return float(discrepancy(mine, aim, pair)) <= float(np.median(nulls))

    pace = Pace(steps=settings.steps, rate=settings.rate, look=25)
    parameters, steps = adjust(job, loss, pace, stop=enough, stage="distribution matching")
    return answer(
        job,
        parameters,
        notes=(
            f"distribution-matching: {settings!r}, {steps} steps taken; a reconstruction from the paper's abstract",
            f"classes {source}",
        ),
        reason="what is matched is a distribution, not single outputs",
    )
