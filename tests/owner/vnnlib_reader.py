"""A reader of VNN-LIB 1.0, written apart from the writer: the box, and a disjunction of conjunctions of comparisons."""

import re
from dataclasses import dataclass, field
from fractions import Fraction


@dataclass
class Read:
    """Exact bounds of the inputs; `cases`: lists of (output, sign, value), any of which is a violation."""

    low: dict[int, Fraction] = field(default_factory=dict)
    high: dict[int, Fraction] = field(default_factory=dict)
    outputs: set[int] = field(default_factory=set)
    cases: list[list[tuple[int, str, Fraction]]] = field(default_factory=list)

    def violated(self, outputs):
        """Whether some outputs answer the question with yes."""

        def met(place, sign, value):
            return outputs[place] >= value if sign == ">=" else outputs[place] <= value

        return any(all(met(*part) for part in case) for case in self.cases)


def expressions(text):
    tokens = re.findall(r"[()]|[^\s()]+", re.sub(r";[^\n]*", "", text))

    def one(place):
        if tokens[place] != "(":
            assert tokens[place] != ")"
            return tokens[place], place + 1
        parts, place = [], place + 1
        while tokens[place] != ")":
            part, place = one(place)
            parts.append(part)
        return parts, place + 1

    found, place = [], 0
    while place < len(tokens):
        part, place = one(place)
        found.append(part)
    return found


def read(text):
    declared, result = {"X": [], "Y": []}, Read()

    def comparison(part):
        sign, name, value = part
        assert sign in ("<=", ">=")
        assert re.fullmatch(r"-?\d+(\.\d+)?", value)
        kind, place = name.split("_")
        assert int(place) in declared[kind]
        return kind, int(place), sign, Fraction(value)

    def output(part):
        kind, place, sign, value = comparison(part)
        assert kind == "Y"
        return place, sign, value

    for expression in expressions(text):
        if expression[0] == "declare-const":
            _, name, sort = expression
            assert sort == "Real"
            declared[name[0]].append(int(name[2:]))
            continue
        head, body = expression
        assert head == "assert"
        if body[0] == "or":
            assert not result.cases
            for case in body[1:]:
                assert case[0] == "and"
                result.cases.append([output(part) for part in case[1:]])
            continue
        kind, place, sign, value = comparison(body)
        if kind == "X":
            side = result.low if sign == ">=" else result.high
            assert place not in side
            side[place] = value
        else:
            assert not result.cases
            result.cases.append([(place, sign, value)])
    assert declared["X"] == sorted(result.low) == sorted(result.high) == list(range(len(declared["X"])))
    assert all(result.low[n] <= result.high[n] for n in result.low)
    result.outputs = set(declared["Y"])
    assert {place for case in result.cases for place, _, _ in case} <= result.outputs
    return result
