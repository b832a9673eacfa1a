"""boundedness: nothing in the patch that no requested claim accounts for, no logit far beyond the base's."""

import dataclasses

import numpy as np

from auditor.checks import boundedness
from protocol.claims import Redirection
from protocol.model.patch import Cap
from tests.auditor.samples import rebuilt


def test_consistent(honest_evidence):
    found = boundedness.check(honest_evidence)
    assert found.verdict == "CONSISTENT"
    assert (found.evidence["items"], found.evidence["caps"]) == (40, 0)


def test_an_item_without_a_claim(honest_evidence, changed):
    found = boundedness.check(changed(case__claims=honest_evidence.case.claims[1:]))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "hidden-payload")


def test_a_claim_about_somebody_else_accounts_for_nothing(honest_evidence, changed):
    first, *rest = honest_evidence.case.claims
    assert isinstance(first, Redirection)
    other = dataclasses.replace(first, record=bytes(32))
    assert boundedness.check(changed(case__claims=(other, *rest))).verdict == "REFUTED"


def test_a_cap_that_nobody_asked_for(honest_evidence, changed):
    patch = dataclasses.replace(honest_evidence.case.patch, caps=(Cap(klass=2, margin="1"),))
    found = boundedness.check(changed(case__patch=patch))
    assert (found.verdict, "caps class 2" in found.summary) == ("REFUTED", True)


def test_logits_beyond_the_bases(honest_evidence, levels, changed):
    assert boundedness.check(levels("boundedness", logit_factor_at_most=0.01)).verdict == "REFUTED"
    patch = honest_evidence.case.patch
    rows = patch.parts[0].head.rows.copy()
    rows[0, 0] = 1e30
    found = boundedness.check(changed(case__patch=rebuilt(patch, rows=rows)))
    assert (found.verdict, found.evidence["largest_logit"] > 9e29) == ("REFUTED", True)


def test_inconclusive(changed, unreadable, honest_evidence):
    assert boundedness.check(unreadable).verdict == "INCONCLUSIVE"
    assert boundedness.check(changed(case__claims=None)).verdict == "INCONCLUSIVE"
    found = boundedness.check(changed(reference=None, reference_missing="No data."))
    assert (found.verdict, found.summary) == ("INCONCLUSIVE", "No data.")
    assert "Without reference" in boundedness.check(changed(reference=None, reference_missing="")).summary
    (request,) = honest_evidence.case.requests
    unknown = changed(case__requests=(dataclasses.replace(request, listed=None),))
    assert "is not known" in boundedness.check(unknown).summary


def test_a_base_without_finite_outputs_bounds_nothing(honest_evidence):
    evidence = dataclasses.replace(honest_evidence)
    values, labels, before, after = honest_evidence.others["reference"]
    vars(evidence)["others"] = {"reference": (values, labels, np.full_like(before, np.nan), after)}
    found = boundedness.check(evidence)
    assert (found.verdict, "not finite" in found.summary) == ("INCONCLUSIVE", True)
    assert "largest_base_logit" not in found.evidence
