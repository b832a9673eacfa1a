"""Networks that were built to make bounds wrong, and boxes to look at them in."""

import numpy as np
from hypothesis import strategies as st

from protocol.model.graph import Graph
from tests.auditor.samples import Builder

KINDS = ("plain", "cancelling", "ordered", "tiny", "huge", "ties", "integers", "subnormal", "edges", "mixed")


def weights(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Entries of one of the kinds, float32."""
    normal = rng.normal(size=shape)
    flat = normal.reshape(-1)
    match kind:
        case "cancelling":  # pairs that nearly cancel, far above everything else
            flat[: len(flat) // 2] *= 10.0 ** rng.integers(3, 13)
            flat[len(flat) // 2 : 2 * (len(flat) // 2)] = -flat[: len(flat) // 2] * (1 + rng.choice([0, 2.0**-22]))
        case "ordered":  # 2^24 + 1 - 2^24 depends on the order
            flat[:] = rng.choice([1.0, -1.0, 3.0, 2.0**24, -(2.0**24), 2.0**25], size=flat.shape)
        case "tiny":
            flat *= 10.0 ** rng.uniform(-45, -36, flat.shape)
        case "huge":
            flat *= 10.0 ** rng.uniform(10, 38, flat.shape)
        case "ties":  # equal rows up to one unit in the last place
            normal[:] = normal[:1]
            normal *= 1 + 2.0**-23 * rng.integers(-1, 2, shape)
        case "subnormal":  # below 2^-126, some behind the least subnormal and half of it
            flat *= 2.0 ** rng.integers(-151, -125, flat.shape)
        case "edges":  # powers of two and their neighbours, where an ulp changes size, and ties between two roundings
            flat[:] = rng.choice([-1.0, 1.0], flat.shape) * 2.0 ** rng.integers(-30, 30, flat.shape)
            flat *= 1 + rng.choice([0.0, 2.0**-23, -(2.0**-24), 2.0**-12], flat.shape)
        case "mixed":  # rows that live on scales of their own: huge weights that meet tiny activations
            normal *= 10.0 ** rng.integers(-20, 20, (shape[0], *(1,) * (len(shape) - 1)))
        case "integers":
            flat[:] = rng.integers(-3, 4, flat.shape)
    return np.clip(normal, -3e38, 3e38).astype(np.float32)


@st.composite
def tricky(draw: st.DrawFn) -> Graph:
    """Small perceptrons, sometimes with a residual, a scale or a normalisation, weights of the kinds above."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = st.sampled_from(KINDS)
    builder = Builder(rng, (draw(st.integers(1, 6)),))
    for layer in range(draw(st.integers(1, 3))):
        width = draw(st.integers(1, 6))
        if layer:
            builder.apply("Relu", builder.last)
        weight = builder.constant(weights(rng, draw(kinds), (width, builder.shape[0])))
        bias = builder.constant(weights(rng, draw(kinds), (width,)))
        builder.apply("Gemm", builder.last, weight, bias, shape=(width,), transB=1)
        match draw(st.sampled_from(["", "", "scale", "residual", "norm", "back"])):
            case "scale":
                builder.apply("Mul", builder.last, builder.constant(weights(rng, draw(kinds), (width,))))
            case "residual":
                before = builder.last
                builder.apply("Relu", builder.last)
                builder.apply("Sub", builder.last, before)
            case "back":  # up and down again: nothing in exact arithmetic
                factor = np.float32(2.0 ** rng.integers(-100, 100))
                builder.apply("Mul", builder.last, builder.constant(np.full(width, factor)))
                builder.apply("Mul", builder.last, builder.constant(np.full(width, 1 / factor)))
            case "norm":
                parts = [builder.constant(weights(rng, draw(kinds), (width,))) for _ in range(3)]
                variance = builder.constant(np.abs(weights(rng, draw(kinds), (width,))))
                builder.apply("BatchNormalization", builder.last, *parts, variance, epsilon=1e-5)
    return builder.graph()


def boxes(rng: np.random.Generator, shape: tuple[int, ...], records: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of several sizes around several kinds of points, points themselves included."""
    centre = rng.normal(size=(records, *shape)) * rng.choice(
        [0, 1, 1, 1, 1e-39, 1e5], size=(records, *(1,) * len(shape))
    )
    width = rng.choice([0, 1e-40, 1e-3, 0.1, 1, 10], size=(records, *(1,) * len(shape))) * rng.random((records, *shape))
    return (centre - width).astype(np.float32), (centre + width).astype(np.float32)


def inside(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, count: int) -> np.ndarray:
    """Points of one box: corners, float neighbours of corners, and random ones; [count, ...]."""
    share = rng.random((count, *low.shape))
    share[: count // 2] = np.round(share[: count // 2])
    x = np.clip((low + share * (high.astype(np.float64) - low)).astype(np.float32), low, high)
    step = np.where(rng.random(x.shape) < 0.2, np.nextafter(x, np.float32(0)), x)
    return np.clip(step, low, high)


def verifier_traps(rng: np.random.Generator, kind: str) -> Graph:
    """Networks for which one careless step of a verifier would prove too much; two logits, hidden Relus.

    `phantom`: a margin of 1 that huge weights lose in float32 (2^24 + 1 - 2^24), behind a Relu.
    `kept`: the same in an order that keeps it: only a bound that holds for every order covers both.
    `switch`: a neuron that is 0 but for a subnormal, and is blown up behind it.
    `tie`: a lead of one unit in the last place of the sum, which other orders take away.
    """
    builder = Builder(rng, (2,))
    big = np.float32(2.0 ** rng.integers(24, 60))
    match kind:
        case "phantom":
            weight, bias = np.array([[big, 0], [big, 1], [-big, 0]], np.float32), np.array([big, big, -big], np.float32)
            out = np.array([[1, 0, 1], [0, 1, 1]], np.float32)
        case "kept":
            weight, bias = np.array([[1, 0], [big, 0], [0, 1]], np.float32), np.array([1, big, 0], np.float32)
            out = np.array([[big, -1, 0], [0, 0, big]], np.float32)
        case "switch":
            weight, bias = np.full((3, 2), 2.0**-130, np.float32), np.zeros(3, np.float32)
            out = np.array([[2.0**120, 0, 0], [0, 2.0**-20, 0]], np.float32)
        case _:
            row = rng.normal(size=3).astype(np.float32)
            weight, bias = rng.normal(size=(3, 2)).astype(np.float32), np.ones(3, np.float32)
            out = np.stack([row, row * (1 + np.float32(2.0**-23) * rng.integers(-1, 2, 3).astype(np.float32))])
    names = [builder.constant(np.asarray(array, np.float32)) for array in (weight, bias)]
    builder.apply("Gemm", "x", *names, shape=(3,), transB=1)
    builder.apply("Relu", builder.last)
    builder.apply("Gemm", builder.last, builder.constant(out.astype(np.float32)), shape=(2,), transB=1)
    return builder.graph()


TRAPS = ("phantom", "kept", "switch", "tie")
