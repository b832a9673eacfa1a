"""Commit: what is fixed, what is refused, and how an interrupted run goes on."""

import errno
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper

from owner import commit
from owner.execute import Program
from owner.files import write_atomic
from owner.training import train
from owner.workspace import Workspace
from protocol import messages
from protocol.digests import sha256_hex
from protocol.errors import OwnerError
from protocol.log.store import Log
from protocol.messages.commitment import Commitment
from protocol.model import profile, recipe
from protocol.model.profile import make_node
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema
from tests.owner.tiny import base_model, one_line, records, save


def test_what_is_committed_is_what_is_there(tiny):
    folder = tiny.commitment
    _, found = messages.read((folder / "commitment.dsse.json").read_bytes(), Commitment)
    for name, digest in (("base.onnx", found.base), ("schema.json", found.schema), ("recipe.json", found.recipe),
                         ("manifest.json", found.subject), ("private/prepared.npz", found.prepared)):  # fmt: skip
        assert sha256_hex((folder / name).read_bytes()) == digest
    assert (folder / "base.onnx").read_bytes() == tiny.model.read_bytes()
    assert (found.record_count, found.group_count) == (60, 22)
    assert Log.open(tiny.world.owner_log).entry(0) == (folder / "commitment.dsse.json").read_bytes()
    assert Workspace(folder=folder).tree.root == found.records_root
    assert not (tiny.root / ".commitment.partial").exists()


def test_cross_fitted_outputs_come_from_models_that_never_saw_the_record(tiny):
    workspace = Workspace(folder=tiny.commitment)
    own, prepared = workspace.records, workspace.prepared
    inputs = workspace.schema.dequantise(own.values)
    members = [np.flatnonzero(prepared.fold != number) for number in range(3)]
    trained = train(
        workspace.base, inputs, own.labels, members=members, recipe=Recipe(epochs=2, batch=16),
        rng=np.random.default_rng([0, 1, 0, 1, 2]),
    )  # fmt: skip
    for number in range(3):
        rows = np.flatnonzero(prepared.fold == number)
        model = Program(trained.model(number))
        assert np.array_equal(model(inputs[rows]), prepared.logits[rows])
        assert np.array_equal(model(workspace.schema.dequantise(own.unseen_values)), prepared.unseen_logits[number])
    assert np.bincount(prepared.fold).tolist() == [20, 20, 20]


def interrupted(tiny, monkeypatch, after):
    """A commit that is killed when the given number of folds is done."""
    monkeypatch.setattr(commit, "_WORK", 1)
    done = []

    def count(path, data, *, secret=False):
        if "fold-" in path.name:
            if len(done) == after:
                raise KeyboardInterrupt
            done.append(path)
        write_atomic(path, data, secret=secret)

    with monkeypatch.context() as patched:
        patched.setattr(commit, "write_atomic", count)
        assert tiny.commit().code == 130  # interrupted, as shells count it; 1 would be a bug of ours
    assert not (tiny.root / "second").exists()
    return tiny.root / ".second.partial" / "private" / "folds"


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_run_resumes_to_the_same_bytes(tiny, monkeypatch, after):
    folds = interrupted(tiny, monkeypatch, after)
    kept = {path.name: path.stat().st_mtime_ns for path in folds.glob("*")} if folds.exists() else {}
    assert len(kept) == after
    trained = []
    real = commit.train
    monkeypatch.setattr(commit, "train", lambda *a, **k: trained.append(1) or real(*a, **k))
    ran = tiny.commit("--resume")
    assert ran.code == 0, ran.err
    assert len(trained) == 3 - after
    for name, when in kept.items():
        assert (tiny.root / "second" / "private" / "folds" / name).stat().st_mtime_ns == when
    whole = tiny.commit(out=tiny.root / "third")
    assert whole.code == 0
    prepared = [(tiny.root / name / "private" / "prepared.npz").read_bytes() for name in ("second", "third")]
    assert prepared[0] == prepared[1]


def test_without_resume_an_interrupted_run_begins_anew(tiny, monkeypatch):
    folds = interrupted(tiny, monkeypatch, 2)
    secret = (folds.parent / "secret.bin").read_bytes()
    assert tiny.commit().code == 0
    assert (tiny.root / "second" / "private" / "secret.bin").read_bytes() != secret


@pytest.mark.parametrize("change", ["data", "seed", "damage"])
def test_folds_of_another_task_are_not_used(tiny, monkeypatch, change):
    folds = interrupted(tiny, monkeypatch, 2)
    data, options = tiny.data, ["--resume"]
    if change == "data":
        X, y = records(60, 77)
        data = save(tiny.root / "other.npz", X_train=X, y_train=y)
    elif change == "seed":
        options += ["--seed", 9]
    else:
        (folds / "fold-0.npz").write_bytes(b"PK damaged")
        (folds / "fold-1.npz").unlink()
    trained = []
    real = commit.train
    monkeypatch.setattr(commit, "train", lambda *a, **k: trained.append(1) or real(*a, **k))
    assert tiny.commit(*options, data=data).code == 0
    assert len(trained) == 3


def after_logging(tiny, monkeypatch):
    def refuse(_):
        raise OwnerError("the power failed")

    with monkeypatch.context() as patched:
        patched.setattr(commit, "finish_folder", refuse)
        one_line(tiny.commit(), 2, "the power failed")


def test_a_run_interrupted_after_logging_is_finished_not_repeated(tiny, monkeypatch):
    before = tiny.entries()
    after_logging(tiny, monkeypatch)
    assert tiny.entries() == before + 1
    one_line(tiny.commit(), 2, "--resume")
    one_line(tiny.commit("--resume", "--seed", 5), 2, "logged a commitment to other files")
    ran = tiny.commit("--resume")
    assert ran.code == 0, ran.err
    assert tiny.entries() == before + 1
    envelope = (tiny.root / "second" / "commitment.dsse.json").read_bytes()
    assert Log.open(tiny.world.owner_log).entry(before) == envelope


def test_a_signed_but_unlogged_commitment_is_made_anew(tiny, monkeypatch):
    def refuse(*_, **__):
        raise OwnerError("the log is away")

    with monkeypatch.context() as patched:
        patched.setattr(commit, "append", refuse)
        one_line(tiny.commit(), 2, "the log is away")
    (partial,) = tiny.root.glob(".second.partial")
    assert (partial / "commitment.dsse.json").is_file()
    assert tiny.commit("--resume").code == 0
    after_logging_garbage = tiny.root / ".third.partial"
    after_logging_garbage.mkdir()
    (after_logging_garbage / "commitment.dsse.json").write_bytes(b"{")
    assert tiny.commit(out=tiny.root / "third").code == 0


def test_force_replaces_only_by_something_complete(tiny):
    before = {path.name: path.read_bytes() for path in tiny.commitment.iterdir() if path.is_file()}
    one_line(tiny.commit(out=tiny.commitment), 2, "--force")
    broken = save(tiny.root / "broken.npz", X_train=np.zeros((3, 4)), y_train=np.zeros(3))
    assert tiny.commit("--force", out=tiny.commitment, data=broken).code != 0
    assert {path.name: path.read_bytes() for path in tiny.commitment.iterdir() if path.is_file()} == before
    secret = (tiny.commitment / "private" / "secret.bin").read_bytes()
    assert tiny.commit("--force", "--no-prepare", out=tiny.commitment).code == 0
    # Nothing of the old one is left, but the secret is the same: the same records have the same commitments.
    assert not (tiny.commitment / "requests").exists()
    assert not (tiny.commitment / "private" / "prepared.npz").exists()
    assert (tiny.commitment / "private" / "secret.bin").read_bytes() == secret
    assert not list(tiny.root.glob(".commitment.*"))


def test_the_same_ids_have_the_same_commitments(tiny):
    first = Workspace(folder=tiny.commitment).commitments_of([3, 5])
    with np.load(tiny.data) as arrays:
        parts = dict(arrays)
    order = np.arange(60)[::-1]
    parts |= {name: parts[name][order] for name in ("X_train", "y_train", "subject_train")}
    assert (
        tiny.commit("--force", "--no-prepare", out=tiny.commitment, data=save(tiny.root / "r.npz", **parts)).code == 0
    )
    assert Workspace(folder=tiny.commitment).commitments_of([56, 54]) == first


def test_a_damaged_secret(tiny):
    (tiny.commitment / "private" / "secret.bin").write_bytes(b"short")
    one_line(tiny.commit("--force", out=tiny.commitment), 2, "secret")


# --- what is refused -------------------------------------------------------------------------------------------------


def variant(tiny, **changes):
    with np.load(tiny.data) as arrays:
        parts = dict(arrays) | changes
    return save(tiny.root / "variant.npz", **{name: array for name, array in parts.items() if array is not None})


def foreign_model(tiny, op):
    """A model with an operator that the profile does not have."""
    node = helper.make_node(op, ["x"], ["y"])
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
    )  # fmt: skip
    path = tiny.root / "foreign.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    return path


def test_files_that_are_not_there(tiny):
    for name in ("--model", "--data", "--key", "--recipe", "--schema"):
        ran = tiny.commit(name, tiny.root / "nowhere")
        assert ran.code == 2
        assert "nowhere" in ran.err
        assert "Traceback" not in ran.err


def test_files_of_another_kind(tiny):
    text = tiny.root / "text"
    text.write_text("hello")
    one_line(tiny.commit(data=text), 4, "not an .npz file", str(text))
    one_line(tiny.commit(model=text), 4, str(text))
    one_line(tiny.commit("--recipe", text), 4, str(text))
    one_line(tiny.commit("--schema", text), 4, str(text))
    one_line(tiny.commit("--key", text), 4, str(text))


def test_a_model_outside_the_profile_is_named_by_its_operator(tiny):
    path = foreign_model(tiny, "Sigmoid")
    one_line(tiny.commit(model=path), 4, "Sigmoid", str(path))


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"y_train": np.full(60, 3)}, 2, "class 3; the model has 3 classes"),
        ({"y_test": np.full(30, 7)}, 2, "y_test has class 7"),
        ({"X_train": np.full((60, 4, 4), np.nan), "X_test": None, "y_test": None}, 4, "NaN"),
        ({"X_train": None}, 4, "no array X_train"),
        ({"X_train": np.zeros((60, 5)), "X_test": None, "y_test": None}, 2, "do not fit the model's input"),
        ({"X_train": np.arange(960).reshape(60, 16) << 20, "X_test": None, "y_test": None}, 2, "--schema"),
    ],
)
def test_data_that_does_not_go_with_the_model(tiny, changes, code, words):
    before = tiny.entries()
    one_line(tiny.commit(data=variant(tiny, **changes)), code, words)
    assert tiny.entries() == before
    assert not (tiny.root / "second").exists()


def test_one_record(tiny):
    X, y = records(1, 5)
    one = save(tiny.root / "one.npz", X_train=X, y_train=y)
    one_line(tiny.commit(data=one), 2, "--folds", "--no-prepare")
    assert tiny.commit("--no-prepare", "--force", data=one).code == 0
    ran = tiny.owner("request", "--commitment", tiny.root / "second", "--records", 0, *tiny.signing,
                     "--out", tiny.root / "one.json")  # fmt: skip
    assert ran.code == 0
    for target, words in (("match", "--no-prepare"), ("misclassify", "no other class")):
        ran = tiny.owner("unlearn", "--commitment", tiny.root / "second", "--request", tiny.root / "one.json",
                         *tiny.signing,
                         "--target", target, "--out", tiny.root / "b")  # fmt: skip
        one_line(ran, 2, words)


def test_data_without_unseen_records(tiny):
    assert tiny.commit(data=variant(tiny, X_test=None, y_test=None)).code == 0
    assert Workspace(folder=tiny.root / "second").prepared.unseen_logits.shape == (3, 0, 3)


def test_a_given_schema(tiny):
    path = tiny.root / "schema.json"
    good = InputSchema.uniform((16,), scale=16.0, low=0, high=16)
    path.write_bytes(good.to_bytes())
    assert tiny.commit("--no-prepare", "--schema", path).code == 0
    assert Workspace(folder=tiny.root / "second").schema == good
    path.write_bytes(InputSchema.uniform((16,), scale=16.0, low=0, high=12).to_bytes())
    one_line(tiny.commit("--schema", path, "--force"), 2, "outside the schema's ranges", "first")
    path.write_bytes(InputSchema.uniform((4, 4), scale=16.0, low=0, high=16).to_bytes())
    one_line(tiny.commit("--schema", path, "--force"), 2, "the model reads (16,)")
    path.write_bytes(InputSchema.uniform((16,), scale=16.0, offset=1e9, low=0, high=16).to_bytes())
    one_line(tiny.commit("--schema", path, "--force"), 4, "survive float32", str(path))
    path.write_bytes(InputSchema.uniform((1, 4, 4), scale=16.0, low=0, high=16, layout="nhwc-to-nchw").to_bytes())
    one_line(tiny.commit("--schema", path, "--force"), 2, "the model reads (16,)")


def test_a_schema_of_another_layout(tiny):
    X, y = records(60, 5)
    wide = save(tiny.root / "wide.npz", X_train=X.reshape(60, 2, 2, 4), y_train=y)
    model, schema = tiny.root / "image.onnx", tiny.root / "schema.json"
    graph = profile.parse(base_model(X, y))
    first = make_node("Flatten", ("image",), "flat_image", axis=1)
    nodes = tuple(
        replace(node, inputs=tuple("flat_image" if name == graph.input else name for name in node.inputs))
        for node in graph.nodes
    )
    model.write_bytes(profile.serialise(replace(graph, input="image", input_shape=(4, 2, 2), nodes=(first, *nodes))))
    schema.write_bytes(InputSchema.uniform((4, 2, 2), scale=16.0, low=0, high=16, layout="nhwc-to-nchw").to_bytes())
    assert tiny.commit("--no-prepare", "--schema", schema, data=wide, model=model).code == 0
    flat = save(tiny.root / "flat.npz", X_train=X, y_train=y)
    one_line(
        tiny.commit("--no-prepare", "--schema", schema, "--force", data=flat, model=model), 4, "do not fit", str(flat)
    )


def test_a_chance_model_is_warned_about(tiny):
    X, y = records(60, 5)
    model = tiny.root / "chance.onnx"
    model.write_bytes(base_model(X, (y + 1) % 3))
    ran = tiny.commit("--no-prepare", model=model)
    assert ran.code == 0
    assert "hardly better than chance" in ran.out


def test_a_diverging_recipe(tiny):
    path = tiny.root / "wild.json"
    path.write_bytes(recipe.serialise(Recipe(optimiser="sgd", rate=10.0, weight_decay=10.0, epochs=60, batch=16)))
    one_line(tiny.commit("--recipe", path), 2, "lower the recipe's rate")


def test_keys_of_another_kind(tiny):
    keys = tiny.world.keys
    one_line(tiny.commit("--key", keys / "witness-north.key"), 2, "witness's key")
    one_line(tiny.commit("--key", keys / "owner.vkey"), 4, ".vkey")
    one_line(tiny.commit("--key", keys / "log.owner.example.key"), 2, "log's own key")


def test_a_log_of_somebody_else(tiny):
    shutil.copy(tiny.world.key("log.auditor.example"), tiny.root / "log" / "owner.key")
    one_line(tiny.commit(), 2, "log.auditor.example")
    one_line(tiny.commit("--log", tiny.root), 2, str(tiny.root))


def test_places_that_cannot_be_written(tiny, monkeypatch):
    (tiny.root / "file").write_text("x")
    one_line(tiny.commit(out=tiny.root / "file"), 2, "is a file")
    one_line(tiny.commit(out=tiny.root / "file" / "below"), 2, "file")
    real = os.fsync
    count = []

    def full(descriptor):
        count.append(descriptor)
        if len(count) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        one_line(tiny.commit(), 2, "No space left on device")
    assert not (tiny.root / "second").exists()
    assert tiny.commit("--resume").code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tiny):
    (tiny.root / "locked").mkdir(mode=0o500)
    one_line(tiny.commit(out=tiny.root / "locked" / "second"), 2, "Permission denied")


def test_a_record_keeps_its_commitment_from_one_commitment_to_the_next(tiny, tmp_path):
    from owner.workspace import Workspace

    again, other = tmp_path / "again", tmp_path / "other"
    assert tiny.commit("--previous", tiny.commitment, out=again).code == 0
    assert tiny.commit(out=other).code == 0
    first = set(Workspace(folder=tiny.commitment).tree.commitments)
    assert set(Workspace(folder=again).tree.commitments) == first
    assert not set(Workspace(folder=other).tree.commitments) & first
