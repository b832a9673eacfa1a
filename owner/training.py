"""Trains one or many copies of an architecture at once, each on its own subset of the records.

Proves nothing: a trained model is what it is. Copies are stacked along a first axis and run as one
batched program (`torch.vmap`), which on small models is many times faster than one after the other;
they share no parameter, and the loss is a sum over copies, so none sees another's data. Assumes a
checked graph. The same seed gives the same model on the same machine, device and number of threads only.
Source: SPEC 8.5 (recipe); torch.func; He et al. 2015 (initialisation as torch's defaults have it).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor
from torch.nn import functional

from owner.device import check_device, plain_arithmetic
from owner.network import Network, Parameters, graph_with_parameters
from protocol.device import Device
from protocol.errors import OwnerError
from protocol.model.profile import Graph
from protocol.model.recipe import Recipe

Progress = Callable[[int, int], None]
Members = Sequence[Int[np.ndarray, " member"]]
_MOMENTUM = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Models trained together.

    Args:
        graph: their architecture.
        parameters: by initialiser name, the models along the first axis: `[shadow, ...]`.
    """

    graph: Graph
    parameters: Mapping[str, Float32[np.ndarray, "shadow ..."]]

    @property
    def count(self) -> int:
        """Number of models."""
        return len(next(iter(self.parameters.values())))

    def model(self, index: int) -> Graph:
        """One of the models, as a graph that can be written to a file."""
        return graph_with_parameters(self.graph, {name: array[index] for name, array in self.parameters.items()})

    def logits(
        self, x: Float32[np.ndarray, "record ..."], *, batch: int = 256
    ) -> Float32[np.ndarray, "shadow record class"]:
        """Logits of every model on every record.

        Args:
            x: float32 records in the model's shape.
            batch: records at a time.
        """
        network = Network(self.graph)
        stacked = {name: torch.tensor(array) for name, array in self.parameters.items()}
        run = torch.vmap(network.logits, in_dims=(0, None))
        with torch.no_grad():
            parts = [
                run(stacked, torch.from_numpy(np.array(x[start : start + batch]))).numpy()
                for start in range(0, max(len(x), 1), batch)
            ]
        return np.concatenate(parts, axis=1)


def _check(graph: Graph, x: np.ndarray, y: np.ndarray, members: Members, recipe: Recipe) -> None:
    if x.dtype != np.float32 or x.shape[1:] != graph.input_shape or len(x) != len(y):
        raise OwnerError(f"{x.dtype} records of shape {x.shape[1:]} with {len(y)} labels for {graph.input_shape}")
    if len(y) and (y.min() < 0 or y.max() >= graph.classes):
        raise OwnerError(f"a label is not one of the model's {graph.classes} classes")
    if not members or any(len(chosen) == 0 for chosen in members):
        raise OwnerError("every model needs records to train on")
    if min(recipe.epochs, recipe.batch) < 1 or not recipe.rate > 0 or recipe.weight_decay < 0:
        raise OwnerError(f"a recipe that cannot be followed: {recipe}")


def _optimiser(tensors: Sequence[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    decay = recipe.weight_decay
    if recipe.optimiser == "adam":
        return torch.optim.Adam(tensors, recipe.rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(tensors, recipe.rate, momentum=_MOMENTUM, weight_decay=decay, fused=True)


def _batches(members: Members, steps: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One epoch: for each step the records of each model, `[shadow, record]`.

    The models' subsets need the same number of steps; one that is smaller than the largest is topped up
    with the first records of its own order, so that every batch is full and BatchNormalization sees no gaps.
    """
    longest = max(len(chosen) for chosen in members)
    order = np.stack([np.resize(rng.permutation(chosen), longest) for chosen in members])
    return np.array_split(order, steps, axis=1)


@contextmanager
def _threads(graph: Graph) -> Iterator[None]:
    # Threads that wait for each other after every small matrix product cost more than they do, ten times more
    # on a busy machine; and one thread adds in one order. Convolutions are large enough to share.
    before = torch.get_num_threads()
    if not any(node.op == "Conv" for node in graph.nodes):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train_group(
    network: Network,
    start: Parameters,
    data: tuple[Tensor, Tensor],
    *,
    members: Members,
    recipe: Recipe,
    rng: np.random.Generator,
    report: Callable[[], None],
) -> Parameters:
    x, y = data
    learned = {name: start[name].clone().requires_grad_() for name in network.learned}
    averages = {name: start[name].clone() for name in network.averages}
    optimiser = _optimiser(list(learned.values()), recipe)
    run = torch.vmap(network.training_logits)
    steps = -(-max(len(chosen) for chosen in members) // recipe.batch)
    for _ in range(recipe.epochs):
        for picked in _batches(members, steps, rng):
            # Gathered batch by batch, where the records are: the stacked data set is never built.
            places = torch.from_numpy(picked).to(x.device)
            logits, averages = run(learned, averages, x[places])
            targets = y[places].reshape(-1)
            # A mean over records, a sum over models: no model's gradient sees another's records.
            loss = functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum") / picked.shape[1]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        report()
    return {name: tensor.detach() for name, tensor in (*learned.items(), *averages.items())}


def train(
    graph: Graph,
    x: Float32[np.ndarray, "record ..."],
    y: Int[np.ndarray, " record"],
    *,
    members: Members,
    recipe: Recipe,
    rng: np.random.Generator,
    start: Graph | None = None,
    progress: Progress | None = None,
    device: Device = "cpu",
) -> Trained:
    """Train one model per entry of `members`.

    Args:
        graph: the architecture; its own numbers are not used, but for constants that are not learned.
        x: float32 records in the model's shape; shared by all models, never copied as a whole.
        y: their classes.
        members: for each model, the indices of its records.
        recipe: how to train; batches of an epoch are as equal as possible, none larger than the recipe's.
        rng: draws initial values and orders.
        start: take the initial values from this graph of the same architecture instead of drawing them.
        progress: called with (epochs done, epochs in all).
        device: where to train; the records go there as a whole.

    Raises:
        OwnerError: data, labels or recipe do not fit, there is no such device, or the training diverged.
    """
    _check(graph, x, y, members, recipe)
    check_device(device)
    network = Network(graph, device)
    # What a commitment holds is read-only, which torch has no tensors for.
    data = (torch.from_numpy(np.require(x, requirements="W")).to(device), torch.tensor(y.astype(np.int64)).to(device))
    initial = network.initial(len(members), rng) if start is None else network.repeated(start, len(members))
    sizes = [-(-len(chosen) // recipe.batch) for chosen in members]
    groups = [[place for place, size in enumerate(sizes) if size == wanted] for wanted in sorted(set(sizes))]
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, recipe.epochs * len(groups))

    result = {name: np.empty(tensor.shape, np.float32) for name, tensor in initial.items()}
    for group in groups:  # models whose epochs have the same number of steps
        part = {name: tensor[group] for name, tensor in initial.items()}
        chosen = [np.asarray(members[place]) for place in group]
        with _threads(graph), plain_arithmetic():
            made = _train_group(network, part, data, members=chosen, recipe=recipe, rng=rng, report=report)
        for name, tensor in made.items():
            result[name][group] = tensor.numpy(force=True)
    if not all(np.isfinite(array).all() for array in result.values()):
        raise OwnerError("the training diverged; lower the recipe's rate")
    return Trained(graph=graph, parameters=result)
