"""A7: what each kind of gate stores about a record, where the answer is known."""

import numpy as np
import pytest

from auditor.attacks.patch_read import FeatureMaterial, Ground, PatchRead, RegionMaterial, SketchMaterial, ridge
from auditor.execute import Program
from protocol.errors import AuditorError
from tests.auditor.attacks.worlds import FEATURES, grid
from tests.auditor.samples import mlp


def ground(*, forgotten=20, reference=200, rank=None, seed=0):
    """Records; with `rank`, all of them near a space of that many dimensions, as real data are."""
    random = np.random.default_rng(seed)
    total = forgotten + reference
    if rank is None:
        values = random.integers(0, 17, (total, FEATURES))
    else:
        mixed = random.normal(size=(total, rank)) @ random.normal(size=(rank, FEATURES)) * 2 + 8
        values = np.clip(np.rint(mixed), 0, 16).astype(int)
    labels = random.integers(0, 3, total)
    return Ground(
        schema=grid(),
        reference=values[forgotten:],
        reference_labels=labels[forgotten:],
        truth=values[:forgotten],
        labels=labels[:forgotten],
    )


def sketch(known, components, radius=1, seed=1):
    matrix = np.random.default_rng(seed).integers(-2, 3, (components, FEATURES))
    reach = np.full(len(known.truth), radius)
    low, high = known.schema.low, known.schema.high
    bottom, top = np.maximum(known.truth - radius, low), np.minimum(known.truth + radius, high)
    positive, negative = np.maximum(matrix, 0), np.minimum(matrix, 0)
    return SketchMaterial(
        matrix=matrix,
        low=bottom @ positive.T + top @ negative.T,
        high=top @ positive.T + bottom @ negative.T,
        radius=reach,
    )


def read(material, known, **settings):
    return PatchRead(**settings)(material, known, np.random.default_rng(0))


def test_a_sketch_of_full_rank_is_the_record():
    known = ground()
    found = read(sketch(known, 24), known)
    assert found.value < 0.05
    assert found.high < 0.2
    assert found.facts["guessing_error"] > found.facts["error"]
    assert found.per_record.shape == (20,)


def test_a_sketch_of_few_components_leaves_most_of_an_unstructured_record_open():
    known = ground()
    assert read(sketch(known, 2), known).low > 0.6


def test_structure_in_the_data_gives_a_record_away_through_few_components():
    known = ground(rank=3)
    assert read(sketch(known, 4), known).value < 0.3


def test_features_of_a_wide_layer_are_inverted():
    # 48 units on 16 columns: more equations than unknowns, half of them cut off by the relu.
    known, base = ground(), mlp([FEATURES, 48, 3], seed=3)
    name = base.nodes[1].outputs[0]
    features = Program(base)(known.schema.dequantise(known.truth), outputs=(name,))[0]
    material = FeatureMaterial(graph=base, name=name, low=features - 0.01, high=features + 0.01)
    found = read(material, known)
    assert found.value < 0.1
    assert "inverted features" in found.settings
    with pytest.raises(AuditorError, match="no tensor"):
        FeatureMaterial(graph=base, name="nowhere", low=features, high=features).rebuild(known, strength=1.0, steps=1)


def test_the_centre_of_a_small_linear_region_is_the_record():
    known = ground()
    inputs = known.schema.dequantise(known.truth).astype(np.float64)
    normals = np.random.default_rng(2).normal(size=(20, 60, FEATURES))
    bounds = np.einsum("icf,if->ic", normals, inputs) + 0.02 * np.linalg.norm(normals, axis=2)
    found = read(RegionMaterial(normals=normals, bounds=bounds), known)
    assert found.value < 0.05
    empty = RegionMaterial(normals=np.tile(np.eye(FEATURES)[:1], (20, 1, 1)), bounds=np.full((20, 1), -5.0))
    assert read(empty, known).value > 0.8


def test_a_gate_that_stores_nothing_and_too_few_records():
    known = ground()
    assert "stores nothing" in read(None, known).reason
    few = ground(forgotten=1)
    assert "two records" in read(sketch(few, 4), few).reason
    same = Ground(
        schema=grid(),
        reference=np.full((5, FEATURES), 3),
        reference_labels=np.zeros(5, int),
        truth=np.full((2, FEATURES), 3),
        labels=np.zeros(2, int),
    )
    assert "mean of its class" in read(sketch(same, 4), same).reason
    for bad in ({"strength": 0.0}, {"steps": 0}, {"resamples": 10}):
        with pytest.raises(AuditorError):
            PatchRead(**bad)


def test_a_class_without_reference_records_is_guessed_by_the_mean_of_all():
    known = ground()
    lone = Ground(
        schema=known.schema,
        reference=known.reference,
        reference_labels=known.reference_labels,
        truth=known.truth,
        labels=np.full(20, 9),
    )
    np.testing.assert_allclose(lone.guesses()[0], known.reference.mean(axis=0))


def test_ridge_without_penalty_is_least_squares():
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(50, 3)), random.normal(size=(3, 2))
    np.testing.assert_allclose(ridge(x, x @ weight + 1.0, 1e-12)(x), x @ weight + 1.0, atol=1e-6)
