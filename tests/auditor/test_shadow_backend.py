"""Shadows trained on other processes are those of the local run, bit for bit."""

import importlib.util
import sys
import types

import joblib
import numpy as np
import pytest
import torch

from auditor.shadow_backend import train_shadows_on
from auditor.shadows import train_shadows
from protocol.errors import AuditorError
from protocol.model.recipe import Recipe
from tests.auditor.samples import conv_net, mlp

RECIPE = Recipe(epochs=2, batch=16, rate=1e-2)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data(shape, classes, count=40):
    random = np.random.default_rng(0)
    return random.normal(size=(count, *shape)).astype(np.float32), random.integers(0, classes, count)


def same(first, second):
    np.testing.assert_array_equal(first.out, second.out)
    assert first.parameters.keys() == second.parameters.keys()
    for name, array in first.parameters.items():
        np.testing.assert_array_equal(array, second.parameters[name])


@pytest.mark.parametrize("graph", [mlp([6, 8, 3]), conv_net()], ids=["perceptron", "convolutional"])
def test_processes_give_the_local_run(graph, tmp_path):
    inputs, labels = data(graph.input_shape, graph.classes)
    how = {"recipe": RECIPE, "seed": 5, "count": 5, "chunk": 2}
    told = []
    spread = train_shadows_on(graph, inputs, labels, progress=lambda *x: told.append(x), cache=tmp_path, **how)
    same(spread, train_shadows(graph, inputs, labels, **how))
    assert [total for _, total in told] == [10, 10, 10]
    assert told[-1] == (10, 10)
    # The local run takes the chunks, and what is missing is trained again and nothing else.
    files = sorted(tmp_path.rglob("*.npz"))
    files[1].unlink()
    told.clear()
    same(spread, train_shadows_on(graph, inputs, labels, progress=lambda *x: told.append(x), cache=tmp_path, **how))
    assert len(told) == 1
    assert sorted(tmp_path.rglob("*.npz")) == files
    told.clear()
    same(spread, train_shadows_on(graph, inputs, labels, progress=lambda *x: told.append(x), cache=tmp_path, **how))
    assert told == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dask_cluster_of_two_worker_processes_gives_the_local_run():
    distributed = pytest.importorskip("dask.distributed", reason="dask and distributed are not installed")
    graph = mlp([6, 8, 3])
    inputs, labels = data(graph.input_shape, graph.classes)
    how = {"recipe": RECIPE, "seed": 5, "count": 6, "chunk": 2}
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        assert len(cluster.scheduler_info["workers"]) == 2
        spread = train_shadows_on(graph, inputs, labels, backend="dask", address=cluster.scheduler_address, **how)
    same(spread, train_shadows(graph, inputs, labels, **how))


def test_ray_is_used_through_its_own_joblib_backend(monkeypatch):
    # ray itself is not installed here: the calls that join it to joblib are checked, with a stand-in behind them.
    started, registered = [], []
    ray = types.ModuleType("ray")
    ray.is_initialized = lambda: bool(started)
    ray.init = lambda *, address: started.append(address)
    bridge = types.ModuleType("ray.util.joblib")
    bridge.register_ray = lambda: registered.append(
        joblib.register_parallel_backend("ray", joblib.parallel.BACKENDS["sequential"])
    )
    for name, module in (("ray", ray), ("ray.util", types.ModuleType("ray.util")), ("ray.util.joblib", bridge)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(joblib.parallel.BACKENDS, "ray", None)
    graph = mlp([6, 8, 3])
    inputs, labels = data(graph.input_shape, graph.classes)
    how = {"recipe": RECIPE, "seed": 5, "count": 2, "chunk": 1}
    local = train_shadows(graph, inputs, labels, **how)
    for _ in range(2):
        same(train_shadows_on(graph, inputs, labels, backend="ray", **how), local)
    assert started == ["auto"]
    assert len(registered) == 2


def test_backends_that_are_not_there(monkeypatch):
    graph = mlp([6, 8, 3])
    inputs, labels = data(graph.input_shape, graph.classes)
    how = {"recipe": RECIPE, "seed": 5, "count": 2}
    with pytest.raises(AuditorError, match="loky, dask, ray"):
        train_shadows_on(graph, inputs, labels, backend="spark", **how)
    with pytest.raises(AuditorError, match="at least one worker"):
        train_shadows_on(graph, inputs, labels, workers=0, **how)
    with pytest.raises(AuditorError, match="finite float32"):
        train_shadows_on(graph, inputs.astype(np.float64), labels, **how)
    if importlib.util.find_spec("distributed"):
        with pytest.raises(AuditorError, match="address"):
            train_shadows_on(graph, inputs, labels, backend="dask", **how)
        with pytest.raises(AuditorError, match="no dask scheduler"):
            train_shadows_on(graph, inputs, labels, backend="dask", address="nonsense://x", **how)
    for name, package in (("dask", "dask.distributed"), ("ray", "ray")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(AuditorError, match=f"the {name} backend needs"):
            train_shadows_on(graph, inputs, labels, backend=name, address="tcp://127.0.0.1:1", **how)
