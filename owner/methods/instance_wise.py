"""`instance-wise`: misclassify or relabel each record, with regularisers that hold on to everything else.

Source: Cha et al., "Learning to Unlearn: Instance-wise Unlearning for Pre-trained Classifiers", AAAI 2024 (arXiv
2301.11578). What a step lowers, p0 being the base's own outputs:

    strain * mean_f hinge(f) + mean_a CE(f(x_a), p0(x_a)) + lambda / 2 sum_i w_i (theta_i - theta0_i)^2
                             + mean_r CE(f(x_r), p0(x_r))

x_a are images near the records to forget, by targeted L2-PGD from a random start to random wrong classes of the *base*
(`adv`), each at a distance of its own; w = 1 - Omega, Omega_i = mean |d ||f(x)||_2 / d theta_i| over the records to
forget, scaled to [0, 1] tensor by tensor (`imp`). x_r are records to keep (`keep`). It stops when every record is given
a wrong class (the wanted one), looked at after every step.

Where an earlier certificate's weights stand, all of this starts from them: requests one after another. Records of
earlier requests stay among those to forget; the paper has each request's alone.

The paper uses the model and the records to forget alone; `keep=0` does. That is enough for some records in large
networks, and not in small ones: a record that is typical of its class takes the class with it, and nothing near it says
that it should not. An owner who has the data need not do without.

`form=negated` is the paper's loss: -CE(f(x), y), or CE(f(x), y*) to relabel, images under the class they were made for,
both weighed by their numbers in the step, SGD with momentum 0.9. On small networks it fails for three reasons, all
measured (tests/benchmarks/RESULTS.md): the slope of -CE all but vanishes where the base is sure and has no bound where
it is wrong already; PGD that fails leaves an image under a class it does not have; and a steady force reaches the aim
long before anything has pulled back what it damaged. Hence ours: the hinge is how far a record's class leads (the
wanted one trails) plus `room`, 0 once it is there; images keep the outputs that the base gives them; `strain` starts
near nothing and grows until all records have moved, so that little more is changed than what that takes (a penalty
method); and Adam, since the tensors' slopes differ by orders of magnitude.

Adversarial images are not cut to the input box, as in the paper's code.
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

FORMS = ("hinge", "negated")
_GROWS = 25
_TOGETHER = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Defaults for small networks.

    The paper's: `form=negated`, a reach of 2 to 4 on pictures with values to 1, strength 1, rate 0.001, decay 0.0001.

    Args:
        form: what pushes a record away: hinge, or the paper's negated.
        adv: adversarial images for each record; 0 for none.
        reach: L2 distance of an adversarial image from its record at most, as a share of the record's own length, which
            fits data in any units; the least is a quarter of it.
        tries: steps of the search for them.
        imp: weigh parameters by importance.
        strength: lambda.
        rate: of Adam, of SGD for `negated`.
        decay: L2 factor.
        batch: records to forget in a step.
        beside: adversarial images in a step.
        keep: records to keep in a step; 0 for none, as in the paper.
        strain: the hinge's first weight.
        growth: factor of that weight for 25 steps.
        room: how far another class shall lead, in logits.
        steps: at most.
    """

    form: str = "hinge"
    adv: int = 20
    reach: float = 0.2
    tries: int = 40
    imp: bool = True
    strength: float = 0.01
    rate: float = 1e-3
    decay: float = 0.0
    batch: int = 128
    beside: int = 256
    keep: int = 256
    strain: float = 0.01
    growth: float = 1.1
    room: float = 0.5
    steps: int = 2000

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise OwnerError(f"instance-wise: form is {' or '.join(FORMS)}")
        whole = (
            min(self.adv, self.keep) >= 0
            and self.tries >= 1
            and min(self.batch, self.beside) >= 1
            and 1 <= self.steps <= 10**6
        )
        if not (whole and self.reach > 0 and self.strength >= 0 and 0 < self.rate <= 10):
            raise OwnerError("instance-wise: reach, rate, tries, batch, steps above 0; adv, keep, strength at least 0")
        if not (0 <= self.decay <= 10 and 0 < self.strain <= 1e6 and 1 <= self.growth <= 10 and 0 <= self.room <= 100):
            raise OwnerError("instance-wise: decay from 0 to 10, strain above 0, growth 1 to 10, room 0 to 100")


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


def adversarial(model: Model, x: Tensor, wanted: Tensor, reach: Tensor, tries: int, start: Tensor) -> Tensor:
    """Images near x that the model puts into the wanted classes: targeted projected gradient descent in L2.

    Args:
        model: the base.
        x: where to start; one image for each.
        wanted: a class for each.
        reach: how far each may go.
        tries: number of steps, each a tenth of the reach.
        start: a direction for each; the search starts at its reach from x.
    """
    axes = tuple(range(1, x.ndim))
    most = reach.reshape(-1, *[1] * (x.ndim - 1))
    moved = most * start / start.square().sum(dim=axes, keepdim=True).sqrt().clamp(min=1e-12)
    for _ in range(tries):
        moved.requires_grad_()
        loss = functional.cross_entropy(model(x + moved), wanted, reduction="sum")
        (slope,) = torch.autograd.grad(loss, moved)
        with torch.no_grad():
            length = slope.square().sum(dim=axes, keepdim=True).sqrt().clamp(min=1e-12)
            moved = moved - most / 10 * slope / length
            away = moved.square().sum(dim=axes, keepdim=True).sqrt().clamp(min=1e-12)
            moved = moved * (most / away).clamp(max=1)
    return (x + moved).detach()


def hinge(logits: Tensor, labels: Tensor, *, away: bool, room: float) -> Tensor:
    """How far each record is from where it should be, in logits: 0 once another class (the given one) leads by `room`.

    Args:
        logits: `[record, class]`.
        labels: a class for each: the one to leave, or the one to reach.
        away: which of the two.
        room: the lead asked for.
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    best = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return ((own - best if away else best - own) + room).clamp(min=0)


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


def _outputs(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        parts = [
            functional.softmax(model(x[start : start + _TOGETHER]), dim=1) for start in range(0, len(x), _TOGETHER)
        ]
    return torch.cat(parts)


def _images(job: Job, settings: Settings, base: Model, forget: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Adversarial images of the records, the classes they were made for, and what the base makes of them."""
    job.progress("adversarial images", 0.0)
    repeated = forget.repeat_interleave(settings.adv, dim=0)
    own, classes = labels.repeat_interleave(settings.adv), job.workspace.base.classes
    negated = settings.form == "negated"
    named = (own + job.tensor(job.generator.integers(1, classes, len(own)))) % classes
    share = np.ones(len(own)) if negated else 4.0 ** -job.generator.random(len(own))
    length = torch.linalg.vector_norm(repeated.flatten(1), dim=1).clamp(min=1e-3)
    reach = settings.reach * length * job.tensor(share.astype(np.float32))
    parts = []
    for start in range(0, len(repeated), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        drawn = job.tensor(job.generator.normal(size=repeated[part].shape).astype(np.float32))
        parts.append(adversarial(base, repeated[part], named[part], reach[part], settings.tries, drawn))
        job.progress("adversarial images", min(1.0, (start + _TOGETHER) / len(repeated)))
    images = torch.cat(parts)
    return images, named, _outputs(base, images)


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
    beside, named, aims = forget[:0], labels[:0], forget.new_zeros((0, base.classes))
    if settings.adv:
        beside, named, aims = _images(job, settings, lambda x: network.logits(values, x), forget, labels)
    weights = importance(network, values, forget) if settings.imp else {}
    negated, most = settings.form == "negated", 2 * math.log(base.classes)
    retain = job.tensor(split.retain)
    held = _outputs(lambda x: network.logits(values, x), retain) if settings.keep else retain[:0]
    of_retain = batches(len(retain), max(1, settings.keep), job.generator)
    of_forget = batches(len(forget), settings.batch, job.generator)
    of_beside = batches(len(beside), settings.beside, job.generator)

    def loss(model: Model, parameters: Parameters, step: int) -> Tensor:
        chosen = next(of_forget)
        shown = model(forget[chosen])
        if negated:
            each = functional.cross_entropy(shown, wanted[chosen], reduction="none")
            # Capped at twice the loss of guessing, or one record's could outweigh all others; the paper has no cap.
            found, count = (-each.clamp(max=most) if away else each).sum(), len(chosen)
        else:
            force = settings.strain * settings.growth ** (step / _GROWS)
            found, count = force * hinge(shown, wanted[chosen], away=away, room=settings.room).mean(), 1
        if settings.adv:
            more = next(of_beside)
            if negated:
                found = found + functional.cross_entropy(model(beside[more]), named[more], reduction="sum")
                count += len(more)
            else:
                found = found + functional.cross_entropy(model(beside[more]), aims[more])
        found = found / count
        if settings.keep:
            spared = next(of_retain)
            found = found + functional.cross_entropy(model(retain[spared]), held[spared])
        for name, weight in weights.items():
            found = found + settings.strength / 2 * (weight * (parameters[name] - values[name]).square()).sum()
        return found

    def enough(model: Model) -> bool:
        # Half the room: who only just leads is not where another runtime's rounding would leave it.
        lead = 0.0 if negated else settings.room / 2
        return not bool((hinge(model(forget), wanted, away=away, room=lead) > 0).any())

    look = 1 if len(forget) <= settings.beside else 10
    pace = Pace(steps=settings.steps, rate=settings.rate, sgd=negated, decay=settings.decay, look=look)
    parameters, steps = adjust(job, loss, pace, stop=enough, stage="instance-wise unlearning")
    return answer(job, parameters, notes=(f"instance-wise: {settings!r}, {steps} steps taken",))
