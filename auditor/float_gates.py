"""Where gates that look at float32 values fire: on a whole region, or surely nowhere in it.

Proves, for a `feature` gate, by bounds of the base's inner tensor over the region, and for a `linear-region` gate by
bounds of its products with raw inputs, both for every execution that `auditor.propagation` covers: that an item fires
on every input of a region (`fires`), or that no earlier item with another output does on any (`first_possible`).
Assumes regions inside the declared columns. What is not proven may hold or not. Source: SPEC 7.9, 11.7.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

from auditor.cores import Cores
from auditor.hinting import Given
from auditor.passes import LEAST, affordable
from auditor.propagation import NEURONS, Plan, make_plan
from auditor.propagation.backward import Pass
from auditor.propagation.crown import refiner
from auditor.propagation.enclosure import propagate
from protocol.model.graph import Graph
from protocol.model.operators import GATE_OPSET, make_node
from protocol.model.parts import FeatureGate, RegionGate

FloatGate = FeatureGate | RegionGate
Method = Literal["interval", "crown"]
METHODS: tuple[Method, ...] = ("interval", "crown")
"""The fast way, then the better one."""
_BATCH = 64
_ELEMENTS = 1 << 22
_VALUES = 1024
"""Values of an inner tensor that get a backward pass of their own; more keep the bounds of the forward one."""

Ends = tuple[Float64[np.ndarray, "record value"], Float64[np.ndarray, "record value"]]


def _inner(planned: Plan, tensor: str, cores: Cores, method: Method, hints: Given | None = None) -> Ends:
    """Least and greatest value of every element of a tensor over each region; infinite where nothing is proven.

    Hints, for "crown", must be usable for every region.
    """
    shape = planned.shapes[tensor]
    count = int(np.prod(shape, dtype=np.int64))
    least, greatest = (np.full((len(cores.centre), count), end) for end in (-np.inf, np.inf))
    if planned.refusal:
        return least, greatest
    low, high = cores.boxes()
    for start in range(0, len(low), _BATCH):
        block = slice(start, start + _BATCH)
        slopes = hints.only(np.arange(len(low))[block]).inner(planned) if hints is not None else {}
        refine = refiner(slopes, neurons=NEURONS) if method == "crown" else None
        state = propagate(planned, low[block], high[block], refine=refine)
        known = state.values[tensor]
        bottom, top = known.low.reshape(-1, count), known.high.reshape(-1, count)
        if method == "crown" and count <= _VALUES:
            unit = np.eye(count).reshape(count, *shape)
            rows = np.concatenate([unit, -unit])[None]
            for record in range(len(bottom)):
                way = Pass(state=state, records=slice(record, record + 1), slopes=slopes)
                found = way.lower(tensor, rows)[0]
                bottom[record] = np.maximum(bottom[record], found[:count])
                top[record] = np.minimum(top[record], -found[count:])
        alive = state.alive[:, None]
        least[block], greatest[block] = np.where(alive, bottom, -np.inf), np.where(alive, top, np.inf)
    return least, greatest


def _products(base: Graph, gate: RegionGate, items: Integer[np.ndarray, " some"], cores: Cores) -> Ends:
    """Least and greatest of some items' products, item after item; one layer, so the fast way is the best one."""
    weights = gate.weights[items].reshape(-1, gate.weights.shape[2])
    graph = Graph(
        opset=GATE_OPSET,
        input="x",
        input_shape=base.input_shape,
        output="products",
        classes=len(weights),
        nodes=(make_node("Flatten", ("x",), "flat"), make_node("MatMul", ("flat", "halves"), "products")),
        initialisers={"halves": np.ascontiguousarray(weights.T)},
    )
    return _inner(make_plan(graph), "products", cores, "interval")


def _blocks(count: int, size: int) -> Iterator[np.ndarray]:
    step = max(1, _ELEMENTS // max(1, size))
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count))


def fires(
    base: Graph,
    gate: FloatGate,
    cores: Cores,
    item: Integer[np.ndarray, " record"],
    hints: Given | None = None,
) -> Bool[np.ndarray, " record"]:
    """Which regions lie wholly in the support of their item.

    Args:
        base: the committed base.
        gate: of a part that fits it.
        cores: the regions.
        item: of this gate, for each region.
        hints: slopes for them, tried where the usual ones do not suffice.
    """
    proven = np.zeros(len(item), np.bool_)
    if isinstance(gate, FeatureGate):
        planned = make_plan(base)
        for method in METHODS:
            left = np.flatnonzero(~proven)[: len(item) if method == "interval" else affordable(base)]
            if len(left):
                least, greatest = _inner(planned, gate.tensor, cores.only(left), method)
                proven[left] = ((least >= gate.low[item[left]]) & (greatest <= gate.high[item[left]])).all(axis=1)
        if hints is not None:
            left = np.flatnonzero(~proven & hints.usable(planned))[:LEAST]
            least, greatest = _inner(planned, gate.tensor, cores.only(left), "crown", hints.only(left))
            proven[left] = ((least >= gate.low[item[left]]) & (greatest <= gate.high[item[left]])).all(axis=1)
        return proven
    by_item = np.argsort(item, kind="stable")
    halves = gate.bounds.shape[1]
    for start in range(0, len(item), _BATCH):
        block = by_item[start : start + _BATCH]
        known, own = np.unique(item[block], return_inverse=True)
        _, greatest = _products(base, gate, known, cores.only(block))
        top = greatest.reshape(len(block), len(known), halves)[np.arange(len(block)), own.reshape(-1)]
        proven[block] = (top <= gate.bounds[item[block]]).all(axis=1)
    return proven


def _first(possible: Bool[np.ndarray, "record item"]) -> Int64[np.ndarray, " record"]:
    return np.where(possible.any(axis=1), possible.argmax(axis=1), -1)


def first_possible(
    base: Graph,
    gate: FloatGate,
    cores: Cores,
    outputs: Integer[np.ndarray, " item"],
    *,
    own: Integer[np.ndarray, " record"],
    before: Integer[np.ndarray, " record"],
) -> Int64[np.ndarray, " record"]:
    """For each region the first item of a gate that may fire in it, or -1.

    Args:
        base: the committed base.
        gate: of a part that fits it.
        cores: the regions.
        outputs: equal numbers for items with equal outputs.
        own: the output that each region should have: items with this one do not count.
        before: nor do items from this number on.
    """
    found = np.full(len(own), -1, np.int64)
    items = np.arange(gate.items)
    if isinstance(gate, FeatureGate):
        planned = make_plan(base)
        left = np.flatnonzero(before > 0)
        for method in METHODS:
            left = left if method == "interval" else left[found[left] >= 0][: affordable(base)]
            for block in _blocks(len(left), gate.low.size):
                chosen = left[block]
                least, greatest = _inner(planned, gate.tensor, cores.only(chosen), method)
                possible = (items < before[chosen, None]) & (outputs != own[chosen, None])
                possible &= ((greatest[:, None] >= gate.low) & (least[:, None] <= gate.high)).all(axis=2)
                found[chosen] = _first(possible)
        return found
    halves, features = gate.weights.shape[1:]
    for part in _blocks(gate.items, halves * features):
        left = np.flatnonzero((found < 0) & (before > part[0]))
        for block in _blocks(len(left), len(part) * halves):
            chosen = left[block]
            least, _ = _products(base, gate, part, cores.only(chosen))
            possible = (part < before[chosen, None]) & (outputs[part] != own[chosen, None])
            possible &= (least.reshape(len(chosen), len(part), halves) <= gate.bounds[part]).all(axis=2)
            first = _first(possible)
            found[chosen] = np.where(first >= 0, part[0] + first, -1)
    return found
