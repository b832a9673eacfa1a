"""Each side's program works where the other side's package is not installed at all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIDES = {"auditor": "prune-auditor", "owner": "prune-owner"}


@pytest.fixture(scope="module", params=sorted(SIDES))
def alone(request, tmp_path_factory):
    """A tree that has `protocol` and one of the two sides, and a way to run its program there."""
    side = request.param
    tree = tmp_path_factory.mktemp(f"only-{side}")
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ("protocol", side, "threat_models"):
        shutil.copytree(ROOT / package, tree / package, ignore=ignore)
    # The interpreter's own packages, without this project's editable installation (a .pth file or a finder).
    code = (
        f"import sys; sys.path = [p for p in sys.path if p != {str(ROOT)!r}]; "
        "sys.meta_path = [f for f in sys.meta_path if '__editable__' not in repr(f)]; "
        f"sys.path.insert(0, {str(tree)!r}); "
        f"from {side}.cli import main; main(prog_name={SIDES[side]!r})"
    )

    def call(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=tree, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    absent = "owner" if side == "auditor" else "auditor"
    assert not (tree / absent).exists()
    return side, call


def test_the_other_package_really_is_absent(alone):
    side, call = alone
    absent = "owner" if side == "auditor" else "auditor"
    probe = subprocess.run(
        [sys.executable, "-c",
         f"import sys; sys.path=[p for p in sys.path if p not in ('', {str(ROOT)!r})]; "
         "sys.meta_path=[f for f in sys.meta_path if '__editable__' not in repr(f)]; import " + absent],
        cwd="/", env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ModuleNotFoundError" in probe.stderr
    ran = call("--help")
    assert ran.returncode == 0, ran.stderr


def test_keys_and_logs(alone, tmp_path):
    _, call = alone
    for use in ("statement", "log", "witness"):
        ran = call("keygen", f"{use}.example", "--use", use, "--out", tmp_path)
        assert ran.returncode == 0, ran.stderr
    ran = call("log-init", "--origin", "log.example", "--key", tmp_path / "log.example.key", "--out", tmp_path / "log")
    assert ran.returncode == 0, ran.stderr


def test_real_commands_on_copied_artefacts(alone, world_copy, tmp_path):
    side, call = alone
    root, trusted = world_copy.root, list(world_copy.trusted())
    if side == "auditor":
        commands = [
            ("verify-report", root / "honest" / "report", *trusted),
            ("verify-receipt", root / "honest" / "report" / "receipts" / "000.receipt", *trusted),
            ("verify-log", world_copy.owner_log, "--policy", world_copy.policy),
            ("threats",),
            ("plan", "--template"),
            (
                "audit", root / "honest" / "bundle", *trusted, "--profile", root / "profile.yaml",
                "--openings", root / "honest" / "openings", "--reference", root / "data" / "ref.npz",
                "--shadows", root / "shadows", "--key", world_copy.key("auditor"), "--log", world_copy.auditor_log,
                "--out", tmp_path / "report", "--now", world_copy.clock.tick(), "--json",
            ),
            (
                "witness", world_copy.auditor_log, "--key", world_copy.key("witness-east"),
                "--state", root / "witness" / "witness-east", "--policy", world_copy.policy,
            ),
            ("receipt", tmp_path / "report", "--log", world_copy.auditor_log),
        ]  # fmt: skip
    else:
        commands = [
            (
                "commit", "--model", root / "data" / "base.onnx", "--data", root / "data" / "train.npz", "--no-prepare",
                "--key", world_copy.key("owner"), "--log", world_copy.owner_log, "--out", tmp_path / "commitment",
            ),
            ("slip", "--commitment", root / "commitment", "--records", "3", "--out", tmp_path / "slip.npz"),
            (
                "request", "--commitment", root / "commitment", "--records", "3,4", "--key", world_copy.key("owner"),
                "--log", world_copy.owner_log, "--out", tmp_path / "request.json",
            ),
            (
                "unlearn", "--commitment", root / "commitment", "--request", tmp_path / "request.json",
                "--key", world_copy.key("owner"), "--log", world_copy.owner_log, "--out", tmp_path / "bundle",
            ),
            ("publish", root / "honest" / "bundle", "--log", world_copy.owner_log),
        ]  # fmt: skip
    for command in commands:
        ran = call(*command)
        assert ran.returncode == 0, (command[0], ran.stdout, ran.stderr)
        assert "Traceback" not in ran.stderr
