import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import openings, records
from protocol.arrays import read_npz, write_npz
from protocol.errors import EncodingError, MalformedError, Schema, TooLarge
from protocol.openings import Slip
from protocol.records import Opening
from tests.protocol.samples import mutated
from tests.protocol.test_records import FEATURES, data_set, subjects_of


def opened(subjects, indices):
    values, labels, subjects, salts, group_salts = data_set(subjects)
    tree = records.build(values, labels, subjects, salts, group_salts)
    return tree, tree.openings(indices, values, labels, salts)


def as_values(found):
    return [
        {f.name: getattr(one, f.name).tolist() if f.name == "values" else getattr(one, f.name) for f in fields}
        for one in found
    ]


fields = dataclasses.fields(Opening)
_, FOUR = opened(["", "ann", "ann", "bob", ""], [3, 0, 2, 4])
FILE = openings.serialise(FOUR, features=FEATURES)
SLIP = Slip(openings=tuple(FOUR), commitment=b"commitment", commitment_proof=b"")


@given(subjects_of, st.data())
def test_round_trip(subjects, data):
    wanted = data.draw(st.lists(st.integers(0, len(subjects) - 1), unique=True)) if subjects else []
    tree, some = opened(subjects, wanted)
    written = openings.serialise(some, features=FEATURES)
    found = openings.parse(written)
    assert as_values(found) == as_values(some)
    assert openings.serialise(found, features=FEATURES) == written
    for one in found:
        one.verify(tree.root, groups=len(tree.groups), count=len(subjects))


@given(mutated(FILE) | st.binary(max_size=30))
def test_any_mutation_is_malformed_or_the_same(data):
    try:
        found = openings.parse(data)
    except MalformedError:
        return
    assert as_values(found) == as_values(FOUR)


def test_slip_round_trip():
    data = openings.serialise_slip(SLIP)
    found = openings.parse_slip(data)
    assert as_values(found.openings) == as_values(SLIP.openings)
    assert (found.commitment, found.commitment_proof) == (b"commitment", b"")
    assert openings.serialise_slip(found) == data


def test_a_slip_of_no_record():
    with pytest.raises(EncodingError):
        openings.serialise_slip(dataclasses.replace(SLIP, openings=()))
    arrays = read_npz(openings.serialise([], features=FEATURES), openings._EXPECTED)
    empty = {**arrays, "commitment": np.zeros(1, np.uint8), "commitment_proof": np.zeros(1, np.uint8)}
    with pytest.raises(Schema):
        openings.parse_slip(write_npz(empty))


def test_a_slip_is_no_openings_file_nor_the_other_way_round():
    with pytest.raises(MalformedError):
        openings.parse(openings.serialise_slip(SLIP))
    with pytest.raises(MalformedError):
        openings.parse_slip(FILE)


def forged(**changes):
    return write_npz({**read_npz(FILE, openings._EXPECTED), **changes})


def array(name):
    return read_npz(FILE, openings._EXPECTED)[name].copy()


def edited(name, place, value):
    changed = array(name)
    changed[place] = value
    return {name: changed}


@pytest.mark.parametrize(
    "changes",
    [
        {"X": array("X")[:3]},
        {"y": np.zeros(5, np.int64)},
        {"group_path_length": np.zeros(0, np.int64)},
        {"salts": np.zeros((4, 31), np.uint8)},
        {"groups": np.zeros((4, 33), np.uint8)},
        {"record_path": np.zeros((4, 3, 31), np.uint8)},
        {"record_path": np.zeros((4, 41, 32), np.uint8), "record_path_length": np.full(4, 41, np.int64)},
        {"record_path": np.concatenate([array("record_path"), np.zeros((4, 1, 32), np.uint8)], axis=1)},
        edited("y", 0, -1),
        edited("y", 0, 1 << 32),
        edited("indices", 1, -1),
        edited("indices", 1, 1 << 32),
        edited("indices", 1, array("indices")[0]),
        edited("group_start", 2, -(1 << 63)),
        edited("group_count", 2, (1 << 63) - 1),
        edited("group_index", 3, -1),
        edited("record_path_length", 0, -1),
        edited("record_path_length", 0, 1 << 62),
        edited("record_path_length", 0, array("record_path_length")[0] - 1),
        edited("group_path_length", slice(None), 0),
    ],
)
def test_forged_files(changes):
    with pytest.raises(Schema) as caught:
        openings.parse(forged(**changes), where="mine.npz")
    assert caught.value.where == "mine.npz"


def test_the_forger_makes_good_files():
    assert forged() == FILE


@pytest.mark.parametrize("name", sorted(openings._EXPECTED))
def test_every_array_is_needed(name):
    arrays = read_npz(FILE, openings._EXPECTED)
    del arrays[name]
    with pytest.raises(MalformedError):
        openings.parse(write_npz(arrays))


def test_limits(monkeypatch):
    monkeypatch.setattr(openings, "MAX_OPENINGS_FILE", len(FILE) - 1)
    monkeypatch.setattr(openings, "MAX_SLIP_FILE", 100)
    with pytest.raises(TooLarge):
        openings.parse(FILE)
    with pytest.raises(TooLarge):
        openings.parse_slip(openings.serialise_slip(SLIP))
