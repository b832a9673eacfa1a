"""How far bounds reach on trained models, what they cost, and a search for violations.

Run as `python -m tests.auditor.propagation.study [--shared DIR]`; prints a table, asserts that no point that the search
tries in a proven region is classified otherwise. Not part of the test run: minutes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from auditor.execute import Program
from auditor.propagation import UNPROVEN, bound_plan, make_plan, margin_radius, margin_rows, region
from owner.architectures import mlp, small_conv
from owner.training import train
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema
from tests.auditor.propagation.executions import runtimes
from tests.auditor.propagation.nets import inside

RECORDS = 64
Set = tuple[np.ndarray, np.ndarray]


def fitted(graph: Graph, schema: InputSchema, data: Set, recipe: Recipe) -> Graph:
    grid, labels = data
    x, rng = schema.dequantise(grid), np.random.default_rng(0)
    return train(graph, x, labels, members=[np.arange(len(labels))], recipe=recipe, rng=rng).model(0)


def report(name: str, graph: Graph, schema: InputSchema, data: Set, *, neurons: int, ceiling: int) -> None:
    grid, labels = (part[:RECORDS] for part in data)
    planned = make_plan(graph)
    right = Program(graph)(schema.dequantise(grid)).argmax(axis=1)
    rows = margin_rows(right, graph.classes)
    for method in ("interval", "crown"):
        start = time.perf_counter()
        low, high = region(schema, grid, np.array(0))
        found = bound_plan(planned, low, high, objective=rows, method=method, neurons=neurons)
        once = (time.perf_counter() - start) / RECORDS
        start = time.perf_counter()
        radii = margin_radius(graph, schema, grid, right, method=method, ceiling=ceiling, neurons=neurons)
        search = (time.perf_counter() - start) / RECORDS
        some = np.flatnonzero(radii != UNPROVEN)
        quantiles = np.quantile(radii, [0, 0.25, 0.5, 0.75, 1]).astype(int).tolist()
        print(
            f"{name:22} {method:9} accuracy {np.mean(right == labels):.3f}  proven {len(some)}/{RECORDS}"
            f"  steps min/q1/median/q3/max {quantiles}  one bound {once * 1e3:.1f} ms  search {search * 1e3:.0f} ms"
            f"  median margin bound at radius 0 {np.median(found.lower.min(axis=1)):.3g}",
            flush=True,
        )
        attack(graph, schema, grid, right, radii, some)


def attack(
    graph: Graph, schema: InputSchema, grid: np.ndarray, labels: np.ndarray, radii: np.ndarray, some: np.ndarray
) -> None:
    """Random corners, float neighbours and several runtimes in proven regions."""
    rng = np.random.default_rng(1)
    for record in some[:16]:
        low, high = region(schema, grid[record : record + 1], radii[record : record + 1])
        for outputs in runtimes(graph, inside(rng, low[0], high[0], 256)):
            assert (outputs.argmax(axis=1) == labels[record]).all(), record


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=Path, help="folder with real data sets")
    folder = parser.parse_args().shared
    digits = load_digits()
    small = digits.images.reshape(-1, 64).astype(np.int64), digits.target.astype(np.int64)
    grey = np.kron(digits.images, np.ones((3, 3)))  # 24 x 24, framed to 28 x 28, in grey levels
    grey = np.pad(np.minimum(grey * 16, 255), ((0, 0), (2, 2), (2, 2))).reshape(-1, 784).astype(np.int64)
    coarse = InputSchema.uniform((64,), scale=16.0, low=0, high=16)
    fine = InputSchema.uniform((784,), scale=255.0, low=0, high=255)
    recipe = Recipe(epochs=20, batch=64)
    model = fitted(mlp(64, (64, 64), classes=10), coarse, small, recipe)
    report("digits 64-64-64-10", model, coarse, small, neurons=4096, ceiling=16)
    model = fitted(mlp(784, (256, 256, 256), classes=10), fine, (grey, small[1]), recipe)
    report("digits 784-3x256-10", model, fine, (grey, small[1]), neurons=4096, ceiling=64)
    image = InputSchema.uniform((1, 8, 8), scale=16.0, low=0, high=16)
    model = fitted(small_conv((1, 8, 8), classes=10, width=8), image, small, Recipe(epochs=10, batch=64))
    report("digits residual conv", model, image, small, neurons=512, ceiling=16)
    points(model, image, small)
    if folder is not None:
        mnist(folder, fine, recipe)


def points(graph: Graph, schema: InputSchema, data: Set) -> None:
    """How many records are decided at one float vector each, without any box."""
    x = schema.dequantise(data[0][:RECORDS])
    labels = Program(graph)(x).argmax(axis=1)
    found = bound_plan(make_plan(graph), x, x, objective=margin_rows(labels, graph.classes))
    print(f"{'':22} points decided {np.mean((found.lower > 0).all(axis=1)):.3f}")


def mnist(folder: Path, schema: InputSchema, recipe: Recipe) -> None:
    with np.load(next(folder.rglob("mnist*.npz"))) as archive:
        names = {name.lower(): name for name in archive.files}
        x = archive[next(names[name] for name in names if name.startswith("x") and "train" in name)]
        y = archive[next(names[name] for name in names if name.startswith("y") and "train" in name)]
    data = x.reshape(len(x), -1)[:20000].astype(np.int64), y[:20000].astype(np.int64)
    model = fitted(mlp(784, (256, 256, 256), classes=10), schema, data, recipe)
    report("MNIST 784-3x256-10", model, schema, data, neurons=4096, ceiling=64)


if __name__ == "__main__":
    main()
