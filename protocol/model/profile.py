"""Model files: a restricted profile of ONNX, read strictly and written in one way.

Proves: bytes that `parse` accepts are one self-contained, static, finite graph of known operators
(`decode`, `check`) in the profile's own form (`fold`), and `serialise` gives bytes from which `parse`
gives back the same graph. Assumes nothing about the bytes. Does not run the model: each side has its
own interpreter. Names, documentation and metadata carry no meaning. Source: SPEC 7.
"""

from protocol.digests import sha256_hex
from protocol.errors import EncodingError, MalformedError, Schema
from protocol.model.check import check_graph
from protocol.model.decode import decode
from protocol.model.encode import encode, encode_branches
from protocol.model.fold import fold
from protocol.model.graph import BATCH, DEPLOYED, Attribute, Graph, Limits, Node, same_tensor
from protocol.model.operators import (
    BASE_OPERATORS,
    GATE_OPERATORS,
    GATE_OPSET,
    MAX_OPSET,
    MIN_OPSET,
    PATCHED,
    make_node,
)
from protocol.model.tensor_types import TensorType

__all__ = [
    "BASE_OPERATORS",
    "BATCH",
    "DEPLOYED",
    "GATE_OPERATORS",
    "GATE_OPSET",
    "MAX_OPSET",
    "MIN_OPSET",
    "PATCHED",
    "Attribute",
    "Graph",
    "Limits",
    "Node",
    "TensorType",
    "check_graph",
    "graph_digest",
    "make_node",
    "parse",
    "same_tensor",
    "serialise",
]


def parse(data: bytes, *, operators: frozenset[str] = BASE_OPERATORS, limits: Limits | None = None) -> Graph:
    """Read a model file.

    Args:
        data: the file's bytes.
        operators: those that may occur: `BASE_OPERATORS` for a base model, `PATCHED` for a patched one.
        limits: what the file may cost; `Limits()` if None, `DEPLOYED` for a file of our own making.

    Raises:
        MalformedError: with the reason, naming the operator that the profile does not have; no other
            exception leaves this function.
    """
    limits = Limits() if limits is None else limits
    raw = decode(data, limits)
    nodes, constants, types = fold(raw, operators, limits)
    made = types[raw.output].shape if raw.output in types else ()
    declared = raw.output_shape
    if declared is not None and (
        len(declared) != len(made)
        or any(size not in (None, there) for size, there in zip(declared[1:], made[1:], strict=True))
    ):
        raise Schema(f"the output is declared as {declared}, but is {made}", where=raw.output)
    graph = Graph(
        opset=raw.opset,
        input=raw.input,
        input_shape=tuple(size for size in raw.input_shape[1:] if size is not None),
        output=raw.output,
        classes=made[-1] if made else 0,
        nodes=nodes,
        initialisers=constants,
    )
    check_graph(graph, operators=operators, limits=limits)
    # What is rewritten inside a subgraph would be gone there or seen from outside: other readers see the file.
    if encode_branches(graph) != raw.ifs:
        raise Schema("operator If in another spelling than its graph is written in")
    return graph


def serialise(graph: Graph) -> bytes:
    """Write a model file; equal graphs give equal bytes.

    Raises:
        EncodingError: the graph is not in the profile, so no parser would take it back.
    """
    try:
        check_graph(graph, operators=PATCHED)
    except MalformedError as error:
        raise EncodingError(error.message, where=error.where) from None
    return encode(graph)


def graph_digest(graph: Graph) -> str:
    """SHA-256 (hexadecimal) of the one serialised form of a graph, whatever file it came from."""
    return sha256_hex(serialise(graph))
