"""The owner's interpreter against onnxruntime on random graphs of the profile."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owner.architectures import mlp, small_conv
from owner.execute import Program
from protocol.errors import OwnerError
from protocol.model.profile import serialise
from tests.protocol.model.samples import graphs, perceptron


def run_onnx(graph, x, outputs=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialise(graph), options, providers=["CPUExecutionProvider"])
    return session.run(outputs, {graph.input: x})[0]


@settings(deadline=None, max_examples=60)
@given(graphs(), st.integers(0, 2**32), st.integers(1, 5))
def test_agrees_with_onnxruntime(graph, seed, records):
    x = np.random.default_rng(seed).normal(size=(records, *graph.input_shape)).astype(np.float32)
    program = Program(graph)
    # Sums may be taken in another order; every number involved is moderate, so 1e-4 of the largest is ample.
    mine, other = program(x), run_onnx(graph, x)
    assert mine.shape == (records, graph.classes)
    assert mine.dtype == np.float32
    assert np.abs(mine - other).max() <= 1e-4 * max(1.0, np.abs(other).max())


@settings(deadline=None, max_examples=20)
@given(graphs(), st.integers(0, 2**32))
def test_a_batch_is_its_records_one_by_one(graph, seed):
    x = np.random.default_rng(seed).normal(size=(5, *graph.input_shape)).astype(np.float32)
    program = Program(graph)
    assert np.allclose(program(x), program(x, batch=2), rtol=1e-4, atol=1e-4)


def test_inner_tensors_come_from_the_same_run():
    graph = perceptron()
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    hidden, relu, logits = Program(graph)(x, outputs=("Gemm_0", "Relu_1", graph.output))
    assert np.array_equal(np.maximum(hidden, 0), relu)
    assert np.array_equal(logits, Program(graph)(x))
    assert Program(graph)(x[:0]).shape == (0, 3)
    assert repr(Program(graph)) == "Program((4,) -> 3, 3 nodes)"


@pytest.mark.parametrize("name", ["nothing", "c0"])
def test_unknown_outputs_are_named(name):
    with pytest.raises(OwnerError) as caught:
        Program(perceptron())(np.zeros((1, 4), np.float32), outputs=(name,))
    assert caught.value.where == name


@pytest.mark.parametrize("x", [np.zeros((1, 4)), np.zeros((1, 5), np.float32)])
def test_other_records_are_refused(x):
    with pytest.raises(OwnerError):
        Program(perceptron())(x)


def test_large_activations_shrink_the_batch(monkeypatch):
    monkeypatch.setattr("owner.execute._ACTIVATION_BUDGET", 10)
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    program = Program(perceptron())
    assert program._batch == 2
    assert program(x).shape == (7, 3)


def test_architectures_run_and_round_trip():
    for graph in (mlp((1, 8, 8), (5,), classes=4), mlp(3, (), classes=2), small_conv((1, 8, 8), classes=4, width=2)):
        assert Program(graph)(np.zeros((2, *graph.input_shape), np.float32)).shape == (2, graph.classes)
    plain = small_conv((2, 9, 9), classes=3, width=2, residual=False)
    assert "Add" not in {node.op for node in plain.nodes}
    with pytest.raises(OwnerError):
        mlp(0, classes=2)
    with pytest.raises(OwnerError):
        small_conv((1, 3, 8), classes=2)
