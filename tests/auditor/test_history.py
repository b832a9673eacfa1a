"""What is remembered of a log against what is shown: first contact, growth, shrinking, two histories."""

import shutil

import pytest

from auditor import audit, history
from auditor.history import compare
from protocol.errors import Error
from protocol.keys import load_signing_key
from protocol.log import proof
from protocol.log.store import Log
from protocol.log.witness import Memory
from tests.demo.world import OWNER_LOG


@pytest.fixture
def notes(honest):
    return audit._checkpoints(honest.bundle)


@pytest.fixture
def case(workshop, honest):
    return workshop.case(honest)


def remembered(state, case):
    return Memory(folder=state).remembered(case.certificate_logged.entry.checkpoint.origin)


def size_of(note):
    return int(note.split(b"\n")[1])


def _fork(workshop, folder, entries):
    """Another log with the same key."""
    key = load_signing_key(workshop.world.key(OWNER_LOG))
    folder.parent.mkdir(parents=True, exist_ok=True)
    Log.create(folder, key)
    Log.open(folder).append(entries, key)
    return folder


def test_first_contact_is_remembered_and_proves_nothing(case, notes, tmp_path):
    assert compare(case, notes, state=None, owner_log=None) == history.History()
    seen = compare(case, notes, state=tmp_path, owner_log=None)
    assert seen == history.History()
    assert remembered(tmp_path, case) in notes.values()
    assert compare(case, notes, state=tmp_path, owner_log=None) == history.History()


def test_growth_needs_the_log(workshop, honest, case, notes, tmp_path):
    compare(case, notes, state=tmp_path, owner_log=None)
    before = remembered(tmp_path, case)
    later = workshop.forge(challenge=False)
    other, fresh = workshop.case(later), audit._checkpoints(later.bundle)
    seen = compare(other, fresh, state=tmp_path, owner_log=None)
    assert "give --owner-log" in seen.notes[0]
    assert not seen.conflicts
    assert remembered(tmp_path, case) == before  # nothing showed that the newer one extends it
    seen = compare(other, fresh, state=tmp_path, owner_log=workshop.world.owner_log)
    assert not seen.notes
    assert not seen.conflicts
    assert size_of(remembered(tmp_path, case)) == Log.open(workshop.world.owner_log).size > size_of(before)


def test_an_older_folder_is_no_proof_of_anything(workshop, case, notes, tmp_path):
    key = load_signing_key(workshop.world.key(OWNER_LOG))
    entries = list(Log.open(workshop.world.owner_log).entries())
    short = tmp_path / "short"
    Log.create(short, key)
    Log.open(short).append(entries[:1], key)
    seen = compare(case, notes, state=tmp_path / "state", owner_log=short)
    assert seen.notes
    assert not seen.conflicts
    assert "were signed for before" in seen.notes[0]


def test_two_roots_for_one_size(workshop, case, notes, tmp_path):
    size = size_of(notes["certificate"])
    entries = list(Log.open(workshop.world.owner_log).entries())[:size]
    fork = _fork(workshop, tmp_path / "fork", [*entries[:-1], b"{}"])
    state = tmp_path / "state"
    seen = compare(case, notes, state=state, owner_log=fork)
    assert seen.conflicts[0][0] == "equivocation"
    assert {name for name, _ in seen.evidence} == {"bundle-certificate.checkpoint", "current.checkpoint"} or len(
        seen.evidence
    ) >= 2
    kept = sorted(path.name for path in state.rglob("*.checkpoint"))
    assert len(kept) >= 2, "both signed checkpoints are kept"
    assert remembered(state, case) is None


def test_a_rewritten_log_is_a_rollback(workshop, case, notes, tmp_path):
    state = tmp_path / "state"
    compare(case, notes, state=state, owner_log=None)
    entries = list(Log.open(workshop.world.owner_log).entries())
    fork = _fork(workshop, tmp_path / "fork", [*entries[:1], *entries[2:], b"{}", b"{}"])
    before = remembered(state, case)
    seen = compare(case, notes, state=state, owner_log=fork)
    assert "rollback" in {threat for threat, _ in seen.conflicts}
    assert remembered(state, case) == before


def test_a_fork_with_an_old_folder_does_not_make_the_auditor_forget(workshop, case, notes, tmp_path):
    """A larger checkpoint of a fork in the bundle, and a folder too old to contradict it."""
    key = load_signing_key(workshop.world.key(OWNER_LOG))
    entries = list(Log.open(workshop.world.owner_log).entries())
    state = tmp_path / "state"
    compare(case, notes, state=state, owner_log=workshop.world.owner_log)
    before = remembered(state, case)
    fork = _fork(workshop, tmp_path / "fork", [*entries[:1], b"{}", *entries, b"{}"])
    forked = {"certificate": Log.open(fork).checkpoint_bytes()}
    assert size_of(forked["certificate"]) > size_of(before)
    old = tmp_path / "old"
    Log.create(old, key)
    Log.open(old).append(entries[:1], key)
    for owner_log in (old, None):
        seen = compare(case, forked, state=state, owner_log=owner_log)
        assert not seen.conflicts and seen.notes
        assert remembered(state, case) == before


def test_damage_of_the_folder_is_not_an_accusation(workshop, case, notes, tmp_path):
    log = tmp_path / "log"
    shutil.copytree(workshop.world.owner_log, log)
    size = Log.open(log).size
    for name in (f"tile/0/000.p/{size}", "checkpoint"):
        path = log / name
        data = path.read_bytes()
        for place in range(0, len(data), 7):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            try:
                seen = compare(case, notes, state=tmp_path / "state", owner_log=log)
            except Error as error:
                assert error.where
                continue
            assert not seen.conflicts, (name, place)
        path.write_bytes(data)


def test_a_damaged_memory_is_an_error_that_names_it(case, notes, tmp_path):
    compare(case, notes, state=tmp_path, owner_log=None)
    place = Memory(folder=tmp_path).place(case.certificate_logged.entry.checkpoint.origin) / "checkpoint"
    place.write_bytes(place.read_bytes()[:-9])
    with pytest.raises(Error, match="checkpoint"):
        compare(case, notes, state=tmp_path, owner_log=None)


def test_two_histories_are_refuted_and_the_evidence_is_in_the_report(workshop, honest, tmp_path):
    entries = list(Log.open(workshop.world.owner_log).entries())
    fork = _fork(workshop, tmp_path / "fork", [*entries[:1], *entries[2:], b"{}"])
    inputs = workshop.inputs(honest, owner_log=fork)
    outcome = audit.examine(inputs)
    assert outcome.view.verdict == "REFUTED"
    report = audit.write_report(inputs, outcome, tmp_path / "report", force=False)
    assert {finding.threat for finding in report.findings} == {"equivocation"}
    for path in (tmp_path / "report" / "evidence").iterdir():
        workshop.policy.verify_checkpoint(path.read_bytes())
    assert not list((tmp_path / "report").rglob("*.receipt"))
    assert proof is not None
