"""`unlearn` raises radii that slopes make provable, ships the slopes, and the auditor proves exactly these claims."""

import json
from dataclasses import replace

import numpy as np
import pytest

from auditor.cores import Cores
from auditor.following import holds
from auditor.hinting import Given
from auditor.parts_proof import prove
from owner import hinting, unlearn
from owner.methods import prune
from owner.workspace import Workspace
from protocol import claims as claim_lines
from protocol import hints as hint_file
from protocol.claims import Argmax
from protocol.model import patch as patch_file
from protocol.model import profile
from protocol.model import schema as schema_file
from protocol.model.parts import AlwaysGate, FeatureGate, Part, SetHead, ShiftHead

KLASS = 1


def always(job):
    """Every input is shifted towards one class; each record's claim starts with a radius of 0."""
    result = prune.run(job)
    rows = np.zeros((1, 3), np.float32)
    rows[0, KLASS] = 30.0
    part = Part(gate=AlwaysGate(), head=ShiftHead(rows=rows, index=np.zeros(1, np.int64)))
    return made(result, part, gate="always", item=lambda _: 0)


def feature(job):
    """A box in the hidden layer around each record, and a row that names a class."""
    result = prune.run(job)
    base, rows = job.workspace.base, job.rows
    tensor = base.nodes[-2].outputs[0]
    hidden = hinting.Program(base)(
        job.workspace.schema.dequantise(job.workspace.records.values[rows]), outputs=(tensor,)
    )[0]
    gate = FeatureGate(tensor=tensor, low=hidden - np.float32(7), high=hidden + np.float32(7))
    head = SetHead(rows=np.array([[0, 9, 0]], np.float32), index=np.zeros(len(rows), np.int64))
    return made(result, Part(gate=gate, head=head), gate="feature", item=lambda number: number)


def made(result, part, *, gate, item):
    patch = replace(result.patch, parts=(part,))
    claims = [
        replace(
            claim, gate=gate, item=item(number), property=Argmax(klass=KLASS, margin="0.001"), target="relabel",
            region=hinting._larger(SCHEMA[0], 0),
        )
        for number, claim in enumerate(result.claims)
    ]  # fmt: skip
    return replace(result, patch=patch, claims=tuple(claims))


SCHEMA = []


@pytest.mark.parametrize("method", [always, feature])
def test_radii_grow_with_hints_and_the_auditor_agrees(tiny, tmp_path, monkeypatch, method):
    SCHEMA[:] = [schema_file.parse((tiny.commitment / "schema.json").read_bytes())]
    monkeypatch.setitem(unlearn.METHODS, "prune", method)
    monkeypatch.setattr("owner.certify.self_check", lambda *_: None)  # redirects retained records as well
    out = tmp_path / "bundle"
    ran = tiny.owner(
        "unlearn", "--commitment", tiny.commitment, "--request", tiny.request, *tiny.signing, "--out", out, "--json"
    )
    assert ran.code == 0, ran.error
    claims = claim_lines.parse_file((out / "claims.jsonl").read_bytes())
    radii = np.array([c.region.radius for c in claims])
    assert radii.max() > 0
    assert "proof hints" in ran.out
    listing = json.loads((out / "manifest.json").read_text())["files"]
    data = (out / hint_file.FILE).read_bytes() if (out / hint_file.FILE).exists() else None
    assert (data is not None) == any(f["role"] == "hint" for f in listing)
    hints = hint_file.parse(data) if data is not None else None
    base = profile.parse((out / "base.onnx").read_bytes())
    patch = patch_file.parse((out / "patch.json").read_bytes(), (out / "patch.safetensors").read_bytes())
    workspace = Workspace(folder=tiny.commitment)
    centre = workspace.records.values[workspace.rows_of(tuple(c.record for c in claims))].astype(np.int64)
    cores = Cores(schema=SCHEMA[0], centre=centre, steps=radii[:, None])
    given = Given.of(hints, claims, claims)
    with_hints = prove(patch, base, cores, claims, holds=holds, hints=given).reasons
    usual = prove(patch, base, cores, claims, holds=holds).reasons
    raised = radii > 0
    assert not any(reason for reason, grew in zip(with_hints, raised, strict=True) if grew)
    # Slopes are shipped for claims that are open without them, and for no others.
    needs = np.array([bool(reason) for reason in usual]) & raised
    shipped = given.entry >= 0
    assert (shipped[raised] >= needs[raised]).all()
    if method is always:
        assert needs.any()
        assert len(hints.duals.part) == 1


def test_results_that_integers_decide_are_left_alone(tiny, tmp_path):
    out = tmp_path / "bundle"
    ran = tiny.owner("unlearn", "--commitment", tiny.commitment, "--request", tiny.request, *tiny.signing, "--out", out)
    assert ran.code == 0, ran.error
    assert not (out / hint_file.FILE).exists()
