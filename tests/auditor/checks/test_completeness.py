"""completeness: every requested record has a claim, every opened record is the committed one."""

import dataclasses

import pytest

from auditor.checks import completeness
from protocol.claims import NoRedirection
from protocol.messages.request import Scope


def test_consistent(honest_evidence):
    found = completeness.check(honest_evidence)
    assert found.verdict == "CONSISTENT"
    assert found.evidence == {"requests": 1, "requested_records": 40, "claimed_records": 40, "opened_records": 40}


def test_an_explicit_no_redirection_claim_counts_as_covered(honest_evidence, changed):
    first, *rest = honest_evidence.case.claims
    covered = changed(case__claims=(NoRedirection(record=first.record, reason="retrained"), *rest))
    assert completeness.check(covered).verdict == "CONSISTENT"


def test_a_record_without_a_claim(honest_evidence, changed):
    found = completeness.check(changed(case__claims=honest_evidence.case.claims[:-2]))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "partial-forget-set")
    assert len(found.evidence["missing"]) == 2


def test_other_requests_than_the_certificates(changed):
    found = completeness.check(changed(case__requests=()))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "partial-forget-set")


def _scoped(evidence, **scope):
    (request,) = evidence.case.requests
    return (dataclasses.replace(request, request=dataclasses.replace(request.request, scope=Scope(**scope))),)


def test_a_class_that_no_claim_removes(honest_evidence, changed):
    requests = _scoped(honest_evidence, kind="class", klass=4)
    found = completeness.check(changed(case__requests=requests))
    assert found.verdict == "REFUTED"
    assert "class 4" in found.summary


def test_a_trigger_has_no_claim_yet(honest_evidence, changed):
    found = completeness.check(changed(case__requests=_scoped(honest_evidence, kind="trigger", trigger="0" * 64)))
    assert found.verdict == "INCONCLUSIVE"
    assert "trigger" in found.summary


def test_a_subject_whose_records_are_more_than_the_request_lists(honest_evidence, changed):
    (request,) = honest_evidence.case.requests
    record = request.listed[0]
    opened = honest_evidence.opened_by_commitment[record]
    requests = _scoped(honest_evidence, kind="subject", group=opened.group.hex())
    evidence = changed(case__requests=(dataclasses.replace(requests[0], listed=(record,)),))
    vars(evidence)["opened_by_commitment"] = {
        **honest_evidence.opened_by_commitment, record: dataclasses.replace(opened, group_count=3)
    }  # fmt: skip
    assert any("3 committed records" in f.message for f in completeness.check(evidence).findings)


@pytest.mark.parametrize(
    ("parts", "summary"),
    [
        ({"case__claims": None}, "The claims cannot be read."),
        ({"case__opened": None}, "The requested records were not opened."),
        ({"case__opened": None, "case__openings_erased": True}, "(erased)"),
        ({"case__opened": ()}, "40 requested records were not opened."),
    ],
)
def test_inconclusive(changed, parts, summary):
    found = completeness.check(changed(**parts))
    assert found.verdict == "INCONCLUSIVE"
    assert summary in found.summary


def test_an_unreadable_list(honest_evidence, changed):
    (request,) = honest_evidence.case.requests
    found = completeness.check(changed(case__requests=(dataclasses.replace(request, listed=None),)))
    assert (found.verdict, "cannot be read" in found.summary) == ("INCONCLUSIVE", True)
