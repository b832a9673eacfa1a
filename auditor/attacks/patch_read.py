"""A7: rebuilding the forgotten records from the patch alone.

Proves: an upper bound on how far from the records somebody stays who holds the patch and data like the auditor's.
Assumes: the opened records are the items' own. The attacks know the gate, the input schema and reference data.
Does not: measure confirmation. A gate that fires on a record confirms it to whoever tries candidates; that is
inherent. Rebuilding is compared with guessing the mean of the record's class.

What a gate stores decides how it is read. `sketch`: boxes around S Q(x); smallest solution, ridge regression from
sketches to reference records, and the record whose own box fits best (a box is clipped where the record is near
the end of a column's range, which the first two cannot undo). `feature`: boxes around an inner tensor's values;
ridge regression from values at the box's centre, and gradient descent on the misfit. `linear-region`: A x <= b;
the centre of the largest ball inside, by linear programming, and the class's mean record moved into it. `always`
stores nothing about a record.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from scipy import optimize

from auditor.attacks.observation import Unavailable
from auditor.attacks.properties import Property
from auditor.execute import apply, float32_arithmetic, needed_nodes, tensor
from protocol.errors import AuditorError
from protocol.model.graph import Graph
from protocol.model.schema import InputSchema

Rebuilt = Mapping[str, Float[np.ndarray, "item feature"]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ground:
    """What an attacker starts from, and the truth to compare with.

    Attributes:
        schema: the input grid.
        reference: grid values of records like the forgotten ones.
        reference_labels: their classes.
        truth: grid values of the record of each item.
        labels: the classes of these records.
    """

    schema: InputSchema
    reference: Integer[np.ndarray, "record feature"]
    reference_labels: Int[np.ndarray, "record"]
    truth: Integer[np.ndarray, "item feature"]
    labels: Int[np.ndarray, "item"]

    def guesses(self) -> Float[np.ndarray, "item feature"]:
        """The mean reference record of each item's class, or of all where the class has none."""
        overall = self.reference.mean(axis=0)
        means = {
            klass: self.reference[self.reference_labels == klass].mean(axis=0)
            if (self.reference_labels == klass).any()
            else overall
            for klass in np.unique(self.labels)
        }
        return np.array([means[klass] for klass in self.labels], dtype=np.float64)

    def error(self, rebuilt: Float[np.ndarray, "item feature"]) -> Float[np.ndarray, "item"]:
        """Mean squared error of each rebuilt record, columns in units of their range, after clipping to it."""
        span = np.maximum(self.schema.high - self.schema.low, 1).astype(np.float64)
        found: np.ndarray = (((np.clip(rebuilt, self.schema.low, self.schema.high) - self.truth) / span) ** 2).mean(
            axis=1
        )
        return found


def ridge(
    inputs: Float[np.ndarray, "record component"], outputs: Float[np.ndarray, "record feature"], strength: float
) -> Callable[[Float[np.ndarray, "item component"]], Float[np.ndarray, "item feature"]]:
    """Return the ridge regression from inputs to outputs.

    Args:
        inputs: what is known.
        outputs: what is wanted.
        strength: of the penalty, relative to the inputs' mean variance.
    """
    centre_in, centre_out = inputs.mean(axis=0), outputs.mean(axis=0)
    x, y = inputs - centre_in, outputs - centre_out
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += strength * max(float(np.trace(gram)) / len(gram), 1e-12)
    weight = np.linalg.solve(gram, x.T @ y)

    def predict(known: Float[np.ndarray, "item component"]) -> Float[np.ndarray, "item feature"]:
        predicted: np.ndarray = (known - centre_in) @ weight + centre_out
        return predicted

    return predict


def matching_boxes(
    matrix: Float[np.ndarray, "component feature"],
    box: tuple[Float[np.ndarray, "item component"], Float[np.ndarray, "item component"]],
    start: Float[np.ndarray, "item feature"],
    radius: Int[np.ndarray, "item"],
    ends: tuple[Int[np.ndarray, "feature"], Int[np.ndarray, "feature"]],
    *,
    steps: int,
) -> Float[np.ndarray, "item feature"]:
    """Return the records whose own boxes fit the items' best, by projected gradient descent.

    Args:
        matrix: the sketch.
        box: least and greatest sketch of each item.
        start: where to begin.
        radius: grid steps that each box is claimed to cover.
        ends: least and greatest grid value of each column.
        steps: of the descent.
    """
    positive = torch.from_numpy(np.maximum(matrix, 0.0))
    negative = torch.from_numpy(np.minimum(matrix, 0.0))
    floor, ceiling = (torch.from_numpy(end.astype(np.float64)) for end in ends)
    wanted_low, wanted_high = (torch.from_numpy(bound) for bound in box)
    spread = torch.from_numpy(radius.astype(np.float64))[:, None]
    norms = torch.from_numpy(np.maximum(np.abs(matrix).sum(axis=1), 1.0))

    def misfit(record: torch.Tensor) -> torch.Tensor:
        bottom, top = torch.maximum(record - spread, floor), torch.minimum(record + spread, ceiling)
        own_low, own_high = bottom @ positive.T + top @ negative.T, top @ positive.T + bottom @ negative.T
        return (((own_low - wanted_low) / norms) ** 2 + ((own_high - wanted_high) / norms) ** 2).sum()

    return _descend(misfit, start, (floor, ceiling), steps=steps)


def _descend(
    misfit: Callable[[torch.Tensor], torch.Tensor],
    start: Float[np.ndarray, "item feature"],
    ends: tuple[torch.Tensor, torch.Tensor],
    *,
    steps: int,
) -> Float[np.ndarray, "item feature"]:
    record = torch.from_numpy(np.array(start, dtype=np.float64)).clamp_(*ends).requires_grad_()
    rate = float((ends[1] - ends[0]).max()) / 40
    optimiser = torch.optim.Adam([record], lr=rate)
    for number in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - number / steps)
        optimiser.zero_grad()
        misfit(record).backward()  # type: ignore[no-untyped-call,unused-ignore]
        optimiser.step()
        with torch.no_grad():
            record.clamp_(*ends)
    found: np.ndarray = record.detach().numpy()
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchMaterial:
    """What a sketch gate stores, and the claimed radius of each item in grid steps."""

    matrix: Integer[np.ndarray, "component feature"]
    low: Integer[np.ndarray, "item component"]
    high: Integer[np.ndarray, "item component"]
    radius: Int[np.ndarray, "item"]

    def rebuild(self, ground: Ground, *, strength: float, steps: int) -> Rebuilt:
        """Read the items; see the module's docstring."""
        matrix = self.matrix.astype(np.float64)
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        centre = (low + high) / 2.0
        reference = ground.reference.astype(np.float64)
        regressed = ridge(reference @ matrix.T, reference, strength)(centre)
        ends = (ground.schema.low, ground.schema.high)
        return {
            "ridge regression": regressed,
            "smallest solution": centre @ np.linalg.pinv(matrix).T,
            "matching box": matching_boxes(matrix, (low, high), regressed, self.radius, ends, steps=steps),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureMaterial:
    """What a feature gate stores: boxes of an inner tensor of the base.

    Attributes:
        graph: the base.
        name: of the tensor.
        low: least value of each item and hidden unit.
        high: greatest value.
    """

    graph: Graph
    name: str
    low: Float[np.ndarray, "item hidden"]
    high: Float[np.ndarray, "item hidden"]

    def _features(self, inputs: torch.Tensor) -> torch.Tensor:
        values = {self.graph.input: inputs}
        constants = {name: tensor(array) for name, array in self.graph.initialisers.items()}
        for node in needed_nodes(self.graph, (self.name,)):
            arguments = [values[name] if name in values else constants[name] for name in node.inputs]
            values |= apply(node, arguments)
        if self.name not in values:
            raise AuditorError(f"the graph computes no tensor named {self.name!r}")
        return values[self.name].flatten(1)

    def rebuild(self, ground: Ground, *, strength: float, steps: int) -> Rebuilt:
        """Read the items; see the module's docstring."""
        schema = ground.schema
        offset, scale = tensor(schema.offset), tensor(schema.scale)

        def features(record: torch.Tensor) -> torch.Tensor:
            inputs = ((record.float() - offset) / scale).reshape(len(record), *schema.shape)
            return self._features(inputs)

        reference = ground.reference.astype(np.float64)
        with float32_arithmetic():
            with torch.no_grad():
                known = features(torch.from_numpy(reference)).numpy().astype(np.float64)
            centre = (self.low.astype(np.float64) + self.high) / 2.0
            regressed = ridge(known, reference, strength)(centre)
            wanted = torch.from_numpy(centre.astype(np.float32))
            spread = torch.from_numpy(np.maximum(known.std(axis=0), 1e-6).astype(np.float32))
            ends = (torch.from_numpy(schema.low.astype(np.float64)), torch.from_numpy(schema.high.astype(np.float64)))
            inverted = _descend(
                lambda record: (((features(record) - wanted) / spread) ** 2).sum(), regressed, ends, steps=steps
            )
        return {"ridge regression": regressed, "inverted features": inverted}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionMaterial:
    """What a linear-region gate stores: `normals @ x <= bounds` in model inputs, for each item."""

    normals: Float[np.ndarray, "item constraint feature"]
    bounds: Float[np.ndarray, "item constraint"]

    def rebuild(self, ground: Ground, *, strength: float, steps: int) -> Rebuilt:
        """Read the items; see the module's docstring. The centre is a linear program and takes no setting."""
        del strength
        schema = ground.schema
        ends = schema.dequantise(np.stack([schema.low, schema.high])).reshape(2, -1).astype(np.float64)
        box = [*zip(ends.min(axis=0), ends.max(axis=0), strict=True), (0.0, None)]
        centres = []
        for normals, bounds in zip(self.normals, self.bounds, strict=True):
            sizes = np.sqrt((normals.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
            cost = np.zeros(normals.shape[1] + 1)
            cost[-1] = -1.0
            solved = optimize.linprog(cost, A_ub=np.hstack([normals, sizes]), b_ub=bounds, bounds=box, method="highs")
            # An empty or unbounded system is no region: the middle of the box is as good a guess as any.
            centres.append(solved.x[:-1] if solved.x is not None else ends.mean(axis=0))
        return {
            "centre of the region": np.array(centres) * schema.scale + schema.offset,
            "usual record moved into the region": self._moved(ground, steps),
        }

    def _moved(self, ground: Ground, steps: int) -> Float[np.ndarray, "item feature"]:
        # A region holds what is nothing like a record, too: begin at the mean of the item's class and go no further
        # than it takes. Half-spaces count by distance.
        schema = ground.schema
        normals = self.normals.astype(np.float64)
        sizes = np.maximum(np.sqrt((normals**2).sum(axis=2)), 1e-12)
        unit, edge = torch.from_numpy(normals / sizes[:, :, None]), torch.from_numpy(self.bounds / sizes)
        offset, scale = (torch.from_numpy(array.astype(np.float64)) for array in (schema.offset, schema.scale))
        start = ground.guesses()
        usual = torch.from_numpy(start)
        span = torch.from_numpy(np.maximum(schema.high - schema.low, 1).astype(np.float64))

        def misfit(record: torch.Tensor) -> torch.Tensor:
            beyond = (torch.einsum("khd,kd->kh", unit, (record - offset) / scale) - edge).clamp(min=0)
            return (beyond**2).sum() + 1e-3 * (((record - usual) / span) ** 2).sum()

        ends = (torch.from_numpy(schema.low.astype(np.float64)), torch.from_numpy(schema.high.astype(np.float64)))
        return _descend(misfit, start, ends, steps=steps)


Material = SketchMaterial | FeatureMaterial | RegionMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRead:
    """The error of the best rebuilding, relative to guessing the class mean.

    Attributes:
        strength: ridge penalty, relative.
        steps: of a descent.
        resamples: bootstrap draws of records for the interval; the best rebuilding is chosen anew in each.
    """

    strength: float = 1e-4
    steps: int = 200
    resamples: int = 400

    def __post_init__(self) -> None:
        """Refuse parameters outside their range.

        Raises:
            AuditorError: no penalty, no step, or too few resamples for an interval.
        """
        if not self.strength > 0.0 or self.steps < 1 or self.resamples < 100:
            raise AuditorError("patch reading needs a penalty above 0, a step and 100 resamples")

    def __call__(
        self, material: Material | None, ground: Ground, generator: np.random.Generator
    ) -> Property | Unavailable:
        """Return the relative error; 1 is as good as guessing, 0 the record itself.

        Args:
            material: what the gate stores; None for a gate that stores nothing about a record.
            ground: what the attacker knows, and the truth.
            generator: for the bootstrap.
        """
        if material is None:
            return Unavailable(reason="the patch stores nothing about any single record")
        if len(ground.truth) < 2 or len(ground.reference) < 2:
            return Unavailable(reason="rebuilding is measured on two records and learned from two")
        rebuilt = material.rebuild(ground, strength=self.strength, steps=self.steps)
        errors = {name: ground.error(found) for name, found in rebuilt.items()}
        guess = ground.error(ground.guesses())
        if not guess.mean() > 0.0:
            return Unavailable(reason="every record is the mean of its class")
        best = min(errors, key=lambda name: float(errors[name].mean()))
        draws = generator.integers(0, guess.size, size=(self.resamples, guess.size))
        least = np.min([error[draws].mean(axis=1) for error in errors.values()], axis=0)
        low, high = np.percentile(least / np.maximum(guess[draws].mean(axis=1), 1e-12), [2.5, 97.5])
        ratio = float(errors[best].mean() / guess.mean())
        return Property(
            name="patch-read",
            quantity="error of the best rebuilt records, relative to guessing the class mean",
            value=ratio,
            low=min(ratio, float(low)),
            high=max(ratio, float(high)),
            reading=f"Rebuilt by {best}, the records have {ratio:.3f} of the error of guessing their class mean.",
            settings=f"{self!r}: {', '.join(errors)}",
            per_record=errors[best],
            facts=MappingProxyType({"error": float(errors[best].mean()), "guessing_error": float(guess.mean())}),
        )
