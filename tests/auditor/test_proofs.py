"""Claims about any model: proven ones hold in every execution that is tried, in rationals; the others say how far."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditor import proofs, rows
from auditor.execute import Program
from auditor.hinting import Given
from auditor.propagation import make_plan, margin_radius, region
from auditor.propagation.plan import Relu
from protocol.claims import Argmax, Linear, Logits, Region, linear_property, logits_property
from protocol.errors import AuditorError
from protocol.hints import Slopes
from tests.auditor import samples
from tests.auditor.propagation.executions import Execution, exactly, runtimes
from tests.auditor.propagation.nets import inside, tricky

SEEDS = st.integers(0, 2**32 - 1)
SCHEMA = samples.grid_schema((6,), scale=20.0, offset=0.0, low=-60, high=60)
GRAPH = samples.mlp([6, 16, 16, 3], seed=1)


def linf(radius):
    return Region(norm="linf", radius=radius, radius_data="0")


def cases(records=12):
    rng = np.random.default_rng(0)
    grid = rng.integers(-60, 61, (records, 6))
    return grid, Program(GRAPH)(SCHEMA.dequantise(grid))


def margins(labels, margin="0.0001"):
    return [Argmax(klass=int(label), margin=margin) for label in labels]


def test_the_largest_radius_is_that_of_bisection():
    grid, outputs = cases()
    labels = outputs.argmax(axis=1)
    found = proofs.prove(GRAPH, SCHEMA, grid, [linf(40)] * 12, margins(labels))
    expected = margin_radius(GRAPH, SCHEMA, grid, labels, margin=1e-4, ceiling=40)
    assert [proof.radius for proof in found] == expected.tolist()
    assert len({proof.radius for proof in found}) > 3
    for proof in found:
        assert not proof.proven
        assert proof.reason


def test_a_radius_that_can_be_proven_is():
    grid, outputs = cases()
    labels = outputs.argmax(axis=1)
    largest = margin_radius(GRAPH, SCHEMA, grid, labels, margin=1e-4, ceiling=40)
    good = largest >= 0
    found = proofs.prove(GRAPH, SCHEMA, grid[good], [linf(int(r)) for r in largest[good]], margins(labels[good]))
    assert all(proof == proofs.Proof(proven=True, radius=int(r)) for proof, r in zip(found, largest[good], strict=True))


def test_the_same_property_as_margin_and_as_rows():
    grid, outputs = cases()
    labels = outputs.argmax(axis=1)
    linear = []
    for label in labels:
        others = np.delete(np.arange(3), label)
        linear.append(linear_property((np.eye(3)[label] - np.eye(3)[others]).astype(np.float32), ["0.0001"] * 2))
    one = proofs.prove(GRAPH, SCHEMA, grid, [linf(40)] * 12, margins(labels))
    other = proofs.prove(GRAPH, SCHEMA, grid, [linf(40)] * 12, linear)
    assert one == other


def test_properties_of_different_sizes_do_not_disturb_each_other():
    grid, outputs = cases(3)
    wanted = [
        *margins(outputs.argmax(axis=1)[:1]),
        Linear(rows=(("1", "0", "0"),), least=("-1000",)),
        Linear(rows=(("1", "0", "0"),) * 7, least=("-1000",) * 6 + ("1000",)),
    ]
    together = proofs.prove(GRAPH, SCHEMA, grid, [linf(1)] * 3, wanted)
    alone = [proofs.prove(GRAPH, SCHEMA, grid[n : n + 1], [linf(1)], wanted[n : n + 1])[0] for n in range(3)]
    assert list(together) == alone
    assert [proof.proven for proof in together][1:] == [True, False]
    assert together[2].radius == proofs.UNPROVEN


def test_a_bound_that_no_float_meets_is_not_rounded_to_one():
    """The least logit proven, and the next rational above it."""
    builder = samples.Builder(np.random.default_rng(0), (6,))
    bias = builder.constant(np.array([1.0, 0.0], np.float32))
    builder.apply("Gemm", "x", builder.constant(np.zeros((2, 6), np.float32)), bias, shape=(2,), transB=1)
    grid = np.zeros((1, 6), np.int64)
    for least, proven in (("0.999", True), ("1", False), ("1.0000000000000000000000000001", False)):
        wanted = [Linear(rows=(("1", "0"),), least=(least,))]
        assert proofs.prove(builder.graph(), SCHEMA, grid, [linf(3)], wanted)[0].proven is proven


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Argmax(klass=3, margin="1"), "3 classes"),
        (Argmax(klass=0, margin="0"), "tie"),
        (Linear(rows=(("1", "1"),), least=("0",)), "2 classes"),
        (Logits(values=("1", "2")), "2 classes"),
    ],
)
def test_what_cannot_be_asked_is_not_proven(wanted, reason):
    grid, outputs = cases(2)
    found = proofs.prove(GRAPH, SCHEMA, grid, [linf(0)] * 2, [wanted, *margins(outputs.argmax(axis=1)[1:])])
    assert not found[0].proven
    assert reason in found[0].reason
    assert not found[1].reason


def test_equality_with_a_row_is_not_proven_of_a_network():
    grid, outputs = cases(2)
    found = proofs.prove(GRAPH, SCHEMA, grid, [linf(0)] * 2, [logits_property(row) for row in outputs])
    assert [(proof.proven, proof.radius) for proof in found] == [(False, proofs.UNPROVEN)] * 2


def test_no_claims():
    assert proofs.prove(GRAPH, SCHEMA, np.zeros((0, 6), np.int64), [], []) == ()


def test_an_operator_without_bounds_is_named():
    graph, schema, _, values = samples_case()
    from auditor.compose import compose

    patched = compose(graph, schema, samples_case()[2])
    found = proofs.prove(patched, schema, values, [linf(0)] * len(values), [Argmax(klass=0, margin="1")] * len(values))
    assert all("not one that is bounded" in proof.reason for proof in found)


def test_a_region_of_steps_beside_flips_is_never_taken_for_its_centre():
    graph, schema, _, values = samples_case()
    region = Region(norm="hamming", radius=0, radius_data="0", steps=3)
    found = proofs.prove(graph, schema, values, [region] * len(values), [Argmax(klass=0, margin="1")] * len(values))
    assert not any(proof.proven for proof in found)
    assert all("beside columns that flip" in proof.reason for proof in found)


def samples_case():
    from protocol.model.patch import SketchGate
    from tests.protocol.model.samples import rows_patch

    gate = SketchGate(matrix=np.eye(6, dtype=np.int32), low=np.zeros((1, 6), np.int32), high=np.zeros((1, 6), np.int32))
    patch = rows_patch(6, 3, gate, np.zeros((1, 3), np.float32), np.zeros(1, np.int64))
    return GRAPH, SCHEMA, patch, np.zeros((2, 6), np.int64)


def test_flips():
    """No flip is the record's own cell; with one flip or more a column may be anywhere in its range."""
    grid, outputs = cases()
    best = int(margin_radius(GRAPH, SCHEMA, grid, outputs.argmax(axis=1), margin=1e-4).argmax())
    grid, label = grid[best : best + 1], outputs[best : best + 1].argmax(axis=1)
    flips = [Region(norm="hamming", radius=r, radius_data="0") for r in (0, 1, 5)]
    steps = [linf(0), linf(1), linf(120)]
    for wanted in (margins(label), [Linear(rows=(("1", "0", "0"),), least=("-1000000",))]):
        by_flips, by_steps = (
            [proofs.prove(GRAPH, SCHEMA, grid, [r], wanted)[0] for r in kind] for kind in (flips, steps)
        )
        assert by_flips[0] == by_steps[0]
        assert by_flips[1].proven == by_flips[2].proven == by_steps[2].proven
        assert by_steps[1].proven
    assert by_flips[2] == proofs.Proof(proven=True, radius=5)


@given(st.fractions() | st.decimals(allow_nan=False, allow_infinity=False).map(Fraction))
def test_bounds_are_rounded_away_from_what_would_help(value):
    found = proofs._not_below(value)
    assert found == np.inf or Fraction(found) >= value
    assert np.isinf(found) or Fraction(np.nextafter(found, -np.inf)) <= value or value < -(2**1023)


def test_effort_shrinks_with_the_number_of_claims_and_ends_in_leaving_them_out():
    plan = make_plan(samples.mlp([30, 500, 500, 3]))
    found = [proofs.effort(plan, count, rows=2, trials=5, work=1 << 36) for count in (1, 10, 100, 10_000, 1_000_000)]
    assert [one.neurons for one in found] == sorted((one.neurons for one in found), reverse=True)
    assert found[0].neurons > 100
    assert not found[3].relaxed or found[3].neurons == 0
    assert found[4].claims < 1_000_000
    grid, outputs = cases()
    proven = proofs.prove(GRAPH, SCHEMA, grid, [linf(0)] * 12, margins(outputs.argmax(axis=1)), work=30_000)
    assert {"proving it would cost more than this auditor spends"} <= {proof.reason for proof in proven}
    assert sum(proof.proven for proof in proven) > 0


def relus(graph):
    planned = make_plan(graph)
    return {step.output: planned.shapes[step.output] for step in planned.steps if isinstance(step, Relu)}


def hints_for(graph, claims, slope, *, rows=0):
    """Hints in which every slope is the same."""
    count = sum(int(np.prod(shape)) for shape in relus(graph).values())
    one = Slopes(
        claim=np.zeros(1, np.int32), entry=np.zeros(1, np.int32), inner=np.full((1, count), slope, np.uint8),
        last=np.full((1, rows, count), slope, np.uint8),
    )  # fmt: skip
    return Given(slopes=one, entry=np.zeros(claims, np.int64))


def test_hints_are_evaluated_and_never_make_a_proof_worse():
    grid, outputs = cases()
    wanted = margins(outputs.argmax(axis=1))
    radii = {
        slope: [p.radius for p in proofs.prove(GRAPH, SCHEMA, grid, [linf(40)] * 12, wanted, hints=sent)]
        for slope, sent in [(None, None), *((s, hints_for(GRAPH, 12, s, rows=2)) for s in (0, 128, 255))]
    }
    assert len({tuple(found) for found in radii.values()}) > 1
    for slope in (0, 128, 255):
        assert (np.array(radii[slope]) >= radii[None]).all()


def test_slopes_that_would_be_very_many_are_not_unpacked(monkeypatch):
    plan, sent = make_plan(GRAPH), hints_for(GRAPH, 2, 255, rows=1)
    assert [array.shape for array in sent.last(plan, 3).values()] == [(2, 3, 16)] * 2
    assert sent.together(3) > sent.together(10**6) == 1
    monkeypatch.setattr("auditor.hinting.MAX_ENTRY", 100)
    assert sent.last(plan, 3) == {}
    grid, outputs = cases(2)
    assert len(proofs.prove(GRAPH, SCHEMA, grid, [linf(3)] * 2, margins(outputs.argmax(axis=1)), hints=sent)) == 2


def test_hints_for_another_model_are_left_aside():
    grid, outputs = cases(2)
    wanted = margins(outputs.argmax(axis=1))
    usual = proofs.prove(GRAPH, SCHEMA, grid, [linf(3)] * 2, wanted)
    sent = hints_for(samples.mlp([6, 17, 16, 3]), 2, 0)
    assert not sent.usable(make_plan(GRAPH)).any()
    assert proofs.prove(GRAPH, SCHEMA, grid, [linf(3)] * 2, wanted, hints=sent) == usual
    with pytest.raises(AuditorError):
        proofs.prove(GRAPH, SCHEMA, grid, [linf(3)] * 2, wanted, hints=hints_for(GRAPH, 3, 0))


def test_arguments_that_do_not_fit_are_refused():
    grid, outputs = cases(2)
    wanted = margins(outputs.argmax(axis=1))
    other = samples.grid_schema((2, 3), scale=20.0, offset=0.0, low=-60, high=60)
    for change in ({"schema": other}, {"regions": [linf(0)]}, {"properties": wanted[:1]}):
        arguments = {"schema": SCHEMA, "regions": [linf(0)] * 2, "properties": wanted, **change}
        with pytest.raises(AuditorError):
            proofs.prove(GRAPH, arguments["schema"], grid, arguments["regions"], arguments["properties"])


def test_only_what_the_output_needs_is_read():
    """The composed model of a changed network also holds the base, with operators that have no bound."""
    from dataclasses import replace

    from protocol.model.operators import make_node

    extra = replace(GRAPH, nodes=(make_node("Round", ("x",), "unused"), *GRAPH.nodes))
    grid, outputs = cases(3)
    wanted = margins(outputs.argmax(axis=1))
    assert proofs.prove(extra, SCHEMA, grid, [linf(1)] * 3, wanted) == proofs.prove(
        GRAPH, SCHEMA, grid, [linf(1)] * 3, wanted
    )


def rational(wanted, classes, output):
    """Whether exact logits have a property, written apart from `demand`."""
    if isinstance(wanted, Argmax):
        return all(
            output[wanted.klass] - output[k] >= rows.exact(wanted.margin) for k in range(classes) if k != wanted.klass
        )
    return all(
        sum(Fraction(float(np.float32(c))) * v for c, v in zip(row, output, strict=True)) >= rows.exact(least)
        for row, least in zip(wanted.rows, wanted.least, strict=True)
    )


@st.composite
def claims_on(draw):
    """A network that was built to fool bounds, a record, and claims that are nearly true there."""
    graph = draw(tricky())
    rng = np.random.default_rng(draw(SEEDS))
    features, classes = graph.features, graph.classes
    scale = float(draw(st.sampled_from([1.0, 255.0, -20.0, 0.125])))
    schema = samples.grid_schema((features,), scale=scale, offset=0.0, low=-40, high=40)
    grid = rng.integers(-40, 41, (1, features))
    exact = exactly(graph, schema.dequantise(grid)[0])
    wanted = []
    top = max(range(classes), key=lambda k: exact[k])
    gaps = [exact[top] - exact[k] for k in range(classes) if k != top]
    for share in (Fraction(0), Fraction(1, 2), Fraction(999, 1000), Fraction(1)):
        margin = min(gaps, default=Fraction(0)) * share
        if Fraction(1, 10**30) < margin < 10**30:
            wanted.append(Argmax(klass=top, margin=rows.decimal_below(margin, digits=30)))
        row = rng.normal(size=classes).astype(np.float32)
        value = sum((Fraction(float(c)) * v for c, v in zip(row, exact, strict=True)), Fraction(0))
        least = value - abs(value) * (1 - share) / 1000
        if least and Fraction(1, 10**30) < abs(least) < 10**30:
            wanted.append(linear_property(row[None], [rows.decimal_below(least, digits=30)]))
    return graph, schema, grid, wanted


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(claims_on(), SEEDS, st.integers(0, 2))
def test_networks_that_fool_verifiers_are_never_certified_wrongly(case, seed, radius):
    graph, schema, grid, wanted = case
    if not wanted:
        return
    rng = np.random.default_rng(seed)
    repeated = np.repeat(grid, len(wanted), axis=0)
    found = proofs.prove(graph, schema, repeated, [linf(radius)] * len(wanted), wanted)
    for wish, proof in zip(wanted, found, strict=True):
        if proof.radius == proofs.UNPROVEN:
            continue
        low, high = region(schema, grid, np.array([proof.radius]))
        x = inside(rng, low[0], high[0], 6)
        outputs = [exactly(graph, point) for point in x[:3]]
        for flush, wide in ((False, False), (True, False), (False, True)):
            outputs += list(Execution(rng=rng, flush=flush, wide=wide).run(graph, x))
        for made in runtimes(graph, x)[-2:]:
            outputs += list(made)
        for output in outputs:
            exact = [value if isinstance(value, Fraction) else Fraction(float(value)) for value in output]
            assert rational(wish, graph.classes, exact)
