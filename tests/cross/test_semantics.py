"""The owner's and the auditor's readings of the model and patch formats are the same.

Two programs written apart from one specification: a difference here is a fault of one of them,
or a sentence of the specification that can be read in two ways.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import auditor.compose
import auditor.execute
import owner.compose
import owner.execute
from owner.architectures import small_conv
from protocol.errors import AuditorError, MalformedError, OwnerError
from protocol.model.operators import PATCHED
from protocol.model.patch import AlwaysGate, Cap, Patch, SetHead, SketchGate, Weight
from protocol.model.profile import parse, serialise
from tests.auditor.samples import cases, graphs, grid_schema, mlp
from tests.protocol.model.samples import rows_patch

TOLERANCE = 2e-4
"""Relative to a record's largest logit: another order of summation, through a few layers."""


@settings(max_examples=120, deadline=None)
@given(cases())
def test_both_compose_the_same_graph(case):
    graph, schema, patch, _ = case
    expected = auditor.compose.compose(graph, schema, patch)
    written = owner.compose.compose(graph, schema, patch)
    assert auditor.compose.compare(expected, written) is None
    assert expected == written
    assert auditor.compose.compare(expected, parse(serialise(written), operators=PATCHED)) is None


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20, 24])
@pytest.mark.parametrize("capped", [False, True])
def test_both_compose_the_same_graph_on_every_opset(opset, capped):
    gate = SketchGate(matrix=np.ones((1, 3), np.int32), low=np.zeros((1, 1), np.int32), high=np.ones((1, 1), np.int32))
    row, caps = np.array([[1, -0.0]], np.float32), (Cap(klass=0, margin="0.1"),) if capped else ()
    patch = rows_patch(3, 2, gate, row, np.array([0]), caps)
    parts = replace(mlp([3, 4, 2]), opset=opset), grid_schema((3,), scale=0.1, offset=0.3, low=-2, high=7), patch
    assert auditor.compose.compare(auditor.compose.compose(*parts), owner.compose.compose(*parts)) is None


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(0, 2**32 - 1))
def test_both_run_a_base_model_alike(graph, seed):
    x = np.random.default_rng(seed).normal(size=(5, *graph.input_shape)).astype(np.float32)
    ours, theirs = auditor.execute.Program(graph)(x), owner.execute.Program(graph)(x)
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    assert (np.abs(ours - theirs) <= TOLERANCE * np.maximum(1, np.abs(ours).max(axis=1, keepdims=True))).all()


def _exact(patch):
    """Numbers of the parts before the first one that a rounding could decide."""
    exact = [isinstance(part.gate, SketchGate | AlwaysGate) for part in patch.parts]
    return range(exact.index(False) if False in exact else len(exact))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_both_gates_decide_alike_bit_for_bit(case):
    graph, schema, patch, x = case
    composed = auditor.compose.compose(graph, schema, patch)
    names = [f"prune/p{n}/{what}" for n in _exact(patch) for what in ("first", "fired", "row_index")]
    made = {output for node in composed.nodes for output in node.outputs}
    more = tuple(name for name in (*names, "prune/grid", "prune/inside") if name in made)
    if not more:
        return
    ours = auditor.execute.Program(composed)(x, outputs=more)
    theirs = owner.execute.Program(composed)(x, outputs=more)
    _, inside = schema.quantise(x)
    for name, left, right in zip(more, ours, theirs, strict=True):
        assert left.dtype == right.dtype
        # Off the declared box the grid value means nothing (it may be NaN, whose bits are not specified).
        rows = inside if name == "prune/grid" else slice(None)
        np.testing.assert_array_equal(left[rows], right[rows], err_msg=name)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_both_run_a_patched_model_alike(case):
    graph, schema, patch, x = case
    if len(_exact(patch)) < len(patch.parts):
        return
    composed = auditor.compose.compose(graph, schema, patch)
    ours, theirs = auditor.execute.Program(composed)(x), owner.execute.Program(composed)(x)
    # Runtimes disagree about NaN in ReduceMax and Min, so records on which the base overflows are left out.
    tame = (np.abs(x.reshape(len(x), -1)) < 100).all(axis=1)
    scale = np.maximum(1, np.abs(ours[tame]).max(axis=1, keepdims=True))
    assert (np.abs(ours[tame] - theirs[tame]) <= TOLERANCE * scale).all()
    if patch.parts and not patch.caps:
        names = tuple(f"prune/p{n}/fired" for n in range(len(patch.parts)))
        fired = np.concatenate(auditor.execute.Program(composed)(x, outputs=names), axis=1)
        first = np.where(fired.any(axis=1), fired.argmax(axis=1), -1)
        copied = [n for n, part in enumerate(patch.parts) if isinstance(part.head, SetHead)]
        assert ours[np.isin(first, copied)].tobytes() == theirs[np.isin(first, copied)].tobytes()
        base = owner.execute.Program(owner.compose.with_weights(graph, patch))(x)
        assert theirs[first < 0].tobytes() == base[first < 0].tobytes()


@pytest.mark.parametrize("fault", ["reserved", "features", "shape", "inexact"])
def test_both_refuse_what_does_not_fit(fault):
    gate = SketchGate(
        matrix=np.full((1, 3), 2**12, np.int32), low=np.zeros((1, 1), np.int32), high=np.ones((1, 1), np.int32)
    )
    graph, schema = mlp([3, 4, 2]), grid_schema((3,), scale=1.0, offset=0.0, low=0, high=9)
    patch = rows_patch(3, 2, gate, np.zeros((1, 2), np.float32), np.array([0]), (Cap(klass=0, margin="1"),))
    if fault == "reserved":
        graph = replace(graph, nodes=(replace(graph.nodes[0], name="prune/flat"), *graph.nodes[1:]))
    elif fault == "features":
        graph, schema = mlp([4, 4, 2]), grid_schema((4,), scale=1.0, offset=0.0, low=0, high=9)
    elif fault == "shape":
        schema = grid_schema((1, 3), scale=1.0, offset=0.0, low=0, high=9)
    else:
        schema = grid_schema((3,), scale=1.0, offset=0.0, low=-1366, high=9)  # 3 * 2^12 * 1366 > 2^24
    with pytest.raises(AuditorError):
        auditor.compose.compose(graph, schema, patch)
    with pytest.raises(OwnerError):
        owner.compose.compose(graph, schema, patch)


def test_both_accept_the_last_exact_sum():
    def parts(low):
        gate = SketchGate(
            matrix=np.full((1, 3), 2**12, np.int32), low=np.zeros((1, 1), np.int32), high=np.ones((1, 1), np.int32)
        )
        rows = np.zeros((1, 2), np.float32)
        patch = rows_patch(3, 2, gate, rows, np.array([0]))
        return mlp([3, 4, 2]), grid_schema((3,), scale=1.0, offset=0.0, low=low, high=9), patch

    assert auditor.compose.compare(auditor.compose.compose(*parts(-1365)), owner.compose.compose(*parts(-1365))) is None


def weights_only(graph, **arrays):
    made = tuple(Weight(name=name, values=array) for name, array in sorted(arrays.items()))
    return Patch(features=graph.features, classes=graph.classes, weights=made)


def coarse(graph):
    return grid_schema(graph.input_shape, scale=1.0, offset=0.0, low=0, high=4)


def test_new_weights_alone_leave_a_model_without_a_tail():
    graph = mlp([3, 4, 2])
    name = next(iter(graph.initialisers))
    values = graph.initialisers[name] + np.float32(1)
    patch = weights_only(graph, **{name: values})
    composed = auditor.compose.compose(graph, coarse(graph), patch)
    assert (composed.nodes, composed.opset, composed.output) == (graph.nodes, graph.opset, graph.output)
    assert composed.initialisers[name].tobytes() == values.tobytes()
    assert auditor.compose.compare(composed, graph).startswith(f"constant {name}")
    assert composed == owner.compose.compose(graph, coarse(graph), patch)


@pytest.mark.parametrize("fault", ["unknown", "shape", "same", "negative variance"])
def test_weights_that_the_base_does_not_have(fault):
    variance = fault == "negative variance"
    graph = small_conv((1, 4, 4), classes=2, width=2) if variance else mlp([3, 4, 2])
    name = next(name for name in sorted(graph.initialisers) if not variance or name.endswith(".var"))
    old = graph.initialisers[name]
    patch = {
        "unknown": lambda: weights_only(graph, elsewhere=old + 1),
        "shape": lambda: weights_only(graph, **{name: np.append(old.ravel(), np.float32(1))}),
        "same": lambda: weights_only(graph, **{name: old.copy()}),
        "negative variance": lambda: weights_only(graph, **{name: -old - 1}),
    }[fault]()
    with pytest.raises(AuditorError):
        auditor.compose.compose(graph, coarse(graph), patch)
    with pytest.raises((OwnerError, MalformedError)):
        owner.compose.compose(graph, coarse(graph), patch)
