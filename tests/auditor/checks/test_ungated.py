"""Claims without a gate: proven by bounds, open with a radius, refuted by an output."""

import dataclasses

import numpy as np
import pytest

from auditor.checks import boundedness, disclosure, redirection
from protocol.claims import Argmax, Linear, Redirection, Region
from protocol.model.graph import Graph

CLASS = 3


def changed_model(base, *, lift):
    """The base and, beside it, a copy whose last layer was given another bias: what a method that trains leaves."""
    own = {base.input: base.input}
    nodes, constants = list(base.nodes), dict(base.initialisers)
    for node in base.nodes:
        own |= {name: f"changed/{name}" for name in node.outputs}
        inputs = tuple(own.get(name, name) for name in node.inputs)
        if node.outputs[0] == base.output:
            assert node.op == "Gemm"
            bias = np.array(constants[node.inputs[2]])
            bias[CLASS] += np.float32(lift)
            constants["changed/bias"] = bias
            inputs = (*inputs[:2], "changed/bias")
        outputs = tuple(own[name] for name in node.outputs)
        nodes.append(dataclasses.replace(node, inputs=inputs, outputs=outputs, name=outputs[0]))
    return Graph(
        opset=base.opset, input=base.input, input_shape=base.input_shape, output=own[base.output],
        classes=base.classes, nodes=tuple(nodes), initialisers=constants,
    )  # fmt: skip


@pytest.fixture
def ungated(honest_evidence, changed):
    """A function: the honest evidence with a changed model and claims without a gate."""

    def make(wanted, *, radius=2, lift=40.0, norm="linf", target="relabel", data="0"):
        claims = tuple(
            dataclasses.replace(
                claim,
                item=None,
                gate="none",
                property=wanted,
                target=target,
                region=Region(norm=norm, radius=radius, radius_data=data),
            )
            for claim in honest_evidence.case.claims
        )
        found = changed(case__claims=claims)
        found.__dict__["composed"] = changed_model(honest_evidence.case.base, lift=lift)
        found.__dict__["batch"] = 256  # the base's own output is kept beside: no graph of the profile
        return found

    return make


def test_proven_claims_are_consistent(ungated):
    found = redirection.check(ungated(Argmax(klass=CLASS, margin="1")))
    assert found.verdict == "CONSISTENT", found
    assert "by bounds" in found.summary
    assert found.evidence["proven"] == found.evidence["claims"] == 40
    assert found.evidence["without_a_gate"]["proven"] == 40
    assert found.evidence["without_a_gate"]["largest_proven_steps"]["min"] == 2


def test_linear_claims_are_proven_as_well(ungated):
    coefficients = ["0"] * 10
    coefficients[CLASS], coefficients[0] = "1", "-0.5"
    assert redirection.check(ungated(Linear(rows=(tuple(coefficients),), least=("0.5",)))).verdict == "CONSISTENT"


def test_what_is_not_proven_is_open_and_says_how_far(ungated):
    found = redirection.check(ungated(Argmax(klass=CLASS, margin="1"), radius=9))
    assert found.verdict == "INCONCLUSIVE"
    assert "9 steps are claimed, the largest proven radius is" in found.summary
    radii = found.evidence["without_a_gate"]["largest_proven_steps"]
    assert 2 <= radii["min"] < 9


def test_an_output_refutes(ungated):
    found = redirection.check(ungated(Argmax(klass=CLASS, margin="38"), radius=8))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "representatives-only")
    # A margin that every record itself keeps, and not every corner of its region.
    evidence = ungated(Argmax(klass=CLASS, margin="1"))
    outputs = evidence.run(evidence.claimed_records[0])[1]
    least = (outputs[:, CLASS] - np.delete(outputs, CLASS, axis=1).max(axis=1)).min()
    found = redirection.check(ungated(Argmax(klass=CLASS, margin=str(int(least * 10) / 10)), radius=8))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "unsound-region")
    wrong = ["0"] * 10
    wrong[CLASS] = "1"
    assert redirection.check(ungated(Linear(rows=(tuple(wrong),), least=("1000",)))).verdict == "REFUTED"
    assert redirection.check(ungated(Linear(rows=(("1",),), least=("0",)))).verdict == "REFUTED"


def test_a_model_that_did_not_change_redirects_nothing(ungated):
    anything = Linear(rows=(("1",) + ("0",) * 9,), least=("-100000",))
    found = redirection.check(ungated(anything, lift=0.0))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "noop-patch")
    # Nor does one that changed by rounding errors.
    found = redirection.check(ungated(anything, lift=1e-4))
    assert (found.verdict, found.findings[0].threat) == ("REFUTED", "noop-patch")


def test_other_reasons_to_stay_open(ungated, honest_evidence):
    wanted = Argmax(klass=CLASS, margin="1")
    assert "in data units" in redirection.check(ungated(wanted, data="1000")).summary
    own = redirection.check(ungated(wanted, target="misclassify"))
    assert own.verdict == "INCONCLUSIVE"
    assert (honest_evidence.claimed_records[1] == CLASS).sum() == len(own.evidence["open"])
    flips = redirection.check(ungated(wanted, norm="hamming", radius=1))
    assert flips.verdict == "INCONCLUSIVE"
    assert "flips are claimed" in flips.summary
    assert flips.evidence["counterexamples"] == 0


def test_beside_claims_with_gates(honest_evidence, changed, ungated):
    """The composed model has gates: nothing is proven of the claim without one, the others are as before."""
    first, *rest = honest_evidence.case.claims
    free = dataclasses.replace(first, item=None, gate="none")
    found = redirection.check(changed(case__claims=(free, *rest)))
    assert found.verdict == "INCONCLUSIVE"
    assert "not one that is bounded here" in found.summary
    assert found.evidence["proven"] == 39
    assert isinstance(free, Redirection)
    for other in (disclosure, boundedness):
        assert other.check(changed(case__claims=(free, *rest))).verdict in ("CONSISTENT", "REFUTED", "INCONCLUSIVE")
