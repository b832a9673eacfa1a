"""`instance-wise`: misclassify or relabel each record, with two regularisers that hold on to everything else.

Source: Cha et al., "Learning to Unlearn: Instance-wise Unlearning for Pre-trained Classifiers", AAAI 2024 (arXiv
2301.11578). The loss of a step, B_f the records to forget in it and B_a adversarial images made from them:

    |B_f| / (|B_f| + |B_a|) L_f + |B_a| / (|B_f| + |B_a|) CE(f(x_a), y_a) + lambda / 2 sum_i w_i (theta_i - theta0_i)^2

with L_f = -CE(f(x), y) (misclassify) or CE(f(x), y*) (relabel); x_a by targeted L2-PGD from x to a random wrong class
y_a of the *base* (`adv`); w = 1 - Omega, Omega_i = mean |d ||f(x)||_2 / d theta_i| over the records to forget, scaled
to [0, 1] tensor by tensor (`imp`). SGD with momentum 0.9. It stops when every record is given a wrong class (the
wanted one).

Where an earlier certificate's weights stand, all of this starts from them: requests one after another. Records of
earlier requests stay among those to forget; the paper has each request's alone.

Adversarial images are not cut to the input box, as in the paper's code; sizes of steps are in data units. L_f is
capped at twice the loss of guessing, or one record's could outweigh all others; the paper has no cap.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from owner.methods.job import Job, Result
from owner.methods.settings import parse
from owner.methods.weights import Model, Pace, Parameters, Split, adjust, answer, batches
from owner.network import Network, parameters_of
from protocol.errors import OwnerError


@dataclass(frozen=True, slots=True)
class Settings:
    """The paper's, but for reach and strength (2 to 4, and 1, for its large networks), which small ones need lower.

    Args:
        adv: adversarial images for each record; 0 for none.
        reach: L2 distance of an adversarial image from its record at most, in data units.
        stride: step of the search for them.
        tries: steps of it.
        imp: weigh parameters by importance.
        strength: lambda.
        rate: of SGD.
        decay: L2 factor.
        batch: records to forget in a step.
        beside: adversarial images in a step.
        steps: at most.
    """

    adv: int = 20
    reach: float = 1.0
    stride: float = 0.1
    tries: int = 100
    imp: bool = True
    strength: float = 0.1
    rate: float = 1e-2
    decay: float = 1e-4
    batch: int = 16
    beside: int = 16
    steps: int = 1000

    def __post_init__(self) -> None:
        whole = self.adv >= 0 and self.tries >= 1 and min(self.batch, self.beside) >= 1 and 1 <= self.steps <= 10**6
        if not (whole and self.reach > 0 and self.stride > 0 and self.strength >= 0 and 0 < self.rate <= 10):
            raise OwnerError(
                "instance-wise: reach, stride, rate, tries, batch, steps above 0; adv, strength at least 0"
            )
        if not 0 <= self.decay <= 10:
            raise OwnerError("instance-wise: decay from 0 to 10")


def importance(network: Network, values: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """1 - Omega for every learned parameter: 1 for what the records' outputs do not depend on, 0 for what they most do.

    Args:
        network: the architecture.
        values: its parameters and averages.
        x: the records to forget.
    """
    learned = {name: values[name] for name in network.learned}
    fixed = {name: values[name] for name in network.averages}

    def size(parameters: Mapping[str, Tensor], one: Tensor) -> Tensor:
        found: Tensor = torch.linalg.vector_norm(network.logits({**parameters, **fixed}, one[None])[0])
        return found

    slopes = torch.vmap(torch.func.grad(size), in_dims=(None, 0), chunk_size=64)(learned, x)
    weights = {}
    for name, slope in slopes.items():
        mean = slope.abs().mean(dim=0)
        least, most = mean.min(), mean.max()
        weights[name] = torch.ones_like(mean) if most == least else 1 - (mean - least) / (most - least)
    return weights


def adversarial(model: Model, x: Tensor, wanted: Tensor, settings: Settings) -> Tensor:
    """Images near x that the model puts into the wanted classes: targeted projected gradient descent in L2.

    Args:
        model: the base.
        x: where to start; one image for each.
        wanted: a class for each.
        settings: reach, stride and number of steps.
    """
    moved = torch.zeros_like(x)
    axes = tuple(range(1, x.ndim))
    for _ in range(settings.tries):
        moved.requires_grad_()
        loss = functional.cross_entropy(model(x + moved), wanted, reduction="sum")
        (slope,) = torch.autograd.grad(loss, moved)
        with torch.no_grad():
            length = slope.square().sum(dim=axes, keepdim=True).sqrt().clamp(min=1e-12)
            moved = moved - settings.stride * slope / length
            away = moved.square().sum(dim=axes, keepdim=True).sqrt().clamp(min=1e-12)
            moved = moved * (settings.reach / away).clamp(max=1)
    return (x + moved).detach()


def _wanted(job: Job, labels: np.ndarray) -> np.ndarray:
    classes = job.workspace.base.classes
    if job.target.name == "relabel":
        if job.target.klass is None or job.target.klass >= classes:
            raise OwnerError(f"relabel:{job.target.klass}: classes are numbered 0 to {classes - 1}")
        if job.target.klass in job.classes:
            raise OwnerError(f"relabel:{job.target.klass}: that class is to be removed; choose another target")
        return np.full(len(labels), job.target.klass)
    if job.target.name == "misclassify":
        return labels
    raise OwnerError("instance-wise aims at misclassify or relabel:K; give one of them with --target")


def run(job: Job) -> Result:
    """Misclassify or relabel.

    Raises:
        OwnerError: another target, nothing to keep, or the training diverged.
    """
    settings, split = parse(Settings, job.settings), Split.of(job)
    base = job.start
    network, away = Network(base, job.device), job.target.name == "misclassify"
    values = {name: job.tensor(array) for name, array in parameters_of(base).items()}
    forget = job.tensor(split.forget)
    labels = job.tensor(split.forget_labels)
    wanted = job.tensor(_wanted(job, split.forget_labels))
    beside, named = forget[:0], labels[:0]
    if settings.adv:
        job.progress("adversarial images", 0.0)
        repeated = forget.repeat_interleave(settings.adv, dim=0)
        own = labels.repeat_interleave(settings.adv)
        drawn = job.tensor(job.generator.integers(1, base.classes, len(own)))
        named = (own + drawn) % base.classes
        parts = []
        for start in range(0, len(repeated), 4096):
            part = slice(start, start + 4096)
            parts.append(adversarial(lambda x: network.logits(values, x), repeated[part], named[part], settings))
            job.progress("adversarial images", min(1.0, (start + 4096) / len(repeated)))
        beside = torch.cat(parts)
    weights = importance(network, values, forget) if settings.imp else {}
    most = 2 * math.log(base.classes)
    of_forget = batches(len(forget), settings.batch, job.generator)
    of_beside = batches(len(beside), settings.beside, job.generator)

    def loss(model: Model, parameters: Parameters, _step: int) -> Tensor:
        chosen = next(of_forget)
        each = functional.cross_entropy(model(forget[chosen]), wanted[chosen], reduction="none")
        found = (-each.clamp(max=most) if away else each).sum()
        count = len(chosen)
        if settings.adv:
            more = next(of_beside)
            found = found + functional.cross_entropy(model(beside[more]), named[more], reduction="sum")
            count += len(more)
        found = found / count
        for name, weight in weights.items():
            found = found + settings.strength / 2 * (weight * (parameters[name] - values[name]).square()).sum()
        return found

    def enough(model: Model) -> bool:
        shown = model(forget).argmax(dim=1)
        return bool((shown != labels).all() if away else (shown == wanted).all())

    pace = Pace(steps=settings.steps, rate=settings.rate, sgd=True, decay=settings.decay, look=5)
    parameters, steps = adjust(job, loss, pace, stop=enough, stage="instance-wise unlearning")
    return answer(job, parameters, notes=(f"instance-wise: {settings!r}, {steps} steps taken",))
