"""Hostile files under valid signatures: a finding and a report, or our own errors; never a traceback or a bare number.

Anything that the owner signed for is a result (REFUTED or INCONCLUSIVE); anything unsigned is an error
and accuses nobody.
"""

import dataclasses
import io
import json
import shutil
import zipfile

import numpy as np
import pytest

from auditor import audit
from auditor.evidence import load_reference
from owner.certify import Draft
from owner.journal import append, sign
from protocol import claims as claim_lines
from protocol import manifest, openings
from protocol.canonical import to_bytes
from protocol.digests import sha256_hex
from protocol.errors import MalformedError, VerificationError
from protocol.keys import load_signing_key
from tests.demo.world import run


def files_changed(**changes):
    """A draft with other bytes for some files, by path with `/` written as `__`; None leaves one out."""

    def change(scene):
        made = scene.draft()
        for name, data in changes.items():
            path = {"claims": "claims.jsonl", "openings": "openings.npz", "base": "base.onnx"}.get(name, f"{name}.json")
            if data is None:
                del made.files[path]
            else:
                role = made.files[path][0]
                made.files[path] = (role, data(made.files[path][1]) if callable(data) else data)
        return made

    return change


def added(path, role, data=b"x"):
    def change(scene):
        made = scene.draft()
        made.files[path] = (role, data)
        return made

    return change


def _zip_bomb(_: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", b"\0" * (64 << 20))
    return buffer.getvalue()


def _npz(_: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, X=np.full((40, 64), np.nan), y=np.zeros(40))
    return buffer.getvalue()


def _pickle(_: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, X=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


SIGNED = {
    "openings: a zip bomb": files_changed(openings=_zip_bomb),
    "openings: NaN": files_changed(openings=_npz),
    "openings: a pickle": files_changed(openings=_pickle),
    "openings: empty": files_changed(openings=b""),
    "claims: not JSON": files_changed(claims=b"{\n"),
    "claims: a blank line": files_changed(claims=lambda data: data + b"\n"),
    "claims: deep": files_changed(claims=b"[" * 100_000 + b"\n"),
    "claims: a number as radius": files_changed(claims=lambda data: data.replace(b'"radius":"', b'"radius":"-', 1)),
    "claims: NaN as a logit": files_changed(claims=lambda data: data.replace(b'"logits":["', b'"logits":["NaN","', 1)),
    "base: not ONNX": files_changed(base=b"\x80\x05pickle"),
    "base: empty": files_changed(base=b""),
    "schema: another": files_changed(schema=b"{}"),
    "schema: too fine for float32": files_changed(
        schema=lambda data: data.replace(b'"scale":"16"', b'"scale":"1e-40"')
    ),
    "recipe: not one": files_changed(recipe=b"{}"),
    "patch: not one": files_changed(patch=b"{}"),
    "a role that nobody knows": added("notes.txt", "poem"),
    "a second base": added("base2.onnx", "base"),
    "a second file of openings": added("more.npz", "opening"),
    "a list that belongs to no request": added("requests/007.leaves.json", "request-records", b"[]"),
    "no base": files_changed(base=None),
    "no schema": files_changed(schema=None),
    "no claims": files_changed(claims=None),
}


@pytest.fixture(scope="module")
def template(workshop):
    return workshop.forge(challenge=False)


@pytest.mark.parametrize("name", sorted(SIGNED))
def test_signed_hostile_files_are_findings(workshop, name):
    forged = workshop.forge(SIGNED[name], challenge=False)
    verdict, checks, findings = workshop.verdicts(forged)
    assert verdict == "REFUTED"
    assert checks["hygiene"] == "REFUTED"
    assert "hostile-artefact" in findings


def _resigned(workshop, name, raw):
    """A bundle whose manifest is these bytes, signed and logged like any other."""
    forged = workshop.forge(challenge=False)
    from protocol import messages
    from protocol.messages.certificate import Certificate

    _, old = messages.read((forged.bundle / "certificate.dsse.json").read_bytes(), Certificate)
    listing = json.loads((forged.bundle / "manifest.json").read_bytes())
    data = raw(listing)
    (forged.bundle / "manifest.json").write_bytes(data)
    envelope = sign(
        dataclasses.replace(old, subject=sha256_hex(data)).payload(), load_signing_key(workshop.world.key("owner"))
    )
    (forged.bundle / "certificate.dsse.json").write_bytes(envelope)
    (forged.bundle / "proofs" / "certificate.tlog-proof").write_bytes(append(workshop.world.owner_log, envelope))
    workshop.demo.settle(forged.bundle)
    return forged


def _path(new):
    def raw(listing):
        listing["files"][0]["path"] = new
        return to_bytes(listing)

    return raw


def _huge_size(listing):
    listing["files"][0]["size"] = 1 << 39
    return to_bytes(listing)


def _twice(listing):
    listing["files"].insert(0, listing["files"][0])
    return to_bytes(listing)


@pytest.mark.parametrize(
    "raw",
    [
        _path("../../../etc/passwd"), _path("/etc/passwd"), _path("a\\b"), _path("C:x"), _path("con"), _path(""),
        _path("\u202ecod.exe"), _twice, lambda _: b"{}", lambda _: b"", lambda _: b"\xff" * 40, _huge_size,
    ],
)  # fmt: skip
def test_signed_path_tricks_are_findings(workshop, raw, tmp_path):
    forged = _resigned(workshop, "paths", raw)
    inputs = workshop.inputs(forged)
    outcome = audit.examine(inputs)
    assert outcome.view.verdict == "REFUTED"
    assert {f.threat for f in outcome.view.findings} >= {"hostile-artefact"}
    report = audit.write_report(inputs, outcome, tmp_path / "report", force=False)
    assert report.verdict == "REFUTED"


def test_a_manifest_of_nothing_needs_the_commitment_that_the_certificate_names(workshop):
    forged = _resigned(workshop, "nothing", lambda _: b"{}")
    (forged.bundle / "commitment.dsse.json").write_bytes((forged.bundle / "certificate.dsse.json").read_bytes())
    with pytest.raises(VerificationError, match="not the commitment that the certificate names"):
        workshop.case(forged)


def test_two_requests_of_one_file_name(workshop):
    """The second would take the first one's receipt."""

    def change(scene):
        made = scene.draft()
        made.files["more/000.dsse.json"] = made.files["requests/000.dsse.json"]
        return made

    found = workshop.case(workshop.forge(change, challenge=False))
    assert len(found.requests) == 1
    assert "another request has this file name" in found.hostile[0].message


@pytest.mark.parametrize(
    "name", ["base.onnx", "patch.json", "claims.jsonl", "manifest.json", "certificate.dsse.json", "commitment.dsse.json",
             "proofs/certificate.tlog-proof", "proofs/commitment.tlog-proof"]
)  # fmt: skip
def test_a_file_that_got_lost_accuses_nobody(template, workshop, tmp_path, name):
    bundle = tmp_path / "bundle"
    shutil.copytree(template.bundle, bundle)
    (bundle / name).unlink()
    with pytest.raises((MalformedError, VerificationError), match=name):
        workshop.case(dataclasses.replace(template, bundle=bundle))


def test_not_a_folder(workshop, template):
    with pytest.raises(MalformedError, match="is not a folder"):
        workshop.case(dataclasses.replace(template, bundle=template.bundle / "nowhere"))


# --- opened records ---------------------------------------------------------------------------------


def opened_changed(change):
    """The openings of the bundle, each through `change`."""

    def make(scene) -> Draft:
        made = scene.draft()
        found = openings.parse(made.files["openings.npz"][1])
        made.files["openings.npz"] = (
            "opening", openings.serialise([change(o) for o in found], features=len(change(found[0]).values))
        )  # fmt: skip
        return made

    return make


@pytest.mark.parametrize(
    "change",
    [
        lambda o: dataclasses.replace(o, values=o.values[:10]),
        lambda o: dataclasses.replace(o, values=o.values + 1_000_000),
        lambda o: dataclasses.replace(o, label=4_000_000_000),
        lambda o: dataclasses.replace(o, group_count=o.group_count + 1),
        lambda o: dataclasses.replace(o, group_start=0),
        lambda o: dataclasses.replace(o, group_start=1 << 31, group_count=1 << 31),
        lambda o: dataclasses.replace(o, group_index=(o.group_index + 1) % 400),
        lambda o: dataclasses.replace(o, record_path=o.record_path[:-1]),
        lambda o: dataclasses.replace(o, salt=bytes(32)),
    ],
)
def test_opened_records_that_are_not_the_committed_ones(workshop, change):
    verdict, checks, findings = workshop.verdicts(workshop.forge(opened_changed(change), challenge=False))
    assert verdict == "REFUTED"
    assert checks["completeness"] == "REFUTED"
    assert "substituted-record" in findings
    # What was opened falsely is no evidence of anything else.
    assert checks["redirection"] == checks["persistence"] == checks["membership"] == "INCONCLUSIVE"


@pytest.mark.parametrize("what", ["label", "features", "range"])
def test_committed_records_that_do_not_fit_the_model_are_not_left_out_silently(honest_evidence, what):
    """Committed with a class or value that the model does not have, a record would escape every attack."""
    from auditor.checks import completeness, locality, membership

    case = honest_evidence.case
    first, *rest = case.opened
    bad = {
        "label": dataclasses.replace(first, label=99),
        "features": dataclasses.replace(first, values=first.values[:5]),
        "range": dataclasses.replace(first, values=first.values + 100),
    }[what]
    challenged, *others = [
        o for o in honest_evidence.transcript.opened if o.commitment not in honest_evidence.requested
    ]
    off = dataclasses.replace(bad, index=challenged.index)
    changed = dataclasses.replace(
        honest_evidence,
        transcript=dataclasses.replace(honest_evidence.transcript, opened=(off, *others)),
    )
    # As if it had been committed so.
    vars(changed)["opened_by_commitment"] = {first.commitment: bad, **{o.commitment: o for o in rest}}
    assert changed.requested_missing == 1
    assert "do not fit" in completeness.check(changed).summary
    assert membership.check(changed, membership.Outcome()).verdict == "INCONCLUSIVE"
    assert locality.check(changed).verdict == "INCONCLUSIVE"


# --- the auditor's own data -------------------------------------------------------------------------


@pytest.fixture
def reference(workshop, tmp_path):
    with np.load(workshop.root / "data" / "ref.npz") as archive:
        X, y = archive["X"], archive["y"]

    def save(**arrays):
        path = tmp_path / "ref.npz"
        np.savez(path, **arrays)
        return path

    return X, y, save


def _refused(reference):
    X, y, _ = reference
    nan = X.astype(np.float64)
    nan[3, 2, 2] = np.nan
    return {
        "wrong shape": {"X": X[:, :4], "y": y},
        "no axis": {"X": np.zeros(400), "y": y},
        "fewer labels": {"X": X, "y": y[:-1]},
        "labels beyond": {"X": X, "y": y + 5},
        "negative labels": {"X": X, "y": y - 1},
        "labels as floats": {"X": X, "y": y.astype(float)},
        "two-dimensional labels": {"X": X, "y": y[:, None]},
        "NaN": {"X": nan, "y": y},
        "infinity": {"X": np.where(np.isnan(nan), np.inf, nan), "y": y},
        "beyond float32": {"X": np.where(np.isnan(nan), 1e300, nan), "y": y},
        "text": {"X": X.astype(str), "y": y},
        "complex": {"X": X.astype(complex), "y": y},
        "objects": {"X": X.astype(object), "y": y},
        "empty": {"X": X[:0], "y": y[:0]},
        "nothing inside the input box": {"X": X.astype(np.int64) + 100, "y": y},
        "wraps around": {"X": X.astype(np.uint64) - np.uint64(1 << 63), "y": y},
        "other names": {"A": X, "b": y},
    }


def test_reference_data_that_is_refused(workshop, honest, reference):
    case = workshop.case(honest)
    for name, arrays in _refused(reference).items():
        path = reference[2](**arrays)
        with pytest.raises(MalformedError, match=r"ref\.npz"):
            load_reference(path, case.schema, case.base.classes)
            pytest.fail(name)


@pytest.mark.parametrize("data", [b"", b"PK", b"\x93NUMPY", b"PK\x05\x06" + bytes(18), b"text"])
def test_files_that_are_no_reference_data(workshop, honest, tmp_path, data):
    case = workshop.case(honest)
    path = tmp_path / "ref.npz"
    path.write_bytes(data)
    with pytest.raises(MalformedError, match=r"ref\.npz"):
        load_reference(path, case.schema, case.base.classes)
    np.save(tmp_path / "one.npy", np.zeros(4))
    with pytest.raises(MalformedError, match=r"one\.npy"):
        load_reference(tmp_path / "one.npy", case.schema, case.base.classes)


def test_damaged_reference_archives_are_our_errors(workshop, honest, reference):
    case = workshop.case(honest)
    path = reference[2](X=reference[0], y=reference[1])
    np.savez_compressed(path, X=reference[0], y=reference[1])
    data = path.read_bytes()
    random = np.random.default_rng(0)
    for place in [*range(120), *random.integers(len(data), size=60)]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            load_reference(path, case.schema, case.base.classes)
        except MalformedError:
            continue


def test_real_valued_reference_data_come_to_the_grid(workshop, honest, reference):
    case = workshop.case(honest)
    X, y, save = reference
    whole = load_reference(save(X=X, y=y), case.schema, 10)
    real = load_reference(save(X=(X / 16).astype(np.float64), y=y), case.schema, 10)
    assert np.array_equal(whole.values, real.values)
    named = load_reference(save(X_test=X, y_test=y), case.schema, 10)
    assert np.array_equal(named.values, whole.values)
    mixed = load_reference(save(X=np.concatenate([X, X + 100]), y=np.concatenate([y, y])), case.schema, 10)
    assert (len(mixed.labels), mixed.outside) == (400, 400)


@pytest.mark.parametrize("what", ["one class", "ten records", "the forgotten ones", "mostly outside", "one record"])
def test_reference_data_from_which_nothing_follows(workshop, honest, honest_evidence, reference, what):
    X, y, save = reference
    values, labels = honest_evidence.requested_records
    outside = X.astype(np.int64)
    outside[: 3 * len(X) // 4] += 100
    path = {
        "one class": lambda: save(X=X[y == 3], y=y[y == 3]),
        "ten records": lambda: save(X=X[:10], y=y[:10]),
        "one record": lambda: save(X=X[:1], y=y[:1]),
        "the forgotten ones": lambda: save(X=values.astype(np.uint8).reshape(-1, 8, 8), y=labels),
        "mostly outside": lambda: save(X=outside, y=y),
    }[what]()
    verdict, checks, findings = workshop.verdicts(honest, reference=path)
    assert verdict == "INCONCLUSIVE", checks
    assert checks["membership"] in ("INCONCLUSIVE", "CONSISTENT")
    assert not findings  # data that tells nothing must not become an accusation
    if what == "mostly outside":
        assert checks["redirection"] == "INCONCLUSIVE"


def test_reference_data_for_another_model_is_an_error_that_names_it(workshop, honest, reference):
    path = reference[2](X=np.zeros((5, 3, 3), np.uint8), y=np.zeros(5, np.int64))
    with pytest.raises(MalformedError, match=r"ref\.npz"):
        workshop.verdicts(honest, reference=path)


def test_a_schema_that_does_not_fit_the_base_is_the_owners_fault(workshop):
    """The auditor's own data then fits neither; that is no reason to blame the data."""
    from protocol.model import schema as schema_file

    small = schema_file.InputSchema.uniform((9,), scale=16, low=0, high=16).to_bytes()
    verdict, checks, findings = workshop.verdicts(workshop.forge(files_changed(schema=small), challenge=False))
    assert verdict == "REFUTED"
    assert checks["binding"] == "REFUTED"
    assert "base-swap" in findings


def test_a_base_that_puts_out_nan(workshop, honest_evidence):
    from auditor.checks import boundedness, hygiene, locality, membership, persistence, redirection, utility

    case = honest_evidence.case
    huge = {
        name: (array * np.float32(1e30)) if array.ndim == 2 else array for name, array in case.base.initialisers.items()
    }
    for array in huge.values():
        array.flags.writeable = False
    evidence = dataclasses.replace(
        honest_evidence, case=dataclasses.replace(case, base=dataclasses.replace(case.base, initialisers=huge))
    )
    assert evidence.not_numbers
    assert hygiene.check(evidence).verdict == "REFUTED"
    for module in (boundedness, locality, persistence, redirection, utility):
        found = module.check(evidence)
        json.dumps(found.evidence, allow_nan=False)
    assert membership.check(evidence, membership.Outcome()).verdict == "INCONCLUSIVE"


def test_the_command_says_it_in_one_line(workshop, honest, tmp_path):
    world = workshop.world
    path = tmp_path / "ref.npz"
    path.write_bytes(b"nothing")
    ran = run(
        "prune-auditor", "audit", honest.bundle, *world.trusted(), "--profile", "redirection", "--openings",
        honest.openings, "--reference", path, "--key", world.key("auditor"), "--log", world.auditor_log,
        "--out", tmp_path / "report",
    )  # fmt: skip
    assert ran.code == 4
    assert ran.err.count("\n") == 1
    assert "ref.npz" in ran.err
    assert not (tmp_path / "report").exists()


def test_manifest_and_claims_helpers_are_what_the_owner_uses(honest):
    listing = manifest.parse((honest.bundle / "manifest.json").read_bytes())
    data = (honest.bundle / "claims.jsonl").read_bytes()
    assert listing.entry("claims.jsonl").sha256 == sha256_hex(data)
    assert len(claim_lines.parse_file(data)) == 40
