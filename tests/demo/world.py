"""Keys, logs, witnesses, policy and trust file of a demonstration, and the two programs run in this process.

Everything goes through the command lines, as two parties would; only the process is shared, so that
importing torch is paid for once.
"""

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import auditor.cli
import owner.cli
from protocol import trust
from protocol.keys import load_signing_key, load_verifier_key
from protocol.trust import Signer, Trust

OWNER_LOG = "log.owner.example"
AUDITOR_LOG = "log.auditor.example"
WITNESSES = ("witness-north", "witness-south", "witness-east")


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.strip().splitlines()[-1])


def run(program: str, *arguments: object) -> Ran:
    """Run `prune-owner` or `prune-auditor` in this process."""
    main = owner.cli.main if program == "prune-owner" else auditor.cli.main
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main.main(args=[str(a) for a in arguments], prog_name=program, standalone_mode=True)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return Ran(code, out.getvalue(), err.getvalue())


def must(program: str, *arguments: object, codes: tuple[int, ...] = (0,)) -> Ran:
    """Run a command that has to end with one of `codes`."""
    ran = run(program, *arguments)
    if ran.code not in codes:
        sys.exit(f"{program} {' '.join(map(str, arguments))}\nended with {ran.code}:\n{ran.out}{ran.err}")
    return ran


class Clock:
    """Time as an argument: each reading is a minute later, so that order shows."""

    def __init__(self, start: int) -> None:
        self.now = start

    def tick(self, seconds: int = 60) -> str:
        from protocol.encoding import format_time

        self.now += seconds
        return format_time(self.now)


@dataclass
class World:
    """Folders and names of one demonstration."""

    root: Path
    clock: Clock

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    def key(self, name: str) -> Path:
        return self.keys / f"{name}.key"

    @property
    def owner_log(self) -> Path:
        return self.root / "log" / "owner"

    @property
    def auditor_log(self) -> Path:
        return self.root / "log" / "auditor"

    @property
    def policy(self) -> Path:
        return self.root / "policy.txt"

    @property
    def trust(self) -> Path:
        return self.root / "trust.json"

    def build(self) -> None:
        """Make keys and logs, then policy and trust file."""
        for name, use, program in (
            ("owner", "statement", "prune-owner"),
            (OWNER_LOG, "log", "prune-owner"),
            ("auditor", "statement", "prune-auditor"),
            (AUDITOR_LOG, "log", "prune-auditor"),
            ("subject", "statement", "prune-auditor"),
            *((name, "witness", "prune-auditor") for name in WITNESSES),
        ):
            must(program, "keygen", name, "--use", use, "--out", self.keys)
        must("prune-owner", "log-init", "--origin", OWNER_LOG, "--key", self.key(OWNER_LOG), "--out", self.owner_log)
        must(
            "prune-auditor",
            "log-init",
            "--origin",
            AUDITOR_LOG,
            "--key",
            self.key(AUDITOR_LOG),
            "--out",
            self.auditor_log,
        )
        lines = [f"log {self.vkey(OWNER_LOG)}", f"log {self.vkey(AUDITOR_LOG)}"]
        lines += [f"witness {name} {self.vkey(name)}" for name in WITNESSES]
        lines += [f"group witnesses 2 {' '.join(WITNESSES)}", "quorum witnesses"]
        self.policy.write_text("\n".join(lines) + "\n")
        signers = [
            Signer(key=load_verifier_key(self.keys / "owner.vkey"), role="owner", logs=(OWNER_LOG,)),
            Signer(key=load_verifier_key(self.keys / "auditor.vkey"), role="auditor", logs=(AUDITOR_LOG,)),
            Signer(key=load_verifier_key(self.keys / "subject.vkey"), role="requester", logs=(AUDITOR_LOG,)),
        ]
        self.trust.write_bytes(
            trust.serialise(Trust(signers=tuple(signers), thresholds={"owner": 1, "auditor": 1, "requester": 1}))
        )

    def vkey(self, name: str) -> str:
        return load_signing_key(self.key(name)).verifier.vkey

    def witness(self, log: Path) -> None:
        """All witnesses cosign a log."""
        for name in WITNESSES:
            must(
                "prune-auditor", "witness", log, "--key", self.key(name), "--state", self.root / "witness" / name,
                "--policy", self.policy, "--now", self.clock.tick(1),
            )  # fmt: skip

    def trusted(self) -> Iterator[object]:
        yield from ("--policy", self.policy, "--trust", self.trust)
