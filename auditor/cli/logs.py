"""Logs: verify and watch them, cosign their checkpoints, and receipts in other people's forms."""

import signal
import sys
import threading
from pathlib import Path

import click

from auditor.cli.program import KEY, POLICY, TRUST, Program, fresh, read, read_policy, read_trust
from protocol import keys
from protocol.encoding import format_time
from protocol.errors import AuditorError, Consistency, Error, NoQuorum, Rollback, VerificationError
from protocol.program import FILE, JSON, NOW, OUT, PATH, clock, done, with_options


@click.command("verify-log")
@click.argument("log")
@click.option("--state", type=PATH, help="Remember the checkpoint here, and check that the log only grew.")
@click.option("--max-age", type=click.IntRange(1), help="Refuse a checkpoint whose witness time is older, in seconds.")
@click.option("--trust", type=FILE, help="Trusted signers: then also what was logged is looked at.")
@click.option("--beside", multiple=True, help="A further log (folder or URL) whose entries belong to these.")
@click.option("--receipt", "receipts", multiple=True, type=FILE, help="Watch for its records; remembered in --state.")
@click.option("--slip", "slips", multiple=True, type=FILE, help="Opens records of a later commitment.")
@with_options(POLICY, NOW, JSON)
def verify_log(
    log: str,
    state: Path | None,
    max_age: int | None,
    trust: Path | None,
    beside: tuple[str, ...],
    receipts: tuple[Path, ...],
    slips: tuple[Path, ...],
    policy: Path,
    now: int | None,
    as_json: bool,
) -> None:
    """Check every file of a log, a folder or an http(s) URL, against its signed checkpoint.

    With --state: that it extends what was seen before. With --trust: whether audits were opened without a
    report, whether certificates name the right predecessors, and, given receipts and slips, what superseded a receipt
    and whether a record that was forgotten is in a later commitment.
    """
    from auditor import monitor, succession
    from protocol import trust as trust_file
    from protocol.log import policy as policy_file
    from protocol.log import source, verify, witness

    if trust is None and (beside or receipts or slips):
        raise AuditorError("--beside, --receipt and --slip need --trust: whose entries count?")
    trusted = policy_file.parse(read_policy(policy))
    signers = trust_file.parse(read_trust(trust)) if trust is not None else None
    summaries, entries = [], []
    try:
        for name in (log, *beside):
            place = source.place(name)
            with source.reading(place) as fetch:
                if isinstance(place, Path):
                    summary = (
                        witness.watch(place, trusted, state)
                        if state is not None
                        else verify.verify_log(place, trusted, keep_leaves=False)
                    )
                elif state is not None:
                    summary = witness.watch_served(fetch, trusted, state)
                else:
                    summary = verify.verify_served(fetch, trusted, keep_leaves=False)
                if max_age is not None:
                    verify.verify_fresh(summary.checkpoint, now=clock(now), max_age=max_age)
                if signers is not None:
                    entries += monitor.read_entries(fetch, summary, signers)
            summaries.append((name, summary))
    except (Consistency, Rollback) as error:
        if state is None or not isinstance(error, Consistency):
            raise
        # Two checkpoints, both signed by the log, that no append-only log can have: that is proof, and both are kept.
        done(as_json, ["finding: equivocation (monitor): the log signed two histories"],
              findings=[{"threat": "equivocation", "check": "monitor"}])  # fmt: skip
        Program.fail(error, 3)
    lines = []
    for name, summary in summaries:
        checkpoint = summary.checkpoint
        when = f", witnessed by {format_time(checkpoint.time)}" if checkpoint.time is not None else ""
        witnesses = ", ".join(sorted(checkpoint.cosigned)) or "none"
        lines.append(
            f"{name}: {summary.size} entries of {summary.origin}, every file checked; witnesses: {witnesses}{when}"
        )
    found = None
    if signers is not None:
        files = [(str(path), read(path, 64 << 20)) for path in receipts]
        forgotten = monitor.forgotten_records(files, policy=trusted, trust=signers)
        for name, data in _remembered_receipts(state, files) if state is not None else ():
            try:
                forgotten |= monitor.forgotten_records([(name, data)], policy=trusted, trust=signers)
            except Error as error:
                # Its key was revoked since, perhaps: that must not stop the watch for the others.
                lines.append(f"note: a remembered receipt no longer verifies: {error}")
        if state is not None:
            _remember_receipts(state, files)
        found = monitor.watch(
            entries, now=clock(now), forgotten=forgotten, slips=[(str(path), read(path, 1 << 28)) for path in slips]
        )
        for name, data in files:
            lines += [f"note: {name}: {sentence}" for sentence in succession.of_receipt(entries, data)]
        lines.append(
            f"{len(entries)} messages of trusted signers; {len(forgotten)} records of receipts are watched for"
        )
        lines += [f"finding: {f.threat} ({f.check}): {f.message}" for f in found.findings]
        lines += [f"note: {note}" for note in found.notes]
    first = summaries[0][1]
    done(
        as_json,
        lines,
        origin=first.origin,
        size=first.size,
        root=first.root.hex(),
        quorum=first.checkpoint.quorum_met,
        # Without --trust nobody looked at what was logged: no findings is then not the same as none.
        **({"findings": [{"threat": f.threat, "check": f.check} for f in found.findings]} if found is not None else {}),
    )
    for name, summary in summaries:
        if trusted.quorum != "none" and not summary.checkpoint.quorum_met:
            raise NoQuorum("the quorum has not cosigned this checkpoint; run the witnesses", where=f"{name}/checkpoint")
    if found is not None and found.findings:
        sys.exit(3 if found.proven else 5)


def _remembered_receipts(state: Path, given: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    known = {data for _, data in given}
    kept = [(str(path), read(path, 64 << 20)) for path in sorted((state / "receipts").glob("*.receipt"))]
    return [(name, data) for name, data in kept if data not in known]


def _remember_receipts(state: Path, files: list[tuple[str, bytes]]) -> None:
    from auditor.files import write_atomic
    from protocol.digests import sha256_hex

    for _, data in files:
        path = state / "receipts" / f"{sha256_hex(data)}.receipt"
        if not path.exists():
            write_atomic(path, data, secret=True)


def _log_keys(policy: Path | None, log_key: str | None, origin: str | None) -> list[keys.VerifierKey]:
    from protocol.log import policy as policy_file

    if (policy is None) == (log_key is None):
        raise AuditorError("give the log's key by --policy or by --log-key")
    if log_key is not None:
        return [keys.parse_vkey(log_key)]
    assert policy is not None
    return [e.key for e in policy_file.parse(read_policy(policy)).logs if origin is None or e.key.name == origin]


STATE = click.option(
    "--state", required=True, type=PATH, help="What the witness remembers; it has to outlive every run."
)


@click.command()
@click.argument("log")
@STATE
@click.option("--policy", type=FILE, help="Where the log's key stands.")
@click.option("--log-key", help="The log's verifier key, instead of --policy.")
@click.option("--out", type=PATH, help="For a log at a URL: where to write the cosigned checkpoint.")
@with_options(KEY, NOW, JSON)
def witness(
    log: str,
    state: Path,
    policy: Path | None,
    log_key: str | None,
    out: Path | None,
    key: Path,
    now: int | None,
    as_json: bool,
) -> None:
    """Cosign a log's checkpoint if it extends what this witness saw before; the log is a folder or a URL."""
    from auditor.files import write_atomic
    from auditor.ledger import Ledger
    from protocol.log import checkpoint, source
    from protocol.log import witness as command
    from protocol.log.verify import CHECKPOINT

    place = source.place(log)
    if isinstance(place, str) and out is None:
        raise AuditorError("a log at a URL cannot be written to; give --out for the cosigned checkpoint")
    with source.reading(place) as fetch:
        data = fetch(CHECKPOINT, checkpoint.MAX_CHECKPOINT)
        if data is None:
            raise VerificationError("is missing; is this a log's folder?", where=f"{log}/{CHECKPOINT}")
        try:
            origin = checkpoint.parse_signed(data)[1].origin
        except Error as error:
            raise error.at(f"{log}/{CHECKPOINT}") from None
        known = _log_keys(policy, log_key, origin)
        if not known:
            raise VerificationError(f"the policy lists no log {origin!r}", where=log)
        signing = keys.load_signing_key(key)
        try:
            if isinstance(place, Path):
                cosigned = command.cosign(place, signing, state, clock(now), log_key=known[0])
            else:
                cosigned = command.cosign_served(fetch, signing, state, clock(now), log_key=known[0])
        except Consistency as error:
            # Two checkpoints, both signed by the log, that no append-only log can have: proof, and both are kept.
            Program.fail(error, 3)
    if isinstance(place, Path):
        # Where the log is this auditor's own: deadlines count from when a challenge was first seen, so that is kept.
        Ledger(log=place).settle()
    if out is not None:
        write_atomic(out, cosigned)
    size = checkpoint.parse_signed(cosigned)[1].size
    done(as_json, [f"{log}: {size} entries of {known[0].name} cosigned"], size=size, origin=known[0].name)


@click.command("witness-serve")
@STATE
@click.option("--key", "key_files", required=True, multiple=True, type=FILE, help="Witness key; one of each type.")
@click.option("--policy", type=FILE, help="Where the logs' keys stand.")
@click.option("--log-key", help="A log's verifier key, instead of --policy.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="HOST:PORT; port 0 for any free one.")
@click.option("--prefix", default="", help="Path before /add-checkpoint, beginning with /.")
@with_options(NOW, JSON)
def witness_serve(
    state: Path,
    key_files: tuple[Path, ...],
    policy: Path | None,
    log_key: str | None,
    listen: str,
    prefix: str,
    now: int | None,
    as_json: bool,
) -> None:
    """Answer as a witness over HTTP (C2SP tlog-witness: add-checkpoint), until interrupted."""
    from protocol.log.witness import Memory
    from protocol.log.witness_http import Witness, serve

    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or not port.isascii() or int(port) > 65_535:
        raise AuditorError(f"{listen!r} is not HOST:PORT")
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise AuditorError("a prefix begins with / and does not end with it")
    logs: dict[str, list[keys.VerifierKey]] = {}
    for known in _log_keys(policy, log_key, None):
        logs.setdefault(known.name, []).append(known)
    own = [keys.load_signing_key(path) for path in key_files]
    if any(key.use not in keys.WITNESS_TYPES for key in own):
        raise AuditorError("a witness's keys are made with keygen --use witness or witness-ml-dsa")
    answering = Witness(keys=own, logs=logs, memory=Memory(folder=state), clock=lambda: clock(now))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, lambda *_: stop.set())
    with serve(answering, host=host.strip("[]"), port=int(port), prefix=prefix) as url:
        done(as_json, [f"{url}: a witness for {', '.join(sorted(logs))}"], url=url, logs=sorted(logs))
        sys.stdout.flush()
        while not stop.wait(0.2):
            pass


@click.command()
@click.argument("log", type=click.Path(path_type=Path, exists=True, file_okay=False))
@with_options(POLICY, JSON)
def cosign(log: Path, policy: Path, as_json: bool) -> None:
    """Have a log's checkpoint cosigned by the witnesses that the policy names with an address."""
    from auditor.ledger import Ledger
    from protocol.log import policy as policy_file
    from protocol.log.publish import publish

    lines, facts, complaint = publish(log, policy_file.parse(read_policy(policy))).told(str(log))
    Ledger(log=log).settle()
    done(as_json, lines, **facts)
    if complaint is not None:
        raise complaint


@click.command("export-receipt")
@click.argument("receipt", type=FILE)
@click.option("--format", "shape", required=True, type=click.Choice(["sigstore", "svr"]), help="See SPEC 14.5.")
@click.option("--key", type=FILE, help="For svr: the statement key of whoever verified the receipt.")
@with_options(POLICY, TRUST, OUT, NOW, click.option("--force", is_flag=True, help="Overwrite what is there."), JSON)
def export_receipt(
    receipt: Path,
    shape: str,
    key: Path | None,
    policy: Path,
    trust: Path,
    out: Path,
    now: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Verify a receipt and write it as a Sigstore bundle, or as a signed in-toto Simple Verification Result."""
    from auditor import exports, receipts, trusted
    from auditor.files import write_atomic
    from protocol.receipt_file import MAX_RECEIPT

    fresh(out, force)
    if (shape == "svr") != (key is not None):
        raise AuditorError("an svr is signed by whoever verified: give --key with --format svr, and only there")
    data, policy_bytes, trust_bytes = read(receipt, MAX_RECEIPT), read_policy(policy), read_trust(trust)
    logs, signers = trusted.read(policy_bytes, trust_bytes)
    try:
        result = receipts.verify(data, policy=logs, trust=signers)
    except Error as error:
        error.where = f"{receipt}, {error.where}" if error.where else str(receipt)
        raise
    if key is None:
        made = exports.sigstore_bundle(data, signers.keys("auditor"))
    else:
        made = exports.simple_verification_result(
            data,
            result,
            policy=logs,
            policy_bytes=policy_bytes,
            trust_bytes=trust_bytes,
            key=keys.load_signing_key(key),
            now=clock(now),
        )
    write_atomic(out, made)
    done(as_json, [f"{out}: {shape}, verdict {result.verdict}"], format=shape, verdict=result.verdict, out=str(out))
