"""Parts that stand side by side and look at inputs the same way, made into one: a line of requests keeps a small patch.

Proves: the patch computes the same function, bit for bit, on every input. Items keep their numbers and their order
through all parts, so the first one that fires is the same one, and gives the same row; a part's screen never changes
which item that is. Two parts are joined only if no other part stands between them and both are sketches with equal
matrices and rows of logits. Does not join parts that others stand between: that could change which item comes first.
Source: SPEC 7.7, 7.9 (steps 4 to 9).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from owner.gates.screening import screened
from protocol.model.parts import Part, SetHead, SketchGate
from protocol.model.schema import InputSchema


def _alike(one: Part, other: Part) -> bool:
    return (
        isinstance(one.gate, SketchGate)
        and isinstance(other.gate, SketchGate)
        and isinstance(one.head, SetHead)
        and isinstance(other.head, SetHead)
        and np.array_equal(one.gate.matrix, other.gate.matrix)
    )


def _joined(parts: Sequence[Part], schema: InputSchema, others: np.ndarray) -> Part:
    if len(parts) == 1:
        return parts[0]
    gates = [part.gate for part in parts if isinstance(part.gate, SketchGate)]
    given = np.concatenate([part.head.rows[part.head.index] for part in parts])
    # Rows by their bits, in the order of their first item: 0.0 and -0.0 are two.
    bits = np.ascontiguousarray(given).view(np.uint32)
    _, first, inverse = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    gate = SketchGate(
        matrix=gates[0].matrix,
        low=np.concatenate([gate.low for gate in gates]),
        high=np.concatenate([gate.high for gate in gates]),
    )
    return Part(
        gate=screened(gate, schema, others),
        head=SetHead(rows=given[first[order]], index=place[inverse.ravel()]),
    )


def compact(
    parts: Sequence[Part], schema: InputSchema, others: Integer[np.ndarray, "record feature"], *, most: int
) -> tuple[Part, ...]:
    """Join neighbours that look at inputs the same way.

    Args:
        parts: in order of precedence.
        schema: the input grid.
        others: canonical records that the model will mostly see, for the screen of a joint part.
        most: items that one part may have.

    Returns:
        The same items in the same order, in fewer parts where that can be.
    """
    runs: list[list[Part]] = []
    for part in parts:
        if runs and _alike(runs[-1][0], part) and sum(one.gate.items for one in (*runs[-1], part)) <= most:
            runs[-1].append(part)
        else:
            runs.append([part])
    return tuple(_joined(run, schema, others) for run in runs)
