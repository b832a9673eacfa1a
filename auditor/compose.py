"""What base model + patch must compose to, and where a deployed file differs from it.

Proves: that a deployed graph is the base graph with exactly the patch's gate, rows and caps
behind it, node by node and bit by bit; two protobuf files can spell one graph in many ways, so
files themselves are not compared. This is the auditor's own construction from the text of
the SPEC, made without the owner's code.

Assumes parsed arguments. Does not run anything, and does not decide whether the patch does what
is claimed for it.

Source: SPEC 7.9, steps 1 to 11 and caps; the step numbers below are those.
"""

import numpy as np

from auditor.bounds import inexact_sums
from auditor.rows import nearest_float32
from protocol.errors import AuditorError
from protocol.model.graph import Attribute, Graph, Node
from protocol.model.operators import GATE_OPSET, make_node
from protocol.model.patch import Cap, Patch, SketchGate
from protocol.model.schema import InputSchema

PREFIX = "prune/"
OUTPUT = "prune/output"


class _Tail:
    """The nodes and constants that come after the base's."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants[PREFIX + name] = array
        return PREFIX + name

    def apply(self, op: str, name: str, *inputs: str, **attributes: Attribute) -> str:
        self.nodes.append(make_node(op, inputs, PREFIX + name, **attributes))
        return PREFIX + name

    def axes(self, axis: int) -> str:
        return self.constant(f"axes{axis}", np.array([axis], np.int64))


def _gate(tail: _Tail, x: str, schema: InputSchema, gate: SketchGate) -> str:
    """Steps 1 to 7: which items fire, as zeros and ones [N, m]."""
    flat = tail.apply("Flatten", "flat", x, axis=1)
    scaled = tail.apply("Mul", "scaled", flat, tail.constant("scale", np.array(schema.scale, np.float32)))
    affine = tail.apply("Add", "affine", scaled, tail.constant("offset", np.array(schema.offset, np.float32)))
    rounded = tail.apply("Round", "rounded", affine)
    raised = tail.apply("Max", "raised", rounded, tail.constant("low", schema.low.astype(np.float32)))
    grid = tail.apply("Min", "grid", raised, tail.constant("high", schema.high.astype(np.float32)))
    # The edges are formed in float64, where integers and halves of this size are exact, then rounded once.
    low_edge = tail.constant("low_edge", (schema.low - 0.5).astype(np.float32))
    high_edge = tail.constant("high_edge", (schema.high + 0.5).astype(np.float32))
    above = tail.apply("GreaterOrEqual", "above", affine, low_edge)
    below = tail.apply("LessOrEqual", "below", affine, high_edge)
    in_columns = tail.apply("And", "in_columns", above, below)
    as_float = tail.apply("Cast", "in_columns_float", in_columns, to=1)
    inside = tail.apply("ReduceMin", "inside", as_float, tail.axes(1), keepdims=1)
    # The manifest stores S as [component, feature]; the program multiplies rows of records by its transpose.
    sketch = tail.constant("sketch", np.ascontiguousarray(gate.matrix.T.astype(np.float32)))
    sketched = tail.apply("MatMul", "sketched", grid, sketch)
    row = tail.apply("Unsqueeze", "sketched_row", sketched, tail.axes(1))
    over = tail.apply("GreaterOrEqual", "over", row, tail.constant("item_low", gate.low.astype(np.float32)))
    under = tail.apply("LessOrEqual", "under", row, tail.constant("item_high", gate.high.astype(np.float32)))
    between = tail.apply("And", "between", over, under)
    between_float = tail.apply("Cast", "between_float", between, to=1)
    matched = tail.apply("ReduceMin", "matched", between_float, tail.axes(2), keepdims=0)
    return tail.apply("Mul", "hits", matched, inside)


def _select(tail: _Tail, hits: str, y: str, patch: Patch, name: str) -> str:
    """Steps 8 to 11: the row of the first item that fires, else the base's output."""
    first = tail.apply("ArgMax", "first", hits, axis=1, keepdims=0, select_last_index=0)
    any_hit = tail.apply("ReduceMax", "any", hits, tail.axes(1), keepdims=1)
    fired = tail.apply("Greater", "fired", any_hit, tail.constant("half", np.array(0.5, np.float32)))
    row_of_item = tail.constant("row_of_item", np.array(patch.row_of_item, np.int64))
    row_index = tail.apply("Gather", "row_index", row_of_item, first, axis=0)
    rows = tail.constant("rows", np.array(patch.rows, np.float32))
    row = tail.apply("Gather", "row", rows, row_index, axis=0)
    return tail.apply("Where", name, fired, row, y)


def _cap(tail: _Tail, selected: str, cap: Cap, *, index: int, patch: Patch, name: str) -> str:
    """One cap: class c becomes at most the best of the classes without a cap, less the margin."""
    here = f"cap{index}/"
    removed = {other.klass for other in patch.caps}
    others = np.array([k for k in range(patch.classes) if k not in removed], np.int64)
    rest = tail.apply("Gather", here + "rest", selected, tail.constant(here + "others", others), axis=1)
    best = tail.apply("ReduceMax", here + "best", rest, tail.axes(1), keepdims=1)
    margin = tail.constant(here + "margin", np.array(nearest_float32(cap.margin), np.float32))
    limit = tail.apply("Sub", here + "limit", best, margin)
    own_class = tail.constant(here + "class", np.array([cap.klass], np.int64))
    own = tail.apply("Gather", here + "own", selected, own_class, axis=1)
    capped = tail.apply("Min", here + "capped", own, limit)
    mask = tail.constant(here + "mask", np.arange(patch.classes)[None] == cap.klass)
    return tail.apply("Where", name, mask, capped, selected)


def compose(base: Graph, schema: InputSchema, patch: Patch) -> Graph:
    """The graph that a deployed file must be.

    Args:
        base: the committed base model.
        schema: the committed input schema.
        patch: the patch on the table.

    Raises:
        AuditorError: base, schema and patch do not fit together, the base uses reserved names, or
            the sketch could be rounded (`bounds.inexact_sums` says so without raising).
    """
    names = [base.input, *base.initialisers, *(name for node in base.nodes for name in (node.name, *node.outputs))]
    if reserved := [name for name in names if name.startswith(PREFIX)]:
        raise AuditorError(f"the base uses the reserved name {reserved[0]!r}")
    if (patch.features, patch.classes) != (base.features, base.classes):
        raise AuditorError(
            f"a patch for {patch.features} features and {patch.classes} classes does not fit a base"
            f" with {base.features} and {base.classes}"
        )
    if schema.shape != base.input_shape:
        raise AuditorError(f"the input schema is for records of shape {schema.shape}, not {base.input_shape}")
    if patch.gate is not None and (reason := inexact_sums(patch.gate, schema.low, schema.high)):
        raise AuditorError(f"the gate would not be exact: {reason}")
    tail = _Tail()
    selected = base.output
    if patch.gate is not None:
        hits = _gate(tail, base.input, schema, patch.gate)
        selected = _select(tail, hits, base.output, patch, "selected" if patch.caps else "output")
    for index, cap in enumerate(patch.caps):
        name = f"cap{index}/output" if index < len(patch.caps) - 1 else "output"
        selected = _cap(tail, selected, cap, index=index, patch=patch, name=name)
    return Graph(
        opset=max(base.opset, GATE_OPSET),
        input=base.input,
        input_shape=base.input_shape,
        output=OUTPUT,
        classes=base.classes,
        nodes=(*base.nodes, *tail.nodes),
        initialisers={**base.initialisers, **tail.constants},
    )


def _node_difference(expected: Node, deployed: Node) -> str | None:
    for field in ("op", "name", "inputs", "outputs"):
        wanted, found = getattr(expected, field), getattr(deployed, field)
        if wanted != found:
            return f"{field} is {found!r}, expected {wanted!r}"
    for key in sorted(expected.attributes.keys() | deployed.attributes.keys()):
        wanted, found = expected.attributes.get(key), deployed.attributes.get(key)
        # By type as well: True == 1 == 1.0 in Python, but not on the wire. repr tells -0.0 from 0.0, too.
        if repr(wanted) != repr(found):
            return f"attribute {key} is {found!r}, expected {wanted!r}"
    return None


def _tensor_difference(expected: np.ndarray, deployed: np.ndarray) -> str | None:
    if expected.dtype != deployed.dtype:
        return f"type is {deployed.dtype}, expected {expected.dtype}"
    if expected.shape != deployed.shape:
        return f"shape is {deployed.shape}, expected {expected.shape}"
    if expected.tobytes() == deployed.tobytes():
        return None
    # Bytes, not values: a NaN differs from itself, and -0.0 equals 0.0.
    size = expected.dtype.itemsize
    rows = [np.frombuffer(array.tobytes(), np.uint8).reshape(-1, size) for array in (expected, deployed)]
    wrong = np.flatnonzero((rows[0] != rows[1]).any(axis=1))
    place = int(wrong[0])
    index = tuple(int(i) for i in np.unravel_index(place, expected.shape))
    wanted, found = expected.reshape(-1)[place], deployed.reshape(-1)[place]
    return f"{wrong.size} of {expected.size} values differ, first at {index}: {found}, expected {wanted}"


def compare(expected: Graph, deployed: Graph) -> str | None:
    """The first difference between two graphs in words, or None if they are the same bit by bit.

    Order of looking: header, then nodes in file order, then constants by name.

    Args:
        expected: what `compose` built.
        deployed: what was parsed from the file on the table.
    """
    for field in ("opset", "input", "input_shape", "output", "classes"):
        wanted, found = getattr(expected, field), getattr(deployed, field)
        if wanted != found:
            return f"{field} is {found!r}, expected {wanted!r}"
    for place, (left, right) in enumerate(zip(expected.nodes, deployed.nodes, strict=False)):
        if difference := _node_difference(left, right):
            return f"node {place} ({left.name}): {difference}"
    if len(expected.nodes) != len(deployed.nodes):
        return f"{len(deployed.nodes)} nodes, expected {len(expected.nodes)}"
    for name in sorted(expected.initialisers.keys() | deployed.initialisers.keys()):
        if name not in deployed.initialisers:
            return f"constant {name} is missing"
        if name not in expected.initialisers:
            return f"constant {name} does not belong here"
        if difference := _tensor_difference(expected.initialisers[name], deployed.initialisers[name]):
            return f"constant {name}: {difference}"
    return None
