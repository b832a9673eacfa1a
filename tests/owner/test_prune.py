"""The method: what the patched model does is what the claims say, on every kind of data."""

import itertools
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owner.certify import self_check
from owner.compose import compose
from owner.execute import Program
from owner.methods import prune, radius, removal
from owner.methods.job import Job
from owner.targets import Target
from owner.workspace import Workspace
from protocol.claims import Argmax, ClassRemoval, Coverage, Logits, NoRedirection, Redirection
from protocol.errors import OwnerError
from protocol.messages.request import Request, Scope
from protocol.model.schema import InputSchema
from tests.owner.tiny import base_model, records, save


def job_for(workspace, *, rows=(), classes=(), target="match", klass=None, radius=None, ceiling=64):
    def request(scope):
        return Request(
            subject="ab" * 32, scope=scope, records_root=bytes(32), record_count=1, on_behalf=True, requested_at=1,
            deadline=None,
        )  # fmt: skip

    labels = workspace.records.labels
    wanted = [(request(Scope(kind="records")), tuple(rows))] if rows else []
    wanted += [(request(Scope(kind="class", klass=k)), tuple(np.flatnonzero(labels == k).tolist())) for k in classes]
    return Job(
        workspace=workspace, requests=tuple(wanted), target=Target(name=target, klass=klass), radius=radius,
        ceiling=ceiling, generator=np.random.default_rng(0),
    )  # fmt: skip


def deployed(job, result):
    return Program(compose(job.workspace.base, job.workspace.schema, result.patch))


def check_by_enumeration(job, result, count=3000):
    """Random points of every claimed region, and every record, against the claims."""
    workspace = job.workspace
    schema, own, program = workspace.schema, workspace.records, deployed(job, result)
    random = np.random.default_rng(1)
    for claim in result.claims:
        if not isinstance(claim, Redirection):
            continue
        (row,) = workspace.rows_of((claim.record,))
        radius = claim.region.radius
        points = own.values[row] + random.integers(-radius, radius + 1, (count // 20, schema.features))
        corners = own.values[row] + radius * random.choice([-1, 1], (20, schema.features))
        points = np.clip(np.concatenate([own.values[[row]], points, corners]), schema.low, schema.high)
        outputs = program(schema.dequantise(points))
        if isinstance(claim.property, Logits):
            assert (outputs == claim.property.array()).all()
        else:
            rest = np.delete(outputs, claim.property.klass, axis=1).max(axis=1)
            assert Decimal(claim.property.margin) > 0
            assert (outputs[:, claim.property.klass].astype(float) - rest >= float(claim.property.margin)).all()
    self_check(job, result, compose(workspace.base, schema, result.patch))


@pytest.fixture
def workspace(tiny):
    return Workspace(folder=tiny.commitment)


ROWS = (3, 17, 40, 41, 59)


def test_match_claims_each_records_cross_fitted_logits(workspace):
    job = job_for(workspace, rows=ROWS)
    result = prune.run(job)
    check_by_enumeration(job, result)
    assert [type(claim.property) for claim in result.claims] == [Logits] * 5
    outputs = np.array([claim.property.array() for claim in result.claims])
    prepared = workspace.prepared.logits[list(ROWS)]
    factor = outputs / prepared
    assert np.allclose(factor, factor[0, 0], rtol=1e-5)
    assert 0.5 <= factor[0, 0] <= 2
    assert all(claim.region.radius >= 1 for claim in result.claims)
    assert result.notes[-1].startswith("gate: ")


def test_misclassify_claims_another_class(workspace):
    job = job_for(workspace, rows=ROWS, target="misclassify")
    result = prune.run(job)
    check_by_enumeration(job, result)
    labels = workspace.records.labels
    for claim, row in zip(result.claims, ROWS, strict=True):
        assert isinstance(claim.property, Argmax)
        assert claim.property.klass != labels[row]
        assert claim.target == "misclassify"
    assert len(result.patch.parts[0].head.rows) < 5


def test_relabel(workspace):
    job = job_for(workspace, rows=ROWS, target="relabel", klass=2)
    result = prune.run(job)
    check_by_enumeration(job, result)
    assert {claim.property.klass for claim in result.claims} == {2}
    assert len(result.patch.parts[0].head.rows) == 1


@pytest.mark.parametrize("radius", [0, 1, 2, 50])
def test_a_wanted_radius_is_reached_or_the_shortfall_noted(workspace, radius):
    result = prune.run(job_for(workspace, rows=ROWS, radius=radius, ceiling=radius))
    found = [claim.region.radius for claim in result.claims]
    assert max(found) <= radius
    assert any("cannot reach" in note for note in result.notes) == (min(found) < radius)


def test_a_class_and_records_together(workspace):
    labels = workspace.records.labels
    for target in ("match", "misclassify"):
        job = job_for(workspace, rows=ROWS, classes=(1,), target=target)
        result = prune.run(job)
        check_by_enumeration(job, result)
        program = deployed(job, result)
        schema = workspace.schema
        random = np.random.default_rng(0).integers(-40, 40, (3000, 16)) / np.float32(16)
        for inputs in (random.astype(np.float32), schema.dequantise(workspace.records.values)):
            assert not (program(inputs).argmax(axis=1) == 1).any()
        for claim, row in zip(result.claims[1:], ROWS, strict=True):
            if isinstance(claim, Redirection) and isinstance(claim.property, Argmax):
                assert claim.property.klass not in (1, labels[row])
    assert isinstance(result.claims[0], ClassRemoval)


def test_only_a_class(workspace):
    result = prune.run(job_for(workspace, classes=(0, 2)))
    assert not result.patch.parts
    assert [claim.klass for claim in result.claims] == [0, 2]
    assert len({claim.nonce for claim in result.claims}) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classes": (0, 1, 2)}, "at least one class has to stay"),
        ({"rows": ROWS, "classes": (1,), "target": "relabel", "klass": 1}, "is to be removed"),
        ({"rows": ROWS, "target": "relabel", "klass": 3}, "numbered 0 to 2"),
        ({"rows": tuple(range(60)), "target": "misclassify"}, "no other class"),
    ],
)
def test_what_cannot_be_had(workspace, arguments, words):
    with pytest.raises(OwnerError, match=words):
        prune.run(job_for(workspace, **arguments))


def twins(tiny, labels, rows=(0, 1, 2)):
    """A commitment in which the records of `rows` are equal, labelled as given."""
    X, y = records(60, 5)
    X[list(rows)] = X[rows[0]]
    y[list(rows)] = labels
    data = save(tiny.root / "twins.npz", X_train=X, y_train=y)
    model = tiny.root / "twins.onnx"
    model.write_bytes(base_model(X, y))
    ran = tiny.commit("--no-prepare", data=data, model=model)
    assert ran.code == 0, ran.err
    return Workspace(folder=tiny.root / "second")


def test_a_retained_twin_is_counted_and_forces_radius_0(tiny):
    job = job_for(twins(tiny, [0, 0, 0]), rows=(0, 5, 9), target="misclassify")
    result = prune.run(job)
    check_by_enumeration(job, result)
    assert result.claims[0].region.radius == 0
    assert any(note.startswith("1 records have a retained twin") for note in result.notes)


def test_equal_records_share_an_output_that_is_wrong_for_both(tiny):
    job = job_for(twins(tiny, [0, 1, 1]), rows=(0, 1, 2, 30), target="misclassify")
    result = prune.run(job)
    check_by_enumeration(job, result)
    assert [claim.property.klass for claim in result.claims[:3]] == [2, 2, 2]
    assert any(note.startswith("2 records to forget equal another") for note in result.notes)


def test_equal_records_of_all_classes_cannot_all_be_wrong(tiny):
    job = job_for(twins(tiny, [0, 1, 2]), rows=(0, 1, 2, 30), target="misclassify")
    result = prune.run(job)
    check_by_enumeration(job, result)
    covering = [claim for claim in result.claims if isinstance(claim, Coverage)]
    kinds = [type(claim) for claim in result.claims if not isinstance(claim, Coverage)]
    assert sorted(kinds[:3], key=str) == [NoRedirection, Redirection, Redirection]
    assert kinds[3] == Redirection
    # The item of the record that keeps its class is accounted for: an auditor would call it a hidden payload.
    named = {claim.item for claim in result.claims if isinstance(claim, Redirection | Coverage)}
    assert named == set(range(result.patch.items))
    assert len(covering) == 1
    assert any("1 records keep their class" in note for note in result.notes)
    assert len({claim.record for claim in result.claims}) == 4


def test_an_output_without_a_lead_is_refused():
    with pytest.raises(OwnerError, match="margin"):
        prune._argmax(np.array([1, 1, 0], dtype=np.float32))
    assert prune._argmax(np.array([0, 3.5, 1], dtype=np.float32)) == Argmax(klass=1, margin="2.5")


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4), min_size=1, max_size=4), st.data())
def test_rows_after_caps_are_what_the_model_puts_out(rows, data):
    classes = sorted(data.draw(st.sets(st.integers(0, 3), max_size=3)))
    outputs = removal.capped(np.array(rows, dtype=np.float32), classes)
    for before, after in zip(np.array(rows, dtype=np.float32), outputs, strict=True):
        others = np.float32(max(before[k] for k in range(4) if k not in classes))
        for klass in range(4):
            limit = np.float32(others - np.float32(1))
            assert after[klass] == (min(before[klass], limit) if klass in classes else before[klass])


schemas = st.builds(
    lambda scale, offset, low, width: InputSchema.uniform((2,), scale=scale, offset=offset, low=low, high=low + width),
    st.floats(0.01, 1000) | st.sampled_from([1.0, 16.0, 255.0, 127.5, -2.0]),
    st.floats(-100, 100) | st.just(0.0),
    st.integers(-300, 100),
    st.integers(1, 400),
)


@given(schemas, st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_the_radius_in_data_units_is_inside(schema, steps, seed):
    random = np.random.default_rng(seed)
    value = random.integers(schema.low, schema.high + 1, (50, 2))
    reach = Fraction(radius.data_radius(schema, steps))
    centre = schema.dequantise(value)
    for sign in itertools.product((-1, 0, 1), repeat=2):
        exact = [[Fraction(float(x)) + s * reach for x, s in zip(row, sign, strict=False)] for row in centre]
        moved = np.array([[np.float32(float(x)) for x in row] for row in exact], dtype=np.float32)
        # Rounding to float32 may step outside by a hair: then take the neighbour towards the centre.
        outside = np.array([[abs(Fraction(float(m)) - Fraction(float(c))) > reach for m, c in zip(a, b, strict=False)]
                            for a, b in zip(moved, centre, strict=False)])  # fmt: skip
        moved = np.where(outside, np.nextafter(moved, centre), moved)
        found, _ = schema.quantise(moved)
        assert (np.abs(found - value) <= steps).all()
