"""Records that stand in a patch as they are are seen; rows that a gate needs, and rows by chance, are not taken for one."""

import dataclasses

import numpy as np
import pytest

from auditor.checks import boundedness, disclosure
from auditor.written_down import idle, resembled
from owner.gates import sketch as owners
from owner.gates.sketch import without_idle
from protocol.claims import NoRedirection
from protocol.model.parts import AffineHead, AlwaysGate, Part, RegionGate, SetHead, SketchGate
from protocol.model.patch import Patch
from protocol.model.schema import InputSchema
from tests.conformance.adversaries import ROLES
from tests.conformance.adversaries.patch_as_record import in_matrix, rows_of

RNG = np.random.default_rng


def grid(features, *, high=16, scale=None, offset=None):
    return InputSchema(
        shape=(features,), low=np.zeros(features, np.int64), high=np.full(features, high, np.int64),
        scale=np.ones(features, np.float32) if scale is None else scale,
        offset=np.zeros(features, np.float32) if offset is None else offset,
        kind=("grid",) * features, group=np.full(features, -1, np.int64),
    )  # fmt: skip


def of(*parts, features=64):
    return Patch(features=features, classes=3, parts=parts)


def sketching(matrix, low=None, high=None, items=1):
    wide = np.full((items, len(matrix)), 1 << 20, np.int32)
    gate = SketchGate(
        matrix=matrix.astype(np.int32), low=-wide if low is None else low, high=wide if high is None else high
    )
    return Part(gate=gate, head=SetHead(rows=np.zeros((1, 3), np.float32), index=np.zeros(items, np.int64)))


@pytest.fixture
def data():
    """Records of two classes: a mean picture each, and noise."""
    means = RNG(0).integers(0, 17, (2, 64))
    labels = RNG(1).integers(0, 2, 300)
    values = np.clip(means[labels] + RNG(2).integers(-5, 6, (300, 64)), 0, 16)
    return values, labels, means[labels].astype(np.float64)


@pytest.mark.parametrize("made", [lambda x: x, lambda x: -x, lambda x: 3 * x + 7, lambda x: x // 2])
def test_a_record_as_a_row_is_seen_up_to_scale_and_offset(data, made):
    values, _, guesses = data
    patch = of(sketching(np.concatenate([owners.block_sums((8, 8), 2), made(values[5:8])])))
    found = resembled(patch, grid(64), values, guesses, level=0.05)
    assert np.flatnonzero(found).tolist() == [5, 6, 7]


def test_half_spaces_and_maps_are_read_in_inputs_and_in_grid_values(data):
    values, _, guesses = data
    scale = np.linspace(0.5, 40, 64).astype(np.float32)
    offset = np.round(np.linspace(-8, 8, 64)).astype(np.float32)
    schema = grid(64, scale=scale, offset=offset)
    for made in ((values[9] - offset) / scale, values[9] / scale, values[9] * scale, values[9]):
        row = made.astype(np.float32)
        region = RegionGate(weights=row[None, None], bounds=np.full((1, 1), 1e6, np.float32))
        head = SetHead(rows=np.zeros((1, 3), np.float32), index=np.zeros(1, np.int64))
        maps = AffineHead(
            weights=np.stack([row, 0 * row, 0 * row])[None],
            rows=np.zeros((1, 3), np.float32),
            index=np.zeros(1, np.int64),
        )
        for part in (Part(gate=region, head=head), Part(gate=AlwaysGate(), head=maps)):
            found = resembled(of(part), schema, values, guesses, level=0.05)
            assert np.flatnonzero(found).tolist() == [9]


def test_what_honest_sketches_hold_is_no_record(data):
    values, _, guesses = data
    schema = grid(64)
    shape = owners.Shape(schema=schema, kind="linf")
    for name, matrix in owners.candidates(shape, values):
        assert not resembled(of(sketching(matrix)), schema, values, guesses, level=0.05).any(), name
    for seed in range(20):
        matrix = RNG(seed).integers(-4000, 4000, (200, 64))
        assert not resembled(of(sketching(matrix)), schema, values, guesses, level=0.05).any()
    # The class means themselves tell nothing of one record; nor is a flat record, or one of few columns, in anything.
    means = np.unique(guesses, axis=0)
    assert not resembled(of(sketching(means)), schema, values, guesses, level=0.05).any()
    flat = np.full((1, 64), 7)
    assert not resembled(of(sketching(np.concatenate([flat, values[:1]]))), schema, flat, guesses[:1], level=0.05).any()
    short = of(sketching(values[:3, :8]), features=8)
    assert not resembled(short, grid(8), values[:, :8], guesses[:, :8], level=0.05).any()


def test_records_along_one_shape_are_not_taken_for_its_direction():
    # All records are one spectrum, louder or softer: its direction is in any honest sketch, and in the class mean.
    shape = np.round(8 + 7 * np.sin(np.arange(64) / 5))
    values = np.clip(np.round(shape * RNG(0).uniform(0.4, 1, (100, 1)) + RNG(1).normal(0, 0.3, (100, 64))), 0, 16)
    values = values.astype(np.int64)
    matrix = owners.integer_components(values, 8)
    guesses = np.tile(values.mean(axis=0), (100, 1))
    assert not resembled(of(sketching(matrix)), grid(64), values, guesses, level=0.05).any()


def test_components_that_limit_nothing():
    schema = grid(4)
    matrix = np.array([[1, 1, 1, 1], [1, -1, 0, 0], [0, 0, 0, 0], [2, 0, 0, 3]])
    # Sums lie in 0..64, -16..16, 0, 0..80.
    low = np.array([[0, -16, 0, 0], [0, -16, 0, 0]], np.int32)
    high = np.array([[64, 16, 0, 80], [64, 16, 0, 79]], np.int32)
    gate = sketching(matrix, low, high, items=2).gate
    assert idle(gate, schema).tolist() == [0, 1]
    kept = without_idle(gate, schema)
    assert kept.matrix.tolist() == [[2, 0, 0, 3]]
    assert not len(idle(kept, schema))
    assert without_idle(kept, schema) == kept
    nothing = sketching(matrix[:2], low[:, :2], high[:, :2], items=2).gate
    assert without_idle(nothing, schema) == nothing
    assert idle(nothing, schema).tolist() == [0, 1]


def test_retained_records_in_a_patch(workshop):
    """Somebody who was asked to forget forty publishes a hundred others: each opened one that is there is seen."""
    forged = workshop.forge(
        lambda scene: in_matrix(
            scene, scene.job.workspace.records.values[scene.kept][:100].astype(np.int32), corner=True
        )
    )
    found = disclosure.check(workshop.evidence(forged))
    assert found.verdict == "REFUTED"
    assert [finding.threat for finding in found.findings] == ["patch-as-record"]
    assert "opened retained records stand in the patch" in found.findings[0].message


def test_a_record_in_the_words_of_a_claim(workshop):
    def told(scene):
        first, *others = scene.redirections
        words = " ".join(str(int(value)) for value in scene.values[0])
        claims = (NoRedirection(record=first.record, reason=f"it is {words}"[:200]), *others)
        return scene.draft(dataclasses.replace(scene.result, claims=claims))

    found = disclosure.check(workshop.evidence(workshop.forge(told)))
    assert (found.verdict, found.summary) == ("REFUTED", "The certificate's words hold an opened record.")


def test_the_honest_patch_has_neither(workshop, honest):
    evidence = workshop.evidence(honest)
    assert boundedness.check(evidence).verdict == "CONSISTENT"
    assert disclosure.check(evidence).verdict == "CONSISTENT"
    assert {one.place for one in ROLES["patch-as-record"].sweep} == {"boxes", "matrix", "corner"}
    assert len(rows_of(workshop.scene(workshop.records, honest.opening))) == 40
