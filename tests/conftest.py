"""Shared fixtures: one small world in which both programs have played the honest flow, built once a session."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocol.model.recipe import Recipe


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory):
    """A demonstration on 500 real digits with an honest bundle, audited under `indistinguishable`.

    `demo.world.root` has keys, logs, policy, trust, profile, commitment, honest/{bundle,openings,report}.
    Treat it as read-only; `world_copy` gives a copy to break.
    """
    from tests.demo.__main__ import START, Demo
    from tests.demo.data import digits
    from tests.demo.world import Clock, World

    parts = digits()
    parts = replace(
        parts,
        X_train=parts.X_train[:400], y_train=parts.y_train[:400],
        X_unseen=parts.X_unseen[:60], y_unseen=parts.y_unseen[:60],
        X_reference=parts.X_reference[:400], y_reference=parts.y_reference[:400],
        forget=40, margin=0.3,
    )  # fmt: skip
    demo = Demo(World(root=tmp_path_factory.mktemp("world"), clock=Clock(START)), parts, kind="mlp", seed=3)
    demo.recipe = Recipe(epochs=15, batch=32)
    demo.shadows = 12
    demo.prepare()
    rows = np.random.default_rng(3).choice(400, 40, replace=False)
    demo.records_request = demo.request("records", "--records", ",".join(str(int(row)) for row in sorted(rows)))
    demo.honest_bundle = demo.honest("honest", demo.records_request, folder="honest")
    return demo


@pytest.fixture
def world_copy(small_demo, tmp_path):
    """A private copy of the small world's folder, as a `World`; break it at will."""
    from tests.demo.world import Clock, World

    root = tmp_path / "world"
    shutil.copytree(small_demo.world.root, root)
    return World(root=root, clock=Clock(small_demo.world.clock.now))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not beside this checkout")
    return folder
