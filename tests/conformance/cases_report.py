"""Cases of `verify-report`: a REPORT folder whose files, challenge and receipts are the signed ones, or are not."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from protocol.canonical import to_bytes
from protocol.digests import sha256_hex
from protocol.messages import challenge as challenge_message
from protocol.messages.challenge import Challenge
from protocol.messages.opening import Acknowledgement, Opening, nonce_commitment
from tests.conformance import case, forge
from tests.conformance.case import VERDICTS, Step
from tests.conformance.forge import AUDITOR_LOG, START, Made, MiniLog, cosigned, filler, flip, leaf, make

CALL = ("verify-report", "@report", "--policy", "@policy.txt", "--trust", "@trust.json")
FORMS = ("malformed", "non-canonical", "schema")
CHANGED = ("digest-mismatch",)
NONCE = hashlib.sha256(b"the auditor's nonce").digest()
ROLES = {
    "report.html": "page", "summary.json": "summary", "profile.yaml": "profile", "plan.yaml": "plan",
    "transcript/opening.dsse.json": "transcript", "transcript/challenge.dsse.json": "transcript",
    "transcript/challenge.tlog-proof": "transcript", "transcript/entry.dsse.json": "transcript",
    "transcript/entry.tlog-proof": "transcript",
}  # fmt: skip
PLAN = (
    "version: prune-audit/plan/v1\nprofile: redirection\n"
    f'profile_sha256: "{sha256_hex(forge.PROFILE)}"\nseed: 1\nopenings: 2\nanswer_within_hours: 1\n'
).encode()
Files = dict[str, bytes]


def manifest_of(files: Mapping[str, bytes], refers: str, *, roles: Mapping[str, str] = ROLES) -> bytes:
    """A manifest; hostile paths included, which the project's own writer refuses."""
    entries = [
        {"path": path, "role": roles.get(path, "page"), "size": len(data), "sha256": sha256_hex(data)}
        for path, data in sorted(files.items())
    ]
    return to_bytes({"version": "prune-audit/manifest/v1", "refers": refers, "files": entries})


def _opening(requests: tuple[str, ...]) -> bytes:
    message = Opening(
        subject=sha256_hex(PLAN), requests=requests, nonce_commitment=nonce_commitment(NONCE), answer_within=3600,
        opened_at=START,
    )  # fmt: skip
    return forge.sign(message.payload(), ("auditor",))


def report(
    *,
    listed: Callable[[Files], Files] = lambda files: files,
    manifest: Callable[[bytes], bytes] = lambda data: data,
    refers: str | None = None,
    names: Mapping[str, Any] | None = None,
    challenge: Callable[[Challenge], Challenge] = lambda message: message,
    challenge_signer: str = "auditor",
    entry: Callable[[bytes, bytes], bytes] | None = None,
    plain: bool = False,
    **story: Any,
) -> tuple[Made, Files]:
    """An honest report's folder, changed at one place before it is signed.

    Args:
        listed: a change of the listed files.
        manifest: a change of the manifest's bytes.
        refers: what the manifest refers to, in place of the certificate.
        names: fields of the report that name other things than there are.
        challenge: a change of the challenge.
        challenge_signer: who signs it.
        entry: the owner's entry that the challenge answers, made from certificate and opened audit; the certificate.
        plain: a report without an opened audit.
        story: as of `forge.Story`.
    """
    first = make(**story)
    opening = _opening((leaf(first.envelopes["request"]),))
    named = {} if plain else {"certificate": lambda m: dataclasses.replace(m, opening=leaf(opening))}
    second = make(**story, messages=named)
    certificate = second.certificate_leaf
    named_by = second.envelopes["certificate"] if entry is None else entry(second.envelopes["certificate"], opening)
    value = challenge_message.value(NONCE, bytes.fromhex(leaf(named_by)))
    asked = challenge(
        Challenge(
            subject=sha256_hex(second.envelopes["certificate"]), opening=leaf(opening), answers=leaf(named_by),
            seed=challenge_message.seed(value, "locality"), count=2, population=6, challenged_at=START + 150,
        )
    )  # fmt: skip
    challenged = forge.sign(asked.payload(), (challenge_signer,))
    early = () if plain else (opening, challenged)
    files: Files = {"report.html": b"<p>a page</p>", "summary.json": b"{}", "profile.yaml": forge.PROFILE}
    if not plain:
        then = MiniLog(AUDITOR_LOG, [*(filler(number) for number in range(3)), *early])
        files |= {
            "plan.yaml": PLAN,
            "transcript/opening.dsse.json": opening,
            "transcript/challenge.dsse.json": challenged,
            "transcript/challenge.tlog-proof": then.prove(4, note_bytes=cosigned(then)),
            "transcript/entry.dsse.json": named_by,
            **({"transcript/entry.tlog-proof": second.proofs["certificate"]} if entry is None else {}),
        }
    files = listed(files)
    raw = manifest(manifest_of(files, certificate if refers is None else refers))
    told = {
        "subject": sha256_hex(raw),
        **({} if plain else {"opening": leaf(opening), "nonce": NONCE}),
        **(names or {}),
    }
    made = make(**story, messages={**named, "report": lambda m: dataclasses.replace(m, **told)}, early=early)
    return made, {
        **files,
        "manifest.json": raw,
        "report.dsse.json": made.envelopes["report"],
        "proofs/report.tlog-proof": made.proofs["report"],
        "receipts/000.receipt": made.receipt,
    }


def _acknowledged(signer: str, **changes: str) -> Callable[[bytes, bytes], bytes]:
    """An acknowledgement by somebody, of something else where that is named."""

    def made(certificate: bytes, opening: bytes) -> bytes:
        message = Acknowledgement(
            subject=sha256_hex(certificate), opening=leaf(opening), certificate=leaf(certificate),
            acknowledged_at=START + 120,
        )  # fmt: skip
        return forge.sign(dataclasses.replace(message, **changes).payload(), (signer,))

    return made


def _for_another_entry(message: Challenge) -> Challenge:
    value = challenge_message.value(NONCE, bytes(32))
    return dataclasses.replace(message, answers=bytes(32).hex(), seed=challenge_message.seed(value, "locality"))


def _write(root: Path, name: str, clause: str, why: str, made: Made, files: Files, **expected: Any) -> Path:
    contents = {f"report/{path}": data for path, data in files.items()}
    case.write(
        root, f"report/{name}", clause=clause, why=why, steps=[Step(arguments=CALL, **expected)],
        files={**contents, "policy.txt": made.policy, "trust.json": made.trust},
    )  # fmt: skip
    return root / "report" / name / "report"


def write(root: Path) -> None:
    """Write every case of `verify-report`."""
    made, good = report()
    for name, why, story in (
        ("honest", "An honest report, with its challenge and receipt.", {}),
        ("refuted", "An honest report that refutes.",
         {"verdict": "REFUTED", "findings": (("noop-patch", "redirection"),)}),
        ("inconclusive", "An honest report that does not know.", {"verdict": "INCONCLUSIVE"}),
        ("acknowledged", "An audit that was opened later, and acknowledged.", {"entry": _acknowledged("owner")}),
        ("without-an-opened-audit", "A report that no opened audit preceded.", {"plain": True}),
    ):  # fmt: skip
        verdict = str(story.get("verdict", "CONSISTENT"))
        result = {"verdict": verdict, "profile": "redirection"}
        _write(root, name, "14.4", why, *report(**story), exit=VERDICTS[verdict], result=result)

    # Damage after signing: nobody is accused.
    for name, why, files, reasons in (
        ("page-changed", "The page was changed.", {**good, "report.html": b"<p>A page</p>"}, CHANGED),
        ("summary-longer", "A listed file of another size.", {**good, "summary.json": b"{} "}, CHANGED),
        ("manifest-changed", "The manifest lists another digest.",
         {**good, "manifest.json": good["manifest.json"].replace(b'"sha256":"', b'"sha256":"0', 1)}, (*FORMS, *CHANGED)),
        ("file-missing", "A listed file is missing.", _without(good, "report.html"), (*CHANGED, *FORMS, "unverifiable")),
        ("file-unlisted", "A file that nothing lists.", {**good, "notes.txt": b"x"}, FORMS),
        ("unlisted-proof", "A second proof that belongs to nothing.",
         {**good, "proofs/other.tlog-proof": good["proofs/report.tlog-proof"]}, FORMS),
        ("no-proof", "Nothing shows that the report is logged.", _without(good, "proofs/report.tlog-proof"),
         ("unverifiable", "inclusion", *FORMS)),
        ("envelope-changed", "The envelope has a space more than its log entry.",
         {**good, "report.dsse.json": good["report.dsse.json"] + b" "}, ("inclusion",)),
        ("receipt-damaged", "A receipt with one bit changed.",
         {**good, "receipts/000.receipt": flip(good["receipts/000.receipt"], 300)},
         ("inclusion", "unknown-key", "bad-signature", *CHANGED, *FORMS)),
        ("receipt-of-another-report", "A valid receipt of another report.",
         {**good, "receipts/001.receipt": report(listed=lambda f: {**f, "report.html": b"other"})[1]["receipts/000.receipt"]},
         CHANGED),
    ):  # fmt: skip
        _write(root, name, "8.1, 14.4", why, made, files, exit=4, reasons=reasons)
    place = _write(
        root, "symbolic-link", "8.1 (c)", "A listed file is a link to a file of the right contents.", made, good, exit=4,
        reasons=(*FORMS, *CHANGED),
    )  # fmt: skip
    (place / "report.html").unlink()
    (place.parent / "page").write_bytes(good["report.html"])
    (place / "report.html").symlink_to("../page")

    # What the auditor signed, and should not have.
    challenge = "transcript/challenge.dsse.json"
    changes: tuple[tuple[str, str, str, tuple[str, ...], dict[str, Any]], ...] = (
        ("manifest-of-another", "14.4 (1)", "The manifest refers to another certificate.", CHANGED, {"refers": "0" * 64}),
        ("another-profile", "14.4 (2)", "The profile is not the one that the report names.", CHANGED,
         {"names": {"profile_sha256": "0" * 64}}),
        ("no-profile", "14.4 (2)", "The profile is not there.", (*CHANGED, "unverifiable", *FORMS),
         {"listed": lambda f: _without(f, "profile.yaml")}),
        ("another-nonce", "14.4 (2)", "The nonce is not the one that the opened audit committed to.", CHANGED,
         {"names": {"nonce": bytes(32)}}),
        ("another-opening", "14.4 (2)", "The opened audit is not the one that the report names.", CHANGED,
         {"names": {"opening": "0" * 64}}),
        ("another-plan", "14.4 (2)", "The plan is not the one that the audit was opened with.", CHANGED,
         {"listed": lambda f: {**f, "plan.yaml": f["plan.yaml"] + b"# more\n"}}),
        ("nonce-without-opening", "14.4 (2)", "A nonce, and no opened audit.", (*CHANGED, *FORMS),
         {"plain": True, "names": {"nonce": NONCE}}),
        ("challenge-without-nonce", "14.4 (3)", "A challenge was made, and the report keeps its nonce secret.",
         (*CHANGED, "unverifiable"), {"names": {"nonce": None}}),
        ("chosen-challenge", "14.4 (3)", "A challenge that does not follow from the nonce: the auditor chose it.", CHANGED,
         {"challenge": lambda c: dataclasses.replace(c, seed=bytes(32))}),
        ("challenge-of-another-audit", "14.4 (3)", "A challenge of another opened audit.", CHANGED,
         {"challenge": lambda c: dataclasses.replace(c, opening="0" * 64)}),
        ("challenge-by-a-stranger", "14.4 (3)", "A challenge that the auditor did not sign.", ("unknown-key",),
         {"challenge_signer": "*stranger"}),
        ("challenge-without-proof", "14.4 (3)", "A challenge of which nothing shows that it was logged.",
         (*CHANGED, "unverifiable", "inclusion", *FORMS),
         {"listed": lambda f: _without(f, "transcript/challenge.tlog-proof")}),
        ("challenge-exchanged", "14.4 (3), 5.5", "Another challenge than the one that its proof is for.",
         (*CHANGED, "inclusion"),
         {"listed": lambda f: {**f, challenge: f[challenge] + b"\n"}}),
        ("challenge-for-an-invented-entry", "14.4 (3)",
         "A challenge for an entry that the owner never made: whoever invents it chooses the challenge.", CHANGED,
         {"challenge": _for_another_entry}),
        ("entry-not-there", "14.4 (3)", "The owner's entry that the challenge answers is not in the report.",
         (*CHANGED, "unverifiable", *FORMS), {"listed": lambda f: _without(f, "transcript/entry.dsse.json")}),
        ("entry-by-a-stranger", "14.4 (3)", "The entry that the challenge answers is signed by the auditor.",
         ("unknown-key",), {"entry": _acknowledged("auditor")}),
        ("entry-of-another-audit", "14.4 (3)", "An acknowledgement of another opened audit.", CHANGED,
         {"entry": _acknowledged("owner", opening="0" * 64)}),
        ("challenge-about-another-certificate", "14.4 (3)", "A challenge that names another certificate's digest.", CHANGED,
         {"challenge": lambda c: dataclasses.replace(c, subject="0" * 64)}),
        ("entry-about-another-certificate", "14.4 (3)", "An acknowledgement for another certificate.", CHANGED,
         {"entry": _acknowledged("owner", certificate="0" * 64)}),
        ("path-upwards", "8.1 (a)", "A path that leads out of the folder.", FORMS,
         {"manifest": lambda m: m.replace(b'"path":"report.html"', b'"path":"../report.html"')}),
        ("path-absolute", "8.1 (a)", "An absolute path.", FORMS,
         {"manifest": lambda m: m.replace(b'"path":"report.html"', b'"path":"/etc/passwd"')}),
        ("path-backslash", "8.1 (a)", "A path with a backslash.", FORMS,
         {"manifest": lambda m: m.replace(b'"path":"report.html"', b'"path":"report\\\\html"')}),
        ("path-of-a-device", "8.1 (a)", "A device name of Windows.", FORMS,
         {"listed": lambda f: {**f, "nul.html": b"x"}}),
        ("paths-differ-in-case", "8.1 (b)", "Two paths that differ only in case.", FORMS,
         {"listed": lambda f: {**f, "Report.html": b"x"}}),
        ("manifest-unsorted", "8.1", "The manifest's files are not sorted.", FORMS,
         {"manifest": forge.changed_json(lambda v: v.update(files=v["files"][::-1]))}),
        ("manifest-spaces", "8.1, 2.2", "The manifest in another spelling.", FORMS,
         {"manifest": lambda m: m.replace(b'":', b'": ', 1)}),
        ("manifest-duplicate-key", "2.1 (b)", "The manifest has `refers` twice.", FORMS,
         {"manifest": lambda m: m.replace(b'"refers":', b'"refers":"x","refers":')}),
        ("manifest-version", "1.4 (d)", "A manifest of a version that nobody knows.", ("unsupported-version",),
         {"manifest": lambda m: m.replace(b"manifest/v1", b"manifest/v2")}),
        ("signed-by-the-owner", "6.4", "The owner signed the report.", ("unknown-key",),
         {"signers": {"report": ("owner",)}}),
        ("no-quorum", "6.4", "Too few witnesses saw the auditor's log.", ("no-quorum",),
         {"notes": {AUDITOR_LOG: lambda log: cosigned(log, forge.WITNESSES[:1])}}),
    )  # fmt: skip
    for name, clause, why, reasons, fields in changes:
        _write(root, name, clause, why, *report(**fields), exit=4, reasons=reasons)


def _without(files: Files, name: str) -> Files:
    return {path: data for path, data in files.items() if path != name}
