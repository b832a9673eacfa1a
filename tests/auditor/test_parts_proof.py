"""Claims on every kind of part: what is called proven holds on inputs of the region, and each kind can be proven."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from auditor import float_gates
from auditor.compose import compose, retrained
from auditor.cores import Cores
from auditor.execute import Program
from auditor.float_heads import with_row
from auditor.following import holds
from auditor.parts_proof import output_numbers, prove
from auditor.rows import cap_rows
from protocol.claims import Argmax, Redirection, Region, logits_property
from protocol.model.check import check_graph
from protocol.model.parts import (
    AffineHead,
    AlwaysGate,
    FeatureGate,
    Part,
    RegionGate,
    SetHead,
    ShiftHead,
    SketchGate,
    gate_kind,
)
from protocol.model.patch import Cap, Patch
from tests.auditor.samples import cases, grid_schema, mlp


def _claim(patch, item, wanted, *, gate=None):
    kind = gate_kind(patch.parts[patch.place(item).part].gate)
    return Redirection(
        record=bytes(32), item=item, gate=gate or kind, region=Region(norm="linf", radius=0, radius_data="0"),
        property=wanted, target="relabel",
    )  # fmt: skip


def _argmax(logits, share=0.5):
    klass = int(np.argmax(logits))
    lead = float(logits[klass] - np.delete(logits, klass).max())
    return Argmax(klass=klass, margin=f"{max(0.0, lead * share):.6f}".rstrip("0").rstrip(".") or "0")


def _inputs(random, cores, count):
    """Inputs of each region: the greatest and least, and any between them, wherever in their cells."""
    schema = cores.schema
    low = np.maximum(cores.centre - cores.steps, schema.low)
    high = np.minimum(cores.centre + cores.steps, schema.high)
    grid = random.integers(low, high + 1, (count, *low.shape))
    grid[0], grid[1] = low, high
    exact = (grid + random.uniform(-0.5, 0.5, grid.shape) - schema.offset) / schema.scale.astype(np.float64)
    x = exact.astype(np.float32).reshape(-1, schema.features)
    values, inside = schema.quantise(x)
    near = (np.abs(values.reshape(grid.shape) - cores.centre) <= cores.steps).all(axis=2).reshape(-1)
    record = np.tile(np.arange(len(low)), count)
    return x[inside & near].reshape(-1, *schema.shape), record[inside & near]


@settings(max_examples=50, deadline=None)
@given(cases(), st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_what_is_proven_holds(case, radius, seed):
    graph, schema, patch, x = case
    assume(patch.parts)
    random = np.random.default_rng(seed)
    program = Program(compose(graph, schema, patch))
    centre, inside = schema.quantise(x[:6])
    assume(inside.any())
    centre = centre[inside].astype(np.int64)
    cores = Cores(schema=schema, centre=centre, steps=np.full((len(centre), 1), radius))
    names = tuple(f"prune/p{n}/{what}" for n in range(len(patch.parts)) for what in ("fired", "first"))
    outputs, *decided = program(schema.dequantise(centre), outputs=("prune/output", *names))
    claims = []
    for record in range(len(centre)):
        fired = [n for n in range(len(patch.parts)) if decided[2 * n][record, 0]]
        number = fired[0] if fired else 0
        item = int(decided[2 * number + 1][record]) if fired else 0
        part = patch.parts[number]
        wanted = _argmax(outputs[record])
        if isinstance(part.head, SetHead) and random.integers(2):
            wanted = logits_property(cap_rows(part.head.rows[part.head.index[item]][None], patch.caps)[0])
        claims.append(_claim(patch, patch.starts[number] + item, wanted))
    proof = prove(patch, retrained(graph, patch), cores, tuple(claims), holds=holds)
    tried, record = _inputs(random, cores, 12)
    good = holds(tuple(claims), record, program(tried))
    proven = np.array([not reason for reason in proof.reasons])
    assert good[proven[record]].all(), [proof.reasons[n] for n in record[~good]]


SCHEMA = grid_schema((4,), scale=8.0, offset=0.0, low=0, high=8)
BASE = mlp([4, 6, 3], seed=3)
ROWS = np.array([[5, 0, 0], [0, 5, 0]], np.float32)
FIRST = np.array([[4, 4, 4, 4], [2, 6, 1, 3]])


def _patch(*parts, caps=()):
    return Patch(features=4, classes=3, parts=parts, caps=caps)


def _cores(radius=1):
    return Cores(schema=SCHEMA, centre=FIRST, steps=np.full((2, 1), radius))


def _set(items=2, rows=ROWS):
    return SetHead(rows=rows[:items], index=np.arange(items))


def _sketch(matrix, widen=2, items=FIRST):
    matrix = np.array(matrix, np.int32)
    reach = np.abs(matrix).sum(axis=1) * widen
    sketches = items @ matrix.T.astype(np.int64)
    return SketchGate(matrix=matrix, low=(sketches - reach).astype(np.int32), high=(sketches + reach).astype(np.int32))


def _feature(widen=1.0, tensor=BASE.nodes[1].outputs[0]):
    cores = _cores()
    from auditor.propagation import make_plan

    low, high = float_gates._inner(make_plan(BASE), tensor, cores, "interval")
    middle, half = (low + high) / 2, (high - low) / 2
    return FeatureGate(
        tensor=tensor,
        low=(middle - widen * half - 1e-4).astype(np.float32),
        high=(middle + widen * half + 1e-4).astype(np.float32),
    )


def _regions(extra=0.01):
    weights = np.concatenate([np.eye(4), -np.eye(4)])[None].repeat(2, axis=0).astype(np.float32)
    centre = SCHEMA.dequantise(FIRST)
    bounds = np.concatenate([centre + 1.5 / 8, -centre + 1.5 / 8], axis=1) + extra
    return RegionGate(weights=weights, bounds=bounds.astype(np.float32))


GATES = {
    "sketch": lambda: _sketch([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]),
    "feature": _feature,
    "linear-region": _regions,
}


def _reasons(patch, wanted, *, radius=1, gate=None, items=(0, 1)):
    claims = tuple(_claim(patch, item, each, gate=gate) for item, each in zip(items, wanted, strict=True))
    return prove(patch, BASE, _cores(radius), claims, holds=holds)


SET = (Argmax(klass=0, margin="4"), Argmax(klass=1, margin="4"))


@pytest.mark.parametrize("kind", GATES)
def test_an_item_that_sets_a_row_is_proven_on_every_gate(kind):
    # Only the region of each item's own record: what the other one may take has the same output here.
    same = SetHead(rows=ROWS[:1], index=np.zeros(2, np.int64))
    patch = _patch(Part(gate=GATES[kind](), head=same))
    proof = _reasons(patch, (SET[0], SET[0]))
    assert proof.reasons == ("", "")
    assert proof.integers.tolist() == [kind == "sketch"] * 2
    assert "margin" not in "".join(proof.reasons)
    larger = _reasons(patch, (SET[0], SET[0]), radius=7)
    assert all("not inside its item's box" in r or "not proven to fire" in r for r in larger.reasons)
    other = _reasons(patch, (SET[1], SET[0]))
    assert other.reasons == ("its item's row does not have the claimed property", "")
    wrong = _reasons(patch, (SET[0], SET[0]), gate="always")
    assert wrong.reasons[0] == f"it names the gate always, and its item belongs to a gate of kind {kind}"


@pytest.mark.parametrize("kind", ["feature", "linear-region"])
def test_a_box_that_is_just_too_narrow_is_not_proven(kind):
    gate = _feature(widen=0.3) if kind == "feature" else _regions(extra=-0.01)
    patch = _patch(Part(gate=gate, head=SetHead(rows=ROWS[:1], index=np.zeros(2, np.int64))))
    assert set(_reasons(patch, (SET[0], SET[0])).reasons) == {
        "its item is not proven to fire on its whole claimed region"
    }


def test_always_fires_inside_the_columns():
    patch = _patch(Part(gate=AlwaysGate(), head=_set(1)))
    assert _reasons(patch, (SET[0], SET[0]), items=(0, 0), radius=100).reasons == ("", "")
    cores = replace(_cores(), centre=FIRST + np.array([[0, 0, 0, 9], [0, 0, 0, 0]]))
    proof = prove(patch, BASE, cores, (_claim(patch, 0, SET[0]),) * 2, holds=holds)
    assert proof.reasons == ("the record is outside the declared columns", "")


@pytest.mark.parametrize("kind", [*GATES, "always"])
@pytest.mark.parametrize("same", [False, True])
def test_an_earlier_part_in_the_way_is_a_conflict_unless_its_output_is_the_same(kind, same):
    """One later sketch item for both records; an earlier part acts around the first record (always: everywhere)."""
    every = FIRST[:1]
    wide = SketchGate(
        matrix=np.eye(4, dtype=np.int32), low=np.full((1, 4), -9, np.int32), high=np.full((1, 4), 99, np.int32)
    )
    if kind == "always":
        early = AlwaysGate()
    elif kind == "sketch":
        early = _sketch([[1, -1, 0, 0], [0, 0, 0, 1]], items=every, widen=1)
    elif kind == "feature":
        gate = _feature(widen=0.1, tensor=BASE.nodes[0].outputs[0])
        early = FeatureGate(tensor=gate.tensor, low=gate.low[:1], high=gate.high[:1])
    else:
        gate = _regions()
        early = RegionGate(weights=gate.weights[:1], bounds=gate.bounds[:1])
    head = SetHead(rows=ROWS[:1] if same else ROWS[1:], index=np.zeros(1, np.int64))
    patch = _patch(Part(gate=early, head=head), Part(gate=wide, head=_set(1)))
    proof = _reasons(patch, (SET[0], SET[0]), items=(1, 1), radius=0)
    taken = "the earlier item 0 with another output may take its region"
    if same:
        assert proof.reasons == ("", "")
    else:
        assert proof.reasons == (taken, taken if kind == "always" else "")


def test_items_of_one_part_and_of_sketches_with_other_matrices():
    one, other = _sketch([[1, 1, 1, 1]]), _sketch([[1, -1, 0, 0], [0, 0, 1, -1]], widen=1)
    patch = _patch(Part(gate=one, head=_set()), Part(gate=other, head=_set(rows=ROWS + 1)))
    rows = (Argmax(klass=0, margin="4"), Argmax(klass=1, margin="4"))
    # Sums of 16 and 12 with boxes of 8 to each side: the first item reaches into the second record's region.
    assert _reasons(patch, rows).reasons == ("", "the earlier item 0 with another output may take its region")
    assert all("the earlier item 0" in reason for reason in _reasons(patch, rows, items=(2, 3), radius=0).reasons)
    swapped = replace(patch, parts=patch.parts[::-1])
    # Now the sketch of differences comes first: the records are 0 and -4 apart in its first component.
    assert _reasons(swapped, rows, radius=0).reasons == ("", "")
    assert _reasons(swapped, rows, items=(2, 3), radius=0).reasons == tuple(
        f"the earlier item {item} with another output may take its region" for item in (0, 1)
    )


@pytest.mark.parametrize("kind", ["shift", "affine"])
@pytest.mark.parametrize("gate", [*GATES, "always"])
def test_heads_that_add_to_the_base(gate, kind):
    items = 1 if gate == "always" else 2
    rows = np.array([[30, 0, 0]], np.float32)
    index = np.zeros(items, np.int64)
    if kind == "shift":
        head = ShiftHead(rows=rows, index=index)
    else:
        weights = np.random.default_rng(1).normal(size=(1, 3, 4)).astype(np.float32)
        head = AffineHead(weights=weights, rows=rows, index=index)
    patch = _patch(
        Part(gate=AlwaysGate() if gate == "always" else GATES[gate](), head=head), caps=(Cap(klass=2, margin="1"),)
    )
    wanted, items = Argmax(klass=0, margin="15"), (0, 0) if gate == "always" else (0, 1)
    proof = _reasons(patch, (wanted, wanted), items=items)
    assert proof.reasons == ("", "")
    assert not proof.integers.any()
    more = _reasons(patch, (Argmax(klass=0, margin="60"), wanted), items=items).reasons
    assert more[0].startswith("the claimed class is proven to lead by ")
    for bad, reason in (
        (Argmax(klass=0, margin="0"), "no margin"), (Argmax(klass=2, margin="1"), "is capped"),
        (Argmax(klass=9, margin="1"), "is capped"), (logits_property(rows[0]), "exact logits"),
    ):  # fmt: skip
        assert reason in _reasons(patch, (bad, wanted), items=items).reasons[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 1e4]))
def test_least_leads_are_below_every_lead_that_is_seen(seed, size):
    from auditor.float_heads import least_leads

    random = np.random.default_rng(seed)
    head = AffineHead(
        weights=(random.normal(size=(2, 3, 4)) * size).astype(np.float32),
        rows=(random.normal(size=(2, 3)) * size).astype(np.float32),
        index=np.arange(2),
    )
    cores, labels = _cores(), random.integers(0, 3, 2)
    leads = least_leads(BASE, head, index=np.arange(2), labels=labels, needed=np.full(2, np.inf), cores=cores)
    x, record = _inputs(random, cores, 40)
    program = Program(
        compose(
            BASE,
            SCHEMA,
            _patch(
                Part(
                    gate=AlwaysGate(),
                    head=replace(head, rows=head.rows[:1], weights=head.weights[:1], index=np.zeros(1, np.int64)),
                )
            ),
        )
    )
    for row in range(2):
        assert check_graph(with_row(BASE, head, row))
        logits = Program(with_row(BASE, head, row))(x).astype(np.float64)
        if row == 0:
            composed = program(x).astype(np.float64)
            assert np.abs(composed - logits).max() <= 1e-4 * max(1, np.abs(logits).max())
            logits = np.stack([logits, composed]).reshape(-1, 3)
        here = np.tile(record, len(logits) // len(record)) == row
        own = logits[here, labels[row]]
        best = np.delete(logits[here], labels[row], axis=1).max(axis=1)
        assert (own - best >= leads[row]).all()
        assert leads[row] >= (own - best).min() - 10 * size - 10


def test_equal_outputs_have_equal_numbers():
    parts = (
        Part(gate=_sketch([[1, 0, 0, 0]]), head=_set()),
        Part(gate=_sketch([[1, 0, 0, 0]]), head=SetHead(rows=ROWS[::-1], index=np.array([0, 1]))),
        Part(gate=_sketch([[1, 0, 0, 0]]), head=ShiftHead(rows=ROWS, index=np.array([0, 1]))),
        Part(
            gate=_sketch([[1, 0, 0, 0]]),
            head=AffineHead(
                weights=np.stack([np.eye(3, 4), np.zeros((3, 4))]).astype(np.float32),
                rows=ROWS[[0, 0]],
                index=np.array([0, 1]),
            ),
        ),
    )
    assert [numbers.tolist() for numbers in output_numbers(_patch(*parts))] == [[0, 1], [1, 0], [2, 3], [4, 5]]


def test_what_the_owner_makes_over_wide_regions_is_proven():
    """Over a wide region far larger numbers are rounded than at the record: the head leaves room for them."""
    from types import SimpleNamespace

    from auditor.float_heads import least_leads
    from auditor.passes import affordable
    from owner.gates.region import Shape
    from owner.methods.giving import add
    from owner.methods.placing import Around
    from tests.auditor.samples import mlp

    random = np.random.default_rng(5)
    base = mlp([256, 16, 3], seed=2)
    base = replace(base, initialisers={name: 8 * array for name, array in base.initialisers.items()})
    schema = grid_schema((256,), scale=255.0, offset=0.0, low=0, high=255)
    centre, klass = random.integers(0, 256, (4, 256)), random.integers(0, 3, 4)
    around = Around(
        workspace=SimpleNamespace(base=base, schema=schema), forget=centre, group=np.arange(4), others=centre[:0],
        shape=Shape(schema=schema, kind="linf"), ceiling=64, progress=lambda *_: None,
    )  # fmt: skip
    made = add(around, klass, np.full(4, 64), most=1e9, affine=True)
    assert (made.radius == 64).all()
    head = made.table.head(made.table.row_of_record)
    assert isinstance(head, AffineHead)
    cores = Cores(schema=schema, centre=centre, steps=np.full((4, 256), 64), flips=np.zeros(4, np.int64))
    leads = least_leads(base, head, index=head.index, labels=klass, needed=made.margin, cores=cores)
    assert (leads >= made.margin).all()
    assert affordable(base) == 2048
