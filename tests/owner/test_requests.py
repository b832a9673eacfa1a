"""Requests on a subject's behalf, and slips."""

import numpy as np
import pytest

from owner.architectures import mlp
from owner.training import train
from owner.workspace import Workspace
from protocol import messages, openings
from protocol.messages.request import Request
from protocol.model import profile
from protocol.model.recipe import Recipe
from tests.demo.world import Clock, World, must, run
from tests.owner.tiny import START, Tiny, one_line, save


def read(path):
    return messages.read(path.read_bytes(), Request)[1]


def test_scopes(tiny):
    own = Workspace(folder=tiny.commitment).records
    out = tiny.root / "r.json"
    assert tiny.ask("--records", "5, 4", out=out).code == 0
    found = read(out)
    assert (found.scope.kind, found.record_count, found.deadline) == ("records", 2, None)
    assert tiny.ask("--class", 2, "--deadline", "2027-01-01T00:00:00Z", "--force", out=out).code == 0
    found = read(out)
    assert (found.scope.kind, found.scope.klass) == ("class", 2)
    assert found.deadline > found.requested_at
    assert found.record_count == int((own.labels == 2).sum())
    assert tiny.ask("--subject", "person 7", "--force", out=out).code == 0
    found = read(out)
    assert (found.scope.kind, found.record_count) == ("subject", 3)
    assert "person" not in out.read_text()
    ran = tiny.ask("--trigger", "yellow square", "--force", out=out)
    assert ran.code == 0
    assert "cannot answer this request" in ran.err
    assert read(out).scope.kind == "trigger"
    assert read(out).record_count == 0
    one_line(tiny.unlearn(request=out), 2, "trigger", str(out))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ((), "exactly one of --records"),
        (("--records", "1", "--class", "1"), "exactly one of --records"),
        (("--records", ""), "separated by commas"),
        (("--records", "1,,2"), "separated by commas"),
        (("--records", "-1"), "separated by commas"),
        (("--records", "1.5"), "separated by commas"),
        (("--records", "9" * 5000), "separated by commas"),
        (("--records", "60"), "numbered 0 to 59"),
        (("--records", "5,5"), "each named once"),
        (("--class", "3"), "numbered 0 to 2"),
        (("--subject", "nobody"), "no committed record belongs to the subject 'nobody'"),
        (("--subject", ""), "no committed record"),
        (("--records", "1", "--deadline", "2020-01-01T00:00:00Z"), "deadline"),
    ],
)
def test_what_cannot_be_asked(tiny, what, words):
    before = tiny.entries()
    one_line(tiny.ask(*what), 2, words)
    assert tiny.entries() == before
    assert not (tiny.root / "another.json").exists()


def test_nothing_is_overwritten(tiny):
    before = tiny.request.read_bytes(), tiny.entries()
    one_line(tiny.ask("--records", 1, out=tiny.request), 2, "exists", "--force")
    assert (tiny.request.read_bytes(), tiny.entries()) == before
    beside = tiny.root / "fresh.leaves.json"
    beside.write_text("mine")
    one_line(tiny.ask("--records", 1, out=tiny.root / "fresh.json"), 2, "exists", "fresh.leaves.json")
    assert beside.read_text() == "mine"


def test_an_empty_class_can_be_removed(tiny):
    X = np.zeros((4, 4, 4), dtype=np.uint8)
    X[:, 0, 0] = [0, 5, 11, 16]
    data = save(tiny.root / "empty.npz", X_train=X, y_train=np.array([0, 0, 2, 2]))
    assert tiny.commit("--no-prepare", data=data).code == 0
    out, bundle = tiny.root / "class.json", tiny.root / "bundle"
    second = ("--commitment", tiny.root / "second")
    must("prune-owner", "request", *second, "--class", 1, *tiny.signing, "--out", out)
    assert read(out).record_count == 0
    ran = must("prune-owner", "unlearn", *second, "--request", out, *tiny.signing, "--out", bundle, "--json")
    assert ran.json["claims"] == 1
    assert not (bundle / "openings.npz").exists()
    graph = profile.parse((bundle / "patched.onnx").read_bytes(), operators=profile.PATCHED)
    from owner.execute import Program

    inputs = np.random.default_rng(0).uniform(0, 1, (500, 16)).astype(np.float32)
    assert not (Program(graph)(inputs).argmax(axis=1) == 1).any()


def test_a_slip_opens_a_subjects_records(tiny):
    out = tiny.root / "slip.npz"
    ran = tiny.owner("slip", "--commitment", tiny.commitment, "--subject", "person 7", "--out", out, "--json")
    assert ran.code == 0
    assert ran.json["records"] == 3
    assert out.stat().st_mode & 0o077 == 0
    slip = openings.parse_slip(out.read_bytes())
    commitment = Workspace(folder=tiny.commitment).commitment
    for opening in slip.openings:
        opening.verify(commitment.records_root, groups=commitment.group_count, count=commitment.record_count)
        assert opening.group_count == 3
    again = tiny.owner("slip", "--commitment", tiny.commitment, "--records", "1", "--out", out)
    one_line(again, 2, "exists", "--force")
    assert tiny.owner("slip", "--commitment", tiny.commitment, "--records", "1", "--out", out, "--force").code == 0
    one_line(tiny.owner("slip", "--commitment", tiny.commitment, "--out", tiny.root / "x"), 2, "exactly one")


def test_a_subject_of_data_without_subjects(tiny):
    with np.load(tiny.data) as arrays:
        data = save(tiny.root / "plain.npz", X_train=arrays["X_train"], y_train=arrays["y_train"])
    assert tiny.commit("--no-prepare", data=data).code == 0
    ran = tiny.owner("slip", "--commitment", tiny.root / "second", "--subject", "me", "--out", tiny.root / "s.npz")
    one_line(ran, 2, "names no subjects")


def test_a_real_subject_of_uci_har(shared_data, tmp_path):
    if not (shared_data / "uci_har.npz").is_file():
        pytest.skip("UCI HAR is not here")
    with np.load(shared_data / "uci_har.npz", allow_pickle=False) as arrays:
        X, y, subject = arrays["X_train"], arrays["y_train"].astype(np.int64), arrays["subject_train"]
    rows = np.flatnonzero(np.isin(subject, np.unique(subject)[:4]))
    X, y, subject = X[rows], y[rows], subject[rows]
    tiny = Tiny(World(root=tmp_path, clock=Clock(START)))
    tiny.world.build()
    members, recipe = [np.arange(len(y))], Recipe(epochs=3, batch=32)
    graph = train(mlp(561, (16,), classes=6), X, y, members=members, recipe=recipe, rng=np.random.default_rng(0)).model(
        0
    )
    tiny.model.write_bytes(profile.serialise(graph))
    save(tiny.data, X_train=X, y_train=y, subject_train=subject)
    folder, me = tmp_path / "commitment", str(subject[0])
    must(
        "prune-owner",
        "commit",
        "--model",
        tiny.model,
        "--data",
        tiny.data,
        "--no-prepare",
        *tiny.signing,
        "--out",
        folder,
    )
    slip, request = tmp_path / "slip.npz", tmp_path / "request.json"
    ran = must("prune-owner", "slip", "--commitment", folder, "--subject", me, "--out", slip, "--json")
    mine = int((subject == subject[0]).sum())
    assert ran.json["records"] == mine
    must(
        "prune-auditor", "request", "--slip", slip, "--key", tiny.world.key("subject"), "--log", tiny.world.auditor_log,
        "--out", request,
    )  # fmt: skip
    for path in (request, tmp_path / "on-behalf.json"):
        if path != request:
            must("prune-owner", "request", "--commitment", folder, "--subject", me, *tiny.signing, "--out", path)
        assert read(path).record_count == mine
        assert read(path).on_behalf == (path != request)
        ran = run(
            "prune-owner", "unlearn", "--commitment", folder, "--request", path, "--target", "misclassify",
            *tiny.signing,
            "--out", tmp_path / f"bundle-{path.stem}", "--json",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        assert ran.json["claims"] == mine
