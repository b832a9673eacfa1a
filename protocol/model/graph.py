"""What a model is here: a small static graph over float32 tensors, as plain data.

Proves nothing by itself: `profile.parse` and `shapes.check_graph` do the checking, and a `Graph`
that was built by hand is checked when it is written. Does not execute anything; each side has
its own interpreter. Source: SPEC 7 (model files).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protocol.errors import Schema

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...]
BATCH = -1
"""The size of an activation's first axis: whatever the caller runs. No other axis is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a hostile model file may cost; every field is checked before the thing it limits is built.

    Args:
        size: bytes of the file.
        structure: bytes of the file that are not raw tensor contents; a protobuf message can be a
            hundred times larger in memory than on the wire, raw tensor contents cannot.
        notes: bytes of documentation, metadata, value types and producer names together. They are
            never read and never written; 0 refuses them (a deployed file has no use for them).
        nodes: number of nodes.
        initialisers: number of constant tensors.
        rank: number of axes of a tensor.
        elements: elements of an activation, per record.
        name: characters of a name.
    """

    size: int = 512 << 20
    structure: int = 4 << 20
    notes: int = 1 << 20
    nodes: int = 10_000
    initialisers: int = 10_000
    rank: int = 8
    elements: int = 1 << 24
    name: int = 256


DEPLOYED = Limits(notes=0)
"""For a file that this project composed itself: nothing may travel beside the graph."""


def check_name(name: object, limits: Limits) -> None:
    """Refuse names that are empty, over-long, or that could not be shown on one line.

    Args:
        name: protobuf gives bytes instead of a string where the file's bytes are not UTF-8.
        limits: how long it may be.

    Raises:
        Schema: with the reason.
    """
    if not isinstance(name, str) or not 0 < len(name) <= limits.name or not name.isprintable():
        raise Schema(f"the name {str(name)[:40]!r} is empty, over {limits.name} characters, or not printable")


def _plain(value: Any) -> Any:
    # Floats are float32 on the wire, so they are float32 in memory as well: parse(serialise(g)) == g.
    if isinstance(value, float):
        return float(np.float32(value))
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator application; `operators.make_node` fills in the defaults.

    Args:
        name: unique in the graph, or empty.
        op: operator of the ONNX default domain.
        inputs: names of tensors; trailing optional ones are left out, never empty.
        outputs: names of the tensors it makes; exactly one in the profile, two of a Split.
        attributes: every attribute of the operator, defaults included.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain = {key: _plain(self.attributes[key]) for key in sorted(self.attributes)}
        object.__setattr__(self, "attributes", plain)

    def __hash__(self) -> int:
        return hash((self.name, self.op, self.inputs, self.outputs))


def same_tensor(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two arrays have the same type, shape and bits (so 0.0 and -0.0 differ)."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """A model of the profile: one float32 input `[N, *input_shape]`, one float32 output `[N, classes]`.

    Two graphs are equal if they have the same nodes in the same order and the same constants bit by bit.

    Args:
        opset: version of the ONNX default domain.
        input: name of the input.
        input_shape: its axes without the batch.
        output: name of the output (logits).
        classes: number of logits.
        nodes: in an order in which every input is made before it is used.
        initialisers: constants, read-only: float32, int64 or bool.
    """

    opset: int
    input: str
    input_shape: tuple[int, ...]
    output: str
    classes: int
    nodes: tuple[Node, ...]
    initialisers: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        locked = {}
        for name, array in self.initialisers.items():
            locked[name] = np.ascontiguousarray(array).reshape(np.shape(array)).view()
            locked[name].flags.writeable = False
        object.__setattr__(self, "initialisers", locked)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        mine = (self.opset, self.input, self.input_shape, self.output, self.classes, self.nodes)
        return (
            mine == (other.opset, other.input, other.input_shape, other.output, other.classes, other.nodes)
            and self.initialisers.keys() == other.initialisers.keys()
            and all(same_tensor(array, other.initialisers[name]) for name, array in self.initialisers.items())
        )

    def __hash__(self) -> int:
        return hash((self.opset, self.input, self.input_shape, self.output, self.classes, self.nodes))

    @property
    def features(self) -> int:
        """Number of input values of one record."""
        return int(np.prod(self.input_shape, dtype=np.int64))
