"""Cases of `verify-log` and `witness`: whole logs, damaged files, and logs that show two faces."""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from protocol.encoding import format_time
from protocol.keys import SigningKey
from protocol.log import merkle
from tests.conformance import case, forge
from tests.conformance.case import Step
from tests.conformance.forge import (
    OWNER_LOG,
    START,
    WITNESSES,
    MiniLog,
    cosigned,
    filler,
    flip,
    key,
    log_files,
    policy_text,
    tiles_of,
    witness_line,
)

FORMS = ("malformed", "non-canonical", "schema")
DAMAGE = (*FORMS, "digest-mismatch")
CALL = ("verify-log", "@log", "--policy", "@policy.txt")
Files = dict[str, bytes]


def log_of(size: int, *, first: Mapping[int, bytes] | None = None) -> MiniLog:
    """A log of so many entries."""
    log = MiniLog(OWNER_LOG, [filler(number) for number in range(size)])
    for place, entry in (first or {}).items():
        log.entries[place] = entry
    return log


def verified(log: MiniLog) -> dict[str, Any]:
    """What a program has to say of a good log."""
    root = merkle.root_from_leaves(log.entries).hex()
    return {"origin": log.origin, "size": len(log.entries), "root": root, "quorum": True}


def folder(files: Mapping[str, bytes], name: str = "log") -> Files:
    """Files below a folder of this name."""
    return {f"{name}/{path}": data for path, data in files.items()}


def _single(
    root: Path, name: str, clause: str, why: str, files: Mapping[str, bytes], *, policy: str | None = None,
    call: tuple[str, ...] = CALL, **expected: Any,
) -> Path:  # fmt: skip
    case.write(
        root, f"log/{name}", clause=clause, why=why, steps=[Step(arguments=call, **expected)],
        files={**folder(files), "policy.txt": (policy or policy_text()).encode()},
    )  # fmt: skip
    return root / "log" / name


def _valid(root: Path) -> None:
    for size in (0, 1, 2, 3, 255, 256, 257, 300, 513):
        log = log_of(size)
        _single(
            root, f"of-{size}", "5.4, 5.7", f"A log of {size} entries.", log_files(log), exit=0, result=verified(log)
        )
    log = log_of(300)
    older = {**tiles_of(log.entries, 3), **tiles_of(log.entries, 260), **log_files(log)}
    _single(
        root, "older-partial-tiles", "5.7 (3)", "Partial tiles of earlier sizes are still there.", older, exit=0,
        result=verified(log),
    )  # fmt: skip
    log = log_of(260, first={7: b"x" * 65_535, 8: b""})
    _single(
        root, "longest-entry", "5.4 (c)", "An entry of 65,535 bytes, and an empty one.", log_files(log), exit=0,
        result=verified(log),
    )  # fmt: skip
    log = log_of(5)
    text = log.text()
    alone = log.signed(text, [log.own_line(text)])
    _single(
        root, "no-witness-asked", "5.6", "The policy asks for no witness.", log_files(log, alone),
        policy=policy_text(quorum="none"), exit=0, result=verified(log),
    )  # fmt: skip
    # A full tile in the place of a partial one: the log grew after its checkpoint was read.
    log = log_of(200)
    grown = log_of(256)
    files = {name: data for name, data in log_files(log).items() if name == "checkpoint"} | tiles_of(grown.entries)
    _single(
        root, "full-in-the-place-of-partial", "5.4 (d), 5.7",
        "The tiles are those of a later size than the checkpoint: a folder has to be what its checkpoint says.",
        files, exit=4, reasons=DAMAGE,
    )  # fmt: skip


def _changed(files: Files, path: str, change: Callable[[bytes], bytes]) -> Files:
    return {**files, path: change(files[path])}


def _invalid(root: Path) -> None:
    log = log_of(300)
    files = log_files(log)
    bundle, tile, top = "tile/entries/000", "tile/0/000", "tile/1/000.p/1"
    part = "tile/entries/001.p/44"
    text = log.text()
    bad: list[tuple[str, str, str, Files, tuple[str, ...]]] = [
        ("entry-changed", "5.7 (2)", "One bit of an entry.", _changed(files, bundle, lambda d: flip(d, 100)), DAMAGE),
        ("length-changed", "5.4 (a)", "The length of an entry.", _changed(files, bundle, lambda d: flip(d, 1)), DAMAGE),
        ("tile-changed", "5.7 (3)", "One bit of a hash tile.", _changed(files, tile, lambda d: flip(d, 77)), DAMAGE),
        ("upper-tile-changed", "5.7 (3)", "One bit of a hash tile of level 1.",
         _changed(files, top, lambda d: flip(d, 3)), DAMAGE),
        ("entries-swapped", "5.7 (2)", "Two entries have changed places.",
         {**files, bundle: tiles_of([log.entries[1], log.entries[0], *log.entries[2:]])[bundle]}, DAMAGE),
        ("entry-too-many", "5.4 (a)", "A bundle of one entry more than it says.",
         _changed(files, part, lambda d: d + b"\0\1x"), DAMAGE),
        ("bundle-cut", "5.4 (a)", "A bundle that ends inside an entry.", _changed(files, part, lambda d: d[:-1]), DAMAGE),
        ("hash-too-short", "5.4 (a)", "A hash tile that lacks a byte.",
         _changed(files, tile, lambda d: d[:-1]), DAMAGE),
        ("wrong-width", "5.4 (b), 5.7 (3)", "A tile says a width that it does not have.",
         {**files, "tile/0/001.p/43": files["tile/0/001.p/44"]}, (*DAMAGE, "too-large")),
        ("width-0", "5.4 (b)", "A tile of width 0.", {**files, "tile/0/001.p/0": b""}, DAMAGE),
        ("width-256", "5.4 (b)", "A full tile under the name of a partial one.",
         {**files, "tile/0/000.p/256": files[tile]}, DAMAGE),
        ("width-leading-zero", "5.4 (b), 1.4 (b)", "A width with a leading zero.",
         {**files, "tile/0/001.p/044": files["tile/0/001.p/44"]}, DAMAGE),
        ("number-with-zero-group", "5.4 (b)", "A number with a group of zeros in front.",
         {**files, "tile/0/x000/000": files[tile]}, DAMAGE),
        ("beyond-the-size", "5.7 (3)", "A tile of entries that the checkpoint does not have.",
         {**files, "tile/0/002.p/1": bytes(32)}, DAMAGE),
        ("level-8", "5.4 (a)", "A tile of a level that there is not.", {**files, "tile/8/000.p/1": bytes(32)}, DAMAGE),
        ("garbage-tile", "5.7 (3)", "A partial tile of an earlier size with other hashes.",
         {**files, "tile/0/000.p/3": bytes(96)}, DAMAGE),
        ("another-file", "5.7 (3)", "A file that is no tile.", {**files, "README": b"hello"}, DAMAGE),
        ("tile-missing", "5.7 (4)", "A hash tile is missing.",
         {name: data for name, data in files.items() if name != tile}, DAMAGE),
        ("bundle-missing", "5.7 (4)", "A bundle is missing.",
         {name: data for name, data in files.items() if name != part}, DAMAGE),
        ("checkpoint-missing", "5.7 (1)", "There is no checkpoint.",
         {name: data for name, data in files.items() if name != "checkpoint"}, (*DAMAGE, "unverifiable")),
        ("checkpoint-torn", "5.1 (a)", "The checkpoint ends in the middle.",
         _changed(files, "checkpoint", lambda d: d[:-20]), (*FORMS, "bad-signature", "no-quorum")),
        ("checkpoint-of-another-log", "5.6 (1)", "A log that the policy does not list.",
         log_files(MiniLog("log.other.example", log.entries)), ("unknown-key",)),
        ("checkpoint-forged", "5.6 (2)", "Another size under the log's signature.",
         _changed(files, "checkpoint", lambda d: d.replace(b"\n300\n", b"\n299\n")), ("bad-signature",)),
        ("signed-by-a-stranger", "5.6 (2)", "A log of the right name, signed by another key of that name.",
         {**files, "checkpoint": log.signed(text, [
             log.own_line(text, SigningKey(name=OWNER_LOG, use=1, seed=bytes(32))),
             *(witness_line(name, text) for name in WITNESSES)])}, ("unknown-key",)),
        ("root-of-an-empty-tree", "5.2", "Size 0, and a root that is not that of the empty tree.",
         {"checkpoint": _other_root(log_of(0), bytes(32))}, (*FORMS, "digest-mismatch")),
        ("another-root", "5.7 (2)", "A root that the log signed, and that its entries do not have.",
         {**files, "checkpoint": _other_root(log, bytes(32))}, ("digest-mismatch",)),
        ("entry-of-65536-bytes", "5.4 (c)", "A tree over an entry of 65,536 bytes, whose length two bytes cannot hold.",
         log_files(log_of(5, first={2: b"x" * 65_536})), (*DAMAGE, "too-large")),
    ]  # fmt: skip
    for name, clause, why, contents, reasons in bad:
        _single(root, name, clause, why, contents, exit=4, reasons=reasons)
    one = log.signed(text, [log.own_line(text), witness_line(WITNESSES[0], text)])
    _single(
        root,
        "no-quorum",
        "5.6, 6.4",
        "One witness, two are needed.",
        log_files(log, one),
        exit=4,
        reasons=("no-quorum",),
    )
    place = _single(
        root,
        "symbolic-link",
        "5.7 (3)",
        "A tile is a link to a file of the right contents.",
        files,
        exit=4,
        reasons=DAMAGE,
    )
    (place / "elsewhere").write_bytes(files[tile])
    (place / "log" / tile).unlink()
    (place / "log" / tile).symlink_to("../../../elsewhere")
    # A frozen log: everything in order, and old.
    old = log_of(9)
    call = (*CALL, "--max-age", "3600", "--now")
    for name, why, now, expected in (
        ("not-frozen", "Seen an hour ago.", START + 1000 + 3600, {"exit": 0, "result": verified(old)}),
        ("frozen", "Seen an hour and a second ago: perhaps a frozen copy.", START + 1000 + 3601,
         {"exit": 4, "reasons": ("expired",)}),
    ):  # fmt: skip
        _single(root, name, "6.5", why, log_files(old), call=(*call, format_time(now)), **expected)


def _other_root(log: MiniLog, value: bytes) -> bytes:
    lines = log.text().split(b"\n")
    lines[2] = base64.b64encode(value)
    text = b"\n".join(lines)
    cosign = [forge.note.Signature(name=n, key_id=key(n, "witness").verifier.key_id,
                                   value=(START).to_bytes(8, "big") + key(n, "witness").sign(
                                       b"cosignature/v1\ntime %d\n" % START + text)).line for n in WITNESSES]  # fmt: skip
    return log.signed(text, [log.own_line(text), *cosign])


def _histories(root: Path) -> None:
    """Two or three looks at one log, with a memory between them."""
    small, large = log_of(5), log_of(300)
    forked = log_of(300, first={4: b"another history"})
    same_size = log_of(5, first={4: b"another history"})
    empty = log_of(0)
    good, split = {"exit": 0}, {"exit": 3, "reasons": ("consistency",)}
    looks: list[tuple[str, str, str, list[tuple[MiniLog, dict[str, Any]]]]] = [
        ("grows", "5.7 (5)", "The log grew, twice, and stands still once.",
         [(empty, good), (small, good), (large, good), (large, good)]),
        ("rollback", "5.7 (5)", "The log shows fewer entries than before. An old copy accuses nobody.",
         [(large, good), (small, {"exit": 4, "reasons": ("rollback",)}), (large, good)]),
        ("split-view", "5.7 (5), 5.8", "Another root for the same size: two histories, both signed.",
         [(small, good), (same_size, split)]),
        ("split-view-later", "5.8, 5.9", "A larger log that does not extend the one before.", [(small, good), (forked, split)]),
        ("split-view-is-not-remembered", "5.8", "After two histories the first one is still what is remembered.",
         [(small, good), (forked, split), (large, good), (forked, split)]),
        ("damage-is-no-split-view", "5.7", "Damaged tiles after a good look accuse nobody.", []),
    ]  # fmt: skip
    for name, clause, why, seen in looks:
        files: Files = {"policy.txt": policy_text().encode()}
        steps = []
        if not seen:
            files |= folder(log_files(small), "log0")
            files |= folder(_changed(log_files(large), "tile/0/000", lambda d: flip(d, 1)), "log1")
            steps = [("@log0", good), ("@log1", {"exit": 4, "reasons": DAMAGE}), ("@log0", good)]
        for number, (log, expected) in enumerate(seen):
            files |= folder(log_files(log), f"log{number}")
            steps.append((f"@log{number}", expected))
        case.write(
            root, f"log/{name}", clause=clause, why=why, files=files,
            steps=[
                Step(arguments=("verify-log", where, "--policy", "@policy.txt", "--state", "@state"), **expected)
                for where, expected in steps
            ],
        )  # fmt: skip
    # The same, for a witness that signs what it sees.
    witness = key("witness-of-the-kit", "witness")
    secret = {"witness.key": witness_file(witness)}
    call = ("--policy", "@policy.txt", "--key", "@witness.key", "--state", "@state", "--now", format_time(START + 2000))
    for name, clause, why, seen in looks:
        if not seen:
            continue
        files = {"policy.txt": policy_text().encode(), **secret}
        steps_of = []
        for number, (log, expected) in enumerate(seen):
            files |= folder(log_files(log), f"log{number}")
            wanted = dict(expected)
            if wanted["exit"] == 0:
                wanted["result"] = {"origin": log.origin, "size": len(log.entries)}
            steps_of.append(Step(arguments=("witness", f"@log{number}", *call), **wanted))
        case.write(root, f"witness/{name}", clause=clause, why=why, files=files, steps=steps_of)
    stranger = MiniLog("log.other.example", [filler(0)])
    forged = log_of(5)
    text = forged.text()
    for name, why, contents, reasons in (
        ("unlisted-log", "A log that the policy does not list is not cosigned.", log_files(stranger), ("unknown-key", "unverifiable")),
        ("not-signed-by-the-log", "A checkpoint without the log's own signature is not cosigned.",
         log_files(forged, forged.signed(text, [witness_line(WITNESSES[0], text)])), ("unknown-key",)),
        ("forged-checkpoint", "A checkpoint whose log signature does not verify is not cosigned.",
         _changed(log_files(forged), "checkpoint", lambda d: d.replace(b"\n5\n", b"\n4\n")), ("bad-signature",)),
        ("tiles-of-another-tree", "Tiles that do not lead to the checkpoint are not cosigned.",
         {**log_files(same_size), "checkpoint": cosigned(small)}, DAMAGE),
    ):  # fmt: skip
        case.write(
            root, f"witness/{name}", clause="5.8", why=why,
            files={**folder(contents), "policy.txt": policy_text().encode(), **secret},
            steps=[Step(arguments=("witness", "@log", *call), exit=4, reasons=reasons)],
        )  # fmt: skip


def witness_file(by: SigningKey) -> bytes:
    """A key file (SPEC 4.4)."""
    body = bytes([by.use]) + by.seed
    return f"PRIVATE+KEY+{by.name}+{by.verifier.key_id.hex()}+{base64.b64encode(body).decode()}\n".encode()


def write(root: Path) -> None:
    """Write every case of `verify-log` and `witness`."""
    _valid(root)
    _invalid(root)
    _histories(root)
