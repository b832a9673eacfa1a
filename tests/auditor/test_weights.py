"""Patches that change weights: what is said of them, and that weights are no way around a check."""

import dataclasses

import numpy as np
import pytest

from auditor.checks import binding, boundedness, disclosure, locality, redirection
from owner.compose import compose
from owner.execute import Program
from owner.methods import fine_tune, retrain
from owner.methods.job import Result
from protocol.claims import Argmax, Redirection, Region
from protocol.model import profile
from protocol.model.patch import Weight


def nudged(base, factor):
    """Every weight matrix times `factor`."""
    matrices = sorted(name for name, array in base.initialisers.items() if array.ndim == 2)
    return tuple(Weight(name=name, values=base.initialisers[name] * np.float32(factor)) for name in matrices)


def with_weights(scene, weights, *, claims=None):
    patch = dataclasses.replace(scene.result.patch, weights=weights)
    return Result(patch=patch, claims=scene.result.claims if claims is None else claims)


@pytest.mark.parametrize("method", [retrain, fine_tune])
def test_a_retrained_model_is_neither_accused_nor_certified(workshop, method):
    forged = workshop.forge(lambda scene: scene.draft(method.run(scene.job)))
    verdict, checks, findings = workshop.verdicts(forged)
    assert verdict == "INCONCLUSIVE"
    assert not findings
    assert {checks[name] for name in ("redirection", "locality", "boundedness", "disclosure")} == {"INCONCLUSIVE"}
    assert checks["binding"] == "CONSISTENT"
    found = locality.check(workshop.evidence(forged))
    assert found.evidence["reference"]["moved"] == found.evidence["reference"]["records"]
    assert 0 < found.evidence["reference"]["decided_otherwise"] < found.evidence["reference"]["records"]


def test_a_certificate_that_says_inert_over_changed_weights(workshop):
    def change(scene):
        made = scene.draft(retrain.run(scene.job))
        return dataclasses.replace(made, certificate=dataclasses.replace(made.certificate, inert_outside_supports=True))

    verdict, checks, findings = workshop.verdicts(workshop.forge(change))
    assert verdict == "REFUTED"
    assert checks["locality"] == "REFUTED"
    assert findings == {"excessive-support"}


def test_weights_beside_gates_lose_what_gates_had(workshop):
    def change(scene):
        return scene.draft(with_weights(scene, nudged(scene.job.workspace.base, 1.0001)))

    forged = workshop.forge(change)
    verdict, checks, findings = workshop.verdicts(forged)
    assert verdict == "INCONCLUSIVE"
    assert not findings
    # The gate stands in front of whatever the weights do: its claims are as exact as before.
    assert checks["redirection"] == "CONSISTENT"
    assert checks["locality"] == checks["boundedness"] == "INCONCLUSIVE"
    assert disclosure.check(workshop.evidence(forged)).verdict == "CONSISTENT"


def test_weights_that_do_damage_are_refuted(workshop):
    def change(scene):
        return scene.draft(with_weights(scene, nudged(scene.job.workspace.base, -1)))

    verdict, checks, findings = workshop.verdicts(workshop.forge(change))
    assert verdict == "REFUTED"
    assert checks["utility"] == "REFUTED"
    assert "hidden-damage" in findings


def test_a_deployed_file_without_the_weights(workshop):
    def change(scene):
        made = scene.draft(retrain.run(scene.job))
        base = profile.serialise(scene.job.workspace.base)
        return dataclasses.replace(made, files={**made.files, "patched.onnx": ("patched", base)})

    evidence = workshop.evidence(workshop.forge(change, answer=False))
    found = binding.check(evidence)
    assert found.verdict == "REFUTED"
    assert {finding.threat for finding in found.findings} == {"hidden-payload"}


def _claims(scene, graph, *, margin):
    own, schema = scene.job.workspace.records, scene.job.workspace.schema
    shown = Program(graph)(schema.dequantise(own.values[scene.job.rows])).argmax(axis=1)
    records = scene.job.workspace.commitments_of(scene.job.rows)
    region = Region(norm="linf", radius=0, radius_data="0")
    return tuple(
        Redirection(
            record=record, item=None, gate="none", region=region, target="misclassify",
            property=Argmax(klass=int(klass), margin=margin),
        )
        for record, klass in zip(records, shown, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize(("factor", "margin"), [(1.000001, "0.001"), (-1, "1000")])
def test_claims_over_weights_that_do_not_hold(workshop, factor, margin):
    """The base's own outputs, called a redirection; and a lead that the changed model does not have."""

    def change(scene):
        patch = dataclasses.replace(scene.result.patch, parts=(), weights=nudged(scene.job.workspace.base, factor))
        graph = compose(scene.job.workspace.base, scene.job.workspace.schema, patch)
        return scene.draft(Result(patch=patch, claims=_claims(scene, graph, margin=margin)))

    found = redirection.check(workshop.evidence(workshop.forge(change, answer=False)))
    assert found.verdict == "REFUTED"


def test_how_many_weights_are_changed_is_said(workshop):
    evidence = workshop.evidence(workshop.forge(lambda scene: scene.draft(retrain.run(scene.job)), answer=False))
    found = boundedness.check(evidence)
    assert found.verdict == "INCONCLUSIVE"
    assert found.evidence["weights"] == sum(
        array.size for array in evidence.case.base.initialisers.values() if array.dtype == np.float32
    )
