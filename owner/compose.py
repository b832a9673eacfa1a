"""Base model + input schema + patch = one deployable model.

Proves: the composed graph holds every node and constant of the base unchanged, and selects between its
output and the patch's rows bit by bit; every sum of a sketch is exact in float32 in any order, else
composing is refused. Assumes a parsed base, schema and patch. Does not say that the patch does what a
certificate claims. Source: SPEC 7.9 (composition; the numbers below are its steps).
"""

import numpy as np

from protocol.encoding import parse_float32
from protocol.errors import OwnerError
from protocol.model.patch import MAX_SUM, Cap, Patch, SketchGate
from protocol.model.profile import GATE_OPSET, Attribute, Graph, Node, check_graph, make_node
from protocol.model.schema import InputSchema

PREFIX = "prune/"
OUTPUT = "prune/output"


class _Builder:
    """Nodes and constants behind the base; every name gets the prefix, every node its output's name."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, value: np.ndarray, kind: type[np.generic] = np.float32) -> str:
        exact = np.ascontiguousarray(value.astype(kind)).reshape(value.shape)
        if not np.array_equal(exact.astype(np.float64), value.astype(np.float64)):
            raise OwnerError(f"{name} holds numbers that are not exact in {np.dtype(kind)}")
        self.constants[PREFIX + name] = exact
        return PREFIX + name

    def axes(self, axis: int) -> str:
        return self.constant(f"axes{axis}", np.array([axis]), np.int64)

    def node(self, op: str, inputs: tuple[str, ...], name: str, **attributes: Attribute) -> str:
        self.nodes.append(make_node(op, inputs, PREFIX + name, **attributes))
        return PREFIX + name


def largest_sum(gate: SketchGate, schema: InputSchema) -> int:
    """The largest absolute value that any partial sum of the sketch can take on the declared grid.

    Source: certificate.md, gate kinds: `max_i sum_j |S_ij| max(|low_j|, |high_j|)`.
    """
    reach = np.maximum(np.abs(schema.low), np.abs(schema.high))
    rows = np.abs(gate.matrix.astype(np.int64))
    # In Python's integers: 2^24 times 2^22 times a million features does not fit 64 bits.
    return max(sum(int(a) * int(b) for a, b in zip(row[row > 0], reach[row > 0], strict=True)) for row in rows)


def _check(base: Graph, schema: InputSchema, patch: Patch) -> None:
    if schema.shape != base.input_shape:
        raise OwnerError(f"the schema is for inputs of shape {schema.shape}, the model's is {base.input_shape}")
    if (patch.features, patch.classes) != (base.features, base.classes):
        raise OwnerError(
            f"the patch is for {patch.features} features and {patch.classes} classes, "
            f"the model has {base.features} and {base.classes}"
        )
    names = {base.input, *base.initialisers}
    names |= {name for node in base.nodes for name in (node.name, *node.outputs)}
    if taken := sorted(name for name in names if name.startswith(PREFIX)):
        raise OwnerError(f"names beginning with {PREFIX!r} are the patch's, not a base model's", where=taken[0])
    if patch.gate is not None and (largest := largest_sum(patch.gate, schema)) >= MAX_SUM:
        raise OwnerError(f"sums of the sketch reach {largest}, over {MAX_SUM} float32 is not exact; use a smaller one")


def _hits(add: _Builder, x: str, schema: InputSchema, gate: SketchGate) -> str:
    """Steps 1 to 7: [N, m] of 0.0 and 1.0, which items fire."""
    flat = add.node("Flatten", (x,), "flat", axis=1)  # 1
    scaled = add.node("Mul", (flat, add.constant("scale", schema.scale)), "scaled")  # 2
    affine = add.node("Add", (scaled, add.constant("offset", schema.offset)), "affine")
    rounded = add.node("Round", (affine,), "rounded")  # 3
    raised = add.node("Max", (rounded, add.constant("low", schema.low)), "raised")
    grid = add.node("Min", (raised, add.constant("high", schema.high)), "grid")
    above = add.node("GreaterOrEqual", (affine, add.constant("low_edge", schema.low - 0.5)), "above")  # 4
    below = add.node("LessOrEqual", (affine, add.constant("high_edge", schema.high + 0.5)), "below")
    in_columns = add.node("And", (above, below), "in_columns")
    as_float = add.node("Cast", (in_columns,), "in_columns_float", to=1)
    inside = add.node("ReduceMin", (as_float, add.axes(1)), "inside", keepdims=1)
    sketched = add.node("MatMul", (grid, add.constant("sketch", gate.matrix.T)), "sketched")  # 5
    row = add.node("Unsqueeze", (sketched, add.axes(1)), "sketched_row")
    over = add.node("GreaterOrEqual", (row, add.constant("item_low", gate.low)), "over")  # 6
    under = add.node("LessOrEqual", (row, add.constant("item_high", gate.high)), "under")
    between = add.node("And", (over, under), "between")
    between_float = add.node("Cast", (between,), "between_float", to=1)
    matched = add.node("ReduceMin", (between_float, add.axes(2)), "matched", keepdims=0)
    return add.node("Mul", (matched, inside), "hits")  # 7


def _select(add: _Builder, hits: str, y: str, patch: Patch) -> str:
    """Steps 8 to 11: the row of the first item that fires, else the base's output."""
    first = add.node("ArgMax", (hits,), "first", axis=1, keepdims=0, select_last_index=0)  # 8
    best = add.node("ReduceMax", (hits, add.axes(1)), "any", keepdims=1)  # 9
    fired = add.node("Greater", (best, add.constant("half", np.array(0.5))), "fired")
    row_of_item = add.constant("row_of_item", patch.row_of_item, np.int64)
    index = add.node("Gather", (row_of_item, first), "row_index", axis=0)  # 10
    row = add.node("Gather", (add.constant("rows", patch.rows), index), "row", axis=0)
    return add.node("Where", (fired, row, y), "selected" if patch.caps else "output")  # 11


def _cap(add: _Builder, number: int, cap: Cap, selected: str, patch: Patch) -> str:
    """The capped class's logit becomes min(own, best of the classes without a cap - margin), the others stay."""
    here = f"cap{number}/"
    classes = np.arange(patch.classes)
    others = add.constant(here + "others", np.setdiff1d(classes, [other.klass for other in patch.caps]), np.int64)
    rest = add.node("Gather", (selected, others), here + "rest", axis=1)
    best = add.node("ReduceMax", (rest, add.axes(1)), here + "best", keepdims=1)
    margin = add.constant(here + "margin", np.array(parse_float32(cap.margin)))
    limit = add.node("Sub", (best, margin), here + "limit")
    own_class = add.constant(here + "class", np.array([cap.klass]), np.int64)
    own = add.node("Gather", (selected, own_class), here + "own", axis=1)
    capped = add.node("Min", (own, limit), here + "capped")
    mask = add.constant(here + "mask", (classes == cap.klass)[None], np.bool_)
    last = number == len(patch.caps) - 1
    return add.node("Where", (mask, capped, selected), "output" if last else here + "output")


def compose(base: Graph, schema: InputSchema, patch: Patch) -> Graph:
    """The deployed model: base, gate, selection, caps.

    Args:
        base: a model without gate operators and without names that begin with `prune/`.
        schema: the committed input schema, for the base's input shape.
        patch: for the base's features and classes.

    Returns:
        A graph whose opset is the base's, or 18 where that is lower, and whose output is `prune/output`.

    Raises:
        OwnerError: the parts do not fit together, or the sketch's sums would not be exact.
    """
    _check(base, schema, patch)
    add = _Builder()
    selected = base.output
    if patch.gate is not None:
        selected = _select(add, _hits(add, base.input, schema, patch.gate), base.output, patch)
    for number, cap in enumerate(patch.caps):
        selected = _cap(add, number, cap, selected, patch)
    composed = Graph(
        opset=max(base.opset, GATE_OPSET),
        input=base.input,
        input_shape=base.input_shape,
        output=OUTPUT,
        classes=base.classes,
        nodes=(*base.nodes, *add.nodes),
        initialisers={**base.initialisers, **add.constants},
    )
    check_graph(composed)
    return composed
