"""The owner's data files: `.npz` with `X_train`, `y_train` and, where there are, subjects, ids and unseen data.

Also how raw values become the integers that a record commitment holds: `infer_schema` looks at the
values and at what the base model makes of them. Source: SPEC 8.4 (the form of data files).
"""

import hashlib
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped

from protocol.errors import MalformedError, OwnerError, Schema
from protocol.model.graph import Graph
from protocol.model.schema import InputSchema, Layout

Predict = Callable[[Float32[np.ndarray, "record ..."]], Float32[np.ndarray, "record class"]]
_SAMPLE = 2_000
_ARRAYS = ("X_train", "y_train", "subject_train", "id_train", "X_test", "y_test")
# Everything that numpy and zipfile raise for bytes that are no such file.
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Training records, and records that were not trained on (`unseen`, possibly none). Raw values."""

    values: Shaped[np.ndarray, "record ..."]
    labels: Int[np.ndarray, "record"]
    subjects: tuple[str, ...]
    identifiers: tuple[str, ...]
    unseen_values: Shaped[np.ndarray, "unseen ..."]
    unseen_labels: Int[np.ndarray, "unseen"]


def _content_identifiers(values: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    # Without ids, a record's own content is what stays the same from one commitment to the next.
    counts: Counter[str] = Counter()
    result = []
    for row, label in zip(np.ascontiguousarray(values), labels, strict=True):
        digest = hashlib.sha256(row.tobytes() + int(label).to_bytes(4, "big")).hexdigest()
        result.append(f"{digest}:{counts[digest]}")
        counts[digest] += 1
    return tuple(result)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                raise Schema("not an .npz file; write it with numpy.savez", where=str(path))
            file.seek(0)
            return _members(file, path)
    except OSError as error:
        raise OwnerError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def _members(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in _ARRAYS if name in archive.files}
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Schema(f"not a readable .npz file: {reason}", where=str(path)) from None


def _labels(array: np.ndarray, name: str, total: int, path: Path) -> Int[np.ndarray, "record"]:
    if array.ndim != 1 or len(array) != total:
        raise Schema(f"{name} is of shape {array.shape}; one class number for each record is needed", where=str(path))
    if array.dtype.kind not in "biuf" or not np.array_equal(array, np.round(array.astype(np.float64))):
        raise Schema(f"{name} holds other things than class numbers", where=str(path))
    if total and not 0 <= int(array.min()) <= int(array.max()) < 1 << 32:
        raise Schema(f"{name} holds a negative or far too large class number", where=str(path))
    return array.astype(np.int64)


def _values(array: np.ndarray, name: str, path: Path) -> Shaped[np.ndarray, "record ..."]:
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise Schema(f"{name} is an array of {array.dtype}; numbers are needed, a record a row", where=str(path))
    if array.dtype.kind == "f" and not np.isfinite(array.astype(np.float32)).all():
        raise Schema(f"{name} holds NaN, infinity, or numbers beyond float32", where=str(path))
    return array


def _names(array: np.ndarray, name: str, total: int, path: Path) -> tuple[str, ...]:
    if array.shape != (total,):
        raise Schema(f"{name} has another length than X_train", where=str(path))
    if array.dtype.kind not in "iuUS":
        raise Schema(f"{name} is an array of {array.dtype}; whole numbers or strings are needed", where=str(path))
    try:
        return tuple(value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in array.tolist())
    except UnicodeDecodeError:
        raise Schema(f"{name} holds bytes that are not UTF-8", where=str(path)) from None


def load_dataset(path: Path) -> Dataset:
    """Read a data file.

    Raises:
        MalformedError: not of the form that SPEC 8.4 describes.
        OwnerError: no such file, or one id twice.
    """
    arrays = _read(path)
    for name in ("X_train", "y_train"):
        if name not in arrays:
            raise Schema(f"holds no array {name}", where=str(path))
    with np.errstate(over="ignore"):
        values = _values(arrays["X_train"], "X_train", path)
        unseen = _values(arrays.get("X_test", values[:0]), "X_test", path)
    total = len(values)
    if total == 0 or 0 in values.shape:
        raise Schema("X_train is empty", where=str(path))
    labels = _labels(arrays["y_train"], "y_train", total, path)
    subjects: tuple[str, ...] = ("",) * total
    if "subject_train" in arrays:
        subjects = _names(arrays["subject_train"], "subject_train", total, path)
    identifiers = (
        _names(arrays["id_train"], "id_train", total, path)
        if "id_train" in arrays
        else _content_identifiers(values, labels)
    )
    if len(set(identifiers)) != total:
        raise OwnerError("id_train names one record twice", where=str(path))
    if unseen.shape[1:] != values.shape[1:]:
        raise Schema("records of X_test have another shape than those of X_train", where=str(path))
    return Dataset(
        values=values,
        labels=labels,
        subjects=subjects,
        identifiers=identifiers,
        unseen_values=unseen,
        unseen_labels=_labels(arrays.get("y_test", labels[:0]), "y_test", len(unseen), path),
    )


def layout_for_model(values: Shaped[np.ndarray, "record ..."], shape: tuple[int, ...]) -> Layout:
    """How records of the data file become the model's input: as they are (reshaped), or channels brought to the front.

    Raises:
        OwnerError: no reading of these axes fits the model.
    """
    own = values.shape[1:]
    if own == shape:
        return "as-is"
    if len(own) == 3 and len(shape) == 3 and own == (*shape[1:], shape[0]):
        return "nhwc-to-nchw"
    # Between two orders of three axes a reshape would scramble the picture; flattening or unflattening is no guess.
    if int(np.prod(own)) != int(np.prod(shape)) or (len(own) == len(shape) == 3 and 1 not in own):
        raise OwnerError(f"records of shape {own} do not fit the model's input {shape}")
    return "as-is"


def _surprise(predict: Predict, inputs: np.ndarray, labels: np.ndarray) -> float:
    # Mean cross-entropy in nats.
    logits = predict(inputs).astype(np.float64)
    top = logits.max(axis=1)
    return float(
        (top + np.log(np.exp(logits - top[:, None]).sum(axis=1)) - logits[np.arange(len(logits)), labels]).mean()
    )


def _integer_schema(graph: Graph, raw: np.ndarray, labels: np.ndarray, predict: Predict) -> InputSchema:
    # Integers in the file, but which scale was the model trained on? Inputs that are too small leave a network
    # undecided, which shows; inputs that are too large hardly change which class a network of ReLUs prefers, and make
    # it surer, which does not. So: the smallest inputs under which it is not clearly more surprised than under others.
    low, high = int(raw.min()), int(raw.max())
    if low >= 0 and high <= 1:
        return InputSchema.uniform(graph.input_shape, kind="binary", scale=1.0, offset=0.0, low=0, high=1)
    if low >= 0 and high <= 255:
        top = 255 if high > 16 else high
        scales = [float(top), 1.0] if top == 255 else [float(top), 255.0, 1.0]
        chosen = slice(None, None, max(1, len(raw) // _SAMPLE))
        sample = raw[chosen].astype(np.float64)
        surprise = [_surprise(predict, (sample / scale).astype(np.float32), labels[chosen]) for scale in scales]
        enough = min(surprise) + 0.25 * float(np.log(predict(sample[:1].astype(np.float32)).shape[1]))
        smallest_first = sorted(zip(scales, surprise, strict=True), reverse=True)
        scale = next(scale for scale, value in smallest_first if value <= enough)
        return InputSchema.uniform(graph.input_shape, kind="grid", scale=scale, offset=0.0, low=0, high=top)
    features = raw.reshape(len(raw), -1)
    return InputSchema.from_columns(
        graph.input_shape,
        scale=np.ones(features.shape[1]),
        offset=np.zeros(features.shape[1]),
        low=features.min(axis=0),
        high=features.max(axis=0),
    )


def infer_schema(graph: Graph, values: np.ndarray, labels: np.ndarray, predict: Predict) -> InputSchema:
    """The declared input grid for a data file's training values; see `_infer`.

    Raises:
        OwnerError: the values do not fit the model's input.
    """
    layout = layout_for_model(values, graph.input_shape)
    plain = InputSchema.uniform(graph.input_shape, scale=1.0, low=0, high=1, layout=layout)
    return replace(_infer(graph, plain.arrange(values), labels, predict), layout=layout)


def _infer(graph: Graph, raw: np.ndarray, labels: np.ndarray, predict: Predict) -> InputSchema:
    """The declared input grid for raw values that fit the model's input.

    Integers keep their steps (a model trained on x / 255 is recognised by its accuracy); fractions
    of 255 or 16 likewise; other real columns in [-1, 1] get steps of 2/255, wider ones 254 steps
    over their range (over a thousandth of their size, where that is more).

    Args:
        graph: the base model.
        raw: training values with the model's input shape.
        labels: their classes.
        predict: the base model.

    Raises:
        OwnerError: more than 2^20 columns of different kinds, or values beyond float32.
    """
    try:
        if np.issubdtype(raw.dtype, np.integer) or raw.dtype == np.bool_:
            return _integer_schema(graph, raw, labels, predict)
        features = raw.reshape(len(raw), -1).astype(np.float64)
        low, high = float(features.min()), float(features.max())
        if np.array_equal(features, np.round(features)) and abs(low) < 2**15 and abs(high) < 2**15:
            whole = np.round(raw).astype(np.int64)
            if low >= 0 and high <= 1:
                return InputSchema.uniform(graph.input_shape, kind="binary", scale=1.0, offset=0.0, low=0, high=1)
            # Real-typed whole numbers are already what the model reads: no other scale is tried.
            columns = whole.reshape(len(raw), -1)
            return InputSchema.from_columns(
                graph.input_shape,
                scale=np.ones(columns.shape[1]),
                offset=np.zeros(columns.shape[1]),
                low=np.full(columns.shape[1], columns.min()),
                high=np.full(columns.shape[1], columns.max()),
            )
        if low >= 0 and high <= 1:
            for steps in (16, 255):
                if np.abs(features * steps - np.round(features * steps)).max() < 1e-3:
                    return InputSchema.uniform(
                        graph.input_shape, kind="grid", scale=float(steps), offset=0.0, low=0, high=steps
                    )
        if low >= -1 and high <= 1:
            return InputSchema.uniform(graph.input_shape, kind="grid", scale=127.5, offset=0.0, low=-128, high=128)
        bottom, top = features.min(axis=0), features.max(axis=0)
        # No finer than float32 can tell numbers of this size apart, with room for the gate's two roundings.
        span = np.maximum(top - bottom, 1e-3 * np.maximum(np.abs(bottom), np.abs(top)))
        scale = (254.0 / np.where(span > 1e-30, span, 1.0)).astype(np.float32).astype(np.float64)
        offset = (-bottom * scale).astype(np.float32).astype(np.float64)
        return InputSchema.from_columns(
            graph.input_shape,
            scale=scale,
            offset=offset,
            low=np.zeros(len(scale), dtype=np.int64),
            high=np.full(len(scale), 254, dtype=np.int64),
        )
    except MalformedError as error:
        raise OwnerError(f"no input schema fits the data: {error.message}; write one and give it as --schema") from None


def to_grid(
    schema: InputSchema, raw: Shaped[np.ndarray, "record ..."]
) -> tuple[Int[np.ndarray, "record feature"], Bool[np.ndarray, "record"]]:
    """Canonical records: values as they stand in a data file, on the schema's grid; and whether each lies inside it.

    Integers are grid values already; real values are rounded to the nearest step. What lies outside
    is moved to the nearest end.

    Raises:
        MalformedError: records of another size.
    """
    raw = schema.arrange(raw)
    if raw.dtype.kind in "biu":
        flat = raw.reshape(len(raw), schema.features)
        if len(flat) and (flat.min(axis=0) >= schema.low).all() and (flat.max(axis=0) <= schema.high).all():
            return flat.astype(np.int32), np.ones(len(flat), dtype=bool)  # the common case, without wide copies
        wide = flat.astype(np.int64)
        inside = np.logical_and.reduce((wide >= schema.low) & (wide <= schema.high), axis=1)
        return np.clip(wide, schema.low, schema.high).astype(np.int32), inside
    return schema.quantise(raw.astype(np.float32))
