"""Shadows trained on other processes are those of the local run, bit for bit."""

import importlib.util
import sys
import types

import joblib
import numpy as np
import pytest
import torch

from auditor import shadow_backend
from auditor.shadow_backend import train_shadows_on
from auditor.shadow_cache import store_chunk
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
    assert {total for _, total in told} == {10}
    assert told == sorted(told)
    assert told[-1] == (10, 10)
    # The local run takes the chunks, and what is missing is trained again and nothing else.
    files = sorted(tmp_path.rglob("*.npz"))
    files[1].unlink()
    told.clear()
    same(spread, train_shadows_on(graph, inputs, labels, progress=lambda *x: told.append(x), cache=tmp_path, **how))
    assert told[0][0] >= 6  # three shadows of five were there
    assert told[-1] == (10, 10)
    assert sorted(tmp_path.rglob("*.npz")) == files
    told.clear()
    same(spread, train_shadows_on(graph, inputs, labels, progress=lambda *x: told.append(x), cache=tmp_path, **how))
    assert told == []


def test_workers_tell_of_epochs_while_chunks_are_under_way(monkeypatch):
    monkeypatch.setattr(shadow_backend, "_PAUSE", 0.005)
    graph = mlp([6, 8, 3])
    inputs, labels = data(graph.input_shape, graph.classes, count=4000)
    told = []
    recipe = Recipe(epochs=8, batch=32, rate=1e-3)
    how = {"recipe": recipe, "seed": 5, "count": 2, "chunk": 1, "workers": 2}
    train_shadows_on(graph, inputs, labels, progress=lambda *x: told.append(x), **how)
    # Two chunks of eight epochs each: more was told than that they came in, never a step back, and the end.
    assert len({done for done, _ in told if 0 < done < 16 and done != 8}) >= 2
    assert told == sorted(told)
    assert told[-1] == (16, 16)


def test_an_interrupted_run_on_processes_goes_on_where_it_stopped(tmp_path, monkeypatch):
    graph = mlp([6, 8, 3])
    inputs, labels = data(graph.input_shape, graph.classes)
    how = {"recipe": RECIPE, "seed": 5, "count": 6, "chunk": 2, "workers": 1, "cache": tmp_path}
    kept = []

    def stop_at_the_second(*arguments):
        if kept:
            raise KeyboardInterrupt
        store_chunk(*arguments)
        kept.append(arguments[1:3])

    with monkeypatch.context() as patched:
        patched.setattr(shadow_backend, "store_chunk", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            train_shadows_on(graph, inputs, labels, **how)
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    later = []
    monkeypatch.setattr(
        shadow_backend, "store_chunk", lambda *arguments: (later.append(arguments[1:3]), store_chunk(*arguments))
    )
    resumed = train_shadows_on(graph, inputs, labels, **how)
    assert sorted(kept + later) == [(0, 2), (2, 4), (4, 6)]
    same(resumed, train_shadows(graph, inputs, labels, recipe=RECIPE, seed=5, count=6, chunk=2))


def test_nobody_waits_for_ever_for_workers_that_say_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shadow_backend, "_PATIENCE", 0.2)
    told = []
    silent = shadow_backend._Told(tmp_path, [(0, 2)], 30)
    silent.wait(told.append)
    assert told == [0]
    silent.path((0, 2)).write_text("half a num")
    assert silent.read() == 0
    silent.path((0, 2)).write_text("7")
    assert silent.read() == 14
    silent.path((0, 2)).write_text("")  # being written again
    assert silent.read() == 14
    silent.path((0, 2)).write_text("99999")
    assert silent.read() == 60


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


def test_a_ray_cluster_that_does_not_answer_is_refused_in_one_line(monkeypatch):
    def init(*, address):
        raise ConnectionError(
            f"Could not find any running Ray instance at {address}.\nPlease specify the one to connect to"
        )

    ray = types.ModuleType("ray")
    ray.is_initialized, ray.init = lambda: False, init
    bridge = types.ModuleType("ray.util.joblib")
    bridge.register_ray = lambda: None
    for name, module in (("ray", ray), ("ray.util", types.ModuleType("ray.util")), ("ray.util.joblib", bridge)):
        monkeypatch.setitem(sys.modules, name, module)
    graph = mlp([6, 8, 3])
    with pytest.raises(AuditorError, match=r"^no ray cluster answers at auto: Could not find[^\n]*$"):
        train_shadows_on(graph, *data(graph.input_shape, 3), recipe=RECIPE, seed=5, count=2, backend="ray")


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
