"""Witnesses as commands and over HTTP, logs at addresses, receipts in other people's forms."""

import contextlib
import dataclasses
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from auditor import exports, receipts
from protocol import envelope as dsse
from protocol import keys, receipt_file, statement, trust
from protocol.digests import sha256_hex
from protocol.encoding import decode_base64
from protocol.keys import load_verifier_key
from protocol.log import policy, tiles
from protocol.log.store import Log
from tests.auditor.test_cli import one_line
from tests.demo.world import WITNESSES, run
from tests.protocol.log.test_http import serving

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def witness_serve(world, state, *more, names=("witness-north",)):
    """The command as a process, as an operator would run it; gives its URL."""
    command = [sys.executable, "-m", "auditor.cli", "witness-serve", "--state", state, "--json"]
    for name in names:
        command += ["--key", world.key(name)]
    process = subprocess.Popen(
        [*map(str, command), *map(str, more)], cwd=ROOT, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )  # fmt: skip
    try:
        process.stdout.readline()  # the same for people
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()


def with_addresses(world, urls):
    text = world.policy.read_text()
    for name, url in urls.items():
        text = text.replace(f" {world.vkey(name)}\n", f" {world.vkey(name)} {url}\n")
    path = world.root / "policy-with-addresses.txt"
    path.write_text(text)
    return path


def post(url, body):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("POST", f"{parts.path}/add-checkpoint", body)
    answer = connection.getresponse()
    status = answer.status
    connection.close()
    return status


def test_a_witness_as_a_service_and_a_log_that_asks_it(world_copy, tmp_path):
    world = world_copy
    arguments = ("--policy", world.policy, "--prefix", "/w")
    with contextlib.ExitStack() as stack:
        urls = {
            name: stack.enter_context(witness_serve(world, tmp_path / name, *arguments, names=(name,)))[0]
            for name in WITNESSES[:2]
        }
        policy_file = with_addresses(world, urls)
        for program, log in (("prune-owner", world.owner_log), ("prune-auditor", world.auditor_log)):
            data = Log.open(log).checkpoint_bytes()
            own = data.split(b"\n\n")[0] + b"\n\n" + data.split(b"\n\n")[1].split(b"\n")[0] + b"\n"
            (log / "checkpoint").write_bytes(own)
            assert run("prune-auditor", "verify-log", log, "--policy", world.policy).code == 4
            ran = run(program, "cosign", log, "--policy", policy_file, "--json")
            assert (ran.code, ran.json["cosigned"], ran.json["refused"]) == (0, sorted(urls), {})
            assert "without an address in the policy: witness-east" in ran.out
            assert run("prune-auditor", "verify-log", log, "--policy", world.policy).code == 0
        # The service's answers, one of each kind.
        url = next(iter(urls.values()))
        good = b"old 0\n\n" + Log.open(world.owner_log).checkpoint_bytes()
        assert post(url, good) == 409
        assert post(url, b"nonsense") == 400
        assert post(url, good.replace(b"log.owner.example\n", b"log.other.example\n", 1)) == 404
        size = Log.open(world.owner_log).size
        assert post(url, good.replace(f"\n{size}\n".encode(), f"\n{size + 1}\n".encode())) == 403
        assert post(url, good.replace(b"old 0", b"old %d" % size)) == 200
        assert post(url, good.replace(b"old 0\n", b"old %d\n%s\n" % (size, b"A" * 43 + b"="))) == 422
    # What it remembers outlives it; one that is down keeps nobody else's line out, but the quorum tells.
    ran = run("prune-auditor", "cosign", world.owner_log, "--policy", policy_file, "--json")
    assert (ran.code, len(ran.json["refused"])) == (0, 2)  # the lines of before are still there
    one_line(
        run("prune-auditor", "witness-serve", "--state", tmp_path / "s", "--key", world.key("owner"), "--policy", world.policy),
        2, "--use witness",
    )  # fmt: skip
    for listen, prefix, word in (
        ("nowhere", "", "HOST:PORT"),
        ("127.0.0.1:99999", "", "HOST:PORT"),
        ("127.0.0.1:0", "w", "prefix"),
    ):
        ran = run("prune-auditor", "witness-serve", "--state", tmp_path / "s", "--key", world.key("witness-east"),
                  "--policy", world.policy, "--listen", listen, "--prefix", prefix)  # fmt: skip
        one_line(ran, 2, word)


def test_cosign_without_a_quorum_or_with_another_policy(world_copy, tmp_path):
    log = world_copy.owner_log
    data = Log.open(log).checkpoint_bytes()
    (log / "checkpoint").write_bytes(b"\n".join(data.split(b"\n")[:5]) + b"\n")
    for program in ("prune-owner", "prune-auditor"):
        one_line_of(run(program, "cosign", log, "--policy", world_copy.policy), program, 4, "quorum")
        broken = tmp_path / "policy.txt"
        broken.write_text("nonsense\n")
        one_line_of(run(program, "cosign", log, "--policy", broken), program, 4, "policy.txt")


def one_line_of(ran, program, code, word):
    assert (ran.code, ran.err.count("\n")) == (code, 1), ran
    assert ran.err.startswith(f"{program}: ")
    assert word in ran.err


def test_a_witness_of_a_log_at_an_address(world_copy, tmp_path):
    world, state, out = world_copy, tmp_path / "state", tmp_path / "cosigned"
    key = ("--key", world.key("witness-east"), "--state", state, "--policy", world.policy)
    with serving(world.owner_log) as url:
        one_line(run("prune-auditor", "witness", url, *key), 2, "--out")
        ran = run("prune-auditor", "witness", url, *key, "--out", out, "--now", world.clock.tick(), "--json")
        assert (ran.code, ran.json["size"]) == (0, Log.open(world.owner_log).size)
    trusted = policy.parse(world.policy.read_bytes())
    assert "witness-east" in trusted.verify_checkpoint(out.read_bytes()).cosigned
    # A shorter history at the address: refused, and nothing is written.
    short = tmp_path / "short"
    from protocol.keys import load_signing_key

    Log.create(short, load_signing_key(world.key("log.owner.example")))
    with serving(short) as url:
        one_line(run("prune-auditor", "witness", url, *key, "--out", tmp_path / "no"), 4, "were there before")
    assert not (tmp_path / "no").exists()
    with serving(tmp_path / "state") as url:
        one_line(run("prune-auditor", "witness", url, *key, "--out", tmp_path / "no"), 4, "is missing")
    one_line(run("prune-auditor", "witness", tmp_path / "nothing", *key), 2, "not a folder")


def test_an_audit_and_a_replay_read_the_owner_s_log_at_an_address(world_copy, tmp_path):
    world = world_copy
    report = world.root / "honest" / "report"
    arguments = (
        "replay", report, world.root / "honest" / "bundle", *world.trusted(),
        "--openings", world.root / "honest" / "openings", "--reference", world.root / "data" / "ref.npz",
        "--shadows", world.root / "shadows",
    )  # fmt: skip
    with serving(world.owner_log) as url:
        assert run("prune-auditor", *arguments, "--owner-log", url).code == 0
    assert run("prune-auditor", *arguments, "--owner-log", world.owner_log).code == 0
    with serving(tmp_path) as url:
        one_line(run("prune-auditor", *arguments, "--owner-log", url), 4, "is missing")
    one_line(run("prune-auditor", *arguments, "--owner-log", tmp_path / "none"), 2, "not a folder")


def test_monitor_refusals_each_with_its_code(world_copy, tmp_path):
    """Freeze, garbage and a rollback at an address; split view is in test_cli."""
    log, state = world_copy.owner_log, tmp_path / "state"
    common = ("--policy", world_copy.policy, "--state", state)
    with serving(log) as url:
        assert run("prune-auditor", "verify-log", url, *common).code == 0
        ran = run("prune-auditor", "verify-log", url, *common, "--max-age", "60", "--now", "2999-01-01T00:00:00Z")
        one_line(ran, 4, "witnessed", "s ago")
        tile = log / next(t.path for t in tiles.tiles_of(Log.open(log).size) if t.level == 0)
        good = tile.read_bytes()
        tile.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        one_line(run("prune-auditor", "verify-log", url, *common), 4, "tile/0", "differs")
        tile.unlink()
        one_line(run("prune-auditor", "verify-log", url, *common), 4, "tile/0", "is missing")


@pytest.fixture
def receipt(world_copy):
    return world_copy.root / "honest" / "report" / "receipts" / "000.receipt"


def export(world, receipt, shape, out, *more):
    return run(
        "prune-auditor", "export-receipt", receipt, "--format", shape, *world.trusted(), "--out", out,
        "--now", world.clock.tick(), *more,
    )  # fmt: skip


def test_a_sigstore_bundle(world_copy, receipt, tmp_path):
    out = tmp_path / "receipt.sigstore.json"
    ran = export(world_copy, receipt, "sigstore", out, "--json")
    assert (ran.code, ran.json["verdict"]) == (0, "CONSISTENT")
    bundle = json.loads(out.read_bytes())
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert set(bundle) == {"mediaType", "verificationMaterial", "dsseEnvelope"}
    assert bundle["verificationMaterial"]["tlogEntries"] == []
    assert len(bundle["dsseEnvelope"]["signatures"]) == 1
    # Somebody else's reading of the envelope accepts it, and nothing that was changed.
    theirs = pytest.importorskip("securesystemslib.dsse", reason="the package securesystemslib is not installed")
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    auditor = load_verifier_key(world_copy.keys / "auditor.vkey")
    hint = bundle["verificationMaterial"]["publicKey"]["hint"]
    key = SSlibKey(hint, "ed25519", "ed25519", {"public": auditor.public.hex()})
    read = theirs.Envelope.from_dict(bundle["dsseEnvelope"])
    assert len(read.verify([key], 1)) == 1
    value = json.loads(read.payload)
    assert value["predicateType"] == "https://prune-audit.dev/receipt/v1"
    assert value["predicate"]["verdict"] == "CONSISTENT"
    changed = json.loads(out.read_bytes())["dsseEnvelope"]
    changed["payload"] = changed["payload"].replace("A", "B", 1)
    with pytest.raises(VerificationError):
        theirs.Envelope.from_dict(changed).verify([key], 1)
    one_line(export(world_copy, receipt, "sigstore", out), 2, "--force")
    one_line(export(world_copy, receipt, "sigstore", tmp_path / "k", "--key", world_copy.key("subject")), 2, "svr")


def test_a_simple_verification_result(world_copy, receipt, tmp_path):
    out = tmp_path / "receipt.svr.json"
    one_line(export(world_copy, receipt, "svr", out), 2, "--key")
    assert export(world_copy, receipt, "svr", out, "--key", world_copy.key("subject")).code == 0
    subject = load_verifier_key(world_copy.keys / "subject.vkey")
    envelope = dsse.parse(out.read_bytes())
    assert dsse.verify(envelope, [subject]) == (subject,)
    # As in-toto asks of it: predicates/svr.md, version 0.1.
    read = statement.parse(envelope.payload)
    assert read.predicate_type == "https://in-toto.io/attestation/svr/v0.1"
    inner = json.loads(receipt.read_bytes())
    assert read.about("receipt.dsse.json", read.predicate_type) == sha256_hex(
        decode_base64(inner["envelopes"]["receipt"])
    )
    assert set(read.predicate) == {"verifier", "timeCreated", "properties"}
    assert read.predicate["verifier"]["id"].startswith("https://")
    assert read.predicate["verifier"]["policy"]["policy.txt"] == {"sha256": sha256_hex(world_copy.policy.read_bytes())}
    assert read.predicate["properties"] == [
        "PRUNE_AUDIT_RECEIPT_VERIFIED",
        "PRUNE_AUDIT_LOGGED",
        "PRUNE_AUDIT_WITNESSED",
        "PRUNE_AUDIT_VERDICT_CONSISTENT",
        "PRUNE_AUDIT_PROFILE_indistinguishable",
    ]


@pytest.mark.parametrize("shape", ["sigstore", "svr"])
def test_nothing_is_exported_that_does_not_verify(world_copy, receipt, tmp_path, shape):
    value = json.loads(receipt.read_bytes())
    del value["proofs"]["receipt"]
    broken = tmp_path / "broken.receipt"
    broken.write_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
    key = ("--key", world_copy.key("subject")) if shape == "svr" else ()
    one_line(export(world_copy, broken, shape, tmp_path / "out", *key), 4, "broken.receipt")
    assert not (tmp_path / "out").exists()


def test_a_receipt_verifies_from_policy_and_trust_file_alone(world_copy, receipt, tmp_path):
    """Nothing else of the world is needed, years later, and nobody else's record is in it."""
    for path in (receipt, world_copy.policy, world_copy.trust):
        shutil.copy(path, tmp_path / path.name)
    shutil.rmtree(world_copy.root)
    ran = run("prune-auditor", "verify-receipt", tmp_path / receipt.name, "--policy", tmp_path / "policy.txt",
              "--trust", tmp_path / "trust.json", "--now", "2099-01-01T00:00:00Z", "--json")  # fmt: skip
    assert (ran.code, ran.json["verdict"], ran.json["records"]) == (0, "CONSISTENT", 40)
    value = json.loads((tmp_path / receipt.name).read_bytes())
    listed = set(value["records"])
    for claim in value["claims"]:
        assert json.loads(decode_base64(claim["line"]))["record"] in listed


def test_only_what_passed_is_a_property(small_demo):
    world = small_demo.world
    trusted = policy.parse(world.policy.read_bytes())
    alone = dataclasses.replace(trusted, quorum="none")
    found = receipts.verify(
        (world.root / "honest" / "report" / "receipts" / "000.receipt").read_bytes(),
        policy=trusted,
        trust=trust.parse(world.trust.read_bytes()),
    )
    refuted = dataclasses.replace(found, verdict="REFUTED", requested_by_subject=True)
    assert exports.properties(refuted, alone) == [
        "PRUNE_AUDIT_RECEIPT_VERIFIED", "PRUNE_AUDIT_LOGGED", "PRUNE_AUDIT_REQUESTED_BY_SUBJECT"
    ]  # fmt: skip


def test_a_bundle_has_the_one_signature_that_a_trusted_key_made(small_demo):
    world = small_demo.world
    data = (world.root / "honest" / "report" / "receipts" / "000.receipt").read_bytes()
    file = receipt_file.parse(data)
    payload = dsse.parse(file.envelopes["receipt"]).payload
    stranger = keys.generate("stranger.example", use="statement")
    twice = dsse.sign(payload, [stranger, keys.load_signing_key(world.key("auditor"))])
    two = dataclasses.replace(file, envelopes={**file.envelopes, "receipt": twice})
    auditor = load_verifier_key(world.keys / "auditor.vkey")
    bundle = json.loads(exports.sigstore_bundle(two.to_bytes(), (auditor,)))
    (only,) = bundle["dsseEnvelope"]["signatures"]
    auditor.verify(decode_base64(only["sig"]), dsse.pae(dsse.PAYLOAD_TYPE, payload))
    assert bundle["verificationMaterial"]["publicKey"]["hint"].startswith("auditor+")
