"""A later certificate on top of an earlier one: find the predecessor, keep its items, carry or drop its claims.

The predecessor's items come first and keep their boxes and rows, so that its claims hold as they did: of the items
that fire the first one decides. New items are made beside them by the method, clear of them. What is dropped is named
with its reason; `assemble` refuses to leave a claim out silently. Assumes that a predecessor made with this program
lies in the workspace, or as a bundle where the caller says. Source: SPEC 11.11, 12.2.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from owner.files import read_file, write_atomic
from owner.gates.screening import screened
from owner.gates.sketch import count_twins, without_idle
from owner.journal import leaf_of, read_proof, refreshed
from owner.methods.job import Result, Standing
from owner.methods.removal import capped
from owner.refusal import Refused
from owner.workspace import Workspace
from protocol import claims as claim_lines
from protocol import envelope as dsse
from protocol import manifest, messages
from protocol.claims import Argmax, Claim, ClassRemoval, Coverage, Logits, NoRedirection, Redirection, logits_property
from protocol.digests import sha256_hex
from protocol.errors import Error, MalformedError, OwnerError
from protocol.log.store import Log
from protocol.messages.certificate import Certificate, Dropped
from protocol.messages.request import Request, parse_list
from protocol.model import patch as patch_file
from protocol.model.patch import Part, Patch, SetHead, SketchGate, Weight
from protocol.succession import name_of, uncarried

CERTIFICATE = "certificate.dsse.json"
_KEPT = ("claims", "patch", "patch-tensors", "request", "request-records")
MAX_DROPPED = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFile:
    """A request as it goes into the bundle: exact envelope, its records, its proof if the requester gave one."""

    envelope: bytes
    request: Request
    listed: tuple[bytes, ...]
    proof: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The certificate that the next one builds on, with what it promised and how."""

    envelope: bytes
    proof: bytes
    certificate: Certificate
    claims_file: bytes
    claims: tuple[Claim, ...]
    patch: Patch
    requests: tuple[RequestFile, ...]

    @property
    def leaf(self) -> str:
        """Its name in other messages."""
        return leaf_of(self.envelope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A claim that is no longer to be made: of a row of the data file, or of a removed class."""

    reason: str
    row: int | None = None
    klass: int | None = None


def parse_drop(text: str) -> Drop:
    """Read `ROW=REASON` or `class:K=REASON`.

    Raises:
        OwnerError: neither.
    """
    what, equals, reason = text.partition("=")
    number = what.removeprefix("class:")
    fits = number.isascii() and number.isdigit() and len(number) < 16
    if not equals or not fits or not 0 < len(reason.strip()) <= 400:
        raise OwnerError(
            f"--drop {text[:60]!r}: give ROW=REASON or class:K=REASON, the reason in at most 400 characters"
        )
    if number != what:
        return Drop(reason=reason.strip(), klass=int(number))
    return Drop(reason=reason.strip(), row=int(number))


def _latest(workspace: Workspace, log: Path) -> tuple[bytes, int] | None:
    # The last certificate about this commitment in the owner's own log, and its place.
    found = None
    for index, entry in enumerate(Log.open(log).entries()):
        with contextlib.suppress(Error):
            if messages.predicate_of(dsse.parse(entry)) != Certificate.PREDICATE:
                continue
            _, certificate = messages.read(entry, Certificate)
            if certificate.commitment == workspace.leaf:
                found = entry, index
    return found


def check_unsuperseded(workspace: Workspace, log: Path, leaf: str | None) -> None:
    """Refuse to sign on top of what is no longer the latest: the successor would skip what came in between.

    Args:
        workspace: the commitment folder.
        log: the owner's log.
        leaf: the certificate that is built on; None where there was none.

    Raises:
        OwnerError: another certificate about this commitment was logged meanwhile.
    """
    latest = _latest(workspace, log)
    if latest is not None and leaf_of(latest[0]) != leaf:
        raise OwnerError(
            f"meanwhile a certificate about this commitment was logged ({leaf_of(latest[0])[:16]}, entry {latest[1]}); "
            "nothing was signed, run this again to build on it"
        )


def _kept(workspace: Workspace, leaf: str) -> Path:
    return workspace.folder / "certificates" / leaf


def keep(workspace: Workspace, bundle: Path) -> None:
    """Remember in the workspace what a successor of this bundle's certificate needs, as far as it may be written."""
    envelope = read_file(bundle / CERTIFICATE, limit=dsse.MAX_ENVELOPE)
    folder = _kept(workspace, leaf_of(envelope))
    raw = read_file(bundle / "manifest.json", limit=manifest.MAX_MANIFEST)
    with contextlib.suppress(OwnerError):
        for entry in manifest.parse(raw).entries:
            if entry.role in _KEPT:
                write_atomic(folder / entry.path, read_file(bundle / entry.path))
        for proof in sorted((bundle / "proofs").glob("*.tlog-proof")):
            write_atomic(folder / "proofs" / proof.name, read_file(proof))
        write_atomic(folder / "manifest.json", raw)
        # Last: a folder with a certificate is whole.
        write_atomic(folder / CERTIFICATE, envelope)


def find(workspace: Workspace, *, log: Path, previous: Path | None) -> Predecessor | None:
    """The latest certificate about this commitment in the owner's log, with patch and claims; None if there is none.

    Args:
        workspace: the commitment folder.
        log: the owner's log.
        previous: the predecessor's bundle, where the workspace does not hold it.

    Raises:
        OwnerError: the log has one, and its patch and claims are nowhere; or `previous` is another one.
    """
    latest = _latest(workspace, log)
    if latest is None:
        if previous is not None:
            raise OwnerError("the log has no certificate about this commitment", where=str(previous))
        return None
    envelope, index = latest
    leaf = leaf_of(envelope)
    folder = previous if previous is not None else _kept(workspace, leaf)
    if not (folder / CERTIFICATE).is_file():
        raise OwnerError(
            f"the log has a certificate about this commitment ({leaf[:16]}, entry {index}); give its bundle with "
            "--previous to build on it, or --beside for a certificate that carries nothing of it"
        )
    if read_file(folder / CERTIFICATE, limit=dsse.MAX_ENVELOPE) != envelope:
        raise OwnerError(
            f"is not the latest certificate about this commitment; that is {leaf[:16]}, entry {index} of the log",
            where=str(folder / CERTIFICATE),
        )
    try:
        return _read(folder, envelope, log)
    except MalformedError as error:
        raise OwnerError(error.message, where=f"{folder}/{error.where}") from None


def _read(folder: Path, envelope: bytes, log: Path) -> Predecessor:
    _, certificate = messages.read(envelope, Certificate, where=CERTIFICATE)
    raw = read_file(folder / "manifest.json", limit=manifest.MAX_MANIFEST)
    if sha256_hex(raw) != certificate.subject:
        raise OwnerError("differs from the manifest that the certificate was signed for", where=str(folder))
    listing = manifest.parse(raw)
    try:
        contents = {e.path: manifest.read_listed(folder, e, limit=1 << 30) for e in listing.entries if e.role in _KEPT}
    except Error as error:
        raise OwnerError(error.message, where=f"{folder}/{error.where}") from None
    claims_file, manifest_json, tensors = (
        contents[listing.paths(role)[0]] for role in ("claims", "patch", "patch-tensors")
    )
    requests = []
    for path in listing.paths("request"):
        _, request = messages.read(contents[path], Request, where=path)
        stem = path.removesuffix(".dsse.json")
        requests.append(
            RequestFile(
                envelope=contents[path],
                request=request,
                listed=parse_list(contents[f"{stem}.leaves.json"], request, where=f"{stem}.leaves.json"),
                proof=read_proof(folder / "proofs" / f"request-{stem.rsplit('/', 1)[-1]}.tlog-proof"),
            )
        )
    proof = read_proof(folder / "proofs" / "certificate.tlog-proof")
    if proof is None:
        raise OwnerError("is missing", where=str(folder / "proofs" / "certificate.tlog-proof"))
    return Predecessor(
        envelope=envelope,
        proof=refreshed(log, proof),
        certificate=certificate,
        claims_file=claims_file,
        claims=claim_lines.parse_file(claims_file),
        patch=patch_file.parse(manifest_json, tensors),
        requests=tuple(requests),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """What becomes of a predecessor: the parts and claims that stay, and what is dropped.

    Args:
        predecessor: the certificate that is superseded.
        requests: its requests that the successor answers, too.
        parts: its parts that stay, in its order.
        items: for each of its items that stays the new number.
        kept: its claims that stay, with their old numbers of items.
        dropped: its claims that do not, with the reason.
        classes: the classes that it removes and that stay removed.
        weights: for a method that trains, the weights that it goes on from: nothing of the predecessor stays as it is,
            all requests are answered again. None for methods that work beside what stays.
    """

    predecessor: Predecessor
    requests: tuple[RequestFile, ...]
    parts: tuple[Part, ...]
    items: dict[int, int]
    kept: tuple[Claim, ...]
    dropped: tuple[Dropped, ...]
    classes: tuple[int, ...]
    weights: tuple[Weight, ...] | None = None

    @property
    def settled(self) -> frozenset[bytes]:
        """Records that a claim of the predecessor's, kept or dropped, is about."""
        claimed = {claim.record for claim in self.kept if not isinstance(claim, ClassRemoval)}
        return frozenset(claimed | {bytes.fromhex(one.record) for one in self.dropped})

    def standing(self, workspace: Workspace) -> Standing:
        """What a method has to work beside."""
        listed = {record for one in self.requests if one.request.scope.klass is None for record in one.listed}
        return Standing(
            parts=self.parts, rows=tuple(sorted(workspace.rows_of(tuple(sorted(listed))))), classes=self.classes
        )


def _thinned(part: Part, keep_items: np.ndarray, workspace: Workspace, outside: np.ndarray) -> Part:
    if not isinstance(part.gate, SketchGate) or not isinstance(part.head, SetHead):
        raise OwnerError("only items of sketch gates can be dropped one by one; use --beside")
    used, index = np.unique(part.head.index[keep_items], return_inverse=True)
    gate = SketchGate(matrix=part.gate.matrix, low=part.gate.low[keep_items], high=part.gate.high[keep_items])
    head = SetHead(rows=part.head.rows[used], index=index.astype(np.int64).ravel())
    return Part(gate=screened(without_idle(gate, workspace.schema), workspace.schema, outside), head=head)


def plan(workspace: Workspace, predecessor: Predecessor, drops: Sequence[Drop]) -> Succession:
    """Decide what stays of a predecessor.

    Raises:
        OwnerError: it makes no such claim as is to be dropped, or it was made by a method that cannot be built on.
    """
    if any(not isinstance(p.gate, SketchGate) or not isinstance(p.head, SetHead) for p in predecessor.patch.parts):
        raise OwnerError("the predecessor's patch has other parts than sketch gates with rows; use --beside")
    if predecessor.patch.weights:
        raise OwnerError("the predecessor's patch changes weights, which nothing builds on; use --beside")
    names: dict[str, str] = {}
    for drop in drops:
        if drop.row is not None:
            if not 0 <= drop.row < len(workspace.records.labels):
                raise OwnerError(f"there is no row {drop.row} to drop")
            wanted = workspace.commitments_of([drop.row])[0]
            found = [c for c in predecessor.claims if name_of(c) == wanted]
        else:
            found = [c for c in predecessor.claims if isinstance(c, ClassRemoval) and c.klass == drop.klass]
        if not found:
            what = f"row {drop.row}" if drop.row is not None else f"class {drop.klass}"
            raise OwnerError(f"the predecessor makes no claim about {what}")
        names[name_of(found[0]).hex()] = drop.reason
    kept = tuple(claim for claim in predecessor.claims if name_of(claim).hex() not in names)
    gone = {drop.klass for drop in drops if drop.klass is not None}
    used = {claim.item for claim in kept if isinstance(claim, Redirection)}
    outside = workspace.records.values
    parts: list[Part] = []
    items: dict[int, int] = {}
    start = 0
    for part in predecessor.patch.parts:
        stays = np.array([start + item in used for item in range(part.gate.items)])
        before = len(items)
        items |= {start + int(item): before + place for place, item in enumerate(np.flatnonzero(stays))}
        start += part.gate.items
        if stays.all():
            parts.append(part)
        elif stays.any():
            parts.append(_thinned(part, stays, workspace, outside))
    # What a claim that certifies nothing is about goes with the item.
    kept = tuple(claim for claim in kept if not isinstance(claim, Coverage) or claim.item in items)
    return Succession(
        predecessor=predecessor,
        requests=tuple(r for r in predecessor.requests if r.request.scope.klass not in gone),
        parts=tuple(parts),
        items=items,
        kept=kept,
        dropped=tuple(Dropped(record=name, reason=reason) for name, reason in names.items()),
        classes=tuple(sorted(c.klass for c in kept if isinstance(c, ClassRemoval))),
    )


def onward(predecessor: Predecessor, drops: Sequence[Drop]) -> Succession:
    """What a method that trains builds on: the predecessor's weights and requests, none of its claims.

    Raises:
        OwnerError: the predecessor's patch has gates, or claims are to be dropped by hand.
    """
    if predecessor.patch.parts:
        raise OwnerError("the predecessor's patch has gates, which a method that trains would not keep; use --beside")
    if drops:
        raise OwnerError("a method that trains makes every claim anew, and drops by itself what no longer holds")
    return Succession(
        predecessor=predecessor, requests=predecessor.requests, parts=(), items={}, kept=(), dropped=(), classes=(),
        weights=predecessor.patch.weights,
    )  # fmt: skip


def renew(succession: Succession, made: Result) -> tuple[Result, tuple[Dropped, ...]]:
    """The answer of a method that trained on: what the predecessor claimed and nobody claims now is dropped by name.

    Raises:
        Refused: more than a certificate lists.
    """
    gone = uncarried(succession.predecessor.claims, made.claims, ())
    if len(gone) > MAX_DROPPED:
        raise Refused(f"{len(gone)} claims are dropped, a certificate lists at most {MAX_DROPPED}; use --beside")
    reason = "the weights changed again, and no bound proves of the new ones what was claimed"
    return made, tuple(Dropped(record=name_of(claim).hex(), reason=reason) for claim in gone)


def _carried(claim: Claim, succession: Succession, patch: Patch, removed: tuple[int, ...], twins: int) -> Claim:
    if isinstance(claim, Coverage):
        return replace(claim, item=succession.items[claim.item])
    if not isinstance(claim, Redirection):
        return claim
    assert claim.item is not None
    item = succession.items[claim.item]
    held = claim.property
    if isinstance(held, Argmax) and held.klass in removed:
        raise Refused(
            f"a carried claim is about class {held.klass}, which is to be removed; drop it (--drop) or use --beside",
            where=f"record {claim.record.hex()[:16]}",
        )
    if isinstance(held, Logits):
        place = item
        for part in patch.parts:
            if place < part.gate.items:
                assert isinstance(part.head, SetHead)
                row = part.head.rows[part.head.index[place]]
                held = logits_property(capped(row[None], list(removed))[0])
                break
            place -= part.gate.items
    return replace(claim, item=item, property=held, twins=twins)


def assemble(
    workspace: Workspace, succession: Succession, made: Result, requests: tuple[RequestFile, ...]
) -> tuple[Result, tuple[Dropped, ...]]:
    """The whole answer: what stays of the predecessor and what the method made beside it.

    Args:
        workspace: the commitment folder.
        succession: what stays.
        made: the method's result; its patch begins with the parts that stay, its claims are the new ones.
        requests: all requests that the certificate answers.

    Raises:
        Refused: a claim of the predecessor's would be left out silently, or more are dropped than a certificate lists.
    """
    own = workspace.records
    removed = tuple(sorted({*succession.classes, *(c.klass for c in made.claims if isinstance(c, ClassRemoval))}))
    listed = {record for one in requests if one.request.scope.klass is None for record in one.listed}
    gone = np.zeros(len(own.labels), dtype=bool)
    gone[workspace.rows_of(tuple(sorted(listed)))] = True
    about = [claim for claim in succession.kept if isinstance(claim, Redirection)]
    rows = workspace.rows_of(tuple(claim.record for claim in about))
    counted = count_twins(own.wide(np.array(rows)), own.values[~gone]) if rows else np.zeros(0, dtype=np.int64)
    twins = {claim.record: int(count) for claim, count in zip(about, counted, strict=True)}
    carried = [
        _carried(claim, succession, made.patch, removed, twins.get(getattr(claim, "record", b""), 0))
        for claim in succession.kept
    ]
    reasons = {one.record: one.reason for one in succession.dropped}
    unclaimed = [
        NoRedirection(record=bytes.fromhex(name), reason=reason)
        for name, reason in reasons.items()
        if bytes.fromhex(name) in listed
    ]
    claims = (*carried, *unclaimed, *made.claims)
    # Without a cap that is dropped, its class's logit on other cores rises again: these claims are other ones now.
    for claim in uncarried(succession.predecessor.claims, claims, reasons.keys()):
        if len(succession.classes) == sum(isinstance(c, ClassRemoval) for c in succession.predecessor.claims):
            raise Refused(
                "a claim of the predecessor's would be neither carried nor dropped; nothing was signed",
                where=f"claim {name_of(claim).hex()[:16]}",
            )
        reasons[name_of(claim).hex()] = "made anew: its output is another one without the removal that is dropped"
    if len(reasons) > MAX_DROPPED:
        raise Refused(f"{len(reasons)} claims are dropped, a certificate lists at most {MAX_DROPPED}; use --beside")
    dropped = tuple(Dropped(record=name, reason=reason) for name, reason in reasons.items())
    return replace(made, claims=claims), dropped


__all__ = [
    "Drop",
    "Predecessor",
    "RequestFile",
    "Succession",
    "assemble",
    "check_unsuperseded",
    "find",
    "keep",
    "onward",
    "parse_drop",
    "plan",
    "renew",
]
