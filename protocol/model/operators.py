"""The operators of the profile and their attributes: what may be set, to what, and what it is if not set.

Proves: after `normalise`, a node has exactly the attributes of its table, each of the right type,
and those the profile fixes have their one value. Assumes nothing about shapes; see `shapes`.
Source: SPEC 7.3; ONNX operator reference, https://onnx.ai/onnx/operators/.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from protocol.errors import Schema
from protocol.model.graph import Attribute, Node

MIN_OPSET = 11
MAX_OPSET = 24
"""Inside this range the operators below differ only in what the profile refuses anyway."""
ALLOWZERO_OPSET = 14
"""From here on Reshape has the attribute allowzero."""
GATE_OPSET = 18
"""From here on ReduceMin and ReduceMax take their axes as an input, and BitwiseAnd and Scatter's min exist."""
FLOAT32, INT64, BOOL = 1, 7, 9
"""ONNX's numbers of element types."""

BASE_OPERATORS = frozenset(
    {
        "Gemm",
        "MatMul",
        "Add",
        "Sub",
        "Mul",
        "Relu",
        "Flatten",
        "Reshape",
        "Transpose",
        "Identity",
        "Conv",
        "BatchNormalization",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
    }
)
GATE_OPERATORS = frozenset(
    {
        "Round",
        "Max",
        "Min",
        "LessOrEqual",
        "GreaterOrEqual",
        "Greater",
        "And",
        "Cast",
        "ReduceMin",
        "ReduceMax",
        "ArgMax",
        "Unsqueeze",
        "Gather",
        "Where",
        "Less",
        "ReduceSum",
        "BitwiseAnd",
        "Split",
        "NonZero",
        "ScatterElements",
        "If",
    }
)
PATCHED = BASE_OPERATORS | GATE_OPERATORS

_OWN_SLOTS: Mapping[str, Mapping[int, str]] = {
    "Gemm": {2: "bias"},
    "Conv": {2: "bias"},
    "BatchNormalization": {1: "scale", 2: "bias", 3: "mean", 4: "var"},
}

Kind = Literal["int", "float", "text", "ints"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one attribute is read: its type, its default (None: must be given), and whether that is its only value.

    With `choices`, one of these.
    """

    kind: Kind
    default: Attribute | None = None
    fixed: bool = False
    choices: tuple[Attribute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """How many inputs an operator takes, and its attributes."""

    least: int
    most: int
    rules: Mapping[str, Rule]


def _operator(least: int, most: int, **rules: Rule) -> Operator:
    return Operator(least=least, most=most, rules=rules)


_FLAG_ON = Rule(kind="int", default=1)
_ON = Rule(kind="int", default=1, fixed=True)
_PADS = Rule(kind="ints", default=(0, 0, 0, 0))
_STRIDES = Rule(kind="ints", default=(1, 1))
_UNDILATED = Rule(kind="ints", default=(1, 1), fixed=True)
_NO_AUTO_PAD = Rule(kind="text", default="NOTSET", fixed=True)
_OFF = Rule(kind="int", default=0, fixed=True)
_REDUCE = _operator(2, 2, keepdims=_FLAG_ON, noop_with_empty_axes=_OFF)
_PLAIN_ONE = _operator(1, 1)
_PLAIN_TWO = _operator(2, 2)
OPERATORS: Mapping[str, Operator] = {
    "Gemm": _operator(
        2,
        3,
        alpha=Rule(kind="float", default=1.0),
        beta=Rule(kind="float", default=1.0),
        transA=_OFF,
        transB=Rule(kind="int", default=0),
    ),
    "MatMul": _PLAIN_TWO,
    "Add": _PLAIN_TWO,
    "Sub": _PLAIN_TWO,
    "Mul": _PLAIN_TWO,
    "Relu": _PLAIN_ONE,
    "Flatten": _operator(1, 1, axis=Rule(kind="int", default=1, fixed=True)),
    "Reshape": _operator(2, 2, allowzero=Rule(kind="int", default=0)),
    "Transpose": _operator(1, 1, perm=Rule(kind="ints")),
    "Identity": _PLAIN_ONE,
    "Conv": _operator(
        2,
        3,
        auto_pad=_NO_AUTO_PAD,
        dilations=_UNDILATED,
        group=_FLAG_ON,
        kernel_shape=Rule(kind="ints"),
        pads=_PADS,
        strides=_STRIDES,
    ),
    "BatchNormalization": _operator(
        5,
        5,
        epsilon=Rule(kind="float", default=1e-5),
        momentum=Rule(kind="float", default=0.9),
        training_mode=_OFF,
    ),
    "MaxPool": _operator(
        1,
        1,
        auto_pad=_NO_AUTO_PAD,
        ceil_mode=_OFF,
        dilations=_UNDILATED,
        kernel_shape=Rule(kind="ints"),
        pads=_PADS,
        storage_order=_OFF,
        strides=_STRIDES,
    ),
    "AveragePool": _operator(
        1,
        1,
        auto_pad=_NO_AUTO_PAD,
        ceil_mode=_OFF,
        count_include_pad=Rule(kind="int", default=0),
        dilations=_UNDILATED,
        kernel_shape=Rule(kind="ints"),
        pads=_PADS,
        strides=_STRIDES,
    ),
    "GlobalAveragePool": _PLAIN_ONE,
    "Round": _PLAIN_ONE,
    "Max": _PLAIN_TWO,
    "Min": _PLAIN_TWO,
    "LessOrEqual": _PLAIN_TWO,
    "GreaterOrEqual": _PLAIN_TWO,
    "Greater": _PLAIN_TWO,
    "And": _PLAIN_TWO,
    "Cast": _operator(1, 1, to=Rule(kind="int", choices=(FLOAT32, INT64, BOOL)), saturate=_ON),
    "ReduceMin": _REDUCE,
    "ReduceMax": _operator(1, 2, keepdims=_FLAG_ON, noop_with_empty_axes=_OFF),
    "ArgMax": _operator(1, 1, axis=Rule(kind="int"), keepdims=_FLAG_ON, select_last_index=_OFF),
    "Unsqueeze": _PLAIN_TWO,
    "Gather": _operator(2, 2, axis=Rule(kind="int", default=0)),
    "Where": _operator(3, 3),
    "Less": _PLAIN_TWO,
    "ReduceSum": _REDUCE,
    "BitwiseAnd": _PLAIN_TWO,
    "Split": _operator(1, 1, axis=Rule(kind="int", choices=(1,)), num_outputs=Rule(kind="int", choices=(2,))),
    "NonZero": _PLAIN_ONE,
    "If": _operator(3, 3),
    "ScatterElements": _operator(
        3, 3, axis=Rule(kind="int", default=0, fixed=True), reduction=Rule(kind="text", choices=("min",))
    ),
}
_TYPES: Mapping[Kind, type] = {"int": int, "float": float, "text": str, "ints": tuple}


def own_slots(op: str) -> Mapping[int, str]:
    """Inputs whose constant no other input may use, and what each is: biases and normalisation values."""
    return _OWN_SLOTS.get(op, {})


def _is(value: Attribute, kind: Kind) -> bool:
    # By exact type: True is an int to isinstance, and not the same bytes.
    items = value if isinstance(value, tuple) else ()
    finite = not isinstance(value, float) or math.isfinite(value)
    return type(value) is _TYPES[kind] and finite and all(type(item) is int for item in items)


def written(op: str, attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """The attributes to spell out in a file: those that are not what every opset takes them to be anyway."""
    rules = OPERATORS[op].rules
    return {name: value for name, value in attributes.items() if value != rules[name].default}


def normalise(
    op: str, given: Mapping[str, Attribute], *, kernel: tuple[int, ...] | None = None, where: str = ""
) -> dict[str, Attribute]:
    """Fill in every default of `op` and refuse what the profile does not have.

    Args:
        op: an operator of `OPERATORS`.
        given: the attributes as written in the file.
        kernel: spatial shape of a Conv's weights, the default of `kernel_shape`.
        where: what to name in an error.

    Raises:
        Schema: an attribute is unknown, missing, of the wrong type, or not the one value the profile fixes.
    """
    rules = OPERATORS[op].rules
    for name in given:
        if name not in rules:
            raise Schema(f"operator {op} with the attribute {name[:40]!r} is not in the profile", where=where)
    result: dict[str, Attribute] = {}
    for name, rule in rules.items():
        value: Attribute | None = given.get(name, rule.default)
        if value is None and name == "kernel_shape":
            value = kernel
        if value is None:
            raise Schema(f"operator {op} without the attribute {name!r} is not in the profile", where=where)
        if not _is(value, rule.kind):
            raise Schema(
                f"the attribute {name!r} of operator {op} is not of the type {rule.kind}, or not finite", where=where
            )
        if rule.fixed and value != rule.default:
            shown = str(value)[:40]
            raise Schema(f"operator {op} with {name} = {shown} is not in the profile, only {rule.default}", where=where)
        if rule.choices and value not in rule.choices:
            allowed = " or ".join(map(str, rule.choices))
            raise Schema(
                f"operator {op} with {name} = {str(value)[:40]} is not in the profile, only {allowed}", where=where
            )
        result[name] = value
    return result


def outputs_of(op: str) -> int:
    """How many tensors an operator makes: one, but for Split."""
    return 2 if op == "Split" else 1


def make_node(op: str, inputs: tuple[str, ...], *outputs: str, **given: Attribute) -> Node:
    """Build a node with every default filled in; its name is its first output's.

    Raises:
        MalformedError: the operator or an attribute is not in the profile.
    """
    if op not in OPERATORS:
        raise Schema(f"operator {op!r} is not in the profile")
    plain = Node(name=outputs[0], op=op, inputs=inputs, outputs=outputs, attributes=given)
    return replace(plain, attributes=normalise(op, plain.attributes, where=outputs[0]))
