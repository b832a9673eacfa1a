"""The trust file: whose statement signatures count, for what, in which log, from when to when.

Proves (`Trust.verify`): enough different keys of the right role signed, each allowed in that log
and valid and unrevoked at the *witnessed* time of the log entry. Without a witnessed time a key
that has any time limit does not count. Source: SPEC 6.3; it stands beside a C2SP tlog-policy,
which cannot hold statement keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from protocol import envelope as dsse
from protocol.canonical import Fields, parse_json, to_bytes
from protocol.encoding import format_time, parse_time
from protocol.errors import Expired, Schema, UnknownKey, UnsupportedVersion
from protocol.keys import ED25519, VerifierKey, parse_vkey
from protocol.log.policy import Policy

VERSION = "prune-audit/trust/v1"
MAX_TRUST_FILE = 1 << 20
Role = Literal["owner", "auditor", "requester"]
ROLES: tuple[Role, ...] = ("owner", "auditor", "requester")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """One trusted key. Times are seconds since 1970; None is no limit."""

    key: VerifierKey
    role: Role
    logs: tuple[str, ...]
    valid_from: int | None = None
    valid_to: int | None = None
    revoked_since: int | None = None

    def check_time(self, witnessed: int | None, where: str) -> None:
        """Refuse a signature outside this key's validity.

        Raises:
            Expired: outside, or a limit exists and no quorum witnessed the time.
        """
        if self.valid_from is None and self.valid_to is None and self.revoked_since is None:
            return
        name = self.key.name
        if witnessed is None:
            raise Expired(f"the key {name} has a time limit, but no quorum witnessed when it signed", where=where)
        if self.valid_from is not None and witnessed < self.valid_from:
            raise Expired(f"signed before the key {name} became valid", where=where)
        if self.valid_to is not None and witnessed >= self.valid_to:
            raise Expired(f"signed after the key {name} stopped being valid", where=where)
        if self.revoked_since is not None and witnessed >= self.revoked_since:
            raise Expired(f"the key {name} was revoked before this was witnessed", where=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A parsed trust file."""

    signers: tuple[Signer, ...]
    thresholds: Mapping[Role, int]

    def keys(self, role: Role) -> tuple[VerifierKey, ...]:
        """The keys of a role, whatever their validity."""
        return tuple(signer.key for signer in self.signers if signer.role == role)

    def verify(
        self, envelope: dsse.Envelope, *, role: Role, origin: str, witnessed: int | None, where: str = "envelope"
    ) -> tuple[Signer, ...]:
        """Check that `envelope` was signed for `role`, as logged in `origin` at time `witnessed`.

        Raises:
            UnknownKey: too few signatures of keys that may sign this there.
            Expired: enough keys signed, but too few of them were valid then.
        """
        allowed = [s for s in self.signers if s.role == role and origin in s.logs]
        if not allowed:
            raise UnknownKey(f"no key of role {role} may sign in the log {origin}", where=where)
        signed = dsse.verify(envelope, [s.key for s in allowed], where=where)
        matching = [s for s in allowed if any(s.key.public == key.public for key in signed)]
        valid = []
        refused: Expired | None = None
        for signer in matching:
            try:
                signer.check_time(witnessed, where)
                valid.append(signer)
            except Expired as error:
                refused = error
        unique = {signer.key.public for signer in valid}
        if len(unique) < self.thresholds[role]:
            if refused is not None:
                raise refused
            raise UnknownKey(
                f"{len(unique)} trusted keys of role {role} signed, {self.thresholds[role]} are needed", where=where
            )
        return tuple(valid)


def verify_separate(trust: Trust, policy: Policy) -> None:
    """Refuse a key that is trusted both for statements and for a log or as a witness (SPEC 4.1).

    One signature over bytes of somebody's choice must never count as two different things.

    Raises:
        Schema: naming the key.
    """
    logs = {log.key.public for log in policy.logs} | {witness.key.public for witness in policy.witnesses}
    for signer in trust.signers:
        if signer.key.public in logs:
            raise Schema(f"the key of {signer.key.name!r} is also a log's or a witness's key in the policy")


def _time(fields: Fields, name: str) -> int | None:
    return parse_time(fields.text(name)) if fields.has(name) else None


def _signer(fields: Fields) -> Signer:
    key = parse_vkey(fields.text("vkey"))
    if key.use != ED25519:
        raise Schema(f"{key.name[:60]!r} is a witness's key, which signs no statements")
    role = fields.text("role", choices=ROLES)
    logs = fields.array("logs", longest=100)
    if not logs or not all(isinstance(origin, str) for origin in logs):
        raise Schema("logs is not an array of log origins")
    return Signer(
        key=key,
        role=role,  # type: ignore[arg-type]
        logs=tuple(logs),
        valid_from=_time(fields, "validFrom"),
        valid_to=_time(fields, "validTo"),
        revoked_since=_time(fields, "revokedSince"),
    )


def parse(data: bytes, *, where: str = "trust.json") -> Trust:
    """Read a trust file (JSON, white space free to choose: people edit it).

    Raises:
        MalformedError: anything that is not a trust file of version 1.
    """
    value = parse_json(data, limit=MAX_TRUST_FILE, where=where)
    with Fields(value, where=where) as fields:
        version = fields.text("version")
        if version != VERSION:
            raise UnsupportedVersion(f"version {version[:40]!r}, this reads {VERSION}", where=where)
        signers = fields.each("signers", _signer, longest=1000)
        thresholds: dict[Role, int] = dict.fromkeys(ROLES, 1)
        if fields.has("thresholds"):
            with fields.object("thresholds") as limits:
                for role in ROLES:
                    if limits.has(role):
                        thresholds[role] = limits.integer(role, low=1, high=100)
    seen = {(s.key.public, s.role) for s in signers}
    if len(seen) != len(signers):
        raise Schema("one key is listed twice for one role", where=where)
    for role, least in thresholds.items():
        if least > max(1, sum(signer.role == role for signer in signers)):
            raise Schema(f"{least} signatures of role {role} are demanded, but fewer keys are listed", where=where)
    return Trust(signers=signers, thresholds=thresholds)


def serialise(trust: Trust) -> bytes:
    """The trust file's bytes; `parse` gives back an equal value."""
    signers = []
    for signer in trust.signers:
        entry: dict[str, object] = {"vkey": signer.key.vkey, "role": signer.role, "logs": list(signer.logs)}
        for name, value in (
            ("validFrom", signer.valid_from),
            ("validTo", signer.valid_to),
            ("revokedSince", signer.revoked_since),
        ):
            if value is not None:
                entry[name] = format_time(value)
        signers.append(entry)
    return to_bytes({"version": VERSION, "signers": signers, "thresholds": dict(trust.thresholds)})
