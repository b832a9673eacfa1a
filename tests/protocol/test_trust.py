import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import envelope as dsse
from protocol import trust
from protocol.encoding import format_time
from protocol.errors import Expired, MalformedError, Schema, UnknownKey, UnsupportedVersion
from protocol.trust import ROLES, Signer, Trust
from tests.protocol.log.helpers import WITNESSES, key
from tests.protocol.samples import AUDITOR, OWNER, REQUESTER, STRANGER, mutated, texts, times

LOG = "example.com/owner-log"
SECOND = key("example.com/owner-2", "statement")


def signer(who, role="owner", logs=(LOG,), **limits):
    return Signer(key=who.verifier, role=role, logs=logs, **limits)


def make(*signers, **thresholds):
    return Trust(signers=signers, thresholds={**dict.fromkeys(ROLES, 1), **thresholds})


def signed(*keys):
    return dsse.parse(dsse.sign(b"payload", keys))


def verify(known, *keys, role="owner", origin=LOG, witnessed=None):
    return known.verify(signed(*keys), role=role, origin=origin, witnessed=witnessed)


signers = st.builds(
    Signer,
    key=st.sampled_from([k.verifier for k in (OWNER, AUDITOR, REQUESTER, STRANGER)]),
    role=st.sampled_from(ROLES),
    logs=st.lists(texts, min_size=1, max_size=3).map(tuple),
    valid_from=st.none() | times,
    valid_to=st.none() | times,
    revoked_since=st.none() | times,
)
unique = st.lists(signers, max_size=6, unique_by=lambda s: (s.key, s.role)).map(tuple)
FILE = trust.serialise(make(signer(OWNER, valid_from=0), signer(AUDITOR, "auditor")))


def edited(**changes):
    return json.dumps({**json.loads(FILE), **changes}).encode()


def entry(**changes):
    return edited(signers=[{**json.loads(FILE)["signers"][0], **changes}])


@given(unique)
def test_round_trip(listed):
    known = make(*listed)
    assert trust.parse(trust.serialise(known)) == known


@given(mutated(FILE) | st.binary(max_size=30))
def test_any_mutation_is_a_trust_file_or_malformed(data):
    try:
        known = trust.parse(data)
    except MalformedError:
        return
    assert trust.parse(trust.serialise(known)) == known


def test_people_may_lay_the_file_out_as_they_like():
    value = json.loads(FILE)
    del value["thresholds"]
    assert trust.parse(json.dumps(value, indent=2).encode()) == trust.parse(FILE)
    assert trust.parse(edited(thresholds={})) == trust.parse(FILE)


@pytest.mark.parametrize(
    "data",
    [
        edited(signers=None),
        edited(signers=[[]]),
        edited(more=1),
        edited(thresholds=[]),
        edited(thresholds={"owner": 0}),
        edited(thresholds={"owner": True}),
        edited(thresholds={"nobody": 1}),
        edited(thresholds={"owner": 2}),  # one key is listed: nothing could ever verify
        edited(signers=json.loads(FILE)["signers"] * 2),
        entry(role="witness"),
        entry(role=["owner"]),
        entry(logs=[]),
        entry(logs="log"),
        entry(logs=[1]),
        entry(logs=[["log"]]),
        entry(validFrom=0),
        entry(validFrom="2026-01-01"),
        entry(validTo="\ud800"),
        entry(vkey="example.com/owner"),
        entry(vkey=WITNESSES[0].verifier.vkey),
        entry(vkey=None),
        entry(keyid="x"),
    ],
)
def test_refused(data):
    with pytest.raises(Schema) as caught:
        trust.parse(data)
    assert caught.value.where.startswith("trust.json")


def test_another_version():
    with pytest.raises(UnsupportedVersion):
        trust.parse(edited(version="prune-audit/trust/v2"))


def test_errors_name_the_entry():
    with pytest.raises(Schema) as caught:
        trust.parse(entry(validFrom="soon"), where="mine.json")
    assert caught.value.where == "mine.json.signers[0]"


def test_role_and_log_decide():
    known = make(signer(OWNER), signer(AUDITOR, "auditor", ("other",)), signer(OWNER, "requester", ("third",)))
    assert verify(known, OWNER) == (known.signers[0],)
    assert known.keys("owner") == (OWNER.verifier,)
    for keys, role, origin in [
        ([OWNER], "auditor", "other"),
        ([OWNER], "owner", "third"),
        ([OWNER], "requester", LOG),
        ([OWNER], "owner", ""),
        ([STRANGER], "owner", LOG),
        ([AUDITOR], "owner", LOG),
        ([AUDITOR], "auditor", LOG),
    ]:
        with pytest.raises(UnknownKey):
            verify(known, *keys, role=role, origin=origin)
    assert verify(known, AUDITOR, STRANGER, role="auditor", origin="other") == (known.signers[1],)


def test_threshold_counts_unique_keys():
    known = make(signer(OWNER), signer(SECOND), owner=2)
    assert len(verify(known, OWNER, SECOND)) == 2
    for keys in ([OWNER], [OWNER, OWNER], [OWNER, STRANGER]):
        with pytest.raises(UnknownKey):
            verify(known, *keys)


limits = st.none() | st.integers(0, 6)


@given(limits, limits, limits, limits)
def test_validity_is_that_of_the_witnessed_time(start, end, revoked, witnessed):
    known = make(signer(OWNER, valid_from=start, valid_to=end, revoked_since=revoked))
    bounds = [start, end, revoked]
    valid = all(bound is None for bound in bounds) or (
        witnessed is not None
        and (start is None or start <= witnessed)
        and all(bound is None or witnessed < bound for bound in (end, revoked))
    )
    if valid:
        assert verify(known, OWNER, witnessed=witnessed) == known.signers
    else:
        with pytest.raises(Expired) as caught:
            verify(known, OWNER, witnessed=witnessed)
        assert caught.value.where == "envelope"


def test_a_revoked_key_does_not_count_towards_the_threshold():
    known = make(signer(OWNER, revoked_since=10), signer(SECOND), owner=1)
    assert verify(known, OWNER, SECOND, witnessed=10) == (known.signers[1],)
    stricter = make(*known.signers, owner=2)
    assert len(verify(stricter, OWNER, SECOND, witnessed=9)) == 2
    with pytest.raises(Expired):
        verify(stricter, OWNER, SECOND, witnessed=10)


def test_times_are_written_as_dates():
    assert format_time(0).encode() in FILE
