import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import EncodingError, MalformedError, NonCanonical, Schema, TooLarge, UnsupportedVersion
from protocol.model import recipe
from protocol.model.recipe import Recipe
from tests.protocol.samples import mutated

recipes = st.builds(
    Recipe,
    optimiser=st.sampled_from(["adam", "sgd"]),
    rate=st.floats(0, 10, exclude_min=True),
    epochs=st.integers(1, 10_000),
    batch=st.integers(1, 1 << 20),
    weight_decay=st.floats(0, 10),
)
FILE = recipe.serialise(Recipe())


def edited(**changes):
    return json.dumps({**json.loads(FILE), **changes}).encode()


@given(recipes)
def test_round_trip(value):
    assert recipe.parse(recipe.serialise(value)) == value


@given(mutated(FILE) | st.binary(max_size=30))
def test_any_mutation_is_a_recipe_or_malformed(data):
    try:
        found = recipe.parse(data)
    except MalformedError:
        return
    assert recipe.parse(recipe.serialise(found)) == found


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rate": 0.1}, Schema),
        ({"rate": "0"}, Schema),
        ({"rate": "-1"}, Schema),
        ({"rate": "11"}, Schema),
        ({"weightDecay": "-0.1"}, Schema),
        ({"weightDecay": "10.5"}, Schema),
        ({"rate": "0.10"}, NonCanonical),
        ({"rate": "0.1000000000000000000001"}, NonCanonical),
        ({"rate": "1e-400"}, NonCanonical),
        ({"rate": "1e400"}, Schema),
        ({"epochs": 0}, Schema),
        ({"epochs": 10_001}, Schema),
        ({"batch": 0}, Schema),
        ({"optimiser": "rmsprop"}, Schema),
        ({"version": "prune-audit/recipe/v2"}, UnsupportedVersion),
        ({"more": "x" * 4096}, TooLarge),
        ({"more": 1}, Schema),
    ],
)
def test_refused(changes, error):
    with pytest.raises(error) as caught:
        recipe.parse(edited(**changes), where="mine.json")
    assert caught.value.where == "mine.json"


@pytest.mark.parametrize(
    "changes", [{"rate": 0.0}, {"rate": float("nan")}, {"rate": 1e3}, {"epochs": 0}, {"batch": True}]
)
def test_writing_refuses_what_reading_would(changes):
    with pytest.raises(EncodingError):
        recipe.serialise(Recipe(**changes))
