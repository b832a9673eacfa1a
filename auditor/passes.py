"""How many regions an auditor bounds again by backward passes, where the fast way leaves them open.

Whoever makes a bundle decides how many claims it has and how large its base is, so there is an end to what is tried;
a claim that is left out stays open, it is never refuted. Where a pass is cheap, more are made.
"""

from protocol.model.check import check_graph
from protocol.model.graph import Graph
from protocol.model.tensor_types import product

LEAST, _MOST = 512, 2048
_WORK = 1 << 37
"""Products that the passes may take together; three layers of 256 over 784 features take about 2^28 for a region."""


def affordable(base: Graph) -> int:
    """Regions that may be bounded again: each takes a backward pass for each value, through everything before it."""
    types = check_graph(base)
    made = sum(product(types[name].shape[1:]) for node in base.nodes for name in node.outputs)
    weights = sum(array.size for array in base.initialisers.values())
    return max(LEAST, min(_MOST, _WORK // max(1, made * max(made, weights))))
