"""An owner's program as a black box: from key to answer, its results read by the reference auditor.

What a command has to do is in `prune-owner <command> --help` and SPEC 12; that nothing is overwritten, no secret is
readable and every refusal has its code is in SPEC 4.4 and 13.7.
"""

import json
import stat

import numpy as np
import pytest

from protocol import openings, receipt_file
from protocol.keys import load_signing_key
from tests.conformance.cases_audit import PROFILE
from tests.conformance.commands import ours
from tests.demo.world import AUDITOR_LOG, OWNER_LOG, WITNESSES
from tests.owner.tiny import base_model, records

pytestmark = pytest.mark.conformance("owner")
TIMES = [f"2026-06-01T{hour:02d}:00:00Z" for hour in range(24)]


class Played:
    """A flow in which the owner's side is the program under test, and everybody else the reference."""

    def __init__(self, program, root):
        self.program, self.root, self.auditor = program, root, ours("prune-auditor")
        self.time = iter(TIMES)

    def owner(self, *arguments, code=0, reason=None):
        ran = self.program([*(str(word) for word in arguments), "--json"])
        assert not ran.crashed, f"{arguments[0]} {ran.crashed}"
        assert ran.answer is not None, f"{arguments[0]}: the last line is no JSON object: {ran.out!r}"
        assert ran.code == code, f"{arguments[0]} ended with {ran.code}, not with {code}: {ran.out}{ran.err}"
        if reason:
            assert ran.answer.get("reason") == reason, f"{arguments[0]} for the reason {ran.answer}, not {reason}"
        return ran

    def other(self, *arguments, code=0):
        ran = self.auditor([*(str(word) for word in arguments), "--json"])
        assert ran.code == code, (arguments, ran)
        return ran

    def signing(self):
        return ("--key", self.root / "keys/owner.key", "--log", self.root / "log/owner", "--now", next(self.time))

    def auditing(self):
        return ("--key", self.root / "keys/auditor.key", "--log", self.root / "log/auditor", "--now", next(self.time))

    def witness(self):
        for log in ("owner", "auditor"):
            for name in WITNESSES:
                self.other(
                    "witness", self.root / "log" / log, "--key", self.root / f"keys/{name}.key",
                    "--state", self.root / "witness" / name, "--policy", self.root / "policy.txt", "--now", next(self.time)
                    if name == WITNESSES[0] and log == "owner" else TIMES[-1],
                )  # fmt: skip


@pytest.fixture(scope="module")
def played(owner_program, tmp_path_factory):
    root = tmp_path_factory.mktemp("owner")
    play = Played(owner_program, root)
    keys = root / "keys"
    play.owner("keygen", "owner", "--use", "statement", "--out", keys)
    play.owner("keygen", OWNER_LOG, "--use", "log", "--out", keys)
    play.owner("log-init", "--origin", OWNER_LOG, "--key", keys / f"{OWNER_LOG}.key", "--out", root / "log/owner")
    for name, use in (("auditor", "statement"), (AUDITOR_LOG, "log"), *((name, "witness") for name in WITNESSES)):
        play.other("keygen", name, "--use", use, "--out", keys)
    play.other("log-init", "--origin", AUDITOR_LOG, "--key", keys / f"{AUDITOR_LOG}.key", "--out", root / "log/auditor")

    def vkey(name):
        return (keys / f"{name}.vkey").read_text().strip()

    lines = [f"log {vkey(name)}" for name in (OWNER_LOG, AUDITOR_LOG)] + [f"witness {n} {vkey(n)}" for n in WITNESSES]
    lines += [f"group all-three 2 {' '.join(WITNESSES)}", "quorum all-three"]
    (root / "policy.txt").write_text("".join(f"{line}\n" for line in lines))
    signers = [
        {"vkey": vkey("owner"), "role": "owner", "logs": [OWNER_LOG]},
        {"vkey": vkey("auditor"), "role": "auditor", "logs": [AUDITOR_LOG]},
    ]
    (root / "trust.json").write_text(json.dumps({"version": "prune-audit/trust/v1", "signers": signers}))
    X, y = records(60, 5)
    X_test, y_test = records(30, 6)
    (root / "base.onnx").write_bytes(base_model(X, y))
    np.savez(root / "train.npz", X_train=X, y_train=y, X_test=X_test, y_test=y_test)
    X, y = records(300, 9)
    np.savez(root / "ref.npz", X=X, y=y)
    (root / "profile.yaml").write_text(PROFILE)
    play.owner(
        "commit", "--model", root / "base.onnx", "--data", root / "train.npz", "--no-prepare", *play.signing(),
        "--out", root / "commitment",
    )  # fmt: skip
    play.owner(
        "request",
        "--commitment",
        root / "commitment",
        "--records",
        "3,17,40",
        *play.signing(),
        "--out",
        root / "request.json",
    )
    plan = play.other("plan", "--template", "--profile", root / "profile.yaml").answer["plan"]
    (root / "plan.yaml").write_text(plan.replace("openings: 200", "openings: 10"))
    play.other(
        "open-audit",
        root / "request.json",
        "--plan",
        root / "plan.yaml",
        *play.auditing(),
        "--out",
        root / "opening.json",
    )
    play.owner(
        "unlearn", "--commitment", root / "commitment", "--request", root / "request.json", "--opening",
        root / "opening.json", "--target", "misclassify", *play.signing(), "--out", root / "bundle",
    )  # fmt: skip
    play.other(
        "challenge", root / "bundle", "--opening", root / "opening.json", *play.auditing(), "--out", root / "c.json"
    )
    play.owner(
        "answer", root / "c.json", "--commitment", root / "commitment", *play.signing(), "--out", root / "openings"
    )
    play.witness()
    for folder in ("commitment", "bundle", "openings"):
        play.owner("publish", root / folder, "--log", root / "log/owner")
    return play


@pytest.fixture(autouse=True)
def reported(request, record_property):
    record_property("conformance", "owner")
    record_property("case", f"owner/{request.node.name.removeprefix('test_')}")


def test_its_bundle_is_consistent(played):
    root = played.root
    ran = played.other(
        "audit", root / "bundle", "--openings", root / "openings", "--policy", root / "policy.txt", "--trust",
        root / "trust.json", "--profile", root / "profile.yaml", "--reference", root / "ref.npz", *played.auditing(),
        "--out", root / "report",
    )  # fmt: skip
    assert ran.answer["verdict"] == "CONSISTENT"
    assert "challenge     CONSISTENT" in ran.out
    assert receipt_file.parse((root / "report/receipts/000.receipt").read_bytes()).claims


def test_its_log_is_whole(played):
    ran = played.other("verify-log", played.root / "log/owner", "--policy", played.root / "policy.txt")
    assert ran.answer["size"] >= 4


def test_its_slip_opens_its_commitment(played):
    root = played.root
    played.owner("slip", "--commitment", root / "commitment", "--records", "3,17", "--out", root / "slip.npz")
    slip = openings.parse_slip((root / "slip.npz").read_bytes())
    assert slip.commitment == (root / "commitment/commitment.dsse.json").read_bytes()
    assert len(slip.openings) == 2


def test_secrets_are_its_own(played):
    for name in ("keys/owner.key", f"keys/{OWNER_LOG}.key"):
        path = played.root / name
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"{name} can be read by others"
        assert load_signing_key(path).name == path.stem
    assert stat.S_IMODE((played.root / "commitment/private").stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("keygen", "owner", "--use", "statement", "--out", "@keys"),
        ("request", "--commitment", "@commitment", "--records", "5", "--out", "@request.json"),
        ("commit", "--model", "@base.onnx", "--data", "@train.npz", "--no-prepare", "--out", "@commitment"),
        ("unlearn", "--commitment", "@commitment", "--request", "@request.json", "--out", "@bundle"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_nothing_is_overwritten(played, arguments):
    def contents():
        return {path: path.read_bytes() for path in sorted(played.root.rglob("*")) if path.is_file()}

    before = contents()
    words = [str(played.root / word[1:]) if word.startswith("@") else word for word in arguments]
    more = () if arguments[0] == "keygen" else played.signing()
    played.owner(*words, *more, code=2, reason="usage")
    assert contents() == before


@pytest.mark.slow
def test_it_signs_no_more_than_it_can_prove(played):
    """Asked for a radius at which other people's records would be redirected: refuse, or claim less."""
    root = played.root
    ran = played.program(
        [
            "unlearn", "--commitment", str(root / "commitment"), "--request", str(root / "request.json"), "--target",
            "misclassify", "--radius", "16steps", *map(str, played.signing()), "--out", str(root / "far"), "--json",
        ]
    )  # fmt: skip
    assert not ran.crashed
    if ran.code == 3:
        assert ran.answer["reason"] == "refused"
        assert not (root / "far").exists()
        return
    assert ran.code == 0
    played.witness()
    played.owner("publish", root / "far", "--log", root / "log/owner")
    audited = played.auditor(
        [
            "audit", str(root / "far"), "--policy", str(root / "policy.txt"), "--trust", str(root / "trust.json"),
            "--profile", str(root / "profile.yaml"), "--reference", str(root / "ref.npz"), *map(str, played.auditing()),
            "--out", str(root / "far-report"), "--json",
        ]
    )  # fmt: skip
    assert audited.answer["verdict"] == "CONSISTENT", audited.out


def test_a_model_that_is_none(played):
    root = played.root
    (root / "bad.onnx").write_bytes(b"no model")
    played.owner(
        "commit", "--model", root / "bad.onnx", "--data", root / "train.npz", *played.signing(), "--out", root / "none",
        code=4,
    )  # fmt: skip
    assert not (root / "none").exists()


def test_an_unknown_option(played):
    played.owner("commit", "--nonsense", code=2, reason="usage")
