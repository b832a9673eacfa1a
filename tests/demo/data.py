"""Real data for the demonstration: scikit-learn's handwritten digits, or a file of the form that SPEC 8.4 describes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from owner.architectures import mlp, small_conv
from owner.training import train
from protocol.model import profile
from protocol.model.graph import Graph
from protocol.model.recipe import Recipe


@dataclass(frozen=True)
class Parts:
    """A data set, split three ways: trained on, kept by the owner and unseen, kept by the auditor and unseen."""

    name: str
    X_train: np.ndarray
    y_train: np.ndarray
    X_unseen: np.ndarray
    y_unseen: np.ndarray
    X_reference: np.ndarray
    y_reference: np.ndarray
    subjects: np.ndarray | None
    scale: float
    classes: int
    forget: int
    margin: float


def digits() -> Parts:
    """1,797 real 8x8 digits (UCI Optical Recognition of Handwritten Digits, as scikit-learn ships it)."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    order = np.random.default_rng(2026).permutation(len(loaded.target))
    X, y = loaded.images[order].astype(np.uint8), loaded.target[order].astype(np.int64)
    return Parts("digits", X[:997], y[:997], X[997:1097], y[997:1097], X[1097:], y[1097:], None, 16.0, 10, 150, 0.15)


def from_file(path: Path) -> Parts:
    """A data file, thinned to what a demonstration of two minutes can train on."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    X, y = arrays["X_train"], arrays["y_train"].astype(np.int64)
    X_test, y_test = arrays["X_test"], arrays["y_test"].astype(np.int64)
    random = np.random.default_rng(2026)
    rows = np.sort(random.permutation(len(X))[:4000])
    order = random.permutation(len(X_test))
    half = min(len(order) // 4, 500)
    unseen, reference = order[:half], order[half : half + 2500]
    image = X.dtype == np.uint8 and X.ndim >= 3
    return Parts(
        path.stem,
        X[rows],
        y[rows],
        X_test[unseen],
        y_test[unseen],
        X_test[reference],
        y_test[reference],
        arrays["subject_train"][rows] if "subject_train" in arrays else None,
        255.0 if image else 1.0,
        int(max(y.max(), y_test.max())) + 1,
        200,
        0.15,
    )


def model_inputs(parts: Parts, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Raw values as the base model reads them."""
    if values.ndim == 4 and len(shape) == 3 and values.shape[1:] != shape:
        values = np.moveaxis(values, 3, 1)
    return (values.reshape(len(values), *shape) / parts.scale).astype(np.float32)


def architecture(parts: Parts, kind: str) -> Graph:
    """An untrained base: a perceptron (wide or not), or a small residual convolutional network with batch normalisation."""
    shape = parts.X_train.shape[1:]
    if kind == "conv":
        channels = (shape[2], shape[0], shape[1]) if len(shape) == 3 else (1, *shape)
        return small_conv(channels, classes=parts.classes, width=8)
    hidden = (256, 128) if kind == "wide" else (128, 64)
    return mlp(int(np.prod(shape)), hidden, classes=parts.classes)


def train_base(parts: Parts, kind: str, recipe: Recipe, seed: int) -> bytes:
    """A base model trained on the spot, as an ONNX file."""
    graph = architecture(parts, kind)
    inputs = model_inputs(parts, parts.X_train, graph.input_shape)
    trained = train(
        graph,
        inputs,
        parts.y_train,
        members=[np.arange(len(inputs))],
        recipe=recipe,
        rng=np.random.default_rng(seed),
    )
    return profile.serialise(trained.model(0))
