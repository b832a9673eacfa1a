"""Training on a GPU gives what training on the processor gives, up to rounding; without one both programs say so."""

import json

import numpy as np
import pytest
import torch

from auditor.shadows import train_shadows
from owner.architectures import mlp, small_conv
from owner.training import train
from protocol.errors import AuditorError, OwnerError
from protocol.model.recipe import Recipe
from tests.demo.world import run

GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not GPU, reason="no GPU here")
SHORT = Recipe(epochs=2, batch=16, rate=1e-3)


def pictures(count=64, classes=3, seed=0):
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, count)
    x = random.normal(size=(count, 1, 8, 8)) + y.reshape(-1, 1, 1, 1)
    return x.astype(np.float32), y


def graph_and_data(kind):
    x, y = pictures()
    if kind == "conv":
        return small_conv((1, 8, 8), classes=3, width=4), x, y
    return mlp(64, (16,), classes=3), x.reshape(len(x), -1), y


def near(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        # Six or eight steps of Adam amplify what rounding does to small gradients; a rate is 1e-3.
        np.testing.assert_allclose(array, other[name], atol=2e-4, err_msg=name)


@needs_gpu
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_owner_trains_the_same_model(kind):
    graph, x, y = graph_and_data(kind)
    made = [
        train(
            graph, x, y, members=[np.arange(40), np.arange(64)], recipe=SHORT, rng=np.random.default_rng(3), device=device
        )
        for device in ("cpu", "cuda")
    ]  # fmt: skip
    near(made[0].parameters, made[1].parameters)


@needs_gpu
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_auditor_trains_the_same_shadows(kind, tmp_path):
    graph, x, y = graph_and_data(kind)
    how = {"recipe": SHORT, "seed": 5, "count": 4, "cache": tmp_path}
    made = [train_shadows(graph, x, y, device=device, **how) for device in ("cpu", "cuda")]
    assert (made[0].out == made[1].out).all()
    near(made[0].parameters, made[1].parameters)
    np.testing.assert_allclose(made[0].logits(x), made[1].logits(x), atol=1e-2)
    assert len(list(tmp_path.iterdir())) == 2  # neither is taken for the other later


@needs_gpu
@pytest.mark.parametrize(
    "method", ["instance-wise", "distribution-matching", "gradient-ascent", "fine-tune", "retrain"]
)
def test_every_method_that_trains_runs_there(method, small_demo_request, tmp_path):
    world, request = small_demo_request
    target = ("--target", "misclassify") if method == "instance-wise" else ()
    ran = run(
        "prune-owner", "unlearn", "--commitment", world.root / "commitment", "--request", request, "--method", method,
        *target, "--beside", "--device", "cuda", "--out", tmp_path / "bundle", "--key", world.key("owner"), "--log",
        world.owner_log, "--now", world.clock.tick(), "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert json.loads(ran.out.splitlines()[-1])["claims"] > 0


@pytest.fixture
def small_demo_request(world_copy):
    return world_copy, world_copy.root / "requests" / "records.json"


@pytest.mark.skipif(GPU, reason="a GPU is here")
def test_without_one_both_sides_say_so(small_demo_request, tmp_path):
    graph, x, y = graph_and_data("mlp")
    with pytest.raises(OwnerError, match="no GPU"):
        train(graph, x, y, members=[np.arange(9)], recipe=SHORT, rng=np.random.default_rng(0), device="cuda")
    with pytest.raises(AuditorError, match="no GPU"):
        train_shadows(graph, x, y, recipe=SHORT, seed=0, count=2, device="cuda")
    world, request = small_demo_request
    ran = run(
        "prune-owner", "unlearn", "--commitment", world.root / "commitment", "--request", request, "--device", "cuda",
        "--out", tmp_path / "bundle", "--key", world.key("owner"), "--log", world.owner_log, "--now", world.clock.tick(),
    )  # fmt: skip
    assert ran.code == 2
    assert "no GPU" in ran.err
    assert not (tmp_path / "bundle").exists()
