"""freshness: order from hashes and log places, dates from witnesses only."""

import dataclasses

import pytest

from auditor.checks import freshness


def _request(evidence, **changes):
    (request,) = evidence.case.requests
    return (dataclasses.replace(request, request=dataclasses.replace(request.request, **changes)),)


def test_consistent(honest_evidence, changed):
    found = freshness.check(honest_evidence)
    assert found.verdict == "CONSISTENT"
    assert found.evidence["certificate_witnessed_at"].endswith("Z")
    later = honest_evidence.case.certificate_logged.time + 5
    assert freshness.check(changed(case__requests=_request(honest_evidence, deadline=later))).verdict == "CONSISTENT"


def test_replayed_for_another_commitment(honest_evidence, changed):
    certificate = dataclasses.replace(honest_evidence.case.certificate, commitment="0" * 64)
    found = freshness.check(changed(case__certificate=certificate))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "replay")
    found = freshness.check(changed(case__requests=_request(honest_evidence, subject="0" * 64)))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "replay")


def _at(logged, index, origin=None):
    entry = dataclasses.replace(logged.entry, index=index)
    if origin is not None:
        entry = dataclasses.replace(entry, checkpoint=dataclasses.replace(entry.checkpoint, origin=origin))
    return dataclasses.replace(logged, entry=entry)


def test_another_order_in_the_log(honest_evidence, changed):
    case = honest_evidence.case
    late = changed(case__commitment_logged=_at(case.commitment_logged, 10_000))
    assert freshness.check(late).findings[0].threat == "backdated-certificate"
    (request,) = case.requests
    moved = dataclasses.replace(request, logged=_at(request.logged, 10_000))
    assert freshness.check(changed(case__requests=(moved,))).verdict == "REFUTED"
    elsewhere = dataclasses.replace(request, logged=_at(request.logged, 10_000, origin="other.example"))
    assert freshness.check(changed(case__requests=(elsewhere,))).verdict == "CONSISTENT"


def test_an_opening_that_is_not_the_certificates(honest_evidence, changed):
    case = honest_evidence.case
    other = dataclasses.replace(case.opening_logged, leaf="0" * 64)
    assert freshness.check(changed(case__opening_logged=other)).findings[0].threat == "replay"
    spent = dataclasses.replace(case.opening, requests=("1" * 64,))
    assert "opened for other requests" in freshness.check(changed(case__opening=spent)).summary
    assert freshness.check(changed(case__opening=None, case__opening_logged=None)).verdict == "CONSISTENT"


@pytest.mark.parametrize("witnessed", [True, False])
def test_deadlines_are_never_an_accusation(honest_evidence, changed, witnessed):
    case = honest_evidence.case
    parts = {"case__requests": _request(honest_evidence, deadline=5)}
    if not witnessed:
        entry = case.certificate_logged.entry
        bare = dataclasses.replace(entry, checkpoint=dataclasses.replace(entry.checkpoint, time=None))
        parts["case__certificate_logged"] = dataclasses.replace(case.certificate_logged, entry=bare)
    found = freshness.check(changed(**parts))
    assert (found.verdict, found.findings) == ("INCONCLUSIVE", ())
    assert ("no quorum" in found.summary) == (not witnessed)
