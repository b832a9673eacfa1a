"""Shadows: against training one model at a time with torch.nn, and the cache against tampering and interruption."""

import numpy as np
import pytest
import torch
from torch import nn

from auditor import shadow_cache
from auditor import shadows as module
from auditor.execute import Program
from auditor.shadows import train_shadows
from owner.architectures import small_conv
from protocol.digests import sha256_hex
from protocol.errors import AuditorError
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe
from tests.auditor.samples import Builder, conv_net, mlp

RECIPE = Recipe(rate=1e-2, epochs=3, batch=8)


def _data(graph, records=20, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, graph.classes, records)
    inputs = random.normal(size=(records, *graph.input_shape)) + labels.reshape(-1, *[1] * len(graph.input_shape))
    return inputs.astype(np.float32), labels


def _with_values(shadows, index):
    values = {name: array[index] for name, array in shadows.parameters.items()}
    graph = shadows.graph
    return Graph(
        opset=graph.opset,
        input=graph.input,
        input_shape=graph.input_shape,
        output=graph.output,
        classes=graph.classes,
        nodes=graph.nodes,
        initialisers={**graph.initialisers, **values},
    )


@pytest.mark.parametrize("graph", [mlp([5, 8, 3]), conv_net()], ids=["mlp", "conv"])
def test_logits_are_those_of_the_graph_with_the_shadows_values(graph):
    inputs, labels = _data(graph)
    shadows = train_shadows(graph, inputs, labels, recipe=RECIPE, seed=3, count=3)
    logits = shadows.logits(inputs, batch=7)
    assert logits.shape == (3, 20, graph.classes)
    for index in range(3):
        expected = Program(_with_values(shadows, index))(inputs)
        np.testing.assert_allclose(logits[index], expected, atol=1e-4)


def test_halves_are_halves_and_differ():
    graph = mlp([5, 3])
    inputs, labels = _data(graph, records=21)
    shadows = train_shadows(graph, inputs, labels, recipe=RECIPE, seed=3, count=6)
    assert shadows.out.shape == (6, 21)
    assert ((~shadows.out).sum(axis=1) == 10).all()
    assert len(np.unique(shadows.out, axis=0)) == 6


def test_the_seed_decides_and_the_chunk_does_not():
    graph = conv_net()
    inputs, labels = _data(graph)
    one = train_shadows(graph, inputs, labels, recipe=RECIPE, seed=3, count=4, chunk=4)
    two = train_shadows(graph, inputs, labels, recipe=RECIPE, seed=3, count=4, chunk=3)
    other = train_shadows(graph, inputs, labels, recipe=RECIPE, seed=4, count=4, chunk=4)
    assert (one.out == two.out).all()
    assert (one.out != other.out).any()
    np.testing.assert_allclose(one.logits(inputs), two.logits(inputs), atol=1e-3)


def test_a_shadow_fits_its_own_half_better():
    graph = mlp([20, 64, 4])
    random = np.random.default_rng(0)
    inputs, labels = random.normal(size=(60, 20)).astype(np.float32), random.integers(0, 4, 60)
    shadows = train_shadows(graph, inputs, labels, recipe=Recipe(rate=1e-2, epochs=60, batch=16), seed=0, count=4)
    right = shadows.logits(inputs).argmax(axis=2) == labels
    # Labels are noise: a shadow knows those it has seen and guesses the others.
    assert right[~shadows.out].mean() > 0.95
    assert right[shadows.out].mean() < 0.5


def _torch_twin(graph, values, inputs, labels, orders, recipe):
    """The same training, one model, by torch.nn modules."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 3),
    )  # fmt: skip
    with torch.no_grad():
        targets = [net[0].weight, net[1].weight, net[1].bias, net[1].running_mean, net[1].running_var]
        for target, name in zip([*targets, net[5].bias, net[5].weight], sorted(values), strict=True):
            target.copy_(torch.from_numpy(values[name]))
    kind = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.SGD
    extra = {} if recipe.optimiser == "adam" else {"momentum": 0.9}
    optimiser = kind(net.parameters(), recipe.rate, weight_decay=recipe.weight_decay, **extra)
    for picked in orders:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(torch.from_numpy(inputs[picked])), torch.from_numpy(labels[picked]))
        loss.backward()
        optimiser.step()
    return net.eval()


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_training_is_what_torch_does_one_model_at_a_time(optimiser):
    graph = conv_net()
    inputs, labels = _data(graph, records=20)
    recipe = Recipe(optimiser=optimiser, rate=1e-2, epochs=3, batch=4, weight_decay=1e-3)
    shadows = train_shadows(graph, inputs, labels, recipe=recipe, seed=5, count=2)
    for index in range(2):
        random = np.random.default_rng(np.random.SeedSequence(entropy=5, spawn_key=(index,)))
        members = np.sort(random.permutation(20)[:10])
        assert (np.flatnonzero(~shadows.out[index]) == members).all()
        values = module._Network(graph).initial(random)
        orders = [part for _ in range(3) for part in np.array_split(random.permutation(members), 3)]
        net = _torch_twin(graph, values, inputs, labels, orders, recipe)
        with torch.no_grad():
            expected = net(torch.from_numpy(inputs)).numpy()
        # Adam divides tiny gradients by their own size, which amplifies another order of summation.
        np.testing.assert_allclose(shadows.logits(inputs)[index], expected, atol=5e-3)
        np.testing.assert_allclose(shadows.parameters["w3"][index], net[1].running_mean.numpy(), atol=1e-3)
        np.testing.assert_allclose(shadows.parameters["w4"][index], net[1].running_var.numpy(), atol=1e-3)


def _used_twice(transposed):
    builder = Builder(np.random.default_rng(0), (40,))
    weight, bias = builder.weight(40, 40), builder.weight(40)
    builder.apply("Gemm", "x", weight, bias, transB=1)
    builder.apply("Gemm", builder.last, weight, bias, transB=transposed)
    builder.apply("Relu", builder.last)
    builder.apply("Gemm", builder.last, builder.weight(3, 40), builder.weight(3), transB=1, shape=(3,))
    return builder.graph()


@pytest.mark.parametrize(
    "graph", [mlp([5, 40, 3]), mlp([5, 8, 40, 4]), _used_twice(1)], ids=["wide", "narrow first", "a weight used twice"]
)
def test_perceptrons_by_products_written_out_are_those_of_vmap(graph, monkeypatch):
    network = module._Network(graph)
    assert network.stackable
    assert len(network.turned) == 1
    assert network.narrow
    inputs, labels = _data(graph)
    how = {"recipe": RECIPE, "seed": 3, "count": 3}
    quick = train_shadows(graph, inputs, labels, **how)
    monkeypatch.setattr(module._Network, "stackable", False)
    slow = train_shadows(graph, inputs, labels, **how)
    assert (quick.out == slow.out).all()
    for name, array in quick.parameters.items():
        assert array.shape == slow.parameters[name].shape
        np.testing.assert_allclose(array, slow.parameters[name], atol=1e-4)


def _relu_of_a_weight():
    builder = Builder(np.random.default_rng(0), (5,))
    bias = builder.weight(3)
    builder.apply("Relu", bias)
    builder.apply("Gemm", "x", builder.weight(3, 5), builder.last, transB=1, shape=(3,))
    return builder.graph()


def _conv_of(operator, **attributes):
    """A convolution of one channel, another operator and a linear layer."""
    builder = Builder(np.random.default_rng(0), (1, 6, 6))
    builder.apply("Conv", "x", builder.weight(4, 1, 3, 3), shape=(4, 6, 6), kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    if operator:
        builder.apply(operator, builder.last, **attributes)
    builder.flatten()
    builder.apply("Gemm", builder.last, builder.weight(3, builder.shape[0]), builder.weight(3), transB=1, shape=(3,))
    return builder.graph()


def _scaled():
    builder = Builder(np.random.default_rng(0), (1, 6, 6))
    builder.apply("Mul", "x", builder.weight(1, 1, 1))
    builder.flatten()
    builder.apply("Gemm", builder.last, builder.weight(3, 36), builder.weight(3), transB=1, shape=(3,))
    return builder.graph()


def _ends_in_a_picture():
    builder = Builder(np.random.default_rng(0), (1, 6, 6))
    builder.apply("GlobalAveragePool", "x", shape=(1, 1, 1))
    return builder.graph()


@pytest.mark.parametrize(
    ("graph", "fits"),
    [
        (conv_net(), True),
        (small_conv((3, 8, 8), classes=3, width=4), True),
        (small_conv((1, 8, 8), classes=3, width=4, residual=False), True),
        (_conv_of("Relu"), True),
        (_conv_of(None), True),
        (_used_twice(1), True),
        (_used_twice(0), False),
        (_relu_of_a_weight(), False),
        (_scaled(), False),
        (_ends_in_a_picture(), False),
    ],
    ids=[
        "conv, norm and pool", "residual", "no residual", "relu", "conv", "twice", "once turned", "of a weight", "constant",
        "picture",
    ],
)  # fmt: skip
def test_what_runs_as_one_network(graph, fits):
    assert module._Network(graph).stackable is fits


@pytest.mark.parametrize(
    "graph",
    [conv_net(), small_conv((3, 8, 8), classes=3, width=4), _conv_of("Relu")],
    ids=["conv, norm and pool", "residual", "relu"],
)
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_grouped_convolutions_train_what_vmap_and_each_shadow_alone_train(graph, optimiser, monkeypatch):
    inputs, labels = _data(graph, records=24)
    # A step of Adam is as long for a gradient that is all rounding: few steps, and a wider tolerance.
    recipe = Recipe(optimiser=optimiser, rate=1e-3, epochs=2, batch=6, weight_decay=1e-3)
    how = {"recipe": recipe, "seed": 3, "count": 3}
    grouped = train_shadows(graph, inputs, labels, **how)
    alone = train_shadows(graph, inputs, labels, **how, chunk=1)
    monkeypatch.setattr(module._Network, "stackable", False)
    by_vmap = train_shadows(graph, inputs, labels, **how)
    start = module._Network(graph).initial(np.random.default_rng(0))
    for other in (alone, by_vmap):
        assert (grouped.out == other.out).all()
        for name, array in grouped.parameters.items():
            assert array.shape == (3, *start[name].shape)
            tolerance = 1e-5 if optimiser == "sgd" else 4 * 3 * 1e-3
            np.testing.assert_allclose(array, other.parameters[name], atol=tolerance, rtol=1e-4)
        np.testing.assert_allclose(
            grouped.logits(inputs), other.logits(inputs), atol=1e-4 if optimiser == "sgd" else 0.05
        )


def test_the_style_of_scikit_learn_starts_within_its_bounds_and_leaves_a_short_batch(monkeypatch, tmp_path):
    graph = mlp([50, 40, 3])
    values = module._Network(graph).initial(np.random.default_rng(0), "scikit-learn")
    for name, outer in module._Network(graph).fan_out.items():
        bound = (6 / (module._Network(graph).fan_in[name] + outer)) ** 0.5
        assert np.abs(values[name]).max() <= bound
        assert values[name].size < 50 or np.abs(values[name]).max() > 0.9 * bound
    sizes = []
    real = module.stacked.run

    def run(*arguments):
        sizes.append(arguments[-1].shape[1])
        return real(*arguments)

    monkeypatch.setattr(module.stacked, "run", run)
    inputs, labels = _data(graph, records=42)
    how = {"recipe": Recipe(epochs=1, batch=8), "seed": 0, "count": 2, "cache": tmp_path}
    train_shadows(graph, inputs, labels, style="scikit-learn", **how)
    train_shadows(graph, inputs, labels, **how)
    assert sizes == [8, 8, 5, 7, 7, 7]
    assert len(list(tmp_path.iterdir())) == 2  # keys of their own
    with pytest.raises(AuditorError, match="perceptrons alone"):
        train_shadows(conv_net(), *_data(conv_net()), recipe=RECIPE, seed=0, count=1, style="scikit-learn")
    with pytest.raises(AuditorError, match="the style is"):
        train_shadows(graph, inputs, labels, recipe=RECIPE, seed=0, count=1, style="jax")


def test_one_value_to_normalise_by(monkeypatch):
    builder = Builder(np.random.default_rng(0), (1, 1, 1))
    builder.apply("Conv", "x", builder.weight(2, 1, 1, 1), shape=(2, 1, 1), kernel_shape=(1, 1))
    names = [builder.weight(2), builder.weight(2), builder.weight(2), builder.weight(2, positive=True)]
    builder.apply("BatchNormalization", builder.last, *names)
    builder.flatten()
    builder.apply("Gemm", builder.last, builder.weight(3, 2), builder.weight(3), transB=1, shape=(3,))
    graph = builder.graph()
    inputs, labels = _data(graph, records=6)
    how = {"recipe": Recipe(rate=1e-2, epochs=1, batch=1, optimiser="sgd"), "seed": 3, "count": 2}
    grouped = train_shadows(graph, inputs, labels, **how)
    assert module._Network(graph).stackable
    monkeypatch.setattr(module._Network, "stackable", False)
    by_vmap = train_shadows(graph, inputs, labels, **how)
    for name, array in grouped.parameters.items():
        np.testing.assert_allclose(array, by_vmap.parameters[name], atol=1e-5)


def test_constants_of_the_architecture_stay_and_biases_are_trained():
    builder = Builder(np.random.default_rng(0), (4,))
    builder.apply("Sub", "x", builder.weight(4))
    builder.apply("Mul", builder.last, builder.weight(4))
    builder.apply("Add", builder.last, builder.weight(4))
    builder.linear(5, "matmul")
    builder.apply("Relu", builder.last)
    builder.linear(3, "matmul")
    network = module._Network(builder.graph())
    assert network.trained == ["w3", "w4", "w5", "w6"]
    assert network.fan_in == {"w3": 4, "w4": 4, "w5": 5, "w6": 5}
    assert {"w0", "w1", "w2"} <= network.constants.keys()


def _cached(tmp_path, **changes):
    graph = changes.pop("graph", mlp([5, 8, 3]))
    inputs, labels = _data(graph)
    calls = []
    arguments = {"recipe": RECIPE, "seed": 3, "count": 5, "chunk": 2, "cache": tmp_path, **changes}
    shadows = train_shadows(graph, inputs, labels, progress=lambda *done: calls.append(done), **arguments)
    return shadows, calls


class _Counter:
    def __init__(self, monkeypatch, fail_at=None):
        self.trained = 0
        real = module._train

        def train(*arguments):
            if self.trained == fail_at:
                raise KeyboardInterrupt
            self.trained += 1
            return real(*arguments)

        monkeypatch.setattr(module, "_train", train)


def test_a_second_run_takes_everything_from_the_cache(tmp_path, monkeypatch):
    first, calls = _cached(tmp_path)
    # Three epochs of five shadows, two at a time: told of after each epoch, not after each chunk alone.
    assert calls == [(done, 15) for done in (2, 4, 6, 8, 10, 12, 13, 14, 15)]
    counter = _Counter(monkeypatch)
    second, calls = _cached(tmp_path)
    assert counter.trained == 0
    assert calls == [(6, 15), (12, 15), (15, 15)]
    assert (first.out == second.out).all()
    for name, array in first.parameters.items():
        assert array.tobytes() == second.parameters[name].tobytes()


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        _Counter(patched, fail_at=2)
        with pytest.raises(KeyboardInterrupt):
            _cached(tmp_path)
    counter = _Counter(monkeypatch)
    resumed, _ = _cached(tmp_path)
    assert counter.trained == 1
    assert (resumed.out == _cached(tmp_path / "fresh")[0].out).all()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"count": 6},
        {"recipe": Recipe(rate=1e-2, epochs=4, batch=8)},
        {"recipe": Recipe(rate=1e-2, epochs=3, batch=8, weight_decay=1e-4)},
        {"graph": mlp([5, 8, 3], seed=1)},
        {"graph": mlp([5, 9, 3])},
    ],
)
def test_whatever_made_the_shadows_is_in_the_key(tmp_path, change, monkeypatch):
    _cached(tmp_path)
    counter = _Counter(monkeypatch)
    _cached(tmp_path, **change)
    assert counter.trained == 3


def test_other_data_has_another_key(tmp_path):
    graph = mlp([5, 3])
    inputs, labels = _data(graph)
    for data in (
        (inputs, labels),
        (inputs + np.float32(1), labels),
        (inputs, (labels + 1) % 3),
        (inputs[:-1], labels[:-1]),
    ):
        train_shadows(graph, *data, recipe=RECIPE, seed=0, count=1, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def _files(tmp_path):
    return sorted(tmp_path.rglob("*.npz"))


def test_a_damaged_chunk_is_trained_again(tmp_path, monkeypatch):
    _cached(tmp_path)
    path = _files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    counter = _Counter(monkeypatch)
    _cached(tmp_path)
    assert counter.trained == 1
    assert path.read_bytes() != bytes(data)


def _replace(path, data):
    path.unlink()
    start_stop = "-".join(path.name.split("-")[:2])
    (path.parent / f"{start_stop}-{sha256_hex(data)}.npz").write_bytes(data)


@pytest.mark.parametrize("kind", ["rubbish", "missing", "shape", "pickle", "nan", "index", "name"])
def test_a_chunk_of_other_content_is_not_used(tmp_path, monkeypatch, kind):
    _cached(tmp_path)
    path = _files(tmp_path)[0]
    with np.load(path) as stored:
        arrays = dict(stored)
    if kind == "missing":
        del arrays["a1"]
    elif kind == "shape":
        arrays["a1"] = arrays["a1"][:1]
    elif kind == "pickle":
        arrays["a1"] = np.array([{}])
    elif kind == "nan":
        arrays["a1"] = arrays["a1"] * np.float32(np.nan)
    elif kind == "index":
        arrays["a0"] = arrays["a0"] + 20
    if kind == "rubbish":
        _replace(path, b"rubbish")
    elif kind == "name":
        path.rename(path.with_name(path.name.replace(".npz", "0.npz")))
    else:
        np.savez(path, **arrays)
        _replace(path, path.read_bytes())
    counter = _Counter(monkeypatch)
    _cached(tmp_path)
    assert counter.trained == 1


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(_):
        raise OSError

    monkeypatch.setattr(shadow_cache.os, "fsync", fail)
    with pytest.raises(OSError):
        _cached(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_divergence_is_an_error():
    graph = mlp([5, 8, 3])
    inputs, labels = _data(graph)
    recipe = Recipe(optimiser="sgd", rate=1e30, epochs=5, batch=4)
    with pytest.raises(AuditorError, match="diverged"):
        train_shadows(graph, inputs, labels, recipe=recipe, seed=0, count=1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": np.zeros((20, 5))}, "finite float32"),
        ({"inputs": np.zeros((20, 4), np.float32)}, "finite float32"),
        ({"inputs": np.full((20, 5), np.nan, np.float32)}, "finite float32"),
        ({"labels": np.zeros(20, np.int32)}, "int64 class"),
        ({"labels": np.zeros(19, np.int64)}, "int64 class"),
        ({"inputs": np.zeros((3, 5), np.float32), "labels": np.zeros(3, np.int64)}, "at least 4"),
        ({"labels": np.full(20, 3)}, "does not have"),
        ({"labels": np.full(20, -1)}, "does not have"),
        ({"count": 0}, "at least 1"),
        ({"chunk": 0}, "at least 1"),
        ({"seed": -1}, "at least 0"),
        ({"recipe": Recipe(epochs=0)}, "at least 1"),
        ({"recipe": Recipe(rate=0)}, "rate above 0"),
        ({"recipe": Recipe(optimiser="adagrad")}, "adam or sgd"),
    ],
)
def test_calls_that_do_not_fit(change, reason):
    graph = mlp([5, 3])
    inputs, labels = _data(graph)
    arguments = {"inputs": inputs, "labels": labels, "recipe": RECIPE, "seed": 0, "count": 1, **change}
    with pytest.raises(AuditorError, match=reason):
        train_shadows(graph, **arguments)


def test_an_architecture_with_nothing_to_train():
    builder = Builder(np.random.default_rng(0), (3,))
    builder.apply("Relu", "x")
    with pytest.raises(AuditorError, match="no parameters"):
        train_shadows(builder.graph(), *_data(builder.graph()), recipe=RECIPE, seed=0, count=1)
