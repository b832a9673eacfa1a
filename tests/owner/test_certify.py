"""Nothing is signed that the patched model does not do."""

import json
from dataclasses import replace

import numpy as np
import pytest

from owner import unlearn
from owner.methods import prune
from protocol import claims as claim_lines
from protocol import manifest, messages, openings
from protocol.claims import Argmax, Linear, Redirection
from protocol.digests import sha256_hex
from protocol.messages.certificate import Certificate
from protocol.model import patch as patch_file
from protocol.model import profile
from protocol.model.patch import SketchGate
from tests.owner.tiny import one_line


def widened(result, low, high):
    (part,) = result.patch.parts
    gate = part.gate
    moved = SketchGate(matrix=gate.matrix, low=gate.low + np.int32(low), high=gate.high + np.int32(high))
    return replace(result, patch=replace(result.patch, parts=(replace(part, gate=moved),)))


def other_rows(result):
    (part,) = result.patch.parts
    head = replace(part.head, rows=part.head.rows + np.float32(0.5))
    return replace(result, patch=replace(result.patch, parts=(replace(part, head=head),)))


def changed_claims(result, change):
    return replace(result, claims=tuple(change(c) if isinstance(c, Redirection) else c for c in result.claims))


def larger(claim):
    return replace(claim, region=replace(claim.region, radius=claim.region.radius + 3))


def stronger(claim):
    return replace(claim, property=replace(claim.property, margin="1000"))


def linear(least):
    """All logits together are at least so much."""
    return Linear(rows=(("1", "1", "1"),), least=(least,))


TAMPERED = {
    "boxes beside the records": (("--target", "match"), lambda r: widened(r, 900, 900)),
    "boxes too small": (("--target", "misclassify"), lambda r: widened(r, 1, 0)),
    "boxes that hold everything": (("--target", "match"), lambda r: widened(r, -9999, 9999)),
    "another row": (("--target", "match"), other_rows),
    "a radius too large": (("--target", "misclassify"), lambda r: changed_claims(r, larger)),
    "a margin too large": (("--target", "misclassify"), lambda r: changed_claims(r, stronger)),
    "an inequality that a row does not keep": (
        ("--target", "misclassify"),
        lambda r: changed_claims(r, lambda c: replace(c, property=linear("100.5"))),
    ),
    "an inequality of another number of classes": (
        ("--target", "misclassify"),
        lambda r: changed_claims(r, lambda c: replace(c, property=Linear(rows=(("1",),), least=("-1000",)))),
    ),
    "another class": (
        ("--target", "misclassify"),
        lambda r: changed_claims(
            r, lambda c: replace(c, property=Argmax(klass=(c.property.klass + 1) % 3, margin="1"))
        ),
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_result_is_refused(tiny, monkeypatch, name):
    options, tamper = TAMPERED[name]
    monkeypatch.setitem(unlearn.METHODS, "prune", lambda job: tamper(prune.run(job)))
    before = tiny.entries()
    one_line(tiny.unlearn(*options), 3, "nothing was signed")
    assert tiny.entries() == before
    assert not (tiny.root / "bundle").exists()
    assert not (tiny.root / ".bundle.partial").exists()


def test_an_inequality_that_holds_is_signed(tiny, monkeypatch):
    def run(job):
        return changed_claims(prune.run(job), lambda c: replace(c, property=linear("-1000")))

    monkeypatch.setitem(unlearn.METHODS, "prune", run)
    assert tiny.unlearn("--target", "misclassify").code == 0


def test_a_class_that_stays_is_refused(tiny, monkeypatch):
    assert tiny.ask("--class", 1, out=tiny.root / "class.json").code == 0

    def without_cap(job):
        result = prune.run(job)
        return replace(result, patch=replace(result.patch, caps=()))

    monkeypatch.setitem(unlearn.METHODS, "prune", without_cap)
    ran = tiny.unlearn("--request", tiny.root / "class.json", "--target", "relabel:0")
    one_line(ran, 3, "class 1 is still predicted")


def test_a_stray_redirection_is_seen_beside_a_removed_class(tiny, monkeypatch):
    assert tiny.ask("--class", 1, out=tiny.root / "class.json").code == 0
    monkeypatch.setitem(unlearn.METHODS, "prune", lambda job: widened(prune.run(job), -20, 20))
    one_line(tiny.unlearn("--request", tiny.root / "class.json", "--target", "relabel:0"), 3, "retained records")


def test_many_claims_are_checked_in_parts(tiny, monkeypatch):
    monkeypatch.setattr("owner.certify._TOGETHER", 2)
    assert tiny.unlearn("--target", "match").code == 0
    monkeypatch.setitem(unlearn.METHODS, "prune", lambda job: changed_claims(prune.run(job), larger))
    one_line(tiny.unlearn("--target", "match", "--beside", out=tiny.root / "other"), 3, "nothing was signed")


def test_a_bundle_is_complete(tiny):
    ran = tiny.unlearn("--json")
    assert ran.code == 0, ran.err
    bundle = tiny.root / "bundle"
    listing = manifest.parse((bundle / "manifest.json").read_bytes())
    for entry in listing.entries:
        manifest.read_listed(bundle, entry, limit=1 << 30)
    manifest.verify_only_listed(bundle, listing, others=["manifest.json", "certificate.dsse.json", "proofs/"])
    _, certificate = messages.read((bundle / "certificate.dsse.json").read_bytes(), Certificate)
    assert certificate.subject == sha256_hex(listing.raw)
    assert certificate.claim_count == ran.json["claims"] == 3
    lines = claim_lines.split_lines((bundle / "claims.jsonl").read_bytes())
    assert claim_lines.root(lines) == certificate.claims_root
    assert (bundle / "requests" / "000.dsse.json").read_bytes() == tiny.request.read_bytes()
    assert sorted(path.name for path in (bundle / "proofs").iterdir()) == [
        f"{name}.tlog-proof" for name in ("certificate", "commitment", "request-000")
    ]
    opened = openings.parse((bundle / "openings.npz").read_bytes())
    assert sorted(o.commitment for o in opened) == sorted(
        c.record for c in claim_lines.parse_file(b"\n".join([*lines, b""]))
    )
    patch = patch_file.parse((bundle / "patch.json").read_bytes(), (bundle / "patch.safetensors").read_bytes())
    assert patch.items == 3
    profile.parse((bundle / "patched.onnx").read_bytes(), operators=profile.PATCHED)
    assert json.loads(listing.raw)["files"]
