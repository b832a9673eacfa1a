"""Cases of `verify-receipt`: what SPEC 14.2 accepts, and everything under it that can be wrong."""

import base64
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from protocol.canonical import to_bytes
from protocol.digests import sha256_hex
from protocol.envelope import MAX_ENVELOPE
from protocol.log import note
from protocol.messages.report import FindingLine
from tests.conformance import case, forge
from tests.conformance.case import VERDICTS, Step
from tests.conformance.forge import (
    AUDITOR_LOG,
    OWNER_LOG,
    START,
    WITNESSES,
    Made,
    MiniLog,
    changed_json,
    flip,
    key,
    make,
    policy_text,
    witness_line,
)

CALL = ("verify-receipt", "@receipt", "--policy", "@policy.txt", "--trust", "@trust.json")
FORMS = ("malformed", "non-canonical", "schema")
"""For bytes of which SPEC does not say what is found first."""


def _write(root: Path, name: str, clause: str, why: str, step: Step, made: Made, slip: bytes | None = None) -> None:
    files = {"receipt": made.receipt, "policy.txt": made.policy, "trust.json": made.trust}
    if slip is not None:
        files["slip.npz"] = slip
    case.write(root, f"receipt/{name}", clause=clause, why=why, steps=[step], files=files)


def _step(slip: bytes | None, **expected: Any) -> Step:
    return Step(arguments=CALL + (("--slip", "@slip.npz") if slip is not None else ()), **expected)


# --- valid -----------------------------------------------------------------------------------------


def _padded(size: int) -> Callable[[bytes], bytes]:
    # Unknown fields of an envelope are ignored, so they can make it as long as one likes.
    def change(data: bytes) -> bytes:
        value = json.loads(data)
        room = size - len(to_bytes({**value, "zzz": ""}))
        return to_bytes({**value, "zzz": "x" * room})

    return change


def _spaced(data: bytes) -> bytes:
    return json.dumps(json.loads(data), indent=2).encode()


def _url_safe(data: bytes) -> bytes:
    value = json.loads(data)
    for holder, name in ((value, "payload"), (value["signatures"][0], "sig")):
        raw = base64.b64decode(holder[name])
        holder[name] = base64.urlsafe_b64encode(raw).decode()
    return to_bytes(value)


def _without_keyid(data: bytes) -> bytes:
    value = json.loads(data)
    for signature in value["signatures"]:
        del signature["keyid"]
    return to_bytes({**value, "unknown": {"fields": [1, 2]}})


def _times(name: str, **times: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(value: dict[str, Any]) -> dict[str, Any]:
        for signer in value["signers"]:
            if signer["vkey"].startswith(f"{name}+"):
                signer.update(times)
        return value

    return change


def _with_signer(*entries: dict[str, Any], **thresholds: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(value: dict[str, Any]) -> dict[str, Any]:
        value["signers"] += entries
        if thresholds:
            value["thresholds"] = thresholds
        return value

    return change


def _note(lines: Callable[[MiniLog, bytes], list[bytes]], *extra: str) -> Callable[[MiniLog], bytes]:
    def change(log: MiniLog) -> bytes:
        text = log.text(extra=extra)
        return log.signed(text, lines(log, text))

    return change


def _all(log: MiniLog, text: bytes) -> list[bytes]:
    return [log.own_line(text), *(witness_line(name, text) for name in WITNESSES)]


SEEN = "2026-05-28T20:43:20Z"
"""When the witnesses saw the checkpoints: START + 1000."""
BEFORE, AFTER = "2026-05-28T20:43:19Z", "2026-05-28T20:43:21Z"
SECOND = forge.signer("auditor-two", "auditor", AUDITOR_LOG)


def _only_own(log: MiniLog, text: bytes) -> list[bytes]:
    return [log.own_line(text)]


def _valid() -> Iterator[tuple[str, str, str, dict[str, Any], dict[str, Any]]]:
    yield "consistent", "14.2", "An honest receipt for two records, the owner having asked.", {}, {}
    yield (
        "by-the-subject", "6.4, 14.2", "The subject signed the request, in the auditor's log.",
        {"by_subject": True, "scope": "subject", "rows": (0, 1, 2)}, {"requestedBySubject": True},
    )  # fmt: skip
    yield "class", "14.2", "A class was removed; its claim is in the receipt.", {"scope": "class", "rows": (2, 5)}, {}
    findings = (("noop-patch", "redirection"), ("point-lookup", "redirection"))
    yield (
        "refuted", "14.2", "The report refutes; so does its receipt.", {"verdict": "REFUTED", "findings": findings},
        {"verdict": "REFUTED", "findings": ["noop-patch", "point-lookup"]},
    )  # fmt: skip
    yield (
        "inconclusive-without-lists", "14.2 (7)", "Records may be absent where nothing is CONSISTENT.",
        {
            "verdict": "INCONCLUSIVE", "shown": (),
            "file": lambda f: dataclasses.replace(f, records=()),
        },
        {"verdict": "INCONCLUSIVE"},
    )  # fmt: skip
    yield (
        "refuted-about-something-else", "14.2 (5)",
        "A report that refutes may be about a certificate that answers another request.",
        {
            "verdict": "REFUTED", "findings": (("partial-forget-set", "completeness"),),
            "messages": {"certificate": lambda m: dataclasses.replace(m, requests=("0" * 64,))},
        },
        {"verdict": "REFUTED", "findings": ["partial-forget-set"]},
    )  # fmt: skip
    yield (
        "no-quorum-asked", "5.6", "The policy asks for no witness, and there is none.",
        {"policy": policy_text(quorum="none"), "notes": {o: _note(_only_own) for o in (OWNER_LOG, AUDITOR_LOG)}}, {},
    )  # fmt: skip
    yield (
        "two-of-three", "5.6", "Two of three witnesses are the quorum.",
        {"notes": {AUDITOR_LOG: lambda log: forge.cosigned(log, WITNESSES[1:])}}, {},
    )  # fmt: skip
    yield (
        "strange-lines", "5.1 (c)", "Signature lines by unknown keys are ignored, also where they look like nothing.",
        {
            "notes": {
                OWNER_LOG: _note(
                    lambda log, text: [
                        note.Signature(name="nobody", key_id=b"\1\2\3\4", value=bytes(64)).line, *_all(log, text),
                        note.Signature(name=WITNESSES[0], key_id=b"\1\2\3\4", value=b"\0").line,
                    ]
                )
            }
        },
        {},
    )  # fmt: skip
    yield (
        "extension-lines", "5.2", "Extension lines of a checkpoint are read.",
        {"notes": {OWNER_LOG: _note(_all, "an extension", "another")}}, {},
    )  # fmt: skip
    yield "later-checkpoint", "5.5", "The log grew before the proofs were made.", {"later": 300}, {}
    yield (
        "keyid-lies", "6.1", "A key id names another key, or is missing: it decides nothing.",
        {"envelopes": {"report": _without_keyid, "certificate": changed_json(
            lambda v: v["signatures"][0].update(keyid="auditor+00000000"))}}, {},
    )  # fmt: skip
    yield "url-safe", "2.6, 6.1", "Envelopes may use the URL-safe alphabet.", {"envelopes": {"report": _url_safe}}, {}
    yield "spaced-envelope", "6.1", "Envelopes are read in any spelling.", {"envelopes": {"commitment": _spaced}}, {}
    yield (
        "largest-envelope", "6.1, 5.4", "An envelope, and log entry, of 65,535 bytes.",
        {"envelopes": {"commitment": _padded(MAX_ENVELOPE)}}, {},
    )  # fmt: skip
    yield (
        "threshold-met", "6.1, 6.4", "Two different keys of the role signed, two are needed.",
        {
            "signers": {"report": ("auditor", "auditor-two"), "receipt": ("auditor-two", "auditor")},
            "trust": _with_signer(SECOND, auditor=2),
        },
        {},
    )  # fmt: skip
    yield (
        "a-stranger-beside", "6.1", "A further signature by a stranger changes nothing.",
        {"signers": {"report": ("stranger", "auditor")}}, {},
    )  # fmt: skip
    yield (
        "revoked-later", "6.3, 6.4", "A key that was revoked after the witnesses saw its signature.",
        {"trust": _times("owner", revokedSince=AFTER, validFrom=SEEN, validTo=AFTER)}, {},
    )  # fmt: skip


# --- invalid: the receipt's file -------------------------------------------------------------------


def _raw() -> Iterator[tuple[str, str, str, tuple[str, ...], Callable[[bytes], bytes]]]:
    yield "empty", "14.1", "An empty file.", FORMS, lambda _: b""
    yield "no-json", "2.1", "Not JSON.", FORMS, lambda d: d[:-1]
    yield "trailing-newline", "2.2, 14.1", "A newline behind the one spelling.", FORMS, lambda d: d + b"\n"
    yield "byte-order-mark", "2.1", "A byte order mark.", FORMS, lambda d: b"\xef\xbb\xbf" + d
    yield "spaces", "2.2, 14.1", "White space between tokens.", FORMS, lambda d: d.replace(b'":', b'": ', 1)
    yield (
        "unsorted", "2.2", "The keys in another order.", FORMS,
        lambda d: b'{"version":"prune-audit/receipt/v1",' + d[1:].replace(b',"version":"prune-audit/receipt/v1"', b""),
    )  # fmt: skip
    yield (
        "escaped", "2.2", "A character escaped that need not be.", FORMS,
        lambda d: d.replace(b'"version"', b'"\\u0076ersion"'),
    )  # fmt: skip
    yield (
        "duplicate-key", "2.1 (b)", "The object holds `version` twice.", FORMS,
        lambda d: d[:-1] + b',"version":"prune-audit/receipt/v1"}',
    )  # fmt: skip
    yield (
        "duplicate-proof", "2.1 (b)", "`proofs` holds the report's proof twice, first another one.", FORMS,
        lambda d: d.replace(b'"proofs":{', b'"proofs":{"report":"AAAA",', 1),
    )  # fmt: skip
    yield (
        "version-two", "1.4 (d)", "A version that nobody knows.", ("unsupported-version",),
        lambda d: d.replace(b"receipt/v1", b"receipt/v2"),
    )  # fmt: skip
    yield (
        "unknown-field", "2.1 (e)", "A field that the table does not have.", FORMS,
        changed_json(lambda v: {**v, "note": "x"}),
    )  # fmt: skip
    yield (
        "null-proof", "2.1 (e)", "An optional field is left out, never null.", FORMS,
        changed_json(lambda v: v["proofs"].update(report=None)),
    )  # fmt: skip
    yield (
        "no-certificate", "14.1", "One of the five envelopes is missing.", FORMS,
        changed_json(lambda v: v["envelopes"].pop("certificate") and None),
    )  # fmt: skip
    yield (
        "a-sixth-envelope", "14.1", "A sixth envelope.", FORMS,
        changed_json(lambda v: v["envelopes"].update(answer=v["envelopes"]["report"])),
    )  # fmt: skip
    yield (
        "base64-bits", "2.6", "Base64 whose unused bits are not zero: the same bytes in a second spelling.", FORMS,
        changed_json(lambda v: v["proofs"].update(report=_other_bits(v["proofs"]["report"]))),
    )  # fmt: skip
    yield (
        "base64-unpadded", "2.6", "Base64 without its padding.", FORMS,
        changed_json(lambda v: v["proofs"].update({k: t.rstrip("=") for k, t in v["proofs"].items()})),
    )  # fmt: skip
    yield (
        "upper-case-digest", "2.6", "A digest in upper case.", FORMS,
        changed_json(lambda v: v.update(records=[r.upper() for r in v["records"]])),
    )  # fmt: skip
    yield (
        "unsorted-records", "14.1", "The records descend.", FORMS,
        changed_json(lambda v: v.update(records=v["records"][::-1])),
    )  # fmt: skip
    yield (
        "record-twice", "14.1", "One record twice.", FORMS,
        changed_json(lambda v: v.update(records=v["records"][:1] + v["records"])),
    )  # fmt: skip
    yield (
        "claims-descend", "14.1", "The claims do not ascend by index.", FORMS,
        changed_json(lambda v: v.update(claims=v["claims"][::-1])),
    )  # fmt: skip
    yield (
        "claim-twice", "14.1", "One claim twice.", FORMS,
        changed_json(lambda v: v.update(claims=v["claims"][:1] + v["claims"])),
    )  # fmt: skip
    yield (
        "fraction", "2.1 (c)", "An index with a fraction.", FORMS,
        lambda d: d.replace(b'"index":0', b'"index":0.0', 1),
    )  # fmt: skip
    yield "deep", "2.1 (a)", "Nested a hundred thousand deep.", ("too-large", *FORMS), lambda d: b"[" * 100_000
    yield "lone-surrogate", "2.1 (d)", "A lone surrogate.", FORMS, changed_surrogate
    yield "not-utf8", "2.1 (a)", "Bytes that are not UTF-8.", FORMS, lambda d: d.replace(b"version", b"versi\xffn")


def changed_surrogate(data: bytes) -> bytes:
    """An unknown key that is a lone surrogate."""
    return b'{"\\ud800":1,' + data[1:]


def _other_bits(text: str) -> str:
    # The last character before padding, with a bit that no byte uses; a proof ends where the kit wants it to.
    body = text.rstrip("=")
    if body == text:
        return text[:-4] + "AB=="
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return body[:-1] + alphabet[alphabet.index(body[-1]) | 1] + text[len(body) :]


# --- invalid: signatures, keys, thresholds ---------------------------------------------------------


def _forged(data: bytes) -> bytes:
    value = json.loads(data)
    signature = value["signatures"][0]
    signature["sig"] = base64.b64encode(flip(base64.b64decode(signature["sig"]), 10)).decode()
    return to_bytes(value)


def _twice(data: bytes) -> bytes:
    value = json.loads(data)
    value["signatures"] *= 2
    return to_bytes(value)


def _none(data: bytes) -> bytes:
    return to_bytes({**json.loads(data), "signatures": []})


def _resigned_payload(data: bytes) -> bytes:
    # The payload of another time, under the signature of this one.
    value = json.loads(data)
    payload = base64.b64decode(value["payload"])
    value["payload"] = base64.b64encode(payload.replace(b'"tool":"kit"', b'"tool":"kid"')).decode()
    return to_bytes(value)


def _signatures() -> Iterator[tuple[str, str, str, tuple[str, ...], tuple[str, ...], dict[str, Any]]]:
    for name in forge.ENVELOPES:
        yield (
            f"forged-{name}", "6.4 (3)", f"The {name} is in the log, with a signature that does not verify.",
            ("unknown-key", "bad-signature"), (name,), {"envelopes": {name: _forged}},
        )  # fmt: skip
        yield (
            f"stranger-{name}", "6.4 (3)", f"The {name} is signed by a stranger who gives a trusted key's id.",
            ("unknown-key",), (name,), {"signers": {name: ("*stranger",)}},
        )  # fmt: skip
    yield (
        "re-signed-payload", "6.1", "The report's payload was changed after it was signed, then logged.",
        ("unknown-key", "bad-signature"), ("report",), {"envelopes": {"report": _resigned_payload}},
    )  # fmt: skip
    yield (
        "no-signature", "6.1", "An envelope with no signature.", (*FORMS, "unknown-key"), ("certificate",),
        {"envelopes": {"certificate": _none}},
    )  # fmt: skip
    yield (
        "envelope-duplicate-key", "2.1 (b), 6.1", "An envelope with two payloads; the last one is signed.", FORMS,
        ("report",), {"envelopes": {"report": lambda e: b'{"payload":"e30=",' + e[1:]}},
    )  # fmt: skip
    yield (
        "seventeen-signatures", "6.1", "An envelope with 17 signatures.", ("too-large", *FORMS), ("certificate",),
        {"signers": {"certificate": ("owner",) * 17}},
    )  # fmt: skip
    yield (
        "owner-signs-the-report", "6.4", "The owner signed the report: another role.", ("unknown-key",), ("report",),
        {"signers": {"report": ("owner",)}},
    )  # fmt: skip
    yield (
        "auditor-signs-the-certificate", "6.4", "The auditor signed the certificate: another role.", ("unknown-key",),
        ("certificate",), {"signers": {"certificate": ("auditor",)}},
    )  # fmt: skip
    yield (
        "report-in-the-owners-log", "6.3, 6.4", "The report is in a log where the auditor's signature does not count.",
        ("unknown-key",), ("report",), {"logs": {"report": OWNER_LOG}},
    )  # fmt: skip
    yield (
        "same-key-threshold", "6.1", "Two signatures are needed; one key signed twice.", ("unknown-key",), ("report",),
        {
            "signers": {"receipt": ("auditor", "auditor-two")},
            "envelopes": {"report": _twice},
            "trust": _with_signer(SECOND, auditor=2),
        },
    )  # fmt: skip
    yield (
        "threshold-unmet", "6.4 (3)", "Two keys are needed, one signed.", ("unknown-key",), ("report", "receipt"),
        {"trust": _with_signer(SECOND, auditor=2)},
    )  # fmt: skip
    yield (
        "revoked", "6.3, 6.4", "The owner's key was revoked before the witnesses saw its signature.", ("expired",),
        ("certificate", "commitment", "request"), {"trust": _times("owner", revokedSince=SEEN)},
    )  # fmt: skip
    yield (
        "not-yet-valid", "6.3, 6.4", "The auditor's key was not valid yet.", ("expired",), ("receipt", "report"),
        {"trust": _times("auditor", validFrom=AFTER)},
    )  # fmt: skip
    yield (
        "no-longer-valid", "6.3, 6.4", "The auditor's key was no longer valid, by a second.", ("expired",),
        ("receipt", "report"), {"trust": _times("auditor", validTo=SEEN)},
    )  # fmt: skip
    yield (
        "time-limit-without-quorum-time", "6.4 (3)",
        "A key with a time limit does not count without a quorum's time, and the policy asks for no quorum.",
        ("expired",), ("certificate", "commitment", "request"),
        {"policy": policy_text(quorum="none"), "trust": _times("owner", validFrom="2020-01-01T00:00:00Z")},
    )  # fmt: skip


# --- invalid: logs, proofs, checkpoints ------------------------------------------------------------


def _lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        return b"\n".join(change(data.split(b"\n")))

    return apply


def _swapped_hash(data: bytes) -> bytes:
    lines = data.split(b"\n")
    lines[2] = base64.b64encode(flip(base64.b64decode(lines[2]), 3))
    return b"\n".join(lines)


def _bad_cosignature(log: MiniLog, text: bytes) -> list[bytes]:
    lines = _all(log, text)
    head, _, encoded = lines[1].rstrip(b"\n").rpartition(b" ")
    lines[1] = head + b" " + base64.b64encode(flip(base64.b64decode(encoded), 40)) + b"\n"
    return lines


def _witness_twice(log: MiniLog, text: bytes) -> list[bytes]:
    return [
        log.own_line(text), witness_line(WITNESSES[0], text), witness_line(WITNESSES[0], text, START + 1001),
        witness_line("witness-nobody", text),
    ]  # fmt: skip


def _timeless(log: MiniLog, text: bytes) -> list[bytes]:
    by = key(WITNESSES[0], "witness")
    value = bytes(8) + by.sign(b"cosignature/v1\ntime 0\n" + text)
    line = note.Signature(name=by.name, key_id=by.verifier.key_id, value=value).line
    return [log.own_line(text), line, *(witness_line(name, text) for name in WITNESSES[1:])]


def _log_key_as_witness(log: MiniLog, text: bytes) -> list[bytes]:
    # A plain note signature (type 0x01's message) in the place of a cosignature.
    lines = [log.own_line(text), witness_line(WITNESSES[0], text)]
    by = key(WITNESSES[1], "witness")
    value = (START + 1000).to_bytes(8, "big") + by.sign(text)
    return [*lines, note.Signature(name=by.name, key_id=by.verifier.key_id, value=value).line]


def _logs() -> Iterator[tuple[str, str, str, tuple[str, ...], tuple[str, ...], dict[str, Any]]]:
    only = {OWNER_LOG: _note(_only_own)}
    yield "no-quorum", "5.6, 14.2 (2)", "No witness cosigned the owner's log.", ("no-quorum",), (), {"notes": only}
    yield (
        "one-of-three", "5.6", "One of three witnesses cosigned, two are needed.", ("no-quorum",), ("receipt", "report"),
        {"notes": {AUDITOR_LOG: lambda log: forge.cosigned(log, WITNESSES[:1])}},
    )  # fmt: skip
    yield (
        "witness-counted-twice", "5.6 (3)", "Two lines by one witness, and one by an unknown one.", ("no-quorum",), (),
        {"notes": {OWNER_LOG: _note(_witness_twice)}},
    )  # fmt: skip
    yield (
        "bad-cosignature", "5.1 (c), 5.6 (3)", "A listed witness's line does not verify: the whole note is refused.",
        ("bad-signature",), (), {"notes": {OWNER_LOG: _note(_bad_cosignature)}},
    )  # fmt: skip
    yield (
        "cosignature-without-time", "5.3", "A cosignature whose time is 0.", ("bad-signature",), (),
        {"notes": {OWNER_LOG: _note(_timeless)}},
    )  # fmt: skip
    yield (
        "cosignature-over-the-plain-text", "5.3", "A witness signed the bare checkpoint, not the message with its time.",
        ("bad-signature",), (), {"notes": {OWNER_LOG: _note(_log_key_as_witness)}},
    )  # fmt: skip
    yield (
        "checkpoint-not-by-the-log", "5.6 (2)", "The checkpoint is not signed by the log, only by witnesses.",
        ("unknown-key",), (), {"notes": {OWNER_LOG: _note(lambda log, text: _all(log, text)[1:])}},
    )  # fmt: skip
    yield (
        "checkpoint-signed-by-another", "5.6 (2)", "The log's line is there and does not verify.", ("bad-signature",), (),
        {"notes": {OWNER_LOG: _note(lambda log, text: [
            note.Signature(name=log.origin, key_id=log.key.verifier.key_id, value=key("stranger").sign(text)).line,
            *_all(log, text)[1:]])}},
    )  # fmt: skip
    yield (
        "unlisted-log", "5.6 (1)", "The owner's log is not in the policy.", ("unknown-key",), (),
        {"policy": policy_text().partition("\n")[2]},
    )  # fmt: skip
    for name in forge.ENVELOPES:
        yield (
            f"no-proof-of-the-{name}", "14.2 (2)", f"The {name} comes without a proof.", ("unverifiable", "inclusion"),
            (name,), {"file": lambda f, name=name: dataclasses.replace(
                f, proofs={k: v for k, v in f.proofs.items() if k != name})},
        )  # fmt: skip
    yield (
        "proof-of-another", "5.5", "The report comes with the receipt's proof.", ("inclusion",), ("report",),
        {"file": lambda f: dataclasses.replace(f, proofs={**f.proofs, "report": f.proofs["receipt"]})},
    )  # fmt: skip
    yield (
        "unlogged-envelope", "5.5 (1)", "The certificate was changed after it was logged (white space).",
        ("inclusion",), ("certificate",),
        {"file": lambda f: dataclasses.replace(
            f, envelopes={**f.envelopes, "certificate": f.envelopes["certificate"] + b" "})},
    )  # fmt: skip
    proofs: tuple[tuple[str, str, str, tuple[str, ...], Callable[[bytes], bytes]], ...] = (
        ("proof-hash", "5.5 (3)", "One bit of an inclusion proof.", ("inclusion",), _swapped_hash),
        ("proof-index", "5.5 (3)", "Another index.", ("inclusion",),
         _next_index),
        ("proof-too-short", "5.9", "An inclusion proof without its last hash.", ("inclusion",),
         _drop_last_hash),
        ("proof-too-long", "5.9", "An inclusion proof with one hash more.", ("inclusion",),
         lambda d: _insert(d, 2, d.split(b"\n")[2])),
        ("proof-extra-line", "5.5", "An `extra` line, which nothing authenticates.", FORMS,
         lambda d: _insert(d, 1, b"extra AAAA")),
        ("proof-version", "5.5, 1.4 (d)", "Another version of the proof's format.", ("unsupported-version",),
         lambda d: d.replace(b"tlog-proof@v1", b"tlog-proof@v2")),
        ("proof-leading-zero", "5.5, 1.4 (b)", "An index with a leading zero.", FORMS,
         lambda d: d.replace(b"\nindex ", b"\nindex 0", 1)),
        ("proof-short-hash", "5.9", "A hash of 31 bytes.", FORMS,
         lambda d: _replace_line(d, 2, base64.b64encode(bytes(31)))),
        ("proof-hash-spelling", "2.6", "A hash in base64 whose unused bits are not zero.", FORMS,
         lambda d: _replace_line(d, 2, _other_bits(d.split(b"\n")[2].decode()).encode())),
        ("proof-carriage-returns", "5.5", "Lines that end in carriage returns.", (*FORMS, "unsupported-version"),
         lambda d: d.replace(b"\n", b"\r\n")),
        ("checkpoint-size-zero-first", "5.2", "A tree size with a leading zero.", (*FORMS, "bad-signature"),
         lambda d: _checkpoint_line(d, 1, lambda line: b"0" + line)),
        ("checkpoint-other-size", "5.1 (c)", "A tree size that the log did not sign.", ("bad-signature",),
         lambda d: _checkpoint_line(d, 1, lambda line: line + b"0")),
        ("checkpoint-without-newline", "5.1 (a)", "The last signature line without its newline.", FORMS,
         lambda d: d[:-1]),
        ("checkpoint-two-newlines", "5.1 (a)", "An empty line at the end.", FORMS, lambda d: d + b"\n"),
        ("checkpoint-control-character", "5.1 (b)", "A tab inside a checkpoint.", (*FORMS, "bad-signature"),
         lambda d: _checkpoint_line(d, 2, lambda line: line + b"\t")),
        ("checkpoint-101-lines", "5.1 (a)", "101 signature lines.", ("too-large", *FORMS),
         lambda d: d + note.Signature(name="nobody", key_id=b"\1\2\3\4", value=bytes(9)).line * 97),
    )  # fmt: skip
    for name, clause, why, reasons, change in proofs:
        # Of the certificate: entry 5 of 6, which has siblings.
        yield name, clause, why, reasons, ("certificate",), {"proofs": {"certificate": change}}


def _insert(data: bytes, number: int, line: bytes) -> bytes:
    lines = data.split(b"\n")
    return b"\n".join([*lines[:number], line, *lines[number:]])


def _replace_line(data: bytes, number: int, line: bytes) -> bytes:
    lines = data.split(b"\n")
    lines[number] = line
    return b"\n".join(lines)


def _next_index(data: bytes) -> bytes:
    lines = data.split(b"\n")
    lines[1] = b"index %d" % (int(lines[1].split()[1]) - 1)
    return b"\n".join(lines)


def _drop_last_hash(data: bytes) -> bytes:
    head, _, tail = data.partition(b"\n\n")
    return b"\n".join(head.split(b"\n")[:-1]) + b"\n\n" + tail


def _checkpoint_line(data: bytes, number: int, change: Callable[[bytes], bytes]) -> bytes:
    head, _, tail = data.partition(b"\n\n")
    lines = tail.split(b"\n")
    lines[number] = change(lines[number])
    return head + b"\n\n" + b"\n".join(lines)


# --- invalid: messages -----------------------------------------------------------------------------


def _statement(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    return changed_json(change)


def _set(**fields: Any) -> Callable[[Any], Any]:
    return lambda message: dataclasses.replace(message, **fields)


def _messages() -> Iterator[tuple[str, str, str, tuple[str, ...], tuple[str, ...], dict[str, Any]]]:
    payloads: tuple[tuple[str, str, str, tuple[str, ...], str, Callable[[bytes], bytes]], ...] = (
        ("payload-spaces", "6.2, 2.2", "A signed payload in another spelling.", FORMS, "report",
         lambda p: p.replace(b'":', b'": ', 1)),
        ("payload-duplicate-key", "2.1 (b)", "A signed payload with `verdict` twice, first another one.", FORMS,
         "report", lambda p: p.replace(b'"verdict":"CONSISTENT"}', b'"verdict":"REFUTED","verdict":"CONSISTENT"}')),
        ("payload-float", "2.1 (c)", "A signed payload with a fraction.", FORMS, "certificate",
         lambda p: p.replace(b'"count":3', b'"count":3.0')),
        ("payload-unknown-field", "2.1 (e)", "A signed predicate with an unknown field.", FORMS, "certificate",
         _statement(lambda v: v["predicate"].update(zzz=1))),
        ("payload-missing-field", "2.1 (e)", "A signed predicate without `method`.", FORMS, "certificate",
         _statement(lambda v: v["predicate"].pop("method") and None)),
        ("two-subjects", "6.2", "A statement about two things.", FORMS, "receipt",
         _statement(lambda v: v["subject"].append(v["subject"][0]))),
        ("subject-name", "6.2", "A statement whose subject has another name.", FORMS, "receipt",
         _statement(lambda v: v["subject"][0].update(name="other.json"))),
        ("subject-two-algorithms", "6.2", "A subject with a second digest.", FORMS, "receipt",
         _statement(lambda v: v["subject"][0]["digest"].update(sha512="0" * 128))),
        ("statement-version", "6.2", "An in-toto statement of an older version.", (*FORMS, "unsupported-version"),
         "receipt", _statement(lambda v: v.update(_type="https://in-toto.io/Statement/v0.1"))),
        ("predicate-version", "6.2, 1.4 (d)", "A message of a version that nobody knows.",
         (*FORMS, "unsupported-version"), "receipt",
         _statement(lambda v: v.update(predicateType="https://prune-audit.dev/receipt/v2"))),
        ("report-verdict", "9.8, 13.2", "A report whose verdict does not follow from its checks.", FORMS, "report",
         _statement(lambda v: v["predicate"]["checks"][1].update(verdict="REFUTED"))),
        ("report-check-twice", "9.8", "A report that lists one check twice.", FORMS, "report",
         _statement(lambda v: v["predicate"]["checks"].append(v["predicate"]["checks"][0]))),
        ("another-word", "1.3", "A verdict that is none.", FORMS, "receipt",
         _statement(lambda v: v["predicate"].update(verdict="UNLEARNED"))),
        ("bad-time", "2.5", "A time with a fraction of a second.", FORMS, "receipt",
         _statement(lambda v: v["predicate"].update(issuedAt="2026-05-28T20:30:40.5Z"))),
    )  # fmt: skip
    for name, clause, why, reasons, which, change in payloads:
        yield name, clause, why, reasons, (which,), {"payloads": {which: change}}
    yield (
        "another-message", "6.2", "The receipt's place holds a validly signed and logged report.", FORMS, ("receipt",),
        {"file": lambda f: dataclasses.replace(
            f, envelopes={**f.envelopes, "receipt": f.envelopes["report"]},
            proofs={**f.proofs, "receipt": f.proofs["report"]})},
    )  # fmt: skip
    yield (
        "payload-type", "6.1", "A signed payload of another type.", FORMS, ("report",),
        {"envelopes": {"report": lambda e: forge.sign(
            base64.b64decode(json.loads(e)["payload"]), ("auditor",), "application/json")}},
    )  # fmt: skip
    yield (
        "envelope-of-65536-bytes", "6.1, 5.4", "An envelope of 65,536 bytes, which no log can hold.", ("too-large",),
        ("commitment", "envelopes"), {"envelopes": {"commitment": _padded(MAX_ENVELOPE + 1)}},
    )  # fmt: skip
    for field, which in (
        ("report", "report"), ("certificate", "certificate"), ("commitment", "commitment"), ("request", "request"),
    ):  # fmt: skip
        yield (
            f"names-another-{which}", "14.2 (4)", f"The receipt names the log entry of another {which}.",
            ("digest-mismatch",), (which, "receipt"), {"messages": {"receipt": _set(**{field: "0" * 64})}},
        )  # fmt: skip
    yield (
        "swapped-subject", "14.2 (4)", "The receipt's subject is the digest of another report.", ("digest-mismatch",), (),
        {"messages": {"receipt": _set(subject=sha256_hex(b"another report"))}},
    )  # fmt: skip
    yield (
        "report-about-another-certificate", "14.2 (4)", "The report is about another certificate.",
        ("digest-mismatch",), (), {"messages": {"report": _set(certificate="0" * 64)}},
    )  # fmt: skip
    yield (
        "trigger-answered", "14.2 (7)", "A request about a trigger, which no claim can answer, called CONSISTENT.",
        ("digest-mismatch",), (), {"scope": "trigger"},
    )  # fmt: skip
    yield (
        "better-verdict", "14.2 (4)", "The report refutes, the receipt says CONSISTENT.", ("digest-mismatch",), (),
        {"verdict": "REFUTED", "findings": (("noop-patch", "redirection"),),
         "messages": {"receipt": _set(verdict="CONSISTENT")}},
    )  # fmt: skip
    yield (
        "findings-left-out", "14.2 (4)", "The receipt leaves out the report's findings.", ("digest-mismatch",), (),
        {"verdict": "REFUTED", "findings": (("noop-patch", "redirection"),), "messages": {"receipt": _set(findings=())}},
    )  # fmt: skip
    yield (
        "findings-added", "14.2 (4)", "The receipt adds a finding.", ("digest-mismatch",), (),
        {"messages": {"receipt": _set(findings=(FindingLine(threat="base-swap", check="binding"),))}},
    )  # fmt: skip
    yield (
        "another-profile", "14.2 (4)", "Receipt and report name different profiles.", ("digest-mismatch",), (),
        {"messages": {"receipt": _set(profile="indistinguishable")}},
    )  # fmt: skip
    yield (
        "certificate-answers-another-request", "14.2 (5)", "The certificate does not name this request.",
        ("digest-mismatch",), (), {"messages": {"certificate": _set(requests=("0" * 64,))}},
    )  # fmt: skip
    yield (
        "certificate-of-another-commitment", "14.2 (5)", "The certificate names another commitment.",
        ("digest-mismatch",), (), {"messages": {"certificate": _set(commitment="0" * 64)}},
    )  # fmt: skip
    yield (
        "request-about-another-commitment", "14.2 (5)", "The request's subject is another commitment.",
        ("digest-mismatch",), (), {"messages": {"request": _set(subject="0" * 64)}},
    )  # fmt: skip


# --- invalid: claims and records -------------------------------------------------------------------


def _claims() -> Iterator[tuple[str, str, str, tuple[str, ...], tuple[str, ...], dict[str, Any]]]:
    def first(**fields: Any) -> Callable[[Any], Any]:
        return lambda f: dataclasses.replace(f, claims=(dataclasses.replace(f.claims[0], **fields), *f.claims[1:]))

    at = ("claims",)
    yield (
        "claim-changed", "14.2 (6)", "A claim's radius was changed: it is not under the certificate's root.",
        ("inclusion",), at,
        {"file": lambda f: first(line=f.claims[0].line.replace(b'"radius":"1"', b'"radius":"9"'))(f)},
    )  # fmt: skip
    yield (
        "claim-path", "14.2 (6)", "One bit of a claim's path.", ("inclusion",), at,
        {"file": lambda f: first(path=(flip(f.claims[0].path[0], 0), *f.claims[0].path[1:]))(f)},
    )  # fmt: skip
    yield (
        "claim-path-short", "14.2 (6)", "A claim's path without its last hash.", ("inclusion",), at,
        {"file": lambda f: first(path=f.claims[0].path[:-1])(f)},
    )  # fmt: skip
    yield (
        "claim-index", "14.2 (6)", "A claim at another index.", ("inclusion",), at, {"file": first(index=1)},
    )  # fmt: skip
    yield (
        "claim-beyond-the-count", "14.2 (6)", "A claim at an index that the certificate does not have.", ("inclusion",),
        at, {"file": lambda f: dataclasses.replace(
            f, claims=(f.claims[0], dataclasses.replace(f.claims[1], index=3)))},
    )  # fmt: skip
    yield (
        "claim-count", "14.2 (6)", "The certificate counts one claim more than its root has.", ("inclusion",), at,
        {"messages": {"certificate": lambda m: dataclasses.replace(m, claim_count=m.claim_count + 1)}},
    )  # fmt: skip
    yield (
        "claim-left-out", "14.2 (7)", "A requested record has no claim in the receipt, the verdict being CONSISTENT.",
        ("digest-mismatch", "unverifiable"), (), {"shown": (0,)},
    )  # fmt: skip
    yield (
        "no-claims", "14.2 (7)", "No claim at all, the verdict being CONSISTENT.", ("digest-mismatch", "unverifiable"),
        (), {"shown": ()},
    )  # fmt: skip
    yield (
        "somebody-elses-claim", "14.2 (6)", "A claim about a record that the request does not list.",
        ("digest-mismatch", "unverifiable"), at, {"shown": (0, 1, 2)},
    )  # fmt: skip
    yield (
        "a-class-nobody-named", "14.2 (6)", "A class removal in a receipt for records.",
        ("digest-mismatch", "unverifiable"), at,
        {"lines": (forge.redirection(0), forge.redirection(1), forge.removal()), "shown": (0, 1, 2)},
    )  # fmt: skip
    yield (
        "another-class", "14.2 (6)", "The removal of another class than the request's.",
        ("digest-mismatch", "unverifiable"), at,
        {"scope": "class", "rows": (2, 5), "lines": (forge.removal(1),), "shown": (0,)},
    )  # fmt: skip
    yield (
        "class-without-claim", "14.2 (7)", "A class request, CONSISTENT, with no claim.",
        ("digest-mismatch", "unverifiable"), (), {"scope": "class", "rows": (2, 5), "shown": ()},
    )  # fmt: skip
    yield (
        "class-without-removal", "14.2 (7)",
        "A class request, CONSISTENT, whose only claim says that nothing is claimed about one record.",
        ("digest-mismatch", "unverifiable"), (),
        {"scope": "class", "rows": (2, 5), "lines": (forge.no_redirection(2), forge.redirection(0)), "shown": (0,)},
    )  # fmt: skip
    yield (
        "claim-in-another-spelling", "11.1, 14.2 (6)", "A claim line with a space, included in the certificate's root.",
        FORMS, at, {"lines": (forge.redirection(0).replace(b'":', b'": ', 1), forge.redirection(1)), "shown": (0, 1)},
    )  # fmt: skip
    yield (
        "claim-of-another-kind", "11.1", "A claim of a kind that nobody knows, included in the root.", FORMS, at,
        {"lines": (forge.redirection(0), forge.redirection(1), b'{"kind":"oblivion","record":"' + b"0" * 64 + b'"}'),
         "shown": (0, 1, 2)},
    )  # fmt: skip
    yield (
        "negative-margin", "11.2", "A claim with a negative margin, included in the root.", FORMS, at,
        {"lines": (forge.redirection(0).replace(b'{"logits":["-1","0.5","2"]}', b'{"argmax":1,"margin":"-1"}'),
                   forge.redirection(1)), "shown": (0, 1)},
    )  # fmt: skip
    yield (
        "records-left-out", "14.2 (7)", "One requested record is left out.", ("digest-mismatch", "unverifiable"), (),
        {"file": lambda f: dataclasses.replace(f, records=f.records[1:]), "shown": ()},
    )  # fmt: skip
    yield (
        "no-records", "14.2 (7)", "No records, the verdict being CONSISTENT.", ("digest-mismatch", "unverifiable"), (),
        {"file": lambda f: dataclasses.replace(f, records=(), claims=())},
    )  # fmt: skip
    yield (
        "a-record-too-many", "14.2 (7)", "A record that was not requested, with its claim.",
        ("digest-mismatch", "unverifiable"), (),
        {"shown": (0, 1, 2), "file": lambda f: dataclasses.replace(
            f, records=tuple(sorted({*f.records, forge.commitment_of(5)})))},
    )  # fmt: skip
    yield (
        "other-records-though-refuted", "14.2 (7)", "Records of somebody else in a receipt that is not CONSISTENT.",
        ("digest-mismatch", "unverifiable"), (),
        {"verdict": "REFUTED", "shown": (),
         "file": lambda f: dataclasses.replace(f, records=(forge.commitment_of(5),))},
    )  # fmt: skip


# --- invalid: policy and trust ---------------------------------------------------------------------


def _vkey(name: str, public: bytes, use: int = 1) -> str:
    import hashlib

    body = bytes([use]) + public
    digits = hashlib.sha256(name.encode() + b"\n" + body).hexdigest()[:8]
    return f"{name}+{digits}+{base64.b64encode(body).decode()}"


def _owner_key(vkey: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(value: dict[str, Any]) -> dict[str, Any]:
        value["signers"][0]["vkey"] = vkey
        return value

    return change


def _trusts() -> Iterator[tuple[str, str, str, tuple[str, ...], dict[str, Any]]]:
    yield (
        "low-order-key", "4.2", "The owner's key is a point of low order: anybody can make signatures that verify.", FORMS,
        {"trust": _owner_key(_vkey("owner", (1).to_bytes(32, "little")))},
    )  # fmt: skip
    yield (
        "non-canonical-key", "4.2", "The owner's key has a y coordinate above the field's size.", FORMS,
        {"trust": _owner_key(_vkey("owner", ((1 << 255) - 19 + 3).to_bytes(32, "little")))},
    )  # fmt: skip
    yield (
        "key-id", "4.3", "A verifier key whose key id is not its own.", FORMS,
        {"trust": _owner_key("owner+00000000+" + key("owner").verifier.vkey.split("+", 2)[2])},
    )  # fmt: skip
    yield (
        "witness-key-as-signer", "4.1, 6.3", "A key for cosignatures in the trust file.", FORMS,
        {"trust": _owner_key(key("owner", "witness").verifier.vkey)},
    )  # fmt: skip
    yield (
        "one-key-for-two-uses", "4.1", "The owner's statement key is also a log's key in the policy.", FORMS,
        {"policy": policy_text(extra=[f"log {key('owner').verifier.vkey}"])},
    )  # fmt: skip
    yield (
        "threshold-above-keys", "6.3", "A threshold that no signatures can meet.", FORMS,
        {"trust": lambda v: {**v, "thresholds": {"auditor": 2}}},
    )  # fmt: skip
    yield (
        "signer-twice", "6.3", "One key twice for one role, under two names, to meet a threshold.", FORMS,
        {"trust": lambda v: {
            **v, "signers": [*v["signers"], {**v["signers"][1], "vkey": _vkey("other", key("auditor").verifier.public)}],
            "thresholds": {"auditor": 2}}},
    )  # fmt: skip
    yield (
        "trust-version", "1.4 (d), 6.3", "A trust file of a version that nobody knows.", ("unsupported-version",),
        {"trust": lambda v: {**v, "version": "prune-audit/trust/v2"}},
    )  # fmt: skip
    yield (
        "trust-duplicate-key", "2.1 (b), 6.3", "A trust file with two thresholds; the last one is the weaker.", FORMS,
        {"trust": _with_signer(SECOND, auditor=2),
         "trust_raw": lambda d: d.replace(b'"version"', b'"thresholds":{"auditor":1},"version"')},
    )  # fmt: skip
    yield (
        "trust-unknown-field", "2.1 (e), 6.3", "A signer with an unknown field (a revocation misspelt).", FORMS,
        {"trust": _times("owner", revokedsince="2020-01-01T00:00:00Z")},
    )  # fmt: skip
    for name, why, text in (
        ("two-quorums", "Two quorum lines.", policy_text() + "quorum none\n"),
        ("no-quorum-line", "No quorum line.", policy_text().rpartition("quorum")[0]),
        ("undefined-witness", "A group of witnesses that are not defined.",
         policy_text(extra=["group others 1 witness-west"])),
        ("witness-in-two-groups", "A witness in two groups.", policy_text(extra=[f"group g 1 {WITNESSES[0]}"])),
        ("same-witness-key", "One key as two witnesses.",
         policy_text(extra=[f"witness again {key(WITNESSES[0], 'witness').verifier.vkey}"])),
        ("unknown-directive", "A line that the format does not have.", policy_text(extra=["allow everything"])),
        ("log-key-as-witness", "A log's key as a witness.",
         policy_text(extra=[f"witness again {key(OWNER_LOG, 'log').verifier.vkey}"])),
        ("impossible-group", "A group that needs more members than it has.",
         policy_text(extra=[f"witness more {key('more', 'witness').verifier.vkey}", "group g 2 more"])),
    ):  # fmt: skip
        yield f"policy-{name}", "5.6", why, FORMS, {"policy": text}


def write(root: Path) -> None:
    """Write every case of `verify-receipt`."""
    for name, clause, why, story, result in _valid():
        made = make(**story)
        verdict = result.get("verdict", "CONSISTENT")
        expected = {"findings": [], "profile": "redirection", "requestedBySubject": False, "verdict": verdict, **result}
        _write(root, name, clause, why, _step(None, exit=VERDICTS[verdict], result=expected), made)
    honest = make(rows=(0, 1, 2), scope="subject", by_subject=True)
    refused = ("digest-mismatch", "inclusion", "unverifiable")
    for name, why, slip, verdict, reasons in (
        ("slip", "The subject's slip opens the receipt's records.", honest.slip(0, 1, 2), "CONSISTENT", ()),
        ("slip-shares-one", "A slip of which one record is in the request.", honest.slip(2, 3), "CONSISTENT", ()),
        ("slip-of-somebody-else", "A slip of another person's records.", honest.slip(3, 4), "", refused),
        ("slip-wrong-salt", "A slip with another salt.", honest.slip(0, 1, salt=bytes(32)), "", refused),
        ("slip-wrong-label", "A slip with another label.", honest.slip(0, label=7), "", refused),
        ("slip-wrong-place", "A slip whose record lies outside its group.", honest.slip(0, group_start=5), "", refused),
        ("slip-of-another-commitment", "A slip with another commitment.",
         honest.slip(0, commitment=_spaced(honest.envelopes["commitment"])), "", refused),
        ("slip-no-zip", "A slip that is no zip file.", b"PK\3\4 nothing", "", FORMS),
        ("slip-trailing-byte", "A slip with a byte behind its end.", honest.slip(0) + b"\0", "", FORMS),
    ):  # fmt: skip
        expected = (
            {"exit": VERDICTS[verdict], "result": {"verdict": verdict, "requestedBySubject": True}}
            if verdict
            else {"exit": 4, "reasons": reasons, "at": ("slip",)}
        )
        _write(root, name, "8.2, 8.3, 10.5, 14.2 (8)", why, _step(slip, **expected), honest, slip)
    for name, clause, why, reasons, raw in _raw():
        _write(root, f"file-{name}", clause, why, _step(None, exit=4, reasons=reasons), make(raw=raw))
    for cases in (_signatures(), _logs(), _messages(), _claims()):
        for name, clause, why, reasons, at, story in cases:
            _write(root, name, clause, why, _step(None, exit=4, reasons=reasons, at=at), make(**story))
    for name, clause, why, reasons, story in _trusts():
        _write(root, name, clause, why, _step(None, exit=4, reasons=reasons), make(**story))
