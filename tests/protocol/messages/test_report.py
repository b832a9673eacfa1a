import dataclasses
from itertools import product

import pytest
from hypothesis import given

from protocol import statement
from protocol.errors import Schema
from protocol.messages.report import EXIT_CODES, VERDICTS, CheckLine, Report, combine
from tests.protocol.messages.samples import reports


def lines(*verdicts):
    return tuple(CheckLine(check=f"c{n}", verdict=v, required=r) for n, (v, r) in enumerate(verdicts))


def test_verdict_follows_from_required_checks():
    every = [None, *product(VERDICTS, [True, False])]
    for chosen in product(every, repeat=3):
        checks = lines(*filter(None, chosen))
        required = [check.verdict for check in checks if check.required]
        if "REFUTED" in required:
            assert combine(checks) == "REFUTED"
        elif required and all(verdict == "CONSISTENT" for verdict in required):
            assert combine(checks) == "CONSISTENT"
        else:  # nothing required proves nothing
            assert combine(checks) == "INCONCLUSIVE"


@given(reports())
def test_another_verdict_is_refused(report):
    for verdict in VERDICTS:
        if verdict != report.verdict:
            with pytest.raises(Schema):
                Report.parse(statement.parse(dataclasses.replace(report, verdict=verdict).payload()))


@given(reports())
def test_one_line_a_check(report):
    twice = (
        CheckLine(check="x", verdict="CONSISTENT", required=False),
        CheckLine(check="x", verdict="REFUTED", required=False),
    )
    with pytest.raises(Schema):
        Report.parse(statement.parse(dataclasses.replace(report, checks=twice, verdict="INCONCLUSIVE").payload()))


def test_exit_codes():
    assert EXIT_CODES == {"CONSISTENT": 0, "REFUTED": 3, "INCONCLUSIVE": 5}
    assert set(EXIT_CODES) == set(VERDICTS)
