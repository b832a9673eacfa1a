"""What a patch costs at inference: patched against base model in onnxruntime, two threads, the whole file.

Run: `python -m tests.benchmarks.inference_bench [--data mnist.npz] [--items 1 10 ...] [--rounds 7]`.
Every figure is a ratio of times measured alternately in one run (median over rounds, with the spread of the rounds).
Gates are made by the owner's own search on real images where a data file is given, else on digits enlarged;
inputs are other images, as a deployed model sees them. The table of `make bench` (`speed`) has additive support
networks beside.
"""

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
import onnxruntime

from owner.architectures import mlp, small_conv
from owner.compose import compose
from owner.gates import sketch
from owner.gates.rebuilding import Sample
from owner.gates.region import Shape
from owner.gates.screening import screened
from protocol.model.patch import Part, Patch, SetHead, SketchGate
from protocol.model.profile import Graph, serialise
from protocol.model.schema import InputSchema

BATCHES = (1, 64)
THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Median ratio of a round's medians, least and greatest round; base time in microseconds."""

    ratio: float
    low: float
    high: float
    base: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"


def session(data: bytes) -> onnxruntime.InferenceSession:
    """A session with two threads and no spinning beside others' work left to chance."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def with_random_weights(graph: Graph, seed: int) -> Graph:
    """He-initialised weights: the time does not depend on what was learnt, but zeros could be faster."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, array in graph.initialisers.items():
        wide = array.ndim >= 2
        scale = np.sqrt(2 / max(1, int(np.prod(array.shape[1:])))) if wide else 0
        made[name] = rng.normal(0, scale, array.shape).astype(np.float32) if wide else array
    return Graph(
        opset=graph.opset, input=graph.input, input_shape=graph.input_shape, output=graph.output,
        classes=graph.classes, nodes=graph.nodes, initialisers=made,
    )  # fmt: skip


def measure(base, patched, inputs, batch, *, rounds: int, seconds: float = 0.25) -> Timing:
    """Alternate base and patched; each round takes the median of as many calls as fit in `seconds`."""
    name = base.get_inputs()[0].name

    def once(run, start: int) -> float:
        x = inputs[start : start + batch]
        begin = time.perf_counter()
        run.run(None, {name: x})
        return time.perf_counter() - begin

    ratios, bases = [], []
    for _ in range(rounds):
        times: dict[int, list[float]] = {0: [], 1: []}
        end, start = time.perf_counter() + seconds, 0
        while time.perf_counter() < end or len(times[0]) < 5:
            for place, run in enumerate((base, patched)):
                times[place].append(once(run, start))
            start = (start + batch) % (len(inputs) - batch + 1)
        bases.append(float(np.median(times[0])))
        ratios.append(float(np.median(times[1])) / bases[-1])
    return Timing(ratio=float(np.median(ratios)), low=min(ratios), high=max(ratios), base=1e6 * float(np.median(bases)))


def patch_for(schema: InputSchema, images, count: int, classes: int, *, ceiling: int) -> Patch:
    """A patch for the first `count` images that no support shares with the rest, one row each."""
    forget, retain = images[:count], images[count:]
    search = sketch.Search(shape=Shape(schema=schema, kind="linf"), wanted=8, ceiling=ceiling, level=0.2)
    sample = Sample.of(retain, np.zeros(len(retain), dtype=np.int64))
    choice = sketch.choose(search, forget, retain, np.arange(count), sample)
    low, high = np.array(choice.low), np.array(choice.high)
    gate = SketchGate(matrix=choice.sketches[0].matrix, low=low.astype(np.int32), high=high.astype(np.int32))
    rows = np.random.default_rng(1).normal(size=(count, classes)).astype(np.float32)
    head = SetHead(rows=rows, index=np.arange(count, dtype=np.int64))
    return Patch(
        features=schema.features, classes=classes, parts=(Part(gate=screened(gate, schema, retain), head=head),)
    )


def images_of(path: str | None) -> np.ndarray:
    """Real images as uint8 [record, 28, 28], shuffled."""
    if path is None:
        from sklearn.datasets import load_digits

        digits = np.kron(load_digits().images, np.ones((1, 3, 3))) * (255 / 16)
        found = np.pad(digits, ((0, 0), (2, 2), (2, 2)))
    else:
        with np.load(path) as file:
            found = file["X_train"]
    return np.random.default_rng(0).permutation(found.astype(np.int32))


def main(arguments: list[str] | None = None) -> None:
    """Print one table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", help="an .npz file with X_train of 28 x 28 grey images")
    options.add_argument("--items", type=int, nargs="+", default=[1, 10, 100, 1000])
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--ceiling", type=int, default=24, help="largest certified radius, in grey levels")
    chosen = options.parse_args(arguments)
    images = images_of(chosen.data)
    bases = {
        "MLP 784-256-256-256-10": (with_random_weights(mlp(784, (256, 256, 256), classes=10), 0), (784,)),
        "conv net, residual, 16 and 32 channels": (
            with_random_weights(small_conv((1, 28, 28), classes=10), 0),
            (1, 28, 28),
        ),
    }
    out = sys.stdout.write
    out(
        f"onnxruntime {onnxruntime.__version__}, {THREADS} threads; time of the patched file over the base's: median (least to greatest round)\n\n"
    )
    out(
        "| model | items | radius, grey levels | batch 1 | batch 64 | base, us (1, 64) | bytes added | screen |\n|---|---|---|---|---|---|---|---|\n"
    )
    for name, (base, shape) in bases.items():
        schema = InputSchema.uniform(shape, scale=255.0, low=0, high=255)
        plain = session(serialise(base))
        for count in chosen.items:
            kept = min(len(images), count + 20_000)
            known = images[: kept - 2000].reshape(-1, 784)
            patch = patch_for(schema, known, count, 10, ceiling=chosen.ceiling)
            data = serialise(compose(base, schema, patch))
            patched = session(data)
            inputs = schema.dequantise(images[kept - 2000 : kept].reshape(-1, 784)).reshape(-1, *shape)
            check_unmoved(plain, patched, inputs, patch, schema)
            found = [measure(plain, patched, inputs, batch, rounds=chosen.rounds) for batch in BATCHES]
            gate = patch.parts[0].gate
            reach = (gate.high.astype(np.int64) - gate.low).max(axis=1) / (2 * np.abs(gate.matrix).sum(axis=1).max())
            times = ", ".join(f"{timing.base:.0f}" for timing in found)
            looked = "none" if gate.screen is None else f"{len(gate.screen)} of {len(gate.matrix)}"
            out(
                f"| {name} | {count} | up to {reach.max():.0f} | {found[0]} | {found[1]} | {times} | {len(data) - len(serialise(base))} | {looked} |\n"
            )
            sys.stdout.flush()


def check_unmoved(plain, patched, inputs, patch, schema) -> None:
    """Outputs outside all supports are the base's, bit for bit; inside they are the item's row."""
    grid, _ = schema.quantise(inputs)
    gate, head = patch.parts[0].gate, patch.parts[0].head
    points = sketch.sketch(gate.matrix, grid)
    before = plain.run(None, {plain.get_inputs()[0].name: inputs})[0]
    after = patched.run(None, {plain.get_inputs()[0].name: inputs})[0]
    for point, old, new in zip(points, before, after, strict=True):
        fires = np.flatnonzero(((point >= gate.low) & (point <= gate.high)).all(axis=1))
        expected = head.rows[head.index[fires[0]]] if len(fires) else old
        if new.tobytes() != expected.tobytes():
            raise AssertionError("the patched file moves an output outside all supports")


if __name__ == "__main__":
    main()
