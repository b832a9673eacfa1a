"""Receipts: made from a case and its report, finished when cosignatures come, verified offline.

Proves (`verify`): the auditor signed, in its log, that this request, made against this commitment, was
answered by this certificate, with these claims about these records, and what the report's verdict on it
was. It speaks as of its checkpoints; what superseded it since needs a log to look at.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from auditor.case import Case, RequestCase
from auditor.ledger import Ledger, leaf_of, sign
from protocol import claims as claim_lines
from protocol import messages, openings, receipt_file, records
from protocol.digests import sha256_hex
from protocol.encoding import format_time
from protocol.errors import DigestMismatch, Error, Inclusion, NoQuorum, VerificationError
from protocol.keys import SigningKey
from protocol.log import merkle
from protocol.log.policy import Policy
from protocol.logged import verify_logged
from protocol.messages.certificate import Certificate
from protocol.messages.commitment import Commitment
from protocol.messages.report import FindingLine, Receipt, Report, VerdictName
from protocol.messages.request import Request
from protocol.receipt_file import OpenedClaim, ReceiptFile
from protocol.trust import Role, Trust

_ROLES: dict[str, tuple[Role, ...]] = {
    "receipt": ("auditor",),
    "report": ("auditor",),
    "certificate": ("owner",),
    "commitment": ("owner",),
    "request": ("requester", "owner"),
}


def _own_claims(case: Case, request: RequestCase) -> tuple[OpenedClaim, ...]:
    wanted = set(request.listed or ())
    klass = request.request.scope.klass
    places = []
    for place, claim in enumerate(case.claims or ()):
        if isinstance(claim, claim_lines.ClassRemoval):
            if claim.klass == klass:
                places.append(place)
        elif klass is None and claim.record in wanted:
            places.append(place)
    if not places:
        return ()
    paths = merkle.inclusion_proofs(places, merkle.leaf_hashes(case.claim_lines))
    return tuple(
        OpenedClaim(line=case.claim_lines[place], index=place, path=tuple(path))
        for place, path in zip(places, paths, strict=True)
    )


def make(
    case: Case,
    request: RequestCase,
    *,
    report_envelope: bytes,
    report: Report,
    proofs: Mapping[str, bytes],
    key: SigningKey,
    ledger: Ledger,
    now: int,
) -> ReceiptFile:
    """Sign and log the receipt of one request.

    Args:
        case: the audited bundle.
        request: the request.
        report_envelope: the signed report's exact bytes.
        report: the report.
        proofs: log proofs of report, certificate, commitment and request, by these names, as far as known.
        key: the auditor's statement key.
        ledger: the auditor's log.
        now: seconds since 1970.

    Raises:
        AuditorError: it cannot be signed or logged.
    """
    statement = Receipt(
        subject=sha256_hex(report_envelope),
        report=leaf_of(report_envelope),
        certificate=case.certificate_logged.leaf,
        commitment=case.commitment_logged.leaf,
        request=request.logged.leaf,
        profile=report.profile,
        verdict=report.verdict,
        findings=report.findings,
        issued_at=now,
    )
    envelope = sign(statement.payload(), key)
    own = ledger.append(envelope)
    # Claims whose signed root does not fit them are evidence in the report, not something to hand on.
    fits = case.claims_root == case.certificate.claims_root
    return ReceiptFile(
        envelopes={
            "receipt": envelope,
            "report": report_envelope,
            "certificate": case.certificate_logged.envelope.raw,
            "commitment": case.commitment_logged.envelope.raw,
            "request": request.logged.envelope.raw,
        },
        proofs={**proofs, "receipt": own},
        claims=_own_claims(case, request) if fits else (),
        records=request.listed or (),
    )


def finish(receipt: ReceiptFile, ledger: Ledger) -> ReceiptFile:
    """The receipt with its proofs from the auditor's log brought to the log's current, cosigned checkpoint."""
    return ReceiptFile(
        envelopes=receipt.envelopes,
        proofs={name: ledger.refreshed(proof) for name, proof in receipt.proofs.items()},
        claims=receipt.claims,
        records=receipt.records,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReceipt:
    """What a verified receipt says, in words and data."""

    verdict: VerdictName
    profile: str
    findings: tuple[FindingLine, ...]
    requested_by_subject: bool
    records: int
    claims: int
    steps: tuple[str, ...]
    not_proven: tuple[str, ...]


def verify(data: bytes, *, policy: Policy, trust: Trust, slip: bytes | None = None) -> VerifiedReceipt:
    """Verify a receipt offline, from policy and trust file alone.

    Args:
        data: the receipt's file.
        policy: trusted logs and witnesses.
        trust: trusted signers.
        slip: the subject's slip, to check *whose* records the receipt is about.

    Raises:
        Error: malformed, or not to be believed; says which part.
    """
    file = receipt_file.parse(data)
    steps: list[str] = []
    signed_as: dict[str, str] = {}
    for name in receipt_file.ENVELOPES:
        if name not in file.proofs:
            raise VerificationError(
                "no log proof is in the receipt; ask the auditor for a finished one (prune-auditor receipt)", where=name
            )
        logged = verify_logged(
            file.envelopes[name],
            file.proofs[name],
            roles=_ROLES[name],
            policy=policy,
            trust=trust,
            where=name,
            place=f"log proof of the {name}",
        )
        assert logged.entry is not None
        checkpoint = logged.entry.checkpoint
        if policy.quorum != "none" and not checkpoint.quorum_met:
            raise NoQuorum(
                "its checkpoint lacks the quorum's cosignatures; ask the auditor for a finished receipt "
                "(prune-auditor receipt)",
                where=name,
            )
        signed_as[name] = str(logged.signed_as)
        when = f", seen by {format_time(checkpoint.time)}" if checkpoint.time is not None else ""
        signers = " and ".join(signer.key.name for signer in logged.signers)
        steps.append(
            f"{name}: signed by {signers}; entry {logged.entry.index} of the log {checkpoint.origin}, "
            f"cosigned by {len(checkpoint.cosigned)} witnesses{when}"
        )
    _, receipt = messages.read(file.envelopes["receipt"], Receipt, where="receipt")
    _, report = messages.read(file.envelopes["report"], Report, where="report")
    _, certificate = messages.read(file.envelopes["certificate"], Certificate, where="certificate")
    messages.read(file.envelopes["commitment"], Commitment, where="commitment")
    _, request = messages.read(file.envelopes["request"], Request, where="request")
    leaves = {name: leaf_of(envelope) for name, envelope in file.envelopes.items()}
    for name in ("report", "certificate", "commitment", "request"):
        if getattr(receipt, name) != leaves[name]:
            raise DigestMismatch(f"the receipt was signed for another {name}", where=name)
    if receipt.subject != sha256_hex(file.envelopes["report"]) or report.certificate != leaves["certificate"]:
        raise DigestMismatch(
            "the report is about another certificate, or the receipt about another report", where="report"
        )
    if receipt.verdict != report.verdict or receipt.findings != report.findings or receipt.profile != report.profile:
        raise DigestMismatch("the receipt says something else than its report", where="receipt")
    not_proven: list[str] = []
    # A report that refutes may be about a certificate that answers something else; then that is its finding.
    if receipt.verdict == "CONSISTENT":
        if certificate.commitment != leaves["commitment"] or leaves["request"] not in certificate.requests:
            raise DigestMismatch("the certificate does not answer this request", where="certificate")
        if request.subject != sha256_hex(file.envelopes["commitment"]):
            raise DigestMismatch("the request is about another commitment", where="request")
    steps.append("the receipt names report, certificate, commitment and request by their log entries, and they agree")
    covered, removed = _verify_claims(file, certificate, request)
    if file.records or request.record_count:
        if records.list_root(file.records) != request.records_root or len(file.records) != request.record_count:
            if file.records or receipt.verdict == "CONSISTENT":
                raise DigestMismatch("the records are not those that the request was signed for", where="records")
        elif receipt.verdict == "CONSISTENT" and request.scope.klass is None and set(file.records) - covered:
            raise DigestMismatch("a requested record has no claim in the receipt", where="claims")
    if receipt.verdict == "CONSISTENT" and request.scope.kind == "trigger":
        # No claim of this version is about a trigger, so no honest report finds one answered.
        raise DigestMismatch("the request is about a trigger, which no claim answers", where="claims")
    if receipt.verdict == "CONSISTENT" and request.scope.klass is not None and not removed:
        raise DigestMismatch("the requested class has no claim in the receipt", where="claims")
    steps.append(
        f"{len(file.claims)} claims belong to the certificate; {len(file.records)} records belong to the request"
    )
    if slip is not None:
        own, shared = _verify_slip(slip, file, request)
        steps.append(
            f"the slip opens {own} records of the commitment; {shared} of them are among the {len(file.records)} that "
            "the request lists"
        )
    else:
        not_proven.append(
            "Without the slip, whose records these are: the receipt names salted commitments, which only a slip opens."
        )
    if signed_as["request"] == "owner":
        not_proven.append("That the subject asked: the owner signed the request on the subject's behalf.")
    not_proven += [
        "That no copy of the base model or of the data exists, or that information is gone from the weights.",
        "What is served anywhere, unless the report's deployment check says so.",
        "What happened after the checkpoints named above; that needs a look at the logs.",
    ]
    return VerifiedReceipt(
        verdict=receipt.verdict,
        profile=receipt.profile,
        findings=receipt.findings,
        requested_by_subject=signed_as["request"] == "requester",
        records=len(file.records),
        claims=len(file.claims),
        steps=tuple(steps),
        not_proven=tuple(not_proven),
    )


def _verify_claims(file: ReceiptFile, certificate: Certificate, request: Request) -> tuple[set[bytes], bool]:
    # Which records have a claim, and whether the request's class is removed.
    covered: set[bytes] = set()
    removed = False
    for opened in file.claims:
        try:
            merkle.verify_inclusion(
                merkle.leaf_hash(opened.line),
                opened.index,
                certificate.claim_count,
                opened.path,
                certificate.claims_root,
            )
        except Inclusion as error:
            raise error.at(f"claims[{opened.index}]") from None
        claim = claim_lines.parse_claim(opened.line, where=f"claims[{opened.index}]")
        if isinstance(claim, claim_lines.ClassRemoval):
            if claim.klass != request.scope.klass:
                raise DigestMismatch(
                    "is about a class that this request does not name", where=f"claims[{opened.index}]"
                )
            removed = True
        else:
            if claim.record not in file.records:
                raise DigestMismatch("is about a record of somebody else", where=f"claims[{opened.index}]")
            # An item that is there for versions of a record leaves open what happens to the record itself.
            if not isinstance(claim, claim_lines.Coverage):
                covered.add(claim.record)
    return covered, removed


def _verify_slip(data: bytes, file: ReceiptFile, request: Request) -> tuple[int, int]:
    # How many records the slip opens, and how many of them the request lists.
    slip = openings.parse_slip(data)
    if slip.commitment != file.envelopes["commitment"]:
        raise DigestMismatch("is for another commitment", where="slip")
    _, commitment = messages.read(slip.commitment, Commitment, where="slip")
    try:
        own = {
            opened.verify(commitment.records_root, groups=commitment.group_count, count=commitment.record_count)
            for opened in slip.openings
        }
    except Error as error:
        error.where = f"slip, {error.where}" if error.where else "slip"
        raise
    if request.scope.klass is None and not own & set(file.records):
        raise DigestMismatch("none of its records is in this request", where="slip")
    return len(own), len(own & set(file.records))


__all__ = ["VerifiedReceipt", "finish", "make", "verify"]
