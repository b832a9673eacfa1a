"""Every error that leaves this project's packages.

The tree (asserted in `tests/protocol/test_errors.py`)::

    Error                        base of all of them
    ├── EncodingError            the caller asked for bytes that no parser would accept back
    ├── MalformedError           bytes that are not what they should be
    │   ├── NonCanonical         right content, wrong spelling: only one spelling is accepted
    │   ├── Schema               a field is missing, unknown, or of the wrong type
    │   ├── UnsupportedVersion   a version this implementation does not read
    │   └── TooLarge             over a size, count or depth limit; checked before parsing
    ├── VerificationError        well-formed, but not to be believed
    │   ├── UnknownKey           no trusted key made this signature
    │   ├── BadSignature         a trusted key's signature does not verify
    │   ├── DigestMismatch       bytes differ from the digest that was signed for them
    │   ├── Inclusion            not in the log that it claims to be in
    │   ├── Consistency          two checkpoints that no append-only log can both have
    │   ├── Rollback             older than what was seen before
    │   ├── NoQuorum             too few of the policy's witnesses cosigned the checkpoint
    │   └── Expired              outside a key's or a statement's validity
    ├── OwnerError               the owner's program cannot do, or refuses to do, what was asked
    └── AuditorError             likewise the auditor's

A *dishonest owner* is not an error: checks return a result (SPEC 13.4). `parse` raises only
`MalformedError`; `verify_*` raises `VerificationError` and returns nothing that a caller
could forget to look at. Each class has a `reason`, its name in what the programs print for other
programs (`tests/conformance/CLI_PROTOCOL.md`).
"""

from typing import ClassVar, Self


class Error(Exception):
    """Base of every error of this project.

    Args:
        message: one readable line that says what is wrong and, where known, what to do.
        where: the file, field or log entry that is at fault; empty when unknown.
    """

    reason: ClassVar[str] = "usage"

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        if text.isprintable():
            return text
        # Names and values quoted from hostile files must not move a terminal's cursor, add lines, or fail to print.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)

    def at(self, where: str) -> Self:
        """Return this same error, naming `where` as its place unless it already names one."""
        if not self.where:
            self.where = where
        return self


class EncodingError(Error):
    """A value that must not be put on the wire."""


class MalformedError(Error):
    """Bytes that do not parse."""

    reason = "malformed"


class NonCanonical(MalformedError):
    """A second spelling of something that has exactly one."""

    reason = "non-canonical"


class Schema(MalformedError):
    """A field is missing, unknown, or of the wrong type or range."""

    reason = "schema"


class UnsupportedVersion(MalformedError):
    """A format or operator version that this implementation does not read."""

    reason = "unsupported-version"


class TooLarge(MalformedError):
    """Over a limit that is checked before any parsing."""

    reason = "too-large"


class VerificationError(Error):
    """Well-formed, but not to be believed."""

    reason = "unverifiable"


class UnknownKey(VerificationError):
    """No key that the reader trusts for this purpose."""

    reason = "unknown-key"


class BadSignature(VerificationError):
    """A known key's signature does not verify."""

    reason = "bad-signature"


class DigestMismatch(VerificationError):
    """Bytes are not the ones that were signed for."""

    reason = "digest-mismatch"


class Inclusion(VerificationError):
    """An inclusion proof fails."""

    reason = "inclusion"


class Consistency(VerificationError):
    """A consistency proof fails."""

    reason = "consistency"


class Rollback(VerificationError):
    """Older than what was seen before."""

    reason = "rollback"


class NoQuorum(VerificationError):
    """Too few witnesses cosigned."""

    reason = "no-quorum"


class Expired(VerificationError):
    """Outside the validity of a key or statement."""

    reason = "expired"


class OwnerError(Error):
    """The owner's program cannot or will not do what was asked."""


class AuditorError(Error):
    """The auditor's program cannot do what was asked."""
