import dataclasses

import pytest

from protocol import statement
from protocol.errors import Schema
from protocol.messages.commitment import Commitment
from tests.protocol.messages.test_messages import SAMPLE


def test_prepared_is_optional():
    assert b"prepared" not in SAMPLE.payload()
    prepared = dataclasses.replace(SAMPLE, prepared="05" * 32)
    assert Commitment.parse(statement.parse(prepared.payload())) == prepared


@pytest.mark.parametrize(
    "changes",
    [{"record_count": 0, "group_count": 0}, {"group_count": 0}, {"group_count": 6}, {"record_count": (1 << 32) + 1}],
)
def test_counts(changes):
    with pytest.raises(Schema):
        Commitment.parse(statement.parse(dataclasses.replace(SAMPLE, **changes).payload()))
