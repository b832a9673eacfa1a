"""The challenge, replayed: were plan, nonce, order and openings as committed?

Proves: the auditor could not choose which records to open after seeing the patch, nor the owner
before signing it; the records that were opened are the committed ones at the drawn places.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from auditor.case import read_proof
from auditor.entries import Looked
from auditor.files import read_file
from auditor.ledger import Ledger, Secret, leaf_of
from auditor.profile import Plan, parse_plan
from auditor.view import Finding
from protocol import envelope as dsse
from protocol import manifest, messages, openings, session
from protocol.digests import sha256_hex
from protocol.errors import DigestMismatch, Error, MalformedError, NoQuorum, VerificationError
from protocol.log.policy import Policy
from protocol.logged import Logged, verify_logged
from protocol.messages import challenge as challenge_message
from protocol.messages.certificate import Certificate
from protocol.messages.challenge import Answer, Challenge
from protocol.messages.commitment import Commitment
from protocol.messages.opening import Acknowledgement, nonce_commitment
from protocol.messages.opening import Opening as AuditOpening
from protocol.records import Opening
from protocol.session import Refusal
from protocol.trust import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What is known of the challenge.

    Args:
        plan: the committed plan, if an audit was opened by this auditor.
        opening_leaf: its leaf hash.
        nonce: revealed with the report; None while the owner has not named the opened audit.
        challenge_value: what all of the audit's draws follow from; None without an opened audit.
        challenge: the challenge, if one was made.
        opened: the retained records that were opened and verified; None if there was no answer.
        problems: sentences on what is missing or wrong, each with the finding it is evidence of, if any,
            and whether signed bytes prove it.
        answered_in_time: None if nothing shows it.
        further_requests: how many requests the audit was opened for that the certificate does not answer.
        unopened_requests: how many requests the certificate answers that the audit was not opened for.
        opening_envelope: exact bytes of the opened audit, for the report and its replay.
        challenge_envelope: likewise of the challenge.
        challenge_proof: its log proof at the earliest cosigned checkpoint: the deadline counts from there.
        latest_proof: the same at the newest one: its witness time is the latest that the auditor's log shows.
        acknowledged: for a later audit, the owner's acknowledgement, which the challenge answers, and its log proof.
    """

    plan: Plan | None = None
    opening_leaf: str | None = None
    nonce: bytes | None = None
    challenge_value: bytes | None = None
    challenge: Challenge | None = None
    opened: tuple[Opening, ...] | None = None
    problems: tuple[tuple[str, Finding | None, bool], ...] = ()
    answered_in_time: bool | None = None
    further_requests: int = 0
    unopened_requests: int = 0
    opening_envelope: bytes | None = None
    challenge_envelope: bytes | None = None
    challenge_proof: bytes | None = None
    latest_proof: bytes | None = None
    acknowledged: tuple[bytes, bytes] | None = None


def _find_opening(
    ledger: Ledger, certificate: Certificate, acknowledged: str | None, requests: tuple[str, ...]
) -> str | None:
    # The audit that this auditor opened for these requests. The one that an acknowledgement names comes first: it is a
    # later audit's, and its answer is on the table; then the certificate's own name for it; then any.
    if acknowledged is not None and ledger.secret(acknowledged) is not None:
        return acknowledged
    if certificate.opening is not None and ledger.secret(certificate.opening) is not None:
        return certificate.opening
    folder = ledger.private / "openings"
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        secret = ledger.secret(path.stem)
        if secret is None:
            continue
        _, opening = messages.read(secret.opening, AuditOpening)
        if set(requests) <= set(opening.requests):
            return path.stem
    return None


def _read_logged(folder: Path, name: str, *, policy: Policy, trust: Trust) -> tuple[bytes, bytes, Logged]:
    # An envelope of the owner's in the answer's folder and its proof, by which a quorum saw it in the log.
    where, place = f"{name}.dsse.json", f"proofs/{name}.tlog-proof"
    data = read_file(folder / where, limit=dsse.MAX_ENVELOPE, where=where)
    proof = read_proof(folder, name)
    if proof is None:
        raise VerificationError(f"is missing: nothing shows that the {name} is logged", where=place)
    logged = verify_logged(data, proof, roles=("owner",), policy=policy, trust=trust, where=where, place=place)
    assert logged.entry is not None
    if policy.quorum != "none" and not logged.entry.checkpoint.quorum_met:
        raise NoQuorum(
            "its checkpoint lacks the quorum's cosignatures; run the witnesses, then `prune-owner publish`", where=place
        )
    return data, proof, logged


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """An OPENINGS folder whose every file is the one that was signed; not compared with a challenge yet."""

    logged: Logged
    answer: Answer
    openings: tuple[tuple[str, bytes], ...]
    acknowledgement: tuple[bytes, Acknowledgement, bytes] | None


def _read_folder(folder: Path, *, policy: Policy, trust: Trust) -> _Folder:
    data, _, logged = _read_logged(folder, "answer", policy=policy, trust=trust)
    _, answer = messages.read(data, Answer, where="answer.dsse.json")
    raw = read_file(folder / "manifest.json", limit=manifest.MAX_MANIFEST, where="manifest.json")
    if sha256_hex(raw) != answer.subject:
        raise DigestMismatch("differs from the manifest that the answer was signed for", where="manifest.json")
    listing = manifest.parse(raw)
    manifest.verify_only_listed(folder, listing, others=("manifest.json", "answer.dsse.json", "proofs/"))
    known = {"answer"} | {path.removesuffix(".dsse.json") for path in listing.paths("acknowledgement")}
    for path in sorted((folder / "proofs").iterdir()):
        if path.name not in {f"{name}.tlog-proof" for name in known}:
            raise MalformedError("belongs to nothing in this answer", where=f"proofs/{path.name}")
    contents = {
        entry.path: manifest.read_listed(folder, entry, limit=openings.MAX_OPENINGS_FILE) for entry in listing.entries
    }
    acknowledged: tuple[bytes, Acknowledgement, bytes] | None = None
    if listing.paths("acknowledgement"):
        said, proof, _ = _read_logged(folder, "acknowledgement", policy=policy, trust=trust)
        acknowledged = said, messages.read(said, Acknowledgement, where="acknowledgement.dsse.json")[1], proof
    return _Folder(
        logged=logged,
        answer=answer,
        openings=tuple((path, contents[path]) for path in listing.paths("opening")),
        acknowledgement=acknowledged,
    )


def _read_answer(
    folder: _Folder, challenge: Challenge, *, commitment: Commitment
) -> tuple[tuple[Opening, ...], list[tuple[str, Finding | None, bool]]]:
    problems: list[tuple[str, Finding | None, bool]] = []
    if len(folder.openings) != 1:
        problems.append(("the signed answer lists no openings", _withheld("lists no openings"), False))
        return (), problems
    ((path, data),) = folder.openings
    try:
        opened = openings.parse(data, where=path)
    except MalformedError as error:
        problems.append((str(error), Finding(threat="hostile-artefact", check="challenge", message=str(error)), True))
        return (), problems
    good = []
    for one in opened:
        try:
            one.verify(commitment.records_root, groups=commitment.group_count, count=commitment.record_count)
            good.append(one)
        except VerificationError as error:
            message = f"the answer opens record {one.index} as something that was not committed ({error.message})"
            problems.append((message, Finding(threat="substituted-record", check="challenge", message=message), True))
    wanted = {int(index) for index in challenge.indices()}
    missing = sorted(wanted - {one.index for one in good})
    if missing:
        message = f"{len(missing)} of {len(wanted)} challenged records were not opened, the first is {missing[0]}"
        problems.append((message, _withheld(message), False))
    return tuple(one for one in good if one.index in wanted), problems


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    # Errors name the folder as well: a bundle has files of the same names.
    try:
        yield
    except Error as error:
        error.where = f"{folder}/{error.where}" if error.where else str(folder)
        raise


def _withheld(message: str) -> Finding:
    return Finding(threat="withheld-opening", check="challenge", message=message)


def replay(
    *,
    certificate: Certificate,
    certificate_leaf: str,
    certificate_sha256: str,
    requests: tuple[str, ...],
    commitment: Commitment,
    answer_folder: Path | None,
    ledger: Ledger | None,
    policy: Policy,
    trust: Trust,
    profile_sha256: str,
    now: int,
    owner_log: Looked | None = None,
) -> Transcript:
    """Find the opened audit, its challenge and the answer; check each against the one before.

    Args:
        certificate: the bundle's certificate.
        certificate_leaf: the leaf hash of its envelope.
        certificate_sha256: the digest of the same bytes.
        requests: leaf hashes of the bundle's requests.
        commitment: the commitment.
        answer_folder: the OPENINGS, if any were handed over.
        ledger: the auditor's log with its secrets; None where there is none.
        policy: trusted logs and witnesses.
        trust: trusted signers.
        profile_sha256: digest of the profile in use.
        now: the auditor's clock: what arrives before the deadline by it is in time; it accuses nobody.
        owner_log: the owner's log, if it can be read.

    Raises:
        Error: an unsigned or damaged answer.
    """
    if ledger is None:
        return Transcript()
    folder: _Folder | None = None
    if answer_folder is not None:
        with _naming(answer_folder):
            folder = _read_folder(answer_folder, policy=policy, trust=trust)
    shown = folder.acknowledgement if folder is not None else None
    if shown is not None and shown[1].certificate != certificate_leaf:
        shown = None
    leaf = _find_opening(ledger, certificate, shown[1].opening if shown is not None else None, requests)
    secret: Secret | None = ledger.secret(leaf) if leaf is not None else None
    if leaf is None or secret is None:
        return Transcript()
    problems: list[tuple[str, Finding | None, bool]] = []
    _, opening = messages.read(secret.opening, AuditOpening)
    plan = parse_plan(secret.plan)
    kept = nonce_commitment(secret.nonce) if secret.nonce is not None else opening.nonce_commitment
    if sha256_hex(secret.plan) != opening.subject or kept != opening.nonce_commitment:
        raise MalformedError("the kept plan or nonce is not the one that was logged", where=str(ledger.private))
    if plan.profile_sha256 != profile_sha256:
        problems.append(("the profile in use is not the one that the logged plan names", None, False))
    known = Transcript(
        plan=plan,
        opening_leaf=leaf,
        opening_envelope=secret.opening,
        further_requests=len(set(opening.requests) - set(certificate.requests)),
        unopened_requests=len(set(certificate.requests) - set(opening.requests)),
    )
    held, owner_leaf, uncovered = session.begin(leaf, opening, openings=plan.openings), certificate_leaf, False
    try:
        if certificate.opening != leaf and shown is not None:
            owner_leaf = leaf_of(shown[0])
            held = held.acknowledge(
                owner_leaf,
                shown[1],
                certificate_leaf=certificate_leaf,
                certificate_sha256=certificate_sha256,
                certificate=certificate,
            )
            known = replace(known, acknowledged=(shown[0], shown[2]))
        else:
            held = held.certify(certificate_leaf, certificate)
    except Refusal as refusal:
        uncovered = refusal.why == "uncovered"
        if known.unopened_requests:
            # Whether or not the bundle shows the opened audit: this auditor knows which requests it was opened for.
            # That is for the freshness check to accuse.
            message = (
                "the certificate names an audit that was opened for other requests: its challenge may have been known"
            )
            problems.append((message, None, False))
        if not uncovered:
            problems.append(("the certificate does not name the audit that was opened for its requests", None, False))
            # Its nonce stays secret: else a bundle that names no audit would spoil the one that is still open.
            return replace(known, problems=tuple(problems))
    if secret.nonce is None:
        raise VerificationError("the report keeps the nonce of an opened audit secret that the owner's entry names")
    known = replace(known, nonce=secret.nonce)
    value = challenge_message.value(secret.nonce, bytes.fromhex(owner_leaf))
    made = ledger.challenge(owner_leaf)
    if made is None or uncovered:
        problems.append(("no challenge was made; run `prune-auditor challenge`", None, False))
        return replace(known, problems=tuple(problems), challenge_value=value)
    challenge_bytes, first, latest = made[0], ledger.first_witnessed(owner_leaf), ledger.latest(owner_leaf)
    assert first is not None
    known = replace(known, challenge_envelope=challenge_bytes, challenge_proof=first, latest_proof=latest)
    challenge_logged, challenge_latest = (
        verify_logged(
            challenge_bytes,
            proof,
            roles=("auditor",),
            policy=policy,
            trust=trust,
            where="challenge",
            place="the challenge's proof",
        )
        for proof in (first, latest)
    )
    _, challenge = messages.read(challenge_bytes, Challenge, where="challenge")
    try:
        held = held.ask(
            challenge_logged.leaf,
            challenge,
            nonce=secret.nonce,
            population=commitment.record_count,
            seen=challenge_logged.time,
        )
    except Refusal as refusal:
        if challenge.seed != challenge_message.seed(value, "locality"):
            raise MalformedError(
                "the kept challenge does not follow from the nonce", where=str(ledger.private)
            ) from None
        # Made from a commitment that somebody showed then, which is not the one that the certificate names.
        problems.append((refusal.message, None, False))
        return replace(known, problems=tuple(problems), challenge_value=value, challenge=challenge)
    deadline = challenge.challenged_at + plan.answer_within
    if answer_folder is None or folder is None:
        # Times are witnesses': at the latest one there was no answer, as far as this auditor was told.
        times = [at for at in (challenge_latest.time, owner_log.time if owner_log is not None else None) if at]
        said = [
            entry
            for entry in (owner_log.entries if owner_log is not None else ())
            if isinstance(entry.message, Answer) and entry.message.challenge == challenge_logged.leaf
        ]
        overdue = not said and held.overdue(max(times, default=None))
        message = "the challenged records were not opened" + (
            f" to this auditor, though the owner logged an answer (entry {said[0].index}); give --openings"
            if said
            else " by the deadline"
            if overdue
            else " by the deadline of this auditor's clock; no witness time shows it"
            if now > deadline
            else " (yet)"
        )
        problems.append((message, _withheld(message) if overdue else None, False))
        return replace(known, problems=tuple(problems), challenge_value=value, challenge=challenge)
    with _naming(answer_folder):
        try:
            held = held.take(folder.logged.leaf, folder.answer, seen=folder.logged.time)
        except Refusal as refusal:
            raise refusal.at("answer.dsse.json") from None
        opened, found = _read_answer(folder, challenge, commitment=commitment)
    problems += found
    # In time for certain if the deadline is not over yet, or if a quorum saw the entry before it. A later witness
    # time proves nothing: the entry may have been there long before.
    in_time = now <= deadline or held.in_time() is True
    if not in_time:
        problems.append(("nothing shows that the challenged records were opened by the deadline", None, False))
    return replace(
        known,
        problems=tuple(problems),
        challenge_value=value,
        challenge=challenge,
        opened=opened,
        answered_in_time=in_time or None,
    )
