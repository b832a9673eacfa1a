"""Is it an auditor who asks? The signature and log proof on what the owner is about to answer.

Proves (`Auditors.verify`): a key that the owner's own trust file gives the role of auditor signed exactly these bytes
and, where a proof came with them, that they stand in a log of the policy in which that key may sign, seen by the quorum
that the policy asks for. Without a proof nothing shows that others can see that it was asked. Who passes may still ask
more than the owner would like to show: that is what `--at-most`, one sample of an opened audit, and a look at the
auditor's log are for. Source: SPEC 6.4, 9.6.
"""

from dataclasses import dataclass
from pathlib import Path

from owner.files import read_file
from owner.journal import PROOF
from protocol.errors import NoQuorum, OwnerError
from protocol.log import policy as policy_file
from protocol.log.policy import Policy
from protocol.log.proof import MAX_TLOG_PROOF
from protocol.logged import read_trusted, verify_logged
from protocol.trust import MAX_TRUST_FILE, Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditors:
    """Whom the owner believes to be an auditor; both None where nobody's signature is checked."""

    policy: Policy | None = None
    trust: Trust | None = None

    @classmethod
    def read(cls, policy: Path | None, trust: Path | None) -> "Auditors":
        """Read both files, or neither.

        Raises:
            OwnerError: one of them without the other.
            MalformedError: one of them does not parse, or a key serves two purposes.
        """
        if policy is None and trust is None:
            return cls()
        if policy is None or trust is None:
            raise OwnerError("--policy and --trust belong together: logs and witnesses, and whose signatures count")
        logs, signers = read_trusted(
            read_file(policy, limit=policy_file.MAX_POLICY), read_file(trust, limit=MAX_TRUST_FILE)
        )
        return cls(policy=logs, trust=signers)

    def verify(self, data: bytes, path: Path, what: str) -> str | None:
        """Refuse a message that no trusted auditor signed.

        Args:
            data: the message's exact bytes.
            path: its file; its log proof lies beside it, as `.tlog-proof`.
            what: "challenge" or "opened audit", for whoever reads.

        Returns:
            What was not checked, as a sentence; None if nothing is missing.

        Raises:
            UnknownKey: not signed by an auditor of the trust file, or not one who may sign in the log of the proof.
            Inclusion: the proof does not show these bytes.
            NoQuorum: the proof's checkpoint lacks the cosignatures that the policy asks for.
            Error: a file does not parse, or a signature does not verify.
        """
        if self.policy is None or self.trust is None:
            return (
                f"warning: nobody's signature on the {what} was checked, and anybody can write one; "
                "give --policy and --trust"
            )
        place = path.with_suffix(PROOF)
        proof = read_file(place, limit=MAX_TLOG_PROOF) if place.is_file() else None
        logged = verify_logged(
            data,
            proof,
            roles=("auditor",),
            policy=self.policy,
            trust=self.trust,
            where=str(path),
            place=str(place),
        )
        if logged.entry is None:
            return (
                f"warning: the {what} is the auditor's, but no log proof lies beside it ({place.name}): "
                "nothing shows that others can see it"
            )
        if self.policy.quorum != "none" and not logged.entry.checkpoint.quorum_met:
            raise NoQuorum(
                "its checkpoint lacks the quorum's cosignatures; the auditor runs the witnesses, then hands out the "
                "proof again",
                where=str(place),
            )
        return None


ANYBODY = Auditors()
"""Nobody's signature is checked; `verify` says so."""
