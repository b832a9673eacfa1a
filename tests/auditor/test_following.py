"""What counts as redirected near a record: not bits that differ, but an output that is as far from the base's."""

from types import SimpleNamespace

import numpy as np
import pytest

from auditor.following import Redirected
from protocol.claims import Argmax, Linear, Redirection, Region
from protocol.model.parts import AlwaysGate, Part, SetHead, ShiftHead
from protocol.model.patch import Patch

BASE = np.array([[4, 1, 0]], dtype=np.float32)
ROW = np.array([[2, 0, 0]], dtype=np.float32)
PROPERTIES = {
    "the base's own class": Argmax(klass=0, margin="1"),
    "what always holds": Linear(rows=(("0", "0", "0"),), least=("-1",)),
}


def redirected(head, wanted, shift):
    """One record, where the output is the base's with ROW added; `shift` is what is added at every other point."""
    rows = ROW if head is ShiftHead else BASE + ROW
    patch = Patch(
        features=1, classes=3, parts=(Part(gate=AlwaysGate(), head=head(rows=rows, index=np.zeros(1, np.int64))),)
    )
    region = Region(norm="linf", radius=0, radius_data="0")
    claim = Redirection(record=bytes(32), item=0, gate="always", region=region, property=wanted, target="match")

    def run(values):
        before = np.repeat(BASE, len(values), axis=0)
        return before, before + np.where(values == 0, ROW, np.float32(shift))

    values = np.zeros((1, 1), np.int64)
    evidence = SimpleNamespace(
        claimed_records=(values, values[:, 0], (claim,)), case=SimpleNamespace(patch=patch), run=run
    )
    return Redirected.of(evidence)


def share(found, value, count=3):
    return found.at(np.full((count, 1), value), np.zeros(count, np.int64)).mean()


@pytest.mark.parametrize("wanted", PROPERTIES.values(), ids=PROPERTIES)
@pytest.mark.parametrize("shift", [0, 1e-6, 3e-3, 0.1])
def test_a_part_that_always_adds_next_to_nothing_redirects_nothing(wanted, shift):
    found = redirected(ShiftHead, wanted, shift)
    before, after = found.evidence.run(np.ones((1, 1), np.int64))
    assert (before != after).any() == (shift > 0)
    assert share(found, 1) == 0
    assert share(found, 0) == 1


@pytest.mark.parametrize("wanted", PROPERTIES.values(), ids=PROPERTIES)
def test_an_output_that_follows_the_point_counts(wanted):
    assert share(redirected(ShiftHead, wanted, ROW[0]), 1) == 1
    assert share(redirected(ShiftHead, wanted, 0.5 * ROW[0]), 1) == 1


def test_the_claimed_property_is_asked_for_as_well():
    assert share(redirected(ShiftHead, PROPERTIES["the base's own class"], -2 * ROW[0]), 1) == 0
    assert share(redirected(ShiftHead, PROPERTIES["the base's own class"], np.nan), 1) == 0
    assert share(redirected(ShiftHead, PROPERTIES["what always holds"], np.nan), 1) == 0


def test_where_rows_are_set_the_row_is_asked_for():
    found = redirected(SetHead, PROPERTIES["the base's own class"], 1.5 * ROW[0])
    assert share(found, 1) == 0
    assert share(found, 0) == 1
