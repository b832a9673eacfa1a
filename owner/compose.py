"""Base model + input schema + patch = one deployable model.

Proves: the composed graph holds every node and constant of the base unchanged, and selects between its
output and what the patch's heads give, bit by bit; every sum of a sketch is exact in float32 in any order, else
composing is refused. Assumes a parsed base, schema and patch. Does not say that the patch does what a
certificate claims. Source: SPEC 7.9 (composition; the numbers below are its steps).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from owner.screen import CELLS, screen
from protocol.encoding import parse_float32
from protocol.errors import OwnerError
from protocol.model.patch import (
    MAX_SUM,
    AffineHead,
    AlwaysGate,
    Cap,
    FeatureGate,
    Head,
    Part,
    Patch,
    RegionGate,
    SetHead,
    SketchGate,
)
from protocol.model.profile import GATE_OPSET, Attribute, Graph, Node, check_graph, make_node, same_tensor
from protocol.model.schema import InputSchema

PREFIX = "prune/"
OUTPUT = "prune/output"
_INT64, _BOOL = 7, 9


class _Builder:
    """Nodes and constants behind the base; every name gets the prefix, every node its first output's name."""

    def __init__(self, schema: InputSchema, x: str, y: str) -> None:
        self.schema, self.x, self.y = schema, x, y
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, value: np.ndarray, kind: type[np.generic] = np.float32) -> str:
        exact = np.ascontiguousarray(value.astype(kind)).reshape(value.shape)
        if not np.array_equal(exact.astype(np.float64), value.astype(np.float64)):
            raise OwnerError(f"{name} holds numbers that are not exact in {np.dtype(kind)}")
        self.constants[PREFIX + name] = exact
        return PREFIX + name

    def whole(self, name: str, value: np.ndarray) -> str:
        """Bits in int64: no number that float64 could compare."""
        self.constants[PREFIX + name] = np.ascontiguousarray(value, dtype=np.int64)
        return PREFIX + name

    def axes(self, axis: int) -> str:
        return self.constant(f"axes{axis}", np.array([axis]), np.int64)

    def half(self) -> str:
        return self.constant("half", np.array(0.5))

    def node(self, op: str, inputs: tuple[str, ...], name: str, **attributes: Attribute) -> str:
        self.nodes.append(make_node(op, inputs, PREFIX + name, **attributes))
        return PREFIX + name

    def halves(self, source: str, left: str, right: str) -> tuple[str, str]:
        made = PREFIX + left, PREFIX + right
        self.nodes.append(make_node("Split", (source,), *made, axis=1, num_outputs=2))
        return made


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
    shapes = check_graph(base)
    for part in patch.parts:
        if isinstance(part.gate, SketchGate) and (largest := largest_sum(part.gate, schema)) >= MAX_SUM:
            raise OwnerError(
                f"sums of the sketch reach {largest}, over {MAX_SUM} float32 is not exact; use a smaller one"
            )
        if isinstance(part.gate, FeatureGate):
            found = shapes.get(part.gate.tensor)
            made = {output for node in base.nodes for output in node.outputs}
            if part.gate.tensor not in made or found is None or not found.batched:
                raise OwnerError("the base makes no such tensor", where=part.gate.tensor)
            if int(np.prod(found.shape[1:])) != part.gate.low.shape[1]:
                raise OwnerError(f"the tensor has shape {found.shape[1:]}, the boxes {part.gate.low.shape[1]} values")


def _affine(add: _Builder, flat: str, under: str) -> tuple[str, str]:
    """Step 2: the affine image of raw inputs, and whether it is inside the declared columns."""
    schema = add.schema
    scaled = add.node("Mul", (flat, add.constant("scale", schema.scale)), under + "scaled")
    affine = add.node("Add", (scaled, add.constant("offset", schema.offset)), under + "affine")
    low_edge = add.constant("low_edge", schema.low - 0.5)
    above = add.node("GreaterOrEqual", (affine, low_edge), under + "above")
    high_edge = add.constant("high_edge", schema.high + 0.5)
    below = add.node("LessOrEqual", (affine, high_edge), under + "below")
    in_columns = add.node("And", (above, below), under + "in_columns")
    as_float = add.node("Cast", (in_columns,), under + "in_columns_float", to=1)
    return affine, add.node("ReduceMin", (as_float, add.axes(1)), under + "inside", keepdims=1)


def _grid(add: _Builder, affine: str, under: str) -> str:
    """Step 3: grid values."""
    rounded = add.node("Round", (affine,), under + "rounded")
    raised = add.node("Max", (rounded, add.constant("low", add.schema.low)), under + "raised")
    return add.node("Min", (raised, add.constant("high", add.schema.high)), under + "grid")


def _matched(add: _Builder, row: str, low: str, high: str, inside: str, under: str) -> str:
    over = add.node("GreaterOrEqual", (row, low), under + "over")
    below = add.node("LessOrEqual", (row, high), under + "under")
    return _hits(add, add.node("And", (over, below), under + "between"), inside, under)


def _hits(add: _Builder, between: str, inside: str, under: str) -> str:
    as_float = add.node("Cast", (between,), under + "between_float", to=1)
    matched = add.node("ReduceMin", (as_float, add.axes(2)), under + "matched", keepdims=0)
    return add.node("Mul", (matched, inside), under + "hits")


def _dense(add: _Builder, part: Part, shared: Mapping[str, str], under: str) -> tuple[str, str]:
    """Steps 4 to 8: whether an item fires, and the row of the first one that does."""
    gate, inside = part.gate, shared["inside"]
    match gate:
        case SketchGate():
            sketch = add.constant(under + "sketch", gate.matrix.T)
            sketched = add.node("MatMul", (shared["grid"], sketch), under + "sketched")
            row = add.node("Unsqueeze", (sketched, add.axes(1)), under + "row")
            low, high = add.constant(under + "item_low", gate.low), add.constant(under + "item_high", gate.high)
            hits = _matched(add, row, low, high, inside, under)
        case FeatureGate():
            features = add.node("Flatten", (gate.tensor,), under + "features", axis=1)
            row = add.node("Unsqueeze", (features, add.axes(1)), under + "row")
            low, high = add.constant(under + "item_low", gate.low), add.constant(under + "item_high", gate.high)
            hits = _matched(add, row, low, high, inside, under)
        case RegionGate():
            items, halves, features_count = gate.weights.shape
            flattened = add.constant(under + "halves", gate.weights.reshape(items * halves, features_count).T)
            products = add.node("MatMul", (shared["flat"], flattened), under + "products")
            sizes = add.constant(under + "sizes", np.array([0, items, halves]), np.int64)
            row = add.node("Reshape", (products, sizes), under + "row", allowzero=0)
            bound = add.constant(under + "item_bounds", gate.bounds)
            hits = _hits(add, add.node("LessOrEqual", (row, bound), under + "between"), inside, under)
        case AlwaysGate():
            hits = inside
    first = add.node("ArgMax", (hits,), under + "first", axis=1, keepdims=0, select_last_index=0)
    best = add.node("ReduceMax", (hits, add.axes(1)), under + "any", keepdims=1)
    fired = add.node("Greater", (best, add.half()), under + "fired")
    row_of_item = add.constant(under + "row_of_item", part.head.index, np.int64)
    return fired, add.node("Gather", (row_of_item, first), under + "row_index", axis=0)


def _possible(add: _Builder, gate: SketchGate, flat: str, under: str) -> tuple[str, str]:
    """Steps 15 and 16: the cell of each component, and the items that a table of bits leaves."""
    made = screen(gate, add.schema)
    looked_at = len(made.bias)
    starts = CELLS * np.arange(looked_at)
    weights = add.constant(under + "screen_weights", made.weights)
    bias = add.constant(under + "screen_bias", made.bias)
    coarse = add.node("Gemm", (flat, weights, bias), under + "coarse", alpha=1.0, beta=1.0, transB=0)
    cell = add.node("Cast", (coarse,), under + "coarse_cell", to=_INT64)
    cell = add.node("Max", (cell, add.constant(under + "cell_low", starts, np.int64)), under + "cell_raised")
    cell = add.node("Min", (cell, add.constant(under + "cell_high", starts + CELLS - 1, np.int64)), under + "cell")
    bits = add.node("Gather", (add.whole(under + "table", made.table), cell), under + "bits", axis=0)
    for step in range(looked_at.bit_length() - 1):
        pair = add.halves(bits, under + f"left{step}", under + f"right{step}")
        bits = add.node("BitwiseAnd", pair, under + f"both{step}")
    return cell, bits


def _screened(add: _Builder, part: Part, gate: SketchGate, possible: tuple[str, str], under: str) -> tuple[str, str]:
    """Steps 17 to 22: whether an item fires and its row, testing exactly only what is left."""
    (cell, bits), flat = possible, PREFIX + "flat"
    looked_at = 0 if gate.screen is None else len(gate.screen)
    items, words = gate.items, -(-gate.items // gate.word)
    places = add.node("NonZero", (bits,), under + "places")
    record = add.node("Gather", (places, add.constant("place0", np.array(0), np.int64)), under + "record", axis=0)
    word = add.node("Gather", (places, add.constant("place2", np.array(2), np.int64)), under + "word", axis=0)
    seen = add.node("Gather", (flat, record), under + "seen", axis=0)
    affine, inside = _affine(add, seen, under)
    grid = _grid(add, affine, under)
    sketched = add.node("MatMul", (grid, add.constant(under + "sketch", gate.matrix.T)), under + "sketched")
    row = add.node("Unsqueeze", (sketched, add.axes(1)), under + "row")
    spare = np.ones((words * gate.word - items, gate.low.shape[1]), dtype=np.int64)
    shape = (words, gate.word, gate.low.shape[1])
    low = add.constant(under + "word_low", np.concatenate([gate.low, spare]).reshape(shape))
    low = add.node("Gather", (low, word), under + "low_here", axis=0)
    high = add.constant(under + "word_high", np.concatenate([gate.high, 0 * spare]).reshape(shape))
    high = add.node("Gather", (high, word), under + "high_here", axis=0)
    hits = _matched(add, row, low, high, inside, under)
    hit = add.node("Greater", (hits, add.half()), under + "hit")
    counted = np.minimum(np.arange(words * gate.word), items).reshape(words, gate.word)
    numbers = add.constant(under + "item_numbers", counted, np.int64)
    numbers = add.node("Gather", (numbers, word), under + "numbers", axis=0)
    no_item = add.constant(under + "no_item", np.array(items), np.int64)
    candidates = add.node("Where", (hit, numbers, no_item), under + "candidates")
    candidate = add.node("ReduceMin", (candidates, add.axes(1)), under + "candidate", keepdims=0)
    some = add.node("ReduceMax", (cell, add.axes(1)), under + "some_cell", keepdims=0)
    nothing = add.constant(under + "nothing", np.full(CELLS * looked_at, items), np.int64)
    none = add.node("Gather", (nothing, some), under + "none", axis=0)
    first = add.node("ScatterElements", (none, record, candidate), under + "first", axis=0, reduction="min")
    fires = add.node("Less", (first, no_item), under + "fires")
    fired = add.node("Unsqueeze", (fires, add.axes(1)), under + "fired")
    row_of_item = add.constant(under + "row_of_item", np.append(part.head.index, 0), np.int64)
    return fired, add.node("Gather", (row_of_item, first), under + "row_index", axis=0)


def _value(add: _Builder, head: Head, flat: str, row_index: str, under: str) -> str:
    """Steps 10 to 12: what the head gives."""
    rows = add.constant(under + "rows", head.rows)
    if isinstance(head, SetHead):
        return add.node("Gather", (rows, row_index), under + "value", axis=0)
    if isinstance(head, AffineHead):
        maps = add.constant(under + "maps", head.weights)
        chosen = add.node("Gather", (maps, row_index), under + "map", axis=0)
        wide = add.node("Unsqueeze", (flat, add.axes(1)), under + "wide")
        products = add.node("Mul", (chosen, wide), under + "products_of_map")
        linear = add.node("ReduceSum", (products, add.axes(2)), under + "linear", keepdims=0)
        constant = add.node("Gather", (rows, row_index), under + "constant_row", axis=0)
        added = add.node("Add", (linear, constant), under + "added")
    else:
        added = add.node("Gather", (rows, row_index), under + "added", axis=0)
    return add.node("Add", (add.y, added), under + "value")


def _is_screened(part: Part) -> bool:
    return isinstance(part.gate, SketchGate) and part.gate.screen is not None


def _parts(add: _Builder, patch: Patch) -> str:
    """Steps 1 to 13: the first item that fires decides, through all parts."""
    flat = add.node("Flatten", (add.x,), "flat", axis=1)
    shared = {"flat": flat}
    dense = [part for part in patch.parts if not _is_screened(part)]
    if dense:
        affine, shared["inside"] = _affine(add, flat, "")
        if any(isinstance(part.gate, SketchGate) for part in dense):
            shared["grid"] = _grid(add, affine, "")
    choices = [_choice(add, part, shared, f"p{number}/") for number, part in enumerate(patch.parts)]
    selected = add.y
    for number, choose in reversed(tuple(enumerate(choices))):
        last = number == 0 and not patch.caps
        selected = choose(selected, "output" if last else f"p{number}/selected")
    return selected


def _choice(add: _Builder, part: Part, shared: Mapping[str, str], under: str) -> Callable[[str, str], str]:
    """A part's gate and value, and what then selects between it and what the later parts leave (step 13)."""

    def chosen(fired: str, row_index: str) -> tuple[str, str]:
        return fired, _value(add, part.head, shared["flat"], row_index, under)

    gate = part.gate
    if not isinstance(gate, SketchGate) or gate.screen is None:
        made = chosen(*_dense(add, part, shared, under))
        return lambda kept, name: add.node("Where", (*made, kept), name)
    possible = _possible(add, gate, shared["flat"], under)
    if not gate.branch:
        made = chosen(*_screened(add, part, gate, possible, under))
        return lambda kept, name: add.node("Where", (*made, kept), name)

    def branch(kept: str, name: str) -> str:
        most = add.node("ReduceMax", possible[1:], under + "most", keepdims=0)
        some = add.node("Cast", (most,), under + "some", to=_BOOL)
        inner = chosen(*_screened(add, part, gate, possible, under))
        return add.node("If", (some, add.node("Where", (*inner, kept), under + "chosen"), kept), name)

    return branch


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


def with_weights(base: Graph, patch: Patch) -> Graph:
    """The base with the values that a patch gives some of its constants (SPEC 7.9, step 0).

    Raises:
        OwnerError: the base has no such constant, or has these values already.
    """
    if not patch.weights:
        return base
    for weight in patch.weights:
        name, array = weight.name, weight.values
        there = base.initialisers.get(name)
        if there is None or (there.dtype, there.shape) != (array.dtype, array.shape):
            raise OwnerError("the base has no constant of this name, type and shape", where=name)
        if same_tensor(array, there):
            raise OwnerError("the patch gives a constant the value that it has", where=name)
    changed = replace(base, initialisers={**base.initialisers, **{w.name: w.values for w in patch.weights}})
    check_graph(changed)
    return changed


def compose(base: Graph, schema: InputSchema, patch: Patch) -> Graph:
    """The deployed model: base, gate, selection, caps.

    Args:
        base: a model without gate operators and without names that begin with `prune/`.
        schema: the committed input schema, for the base's input shape.
        patch: for the base's features and classes.

    Returns:
        A graph whose opset is the base's, or 18 where that is lower, and whose output is `prune/output`; where
        the patch has only weights, the base with these.

    Raises:
        OwnerError: the parts do not fit together, or the sketch's sums would not be exact.
    """
    _check(base, schema, patch)
    base = with_weights(base, patch)
    if not patch.parts and not patch.caps:
        return base
    add = _Builder(schema, base.input, base.output)
    selected = _parts(add, patch) if patch.parts else base.output
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
