"""Challenge and answer: which retained records to open, chosen by neither side.

value = H("challenge", nonce, leaf of the owner's entry); each check draws from a seed of its own
that is derived from it. A challenge shows only the seed of the records to open; the nonce
stays secret until the report, and with it every other check's seed. Source: SPEC 9.6.
"""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from protocol import statement as intoto
from protocol.canonical import Fields
from protocol.digests import tagged
from protocol.encoding import format_time, parse_time
from protocol.errors import Schema


def value(nonce: bytes, owner_leaf: bytes) -> bytes:
    """The challenge value: 32 bytes that neither side could choose."""
    return tagged("challenge", nonce, owner_leaf)


def seed(challenge_value: bytes, check: str) -> bytes:
    """The seed of one check: 32 bytes that tell nothing about another check's."""
    return tagged("challenge-seed", challenge_value, check.encode())


def indices(check_seed: bytes, count: int, population: int) -> Int[np.ndarray, "draw"]:
    """`count` different indices below `population` (all of them if it is smaller), sorted.

    SHA-256 in counter mode, 64-bit words, rejection of the incomplete last interval, repeats
    skipped: uniform without replacement, and the same in every implementation.
    """
    wanted = min(count, population)
    if wanted == population:
        return np.arange(population, dtype=np.int64)
    bound = (1 << 64) - (1 << 64) % population
    chosen: set[int] = set()
    counter = 0
    while len(chosen) < wanted:
        block = hashlib.sha256(check_seed + counter.to_bytes(8, "big")).digest()
        counter += 1
        for start in range(0, 32, 8):
            word = int.from_bytes(block[start : start + 8], "big")
            if word < bound and len(chosen) < wanted:
                chosen.add(word % population)
    return np.array(sorted(chosen), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A challenge to open `count` of `population` committed records.

    `opening` and `answers` are leaf hashes of the opened audit and of the owner's entry that names it.
    """

    PREDICATE: ClassVar[str] = intoto.PREDICATE_BASE + "challenge/v1"
    SUBJECT: ClassVar[str] = "certificate.dsse.json"

    subject: str
    opening: str
    answers: str
    seed: bytes
    count: int
    population: int
    challenged_at: int

    @classmethod
    def parse(cls, statement: intoto.Statement) -> "Challenge":
        """Read the predicate.

        Raises:
            MalformedError: not one.
        """
        with Fields(statement.predicate) as fields:
            result = cls(
                subject=statement.about(cls.SUBJECT, cls.PREDICATE),
                opening=fields.hex("opening"),
                answers=fields.hex("answers"),
                seed=bytes.fromhex(fields.hex("seed")),
                count=fields.integer("count", low=1, high=1_000_000),
                population=fields.integer("population", low=1, high=1 << 32),
                challenged_at=parse_time(fields.text("challengedAt")),
            )
            if result.count > result.population:
                raise Schema("asks for more records than there are")
            return result

    def indices(self) -> Int[np.ndarray, "draw"]:
        """The committed records to open."""
        return indices(self.seed, self.count, self.population)

    def payload(self) -> bytes:
        """The statement's bytes."""
        return intoto.serialise(
            subject_name=self.SUBJECT,
            subject_sha256=self.subject,
            predicate_type=self.PREDICATE,
            predicate={
                "opening": self.opening,
                "answers": self.answers,
                "seed": self.seed.hex(),
                "count": self.count,
                "population": self.population,
                "challengedAt": format_time(self.challenged_at),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The owner's answer. Subject: the manifest of the openings folder; `challenge` is a leaf hash."""

    PREDICATE: ClassVar[str] = intoto.PREDICATE_BASE + "answer/v1"
    SUBJECT: ClassVar[str] = "manifest.json"

    subject: str
    challenge: str
    opened: int
    answered_at: int

    @classmethod
    def parse(cls, statement: intoto.Statement) -> "Answer":
        """Read the predicate.

        Raises:
            MalformedError: not one.
        """
        with Fields(statement.predicate) as fields:
            return cls(
                subject=statement.about(cls.SUBJECT, cls.PREDICATE),
                challenge=fields.hex("challenge"),
                opened=fields.integer("opened", high=1_000_000),
                answered_at=parse_time(fields.text("answeredAt")),
            )

    def payload(self) -> bytes:
        """The statement's bytes."""
        return intoto.serialise(
            subject_name=self.SUBJECT,
            subject_sha256=self.subject,
            predicate_type=self.PREDICATE,
            predicate={
                "challenge": self.challenge,
                "opened": self.opened,
                "answeredAt": format_time(self.answered_at),
            },
        )
