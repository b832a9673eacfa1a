"""What comes behind a base model: nodes and constants under one reserved prefix, and the tests that gates share.

Proves nothing alone; `compose` puts a whole graph together. Assumes parsed arguments.
Source: SPEC 7.9, steps 2 to 4; the numbers below are those.
"""

import numpy as np

from protocol.model.graph import Attribute, Node
from protocol.model.operators import make_node
from protocol.model.schema import InputSchema

PREFIX = "prune/"


class Tail:
    """The nodes and constants that come after the base's."""

    def __init__(self, schema: InputSchema) -> None:
        self.schema = schema
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, array: np.ndarray) -> str:
        """A constant under the prefix; the same one again under the same name."""
        self.constants[PREFIX + name] = array
        return PREFIX + name

    def apply(self, op: str, name: str, *inputs: str, **attributes: Attribute) -> str:
        """A node with one output, and that output's name."""
        self.nodes.append(make_node(op, inputs, PREFIX + name, **attributes))
        return PREFIX + name

    def halves(self, left: str, right: str, tensor: str) -> tuple[str, str]:
        """Both halves of a tensor along axis 1."""
        self.nodes.append(make_node("Split", (tensor,), PREFIX + left, PREFIX + right, axis=1, num_outputs=2))
        return PREFIX + left, PREFIX + right

    def axes(self, axis: int) -> str:
        """The shared constant that names one axis."""
        return self.constant(f"axes{axis}", np.array([axis], np.int64))

    def half(self) -> str:
        """The shared constant between 0 and 1."""
        return self.constant("half", np.array(0.5, np.float32))

    def inside(self, here: str, flat: str) -> tuple[str, str]:
        """Step 2: the affine values, and 1 or 0 for whether a record is inside the columns [.,1]."""
        schema = self.schema
        scaled = self.apply("Mul", here + "scaled", flat, self.constant("scale", schema.scale))
        affine = self.apply("Add", here + "affine", scaled, self.constant("offset", schema.offset))
        # The edges are formed in float64, where integers and halves of this size are exact, then rounded once.
        low_edge = self.constant("low_edge", (schema.low - 0.5).astype(np.float32))
        high_edge = self.constant("high_edge", (schema.high + 0.5).astype(np.float32))
        above = self.apply("GreaterOrEqual", here + "above", affine, low_edge)
        below = self.apply("LessOrEqual", here + "below", affine, high_edge)
        in_columns = self.apply("And", here + "in_columns", above, below)
        as_float = self.apply("Cast", here + "in_columns_float", in_columns, to=1)
        return affine, self.apply("ReduceMin", here + "inside", as_float, self.axes(1), keepdims=1)

    def grid(self, here: str, affine: str) -> str:
        """Step 3: the grid values."""
        schema = self.schema
        rounded = self.apply("Round", here + "rounded", affine)
        raised = self.apply("Max", here + "raised", rounded, self.constant("low", schema.low.astype(np.float32)))
        return self.apply("Min", here + "grid", raised, self.constant("high", schema.high.astype(np.float32)))

    def boxed(self, here: str, row: str, low: str, high: str) -> str:
        """Step 4, its middle: which rows [.,1,q] are in which boxes [.,m,q] of values, value by value."""
        over = self.apply("GreaterOrEqual", here + "over", row, low)
        under = self.apply("LessOrEqual", here + "under", row, high)
        return self.apply("And", here + "between", over, under)

    def hits(self, here: str, between: str, inside: str) -> str:
        """Step 4, its end: 1 where all values fit and the record is inside the columns."""
        between_float = self.apply("Cast", here + "between_float", between, to=1)
        matched = self.apply("ReduceMin", here + "matched", between_float, self.axes(2), keepdims=0)
        return self.apply("Mul", here + "hits", matched, inside)
