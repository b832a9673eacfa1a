"""How much would be left to guess if a patch held keyed hashes of cells instead of boxes?

    python -m tests.benchmarks.keyed_cells --data ../shared/data/mnist.npz [--radius 8 24] [--block 4]

For each component of a block-sum sketch cells as wide as an item's box, shifted so that the record is in the middle of
its own cell: the shift has to be public, or the gate could not be computed, and it gives away the sketch modulo the
width. What is left is the vector of cell numbers. Its entropy given the shifts is estimated from above by what an
attacker who knows the distribution needs: a tree of dependences (Chow and Liu, 1968) over the cell numbers, learnt
on one half of the data, and -log2 of its probability on the other half. A better model of the pictures needs fewer
guesses. Decision 0031.
"""

import argparse
from pathlib import Path

import numpy as np

RATE = 2.0**23
"""SHA-256 of one short message: about eight million a second on one core; a GPU does a thousand times that."""


def sums(images: np.ndarray, block: int) -> np.ndarray:
    """Block sums `[record, component]`."""
    side = images.shape[1] // block
    return (
        images.astype(np.int64).reshape(len(images), side, block, side, block).sum(axis=(2, 4)).reshape(len(images), -1)
    )


def tree(cells: np.ndarray, sizes: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Order and parents of the tree of greatest mutual information."""
    count, width = cells.shape
    onehot = (cells[:, :, None] == np.arange(sizes)).reshape(count, -1).astype(np.float32)
    joint = (onehot.T @ onehot).reshape(width, sizes, width, sizes).transpose(0, 2, 1, 3) / count
    single = onehot.mean(axis=0).reshape(width, sizes)
    outer = single[:, None, :, None] * single[None, :, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        mutual = np.where(joint > 0, joint * np.log2(joint / outer), 0.0).sum(axis=(2, 3))
    inside, edges = [0], []
    while len(inside) < width:
        rest = [k for k in range(width) if k not in inside]
        table = mutual[np.ix_(inside, rest)]
        a, b = np.unravel_index(table.argmax(), table.shape)
        edges.append((inside[a], rest[b]))
        inside.append(rest[b])
    return inside, edges


def bits(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """-log2 of the tree's probability of each row asked about, learnt from the rows known."""
    sizes = int(max(known.max(), asked.max())) + 1
    order, edges = tree(known, sizes)

    def log2(counts: np.ndarray) -> np.ndarray:
        smooth = counts + 0.1
        return -np.log2(smooth / smooth.sum(axis=-1, keepdims=True))

    found = log2(np.bincount(known[:, order[0]], minlength=sizes).astype(float))[asked[:, order[0]]]
    for parent, child in edges:
        counts = np.zeros((sizes, sizes))
        np.add.at(counts, (known[:, parent], known[:, child]), 1.0)
        found = found + log2(counts)[asked[:, parent], asked[:, child]]
    return found


def main() -> None:
    """Print one row for each radius."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--radius", type=int, nargs="+", default=[8, 24])
    options.add_argument("--block", type=int, default=4)
    chosen = options.parse_args()
    with np.load(chosen.data) as file:
        images = np.random.default_rng(0).permutation(file["X_train"])
    values = sums(images, chosen.block)
    known, asked = values[: len(values) // 2], values[len(values) // 2 :][:200]
    print(f"{len(images)} images, {values.shape[1]} sums of {chosen.block}x{chosen.block}")
    print(
        "| radius | cell width | bits left, least / 1 % / median | guesses a second of one core | time for half the records |"
    )
    print("|---|---|---|---|---|")
    for radius in chosen.radius:
        width = 2 * radius * chosen.block**2 + 1
        left = []
        for row in asked:
            shift = row - width // 2  # the record in the middle of its own cell, in every component
            offset = shift % width
            left.append(bits_of(known, row, offset, width))
        found = np.array(left)
        seconds = 2 ** (np.median(found) - 1) / RATE
        low = np.percentile(found, 1)
        print(
            f"| {radius} | {width} | {found.min():.0f} / {low:.0f} / {np.median(found):.0f} | {RATE:.2g} | {seconds:.2g} s |",
            flush=True,
        )


def bits_of(known: np.ndarray, row: np.ndarray, offset: np.ndarray, width: int) -> float:
    """Bits left for one record: the cells are cut by its own public shifts."""
    cut = (known[:: max(1, len(known) // 4000)] - offset) // width + 1
    return float(bits(cut, ((row - offset) // width + 1)[None])[0])


if __name__ == "__main__":
    main()
