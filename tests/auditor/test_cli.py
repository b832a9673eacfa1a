"""The command line: exit codes of cli.md, the last line in JSON, one readable line for every error."""

import json
import shutil

import pytest

import auditor.cli
import protocol.program
from protocol.errors import AuditorError
from tests.demo.world import run


def one_line(ran, code, *words):
    """The program ended with `code` and said in one line what is wrong."""
    assert ran.code == code, ran
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err, ran.err
    assert ran.err.startswith("prune-auditor: ")
    for word in words:
        assert str(word) in ran.err


@pytest.fixture
def audited(workshop, honest):
    world = workshop.world

    def call(*more, out, bundle=honest.bundle, profile="redirection", reference=True):
        return run(
            "prune-auditor", "audit", bundle, *world.trusted(), "--profile", profile, "--openings", honest.openings,
            *(("--reference", workshop.root / "data" / "ref.npz") if reference else ()),
            "--shadows", workshop.root / "shadows", "--key", world.key("auditor"), "--log", world.auditor_log,
            "--out", out, "--now", world.clock.tick(), *more,
        )  # fmt: skip

    return call


def test_help_and_version():
    for command in (
        (), ("keygen",), ("log-init",), ("request",), ("open-audit",), ("challenge",), ("audit",), ("receipt",),
        ("verify-receipt",), ("verify-report",), ("replay",), ("verify-log",), ("witness",), ("plan",), ("threats",),
    ):  # fmt: skip
        ran = run("prune-auditor", *command, "--help")
        assert ran.code == 0
        assert "Usage:" in ran.out
    assert run("prune-auditor", "--version").out.startswith("prune-auditor, version")
    assert run("prune-auditor", "nonsense").code == 2
    assert run("prune-auditor", "audit").code == 2


def test_keygen_and_log_init(tmp_path):
    ran = run("prune-auditor", "keygen", "log.example", "--use", "log", "--out", tmp_path, "--json")
    assert ran.code == 0
    assert ran.json["vkey"].startswith("log.example+")
    key = tmp_path / "log.example.key"
    assert key.stat().st_mode & 0o777 == 0o600
    one_line(run("prune-auditor", "keygen", "log.example", "--use", "log", "--out", tmp_path), 2, "--force")
    assert run("prune-auditor", "keygen", "log.example", "--use", "log", "--out", tmp_path, "--force").code == 0
    one_line(
        run("prune-auditor", "log-init", "--origin", "other", "--key", key, "--out", tmp_path / "log"), 2, "log.example"
    )
    ran = run("prune-auditor", "log-init", "--origin", "log.example", "--key", key, "--out", tmp_path / "log", "--json")
    assert (ran.code, ran.json["log"]) == (0, str(tmp_path / "log"))
    assert (
        run("prune-auditor", "log-init", "--origin", "log.example", "--key", key, "--out", tmp_path / "log").code != 0
    )
    assert run("prune-auditor", "keygen", "a", "--use", "nonsense", "--out", tmp_path).code == 2


def test_audit_exit_codes_and_last_line(audited, tmp_path):
    ran = audited("--json", out=tmp_path / "a")
    assert ran.code == 0
    assert ran.json["verdict"] == "CONSISTENT"
    assert ran.json["findings"] == []
    assert "redirection   CONSISTENT" in ran.out
    ran = audited("--json", out=tmp_path / "b", reference=False)
    assert (ran.code, ran.json["verdict"]) == (5, "INCONCLUSIVE")
    strict = tmp_path / "strict.yaml"
    strict.write_text(
        "version: prune-audit/profile/v1\nname: strict\nrequired: [disclosure]\nlevels: {disclosure: {error_at_least: 9}}\n"
    )
    ran = audited("--json", out=tmp_path / "c", profile=strict)
    assert (ran.code, ran.json["verdict"]) == (3, "REFUTED")
    assert ran.json["findings"] == [{"check": "disclosure", "threat": "patch-as-record"}]
    assert "finding: patch-as-record (disclosure):" in ran.out
    one_line(audited(out=tmp_path / "a"), 2, "--force")
    assert audited("--force", out=tmp_path / "a").code == 0


def test_audit_errors(audited, tmp_path, workshop, honest):
    one_line(audited("--endpoint", "http://x", out=tmp_path / "a"), 2, "/v2/models/NAME")
    one_line(audited("--endpoint", tmp_path / "none.yaml", out=tmp_path / "a"), 2, "no such file")
    (tmp_path / "endpoint.yaml").write_text("version: prune-audit/endpoint/v1\nmodel: m\n")
    one_line(audited("--endpoint", tmp_path / "endpoint.yaml", out=tmp_path / "a"), 4, "url", "endpoint.yaml")
    one_line(
        audited(out=tmp_path / "a", profile="nonsense"), 2, "there are gdpr-erasure, indistinguishable, redirection"
    )
    (tmp_path / "empty").mkdir()
    one_line(audited(out=tmp_path / "a", bundle=tmp_path / "empty"), 4, "certificate.dsse.json")
    assert audited(out=tmp_path / "a", bundle=tmp_path / "none").code == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_bytes(b"x")
    one_line(audited("--force", out=tmp_path / "mine"), 2, "other files than a report")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("which", ["policy", "trust"])
def test_a_broken_policy_or_trust_file_is_named(world_copy, which):
    path = getattr(world_copy, which)
    path.write_bytes(path.read_bytes() + b"nonsense\n")
    report = world_copy.root / "honest" / "report"
    for command in (
        ("verify-report", report, *world_copy.trusted()),
        ("verify-receipt", report / "receipts" / "000.receipt", *world_copy.trusted()),
        ("replay", report, world_copy.root / "honest" / "bundle", *world_copy.trusted()),
        *((("verify-log", world_copy.owner_log, "--policy", path),) if which == "policy" else ()),
    ):
        one_line(run("prune-auditor", *command), 4, path.name)


def test_verifying(world_copy):
    report = world_copy.root / "honest" / "report"
    ran = run("prune-auditor", "verify-report", report, *world_copy.trusted(), "--json")
    assert (ran.code, ran.json) == (0, {"profile": "indistinguishable", "verdict": "CONSISTENT"})
    receipt = report / "receipts" / "000.receipt"
    ran = run("prune-auditor", "verify-receipt", receipt, *world_copy.trusted(), "--json")
    assert (ran.code, ran.json["verdict"], ran.json["requestedBySubject"]) == (0, "CONSISTENT", False)
    assert "not proven:" in ran.out
    ran = run("prune-auditor", "receipt", report, "--log", world_copy.auditor_log, "--json")
    assert (ran.code, ran.json) == (0, {"changed": 0})
    ran = run(
        "prune-auditor", "replay", report, world_copy.root / "honest" / "bundle", *world_copy.trusted(),
        "--openings", world_copy.root / "honest" / "openings", "--reference", world_copy.root / "data" / "ref.npz",
        "--shadows", world_copy.root / "shadows", "--json",
    )  # fmt: skip
    assert (ran.code, ran.json) == (0, {"differences": [], "verdict": "CONSISTENT"})
    ran = run(
        "prune-auditor", "replay", report, world_copy.root / "honest" / "bundle", *world_copy.trusted(),
        "--shadows", world_copy.root / "shadows",
    )  # fmt: skip
    one_line(ran, 4, "not reproduced: verdict")


def test_verify_log(world_copy, tmp_path):
    log, state = world_copy.owner_log, tmp_path / "state"
    ran = run("prune-auditor", "verify-log", log, "--policy", world_copy.policy, "--json")
    assert (ran.code, ran.json["origin"], ran.json["quorum"]) == (0, "log.owner.example", True)
    assert run("prune-auditor", "verify-log", log, "--policy", world_copy.policy, "--state", state).code == 0
    # The same key, another history, of the same size.
    from protocol.keys import load_signing_key
    from protocol.log.store import Log

    key = load_signing_key(world_copy.key("log.owner.example"))
    entries = list(Log.open(log).entries())
    fork, short = tmp_path / "fork", tmp_path / "short"
    for folder, kept in ((fork, [*entries[:-1], b"{}"]), (short, entries[:-1])):
        Log.create(folder, key)
        Log.open(folder).append(kept, key)
    ran = run("prune-auditor", "verify-log", fork, "--policy", world_copy.policy)
    one_line(ran, 4, "the quorum has not cosigned")
    ran = run("prune-auditor", "verify-log", fork, "--policy", world_copy.policy, "--state", state)
    one_line(ran, 3, "two roots for the size", "kept in")
    assert len(list(state.rglob("evidence/*/offered"))) == 1
    ran = run("prune-auditor", "verify-log", short, "--policy", world_copy.policy, "--state", state)
    one_line(ran, 4, "were there before")  # an old copy of a folder accuses nobody


def test_witness(world_copy, tmp_path):
    key, state = world_copy.key("witness-east"), tmp_path / "state"
    arguments = ("witness", world_copy.owner_log, "--key", key, "--state", state, "--now", world_copy.clock.tick())
    one_line(run("prune-auditor", *arguments), 2, "--policy or by --log-key")
    ran = run("prune-auditor", *arguments, "--policy", world_copy.policy, "--json")
    assert (ran.code, ran.json["origin"]) == (0, "log.owner.example")
    assert run("prune-auditor", *arguments, "--log-key", world_copy.vkey("log.owner.example")).code == 0
    one_line(run("prune-auditor", *arguments, "--log-key", world_copy.vkey("log.auditor.example")), 4)
    other = tmp_path / "policy.txt"
    other.write_text(f"log {world_copy.vkey('log.auditor.example')}\nquorum none\n")
    one_line(run("prune-auditor", *arguments, "--policy", other), 4, "lists no log")


def test_a_witness_that_is_shown_two_histories(world_copy, tmp_path):
    from protocol.keys import load_signing_key
    from protocol.log.store import Log

    log, state = world_copy.owner_log, tmp_path / "state"
    more = ("--key", world_copy.key("witness-east"), "--state", state, "--policy", world_copy.policy)
    assert run("prune-auditor", "witness", log, *more).code == 0
    key, entries = load_signing_key(world_copy.key("log.owner.example")), list(Log.open(log).entries())
    fork, short = tmp_path / "fork", tmp_path / "short"
    for folder, kept in ((fork, [*entries[:-1], b"{}", b"{}"]), (short, entries[:-1])):
        Log.create(folder, key)
        Log.open(folder).append(kept, key)
    before = (fork / "checkpoint").read_bytes()
    one_line(run("prune-auditor", "witness", fork, *more), 3, "not those that were there before", "kept in")
    assert (fork / "checkpoint").read_bytes() == before
    one_line(run("prune-auditor", "witness", short, *more), 4, "were there before")  # an old copy accuses nobody


def test_plan_and_threats(tmp_path):
    ran = run("prune-auditor", "plan", "--template", "--profile", "redirection", "--seed", "4")
    assert (ran.code, "profile: redirection" in ran.out) == (0, True)
    path = tmp_path / "plan.yaml"
    path.write_text(ran.out)
    ran = run("prune-auditor", "plan", "--check", path, "--json")
    assert (ran.code, ran.json["openings"], ran.json["profile"]) == (0, 200, "redirection")
    assert "attack rmia: {'gamma': 1.0, 'offline_a': None}" in ran.out
    assert "rmia" in ran.json["attacks"]
    path.write_text(path.read_text().split("membership:")[0])
    assert run("prune-auditor", "plan", "--check", path, "--json").json["attacks"] is None
    one_line(run("prune-auditor", "plan"), 2, "--template")
    one_line(
        run("prune-auditor", "plan", "--template", "--profile", "nonsense"),
        2,
        "there are gdpr-erasure, indistinguishable",
    )
    path.write_text("seed: 1\n")
    one_line(run("prune-auditor", "plan", "--check", path), 4, "plan.yaml")
    assert "noop-patch" in run("prune-auditor", "threats").out
    assert {"noop-patch", "replay"} <= {
        t["id"] for t in json.loads(run("prune-auditor", "threats", "--format", "json").out)
    }


def test_request_open_audit_and_challenge(world_copy, tmp_path):
    slip = tmp_path / "slip.npz"
    assert (
        run(
            "prune-owner", "slip", "--commitment", world_copy.root / "commitment", "--records", "3,17", "--out", slip
        ).code
        == 0
    )
    log = ("--log", world_copy.auditor_log, "--now", world_copy.clock.tick(), "--json")
    out = tmp_path / "request.json"
    request = ("request", "--slip", slip, "--key", world_copy.key("subject"), "--out", out, *log)
    ran = run("prune-auditor", *request, "--deadline", "2030-01-01T00:00:00Z")
    assert ran.code == 0
    assert len(ran.json["request"]) == 64
    one_line(run("prune-auditor", *request), 2, "--force")
    assert run("prune-auditor", *request, "--deadline", "tomorrow").code == 2
    opening = tmp_path / "opening.json"
    plan = world_copy.root / "plan-redirection.yaml"
    key = ("--key", world_copy.key("auditor"))
    ran = run("prune-auditor", "open-audit", out, "--plan", plan, *key, "--out", opening, *log)
    assert ran.code == 0
    bundle = world_copy.root / "honest" / "bundle"
    ran = run("prune-auditor", "challenge", bundle, "--opening", opening, *key, "--out", tmp_path / "c.json", *log)
    one_line(ran, 2, "does not name this opened audit")
    honest = world_copy.root / "openings" / "honest.json"
    ran = run("prune-auditor", "challenge", bundle, "--opening", honest, *key, "--out", tmp_path / "c.json", *log)
    assert ran.code == 0
    assert len(ran.json["challenge"]) == 64
    one_line(
        run("prune-auditor", "challenge", bundle, "--opening", opening, "--acknowledgement", out, *key,
            "--out", tmp_path / "d.json", *log), 4, "acknowledgement",
    )  # fmt: skip


def test_where_shadow_models_are_trained(audited, tmp_path):
    out = tmp_path / "r"
    one_line(audited("--backend", "dask", out=out), 2, "--backend dask needs --scheduler")
    one_line(audited("--scheduler", "tcp://127.0.0.1:1", out=out), 2, "give --backend dask or ray")
    one_line(audited("--backend", "spark", out=out), 2, "'spark' is not one of")
    one_line(audited("--workers", "0", out=out), 2, "--workers")


@pytest.mark.slow  # two whole audits; the same on shadow models alone is in test_shadow_backend
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dask_cluster_of_two_processes_gives_the_audit_of_one(workshop, audited, tmp_path):
    distributed = pytest.importorskip("dask.distributed", reason="dask and distributed are not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        spread = audited(
            "--shadows", tmp_path / "s", "--backend", "dask", "--scheduler", cluster.scheduler_address,
            out=tmp_path / "spread",
        )  # fmt: skip
    assert list((tmp_path / "s").rglob("*.npz"))  # trained there, not taken from an earlier run
    local = audited("--shadows", tmp_path / "t", out=tmp_path / "local")
    assert spread.code == local.code == 0, spread.err
    summaries = [json.loads((tmp_path / name / "summary.json").read_bytes()) for name in ("spread", "local")]
    assert summaries[0] == summaries[1]
    assert summaries[0]["figures"]["membership"]


def test_our_own_bugs_say_so(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(auditor.cli.identity.keys, "generate", broken)
    arguments = ("keygen", "a", "--use", "log", "--out", tmp_path)
    one_line(run("prune-auditor", *arguments), 1, "this is a bug in prune-auditor (ZeroDivisionError: oh)")
    monkeypatch.setenv("PRUNE_AUDIT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("prune-auditor", *arguments)


def test_the_clock_is_only_read_where_no_time_is_given(monkeypatch):
    monkeypatch.setattr(protocol.program.time, "time", lambda: 5.7)
    assert protocol.program.clock(None) == 5
    assert protocol.program.clock(9) == 9
    with pytest.raises(AuditorError):
        auditor.cli.program.fresh(__import__("pathlib").Path(__file__), force=False)


def test_a_progress_bar_on_a_terminal(monkeypatch, audited, tmp_path):
    import sys

    from rich import progress

    seen = []
    monkeypatch.setattr(auditor.cli.program.sys.stderr.__class__, "isatty", lambda _: True, raising=False)
    monkeypatch.setattr(progress.Progress, "update", lambda _self, _task, **values: seen.append(values["completed"]))
    ran = audited(out=tmp_path / "r", reference=False)
    assert ran.code == 5
    if seen:
        assert seen[-1] == 1.0
    assert sys.stderr is not None


def test_a_finished_report_on_another_place(world_copy, tmp_path):
    """A report is a folder: it verifies wherever it lies."""
    shutil.copytree(world_copy.root / "honest" / "report", tmp_path / "elsewhere")
    assert run("prune-auditor", "verify-report", tmp_path / "elsewhere", *world_copy.trusted()).code == 0
