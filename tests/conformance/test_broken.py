"""The kit against programs that are known to be broken: it must fail each of them, and for its own reason."""

import re
import sys
from pathlib import Path

import pytest

from tests.conformance import broken
from tests.conformance.case import discover, play
from tests.conformance.commands import External, Ran, ours

ROOT = Path(__file__).resolve().parents[2]
GONE = object()
CODES = {"accuses_on_damage": "ended with 3", "one_reason": "for the reason 'malformed'", "crashes": "a bug of the program",
         "silent": "no JSON object"}  # fmt: skip
"""What the kit has to say where the exit code is not what gives the program away."""


@pytest.fixture(scope="module")
def cases(generated_cases):
    return {case.id: case for case in discover(generated_cases)}


@pytest.fixture
def put():
    """`setattr` that is undone."""
    undo = []

    def change(holder, name, value):
        undo.append((holder, name, vars(holder).get(name, GONE)))
        setattr(holder, name, value)

    yield change
    for holder, name, value in reversed(undo):
        if value is GONE:
            delattr(holder, name)
        else:
            setattr(holder, name, value)


@pytest.mark.parametrize("name", broken.names())
def test_the_kit_fails_it_for_its_own_reason(name, cases, put, tmp_path):
    module = broken.load(name)
    assert module.__doc__
    assert module.FAILS
    module.patch(put)
    program = ours("prune-auditor")
    for number, case in enumerate(module.FAILS):
        problem = play(cases[case], program, tmp_path / str(number))
        assert re.search(CODES.get(name, "ended with [0345]"), problem), f"{name} passes {case}: {problem!r}"


def test_every_case_is_noticed_by_a_program_that_accepts_everything(cases, put, tmp_path):
    broken.load("always_consistent").patch(put)
    program = ours("prune-auditor")
    passed = [
        case.id
        for number, case in enumerate(cases.values())
        if any(step.exit == 4 for step in case.steps) and not play(case, program, tmp_path / str(number))
    ]
    assert not passed


@pytest.mark.slow
@pytest.mark.parametrize("name", broken.names())
def test_as_a_program_of_its_own(name, cases, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = External((sys.executable, "-m", f"tests.conformance.broken.{name}"))
    case = broken.load(name).FAILS[0]
    assert play(cases[case], program, tmp_path / "case")


def test_a_hanging_program_is_ended(cases, tmp_path):
    program = External((sys.executable, "-c", "import time; time.sleep(60)"), limit=0.5)
    assert play(cases["receipt/consistent"], program, tmp_path / "case") == "did not end in time"


@pytest.mark.parametrize(
    ("ran", "problem"),
    [
        (
            Ran(code=0, out='{"verdict": "CONSISTENT"}', err="Traceback (most recent call last):\n x", seconds=0),
            "crashed",
        ),
        (Ran(code=-11, out="", err="", seconds=0), "signal 11"),
        (Ran(code=7, out="{}", err="", seconds=0), "a bug of the program"),
        (Ran(code=0, out="[]", err="", seconds=0), "no JSON object"),
        (Ran(code=0, out="", err="", seconds=0), "no JSON object"),
        (
            Ran(
                code=0,
                out='{"findings": [], "profile": "redirection", "requestedBySubject": false, "verdict": "UNLEARNED"}',
                err="",
                seconds=0,
            ),
            "says verdict: 'UNLEARNED'",
        ),
        (Ran(code=4, out='{"reason": "oops"}', err="", seconds=0), "not with 0"),
    ],
)
def test_what_never_passes(cases, ran, problem):
    assert problem in cases["receipt/consistent"].steps[0].problem(ran)


def test_a_program_that_writes_where_it_may_only_read(cases, tmp_path):
    def meddling(arguments):
        with Path(arguments[1]).open("ab") as file:
            file.write(b" ")
        return ours("prune-auditor")(arguments)

    assert play(cases["receipt/file-spaces"], meddling, tmp_path / "case") == "changed receipt, which it may only read"
