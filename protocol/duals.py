"""Duals: why a head is the least one, one line of `duals.jsonl` for each item that adds to the base's output.

The problem. Item k is to make class t lead by a margin m on a region R, by adding h(x) = C x + d to the logits f(x),
with the least size N(h) = max over x in R and classes i of |h_i(x)|. Its dual is a weight on the constraints (x, j):
`f_t(x) + h_t(x) - f_j(x) - h_j(x) >= m`. Weight 1/2 on one of them gives `N(h) >= (m - (f_t - f_j)(x)) / 2` for every h
that meets it, and the best such point and class attain the optimum (weak and strong duality; SPEC 11.12).
So a dual is a point of the region and a class. Whoever reads it evaluates the base there, and believes nothing else.

Reading a line says what is proposed, never that it proves anything. Source: PRUNE (arXiv 2505.06520), REASSURE
(arXiv 2110.07682), whose confusion patches are found by this linear program.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from protocol.canonical import Fields, parse_json, to_bytes
from protocol.claims import MAX_CLAIMS
from protocol.errors import Schema, TooLarge

MAX_LINE = 16 << 20
PARTS = 256
"""Of a grid step: a point is an input, and inputs of a region reach almost half a step beyond its grid values."""
MAX_FILE = 1 << 28
_FEATURES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Dual:
    """Item `item` is the least one because of class `rival` at the input `point`, in 256ths of grid steps."""

    item: int
    rival: int
    point: tuple[int, ...]

    def array(self) -> Float64[np.ndarray, " feature"]:
        """The point, in grid steps; exact."""
        return np.array(self.point, dtype=np.float64) / PARTS


def parse_line(line: bytes, *, where: str = "dual") -> Dual:
    """Read one line (without its newline).

    Raises:
        MalformedError: not a dual in its one spelling.
    """
    with Fields(parse_json(line, limit=MAX_LINE, where=where, canonical=True), where=where) as fields:
        item = fields.integer("item", high=MAX_CLAIMS)
        rival = fields.integer("rival", high=1 << 20)
        point = fields.array("point", longest=_FEATURES)
    for value in point:
        if type(value) is not int or abs(value) > PARTS << 24:
            raise Schema("a coordinate is not a whole number within 2^32", where=where)
    return Dual(item=item, rival=rival, point=tuple(point))


def dual_line(dual: Dual) -> bytes:
    """The line of a dual, without its newline."""
    return to_bytes({"item": dual.item, "rival": dual.rival, "point": list(dual.point)})


def parse_file(data: bytes, *, where: str = "duals.jsonl") -> tuple[Dual, ...]:
    """Read a file of duals, items ascending, each once.

    Raises:
        MalformedError: naming the line.
    """
    if len(data) > MAX_FILE:
        raise TooLarge(f"{len(data)} bytes, at most {MAX_FILE} are accepted", where=where)
    if data and not data.endswith(b"\n"):
        raise Schema("the last line has no newline", where=where)
    if data.count(b"\n") > MAX_CLAIMS:
        raise TooLarge(f"more than {MAX_CLAIMS} lines", where=where)
    found = tuple(
        parse_line(line, where=f"{where}:{number}") for number, line in enumerate(data.split(b"\n")[:-1], start=1)
    )
    if any(first.item >= second.item for first, second in itertools.pairwise(found)):
        raise Schema("the items are not in ascending order, each once", where=where)
    return found


def file_bytes(duals: Sequence[Dual]) -> bytes:
    """The file; items ascending."""
    return b"".join(dual_line(dual) + b"\n" for dual in sorted(duals, key=lambda one: one.item))
