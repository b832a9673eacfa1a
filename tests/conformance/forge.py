"""A small world of signed messages in logs, made from fixed seeds: honest, or changed at one place.

What comes after the changed place is made anew from it, so that a case is wrong in one thing only. Nothing here is
random, and no clock is read: the same call always gives the same bytes.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from protocol import claims as claim_lines
from protocol import envelope as dsse
from protocol import openings, records
from protocol.canonical import to_bytes
from protocol.digests import sha256_hex
from protocol.encoding import encode_base64
from protocol.keys import USES, SigningKey
from protocol.log import checkpoint, cosignature, merkle, note, tiles
from protocol.log.checkpoint import Checkpoint
from protocol.messages.certificate import Certificate
from protocol.messages.commitment import Commitment
from protocol.messages.report import CheckLine, FindingLine, Receipt, Report, combine
from protocol.messages.request import Request, Scope
from protocol.receipt_file import ENVELOPES, OpenedClaim, ReceiptFile

__all__ = ["ENVELOPES", "Made", "MiniLog", "Story", "make"]
START = 1_780_000_000
OWNER_LOG, AUDITOR_LOG = "log.owner.example", "log.auditor.example"
WITNESSES = ("witness-north", "witness-south", "witness-east")


@functools.cache
def key(name: str, use: str = "statement") -> SigningKey:
    """The key of this name and use, always the same."""
    return SigningKey(name=name, use=USES[use], seed=hashlib.sha256(f"conformance {use} {name}".encode()).digest())


def filler(number: int, size: int = 40) -> bytes:
    """Bytes of an entry that is nobody's business."""
    return (b"entry %d " % number).ljust(size, b".")


def flip(data: bytes, place: int, bit: int = 0) -> bytes:
    """The bytes with one bit changed."""
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


# --- logs ------------------------------------------------------------------------------------------


@dataclass
class MiniLog:
    """A log in memory; as honest as whoever calls it."""

    origin: str
    entries: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> SigningKey:
        """Its own key."""
        return key(self.origin, "log")

    def add(self, entry: bytes) -> int:
        """Append, and give the index."""
        self.entries.append(entry)
        return len(self.entries) - 1

    def text(self, *, extra: tuple[str, ...] = ()) -> bytes:
        """The checkpoint's text as of now."""
        head = Checkpoint(
            origin=self.origin, size=len(self.entries), root=merkle.root_from_leaves(self.entries), extensions=extra
        )
        return checkpoint.to_text(head)

    def signed(self, text: bytes, lines: Sequence[bytes]) -> bytes:
        """A checkpoint with these signature lines."""
        return text + b"\n" + b"".join(lines)

    def own_line(self, text: bytes, signer: SigningKey | None = None) -> bytes:
        """The log's signature line."""
        by = signer or self.key
        return note.Signature(name=by.name, key_id=by.verifier.key_id, value=by.sign(text)).line

    def prove(self, index: int, *, note_bytes: bytes) -> bytes:
        """A proof of one entry at the log's present size, with this checkpoint."""
        hashes = merkle.inclusion_proof(index, merkle.leaf_hashes(self.entries))
        lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *(encode_base64(value) for value in hashes)]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + note_bytes


def witness_line(name: str, text: bytes, time: int = START + 1000, *, use: str = "witness") -> bytes:
    """A witness's cosignature line."""
    return cosignature.sign(text, key(name, use), time).line


def cosigned(log: MiniLog, witnesses: Sequence[str] = WITNESSES, time: int = START + 1000) -> bytes:
    """The log's present checkpoint, cosigned."""
    text = log.text()
    return log.signed(text, [log.own_line(text), *(witness_line(name, text, time) for name in witnesses)])


def tiles_of(entries: Sequence[bytes], size: int | None = None) -> dict[str, bytes]:
    """Every tile and bundle that a log of these entries has to have, by path; as of an earlier size if given."""
    entries = entries[: size if size is not None else len(entries)]
    levels: list[list[bytes]] = [merkle.leaf_hashes(entries)]
    while len(levels[-1]) >= tiles.WIDTH:
        below = levels[-1]
        ends = range(tiles.WIDTH, len(below) + 1, tiles.WIDTH)
        levels.append([merkle.root_from_hashes(below[end - tiles.WIDTH : end]) for end in ends])
    found = {}
    for tile in tiles.tiles_of(len(entries)):
        held = slice(tile.index * tiles.WIDTH, tile.index * tiles.WIDTH + tile.width)
        if tile.level is None:
            found[tile.path] = b"".join((len(e) % 65536).to_bytes(2, "big") + e for e in entries[held])
        else:
            found[tile.path] = b"".join(levels[tile.level][held])
    return found


def log_files(log: MiniLog, note_bytes: bytes | None = None) -> dict[str, bytes]:
    """A log's folder."""
    return {"checkpoint": note_bytes or cosigned(log), **tiles_of(log.entries)}


# --- policy and trust ------------------------------------------------------------------------------


def policy_text(*, quorum: str = "witnesses", extra: Sequence[str] = ()) -> str:
    """The policy that all cases begin from."""
    lines = [f"log {key(origin, 'log').verifier.vkey}" for origin in (OWNER_LOG, AUDITOR_LOG)]
    lines += [f"witness {name} {key(name, 'witness').verifier.vkey}" for name in WITNESSES]
    lines += [*extra, f"group witnesses 2 {' '.join(WITNESSES)}", f"quorum {quorum}"]
    return "".join(f"{line}\n" for line in lines)


def signer(name: str, role: str, log: str, **times: str) -> dict[str, Any]:
    """An entry of the trust file."""
    return {"vkey": key(name).verifier.vkey, "role": role, "logs": [log], **times}


def trust_value() -> dict[str, Any]:
    """The trust file that all cases begin from."""
    return {
        "version": "prune-audit/trust/v1",
        "signers": [
            signer("owner", "owner", OWNER_LOG),
            signer("auditor", "auditor", AUDITOR_LOG),
            signer("subject", "requester", AUDITOR_LOG),
        ],
    }


# --- a receipt and everything under it -------------------------------------------------------------

VALUES = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [2, 4, 6], [3, 6, 9], [5, 5, 5]], dtype=np.int32)
LABELS = np.array([0, 1, 2, 0, 1, 2], dtype=np.int64)
SUBJECTS = ("anna", "anna", "anna", "bert", "", "")
REMOVED = 2


@functools.cache
def tree() -> records.RecordTree:
    """The committed records of six rows: anna has three."""
    return records.build(VALUES, LABELS, SUBJECTS, salts(), {name: group_salt(name) for name in ("anna", "bert")})


def salts() -> np.ndarray:
    """Each record's salt."""
    return np.stack([np.frombuffer(hashlib.sha256(b"salt %d" % row).digest(), dtype=np.uint8) for row in range(6)])


def group_salt(name: str) -> bytes:
    """A subject's salt."""
    return hashlib.sha256(f"group {name}".encode()).digest()


def place(row: int) -> int:
    """A row's index in the committed tree."""
    return int(np.flatnonzero(tree().order == row)[0])


def commitment_of(row: int) -> bytes:
    """A row's record commitment."""
    return tree().commitments[place(row)]


def opened(*rows: int) -> list[records.Opening]:
    """Rows, opened."""
    return tree().openings([place(row) for row in rows], VALUES, LABELS, salts())


def redirection(row: int, item: int = 0) -> bytes:
    """A claim line about a row."""
    return claim_lines.claim_line(
        claim_lines.Redirection(
            record=commitment_of(row),
            item=item,
            gate="sketch",
            region=claim_lines.Region(norm="linf", radius=1, radius_data="0.093749"),
            property=claim_lines.Logits(values=("-1", "0.5", "2")),
            target="match",
        )
    )


def removal(klass: int = REMOVED) -> bytes:
    """A claim line that removes a class."""
    return claim_lines.claim_line(
        claim_lines.ClassRemoval(klass=klass, margin="1", nonce=hashlib.sha256(b"nonce").digest())
    )


def no_redirection(row: int) -> bytes:
    """A claim line that claims nothing."""
    return claim_lines.claim_line(claim_lines.NoRedirection(record=commitment_of(row), reason="none"))


def coverage(row: int, item: int = 1) -> bytes:
    """A claim line that says what an item is there for."""
    return claim_lines.claim_line(claim_lines.Coverage(record=commitment_of(row), item=item, gate="feature"))


PROFILE = b"version: prune-audit/profile/v1\nname: redirection\nrequired: [binding, redirection]\n"
Change = Callable[[Any], Any]


@dataclass
class Story:
    """One receipt, and how it differs from an honest one.

    Args:
        rows: the requested rows.
        scope: `records`, `subject`, `class` or `trigger`.
        by_subject: whether the subject signed the request, into the auditor's log.
        verdict: of the report.
        findings: of the report.
        lines: claim lines of the certificate; by default one for each requested row and one for somebody else's.
        shown: which of them are in the receipt, by index; by default the request's own.
        messages: changes of a message before it is spelled, by envelope name.
        payloads: changes of its payload before it is signed.
        signers: who signs an envelope, in the place of its rightful signer; more than one are all put on.
        envelopes: changes of an envelope before it is logged.
        logs: the log an envelope goes to.
        proofs: changes of a proof.
        notes: how a log's checkpoint is signed, by origin, from log to bytes.
        file: a change of the receipt's file.
        raw: a change of its bytes.
        policy: policy text.
        trust: a change of the trust file's value.
        trust_raw: a change of its bytes.
        later: entries that come into both logs after everything.
        early: entries of the auditor's log before everything.
    """

    rows: tuple[int, ...] = (0, 1)
    scope: str = "records"
    by_subject: bool = False
    verdict: str = "CONSISTENT"
    findings: tuple[tuple[str, str], ...] = ()
    lines: tuple[bytes, ...] | None = None
    shown: tuple[int, ...] | None = None
    messages: Mapping[str, Change] = field(default_factory=dict)
    payloads: Mapping[str, Change] = field(default_factory=dict)
    signers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    envelopes: Mapping[str, Change] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    proofs: Mapping[str, Change] = field(default_factory=dict)
    notes: Mapping[str, Callable[[MiniLog], bytes]] = field(default_factory=dict)
    file: Change | None = None
    raw: Change | None = None
    policy: str = field(default_factory=policy_text)
    trust: Change | None = None
    trust_raw: Change | None = None
    later: int = 0
    early: tuple[bytes, ...] = ()


@dataclass
class Made:
    """What a story became: the receipt's bytes, and what stands around it."""

    story: Story
    envelopes: dict[str, bytes]
    proofs: dict[str, bytes]
    receipt: bytes
    policy: bytes
    trust: bytes
    logs: dict[str, MiniLog]
    report: Report
    certificate_leaf: str

    def slip(self, *rows: int, **changes: Any) -> bytes:
        """A slip for rows; `changes` are fields of the slip, or of its first opening."""
        found = opened(*rows)
        of_slip = {name: changes.pop(name) for name in ("commitment", "commitment_proof") if name in changes}
        if changes:
            found[0] = dataclasses.replace(found[0], **changes)
        whole = openings.Slip(
            openings=tuple(found),
            commitment=self.envelopes["commitment"],
            commitment_proof=self.proofs["commitment"],
        )
        return openings.serialise_slip(dataclasses.replace(whole, **of_slip))


def leaf(envelope: bytes) -> str:
    """An envelope's name in other messages."""
    return merkle.leaf_hash(envelope).hex()


def sign(payload: bytes, names: Sequence[str], payload_type: str = dsse.PAYLOAD_TYPE) -> bytes:
    """An envelope, signed by the statement keys of these names; `*` before a name lies about the key id."""
    message = dsse.pae(payload_type, payload)
    signatures = []
    for name in names:
        by = key(name.removeprefix("*"))
        known = key("auditor") if name.startswith("*") else by
        signatures.append(
            {"keyid": f"{known.name}+{known.verifier.key_id.hex()}", "sig": encode_base64(by.sign(message))}
        )
    return to_bytes({"payload": encode_base64(payload), "payloadType": payload_type, "signatures": signatures})


def make(story: Story | None = None, *, report_subject: str | None = None, **fields: Any) -> Made:
    """Play a story."""
    story = story or Story(**fields)
    logs = {origin: MiniLog(origin, [filler(number) for number in range(3)]) for origin in (OWNER_LOG, AUDITOR_LOG)}
    logs[AUDITOR_LOG].entries += story.early
    envelopes: dict[str, bytes] = {}
    places: dict[str, tuple[MiniLog, int]] = {}

    def put(name: str, message: Any, by: str, origin: str) -> Any:
        changed = story.messages.get(name, lambda m: m)(message)
        payload = story.payloads.get(name, lambda p: p)(changed.payload())
        made = sign(payload, story.signers.get(name, (by,)))
        envelopes[name] = story.envelopes.get(name, lambda e: e)(made)
        log = logs[story.logs.get(name, origin)]
        places[name] = (log, log.add(envelopes[name]))
        return changed

    put(
        "commitment",
        Commitment(
            subject=sha256_hex(b"manifest of the commitment"), base=sha256_hex(b"base"), schema=sha256_hex(b"schema"),
            recipe=sha256_hex(b"recipe"), prepared=None, records_root=tree().root, record_count=6,
            group_count=len(tree().groups), committed_at=START,
        ),
        "owner", OWNER_LOG,
    )  # fmt: skip
    listed = tuple(sorted(commitment_of(row) for row in story.rows))
    scope = {
        "records": Scope(kind="records"),
        "subject": Scope(kind="subject", group=opened(0)[0].group.hex()),
        "class": Scope(kind="class", klass=REMOVED),
        "trigger": Scope(kind="trigger", trigger="7" * 64),
    }[story.scope]
    put(
        "request",
        Request(
            subject=sha256_hex(envelopes["commitment"]), scope=scope, records_root=records.list_root(listed),
            record_count=len(listed), on_behalf=not story.by_subject, requested_at=START + 60, deadline=None,
        ),
        *(("subject", AUDITOR_LOG) if story.by_subject else ("owner", OWNER_LOG)),
    )  # fmt: skip
    lines = story.lines
    if lines is None:
        own = (removal(),) if story.scope == "class" else tuple(redirection(row) for row in story.rows)
        lines = (*own[:1], redirection(5, item=7), *own[1:])
    certificate = put(
        "certificate",
        Certificate(
            subject=sha256_hex(b"manifest of the bundle"), commitment=leaf(envelopes["commitment"]),
            requests=(leaf(envelopes["request"]),), opening=None, predecessor=None, dropped=(), method="prune",
            claims_root=claim_lines.root(lines), claim_count=len(lines), inert_outside_supports=True,
            certified_at=START + 120,
        ),
        "owner", OWNER_LOG,
    )  # fmt: skip
    del certificate
    decided: dict[str, Any] = {
        "CONSISTENT": ("CONSISTENT", "CONSISTENT"),
        "REFUTED": ("CONSISTENT", "REFUTED"),
        "INCONCLUSIVE": ("CONSISTENT", "INCONCLUSIVE"),
    }[story.verdict]
    checks = tuple(
        CheckLine(check=check, verdict=verdict, required=True)
        for check, verdict in zip(("binding", "redirection"), decided, strict=True)
    )
    findings = tuple(FindingLine(threat=threat, check=check) for threat, check in story.findings)
    policy = story.policy.encode()
    trust = trust_value()
    trust_bytes = to_bytes(story.trust(trust) if story.trust else trust)
    trust_bytes = story.trust_raw(trust_bytes) if story.trust_raw else trust_bytes
    report = put(
        "report",
        Report(
            subject=report_subject or sha256_hex(b"manifest of the report"), certificate=leaf(envelopes["certificate"]),
            opening=None, nonce=None, profile="redirection", profile_sha256=sha256_hex(PROFILE),
            policy_sha256=sha256_hex(policy), trust_sha256=sha256_hex(trust_bytes), verdict=combine(checks),
            checks=checks, findings=findings, tool="kit", audited_at=START + 180,
        ),
        "auditor", AUDITOR_LOG,
    )  # fmt: skip
    put(
        "receipt",
        Receipt(
            subject=sha256_hex(envelopes["report"]), report=leaf(envelopes["report"]),
            certificate=leaf(envelopes["certificate"]), commitment=leaf(envelopes["commitment"]),
            request=leaf(envelopes["request"]), profile="redirection", verdict=combine(checks), findings=findings,
            issued_at=START + 240,
        ),
        "auditor", AUDITOR_LOG,
    )  # fmt: skip
    for number in range(story.later):
        for log in logs.values():
            log.add(filler(100 + number))
    heads = {origin: story.notes.get(origin, cosigned)(log) for origin, log in logs.items()}
    proofs = {
        name: story.proofs.get(name, lambda p: p)(log.prove(index, note_bytes=heads[log.origin]))
        for name, (log, index) in places.items()
    }
    shown = story.shown
    if shown is None:
        shown = tuple(
            number
            for number, line in enumerate(lines)
            if (parsed := claim_lines.parse_claim(line))
            and (
                isinstance(parsed, claim_lines.ClassRemoval)
                if story.scope == "class"
                else not isinstance(parsed, claim_lines.ClassRemoval) and parsed.record in listed
            )
        )
    paths = merkle.inclusion_proofs(shown, merkle.leaf_hashes(lines))
    file = ReceiptFile(
        envelopes=envelopes,
        proofs=proofs,
        claims=tuple(
            OpenedClaim(line=lines[number], index=number, path=tuple(path))
            for number, path in zip(shown, paths, strict=True)
        ),
        records=listed,
    )
    file = story.file(file) if story.file else file
    data = file.to_bytes()
    return Made(
        story=story, envelopes=envelopes, proofs=proofs, receipt=story.raw(data) if story.raw else data, policy=policy,
        trust=trust_bytes, logs=logs, report=report, certificate_leaf=leaf(envelopes["certificate"]),
    )  # fmt: skip


def changed_json(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """A change of a JSON text by its value, spelled canonically again."""

    def apply(data: bytes) -> bytes:
        value = json.loads(data)
        result = change(value)
        return to_bytes(value if result is None else result)

    return apply
