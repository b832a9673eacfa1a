"""authenticity, challenge, deployment, hygiene, inclusion, monitor: short checks, every verdict of each."""

import dataclasses

import pytest

from auditor.checks import authenticity, challenge, deployment, hygiene, inclusion, monitor
from auditor.view import Finding


def test_authenticity(honest_evidence, changed):
    found = authenticity.check(honest_evidence)
    assert found.verdict == "CONSISTENT"
    assert found.evidence["requests_signed_by_owner_on_behalf"] == 1
    assert "1 of 1 requests were signed by the owner" in found.summary
    (request,) = honest_evidence.case.requests
    forged = dataclasses.replace(request, request=dataclasses.replace(request.request, on_behalf=False))
    found = authenticity.check(changed(case__requests=(forged,)))
    assert found.verdict == "REFUTED"
    assert found.findings[0].threat == "forged-request"
    own = dataclasses.replace(request, logged=dataclasses.replace(request.logged, signed_as="requester"))
    found = authenticity.check(changed(case__requests=(own,)))
    assert (found.verdict, found.evidence["requests_signed_by_requester"]) == ("CONSISTENT", 1)


def test_challenge_consistent_and_refuted(honest_evidence, changed):
    found = challenge.check(honest_evidence)
    assert found.verdict == "CONSISTENT"
    assert found.evidence == {"asked": 200, "of": 400, "opened": 200, "answered_in_time": True}
    finding = Finding(threat="substituted-record", check="challenge", message="x")
    found = challenge.check(changed(transcript__problems=(("a false opening", finding, True),)))
    assert (found.verdict, found.summary, found.findings) == ("REFUTED", "A false opening.", (finding,))


@pytest.mark.parametrize(
    ("parts", "summary"),
    [
        ({"opening_leaf": None, "challenge": None}, "No audit was opened"),
        ({"problems": (("no challenge was made", None, False),), "opened": None}, "No challenge was made."),
        ({"opened": None}, "The challenged records were not opened."),
    ],
)
def test_challenge_inconclusive(changed, parts, summary):
    found = challenge.check(changed(**{f"transcript__{name}": value for name, value in parts.items()}))
    assert found.verdict == "INCONCLUSIVE"
    assert summary in found.summary


def test_deployment_without_endpoint_and_monitor_decide_nothing(honest_evidence):
    found = deployment.check(honest_evidence)
    assert (found.verdict, found.summary.split(":")[0]) == ("INCONCLUSIVE", "No endpoint was queried")
    assert monitor.check(honest_evidence).verdict == "INCONCLUSIVE"


def test_hygiene(honest_evidence, changed):
    assert hygiene.check(honest_evidence).verdict == "CONSISTENT"
    finding = Finding(threat="hostile-artefact", check="hygiene", message="x.onnx: a bomb")
    found = hygiene.check(changed(case__hostile=(finding,)))
    assert (found.verdict, found.findings) == ("REFUTED", (finding,))
    assert "x.onnx" in found.summary


def test_inclusion_consistent_with_and_without_witnesses(honest_evidence, changed):
    found = inclusion.check(honest_evidence)
    assert found.verdict == "CONSISTENT"
    assert len(found.evidence["certificate"]["witnesses"]) == 3
    free = dataclasses.replace(honest_evidence.case.policy, quorum="none")
    assert "asks for no witness" in inclusion.check(changed(case__policy=free)).summary


def test_inclusion_refuted_by_two_histories(changed):
    found = inclusion.check(changed(log_conflicts=(("rollback", "two different roots"),)))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "rollback")


def test_inclusion_inconclusive(honest_evidence, changed):
    case = honest_evidence.case
    (request,) = case.requests
    bare = dataclasses.replace(request, logged=dataclasses.replace(request.logged, entry=None))
    assert bare.logged.time is None
    found = inclusion.check(changed(case__requests=(bare,)))
    assert (found.verdict, request.path in found.summary) == ("INCONCLUSIVE", True)
    entry = case.certificate_logged.entry
    unmet = dataclasses.replace(entry, checkpoint=dataclasses.replace(entry.checkpoint, quorum_met=False))
    found = inclusion.check(changed(case__certificate_logged=dataclasses.replace(case.certificate_logged, entry=unmet)))
    assert (found.verdict, "run the witnesses" in found.summary) == ("INCONCLUSIVE", True)
    found = inclusion.check(changed(log_notes=("The log folder is older.",)))
    assert (found.verdict, found.summary) == ("INCONCLUSIVE", "The log folder is older.")
