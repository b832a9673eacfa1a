"""binding: signed manifest against signed commitment and certificate, deployed file against base plus patch."""

import dataclasses

import numpy as np
import pytest

from auditor.checks import binding


def test_consistent(honest_evidence):
    assert binding.check(honest_evidence).verdict == "CONSISTENT"


@pytest.mark.parametrize("field", ["base_sha256", "schema_sha256", "recipe_sha256"])
def test_a_file_that_is_not_the_committed_one(changed, field):
    found = binding.check(changed(**{f"case__{field}": "0" * 64}))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "base-swap")


@pytest.mark.parametrize("field", ["base_sha256", "schema_sha256", "recipe_sha256"])
def test_a_file_that_is_not_listed_is_the_hygiene_checks_business(changed, field):
    assert binding.check(changed(**{f"case__{field}": ""})).verdict == "CONSISTENT"


@pytest.mark.parametrize("parts", [{"case__claims_root": bytes(32)}, {"case__claim_lines": ()}])
def test_other_claims_than_the_certificates(changed, parts):
    found = binding.check(changed(**parts))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "silent-drop")


def test_a_deployed_file_with_one_weight_changed(honest_evidence, changed):
    patched = honest_evidence.case.patched
    name = next(n for n, a in patched.initialisers.items() if a.dtype == np.float32 and a.ndim == 2)
    weights = patched.initialisers[name].copy()
    weights.flat[0] = np.nextafter(weights.flat[0], np.float32(9))
    other = dataclasses.replace(patched, initialisers={**patched.initialisers, name: weights})
    found = binding.check(changed(case__patched=other))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "hidden-payload")


def test_inconclusive(changed, unreadable, honest_evidence):
    assert binding.check(unreadable).verdict == "INCONCLUSIVE"
    assert binding.check(changed(case__patched=None, case__claims_root=None)).verdict == "INCONCLUSIVE"
    later = dataclasses.replace(honest_evidence.case.certificate, predecessor="0" * 64)
    found = binding.check(changed(case__certificate=later))
    assert (found.verdict, "predecessor" in found.summary) == ("INCONCLUSIVE", True)


def test_a_base_with_reserved_names_cannot_be_composed(honest_evidence, changed):
    base = dataclasses.replace(honest_evidence.case.base, input="prune/x")
    found = binding.check(changed(case__base=base))
    assert (found.verdict, "reserved name" in found.summary) == ("INCONCLUSIVE", True)
