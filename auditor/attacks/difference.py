"""A5: comparing the patched model with its base, scored against decoy patches.

Proves: how surely somebody who holds both models picks the forgotten records out of others.
Assumes: base and patched model run over the same records in the same batches, so that equal stays equal.
Does not: fail anybody. Outside its regions a local patch leaves the base's output alone, bit for bit, so the
difference is nonzero exactly on the forgotten records and this attack is always right: inherent.

Decoys say what the difference gives away beyond *being* patched. The auditor patches never-seen records in the
same way, same sketch, widths and heads; where forgotten and decoy records differ by as much, whoever adds decoys
to a patch hides its records among them.
"""

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

from auditor.attacks.observation import Unavailable
from auditor.attacks.properties import Property, area
from auditor.attacks.subjects import Grid, Model, Subjects, ask
from protocol.errors import AuditorError
from protocol.model.parts import MAX_SUM, Part, SetHead, SketchGate
from protocol.model.patch import Patch


def choose_decoys(
    labels: Int64[np.ndarray, "record"], forget: Bool[np.ndarray, "record"], generator: np.random.Generator
) -> Int64[np.ndarray, "item"]:
    """Return one never-seen record of the same class for each forgotten record, in their order, none twice.

    Raises:
        AuditorError: a class has more forgotten than never-seen records.
    """
    chosen = np.zeros(int(forget.sum()), dtype=np.int64)
    wanted = labels[forget]
    for klass in np.unique(wanted):
        places, pool = np.flatnonzero(wanted == klass), np.flatnonzero(~forget & (labels == klass))
        if pool.size < places.size:
            raise AuditorError(
                f"class {klass} has {places.size} forgotten and {pool.size} never-seen records for decoys"
            )
        chosen[places] = generator.choice(pool, places.size, replace=False)
    return chosen


def decoy_patch(
    patch: Patch, records: Grid, decoys: Grid, rows: Float32[np.ndarray, "item class"] | None = None
) -> Patch:
    """Return the patch moved from its records to others: same sketch, same widths around the new centres.

    Args:
        patch: of one part: a sketch gate whose head sets rows.
        records: grid values of the record of each item, in the items' order.
        decoys: grid values of the record to put in each one's place.
        rows: logits for each decoy, such as a model gives that never saw it; None keeps the item's own.

    Raises:
        AuditorError: the patch is another one, or the arrays do not fit it.
    """
    gates = [part.gate for part in patch.parts]
    if len(gates) != 1 or not isinstance(gates[0], SketchGate):
        raise AuditorError("decoys are made for a patch of one part, with a sketch gate")
    (part,), gate = patch.parts, gates[0]
    if not isinstance(part.head, SetHead):
        raise AuditorError("decoys are made for a head that sets rows")
    items = gate.items
    if records.shape != (items, patch.features) or decoys.shape != records.shape:
        raise AuditorError(f"decoys need a record and a substitute for each of {items} items")
    shift = (decoys.astype(np.int64) - records) @ gate.matrix.T.astype(np.int64)
    low, high = (np.clip(bound + shift, -MAX_SUM, MAX_SUM).astype(np.int32) for bound in (gate.low, gate.high))
    own = part.head.rows[part.head.index] if rows is None else rows
    head = SetHead(rows=np.ascontiguousarray(own, dtype=np.float32), index=np.arange(items, dtype=np.int64))
    moved = Part(gate=replace(gate, low=low, high=high), head=head)
    return Patch(features=patch.features, classes=patch.classes, parts=(moved,), caps=patch.caps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The distance between both models' logits on each record.

    Attributes:
        norm: largest absolute difference, or Euclidean.
        decoy: the base under a decoy patch; None leaves the decoys out.
        decoys: places of the records that it patches, all never seen.

    Source: Chen et al., "When Machine Unlearning Jeopardizes Privacy", CCS 2021, section 4 (direct difference and
        Euclidean distance).
    """

    norm: Literal["max", "l2"] = "max"
    decoy: Model | None = field(default=None, repr=False)
    decoys: Int[np.ndarray, "item"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what does not belong together.

        Raises:
            AuditorError: an unknown norm, or a decoy model without its records.
        """
        if self.norm not in {"max", "l2"} or (self.decoy is None) != (self.decoys is None):
            raise AuditorError("the norm is max or l2, and a decoy model comes with the places of its records")

    def _distance(self, gap: Float[np.ndarray, "record class"]) -> Float[np.ndarray, "record"]:
        size: np.ndarray = np.abs(gap).max(axis=1) if self.norm == "max" else np.sqrt((gap**2).sum(axis=1))
        return size

    def __call__(self, subjects: Subjects, generator: np.random.Generator) -> Property | Unavailable:
        """Return the AUC of forgotten against never-seen records, or against decoys where there are some."""
        del generator
        if subjects.base is None:
            return Unavailable(reason="the base model is not at hand")
        outputs = [ask(model, subjects.inputs, subjects.labels) for model in (subjects.base, subjects.patched)]
        before, after = outputs
        if isinstance(before, Unavailable):
            return before
        if isinstance(after, Unavailable):
            return after
        distance = self._distance(after - before)
        inherent = area(distance, subjects.forget)
        if isinstance(inherent, Unavailable):
            return inherent
        facts = {
            "auc_never_seen": inherent[0],
            "auc_never_seen_low": inherent[1],
            "changed_forgotten": float((distance[subjects.forget] > 0.0).mean()),
            "changed_never_seen": float((distance[~subjects.forget] > 0.0).mean()),
        }
        reading = (
            f"The difference to the base tells forgotten from never-seen records with AUC {inherent[0]:.3f}: "
            "inherent in a patch that leaves all other records alone."
        )
        value, quantity, scores = inherent, "AUC of forgotten against never-seen records", distance
        if self.decoy is not None and self.decoys is not None:
            disguised = ask(self.decoy, subjects.inputs, subjects.labels)
            if isinstance(disguised, Unavailable):
                return disguised
            apart = self._distance(disguised - before)[self.decoys]
            scores = np.concatenate([distance[subjects.forget], apart])
            found = area(scores, np.arange(scores.size) < int(subjects.forget.sum()))
            if isinstance(found, Unavailable):
                return found
            value, quantity = found, "AUC of forgotten records against decoys"
            facts["changed_decoys"] = float((apart > 0.0).mean())
            reading += f" Against never-seen records under a decoy patch it has AUC {value[0]:.3f}."
        return Property(
            name="difference",
            quantity=quantity,
            value=value[0],
            low=value[1],
            high=value[2],
            reading=reading,
            settings=repr(self),
            per_record=scores,
            facts=MappingProxyType(facts),
        )
