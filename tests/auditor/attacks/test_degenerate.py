"""Every attack by itself on data that nothing can be made of: a stated reason or finite figures, never a warning.

Warnings are errors in these tests. What the whole audit says of such data is in `tests/auditor/test_degenerate.py`.
"""

import numpy as np
import pytest

from auditor.attacks import NAMES, Scores, Unavailable
from auditor.attacks.catalogue import ATTACKS, ENTRIES, PROPERTIES, make
from auditor.attacks.lira import LiraOnline
from auditor.attacks.observation import Observation
from auditor.attacks.patch_read import Ground, SketchMaterial
from auditor.attacks.plan import MembershipPlan
from auditor.attacks.properties import Property
from auditor.attacks.subjects import Subjects
from auditor.comparisons import assess_class, assess_retained, assess_scores
from auditor.membership import assess
from auditor.suite import ChosenPlan
from protocol.errors import AuditorError
from protocol.model.schema import InputSchema
from tests.auditor.samples import mlp

FEATURES, SHADOWS = 4, 8
SCHEMA = InputSchema.uniform((FEATURES,), scale=10.0, low=0, high=100)


def _ordinary(logits):
    return logits


def _poisoned(value):
    def change(logits):
        changed = logits.copy()
        changed[..., 3, 0] = value
        return changed

    return change


CASES = {
    # name: forgotten, reference, classes, what becomes of logits, whether labels are all one, twins
    "nan": (30, 120, 3, _poisoned(np.nan), False, False),
    "infinite": (30, 120, 3, _poisoned(np.inf), False, False),
    "constant": (30, 120, 3, np.zeros_like, False, False),
    "huge": (30, 120, 3, lambda logits: logits * np.float32(1e36), False, False),
    "a model of one class": (30, 120, 1, _ordinary, False, False),
    "records of one class": (30, 120, 3, _ordinary, True, False),
    "ten of each": (10, 10, 3, _ordinary, False, False),
    "ten forgotten": (10, 120, 3, _ordinary, False, False),
    "ten never seen": (30, 10, 3, _ordinary, False, False),
    "nothing forgotten": (0, 120, 3, _ordinary, False, False),
    "nothing never seen": (30, 0, 3, _ordinary, False, False),
    "twins on both sides": (30, 120, 3, _ordinary, False, True),
}
NUMBERS_ALLOWED = {"records of one class", "twins on both sides", "huge"}
"""Figures may come of these, if they are finite: nothing is wrong with the records that are left."""


class World:
    """Records, and models that answer with rows of a table, whatever they are asked."""

    def __init__(self, case):
        forgotten, reference, classes, change, alike, twins = CASES[case]
        random = np.random.default_rng(0)
        records = forgotten + reference
        self.mask = np.arange(records) < forgotten
        self.values = random.integers(0, 101, (records, FEATURES))
        if twins:
            self.values[forgotten : 2 * forgotten] = self.values[:forgotten]
        self.labels = np.zeros(records, np.int64) if alike else np.arange(records) % classes
        self.classes, self.change = classes, change
        self.weights = random.normal(size=(FEATURES, classes)).astype(np.float32)
        out = random.random((SHADOWS, records)) < 0.5
        out[:2], out[2:4] = True, False
        shadow = random.normal(size=(SHADOWS, records, classes)).astype(np.float32)
        self.observed = Observation(
            logits=self.model(SCHEMA.dequantise(self.values)),
            labels=self.labels,
            shadow_logits=change(shadow) if records > 3 else shadow,
            out=out,
            features=self.values.astype(np.float32),
        )
        self.subjects = Subjects(
            values=self.values, labels=self.labels, forget=self.mask, schema=SCHEMA, patched=self.model,
            base=lambda inputs: self.model(inputs) + np.float32(0.25),
        )  # fmt: skip

    def model(self, inputs):
        logits = (inputs @ self.weights).astype(np.float32)
        return self.change(logits) if len(logits) > 3 else logits


@pytest.fixture(params=list(CASES))
def case(request):
    return request.param, World(request.param)


def plan_of(name, attack):
    return ChosenPlan(
        attacks=(name,), required=(name,), duplicates="drop", permutations=199, draws=1000, chosen={name: attack}
    )


def checked(case, found):
    assert found.verdict == "INCONCLUSIVE" or case in NUMBERS_ALLOWED, found.reasons
    assert found.reasons
    for one in found.comparisons:
        assert np.isfinite([one.difference.auc, one.difference.value, one.difference.standard_error]).all()
        assert np.isfinite(one.scores).all()


OUTPUTS = {name: make(name, {}) for name in (*NAMES, "neighbour-class")} | {"rerun": LiraOnline(variance="shrunk")}
QUERIES = [name for name in ATTACKS if ENTRIES[name].kind == "queries"]


def test_every_attack_and_property_is_here():
    kinds = {name: ENTRIES[name].kind for name in ATTACKS}
    assert {name for name, kind in kinds.items() if kind in {"outputs", "class", "rerun"}} == OUTPUTS.keys()
    assert {name for name in kinds if name not in OUTPUTS} == {*QUERIES, "retained"}
    assert {ENTRIES[name].number for name in (*ATTACKS, *PROPERTIES)} == {f"A{n}" for n in range(1, 15)}


@pytest.mark.parametrize("name", OUTPUTS)
def test_attacks_on_outputs(case, name):
    said, world = case
    found = assess(world.observed, world.mask, plan_of(name, OUTPUTS[name]), np.random.default_rng(0))
    checked(said, found)


@pytest.mark.parametrize("name", QUERIES)
def test_attacks_by_queries(case, name):
    said, world = case
    settings = {"rounds": 5, "folds": 2} if name == "quantile-regression" else {}
    scores = make(name, settings)(world.subjects, np.random.default_rng(0))
    assert isinstance(scores, Unavailable | Scores)
    if isinstance(scores, Scores):
        assert np.isfinite(scores.values).all()
    plan = MembershipPlan(duplicates="drop", permutations=199)
    checked(said, assess_scores(world.observed, world.mask, {name: scores}, plan, np.random.default_rng(0)))


def test_retained_records_and_members_of_a_class(case):
    said, world = case
    plan = MembershipPlan(attacks=("loss", "rmia"), required=("loss",), duplicates="drop", permutations=199)
    found = assess_retained(world.observed, world.observed, world.mask, plan, np.random.default_rng(0))
    assert found.reasons
    # A model is never more exposed than itself; where that cannot be looked at, it is said.
    assert found.verdict in ({"CONSISTENT", "INCONCLUSIVE"} if said in NUMBERS_ALLOWED else {"INCONCLUSIVE"})
    assert all(np.isfinite([one.exposure, one.upper_bound]).all() for one in found.changes)
    checked(said, assess_class(world.observed, world.mask, 0, plan, np.random.default_rng(0)))


@pytest.mark.parametrize("name", ["difference", "gate-probe", "export-float32", "export-float16", "export-int8"])
def test_properties_by_queries(case, name):
    _, world = case
    material = {"graph": mlp([FEATURES, 3])} if name.startswith("export") else {}
    found = make(name, {}, **material)(world.subjects, np.random.default_rng(0))
    assert isinstance(found, Unavailable | Property)
    if isinstance(found, Property):
        assert np.isfinite([found.value, found.low, found.high]).all()
        assert found.low <= found.value <= found.high


def test_the_stripped_patch(case):
    said, world = case
    one = assess(world.observed, world.mask, plan_of("lira-offline", OUTPUTS["lira-offline"]), np.random.default_rng(0))
    found = make("patch-strip", {})(one, one)
    assert isinstance(found, Property if one.comparisons else Unavailable)
    if said not in NUMBERS_ALLOWED:
        assert isinstance(found, Unavailable)
        assert found.reason


@pytest.mark.parametrize("items", [0, 1, 10])
def test_a_patch_that_says_little(items):
    random = np.random.default_rng(0)
    values = random.integers(0, 101, (items, FEATURES))
    ground = Ground(
        schema=SCHEMA, reference=random.integers(0, 101, (10, FEATURES)), reference_labels=np.zeros(10, np.int64),
        truth=values, labels=np.zeros(items, np.int64),
    )  # fmt: skip
    material = SketchMaterial(
        matrix=np.zeros((2, FEATURES), np.int8), low=np.zeros((items, 2), np.int32), high=np.zeros((items, 2), np.int32),
        radius=np.zeros(items, np.int64),
    )  # fmt: skip
    try:
        found = make("patch-read", {})(material, ground, np.random.default_rng(0))
    except AuditorError as error:
        assert str(error)
        return
    assert isinstance(found, Unavailable | Property)
    if isinstance(found, Property):
        assert np.isfinite([found.value, found.low, found.high]).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.zeros(4, np.int64)}, "disagree"),
        ({"labels": np.full(20, 3, np.int64)}, "outside"),
        ({"features": np.zeros((19, 2), np.float32)}, "disagree"),
        ({"out": np.ones((SHADOWS, 19), bool)}, "disagree"),
        ({"shadow_logits": np.zeros((SHADOWS, 20, 2), np.float32)}, "disagree"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, words):
    arrays = {
        "logits": np.zeros((20, 3), np.float32), "labels": np.zeros(20, np.int64),
        "shadow_logits": np.zeros((SHADOWS, 20, 3), np.float32), "out": np.ones((SHADOWS, 20), bool),
        "features": np.zeros((20, 2), np.float32),
    }  # fmt: skip
    with pytest.raises(Exception) as caught:
        Observation(**(arrays | change))
    assert words in str(caught.value) or "shape" in str(caught.value)
