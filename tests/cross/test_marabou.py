"""Marabou, which shares no code with us, answers our questions as the auditor decides the claims.

Proven by the auditor means `unsat`; a claim that some point violates means `sat`. What the auditor cannot prove and
nothing violates is not compared: Marabou's answer is about real numbers and may be either. It runs in an
environment of its own (`make marabou`), reads the network and the VNN-LIB file itself, and prints one word.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from auditor import bounds, proofs
from auditor.execute import Program
from auditor.hinting import Given
from auditor.propagation import margin_radius, margin_rows, region
from owner import vnnlib
from owner.relaxation import Question, Relaxation, search
from protocol.claims import Argmax, Logits, Redirection, Region, linear_property
from protocol.hints import Slopes
from protocol.model.patch import SketchGate
from protocol.model.schema import InputSchema
from tests.auditor import samples

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-marabou" / "bin" / "python"


@pytest.fixture(scope="module")
def marabou(tmp_path_factory):
    """A function: answers of Marabou to questions, each a graph and a question."""
    if not PYTHON.exists():
        pytest.skip("Marabou is not installed; `make marabou` puts it into .venv-marabou")
    folder = tmp_path_factory.mktemp("marabou")

    def solve(asked):
        arguments = []
        for number, (graph, question) in enumerate(asked):
            network, text = folder / f"{number}.onnx", folder / f"{number}.vnnlib"
            network.write_bytes(vnnlib.single(graph))
            text.write_text(question.text())
            arguments += [network, text]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        ran = subprocess.run(
            [PYTHON, Path(__file__).with_name("marabou_solve.py"), *arguments],
            capture_output=True, text=True, timeout=300, check=False, cwd=folder, env=environment,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-2000:]
        answers = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("answer: ")]
        assert len(answers) == len(asked), (ran.stdout, ran.stderr[-2000:])
        return answers

    return solve


def claim(wanted, radius, *, gate="none", item=None):
    return Redirection(
        record=bytes(32), item=item, gate=gate, region=Region(norm="linf", radius=radius, radius_data="0"),
        property=wanted, target="relabel",
    )  # fmt: skip


def test_items_of_a_sketch(marabou):
    """4x4 block sums of 8x8 pictures: at the certified radius every bound is attained, one step more leaves the box."""
    rng = np.random.default_rng(0)
    schema = InputSchema.uniform((64,), scale=16.0, offset=0.0, low=0, high=16)
    blocks = np.kron(np.eye(4, dtype=np.int32).reshape(4, 2, 2), np.ones((1, 4, 4), np.int32)).reshape(4, 64)
    matrix = np.concatenate([blocks, rng.integers(-2, 3, (2, 64)).astype(np.int32)])
    grid = rng.integers(4, 13, (6, 64))
    radius = np.array([0, 1, 2, 3, 3, 4])
    reach = radius[:, None] * np.abs(matrix).sum(axis=1)
    sketch = grid @ matrix.T
    gate = SketchGate(matrix=matrix, low=(sketch - reach).astype(np.int32), high=(sketch + reach).astype(np.int32))
    network = vnnlib.sketch_network(gate)
    asked, expected = [], []
    for wider in (0, 1):
        proof = bounds.prove_sketch_core(
            gate, centre=grid, radius=(radius + wider)[:, None], item=np.arange(6), column_low=schema.low,
            column_high=schema.high,
        )  # fmt: skip
        for item in range(6):
            one = claim(Logits(values=("0",)), int(radius[item]) + wider, gate="sketch", item=item)
            asked.append((network, vnnlib.sketch_question(gate, item, one, grid[item], schema)))
            expected.append("unsat" if proof.proven[item] else "sat")
    # Another record's item does not fire on the record at all.
    stranger = claim(Logits(values=("0",)), 0, gate="sketch", item=0)
    asked.append((network, vnnlib.sketch_question(gate, 0, stranger, grid[1], schema)))
    assert expected == ["unsat"] * 6 + ["sat"] * 6
    assert marabou(asked) == [*expected, "sat"]


def test_properties_of_a_network(marabou):
    """Radii at which bounds prove a margin, and radii at which some corner of the region violates it by far."""
    rng = np.random.default_rng(0)
    graph = samples.mlp([6, 16, 16, 3], seed=1)
    schema = samples.grid_schema((6,), scale=20.0, offset=0.0, low=-60, high=60)
    grid = rng.integers(-60, 61, (12, 6))
    labels = Program(graph)(schema.dequantise(grid)).argmax(axis=1)
    radii = margin_radius(graph, schema, grid, labels, margin=0.01, ceiling=40)
    claims, centres, expected = [], [], []
    for record in np.flatnonzero(radii >= 0)[:5]:
        label, rows = int(labels[record]), margin_rows(labels[record : record + 1], 3)[0]
        for wanted in (Argmax(klass=label, margin="0.01"), linear_property(rows.astype(np.float32), ["0.01", "0.01"])):
            claims.append(claim(wanted, int(radii[record])))
            centres.append(record)
            expected.append("unsat")
    for record in range(12):
        low, high = region(schema, grid[record : record + 1], np.array([20]))
        corners = np.where(rng.random((4000, 6)) < 0.5, low, high)
        outputs = Program(graph)(corners).astype(np.float64)
        lead = outputs[:, labels[record]] - np.delete(outputs, labels[record], axis=1).max(axis=1)
        if lead.min() < -0.1 and expected.count("sat") < 4:
            claims.append(claim(Argmax(klass=int(labels[record]), margin="0.01"), 20))
            centres.append(record)
            expected.append("sat")
    assert min(expected.count("unsat"), expected.count("sat")) >= 4
    found = proofs.prove(graph, schema, grid[centres], [one.region for one in claims], [one.property for one in claims])
    assert ["unsat" if proof.proven else "sat" for proof in found] == expected
    asked = [
        (vnnlib.model_network(graph, one), vnnlib.model_question(one, grid[record], schema, 3))
        for one, record in zip(claims, centres, strict=True)
    ]
    assert marabou(asked) == expected


def test_claims_that_only_hints_prove(marabou):
    """Margins between what the auditor proves without the owner's slopes and with them: Marabou finds no violation."""
    rng = np.random.default_rng(1)
    graph = samples.mlp([6, 16, 16, 3], seed=1)
    schema = samples.grid_schema((6,), scale=20.0, offset=0.0, low=-60, high=60)
    grid = rng.integers(-60, 61, (12, 6))
    labels = Program(graph)(schema.dequantise(grid)).argmax(axis=1)
    low, high = region(schema, grid, np.array(6))
    rows = margin_rows(labels, 3)
    found = search(Relaxation(graph), Question(low=low, high=high, rows=rows, floor=np.full((12, 2), 1e3)), inner=10)
    inner, last = found.slopes.packed()
    given = Given(
        slopes=Slopes(claim=np.arange(12, dtype=np.int32), entry=np.arange(12, dtype=np.int32), inner=inner, last=last),
        entry=np.arange(12),
    )
    # A third of the way from the bounds with slopes down to those without: well above the auditor's rounding.
    least = (2 * found.lower + found.usual) / 3
    claims = [
        claim(linear_property(rows[n].astype(np.float32), [f"{value:.5f}".rstrip("0") for value in least[n]]), 6)
        for n in range(12)
    ]
    arguments = graph, schema, grid, [one.region for one in claims], [one.property for one in claims]
    usual, hinted = proofs.prove(*arguments), proofs.prove(*arguments, hints=given)
    chosen = [n for n in range(12) if hinted[n].proven and not usual[n].proven][:5]
    assert len(chosen) >= 3
    asked = [
        (vnnlib.model_network(graph, claims[n]), vnnlib.model_question(claims[n], grid[n], schema, 3)) for n in chosen
    ]
    assert marabou(asked) == ["unsat"] * len(chosen)
