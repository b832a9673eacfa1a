"""Least shifts: sufficient, and minimal by the linear program's own answer and by its dual."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from owner.gates.feature import boxes, hidden_tensor, size_of
from owner.heads import least_shift, support_gain


def by_linear_program(differences, klass, margin):
    """min t, |d_i| <= t, d_klass - d_j >= margin - differences_j."""
    classes = len(differences)
    cost = np.zeros(classes + 1)
    cost[-1] = 1
    rows, right = [], []
    for i in range(classes):
        for sign in (1, -1):
            row = np.zeros(classes + 1)
            row[i], row[-1] = sign, -1
            rows.append(row)
            right.append(0.0)
    for j in set(range(classes)) - {klass}:
        row = np.zeros(classes + 1)
        row[klass], row[j] = -1, 1
        rows.append(row)
        right.append(differences[j] - margin)
    return linprog(cost, A_ub=np.array(rows), b_ub=np.array(right), bounds=[(None, None)] * classes + [(0, None)])


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_the_closed_form_is_the_programs_optimum(seed, classes):
    rng = np.random.default_rng(seed)
    differences, klass, margin = rng.normal(0, 5, classes), int(rng.integers(classes)), float(rng.uniform(0, 2))
    found = least_shift(differences, klass, margin)
    solved = by_linear_program(differences, klass, margin)
    assert np.isclose(solved.fun, found.bound, atol=1e-7)
    shift = found.shift.astype(np.float64)
    others = np.arange(classes) != klass
    assert (shift[klass] - shift[others] + differences[others] >= margin - 1e-12).all()
    assert np.abs(shift).max() <= found.bound * (1 + 2.0**-22) + 1e-45
    if found.rival >= 0:  # the dual: half of this one constraint cannot be met with less
        assert np.isclose((margin - differences[found.rival]) / 2, found.bound)


def test_a_class_that_leads_already_needs_nothing():
    found = least_shift(np.array([0.0, 3.0, 4.0]), 0, 1.0)
    assert not found.shift.any()
    assert found.rival == -1


@given(st.floats(0.1, 100), st.floats(0.01, 1), st.floats(-1, 1))
def test_the_gain_switches_the_published_gate_off(largest, edge, share):
    gain, patch, gate = support_gain(largest, edge), share * largest, 1 - edge
    pulled = gain * (gate - 1) * (1 + 1e-12)
    assert max(0, patch + pulled) - max(0, -patch + pulled) == 0
    assert support_gain(largest, 0) == float("inf")


def test_feature_boxes_hold_their_record_and_nobody_else():
    rng = np.random.default_rng(0)
    own, others = rng.normal(size=(20, 5)).astype(np.float32), rng.normal(size=(500, 5)).astype(np.float32)
    own[1] = own[0]
    others[3] = own[2]  # no room
    same = np.eye(20, dtype=bool)
    same[0, 1] = same[1, 0] = True
    found = boxes("hidden", own, others, same)
    assert 2 not in found.kept
    assert len(found.kept) == 19
    inside = ((others[None] >= found.gate.low[:, None]) & (others[None] <= found.gate.high[:, None])).all(axis=2)
    assert not inside.any()
    inside = ((own[None] >= found.gate.low[:, None]) & (own[None] <= found.gate.high[:, None])).all(axis=2)
    assert (inside[np.arange(19), found.kept]).all()
    assert not (inside & ~same[found.kept]).any()


def test_the_last_hidden_layer():
    from owner.architectures import mlp
    from protocol.errors import OwnerError

    graph = mlp(4, (5, 6), classes=3)
    assert hidden_tensor(graph) == "relu1"
    assert size_of(graph, "relu1") == 6
    for tensor in ("nothing", graph.input):
        try:
            size_of(graph, tensor)
        except OwnerError:
            continue
        raise AssertionError(tensor)
