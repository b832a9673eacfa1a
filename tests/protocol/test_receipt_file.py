"""The receipt's file: one spelling, every limit, nothing but our errors."""

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import receipt_file
from protocol.claims import MAX_CLAIMS, MAX_LINE
from protocol.envelope import MAX_ENVELOPE
from protocol.errors import MalformedError, NonCanonical, Schema, TooLarge, UnsupportedVersion
from protocol.log.proof import MAX_TLOG_PROOF
from protocol.receipt_file import ENVELOPES, OpenedClaim, ReceiptFile

digests = st.binary(min_size=32, max_size=32)
claims = st.builds(
    OpenedClaim,
    line=st.binary(max_size=50),
    index=st.integers(0, 10**6 - 1),
    path=st.lists(digests, max_size=4).map(tuple),
)
files = st.builds(
    ReceiptFile,
    envelopes=st.fixed_dictionaries({name: st.binary(max_size=60) for name in ENVELOPES}),
    proofs=st.dictionaries(st.sampled_from(ENVELOPES), st.binary(max_size=60)),
    claims=st.lists(claims, max_size=4, unique_by=lambda c: c.index).map(
        lambda c: tuple(sorted(c, key=lambda x: x.index))
    ),
    records=st.sets(digests, max_size=5).map(lambda r: tuple(sorted(r))),
)


@given(files)
def test_round_trip(file):
    data = file.to_bytes()
    assert receipt_file.parse(data) == file
    assert receipt_file.parse(data).to_bytes() == data


@given(files, st.data())
def test_any_change_gives_another_file_or_an_error(file, data):
    raw = file.to_bytes()
    place = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:place] + bytes([raw[place] ^ (1 << data.draw(st.integers(0, 7)))]) + raw[place + 1 :]
    with contextlib.suppress(MalformedError):
        assert receipt_file.parse(changed).to_bytes() == changed


@given(st.binary(max_size=200))
def test_any_bytes_give_a_file_or_an_error(data):
    with pytest.raises(MalformedError):
        receipt_file.parse(data)


def _sample():
    claim = OpenedClaim(line=b"{}", index=3, path=(bytes(32),))
    return ReceiptFile(
        envelopes={name: b"{}" for name in ENVELOPES}, proofs={"receipt": b"p"}, claims=(claim,), records=(bytes(32),)
    )


def _changed(change):
    value = json.loads(_sample().to_bytes())
    change(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda v: v.update(version="prune-audit/receipt/v2"), UnsupportedVersion),
        (lambda v: v.update(extra=1), Schema),
        (lambda v: v["envelopes"].pop("report"), Schema),
        (lambda v: v["envelopes"].update(other="e30="), Schema),
        (lambda v: v["proofs"].update(other="e30="), Schema),
        (lambda v: v["envelopes"].update(report="e30"), MalformedError),
        (lambda v: v["envelopes"].update(report="e31="), MalformedError),
        (lambda v: v.update(records=["0" * 63]), Schema),
        (lambda v: v.update(records=["A" * 64]), Schema),
        (lambda v: v.update(records=[5]), Schema),
        (lambda v: v.update(records=["1" * 64, "0" * 64]), Schema),
        (lambda v: v.update(records=["1" * 64, "1" * 64]), Schema),
        (lambda v: v["claims"].append(v["claims"][0]), Schema),
        (lambda v: v["claims"][0].update(index=-1), Schema),
        (lambda v: v["claims"][0].update(path=["0" * 64] * 41), MalformedError),
        (lambda v: v["claims"][0].pop("line"), Schema),
    ],
)
def test_refused(change, error):
    with pytest.raises(error):
        receipt_file.parse(_changed(change))


def test_one_spelling_only():
    data = _sample().to_bytes()
    assert receipt_file.parse(_changed(lambda _: None)) == _sample()
    with pytest.raises(NonCanonical):
        receipt_file.parse(data.replace(b'"records":', b'"records": '))


def test_claims_out_of_order():
    file = _sample()
    later = dataclasses.replace(file.claims[0], index=2)
    with pytest.raises(Schema, match="not in their order"):
        receipt_file.parse(dataclasses.replace(file, claims=(*file.claims, later)).to_bytes())


def test_whatever_can_be_made_can_be_carried():
    """A claim line and a log proof of the largest size that their own readers take, and not a byte more."""
    whole = dataclasses.replace(
        _sample(),
        envelopes={name: bytes(MAX_ENVELOPE) for name in ENVELOPES},
        proofs={"report": bytes(MAX_TLOG_PROOF)},
        claims=(OpenedClaim(line=bytes(MAX_LINE), index=MAX_CLAIMS - 1, path=()),),
    )
    assert receipt_file.parse(whole.to_bytes()) == whole
    for changes in (
        {"envelopes": {**whole.envelopes, "report": bytes(MAX_ENVELOPE + 1)}},
        {"proofs": {"report": bytes(MAX_TLOG_PROOF + 1)}},
        {"claims": (dataclasses.replace(whole.claims[0], line=bytes(MAX_LINE + 1)),)},
    ):
        with pytest.raises(TooLarge, match="at most"):
            receipt_file.parse(dataclasses.replace(whole, **changes).to_bytes())
    with pytest.raises(Schema, match="index"):
        receipt_file.parse(
            dataclasses.replace(whole, claims=(dataclasses.replace(whole.claims[0], index=MAX_CLAIMS),)).to_bytes()
        )
