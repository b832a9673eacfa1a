"""Policy and trust file read together: who is believed, and that no key is believed for two things."""

from protocol.errors import AuditorError
from protocol.keys import SigningKey
from protocol.logged import read_trusted as read
from protocol.trust import Trust


def check_own(key: SigningKey, origin: str, trust: Trust) -> None:
    """Refuse to sign a report with a key, or into a log, that the trust file gives to somebody else.

    Raises:
        AuditorError: the report could never be believed, or would stand in the owner's log.
    """
    roles = {signer.role for signer in trust.signers if signer.key.public == key.verifier.public}
    if roles and "auditor" not in roles:
        whose = " and ".join(sorted(roles))
        raise AuditorError(f"the key {key.name} is the {whose}'s in the trust file, not an auditor's")
    holders = {signer.role for signer in trust.signers if origin in signer.logs}
    if holders == {"owner"}:
        raise AuditorError(f"the log {origin} is the owner's in the trust file; give the auditor's own --log")


__all__ = ["check_own", "read"]
