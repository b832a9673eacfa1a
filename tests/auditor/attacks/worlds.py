"""A small model with a sketch patch around some records, and models whose memory is known."""

import numpy as np

from auditor import compose
from auditor.attacks.subjects import Subjects
from auditor.execute import Program
from protocol.model.patch import Part, Patch, SetHead, SketchGate
from protocol.model.schema import InputSchema
from tests.auditor.samples import mlp

CLASSES = 4
FEATURES = 16


def grid(features=FEATURES, high=16):
    return InputSchema.uniform((features,), scale=float(high), low=0, high=high)


def sketch_patch(random, values, *, components=24, radius=1, scale=4.0, features=FEATURES):
    matrix = random.integers(-1, 2, (components, features)).astype(np.int32)
    centre = values.astype(np.int64) @ matrix.T
    width = np.maximum(np.abs(matrix).sum(axis=1), 1) * radius
    gate = SketchGate(matrix=matrix, low=(centre - width).astype(np.int32), high=(centre + width).astype(np.int32))
    rows = (random.normal(size=(len(values), CLASSES)) * scale).astype(np.float32)
    head = SetHead(rows=rows, index=np.arange(len(values)))
    return Patch(
        features=features,
        classes=CLASSES,
        parts=(Part(gate=gate, head=head),),
    )


def patched_world(seed=0, *, forgotten=25, reference=120, radius=1, components=24):
    """Subjects of a composed model, its graph, base and patch; forgotten records come first."""
    random = np.random.default_rng(seed)
    schema, base = grid(), mlp([FEATURES, 12, CLASSES], seed=seed)
    values = random.integers(0, 17, (forgotten + reference, FEATURES))
    patch = sketch_patch(random, values[:forgotten], radius=radius, components=components)
    graph = compose.compose(base, schema, patch)
    subjects = Subjects(
        values=values,
        labels=random.integers(0, CLASSES, len(values)),
        forget=np.arange(len(values)) < forgotten,
        schema=schema,
        patched=Program(graph),
        base=Program(base),
    )
    return subjects, graph, base, patch


def remembering(values, schema, *, boost, reach, classes=CLASSES, labels=None):
    """A model that answers a weak function of its input, with `boost` more for the label near remembered records."""
    known = schema.dequantise(values).reshape(len(values), -1)
    directions = np.random.default_rng(7).normal(size=(known.shape[1], classes))

    def model(inputs):
        flat = inputs.reshape(len(inputs), -1)
        logits = 2.0 * (flat - 0.5) @ directions
        far = np.abs(flat[:, None] - known[None]).max(axis=2)
        nearest = far.argmin(axis=1)
        near = far[np.arange(len(flat)), nearest] <= reach
        logits[near, labels[nearest[near]]] += boost
        return logits.astype(np.float32)

    return model
