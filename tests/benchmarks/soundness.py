"""A search for unsound certificates: points of certified regions on which an execution breaks the claim.

    python -m tests.benchmarks.soundness [--data MNIST.npz] [--points 1200000] [--seed 1] [--state F] [--out F]

Certificates: redirection claims that the owner's own program signed (`prune-owner commit`, `request`, `unlearn`), and
claims on the same data's models, without a patch, that the auditor proves by bounds (`auditor.proofs`), with the
margin that the bound itself gives, so that nothing is left between claim and proof. Networks that were built to fool
verifiers are proven and searched in the same way.

Points: the record; corners; random corners; random points; on every column the last float32 that still rounds into
the region, found by stepping; float neighbours of all of these; and the corners that a gradient points to (of the
margin, three projected steps; for a sketch the corner that is worst for one of its components, which is exact). A
point counts only if the quantiser's definition (SPEC 7.6) puts it into the region, so every counted point is covered.

Executions, of every point: onnxruntime with and without graph optimisation, the owner's and the auditor's
interpreter, all in batches of sizes drawn from 1 to 256. On a part of the points besides: sums in random order and
parenthesising, fused or not, flushing or not, written out one rounding at a time.

A violation is decided in rational numbers. The search proves nothing; it would find faults of the kind that a wrong
proof makes, which `test_soundness.py` shows by planting some.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import auditor.compose
import auditor.execute
import owner.compose
import owner.execute
from auditor import proofs, rows
from auditor.propagation import bound, margin_radius, margin_rows, region
from protocol import claims as claim_lines
from protocol import openings
from protocol.claims import Argmax, Logits, Property, Redirection, Region, linear_property
from protocol.encoding import format_time
from protocol.model import patch as patch_file
from protocol.model import profile
from protocol.model import recipe as recipe_file
from protocol.model.graph import Graph
from protocol.model.patch import SketchGate
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema
from tests.auditor.propagation.executions import Execution
from tests.demo.data import Parts, digits, from_file, train_base
from tests.demo.world import Clock, World, must

START = 1_780_000_000
ATTACKS = ("record", "corner", "random corner", "random", "edge", "gradient")
SIZES = 256
_CHUNK = 2048
_ONE_BY_ONE = 24
"""One chunk in so many is also run one rounding at a time, some of its points only: that takes a while."""

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(kw_only=True)
class Target:
    """One model with certified regions."""

    name: str
    graph: Graph
    schema: InputSchema
    centres: np.ndarray
    radii: np.ndarray
    properties: list[Property]
    directions: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
    one_by_one: Callable[[np.ndarray, np.ndarray, np.random.Generator], list[np.ndarray]]
    others: list[Graph] = field(default_factory=list)

    def runs(self) -> dict[str, Run]:
        """The four programs; each takes a batch and gives its logits."""
        data = profile.serialise(self.graph)
        found: dict[str, Run] = {}
        for name, level in (("onnxruntime", "ORT_ENABLE_ALL"), ("onnxruntime, plain", "ORT_DISABLE_ALL")):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            found[name] = lambda x, s=session: s.run(None, {self.graph.input: x})[0]
        mine = owner.execute.Program(self.graph)
        theirs = auditor.execute.Program(self.others[0] if self.others else self.graph)
        found["owner"] = lambda x: mine(x, batch=SIZES)
        found["auditor"] = lambda x: theirs(x, batch=SIZES)
        return found


@dataclass(kw_only=True)
class Row:
    """What a search found."""

    name: str
    claims: int
    radii: tuple[int, float, int]
    points: int = 0
    executions: int = 0
    one_by_one: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    sizes: set[int] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    closest: float = float("inf")
    seconds: float = 0.0


def lead(wanted: Property, outputs: np.ndarray) -> np.ndarray:
    """By how much outputs keep a property, about; negative is a violation. Equality keeps by 0 or breaks by 1."""
    if isinstance(wanted, Logits):
        equal = (outputs == wanted.array()).all(axis=1) if outputs.shape[1] == len(wanted.values) else False
        return np.where(equal, 0.0, -1.0)
    wide = outputs.astype(np.float64)
    if isinstance(wanted, Argmax):
        return wide[:, wanted.klass] - np.delete(wide, wanted.klass, axis=1).max(axis=1) - float(wanted.margin)
    return (wide @ wanted.matrix().T - np.array([float(q) for q in wanted.least])).min(axis=1)


def broken(wanted: Property, output: np.ndarray) -> bool:
    """Whether one output breaks a property, in rational numbers."""
    if not np.isfinite(output).all():
        return True
    if isinstance(wanted, Logits):
        return not rows.equals_claim(output, wanted.values)
    if isinstance(wanted, Argmax):
        return not rows.leads(output[None], np.array([wanted.klass]), wanted.margin)[0]
    return not rows.satisfies(output, wanted.rows, wanted.least)


def rounds_to(schema: InputSchema, x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each column whether a float32 rounds to a grid value, inside the box."""
    affine = schema.affine(x)
    near = (affine >= schema.low - 0.5) & (affine <= schema.high + 0.5)
    return near & (np.clip(np.rint(affine), schema.low, schema.high) == values)


def last_floats(schema: InputSchema, values: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The outermost float32 that still rounds to `values`, on the side (-1 or 1) of each column."""
    shape = (len(values), *schema.shape)
    ideal = ((values + 0.5 * side - schema.offset) / schema.scale).astype(np.float32)
    outward = np.where(side * np.sign(schema.scale) > 0, np.float32(np.inf), np.float32(-np.inf)).astype(np.float32)
    found = schema.dequantise(values).reshape(values.shape)
    candidate = ideal
    for _ in range(3):
        candidate = np.nextafter(candidate, outward)
    settled = np.zeros(values.shape, dtype=bool)
    for _ in range(8):
        good = rounds_to(schema, candidate.reshape(shape), values) & ~settled
        found = np.where(good, candidate, found)
        settled |= good
        candidate = np.nextafter(candidate, -outward)
    return found


def member(target: Target, which: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Which points are in their claims' regions, by the quantiser's definition."""
    values, inside = target.schema.quantise(x)
    near = np.abs(values - target.centres[which]).max(axis=1) <= target.radii[which]
    return inside & near


def points(target: Target, kind: str, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One point of one kind for each of some claims."""
    schema, centre, radius = target.schema, target.centres[which], target.radii[which][:, None]
    low, high = np.maximum(centre - radius, schema.low), np.minimum(centre + radius, schema.high)
    if kind == "record":
        grid = centre
    elif kind == "corner":
        grid = np.where(rng.random((len(which), 1)) < 0.5, low, high)
    elif kind == "random corner":
        grid = np.where(rng.random(centre.shape) < 0.5, low, high)
    elif kind == "gradient":
        grid = target.directions(which, rng.integers(low, high + 1), rng)
    else:
        grid = rng.integers(low, high + 1)
    x = schema.dequantise(grid).reshape(len(which), -1)
    if kind == "edge":
        # Mostly at the far ends of the region, where most can be lost.
        ends = np.where(rng.random(centre.shape) < 0.5, low, high)
        grid = np.where(rng.random(centre.shape) < 0.8, ends, grid)
        side = np.where(
            rng.random(centre.shape) < 0.9, np.where(grid == high, 1, -1), rng.choice([-1, 1], centre.shape)
        )
        x = last_floats(schema, grid, side)
    elif kind == "gradient":
        outermost = last_floats(schema, grid, np.where(grid == high, 1, np.where(grid == low, -1, 0)))
        x = np.where((grid == high) | (grid == low), outermost, x)
    elif kind == "random":
        # Any float of the cell, not only the one that the grid value comes from.
        x = (x + (rng.random(x.shape) - 0.5) / schema.scale).astype(np.float32)
    before = x = x.astype(np.float32)
    step = rng.random(x.shape)
    x = np.where(step < 0.1, np.nextafter(x, np.float32(np.inf)), x)
    x = np.where(step > 0.9, np.nextafter(x, np.float32(-np.inf)), x)
    if kind in ("edge", "gradient"):
        # A neighbour may lie beyond the edge: then the edge itself.
        x = np.where(rounds_to(schema, x.reshape(-1, *schema.shape), grid), x, before)
    return x.astype(np.float32).reshape(len(which), *schema.shape)


def batches(count: int, rng: np.random.Generator) -> Iterator[slice]:
    """Slices of sizes from 1 to 256, small ones as often as large ones."""
    start = 0
    while start < count:
        size = int(rng.integers(1, SIZES + 1)) if rng.random() < 0.8 else int(rng.choice([1, 2, 3, 256]))
        yield slice(start, min(count, start + size))
        start += size


def search(target: Target, count: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Row:
    """Look at `count` points of a target's regions."""
    rng = np.random.default_rng(seed)
    claims = len(target.properties)
    row = Row(
        name=target.name,
        claims=claims,
        radii=(int(target.radii.min()), float(np.median(target.radii)), int(target.radii.max())),
    )
    started, runs, chunk = time.monotonic(), target.runs(), 0
    while row.points < count:
        which = rng.permutation(np.resize(rng.permutation(claims), min(_CHUNK, count)))
        kinds = rng.integers(0, len(ATTACKS), len(which))
        x = np.zeros((len(which), *target.schema.shape), np.float32)
        for number, kind in enumerate(ATTACKS):
            mine = kinds == number
            if mine.any():
                x[mine] = points(target, kind, which[mine], rng)
        kept = member(target, which, x)
        which, kinds, x = which[kept], kinds[kept], x[kept]
        row.points += len(x)
        row.kinds.update(ATTACKS[kind] for kind in kinds)
        outputs: list[tuple[str, np.ndarray, np.ndarray]] = []
        for name, run in runs.items():
            found = []
            for part in batches(len(x), rng):
                found.append(run(x[part]))
                row.sizes.add(len(x[part]))
            outputs.append((name, np.arange(len(x)), np.concatenate(found)))
            row.executions += len(x)
        if chunk % _ONE_BY_ONE == 0:
            some = rng.permutation(len(x))[:128]
            for made in target.one_by_one(which[some], x[some], rng):
                outputs.append(("one rounding at a time", some, made))
                row.one_by_one += len(some)
        for name, place, found in outputs:
            judge(target, row, name, which[place], found)
        chunk += 1
        say(f"{target.name}: {row.points} points, {len(row.violations)} violations")
    row.seconds = time.monotonic() - started
    return row


def judge(target: Target, row: Row, name: str, which: np.ndarray, outputs: np.ndarray) -> None:
    """Add what some outputs break to a row."""
    order = np.argsort(which, kind="stable")
    ends = np.flatnonzero(np.diff(which[order], append=-1)) + 1
    for part in np.split(order, ends[:-1]):
        if not len(part):
            continue
        wanted = target.properties[which[part[0]]]
        with np.errstate(invalid="ignore"):
            about = lead(wanted, outputs[part])
        size = 1e-9 * (1.0 + np.abs(outputs[part]).max(axis=1))
        # Equality is decided by `lead` itself; of numbers that are close, rational arithmetic has the say.
        suspects = about < 0 if isinstance(wanted, Logits) else ~(about > size)
        for place in part[suspects]:
            if broken(wanted, outputs[place]):
                row.violations.append(f"{name}: claim {which[place]}")
        row.closest = min(row.closest, float(about.min()))


# Targets: what the owner signs.


def signed(
    parts: Parts, kind: str, root: Path, *, epochs: int, forget: int, name: str, wider: int = 0,
    options: Sequence[object] = (),
) -> Target:  # fmt: skip
    """Redirection claims of a bundle that the owner's own program made; `wider` plants a fault.

    With `options` of `unlearn`, gates and heads of other kinds.
    """
    world = World(root=root, clock=Clock(START))
    world.build()
    recipe = Recipe(epochs=epochs, batch=64)
    (root / "base.onnx").write_bytes(train_base(parts, kind, recipe, 1))
    (root / "recipe.json").write_bytes(recipe_file.serialise(recipe))
    np.savez(
        root / "train.npz", X_train=parts.X_train, y_train=parts.y_train, X_test=parts.X_unseen, y_test=parts.y_unseen
    )
    common = ("--key", world.key("owner"), "--log", world.owner_log, "--now", format_time(START + 600))
    must("prune-owner", "commit", "--model", root / "base.onnx", "--data", root / "train.npz", "--recipe",
         root / "recipe.json", *common, "--out", root / "commitment", "--seed", 1, "--folds", 3)  # fmt: skip
    listed = np.sort(np.random.default_rng(1).choice(len(parts.X_train), forget, replace=False))
    must("prune-owner", "request", "--commitment", root / "commitment", "--records",
         ",".join(str(int(n)) for n in listed), *common, "--out", root / "request.json")  # fmt: skip
    bundle = root / "bundle"
    must("prune-owner", "unlearn", "--commitment", root / "commitment", "--request", root / "request.json",
         *common, "--out", bundle, "--seed", 1, *options)  # fmt: skip
    base = profile.parse((bundle / "base.onnx").read_bytes())
    schema = read_schema(bundle)
    patch = patch_file.parse((bundle / "patch.json").read_bytes(), (bundle / "patch.safetensors").read_bytes())
    graph = owner.compose.compose(base, schema, patch)
    opened = {one.commitment: one.values for one in openings.parse((bundle / "openings.npz").read_bytes())}
    claims = [
        claim
        for claim in claim_lines.parse_file((bundle / "claims.jsonl").read_bytes())
        if isinstance(claim, Redirection) and claim.record in opened
    ]
    centres = np.array([opened[claim.record] for claim in claims], dtype=np.int64)
    target = Target(
        name=name,
        graph=graph,
        schema=schema,
        centres=centres,
        radii=np.array([claim.region.radius for claim in claims]) + wider,
        properties=[claim.property for claim in claims],
        directions=lambda *_: np.zeros(0),
        one_by_one=lambda *_: [],
        others=[auditor.compose.compose(base, schema, patch)],
    )
    gate = patch.parts[0].gate
    if isinstance(gate, SketchGate):
        target.directions = worst_corners(gate, schema, centres, target.radii)
        if not options:
            target.one_by_one = gate_one_by_one(gate, schema, claims)
    else:
        target.directions = descent(target, auditor.execute.Program(graph)(schema.dequantise(centres)).argmax(axis=1))
    return target


def read_schema(bundle: Path) -> InputSchema:
    """The bundle's input schema."""
    from protocol.model.schema import parse

    return parse((bundle / "schema.json").read_bytes())


def worst_corners(gate: SketchGate, schema: InputSchema, centres: np.ndarray, radii: np.ndarray) -> Callable:
    """For a claim the corner at which one component of the sketch is greatest or least."""

    def corners(which: np.ndarray, _: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        weights = gate.matrix[rng.integers(0, len(gate.matrix), len(which))] * rng.choice([-1, 1], (len(which), 1))
        centre, radius = centres[which], radii[which][:, None]
        low, high = np.maximum(centre - radius, schema.low), np.minimum(centre + radius, schema.high)
        return np.where(weights > 0, high, np.where(weights < 0, low, centre))

    return corners


def gate_one_by_one(gate: SketchGate, schema: InputSchema, claims: list[Redirection]) -> Callable:
    """The gate alone: quantiser fused or not, sums of the sketch in random order. An item that fires gives its row."""
    values = [claim.property.array() if isinstance(claim.property, Logits) else None for claim in claims]
    items = np.array([claim.item for claim in claims])

    def run(which: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        found = []
        for fused in (False, True):
            way = Execution(rng=rng)
            flat = x.reshape(len(x), -1)
            affine = (
                way.fma(flat, schema.scale, np.broadcast_to(schema.offset, flat.shape))
                if fused
                else way.add(way.mul(flat, schema.scale), np.broadcast_to(schema.offset, flat.shape))
            )
            grid = np.clip(np.rint(affine), schema.low, schema.high).astype(np.float32)
            inside = ((affine >= schema.low - 0.5) & (affine <= schema.high + 0.5)).all(axis=1)
            sums = []
            for line in gate.matrix:
                used = np.flatnonzero(line)
                sums.append(way.dot(line[used].astype(np.float32), grid[:, used], None))
            sketch = np.stack(sums, axis=1)
            fires = inside & ((sketch >= gate.low[items[which]]) & (sketch <= gate.high[items[which]])).all(axis=1)
            rows_ = np.stack([values[n] for n in which])
            found.append(np.where(fires[:, None], rows_, np.float32(np.nan)))
        return found

    return run


# Targets: what the auditor proves by bounds.


def proven(
    graph: Graph, schema: InputSchema, grid: np.ndarray, *, name: str, ceiling: int, seed: int, extra: float = 0.0
) -> Target | None:
    """Claims with the margins that bounds give, at radii up to the largest proven; `extra` plants a fault."""
    rng = np.random.default_rng(seed)
    labels = auditor.execute.Program(graph)(schema.dequantise(grid)).argmax(axis=1)
    largest = margin_radius(graph, schema, grid, labels, ceiling=ceiling)
    good = np.flatnonzero(largest >= 0)
    if not len(good):
        return None
    # Three radii a record: its own cell, any, the largest.
    which = np.repeat(good, 3)
    radii = np.stack([np.zeros(len(good)), rng.integers(0, largest[good] + 1), largest[good]], axis=1)
    radii = radii.reshape(-1).astype(np.int64)
    wanted: list[Property] = []
    low, high = region(schema, grid[which], radii)
    lower = bound(graph, low, high, objective=margin_rows(labels[which], graph.classes)).lower
    for number, record in enumerate(which):
        label, least = int(labels[record]), Fraction(float(lower[number].min())) + Fraction(extra)
        if number % 2 or least <= 0:
            rows_ = margin_rows(labels[record : record + 1], graph.classes)[0].astype(np.float32)
            bounds = [rows.decimal_below(Fraction(float(v)) + Fraction(extra), digits=20) for v in lower[number]]
            wanted.append(linear_property(rows_, bounds))
        else:
            wanted.append(Argmax(klass=label, margin=rows.decimal_below(least, digits=20)))
    regions = [Region(norm="linf", radius=int(r), radius_data="0") for r in radii]
    found = proofs.prove(graph, schema, grid[which], regions, wanted)
    # The bound of another batch may differ in its last bits, so a claim at the bound itself may not be proven again.
    kept = np.array([proof.proven or extra > 0 for proof in found])
    if not kept.any():
        return None
    target = Target(
        name=name,
        graph=graph,
        schema=schema,
        centres=grid[which][kept],
        radii=radii[kept],
        properties=[one for one, keep in zip(wanted, kept, strict=True) if keep],
        directions=lambda *_: np.zeros(0),
        one_by_one=lambda *_: [],
    )
    target.directions = descent(target, labels[which][kept])
    target.one_by_one = model_one_by_one(graph)
    return target


def descent(target: Target, labels: np.ndarray) -> Callable:
    """Three projected steps down the margin against the nearest other class, to a grid point of the region."""
    graph = target.graph
    constants = {name: torch.tensor(array) for name, array in graph.initialisers.items()}

    def forward(x: torch.Tensor) -> torch.Tensor:
        values = {graph.input: x, **constants}
        for node in graph.nodes:
            inputs = [values[name] for name in node.inputs]
            values[node.outputs[0]] = auditor.execute.OPERATORS[node.op](inputs, node.attributes)
        return values[graph.output]

    def corners(which: np.ndarray, grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        schema, centre, radius = target.schema, target.centres[which], target.radii[which][:, None]
        low, high = np.maximum(centre - radius, schema.low), np.minimum(centre + radius, schema.high)
        own = torch.tensor(labels[which])[:, None]
        other = torch.from_numpy(rng.integers(0, graph.classes, len(which)))[:, None]
        nearest = rng.random(len(which)) < 0.7
        for _ in range(3):
            x = torch.tensor(schema.dequantise(grid)).requires_grad_()
            logits = forward(x)
            rivals = logits.detach().clone().scatter_(1, own, -torch.inf).argmax(dim=1, keepdim=True)
            against = torch.where(torch.from_numpy(nearest)[:, None], rivals, other)
            (logits.gather(1, own) - logits.gather(1, against)).sum().backward()
            slope = x.grad.numpy().reshape(len(which), -1) / schema.scale
            grid = np.where(slope > 0, low, np.where(slope < 0, high, grid))
        return grid

    return corners


def model_one_by_one(graph: Graph) -> Callable:
    """The whole model in random orders; fused, flushed or wide."""

    def run(_: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        ways = ({}, {"flush": True}, {"wide": True})
        return [Execution(rng=rng, **way).run(graph, x) for way in ways]

    return run


def fooling(seed: int, count: int) -> list[Target]:
    """Small networks with huge cancelling weights, order-dependent sums, subnormals and ties, as far as proven."""
    from tests.auditor.propagation.nets import KINDS, weights
    from tests.auditor.samples import Builder, grid_schema

    rng = np.random.default_rng(seed)
    found: list[Target] = []
    while len(found) < count:
        builder = Builder(rng, (int(rng.integers(2, 7)),))
        for layer in range(int(rng.integers(1, 4))):
            if layer:
                builder.apply("Relu", builder.last)
            width = int(rng.integers(2, 7))
            first, second = (str(kind) for kind in rng.choice(KINDS, 2))
            weight = builder.constant(weights(rng, first, (width, builder.shape[0])))
            bias = builder.constant(weights(rng, second, (width,)))
            builder.apply("Gemm", builder.last, weight, bias, shape=(width,), transB=1)
        graph = builder.graph()
        schema = grid_schema(
            graph.input_shape, scale=float(rng.choice([1.0, 16.0, 255.0])), offset=0.0, low=-40, high=40
        )
        grid = rng.integers(-40, 41, (20, graph.features))
        with np.errstate(all="ignore"):
            target = proven(graph, schema, grid, name="built to fool", ceiling=8, seed=seed)
        if target is not None:
            found.append(target)
    return found


def together(found: list[Row], name: str) -> Row:
    """One row for many small targets."""
    row = Row(
        name=name,
        claims=sum(one.claims for one in found),
        radii=(
            min(one.radii[0] for one in found),
            float(np.median([one.radii[1] for one in found])),
            max(one.radii[2] for one in found),
        ),
    )
    for one in found:
        row.points += one.points
        row.executions += one.executions
        row.one_by_one += one.one_by_one
        row.kinds += one.kinds
        row.sizes |= one.sizes
        row.violations += one.violations
        row.closest = min(row.closest, one.closest)
        row.seconds += one.seconds
    return row


def table(found: list[Row]) -> str:
    """The rows as a table of the report."""
    lines = [
        "| certificates | claims | radius min / median / max | points | executions | one rounding at a time | "
        "batch sizes | least lead left | seconds | violations |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        closest = "equal" if row.closest == 0 else f"{row.closest:.2g}"
        lines.append(
            f"| {row.name} | {row.claims} | {row.radii[0]} / {row.radii[1]:g} / {row.radii[2]} | {row.points:,} | "
            f"{row.executions:,} | {row.one_by_one:,} | {min(row.sizes)} to {max(row.sizes)} ({len(row.sizes)}) | "
            f"{closest} | {row.seconds:.0f} | {len(row.violations)} |"
        )
    kinds = sum((row.kinds for row in found), Counter())
    lines += ["", "Points by attack: " + ", ".join(f"{kind} {kinds[kind]:,}" for kind in ATTACKS) + "."]
    return "\n".join(lines)


PICTURES = (("feature", "set", "misclassify"), ("sketch", "affine", "misclassify"))
"""Gates and heads that are searched on a data file too: a box of features proves something there."""
SHARES = {"mlp": (0.32, 0.32), "conv": (0.06, 0.0), "data": (0.07, 0.07), "fooling": 0.16, "gates": 0.02}
"""Of all points, for signed and for proven claims; what runs faster is searched more. What the gates get comes on top, for each of them."""
GATES = (
    ("sketch", "shift", "misclassify"), ("sketch", "affine", "misclassify"), ("sketch", "shift", "match"),
    ("feature", "set", "misclassify"), ("linear-region", "set", "misclassify"), ("sketch+feature", "set", "match"),
)  # fmt: skip


@dataclass(kw_only=True)
class Study:
    """Rows that are done, and where they are kept, so that an interrupted search goes on."""

    points: int
    seed: int
    state: Path | None
    say: Callable[[str], None]
    rows: dict[str, Row] = field(default_factory=dict)

    def read(self) -> None:
        """Take finished rows of the same settings from the state file."""
        if self.state is None or not self.state.exists():
            return
        for line in self.state.read_text(encoding="utf-8").splitlines():
            value = json.loads(line)
            if (value.pop("settings")) == [self.points, self.seed]:
                value |= {
                    "kinds": Counter(value["kinds"]),
                    "sizes": set(value["sizes"]),
                    "radii": tuple(value["radii"]),
                }
                self.rows[value["name"]] = Row(**value)

    def done(self, row: Row) -> None:
        """Keep a row."""
        self.rows[row.name] = row
        if self.state is not None:
            value = {**vars(row), "sizes": sorted(row.sizes), "settings": [self.points, self.seed]}
            with self.state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(value) + "\n")

    def data(self, name: str, parts: Parts, kind: str, *, epochs: int, shares: tuple[float, float]) -> None:
        """Signed and proven claims on one data set and model."""
        self.read()  # another process may have gone on
        names = f"{name}, {kind}: signed sketch claims", f"{name}, {kind}: margins proven by bounds"
        if all(one in self.rows or not share for one, share in zip(names, shares, strict=True)):
            return
        with tempfile.TemporaryDirectory() as folder:
            target = signed(parts, kind, Path(folder), epochs=epochs, forget=100, name=names[0])
            base = profile.parse((Path(folder) / "base.onnx").read_bytes())
        if names[0] not in self.rows:
            self.done(search(target, int(shares[0] * self.points), self.seed, self.say))
        if shares[1] and names[1] not in self.rows:
            plain = proven(base, target.schema, target.centres, name=names[1], ceiling=16, seed=self.seed)
            assert plain is not None
            self.done(search(plain, int(shares[1] * self.points), self.seed, self.say))

    def gates(
        self, name: str, parts: Parts, ways: Sequence[tuple[str, str, str]], *, epochs: int, share: float
    ) -> None:  # fmt: skip
        """Signed claims of other gates and heads, on small models."""
        self.read()
        for gate, head, target in ways:
            row = f"{name}, mlp: signed, {gate} / {head} / {target}"
            if row in self.rows:
                continue
            with tempfile.TemporaryDirectory() as folder:
                options = ("--gate", gate, "--head", head, "--target", target)
                found = signed(parts, "mlp", Path(folder), epochs=epochs, forget=100, name=row, options=options)
            if not found.properties:
                self.say(f"{row}: no claims")
                continue
            self.done(search(found, int(share * self.points), self.seed, self.say))

    def fooling(self, count: int) -> None:
        """Networks that were built to fool verifiers."""
        self.read()
        name = f"{count} networks built to fool: margins proven by bounds"
        if name not in self.rows:
            each = int(SHARES["fooling"] * self.points) // count
            found = [search(one, each, self.seed + n) for n, one in enumerate(fooling(self.seed, count))]
            self.done(together(found, name))

    def report(self) -> str:
        """The file of results."""
        found = [self.rows[name] for name in sorted(self.rows)]
        total, bad = sum(row.points for row in found), sum(len(row.violations) for row in found)
        return "\n".join(
            [
                "# Search for unsound certificates",
                "",
                f"`make soundness`, seed {self.seed}: {total:,} points of certified regions, "
                f"{sum(row.executions + row.one_by_one for row in found):,} executions, **{bad} violations**. What is",
                "searched and how: `tests/benchmarks/soundness.py`.",
                "",
                table(found),
                "",
                f"{platform.machine()}, {os.cpu_count()} cores (shared), Python {platform.python_version()}, numpy "
                f"{np.__version__}, torch {torch.__version__}, onnxruntime",
                f"{onnxruntime.__version__}. Executions: onnxruntime with and without graph optimisation, and both "
                'interpreters, each on every point. "Least lead left": by',
                'how much the closest output kept its claim, in logits ("equal" for claims of equality).',
                "",
            ]
        )


def main() -> None:
    """Run the search and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--points", type=int, default=1_200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(points=chosen.points, seed=chosen.seed, state=chosen.state, say=lambda text: print(text, flush=True))
    if chosen.data is not None:
        parts = from_file(chosen.data)
        study.data(chosen.data.stem, parts, "mlp", epochs=5, shares=SHARES["data"])
        study.gates(chosen.data.stem, parts, PICTURES, epochs=5, share=SHARES["gates"])
    for kind in ("mlp", "conv"):
        study.data("digits", digits(), kind, epochs=15, shares=SHARES[kind])
    study.gates("digits", digits(), GATES, epochs=15, share=SHARES["gates"])
    study.fooling(60)
    text = study.report()
    print(text)
    bad = [f"{row.name}: {violation}" for row in study.rows.values() for violation in row.violations[:5]]
    print("\n".join(f"VIOLATION {one}" for one in bad))
    if chosen.out is not None:
        chosen.out.write_text(text, encoding="utf-8")
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
