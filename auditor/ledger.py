"""The auditor's own log and what it keeps secret until the report: nonces, plans, open challenges.

The log's signing key lies beside the log folder (`<LOG>.key`), the secrets in `<LOG>.private/` (0700).
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from auditor.files import read_file, write_atomic
from protocol import envelope as dsse
from protocol import messages
from protocol.canonical import Fields, parse_json, to_bytes
from protocol.errors import AuditorError, Error
from protocol.keys import SigningKey, load_signing_key
from protocol.log import checkpoint, merkle, proof
from protocol.log.store import Log
from protocol.messages.challenge import Challenge


def _signatures(data: bytes) -> int:
    signed, _ = checkpoint.parse_signed(proof.parse(data).checkpoint_note)
    return len(signed.signatures)


def leaf_of(envelope: bytes) -> str:
    """The name of a logged envelope in other messages: its leaf hash in hexadecimal."""
    return merkle.leaf_hash(envelope).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What an opened audit hides until its report; the nonce is None in the replay of a report that kept it secret."""

    nonce: bytes | None
    plan: bytes
    opening: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The auditor's log folder."""

    log: Path

    @property
    def key_path(self) -> Path:
        """Where the log's own signing key lies."""
        return self.log.with_name(self.log.name + ".key")

    @property
    def private(self) -> Path:
        """Where the secrets lie."""
        return self.log.with_name(self.log.name + ".private")

    def append(self, envelope: bytes) -> bytes:
        """Log an envelope; return the proof of its inclusion at the new checkpoint.

        Raises:
            AuditorError: no such log, no key for it, or it cannot be written.
        """
        try:
            index = Log.open(self.log).append([envelope], load_signing_key(self.key_path))[0]
            return proof.to_bytes(Log.open(self.log).prove_inclusion(index))
        except Error as error:
            raise AuditorError(error.message, where=error.where or str(self.log)) from None

    def refreshed(self, old: bytes) -> bytes:
        """A proof from this log anew at its current checkpoint; a proof from another log unchanged."""
        with contextlib.suppress(Error):
            store = Log.open(self.log)
            known = proof.parse(old)
            fresh = store.prove_inclusion(known.index)
            if known.checkpoint_note.split(b"\n", 1)[0] == fresh.checkpoint_note.split(b"\n", 1)[0]:
                return proof.to_bytes(fresh)
        return old

    def first_witnessed(self, owner_leaf: str) -> bytes | None:
        """The proof of the challenge for an owner's entry, at the earliest cosigned checkpoint that was seen.

        Deadlines count from its witness time. A later one is taken only for cosignatures that the kept one lacks.
        """
        made = self.challenge(owner_leaf)
        if made is None:
            return None
        envelope, kept = made
        fresh = self.refreshed(kept)
        if _signatures(fresh) > _signatures(kept):
            self.keep_challenge(owner_leaf, envelope, fresh)
            return fresh
        return kept

    def latest(self, owner_leaf: str) -> bytes | None:
        """The same challenge's proof at this log's current checkpoint, or at the one that a report was made at."""
        path = self.private / "challenges" / f"{owner_leaf}.latest"
        if path.is_file():
            return read_file(path, limit=proof.MAX_TLOG_PROOF)
        made = self.challenge(owner_leaf)
        return self.refreshed(made[1]) if made is not None else None

    def keep_latest(self, owner_leaf: str, proof_bytes: bytes) -> None:
        """Remember, for a replay, the checkpoint that a report was made at."""
        write_atomic(self.private / "challenges" / f"{owner_leaf}.latest", proof_bytes)

    def settle(self) -> None:
        """Keep the first cosigned proof of every challenge; to be called when witnesses have cosigned."""
        for path in sorted((self.private / "challenges").glob("*.json")):
            self.first_witnessed(path.stem)

    def proofs(self) -> dict[str, bytes]:
        """Proofs of everything in this log, by leaf hash, at its current checkpoint.

        The auditor's log holds a few entries for each audit; a large one is read once.
        """
        try:
            store = Log.open(self.log)
            hashes = store.leaf_hashes()
        except Error:
            return {}
        return {leaf.hex(): proof.to_bytes(store.prove_inclusion(index)) for index, leaf in enumerate(hashes)}

    def _secret_path(self, leaf: str) -> Path:
        return self.private / "openings" / f"{leaf}.json"

    def keep(self, secret: Secret) -> None:
        """Remember an opened audit's nonce and plan."""
        fields = {"plan": secret.plan.decode("utf-8"), "opening": secret.opening.decode("utf-8")}
        if secret.nonce is not None:
            fields["nonce"] = secret.nonce.hex()
        data = to_bytes(fields)
        write_atomic(self._secret_path(leaf_of(secret.opening)), data, secret=True)

    def secret(self, leaf: str) -> Secret | None:
        """What was kept for the opened audit with this leaf hash."""
        path = self._secret_path(leaf)
        if not path.is_file():
            return None
        with Fields(parse_json(read_file(path, limit=1 << 20), limit=1 << 20, where=str(path)), where=str(path)) as f:
            return Secret(
                nonce=bytes.fromhex(f.hex("nonce")) if f.has("nonce") else None,
                plan=f.text("plan", longest=1 << 18).encode(),
                opening=f.text("opening", longest=dsse.MAX_ENVELOPE).encode(),
            )

    def keep_challenge(self, owner_leaf: str, envelope: bytes, proof_bytes: bytes) -> None:
        """Remember the challenge that was made for an owner's entry, and its proof."""
        write_atomic(self.private / "challenges" / f"{owner_leaf}.json", envelope)
        write_atomic(self.private / "challenges" / f"{owner_leaf}.tlog-proof", proof_bytes)

    def challenged_for(self, opening: str) -> set[str]:
        """The owner's entries that a challenge of this opened audit was made for."""
        found = set()
        for path in sorted((self.private / "challenges").glob("*.json")):
            _, challenge = messages.read(read_file(path, limit=dsse.MAX_ENVELOPE), Challenge, where=str(path))
            if challenge.opening == opening:
                found.add(challenge.answers)
        return found

    def reveal(self, opening: str) -> None:
        """Remember that a report revealed the opened audit's nonce: from then on its challenges are foreseeable."""
        write_atomic(self.private / "revealed" / opening, b"")

    def revealed(self, opening: str) -> bool:
        """Whether a report revealed the opened audit's nonce."""
        return (self.private / "revealed" / opening).is_file()

    def challenge(self, owner_leaf: str) -> tuple[bytes, bytes] | None:
        """The challenge made for an owner's entry, and its proof, if any was made."""
        path = self.private / "challenges" / f"{owner_leaf}.json"
        if not path.is_file():
            return None
        return (
            read_file(path, limit=dsse.MAX_ENVELOPE),
            read_file(path.with_suffix(".tlog-proof"), limit=proof.MAX_TLOG_PROOF),
        )


def sign(payload: bytes, key: SigningKey) -> bytes:
    """Envelope bytes over a statement.

    Raises:
        AuditorError: the message cannot be signed or logged.
    """
    try:
        return dsse.sign(payload, [key])
    except Error as error:
        raise AuditorError(error.message) from None
