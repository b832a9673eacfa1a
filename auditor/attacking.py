"""Every attack of a suite, carried out on one bundle: records and models in, assessments and properties out.

Proves: nothing by itself; `auditor.membership` and `auditor.comparisons` say what their assessments prove.
Assumes: evidence whose models can be run, reference data that the model never saw.
Does not: decide. The check membership puts the parts together.

Attacks on forgotten records by outputs and by further queries form one assessment and one Holm family with the
re-run method (A4), the removed classes (A11) and the retained records (A10): `auditor.comparisons.across`.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int, Int64

from auditor import compose
from auditor.attacks.catalogue import ENTRIES, make
from auditor.attacks.difference import choose_decoys, decoy_patch
from auditor.attacks.lira import FEWEST_MODELS, LiraOnline
from auditor.attacks.observation import Observation, Scores, Unavailable
from auditor.attacks.patch_read import FeatureMaterial, Ground, Material, RegionMaterial, SketchMaterial
from auditor.attacks.properties import Property
from auditor.attacks.rerun import Rerun, rerun
from auditor.attacks.result import MembershipAssessment
from auditor.attacks.subjects import Subjects
from auditor.comparisons import RetainedAssessment, assess_class, assess_retained
from auditor.evidence import Evidence
from auditor.execute import Program
from auditor.membership import FEWEST_FORGOTTEN, FEWEST_REFERENCE, assess
from auditor.shadow_backend import train_shadows_on
from auditor.shadows import Shadows, train_shadows
from auditor.suite import Suite
from protocol.errors import AuditorError
from protocol.model.patch import AlwaysGate, FeatureGate, Gate, RegionGate, SketchGate
from protocol.model.recipe import Recipe

_LARGEST = 500
"""Records of a patch that are rebuilt at most; of more, this many are drawn."""
Grid = Int[np.ndarray, "record feature"]


def twins_of(values: Grid, others: Grid) -> Bool[np.ndarray, "record"]:
    """Return which records equal one of `others` in every value."""
    seen = {row.tobytes() for row in np.ascontiguousarray(others, dtype=np.int64)}
    return np.array([row.tobytes() in seen for row in np.ascontiguousarray(values, dtype=np.int64)], dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """What all attacks on one bundle share.

    Attributes:
        evidence: the bundle.
        suite: what to run.
        values: the auditor's own records, none of them equal to a forgotten one: never seen by the base.
        labels: their classes.
        spared: which of them are of no removed class.
        shadows: trained on halves of them.
    """

    evidence: Evidence
    suite: Suite
    values: Grid
    labels: Int64[np.ndarray, "record"]
    spared: Bool[np.ndarray, "record"]
    shadows: Shadows

    def observe(
        self, values: Grid, labels: Int64[np.ndarray, "record"], own: Bool[np.ndarray, "own"]
    ) -> tuple[Observation, Observation]:
        """Return the base and the patched model on some records of the owner's and some of the auditor's.

        Args:
            values: the owner's records.
            labels: their classes.
            own: which of the auditor's records follow them.
        """
        schema = self.evidence.case.schema
        assert schema is not None
        together = np.concatenate([values, self.values[own]]).astype(np.int64)
        before, after = self.evidence.run(together)
        # A record of the owner's that equals one of the auditor's was in the shadow models which that one was in.
        known = {row.tobytes(): k for k, row in enumerate(np.ascontiguousarray(self.values, dtype=np.int64))}
        unseen = np.ones((len(self.shadows.out), len(values)), dtype=bool)
        for place, row in enumerate(np.ascontiguousarray(values, dtype=np.int64)):
            if row.tobytes() in known:
                unseen[:, place] = self.shadows.out[:, known[row.tobytes()]]
        base = Observation(
            logits=before,
            labels=np.concatenate([labels, self.labels[own]]),
            shadow_logits=self.shadows.logits(schema.dequantise(together)),
            out=np.concatenate([unseen, self.shadows.out[:, own]], axis=1),
            features=together.astype(np.float32),
        )
        return base, replace(base, logits=after)


def shadows_for(evidence: Evidence, values: Grid, labels: Int64[np.ndarray, "record"], count: int) -> Shadows:
    """Train the shadow models, here or on the engine that the audit was given.

    Raises:
        AuditorError: they cannot be trained, or the engine is not there.
    """
    case = evidence.case
    assert case.base is not None
    assert case.schema is not None

    def told(done: int, total: int) -> None:
        evidence.progress("shadow models", done / total)

    inputs, recipe = case.schema.dequantise(values), case.recipe or Recipe()
    if evidence.engine is None:
        return train_shadows(
            case.base, inputs, labels, recipe=recipe, seed=evidence.seed, count=count, cache=evidence.shadow_cache,
            progress=told, device=evidence.device,
        )  # fmt: skip
    return train_shadows_on(
        case.base, inputs, labels, recipe=recipe, seed=evidence.seed, count=count, cache=evidence.shadow_cache,
        progress=told, backend=evidence.engine.backend, workers=evidence.engine.workers,
        address=evidence.engine.address,
    )  # fmt: skip


def _unconcerned(evidence: Evidence, labels: Int64[np.ndarray, "record"]) -> Bool[np.ndarray, "record"]:
    """Return which records are of no removed class, by their labels alone.

    Not by what the base predicts, as the checks on other records' outputs go: it was trained with the forgotten records
    and seldom takes one for another class, but does so with records that it never saw. To leave those out on one side
    only moves an honest model's AUC by some .007 (digits, a fifth of the labels at random).
    """
    return ~np.isin(labels, list(evidence.removed_classes))


def prepare(evidence: Evidence, suite: Suite) -> Field:
    """Train the shadow models on the auditor's records.

    Raises:
        AuditorError: they cannot be trained.
    """
    assert evidence.reference is not None
    reference = evidence.reference
    # A reference record equal to a forgotten one is no record that was never seen: no negative, and no shadow's data.
    apart = ~twins_of(reference.values, evidence.requested_records[0])
    values, labels = reference.values[apart], reference.labels[apart]
    return Field(
        evidence=evidence,
        suite=suite,
        values=values,
        labels=labels,
        spared=_unconcerned(evidence, labels),
        shadows=shadows_for(evidence, values, labels, suite.shadows),
    )


def subjects_of(field: Field) -> Subjects:
    """Return forgotten and never-seen records with both models, for attacks that ask further questions."""
    evidence, schema = field.evidence, field.evidence.case.schema
    assert schema is not None
    forgotten, labels = evidence.requested_records
    values = np.concatenate([forgotten, field.values[field.spared]]).astype(np.int64)
    return Subjects(
        values=values,
        labels=np.concatenate([labels, field.labels[field.spared]]),
        forget=np.arange(len(values)) < len(forgotten),
        schema=schema,
        patched=evidence.patched_model,
        base=evidence.base_model,
    )


def attack_forgotten(
    field: Field, subjects: Subjects
) -> tuple[MembershipAssessment, MembershipAssessment, Observation, Observation]:
    """Attack the forgotten records by outputs and by queries.

    Returns:
        The assessments of the patched model and of the base, and what was observed of the base and the patched model.
    """
    base, patched = field.observe(*field.evidence.requested_records, field.spared)
    found = attack_records(field, subjects, patched)
    unpatched = attack_records(field, replace(subjects, patched=field.evidence.base_model), base)
    return found, unpatched, base, patched


def attack_records(field: Field, subjects: Subjects, observed: Observation) -> MembershipAssessment:
    """Attack one model's treatment of the forgotten records by outputs and by queries.

    Every call takes the same streams, so that two models are asked the same questions and get the same shadow models
    per record and the same control draws.

    Args:
        field: the bundle and the shadow models.
        subjects: the records; the attacked model is `subjects.patched`.
        observed: its outputs on them.
    """
    evidence, suite = field.evidence, field.suite
    ready: dict[str, Scores | Unavailable] = {}
    for name in suite.named("queries"):
        evidence.progress(f"attack {name}", 0.0)
        ready[name] = make(name, suite.attacks[name])(subjects, evidence.planned(f"membership-{name}"))
    return assess(observed, subjects.forget, suite.plan(ready), evidence.planned("membership"))


def attack_again(field: Field) -> MembershipAssessment:
    """Re-run the owner's published method on shadow models (A4) and attack the patched model with what they show.

    Records that fewer than two shadow models saw, or fewer than two did not see, are left out.

    Raises:
        AuditorError: the method failed, or shadow models could not be trained.
    """
    evidence, case = field.evidence, field.evidence.case
    assert case.base is not None
    assert case.schema is not None
    settings = make("rerun", field.suite.attacks["rerun"])
    assert isinstance(settings, Rerun)
    forgotten, labels = evidence.requested_records
    own = np.flatnonzero(field.spared)
    count = settings.count(len(forgotten), own.size)
    chosen = np.sort(evidence.planned("membership-rerun-records").choice(own, count, replace=False))
    rest = np.setdiff1d(np.arange(len(field.values)), chosen)
    values = np.concatenate([forgotten, field.values[chosen], field.values[rest]]).astype(np.int64)
    all_labels = np.concatenate([labels, field.labels[chosen], field.labels[rest]])
    audited = np.arange(len(values)) < len(forgotten) + count

    def told(done: int, total: int) -> None:
        evidence.progress("the owner's method again", done / total)

    with tempfile.TemporaryDirectory() as temporary:
        cache = evidence.shadow_cache
        worlds = rerun(
            settings.method(),
            case.base,
            case.schema.dequantise(values),
            all_labels,
            audited,
            recipe=case.recipe or Recipe(),
            seed=evidence.seed,
            count=settings.shadows,
            folder=Path(temporary) if cache is None else cache / "rerun",
            progress=told,
        )
    # Halves are random, so with few shadow models a record may lack one world. Which ones do has nothing to do with how
    # they score: they are left out, of both sets alike.
    both = np.minimum(worlds.out.sum(axis=0), (~worlds.out).sum(axis=0)) >= FEWEST_MODELS
    looked = values[audited][both]
    observed = Observation(
        logits=evidence.run(looked)[1],
        labels=all_labels[audited][both],
        shadow_logits=worlds.shadow_logits[:, both],
        out=worlds.out[:, both],
        features=looked.astype(np.float32),
    )
    plan = field.suite.only("rerun", LiraOnline(variance=settings.variance))
    mask = (np.arange(len(both)) < len(forgotten))[both]
    return assess(observed, mask, plan, evidence.planned("membership-rerun"))


def attack_retained(field: Field) -> RetainedAssessment | Unavailable:
    """Compare how exposed opened retained records are before and after the patch (A10)."""
    evidence = field.evidence
    if evidence.retained is None or not len(evidence.retained[0]):
        return Unavailable(reason=evidence.retained_gap or "no retained records were opened")
    spared = _unconcerned(evidence, evidence.retained[1]) & ~evidence.twins["retained"]
    values, labels = evidence.retained[0][spared], evidence.retained[1][spared]
    own = field.spared & ~twins_of(field.values, values)
    before, after = field.observe(values, labels, own)
    mask = np.arange(len(before.labels)) < len(values)
    return assess_retained(before, after, mask, field.suite.plan(), evidence.planned("membership-retained"))


def members_of(evidence: Evidence, klass: int) -> Grid:
    """Return the opened records of a removed class that no request lists: held-out members of it."""
    if evidence.retained is None:
        return np.zeros((0, 0), dtype=np.int64)
    values, labels = evidence.retained
    members: np.ndarray = values[labels == klass]
    return members


def class_refusal(evidence: Evidence, klass: int) -> str:
    """Return why a removed class cannot be attacked, before anything is trained; empty if it can."""
    members = len(members_of(evidence, klass))
    if members < FEWEST_FORGOTTEN:
        return (
            f"{members} records of the removed class {klass} were opened for the challenge; at least "
            f"{FEWEST_FORGOTTEN} are needed to attack it"
        )
    never = 0 if evidence.reference is None else int((evidence.reference.labels == klass).sum())
    if never < FEWEST_REFERENCE:
        return f"the reference has {never} records of the removed class {klass}; at least {FEWEST_REFERENCE} are needed"
    return ""


def attack_class(field: Field, klass: int) -> tuple[MembershipAssessment, MembershipAssessment]:
    """Attack held-out members of a removed class among never-seen records of the same class (A11).

    Returns:
        The assessments of the patched model and of the base.
    """
    before, after, mask = observe_class(field, klass)
    return attack_members(field, klass, after, mask), attack_members(field, klass, before, mask)


def observe_class(field: Field, klass: int) -> tuple[Observation, Observation, Bool[np.ndarray, "record"]]:
    """Return the base and the patched model on a removed class, and which of the records are held-out members."""
    members = members_of(field.evidence, klass)
    own = (field.labels == klass) & ~twins_of(field.values, members)
    before, after = field.observe(members, np.full(len(members), klass, dtype=np.int64), own)
    return before, after, np.arange(len(after.labels)) < len(members)


def attack_members(
    field: Field, klass: int, observed: Observation, members: Bool[np.ndarray, "record"]
) -> MembershipAssessment:
    """Attack one model's treatment of a removed class; every call takes the same stream."""
    plan = field.suite.plan(kinds=("outputs", "class"))
    return assess_class(observed, members, klass, plan, field.evidence.planned(f"membership-class-{klass}"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Stored:
    """What one part of a patch stores, with the opened record, class and item (within the part) of each claim."""

    part: int
    material: Material
    values: Grid
    labels: Int64[np.ndarray, "item"]
    items: Int64[np.ndarray, "item"]


def _material_of(evidence: Evidence, gate: Gate, items: np.ndarray, radius: np.ndarray) -> Material:
    if isinstance(gate, SketchGate):
        return SketchMaterial(matrix=gate.matrix, low=gate.low[items], high=gate.high[items], radius=radius)
    if isinstance(gate, FeatureGate):
        return FeatureMaterial(graph=evidence.retrained, name=gate.tensor, low=gate.low[items], high=gate.high[items])
    assert isinstance(gate, RegionGate)
    return RegionMaterial(normals=gate.weights[items], bounds=gate.bounds[items])


def _stored(evidence: Evidence) -> list[_Stored] | str:
    # Part by part, those that claims are about; or why there is nothing to read.
    patch = evidence.case.patch
    if patch is not None and patch.weights and not patch.parts:
        return "the patch changes weights; what these show of a record is not measured"
    if patch is None or all(isinstance(part.gate, AlwaysGate) for part in patch.parts):
        return "the patch stores nothing about any single record"
    values, labels, items, radii = evidence.placed_records
    places = [patch.place(item) if item < patch.items else None for item in items.tolist()]
    found = []
    for number, part in enumerate(patch.parts):
        usable = np.array([n for n, place in enumerate(places) if place is not None and place.part == number], np.int64)
        if isinstance(part.gate, AlwaysGate) or not usable.size:
            continue
        if usable.size > _LARGEST:
            usable = np.sort(evidence.generator("disclosure-sample").choice(usable, _LARGEST, replace=False))
        own = np.array([patch.place(int(items[n])).item for n in usable], dtype=np.int64)
        found.append(
            _Stored(
                part=number, material=_material_of(evidence, part.gate, own, radii[usable]),
                values=values[usable], labels=labels[usable], items=own,
            )
        )  # fmt: skip
    return found or "no record of the patch was opened"


def _decoyed(evidence: Evidence, subjects: Subjects) -> Mapping[str, object]:
    # A model with the patch moved to never-seen records, where every item's record is at hand; else nothing.
    patch, case = evidence.case.patch, evidence.case
    found = _stored(evidence)
    if isinstance(found, str) or patch is None or len(patch.parts) != 1 or patch.weights:
        return {}
    (stored,) = found
    if not isinstance(stored.material, SketchMaterial):
        return {}
    assert case.base is not None
    assert case.schema is not None
    values, items = stored.values, stored.items
    place = {row.tobytes(): n for n, row in enumerate(np.ascontiguousarray(subjects.values[subjects.forget]))}
    rows = [place.get(row.tobytes()) for row in np.ascontiguousarray(values, dtype=np.int64)]
    if sorted(items.tolist()) != list(range(patch.items)) or None in rows:
        return {}
    try:
        decoys = choose_decoys(subjects.labels, subjects.forget, evidence.planned("membership-decoys"))
        order = np.argsort(items)
        own = np.array(rows, dtype=np.int64)[order]
        moved = decoy_patch(patch, values[order].astype(np.int64), subjects.values[decoys[own]])
        program = Program(compose.compose(case.base, case.schema, moved))
    except AuditorError:
        return {}
    return {"decoy": lambda inputs: program(inputs, batch=evidence.batch), "decoys": decoys}


def measure(
    field: Field, subjects: Subjects, patched: MembershipAssessment, base: MembershipAssessment
) -> dict[str, Property | Unavailable]:
    """Return every property that the suite names."""
    evidence, suite = field.evidence, field.suite
    found: dict[str, Property | Unavailable] = {}
    for name, settings in suite.properties.items():
        evidence.progress(f"property {name}", 0.0)
        generator = evidence.planned(f"membership-{name}")
        if name == "patch-strip":
            found[name] = make(name, settings)(base, patched)
        elif name == "patch-read":
            found[name] = read_patch(evidence, settings, generator)
        elif name == "difference":
            found[name] = make(name, settings, **_decoyed(evidence, subjects))(subjects, generator)
        elif ENTRIES[name].number == "A12":
            found[name] = make(name, settings, graph=evidence.composed)(subjects, generator)
        else:
            found[name] = make(name, settings)(subjects, generator)
    return found


def read_patch(
    evidence: Evidence, settings: Mapping[str, object], generator: np.random.Generator
) -> Property | Unavailable:
    """Rebuild the records from the patch (A7), with the reference as what the attacker knows.

    Every part that claims are about is read; the one that shows most is the answer.
    """
    known, schema = _stored(evidence), evidence.case.schema
    if isinstance(known, str):
        return Unavailable(reason=known)
    if evidence.reference is None or schema is None:
        return Unavailable(reason="no reference data was given")
    read: dict[int, Property] = {}
    for stored in known:
        ground = Ground(
            schema=schema,
            reference=evidence.reference.values,
            reference_labels=evidence.reference.labels,
            truth=stored.values,
            labels=stored.labels,
        )
        found = make("patch-read", settings)(stored.material, ground, generator)
        if isinstance(found, Unavailable):
            return found
        assert isinstance(found, Property)
        read[stored.part] = found
    shown = min(read.values(), key=lambda one: one.value)
    # Beside the worst part, which decides, what each of several parts shows.
    parts = {f"part_{number}": one.value for number, one in read.items()} if len(read) > 1 else {}
    return replace(shown, facts=MappingProxyType({**shown.facts, **parts}))


__all__ = [
    "Field",
    "attack_again",
    "attack_class",
    "attack_forgotten",
    "attack_members",
    "attack_records",
    "attack_retained",
    "class_refusal",
    "measure",
    "members_of",
    "observe_class",
    "prepare",
    "read_patch",
    "subjects_of",
]
