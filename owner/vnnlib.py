"""Claims as questions to other people's verifiers: an ONNX network and a VNN-LIB file each.

A question is a box of inputs and a condition on outputs; `unsat` means that no real input of the box meets it.

- A claim on a sketch item: inputs are the real displacement d = Q(x) - q of the grid point from the record, one per
  column, in `[max(-e, low - q), min(e, high - q)]`, and after them the item's own bounds, fixed: `high_k - S q` and
  `low_k - S q`. The network is `E = sum Relu(S d - high) + Relu(low - S d)`, in Gemm, Relu, Gemm form, the same
  file for every claim; the question is `E >= 1/2`. On grid points everything is an integer, so E >= 1/2 is the same as
  E >= 1: the gate that is asked about is up to 1/2 wider in a component than the item's box, strictly wider than the
  certified one, and has exactly its grid points. A verifier's rounding below 1/2 therefore changes no answer, and an
  attained bound (the usual case) is no near-tie. `unsat` means: item k fires on every input of the region, given that
  Q and the sums of the sketch are exact, which they are in float32 (SPEC 7.9). Not asked: that no earlier item with
  other bits fires (SPEC 11.7), and that the item's row has the property; both are decided by comparing numbers.
- A claim without a gate: inputs are x itself, in the box of reals that contains every float32 input of the region,
  whichever way the quantiser is executed; the network is the patched model with `P f` behind it; the question is
  whether some row is at most its bound. `unsat` means that the *real* function has the property strictly. The
  float32 program may differ from it by its rounding, which only the auditor's own bounds cover.

Assumes a parsed patch, schema and model. Source: VNN-LIB 1.0 (https://www.vnnlib.org/), the form of VNN-COMP.
"""

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import numpy as np
import onnx
from jaxtyping import Integer

from protocol.claims import Argmax, Linear, Logits, Redirection
from protocol.encoding import parse_decimal
from protocol.errors import OwnerError
from protocol.model.graph import Graph
from protocol.model.operators import make_node
from protocol.model.patch import SketchGate
from protocol.model.profile import serialise
from protocol.model.schema import InputSchema

OPERATORS = frozenset(
    {"Gemm", "MatMul", "Add", "Sub", "Mul", "Relu", "Flatten", "Reshape", "Identity", "Transpose", "Conv", "MaxPool",
     "AveragePool", "GlobalAveragePool", "BatchNormalization"}
)  # fmt: skip
"""What a model may consist of to be asked about; what VNN-COMP's verifiers have in common."""
_UNIT = Fraction(1, 2**24)
_TINY = Fraction(1, 2**126)
_DIGITS = 20


class NoQuestion(OwnerError):
    """A claim that has no form as a question; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A box and a condition.

    Args:
        low: least value of each input, exact.
        high: greatest value.
        violations: `(output, ">=" or "<=", value)`; the question is whether any of them can be met.
        meaning: what `unsat` says, in one line.
    """

    low: tuple[Fraction, ...]
    high: tuple[Fraction, ...]
    violations: tuple[tuple[int, str, Fraction], ...]
    meaning: str

    def text(self) -> str:
        """The VNN-LIB file. Bounds that no decimal of 20 digits spells are moved outward."""
        outputs = 1 + max(place for place, _, _ in self.violations)
        lines = [f"; {self.meaning}"]
        lines += [f"(declare-const X_{n} Real)" for n in range(len(self.low))]
        lines += [f"(declare-const Y_{n} Real)" for n in range(outputs)]
        for place, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            lines.append(f"(assert (>= X_{place} {_spelled(low, ROUND_FLOOR)}))")
            lines.append(f"(assert (<= X_{place} {_spelled(high, ROUND_CEILING)}))")
        parts = [
            f"({sign} Y_{place} {_spelled(value, ROUND_FLOOR if sign == '>=' else ROUND_CEILING)})"
            for place, sign, value in self.violations
        ]
        lines.append(
            f"(assert {parts[0]})" if len(parts) == 1 else f"(assert (or {' '.join(f'(and {p})' for p in parts)}))"
        )
        return "\n".join(lines) + "\n"


def _spelled(value: Fraction, rounding: str) -> str:
    exact = Context(prec=_DIGITS, rounding=rounding).divide(Decimal(value.numerator), Decimal(value.denominator))
    text = format(exact, "f")  # readers know no exponents
    return text.rstrip("0").rstrip(".") or "0" if "." in text else text


def single(graph: Graph) -> bytes:
    """An ONNX file of a graph with the batch fixed to 1, as verifiers want it."""
    model = onnx.load_model_from_string(serialise(graph))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return bytes(model.SerializeToString(deterministic=True))


def sketch_network(gate: SketchGate) -> Graph:
    """E for every item of a gate; see the module."""
    components, features = gate.matrix.shape
    rows = gate.matrix.astype(np.float32)
    one = np.eye(components, dtype=np.float32)
    nothing = np.zeros_like(one)
    weight = np.block([[rows, -one, nothing], [-rows, nothing, one]])
    return Graph(
        opset=13,
        input="displacement_and_bounds",
        input_shape=(features + 2 * components,),
        output="excess",
        classes=1,
        nodes=(
            make_node("Gemm", ("displacement_and_bounds", "sketch"), "over", transB=1),
            make_node("Relu", ("over",), "positive"),
            make_node("Gemm", ("positive", "ones"), "excess", transB=1),
        ),
        initialisers={"sketch": weight, "ones": np.ones((1, 2 * components), np.float32)},
    )


def sketch_question(
    gate: SketchGate, number: int, claim: Redirection, centre: Integer[np.ndarray, " feature"], schema: InputSchema
) -> Question:
    """Whether item `number` of a gate can fail to fire on a grid point of the claimed region.

    Raises:
        NoQuestion: the region is in flips.
    """
    if claim.region.norm != "linf":
        raise NoQuestion("a region in flips is no box")
    point = centre.astype(np.int64)
    reach = min(claim.region.radius, 1 << 23)
    low, high = np.maximum(-reach, schema.low - point), np.minimum(reach, schema.high - point)
    # In Python's integers: a sketch may be wide.
    at = [sum(int(a) * int(b) for a, b in zip(row, point, strict=True)) for row in gate.matrix]
    bounds = [int(edge) - value for side in (gate.high, gate.low) for edge, value in zip(side[number], at, strict=True)]
    fixed = [Fraction(value) for value in bounds]
    return Question(
        low=(*(Fraction(int(value)) for value in low), *fixed),
        high=(*(Fraction(int(value)) for value in high), *fixed),
        violations=((0, ">=", Fraction(1, 2)),),
        meaning=(
            f"unsat: item {claim.item} fires on every grid point within {claim.region.radius} steps of record "
            f"{claim.record.hex()}"
        ),
    )


def _column(scale: Fraction, offset: Fraction, least: Fraction, greatest: Fraction) -> tuple[Fraction, Fraction]:
    # a = x s + b, computed in float32 in either way, differs from the real number by less than this (SPEC 11.9).
    if abs(scale) < _TINY:
        raise NoQuestion("a column's scale may be flushed to zero, so its region has no bounds")
    lost = 5 * _UNIT * (max(abs(least), abs(greatest)) + abs(offset)) + 8 * _TINY * (1 + abs(scale))
    ends = (least - lost - offset) / scale, (greatest + lost - offset) / scale
    return min(ends), max(ends)


def _rows(claim: Redirection, classes: int) -> tuple[np.ndarray, tuple[Fraction, ...]]:
    wanted = claim.property
    if isinstance(wanted, Logits):
        raise NoQuestion("equality with a row is not a question about a real function with rounding left out")
    if isinstance(wanted, Linear):
        rows = wanted.matrix().astype(np.float32)
        if rows.shape[1] != classes:
            raise NoQuestion(f"the property is about {rows.shape[1]} classes, the model has {classes}")
        return rows, tuple(Fraction(parse_decimal(text)) for text in wanted.least)
    assert isinstance(wanted, Argmax)
    if wanted.klass >= classes or classes < 2:
        raise NoQuestion(f"a model of {classes} classes has nothing that class {wanted.klass} could lead")
    unit = np.eye(classes, dtype=np.float32)
    others = np.delete(np.arange(classes), wanted.klass)
    return unit[wanted.klass] - unit[others], (Fraction(parse_decimal(wanted.margin)),) * (classes - 1)


def relevant(graph: Graph) -> Graph:
    """The part of a graph that its output depends on."""
    needed, kept = {graph.output}, []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    constants = {name: array for name, array in graph.initialisers.items() if name in needed}
    return replace(graph, nodes=tuple(reversed(kept)), initialisers=constants)


def model_network(graph: Graph, claim: Redirection) -> Graph:
    """The model with the claim's rows behind it.

    Raises:
        NoQuestion: the property has no rows, or the model an operator that verifiers do not share.
    """
    rows, _ = _rows(claim, graph.classes)
    needed = relevant(graph)
    if unknown := sorted({node.op for node in needed.nodes} - OPERATORS):
        raise NoQuestion(f"the model has {', '.join(unknown)}, which is no piecewise linear layer")
    name = "claim/rows"
    return replace(
        needed,
        nodes=(*needed.nodes, make_node("Gemm", (graph.output, name), "claim/margins", transB=1)),
        initialisers={**needed.initialisers, name: np.ascontiguousarray(rows)},
        output="claim/margins",
        classes=len(rows),
    )


def model_question(
    claim: Redirection, centre: Integer[np.ndarray, " feature"], schema: InputSchema, classes: int
) -> Question:
    """Whether some real input near the region makes a row of the property at most its bound.

    Raises:
        NoQuestion: the property has no rows, or the region no bounds.
    """
    _, least = _rows(claim, classes)
    if claim.region.norm != "linf" and (claim.region.radius or claim.region.steps):
        raise NoQuestion("a region in flips is no box")
    box = []
    columns = zip(schema.scale, schema.offset, schema.low, schema.high, centre, strict=True)
    for scale, offset, low, high, value in columns:
        near = max(int(value) - claim.region.radius, int(low)), min(int(value) + claim.region.radius, int(high))
        box.append(
            _column(Fraction(float(scale)), Fraction(float(offset)), near[0] - Fraction(1, 2), near[1] + Fraction(1, 2))
        )
    return Question(
        low=tuple(low for low, _ in box),
        high=tuple(high for _, high in box),
        violations=tuple((place, "<=", bound) for place, bound in enumerate(least)),
        meaning=(
            "unsat: in real numbers, every row of the property exceeds its bound within "
            f"{claim.region.radius} steps of record {claim.record.hex()}"
        ),
    )
