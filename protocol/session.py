"""One opened audit as a state machine: which message may follow which, and what each refusal means.

    opened --certificate or acknowledgement--> named --challenge--> challenged --answer--> answered
       any of them --report--> reported (the end)

Proves (a session that took all its messages): plan and nonce were fixed before the owner's entry, the challenge follows
from both and from nothing else, there was one challenge, the answer is to it, the report reveals the nonce exactly
where the owner's entry named the audit. Assumes messages whose signatures and log proofs the caller has verified, and
witness times that the caller got from a quorum; reads no file and no clock. Source: SPEC 9.10.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from protocol.errors import VerificationError
from protocol.messages import challenge as challenge_message
from protocol.messages.certificate import Certificate
from protocol.messages.challenge import Answer, Challenge
from protocol.messages.opening import Acknowledgement, Opening, nonce_commitment
from protocol.messages.report import Report

State = Literal["opened", "named", "challenged", "answered", "reported"]
Reason = Literal[
    "foreign", "uncovered", "out-of-order", "duplicate", "second", "spent", "unfollowed", "wrong-nonce", "unrevealed"
]
REASONS: Mapping[Reason, str] = {
    "foreign": "it names another opened audit, certificate, owner's entry or challenge",
    "uncovered": "the certificate answers requests that the audit was not opened for",
    "out-of-order": "what it answers was not there before it",
    "duplicate": "it was taken already; nothing changes",
    "second": "there is one already, and there may be only one",
    "spent": "the nonce is known: whoever knows it can foresee the challenge",
    "unfollowed": "it does not follow from the nonce, the owner's entry, the plan and the commitment",
    "wrong-nonce": "the nonce is not the one that the audit was opened with",
    "unrevealed": "it keeps a nonce secret that the owner's entry has a right to, or reveals one too early",
}


class Refusal(VerificationError):
    """A message that the session does not take; the session stays as it was."""

    def __init__(self, why: Reason, message: str = "") -> None:
        self.why: Reason = why
        super().__init__(message or REASONS[why])


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An owner's entry that names the audit: its certificate, or an acknowledgement of it."""

    leaf: str
    certificate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What was taken so far. Log entries are named by leaf hash; times are a quorum's witness times or None.

    Args:
        leaf: the opened audit.
        opening: its message.
        openings: how many records its plan asks for.
        entries: the owner's entries that name it, by leaf.
        challenge_leaf: the challenge's leaf.
        challenge: the challenge.
        challenged_by: by when a quorum had seen the challenge.
        answer_leaf: the answer's leaf.
        answered_by: by when a quorum had seen the answer.
        report_leaf: the report's leaf.
        spent: whether the nonce is known to others.
    """

    leaf: str
    opening: Opening
    openings: int
    entries: Mapping[str, Named] = field(default_factory=dict)
    challenge_leaf: str | None = None
    challenge: Challenge | None = None
    challenged_by: int | None = None
    answer_leaf: str | None = None
    answered_by: int | None = None
    report_leaf: str | None = None
    spent: bool = False

    @property
    def state(self) -> State:
        """Where it stands."""
        if self.report_leaf is not None:
            return "reported"
        if self.answer_leaf is not None:
            return "answered"
        if self.challenge is not None:
            return "challenged"
        return "named" if self.entries else "opened"

    def _open_for(self, leaf: str, taken: str | None) -> None:
        # What every message has to pass: it is new, the session is not over, and there is none of its kind.
        if leaf == taken:
            raise Refusal("duplicate")
        if self.report_leaf is not None:
            raise Refusal("spent")
        if taken is not None:
            raise Refusal("second")

    def _name(self, entry: Named) -> "Session":
        if entry.leaf in self.entries:
            raise Refusal("duplicate")
        if self.report_leaf is not None or self.spent:
            raise Refusal("spent")
        if self.challenge is not None:
            raise Refusal("second", "this opened audit was challenged for another entry of the owner's")
        return replace(self, entries={**self.entries, entry.leaf: entry})

    def certify(self, leaf: str, certificate: Certificate) -> "Session":
        """Take a certificate that names this audit.

        Raises:
            Refusal: foreign, uncovered, duplicate, second, spent.
        """
        if certificate.opening != self.leaf:
            raise Refusal("foreign", "the certificate does not name this opened audit")
        if not set(certificate.requests) <= set(self.opening.requests):
            raise Refusal("uncovered")
        return self._name(Named(leaf=leaf, certificate=leaf))

    def acknowledge(
        self,
        leaf: str,
        acknowledgement: Acknowledgement,
        *,
        certificate_leaf: str,
        certificate_sha256: str,
        certificate: Certificate,
    ) -> "Session":
        """Take the owner's acknowledgement of this audit, about a certificate that does not name it.

        Args:
            leaf: its leaf.
            acknowledgement: its message.
            certificate_leaf: leaf of the certificate's envelope.
            certificate_sha256: digest of the same bytes: both names have to be of one certificate.
            certificate: its message.

        Raises:
            Refusal: foreign, uncovered, duplicate, second, spent.
        """
        named = acknowledgement.opening, acknowledgement.certificate, acknowledgement.subject
        if named != (self.leaf, certificate_leaf, certificate_sha256):
            raise Refusal("foreign", "the acknowledgement names another opened audit or another certificate")
        if not set(certificate.requests) <= set(self.opening.requests):
            raise Refusal("uncovered")
        return self._name(Named(leaf=leaf, certificate=certificate_leaf))

    def assume(self, entry: Named) -> "Session":
        """Take an owner's entry that is not at hand, from somebody who says that it names the audit.

        Raises:
            Refusal: duplicate, second, spent.
        """
        return self._name(entry)

    def drawn(self, nonce: bytes, entry: str, population: int) -> tuple[bytes, int]:
        """The seed and the number of records of the one challenge that follows for an owner's entry.

        Raises:
            Refusal: out-of-order, second, spent, wrong-nonce.
        """
        if nonce_commitment(nonce) != self.opening.nonce_commitment:
            raise Refusal("wrong-nonce")
        if entry not in self.entries:
            raise Refusal("out-of-order", "the owner's entry does not name this opened audit")
        if self.challenge is not None and self.challenge.answers != entry:
            raise Refusal("second", "this opened audit was challenged for another entry of the owner's")
        if self.challenge is None and (self.report_leaf is not None or self.spent):
            raise Refusal("spent")
        value = challenge_message.value(nonce, bytes.fromhex(entry))
        return challenge_message.seed(value, "locality"), min(self.openings, population)

    def ask(
        self, leaf: str, challenge: Challenge, *, nonce: bytes | None, population: int, seen: int | None = None
    ) -> "Session":
        """Take the challenge.

        Args:
            leaf: its leaf.
            challenge: its message.
            nonce: the nonce; None before it is revealed (then seed and order cannot be compared).
            population: how many records the commitment counts.
            seen: by when a quorum had seen it.

        Raises:
            Refusal: foreign, out-of-order, duplicate, second, spent, unfollowed, wrong-nonce.
        """
        self._open_for(leaf, self.challenge_leaf)
        if challenge.opening != self.leaf:
            raise Refusal("foreign", "the challenge is about another opened audit")
        if challenge.answers not in self.entries:
            raise Refusal("out-of-order", "the challenge is for an entry of the owner's that does not name the audit")
        if self.spent:
            raise Refusal("spent")
        if nonce is not None:
            seed, count = self.drawn(nonce, challenge.answers, population)
            if challenge.seed != seed:
                raise Refusal("unfollowed", "the challenge does not follow from the nonce and the owner's entry")
        else:
            count = min(self.openings, population)
        if (challenge.count, challenge.population) != (count, population):
            raise Refusal("unfollowed", "the challenge asks for other records than the plan and the commitment say")
        return replace(self, challenge_leaf=leaf, challenge=challenge, challenged_by=seen)

    def take(self, leaf: str, answer: Answer, *, seen: int | None = None) -> "Session":
        """Take the answer, late or not: `in_time` says which.

        Raises:
            Refusal: foreign, out-of-order, duplicate, second, spent.
        """
        self._open_for(leaf, self.answer_leaf)
        if self.challenge_leaf is None:
            raise Refusal("out-of-order", "nothing was asked yet")
        if answer.challenge != self.challenge_leaf:
            raise Refusal("foreign", "answers another challenge")
        return replace(self, answer_leaf=leaf, answered_by=seen)

    def close(self, leaf: str, report: Report) -> "Session":
        """Take the report: from here on the nonce is known, if it reveals it.

        Raises:
            Refusal: foreign, duplicate, second, wrong-nonce, unrevealed.
        """
        if leaf == self.report_leaf:
            raise Refusal("duplicate")
        if report.opening != self.leaf:
            raise Refusal("foreign", "the report is about another opened audit")
        if self.report_leaf is not None:
            raise Refusal("second")
        if report.nonce is not None and nonce_commitment(report.nonce) != self.opening.nonce_commitment:
            raise Refusal("wrong-nonce", "reveals another nonce than the audit was opened with")
        named = any(entry.certificate == report.certificate for entry in self.entries.values())
        if self.challenge is not None and self.entries[self.challenge.answers].certificate != report.certificate:
            raise Refusal("foreign", "the report is about another certificate than the challenge")
        if (report.nonce is not None) != named:
            raise Refusal("unrevealed")
        return replace(self, report_leaf=leaf, spent=self.spent or report.nonce is not None)

    @property
    def deadline(self) -> int | None:
        """By when the answer has to be in the log: the challenge's witness time and the plan's hours, if known."""
        if self.challenged_by is None:
            return None
        return self.challenged_by + self.opening.answer_within

    def in_time(self) -> bool | None:
        """Whether the answer was in time: True if a quorum saw it before the deadline, None if nothing shows it.

        A later witness time proves nothing: the entry may have been there long before.
        """
        if self.deadline is None or self.answer_leaf is None or self.answered_by is None:
            return None
        return True if self.answered_by <= self.deadline else None

    def overdue(self, now: int | None) -> bool:
        """Whether the deadline is surely over without an answer.

        Args:
            now: a quorum's witness time at which there was no answer; None where there is none: then nobody is late.
        """
        return self.answer_leaf is None and self.deadline is not None and now is not None and now > self.deadline


def begin(leaf: str, opening: Opening, *, openings: int) -> Session:
    """A session from its opening.

    Args:
        leaf: the opening's leaf.
        opening: its message.
        openings: how many records its plan asks for.
    """
    return Session(leaf=leaf, opening=opening, openings=openings)


__all__ = ["REASONS", "Named", "Refusal", "Session", "begin"]
