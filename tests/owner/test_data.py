"""Data files as owners have them: what is read, what is refused, and which grid is inferred."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owner.data import infer_schema, layout_for_model, load_dataset, to_grid
from protocol.errors import MalformedError, OwnerError, Schema
from protocol.model.schema import InputSchema
from tests.owner.tiny import save

X = np.arange(24, dtype=np.uint8).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])


def model(shape):
    return SimpleNamespace(input_shape=shape)


def right_at(scale, classes=3):
    """A model that was trained on x / scale: it reads the class from its first input, raw value modulo classes."""

    def predict(inputs):
        raw = inputs.reshape(len(inputs), -1)[:, 0].astype(np.float64) * scale
        return np.eye(classes, dtype=np.float32)[np.rint(raw).astype(np.int64) % classes]

    return predict


def never(inputs):
    raise AssertionError("real values are not tried out")


def labels_of(raw):
    return raw.reshape(len(raw), -1)[:, 0].astype(np.int64) % 3


def columns(schema):
    return [np.unique(array).tolist() for array in (schema.scale, schema.offset, schema.low, schema.high)]


@pytest.mark.parametrize(
    ("top", "trained_on", "scale", "high"),
    [
        (255, 255, 255, 255),
        (255, 1, 1, 255),
        (200, 255, 255, 255),
        (16, 16, 16, 16),
        (16, 255, 255, 16),
        (16, 1, 1, 16),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_the_scale_of_integers_is_found_by_accuracy(top, trained_on, scale, high, kind):
    raw = np.random.default_rng(0).integers(0, top + 1, (3000, 4, 4)).astype(kind)
    raw[0, 0, :2] = [0, top]
    schema = infer_schema(model((1, 4, 4)), raw, labels_of(raw), right_at(trained_on))
    assert columns(schema) == [[scale], [0], [0], [high]]
    assert set(schema.kind) == {"grid"}
    values, inside = to_grid(schema, raw)
    assert inside.all()
    assert np.array_equal(values, raw.reshape(3000, 16))
    assert np.allclose(schema.dequantise(values).reshape(raw.shape), raw / trained_on)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int32, np.float32, np.float64])
def test_binary_columns(kind):
    raw = np.random.default_rng(0).integers(0, 2, (50, 5)).astype(kind)
    schema = infer_schema(model((5,)), raw, np.zeros(50, int), never)
    assert set(schema.kind) == {"binary"}
    assert columns(schema) == [[1], [0], [0], [1]]
    assert np.array_equal(to_grid(schema, raw)[0], raw)


def test_integer_tables_keep_their_steps_column_by_column():
    raw = np.random.default_rng(0).integers(-5, 90_000, (50, 3)).astype(np.int32)
    raw[:, 1] = np.arange(50) - 3
    schema = infer_schema(model((3,)), raw, np.zeros(50, int), never)
    assert schema.low.tolist() == raw.min(axis=0).tolist()
    assert schema.high.tolist() == raw.max(axis=0).tolist()
    assert np.array_equal(schema.dequantise(to_grid(schema, raw)[0]), raw.astype(np.float32))


@pytest.mark.parametrize("steps", [16, 255])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_fractions_are_whole_steps(steps, kind):
    whole = np.random.default_rng(0).integers(0, steps + 1, (200, 6))
    schema = infer_schema(model((6,)), (whole / steps).astype(kind), np.zeros(200, int), never)
    assert columns(schema) == [[steps], [0], [0], [steps]]
    assert np.array_equal(to_grid(schema, (whole / steps).astype(kind))[0], whole)


def test_whole_real_numbers_are_what_the_model_reads():
    raw = np.random.default_rng(0).integers(-20, 300, (100, 4)).astype(np.float32)
    schema = infer_schema(model((4,)), raw, np.zeros(100, int), never)
    assert columns(schema) == [[1], [0], [raw.min()], [raw.max()]]
    assert np.array_equal(schema.dequantise(to_grid(schema, raw)[0]), raw)


finite = st.floats(-1e6, 1e6, width=32)


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(st.lists(finite, min_size=2, max_size=2), min_size=2, max_size=8))
def test_any_real_column_is_within_half_a_step(rows):
    raw = np.array(rows, dtype=np.float32)
    schema = infer_schema(model((2,)), raw, np.zeros(len(raw), int), never)
    schema.check()
    values, inside = to_grid(schema, raw)
    assert inside.all()
    step = 1 / schema.scale.astype(np.float64)
    error = np.abs(schema.dequantise(values).astype(np.float64) - raw)
    assert (error <= 0.51 * step + 1e-6 * np.abs(raw)).all()


def test_signed_units_and_wide_columns():
    raw = np.random.default_rng(0).uniform(-1, 1, (100, 3)).astype(np.float32)
    raw[0] = [-1, 1, 0]
    schema = infer_schema(model((3,)), raw, np.zeros(100, int), never)
    assert columns(schema) == [[127.5], [0], [-128], [128]]
    assert to_grid(schema, raw)[1].all()
    wide = raw * [1, 50, 1000]
    schema = infer_schema(model((3,)), wide, np.zeros(100, int), never)
    assert columns(schema)[2:] == [[0], [254]]
    assert to_grid(schema, wide)[1].all()
    assert np.allclose(schema.scale * (wide.max(axis=0) - wide.min(axis=0)), 254, rtol=1e-3)
    constant = np.full((5, 3), 1.5)
    schema = infer_schema(model((3,)), constant, np.zeros(5, int), never)
    assert np.allclose(schema.dequantise(to_grid(schema, constant)[0]), 1.5, atol=1 / 254)


def test_what_no_grid_fits_is_refused_with_advice():
    raw = np.array([[0, 1 << 30], [1, 2]])
    with pytest.raises(OwnerError, match="--schema"):
        infer_schema(model((2,)), raw, np.zeros(2, int), never)


def test_channels_last_images_are_brought_to_the_models_layout():
    raw = np.random.default_rng(0).integers(0, 256, (20, 5, 6, 3)).astype(np.uint8)
    schema = infer_schema(model((3, 5, 6)), raw, labels_of(raw), right_at(255))
    assert schema.layout == "nhwc-to-nchw"
    values, _ = to_grid(schema, raw)
    assert np.array_equal(values.reshape(20, 3, 5, 6), raw.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("records", "shape", "layout"),
    [
        ((28, 28), (1, 28, 28), "as-is"),
        ((28, 28), (784,), "as-is"),
        ((784,), (1, 28, 28), "as-is"),
        ((28, 28, 1), (1, 28, 28), "nhwc-to-nchw"),
        ((3, 3, 3), (3, 3, 3), "as-is"),
        ((8, 8, 3), (192,), "as-is"),
        ((), (1,), "as-is"),
        ((8, 8, 3), (3, 8, 8), "nhwc-to-nchw"),
        ((3, 8, 8), (8, 8, 3), None),
        ((8, 6, 3), (3, 6, 8), None),
        ((5,), (4,), None),
        ((2, 3), (3, 3), None),
    ],
)
def test_layouts(records, shape, layout):
    raw = np.zeros((2, *records))
    if layout is None:
        with pytest.raises(OwnerError, match="do not fit"):
            layout_for_model(raw, shape)
    else:
        assert layout_for_model(raw, shape) == layout


def test_values_outside_a_given_grid_are_moved_and_told():
    schema = InputSchema.uniform((2,), scale=10.0, low=0, high=10)
    values, inside = to_grid(schema, np.array([[0, 10], [-1, 3], [11, 3]]))
    assert values.tolist() == [[0, 10], [0, 3], [10, 3]]
    assert inside.tolist() == [True, False, False]
    values, inside = to_grid(schema, np.array([[0.0, 1.04], [0.3, 1.2]]))
    assert values.tolist() == [[0, 10], [3, 10]]
    assert inside.tolist() == [True, False]
    assert to_grid(schema, np.zeros((0, 2), dtype=np.uint8))[0].shape == (0, 2)
    assert to_grid(schema, np.zeros((0, 2)))[0].shape == (0, 2)
    with pytest.raises(MalformedError):
        to_grid(schema, np.zeros((3, 5)))


def test_a_plain_file(tmp_path):
    data = load_dataset(save(tmp_path / "d.npz", X_train=X, y_train=Y))
    assert np.array_equal(data.values, X)
    assert data.labels.tolist() == Y.tolist()
    assert data.subjects == ("",) * 6
    assert len(data.unseen_labels) == 0
    assert data.unseen_values.shape == (0, 4)
    assert len(set(data.identifiers)) == 6


def test_content_is_the_identity_of_records_without_ids(tmp_path):
    first = load_dataset(save(tmp_path / "a.npz", X_train=X[[0, 1, 1]], y_train=Y[[0, 1, 1]]))
    second = load_dataset(save(tmp_path / "b.npz", X_train=X[[1, 0, 1]], y_train=Y[[1, 0, 1]]))
    assert set(first.identifiers) == set(second.identifiers)
    assert len(set(first.identifiers)) == 3
    relabelled = load_dataset(save(tmp_path / "c.npz", X_train=X[[1]], y_train=Y[[0]]))
    assert relabelled.identifiers[0] not in first.identifiers


def test_names_of_every_kind(tmp_path):
    for subjects in (np.arange(6), np.array(list("aabbcc")), np.array([b"\xc3\xa4"] * 6)):
        data = load_dataset(
            save(
                tmp_path / "d.npz", X_train=X, y_train=Y.astype(np.uint8), subject_train=subjects, id_train=np.arange(6)
            )
        )
        assert data.identifiers == tuple("012345")
        assert data.subjects[0] in {"0", "a", "ä"}
    # What is not ours to read is not read, not even if it would need unpickling.
    data = load_dataset(
        save(tmp_path / "d.npz", X_train=X, y_train=Y.astype(float), classes=np.array([{}], dtype=object))
    )
    assert data.labels.dtype == np.int64


def without(**arrays):
    full = {"X_train": X, "y_train": Y, "X_test": X[:2], "y_test": Y[:2]} | arrays
    return {name: array for name, array in full.items() if array is not None}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (without(X_train=None), "no array X_train"),
        (without(y_train=None), "no array y_train"),
        (without(X_train=X[:0], y_train=Y[:0]), "empty"),
        (without(X_train=np.zeros((6, 0)), X_test=None, y_test=None), "empty"),
        (without(X_train=np.float32(3)), "a record a row"),
        (without(X_train=np.array(["a"] * 6)), "numbers are needed"),
        (without(X_train=X * 1j), "numbers are needed"),
        (without(X_train=np.where(X == 3, np.nan, X)), "NaN"),
        (without(X_train=np.where(X == 3, np.inf, X)), "infinity"),
        (without(X_train=np.where(X == 3, 1e300, X)), "beyond float32"),
        (without(X_test=np.full((2, 4), np.nan)), "X_test holds NaN"),
        (without(y_train=Y[:5]), "one class number for each"),
        (without(y_train=np.eye(6)), "one class number for each"),
        (without(y_train=Y - 1), "negative"),
        (without(y_train=Y + 2.0**40), "too large"),
        (without(y_train=Y + 0.5), "other things than class numbers"),
        (without(y_train=np.where(Y == 1, np.nan, Y)), "other things than class numbers"),
        (without(y_train=np.array(list("abcabc"))), "other things than class numbers"),
        (without(y_test=Y[:1]), "y_test"),
        (without(y_test=-Y[1:3]), "y_test"),
        (without(y_test=None), "y_test"),
        (without(X_test=np.zeros((2, 5))), "another shape"),
        (without(subject_train=np.arange(5)), "subject_train has another length"),
        (without(subject_train=np.arange(6) / 2), "whole numbers or strings"),
        (without(subject_train=np.array([b"\xff"] * 6)), "not UTF-8"),
        (without(id_train=np.arange(7)), "id_train has another length"),
        (without(id_train=np.array([0, 1, 2, 3, 4, 4])), "twice"),
        (without(X_train=np.array([None] * 6)), "not a readable"),
    ],
)
def test_what_is_refused(tmp_path, arrays, words):
    with pytest.raises((MalformedError, OwnerError), match=words) as caught:
        load_dataset(save(tmp_path / "d.npz", **arrays))
    assert str(tmp_path) in caught.value.where
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"PK", b"PK\x03\x04" + bytes(40)])
def test_files_that_are_no_archives(tmp_path, content):
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    with pytest.raises(Schema, match="npz"):
        load_dataset(path)


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(OwnerError, match="cannot be read"):
            load_dataset(path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "d.npz"
    np.savez_compressed(path, X_train=X, y_train=Y)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_data_or_a_readable_error(archive, tmp_path, data):
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.npz"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(MalformedError, OwnerError):
        assert len(load_dataset(path).labels) == 6


@pytest.mark.parametrize("trained_on", [16.0, 1.0])
def test_a_real_models_scale_is_found_although_its_accuracy_hardly_tells(trained_on):
    from sklearn.datasets import load_digits

    from owner.architectures import mlp
    from owner.execute import Program
    from owner.training import train
    from protocol.model.recipe import Recipe

    digits = load_digits()
    raw, labels = digits.images[:600].astype(np.uint8), digits.target[:600].astype(np.int64)
    graph = mlp(64, (32,), classes=10)
    inputs = (raw.reshape(600, 64) / trained_on).astype(np.float32)
    trained = train(
        graph,
        inputs,
        labels,
        members=[np.arange(600)],
        recipe=Recipe(epochs=15, batch=32),
        rng=np.random.default_rng(0),
    )
    schema = infer_schema(graph, raw, labels, Program(trained.model(0)))
    assert schema.scale[0] == trained_on
