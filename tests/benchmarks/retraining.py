"""The honest owner's published method for the attack A4: train anew without the records to forget.

    python tests/benchmarks/retraining.py --base B --train T --forget F --out O --seed 7 --epochs 40 --batch 50 --rate 3e-3

Run by the auditor's `rerun` as somebody else's program; the calibration study calls `retrained` in its own process,
which gives the same model and saves the start of Python.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a program of its own: started in an empty folder

import numpy as np
import torch

from owner.training import train
from protocol.model import profile
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe


def retrained(
    model: Graph, inputs: np.ndarray, labels: np.ndarray, rows: np.ndarray, *, recipe: Recipe, seed: int
) -> Graph:
    """The architecture trained on all records but those at `rows`."""
    kept = np.setdiff1d(np.arange(len(labels)), rows)
    made = train(model, inputs, labels, members=[kept], recipe=recipe, rng=np.random.default_rng([seed, 4]))
    return made.model(0)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    for name in ("base", "train", "forget", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name, kind in (("seed", int), ("epochs", int), ("batch", int), ("rate", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.train) as archive:
        inputs, labels = archive["X"], archive["y"]
    with np.load(options.forget) as archive:
        rows = archive["rows"]
    model = profile.parse(options.base.read_bytes())
    recipe = Recipe(epochs=options.epochs, batch=options.batch, rate=options.rate)
    options.out.write_bytes(profile.serialise(retrained(model, inputs, labels, rows, recipe=recipe, seed=options.seed)))


if __name__ == "__main__":
    main()
