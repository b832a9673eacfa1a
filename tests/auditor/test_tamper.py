"""Whatever byte of whatever file is changed: exit code 3 or 4, and a message that names the file.

One exception is right: a cosignature line may become one of an unknown key, which readers ignore
(signed-note); then the quorum is still met by the others and nothing else changes.

Most runs are of library functions, in the order in which the commands call them, without the model being
run; `test_commands_on_damaged_files` runs the commands themselves.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from auditor import audit, case, history, receipts, transcript, verify
from auditor.ledger import Ledger
from auditor.profile import parse_profile
from protocol import trust as trust_file
from protocol.digests import sha256_hex
from protocol.errors import Error, MalformedError, VerificationError
from protocol.log import policy as policy_file
from protocol.log import proof
from protocol.log.verify import verify_log
from tests.demo.world import run

SMALL = 4096
_TRIES = 30
# Openings may be erased after the audit, and a request without a proof is a gap that the report names; both leave
# checks INCONCLUSIVE. A log may drop a partial tile once there is a larger one.
_MAY_BE_MISSING = ("openings.npz", "proofs/request-000.tlog-proof")


def changes(data: bytes, random: np.random.Generator, tries: int) -> Iterator[tuple[str, bytes]]:
    """Damaged copies: bits and bytes of `tries` places with both ends, one byte more or less, cut, appended to."""
    size = len(data)
    step = max(1, size // tries)
    start = int(random.integers(step))
    places = {0, 1, size // 2, size - 2, size - 1, *range(start, size, step)} if size <= SMALL else set()
    if size > SMALL:
        places = {0, 1, size - 2, size - 1, *(int(place) for place in random.integers(size, size=tries))}
    for place in sorted(place for place in places if 0 <= place < size):
        # One bit, and every bit: a letter's case, a digit's value, a line end each have their own way to be missed.
        mask = 255 if random.random() < 0.2 else 1 << int(random.integers(8))
        yield f"byte {place} ^ {mask}", data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
    place = int(random.integers(size))
    yield "inserted", data[:place] + bytes([data[place]]) + data[place:]
    yield "inserted at the start", b" " + data
    yield "deleted", data[:place] + data[place + 1 :] if size > 1 else b""
    for cut in sorted({0, 1, size // 2, size - 1}):
        yield f"cut to {cut}", data[:cut]
    yield "newline appended", data + b"\n"
    yield "zero appended", data + b"\0"


@dataclass(frozen=True)
class Place:
    """The world's files, and what a verifier is given of them."""

    root: Path

    @property
    def policy(self) -> bytes:
        return (self.root / "policy.txt").read_bytes()

    @property
    def trust(self) -> bytes:
        return (self.root / "trust.json").read_bytes()

    def audit(self) -> None:
        """What `audit` does before it runs any model; a finding about a file counts as noticed."""
        policy, trust = policy_file.parse(self.policy), trust_file.parse(self.trust)
        ledger = Ledger(log=self.root / "log" / "auditor")
        bundle = self.root / "honest" / "bundle"
        found = case.load(bundle, policy=policy, trust=trust, own_proofs=ledger.proofs())
        seen = history.compare(found, audit._checkpoints(bundle), state=None, owner_log=self.root / "log" / "owner")
        assert not seen.conflicts
        audit._verify_quorum(found)
        known = transcript.replay(
            certificate=found.certificate,
            certificate_leaf=found.certificate_logged.leaf,
            certificate_sha256=sha256_hex(found.certificate_logged.envelope.raw),
            requests=tuple(request.logged.leaf for request in found.requests),
            commitment=found.commitment,
            answer_folder=self.root / "honest" / "openings",
            ledger=ledger,
            policy=policy,
            trust=trust,
            profile_sha256=parse_profile((self.root / "profile.yaml").read_bytes()).sha256,
            now=found.certificate.certified_at + 300,
        )
        assert known.opened, "the transcript did not get as far as the answer"
        assert not found.hostile
        assert not known.problems

    def report(self) -> None:
        verify.verify_report(self.root / "honest" / "report", policy=self.policy, trust=self.trust)

    def receipt(self) -> None:
        receipts.verify(
            (self.root / "honest" / "report" / "receipts" / "000.receipt").read_bytes(),
            policy=policy_file.parse(self.policy),
            trust=trust_file.parse(self.trust),
        )

    def log(self, name: str) -> None:
        verify_log(self.root / "log" / name, policy_file.parse(self.policy))


@pytest.fixture(scope="module")
def place(small_demo, tmp_path_factory):
    root = tmp_path_factory.mktemp("tamper") / "world"
    shutil.copytree(small_demo.world.root, root)
    found = Place(root)
    for check in (found.audit, found.report, found.receipt, lambda: found.log("owner"), lambda: found.log("auditor")):
        check()
    return found


def cosignatures_only(policy: bytes, before: bytes, after: bytes) -> bool:
    """Whether only cosignatures differ, and the quorum is still met: what a reader has to let pass."""
    trusted = policy_file.parse(policy)

    def note(data: bytes) -> tuple[object, bytes]:
        if data.startswith(b"c2sp.org/tlog-proof"):
            parsed = proof.parse(data)
            return (parsed.index, parsed.hashes), parsed.checkpoint_note
        return None, data

    try:
        (rest_before, note_before), (rest_after, note_after) = note(before), note(after)
        verified = trusted.verify_checkpoint(note_after)
        same = rest_before == rest_after and verified.checkpoint == trusted.verify_checkpoint(note_before).checkpoint
    except Error:
        return False
    text = note_before.partition(b"\n\n")[0]
    return same and verified.quorum_met and note_after.partition(b"\n\n")[0] == text and len(verified.cosigned) < 3


def damage(
    place: Place,
    file: Path,
    name: str,
    check: Callable[[], None],
    random: np.random.Generator,
    tries: int,
    *,
    needed: bool = True,
) -> int:
    """Change `file` in many ways, and remove it if it is `needed`; each has to be refused, naming it."""
    data = file.read_bytes()
    count = 0
    try:
        for what, changed in changes(data, random, tries):
            if changed == data:
                continue
            count += 1
            file.write_bytes(changed)
            try:
                check()
            except (MalformedError, VerificationError) as error:
                message = str(error)
            else:
                assert cosignatures_only(place.policy, data, changed), f"{name}, {what}: not noticed"
                continue
            assert name in message, f"{name}, {what}: the message does not name it: {message}"
        file.unlink()
        if needed:
            with pytest.raises((MalformedError, VerificationError)) as caught:
                check()
            assert name in str(caught.value)
    finally:
        file.write_bytes(data)
    return count


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_file_of_a_bundle(place):
    random = np.random.default_rng(1)
    bundle = place.root / "honest" / "bundle"
    names = _files(bundle)
    assert len(names) > 15
    for name in names:
        if name == "proofs/opening.tlog-proof":
            continue  # see the next test
        damage(place, bundle / name, name, place.audit, random, _TRIES, needed=name not in _MAY_BE_MISSING)


def test_a_proof_that_the_auditors_log_makes_superfluous_is_checked_all_the_same(place):
    bundle = place.root / "honest" / "bundle"
    file = bundle / "proofs" / "opening.tlog-proof"
    data = file.read_bytes()
    random = np.random.default_rng(2)
    try:
        for what, changed in changes(data, random, _TRIES):
            file.write_bytes(changed)
            with pytest.raises((MalformedError, VerificationError)) as caught:
                place.audit()
            assert "proofs/opening.tlog-proof" in str(caught.value), what
        file.unlink()
        place.audit()  # nothing is lost: the auditor's log has the entry
    finally:
        file.write_bytes(data)


def test_every_file_of_an_answer(place):
    random = np.random.default_rng(3)
    folder = place.root / "honest" / "openings"
    names = _files(folder)
    assert len(names) == 4
    for name in names:
        damage(place, folder / name, name, place.audit, random, 2 * _TRIES)
    _flip(folder / "answer.dsse.json", 50)
    with pytest.raises((MalformedError, VerificationError), match="honest/openings/answer"):  # not the bundle's
        place.audit()
    _flip(folder / "answer.dsse.json", 50)


def test_every_file_of_a_report(place):
    random = np.random.default_rng(4)
    folder = place.root / "honest" / "report"
    names = _files(folder)
    assert {"report.html", "receipts/000.receipt", "transcript/challenge.dsse.json"} <= set(names)
    for name in names:
        if name == "receipts/000.receipt":
            continue  # see the next test
        damage(place, folder / name, name, place.report, random, 3 * _TRIES)


def test_a_receipt(place):
    random = np.random.default_rng(5)
    file = place.root / "honest" / "report" / "receipts" / "000.receipt"
    data = file.read_bytes()
    noticed = 0
    policy, trust = policy_file.parse(place.policy), trust_file.parse(place.trust)
    for what, changed in changes(data, random, 500):
        try:
            receipts.verify(changed, policy=policy, trust=trust)
        except (MalformedError, VerificationError):
            noticed += 1
            continue
        # Inside a base64 log proof, in a cosignature's line.
        from protocol import receipt_file

        old, new = receipt_file.parse(data), receipt_file.parse(changed)
        differing = [name for name in old.proofs if old.proofs[name] != new.proofs[name]]
        assert old.envelopes == new.envelopes and old.claims == new.claims and old.records == new.records
        assert all(cosignatures_only(place.policy, old.proofs[n], new.proofs[n]) for n in differing), what
    assert noticed > 400
    # Within a report the receipt is named.
    damaged = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    file.write_bytes(damaged)
    with pytest.raises((MalformedError, VerificationError), match=r"receipts/000\.receipt"):
        place.report()
    file.write_bytes(data)


@pytest.mark.parametrize("which", ["owner", "auditor"])
def test_every_file_of_a_log(place, which):
    random = np.random.default_rng(6)
    folder = place.root / "log" / which
    for name in _files(folder):
        damage(place, folder / name, name, lambda: place.log(which), random, 2 * _TRIES, needed=".p/" not in name)


@pytest.mark.parametrize(
    ("folder", "check"),
    [("honest/bundle", "audit"), ("honest/openings", "audit"), ("honest/report", "report"), ("log/owner", "log")],
)
def test_a_file_too_many_a_link_and_a_pipe(place, folder, check, tmp_path):
    import os

    verify_it = (lambda: place.log("owner")) if check == "log" else getattr(place, check)
    base = place.root / folder
    inner = next(path for path in base.iterdir() if path.is_dir())
    for extra in (base / "extra.txt", inner / "extra.tlog-proof"):
        for make in (lambda p: p.write_bytes(b"x"), lambda p: p.symlink_to("/etc/hostname"), os.mkfifo):
            make(extra)
            with pytest.raises((MalformedError, VerificationError), match="extra"):
                verify_it()
            extra.unlink()
    # A listed file replaced by a link to its own bytes, by a pipe, and by a folder.
    victim = next(path for path in sorted(base.iterdir()) if path.is_file())
    data = victim.read_bytes()
    (tmp_path / "copy").write_bytes(data)
    for make in (lambda: victim.symlink_to(tmp_path / "copy"), lambda: os.mkfifo(victim), victim.mkdir):
        victim.unlink()
        make()
        with pytest.raises((MalformedError, VerificationError), match=victim.name):
            verify_it()
        victim.rmdir() if victim.is_dir() and not victim.is_symlink() else victim.unlink()
        victim.write_bytes(data)
    verify_it()


def _flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("command", "file", "position"),
    [
        ("audit", "honest/bundle/patch.safetensors", -1),
        ("audit", "honest/bundle/base.onnx", 40_000),
        ("audit", "honest/bundle/manifest.json", 700),
        ("audit", "honest/bundle/certificate.dsse.json", 300),
        ("audit", "honest/bundle/proofs/certificate.tlog-proof", 60),
        ("audit", "honest/bundle/requests/000.leaves.json", 50),
        ("audit", "honest/openings/openings.npz", 30_000),
        ("audit", "honest/openings/answer.dsse.json", 30),
        ("verify-report", "honest/report/summary.json", 5),
        ("verify-report", "honest/report/report.html", 100_000),
        ("verify-report", "honest/report/transcript/opening.dsse.json", 100),
        ("verify-report", "honest/report/receipts/000.receipt", 20_000),
        ("verify-receipt", "honest/report/receipts/000.receipt", 30_000),
        ("verify-log", "log/owner/tile/0/000.p/4", 3),
        ("verify-log", "log/auditor/checkpoint", 25),
    ],
)
def test_commands_on_damaged_files(world_copy, command, file, position):
    root = world_copy.root
    _flip(root / file, position)
    arguments = {
        "audit": (
            root / "honest" / "bundle", *world_copy.trusted(), "--profile", root / "profile.yaml",
            "--openings", root / "honest" / "openings", "--key", world_copy.key("auditor"),
            "--log", world_copy.auditor_log, "--out", root / "fresh", "--now", world_copy.clock.tick(),
        ),
        "verify-report": (root / "honest" / "report", *world_copy.trusted()),
        "verify-receipt": (root / "honest" / "report" / "receipts" / "000.receipt", *world_copy.trusted()),
        "verify-log": ((root / file).parents[len(Path(file).parts) - 3], "--policy", world_copy.policy),
    }[command]  # fmt: skip
    size = world_copy.auditor_log.joinpath("checkpoint").read_bytes()
    ran = run("prune-auditor", command, *arguments)
    assert ran.code == 4, ran
    assert Path(file).name in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not (root / "fresh").exists()
    if command == "audit":
        assert world_copy.auditor_log.joinpath("checkpoint").read_bytes() == size, "an entry was logged"
