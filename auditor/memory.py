"""How many records at a time a graph can be run on without taking more memory than a budget.

Proves: the activations that are alive together, at every place of a list of places that the graph can make, fit
the budget, as long as one record alone does. Assumes a graph of the profile. Does not count constants, nor what a
kernel needs for itself. Source: SPEC 7.4 for what shapes are known.
"""

from protocol.model.check import check_graph
from protocol.model.graph import Graph, Limits
from protocol.model.tensor_types import TensorType, product

BUDGET = 1 << 29
"""Bytes of activations; a patch of 10,000 items and 196 components takes 28 records at a time."""
MOST = 256
"""Records at a time where memory is no concern."""
_SIZES = {"float32": 4, "int64": 8, "bool": 1, "greatest": 8, "whether": 1}


def bytes_per_record(graph: Graph) -> int:
    """Most bytes that activations can take together while the graph runs, for each record of a batch.

    Raises:
        MalformedError: the graph is not in the profile.
    """
    # Values per record are no limit here: a record too large for the budget is run alone.
    types = check_graph(graph, limits=Limits(elements=1 << 60))
    lists = {found.shape[1]: product(found.places[1:]) for found in types.values() if found.places is not None}

    def size(found: TensorType) -> int:
        places = 1
        for axis in found.shape:
            if axis in lists:  # a list of places can hold every place that there is
                places = lists[axis]
        return product(tuple(axis if axis >= 0 else 1 for axis in found.shape)) * places * _SIZES[found.kind]

    last = {name: place for place, node in enumerate(graph.nodes) for name in node.inputs}
    alive, most = {graph.input: size(types[graph.input])}, 0
    for place, node in enumerate(graph.nodes):
        alive |= {output: size(types[output]) for output in node.outputs}
        most = max(most, sum(alive.values()))
        for name in node.inputs:
            if last[name] == place:
                alive.pop(name, None)
    return most


def batch_limit(graph: Graph) -> int:
    """Records to run at a time, from 1 to 256.

    Raises:
        MalformedError: the graph is not in the profile.
    """
    return max(1, min(MOST, BUDGET // bytes_per_record(graph)))
