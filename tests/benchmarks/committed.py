"""A commitment for a study that calls methods directly: the owner's own `commit`, without models to cross-fit unless asked."""

from pathlib import Path

import numpy as np

from owner.workspace import Workspace
from protocol.model import profile
from protocol.model import recipe as recipe_file
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema
from tests.benchmarks.redirection_study import START
from tests.demo.world import Clock, World, must


def committed(
    root: Path, model: Graph, recipe: Recipe, trained: tuple[np.ndarray, np.ndarray],
    unseen: tuple[np.ndarray, np.ndarray] | None = None, *, schema: InputSchema | None = None, folds: int = 0, seed: int = 0,
) -> Workspace:  # fmt: skip
    """Commit a base and the records that it was trained on, as a data file has them."""
    world = World(root=root, clock=Clock(START))
    world.build()
    (root / "base.onnx").write_bytes(profile.serialise(model))
    (root / "recipe.json").write_bytes(recipe_file.serialise(recipe))
    more = {} if unseen is None else {"X_test": unseen[0], "y_test": unseen[1]}
    np.savez(root / "train.npz", X_train=trained[0], y_train=trained[1], **more)
    options: list[object] = ["--folds", folds, "--seed", seed] if folds else ["--no-prepare"]
    if schema is not None:
        (root / "schema.json").write_bytes(schema.to_bytes())
        options += ["--schema", root / "schema.json"]
    must(
        "prune-owner", "commit", "--model", root / "base.onnx", "--data", root / "train.npz", "--recipe",
        root / "recipe.json", *options, "--out", root / "commitment", "--key", world.key("owner"), "--log",
        world.owner_log, "--now", world.clock.tick(),
    )  # fmt: skip
    return Workspace(folder=root / "commitment")
