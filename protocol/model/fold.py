"""Other ways to write what the profile has: exporters' habits turned into the profile's own nodes.

Proves: nothing that changes what a model computes is dropped. What is rewritten is exact in real
numbers and listed here, so that both sides read one graph:

- `Identity` of a constant, and constants under several names, become one name;
- arithmetic on the input's shape (`Shape`, `Gather`, `Unsqueeze`, `Concat`) that ends in a `Reshape`
  becomes a constant target; so does the batch size of an export with a fixed batch;
- a bias or normalisation constant that exporters share because the bytes happened to be equal gets a
  name of its own for each use (weights that are shared stay shared: nobody draws those twice by accident);
- `ReduceMean` over height and width becomes `GlobalAveragePool` (and `Flatten`).

Assumes a decoded file. Does not check the result as a whole; see `check`. Source: SPEC 7.5.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from protocol.errors import Schema, TooLarge
from protocol.model.branches import KEPT
from protocol.model.decode import RawModel
from protocol.model.graph import BATCH, Attribute, Limits, Node
from protocol.model.operators import OPERATORS, normalise, outputs_of, own_slots
from protocol.model.shapes import node_type
from protocol.model.tensor_types import TensorType, constant_type

_THE_BATCH = -(2**40)
"""Stands for the batch size inside shape arithmetic, where -1 already means "whatever is left"."""
_KEPT = 0
_MEAN = "ReduceMean"
_SHAPE_OPERATORS = frozenset({"Shape", "Gather", "Unsqueeze", "Concat"})


class _Folder:
    """Goes through the nodes once, keeping the type of every tensor and the value of every known list of sizes."""

    def __init__(self, raw: RawModel, operators: frozenset[str], limits: Limits) -> None:
        self.raw = raw
        self.operators = operators
        self.limits = limits
        self.constants = dict(raw.constants)
        self.alias: dict[str, str] = {}
        self.sizes: dict[str, tuple[int, ...] | int] = {}
        self.spent: set[str] = set()
        self.nodes: list[Node] = []
        sizes = tuple(size for size in raw.input_shape[1:] if size is not None)
        self.types = {raw.input: TensorType(kind="float32", shape=(BATCH, *sizes))}
        self.types |= {name: constant_type(array) for name, array in self.constants.items()}

    def taken(self, name: str) -> bool:
        """Whether something that came before has this name, be it rewritten or not."""
        return name in self.types or name in self.alias or name in self.sizes

    def known(self, name: str) -> tuple[int, ...] | int | None:
        """The value of a list of sizes or of one size, if it depends on shapes and constants only."""
        if name in self.sizes:
            return self.sizes[name]
        array = self.constants.get(name)
        if array is None or array.dtype != np.int64 or array.ndim > 1 or array.size > self.limits.rank:
            return None
        return tuple(int(item) for item in array) if array.ndim else int(array)

    def shape_arithmetic(self, node: Node) -> bool:
        """Whether `node` only computes sizes; if so its value is noted and the node is gone."""
        value = self._sizes_of(node)
        if value is None:
            return False
        self.sizes[node.outputs[0]] = value
        self.spent.update(node.inputs)
        return True

    def _sizes_of(self, node: Node) -> tuple[int, ...] | int | None:
        if node.op == "Shape" and len(node.inputs) == 1 and not node.attributes and node.inputs[0] in self.types:
            return tuple(_THE_BATCH if size == BATCH else size for size in self.types[node.inputs[0]].shape)
        values = [self.known(name) for name in node.inputs]
        axis = node.attributes.get("axis", 0)
        match node.op, values:
            case "Gather", [tuple(table), int(index)] if axis == 0 and -len(table) <= index < len(table):
                return table[index]
            case "Unsqueeze", [int(item), (0,)] if not node.attributes:
                return (item,)
            case "Unsqueeze", [int(item)] if dict(node.attributes) == {"axes": (0,)}:  # before opset 13
                return (item,)
            case "Concat", [*parts] if axis == 0:
                lists = [part for part in parts if isinstance(part, tuple)]
                if len(lists) == len(parts) and sum(map(len, lists)) <= self.limits.rank:
                    return tuple(item for part in lists for item in part)
        return None

    def target(self, node: Node) -> Node:
        """A Reshape whose target is a constant with an open batch."""
        name = node.inputs[1]
        sizes = self.known(name)
        fixed = self.raw.input_shape[0]
        if not isinstance(sizes, tuple) or not sizes:
            return node
        if name in self.constants and (fixed is None or sizes[0] != fixed):
            return node
        if sizes[0] not in (_THE_BATCH, fixed) or _THE_BATCH in sizes[1:] or 0 in sizes:
            raise Schema("operator Reshape with a target that depends on the batch", where=node.outputs[0])
        self.spent.add(name)
        made = f"{node.outputs[0]}/sizes"
        if made in self.types:
            raise Schema("a name stands for two tensors", where=made)
        self.constants[made] = np.array([_KEPT, *sizes[1:]], dtype=np.int64)
        self.types[made] = constant_type(self.constants[made])
        return replace(node, inputs=(node.inputs[0], made), attributes={"allowzero": 0})

    def mean(self, node: Node) -> tuple[Node, ...]:
        """The pooling that a ReduceMean over height and width is."""
        given = dict(node.attributes)
        axes = given.pop("axes", None)
        keep = given.pop("keepdims", 1)
        if len(node.inputs) == 2:
            axes = self.known(node.inputs[1])
            self.spent.add(node.inputs[1])
        found = self.types.get(node.inputs[0]) if node.inputs else None
        ordinary = given in ({}, {"noop_with_empty_axes": 0}) and isinstance(axes, tuple) and len(axes) == 2
        if found is None or len(found.shape) != 4 or not ordinary or {axis % 4 for axis in axes} != {2, 3}:  # type: ignore[union-attr]
            raise Schema(f"operator {_MEAN!r} is in the profile over height and width only", where=node.outputs[0])
        pooled = node.outputs[0] if keep else f"{node.outputs[0]}/pooled"
        pool = Node(name=node.name, op="GlobalAveragePool", inputs=node.inputs[:1], outputs=(pooled,))
        return (pool,) if keep else (pool, Node(name="", op="Flatten", inputs=(pooled,), outputs=node.outputs))

    def take(self, node: Node) -> None:
        """Add one node in the profile's form, or refuse it."""
        node = replace(node, inputs=tuple(self.alias.get(name, name) for name in node.inputs))
        if len(node.outputs) != outputs_of(node.op):
            raise Schema(f"operator {node.op[:40]!r} with {len(node.outputs)} outputs is not in the profile")
        for output in node.outputs:
            if self.taken(output):
                raise Schema("a name stands for two tensors", where=output)
        if node.op in _SHAPE_OPERATORS and self.shape_arithmetic(node):
            return
        if node.op == "Identity" and node.inputs and node.inputs[0] in self.constants:
            self.alias[node.outputs[0]] = node.inputs[0]
            self.spent.update(node.inputs)
            return
        if node.op == _MEAN:
            for part in self.mean(node):
                self.place(part)
            return
        if node.op not in self.operators or node.op not in OPERATORS:
            raise Schema(f"operator {node.op[:40]!r} is not in the profile")
        self.place(self.target(node) if node.op == "Reshape" and len(node.inputs) == 2 else node)

    def place(self, node: Node) -> None:
        """Fill in the attributes, find the type, keep the node."""
        made = node.outputs[0]
        kernel = self.constants[node.inputs[1]].shape[2:] if self._has_weights(node) else None
        attributes: Mapping[str, Attribute] = normalise(node.op, node.attributes, kernel=kernel, where=made)
        complete = replace(node, attributes=attributes)
        found = node_type(complete, self.types, self.constants, self.limits)
        if len(set(node.outputs)) != len(node.outputs):
            raise Schema("a name stands for two tensors", where=made)
        self.types |= dict.fromkeys(node.outputs, found)
        self.nodes.append(complete)

    def _has_weights(self, node: Node) -> bool:
        return node.op == "Conv" and len(node.inputs) > 1 and node.inputs[1] in self.constants

    def separate(self) -> None:
        """Give each constant that a model learns apart from others a name of its own."""
        uses = Counter(name for node in self.nodes for name in node.inputs)
        for place, node in enumerate(self.nodes):
            inputs = list(node.inputs)
            for slot, role in own_slots(node.op).items():
                if slot < len(inputs) and uses[inputs[slot]] > 1:
                    made = f"{node.outputs[0]}/{role}"
                    if made in self.types:
                        raise Schema("a name stands for two tensors", where=made)
                    self.constants[made] = self.constants[inputs[slot]]
                    self.types[made] = self.types[inputs[slot]]
                    self.spent.add(inputs[slot])
                    inputs[slot] = made
            self.nodes[place] = replace(node, inputs=tuple(inputs))

    def used(self) -> dict[str, np.ndarray]:
        """The constants without those that only the nodes that are gone had a use for."""
        needed = {name for node in self.nodes for name in node.inputs}
        # A Constant that nothing has a use for says nothing about the model: it is a note, and counted like one.
        unused = {name: self.constants[name] for name in self.raw.folded - needed - self.spent}
        if (notes := sum(len(name) + array.nbytes for name, array in unused.items())) > self.limits.notes:
            raise TooLarge(f"{notes} bytes of constants without a use, at most {self.limits.notes} are accepted")
        return {
            name: array
            for name, array in self.constants.items()
            if name in needed or (name not in self.spent and name not in unused)
        }


def fold(
    raw: RawModel, operators: frozenset[str], limits: Limits
) -> tuple[tuple[Node, ...], dict[str, np.ndarray], Mapping[str, TensorType]]:
    """Turn what a file says into the profile's own nodes.

    Returns:
        Nodes with complete attributes, the constants they use, and the type of every tensor.

    Raises:
        MalformedError: naming the operator that the profile does not have.
    """
    folder = _Folder(raw, operators, limits)
    for node in raw.nodes:
        folder.take(node)
    # Names that were rewritten are still in the file, where a subgraph would make them a second time.
    for node in folder.nodes:
        if node.op == "If" and folder.taken(node.outputs[0] + KEPT):
            raise Schema("a name stands for two tensors", where=node.outputs[0] + KEPT)
    folder.separate()
    return tuple(folder.nodes), folder.used(), folder.types
