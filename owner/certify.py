"""From a method's result to a signed, logged bundle; refuses to sign what the patched model does not do.

Writes every file first, then the manifest over them, then the certificate over the manifest, then
the log entry: whoever finds a certificate in the log finds everything that it speaks of.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from owner.compose import compose
from owner.execute import Program
from owner.files import read_file, write_atomic
from owner.journal import append, leaf_of, read_proof, refreshed, sign
from owner.methods.job import Job, Result
from owner.refusal import Refused
from owner.succession import Predecessor, RequestFile
from protocol import claims as claim_lines
from protocol import envelope as dsse
from protocol import hints as hint_file
from protocol import manifest, openings
from protocol.claims import ClassRemoval, Coverage, Linear, Logits, Redirection
from protocol.digests import sha256_hex
from protocol.encoding import parse_decimal
from protocol.errors import OwnerError
from protocol.keys import SigningKey
from protocol.log.files import locked
from protocol.log.proof import MAX_TLOG_PROOF
from protocol.messages.certificate import Certificate, Dropped
from protocol.messages.request import serialise_list
from protocol.model import patch as patch_file
from protocol.model import profile
from protocol.model.graph import Graph
from protocol.model.parts import FeatureGate, RegionGate
from protocol.model.schema import NO_GROUP

CERTIFICATE = "certificate.dsse.json"
_TOGETHER = 1000  # claims checked at once
_REPLAYED = 250  # claims whose regions are replayed
_SPARED = 500  # retained records that are looked at


def _steps(job: Job, claims: list[Redirection]) -> tuple[np.ndarray, np.ndarray]:
    # How far each column may move, and how many of the others may flip.
    numeric = np.array([kind == "grid" for kind in job.workspace.schema.kind])
    steps = [c.region.radius if c.region.norm == "linf" else np.where(numeric, c.region.steps, 0) for c in claims]
    flips = [c.region.radius if c.region.norm == "hamming" else 0 for c in claims]
    return np.array([np.broadcast_to(one, len(numeric)) for one in steps], dtype=np.int64), np.array(flips)


def _flipped(job: Job, values: np.ndarray, flips: np.ndarray) -> np.ndarray:
    # Each record with as many of its binary columns and one-hot groups changed as its claim allows, drawn at random.
    schema, result = job.workspace.schema, values.copy()
    single = [np.array([column]) for column in np.flatnonzero(np.array(schema.kind) == "binary")]
    units = single + [np.flatnonzero(schema.group == g) for g in np.unique(schema.group) if g != NO_GROUP]
    for row, count in enumerate(flips):
        for unit in job.generator.permutation(len(units))[: int(count)]:
            columns = units[unit]
            if schema.kind[int(columns[0])] == "binary":
                result[row, columns] = 1 - result[row, columns]
            else:
                result[row, columns] = 0
                result[row, job.generator.choice(columns)] = 1
    return result


def _probes(job: Job, values: np.ndarray, spread: np.ndarray, flips: np.ndarray) -> np.ndarray:
    # Centre, both corners, a random corner and a random point of each region, as grid values inside the ranges.
    schema = job.workspace.schema
    signs = job.generator.integers(0, 2, size=values.shape) * 2 - 1
    random = job.generator.integers(-spread, spread + 1, size=values.shape)
    points = [values, values - spread, values + spread, values + signs * spread, values + random]
    if flips.any():
        points = [values, *(_flipped(job, np.clip(p, schema.low, schema.high), flips) for p in points)]
    return np.concatenate([np.clip(p, schema.low, schema.high) for p in points])


def _satisfies(row: Float32[np.ndarray, " class"], wanted: Linear) -> bool:
    # Rational arithmetic: what is signed holds exactly, not up to this program's rounding.
    if not np.isfinite(row).all() or len(wanted.rows[0]) != len(row):
        return False
    values = [Fraction(value) for value in row.tolist()]
    sums = (sum(Fraction(c) * v for c, v in zip(line, values, strict=True)) for line in wanted.matrix().tolist())
    return all(total >= Fraction(parse_decimal(least)) for total, least in zip(sums, wanted.least, strict=True))


def _check_redirections(job: Job, claims: list[Redirection], program: Program) -> None:
    workspace = job.workspace
    rows = workspace.rows_of(tuple(c.record for c in claims))
    probes = _probes(job, workspace.records.values[rows].astype(np.int64), *_steps(job, claims))
    outputs = program(workspace.schema.dequantise(probes)).reshape(-1, len(claims), workspace.base.classes)
    for claim, found in zip(claims, outputs.transpose(1, 0, 2), strict=True):
        if isinstance(claim.property, Logits):
            holds = bool((found == claim.property.array()).all())
        elif isinstance(claim.property, Linear):
            holds = all(_satisfies(row, claim.property) for row in found)
        else:
            own = found[:, claim.property.klass].astype(np.float64)
            lead = own - np.delete(found, claim.property.klass, axis=1).max(axis=1)
            holds = bool((lead >= float(claim.property.margin)).all())
        if not holds:
            raise Refused(
                "the patched model does not do what the claim says; nothing was signed",
                where=f"record {claim.record.hex()[:16]}",
            )


def _check_coverage(job: Job, result: Result, program: Program) -> bool:
    """Whether items of gates that look at floats fire on the records that they are said to cover; any such gates?"""
    patch, workspace = result.patch, job.workspace
    floats = any(isinstance(part.gate, FeatureGate | RegionGate) for part in patch.parts)
    covering = [claim for claim in result.claims if isinstance(claim, Coverage)]
    for number, part in enumerate(patch.parts):
        if not isinstance(part.gate, FeatureGate | RegionGate):
            continue
        own = [claim for claim in covering if patch.place(claim.item).part == number]
        rows = workspace.rows_of(tuple(claim.record for claim in own))
        for start in range(0, len(rows), _TOGETHER):
            inputs = workspace.schema.dequantise(workspace.records.values[rows[start : start + _TOGETHER]])
            (hits,) = program(inputs, outputs=(f"prune/p{number}/hits",))
            for claim, hit in zip(own[start : start + _TOGETHER], hits, strict=True):
                if not hit[patch.place(claim.item).item]:
                    raise Refused("an item does not fire on its record", where=f"record {claim.record.hex()[:16]}")
    return floats


def self_check(job: Job, result: Result, patched: Graph) -> None:
    """Run the patched model where the claims say something, before anything is signed.

    Finds faults of the implementation; the certificate itself rests on exact integers, not on this.

    Raises:
        Refused: an output differs from what is claimed, or moved where nothing may move.
    """
    workspace, own = job.workspace, job.workspace.records
    program = Program(patched)
    redirections = [c for c in result.claims if isinstance(c, Redirection)]
    # Of very many claims some: a fault of the implementation is not one of single records.
    redirections = redirections[:: max(1, len(redirections) // _REPLAYED)]
    for start in range(0, len(redirections), _TOGETHER):
        _check_redirections(job, redirections[start : start + _TOGETHER], program)
        job.progress("self-check", 0.9 * min(1.0, (start + _TOGETHER) / len(redirections)))
    floats = _check_coverage(job, result, program)
    gone = np.zeros(len(own.labels), dtype=bool)
    gone[job.rows] = True
    # Sketches keep clear of retained records in integers; where floats decide, every one of them is run.
    sample = np.flatnonzero(~gone)[:: 1 if floats else max(1, int((~gone).sum()) // _SPARED)]
    inputs = workspace.schema.dequantise(own.values[sample])
    # Before the caps, which lower a removed class's logit for every input, nothing but the gate may act.
    gated = bool(result.patch.parts)
    last = f"prune/p{len(result.patch.parts) - 1}/selected"
    uncapped = (last if result.patch.caps else patched.output) if gated else workspace.base.output
    final, selected, before = program(inputs, outputs=(patched.output, uncapped, workspace.base.output))
    for removal in result.claims:
        if isinstance(removal, ClassRemoval) and (final.argmax(axis=1) == removal.klass).any():
            raise Refused(f"class {removal.klass} is still predicted; nothing was signed")
    moved = (selected != before).any(axis=1)
    forgotten = {own.values[row].tobytes() for row in job.rows}
    stray = [row for row in sample[moved] if own.values[row].tobytes() not in forgotten]
    if stray:
        hint = "; --gate always acts on every input" if job.gate == "always" else ""
        raise Refused(f"{len(stray)} retained records would be redirected{hint}; nothing was signed")


Files = dict[str, tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A bundle before it is signed.

    Args:
        files: content and role of each file by path; the manifest will list them all.
        proofs: log proofs by name, without the certificate's own.
        certificate: the certificate; its subject is filled in when the manifest is written.
    """

    files: Files
    proofs: dict[str, bytes]
    certificate: Certificate


def draft(
    job: Job,
    result: Result,
    composed: Graph,
    requests: tuple[RequestFile, ...],
    *,
    opening: bytes | None,
    opening_proof: bytes | None,
    now: int,
    method: str,
    predecessor: Predecessor | None = None,
    dropped: tuple[Dropped, ...] = (),
) -> Draft:
    """Everything that a bundle holds, from a method's result; with a predecessor, its certificate and claims, too.

    Raises:
        OwnerError: a part of the workspace cannot be read.
    """
    workspace = job.workspace
    patch_manifest, tensors = patch_file.to_bytes(result.patch)
    lines = [claim_lines.claim_line(claim) for claim in result.claims]
    files: Files = {
        "base.onnx": ("base", workspace.base_bytes),
        "schema.json": ("schema", workspace.schema_bytes),
        "recipe.json": ("recipe", workspace.recipe_bytes),
        "patch.json": ("patch", patch_manifest),
        "patch.safetensors": ("patch-tensors", tensors),
        "patched.onnx": ("patched", profile.serialise(composed)),
        "claims.jsonl": ("claims", b"".join(line + b"\n" for line in lines)),
        "commitment.dsse.json": ("commitment", workspace.envelope),
    }
    proofs = {"commitment": read_file(workspace.folder / "proofs" / "commitment.tlog-proof", limit=MAX_TLOG_PROOF)}
    for number, entry in enumerate(requests):
        files[f"requests/{number:03}.dsse.json"] = ("request", entry.envelope)
        files[f"requests/{number:03}.leaves.json"] = ("request-records", serialise_list(entry.listed))
        if entry.proof is not None:
            proofs[f"request-{number:03}"] = entry.proof
    if opening is not None:
        files["opening.dsse.json"] = ("audit-opening", opening)
        if opening_proof is not None:
            proofs["opening"] = opening_proof
    if predecessor is not None:
        files["predecessor/certificate.dsse.json"] = ("predecessor", predecessor.envelope)
        files["predecessor/claims.jsonl"] = ("predecessor-claims", predecessor.claims_file)
        proofs["predecessor"] = predecessor.proof
    if job.rows:
        opened = workspace.open_rows(job.rows)
        files["openings.npz"] = ("opening", openings.serialise(opened, features=result.patch.features))
    if result.hints is not None:
        files[hint_file.FILE] = (hint_file.ROLE, result.hints)
    certificate = Certificate(
        subject="",
        commitment=workspace.leaf,
        requests=tuple(leaf_of(entry.envelope) for entry in requests),
        opening=leaf_of(opening) if opening is not None else None,
        predecessor=predecessor.leaf if predecessor is not None else None,
        dropped=dropped,
        method=method,
        claims_root=claim_lines.root(lines),
        claim_count=len(lines),
        inert_outside_supports=not result.patch.weights,
        certified_at=now,
    )
    return Draft(files=files, proofs=proofs, certificate=certificate)


def sign_bundle(bundle: Draft, *, key: SigningKey, log: Path, out: Path) -> bytes:
    """Write the files, the manifest over them, and the certificate over it; log it; return its envelope.

    Raises:
        OwnerError: something cannot be written, signed or logged.
    """
    for path, (_, data) in bundle.files.items():
        write_atomic(out / path, data)
    listing = manifest.build(out, [(path, role) for path, (role, _) in bundle.files.items()])
    write_atomic(out / "manifest.json", listing.raw)
    for name, proof in bundle.proofs.items():
        write_atomic(out / "proofs" / f"{name}.tlog-proof", proof)
    envelope = sign(replace(bundle.certificate, subject=sha256_hex(listing.raw)).payload(), key)
    # Written before it is logged: whatever happens next, the logged bytes are not lost.
    write_atomic(out / CERTIFICATE, envelope)
    log_certificate(out, log=log)
    return envelope


def log_certificate(bundle: Path, *, log: Path, once: bool = False) -> None:
    """Log a bundle's certificate and write the proof.

    Args:
        bundle: the folder.
        log: the owner's log.
        once: it may be in the log already.

    Raises:
        OwnerError: it cannot be logged or written.
    """
    envelope = read_file(bundle / CERTIFICATE, limit=dsse.MAX_ENVELOPE)
    write_atomic(bundle / "proofs" / "certificate.tlog-proof", append(log, envelope, once=once))


def write_bundle(
    job: Job,
    result: Result,
    requests: tuple[RequestFile, ...],
    *,
    opening: bytes | None,
    opening_proof: bytes | None,
    key: SigningKey,
    log: Path,
    out: Path,
    now: int,
    method: str,
    predecessor: Predecessor | None = None,
    dropped: tuple[Dropped, ...] = (),
    still: Callable[[], None] = lambda: None,
) -> bytes:
    """Check, write, sign and log; return the certificate's envelope.

    `still` raises what has come to forbid it while the method ran; between it and the log entry nobody else certifies.

    Raises:
        Refused: a claim does not hold.
        OwnerError: something cannot be written.
    """
    composed = compose(job.workspace.base, job.workspace.schema, result.patch)
    self_check(job, result, composed)
    job.progress("self-check", 1.0)
    job.progress("writing and signing", 0.0)
    bundle = draft(
        job,
        result,
        composed,
        requests,
        opening=opening,
        opening_proof=opening_proof,
        now=now,
        method=method,
        predecessor=predecessor,
        dropped=dropped,
    )
    with locked(log.with_name(f"{log.name}.certifying")):
        still()
        return sign_bundle(bundle, key=key, log=log, out=out)


def refresh_proofs(folder: Path, log: Path) -> int:
    """Bring a folder's proofs to the log's current, cosigned checkpoint; return how many changed.

    Raises:
        OwnerError: there are no proofs, no such log, or it does not continue what they were made in.
    """
    paths = sorted((folder / "proofs").glob("*.tlog-proof"))
    if not paths:
        raise OwnerError("holds no log proofs; is this a commitment, bundle or answer?", where=str(folder))
    changed = 0
    for path in paths:
        old = read_proof(path)
        if old is not None and (fresh := refreshed(log, old)) != old:
            write_atomic(path, fresh)
            changed += 1
    return changed
