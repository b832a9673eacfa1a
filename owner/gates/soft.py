"""The papers' soft support network: what a gate of finite steepness would do beside the exact one.

With y = b - A z of a region of l half-spaces, and a steepness n, the papers' gate is

    g(z) = relu(1 - l + sum_i [relu(n y_i + 1) - relu(n y_i)])

1 on the region, 0 where some y_i <= -1/n or the violations add up, and in between in a strip around it, which is
1 / (n |a_i|_1) wide beyond half-space i, in the largest change of an input. A patch p of several regions is added as

    h(z) = relu(p(z) + K (g(z) - 1)) - relu(-p(z) + K (g(z) - 1)),   K >= max |p| over the input box,

g the greatest of its regions'. Patches are added up. Here g is computed as relu(1 - sum_i clip(-n y_i, 0, 1)), which is
the same number without the papers' cancellation; what that costs in float32, `as_written` shows. A patch of the
protocol selects (SPEC 7.9), which is the limit of g for steep n: none of this is shipped, it is measured and said.

The region's rows are not needed: y is found by running the network with the region's ReLUs held as they are there.
Source: REASSURE (arXiv 2110.07682) and PRUNE (arXiv 2505.06520), support networks.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from owner.execute import OPERATORS, constants
from protocol.model.profile import Graph

_TOGETHER = 1024


class Held:
    """A base whose ReLUs can be held as they are at a record.

    Args:
        graph: of affine operators and Relu.
        points: inputs that regions are asked about.
    """

    def __init__(self, graph: Graph, points: Float32[np.ndarray, "point ..."]) -> None:
        self._graph, self._constants = graph, constants(graph)
        self._points = torch.from_numpy(np.array(points)).reshape(-1, *graph.input_shape)
        self._before: set[str] = {graph.input}
        for node in graph.nodes:
            # What no ReLU comes before is the same for every region.
            if node.op != "Relu" and all(name in self._before or name in self._constants for name in node.inputs):
                self._before.add(node.outputs[0])
        with torch.inference_mode():
            self._fixed = self._run(self._points, None, {})

    def _run(self, x: Tensor, held: dict[str, Tensor] | None, known: dict[str, Tensor]) -> dict[str, Tensor]:
        values = {self._graph.input: x, **known}
        for node in self._graph.nodes:
            name = node.outputs[0]
            if name in values or (held is None and name not in self._before):
                continue
            if node.op == "Relu" and held:
                values[name] = values[node.inputs[0]] * held[name]
                continue
            values[name] = OPERATORS[node.op](
                node, [values[source] if source in values else self._constants[source] for source in node.inputs]
            )
        return values

    def slack(self, record: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "point half"]:
        """How far every point is inside each half-space of the region around a record: the y above."""
        relus = [node for node in self._graph.nodes if node.op == "Relu"]
        with torch.inference_mode():
            x = torch.from_numpy(np.array(record, dtype=np.float32)).reshape(1, *self._graph.input_shape)
            at = self._run(x, {}, {})
            active = {node.outputs[0]: (at[node.inputs[0]] > 0).float() for node in relus}
            blocks = []
            for start in range(0, len(self._points), _TOGETHER):
                part = slice(start, start + _TOGETHER)
                known = {name: value[part] for name, value in self._fixed.items() if name in self._before}
                values = self._run(self._points[part], active, known)
                sides = [values[node.inputs[0]] * (2 * active[node.outputs[0]] - 1) for node in relus]
                blocks.append(torch.cat([side.flatten(1) for side in sides], dim=1))
        found: Float32[np.ndarray, "point half"] = torch.cat(blocks).numpy()
        return found


def gate(slack: Float32[np.ndarray, "point half"], steepness: float) -> Float32[np.ndarray, "point"]:
    """The value of a support network."""
    over = np.minimum(np.maximum(-slack * np.float32(steepness), 0), 1)
    found: Float32[np.ndarray, "point"] = np.maximum(1 - over.sum(axis=1), 0)
    return found


def as_written(slack: Float32[np.ndarray, "point half"], steepness: float) -> Float32[np.ndarray, "point"]:
    """The same in float32 as the papers write it, with what cancels."""
    n, one = np.float32(steepness), np.float32(1)
    terms = np.maximum(n * slack + one, 0) - np.maximum(n * slack, 0)
    found: Float32[np.ndarray, "point"] = np.maximum(terms.sum(axis=1) - np.float32(slack.shape[1]) + one, 0)
    return found


def patched(change: Float32[np.ndarray, "point class"], on: Float32[np.ndarray, "point"], gain: float) -> np.ndarray:
    """What the papers' patch adds where its gate has the value `on`."""
    off = np.float32(gain) * (on - 1)[:, None]
    found: np.ndarray = np.maximum(change + off, 0) - np.maximum(-change + off, 0)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a steepness does to points that nobody asked about.

    Args:
        steepness: n.
        added: to each point's logits.
    """

    steepness: float
    added: Float32[np.ndarray, "point class"]


def effects(
    held: Held, points: Float32[np.ndarray, "point feature"], records: Float32[np.ndarray, "item ..."],
    row: Int[np.ndarray, "item"], weights: Float32[np.ndarray, "row class feature"],
    rows: Float32[np.ndarray, "row class"], box: tuple[np.ndarray, np.ndarray], steepness: tuple[float, ...],
) -> tuple[tuple[Effect, ...], float]:  # fmt: skip
    """What patches of these steepnesses add to points, and from which steepness on they surely add nothing.

    Args:
        held: the base, with the points.
        points: the same, flattened.
        records: one inside each region.
        row: which change each region has; those of one row share a patch.
        weights: of the changes.
        rows: of the changes.
        box: least and greatest inputs, flattened.
        steepness: to look at.
    """
    on = np.zeros((len(steepness), len(rows), len(points)), np.float32)
    enough = 0.0
    for number, record in zip(row.tolist(), records, strict=True):
        slack = held.slack(record)
        for place, n in enumerate(steepness):
            on[place, number] = np.maximum(on[place, number], gate(slack, n))
        # Off for certain where one half-space is missed by 1 / n.
        nearest = float((-slack).max(axis=1).min(initial=np.inf))
        enough = max(enough, 1 / nearest if nearest > 0 else np.inf)
    found = [np.zeros((len(points), rows.shape[1]), np.float32) for _ in steepness]
    low, high = box
    for number, (slopes, offset) in enumerate(zip(weights, rows, strict=True)):
        change = points @ slopes.T + offset
        middle, spread = (low + high) / 2, (high - low) / 2
        gain = float((np.abs(slopes @ middle + offset) + np.abs(slopes) @ spread).max())
        for place in range(len(steepness)):
            found[place] += patched(change, on[place, number], gain)
    return tuple(Effect(steepness=n, added=added) for n, added in zip(steepness, found, strict=True)), enough


def strip(weights: Float32[np.ndarray, "item half feature"], steepness: float) -> Float32[np.ndarray, "item half"]:
    """How far beyond each half-space a gate is not yet off, in the largest change of an input, data units."""
    norm = np.abs(weights).sum(axis=2)
    found: Float32[np.ndarray, "item half"] = 1 / (np.float32(steepness) * np.maximum(norm, np.float32(1e-30)))
    return found
