"""What heads that add to the base's output surely give: by how much a class leads over a whole region.

Proves: on every input of a region, in every execution that `auditor.propagation` covers, the logits `f(x) + row`, or
`f(x) + (map x + row)`, have the claimed class ahead of every other by at least the returned number, before caps. The
head is bounded together with the base, as one program, so what they have in common is not lost.
Assumes a head that fits the base. Source: SPEC 7.9, steps 11 and 12.
"""

import numpy as np
from jaxtyping import Float64, Integer

from auditor.cores import Cores
from auditor.propagation import bound_plan, make_plan, margin_rows
from auditor.tail import PREFIX
from protocol.model.graph import Graph, Node
from protocol.model.operators import GATE_OPSET, make_node
from protocol.model.parts import AffineHead, ShiftHead

AddingHead = ShiftHead | AffineHead
_BATCH = 64
_ROWS = 1024
"""Rows of one head that are bounded: each is a program of its own."""


def with_row(base: Graph, head: AddingHead, row: int) -> Graph:
    """The base with one row of a head behind it, as if its item always fired."""
    constants = {"row": head.rows[row]}
    nodes: list[Node] = []
    added = PREFIX + "row"
    if isinstance(head, AffineHead):
        # The composed graph multiplies and sums; a matrix product is the same sum, in any order.
        constants["map"] = np.ascontiguousarray(head.weights[row].T)
        nodes.append(make_node("Flatten", (base.input,), PREFIX + "flat"))
        nodes.append(make_node("MatMul", (PREFIX + "flat", PREFIX + "map"), PREFIX + "linear"))
        nodes.append(make_node("Add", (PREFIX + "linear", PREFIX + "row"), PREFIX + "added"))
        added = PREFIX + "added"
    nodes.append(make_node("Add", (base.output, added), PREFIX + "value"))
    return Graph(
        opset=max(base.opset, GATE_OPSET),
        input=base.input,
        input_shape=base.input_shape,
        output=PREFIX + "value",
        classes=base.classes,
        nodes=(*base.nodes, *nodes),
        initialisers={**base.initialisers, **{PREFIX + name: array for name, array in constants.items()}},
    )


def least_leads(
    base: Graph,
    head: AddingHead,
    *,
    index: Integer[np.ndarray, " record"],
    labels: Integer[np.ndarray, " record"],
    cores: Cores,
) -> Float64[np.ndarray, " record"]:
    """By how much each region's class leads at least; minus infinity where nothing is proven.

    Args:
        base: the committed base.
        head: that adds to its output.
        index: row of the head, for each region.
        labels: the class that is to lead, for each region.
        cores: the regions.
    """
    result = np.full(len(index), -np.inf)
    if base.classes < 2:
        return result
    for row in np.unique(index)[:_ROWS].tolist():
        planned = make_plan(with_row(base, head, row))
        chosen = np.flatnonzero(index == row)
        for start in range(0, len(chosen), _BATCH):
            block = chosen[start : start + _BATCH]
            low, high = cores.only(block).boxes()
            lower = bound_plan(planned, low, high, objective=margin_rows(labels[block], base.classes)).lower
            result[block] = lower.min(axis=1)
    return result
