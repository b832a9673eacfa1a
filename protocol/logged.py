"""A logged message and the trust that makes it count, read by either side: who signed, in which log, seen when.

Proves (`verify_logged`): a key that the trust file gives one of the roles signed exactly these bytes and, with a proof,
that they stand in a log of the policy in which that key may sign, at the time that a quorum witnessed. Whether a quorum
is asked for, and met, is the caller's question. Source: SPEC 4.1, 6.4.
"""

from dataclasses import dataclass

from protocol import envelope as dsse
from protocol import trust as trust_file
from protocol.errors import Error, Expired, UnknownKey, VerificationError
from protocol.log import merkle, proof
from protocol.log import policy as policy_file
from protocol.log.policy import Policy
from protocol.log.proof import VerifiedEntry
from protocol.trust import Role, Signer, Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """An envelope with where it is logged and who signed it; `entry` is None if no proof of it was given."""

    envelope: dsse.Envelope
    leaf: str
    entry: VerifiedEntry | None
    signers: tuple[Signer, ...]
    signed_as: Role | None

    @property
    def time(self) -> int | None:
        """Witnessed time by which it was in the log, if a quorum witnessed it."""
        return self.entry.checkpoint.time if self.entry is not None else None


def read_trusted(policy: bytes, trust: bytes) -> tuple[Policy, Trust]:
    """Parse policy and trust file together: no key of theirs is believed for two things.

    Raises:
        MalformedError: one of them does not parse, or one key serves statements and a log (SPEC 4.1).
    """
    logs, signers = policy_file.parse(policy), trust_file.parse(trust)
    trust_file.verify_separate(signers, logs)
    return logs, signers


def verify_logged(
    data: bytes,
    proof_bytes: bytes | None,
    *,
    roles: tuple[Role, ...],
    policy: Policy,
    trust: Trust,
    where: str,
    place: str,
) -> Logged:
    """Check an envelope against its log proof and the trust file.

    Args:
        data: the exact envelope bytes.
        proof_bytes: its tlog-proof, if there is one.
        roles: roles that may have signed it, tried in order.
        policy: trusted logs and witnesses.
        trust: trusted signers.
        where: the envelope's file, for errors.
        place: the proof's file, for errors.

    Raises:
        Error: malformed, not in the log, or not signed by anybody who may.
    """
    envelope = dsse.parse(data, where=where)
    entry: VerifiedEntry | None = None
    origins: tuple[str, ...] = tuple(sorted({origin for signer in trust.signers for origin in signer.logs}))
    if proof_bytes is not None:
        try:
            parsed = proof.parse(proof_bytes)
        except Error as error:
            raise error.at(place) from None
        try:
            entry = proof.verify(data, parsed, policy)
        except Error as error:
            # The pair does not fit: either file may be the damaged one, so both are named.
            raise error.at(f"{where} with {place}") from None
        origins = (entry.checkpoint.origin,)
    refused: VerificationError | None = None
    for role in roles:
        for origin in origins:
            try:
                signers = trust.verify(
                    envelope,
                    role=role,
                    origin=origin,
                    witnessed=entry.checkpoint.time if entry is not None else None,
                    where=where,
                )
            except VerificationError as error:
                if refused is None or isinstance(error, Expired) or isinstance(refused, UnknownKey):
                    refused = error
                continue
            return Logged(
                envelope=envelope,
                leaf=merkle.leaf_hash(data).hex(),
                entry=entry,
                signers=signers,
                signed_as=role,
            )
    if isinstance(refused, UnknownKey) and "requester" in roles:
        raise UnknownKey(
            f"signed by nobody whom the trust file lists as {' or '.join(roles)} in the log {', '.join(origins)}; "
            "for a subject's own request list the .vkey of its key there, as requester",
            where=where,
        )
    raise refused if refused is not None else UnknownKey("the trust file lists nobody who may sign this", where=where)
