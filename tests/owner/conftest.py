"""The tiny world of the owner's tests: built once, copied for whoever breaks it."""

import shutil

import pytest

from tests.demo.world import Clock, World
from tests.owner import tiny as tiny_world


@pytest.fixture(scope="session")
def tiny_master(tmp_path_factory):
    return tiny_world.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(tiny_master, tmp_path):
    root = tmp_path / "tiny"
    shutil.copytree(tiny_master.root, root)
    return tiny_world.Tiny(World(root=root, clock=Clock(tiny_master.world.clock.now)))
