"""Two requests one after another, through both programs: chain, audit, receipts that say what came since, replay."""

import copy
import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from owner.journal import append, sign
from owner.workspace import Workspace
from protocol import messages
from protocol.keys import load_signing_key
from protocol.messages.certificate import Certificate
from protocol.messages.opening import Acknowledgement
from tests.demo.world import Clock, World, must, run


@pytest.fixture(scope="module")
def chain(small_demo, tmp_path_factory):
    """The small world with a second certificate that builds on the first, audited."""
    root = tmp_path_factory.mktemp("chain") / "world"
    shutil.copytree(small_demo.world.root, root)
    demo = copy.copy(small_demo)
    demo.world = World(root=root, clock=Clock(small_demo.world.clock.now))
    demo.commitment = root / "commitment"
    demo.runs = []
    first = root / "requests" / "records.json"
    taken = set(_rows(demo, first))
    free = [row for row in range(400) if row not in taken][:6]
    second = demo.request("second", "--records", ",".join(map(str, free)))
    opening = demo.open_audit("second", "redirection", first, second)
    bundle = root / "second" / "bundle"
    must(
        "prune-owner", "unlearn", "--commitment", demo.commitment, "--request", second, "--opening", opening,
        "--key", demo.world.key("owner"), "--log", demo.world.owner_log, "--out", bundle, "--seed", 3,
        "--now", demo.world.clock.tick(),
    )  # fmt: skip
    openings = demo.challenge(bundle, opening)
    demo.settle(bundle, openings)
    demo.audit("second", bundle, openings, "CONSISTENT", None, profile="redirection", owner_log=demo.world.owner_log)
    assert demo.runs[-1]["as_expected"]
    return demo, bundle, openings


def _rows(demo, request):
    workspace = Workspace(folder=demo.commitment)
    listed = json.loads(request.with_suffix(".leaves.json").read_text())
    return workspace.rows_of(tuple(bytes.fromhex(one) for one in listed))


def test_the_second_certificate_answers_both(chain):
    demo, bundle, _ = chain
    _, certificate = messages.read((bundle / "certificate.dsse.json").read_bytes(), Certificate)
    assert (len(certificate.requests), certificate.claim_count, certificate.dropped) == (2, 46, ())
    summary = json.loads((bundle.parent / "report" / "summary.json").read_text())
    assert summary["checks"]["binding"]["evidence"]["carried"] == 40
    assert summary["checks"]["binding"]["evidence"]["line_seen_in_the_log"] is True
    assert sorted(path.name for path in (bundle.parent / "report" / "receipts").iterdir()) == [
        "000.receipt", "001.receipt",
    ]  # fmt: skip
    assert demo.runs


def test_the_first_receipt_says_that_it_was_superseded(chain):
    demo, _, _ = chain
    demo.settle()
    world = demo.world
    receipt = world.root / "honest" / "report" / "receipts" / "000.receipt"
    alone = must("prune-auditor", "verify-receipt", receipt, *world.trusted(), "--json")
    assert "since" not in alone.json
    ran = must(
        "prune-auditor", "verify-receipt", receipt, *world.trusted(), "--log", world.owner_log, "--log",
        world.auditor_log, "--json",
    )  # fmt: skip
    assert ran.json["verdict"] == "CONSISTENT"
    (said,) = ran.json["since"]
    assert "superseded by" in said
    assert "drops none of these claims" in said
    assert "CONSISTENT" in said
    watched = must(
        "prune-auditor", "verify-log", world.owner_log, "--beside", world.auditor_log, "--policy", world.policy,
        "--trust", world.trust, "--receipt", receipt, "--now", world.clock.tick(),
    )  # fmt: skip
    assert "superseded by" in watched.out
    newest = world.root / "second" / "report" / "receipts" / "000.receipt"
    ran = must("prune-auditor", "verify-receipt", newest, *world.trusted(), "--log", world.owner_log)
    assert "nothing in these logs supersedes it" in ran.out
    other = run("prune-auditor", "verify-receipt", newest, *world.trusted(), "--log", world.auditor_log)
    assert (other.code, "give the owner's log" in other.err) == (4, True)


def test_a_second_auditor_gets_the_same_verdict_with_no_secret(chain, tmp_path):
    """Anybody replays: another folder, another key, none of the first auditor's private files."""
    demo, bundle, openings = chain
    world = demo.world
    private = world.auditor_log.with_name(world.auditor_log.name + ".private")
    hidden = tmp_path / "hidden"
    private.rename(hidden)
    try:
        ran = run(
            "prune-auditor", "replay", bundle.parent / "report", bundle, *world.trusted(), "--openings", openings,
            "--reference", world.root / "data" / "ref.npz", "--owner-log", world.owner_log, "--json",
        )  # fmt: skip
    finally:
        hidden.rename(private)
    assert (ran.code, ran.json) == (0, {"differences": [], "verdict": "CONSISTENT"})
    shown = must(
        "prune-auditor", "verify-report", bundle.parent / "report", *world.trusted(), "--bundle", bundle,
        "--openings", openings,
    )  # fmt: skip
    assert "searched for 246 opened records; found 0" in shown.out


def test_two_processes_make_one_challenge(chain, tmp_path):
    """Two acknowledgements of one opened audit, challenged at the same moment: one of them wins, the other is told."""
    demo, bundle, _ = chain
    world = demo.world
    opening = demo.open_audit(
        "race", "redirection", *(world.root / "requests" / f"{n}.json" for n in ("records", "second"))
    )
    key, said = load_signing_key(world.key("owner")), [tmp_path / "said0.json", tmp_path / "said1.json"]
    must(
        "prune-owner", "acknowledge", opening, "--bundle", bundle, "--key", world.key("owner"), "--log",
        world.owner_log, "--out", said[0], "--now", world.clock.tick(),
    )  # fmt: skip
    # The owner's program would hand out the same one again.
    _, message = messages.read(said[0].read_bytes(), Acknowledgement)
    again = dataclasses.replace(message, acknowledged_at=message.acknowledged_at + 60)
    said[1].write_bytes(sign(again.payload(), key))
    append(world.owner_log, said[1].read_bytes())
    started = [
        subprocess.Popen(
            [
                sys.executable, "-m", "auditor.cli", "challenge", bundle, "--opening", opening, "--acknowledgement", one,
                "--key", world.key("auditor"), "--log", world.auditor_log, "--out", tmp_path / f"{one.stem}.challenge",
                "--now", world.clock.tick(),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for one in said
    ]  # fmt: skip
    ended = [(process.communicate(timeout=120)[1], process.returncode)[::-1] for process in started]
    assert sorted(code for code, _ in ended) == [0, 2], ended
    (told,) = [err for code, err in ended if code]
    assert b"challenged for another entry" in told
    # Whoever asks again for the same entry gets the same bytes.
    (won,) = [tmp_path / f"{one.stem}.challenge" for one in said if (tmp_path / f"{one.stem}.challenge").exists()]
    entry = tmp_path / f"{won.stem}.json"
    must(
        "prune-auditor", "challenge", bundle, "--opening", opening, "--acknowledgement", entry, "--key",
        world.key("auditor"), "--log", world.auditor_log, "--out", tmp_path / "again.json", "--now", world.clock.tick(),
    )  # fmt: skip
    assert (tmp_path / "again.json").read_bytes() == won.read_bytes()
