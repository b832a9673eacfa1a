"""Bring a log's checkpoint to the witnesses that a policy names by URL, and keep their lines in it.

Proves: what `witness_client.submit` proves, witness by witness. Assumes that the folder is the caller's own.
One witness that is down, slow or refuses does not keep the others' lines out; whether they are a quorum is
the policy's to say. Source: C2SP tlog-policy (URLs), tlog-witness. SPEC 5.8.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.errors import Error, UnknownKey, VerificationError
from protocol.keys import VerifierKey
from protocol.log import witness_client
from protocol.log.http import SECONDS, Client
from protocol.log.policy import Policy, VerifiedCheckpoint
from protocol.log.store import Log


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of one round.

    Args:
        checkpoint: as it is published now, verified by the policy.
        cosigned: addresses whose lines are in it from this round.
        refused: why not, by address.
        without_address: names of the policy's witnesses that have none.
    """

    checkpoint: VerifiedCheckpoint
    cosigned: tuple[str, ...]
    refused: Mapping[str, str]
    without_address: tuple[str, ...]

    def told(self, where: str) -> tuple[list[str], dict[str, Any], Error | None]:
        """Lines for a user, facts for a program, and what to complain of, if anything; both programs print it."""
        seen = self.checkpoint
        lines = [f"{url}: cosigned" for url in self.cosigned]
        lines += [f"{url}: {reason}" for url, reason in self.refused.items()]
        if self.without_address:
            lines.append(f"without an address in the policy: {', '.join(self.without_address)}")
        lines.append(
            f"{where}: {seen.checkpoint.size} entries; cosigned by {', '.join(sorted(seen.cosigned)) or 'none'}"
        )
        facts = {
            "size": seen.checkpoint.size,
            "cosigned": sorted(seen.cosigned),
            "refused": dict(self.refused),
            "quorum": seen.quorum_met,
        }
        complaint = None if seen.quorum_met else VerificationError("the quorum is not met", where=f"{where}/checkpoint")
        return lines, facts, complaint


def publish(log_path: Path, policy: Policy, *, seconds: float = SECONDS) -> Published:
    """Submit the published checkpoint to every witness of the policy that has an address, one after the other.

    Args:
        log_path: the log's folder.
        policy: which witnesses, and where; a witness's two kinds of key have one address and are asked once.
        seconds: time limit for one answer.

    Raises:
        UnknownKey: the policy does not list this log.
        Error: the folder is no log, or its checkpoint does not verify.
    """
    log = Log.open(log_path)
    origin = log.origin
    if all(known.key.name != origin for known in policy.logs):
        raise UnknownKey(f"the policy lists no log {origin[:80]!r}", where=str(log_path))
    policy.verify_checkpoint(log.checkpoint_bytes(), origin=origin)
    keys: dict[str, list[VerifierKey]] = {}
    for witness in policy.witnesses:
        if witness.url:
            keys.setdefault(witness.url, []).append(witness.key)
    cosigned, refused = [], {}
    for url, trusted in keys.items():
        try:
            with Client(url, seconds=seconds) as client:
                witness_client.submit(log_path, client, trusted)
            cosigned.append(url)
        except Error as error:
            refused[url] = str(error)
    return Published(
        checkpoint=policy.verify_checkpoint(log.checkpoint_bytes(), origin=origin),
        cosigned=tuple(cosigned),
        refused=refused,
        without_address=tuple(witness.name for witness in policy.witnesses if not witness.url),
    )
