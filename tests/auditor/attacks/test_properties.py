"""A5, A6, A13 and A12: properties of patches, on a patch that was made here."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from auditor import compose
from auditor.attacks import Property, Unavailable
from auditor.attacks.difference import Difference, choose_decoys, decoy_patch
from auditor.attacks.export import PRECISIONS, ExportRoundTrip, convert, run
from auditor.attacks.gate_probe import GateProbe
from auditor.attacks.properties import area
from auditor.attacks.strip import PatchStrip
from auditor.execute import Program
from auditor.membership import MembershipPlan, assess
from protocol.errors import AuditorError
from protocol.model.patch import Cap, Patch
from tests.auditor.attacks.synthetic import gaussian, logits_with
from tests.auditor.attacks.worlds import CLASSES, FEATURES, patched_world
from tests.auditor.samples import rebuilt

NAN = lambda x: np.full((len(x), CLASSES), np.nan, np.float32)


def random():
    return np.random.default_rng(0)


def test_properties_are_never_counted():
    subjects, *_ = patched_world()
    found = Difference()(subjects, random())
    assert isinstance(found, Property)
    assert found.counts is False
    assert found.figures()["difference.value"] == found.value
    assert found.figures()["difference.records"] == len(subjects.values)


@pytest.mark.parametrize("norm", ["max", "l2"])
def test_the_difference_gives_a_local_patch_away(norm):
    subjects, *_ = patched_world()
    found = Difference(norm=norm)(subjects, random())
    assert found.value == 1.0
    assert 0.9 < found.low < 1.0
    assert found.facts["changed_forgotten"] == 1.0
    assert found.facts["changed_never_seen"] == 0.0
    assert norm in found.settings


def test_decoys_are_not_told_from_forgotten_records_when_the_rows_are_alike():
    subjects, _, base, patch = patched_world(forgotten=40, reference=300)
    places = choose_decoys(subjects.labels, subjects.forget, random())
    np.testing.assert_array_equal(subjects.labels[places], subjects.labels[:40])
    assert len(set(places)) == 40
    assert not subjects.forget[places].any()
    decoys = decoy_patch(patch, subjects.values[:40], subjects.values[places])
    disguised = Program(compose.compose(base, subjects.schema, decoys))
    found = Difference(decoy=disguised, decoys=places)(subjects, random())
    assert found.facts["auc_never_seen"] == 1.0
    assert found.facts["changed_decoys"] == 1.0
    assert found.low < 0.5 < found.high
    assert len(found.per_record) == 80
    # Decoys with tiny differences hide nothing.
    timid = decoy_patch(
        patch, subjects.values[:40], subjects.values[places], subjects.base(subjects.inputs)[places] + np.float32(0.01)
    )
    told = Difference(decoy=Program(compose.compose(base, subjects.schema, timid)), decoys=places)(subjects, random())
    assert told.value > 0.9


def test_difference_refusals():
    subjects, _, _, patch = patched_world()
    places = choose_decoys(subjects.labels, subjects.forget, random())
    assert "base" in Difference()(replace(subjects, base=None), random()).reason
    for broken in ({"base": NAN}, {"patched": NAN}):
        assert "not finite" in Difference()(replace(subjects, **broken), random()).reason
    assert "not finite" in Difference(decoy=NAN, decoys=places)(subjects, random()).reason
    one = replace(subjects, forget=np.arange(len(subjects.values)) < 1)
    assert "two records" in Difference()(one, random()).reason
    assert "two records" in Difference(decoy=subjects.patched, decoys=places[:0])(subjects, random()).reason
    with pytest.raises(AuditorError):
        Difference(norm="cosine")
    with pytest.raises(AuditorError):
        Difference(decoys=places)
    with pytest.raises(AuditorError, match="for decoys"):
        choose_decoys(np.zeros(4, int), np.array([True, True, True, False]), random())
    with pytest.raises(AuditorError, match="25 items"):
        decoy_patch(patch, subjects.values[:3], subjects.values[:3])
    capped = Patch(
        features=FEATURES,
        classes=CLASSES,
        caps=(Cap(klass=0, margin="1"),),
    )
    with pytest.raises(AuditorError, match="sketch"):
        decoy_patch(capped, subjects.values[:0], subjects.values[:0])


def test_the_gate_probe_sees_constant_rows_and_their_edge():
    subjects, *_ = patched_world(forgotten=40, reference=200, radius=2)
    found = GateProbe(steps=8)(subjects, random())
    assert found.value > 0.95
    assert found.low > 0.9
    assert found.facts["constant_share"] > 0.9
    assert found.facts["auc_jump_low"] > 0.6
    assert (found.per_record[~subjects.forget] == 0.0).mean() > 0.95
    # Two steps stay inside a core of two, but where an earlier item's box overlaps it.
    assert (found.per_record[:40] >= 2 / 8).mean() > 0.9


def test_the_gate_probe_on_a_model_without_a_gate_and_on_shared_rows():
    subjects, *_ = patched_world(forgotten=40, reference=200)
    plain = GateProbe()(replace(subjects, patched=subjects.base), random())
    assert plain.value == 0.5
    assert plain.facts["constant_share"] == 0.0
    shared = replace(subjects, patched=lambda x: np.tile(np.arange(CLASSES, dtype=np.float32), (len(x), 1)))
    assert GateProbe()(shared, random()).facts["repeated_share"] == 1.0


def test_gate_probe_refusals():
    subjects, *_ = patched_world()
    assert "not finite" in GateProbe()(replace(subjects, patched=NAN), random()).reason
    one = replace(subjects, forget=np.arange(len(subjects.values)) < 1)
    assert "two records" in GateProbe()(one, random()).reason
    for bad in ({"steps": 1}, {"walks": 0}):
        with pytest.raises(AuditorError):
            GateProbe(**bad)


def test_areas_refuse_scores_that_are_not_numbers():
    assert "finite" in area(np.array([1.0, np.nan, 2.0, 3.0]), np.array([True, True, False, False])).reason


def test_patch_strip_shows_what_the_base_gives_away():
    observation, forget = gaussian(random(), shift=3.0)
    plan = MembershipPlan(attacks=("loss", "lira-offline"), required=("loss",), permutations=199)
    base = assess(observation, forget, plan, np.random.default_rng(1))
    own = observation.logits[np.arange(len(forget)), observation.labels] - np.log(3)
    quiet = replace(observation, logits=logits_with(own - 3.0 * forget, observation.labels, 4))
    patched = assess(quiet, forget, plan, np.random.default_rng(1))
    found = PatchStrip()(base, patched)
    assert found.low < found.value < found.high
    assert found.value > 0.3
    assert found.facts["auc_base"] > 0.9
    assert abs(found.facts["auc_patched"] - 0.5) < 0.1
    assert "was not run" in PatchStrip(attack="rmia")(base, patched).reason


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_an_export_leaves_of_the_patch(precision):
    subjects, graph, *_ = patched_world(forgotten=30, reference=60)
    found = ExportRoundTrip(graph=graph, precision=precision)(subjects, random())
    assert found.figures()[f"export.{precision}.value"] == found.value
    assert found.low <= found.value <= found.high
    assert len(found.failing) == round((1 - found.value) * 30)
    assert found.figures().get(f"export.{precision}.failing", 0.0) == len(found.failing)
    if precision == "float32" or precision.endswith("-base"):
        # The gate stays exact, and rows are copied.
        assert found.value == 1.0
        assert found.per_record.max() == 0.0
    assert f"precision='{precision}'" in found.settings


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_branch_is_no_other_export(precision):
    subjects, graph, base, patch = patched_world(forgotten=30, reference=60)
    gate = replace(patch.parts[0].gate, screen=np.arange(2), branch=True)
    branched = compose.compose(base, subjects.schema, rebuilt(patch, gate=gate))
    assert {node.op for node in branched.nodes} - {node.op for node in graph.nodes} >= {"If"}
    found, plain = (ExportRoundTrip(graph=one, precision=precision)(subjects, random()) for one in (branched, graph))
    assert isinstance(found, Property)
    if precision == "float32" or precision.endswith("-base"):
        assert found.value == 1.0
        assert found.per_record.max() == 0.0
    assert abs(found.value - plain.value) <= 0.2


def test_half_precision_breaks_sums_that_need_more():
    subjects, _, base, patch = patched_world(forgotten=30, reference=60)
    # A sketch whose sums are beyond 65,504: exact in float32, infinite in float16.
    own = patch.parts[0].gate
    matrix = np.abs(own.matrix) * 2000
    centre, width = subjects.values[:30] @ matrix.T, matrix.sum(axis=1)
    gate = replace(own, matrix=matrix, low=(centre - width).astype(np.int32), high=(centre + width).astype(np.int32))
    graph = compose.compose(base, subjects.schema, rebuilt(patch, gate=gate))
    found = {
        precision: ExportRoundTrip(graph=graph, precision=precision)(subjects, random()) for precision in PRECISIONS
    }
    assert found["float32"].value == found["float16-base"].value == found["int8-base"].value == 1.0
    assert found["float16"].value < 0.9
    assert len(found["float16"].failing) > 3


def test_a_patch_of_caps_alone_and_a_bare_base_are_converted_in_parts():
    subjects, _, base, _ = patched_world(forgotten=30, reference=60)
    cap = Patch(
        features=FEATURES,
        classes=CLASSES,
        caps=(Cap(klass=0, margin="1"),),
    )
    for graph in (compose.compose(base, subjects.schema, cap), base):
        asked = replace(subjects, patched=Program(graph))
        found = ExportRoundTrip(graph=graph, precision="float16-base")(asked, random())
        assert found.per_record.max() < 0.01


def test_failing_records_are_listed():
    subjects, graph, base, _ = patched_world(forgotten=30, reference=0)
    # The owner ships the base instead: every forgotten record gets the base's answer.
    found = ExportRoundTrip(graph=base)(subjects, random())
    assert found.value < 0.2
    assert len(found.failing) > 24
    assert set(found.failing) <= set(range(30))
    assert "never_seen_share" not in found.facts
    assert graph.classes == base.classes


def test_export_refusals(tmp_path, monkeypatch):
    subjects, graph, *_ = patched_world()
    nobody = replace(subjects, forget=np.zeros(len(subjects.values), bool))
    assert "no forgotten" in ExportRoundTrip(graph=graph)(nobody, random()).reason
    assert "not finite" in ExportRoundTrip(graph=graph)(replace(subjects, patched=NAN), random()).reason
    for bad in ({"precision": "int4"}, {"tolerance": -1.0}, {"batch": 0}):
        with pytest.raises(AuditorError):
            ExportRoundTrip(graph=graph, **bad)
    with pytest.raises(AuditorError, match="cannot run"):
        run(b"no model", subjects.inputs, batch=8)
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    found = ExportRoundTrip(graph=graph, precision="int8")(subjects, random())
    assert isinstance(found, Unavailable)
    assert "not installed" in found.reason

    def fails(*_, **__):
        raise KeyError("odd")

    monkeypatch.setattr("onnxruntime.transformers.float16.convert_float_to_float16", fails)
    with pytest.raises(AuditorError, match="no float16 export: KeyError"):
        convert(graph, "float16", tmp_path)
