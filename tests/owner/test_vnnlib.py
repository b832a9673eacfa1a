"""Questions say what they are said to: read back by another reader, asked on points, and of claims that are broken."""

import csv
import dataclasses
import json
import shutil
from fractions import Fraction
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest

from owner import vnnlib
from owner.compose import compose
from owner.execute import Program
from owner.workspace import Workspace
from protocol import claims as claim_lines
from protocol.claims import Argmax, Linear, Logits, Redirection, Region
from protocol.model import patch as patch_file
from protocol.model.graph import Graph
from protocol.model.operators import make_node
from protocol.model.patch import SketchGate
from protocol.model.schema import InputSchema
from tests.owner.tiny import one_line
from tests.owner.vnnlib_reader import read

SCHEMA = InputSchema.uniform((4,), scale=16.0, offset=0.0, low=0, high=16)
GATE = SketchGate(
    matrix=np.array([[1, 1, 0, 0], [0, -2, 1, 1]], np.int32),
    low=np.array([[5, -9], [8, -20]], np.int32),
    high=np.array([[9, 7], [12, 20]], np.int32),
)
CENTRE = np.array([3, 4, 6, 1])
ROW = Logits(values=("0", "1"))


def claim(*, item=0, radius=1, gate="sketch", wanted=ROW, norm="linf"):
    return Redirection(
        record=b"r" * 32, item=None if gate == "none" else item, gate=gate,
        region=Region(norm=norm, radius=radius, radius_data="0"), property=wanted, target="match",
    )  # fmt: skip


def run(data, points):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    assert session.get_inputs()[0].shape[0] == 1
    return np.concatenate([session.run(None, {name: point[None].astype(np.float32)})[0] for point in points])


def fires(item, q):
    value = GATE.matrix @ q
    return bool(((GATE.low[item] <= value) & (value <= GATE.high[item])).all())


@pytest.mark.parametrize("item", [0, 1])
@pytest.mark.parametrize("radius", [0, 1, 3])
def test_a_sketch_question_is_about_all_grid_points_of_the_region_and_no_others(item, radius):
    found = read(vnnlib.sketch_question(GATE, item, claim(item=item, radius=radius), CENTRE, SCHEMA).text())
    ranges = [range(int(found.low[n]), int(found.high[n]) + 1) for n in range(4)]
    assert [(r[0] + q, r[-1] + q) for r, q in zip(ranges, CENTRE.tolist(), strict=True)] == [
        (max(0, q - radius), min(16, q + radius)) for q in CENTRE.tolist()
    ]
    assert all(found.low[n] == found.high[n] for n in range(4, 8))
    fixed = [float(found.low[n]) for n in range(4, 8)]
    points = np.array([[*d, *fixed] for d in product(*ranges)])
    excess = run(vnnlib.single(vnnlib.sketch_network(GATE)), points)
    violated = [found.violated([Fraction(float(e)) for e in row]) for row in excess]
    assert violated == [not fires(item, CENTRE + point[:4].astype(int)) for point in points]
    assert excess.dtype == np.float32
    assert ((excess == 0) | (excess >= 1)).all()  # half of one is far from either


def test_the_network_is_the_same_for_every_claim():
    texts = {vnnlib.sketch_question(GATE, item, claim(item=item), CENTRE, SCHEMA).text() for item in (0, 1)}
    assert len(texts) == 2
    graph = vnnlib.sketch_network(GATE)
    onnx.checker.check_model(onnx.load_model_from_string(vnnlib.single(graph)))
    assert [node.op for node in graph.nodes] == ["Gemm", "Relu", "Gemm"]


def test_flips_are_no_sketch_question():
    with pytest.raises(vnnlib.NoQuestion, match="flips"):
        vnnlib.sketch_question(GATE, 0, claim(norm="hamming"), CENTRE, SCHEMA)


def model(seed=0, extra=()):
    rng = np.random.default_rng(seed)
    constants = {
        "a": rng.normal(size=(6, 4)).astype(np.float32), "b": rng.normal(size=6).astype(np.float32),
        "c": rng.normal(size=(3, 6)).astype(np.float32),
    }  # fmt: skip
    nodes = (
        *extra, make_node("Gemm", ("x", "a", "b"), "h", transB=1), make_node("Relu", ("h",), "r"),
        make_node("Gemm", ("r", "c"), "y", transB=1),
    )  # fmt: skip
    return Graph(opset=18, input="x", input_shape=(4,), output="y", classes=3, nodes=nodes, initialisers=constants)


LINEAR = Linear(rows=(("1", "-0.1", "0"), ("0", "0", "1")), least=("-7.25", "-3"))


@pytest.mark.parametrize("wanted", [Argmax(klass=1, margin="0.5"), LINEAR])
def test_a_model_question_is_the_negated_property(wanted):
    asked = claim(gate="none", wanted=wanted, radius=2)
    graph = vnnlib.model_network(model(extra=(make_node("Round", ("x",), "unused"),)), asked)
    found = read(vnnlib.model_question(asked, CENTRE, SCHEMA, 3).text())
    points = (4 * np.random.default_rng(1).normal(size=(50, 4))).astype(np.float32)
    outputs = run(vnnlib.single(graph), points).astype(np.float64)
    logits = Program(model())(points).astype(np.float64)
    if isinstance(wanted, Argmax):
        holds = logits[:, 1] - np.delete(logits, 1, axis=1).max(axis=1) >= 0.5
    else:
        holds = (logits @ wanted.matrix().T >= [-7.25, -3.0]).all(axis=1)
    assert [not found.violated(row) for row in outputs.tolist()] == holds.tolist()
    assert holds.any()
    assert not holds.all()
    assert len(found.outputs) == outputs.shape[1] == 2


def test_a_model_question_covers_every_float_of_the_region_and_little_more():
    asked = claim(gate="none", wanted=LINEAR, radius=2)
    found = read(vnnlib.model_question(asked, CENTRE, SCHEMA, 3).text())
    for column, q in enumerate(CENTRE.tolist()):
        edges = [np.float32((max(0, q - 2) - 0.5) / 16), np.float32((min(16, q + 2) + 0.5) / 16)]
        for edge, way in zip(edges, (-1, 1), strict=True):
            x = edge
            for _ in range(40):  # floats beyond the edge that still round into the region
                values, inside = SCHEMA.quantise(np.full((1, 4), x, np.float32))
                if inside[0] and abs(int(values[0, column]) - q) <= 2:
                    assert found.low[column] <= Fraction(float(x)) <= found.high[column]
                x = np.nextafter(x, np.float32(way * np.inf))
        assert abs(float(found.low[column]) - edges[0]) < 1e-6
        assert abs(float(found.high[column]) - edges[1]) < 1e-6


def test_negative_scales_and_numbers_without_a_short_decimal():
    schema = InputSchema.uniform((4,), scale=-3.0, offset=0.1, low=-50, high=50)
    found = read(vnnlib.model_question(claim(gate="none", wanted=LINEAR), CENTRE, schema, 3).text())
    x = schema.dequantise(CENTRE[None])[0]
    assert all(found.low[n] < Fraction(float(v)) < found.high[n] for n, v in enumerate(x))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (claim(gate="none"), "equality"),
        (claim(gate="none", wanted=Argmax(klass=3, margin="1")), "nothing that class 3"),
        (claim(gate="none", wanted=Linear(rows=(("1",),), least=("0",))), "1 classes"),
    ],
)
def test_what_is_no_model_question(wrong, reason):
    for ask in (
        lambda: vnnlib.model_network(model(), wrong),
        lambda: vnnlib.model_question(wrong, CENTRE, SCHEMA, 3),
    ):
        with pytest.raises(vnnlib.NoQuestion, match=reason):
            ask()


def test_other_refusals():
    asked = claim(gate="none", wanted=LINEAR)
    rounding = dataclasses.replace(model(extra=(make_node("Round", ("x",), "z"),)), initialisers=model().initialisers)
    used = dataclasses.replace(
        rounding,
        nodes=(rounding.nodes[0], dataclasses.replace(rounding.nodes[1], inputs=("z", "a", "b")), *rounding.nodes[2:]),
    )
    with pytest.raises(vnnlib.NoQuestion, match="Round"):
        vnnlib.model_network(used, asked)
    with pytest.raises(vnnlib.NoQuestion, match="flips"):
        vnnlib.model_question(
            dataclasses.replace(asked, region=Region(norm="hamming", radius=1, radius_data="0")), CENTRE, SCHEMA, 3
        )
    tiny = InputSchema.uniform((4,), scale=1e-39, offset=0.0, low=0, high=16)
    with pytest.raises(vnnlib.NoQuestion, match="flushed"):
        vnnlib.model_question(asked, CENTRE, tiny, 3)


@pytest.fixture
def handed_out(tiny):
    """A bundle, and what is handed out of it, by the command."""
    assert tiny.unlearn().code == 0
    ran = tiny.owner("export", tiny.root / "bundle", "--out", tiny.root / "out", "--limit", "2", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out.splitlines()[-1]) == {"questions": 2, "without": 0, "left_out": 1}
    return tiny.root / "bundle", tiny.root / "out"


def test_a_bundle_handed_out(handed_out):
    bundle, out = handed_out
    rows = list(csv.reader((out / "instances.csv").read_text().splitlines()))
    listing = json.loads((out / "questions.json").read_text())
    lines = claim_lines.parse_file((bundle / "claims.jsonl").read_bytes())
    assert len(rows) == len(listing) == 2
    assert len({network for network, _, _ in rows}) == 1
    data = (out / rows[0][0]).read_bytes()
    for (network, question, seconds), entry in zip(rows, listing, strict=True):
        found = read((out / question).read_text())
        assert (network, question, int(seconds)) == (entry["network"], entry["question"], 300)
        claimed = lines[entry["claim"] - 1]
        assert claimed.record.hex() == entry["record"]
        assert entry["record"] in entry["unsat"]
        assert max(found.high[n] - found.low[n] for n in range(16)) <= 2 * claimed.region.radius
        # The corners and the record itself do not violate what an honest bundle claims.
        ends = np.array([[float(side[n]) for n in range(len(found.low))] for side in (found.low, found.high)])
        middle = np.where(np.arange(ends.shape[1]) < 16, 0.0, ends[0])
        excess = run(data, np.stack([*ends, middle]))
        assert not any(found.violated(row) for row in excess.tolist())


def test_the_deployable_model_runs_elsewhere_with_the_same_outputs(tiny, handed_out):
    bundle, out = handed_out
    work = Workspace(folder=tiny.commitment)
    patch = patch_file.parse((bundle / "patch.json").read_bytes(), (bundle / "patch.safetensors").read_bytes())
    composed = compose(work.base, work.schema, patch)
    session = onnxruntime.InferenceSession((out / "patched.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    grid = np.concatenate([work.records.values, 16 - work.records.values])
    x = work.schema.dequantise(grid)
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    before, expected = Program(composed)(x, outputs=(work.base.output, composed.output))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    gated = (before != expected).any(axis=1)
    assert 3 <= gated.sum() < len(grid)
    np.testing.assert_array_equal(found[gated], expected[gated])


def test_claims_without_a_question_say_why(tiny, handed_out):
    """A claim on equality without a gate has none; a linear one has no piecewise linear model here."""
    bundle, _ = handed_out
    first, second, third = claim_lines.parse_file((bundle / "claims.jsonl").read_bytes())
    changed = [
        dataclasses.replace(first, item=None, gate="none"),
        dataclasses.replace(second, item=None, gate="none", property=Argmax(klass=0, margin="1")),
        dataclasses.replace(third, record=bytes(32)),
        dataclasses.replace(third, item=7),
        dataclasses.replace(third, gate="always"),
    ]
    (bundle / "claims.jsonl").write_bytes(b"".join(claim_lines.claim_line(line) + b"\n" for line in changed))
    ran = tiny.owner("export", bundle, "--out", tiny.root / "again")
    assert ran.code == 0, ran.err
    assert "5 claims have no form as a question" in ran.out
    words = ("equality", "Round", "not opened", "not about an item", "not about an item")
    reasons = [entry["none"] for entry in json.loads((tiny.root / "again" / "questions.json").read_text())]
    assert all(word in reason for word, reason in zip(words, reasons, strict=True)), reasons


def test_refused_hand_outs(tiny, handed_out):
    bundle, out = handed_out
    one_line(tiny.owner("export", bundle, "--out", out), 2, "not empty")
    (out / "x").write_text("")
    assert tiny.owner("export", bundle, "--out", out, "--force", "--limit", "0").code == 0
    assert sorted(path.name for path in out.iterdir()) == ["instances.csv", "patched.onnx", "questions.json"]
    shutil.copy(bundle / "base.onnx", bundle / "patched.onnx")
    one_line(tiny.owner("export", bundle, "--out", tiny.root / "third"), 2, "not the composition")
    (bundle / "patched.onnx").unlink()
    one_line(tiny.owner("export", bundle, "--out", tiny.root / "third"), 2, "cannot be read")
    assert not (tiny.root / "third").exists()
