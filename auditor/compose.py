"""What base model + patch must compose to, and where a deployed file differs from it.

Proves: that a deployed graph is the base graph with exactly the patch's gates, heads and caps
behind it, node by node and bit by bit; two protobuf files can spell one graph in many ways, so
files themselves are not compared. This is the auditor's own construction from the text of
the SPEC, made without the owner's code.

Assumes parsed arguments. Does not run anything, and does not decide whether the patch does what
is claimed for it.

Source: SPEC 7.9; the step numbers below are those, the screen is `auditor.screen`.
"""

from dataclasses import replace

import numpy as np

from auditor.bounds import inexact_sums
from auditor.rows import nearest_float32
from auditor.screen import left_by_the_table, screened
from auditor.tail import PREFIX, Tail
from protocol.errors import AuditorError, MalformedError
from protocol.model.check import check_graph
from protocol.model.graph import Graph, Node
from protocol.model.operators import GATE_OPSET
from protocol.model.patch import (
    AffineHead,
    AlwaysGate,
    Cap,
    FeatureGate,
    Gate,
    Part,
    Patch,
    RegionGate,
    SetHead,
    SketchGate,
)
from protocol.model.schema import InputSchema

OUTPUT = "prune/output"


def _screened(gate: Gate) -> bool:
    return isinstance(gate, SketchGate) and gate.screen is not None


def _hits(tail: Tail, here: str, gate: Gate, *, flat: str, inside: str, grid: str) -> str:
    """Steps 4 to 7: which items fire, as zeros and ones [N, m]."""
    if isinstance(gate, AlwaysGate):
        return inside
    if isinstance(gate, RegionGate):
        items, halves, features = gate.weights.shape
        # Column k h + j is weights_kj; the program multiplies rows of records by it.
        columns = np.ascontiguousarray(gate.weights.reshape(items * halves, features).T)
        products = tail.apply("MatMul", here + "products", flat, tail.constant(here + "halves", columns))
        sizes = tail.constant(here + "sizes", np.array([0, items, halves], np.int64))
        row = tail.apply("Reshape", here + "row", products, sizes, allowzero=0)
        bounds = tail.constant(here + "item_bounds", gate.bounds)
        between = tail.apply("LessOrEqual", here + "between", row, bounds)
        return tail.hits(here, between, inside)
    if isinstance(gate, FeatureGate):
        values = tail.apply("Flatten", here + "features", gate.tensor, axis=1)
    else:
        # The manifest stores S as [component, feature]; the program multiplies rows of records by its transpose.
        sketch = tail.constant(here + "sketch", np.ascontiguousarray(gate.matrix.T.astype(np.float32)))
        values = tail.apply("MatMul", here + "sketched", grid, sketch)
    row = tail.apply("Unsqueeze", here + "row", values, tail.axes(1))
    low = tail.constant(here + "item_low", gate.low.astype(np.float32))
    high = tail.constant(here + "item_high", gate.high.astype(np.float32))
    return tail.hits(here, tail.boxed(here, row, low, high), inside)


def _first(tail: Tail, here: str, gate: Gate, *, flat: str, inside: str, grid: str) -> tuple[str, str]:
    """Steps 4 to 9: the first item that fires [N], and whether one fires [N, 1]."""
    if isinstance(gate, SketchGate) and gate.screen is not None:
        return screened(tail, here, flat, gate, *left_by_the_table(tail, here, flat, gate))
    hits = _hits(tail, here, gate, flat=flat, inside=inside, grid=grid)
    first = tail.apply("ArgMax", here + "first", hits, axis=1, keepdims=0, select_last_index=0)
    any_hit = tail.apply("ReduceMax", here + "any", hits, tail.axes(1), keepdims=1)
    return first, tail.apply("Greater", here + "fired", any_hit, tail.half())


def _value(tail: Tail, here: str, part: Part, *, row_index: str, flat: str, y: str) -> str:
    """Steps 10 to 12: what the output is where the part fires [N, C]."""
    head = part.head
    rows = tail.constant(here + "rows", head.rows)
    if isinstance(head, SetHead):
        return tail.apply("Gather", here + "value", rows, row_index, axis=0)
    if isinstance(head, AffineHead):
        maps = tail.constant(here + "maps", head.weights)
        picked = tail.apply("Gather", here + "map", maps, row_index, axis=0)
        wide = tail.apply("Unsqueeze", here + "wide", flat, tail.axes(1))
        products = tail.apply("Mul", here + "products_of_map", picked, wide)
        linear = tail.apply("ReduceSum", here + "linear", products, tail.axes(2), keepdims=0)
        constant = tail.apply("Gather", here + "constant_row", rows, row_index, axis=0)
        added = tail.apply("Add", here + "added", linear, constant)
    else:
        added = tail.apply("Gather", here + "added", rows, row_index, axis=0)
    return tail.apply("Add", here + "value", y, added)


def _part(tail: Tail, here: str, part: Part, *, flat: str, inside: str, grid: str, y: str) -> tuple[str, str]:
    """Whether the part fires [N, 1], and its value [N, C]."""
    first, fired = _first(tail, here, part.gate, flat=flat, inside=inside, grid=grid)
    return fired, _looked_up(tail, here, part, first, flat=flat, y=y)


def _looked_up(tail: Tail, here: str, part: Part, first: str, *, flat: str, y: str) -> str:
    # Behind a screen "no item" is a number of its own, which needs a row to look up (and never to be used).
    index = np.append(part.head.index, 0) if _screened(part.gate) else part.head.index
    row_of_item = tail.constant(here + "row_of_item", index.astype(np.int64))
    row_index = tail.apply("Gather", here + "row_index", row_of_item, first, axis=0)
    return _value(tail, here, part, row_index=row_index, flat=flat, y=y)


def _branch(
    tail: Tail, here: str, part: Part, left: tuple[str, str], *, flat: str, y: str, kept: str, name: str
) -> str:
    """Steps 23 and 24: the selection between a part and what is kept without it, left out where no item is possible."""
    assert isinstance(part.gate, SketchGate)
    most = tail.apply("ReduceMax", here + "most", left[1], keepdims=0)
    some = tail.apply("Cast", here + "some", most, to=9)
    first, fired = screened(tail, here, flat, part.gate, *left)
    value = _looked_up(tail, here, part, first, flat=flat, y=y)
    return tail.apply("If", name, some, tail.apply("Where", here + "chosen", fired, value, kept), kept)


def _parts(tail: Tail, base: Graph, patch: Patch) -> str:
    """Steps 1 to 13: the selected output."""
    gates = [part.gate for part in patch.parts]
    flat = tail.apply("Flatten", "flat", base.input, axis=1)
    affine = inside = grid = ""
    if not all(map(_screened, gates)):
        affine, inside = tail.inside("", flat)
    if any(isinstance(gate, SketchGate) and gate.screen is None for gate in gates):
        grid = tail.grid("", affine)
    # Of a part behind a branch, what the table leaves comes here; everything else only when it is its turn below.
    made: list[tuple[str, str]] = []
    for number, part in enumerate(patch.parts):
        here = f"p{number}/"
        if isinstance(part.gate, SketchGate) and part.gate.branch:
            made.append(left_by_the_table(tail, here, flat, part.gate))
        else:
            made.append(_part(tail, here, part, flat=flat, inside=inside, grid=grid, y=base.output))
    selected = base.output
    for number in reversed(range(len(made))):
        part, here = patch.parts[number], f"p{number}/"
        name = here + "selected" if number or patch.caps else "output"
        if isinstance(part.gate, SketchGate) and part.gate.branch:
            selected = _branch(tail, here, part, made[number], flat=flat, y=base.output, kept=selected, name=name)
        else:
            selected = tail.apply("Where", name, *made[number], selected)
    return selected


def _check_parts(base: Graph, schema: InputSchema, patch: Patch) -> None:
    # Only what a gate can be wrong about with respect to this base; everything else was looked at when it was parsed.
    types = check_graph(base) if any(isinstance(part.gate, FeatureGate) for part in patch.parts) else {}
    made = {output for node in base.nodes for output in node.outputs}
    for number, part in enumerate(patch.parts):
        gate = part.gate
        if isinstance(gate, SketchGate) and (reason := inexact_sums(gate, schema.low, schema.high)):
            raise AuditorError(f"the gate of part {number} would not be exact: {reason}")
        if isinstance(gate, FeatureGate):
            if gate.tensor not in made:
                raise AuditorError(f"part {number} looks at {gate.tensor[:80]!r}, which no node of the base makes")
            values = int(np.prod(types[gate.tensor].shape[1:], dtype=np.int64))
            if values != gate.low.shape[1]:
                raise AuditorError(
                    f"part {number} has boxes of {gate.low.shape[1]} values for {gate.tensor[:80]!r}, not its {values}"
                )


def _cap(tail: Tail, selected: str, cap: Cap, *, index: int, patch: Patch, name: str) -> str:
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


def retrained(base: Graph, patch: Patch) -> Graph:
    """The base with the patch's values in place of its own, before anything is put behind it.

    Raises:
        AuditorError: a name or shape that the base does not have, or values that are the base's own.
    """
    if not patch.weights:
        return base
    changed = dict(base.initialisers)
    for weight in patch.weights:
        name, array = weight.name, weight.values
        there = base.initialisers.get(name)
        if there is None or there.dtype != np.float32 or there.shape != array.shape:
            raise AuditorError(f"the base has no float32 constant {name[:80]!r} of shape {array.shape}")
        if there.tobytes() == array.tobytes():
            raise AuditorError(f"the patch replaces {name[:80]!r} by what the base has")
        changed[name] = array
    found = replace(base, initialisers=changed)
    try:
        check_graph(found)
    except MalformedError as error:
        raise AuditorError(f"with the patch's weights the base is no model: {error}") from None
    return found


def compose(base: Graph, schema: InputSchema, patch: Patch) -> Graph:
    """The graph that a deployed file must be.

    Args:
        base: the committed base model.
        schema: the committed input schema.
        patch: the patch on the table.

    Raises:
        AuditorError: base, schema and patch do not fit together, the base uses reserved names, or
            a sketch could be rounded (`bounds.inexact_sums` says so without raising), a screen cannot be proven
            for the schema, a gate looks at a tensor that the base does not make, or its weights are not the base's.
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
    base = retrained(base, patch)
    if not patch.parts and not patch.caps:
        return base
    _check_parts(base, schema, patch)
    tail = Tail(schema)
    selected = _parts(tail, base, patch) if patch.parts else base.output
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
