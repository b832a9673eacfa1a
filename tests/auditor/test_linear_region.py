"""The linear region is what it says: the network is affine there, to its edge and no further."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.linear_region import Regions
from owner.architectures import mlp, small_conv
from owner.network import Network, graph_with_parameters
from protocol.errors import AuditorError
from protocol.model.schema import InputSchema


def network(kind, seed):
    graph = mlp(6, (8, 7), classes=3) if kind == "mlp" else small_conv((1, 4, 4), classes=3, width=2)
    random = np.random.default_rng(seed)
    made = Network(graph).initial(1, random)
    return graph_with_parameters(graph, {name: value[0].numpy() for name, value in made.items()})


def float64(regions, x):
    """The network in float64, by the same maps: what the derivative is of."""
    plan, values = (
        regions.plan,
        {regions.plan.graph.input: x.reshape(1, *regions.plan.shapes[regions.plan.graph.input])},
    )
    for step in plan.steps:
        if hasattr(step, "maps"):
            total = sum(m.forward(values[n], "signed") for m, n in zip(step.maps, step.inputs, strict=True))
            values[step.output] = total if step.offset is None else total + step.offset["signed"]
        elif not hasattr(step, "places"):
            values[step.output] = np.maximum(values[step.input], 0.0)
        else:
            flat = np.append(values[step.input].ravel(), -np.inf)
            values[step.output] = flat[step.places].max(axis=1).reshape(1, *plan.shapes[step.output])
    return values[plan.graph.output].ravel()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["mlp", "conv"]), st.integers(0, 2**32 - 1))
def test_jacobian_and_offset_are_the_network(kind, seed):
    graph = network(kind, seed)
    regions = Regions.of(graph)
    random = np.random.default_rng(seed)
    features = int(np.prod(graph.input_shape))
    x = random.random(features)
    found = regions.at(x)
    assert np.allclose(found.jacobian @ x + found.offset, float64(regions, x), atol=1e-9)
    assert (found.normals @ x <= found.bounds + 1e-9).all()
    radius = found.radius(x, np.ones(features))
    assert radius > 0
    own = regions.pattern(x[None])
    for scale in (0.5, 0.999):
        for _ in range(10):
            near = x + scale * radius * random.choice([-1.0, 1.0], features)
            assert np.allclose(found.jacobian @ near + found.offset, float64(regions, near), atol=1e-9)
            assert (regions.pattern(near[None]) == own).all()
    # Just beyond the nearest face, in the worst direction, another neuron is on.
    room = (found.bounds - found.normals @ x) / np.maximum(np.abs(found.normals).sum(axis=1), 1e-300)
    face = int(np.where(np.abs(found.normals).sum(axis=1) > 0, room, np.inf).argmin())
    beyond = x + radius * 1.001 * np.sign(found.normals[face])
    assert (regions.pattern(beyond[None]) != own).any()
    assert room[face] == pytest.approx(radius)


def test_the_ball_is_in_grid_steps():
    graph = network("mlp", 3)
    regions = Regions.of(graph)
    grid = np.random.default_rng(0).integers(0, 256, (4, 6))
    fine = InputSchema.uniform((6,), scale=255.0, low=0, high=255)
    coarse = InputSchema.uniform((6,), scale=25.5, low=0, high=255, offset=0.0)
    found = regions.ball(fine, grid)
    x = fine.dequantise(grid).astype(np.float64)
    assert found[0] == pytest.approx(regions.at(x[0]).radius(x[0], np.ones(6)) * 255.0)
    assert regions.ball(coarse, grid).shape == (4,)


def test_what_has_no_linear_region(monkeypatch):
    graph = network("mlp", 0)
    monkeypatch.setattr("auditor.linear_region._VALUES", 4)
    with pytest.raises(AuditorError, match="too many"):
        Regions.of(graph).at(np.zeros(6))
