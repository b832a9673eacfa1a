"""What is known of a tensor before anything runs, and of one node's inputs.

Proves nothing by itself: the rules in `shapes` use these words. The batch is the first axis of every
activation and of nothing else, which is what keeps records apart. A list of places (NonZero) has an axis
of unknown length of its own, a negative number like the batch's: what is gathered along it belongs, row
by row, to one record each, and can only be scattered back to that record. What looks at a whole batch has a kind of
its own. Source: SPEC 7.4.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from protocol.errors import Schema
from protocol.model.graph import Node

Kind = Literal["float32", "int64", "bool", "greatest", "whether"]
"""Element types, and two that no other operator takes: the greatest integer of a whole batch (ReduceMax without axes),
and whether it is more than 0 (Cast), which only an If looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """What is known of a tensor before anything runs.

    Args:
        kind: element type.
        shape: axes; an activation's first one is `BATCH` or the number of a list of places, both negative; a
            constant has none of these.
        bounds: for integers, the least and greatest value an element can have, where something is known.
        places: for a list of places, the shape of the tensor that it lists places of.
        records: whether the elements are numbers of records.
    """

    kind: Kind
    shape: tuple[int, ...]
    bounds: tuple[int, int] | None = None
    places: tuple[int, ...] | None = None
    records: bool = False

    @property
    def batched(self) -> bool:
        """Whether this is an activation (one value per record, or per listed place) and not a constant."""
        return bool(self.shape) and self.shape[0] < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One node with what is known of its inputs; `refuse` names both."""

    node: Node
    types: tuple[TensorType, ...]
    values: tuple[np.ndarray | None, ...]
    tensors: int = 0
    """How many tensors there are already: a number that no other list of places has."""

    def refuse(self, reason: str) -> Schema:
        """The error that names the operator and the tensor it makes."""
        return Schema(f"operator {self.node.op} {reason}", where=self.node.outputs[0])

    def attribute(self, name: str) -> Any:
        """An attribute, which `operators.normalise` saw to be there and of the right type."""
        return self.node.attributes[name]

    def demand(self, holds: bool, reason: str) -> None:  # noqa: FBT001 (reads as a sentence at the call)
        """Refuse the node unless something holds."""
        if not holds:
            raise self.refuse(reason)

    def activation(self, index: int = 0, *, kind: Kind = "float32") -> TensorType:
        """The type of an input that must be one value per record."""
        found = self.types[index]
        self.demand(found.batched, f"needs an activation as input {index}, not a constant")
        self.demand(found.kind == kind, f"needs {kind} as input {index}, not {found.kind}")
        return found

    def any_activation(self, index: int = 0) -> TensorType:
        """The type of an input that must depend on the record, of any element type."""
        found = self.types[index]
        self.demand(found.batched, f"needs an activation as input {index}, not a constant")
        return found

    def constant(self, index: int, *, kind: Kind = "float32") -> np.ndarray:
        """The value of an input that must not depend on the record."""
        value = self.values[index]
        if value is None:
            raise self.refuse(f"needs a constant as input {index}")
        self.demand(value.dtype == kind, f"needs {kind} as input {index}, not {value.dtype}")
        return value

    def axes(self, rank: int) -> int:
        """The single axis that input 1 names, counted from the front and never the batch."""
        axes = self.constant(1, kind="int64")
        self.demand(axes.shape == (1,) and 1 <= axes[0] < rank, f"is in the profile for one axis in 1..{rank - 1} only")
        return int(axes[0])


def broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...] | None:
    """Shape of an elementwise operation on two shapes, the first axis open; None if they do not fit."""
    rank = max(len(left), len(right))
    result = []
    for place, (a, b) in enumerate(
        zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    ):
        if a != b and 1 not in (a, b):
            return None
        size = a if b == 1 else b
        if (size < 0) != (place == 0):  # the batch is the first axis of every result and nowhere else
            return None
        result.append(size)
    return tuple(result)


def product(sizes: tuple[int, ...]) -> int:
    """Number of elements of a shape."""
    result = 1
    for size in sizes:  # in Python's integers: numpy's would wrap around
        result *= size
    return result


def constant_type(array: np.ndarray) -> TensorType:
    """The type of a constant."""
    bounds = (int(array.min()), int(array.max())) if array.dtype == np.int64 and array.size else None
    return TensorType(kind=str(array.dtype), shape=array.shape, bounds=bounds)  # type: ignore[arg-type]
