"""A log that lies, step by step, in front of a program with a memory (`verify-log --state`) and of a witness.

The model knows what the program may remember: the largest honest-looking checkpoint that it accepted. Everything else
follows: what extends it is fine, a smaller one is a rollback, a contradiction is two histories, damage accuses nobody.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from protocol.encoding import format_time
from tests.conformance.case import Step, _witnessed
from tests.conformance.cases_log import DAMAGE, witness_file
from tests.conformance.forge import (
    OWNER_LOG,
    START,
    WITNESSES,
    MiniLog,
    cosigned,
    filler,
    flip,
    key,
    log_files,
    policy_text,
    witness_line,
)

GOOD = {"exit": 0}
SPLIT = {"exit": 3, "reasons": ("consistency",)}
ROLLBACK = {"exit": 4, "reasons": ("rollback",)}
DAMAGED = {"exit": 4, "reasons": (*DAMAGE, "too-large")}


class LyingLog(RuleBasedStateMachine):
    """See the module. `program` and `command` are set by whoever runs it."""

    program = None
    command = "verify-log"

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="simulator-"))
        self.history = []
        self.remembered = None  # entries of what was accepted last
        self.forks = 0

    def teardown(self):
        shutil.rmtree(self.folder)

    @initialize()
    def begin(self):
        (self.folder / "policy.txt").write_text(policy_text())
        (self.folder / "witness.key").write_bytes(witness_file(key("witness-of-the-kit", "witness")))

    def look(self, files, expected, *more):
        log = self.folder / "log"
        shutil.rmtree(log, ignore_errors=True)
        for path, data in files.items():
            (log / path).parent.mkdir(parents=True, exist_ok=True)
            (log / path).write_bytes(data)
        arguments = [
            self.command,
            str(log),
            "--policy",
            str(self.folder / "policy.txt"),
            "--state",
            str(self.folder / "state"),
        ]
        if self.command == "witness":
            arguments += ["--key", str(self.folder / "witness.key"), "--now", format_time(START + 5000)]
        ran = self.program([*arguments, *more, "--json"])
        problem = Step(arguments=tuple(arguments), **expected).problem(ran)
        if not problem and self.command == "witness":
            problem = _witnessed(arguments, signed=expected["exit"] == 0)
        assert not problem, (
            f"{problem}; remembered {self.remembered and len(self.remembered)}, shown {len(files)} files"
        )

    def expected(self, entries):
        old = self.remembered
        if old is None or entries[: len(old)] == old:
            return GOOD
        if len(entries) < len(old):
            return ROLLBACK
        return SPLIT

    def show(self, entries):
        """Show a whole, signed log of these entries."""
        expected = self.expected(entries)
        self.look(log_files(MiniLog(OWNER_LOG, entries)), expected)
        if expected is GOOD:
            self.remembered = list(entries)

    @rule(count=st.integers(0, 300))
    def grows(self, count):
        self.history += [filler(len(self.history) + number) for number in range(count)]
        self.history = self.history[:700]
        self.show(self.history)

    @rule(share=st.floats(0, 1))
    def shows_an_older_copy(self, share):
        self.show(self.history[: int(share * len(self.history))])

    @precondition(lambda self: self.history)
    @rule(share=st.floats(0, 1), more=st.integers(0, 3))
    def shows_another_history(self, share, more):
        self.forks += 1
        place = min(int(share * len(self.history)), len(self.history) - 1)
        entries = [*self.history, *(filler(10_000 + number) for number in range(more))]
        entries[place] = b"fork %d" % self.forks
        self.show(entries)
        if self.remembered == entries:  # nothing that the program knew contradicts it: this is the log now
            self.history = entries

    @precondition(lambda self: self.history)
    @rule(which=st.integers(0, 1 << 20), bit=st.integers(0, 7), place=st.integers(0, 1 << 20))
    def damages_a_file(self, which, bit, place):
        files = log_files(MiniLog(OWNER_LOG, self.history))
        names = sorted(name for name in files if name != "checkpoint" and files[name])
        # A witness reads the tiles that it needs, and no other file.
        names = names if self.command == "verify-log" else [name for name in names if name.startswith("tile/0/")][-1:]
        name = names[which % len(names)]
        self.look({**files, name: flip(files[name], place % len(files[name]), bit)}, DAMAGED)

    @precondition(lambda self: len(self.history) % 256 > 1 and self.command == "verify-log")
    @rule()
    def shows_a_wrong_width(self):
        files = log_files(MiniLog(OWNER_LOG, self.history))
        name = max(name for name in files if name.startswith("tile/0/") and ".p/" in name)
        width = int(name.rpartition("/")[2])
        self.look({**files, f"{name.rpartition('/')[0]}/{width - 1}": files[name]}, DAMAGED)

    @precondition(lambda self: self.history)
    @rule()
    def loses_its_signature(self):
        log = MiniLog(OWNER_LOG, self.history)
        text = log.text()
        note = log.signed(text, [witness_line(name, text) for name in WITNESSES])
        self.look(log_files(log, note), {"exit": 4, "reasons": ("unknown-key",)})

    @precondition(lambda self: self.history and self.command == "verify-log")
    @rule(late=st.integers(1, 10_000))
    def is_frozen(self, late):
        # What is shown is what is remembered, so that whether it is remembered again does not matter.
        if self.remembered == self.history:
            files = log_files(MiniLog(OWNER_LOG, self.history), cosigned(MiniLog(OWNER_LOG, self.history)))
            now = format_time(START + 1000 + 60 + late)
            self.look(files, {"exit": 4, "reasons": ("expired",)}, "--max-age", "60", "--now", now)


@pytest.mark.parametrize("command", [
    pytest.param("verify-log", marks=pytest.mark.conformance("log")),
    pytest.param("witness", marks=pytest.mark.conformance("witness")),
])  # fmt: skip
def test_a_log_that_lies(command, auditor_program, record_property):
    record_property("conformance", "log" if command == "verify-log" else "witness")
    record_property("case", f"{command}/simulator")
    machine = type("Machine", (LyingLog,), {"program": staticmethod(auditor_program), "command": command})
    quick = auditor_program.quick
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8 if quick else 2, stateful_step_count=12 if quick else 8, deadline=None, derandomize=True,
            database=None, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
