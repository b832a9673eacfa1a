"""From `request.json` to a signed bundle: read the requests, run the method, certify."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from owner import hinting, succession
from owner.certify import CERTIFICATE, log_certificate, write_bundle
from owner.device import check_device
from owner.files import begin_folder, check_free_folder, finish_folder, given_up, partial_folder, read_file
from owner.journal import PROOF, check_log, find, leaf_of, read_proof
from owner.methods.job import DISCLOSURE, Job, Progress, Result, Standing
from owner.methods.registry import COMPOSING, CONTINUING, METHODS
from owner.succession import Drop, RequestFile, Succession
from owner.targets import Target
from owner.workspace import Workspace
from protocol import envelope as dsse
from protocol import messages
from protocol.claims import Redirection
from protocol.device import Device
from protocol.digests import sha256_hex
from protocol.errors import MalformedError, OwnerError
from protocol.keys import SigningKey
from protocol.messages.certificate import Certificate, Dropped
from protocol.messages.opening import Opening
from protocol.messages.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to answer requests; see `prune-owner unlearn --help`."""

    requests: tuple[Path, ...]
    opening: Path | None
    method: str
    target: Target
    radius: int | None
    ceiling: int
    key: SigningKey
    log: Path
    out: Path
    now: int
    seed: int
    force: bool
    resume: bool
    flips: bool = False
    disclosure: float = DISCLOSURE
    merge: bool = False
    gate: str = "auto"
    head: str = "set"
    settings: Mapping[str, str] = field(default_factory=dict)
    previous: Path | None = None
    beside: bool = False
    drops: tuple[Drop, ...] = ()
    device: Device = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was signed.

    Args:
        certificate: its envelope.
        claims: how many it makes.
        notes: for whoever runs the program.
        redirected: whether single records are redirected (not only whole classes removed).
    """

    certificate: bytes
    claims: int
    notes: tuple[str, ...]
    redirected: bool


def read_request(workspace: Workspace, path: Path) -> RequestFile:
    """Read a request, its record list and its proof.

    Raises:
        OwnerError: it is about another commitment, or its list is missing.
    """
    data = read_file(path, limit=dsse.MAX_ENVELOPE)
    _, request = messages.read(data, Request, where=str(path))
    if request.subject != sha256_hex(workspace.envelope):
        raise OwnerError("the request is about another commitment", where=str(path))
    listed = workspace.find_list(path, data, request)
    proof = read_proof(path.with_suffix(PROOF)) or read_proof(workspace.folder / "requests" / f"{leaf_of(data)}{PROOF}")
    workspace.keep_request(data, listed, proof)
    return RequestFile(envelope=data, request=request, listed=listed, proof=proof)


def _done_before(options: Options, requests: tuple[RequestFile, ...]) -> Outcome | None:
    """With --resume, a bundle that is whole already: its certificate is in the log, so nothing is left to do."""
    path = options.out / CERTIFICATE
    if not options.resume or options.force or not path.is_file() or partial_folder(options.out).exists():
        return None
    envelope = read_file(path, limit=dsse.MAX_ENVELOPE)
    if find(options.log, envelope) is None:
        return None
    _, certificate = messages.read(envelope, Certificate, where=str(path))
    if not {leaf_of(request.envelope) for request in requests} <= set(certificate.requests):
        raise OwnerError("holds a bundle about other requests; use another --out", where=str(options.out))
    notes = ("nothing to resume: the bundle is whole, and its certificate is in the log",)
    return Outcome(certificate=envelope, claims=certificate.claim_count, notes=notes, redirected=False)


def _interrupted(workspace: Workspace, options: Options, requests: tuple[RequestFile, ...]) -> Outcome | None:
    """A bundle that an interrupted run had signed: it is finished if the certificate is in the log, else made anew."""
    partial = partial_folder(options.out)
    path = partial / CERTIFICATE
    if not path.is_file():
        return None
    envelope = read_file(path, limit=dsse.MAX_ENVELOPE)
    if find(options.log, envelope) is None:
        return None
    if not options.resume:
        raise OwnerError(
            "an interrupted run has logged its certificate already; finish it with --resume, or use another --out",
            where=str(options.out),
        )
    _, certificate = messages.read(envelope, Certificate, where=str(path))
    if not {leaf_of(request.envelope) for request in requests} <= set(certificate.requests):
        raise OwnerError("the interrupted run was about other requests; use another --out", where=str(options.out))
    log_certificate(partial, log=options.log, once=True)
    finish_folder(options.out)
    succession.keep(workspace, options.out)
    notes = ("finished what an interrupted run had signed",)
    return Outcome(certificate=envelope, claims=certificate.claim_count, notes=notes, redirected=False)


def _opening(path: Path, requests: tuple[RequestFile, ...]) -> bytes:
    data = read_file(path, limit=dsse.MAX_ENVELOPE)
    _, opened = messages.read(data, Opening, where=str(path))
    if not {leaf_of(request.envelope) for request in requests} <= set(opened.requests):
        raise OwnerError(
            f"the audit was opened for other requests than the {len(requests)} that the certificate answers; one that "
            "builds on an earlier certificate answers that one's requests, too",
            where=str(path),
        )
    return data


def unlearn(workspace: Workspace, options: Options, *, progress: Progress) -> Outcome:
    """Make, check, sign and log a bundle.

    Raises:
        MalformedError: a request or opening is none.
        OwnerError: something is missing. Refused: a claim cannot be kept; nothing was signed.
    """
    if options.method not in METHODS:
        raise OwnerError(f"there is no method {options.method!r}; there are {', '.join(METHODS)}")
    method = METHODS[options.method]
    check_device(options.device)
    if options.settings and options.method == "prune":
        raise OwnerError("prune has no --set; it has --gate, --radius, --disclosure and --merge")
    if options.method != "prune" and (options.gate, options.head) != ("auto", "set"):
        raise OwnerError(f"{options.method} has no --gate and no --head; they are prune's")
    whole = options.resume and (options.out / CERTIFICATE).is_file()
    check_free_folder(options.out, force=options.force or whole)
    check_log(options.log, options.key)
    progress("reading", 0.0)
    requests = tuple(read_request(workspace, path) for path in options.requests)
    if len({request.envelope for request in requests}) != len(requests):
        raise OwnerError("one request is given twice")
    for request, path in zip(requests, options.requests, strict=True):
        if request.request.scope.kind == "trigger":
            raise OwnerError(
                "forgetting a trigger needs a method that retrains; prune answers records, subjects and classes",
                where=str(path),
            )
    if (finished := _done_before(options, requests)) is not None:
        succession.keep(workspace, options.out)
        return finished
    check_free_folder(options.out, force=options.force)
    if (finished := _interrupted(workspace, options, requests)) is not None:
        return finished
    fresh, found = requests, None
    if not options.beside:
        before = succession.find(workspace, log=options.log, previous=options.previous)
        if before is not None and options.method not in COMPOSING + CONTINUING:
            raise OwnerError(
                f"an earlier certificate about this commitment is in the log, and {options.method} builds on none; "
                "use --beside"
            )
        if before is not None:
            trains = options.method in CONTINUING
            found = (
                succession.onward(before, options.drops)
                if trains
                else succession.plan(workspace, before, options.drops)
            )
            known = {request.envelope for request in found.requests}
            requests = (*found.requests, *(request for request in requests if request.envelope not in known))
    if options.drops and found is None:
        raise OwnerError("there is no earlier certificate about this commitment to drop claims of")
    opening = _opening(options.opening, requests) if options.opening is not None else None
    opening_proof = read_proof(options.opening.with_suffix(PROOF)) if options.opening is not None else None
    try:
        job = Job(
            workspace=workspace,
            requests=tuple((r.request, tuple(workspace.rows_of(r.listed))) for r in requests),
            target=options.target,
            radius=options.radius,
            ceiling=options.ceiling,
            generator=np.random.default_rng(options.seed),
            progress=progress,
            flips=options.flips,
            disclosure=options.disclosure,
            merge=options.merge,
            gate=options.gate,
            head=options.head,
            settings=options.settings,
            device=options.device,
        )
        progress("reading", 1.0)
        result, dropped = (method(job), ()) if found is None else _beside(job, method, found, fresh, requests)
        result = hinting.improve(job, result)
    except MalformedError as error:
        raise error.at(str(workspace.folder)) from None

    def still() -> None:
        if not options.beside:
            succession.check_unsuperseded(workspace, options.log, found.predecessor.leaf if found is not None else None)

    # The bundle grows in a folder of its own and takes its name when it is whole.
    partial = begin_folder(options.out)
    with given_up(partial, unless=CERTIFICATE):
        envelope = write_bundle(
            job,
            result,
            requests,
            opening=opening,
            opening_proof=opening_proof,
            key=options.key,
            log=options.log,
            out=partial,
            now=options.now,
            method=options.method,
            predecessor=found.predecessor if found is not None else None,
            dropped=dropped,
            still=still,
        )
    finish_folder(options.out)
    succession.keep(workspace, options.out)
    notes = result.notes
    if found is not None:
        kept = len(found.kept) if found.weights is None else len(found.predecessor.claims) - len(dropped)
        notes = (
            *notes,
            f"builds on {found.predecessor.leaf[:16]}: {kept} of its claims carried, {len(dropped)} dropped",
        )
    redirected = any(isinstance(claim, Redirection) for claim in result.claims)
    return Outcome(certificate=envelope, claims=len(result.claims), notes=notes, redirected=redirected)


def _beside(
    job: Job,
    method: Callable[[Job], Result],
    found: Succession,
    fresh: tuple[RequestFile, ...],
    requests: tuple[RequestFile, ...],
) -> tuple[Result, tuple[Dropped, ...]]:
    if found.weights is not None:
        return succession.renew(found, method(replace(job, standing=Standing(weights=found.weights))))
    # The method answers what is new, clear of what stands; then both are put together.
    workspace = job.workspace
    asked = {record for request in fresh if request.request.scope.klass is None for record in request.listed}
    if again := sorted(one.record for one in found.dropped if bytes.fromhex(one.record) in asked):
        raise OwnerError(f"a record is asked to be forgotten and its claim to be dropped: {again[0][:16]}")
    new = tuple(
        (r.request, tuple(workspace.rows_of(tuple(one for one in r.listed if one not in found.settled)))) for r in fresh
    )
    made = method(replace(job, requests=new, standing=found.standing(workspace)))
    return succession.assemble(workspace, found, made, requests)


__all__ = ["Options", "Outcome", "read_request", "unlearn"]
