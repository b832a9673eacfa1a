"""Lines of duals: one spelling, nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import duals
from protocol.duals import Dual
from protocol.errors import MalformedError

coordinates = st.integers(-(duals.PARTS << 24), duals.PARTS << 24)
lines = st.builds(
    Dual, item=st.integers(0, 10**6), rival=st.integers(0, 1 << 20), point=st.lists(coordinates, max_size=5).map(tuple)
)


@given(st.lists(lines, max_size=5, unique_by=lambda dual: dual.item))
def test_what_is_written_is_read(made):
    found = duals.parse_file(duals.file_bytes(made))
    assert sorted(made, key=lambda dual: dual.item) == list(found)
    for dual in found:
        assert (dual.array() * duals.PARTS).tolist() == list(dual.point)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b'{"item":0,"rival":1}', b'{"item":0,"point":[1],"rival":-1}', b'{"item":0,"point":[0.5],"rival":1}',
        b'{"item":0,"point":["1"],"rival":1}', b'{"item":0,"point":[true],"rival":1}', b'{"item":0,"point":1,"rival":1}',
        b'{"item":0,"point":[4294967297],"rival":1}', b'{"item":1000001,"point":[1],"rival":1}',
        b'{"item":0,"point":[1],"rival":1,"x":0}', b'{"item":0, "point":[1],"rival":1}', b'{"point":[1],"item":0,"rival":1}',
    ],
)  # fmt: skip
def test_other_lines_are_refused(line):
    with pytest.raises(MalformedError):
        duals.parse_line(line)


def test_other_files_are_refused():
    first, second = (duals.dual_line(Dual(item=item, rival=1, point=(2,))) + b"\n" for item in (3, 7))
    assert len(duals.parse_file(first + second)) == 2
    for wrong in (second + first, first + first, first[:-1], first + b"\n", b"\n", first + second[:-1]):
        with pytest.raises(MalformedError):
            duals.parse_file(wrong)
