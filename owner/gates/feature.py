"""Feature gates: boxes in a hidden layer, wide enough for noisy copies of a record and clear of everybody else.

Proves nothing: whether a whole region of inputs stays in a box is for sound bounds (the auditor has them).
For coverage beside a sketch's certificate: noise, augmentation, near duplicates. Source: certificate
mathematics, gate kind `feature`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int

from protocol.errors import OwnerError
from protocol.model.patch import FeatureGate
from protocol.model.profile import BATCH, Graph, check_graph

_ROWS = 4096
_SHRINK = 0.999
"""Boxes end short of the nearest other record: another order of summation must not bring it in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """A gate, and which of the records it has an item for.

    Args:
        gate: one item for each record with room for a box; None if none has.
        kept: the records with an item, in the items' order.
    """

    gate: FeatureGate | None
    kept: Int[np.ndarray, "item"]


def hidden_tensor(graph: Graph) -> str:
    """The base's last hidden layer: the input of the last node with weights.

    Raises:
        OwnerError: the model has no hidden layer.
    """
    made = {output for node in graph.nodes for output in node.outputs}
    for node in reversed(graph.nodes):
        if node.op in ("Gemm", "MatMul", "Conv") and node.inputs[0] in made:
            return node.inputs[0]
    raise OwnerError("the model has no hidden layer to put a gate on")


def size_of(graph: Graph, tensor: str) -> int:
    """Values of an activation for one record.

    Raises:
        OwnerError: the base makes no such activation.
    """
    found = check_graph(graph).get(tensor)
    if found is None or found.shape[:1] != (BATCH,) or tensor == graph.input:
        raise OwnerError("the base makes no such tensor", where=tensor)
    return int(np.prod(found.shape[1:]))


def boxes(
    tensor: str,
    own: Float32[np.ndarray, "record value"],
    others: Float32[np.ndarray, "other value"],
    same: Bool[np.ndarray, "record record"],
    *,
    share: float = _SHRINK,
    least: float = 0.0,
) -> Boxes:
    """For each record the largest box, in units of each value's spread, that holds no other record.

    Args:
        tensor: name of the activation.
        own: its values on the records to forget.
        others: its values on retained records.
        same: which records to forget may share a box (they have the same output).
        share: of the way to the nearest other record that a box reaches.
        least: reach, in spreads, below which a record gets no box.
    """
    spread = np.maximum(others.std(axis=0) if len(others) else own.std(axis=0), 1e-3).astype(np.float32)
    reach = np.full(len(own), np.inf)
    for start in range(0, len(others), _ROWS):
        reach = np.minimum(reach, _nearest(own / spread, others[start : start + _ROWS] / spread))
    apart = _distances(own / spread, own / spread)
    apart[same] = np.inf
    # Two records that must not meet get half of the way each.
    reach = np.minimum(reach, apart.min(axis=1, initial=np.inf) / 2) * share
    reach = np.where(np.isfinite(reach), reach, 1.0)
    kept = np.flatnonzero(reach > least)
    if not len(kept):
        return Boxes(gate=None, kept=kept)
    half = reach[kept, None].astype(np.float32) * spread
    gate = FeatureGate(tensor=tensor, low=own[kept] - half, high=own[kept] + half)
    return Boxes(gate=gate, kept=kept)


def _distances(
    left: Float32[np.ndarray, "left value"], right: Float32[np.ndarray, "right value"]
) -> Float32[np.ndarray, "left right"]:
    return np.stack([np.abs(right - one).max(axis=1) for one in left])


def _nearest(left: Float32[np.ndarray, "left value"], right: Float32[np.ndarray, "right value"]) -> np.ndarray:
    nearest: np.ndarray = np.array([np.abs(right - one).max(axis=1).min() for one in left])
    return nearest
