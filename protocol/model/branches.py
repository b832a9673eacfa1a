"""Branches: the one way in which a graph may leave nodes out, and how a file spells it.

In a `Graph` all nodes stand in one row: the node that makes a condition, the nodes of its branch, and an `If` with
three inputs: the condition, what the branch makes, and what is kept without it. In a file the branch's nodes are
a subgraph of the `If` (SPEC 7.2, f). Proves: in a graph that `check_branches` accepts, no branch is inside another,
nothing outside a branch reads what is made inside, and the branch ends with a `Where` that falls back, record
by record, on what is kept without it. Does not prove that the branch leaves every record as it is where the
condition is false, so an `If` could let one record of a batch decide for another: that it does not is so only in what
7.9 composes, with which a reader compares. Source: SPEC 7.4.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from protocol.errors import Schema
from protocol.model.graph import Node

KEPT = "/kept"
"""What a file calls an If's other subgraph's output: the If's own, and this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Places in the list of nodes: `start` makes the condition, `end` is the If, between them is the branch."""

    start: int
    end: int


def branches(nodes: Sequence[Node]) -> tuple[Branch, ...]:
    """Where the branches are, in the order of their Ifs.

    Raises:
        Schema: an If whose condition no earlier node makes.
    """
    made = {output: place for place, node in enumerate(nodes) for output in node.outputs}
    found = []
    for place, node in enumerate(nodes):
        if node.op == "If":
            start = made.get(node.inputs[0], place)
            if start >= place:
                raise Schema("operator If has a condition that nothing makes", where=node.outputs[0])
            found.append(Branch(start=start, end=place))
    return tuple(found)


def check_branches(nodes: Sequence[Node]) -> None:
    """Refuse branches that are not spelled as SPEC 7.4 says.

    Raises:
        Schema: naming what the If makes.
    """
    found = branches(nodes)
    if not found:
        return
    names = {output for node in nodes for output in node.outputs} | {name for node in nodes for name in node.inputs}
    # Places that read each name: looking at all nodes for each of thousands of branches would take a while.
    readers: dict[str, list[int]] = defaultdict(list)
    for place, node in enumerate(nodes):
        for name in node.inputs:
            readers[name].append(place)
    last = -1
    for branch in found:
        condition, chosen, kept = nodes[branch.end].inputs
        made = nodes[branch.end].outputs[0]
        inside = nodes[branch.start + 1 : branch.end]
        if branch.start <= last:
            raise Schema("operator If inside a branch, or two of one condition", where=made)
        last = branch.end
        if not inside or inside[-1].op != "Where" or inside[-1].outputs != (chosen,) or inside[-1].inputs[2] != kept:
            raise Schema("operator If whose branch does not end with a Where on what is kept without it", where=made)
        own = {output for node in inside for output in node.outputs}
        leaves = any(not branch.start < place <= branch.end for name in own for place in readers[name])
        if kept in own or leaves or readers[condition] != [branch.end]:
            raise Schema("operator If whose branch or condition is read elsewhere", where=made)
        if made + KEPT in names:
            raise Schema("a name stands for two tensors", where=made + KEPT)


def always_run(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes with every branch run whatever its condition: the same outputs, where 7.9 composed them.

    For tools that cannot read subgraphs.
    """
    result = list(nodes)
    for branch in reversed(branches(nodes)):
        made = nodes[branch.end].outputs[0]
        last = replace(nodes[branch.end - 1], name=made, outputs=(made,))
        result[branch.start : branch.end + 1] = [*nodes[branch.start + 1 : branch.end - 1], last]
    # What the conditions were made of, and nobody reads any more.
    dropped = {nodes[branch.start].inputs[0] for branch in branches(nodes)}
    read = {name for node in result for name in node.inputs}
    return tuple(node for node in result if not dropped & set(node.outputs) or read & set(node.outputs))
