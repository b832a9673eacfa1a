"""Reports are searched for records in every form that a page can hold; what is not there is not found."""

import base64
import dataclasses
import gzip
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest

from auditor import audit
from auditor.files import write_atomic
from auditor.report_scan import leaks
from auditor.verify import finish, shown_records, verify_report
from protocol import openings
from protocol.errors import AuditorError


@pytest.fixture(scope="module")
def opened(honest):
    return tuple(openings.parse((honest.bundle / "openings.npz").read_bytes()))


@pytest.fixture(scope="module")
def schema(honest_evidence):
    return honest_evidence.case.schema


def png(pixels, kind):
    rows, above = b"", np.zeros(pixels.shape[1], dtype=np.int64)
    for row in pixels.astype(np.int64):
        left = np.concatenate([[0], row[:-1]])
        guess = {0: 0, 1: left, 2: above, 3: (left + above) // 2}[kind]
        rows += bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 8, 0, 0, 0, 0)
    data = zlib.compress(rows)
    half = len(data) // 2
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:])
        + chunk(b"IEND", b"")
    )  # fmt: skip


def zipped(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", data)
    return out.getvalue()


FORMS = {
    "salt": lambda one, row: b"x" + one.salt + b"y",
    "salt in hexadecimal": lambda one, row: json.dumps({"salt": one.salt.hex()}).encode(),
    "salt in base64": lambda one, row: base64.b64encode(one.salt),
    "json": lambda one, row: json.dumps({"X": one.values.tolist()}).encode(),
    "csv": lambda one, row: ",".join(str(v) for v in one.values.tolist()).encode(),
    "table": lambda one, row: b"".join(b"<td class='c'>%d</td>" % v for v in one.values.tolist()),
    "inputs": lambda one, row: " ".join(f"{v:.7g}" for v in row.tolist()).encode(),
    "a part of the row": lambda one, row: json.dumps(one.values[10:40].tolist()).encode(),
    "float32": lambda one, row: row.astype("<f4").tobytes(),
    "float64, big-endian": lambda one, row: row.astype(">f8").tobytes(),
    "int32": lambda one, row: b"\0" + one.values.astype("<i4").tobytes(),
    "bytes": lambda one, row: one.values.astype(np.uint8).tobytes(),
    "base64 of float32": lambda one, row: b"data:;base64," + base64.b64encode(row.astype("<f4").tobytes()),
    "gzip": lambda one, row: gzip.compress(json.dumps(one.values.tolist()).encode()),
    "zip": lambda one, row: zipped(one.values.astype("<i8").tobytes()),
    "compressed in base64": lambda one, row: base64.b64encode(zlib.compress(one.values.astype("<i2").tobytes())),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found(opened, schema, form):
    one = opened[7]
    row = schema.dequantise(one.values[None]).ravel()
    found = leaks({"page": b"<p>before</p>" * 5 + FORMS[form](one, row) if form not in ("gzip", "zip")
                   else FORMS[form](one, row)}, opened, schema)  # fmt: skip
    assert 7 in {leak.record for leak in found}


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_pictures_are_read(opened, schema, kind):
    pixels = opened[3].values.reshape(8, 8)
    grey = np.round(pixels * 255 / 16).astype(np.uint8)
    for shown in (pixels.astype(np.uint8), grey):
        uri = b"<img src='data:image/png;base64," + base64.b64encode(png(shown, kind)) + b"'>"
        assert 3 in {leak.record for leak in leaks({"page.html": uri}, opened, schema)}


def test_what_is_not_there_is_not_found(opened, schema):
    rng = np.random.default_rng(0)
    files = {
        "numbers": json.dumps(rng.integers(0, 17, 4000).tolist()).encode(),
        "bytes": rng.bytes(50_000),
        "background": b"0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 16",
        "broken": b"\x89PNG\r\n\x1a\n" + rng.bytes(40),
        "broken zip": b"PK\x03\x04" + rng.bytes(400),
    }
    assert leaks(files, opened, schema) == ()
    assert leaks(files, (), schema) == ()


def test_short_records_are_looked_for_by_their_salts(opened):
    short = tuple(dataclasses.replace(one, values=one.values[20:24]) for one in opened[:3])
    assert leaks({"a": json.dumps([one.values.tolist() for one in short]).encode()}, short) == ()
    assert [leak.form for leak in leaks({"a": short[1].salt}, short)] == ["salt"]


def test_a_report_shows_none_of_its_records_and_says_how_many_were_shown(workshop, honest, opened, tmp_path):
    inputs = workshop.inputs(honest, reference=None)
    outcome = audit.examine(inputs)
    audit.write_report(inputs, outcome, tmp_path / "report", force=False)
    figures = json.loads((tmp_path / "report" / "summary.json").read_bytes())["figures"]
    assert figures["shown_to_the_auditor"] == {
        "requested_records": 40, "retained_records": 200, "challenged_records": 200, "of_committed": 400,
        "answers_of_the_endpoint": 0, "requests_to_the_endpoint": 0,
    }  # fmt: skip
    bound = figures["retained_affected"]
    assert bound["moved"] == 0
    # 0 of n, exact: 1 - 0.025 ^ (1 / n).
    assert bound["share_at_most"] == pytest.approx(1 - 0.025 ** (1 / bound["opened"]), abs=1e-6)
    page = (tmp_path / "report" / "report.html").read_bytes()
    assert f"0 of {bound['opened']} retained records moved, at most {bound['share_at_most']:.2%}".encode() in page
    workshop.demo.settle()
    finish(tmp_path / "report", workshop.ledger, write=write_atomic)
    verified = verify_report(
        tmp_path / "report", policy=workshop.world.policy.read_bytes(), trust=workshop.world.trust.read_bytes()
    )
    assert shown_records(verified, bundle=honest.bundle, openings_folder=honest.openings) == (240, ())
    leaked = dataclasses.replace(verified, files={**verified.files, "x.html": opened[0].salt.hex().encode()})
    _, (finding,) = shown_records(leaked, bundle=honest.bundle, openings_folder=None)
    assert (finding.threat, "x.html" in finding.message) == ("retentive-auditor", True)


def test_a_page_that_would_show_a_record_is_not_written(workshop, honest, opened, tmp_path, monkeypatch):
    inputs = workshop.inputs(honest, reference=None)
    outcome = audit.examine(inputs)
    values = ", ".join(str(v) for v in opened[0].values.tolist())
    bad = dataclasses.replace(outcome, view=dataclasses.replace(outcome.view, audited_at=values))
    with pytest.raises(AuditorError, match="would show an opened record"):
        audit.write_report(inputs, bad, tmp_path / "report", force=False)
    assert not (tmp_path / "report").exists()
    # An owner that puts a record into its own words keeps no report from being written: the words are withheld.
    method = " ".join(str(v) for v in opened[0].values.tolist()[16:40])
    first = dataclasses.replace(outcome.view.checks[0], summary=f"the file {method} is not there")
    view = dataclasses.replace(
        outcome.view, names={**outcome.view.names, "method": method}, checks=(first, *outcome.view.checks[1:])
    )
    said = dataclasses.replace(outcome, view=view)
    audit.write_report(inputs, said, tmp_path / "report", force=False)
    assert b"withheld" in (tmp_path / "report" / "report.html").read_bytes()
    assert method.encode() not in (tmp_path / "report" / "report.html").read_bytes()
