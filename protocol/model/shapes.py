"""Types and shapes of every tensor of a graph, computed here and not by somebody's library.

Proves: a node that `node_type` accepts can run on its inputs for any batch size, treats records
independently (but for an If, see `branches`), and every index that a Gather can see is in range. Assumes that
the types of the inputs are right and the attributes complete (`operators.normalise`). Does not look at the
graph as a whole; see `check`. Source: SPEC 7.4.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from protocol.errors import Schema, TooLarge
from protocol.model.graph import BATCH, Limits, Node
from protocol.model.operators import BOOL, INT64, OPERATORS
from protocol.model.tensor_types import Call, Kind, TensorType, broadcast, product

_STRIDE = 1 << 16


_UNKNOWN = (-(2**63), 2**63 - 1)


def _bounds(found: TensorType) -> tuple[int, int]:
    return _UNKNOWN if found.bounds is None else found.bounds


def _elementwise(call: Call, kinds: tuple[Kind, ...], made: Kind | None = None, first: int = 0) -> TensorType:
    left, right = call.types[first], call.types[first + 1]
    call.demand(
        left.kind == right.kind and left.kind in kinds,
        f"needs {' or '.join(kinds)} inputs, not {left.kind} and {right.kind}",
    )
    shape = broadcast(left.shape, right.shape)
    if shape is None:
        raise call.refuse(f"cannot combine the shapes {left.shape} and {right.shape} record by record")
    return TensorType(kind=made or left.kind, shape=shape)


def _arithmetic(call: Call) -> TensorType:
    return _elementwise(call, ("float32",))


def _extreme(call: Call) -> TensorType:
    made = _elementwise(call, ("float32", "int64"))
    if made.kind == "float32":
        return made
    pick = max if call.node.op == "Max" else min
    (low, high), (other_low, other_high) = map(_bounds, call.types)
    return replace(made, bounds=(pick(low, other_low), pick(high, other_high)))


def _comparison(call: Call) -> TensorType:
    return _elementwise(call, ("float32",), "bool")


def _less(call: Call) -> TensorType:
    return _elementwise(call, ("int64",), "bool")


def _both(call: Call) -> TensorType:
    return _elementwise(call, ("bool",))


def _bits(call: Call) -> TensorType:
    made = _elementwise(call, ("int64",))
    (low, high), (other_low, other_high) = map(_bounds, call.types)
    return made if min(low, other_low) < 0 else replace(made, bounds=(0, min(high, other_high)))


def _where(call: Call) -> TensorType:
    made = _elementwise(call, ("float32", "int64"), first=1)
    chosen = call.types[0]
    call.demand(chosen.kind == "bool", f"needs bool as input 0, not {chosen.kind}")
    call.demand(broadcast(chosen.shape, made.shape) == made.shape, f"cannot choose by a mask of shape {chosen.shape}")
    if made.kind == "float32":
        return made
    (low, high), (other_low, other_high) = map(_bounds, call.types[1:])
    return replace(made, bounds=(min(low, other_low), max(high, other_high)))


def _same(call: Call) -> TensorType:
    return call.activation()


def _flatten(call: Call) -> TensorType:
    shape = call.activation().shape
    return TensorType(kind="float32", shape=(shape[0], product(shape[1:])))


def _reshape(call: Call) -> TensorType:
    # The target is a constant; its first entry must stand for the batch whatever the batch is.
    shape = call.activation().shape
    target = call.constant(1, kind="int64")
    call.demand(target.ndim == 1 and 1 <= target.size <= Limits().rank, "needs a list of sizes as input 1")
    sizes = [int(size) for size in target]
    call.demand(sizes.count(-1) <= 1 and min(sizes) >= -1, f"has the target {sizes}")
    zero_means_same = call.attribute("allowzero") == 0
    call.demand(call.attribute("allowzero") in (0, 1), "needs allowzero 0 or 1")
    for place, size in enumerate(sizes[1:], start=1):
        if size == 0:
            call.demand(zero_means_same and place < len(shape), f"has the target {sizes}")
            sizes[place] = shape[place]
    elements = product(shape[1:])
    rest = [size for size in sizes[1:] if size != -1]
    known = product(tuple(rest))
    if sizes[0] == -1:
        call.demand(known == elements, f"cannot turn {shape} into {sizes}: the first axis must stay the batch")
    else:
        call.demand(
            sizes[0] == 0 and zero_means_same,
            f"has the target {sizes}: the first axis must stay the batch (export with a dynamic batch)",
        )
        call.demand(elements % known == 0 if -1 in sizes else known == elements, f"cannot turn {shape} into {sizes}")
    made = tuple(elements // known if size == -1 else size for size in sizes[1:])
    return TensorType(kind="float32", shape=(shape[0], *made))


def _transpose(call: Call) -> TensorType:
    shape = call.activation().shape
    order = call.attribute("perm")
    call.demand(sorted(order) == list(range(len(shape))), f"has perm = {order[:8]} on {len(shape)} axes")
    call.demand(order[0] == 0, "must leave the batch as the first axis")
    return TensorType(kind="float32", shape=tuple(shape[axis] for axis in order))


def _gemm(call: Call) -> TensorType:
    shape = call.activation().shape
    weight = call.constant(1)
    call.demand(len(shape) == 2 and weight.ndim == 2, "needs a [N, k] input and a weight matrix")
    call.demand(call.attribute("transB") in (0, 1), "needs transB 0 or 1")
    inner, outer = weight.shape[::-1] if call.attribute("transB") else weight.shape
    call.demand(inner == shape[1], f"cannot multiply {shape} by a weight for {inner} inputs")
    if len(call.types) == 3:
        bias = call.constant(2)
        call.demand(bias.shape in {(outer,), (1, outer)}, f"needs a bias of {outer} values, not {bias.shape}")
    return TensorType(kind="float32", shape=(shape[0], outer))


def _matmul(call: Call) -> TensorType:
    shape = call.activation().shape
    weight = call.constant(1)
    call.demand(len(shape) >= 2 and weight.ndim == 2, "needs an activation and a weight matrix")
    call.demand(shape[-1] == weight.shape[0], f"cannot multiply {shape} by {weight.shape}")
    return TensorType(kind="float32", shape=(*shape[:-1], weight.shape[1]))


def _windows(call: Call, shape: tuple[int, ...], *, pool: bool) -> tuple[int, int]:
    """Spatial size after sliding a window: floor((size + 2 pad - kernel) / stride) + 1 on each axis."""
    kernel, strides, pads = call.attribute("kernel_shape"), call.attribute("strides"), call.attribute("pads")
    call.demand(
        len(kernel) == 2 and len(strides) == 2 and len(pads) == 4 and pads[:2] == pads[2:],
        "needs a two-dimensional kernel and strides, and the same padding on opposite sides",
    )
    call.demand(min(kernel) >= 1 and min(pads) >= 0, "needs positive sizes")
    call.demand(min(strides) >= 1 and max(strides) <= _STRIDE, f"needs strides in 1..{_STRIDE}")
    for size, pad, window in zip(shape[2:], pads, kernel, strict=False):
        # Else a pooling window could lie in the padding alone, or the padding be larger than any tensor allowed.
        fits = 2 * pad <= window and pad <= size if pool else pad <= size + window
        call.demand(fits, "is padded too far")
    sizes = [
        (size + 2 * pad - window) // stride + 1
        for size, pad, window, stride in zip(shape[2:], pads, kernel, strides, strict=False)
    ]
    call.demand(min(sizes) >= 1, "has a kernel larger than its input")
    return sizes[0], sizes[1]


def _image(call: Call) -> tuple[int, ...]:
    shape = call.activation().shape
    call.demand(len(shape) == 4, "needs an input [N, channels, height, width]")
    return shape


def _conv(call: Call) -> TensorType:
    shape, weight, group = _image(call), call.constant(1), call.attribute("group")
    call.demand(weight.ndim == 4 and weight.shape[2:] == call.attribute("kernel_shape"), "needs a kernel as input 1")
    call.demand(
        group >= 1 and weight.shape[0] % group == 0 and weight.shape[1] * group == shape[1],
        f"cannot apply a kernel of shape {weight.shape} in {group} groups to {shape[1]} channels",
    )
    if len(call.types) == 3:
        call.demand(call.constant(2).shape == weight.shape[:1], f"needs a bias of {weight.shape[0]} values")
    return TensorType(kind="float32", shape=(shape[0], weight.shape[0], *_windows(call, shape, pool=False)))


def _pool(call: Call) -> TensorType:
    shape = _image(call)
    call.demand(call.node.attributes.get("count_include_pad", 0) in (0, 1), "needs count_include_pad 0 or 1")
    return TensorType(kind="float32", shape=(*shape[:2], *_windows(call, shape, pool=True)))


def _global_pool(call: Call) -> TensorType:
    return TensorType(kind="float32", shape=(*_image(call)[:2], 1, 1))


def _normalisation(call: Call) -> TensorType:
    found = call.activation()
    call.demand(len(found.shape) >= 2, "needs a channel axis")
    for index in range(1, 5):
        call.demand(call.constant(index).shape == found.shape[1:2], f"needs {found.shape[1]} values as input {index}")
    call.demand(bool((call.constant(4) >= 0).all()) and call.attribute("epsilon") > 0, "has a variance below zero")
    call.demand(0 <= call.attribute("momentum") <= 1, "needs a momentum in 0..1")
    return found


def _cast(call: Call) -> TensorType:
    # To integers nothing is known of the value: what a runtime makes of NaN or of 10^30 is its own affair.
    if call.types[0].kind == "greatest":
        call.demand(call.attribute("to") == BOOL, "makes a condition of the greatest of a batch")
        return TensorType(kind="whether", shape=())
    call.demand(call.attribute("to") != BOOL, "makes a condition of the greatest of a batch only")
    if call.attribute("to") == INT64:
        return TensorType(kind="int64", shape=call.activation().shape)
    return TensorType(kind="float32", shape=call.activation(kind="bool").shape)


def _drop(shape: tuple[int, ...], axis: int, *, keep: int) -> tuple[int, ...]:
    return shape[:axis] + (1,) * keep + shape[axis + 1 :]


def _greatest(call: Call) -> TensorType:
    # Known not to be negative, so that it is 0 only if everything is.
    found = call.activation(kind="int64")
    call.demand(_bounds(found)[0] >= 0, "without axes needs integers that are known not to be negative")
    call.demand(found.shape[0] == BATCH and call.attribute("keepdims") == 0, "without axes is of a whole batch")
    return TensorType(kind="greatest", shape=())


def _if(call: Call) -> TensorType:
    condition, chosen, kept = call.types
    call.demand(condition.kind == "whether", "needs a condition that looks at a whole batch")
    call.demand(
        chosen == kept and chosen.kind == "float32" and chosen.shape[:1] == (BATCH,),
        f"needs two float32 activations of one shape, not {chosen.shape} and {kept.shape}",
    )
    return chosen


def _reduce(call: Call) -> TensorType:
    if len(call.types) == 1:
        return _greatest(call)
    found = call.any_activation()
    call.demand(found.kind in _REDUCED[call.node.op], f"needs numbers as input 0, not {found.kind}")
    axis = call.axes(len(found.shape))
    call.demand(call.attribute("keepdims") in (0, 1), "needs keepdims 0 or 1")
    return TensorType(
        kind=found.kind, shape=_drop(found.shape, axis, keep=call.attribute("keepdims")), bounds=found.bounds
    )


def _argmax(call: Call) -> TensorType:
    shape = call.activation().shape
    axis = call.attribute("axis")
    call.demand(1 <= axis < len(shape), f"is in the profile for one axis in 1..{len(shape) - 1} only")
    call.demand(call.attribute("keepdims") in (0, 1), "needs keepdims 0 or 1")
    return TensorType(
        kind="int64", shape=_drop(shape, axis, keep=call.attribute("keepdims")), bounds=(0, shape[axis] - 1)
    )


def _unsqueeze(call: Call) -> TensorType:
    found = call.any_activation()
    axis = call.axes(len(found.shape) + 1)
    return replace(found, shape=(*found.shape[:axis], 1, *found.shape[axis:]))


def _gather(call: Call) -> TensorType:
    table, index, axis = call.types[0], call.types[1], call.attribute("axis")
    call.demand(index.kind == "int64", "needs int64 as input 1")
    if table.places is not None:
        return _listed(call, table.places)
    if index.records:
        call.demand(table.shape[:1] == (BATCH,) and axis == 0, "takes records from an activation, along axis 0")
        return replace(table, shape=index.shape + table.shape[1:])
    call.demand(table.batched != index.batched, "needs a constant table or constant indices")
    call.demand(axis == (1 if table.batched else 0) and axis < len(table.shape), f"has axis = {axis}")
    call.demand(index.batched or len(index.shape) == 1, "needs a list of indices")
    low, high = _bounds(index)
    call.demand(low >= 0 and high < table.shape[axis], f"reaches {low}..{high} in an axis of {table.shape[axis]}")
    call.demand(table.kind != "bool", "needs numbers as input 0")
    return TensorType(
        kind=table.kind, shape=table.shape[:axis] + index.shape + table.shape[axis + 1 :], bounds=table.bounds
    )


def _listed(call: Call, places: tuple[int, ...]) -> TensorType:
    # One row of a list of places: the record's number, or a place along one of the other axes.
    row = call.constant(1, kind="int64")
    call.demand(
        row.shape == () and 0 <= int(row) < len(places) and call.attribute("axis") == 0, "takes one row of a list"
    )
    if row == 0:
        return TensorType(kind="int64", shape=call.types[0].shape[1:], records=True)
    return TensorType(kind="int64", shape=call.types[0].shape[1:], bounds=(0, places[int(row)] - 1))


def _nonzero(call: Call) -> TensorType:
    found = call.activation(kind="int64")
    call.demand(found.shape[0] == BATCH, "lists places of whole records only")
    return TensorType(kind="int64", shape=(len(found.shape), BATCH - 1 - call.tensors), places=found.shape)


def _scatter(call: Call) -> TensorType:
    data, index, updates = call.types
    call.demand(
        data.kind == updates.kind == "int64" and data.shape == (BATCH,), "needs one int64 for each record as input 0"
    )
    call.demand(index.records and updates.shape == index.shape, "needs numbers of records, and as many updates")
    low, high = _bounds(data)
    other_low, _ = _bounds(updates)
    # The least of what was there and all that comes: never above what was there.
    return replace(data, bounds=(min(low, other_low), high))


def _split(call: Call) -> TensorType:
    found = call.any_activation()
    call.demand(len(found.shape) >= 2 and found.shape[1] % 2 == 0, "needs an even size along axis 1")
    return replace(found, shape=(found.shape[0], found.shape[1] // 2, *found.shape[2:]))


_REDUCED: Mapping[str, tuple[Kind, ...]] = {
    "ReduceMin": ("float32", "int64"),
    "ReduceMax": ("float32", "int64"),
    "ReduceSum": ("float32",),
}
_RULES: Mapping[str, Callable[[Call], TensorType]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Relu": _same,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Identity": _same,
    "Conv": _conv,
    "BatchNormalization": _normalisation,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool,
    "Round": _same,
    "Max": _extreme,
    "Min": _extreme,
    "LessOrEqual": _comparison,
    "GreaterOrEqual": _comparison,
    "Greater": _comparison,
    "And": _both,
    "Cast": _cast,
    "ReduceMin": _reduce,
    "ReduceMax": _reduce,
    "ArgMax": _argmax,
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "Where": _where,
    "Less": _less,
    "ReduceSum": _reduce,
    "BitwiseAnd": _bits,
    "Split": _split,
    "NonZero": _nonzero,
    "ScatterElements": _scatter,
    "If": _if,
}


def node_type(
    node: Node, types: Mapping[str, TensorType], initialisers: Mapping[str, np.ndarray], limits: Limits
) -> TensorType:
    """The type of what `node` makes (of each of its outputs), given those of its inputs.

    Raises:
        MalformedError: the node cannot run on these inputs, or what it makes is over a limit.
    """
    known = OPERATORS[node.op]
    where = node.outputs[0]
    if not known.least <= len(node.inputs) <= known.most:
        raise Schema(f"operator {node.op} with {len(node.inputs)} inputs is not in the profile", where=where)
    if missing := [name for name in node.inputs if name not in types]:
        raise Schema(f"operator {node.op} reads {missing[0][:80]!r} before anything makes it", where=where)
    call = Call(
        node=node,
        types=tuple(types[name] for name in node.inputs),
        values=tuple(map(initialisers.get, node.inputs)),
        tensors=len(types),
    )
    made = _RULES[node.op](call)
    if len(made.shape) > limits.rank:
        raise TooLarge(f"a tensor of {len(made.shape)} axes, at most {limits.rank}", where=where)
    if (elements := product(made.shape[1:])) > limits.elements:
        raise TooLarge(f"{elements} values per record, at most {limits.elements}", where=where)
    return made
