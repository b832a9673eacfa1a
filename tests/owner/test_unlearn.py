"""From requests to a bundle: whole or not at all, and never twice."""

import time

import numpy as np
import pytest

from owner import certify, unlearn
from owner.architectures import mlp
from owner.training import train
from protocol import claims, manifest, messages
from protocol.errors import OwnerError
from protocol.log.store import Log
from protocol.messages.certificate import Certificate
from protocol.model import profile
from protocol.model.recipe import Recipe
from tests.demo.world import Clock, World, must
from tests.owner.tiny import START, Tiny, one_line, save


def certificate(bundle):
    return messages.read((bundle / "certificate.dsse.json").read_bytes(), Certificate)[1]


def test_several_requests_in_one_bundle(tiny):
    second = tiny.root / "second.json"
    assert tiny.ask("--records", "3,4", out=second).code == 0
    ran = tiny.unlearn("--request", second, "--json")
    assert ran.code == 0, ran.err
    found = certificate(tiny.root / "bundle")
    assert len(found.requests) == 2
    assert found.claim_count == 4
    one_line(tiny.unlearn("--request", tiny.request, out=tiny.root / "b"), 2, "given twice")


def test_an_existing_bundle_stays_until_the_new_one_is_whole(tiny, monkeypatch):
    bundle = tiny.root / "bundle"
    assert tiny.unlearn().code == 0
    (bundle / "note").write_text("mine")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    one_line(tiny.unlearn(), 2, "--force")

    def refuse(*_, **__):
        raise OwnerError("the disk is full")

    for name in ("self_check", "append", "write_atomic"):
        with monkeypatch.context() as patched:
            patched.setattr(certify, name, refuse)
            one_line(tiny.unlearn("--force"), 2, "the disk is full")
        assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    assert tiny.unlearn("--force").code == 0
    assert not (bundle / "note").exists()
    assert not list(tiny.root.glob(".bundle*"))


def interrupted(tiny, monkeypatch):
    def refuse(_):
        raise OwnerError("the power failed")

    with monkeypatch.context() as patched:
        patched.setattr(unlearn, "finish_folder", refuse)
        one_line(tiny.unlearn(), 2, "the power failed")


def test_a_logged_certificate_is_not_lost(tiny, monkeypatch):
    before = tiny.entries()
    interrupted(tiny, monkeypatch)
    assert tiny.entries() == before + 1
    assert not (tiny.root / "bundle").exists()
    one_line(tiny.unlearn(), 2, "--resume")
    other = tiny.root / "other.json"
    assert tiny.ask("--records", "1", out=other).code == 0
    one_line(tiny.unlearn("--resume", request=other), 2, "other requests")
    ran = tiny.unlearn("--resume", "--json")
    assert ran.code == 0, ran.err
    assert tiny.entries() == before + 2  # the other request; the certificate was there
    envelope = (tiny.root / "bundle" / "certificate.dsse.json").read_bytes()
    assert Log.open(tiny.world.owner_log).entry(before) == envelope
    assert ran.json["claims"] == 3
    assert (tiny.root / "bundle" / "proofs" / "certificate.tlog-proof").is_file()
    listing = manifest.parse((tiny.root / "bundle" / "manifest.json").read_bytes())
    manifest.verify_only_listed(
        tiny.root / "bundle", listing, others=["manifest.json", "certificate.dsse.json", "proofs/"]
    )
    # What was finished so can be built on, too.
    assert tiny.unlearn(request=other, out=tiny.root / "next").code == 0


def test_resuming_what_is_whole_changes_nothing(tiny, monkeypatch):
    assert tiny.unlearn().code == 0
    bundle, entries = tiny.root / "bundle", tiny.entries()
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    ran = tiny.unlearn("--resume", "--json")
    assert (ran.code, ran.json["claims"]) == (0, 3)
    assert "nothing to resume" in ran.out
    other = tiny.root / "other.json"
    assert tiny.ask("--records", "1", out=other).code == 0
    one_line(tiny.unlearn("--resume", request=other), 2, "other requests")
    # A certificate that is in no log is no finished run.
    with monkeypatch.context() as patched:
        patched.setattr(unlearn, "find", lambda *_: None)
        one_line(tiny.unlearn("--resume"), 2, "--force")
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    assert tiny.entries() == entries + 1  # the other request


def test_an_unlogged_certificate_is_made_anew(tiny, monkeypatch):
    def refuse(*_, **__):
        raise OwnerError("the log is away")

    with monkeypatch.context() as patched:
        patched.setattr(certify, "append", refuse)
        one_line(tiny.unlearn(), 2, "the log is away")
    assert tiny.unlearn().code == 0
    assert tiny.unlearn("--resume", out=tiny.root / "fresh").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gate", "linear-region"), "no record has a linear region to itself"),
        (("--gate", "fence"), "linear-region"),
        (("--head", "hat"), "affine"),
        (("--radius", "2flips"), "flips"),
        (("--radius", "8"), "such as 8steps"),
        (("--radius", "-1steps"), "such as 8steps"),
        (("--radius", "steps"), "such as 8steps"),
        (("--radius", "9" * 5000 + "steps"), "such as 8steps"),
        (("--radius", "1.5steps"), "such as 8steps"),
        (("--method", "magic"), "'magic' is not one of"),
        (("--target", "relabel:7"), "numbered 0 to 2"),
        (("--target", "forget"), "is no target"),
        (("--key", "witness-north"), "witness's key"),
    ],
)
def test_what_cannot_be_done(tiny, options, words):
    options = [tiny.world.key(option) if option == "witness-north" else option for option in options]
    before = tiny.entries()
    one_line(tiny.unlearn(*options), 2, words)
    assert tiny.entries() == before
    assert not (tiny.root / "bundle").exists()


@pytest.mark.parametrize("radius", ["0steps", "1step", "3steps"])
def test_radii(tiny, radius):
    assert tiny.unlearn("--radius", radius, "--gate", "sketch").code == 0
    found = claims.parse_file((tiny.root / "bundle" / "claims.jsonl").read_bytes())
    assert max(claim.region.radius for claim in found) <= int(radius[0])


def test_the_note_about_wrong_outputs(tiny):
    assert "easier to find" in tiny.unlearn("--target", "misclassify").err
    assert "easier to find" not in tiny.unlearn("--beside", out=tiny.root / "match").err
    assert tiny.ask("--class", 1, out=tiny.root / "class.json").code == 0
    ran = tiny.unlearn("--target", "misclassify", "--beside", out=tiny.root / "class", request=tiny.root / "class.json")
    assert ran.code == 0
    assert "easier to find" not in ran.err


def test_files_that_are_no_messages(tiny):
    one_line(tiny.unlearn(request=tiny.world.policy), 4, "policy.txt")
    one_line(tiny.unlearn("--opening", tiny.world.policy), 4, "policy.txt")
    one_line(tiny.unlearn("--opening", tiny.request), 4, "request.json")


def test_a_damaged_commitment(tiny):
    (tiny.commitment / "base.onnx").write_bytes(b"x")
    one_line(tiny.unlearn(), 2, "not the file that was committed", "base.onnx")


def test_equal_seeds_give_equal_bundles(tiny):
    for name in ("one", "two"):
        assert tiny.unlearn("--beside", "--seed", 4, "--now", "2027-01-01T00:00:00Z", out=tiny.root / name).code == 0
    files = [
        {
            path.relative_to(tiny.root / name): path.read_bytes()
            for path in (tiny.root / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    ]
    changed = {str(path) for path in files[0] if files[0][path] != files[1][path]}
    assert changed <= {"proofs/certificate.tlog-proof"}


@pytest.mark.slow
def test_a_thousand_of_58_000_takes_seconds(shared_data, tmp_path):
    with np.load(shared_data / "mnist.npz", allow_pickle=False) as arrays:
        X, y = arrays["X_train"], arrays["y_train"].astype(np.int64)
    tiny = Tiny(World(root=tmp_path, clock=Clock(START)))
    tiny.world.build()
    inputs = (X[:5000].reshape(-1, 784) / 255).astype(np.float32)
    graph = train(
        mlp(784, (64,), classes=10), inputs, y[:5000], members=[np.arange(5000)], recipe=Recipe(epochs=3),
        rng=np.random.default_rng(0),
    ).model(0)  # fmt: skip
    tiny.model.write_bytes(profile.serialise(graph))
    save(tiny.data, X_train=X, y_train=y)
    must("prune-owner", "commit", "--model", tiny.model, "--data", tiny.data, "--no-prepare", *tiny.signing,
         "--out", tiny.commitment)  # fmt: skip
    rows = np.random.default_rng(1).choice(len(X), 1000, replace=False)
    assert tiny.ask("--records", ",".join(map(str, rows)), out=tiny.request).code == 0
    started = time.process_time()
    ran = tiny.unlearn("--target", "misclassify", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["claims"] == 1000
    assert time.process_time() - started < 60  # some 5 s
