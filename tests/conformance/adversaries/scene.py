"""What a dishonest owner has in hand, and the moves that several adversaries share.

Everything that an adversary leaves alone stays as an honest owner's: keys, log, messages, the files it does not name.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from owner.certify import Draft, RequestFile, draft
from owner.compose import compose
from owner.gates import sketch
from owner.methods.job import Job, Result
from owner.succession import Predecessor
from protocol import claims as claim_lines
from protocol.claims import Claim, Redirection, Region
from protocol.model.patch import Part, Patch, SetHead, SketchGate


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a dishonest owner has: an honest job with its result, and the messages around it."""

    job: Job
    result: Result
    requests: tuple[RequestFile, ...]
    opening: bytes
    opening_proof: bytes
    now: int
    spent_opening: bytes | None = None
    spent_opening_proof: bytes | None = None
    predecessor: Predecessor | None = None

    def draft(self, result: Result | None = None) -> Draft:
        """A bundle of `result` (the honest one by default), not self-checked."""
        result = result if result is not None else self.result
        composed = compose(self.job.workspace.base, self.job.workspace.schema, result.patch)
        return draft(
            self.job,
            result,
            composed,
            self.requests,
            opening=self.opening,
            opening_proof=self.opening_proof,
            now=self.now,
            method="prune",
            predecessor=self.predecessor,
        )

    def with_patch(self, patch: Patch, claims: tuple[Claim, ...] | None = None) -> Draft:
        """A bundle of another patch, with the honest claims unless others are given."""
        return self.draft(Result(patch=patch, claims=claims if claims is not None else self.result.claims))

    @property
    def redirections(self) -> tuple[Redirection, ...]:
        """The honest redirection claims, one for each requested record."""
        return tuple(claim for claim in self.result.claims if isinstance(claim, Redirection))

    @property
    def values(self) -> Int[np.ndarray, "record feature"]:
        """Grid values of the requested records, in the claims' order."""
        workspace = self.job.workspace
        return workspace.records.values[workspace.rows_of(tuple(c.record for c in self.redirections))]

    @property
    def labels(self) -> Int[np.ndarray, "record"]:
        """Their labels."""
        workspace = self.job.workspace
        return workspace.records.labels[workspace.rows_of(tuple(c.record for c in self.redirections))]

    @property
    def kept(self) -> Int[np.ndarray, "row"]:
        """Rows of the training records that nobody asked to forget."""
        return np.setdiff1d(np.arange(len(self.job.workspace.records.labels)), self.job.rows)

    @property
    def by_item(self) -> Int[np.ndarray, "item"]:
        """For each item of the patch the number of the claim that it serves."""
        order = np.zeros(self.result.patch.items, dtype=np.int64)
        for number, claim in enumerate(self.redirections):
            order[claim.item if claim.item is not None else 0] = number
        return order

    @property
    def radii(self) -> Int[np.ndarray, "record"]:
        """Claimed radii in grid steps, in the claims' order."""
        return np.array([c.region.steps if c.region.norm == "hamming" else c.region.radius for c in self.redirections])


def gate_of(part: Part) -> SketchGate:
    """A part's gate, which an honest `prune` makes a sketch."""
    assert isinstance(part.gate, SketchGate)
    return part.gate


def head_of(part: Part) -> SetHead:
    """A part's head, which an honest `prune` makes a table of rows."""
    assert isinstance(part.head, SetHead)
    return part.head


def boxes(part: Part, low: np.ndarray, high: np.ndarray) -> Part:
    """The part with other boxes; without a screen, which was made for the honest ones."""
    gate = SketchGate(matrix=gate_of(part).matrix, low=low.astype(np.int32), high=high.astype(np.int32))
    return dataclasses.replace(part, gate=gate)


def with_parts(patch: Patch, *parts: Part) -> Patch:
    """The patch with other parts."""
    return dataclasses.replace(patch, parts=parts)


def rows_by_item(patch: Patch) -> Float32[np.ndarray, "item class"]:
    """The row that each item puts out."""
    return np.concatenate([head_of(part).rows[head_of(part).index] for part in patch.parts])


def with_rows(patch: Patch, rows: np.ndarray) -> Patch:
    """The patch with a row of its own for each item."""
    parts, start = [], 0
    for part in patch.parts:
        own = rows[start : start + part.gate.items].astype(np.float32)
        start += part.gate.items
        used, index = np.unique(own, axis=0, return_inverse=True)
        parts.append(dataclasses.replace(part, head=SetHead(rows=used, index=index.astype(np.int64).ravel())))
    return with_parts(patch, *parts)


def one_part(scene: Scene, matrix: np.ndarray, radii: np.ndarray) -> Patch:
    """A patch of one part with another sketch, boxes of these radii (in the claims' order), the same rows."""
    patch = scene.result.patch
    order = scene.by_item
    low, high = sketch.boxes(matrix, scene.job.workspace.schema, scene.values[order], radii[order])
    heads = [head_of(part) for part in patch.parts]
    starts = np.cumsum([0, *(len(head.rows) for head in heads)])
    head = SetHead(
        rows=np.concatenate([head.rows for head in heads]),
        index=np.concatenate([head.index + start for head, start in zip(heads, starts, strict=False)]),
    )
    gate = SketchGate(matrix=matrix, low=low.astype(np.int32), high=high.astype(np.int32))
    return with_parts(patch, Part(gate=gate, head=head))


def with_radius(claim: Redirection, radius: int, data: str | None = None) -> Redirection:
    """The claim about another radius; what it says in data units stays, unless it is given."""
    data = claim.region.radius_data if data is None else data
    if claim.region.norm == "hamming":
        region = Region(norm="hamming", radius=claim.region.radius, radius_data=data, steps=radius)
    else:
        region = Region(norm="linf", radius=radius, radius_data=data)
    return dataclasses.replace(claim, region=region)


def claiming_rows(scene: Scene, rows: np.ndarray) -> tuple[Claim, ...]:
    """The honest claims, but each says that its item's row of `rows` (in the items' order) is put out."""
    return tuple(
        dataclasses.replace(claim, property=claim_lines.logits_property(rows[claim.item].astype(np.float32)))
        if isinstance(claim, Redirection) and claim.item is not None
        else claim
        for claim in scene.result.claims
    )
