"""Every case, against the program under test; and the cases against what a case has to be."""

import pytest

from tests.conformance import cases_audit, generate
from tests.conformance.case import play
from tests.conformance.conftest import expected_failures, known_cases


def test_case(case, auditor_program, tmp_path, record_property):
    record_property("conformance", case.group)
    record_property("case", case.id)
    problem = play(case, auditor_program, tmp_path / "case")
    record_property("problem", problem)
    assert not problem, f"{case.id} ({case.why} SPEC {case.clause}): {problem}"


@pytest.mark.slow
@pytest.mark.conformance("audit")
def test_audit_case(audit_case, audit_cases, auditor_program, tmp_path, record_property):
    case = audit_cases[audit_case]
    record_property("conformance", "audit")
    record_property("case", case.id)
    problem = play(case, auditor_program, tmp_path / "case")
    record_property("problem", problem)
    assert not problem, f"{case.id} ({case.why}): {problem}"


@pytest.mark.slow
@pytest.mark.conformance("audit")
def test_the_audit_cases_are_the_listed_ones(audit_cases):
    assert sorted(audit_cases) == sorted(cases_audit.IDS)


def test_expected_failures_exist(request):
    known = {case.id for case in known_cases(request.config)} | set(cases_audit.IDS)
    assert expected_failures(request.config) <= known, "an expected failure of a case that there is not"


@pytest.mark.conformance("receipt", "log", "witness", "report")
def test_the_cases_are_the_same_everywhere(generated_cases):
    """`python -m tests.conformance.generate` gives these bytes; a change of them is a change of the kit."""
    assert generate.digest(generated_cases) == generate.DIGEST.read_text().strip()


def test_every_case_has_an_own_name_a_reading_and_both_outcomes(request):
    cases = known_cases(request.config)
    assert len({case.id for case in cases}) == len(cases) >= 250
    for group in ("receipt", "log", "witness", "report"):
        codes = {step.exit for case in cases if case.group == group for step in case.steps}
        assert {0, 4} <= codes
    for case in cases:
        assert (case.folder / "README.md").read_text().startswith(f"# {case.id}\n"), case.id
