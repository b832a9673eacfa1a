"""Which logs count, which witnesses, and how many of them: the reader's own trust file.

Proves (via `Policy.verify_checkpoint`): a listed log signed this checkpoint, these witnesses cosigned
it at these times, and whether they are a quorum. Assumes that the reader wrote the file or got it over
a trusted way. An unmet quorum is a fact that is returned, not an error: the caller may not need one.
Says nothing about who may sign statements; that is the trust file's.
Source: C2SP tlog-policy at commit 5ba5ee8. SPEC 5.6.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from protocol.errors import EncodingError, MalformedError, Schema, TooLarge, UnknownKey
from protocol.keys import ED25519, WITNESS_TYPES, VerifierKey, parse_vkey
from protocol.log import cosignature, note
from protocol.log.checkpoint import Checkpoint, parse_decimal, parse_signed

MAX_POLICY = 262_144
"""Bytes of a policy file."""
_NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedLog:
    """A log whose checkpoints are accepted: its key (named as its origin) and where it is, or ""."""

    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A witness: its name within the policy, its key, and where it is, or ""."""

    name: str
    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Counts as having cosigned when `threshold` of its members (witnesses or earlier groups) have."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCheckpoint:
    """A checkpoint that a trusted log signed.

    Args:
        checkpoint: size and root.
        origin: the log.
        cosigned: time (POSIX seconds) by witness name, for every listed witness that cosigned.
        quorum_met: whether they are enough; true for `quorum none`.
        time: smallest time by which the quorum was reached; None without one, or where none is asked for.
    """

    checkpoint: Checkpoint
    origin: str
    cosigned: Mapping[str, int] = field(hash=False)
    quorum_met: bool
    time: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What `parse` read: logs and witnesses in their order, groups after their members, the quorum's name."""

    logs: tuple[TrustedLog, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def quorum_time(self, cosigned: Mapping[str, int]) -> int | None:
        """The smallest time by which these cosignatures form the quorum; None if they never do.

        Args:
            cosigned: time by witness name.
        """
        # A group is reached when its threshold-th member is; going through groups in order (members
        # come first) needs no recursion, so a policy cannot be nested too deep.
        reached: dict[str, int | None] = {w.name: cosigned.get(w.name) for w in self.witnesses}
        for group in self.groups:
            times = sorted(t for member in group.members if (t := reached[member]) is not None)
            reached[group.name] = times[group.threshold - 1] if len(times) >= group.threshold else None
        return reached.get(self.quorum)

    def verify_checkpoint(self, data: bytes, *, origin: str | None = None) -> VerifiedCheckpoint:
        """Check a checkpoint's log signature and all cosignatures of listed witnesses.

        Args:
            data: the checkpoint with its signatures.
            origin: the log that it has to be of; any listed log if None.

        Raises:
            MalformedError: not a checkpoint.
            UnknownKey: not of a listed log or not of `origin`, or not signed by that log's listed key.
            BadSignature: a line by a listed key does not verify.
        """
        signed, found = parse_signed(data)
        if origin is not None and found.origin != origin:
            raise UnknownKey(f"a checkpoint of the log {found.origin[:80]!r}, not of {origin!r}")
        keys = [log.key for log in self.logs if log.key.name == found.origin]
        if not keys:
            raise UnknownKey(f"the policy lists no log {found.origin[:80]!r}")
        note.verify(signed, keys)
        cosigned: dict[str, int] = {}
        for witness in self.witnesses:
            times = [
                cosignature.verify(line, witness.key, signed.text)
                for line in signed.signatures
                if line.is_by(witness.key)
            ]
            if times:
                # Several lines by one witness count once; the earliest already proves existence then.
                cosigned[witness.name] = min(times)
        time = self.quorum_time(cosigned)
        return VerifiedCheckpoint(
            checkpoint=found,
            origin=found.origin,
            cosigned=MappingProxyType(cosigned),
            quorum_met=self.quorum == _NONE or time is not None,
            time=time,
        )


def _text(octets: bytes, what: str) -> str:
    # C2SP treats names as opaque octets; ours also stand in reports, so they have to be UTF-8.
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Schema(f"a {what} that is not UTF-8") from None


class _Reader:
    # Collects the lines of one policy file; every method takes the words after the keyword.

    def __init__(self) -> None:
        self.logs: list[TrustedLog] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.quorum: str | None = None
        self._names: set[str] = set()
        self._members: set[str] = set()

    def _define(self, name: str) -> None:
        if name == _NONE or name in self._names:
            raise Schema(f"the name {name[:60]!r} is taken")
        self._names.add(name)

    def _new_key(self, key: VerifierKey) -> None:
        # Also a key that is a log's on one line and a witness's on another: one key, one purpose (SPEC 4.1).
        listed = {entry.key.public for entry in self.logs} | {entry.key.public for entry in self.witnesses}
        if key.public in listed:
            raise Schema(f"the key of {key.name!r} is listed twice")

    def log(self, words: list[str]) -> None:
        if len(words) not in (1, 2):
            raise Schema("a log line is: log <vkey> [<url>]")
        entry = TrustedLog(key=parse_vkey(words[0]), url="".join(words[1:]))
        if entry.key.use != ED25519:
            raise Schema(f"the key {entry.key.name!r} is not a log's key (signature type 0x01)")
        self._new_key(entry.key)
        self.logs.append(entry)

    def witness(self, words: list[str]) -> None:
        if len(words) not in (2, 3):
            raise Schema("a witness line is: witness <name> <vkey> [<url>]")
        entry = Witness(name=words[0], key=parse_vkey(words[1]), url="".join(words[2:]))
        if entry.key.use not in WITNESS_TYPES:
            raise Schema(f"the key {entry.key.name!r} is not a witness's key (signature type 0x04 or 0x06)")
        self._new_key(entry.key)
        self._define(entry.name)
        self.witnesses.append(entry)

    def group(self, words: list[str]) -> None:
        if len(words) < 3:
            raise Schema("a group line is: group <name> all|any|<k> <name>...")
        name, rule, *members = words
        for member in members:
            if member not in self._names:
                raise Schema(f"the group {name[:60]!r} names {member[:60]!r}, which no earlier line defines")
            if member in self._members:
                raise Schema(f"{member[:60]!r} is a member twice; it could count twice")
            self._members.add(member)
        named = {"all": len(members), "any": 1}
        threshold = named[rule] if rule in named else parse_decimal(rule, what="group threshold")
        if not 1 <= threshold <= len(members):
            raise Schema(f"the group {name[:60]!r} asks for {threshold} of {len(members)} members")
        self._define(name)
        self.groups.append(Group(name=name, threshold=threshold, members=tuple(members)))

    def quorum_line(self, words: list[str]) -> None:
        if len(words) != 1 or self.quorum is not None:
            raise Schema("there is exactly one quorum line: quorum <name>|none")
        if words[0] != _NONE and words[0] not in self._names:
            raise Schema(f"the quorum names {words[0][:60]!r}, which no earlier line defines")
        self.quorum = words[0]


def parse(data: bytes) -> Policy:
    """Read a policy file.

    Raises:
        MalformedError: with the reason, and the line as its place.
    """
    if len(data) > MAX_POLICY:
        raise TooLarge(f"a policy of {len(data)} bytes, at most {MAX_POLICY} are accepted")
    reader = _Reader()
    kinds = {
        "log": reader.log,
        "witness": reader.witness,
        "group": reader.group,
        "quorum": reader.quorum_line,
    }
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            if any((octet < 0x20 and octet != 0x09) or octet == 0x7F for octet in line):
                raise Schema("a control character (is this a file with Windows line ends?)")
            # bytes.split() would also split at other control characters; there are none left here.
            words = line.split()
            if not words or words[0].startswith(b"#"):
                continue
            keyword, *rest = (_text(word, "word") for word in words)
            if keyword not in kinds:
                raise Schema(f"the keyword {keyword[:40]!r} is not log, witness, group or quorum")
            kinds[keyword](rest)
        except MalformedError as error:
            error.at(f"line {number}")
            raise
    try:
        note.by_name_and_id([log.key for log in reader.logs] + [witness.key for witness in reader.witnesses])
    except EncodingError as error:
        raise Schema(error.message) from None
    if reader.quorum is None:
        raise Schema("no quorum line; write `quorum none` to ask for no witness")
    return Policy(
        logs=tuple(reader.logs),
        witnesses=tuple(reader.witnesses),
        groups=tuple(reader.groups),
        quorum=reader.quorum,
    )
