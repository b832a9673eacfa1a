"""The second auditor, written in JavaScript from SPEC.md alone, passes the kit where it has the commands.

Every fourth receipt and log case in `make test`, all of them in `make conformance` (slow).
"""

import pytest

from tests.conformance.case import play
from tests.conformance.commands import External
from tests.conformance.conftest import known_cases
from tests.peers import ABSENT, SECOND_AUDITOR, find_node

GROUPS = {"receipt", "log"}


def chosen(config):
    """Ids of the cases of both groups, in order."""
    return sorted(case.id for case in known_cases(config) if case.group in GROUPS)


@pytest.fixture
def second():
    """The program; skips where there is no node."""
    node = find_node()
    if node is None:
        pytest.skip(f"no node >= 22.22 here: {ABSENT}")
    return External((node, str(SECOND_AUDITOR / "audit.mjs")), limit=60.0)


def failures(config, program, ids, folder):
    cases = {case.id: case for case in known_cases(config)}
    problems = {name: play(cases[name], program, folder / str(number)) for number, name in enumerate(ids)}
    return {name: problem for name, problem in problems.items() if problem}


@pytest.mark.conformance("receipt", "log")
def test_it_passes_a_quarter_of_the_cases(request, second, tmp_path):
    assert not failures(request.config, second, chosen(request.config)[::4], tmp_path)


@pytest.mark.slow
@pytest.mark.conformance("receipt", "log")
def test_it_passes_every_case(request, second, tmp_path):
    ids = chosen(request.config)
    assert len(ids) > 200
    assert not failures(request.config, second, ids, tmp_path)
