import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import errors
from protocol.errors import Error, MalformedError, Schema


def drawn_tree():
    """Name of each class in the docstring's drawing, with its parent's."""
    parents, path = {}, []
    for line in errors.__doc__.split("::\n", 1)[1].split("\n\n")[0].split("\n"):
        if found := re.fullmatch(r"    ([│├└─ ]*)([A-Z][A-Za-z]+)(?: {2,}.+)?", line):
            depth = len(found[1]) // 4
            path = [*path[:depth], found[2]]
            parents[found[2]] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_tree_is_the_drawn_one():
    real = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert len(real) == 18
    assert drawn_tree() == real


def test_every_class_has_a_reason_of_its_own():
    """`usage` is what the base and both programs' own errors say: nothing is known but that it cannot be done."""
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Error)]
    named = [kind.reason for kind in kinds if kind.reason != "usage"]
    assert len(set(named)) == len(named) == 14
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.reason) for kind in kinds)


def test_message_and_place():
    assert str(Error("is wrong")) == "is wrong"
    assert str(Error("is wrong", where="file")) == "file: is wrong"
    error = Schema("is wrong")
    assert error.at("first") is error
    assert error.at("second").where == "first"


def test_survives_a_process_boundary():
    copy = pickle.loads(pickle.dumps(MalformedError("is wrong", where="file")))
    assert (type(copy), copy.message, copy.where) == (MalformedError, "is wrong", "file")


@given(st.text(), st.text())
def test_prints_as_one_line_on_any_terminal(message, where):
    text = str(Error(message, where=where))
    assert text.isprintable()
    assert text.encode("utf-8") or not message + where
    if message.isprintable():
        assert text.endswith(message)


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[2J", "\ud800", "\u202e", "\x00"])
def test_hostile_names_are_escaped(hostile):
    assert str(Error("x", where=hostile)) == hostile.encode("unicode_escape").decode() + ": x"
