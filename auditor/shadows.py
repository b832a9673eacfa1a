"""Shadow models: many re-initialised copies of the base's architecture, trained at once on random halves.

What it gives: for each shadow its logits on any input and which reference records it never saw,
the raw material of the membership attacks (LiRA, RMIA). Assumes that the reference data is the
auditor's own; how well it matches the owner's data bounds what the attacks can see, and the
report says so. Does not know the owner's training recipe, nor claim that shadows resemble the base.

All shadows of a chunk advance together: stacked parameters under `torch.vmap`, and for perceptrons and convolutional
networks the same as one network, in layouts that the processor likes (`auditor.stacked`; `make bench` measures it).
Each shadow draws its half, its initial weights and its order of records from its own generator, so
the same seed gives the same shadows however they are chunked, up to float32 summation order.
Trained chunks are kept in a folder, under a key of everything that made them; a peer tool that
reused shadows by their count alone gave a wrong result.

Source: Carlini et al. 2022, Membership Inference Attacks From First Principles (random halves);
PyTorch's default initialisation (uniform in +-1/sqrt(fan-in)).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn import functional

from auditor import stacked
from auditor.device import check_device, training_arithmetic
from auditor.execute import apply, tensor
from auditor.shadow_cache import load_chunk, store_chunk
from protocol.device import Device
from protocol.digests import jcs_digest, sha256_hex
from protocol.errors import AuditorError
from protocol.model.graph import Graph, Node
from protocol.model.profile import graph_digest
from protocol.model.recipe import Recipe

Progress = Callable[[int, int], None]
Style = Literal["torch", "scikit-learn"]
"""How whoever trained the attacked model starts and batches: torch's defaults and batches as equal as they can be; or
scikit-learn's uniform values within +-sqrt(6 / (fan-in + fan-out)) and full batches with what is left behind them."""
Stacked = Mapping[str, Float32[np.ndarray, "shadow ..."]]
_WIDE = 32  # outputs from which a layer counts as wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadows:
    """Trained shadows.

    Args:
        graph: the architecture; its own trained values are not used.
        parameters: trained arrays and running averages by initialiser name, one per shadow.
        out: True where the shadow never saw the reference record.
        device: where they were trained, and run.
    """

    graph: Graph
    parameters: Stacked
    out: Bool[np.ndarray, "shadow record"]
    device: Device = "cpu"

    def logits(
        self, inputs: Float32[np.ndarray, "record ..."], *, batch: int = 256
    ) -> Float32[np.ndarray, "shadow record class"]:
        """Logits of every shadow, BatchNormalization with its running averages.

        Args:
            inputs: records as the model takes them.
            batch: records per run.
        """
        network = _Network(self.graph, self.device)
        values = {name: tensor(array).to(self.device) for name, array in self.parameters.items()}
        run = torch.vmap(lambda parameters, x: network.run(parameters, x)[0], in_dims=(0, None))
        with torch.no_grad(), training_arithmetic():
            parts = [
                run(values, tensor(inputs[start : start + batch]).to(self.device)).numpy(force=True)
                for start in range(0, max(1, len(inputs)), batch)
            ]
        result: Float32[np.ndarray, "shadow record class"] = np.concatenate(parts, axis=1)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Everything that decides what the shadows are."""

    network: "_Network"
    inputs: Float32[np.ndarray, "record ..."]
    labels: Int64[np.ndarray, " record"]
    recipe: Recipe
    seed: int
    count: int
    style: Style = "torch"
    device: Device = "cpu"


class _Network:
    """The architecture of a graph: which initialisers are trained, and how to run it on given values of them."""

    def __init__(self, graph: Graph, device: Device = "cpu") -> None:
        self.graph = graph
        self.fan_in: dict[str, int] = {}
        self.ones: set[str] = set()
        self.zeros: set[str] = set()
        self.averages: set[str] = set()
        self.turned: set[str] = set()
        """Weights of wide layers, learned as (input, output): their gradients come out of a product in that layout."""
        self.narrow: set[str] = set()
        """Weights of layers with few outputs, whose products are taken in another order."""
        made = {node.outputs[0]: node for node in graph.nodes}
        for node in graph.nodes:
            self._roles(node, made)
        self.trained = sorted(self.fan_in.keys() | (self.ones | self.zeros) - self.averages)
        self.constants = {
            name: tensor(array).to(device)
            for name, array in graph.initialisers.items()
            if name not in self.averages and name not in self.trained
        }

    def _roles(self, node: Node, made: Mapping[str, Node]) -> None:
        shapes = {name: array.shape for name, array in self.graph.initialisers.items()}
        held = [name if name in shapes else None for name in node.inputs]
        fan_in = 0
        if node.op in {"Gemm", "MatMul"} and held[1]:
            fan_in = shapes[held[1]][-1 if node.attributes.get("transB") else -2]
            if node.op == "Gemm" and node.attributes["transB"] and node.attributes["alpha"] == 1.0:
                (self.turned if shapes[held[1]][0] >= _WIDE else self.narrow).add(held[1])
        elif node.op == "Conv" and held[1]:
            fan_in = int(np.prod(shapes[held[1]][1:]))
        elif node.op == "BatchNormalization":
            self.ones.update(name for name in (held[1], held[4]) if name)
            self.zeros.update(name for name in (held[2], held[3]) if name)
            self.averages.update(name for name in held[3:] if name)
        elif node.op == "Add":
            # The bias of an exporter that writes a linear layer as MatMul + Add. Other constants
            # (an input normalisation, say) belong to the architecture and stay as they are.
            sources = [made[name] for name in node.inputs if name in made and made[name].op == "MatMul"]
            weights = [name for source in sources for name in source.inputs if name in self.fan_in]
            fan_in = self.fan_in[weights[0]] if weights else 0
        if fan_in:
            for name in held:
                if name and name not in self.fan_in:
                    self.fan_in[name] = fan_in

    @cached_property
    def fan_out(self) -> dict[str, int]:
        """Outputs of the linear layer that a weight or bias belongs to; nothing of other layers."""
        shapes = {name: array.shape for name, array in self.graph.initialisers.items()}
        return {
            name: shapes[node.inputs[1]][0]
            for node in self.graph.nodes
            if node.op == "Gemm" and node.attributes["transB"]
            for name in node.inputs[1:]
            if name in self.fan_in
        }

    def initial(self, random: np.random.Generator, style: Style = "torch") -> dict[str, Float32[np.ndarray, "..."]]:
        """One shadow's starting values of everything that is trained or averaged."""
        values: dict[str, Float32[np.ndarray, "..."]] = {}
        for name in (*self.trained, *sorted(self.averages)):
            shape = self.graph.initialisers[name].shape
            if name in self.fan_in:
                bound = self.fan_in[name] ** -0.5
                if style == "scikit-learn":
                    bound = (6.0 / (self.fan_in[name] + self.fan_out[name])) ** 0.5
                values[name] = random.uniform(-bound, bound, shape).astype(np.float32)
            else:
                values[name] = np.full(shape, 1.0 if name in self.ones else 0.0, np.float32)
        return values

    def run(
        self, values: Mapping[str, Tensor], x: Tensor, *, training: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One shadow's logits and its new running averages (empty unless training)."""
        tensors = {self.graph.input: x, **self.constants, **values}
        averages: dict[str, Tensor] = {}
        for node in self.graph.nodes:
            inputs = [tensors[name] for name in node.inputs]
            if training and node.op == "BatchNormalization":
                axes = [0, *range(2, inputs[0].ndim)]
                variance, mean = torch.var_mean(inputs[0], axes, correction=0)
                cells = inputs[0].numel() // inputs[0].shape[1]
                fresh = (mean.detach(), variance.detach() * (cells / max(1, cells - 1)))
                for name, old, new in zip(node.inputs[3:], inputs[3:], fresh, strict=True):
                    averages[name] = (1 - stacked.RUNNING) * old + stacked.RUNNING * new
                inputs = [*inputs[:3], mean, variance]
            tensors |= apply(node, inputs)
        return tensors[self.graph.output], averages

    @cached_property
    def stackable(self) -> bool:
        """Whether all shadows of a chunk can run as one network (`auditor.stacked`)."""
        return stacked.stackable(
            self.graph, weights=self.turned | self.narrow, trained=self.trained, averages=self.averages
        )


def train_shadows(
    graph: Graph,
    inputs: Float32[np.ndarray, "record ..."],
    labels: Int64[np.ndarray, " record"],
    *,
    recipe: Recipe,
    seed: int,
    count: int,
    cache: Path | None = None,
    chunk: int = 16,
    progress: Progress | None = None,
    style: Style = "torch",
    device: Device = "cpu",
) -> Shadows:
    """Train `count` shadows, or take those of an earlier, possibly interrupted, run.

    Args:
        graph: the base model, for its architecture.
        inputs: reference records; they stay on this machine.
        labels: their classes.
        recipe: how to train; the owner's own, where a commitment names it, as it may be believed to be.
        seed: of everything random here; at least 0.
        count: number of shadows.
        cache: folder for trained chunks, made if absent; None keeps nothing.
        chunk: shadows trained together; each chunk is stored when it is done.
        progress: called with (done, in all) after each epoch of a chunk and for each chunk that is there already,
            counted in epochs of single shadows, so that shares of it are shares of the time.
        style: of the attacked model's training, where it is known. Shadows of another style see less: on a perceptron
            of scikit-learn's offline LiRA loses .008 of its AUC (tests/benchmarks/RESULTS.md).
        device: where to train; the records go there as a whole.

    Raises:
        AuditorError: data that does not fit the graph, a recipe that can't be followed or
            diverges, an architecture with nothing to train, or no such device.
    """
    check_device(device)
    network = _Network(graph, device)
    job = _Job(
        network=network, inputs=inputs, labels=labels, recipe=recipe, seed=seed, count=count, style=style, device=device
    )
    _check(job, chunk)
    folder = None if cache is None else cache / _key(job)
    half = len(inputs) // 2
    names = (*network.trained, *sorted(network.averages))
    shapes = {name: graph.initialisers[name].shape for name in names}
    chunks: list[dict[str, np.ndarray]] = []
    for start in range(0, count, chunk):
        stop = min(start + chunk, count)
        expected = {name: (stop - start, *shape) for name, shape in shapes.items()}
        expected[""] = (stop - start, half)
        part = None if folder is None else load_chunk(folder, start, stop, expected, records=len(inputs))
        report = _reporter(progress, job, start, stop)
        if part is None:
            part = _train(job, range(start, stop), report)
            if folder is not None:
                store_chunk(folder, start, stop, part)
        else:
            report(recipe.epochs)
        chunks.append(part)
    merged = {name: np.concatenate([part[name] for part in chunks]) for name in ("", *names)}
    out = np.ones((count, len(inputs)), np.bool_)
    np.put_along_axis(out, merged.pop(""), False, axis=1)
    return Shadows(graph=graph, parameters=merged, out=out, device=device)


def _reporter(progress: Progress | None, job: _Job, start: int, stop: int) -> Callable[[int], None]:
    def report(epochs: int) -> None:
        if progress is not None:
            progress(start * job.recipe.epochs + (stop - start) * epochs, job.count * job.recipe.epochs)

    return report


def _check(job: _Job, chunk: int) -> None:
    graph, inputs, labels, recipe = job.network.graph, job.inputs, job.labels, job.recipe
    if not job.network.trained:
        raise AuditorError("the architecture has no parameters to train")
    if inputs.dtype != np.float32 or inputs.shape[1:] != graph.input_shape or not np.isfinite(inputs).all():
        raise AuditorError(f"reference records must be finite float32 of shape {graph.input_shape}")
    if labels.dtype != np.int64 or labels.shape != inputs.shape[:1] or len(labels) < 4:
        raise AuditorError("shadows need at least 4 reference records, with one int64 class each")
    if labels.min() < 0 or labels.max() >= graph.classes:
        raise AuditorError("a reference record has a class that the model does not have")
    if job.style not in {"torch", "scikit-learn"} or (
        job.style != "torch" and job.network.fan_in.keys() != job.network.fan_out.keys()
    ):
        raise AuditorError("the style is torch or, for perceptrons alone, scikit-learn")
    if min(job.count, chunk, recipe.epochs, recipe.batch) < 1 or job.seed < 0:
        raise AuditorError("count, chunk, epochs and batch must be at least 1, the seed at least 0")
    if recipe.optimiser not in {"adam", "sgd"} or not (recipe.rate > 0 and recipe.weight_decay >= 0):
        raise AuditorError("a recipe needs adam or sgd, a rate above 0 and a weight decay of at least 0")


def _key(job: _Job) -> str:
    return jcs_digest(
        {
            "version": "prune-audit/shadows/v1",
            "graph": graph_digest(job.network.graph),
            "inputs": [sha256_hex(np.ascontiguousarray(job.inputs).tobytes()), list(job.inputs.shape)],
            "labels": sha256_hex(np.ascontiguousarray(job.labels).tobytes()),
            "recipe": {name: str(value) for name, value in asdict(job.recipe).items()},
            "seed": str(job.seed),
            "count": job.count,
            **({} if job.style == "torch" else {"style": job.style}),
            **({} if job.device == "cpu" else {"device": job.device}),
        }
    )


def _silent(_epochs: int) -> None:
    return None


def _train(job: _Job, indices: range, report: Callable[[int], None] = _silent) -> dict[str, np.ndarray]:
    """Train one chunk; the entry named "" holds the indices of each shadow's half, `report` hears of each epoch."""
    network, inputs, recipe = job.network, job.inputs, job.recipe
    generators = [
        np.random.default_rng(np.random.SeedSequence(entropy=job.seed, spawn_key=(index,))) for index in indices
    ]
    half = len(inputs) // 2
    members = np.stack([np.sort(random.permutation(len(inputs))[:half]) for random in generators])
    start = [network.initial(random, job.style) for random in generators]
    initial = {name: tensor(np.stack([values[name] for values in start])).to(job.device) for name in start[0]}
    averages = {name: initial.pop(name) for name in sorted(network.averages)}
    x, y = tensor(inputs).flatten(1).to(job.device), tensor(job.labels).to(job.device)
    held = {
        name: (value.mT.contiguous() if name in network.turned else value).requires_grad_()
        for name, value in initial.items()
    }
    parameters = list(held.values())
    optimiser: torch.optim.Optimizer
    if recipe.optimiser == "adam":
        optimiser = torch.optim.Adam(parameters, recipe.rate, weight_decay=recipe.weight_decay, fused=True)
    else:
        optimiser = torch.optim.SGD(parameters, recipe.rate, momentum=0.9, weight_decay=recipe.weight_decay, fused=True)
    step = torch.vmap(
        lambda values, state, batch: network.run({**values, **state}, batch, training=True), randomness="error"
    )
    full = np.arange(recipe.batch, half, recipe.batch)
    splits: int | np.ndarray = -(-half // recipe.batch) if job.style == "torch" else full
    together = network.stackable
    with training_arithmetic():
        for epoch in range(recipe.epochs):
            order = np.stack([random.permutation(chosen) for random, chosen in zip(generators, members, strict=True)])
            for columns in np.array_split(order, splits, axis=1):
                picked = torch.from_numpy(columns.ravel()).to(job.device)
                batch = x.index_select(0, picked).view(*columns.shape, *inputs.shape[1:])
                values = {name: value.mT if name in network.turned else value for name, value in held.items()}
                if together:
                    logits, averages = stacked.run(network.graph, values, averages, network.turned, batch)
                else:
                    logits, averages = step(values, averages, batch)
                # A sum over shadows, a mean over records: no shadow's gradient sees another's loss.
                loss = (
                    functional.cross_entropy(logits.flatten(0, 1), y.index_select(0, picked), reduction="sum")
                    / columns.shape[1]
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            report(epoch + 1)
    learned = {name: value.detach().mT if name in network.turned else value.detach() for name, value in held.items()}
    result = {name: value.contiguous().numpy(force=True) for name, value in (*learned.items(), *averages.items())}
    if not all(np.isfinite(array).all() for array in result.values()):
        raise AuditorError("shadow training diverged; lower the recipe's rate")
    return {"": members, **result}
