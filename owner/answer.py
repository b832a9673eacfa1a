"""Answering an auditor: open exactly the challenged records; acknowledge an audit that was opened later."""

import contextlib
from dataclasses import replace
from pathlib import Path

from owner.auditors import ANYBODY, Auditors
from owner.files import begin_folder, check_free_folder, finish_folder, given_up, read_file, write_atomic
from owner.journal import (
    PROOF,
    append,
    check_log,
    check_message_free,
    leaf_of,
    logged_entries,
    logged_entry,
    publish_message,
    sign,
)
from owner.workspace import Workspace
from protocol import envelope as dsse
from protocol import manifest, messages, openings
from protocol.digests import sha256_hex
from protocol.errors import Error, OwnerError
from protocol.keys import SigningKey
from protocol.log.files import locked
from protocol.log.proof import MAX_TLOG_PROOF
from protocol.messages.certificate import Certificate
from protocol.messages.challenge import Answer, Challenge
from protocol.messages.opening import Acknowledgement, Opening


def answer(
    workspace: Workspace,
    challenge_path: Path,
    *,
    acknowledgement: Path | None,
    key: SigningKey,
    log: Path,
    out: Path,
    now: int,
    force: bool,
    at_most: int | None = None,
    auditors: Auditors = ANYBODY,
) -> tuple[int, str | None]:
    """Write the OPENINGS folder for a challenge and log the answer.

    Args:
        workspace: the commitment folder.
        challenge_path: the auditor's challenge envelope.
        acknowledgement: what was signed by `acknowledge`, for a later audit; copied beside the openings.
        key: the owner's statement key.
        log: the owner's log.
        out: the folder to write.
        now: seconds since 1970.
        force: overwrite `out`.
        at_most: how many records may be opened; None for no limit.
        auditors: whose challenges are answered.

    Returns:
        How many records are opened, and what nobody checked of the challenge, if anything.

    Raises:
        OwnerError: the challenge is about another commitment's record count, asks for more than `at_most`, is a second
            one of an opened audit that was answered before, or for no entry of this log that names its opened audit;
            something cannot be written.
        VerificationError: it is not an auditor's, or not in the auditor's log.
    """
    check_free_folder(out, force=force)
    check_log(log, key)
    data = read_file(challenge_path, limit=dsse.MAX_ENVELOPE)
    _, challenge = messages.read(data, Challenge, where=str(challenge_path))
    warning = auditors.verify(data, challenge_path, "challenge")
    if challenge.population != workspace.commitment.record_count:
        raise OwnerError(
            f"the challenge is about {challenge.population} records, this commitment has "
            f"{workspace.commitment.record_count}",
            where=str(challenge_path),
        )
    answered = workspace.folder / "answered"
    # Looked up and kept in one step: two runs at once would each find that nothing was answered yet. Kept before
    # anything is opened: what cannot be remembered would let a second challenge draw another sample.
    with locked(answered):
        _refuse_too_much(answered, data, challenge, log=log, at_most=at_most, where=str(challenge_path))
        write_atomic(answered / f"{leaf_of(data)}.json", data)
    opened = workspace.open_indices([int(index) for index in challenge.indices()])
    partial = begin_folder(out)
    with given_up(partial):
        write_atomic(partial / "openings.npz", openings.serialise(opened, features=workspace.records.values.shape[1]))
        files = [("openings.npz", "opening")]
        if acknowledgement is not None:
            acknowledged = read_file(acknowledgement, limit=dsse.MAX_ENVELOPE)
            messages.read(acknowledged, Acknowledgement, where=str(acknowledgement))
            write_atomic(partial / "acknowledgement.dsse.json", acknowledged)
            files.append(("acknowledgement.dsse.json", "acknowledgement"))
            proof = acknowledgement.with_suffix(PROOF)
            if proof.is_file():
                write_atomic(partial / "proofs" / "acknowledgement.tlog-proof", read_file(proof, limit=MAX_TLOG_PROOF))
        listing = manifest.build(partial, files, refers=leaf_of(data))
        write_atomic(partial / "manifest.json", listing.raw)
        statement = Answer(
            subject=sha256_hex(listing.raw), challenge=leaf_of(data), opened=len(opened), answered_at=now
        )
        envelope = sign(statement.payload(), key)
        write_atomic(partial / "answer.dsse.json", envelope)
        write_atomic(partial / "proofs" / "answer.tlog-proof", append(log, envelope))
    finish_folder(out)
    return len(opened), warning


def _refuse_too_much(
    answered: Path, data: bytes, challenge: Challenge, *, log: Path, at_most: int | None, where: str
) -> None:
    # One opened audit draws one sample. An auditor that asks again, for another entry, would see another one.
    if at_most is not None and challenge.count > at_most:
        raise OwnerError(f"asks for {challenge.count} records; --at-most allows {at_most}", where=where)
    entry = logged_entry(log, challenge.answers)
    if entry is None:
        raise OwnerError(
            "is for an entry that is not in this log: it follows from nothing that was signed here", where=where
        )
    # One entry names one opened audit: whoever could put another one beside it would draw sample after sample.
    if _names(entry) != (challenge.opening, challenge.subject):
        raise OwnerError(
            "is of another opened audit, or about another certificate, than the entry of this log names that it is for",
            where=where,
        )
    for path in sorted(answered.glob("*.json")):
        if path.stem == leaf_of(data):
            continue
        _, other = messages.read(read_file(path, limit=dsse.MAX_ENVELOPE), Challenge, where=str(path))
        # A larger count with the same seed would draw the same records, and more.
        if other.opening == challenge.opening and (other.seed, other.count) != (challenge.seed, challenge.count):
            raise OwnerError(
                "is a second challenge of an opened audit that was answered before; its plan allows one", where=where
            )


def _names(entry: bytes) -> tuple[str | None, str] | None:
    # The opened audit that a certificate or an acknowledgement of this log names, and the certificate's digest.
    kind = messages.predicate_of(dsse.parse(entry))
    if kind == Certificate.PREDICATE:
        return messages.read(entry, Certificate)[1].opening, sha256_hex(entry)
    if kind == Acknowledgement.PREDICATE:
        said = messages.read(entry, Acknowledgement)[1]
        return said.opening, said.subject
    return None


def acknowledge(
    opening_path: Path,
    bundle: Path,
    *,
    key: SigningKey,
    log: Path,
    out: Path,
    now: int,
    force: bool,
    auditors: Auditors = ANYBODY,
) -> tuple[bytes, str | None]:
    """Sign and log that an audit was opened about an existing certificate, once.

    Asked again, the same bytes are handed out: an auditor with several entries to choose from would choose its
    challenge.

    Returns:
        The envelope, and what nobody checked of the opened audit, if anything.

    Raises:
        OwnerError: the audit is about other requests than the certificate answers, the certificate names it already,
            or is not in this log.
        VerificationError: it was not opened by an auditor, or not in the auditor's log.
    """
    check_message_free(out, force=force)
    check_log(log, key)
    opening_bytes = read_file(opening_path, limit=dsse.MAX_ENVELOPE)
    _, opening = messages.read(opening_bytes, Opening, where=str(opening_path))
    warning = auditors.verify(opening_bytes, opening_path, "opened audit")
    certificate_bytes = read_file(bundle / "certificate.dsse.json", limit=dsse.MAX_ENVELOPE)
    _, certificate = messages.read(certificate_bytes, Certificate, where=str(bundle / "certificate.dsse.json"))
    if logged_entry(log, leaf_of(certificate_bytes)) is None:
        raise OwnerError("holds a certificate that is not in this log", where=str(bundle))
    if not set(certificate.requests) <= set(opening.requests):
        raise OwnerError("the audit was opened for other requests than the certificate's", where=str(opening_path))
    if certificate.opening == leaf_of(opening_bytes):
        raise OwnerError("is named by the certificate itself: it can be challenged as it is", where=str(opening_path))
    statement = Acknowledgement(
        subject=sha256_hex(certificate_bytes),
        opening=leaf_of(opening_bytes),
        certificate=leaf_of(certificate_bytes),
        acknowledged_at=now,
    )
    with locked(log.with_name(f"{log.name}.acknowledging")):
        envelope = _acknowledged(log, statement) or sign(statement.payload(), key)
        publish_message(out, envelope, log, beside={}, force=force, once=True)
    return envelope, warning


def _acknowledged(log: Path, wanted: Acknowledgement) -> bytes | None:
    # What this log says already about the same opened audit and certificate, at whatever time.
    for entry in logged_entries(log):
        with contextlib.suppress(Error):
            if messages.predicate_of(dsse.parse(entry)) == Acknowledgement.PREDICATE:
                said = messages.read(entry, Acknowledgement)[1]
                if replace(said, acknowledged_at=wanted.acknowledged_at) == wanted:
                    return entry
    return None
