import dataclasses

import pytest
from hypothesis import given

from protocol import statement
from protocol.errors import Schema
from protocol.messages.certificate import Certificate, Dropped
from tests.protocol.messages.samples import certificates

GONE = Dropped(record="ab" * 32, reason="the record was added again")


@given(certificates())
def test_what_goes_together(certificate):
    first = dataclasses.replace(certificate, predecessor=None, dropped=())
    assert Certificate.parse(statement.parse(first.payload())) == first
    later = dataclasses.replace(certificate, predecessor="cd" * 32, dropped=(GONE,))
    assert Certificate.parse(statement.parse(later.payload())) == later
    for wrong in (
        dataclasses.replace(first, requests=()),
        dataclasses.replace(first, dropped=(GONE,)),
        dataclasses.replace(later, dropped=(GONE, dataclasses.replace(GONE, reason="another"))),
        dataclasses.replace(first, claim_count=1_000_001),
    ):
        with pytest.raises(Schema):
            Certificate.parse(statement.parse(wrong.payload()))
