"""Dishonest owners, one function for each threat that the demonstration plays.

Each takes an honest draft of a bundle and makes it dishonest in one way; everything else, keys and log
included, stays as an honest owner's. The file name of the threat in threat_models/ is the key.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from owner.certify import Draft, RequestFile, draft
from owner.compose import compose
from owner.gates import sketch
from owner.journal import leaf_of
from owner.methods.job import Job, Result
from protocol import claims as claim_lines
from protocol import openings
from protocol.claims import Redirection, Region
from protocol.model import profile
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
        )


def _with_patch(scene: Scene, patch: Patch, claims: tuple[claim_lines.Claim, ...] | None = None) -> Draft:
    return scene.draft(Result(patch=patch, claims=claims if claims is not None else scene.result.claims))


def _part(scene: Scene) -> Part:
    (part,) = scene.result.patch.parts
    return part


def _gate(scene: Scene) -> SketchGate:
    gate = _part(scene).gate
    assert isinstance(gate, SketchGate)
    return gate


def _boxes(scene: Scene, matrix: np.ndarray, low: np.ndarray, high: np.ndarray) -> Patch:
    """The patch with other boxes; without a screen, which was made for the honest ones."""
    gate = SketchGate(matrix=matrix, low=low.astype(np.int32), high=high.astype(np.int32))
    part = dataclasses.replace(_part(scene), gate=gate)
    return dataclasses.replace(scene.result.patch, parts=(part,))


def noop_patch(scene: Scene) -> Draft:
    """Boxes where no record is: the patch never fires."""
    gate = _gate(scene)
    never = np.full_like(gate.low, 1 << 23)
    return _with_patch(scene, _boxes(scene, gate.matrix, never, never))


def partial_forget_set(scene: Scene, dropped: int = 20) -> Draft:
    """The last requested records get neither item nor claim."""
    gate, head = _gate(scene), _part(scene).head
    kept = gate.items - dropped
    used, index = np.unique(head.index[:kept], return_inverse=True)
    fewer = Part(
        gate=SketchGate(matrix=gate.matrix, low=gate.low[:kept], high=gate.high[:kept]),
        head=SetHead(rows=head.rows[used], index=index.astype(np.int64)),
    )
    smaller = dataclasses.replace(scene.result.patch, parts=(fewer,))
    return _with_patch(scene, smaller, tuple(scene.result.claims[:kept]))


def unsound_region(scene: Scene, overstated: int = 3) -> Draft:
    """Every radius is claimed larger than it is."""
    claims = tuple(
        dataclasses.replace(
            claim,
            region=Region(norm="linf", radius=claim.region.radius + overstated, radius_data=claim.region.radius_data),
        )
        if isinstance(claim, Redirection)
        else claim
        for claim in scene.result.claims
    )
    return _with_patch(scene, scene.result.patch, claims)


def base_swap(scene: Scene) -> Draft:
    """Another base model, a little perturbed, under the same commitment."""
    base = scene.job.workspace.base
    random = np.random.default_rng(5)
    changed = {
        name: (array + random.normal(0, 0.01, array.shape).astype(np.float32)) if array.dtype == np.float32 else array
        for name, array in base.initialisers.items()
    }
    swapped = dataclasses.replace(base, initialisers=changed)
    honest = scene.draft()
    composed = compose(swapped, scene.job.workspace.schema, scene.result.patch)
    honest.files["base.onnx"] = ("base", profile.serialise(swapped))
    honest.files["patched.onnx"] = ("patched", profile.serialise(composed))
    return honest


def substituted_record(scene: Scene) -> Draft:
    """The patch is made around perturbed copies, and these are what is opened."""
    workspace, gate, schema = scene.job.workspace, _gate(scene), scene.job.workspace.schema
    rows = scene.job.rows
    random = np.random.default_rng(6)
    values = workspace.records.values[rows].astype(np.int64)
    copies = np.clip(values + random.integers(-2, 3, size=values.shape), schema.low, schema.high).astype(np.int32)
    radius = np.array([c.region.radius for c in scene.result.claims if isinstance(c, Redirection)])
    low, high = sketch.boxes(gate.matrix, schema, copies, radius)
    patch = _boxes(scene, gate.matrix, low, high)
    made = _with_patch(scene, patch)
    opened = [
        dataclasses.replace(opening, values=copy)
        for opening, copy in zip(workspace.open_rows(rows), copies, strict=True)
    ]
    made.files["openings.npz"] = ("opening", openings.serialise(opened, features=patch.features))
    return made


def excessive_support(scene: Scene, factor: float = 0.5) -> Draft:
    """Boxes widened far beyond the claimed cores, by a share of each component's range."""
    gate, schema = _gate(scene), scene.job.workspace.schema
    span = np.abs(gate.matrix).astype(np.int64) @ (schema.high - schema.low)
    extra = (span * factor).astype(np.int64)
    return _with_patch(scene, _boxes(scene, gate.matrix, gate.low - extra, gate.high + extra))


def replay(scene: Scene) -> Draft:
    """The certificate names an audit that was opened for another request and whose nonce is known by now."""
    assert scene.spent_opening is not None
    assert scene.spent_opening_proof is not None
    honest = scene.draft()
    honest.files["opening.dsse.json"] = ("audit-opening", scene.spent_opening)
    honest.proofs["opening"] = scene.spent_opening_proof
    return dataclasses.replace(
        honest, certificate=dataclasses.replace(honest.certificate, opening=leaf_of(scene.spent_opening))
    )


def point_lookup(scene: Scene) -> Draft:
    """Only the exact record is redirected; the claim says so."""
    schema, workspace = scene.job.workspace.schema, scene.job.workspace
    values = workspace.records.values[scene.job.rows]
    # The whole record as its own sketch: nothing but the very same values fires.
    identity = np.eye(schema.features, dtype=np.int32)
    zero = np.zeros(len(values), dtype=np.int64)
    low, high = sketch.boxes(identity, schema, values, zero)
    patch = _boxes(scene, identity, low, high)
    claims = tuple(
        dataclasses.replace(c, region=Region(norm="linf", radius=0, radius_data="0"))
        if isinstance(c, Redirection)
        else c
        for c in scene.result.claims
    )
    return _with_patch(scene, patch, claims)


def patch_as_record(scene: Scene) -> Draft:
    """A gate that stores every value of the record: sound, local, and a copy of what should be forgotten."""
    schema, workspace = scene.job.workspace.schema, scene.job.workspace
    values = workspace.records.values[scene.job.rows]
    identity = np.eye(schema.features, dtype=np.int32)
    radius = np.array([c.region.radius for c in scene.result.claims if isinstance(c, Redirection)])
    low, high = sketch.boxes(identity, schema, values, radius)
    patch = _boxes(scene, identity, low, high)
    return _with_patch(scene, patch)


def hostile_artefact(scene: Scene) -> Draft:
    """The deployed file reads a weight from outside the bundle."""
    honest = scene.draft()
    model = onnx.load_from_string(honest.files["patched.onnx"][1])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    honest.files["patched.onnx"] = ("patched", model.SerializeToString())
    return honest


def hidden_payload(scene: Scene) -> Draft:
    """An item that no claim is about: whoever knows its place gets the output of somebody's choice."""
    gate, head = _gate(scene), _part(scene).head
    schema = scene.job.workspace.schema
    secret = np.full((1, schema.features), int(schema.high.max()), dtype=np.int32)
    low, high = sketch.boxes(gate.matrix, schema, secret, np.array([1]))
    more = Part(
        gate=SketchGate(
            matrix=gate.matrix,
            low=np.concatenate([gate.low, low.astype(np.int32)]),
            high=np.concatenate([gate.high, high.astype(np.int32)]),
        ),
        head=SetHead(rows=head.rows, index=np.concatenate([head.index, head.index[:1]])),
    )
    return _with_patch(scene, dataclasses.replace(scene.result.patch, parts=(more,)))


ADVERSARIES: dict[str, Callable[[Scene], Draft]] = {
    "noop-patch": noop_patch,
    "partial-forget-set": partial_forget_set,
    "unsound-region": unsound_region,
    "base-swap": base_swap,
    "substituted-record": substituted_record,
    "excessive-support": excessive_support,
    "replay": replay,
    "point-lookup": point_lookup,
    "patch-as-record": patch_as_record,
    "hostile-artefact": hostile_artefact,
    "hidden-payload": hidden_payload,
}

__all__ = ["ADVERSARIES", "Scene"]
