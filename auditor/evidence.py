"""What the checks look at: the loaded case, the composed model, the auditor's own data, the transcript.

Composes base and patch itself and runs its own interpreter; the deployed file is only compared with
that. Everything expensive is computed once and kept. Holds no verdicts.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped

from auditor import compose
from auditor.case import Case
from auditor.deployment.source import Live, Recorded
from auditor.engine import Engine
from auditor.entries import Entry
from auditor.execute import Program
from auditor.hinting import Given
from auditor.memory import MOST, batch_limit
from auditor.profile import Profile
from auditor.transcript import Transcript
from protocol.claims import ClassRemoval, Coverage, NoRedirection, Redirection
from protocol.device import Device
from protocol.errors import AuditorError, MalformedError, VerificationError
from protocol.messages import challenge as challenge_message
from protocol.model.graph import Graph
from protocol.model.schema import InputSchema
from protocol.records import Opening

Grid = Int[np.ndarray, "record feature"]
Labels = Int[np.ndarray, "record"]
Logits = Float32[np.ndarray, "record class"]
Progress = Callable[[str, float], None]
_MAX_CAPPED = 1 << 25
"""Classes times caps of a patch: each cap of the composed graph names all other classes."""
_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError, OverflowError,
    NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The auditor's own labelled data on the input grid; the model never saw it, the auditor believes."""

    values: Grid
    labels: Labels
    outside: int


def load_reference(path: Path, schema: InputSchema, classes: int) -> Reference:
    """Read reference data: `X`, `y`, or the test part of a data file (SPEC 8.4).

    Integers are grid values as they stand; real values are brought to the grid. Records outside
    the declared input box are left out and counted: no gate acts on them.

    Raises:
        MalformedError: not such a file, labels that are not classes, or no record inside the input box.
    """
    where = str(path)
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = ("X", "y") if "X" in archive.files else ("X_test", "y_test")
            raw, labels = archive[names[0]], archive[names[1]]
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise MalformedError(f"no X and y (or X_test and y_test) can be read: {reason}", where=where) from None
    if raw.dtype.kind not in "biuf":
        raise MalformedError(f"X is an array of {raw.dtype}, not of numbers", where=where)
    if raw.ndim < 2 or labels.shape != (len(raw),) or not np.issubdtype(labels.dtype, np.integer) or not len(raw):
        raise MalformedError("X and y do not go together", where=where)
    if labels.min() < 0 or labels.max() >= classes:
        raise MalformedError(f"a label is not a class from 0 to {classes - 1}", where=where)
    try:
        arranged = schema.arrange(raw)
    except MalformedError as error:
        raise error.at(where) from None
    if raw.dtype.kind in "biu":
        flat = arranged.reshape(len(raw), -1)
        inside = ((flat >= schema.low) & (flat <= schema.high)).all(axis=1)
        values = np.clip(flat.astype(np.int64), schema.low, schema.high).astype(np.int32)
    else:
        with np.errstate(over="ignore"):
            single = arranged.astype(np.float32)
        if not np.isfinite(single).all():
            raise MalformedError("X holds NaN, infinity, or numbers beyond float32", where=where)
        values, inside = schema.quantise(single)
    if not inside.any():
        raise MalformedError(f"none of the {len(raw)} records lies inside the declared input box", where=where)
    return Reference(values=values[inside], labels=labels[inside].astype(np.int64), outside=int((~inside).sum()))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that checks may use."""

    case: Case
    profile: Profile
    transcript: Transcript
    reference: Reference | None
    reference_missing: str
    seed: int
    shadow_cache: Path | None
    progress: Progress
    engine: Engine | None = None
    device: Device = "cpu"
    log_conflicts: tuple[tuple[str, str], ...] = ()
    log_notes: tuple[str, ...] = ()
    owner_entries: tuple[Entry, ...] | None = None
    served: Live | Recorded | None = None

    def generator(self, check: str) -> np.random.Generator:
        """The check's own randomness: from the challenge where there is one, else from the seed."""
        value = self.transcript.challenge_value
        if value is not None:
            return np.random.default_rng(list(challenge_message.seed(value, check)))
        return np.random.default_rng([self.seed, *check.encode()])

    def planned(self, label: str) -> np.random.Generator:
        """Randomness of the attacks: from the plan's seed alone, so that one plan and data give one verdict."""
        return np.random.default_rng([self.seed, *label.encode()])

    @cached_property
    def composed(self) -> Graph | str:
        """The graph that base and patch make, or why there is none."""
        case = self.case
        if case.base is None or case.schema is None or case.patch is None:
            return "base model, input schema or patch cannot be read"
        if len(case.patch.caps) * case.patch.classes > _MAX_CAPPED:
            return f"{len(case.patch.caps)} caps over {case.patch.classes} classes are too many to compose"
        try:
            graph = compose.compose(case.base, case.schema, case.patch)
            batch_limit(graph)  # a graph beyond what a file may hold has no shapes
        except (AuditorError, MalformedError) as error:
            return str(error)
        return graph

    @cached_property
    def _program(self) -> Program:
        assert isinstance(self.composed, Graph)
        return Program(self.composed)

    @cached_property
    def _base_program(self) -> Program:
        """Where the patch changes weights the base is a program of its own; else its output is an inner tensor."""
        assert self.case.base is not None
        return Program(self.case.base)

    @property
    def retrains(self) -> bool:
        """Whether the patch changes the base's weights: then outputs may move anywhere."""
        return self.case.patch is not None and bool(self.case.patch.weights)

    @cached_property
    def retrained(self) -> Graph:
        """The base with the patch's weights: what stands before its gates."""
        assert self.case.base is not None
        assert self.case.patch is not None
        return compose.retrained(self.case.base, self.case.patch)

    @property
    def runnable(self) -> bool:
        """Whether base and patch make a model that can be run."""
        return isinstance(self.composed, Graph)

    @cached_property
    def batch(self) -> int:
        """How many records the models are run on at a time; one number, so that bits can be compared."""
        return batch_limit(self.composed) if isinstance(self.composed, Graph) else MOST

    def run(self, values: Grid) -> tuple[Logits, Logits]:
        """The base's and the patched model's outputs on grid values; one run of one program if they share weights."""
        assert isinstance(self.composed, Graph)
        assert self.case.base is not None
        assert self.case.schema is not None
        inputs = self.case.schema.dequantise(values)
        if self.retrains:
            return self.base_model(inputs), self.patched_model(inputs)
        outputs = (self.case.base.output, self.composed.output)
        before, after = self._program(inputs, outputs=outputs, batch=self.batch)
        return before, after

    def replay(
        self, inputs: Float32[np.ndarray, "record ..."], names: tuple[str, ...]
    ) -> tuple[Shaped[np.ndarray, "record ..."], ...]:
        """Tensors of the composed program by name."""
        return self._program(inputs, outputs=names, batch=self.batch)

    def base_model(self, inputs: Float32[np.ndarray, "record ..."]) -> Logits:
        """The base's outputs on model inputs, from the composed program where the patch leaves the weights alone."""
        assert self.case.base is not None
        program = self._base_program if self.retrains else self._program
        (logits,) = program(inputs, outputs=(self.case.base.output,), batch=self.batch)
        return logits

    def patched_model(self, inputs: Float32[np.ndarray, "record ..."]) -> Logits:
        """The patched model's outputs on model inputs, from the same program."""
        assert isinstance(self.composed, Graph)
        (logits,) = self._program(inputs, outputs=(self.composed.output,), batch=self.batch)
        return logits

    @cached_property
    def redirections(self) -> tuple[Redirection, ...]:
        """All redirection claims."""
        return tuple(c for c in self.case.claims or () if isinstance(c, Redirection))

    def hints(self, claims: tuple[Redirection, ...]) -> Given:
        """Slopes that the bundle ships for some of its claims."""
        return Given.of(self.case.hints, self.case.claims or (), claims)

    @cached_property
    def class_removals(self) -> tuple[ClassRemoval, ...]:
        """All claims that a class is removed, whoever asked for that."""
        return tuple(c for c in self.case.claims or () if isinstance(c, ClassRemoval))

    @cached_property
    def requested_classes(self) -> frozenset[int]:
        """Classes that a request asks to remove."""
        scopes = (request.request.scope.klass for request in self.case.requests)
        return frozenset(klass for klass in scopes if klass is not None)

    @cached_property
    def removed_classes(self) -> tuple[int, ...]:
        """Classes whose removal was asked for and is claimed. What nobody asked to remove must not suffer."""
        return tuple(sorted({c.klass for c in self.class_removals} & self.requested_classes))

    @cached_property
    def requested(self) -> frozenset[bytes]:
        """Commitments of the records that the requests list one by one (not those of a whole class)."""
        return frozenset(
            record
            for request in self.case.requests
            if request.request.scope.klass is None
            for record in request.listed or ()
        )

    @property
    def lists_known(self) -> bool:
        """Whether every list of requested records could be read."""
        return all(
            request.listed is not None
            for request in self.case.requests
            if request.request.scope.kind in ("records", "subject")
        )

    @cached_property
    def coverage(self) -> tuple[Coverage, ...]:
        """Items that are there for versions of a record, with nothing certified about them."""
        return tuple(c for c in self.case.claims or () if isinstance(c, Coverage))

    @cached_property
    def unredirected(self) -> tuple[NoRedirection, ...]:
        """Records about which nothing is claimed."""
        return tuple(c for c in self.case.claims or () if isinstance(c, NoRedirection))

    @cached_property
    def opened_by_commitment(self) -> dict[bytes, Opening]:
        """The opened records of the bundle that are the committed ones, by commitment; others count for nothing."""
        commitment = self.case.commitment
        found: dict[bytes, Opening] = {}
        for opened in self.case.opened or ():
            try:
                record = opened.verify(
                    commitment.records_root, groups=commitment.group_count, count=commitment.record_count
                )
            except VerificationError:
                continue
            found[record] = opened
        return found

    def _fitting(self, opened: Iterable[Opening]) -> tuple[Grid, Labels]:
        # Values and labels of the records that the model can be run on and has a class for.
        schema, base = self.case.schema, self.case.base
        if schema is None or base is None:
            return np.zeros((0, 0), dtype=np.int64), np.zeros(0, dtype=np.int64)
        fitting = [o for o in opened if len(o.values) == schema.features and o.label < base.classes]
        values = np.array([o.values for o in fitting], dtype=np.int64).reshape(len(fitting), schema.features)
        inside = ((values >= schema.low) & (values <= schema.high)).all(axis=1)
        return values[inside], np.array([o.label for o in fitting], dtype=np.int64)[inside]

    @cached_property
    def claimed_records(self) -> tuple[Grid, Labels, tuple[Redirection, ...]]:
        """Grid values and labels of the opened records with a redirection claim, and these claims."""
        features = self.case.schema.features if self.case.schema is not None else 0
        found = [
            (self.opened_by_commitment[claim.record], claim)
            for claim in self.redirections
            if claim.record in self.opened_by_commitment
            and len(self.opened_by_commitment[claim.record].values) == features
        ]
        values = np.array([opened.values for opened, _ in found], dtype=np.int64).reshape(len(found), features)
        labels = np.array([opened.label for opened, _ in found], dtype=np.int64)
        return values, labels, tuple(claim for _, claim in found)

    @cached_property
    def placed_records(self) -> tuple[Grid, Labels, Int[np.ndarray, "place"], Int[np.ndarray, "place"]]:
        """For each claim on an item about an opened record: its grid values, label, the item, its radius in steps.

        Coverage claims have radius 0. In a region of flips no column moves.
        """
        features = self.case.schema.features if self.case.schema is not None else 0
        found = []
        claims: tuple[Redirection | Coverage, ...] = (*self.redirections, *self.coverage)
        for claim in claims:
            opened = self.opened_by_commitment.get(claim.record)
            if opened is None or claim.item is None or len(opened.values) != features:
                continue
            radius = 0
            if isinstance(claim, Redirection):
                radius = claim.region.radius if claim.region.norm == "linf" else claim.region.steps
            found.append((opened.values, opened.label, claim.item, radius))
        values = np.array([one[0] for one in found], dtype=np.int64).reshape(len(found), features)
        labels, items, radii = (np.array([one[n] for one in found], dtype=np.int64) for n in (1, 2, 3))
        return values, labels, items, radii

    @cached_property
    def requested_records(self) -> tuple[Grid, Labels]:
        """Grid values and labels of the requested records that were opened and fit the model.

        Not of whatever else the owner opened: it would thin out what an attack sees.
        """
        return self._fitting(o for record, o in self.opened_by_commitment.items() if record in self.requested)

    @cached_property
    def requested_missing(self) -> int:
        """How many requested records were not opened, or do not fit the model's inputs and classes."""
        return len(self.requested) - len(self.requested_records[0])

    @cached_property
    def retained(self) -> tuple[Grid, Labels] | None:
        """Challenged records that were opened, without the requested ones; None if none were or these are not known."""
        if not self.lists_known or self.transcript.opened is None or self.case.schema is None or self.case.base is None:
            return None
        return self._fitting(self._challenged)

    @property
    def _challenged(self) -> list[Opening]:
        return [o for o in self.transcript.opened or () if o.commitment not in self.requested]

    @cached_property
    def retained_gap(self) -> str:
        """Why the opened retained records are not the sample that was drawn; empty if they are."""
        challenge, opened = self.transcript.challenge, self.transcript.opened
        if not self.lists_known:
            return "which challenged records were requested is not known"
        if challenge is None or opened is None or self.retained is None:
            return "no retained records were opened"
        if len(opened) < challenge.count:
            return f"{challenge.count - len(opened)} of {challenge.count} challenged records were not opened"
        lost = len(self._challenged) - len(self.retained[0])
        return f"{lost} challenged records do not fit the model's inputs and classes" if lost else ""

    @cached_property
    def others(self) -> dict[str, tuple[Grid, Labels, Logits, Logits]]:
        """For each population of records that were not requested: values, labels, outputs before and after."""
        populations: dict[str, tuple[Grid, Labels]] = {}
        if self.reference is not None:
            populations["reference"] = (self.reference.values, self.reference.labels)
        if self.retained is not None and len(self.retained[0]):
            populations["retained"] = self.retained
        if not self.runnable:
            return {}
        return {name: (values, labels, *self.run(values)) for name, (values, labels) in populations.items()}

    @cached_property
    def twins(self) -> dict[str, Bool[np.ndarray, "record"]]:
        """For each population, the records equal to a requested one in every value.

        No function of the input could spare them: they count for nothing, and are counted.
        """
        known = {row.tobytes() for row in np.ascontiguousarray(self.requested_records[0], dtype=np.int64)}
        return {
            name: np.array([row.tobytes() in known for row in np.ascontiguousarray(values, dtype=np.int64)], dtype=bool)
            for name, (values, _, _, _) in self.others.items()
        }

    @cached_property
    def spared(self) -> dict[str, Bool[np.ndarray, "record"]]:
        """For each population, the records that no request concerns.

        Neither labelled nor predicted as a removed class, nor equal to a requested record.
        """
        removed = list(self.removed_classes)
        return {
            name: ~np.isin(labels, removed) & ~np.isin(before.argmax(axis=1), removed) & ~self.twins[name]
            for name, (_, labels, before, _) in self.others.items()
        }

    @cached_property
    def not_numbers(self) -> int:
        """On how many of the records at hand the base model puts out NaN or infinity."""
        if not self.runnable:
            return 0
        outputs = [before for _, _, before, _ in self.others.values()]
        if len(self.requested_records[0]):
            outputs.append(self.run(self.requested_records[0])[0])
        return sum(int((~np.isfinite(before)).any(axis=1).sum()) for before in outputs)


def moved(before: Logits, after: Logits) -> Bool[np.ndarray, "record"]:
    """Which outputs differ in any bit."""
    return np.asarray((before.view(np.uint32) != after.view(np.uint32)).any(axis=1))
