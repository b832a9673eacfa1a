"""The commitment folder: only what was committed is used, and request lists are found."""

import json
from dataclasses import replace

import numpy as np
import pytest

from owner.journal import append, sign
from owner.unlearn import read_request
from owner.workspace import Prepared, PrivateRecords, Workspace
from protocol import messages, records
from protocol.digests import sha256_hex
from protocol.errors import MalformedError, OwnerError
from protocol.keys import load_signing_key
from protocol.messages.request import Request, Scope, serialise_list
from tests.owner.tiny import one_line


@pytest.fixture
def workspace(tiny):
    return Workspace(folder=tiny.commitment)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_rows_and_commitments_are_inverse(workspace):
    rows = [0, 59, 7, 13]
    commitments = workspace.commitments_of(rows)
    assert workspace.rows_of(tuple(commitments)) == rows
    opened = workspace.open_rows(rows)
    own = workspace.records
    for row, commitment, opening in zip(rows, commitments, opened, strict=True):
        found = opening.verify(
            workspace.commitment.records_root,
            groups=workspace.commitment.group_count,
            count=workspace.commitment.record_count,
        )
        assert found == commitment
        assert np.array_equal(opening.values, own.values[row])
        assert opening.label == own.labels[row]
    again = workspace.open_indices([opening.index for opening in opened])
    assert [opening.commitment for opening in again] == commitments
    with pytest.raises(OwnerError, match="not in this commitment"):
        workspace.rows_of((bytes(32),))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("base.onnx", "base"),
        ("schema.json", "schema"),
        ("recipe.json", "recipe_bytes"),
        ("private/prepared.npz", "prepared"),
    ],
)
def test_another_file_than_the_committed_one_is_refused(workspace, name, part):
    flip(workspace.folder / name)
    with pytest.raises(OwnerError, match="not the file that was committed") as caught:
        getattr(workspace, part)
    assert name in caught.value.where


def test_other_private_records_are_refused(workspace):
    own = workspace.records
    values = own.values.copy()
    values[3, 2] += 1
    replace(own, values=values).write(workspace.private)
    with pytest.raises(OwnerError, match="not the ones that were committed"):
        assert Workspace(folder=workspace.folder).tree.root


@pytest.mark.parametrize("name", ["records.npz", "subjects.json"])
def test_damaged_private_records(workspace, name):
    (workspace.private / name).write_bytes(b"{")
    with pytest.raises(OwnerError, match="damaged"):
        assert len(workspace.records.labels)
    (workspace.private / name).unlink()
    with pytest.raises(OwnerError, match="cannot be read"):
        PrivateRecords.read(workspace.private)


def test_private_is_private(workspace):
    assert workspace.private.stat().st_mode & 0o077 == 0
    for path in workspace.private.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path


def test_prepared_round_trip():
    random = np.random.default_rng(0)
    own = Prepared(
        logits=random.normal(size=(5, 3)).astype(np.float32),
        fold=np.arange(5),
        unseen_logits=random.normal(size=(2, 4, 3)).astype(np.float32),
    )
    again = Prepared.parse(own.to_bytes())
    assert np.array_equal(again.logits, own.logits)
    assert np.array_equal(again.unseen_logits, own.unseen_logits)
    with pytest.raises(MalformedError):
        Prepared.parse(b"PK")


def test_without_cross_fitting_there_is_nothing_prepared(tiny):
    assert tiny.commit("--no-prepare").code == 0
    assert Workspace(folder=tiny.root / "second").prepared is None


def test_the_list_is_found_beside_the_request(tiny, workspace):
    (listed,) = (workspace.folder / "requests").glob("*.leaves.json")
    listed.unlink()
    assert len(read_request(workspace, tiny.request).listed) == 3
    assert listed.is_file()  # and remembered


def test_the_list_is_found_among_known_requests(tiny, workspace):
    tiny.request.with_suffix(".leaves.json").unlink()
    tiny.request.with_suffix(".tlog-proof").unlink()
    found = read_request(workspace, tiny.request)
    assert sorted(workspace.rows_of(found.listed)) == [3, 17, 40]
    assert found.proof is not None


def test_a_wrong_list_beside_does_not_hide_the_right_one(tiny, workspace):
    tiny.request.with_suffix(".leaves.json").write_bytes(serialise_list([bytes(32)]))
    assert len(read_request(workspace, tiny.request).listed) == 3


@pytest.mark.parametrize("what", [("--class", 1), ("--subject", "person 3")])
def test_the_list_is_derived_from_the_committed_data(tiny, workspace, what):
    out = tiny.root / "derived.json"
    assert tiny.ask(*what, out=out).code == 0
    wanted = read_request(workspace, out).listed
    for path in [out.with_suffix(".leaves.json"), *(workspace.folder / "requests").iterdir()]:
        path.unlink()
    found = read_request(Workspace(folder=workspace.folder), out)
    assert found.listed == wanted == tuple(sorted(wanted))
    assert len(wanted) > 1
    out.with_suffix(".tlog-proof").unlink()
    for path in (workspace.folder / "requests").iterdir():
        path.unlink()
    assert read_request(Workspace(folder=workspace.folder), out).proof is None


def test_a_lost_list_is_told(tiny, workspace):
    beside = tiny.request.with_suffix(".leaves.json")
    for path in (workspace.folder / "requests").iterdir():
        path.unlink()
    beside.write_bytes(b"[]")
    one_line(tiny.unlearn(), 2, "request.leaves.json", "not the list that the request's root stands for")
    beside.unlink()
    one_line(tiny.unlearn(), 2, "request.leaves.json", str(tiny.request))


def test_a_group_of_nobody_here(tiny, workspace):
    request = Request(
        subject=sha256_hex(workspace.envelope), scope=Scope(kind="subject", group="ab" * 32), records_root=bytes(32),
        record_count=2, on_behalf=False, requested_at=1, deadline=None,
    )  # fmt: skip
    path = tiny.root / "strange.json"
    path.write_bytes(sign(request.payload(), load_signing_key(tiny.world.key("owner"))))
    with pytest.raises(OwnerError, match="is missing"):
        read_request(workspace, path)


def test_a_request_about_another_commitment(tiny):
    assert tiny.commit("--no-prepare").code == 0
    ran = tiny.owner(
        "unlearn", "--commitment", tiny.root / "second", "--request", tiny.request, *tiny.signing,
        "--out", tiny.root / "bundle", "--target", "misclassify",
    )  # fmt: skip
    one_line(ran, 2, "another commitment", str(tiny.request))
    assert not (tiny.root / "bundle").exists()


def test_a_record_of_another_commitment(tiny, workspace):
    listed = (bytes(range(32)),)
    request = Request(
        subject=sha256_hex(workspace.envelope), scope=Scope(kind="records"), records_root=records.list_root(listed),
        record_count=1, on_behalf=False, requested_at=1, deadline=None,
    )  # fmt: skip
    envelope = sign(request.payload(), load_signing_key(tiny.world.key("owner")))
    path = tiny.root / "strange.json"
    path.write_bytes(envelope)
    path.with_suffix(".leaves.json").write_bytes(serialise_list(listed))
    path.with_suffix(".tlog-proof").write_bytes(append(tiny.world.owner_log, envelope))
    one_line(tiny.unlearn(request=path), 2, "not in this commitment")


def test_a_folder_that_cannot_be_written_is_enough_to_answer(tiny, workspace, monkeypatch):
    def refuse(*_, **__):
        raise OwnerError("read-only")

    monkeypatch.setattr("owner.workspace.write_atomic", refuse)
    assert len(read_request(workspace, tiny.request).listed) == 3


def test_the_folder_is_no_commitment(tiny, tmp_path):
    ran = tiny.owner("request", "--commitment", tmp_path, "--records", 1, *tiny.signing, "--out", tmp_path / "r.json")
    one_line(ran, 2, "cannot be read")
    (tiny.commitment / "commitment.dsse.json").write_bytes(b"{}")
    one_line(tiny.ask("--records", 1), 4)


def test_known_requests_are_what_was_logged(workspace, tiny):
    (kept,) = (workspace.folder / "requests").glob("*[0-9a-f].json")
    assert kept.read_bytes() == tiny.request.read_bytes()
    _, request = messages.read(kept.read_bytes(), Request)
    assert request.on_behalf
    assert request.record_count == 3
    assert json.loads(kept.with_suffix(".leaves.json").read_bytes()) == json.loads(
        tiny.request.with_suffix(".leaves.json").read_bytes()
    )
