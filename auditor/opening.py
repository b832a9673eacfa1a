"""Opening an audit, challenging the owner, and a subject's own request: the auditor's side before the audit.

Order makes the challenge fair (SPEC 9.3): plan and nonce are fixed in the log first, the owner's entry
names that leaf second, and only then can anybody compute the challenge.
"""

from dataclasses import replace
from pathlib import Path

from auditor.files import read_file, write_atomic
from auditor.ledger import Ledger, Secret, leaf_of, sign
from auditor.profile import parse_plan
from protocol import envelope as dsse
from protocol import messages, openings, records, session
from protocol.digests import sha256_hex
from protocol.errors import AuditorError, DigestMismatch
from protocol.keys import SigningKey
from protocol.log.files import locked
from protocol.messages.certificate import Certificate
from protocol.messages.challenge import Challenge
from protocol.messages.commitment import Commitment
from protocol.messages.opening import Acknowledgement, Opening, nonce_commitment
from protocol.messages.request import Request, Scope, serialise_list
from protocol.session import Refusal, Session


def open_audit(
    requests: tuple[Path, ...], plan: bytes, *, nonce: bytes, key: SigningKey, ledger: Ledger, out: Path, now: int
) -> bytes:
    """Log an opened audit: the requests it is about, the plan's digest, a commitment to the nonce.

    Args:
        requests: request envelopes.
        plan: the plan's exact bytes.
        nonce: 32 random bytes; kept secret until the report.
        key: the auditor's statement key.
        ledger: the auditor's log.
        out: where the opening goes; its proof lies beside it.
        now: seconds since 1970.

    Raises:
        AuditorError: no request, or one twice; the log cannot be written.
        MalformedError: a request or the plan does not parse.
    """
    parsed = parse_plan(plan)
    leaves = []
    for path in requests:
        data = read_file(path, limit=dsse.MAX_ENVELOPE)
        messages.read(data, Request, where=str(path))
        leaves.append(leaf_of(data))
    if not leaves or len(set(leaves)) != len(leaves):
        raise AuditorError("an audit is opened for at least one request, and for each of them once")
    opening = Opening(
        subject=sha256_hex(plan),
        requests=tuple(leaves),
        nonce_commitment=nonce_commitment(nonce),
        answer_within=parsed.answer_within,
        opened_at=now,
    )
    envelope = sign(opening.payload(), key)
    # The secret first: a logged opening whose nonce is lost could never be completed.
    ledger.keep(Secret(nonce=nonce, plan=plan, opening=envelope))
    proof = ledger.append(envelope)
    write_atomic(out, envelope)
    write_atomic(out.with_suffix(".tlog-proof"), proof)
    return envelope


def make_challenge(
    bundle: Path, opening: bytes, *, acknowledgement: bytes | None, key: SigningKey, ledger: Ledger, out: Path, now: int
) -> bytes:
    """Log the challenge that follows from the nonce and the owner's entry.

    One opened audit has one challenge: an owner who could ask again, or knew the nonce from a report, would
    try certificates until the drawn records suit it.

    Raises:
        AuditorError: this auditor did not open that audit, the owner's entry does not name it, or the audit
            was challenged before for another entry.
        Error: a message does not parse.
    """
    with locked(ledger.private):  # two processes must not challenge one opened audit for two entries
        return _make_challenge(bundle, opening, acknowledgement, key, ledger, out, now)


def session_of(ledger: Ledger, leaf: str, secret: Secret) -> Session:
    """The session of an opened audit, before anything of the owner's."""
    _, opened = messages.read(secret.opening, Opening, where="opening")
    return replace(session.begin(leaf, opened, openings=parse_plan(secret.plan).openings), spent=ledger.revealed(leaf))


def _make_challenge(
    bundle: Path, opening: bytes, acknowledgement: bytes | None, key: SigningKey, ledger: Ledger, out: Path, now: int
) -> bytes:
    leaf = leaf_of(opening)
    secret = ledger.secret(leaf)
    if secret is None or secret.nonce is None:
        raise AuditorError("this auditor's log knows no such opened audit; is --log the log that open-audit used?")
    certificate_bytes = read_file(
        bundle / "certificate.dsse.json", limit=dsse.MAX_ENVELOPE, where="certificate.dsse.json"
    )
    _, certificate = messages.read(certificate_bytes, Certificate, where="certificate.dsse.json")
    commitment_bytes = read_file(bundle / "commitment.dsse.json", limit=dsse.MAX_ENVELOPE, where="commitment.dsse.json")
    _, commitment = messages.read(commitment_bytes, Commitment, where="commitment.dsse.json")
    if certificate.commitment != leaf_of(commitment_bytes):
        raise DigestMismatch("is not the commitment that the certificate names", where="commitment.dsse.json")
    certificate_leaf = leaf_of(certificate_bytes)
    held = session_of(ledger, leaf, secret)
    owner_leaf = leaf_of(acknowledgement) if acknowledgement is not None else certificate_leaf
    earlier = ledger.challenged_for(leaf)
    if earlier - {owner_leaf} or (held.spent and not earlier):
        raise AuditorError(
            "this opened audit was challenged for another entry of the owner's, or its nonce is known from a report; "
            "open a new audit"
        )
    if earlier:
        # One challenge, whoever asks again: the same bytes, so that no deadline moves.
        made = ledger.challenge(owner_leaf)
        assert made is not None
        envelope, proof = made[0], ledger.first_witnessed(owner_leaf) or made[1]
        write_atomic(out, envelope)
        write_atomic(out.with_suffix(".tlog-proof"), proof)
        return envelope
    try:
        if acknowledgement is None:
            held = held.certify(certificate_leaf, certificate)
        else:
            _, said = messages.read(acknowledgement, Acknowledgement, where="acknowledgement")
            held = held.acknowledge(
                owner_leaf,
                said,
                certificate_leaf=certificate_leaf,
                certificate_sha256=sha256_hex(certificate_bytes),
                certificate=certificate,
            )
        seed, count = held.drawn(secret.nonce, owner_leaf, commitment.record_count)
    except Refusal as refusal:
        if refusal.why == "uncovered":
            raise AuditorError("the certificate answers other requests than this audit was opened for") from None
        if refusal.why == "foreign" and acknowledgement is None:
            raise AuditorError(
                "the certificate does not name this opened audit; for a later audit the owner acknowledges it first "
                "(prune-owner acknowledge), then give --acknowledgement"
            ) from None
        raise AuditorError(refusal.message) from None
    challenge = Challenge(
        subject=sha256_hex(certificate_bytes),
        opening=leaf,
        answers=owner_leaf,
        seed=seed,
        count=count,
        population=commitment.record_count,
        challenged_at=now,
    )
    envelope = sign(challenge.payload(), key)
    held.ask(leaf_of(envelope), challenge, nonce=secret.nonce, population=commitment.record_count)
    proof = ledger.append(envelope)
    ledger.keep_challenge(owner_leaf, envelope, proof)
    write_atomic(out, envelope)
    write_atomic(out.with_suffix(".tlog-proof"), proof)
    return envelope


def request_from_slip(
    slip_bytes: bytes, *, key: SigningKey, ledger: Ledger, out: Path, now: int, deadline: int | None
) -> bytes:
    """Sign and log a subject's own deletion request for the records of a slip.

    Raises:
        DigestMismatch: the slip does not open the commitment it holds.
        Error: it does not parse, or the log cannot be written.
    """
    slip = openings.parse_slip(slip_bytes)
    _, commitment = messages.read(slip.commitment, Commitment, where="slip.npz[commitment]")
    listed = tuple(
        sorted(
            {
                opened.verify(commitment.records_root, groups=commitment.group_count, count=commitment.record_count)
                for opened in slip.openings
            }
        )
    )
    if len(listed) != len(slip.openings):
        raise DigestMismatch("the slip opens one record twice", where="slip.npz")
    groups = {opened.group for opened in slip.openings}
    whole = len(groups) == 1 and len(listed) == slip.openings[0].group_count
    scope = Scope(kind="subject", group=next(iter(groups)).hex()) if whole else Scope(kind="records")
    request = Request(
        subject=sha256_hex(slip.commitment),
        scope=scope,
        records_root=records.list_root(listed),
        record_count=len(listed),
        on_behalf=False,
        requested_at=now,
        deadline=deadline,
    )
    envelope = sign(request.payload(), key)
    proof = ledger.append(envelope)
    write_atomic(out, envelope)
    write_atomic(out.with_suffix(".leaves.json"), serialise_list(listed))
    write_atomic(out.with_suffix(".tlog-proof"), proof)
    return envelope
