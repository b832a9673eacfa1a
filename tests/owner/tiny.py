"""A world small enough to build in a second: 60 records of 4x4 integers, three classes, a tiny perceptron."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from owner.architectures import mlp
from owner.training import train
from protocol.model import profile
from protocol.model import recipe as recipe_file
from protocol.model.recipe import Recipe
from tests.demo.world import Clock, Ran, World, must, run

START = 1_780_000_000
CLASSES = 3


def records(count, seed):
    random = np.random.default_rng(seed)
    y = random.integers(0, CLASSES, count)
    centres = np.random.default_rng(1).integers(2, 15, (CLASSES, 4, 4))
    X = np.clip(centres[y] + random.integers(-2, 3, (count, 4, 4)), 0, 16)
    X[0, 0] = [0, 16, 0, 16]  # the whole range occurs
    return X.astype(np.uint8), y.astype(np.int64)


def base_model(X, y, *, classes=CLASSES, scale=16.0):
    inputs = (X.reshape(len(X), -1) / scale).astype(np.float32)
    graph = mlp(inputs.shape[1], (8,), classes=classes)
    rng = np.random.default_rng(0)
    recipe = Recipe(epochs=30, batch=16)
    return profile.serialise(train(graph, inputs, y, members=[np.arange(len(y))], recipe=recipe, rng=rng).model(0))


@dataclass
class Tiny:
    """Paths, and the owner's program with its key and log filled in."""

    world: World

    @property
    def root(self) -> Path:
        return self.world.root

    @property
    def model(self) -> Path:
        return self.root / "base.onnx"

    @property
    def data(self) -> Path:
        return self.root / "train.npz"

    @property
    def commitment(self) -> Path:
        return self.root / "commitment"

    @property
    def request(self) -> Path:
        return self.root / "request.json"

    @property
    def signing(self):
        return ("--key", self.world.key("owner"), "--log", self.world.owner_log, "--now", self.world.clock.tick())

    def owner(self, *arguments) -> Ran:
        return run("prune-owner", *arguments)

    def commit(self, *options, out=None, model=None, data=None) -> Ran:
        return self.owner(
            "commit", "--model", model or self.model, "--data", data or self.data,
            "--recipe", self.root / "recipe.json",
            "--folds", 3, *self.signing, "--out", out or self.root / "second", *options,
        )  # fmt: skip

    def ask(self, *what, out=None) -> Ran:
        return self.owner(
            "request", "--commitment", self.commitment, *what, *self.signing, "--out", out or self.root / "another.json"
        )

    def unlearn(self, *options, out=None, request=None) -> Ran:
        return self.owner(
            "unlearn", "--commitment", self.commitment, "--request", request or self.request, *self.signing,
            "--out", out or self.root / "bundle", *options,
        )  # fmt: skip

    def entries(self) -> int:
        from protocol.log.store import Log

        return Log.open(self.world.owner_log).size


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def build(root: Path, *, subjects: bool = True) -> Tiny:
    tiny = Tiny(World(root=root, clock=Clock(START)))
    tiny.world.build()
    X, y = records(60, 5)
    X_test, y_test = records(30, 6)
    tiny.model.write_bytes(base_model(X, y))
    (root / "recipe.json").write_bytes(recipe_file.serialise(Recipe(epochs=2, batch=16)))
    names = np.array([f"person {row % 20}" if row % 20 else "" for row in range(60)])
    save(tiny.data, X_train=X, y_train=y, X_test=X_test, y_test=y_test, subject_train=names)
    ran = tiny.commit(out=tiny.commitment)
    assert ran.code == 0, ran.err
    ran = tiny.ask("--records", "3,17,40", out=tiny.request)
    assert ran.code == 0, ran.err
    return tiny


def one_line(ran: Ran, code: int, *words: str) -> None:
    """A readable refusal: this exit code, one line that names the program, these words, no traceback."""
    assert ran.code == code, (ran.code, ran.out, ran.err)
    lines = ran.err.strip().splitlines()
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("prune-owner: ")
    assert "Traceback" not in ran.err
    assert "bug" not in lines[0]
    for word in words:
        assert word in lines[0], (word, lines[0])


__all__ = ["Tiny", "base_model", "build", "json", "must", "one_line", "records", "save"]
