"""What heads that add to the base's output surely give: by how much a class leads over a whole region.

Proves: on every input of a region, in every execution that `auditor.propagation` covers, the logits `f(x) + row`, or
`f(x) + (map x + row)`, have the claimed class ahead of every other by at least the returned number, before caps. The
head is bounded together with the base, as one program, so what they have in common is not lost.
Assumes a head that fits the base. Source: SPEC 7.9, steps 11 and 12.
"""

import numpy as np
from jaxtyping import Float64, Integer

from auditor.cores import Cores
from auditor.float_gates import METHODS
from auditor.hinting import Given
from auditor.passes import LEAST, affordable
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
    needed: Float64[np.ndarray, " record"],
    cores: Cores,
    hints: Given | None = None,
) -> Float64[np.ndarray, " record"]:
    """By how much each region's class leads at least; minus infinity where nothing is proven.

    Args:
        base: the committed base.
        head: that adds to its output.
        index: row of the head, for each region.
        labels: the class that is to lead, for each region.
        needed: by how much; where the fast bounds show that already, no better ones are looked for.
        cores: the regions.
        hints: slopes for them, tried where the usual ones do not suffice.
    """
    result = np.full(len(index), -np.inf)
    given = Given.none(len(index)) if hints is None else hints
    if base.classes < 2:
        return result
    left, tries = affordable(base), LEAST
    for row in np.unique(index)[:_ROWS].tolist():
        planned = make_plan(with_row(base, head, row))
        chosen = np.flatnonzero(index == row)
        for method in METHODS:
            if method == "crown":
                chosen = chosen[result[chosen] < needed[chosen]][:left]
                left -= len(chosen)
            for start in range(0, len(chosen), _BATCH):
                block = chosen[start : start + _BATCH]
                low, high = cores.only(block).boxes()
                rows = margin_rows(labels[block], base.classes)
                lower = bound_plan(planned, low, high, objective=rows, method=method).lower
                # Both are proven: the better one counts.
                result[block] = np.maximum(result[block], lower.min(axis=1))
        chosen = np.flatnonzero(index == row)
        chosen = chosen[(result[chosen] < needed[chosen]) & given.usable(planned)[chosen]][:tries]
        tries -= len(chosen)
        together = min(_BATCH, given.together(base.classes))
        for start in range(0, len(chosen), together):
            block = chosen[start : start + together]
            low, high = cores.only(block).boxes()
            rows, own = margin_rows(labels[block], base.classes), given.only(block)
            lower = bound_plan(
                planned, low, high, objective=rows, slopes=own.inner(planned),
                last_slopes=own.last(planned, rows.shape[1]),
            ).lower  # fmt: skip
            result[block] = np.maximum(result[block], lower.min(axis=1))
    return result
