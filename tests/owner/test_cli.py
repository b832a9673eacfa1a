"""The program's contract: options, exit codes, one readable line for every failure, JSON last."""

import errno
import json
import os
import pty
import subprocess
import sys

import pytest

import owner.cli
from owner.certify import Refused
from owner.cli.program import progress
from protocol import keys
from protocol.errors import MalformedError, OwnerError, VerificationError
from protocol.keys import load_signing_key
from protocol.log.store import Log
from protocol.program import Time
from tests.demo.world import run
from tests.owner.tiny import one_line

COMMANDS = sorted(owner.cli.main.commands)


def test_the_commands():
    assert set(COMMANDS) >= {"keygen", "log-init", "commit", "slip", "request", "unlearn", "answer"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options(command):
    options = {name for parameter in owner.cli.main.commands[command].params for name in parameter.opts}
    assert options >= {"--json", "--seed", "--now", "--force", "--resume"}
    assert run("prune-owner", command, "--help").code == 0


def test_version_and_usage():
    assert "prune-owner" in run("prune-owner", "--version").out
    for arguments in ((), ("nothing",), ("commit",), ("commit", "--nothing")):
        ran = run("prune-owner", *arguments)
        assert ran.code == 2
        assert "Traceback" not in ran.err


def test_times_are_spelt_one_way(tiny):
    for text in ("yesterday", "2026-01-01", "2026-13-01T00:00:00Z"):
        ran = tiny.owner("request", "--commitment", tiny.commitment, "--records", 1, *tiny.signing[:-2], "--now", text,
                         "--out", tiny.root / "r.json")  # fmt: skip
        assert ran.code == 2
        assert text in ran.err
    param = Time()
    assert param.convert(5, None, None) == 5
    assert param.convert("1970-01-01T00:01:00Z", None, None) == 60


def test_keys_and_logs(tmp_path):
    made = run("prune-owner", "keygen", "log.example", "--use", "log", "--out", tmp_path / "keys", "--json")
    assert made.code == 0
    key = tmp_path / "keys" / "log.example.key"
    assert made.json["key"] == str(key)
    assert key.stat().st_mode & 0o077 == 0
    one_line(run("prune-owner", "keygen", "log.example", "--use", "log", "--out", tmp_path / "keys"), 2, "--force")
    assert run("prune-owner", "keygen", "log.example", "--use", "log", "--out", tmp_path / "keys", "--force").code == 0
    one_line(run("prune-owner", "keygen", "a b", "--use", "log", "--out", tmp_path / "keys"), 2, "no key name")

    log = tmp_path / "logs" / "owner"
    arguments = ("log-init", "--origin", "log.example", "--key", key, "--out", log)
    one_line(run("prune-owner", "log-init", "--origin", "other", "--key", key, "--out", log), 2, "named log.example")
    ran = run("prune-owner", *arguments, "--json")
    assert ran.code == 0
    assert ran.json["vkey"] == load_signing_key(key).verifier.vkey
    assert Log.open(log).size == 0
    assert (tmp_path / "logs" / "owner.key").stat().st_mode & 0o077 == 0
    one_line(run("prune-owner", *arguments), 2, str(log))
    one_line(run("prune-owner", *arguments, "--force"), 2, str(log))  # a log is never overwritten
    other = ("log-init", "--origin", "log.example", "--key", key, "--out", tmp_path / "logs" / "second")
    (tmp_path / "logs" / "second.key").write_text("precious")
    one_line(run("prune-owner", *other), 2, "second.key", "--force")
    assert (tmp_path / "logs" / "second.key").read_text() == "precious"
    assert run("prune-owner", *other, "--force").code == 0


def test_a_log_needs_a_logs_key(tmp_path):
    assert run("prune-owner", "keygen", "w", "--use", "witness", "--out", tmp_path).code == 0
    ran = run("prune-owner", "log-init", "--origin", "w", "--key", tmp_path / "w.key", "--out", tmp_path / "log")
    one_line(ran, 2)
    assert not (tmp_path / "log").exists()
    assert not (tmp_path / "log.key").exists()


def test_the_file_systems_refusals_are_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    one_line(run("prune-owner", "keygen", "k", "--use", "log", "--out", tmp_path / "file"), 2, "file")
    assert run("prune-owner", "keygen", "k", "--use", "log", "--out", tmp_path).code == 0
    ran = run(
        "prune-owner", "log-init", "--origin", "k", "--key", tmp_path / "k.key", "--out", tmp_path / "file" / "log"
    )
    one_line(ran, 2, "file")


@pytest.mark.parametrize("command", ["commit", "request", "unlearn", "slip", "publish"])
def test_json_is_the_last_line(tiny, command):
    ran = {
        "commit": lambda: tiny.commit("--no-prepare", "--json"),
        "request": lambda: tiny.ask("--records", 1, "--json"),
        "unlearn": lambda: tiny.unlearn("--json"),
        "slip": lambda: tiny.owner(
            "slip", "--commitment", tiny.commitment, "--records", 1, "--out", tiny.root / "s", "--json"
        ),
        "publish": lambda: tiny.owner("publish", tiny.commitment, "--log", tiny.world.owner_log, "--json"),
    }[command]()
    assert ran.code == 0, ran.err
    assert isinstance(json.loads(ran.out.splitlines()[-1]), dict)
    assert ran.err == ""


def test_publish_brings_proofs_up_to_date(tiny):
    ran = tiny.owner("publish", tiny.commitment, "--log", tiny.world.owner_log, "--json")
    assert ran.json["changed"] == 0  # a request was logged since, but nobody has cosigned: nothing to gain
    assert tiny.owner("publish", tiny.commitment, "--log", tiny.world.owner_log, "--json").json["changed"] == 0
    one_line(tiny.owner("publish", tiny.root, "--log", tiny.world.owner_log), 2, "no log proofs")
    one_line(tiny.owner("publish", tiny.commitment, "--log", tiny.root), 2, "log's folder")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Refused("no"), 3, "no"),
        (OwnerError("no", where="here"), 2, "here: no"),
        (MalformedError("bad"), 4, "bad"),
        (VerificationError("bad"), 4, "bad"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 2, "/x: the file system refuses: No space left"),
        (MemoryError(), 2, "not enough memory"),
    ],
)
def test_errors_become_exit_codes(monkeypatch, error, code, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(keys, "write_key_pair", fail)
    one_line(run("prune-owner", "keygen", "k", "--use", "log", "--out", "/nowhere"), code, words)


def test_our_own_bugs_say_so(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(keys, "generate", fail)
    ran = run("prune-owner", "keygen", "k", "--use", "log", "--out", "/nowhere")
    assert ran.code == 1
    assert "bug in prune-owner (ZeroDivisionError: oops)" in ran.err
    assert "Traceback" not in ran.err
    monkeypatch.setenv("PRUNE_AUDIT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("prune-owner", "keygen", "k", "--use", "log", "--out", "/nowhere")


def test_a_reader_that_went_away_is_no_error_of_files(monkeypatch):
    def fail(*_, **__):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(keys, "generate", fail)
    assert run("prune-owner", "keygen", "k", "--use", "log", "--out", "/nowhere").err == ""


def test_progress_is_shown_on_a_terminal_only():
    """With standard error on a terminal bars appear there, and standard output stays clean."""
    code = (
        "import click\n"
        "from owner.cli.program import progress\n"
        "@click.command()\n"
        "def main():\n"
        "    with progress() as show:\n"
        "        for share in (0.0, 0.5, 1.0):\n"
        "            show('first stage', share); show('second stage', share)\n"
        "        print('early')\n"
        "    print('result')\n"
        "main()\n"
    )
    above, below = pty.openpty()
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=below, timeout=60, check=False)
    os.close(below)
    shown = b""
    try:
        while part := os.read(above, 4096):
            shown += part
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(above)
    assert ran.returncode == 0
    assert ran.stdout == b"early\nresult\n"
    assert b"stage" in shown
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (quiet.stdout, quiet.stderr) == (b"early\nresult\n", b"")


def test_progress_in_this_process(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress() as show:
        for stage, share in (("stage", 0.0), ("other", 0.5), ("stage", 1.0)):
            show(stage, share)
    assert capsys.readouterr().out == ""


def test_long_steps_report_progress(tiny):
    from owner.targets import Target
    from owner.unlearn import Options, unlearn
    from owner.workspace import Workspace

    seen = {}
    options = Options(
        requests=(tiny.request,), opening=None, method="prune", target=Target(name="match"), radius=None, ceiling=64,
        key=load_signing_key(tiny.world.key("owner")), log=tiny.world.owner_log, out=tiny.root / "bundle", now=0,
        seed=0,
        force=False, resume=False,
    )  # fmt: skip
    unlearn(
        Workspace(folder=tiny.commitment),
        options,
        progress=lambda stage, share: seen.setdefault(stage, []).append(share),
    )
    assert set(seen) >= {"reading", "targets", "self-check", "writing and signing"}
    for shares in seen.values():
        assert shares == sorted(shares)
        assert shares[0] >= 0
        assert shares[-1] <= 1


def test_the_module_runs_as_a_program():
    ran = subprocess.run(
        [sys.executable, "-m", "owner.cli", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0
    assert "prune-owner" in ran.stdout
